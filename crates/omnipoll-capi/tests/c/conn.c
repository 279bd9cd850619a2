/* Connections, checked through the public header on every engine: what callbacks do with them,
 * what other threads do, and that a handle used too late is an error and nothing worse.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

enum { LARGE = 4 << 20 };

static char large[LARGE];

/* ---- Handles --------------------------------------------------------------------------------- */

/* Every function that is for the loop of the connection only. */
static void all_are(omni_conn *conn, int error)
{
    char text[64];
    struct iovec piece = {text, 1};
    IS(omni_conn_writev(conn, &piece, 1), error);
    IS(omni_conn_send_file(conn, 0, 0, 0), error);
    IS(omni_conn_peer(conn, text, sizeof text), error);
    IS(omni_conn_local(conn, text, sizeof text), error);
    IS(omni_conn_queued(conn), error);
    IS(omni_conn_fd(conn), error);
    IS(omni_conn_worker(conn), error);
    IS(omni_conn_stopping(conn), error);
    IS(omni_conn_has_ended(conn), error);
    IS(omni_conn_set_context(conn, text), error);
    OK(!omni_conn_context(conn));
    OK(!omni_conn_loop(conn));
    OK(!omni_conn_token(conn));
    IS(omni_conn_set_token(conn, 1), error);
    IS(omni_conn_is_outgoing(conn), error);
    IS(omni_conn_restart_timeouts(conn), error);
    IS(omni_conn_set_frame_until(conn, "\n", 1, 100), error);
    IS(omni_conn_set_frame_exactly(conn, 4), error);
    IS(omni_conn_set_frame_at_least(conn, 4), error);
    IS(omni_conn_set_frame_any(conn), error);
    IS(omni_conn_set_timer(conn, 1), error);
}

/* Every function that any thread may call. */
static void others_are(omni_conn *conn, int error)
{
    IS(omni_conn_write(conn, "late", 4), error);
    IS(omni_conn_post(conn, 1), error);
    IS(omni_conn_pause(conn), error);
    IS(omni_conn_resume(conn), error);
    IS(omni_conn_shutdown(conn), error);
    IS(omni_conn_set_idle_timeout(conn, 1), error);
    IS(omni_conn_set_read_timeout(conn, 1), error);
    IS(omni_conn_set_write_timeout(conn, 1), error);
    IS(omni_conn_close(conn), error);
    IS(omni_conn_abort(conn), error);
}

static void handles(uint32_t engine)
{
    all_are(NULL, -EINVAL);
    others_are(NULL, -EINVAL);
    omni_poller *poller = new_poller(engine);
    omni_handler idle = {.size = sizeof idle};
    omni_server_options options = {.size = sizeof options, .engine = engine};
    omni_server *another = new_server(&options, &idle);
    IS(omni_conn_id(NULL), 0);
    for (MODELS_HERE(model)) {
        struct service service;
        serve(&service, engine, model, noting(echo));
        int fd = client();
        UNTIL(seen->opened == 1);
        omni_conn *conn = seen->conn;
        OK(omni_conn_id(conn) != 0);
        OK(by_id(omni_conn_id(conn)) == conn);
        all_are(conn, -EPERM);
        IS(omni_conn_write(conn, NULL, 1), -EINVAL);
        /* A handle of another kind is no handle. */
        IS(omni_poller_wake((omni_poller *)conn), -ESTALE);
        IS(omni_poller_wake((omni_poller *)another), -ESTALE);
        IS(omni_server_stop((omni_server *)conn, 0), -ESTALE);
        IS(omni_server_stop((omni_server *)poller, 0), -ESTALE);
        omni_server_free((omni_server *)poller);
        omni_poller_free((omni_poller *)another);
        others_are((omni_conn *)poller, -ESTALE);
        others_are((omni_conn *)another, -ESTALE);
        IS(omni_datagram_reply((omni_datagram *)conn, "", 0), -ESTALE);
        OK(omni_conn_write(conn, "from ", 5) >= 0);
        OK(omni_conn_write(by_id(omni_conn_id(conn)), "elsewhere", 9) >= 0);
        receive(fd, "from elsewhere");
        close(fd);
        UNTIL(omni_conn_queued(conn) == -ESTALE); /* -EPERM before */
        all_are(conn, -ESTALE);
        others_are(conn, -ESTALE);
        /* Another in its place is not reached by it. */
        fd = client();
        UNTIL(seen->opened == 2);
        OK(seen->conn != conn);
        others_are(conn, -ESTALE);
        send_text(fd, "hello");
        receive(fd, "hello");
        close(fd);
        /* Nor is any number a connection. */
        for (int bit = 0; bit < 64; bit++) {
            uint64_t number = omni_conn_id(conn) ^ UINT64_C(1) << bit;
            if (number && number != omni_conn_id(seen->conn))
                others_are(by_id(number), -ESTALE);
        }
        finish(&service);
    }
    IS(omni_poller_wake(poller), 0);
    omni_poller_free(poller);
    IS(omni_server_workers(another), 1);
    omni_server_free(another);
}

