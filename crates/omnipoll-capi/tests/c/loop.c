/* Loops by handler, checked through the public header on every engine: their options and events, how
 * connections of one loop reach each other, which threads may do what, and what becomes of a loop that is
 * freed, stopped or forked at a bad time.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "looping.h"

/* The loop of the present check, and where it listens. */
static omni_loop *loop;
static int port;

static void begin(uint32_t engine, const omni_handler *handler)
{
    memset(seen, 0, sizeof *seen);
    loop = new_loop(engine, handler);
    port = loop_listen(loop, NULL, 7);
}

/* ---- Making one ------------------------------------------------------------------------------ */

static int made(const omni_loop_options *options, const omni_handler *handler)
{
    omni_loop *out = (omni_loop *)&out;
    int result = omni_loop_new(options, handler, &out);
    if (result < 0)
        OK(out == (omni_loop *)&out);
    else
        omni_loop_free(out);
    return result;
}

static void bad_options(uint32_t engine)
{
    const omni_handler handler = {.size = sizeof handler};
    const omni_loop_options good = {.size = sizeof good, .engine = engine};
    omni_loop_options options = good;
    IS(made(&good, &handler), 0);
    IS(made(&good, NULL), 0);
    IS(made(NULL, NULL), 0);
    IS(omni_loop_new(&good, &handler, NULL), -EINVAL);

#define REFUSED(field, bad, error)                 \
    (options = good, options.field = (bad));       \
    IS(made(&options, &handler), error)
    REFUSED(size, 0, -EINVAL);
    REFUSED(size, offsetof(omni_loop_options, wait_ns) - 1, -EINVAL);
    REFUSED(size, UINT32_MAX, -E2BIG);
    REFUSED(engine, 77, -EINVAL);
    REFUSED(engine, OMNI_ENGINE_KQUEUE, -ENOSYS);
    REFUSED(flags, 2, -EINVAL);
    REFUSED(wait_policy, OMNI_WAIT_THRIFTY, -EINVAL);
    REFUSED(wait_ns, 1, -EINVAL);
    REFUSED(high_water, 1024, -EINVAL); /* below the default of the low mark */
    REFUSED(low_water, 1 << 20, -EINVAL);
#undef REFUSED

    const omni_handler unset = {.size = sizeof handler - 1};
    IS(made(&good, &unset), -EINVAL);
    const omni_loop_options every = {.size = sizeof every,
                                     .engine = engine,
                                     .flags = OMNI_INTERRUPTIBLE,
                                     .max_clients = 10,
                                     .backlog = UINT32_MAX,
                                     .queue_limit = UINT64_MAX,
                                     .total_queue_limit = UINT64_MAX,
                                     .high_water = 2,
                                     .low_water = 1,
                                     .idle_timeout_ns = INT64_MAX,
                                     .read_timeout_ns = -1,
                                     .write_timeout_ns = 1,
                                     .linger_ns = -1};
    IS(made(&every, &handler), 0);
}

/* ---- Events of the program's own ------------------------------------------------------------- */

static struct pair ends;
static int posts, timers, readable;

static void note_event(omni_loop *event_loop, const omni_event *event, void *context)
{
    OK(event_loop == loop && context == &seen);
    omni_poller *poller = omni_loop_poller(event_loop);
    if (event->kind == OMNI_EVENT_TIMER) {
        IS(event->token, 1);
        timers++;
    } else if (event->kind == OMNI_EVENT_IO) {
        IS(event->value, ends.ours);
        IS(event->token, 2);
        OK(event->ready & OMNI_READ);
        IS(omni_poller_remove(poller, ends.ours), 0);
        readable++;
    } else {
        IS(event->kind, OMNI_EVENT_POST);
        IS(event->value, posts);
        IS(event->token, 3);
        /* Connections are reached from here, too. */
        OK(omni_conn_write(seen->conn, "p", 1) >= 0);
        IS(omni_conn_queued(seen->conn) >= 0, 1);
        if (++posts == 100)
            IS(omni_loop_stop(event_loop, -1), 0);
    }
}

static void *post_a_hundred(void *argument)
{
    for (int i = 0; i < 100; i++)
        IS(omni_poller_post(argument, 3, i), 0);
    return NULL;
}

