/* Every function that takes a handle, with handles that are not what it takes: NULL, stale, another
 * kind's, garbage, and the parent process's; and every function that takes another pointer with
 * NULL. Each returns what the header says, and touches nothing.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "misuse_calls.h"

#include <sys/prctl.h>

/* A handle of each kind that is good, or NULL where there is none at the moment, and a stale one. */
static void *live[KINDS], *stale[KINDS];
/* A server that does not run. */
static omni_server *idle;

/* ---- Wrong handles --------------------------------------------------------------------------- */

static void *handle_of(uint64_t number)
{
    return (void *)(uintptr_t)number;
}

static void use_wrong_handles(enum kind kind)
{
    /* No address is a handle. */
    const uint64_t garbage[] = {1, 2, 3, 4096, 0xdeadbeef, UINT32_MAX, UINT64_MAX, (uintptr_t)&kind};
    for (EACH_CALL(call, kind)) {
        expect(call, NULL, call->null);
        for (int other = 0; other < KINDS; other++) {
            if (stale[other])
                expect(call, stale[other], call->stale);
            if (other != (int)kind && live[other])
                expect(call, live[other], call->stale);
        }
        for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++)
            expect(call, handle_of(garbage[i]), call->stale);
        for (int bit = 0; bit < 64 && live[kind]; bit++) {
            void *other = handle_of((uintptr_t)live[kind] ^ UINT64_C(1) << bit);
            expect(call, other, other ? call->stale : call->null);
        }
    }
}

static void use_all_wrong_handles(void)
{
    for (int kind = 0; kind < KINDS; kind++)
        use_wrong_handles(kind);
}

/* ---- NULL for other pointers ----------------------------------------------------------------- */

static void null_pointers(uint32_t engine)
{
    const omni_handler handler = {.size = sizeof handler};
    omni_poller *poller = live[POLLER];
    omni_server *server = live[SERVER];
    IS(omni_poller_new(engine, 0, NULL), -EINVAL);
    IS(omni_poller_wait(poller, NULL, 1, 0), -EINVAL);
    IS(omni_poller_timer_add(poller, INT64_MAX, 0, 0, NULL), 0);
    IS(omni_poller_timer_add_at(poller, INT64_MAX, 0, NULL), 0);
    IS(omni_poller_on_finding(poller, NULL, NULL), -EINVAL);
    IS(omni_poller_stats(poller, NULL), -EINVAL);
    IS(omni_poller_dump(poller, NULL, 1), -EINVAL);
    IS(omni_model_by_name(NULL), -EINVAL);
    IS(omni_engine_by_name(NULL), -EINVAL);
    IS(omni_engine_features(engine, NULL, 1), -EINVAL);
    IS(omni_poller_new_with(NULL, &poller), -EINVAL);
    IS(omni_poller_new_with(&(omni_poller_options){.size = sizeof(omni_poller_options)}, NULL), -EINVAL);
    IS(omni_server_new(NULL, NULL, &server), -EINVAL);
    IS(omni_server_new(NULL, &handler, NULL), -EINVAL);
    IS(omni_server_listen(idle, NULL), -EINVAL);
    IS(omni_server_address(server, NULL, 1), -EINVAL);
    IS(omni_server_stats(server, 0, NULL), -EINVAL);
    IS(omni_server_broadcast(server, NULL, 1), -EINVAL);
    IS(omni_server_broadcast_except(server, NULL, 1, live[CONN]), -EINVAL);
    IS(omni_server_broadcast_group(server, "group", NULL, 1, NULL), -EINVAL);
    IS(omni_server_broadcast_group(server, NULL, "x", 1, NULL), -EINVAL);
    IS(omni_conn_join(live[CONN], NULL), -EINVAL);
    IS(omni_conn_leave(live[CONN], NULL), -EINVAL);
    IS(omni_loop_new(NULL, &handler, NULL), -EINVAL);
    IS(omni_loop_listen(live[LOOP], NULL, NULL, 0), -EINVAL);
    IS(omni_loop_address(live[LOOP], NULL, 1), -EINVAL);
    IS(omni_loop_write(live[LOOP], NULL, 1), -EINVAL);
    IS(omni_loop_broadcast(live[LOOP], NULL, 1), -EINVAL);
    IS(omni_loop_broadcast_except(live[LOOP], NULL, 1, live[CONN]), -EINVAL);
    IS(omni_loop_broadcast_group(live[LOOP], "group", NULL, 1, NULL), -EINVAL);
    IS(omni_loop_broadcast_group(live[LOOP], NULL, "x", 1, NULL), -EINVAL);
    IS(omni_loop_connect_datagrams(live[LOOP], NULL, 0, NULL), -EINVAL);
    IS(omni_loop_event_peer_sockaddr(NULL, &loop_event, (struct sockaddr *)&address, has_room()), -EINVAL);
    IS(omni_loop_event_local_sockaddr(NULL, &loop_event, (struct sockaddr *)&address, has_room()), -EINVAL);
    IS(omni_loop_event_peer_sockaddr(stale[LOOP], &loop_event, (struct sockaddr *)&address, has_room()), -ESTALE);
    IS(omni_loop_event_local_sockaddr(live[LOOP], NULL, (struct sockaddr *)&address, has_room()), -EINVAL);
    IS(omni_loop_connect(live[LOOP], NULL, NULL, NULL, 0, NULL), -EINVAL);
    IS(omni_loop_spawn(live[LOOP], NULL, NULL, NULL, 0, NULL), -EINVAL);
    IS(omni_conn_write(live[CONN], NULL, 1), -EINVAL);
    IS(server == live[SERVER], 1);
}