static omni_conn *other_conn;

static void use_everything(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    char text[64], some[4];
    OK(length && data && context == &seen);
    OK(omni_conn_id(conn) != 0);
    int peer = omni_conn_peer(conn, text, sizeof text);
    IS(peer, strlen(text));
    OK(strncmp(text, "127.0.0.1:", 10) == 0);
    IS(omni_conn_peer(conn, some, sizeof some), peer);
    OK(strcmp(some, "127") == 0);
    IS(omni_conn_peer(conn, NULL, 1), -EINVAL);
    OK(omni_conn_local(conn, text, sizeof text) > 0);
    IS(atoi(strrchr(text, ':') + 1), seen->port);
    IS(omni_conn_queued(conn), 0);
    IS(omni_conn_worker(conn) >= 0, 1);
    IS(omni_conn_stopping(conn), 0);
    IS(omni_conn_has_ended(conn), 0);
    OK(fcntl(omni_conn_fd(conn), F_GETFD) >= 0);
    OK(!omni_conn_context(conn));
    IS(omni_conn_set_context(conn, &large), 0);
    OK(omni_conn_context(conn) == &large);
    IS(omni_conn_write(conn, NULL, 1), -EINVAL);
    IS(omni_conn_write(conn, NULL, 0), 0);
    if (other_conn) {
        /* One of the same loop is reached at once, another one is not. */
        if (omni_conn_loop(other_conn))
            OK(omni_conn_loop(other_conn) == omni_conn_loop(conn) && omni_conn_queued(other_conn) == 0);
        else
            all_are(other_conn, -EPERM);
        OK(omni_conn_write(other_conn, "from a neighbour", 16) >= 0);
    }
    OK(omni_conn_write(conn, "done", 4) >= 0);
    IS(omni_conn_set_context(conn, NULL), 0);
}

static void in_a_callback(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        other_conn = NULL;
        serve(&service, engine, model, noting(use_everything));
        int neighbour = client();
        UNTIL(seen->opened == 1);
        omni_conn *first = seen->conn;
        int fd = client();
        send_text(fd, "go");
        receive(fd, "done");
        other_conn = first;
        send_text(fd, "go");
        receive(fd, "done");
        receive(neighbour, "from a neighbour");
        close(fd);
        close(neighbour);
        finish(&service);
    }
}

static int keep_memory(omni_conn *conn, void *context)
{
    note_open(conn, context);
    return omni_conn_set_context(conn, calloc(1, sizeof(int)));
}

static void count_up(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    int *count = omni_conn_context(conn);
    char digit = (char)('0' + ++*count);
    OK(data && length && context == &seen);
    OK(omni_conn_write(conn, &digit, 1) >= 0);
}

static void give_back_memory(omni_conn *conn, int error, void *context)
{
    free(omni_conn_context(conn));
    IS(omni_conn_write(conn, "late", 4), -EPIPE);
    note_close(conn, error, context);
}

