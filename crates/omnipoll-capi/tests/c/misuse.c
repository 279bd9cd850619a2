/* Every function that takes a handle, with handles that are not what it takes: NULL, stale, another
 * kind's, garbage, and the parent process's; and every function that takes another pointer with
 * NULL. Each returns what the header says, and touches nothing.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

#include <sys/prctl.h>

enum kind { POLLER, SERVER, CONN, DATAGRAM, KINDS };

/* A handle of each kind that is good, or NULL where there is none at the moment, and a stale one. */
static void *live[KINDS], *stale[KINDS];
/* A server that does not run. */
static omni_server *idle;

/* ---- The calls ------------------------------------------------------------------------------- */

/* What the calls take besides the handle: nothing but the handle is to be wrong. */
static int file;         /* a regular file, not empty */
static int readable;     /* the end of a pipe */
static pid_t child;
static uint64_t timer;
static char room[4096];
static struct iovec piece = {room, 1};
static omni_event event;
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
CALL(omni_server_stats, omni_server_stats(handle, 0, &statistics))
CALL(omni_server_listen, omni_server_listen(handle, "127.0.0.1:0"))
CALL(omni_server_address, fine(omni_server_address(handle, room, sizeof room)))
CALL(omni_server_dup_listener, fine(duplicate(handle)))
CALL(omni_server_keep_files, omni_server_keep_files(handle))
CALL(omni_server_broadcast, fine(omni_server_broadcast(handle, "x", 1)))
CALL(omni_server_stop, omni_server_stop(handle, 0))
CALL(omni_server_run, omni_server_run(handle))
CALL(omni_server_free, (omni_server_free(handle), 0))

CALL(omni_conn_id, omni_conn_id(handle) == (uint64_t)(uintptr_t)handle)
CALL(omni_conn_peer, fine(omni_conn_peer(handle, room, sizeof room)))
CALL(omni_conn_local, fine(omni_conn_local(handle, room, sizeof room)))
CALL(omni_conn_queued, fine(omni_conn_queued(handle)))
CALL(omni_conn_fd, fine(omni_conn_fd(handle)))
CALL(omni_conn_worker, fine(omni_conn_worker(handle)))
CALL(omni_conn_stopping, omni_conn_stopping(handle))
CALL(omni_conn_set_context, omni_conn_set_context(handle, room))
CALL(omni_conn_context, omni_conn_context(handle) == room)
CALL(omni_conn_set_idle_timeout, omni_conn_set_idle_timeout(handle, 0))
CALL(omni_conn_set_read_timeout, omni_conn_set_read_timeout(handle, 0))
CALL(omni_conn_set_write_timeout, omni_conn_set_write_timeout(handle, 0))
CALL(omni_conn_write, fine(omni_conn_write(handle, "x", 1)))
CALL(omni_conn_writev, fine(omni_conn_writev(handle, &piece, 1)))
CALL(omni_conn_send_file, omni_conn_send_file(handle, file, 0, 1))
CALL(omni_conn_pause, omni_conn_pause(handle))
CALL(omni_conn_resume, omni_conn_resume(handle))
CALL(omni_conn_post, omni_conn_post(handle, 7))
CALL(omni_conn_shutdown, omni_conn_shutdown(handle))
CALL(omni_conn_close, omni_conn_close(handle))
CALL(omni_conn_abort, omni_conn_abort(handle))

CALL(omni_datagram_reply, omni_datagram_reply(handle, "x", 1))
CALL(omni_datagram_peer, fine(omni_datagram_peer(handle, room, sizeof room)))
CALL(omni_datagram_local, fine(omni_datagram_local(handle, room, sizeof room)))

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
    ROW(omni_server_stats, -EINVAL, -ESTALE, 0),
    ROW(omni_server_listen, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_address, -EINVAL, -ESTALE, 0),
    ROW(omni_server_dup_listener, -EINVAL, -ESTALE, 0),
    ROW(omni_server_keep_files, -EINVAL, -ESTALE, 0),
    ROW(omni_server_broadcast, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_stop, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_run, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_server_free, 0, 0, 0),
};