static void null_pointers_in_a_callback(omni_conn *conn)
{
    struct iovec nowhere = {NULL, 1};
    IS(omni_conn_write(conn, NULL, 1), -EINVAL);
    IS(omni_conn_writev(conn, NULL, 1), -EINVAL);
    IS(omni_conn_writev(conn, &nowhere, 1), -EINVAL);
    IS(omni_conn_peer(conn, NULL, 1), -EINVAL);
    IS(omni_conn_peer_sockaddr(conn, NULL, has_room()), -EINVAL);
    IS(omni_conn_peer_sockaddr(conn, (struct sockaddr *)&address, NULL), -EINVAL);
    IS(omni_conn_local(conn, NULL, 1), -EINVAL);
    IS(omni_conn_relay(conn, NULL), -EINVAL);
    IS(omni_conn_set_context(conn, NULL), 0);
}

static void null_pointers_for_a_datagram(omni_datagram *datagram)
{
    IS(omni_datagram_reply(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_peer(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_local(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_peer_sockaddr(datagram, NULL, has_room()), -EINVAL);
    IS(omni_datagram_peer_sockaddr(datagram, (struct sockaddr *)&address, NULL), -EINVAL);
    IS(omni_datagram_local_sockaddr(datagram, NULL, has_room()), -EINVAL);
    omni_datagram_socket *socket = omni_datagram_receiver(datagram);
    const struct sockaddr *to = (const struct sockaddr *)&address;
    IS(omni_datagram_peer_sockaddr(datagram, (struct sockaddr *)&address, has_room()), 0);
    IS(omni_datagram_socket_send_to(socket, NULL, 16, "x", 1), -EINVAL);
    IS(omni_datagram_socket_send_to(socket, to, 3, "x", 1), -EINVAL);
    IS(omni_datagram_socket_send_to(socket, to, UINT32_MAX, "x", 1), -EINVAL);
    IS(omni_datagram_socket_send_to(socket, to, address_length, NULL, 1), -EINVAL);
    IS(omni_datagram_socket_send_from(socket, NULL, 16, to, address_length, "x", 1), -EINVAL);
    IS(omni_datagram_socket_send_from(socket, to, address_length, NULL, 16, "x", 1), -EINVAL);
    IS(omni_datagram_socket_send(socket, NULL, 1), -EINVAL);
    IS(omni_datagram_socket_local(socket, NULL, 1), -EINVAL);
    IS(omni_datagram_socket_peer(socket, NULL, 1), -EINVAL);
    IS(omni_server_datagram_sockets(live[SERVER], NULL, 1), -EINVAL);
}

/* ---- What there is --------------------------------------------------------------------------- */

/* Every call of a connection's is right in its callback; but first the wrong ones. */
static void misuse_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(data && length && context == &seen);
    use_all_wrong_handles();
    null_pointers_in_a_callback(conn);
    for (EACH_CALL(call, CONN))
        expect(call, conn, call->make == call_omni_conn_id || call->make == call_omni_conn_context
                               || call->make == call_omni_conn_loop || call->make == call_omni_conn_token);
}

static void misuse_datagram(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    OK(data && length && context == &seen);
    live[DATAGRAM] = datagram;
    live[DATAGRAM_SOCKET] = omni_datagram_receiver(datagram);
    use_all_wrong_handles();
    null_pointers_for_a_datagram(datagram);
    for (EACH_CALL(call, DATAGRAM))
        expect(call, datagram, call->make == call_omni_datagram_receiver);
    live[DATAGRAM] = NULL;
    stale[DATAGRAM] = datagram;
    seen->posted = 1;
}

/* A server with a client and a datagram behind it. Returns the client. */
static int begin(struct service *service, uint32_t engine, uint32_t model)
{
    omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
    omni_handler handler = noting(misuse_it);
    char address[128];
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    memset(seen, 0, sizeof *seen);
    memset(live, 0, sizeof live);
    memset(stale, 0, sizeof stale);
    IS(omni_poller_new(engine, OMNI_STRICT, (omni_poller **)&live[POLLER]), 0);
    IS(omni_poller_on_finding(live[POLLER], ignore_finding, NULL), 0);
    stale[POLLER] = new_poller(engine);
    omni_poller_free(stale[POLLER]);
    stale[SERVER] = new_server(&options, &handler);
    omni_server_free(stale[SERVER]);
    idle = new_server(&options, &handler);
    listen_somewhere(idle);

    IS(omni_loop_new(NULL, &handler, (omni_loop **)&stale[LOOP]), 0);
    omni_loop_free(stale[LOOP]);
    omni_loop_options of_loop = {.size = sizeof of_loop, .engine = engine};
    const omni_handler notes_nothing = {.size = sizeof notes_nothing};
    IS(omni_loop_new(&of_loop, &notes_nothing, (omni_loop **)&live[LOOP]), 0);

    handler.on_post = NULL;
    handler.on_datagram = misuse_datagram;
    memset(service, 0, sizeof *service);
    live[SERVER] = service->server = new_server(&options, &handler);
    seen->port = listen_somewhere(service->server);
    int has_datagrams = omni_server_listen(service->server, "udp:127.0.0.1:0") == 0;
    OK(omni_server_address(service->server, address, sizeof address) > 0);
    to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    IS(pthread_create(&service->thread, NULL, run_server, service), 0);

    int fd = client();
    UNTIL(seen->opened == 1);
    stale[CONN] = seen->conn;
    close(fd);
    UNTIL(seen->closed == 1);
    UNTIL(omni_conn_abort(stale[CONN]) == -ESTALE); /* on_close may not have returned */
    fd = client();
    UNTIL(seen->opened == 2);
    live[CONN] = seen->conn;
    if (has_datagrams) {
        IS(sendto(udp, "x", 1, 0, (struct sockaddr *)&to, sizeof to), 1);
        UNTIL(seen->posted);
    }
    close(udp);
    return fd;
}

/* None of them was touched: they still do what they are for. */
static void end(struct service *service, int fd)
{
    char byte;
    IS(seen->opened, 2);
    IS(seen->closed, 1);
    send_text(fd, "misuse it");
    while (recv(fd, &byte, 1, 0) > 0)
        ;
    close(fd);
    UNTIL(seen->closed == 2);
    IS(seen->error, -ECONNABORTED);
    for (EACH_CALL(call, POLLER))
        expect(call, live[POLLER], call->make == call_omni_poller_engine);
    IS(omni_loop_run_once(live[LOOP], 0), 1);
    omni_loop_free(live[LOOP]);
    finish(service);
    omni_server_free(idle);
}

static void wrong_handles(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        int fd = begin(&service, engine, model);
        use_all_wrong_handles();
        null_pointers(engine);
        IS(kill(child, 0), 0);
        end(&service, fd);
    }
}

static int of_a_loop_by_handler(const struct call *call, uint32_t engine)
{
    if (call->make == call_omni_loop_poller)
        return 1;
    if (call->make == call_omni_loop_wait || call->make == call_omni_loop_buffer)
        return -EINVAL;
    int has_descriptor = engine == OMNI_ENGINE_EPOLL || engine == OMNI_ENGINE_IO_URING;
    return call->make == call_omni_loop_descriptor && !has_descriptor ? -ENOTSUP : 0;
}

static void right_handles(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        int fd = begin(&service, engine, model);
        for (EACH_CALL(call, SERVER)) {
            if (call->make == call_omni_server_stop)
                break; /* the rest ends something */
            int says_what = call->make == call_omni_server_engine || call->make == call_omni_server_model;
            expect(call, call->make == call_omni_server_broadcast ? live[SERVER] : idle, says_what);
        }
        receive(fd, "x");
        if (live[DATAGRAM_SOCKET])
            for (EACH_CALL(call, DATAGRAM_SOCKET))
                expect(call, live[DATAGRAM_SOCKET],
                       call->make == call_omni_datagram_socket_send ? -EDESTADDRREQ : 0);
        for (EACH_CALL(call, LOOP))
            expect(call, live[LOOP], of_a_loop_by_handler(call, engine));
        IS(omni_conn_close(live[CONN]), 0);
        IS(receive_end(fd), 0);
        close(fd);
        UNTIL(seen->closed == 2);
        UNTIL(omni_conn_abort(live[CONN]) == -ESTALE);
        IS(omni_server_stop(idle, 0), 0);
        IS(omni_server_run(idle), 0);
        omni_server_free(idle);
        omni_poller_free(live[POLLER]);
        finish(&service);
    }
}