static void events_of_the_program(uint32_t engine)
{
    omni_handler handler = noting(echo);
    handler.on_event = note_event;
    posts = timers = readable = 0;
    begin(engine, &handler);
    omni_poller *poller = omni_loop_poller(loop);
    uint64_t timer;
    ends = pipe_pair();
    int fd = connect_to(port);
    RUN_UNTIL(seen->opened);
    IS(omni_poller_timer_add(poller, 1, 0, 1, &timer), 0);
    IS(omni_poller_add(poller, ends.ours, OMNI_READ, 2), 0);
    put(ends.theirs, 1);
    RUN_UNTIL(timers == 1 && readable == 1);
    pthread_t thread;
    IS(pthread_create(&thread, NULL, post_a_hundred, poller), 0);
    RUN_UNTIL(posts == 100);
    IS(pthread_join(thread, NULL), 0);
    char bytes[100];
    IS(omni_loop_run_once(loop, LOOK), 1);
    read_whole(fd, bytes, sizeof bytes);
    close(fd);
    IS(omni_loop_run(loop), 0);
    IS(omni_loop_run_once(loop, FOREVER), 0);
    IS(seen->closed, 1);
    close_pair(ends);
    omni_loop_free(loop);
    IS(omni_poller_post(poller, 3, 0), -ESTALE);
}

/* ---- Connections of one loop ----------------------------------------------------------------- */

static omni_conn *first;

static int keep_first(omni_conn *conn, void *context)
{
    if (!first)
        first = conn;
    return note_open(conn, context);
}

/* Everything is done to the other connection at once. */
static void use_the_first(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    char text[64];
    struct iovec piece = {"!", 1};
    OK(conn != first && data && length && context == &seen);
    OK(omni_conn_loop(first) == loop);
    OK(omni_conn_set_context(first, &first) == 0 && omni_conn_context(first) == &first);
    OK(omni_conn_context(conn) == NULL);
    IS(omni_conn_set_token(first, 8), 0);
    IS(omni_conn_token(first), 8);
    IS(omni_conn_token(conn), 7);
    OK(omni_conn_peer(first, text, sizeof text) > 0);
    IS(omni_conn_set_idle_timeout(first, 1000 * SECOND), 0);
    IS(omni_conn_pause(first), 0);
    IS(omni_conn_resume(first), 0);
    OK(omni_conn_write(first, data, length) >= 0);
    OK(omni_conn_writev(first, &piece, 1) >= 0);
    IS(omni_conn_shutdown(first), 0);
    IS(omni_conn_write(first, "x", 1), -EPIPE);
    IS(omni_conn_close(first), 0);
    IS(omni_conn_write(first, "x", 1), -EPIPE);
    IS(omni_conn_abort(conn), 0);
    seen->posted = 1;
}

static void connections_reach_each_other(uint32_t engine)
{
    omni_handler handler = noting(use_the_first);
    handler.on_open = keep_first;
    first = NULL;
    begin(engine, &handler);
    int one = connect_to(port);
    RUN_UNTIL(seen->opened == 1);
    int other = connect_to(port);
    send_text(other, "from the other");
    RUN_UNTIL(seen->posted);
    RUN_UNTIL(seen->closed == 1);
    IS(omni_loop_run_once(loop, LOOK), 1); /* which does what follows from it */
    receive(one, "from the other!");
    IS(receive_end(one), 0);
    close(one);
    RUN_UNTIL(seen->closed == 2);
    IS(omni_conn_token(first), 0);
    IS(omni_conn_set_token(first, 1), -ESTALE);
    OK(!omni_conn_loop(first));
    OK(strstr(omni_last_error(), "omni_conn_loop: "));
    close(other);
    omni_loop_free(loop);
}

/* So do connections of another loop of the same thread, in callbacks of the first and outside. */
static omni_loop *second_loop;

static void tell_the_other_loop(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(conn && context == &seen);
    OK(omni_conn_loop(first) == second_loop);
    OK(omni_conn_write(first, data, length) >= 0);
    IS(omni_conn_queued(first) >= 0, 1);
    /* A callback may run another loop. From there this one is reached as from any other thread. */
    IS(omni_loop_run_once(second_loop, LOOK), 1);
    IS(omni_loop_run_once(loop, LOOK), -EBUSY);
    OK(strstr(omni_last_error(), "omni_loop_run_once: this is a callback"));
    seen->posted = 1;
}

