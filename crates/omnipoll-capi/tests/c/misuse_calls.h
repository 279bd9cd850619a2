/* Every function that takes a handle, as a call of one form, and what it returns for handles that are
 * none: for misuse.c. */
#ifndef MISUSE_CALLS_H
#define MISUSE_CALLS_H

#include "serving.h"

enum kind { POLLER, SERVER, LOOP, CONN, DATAGRAM, DATAGRAM_SOCKET, KINDS };

/* What the calls take besides the handle: nothing but the handle is to be wrong. */
static int file;         /* a regular file, not empty */
static int readable;     /* the end of a pipe */
static pid_t child;
static uint64_t timer;
static char room[4096];
static struct iovec piece = {room, 1};
static struct sockaddr_storage address;
static uint32_t address_length;
static struct sockaddr_in discard = {.sin_family = AF_INET};
static omni_event event;
static omni_loop_event loop_event;
static const char *const program[] = {"true", NULL};
static const uint8_t *start;
static omni_poller_statistics stats = {.size = sizeof stats};
static omni_server_statistics statistics = {.size = sizeof statistics};

static void ignore_finding(const omni_finding *finding, void *context)
{
    (void)finding, (void)context;
}

/* 0, unless it is an error: how long a text is or which number a descriptor has is not the question. */
static int fine(int result)
{
    return result < 0 ? result : 0;
}

/* Room for an address, which each call writes the length of. */
static uint32_t *has_room(void)
{
    address_length = sizeof address;
    return &address_length;
}

/* A datagram to somewhere where it does no harm. */
static int send_away(omni_datagram_socket *socket, int is_from_any)
{
    const struct sockaddr *to = (const struct sockaddr *)&discard;
    discard.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    discard.sin_port = htons(9);
    return is_from_any ? omni_datagram_socket_send_to(socket, to, sizeof discard, "x", 1)
                       : omni_datagram_socket_send_from(socket, to, sizeof discard, to, sizeof discard, "x", 1);
}

/* 0, where the server is right and not of the kind that can be restarted. */
static int unsupported(int result)
{
    return result == -ENOTSUP ? 0 : result;
}

static int duplicate(omni_server *server)
{
    int fd = omni_server_dup_listener(server, 0);
    if (fd >= 0)
        close(fd);
    return fd;
}

struct call {
    const char *name;
    int (*make)(void *handle);
    int null, stale, forked; /* what it returns for such handles */
};

/* What returns no negative errno is made an int. */
#define CALL(function, expression)        \
    static int call_##function(void *handle) \
    {                                     \
        return expression;                \
    }

CALL(omni_poller_engine, omni_poller_engine(handle) != 0)
CALL(omni_poller_capabilities, fine(omni_poller_capabilities(handle)))
CALL(omni_poller_add, omni_poller_add(handle, readable, OMNI_READ, 7))
CALL(omni_poller_modify, omni_poller_modify(handle, readable, OMNI_READ, 7))
CALL(omni_poller_set, omni_poller_set(handle, readable, OMNI_READ, 7))
CALL(omni_poller_rearm, omni_poller_rearm(handle, readable, OMNI_READ))
CALL(omni_poller_remove, omni_poller_remove(handle, readable))
CALL(omni_poller_wake, omni_poller_wake(handle))
CALL(omni_poller_wait, fine(omni_poller_wait(handle, &event, 1, 0)))
CALL(omni_poller_timer_add, omni_poller_timer_add(handle, INT64_MAX, 0, 7, &timer))
CALL(omni_poller_timer_add_at, omni_poller_timer_add_at(handle, INT64_MAX, 7, NULL))
CALL(omni_poller_timer_set, omni_poller_timer_set(handle, timer, INT64_MAX, 0))
CALL(omni_poller_timer_cancel, omni_poller_timer_cancel(handle, timer))
CALL(omni_poller_signal_add, omni_poller_signal_add(handle, SIGUSR2, 7))
CALL(omni_poller_signal_remove, omni_poller_signal_remove(handle, SIGUSR2))
CALL(omni_poller_child_add, omni_poller_child_add(handle, child, 7))
CALL(omni_poller_child_remove, omni_poller_child_remove(handle, child))
CALL(omni_poller_post, omni_poller_post(handle, 7, 7))
CALL(omni_poller_on_finding, omni_poller_on_finding(handle, ignore_finding, NULL))
CALL(omni_poller_stats, omni_poller_stats(handle, &stats))
CALL(omni_poller_dump, fine(omni_poller_dump(handle, room, sizeof room)))
CALL(omni_poller_after_fork, omni_poller_after_fork(handle))
CALL(omni_poller_free, (omni_poller_free(handle), 0))