static void contexts(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        omni_handler handler = noting(count_up);
        handler.on_open = keep_memory;
        handler.on_close = give_back_memory;
        serve(&service, engine, model, handler);
        int one = client(), two = client();
        send_text(one, "a");
        receive(one, "1");
        send_text(one, "b");
        receive(one, "2");
        send_text(two, "c");
        receive(two, "1");
        close(one);
        close(two);
        UNTIL(seen->closed == 2);
        finish(&service);
    }
}

/* ---- The end --------------------------------------------------------------------------------- */

static void abort_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(data && length && context == &seen);
    IS(omni_conn_abort(conn), 0);
    IS(omni_conn_abort(conn), 0);
    IS(omni_conn_write(conn, "late", 4), -EPIPE);
    IS(seen->closed, 0);
}

static void aborted_and_reset(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        serve(&service, engine, model, noting(abort_it));
        int fd = client();
        send_text(fd, "go");
        IS(receive_end(fd), ECONNRESET);
        close(fd);
        UNTIL(seen->closed == 1);
        IS(seen->error, -ECONNABORTED);

        fd = client();
        UNTIL(seen->opened == 2);
        reset(fd);
        UNTIL(seen->closed == 2);
        IS(seen->error, -ECONNRESET);
        finish(&service);
    }
    for (MODELS_HERE(model)) {
        struct service service;
        serve(&service, engine, model, noting(echo));
        int fd = client();
        UNTIL(seen->opened == 1);
        IS(omni_conn_abort(seen->conn), 0);
        IS(receive_end(fd), ECONNRESET);
        close(fd);
        fd = client();
        UNTIL(seen->opened == 2);
        IS(omni_conn_close(seen->conn), 0);
        IS(receive_end(fd), 0);
        close(fd);
        UNTIL(seen->closed == 2);
        finish(&service);
    }
}

static int no_idle_limit(omni_conn *conn, void *context)
{
    IS(omni_conn_set_idle_timeout(conn, 0), 0);
    IS(omni_conn_set_read_timeout(conn, -1), 0);
    return note_open(conn, context);
}

static int own_limit(omni_conn *conn, void *context)
{
    IS(omni_conn_set_read_timeout(conn, 30 * MS), 0);
    return note_open(conn, context);
}

static void fill(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(data && length && context == &seen);
    OK(omni_conn_write(conn, large, LARGE) >= 0);
    OK(omni_conn_write(conn, large, LARGE) >= 0);
}

static void timeouts(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        const omni_server_options idle = {.idle_timeout_ns = 30 * MS};
        /* The second server's connections have no limit, the third's have one of their own. */
        serve_with(&service, engine, model, noting(echo), idle);
        int64_t began = now_ns();
        int fd = client();
        IS(receive_end(fd), 0); /* nothing was queued: it ends in order */
        OK(now_ns() - began >= 30 * MS);
        close(fd);
        UNTIL(seen->closed == 1);
        IS(seen->error, -ETIMEDOUT);
        finish(&service);

        omni_handler handler = noting(echo);
        handler.on_open = no_idle_limit;
        serve_with(&service, engine, model, handler, idle);
        fd = client();
        UNTIL(seen->opened == 1);
        let_pass(60 * MS);
        send_text(fd, "still there");
        receive(fd, "still there");
        close(fd);
        finish(&service);

        handler.on_open = own_limit;
        serve(&service, engine, model, handler);
        began = now_ns();
        fd = client();
        IS(receive_end(fd), 0); /* nothing was queued: it ends in order */
        OK(now_ns() - began >= 30 * MS);
        close(fd);
        UNTIL(seen->closed == 1);
        IS(seen->error, -ETIMEDOUT);
        finish(&service);

        serve_with(&service, engine, model, noting(fill), (omni_server_options){.write_timeout_ns = 30 * MS});
        fd = client();
        send_text(fd, "go");
        UNTIL(seen->closed == 1);
        IS(seen->error, -ETIMEDOUT);
        close(fd);
        finish(&service);
    }
}