static void two_loops_of_one_thread(uint32_t engine)
{
    omni_handler handler = noting(tell_the_other_loop);
    second_loop = new_loop(engine, NULL);
    int where = loop_listen(second_loop, NULL, 9), one = connect_to(where);
    omni_loop_event event = one_loop_event(second_loop, OMNI_EVENT_ACCEPTED, 9);
    first = conn_of(&event);
    omni_loop_free(second_loop);
    close(one);

    omni_handler idle = noting(echo);
    second_loop = new_loop(engine, &idle);
    where = loop_listen(second_loop, NULL, 9);
    one = connect_to(where);
    memset(seen, 0, sizeof *seen);
    while (!seen->opened)
        IS(omni_loop_run_once(second_loop, FOREVER), 1);
    first = seen->conn;
    begin(engine, &handler);
    int fd = connect_to(port);
    send_text(fd, "across");
    RUN_UNTIL(seen->posted);
    IS(omni_loop_run_once(second_loop, LOOK), 1);
    receive(one, "across");
    close(one);
    close(fd);
    omni_loop_free(second_loop);
    omni_loop_free(loop);
}

/* ---- Other threads --------------------------------------------------------------------------- */

static void *use_as_a_stranger(void *argument)
{
    const omni_handler handler = {.size = sizeof handler};
    const uint8_t *start;
    omni_loop_event event;
    char text[8];
    IS(omni_loop_run(loop), -EPERM);
    OK(strstr(omni_last_error(), "omni_loop_run: the loop belongs to the thread that has made it"));
    IS(omni_loop_run_once(loop, LOOK), -EPERM);
    IS(omni_loop_wait(loop, &event, 1, LOOK), -EPERM);
    IS(omni_loop_buffer(loop, &start, NULL), -EPERM);
    IS(omni_loop_listen(loop, "127.0.0.1:0", &handler, 0), -EPERM);
    IS(omni_loop_address(loop, text, sizeof text), -EPERM);
    IS(omni_loop_write(loop, NULL, 0), -EPERM);
    omni_loop_free(loop);
    OK(strstr(omni_last_error(), "omni_loop_free: the loop belongs to the thread"));
    OK(omni_loop_poller(loop));
    /* A connection is reached by its id, for what the loop can be asked to do. */
    IS(omni_conn_queued(seen->conn), -EPERM);
    IS(omni_conn_token(seen->conn), 0);
    OK(!omni_conn_loop(seen->conn));
    IS(omni_conn_post(seen->conn, 42), 0);
    OK(omni_conn_write(seen->conn, "from a thread", 13) >= 0);
    IS(omni_conn_close(seen->conn), 0);
    IS(omni_loop_stop(loop, -1), 0);
    receive(*(int *)argument, "from a thread");
    shutdown(*(int *)argument, SHUT_WR);
    return NULL;
}

static void other_threads(uint32_t engine)
{
    omni_handler handler = noting(echo);
    pthread_t thread;
    begin(engine, &handler);
    int fd = connect_to(port);
    RUN_UNTIL(seen->opened);
    IS(pthread_create(&thread, NULL, use_as_a_stranger, &fd), 0);
    IS(omni_loop_run(loop), 0);
    IS(pthread_join(thread, NULL), 0);
    OK(seen->posted == 1 && seen->value == 42 && seen->closed == 1);
    close(fd);
    omni_loop_free(loop);
}

static void stop_the_loop(int signo)
{
    (void)signo;
    IS(omni_loop_stop(loop, 0), 0);
}