CALL(omni_server_engine, omni_server_engine(handle) != 0)
CALL(omni_server_model, omni_server_model(handle) != 0)
CALL(omni_server_workers, fine(omni_server_workers(handle)))
CALL(omni_server_prometheus, fine(omni_server_prometheus(handle, room, sizeof room)))
CALL(omni_server_stats, omni_server_stats(handle, 0, &statistics))
CALL(omni_server_listen, omni_server_listen(handle, "127.0.0.1:0"))
CALL(omni_server_address, fine(omni_server_address(handle, room, sizeof room)))
CALL(omni_server_datagram_sockets, omni_server_datagram_sockets(handle, NULL, 0))
CALL(omni_server_dup_listener, fine(duplicate(handle)))
CALL(omni_server_keep_files, omni_server_keep_files(handle))
CALL(omni_server_notify, omni_server_notify(handle, "STATUS=x"))
CALL(omni_server_broadcast, fine(omni_server_broadcast(handle, "x", 1)))
CALL(omni_server_broadcast_except, fine(omni_server_broadcast_except(handle, "x", 1, NULL)))
CALL(omni_server_broadcast_group, fine(omni_server_broadcast_group(handle, "none", "x", 1, NULL)))
CALL(omni_server_stop, omni_server_stop(handle, 0))
CALL(omni_server_run_once, fine(omni_server_run_once(handle, 0)))
CALL(omni_server_descriptor, fine(omni_server_descriptor(handle)))
CALL(omni_server_restart, unsupported(omni_server_restart(handle)))
CALL(omni_server_restart_workers, unsupported(omni_server_restart_workers(handle)))
CALL(omni_server_run, omni_server_run(handle))
CALL(omni_server_free, (omni_server_free(handle), 0))

CALL(omni_loop_poller, omni_loop_poller(handle) != NULL)
CALL(omni_loop_listen, omni_loop_listen(handle, "127.0.0.1:0", NULL, 7))
CALL(omni_loop_address, fine(omni_loop_address(handle, room, sizeof room)))
CALL(omni_loop_connect_datagrams, omni_loop_connect_datagrams(handle, "udp:127.0.0.1:9", 7, NULL))
CALL(omni_loop_write, omni_loop_write(handle, NULL, 0))
CALL(omni_loop_run_once, fine(omni_loop_run_once(handle, 0)))
CALL(omni_loop_wait, fine(omni_loop_wait(handle, &loop_event, 1, 0)))
CALL(omni_loop_buffer, omni_loop_buffer(handle, &start, NULL))
CALL(omni_loop_connect, omni_loop_connect(handle, "127.0.0.1:1", NULL, NULL, 7, NULL))
CALL(omni_loop_spawn, omni_loop_spawn(handle, program, NULL, NULL, 7, NULL))
CALL(omni_loop_descriptor, fine(omni_loop_descriptor(handle)))
CALL(omni_loop_broadcast, fine(omni_loop_broadcast(handle, "x", 0)))
CALL(omni_loop_broadcast_except, fine(omni_loop_broadcast_except(handle, "x", 0, NULL)))
CALL(omni_loop_broadcast_group, fine(omni_loop_broadcast_group(handle, "none", "x", 0, NULL)))
CALL(omni_loop_stop, omni_loop_stop(handle, 0))
CALL(omni_loop_run, omni_loop_run(handle))
CALL(omni_loop_free, (omni_loop_free(handle), 0))

