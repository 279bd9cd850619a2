/* Loops and servers in an outer loop by poll(2): their descriptors are readable while there is something
 * to do, timers and posts too, and not while there is nothing.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "looping.h"

static int readable(int fd, int timeout)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    int ready = poll(&watched, 1, timeout);
    OK(ready >= 0 || errno == EINTR);
    return ready > 0;
}

static int has_descriptor(uint32_t engine)
{
    return engine == OMNI_ENGINE_EPOLL || engine == OMNI_ENGINE_IO_URING;
}

/* Makes steps while the descriptor is readable, until the condition holds. */
#define STEP_UNTIL(descriptor, step, condition)    \
    while (!(condition))                           \
        if (readable(descriptor, 100))             \
            IS(step, 1)

/* It becomes unreadable, after a few steps at most. */
#define IDLE(descriptor, step)                     \
    do {                                           \
        int steps = 0;                             \
        while (readable(descriptor, 0) && steps++ < 8) \
            (void)!(step);                         \
        OK(!readable(descriptor, 0));              \
    } while (0)

static int fired, posted;

static void note_event(omni_loop *loop, const omni_event *event, void *context)
{
    OK(loop && context == &seen);
    fired += event->kind == OMNI_EVENT_TIMER;
    posted += event->kind == OMNI_EVENT_POST;
}

struct exchange {
    int port;
    _Atomic int done;
};

/* A client of its own thread. */
static void *exchange(void *argument)
{
    struct exchange *exchange = argument;
    int fd = connect_to(exchange->port);
    for (int round = 0; round < 100; round++) {
        send_text(fd, "hello");
        receive(fd, "hello");
    }
    close(fd);
    exchange->done = 1;
    return NULL;
}

static void a_loop_by_handler(uint32_t engine)
{
    omni_handler handler = noting(echo);
    handler.on_event = note_event;
    memset(seen, 0, sizeof *seen);
    fired = posted = 0;
    uint64_t timer;
    omni_loop *loop = new_loop(engine, &handler);
    int descriptor = omni_loop_descriptor(loop);
    if (!has_descriptor(engine)) {
        IS(descriptor, -ENOTSUP);
        OK(strstr(omni_last_error(), "omni_loop_descriptor: select and poll have no"));
        omni_loop_free(loop);
        return;
    }
    OK(descriptor >= 0);
    IS(omni_loop_descriptor(loop), descriptor);
    IDLE(descriptor, omni_loop_run_once(loop, LOOK));
    struct exchange client = {.port = loop_listen(loop, NULL, 7)};
    pthread_t thread;
    IS(pthread_create(&thread, NULL, exchange, &client), 0);
    STEP_UNTIL(descriptor, omni_loop_run_once(loop, LOOK), client.done && seen->closed);
    IS(pthread_join(thread, NULL), 0);
    IDLE(descriptor, omni_loop_run_once(loop, LOOK));
    IS(omni_poller_timer_add(omni_loop_poller(loop), MS, 0, 1, &timer), 0);
    STEP_UNTIL(descriptor, omni_loop_run_once(loop, LOOK), fired);
    IDLE(descriptor, omni_loop_run_once(loop, LOOK));
    IS(omni_poller_post(omni_loop_poller(loop), 2, 3), 0);
    STEP_UNTIL(descriptor, omni_loop_run_once(loop, LOOK), posted);
    IDLE(descriptor, omni_loop_run_once(loop, LOOK));
    IS(omni_loop_stop(loop, 0), 0);
    while (!readable(descriptor, 100) || omni_loop_run_once(loop, LOOK))
        ;
    omni_loop_free(loop);
}