static int set_lines(omni_conn *conn, void *context)
{
    IS(omni_conn_set_frame_until(conn, "", 0, 100), -EINVAL);
    IS(omni_conn_set_frame_until(conn, "12345", 5, 100), -EINVAL);
    IS(omni_conn_set_frame_until(conn, "\r\n", 2, 1), -EINVAL);
    IS(omni_conn_set_frame_exactly(conn, 0), -EINVAL);
    IS(omni_conn_set_frame_at_least(conn, 0), -EINVAL);
    IS(omni_conn_set_frame_until(conn, "\r\n", 2, 8), 0);
    return note_open(conn, context);
}

static void bracket(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    const struct iovec pieces[] = {{"<", 1}, {(void *)(uintptr_t)data, length}, {">", 1}};
    OK(context == &seen);
    OK(omni_conn_writev(conn, pieces, 3) >= 0);
    IS(omni_conn_has_ended(conn), length == 4 && !memcmp(data, "rest", 4));
    if (length == 5 && !memcmp(data, "two\r\n", 5))
        IS(omni_conn_set_frame_exactly(conn, 2), 0);
    if (length == 2 && !memcmp(data, "cd", 2))
        IS(omni_conn_set_frame_at_least(conn, 3), 0);
    if (length == 4 && !memcmp(data, "efgh", 4))
        IS(omni_conn_set_frame_at_least(conn, 5), 0);
    if (length == 5 && !memcmp(data, "ijklm", 5))
        IS(omni_conn_set_frame_any(conn), 0);
}

static void frames(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        omni_handler handler = noting(bracket);
        handler.on_open = set_lines;
        serve(&service, engine, model, handler);
        int fd = client();
        send_text(fd, "one\r\ntwo\r\nabcdefgh");
        receive(fd, "<one\r\n><two\r\n><ab><cd><efgh>");
        send_text(fd, "ijkl");
        send_text(fd, "m");
        receive(fd, "<ijklm>");
        close(fd);
        UNTIL(seen->closed == 1);

        fd = client();
        send_text(fd, "1234567\r\n");
        UNTIL(seen->closed == 2);
        IS(seen->error, -EMSGSIZE);
        close(fd);

        fd = client();
        send_text(fd, "rest");
        IS(shutdown(fd, SHUT_WR), 0);
        receive(fd, "<rest>");
        close(fd);
        UNTIL(seen->closed == 3);
        finish(&service);
    }
}

static void extend_once(omni_conn *conn, uint32_t timeout, void *context)
{
    OK(context == &seen);
    IS(timeout, OMNI_TIMEOUT_IDLE);
    if (!omni_conn_context(conn)) {
        IS(omni_conn_set_context(conn, large), 0);
        IS(omni_conn_restart_timeouts(conn), 0);
    } else {
        OK(omni_conn_write(conn, "goodbye", 7) >= 0);
        IS(omni_conn_close(conn), 0);
    }
}

static void timeouts_ask_first(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        omni_handler handler = noting(echo);
        handler.on_timeout = extend_once;
        serve_with(&service, engine, model, handler, (omni_server_options){.idle_timeout_ns = 30 * MS});
        int64_t began = now_ns();
        int fd = client();
        receive(fd, "goodbye");
        OK(now_ns() - began >= 60 * MS);
        IS(receive_end(fd), 0);
        close(fd);
        UNTIL(seen->closed == 1);
        IS(seen->error, 0);
        finish(&service);
    }
}

static int set_timer(omni_conn *conn, void *context)
{
    IS(omni_conn_set_timer(conn, 5 * MS), 0);
    return note_open(conn, context);
}

static void beat(omni_conn *conn, void *context)
{
    OK(context == &seen);
    OK(omni_conn_write(conn, ".", 1) >= 0);
    IS(omni_conn_set_timer(conn, 5 * MS), 0);
}