CALL(omni_conn_id, omni_conn_id(handle) == (uint64_t)(uintptr_t)handle)
CALL(omni_conn_peer_sockaddr, omni_conn_peer_sockaddr(handle, (struct sockaddr *)&address, has_room()))
CALL(omni_conn_peer, fine(omni_conn_peer(handle, room, sizeof room)))
CALL(omni_conn_local, fine(omni_conn_local(handle, room, sizeof room)))
CALL(omni_conn_queued, fine(omni_conn_queued(handle)))
CALL(omni_conn_fd, fine(omni_conn_fd(handle)))
CALL(omni_conn_worker, fine(omni_conn_worker(handle)))
CALL(omni_conn_stopping, omni_conn_stopping(handle))
CALL(omni_conn_has_ended, omni_conn_has_ended(handle))
CALL(omni_conn_loop, omni_conn_loop(handle) != NULL)
CALL(omni_conn_set_token, omni_conn_set_token(handle, 7))
CALL(omni_conn_token, omni_conn_token(handle) == 7)
CALL(omni_conn_is_outgoing, omni_conn_is_outgoing(handle))
CALL(omni_conn_relay, omni_conn_relay(handle, handle))
CALL(omni_conn_write_proxy_header, fine(omni_conn_write_proxy_header(handle, 1, NULL)))
CALL(omni_conn_set_context, omni_conn_set_context(handle, room))
CALL(omni_conn_context, omni_conn_context(handle) == room)
CALL(omni_conn_set_idle_timeout, omni_conn_set_idle_timeout(handle, 0))
CALL(omni_conn_set_read_timeout, omni_conn_set_read_timeout(handle, 0))
CALL(omni_conn_set_write_timeout, omni_conn_set_write_timeout(handle, 0))
CALL(omni_conn_restart_timeouts, omni_conn_restart_timeouts(handle))
CALL(omni_conn_set_frame_until, omni_conn_set_frame_until(handle, "\n", 1, 100))
CALL(omni_conn_set_frame_exactly, omni_conn_set_frame_exactly(handle, 1))
CALL(omni_conn_set_frame_at_least, omni_conn_set_frame_at_least(handle, 1))
CALL(omni_conn_set_frame_any, omni_conn_set_frame_any(handle))
CALL(omni_conn_set_timer, omni_conn_set_timer(handle, -1))
CALL(omni_conn_write, fine(omni_conn_write(handle, "x", 1)))
CALL(omni_conn_writev, fine(omni_conn_writev(handle, &piece, 1)))
CALL(omni_conn_send_file, omni_conn_send_file(handle, file, 0, 1))
CALL(omni_conn_pause, omni_conn_pause(handle))
CALL(omni_conn_resume, omni_conn_resume(handle))
CALL(omni_conn_post, omni_conn_post(handle, 7))
CALL(omni_conn_join, omni_conn_join(handle, "group"))
CALL(omni_conn_leave, omni_conn_leave(handle, "group"))
CALL(omni_conn_shutdown, omni_conn_shutdown(handle))
CALL(omni_conn_close, omni_conn_close(handle))
CALL(omni_conn_abort, omni_conn_abort(handle))

CALL(omni_datagram_reply, omni_datagram_reply(handle, "x", 1))
CALL(omni_datagram_peer, fine(omni_datagram_peer(handle, room, sizeof room)))
CALL(omni_datagram_local, fine(omni_datagram_local(handle, room, sizeof room)))
CALL(omni_datagram_peer_sockaddr,
     omni_datagram_peer_sockaddr(handle, (struct sockaddr *)&address, has_room()))
CALL(omni_datagram_local_sockaddr,
     omni_datagram_local_sockaddr(handle, (struct sockaddr *)&address, has_room()))
CALL(omni_datagram_receiver, omni_datagram_receiver(handle) != NULL)

CALL(omni_datagram_socket_send_to, send_away(handle, 1))
CALL(omni_datagram_socket_send_from, send_away(handle, 0))
CALL(omni_datagram_socket_local, fine(omni_datagram_socket_local(handle, room, sizeof room)))
CALL(omni_datagram_socket_peer, fine(omni_datagram_socket_peer(handle, room, sizeof room)))
/* What is not connected takes the right handle, and says so. */
CALL(omni_datagram_socket_send, omni_datagram_socket_send(handle, "x", 1))
CALL(omni_datagram_socket_close, omni_datagram_socket_close(handle))

#define ROW(function, null, stale, forked) {#function, call_##function, null, stale, forked}

/* Each in an order in which all of them can be made. */
static const struct call of_pollers[] = {
    ROW(omni_poller_engine, 0, 0, 1),
    ROW(omni_poller_capabilities, -EINVAL, -ESTALE, 0),
    ROW(omni_poller_add, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_modify, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_set, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_rearm, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_remove, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_wake, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_wait, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_timer_add, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_timer_add_at, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_timer_set, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_timer_cancel, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_signal_add, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_signal_remove, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_child_add, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_child_remove, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_post, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_on_finding, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_stats, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_dump, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_poller_after_fork, -EINVAL, -ESTALE, 0),
    ROW(omni_poller_free, 0, 0, 0),
};