/* ---- A forked child -------------------------------------------------------------------------- */

static void use_handles_of_the_parent(void)
{
    void *handles[KINDS] = {live[POLLER], idle, live[LOOP], live[CONN], stale[DATAGRAM], live[DATAGRAM_SOCKET]};
    for (int times = 0; times < 2; times++)
        for (int kind = 0; kind < KINDS; kind++)
            for (EACH_CALL(call, kind))
                if (handles[kind] && call->make != call_omni_poller_after_fork
                    && call->make != call_omni_poller_free
                    && call->make != call_omni_server_free && call->make != call_omni_loop_free)
                    expect(call, handles[kind], call->forked);
    IS(omni_server_listen(live[SERVER], "127.0.0.1:0"), -EINVAL); /* it runs, as far as that goes */
    IS(omni_server_broadcast(live[SERVER], "x", 1), -EOWNERDEAD);

    IS(omni_poller_after_fork(live[POLLER]), 0);
    for (EACH_CALL(call, POLLER))
        if (call->make != call_omni_poller_child_add && call->make != call_omni_poller_child_remove)
            expect(call, live[POLLER], call->make == call_omni_poller_engine);
    omni_server_free(idle);
    omni_server_free(live[SERVER]);
    omni_loop_free(live[LOOP]);
    IS(omni_loop_run(live[LOOP]), -ESTALE);
    IS(omni_poller_capabilities(live[POLLER]), -ESTALE);
    IS(omni_server_workers(idle), -ESTALE);
    IS(omni_server_workers(live[SERVER]), -ESTALE);
}