static void cancel_timer(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(context == &seen);
    IS(omni_conn_set_timer(conn, -1), 0);
    OK(omni_conn_write(conn, data, length) >= 0);
}

static void heartbeats(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        omni_handler handler = noting(cancel_timer);
        handler.on_open = set_timer;
        handler.on_timer = beat;
        serve(&service, engine, model, handler);
        int64_t began = now_ns();
        int fd = client();
        receive(fd, "..........");
        OK(now_ns() - began >= 50 * MS);
        send_text(fd, "x");
        for (char byte = '.'; byte == '.';)
            IS(read(fd, &byte, 1), 1);
        let_pass(20 * MS);
        send_text(fd, "none since");
        receive(fd, "none since");
        close(fd);
        UNTIL(seen->closed == 1);
        finish(&service);
    }
}

/* ---- Ids that are used while their connections end ------------------------------------------- */

static omni_server *harassed;
static _Atomic int enough, stale, fine;

static void harmless(int result)
{
    OK(result >= 0 || result == -ESTALE || result == -ENOBUFS);
    *(result < 0 ? &stale : &fine) += 1;
}

static void try_to_echo(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(context == &seen);
    omni_conn_write(conn, data, length);
}

static void *harass(void *argument)
{
    for (unsigned number = 0; !enough; number++) {
        omni_conn *conn = seen->conn;
        if (!conn)
            continue;
        switch ((number + (unsigned)(uintptr_t)argument) % 8) {
        case 0: harmless(omni_conn_write(conn, "x", 1)); break;
        case 1: harmless(omni_conn_post(conn, 1)); break;
        case 2: harmless(omni_conn_pause(conn)); break;
        case 3: harmless(omni_conn_resume(conn)); break;
        case 4: harmless(omni_conn_close(conn)); break;
        case 5: harmless(omni_conn_write(conn, large, 100)); break;
        case 6: harmless(omni_conn_abort(conn)); break;
        case 7: harmless(omni_server_broadcast(harassed, "y", 1)); break;
        }
    }
    return NULL;
}

static void ids_in_a_race(uint32_t engine)
{
    enum { THREADS = 3, CLIENTS = 300 };
    for (MODELS_HERE(model)) {
        struct service service;
        pthread_t threads[THREADS];
        serve_with(&service, engine, model, noting(try_to_echo),
                   (omni_server_options){.queue_limit = 4096});
        harassed = service.server;
        enough = stale = fine = 0;
        for (uintptr_t i = 0; i < THREADS; i++)
            IS(pthread_create(&threads[i], NULL, harass, (void *)i), 0);
        for (int i = 0; i < CLIENTS; i++) {
            int fd = client();
            (void)!send(fd, "hello", 5, MSG_NOSIGNAL);
            if (i % 3 == 0)
                sched_yield();
            i % 2 ? reset(fd) : (void)close(fd);
        }
        /* One that was reset in the listening socket's queue may never have come. */
        UNTIL(stale > 0 && fine > 0 && seen->opened > CLIENTS / 3);
        enough = 1;
        for (int i = 0; i < THREADS; i++)
            IS(pthread_join(threads[i], NULL), 0);
        /* Those that were paused last don't notice that their clients have gone. */
        IS(omni_server_stop(service.server, 0), 0);
        IS(join(&service), 0);
        omni_server_free(service.server);
        IS(seen->closed, seen->opened);
    }
}

static const struct behaviour behaviours[] = {
    {"a handle is valid anywhere, and stale in the end", handles},
    {"a callback does with its connection what it likes", in_a_callback},
    {"a connection keeps a pointer", contexts},
    {"a connection is aborted, closed or reset", aborted_and_reset},
    {"a silent or stuck connection times out, never early", timeouts},
    {"what arrives comes in frames", frames},
    {"a timeout asks its handler first", timeouts_ask_first},
    {"a connection has a timer", heartbeats},
    {"ids are harmless while their connections end", ids_in_a_race},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