static const struct call of_connections[] = {
    ROW(omni_conn_id, 1, 1, 1),
    ROW(omni_conn_peer, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_local, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_queued, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_fd, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_worker, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_stopping, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_context, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_context, 0, 0, 0),
    ROW(omni_conn_set_idle_timeout, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_read_timeout, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_set_write_timeout, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_write, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_writev, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_send_file, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_pause, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_resume, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_post, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_shutdown, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_close, -EINVAL, -ESTALE, -EOWNERDEAD),
    ROW(omni_conn_abort, -EINVAL, -ESTALE, -EOWNERDEAD),
};

static const struct call of_datagrams[] = {
    ROW(omni_datagram_reply, -EINVAL, -ESTALE, -ESTALE),
    ROW(omni_datagram_peer, -EINVAL, -ESTALE, -ESTALE),
    ROW(omni_datagram_local, -EINVAL, -ESTALE, -ESTALE),
};

static const struct {
    const struct call *calls;
    size_t count;
} tables[KINDS] = {
    {of_pollers, sizeof of_pollers / sizeof *of_pollers},
    {of_servers, sizeof of_servers / sizeof *of_servers},
    {of_connections, sizeof of_connections / sizeof *of_connections},
    {of_datagrams, sizeof of_datagrams / sizeof *of_datagrams},
};

#define EACH_CALL(call, kind) \
    const struct call *call = tables[kind].calls; call < tables[kind].calls + tables[kind].count; call++

static void expect(const struct call *call, void *handle, int expected)
{
    char what[96];
    snprintf(what, sizeof what, "%s of %p", call->name, handle);
    is(call->make(handle), expected, what, __LINE__);
    /* A signal handler may call these two, which leave the words as they are. */
    if (expected < 0 && call->make != call_omni_poller_wake && call->make != call_omni_server_stop)
        is(strncmp(omni_last_error(), call->name, strlen(call->name)), 0, what, __LINE__);
}

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
    IS(omni_server_new(NULL, NULL, &server), -EINVAL);
    IS(omni_server_new(NULL, &handler, NULL), -EINVAL);
    IS(omni_server_listen(idle, NULL), -EINVAL);
    IS(omni_server_address(server, NULL, 1), -EINVAL);
    IS(omni_server_stats(server, 0, NULL), -EINVAL);
    IS(omni_server_broadcast(server, NULL, 1), -EINVAL);
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
    IS(omni_conn_local(conn, NULL, 1), -EINVAL);
    IS(omni_conn_set_context(conn, NULL), 0);
}

static void null_pointers_for_a_datagram(omni_datagram *datagram)
{
    IS(omni_datagram_reply(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_peer(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_local(datagram, NULL, 1), -EINVAL);
}

/* ---- What there is --------------------------------------------------------------------------- */

/* Every call of a connection's is right in its callback; but first the wrong ones. */
static void misuse_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(data && length && context == &seen);
    use_all_wrong_handles();
    null_pointers_in_a_callback(conn);
    for (EACH_CALL(call, CONN))
        expect(call, conn, call->make == call_omni_conn_id || call->make == call_omni_conn_context);
}

static void misuse_datagram(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    OK(data && length && context == &seen);
    live[DATAGRAM] = datagram;
    use_all_wrong_handles();
    null_pointers_for_a_datagram(datagram);
    for (EACH_CALL(call, DATAGRAM))
        expect(call, datagram, 0);
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
    void *handles[KINDS] = {live[POLLER], idle, live[CONN], stale[DATAGRAM]};
    for (int times = 0; times < 2; times++)
        for (int kind = 0; kind < KINDS; kind++)
            for (EACH_CALL(call, kind))
                if (handles[kind] && call->make != call_omni_poller_after_fork
                    && call->make != call_omni_poller_free
                    && call->make != call_omni_server_free)
                    expect(call, handles[kind], call->forked);
    IS(omni_server_listen(live[SERVER], "127.0.0.1:0"), -EINVAL); /* it runs, as far as that goes */
    IS(omni_server_broadcast(live[SERVER], "x", 1), -EOWNERDEAD);

    IS(omni_poller_after_fork(live[POLLER]), 0);
    for (EACH_CALL(call, POLLER))
        if (call->make != call_omni_poller_child_add && call->make != call_omni_poller_child_remove)
            expect(call, live[POLLER], call->make == call_omni_poller_engine);
    omni_server_free(idle);
    omni_server_free(live[SERVER]);
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