static void stopped_by_a_signal_handler(uint32_t engine)
{
    omni_handler handler = noting(echo);
    struct sigaction action = {.sa_handler = stop_the_loop}, before;
    IS(sigaction(SIGALRM, &action, &before), 0);
    begin(engine, &handler);
    int fd = connect_to(port);
    RUN_UNTIL(seen->opened);
    struct itimerspec soon = {.it_value.tv_nsec = 10 * MS};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_t timer;
    IS(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    IS(timer_settime(timer, 0, &soon, NULL), 0);
    IS(omni_loop_run(loop), 0);
    IS(seen->error, -ECANCELED);
    IS(seen->stopped, 1);
    IS(timer_delete(timer), 0);
    IS(sigaction(SIGALRM, &before, NULL), 0);
    close(fd);
    omni_loop_free(loop);
}

/* ---- Its end --------------------------------------------------------------------------------- */

static void free_the_loop(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(data && length && context == &seen);
    omni_poller *poller = omni_loop_poller(loop);
    omni_loop_free(loop);
    IS(omni_loop_run(loop), -ESTALE);
    IS(omni_loop_stop(loop, 0), -ESTALE);
    OK(!omni_loop_poller(loop));
    IS(seen->closed, 0);
    /* It lives until this returns. */
    OK(omni_conn_queued(conn) == 0);
    IS(omni_poller_post(poller, 1, 1), 0);
}

static void freed_in_a_callback(uint32_t engine)
{
    omni_handler handler = noting(free_the_loop);
    begin(engine, &handler);
    omni_poller *poller = omni_loop_poller(loop);
    int fd = connect_to(port);
    send_text(fd, "x");
    IS(omni_loop_run(loop), -ESTALE);
    IS(seen->closed, 1);
    IS(seen->error, -ECANCELED);
    IS(omni_poller_post(poller, 1, 1), -ESTALE);
    IS(receive_end(fd), ECONNRESET);
    IS(try_to_connect(port), -ECONNREFUSED);
    omni_loop_free(loop);
    OK(strstr(omni_last_error(), "omni_loop_free: the handle is stale"));
    omni_loop_free(NULL);
    close(fd);
}

static void freed_with_connections(uint32_t engine)
{
    omni_handler handler = noting(echo);
    int before = open_descriptors();
    begin(engine, &handler);
    int fd = connect_to(port);
    RUN_UNTIL(seen->opened);
    omni_loop_free(loop);
    IS(seen->closed, 1);
    IS(seen->error, -ECANCELED);
    close(fd);
    IS(open_descriptors(), before);
    loop = new_loop(engine, &handler);
    omni_loop_free(loop);
    IS(open_descriptors(), before);
}

static void *free_inherited(void *argument)
{
    (void)argument;
    IS(omni_loop_run(loop), -EOWNERDEAD);
    omni_loop_free(loop);
    IS(omni_loop_run(loop), -ESTALE);
    return NULL;
}

static void use_inherited(omni_handler *handler)
{
    const uint8_t *start;
    omni_loop_event event;
    char text[8];
    int count = open_descriptors();
    IS(omni_loop_run(loop), -EOWNERDEAD);
    OK(strstr(omni_last_error(), "omni_loop_run: the loop belongs to the parent process"));
    IS(omni_loop_run_once(loop, LOOK), -EOWNERDEAD);
    IS(omni_loop_wait(loop, &event, 1, LOOK), -EOWNERDEAD);
    IS(omni_loop_buffer(loop, &start, NULL), -EOWNERDEAD);
    IS(omni_loop_listen(loop, "127.0.0.1:0", handler, 0), -EOWNERDEAD);
    IS(omni_loop_address(loop, text, sizeof text), -EOWNERDEAD);
    IS(omni_loop_write(loop, NULL, 0), -EOWNERDEAD);
    IS(omni_loop_stop(loop, 0), -EOWNERDEAD);
    IS(omni_conn_write(seen->conn, "x", 1), -EOWNERDEAD);
    IS(omni_conn_queued(seen->conn), -EOWNERDEAD);
    IS(omni_poller_post(omni_loop_poller(loop), 1, 1), -EOWNERDEAD);
    omni_loop_free(loop);
    IS(omni_loop_run(loop), -ESTALE);
    IS(seen->closed, 0);
    OK(open_descriptors() < count);
}

static void forked(uint32_t engine)
{
    omni_handler handler = noting(echo);
    begin(engine, &handler);
    int fd = connect_to(port);
    RUN_UNTIL(seen->opened);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        use_inherited(&handler);
        /* It has loops of its own. */
        begin(omni_engine_by_name("epoll"), &handler);
        int own = connect_to(port);
        RUN_UNTIL(seen->opened);
        omni_loop_free(loop);
        IS(receive_end(own), ECONNRESET);
        _exit(0);
    }
    reap(pid);
    pid = fork();
    if (pid == 0) {
        elsewhere(free_inherited, NULL);
        _exit(0);
    }
    reap(pid);
    seen->closed = 0;
    send_text(fd, "still here");
    IS(omni_loop_run_once(loop, FOREVER), 1);
    IS(omni_loop_run_once(loop, LOOK), 1);
    receive(fd, "still here");
    close(fd);
    RUN_UNTIL(seen->closed);
    omni_loop_free(loop);
}