static void handles_of_the_parent(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        int status, fd = begin(&service, engine, model);
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            use_handles_of_the_parent();
            _exit(0);
        }
        IS(waitpid(pid, &status, 0), pid);
        IS(status, 0);
        end(&service, fd);
    }
}

/* A child that a callback has forked, and that returns from it, has no loop to continue with. */
static void fork_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        return;
    }
    IS(waitpid(pid, &status, 0), pid);
    IS(status, 0);
    echo(conn, data, length, context);
}

static void *run_until_forked(void *server)
{
    pid_t parent = getpid();
    int result = omni_server_run(server);
    if (getpid() == parent)
        return NULL;
    IS(result, -EOWNERDEAD);
    omni_server_free(server);
    _exit(0);
}

static void returns_from_a_callback(uint32_t engine)
{
    struct service service = {0};
    omni_server_options options = {.size = sizeof options, .engine = engine};
    omni_handler handler = noting(fork_it);
    memset(seen, 0, sizeof *seen);
    service.server = new_server(&options, &handler);
    seen->port = listen_somewhere(service.server);
    IS(pthread_create(&service.thread, NULL, run_until_forked, service.server), 0);
    int fd = client(), other = client();
    send_text(fd, "hello");
    receive(fd, "hello");
    send_text(other, "hello");
    receive(other, "hello");
    close(fd);
    close(other);
    finish(&service);
}

/* ---- Functions without a handle -------------------------------------------------------------- */

static void numbers(uint32_t engine)
{
    (void)engine;
    IS(omni_version(), OMNI_VERSION);
    OK(omni_version_string());
    OK(omni_strerror(INT32_MIN) && omni_strerror(INT32_MAX) && omni_strerror(0) && omni_last_error());
    for (uint32_t number = 6; number != 0; number = number > UINT32_MAX / 3 ? 0 : number * 3) {
        omni_poller *poller = NULL;
        IS(omni_engine_available(number), 0);
        OK(!omni_engine_name(number) && !omni_model_name(number));
        IS(omni_poller_new(number, 0, &poller), -EINVAL);
        IS(omni_poller_new(OMNI_ENGINE_AUTO, number << 3, &poller), -EINVAL);
        IS(omni_engine_features(number, NULL, 0), -EINVAL);
        omni_poller_options options = {.size = sizeof options, .wait_policy = number, .wait_ns = 1};
        IS(omni_poller_new_with(&options, &poller), -EINVAL);
        OK(!poller);
    }
}

static const struct behaviour behaviours[] = {
    {"every call is right with a right handle", right_handles},
    {"every call refuses a handle that is none of its kind's", wrong_handles},
    {"every call refuses what is the parent process's", handles_of_the_parent},
    {"a forked child that returns from a callback has no server", returns_from_a_callback},
    {"numbers and names that are none are refused", numbers},
};

int main(void)
{
    share_what_is_seen();
    file = memfd_create("file", MFD_CLOEXEC);
    IS(write(file, "content", 7), 7);
    readable = pipe_pair().ours;
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(300);
        pause();
        _exit(0);
    }
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    IS(kill(child, SIGKILL), 0);
    IS(waitpid(child, NULL, 0), child);
    return 0;
}