static const struct call of_servers[] = {
    ROW(omni_server_engine, 0, 0, 1),
    ROW(omni_server_model, 0, 0, 1),
    ROW(omni_server_workers, -EINVAL, -ESTALE, 0),
    ROW(omni_server_prometheus, -EINVAL, -ESTALE, 0),
    ROW(omni_server_datagram_sockets, -EINVAL, -ESTALE, 0),
    ROW(omni_server_stats, -EINVAL, -ESTALE, 0),
    ROW(omni_server_listen, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_address, -EINVAL, -ESTALE, 0),
    ROW(omni_server_dup_listener, -EINVAL, -ESTALE, 0),
    ROW(omni_server_keep_files, -EINVAL, -ESTALE, 0),
    ROW(omni_server_restart, -EINVAL, -ESTALE, 0),
    ROW(omni_server_restart_workers, -EINVAL, -ESTALE, 0),
    ROW(omni_server_notify, -EINVAL, -ESTALE, 0),
    ROW(omni_server_broadcast, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_broadcast_except, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_broadcast_group, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_stop, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_run_once, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_descriptor, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_run, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_free, 0, 0, 0),
};

static const struct call of_loops[] = {
    ROW(omni_loop_poller, 0, 0, 1),
    ROW(omni_loop_listen, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_address, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_connect_datagrams, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_write, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_run_once, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_wait, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_buffer, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_connect, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_spawn, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_descriptor, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_broadcast, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_broadcast_except, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_broadcast_group, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_stop, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_run, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_loop_free, 0, 0, 0),
};

static const struct call of_connections[] = {
    ROW(omni_conn_id, 1, 1, 1),
    ROW(omni_conn_peer, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_peer_sockaddr, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_local, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_queued, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_fd, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_worker, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_stopping, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_has_ended, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_loop, 0, 0, 0),
    ROW(omni_conn_set_token, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_token, 0, 0, 0),
    ROW(omni_conn_is_outgoing, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_relay, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_write_proxy_header, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_context, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_context, 0, 0, 0),
    ROW(omni_conn_set_idle_timeout, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_read_timeout, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_write_timeout, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_restart_timeouts, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_frame_until, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_frame_exactly, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_frame_at_least, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_frame_any, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_timer, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_write, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_writev, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_send_file, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_pause, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_resume, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_post, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_join, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_leave, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_shutdown, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_close, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_abort, -EINVAL, -ESTALE, -EOWNERDEAD),
};

static const struct call of_datagrams[] = {
    ROW(omni_datagram_reply, -EINVAL, -ESTALE, -ESTALE),
    ROW(omni_datagram_peer, -EINVAL, -ESTALE, -ESTALE),
    ROW(omni_datagram_local, -EINVAL, -ESTALE, -ESTALE),
    ROW(omni_datagram_peer_sockaddr, -EINVAL, -ESTALE, -ESTALE),
    ROW(omni_datagram_local_sockaddr, -EINVAL, -ESTALE, -ESTALE),
    ROW(omni_datagram_receiver, 0, 0, 0),
};

static const struct call of_datagram_sockets[] = {
    ROW(omni_datagram_socket_send_to, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_datagram_socket_send_from, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_datagram_socket_local, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_datagram_socket_peer, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_datagram_socket_send, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_datagram_socket_close, -EINVAL, -ESTALE, -EOWNERDEAD),
};

static const struct {
    const struct call *calls;
    size_t count;
} tables[KINDS] = {
    {of_pollers, sizeof of_pollers / sizeof *of_pollers},
    {of_servers, sizeof of_servers / sizeof *of_servers},
    {of_loops, sizeof of_loops / sizeof *of_loops},
    {of_connections, sizeof of_connections / sizeof *of_connections},
    {of_datagrams, sizeof of_datagrams / sizeof *of_datagrams},
    {of_datagram_sockets, sizeof of_datagram_sockets / sizeof *of_datagram_sockets},
};

#define EACH_CALL(call, kind) \
    const struct call *call = tables[kind].calls; call < tables[kind].calls + tables[kind].count; call++

static void expect(const struct call *call, void *handle, int expected)
{
    char what[96];
    snprintf(what, sizeof what, "%s of %p", call->name, handle);
    is(call->make(handle), expected, what, __LINE__);
    /* A signal handler may call these, which leave the words as they are. */
    if (expected < 0 && call->make != call_omni_poller_wake && call->make != call_omni_server_stop
        && call->make != call_omni_server_restart
        && call->make != call_omni_server_restart_workers
        && call->make != call_omni_loop_stop)
        is(strncmp(omni_last_error(), call->name, strlen(call->name)), 0, what, __LINE__);
}

#endif