static pid_t forked_child;

static void fork_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(conn && data && length && context == &seen);
    fflush(stdout);
    forked_child = fork();
    if (forked_child == 0)
        alarm(60);
}

static void forked_in_a_callback(uint32_t engine)
{
    omni_handler handler = noting(fork_it);
    begin(engine, &handler);
    int fd = connect_to(port);
    RUN_UNTIL(seen->opened);
    forked_child = -1;
    send_text(fd, "x");
    int result = 1;
    while (result == 1 && forked_child < 0)
        result = omni_loop_run_once(loop, FOREVER);
    if (forked_child == 0) {
        IS(result, -EOWNERDEAD);
        omni_loop_free(loop);
        _exit(0);
    }
    IS(result, 1);
    reap(forked_child);
    close(fd);
    RUN_UNTIL(seen->closed);
    omni_loop_free(loop);
}

/* ---- The loops of a server's workers --------------------------------------------------------- */

static void note_workers_event(omni_loop *event_loop, const omni_event *event, void *context)
{
    OK(event_loop && context == &seen);
    IS(event->kind, OMNI_EVENT_TIMER);
    IS(event->token, 5);
    OK(omni_conn_write(seen->conn, "timer", 5) >= 0);
}

static void use_the_workers_loop(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    const omni_handler handler = {.size = sizeof handler};
    omni_loop *own = omni_conn_loop(conn);
    char text[8];
    uint64_t timer;
    OK(own && data && length && context == &seen);
    OK(omni_conn_loop(conn) == own);
    IS(omni_loop_run(own), -EPERM);
    OK(strstr(omni_last_error(), "omni_loop_run: the loop is a server's"));
    IS(omni_loop_run_once(own, LOOK), -EPERM);
    IS(omni_loop_stop(own, 0), -EPERM);
    IS(omni_loop_listen(own, "127.0.0.1:0", &handler, 0), -EPERM);
    IS(omni_loop_address(own, text, sizeof text), -EPERM);
    omni_loop_free(own);
    OK(strstr(omni_last_error(), "omni_loop_free: the loop is a server's"));
    omni_write write = {conn, "loop ", 5, -1, 0};
    IS(omni_loop_write(own, &write, 1), 1);
    OK(write.result >= 0);
    omni_poller *poller = omni_loop_poller(own);
    IS(omni_poller_timer_add(poller, 1, 0, 5, &timer), 0);
    omni_poller_free(poller);
    OK(strstr(omni_last_error(), "omni_poller_free: the poller is a loop's"));
    loop = own;
}

static void loops_of_workers(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        omni_handler handler = noting(use_the_workers_loop);
        handler.on_event = note_workers_event;
        loop = NULL;
        serve(&service, engine, model, handler);
        int fd = client();
        UNTIL(seen->opened);
        send_text(fd, "x");
        receive(fd, "loop timer");
        close(fd);
        UNTIL(seen->closed);
        finish(&service);
        if (loop) {
            OK(!omni_loop_poller(loop));
            OK(strstr(omni_last_error(), "omni_loop_poller: the handle is stale"));
        }
    }
}

static const struct behaviour behaviours[] = {
    {"bad_options", bad_options},
    {"events_of_the_program", events_of_the_program},
    {"connections_reach_each_other", connections_reach_each_other},
    {"two_loops_of_one_thread", two_loops_of_one_thread},
    {"other_threads", other_threads},
    {"stopped_by_a_signal_handler", stopped_by_a_signal_handler},
    {"freed_in_a_callback", freed_in_a_callback},
    {"freed_with_connections", freed_with_connections},
    {"forked", forked},
    {"forked_in_a_callback", forked_in_a_callback},
    {"loops_of_workers", loops_of_workers},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