static void a_pulled_loop(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    int descriptor = omni_loop_descriptor(loop);
    if (!has_descriptor(engine)) {
        IS(descriptor, -ENOTSUP);
        omni_loop_free(loop);
        return;
    }
    omni_loop_event event;
    struct exchange client = {.port = loop_listen(loop, NULL, 7)};
    pthread_t thread;
    IS(pthread_create(&thread, NULL, exchange, &client), 0);
    const uint8_t *start;
    IS(omni_loop_buffer(loop, &start, NULL), 0);
    for (int closed = 0; !closed;) {
        if (!readable(descriptor, 100) || omni_loop_wait(loop, &event, 1, LOOK) == 0)
            continue;
        closed = event.kind == OMNI_EVENT_CLOSED;
        if (event.kind == OMNI_EVENT_DATA)
            OK(omni_conn_write(conn_of(&event), start + event.offset, event.length) >= 0);
        if (event.kind == OMNI_EVENT_ENDED)
            IS(omni_conn_close(conn_of(&event)), 0);
    }
    IS(pthread_join(thread, NULL), 0);
    IDLE(descriptor, omni_loop_wait(loop, &event, 1, LOOK));
    omni_loop_free(loop);
}

static void a_server(uint32_t engine)
{
    omni_handler handler = noting(echo);
    omni_server_options options = {.size = sizeof options, .engine = engine};
    memset(seen, 0, sizeof *seen);
    omni_server *server = new_server(&options, &handler);
    struct exchange client = {.port = listen_somewhere(server)};
    int descriptor = omni_server_descriptor(server);
    pthread_t thread;
    IS(pthread_create(&thread, NULL, exchange, &client), 0);
    if (has_descriptor(engine)) {
        STEP_UNTIL(descriptor, omni_server_run_once(server, LOOK), client.done && seen->closed);
        IDLE(descriptor, omni_server_run_once(server, LOOK));
    } else {
        IS(descriptor, -ENOTSUP);
        while (!client.done || !seen->closed)
            IS(omni_server_run_once(server, 10 * MS), 1);
    }
    IS(pthread_join(thread, NULL), 0);
    IS(omni_server_run(server), -EINVAL);
    IS(omni_server_stop(server, 0), 0);
    while (omni_server_run_once(server, LOOK))
        ;
    IS(omni_server_run_once(server, FOREVER), 0);
    omni_server_free(server);
    IS(omni_server_run_once(server, LOOK), -ESTALE);
}

static void *step_elsewhere(void *server)
{
    IS(omni_server_run_once(server, LOOK), -EINVAL);
    IS(omni_server_descriptor(server), -EINVAL);
    return NULL;
}

static omni_server *freed;

static void free_server(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(conn && data && length && context == &seen);
    IS(omni_server_run_once(freed, LOOK), -EINVAL);
    omni_server_free(freed);
    IS(seen->closed, 0);
}

static void misused_servers(uint32_t engine)
{
    omni_handler handler = noting(free_server);
    omni_server_options options = {.size = sizeof options, .engine = engine};
    for (EVERY_MODEL(model)) {
        options.model = model;
        omni_server *server = new_server(&options, &handler);
        if (model == OMNI_MODEL_REACTOR) {
            IS(omni_server_run_once(server, LOOK), 1);
            elsewhere(step_elsewhere, server);
        } else {
            IS(omni_server_run_once(server, LOOK), -ENOTSUP);
            IS(omni_server_descriptor(server), -ENOTSUP);
        }
        omni_server_free(server);
    }
    IS(omni_server_run_once(NULL, LOOK), -EINVAL);
    /* Freed in a callback it ends with the step, and its client with it. */
    options.model = OMNI_MODEL_REACTOR;
    memset(seen, 0, sizeof *seen);
    freed = new_server(&options, &handler);
    int fd = connect_to(listen_somewhere(freed));
    send_text(fd, "x");
    int stepped;
    while ((stepped = omni_server_run_once(freed, FOREVER)) == 1)
        ;
    IS(stepped, -ESTALE);
    IS(seen->closed, 1);
    IS(seen->error, -ECANCELED);
    close(fd);
    /* And freed between steps at once. */
    memset(seen, 0, sizeof *seen);
    freed = new_server(&options, &handler);
    fd = connect_to(listen_somewhere(freed));
    while (!seen->opened)
        IS(omni_server_run_once(freed, FOREVER), 1);
    omni_server_free(freed);
    IS(seen->closed, 1);
    close(fd);
}

static const struct behaviour behaviours[] = {
    {"a_loop_by_handler", a_loop_by_handler},
    {"a_pulled_loop", a_pulled_loop},
    {"a_server", a_server},
    {"misused_servers", misused_servers},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
