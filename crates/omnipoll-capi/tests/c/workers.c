/* The workers of servers, checked through the public header on every engine and under every model: their
 * start, their end, and what a program waits for on their loops.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

#include <limits.h>

/* ---- What the workers' callbacks have seen, in memory that forked processes share ------------- */

static struct {
    _Atomic int started[2], ended[2]; /* by the worker's number */
    _Atomic int opened_before_start, in_other_thread;
    _Atomic int events;
    _Atomic(omni_loop *) last;
} *noted;

/* The worker that this thread, or process, is. */
static _Thread_local omni_loop *own;
static _Thread_local int is_started;

static int worker_start(omni_loop *event_loop, uint32_t worker, void *context)
{
    OK(context == &seen && event_loop && worker < 2);
    noted->started[worker]++;
    own = noted->last = event_loop;
    is_started = 1;
    return 0;
}

static void worker_end(omni_loop *event_loop, uint32_t worker, void *context)
{
    OK(context == &seen && worker < 2);
    noted->in_other_thread += event_loop != own;
    noted->ended[worker]++;
    is_started = 0;
}

static int open_in_worker(omni_conn *conn, void *context)
{
    noted->opened_before_start += !is_started;
    OK(omni_conn_loop(conn) == own);
    return note_open(conn, context);
}

static omni_handler worker_handler(void)
{
    omni_handler handler = noting(echo);
    handler.on_open = open_in_worker;
    handler.on_worker_start = worker_start;
    handler.on_worker_end = worker_end;
    return handler;
}

static int has_worker_per_client(uint32_t model)
{
    return model == OMNI_MODEL_THREAD || model == OMNI_MODEL_FORK;
}

static void exchange(int fd, const char *text)
{
    send_text(fd, text);
    receive(fd, text);
}

static void start_and_end(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        memset(noted, 0, sizeof *noted);
        serve_with(&service, engine, model, worker_handler(), (omni_server_options){.workers = 2});
        for (int i = 0; i < 2; i++) {
            int fd = client();
            exchange(fd, "hello");
            close(fd);
        }
        UNTIL(seen->closed == 2);
        finish(&service);
        IS(noted->started[0], has_worker_per_client(model) ? 2 : 1);
        IS(noted->started[1], model == OMNI_MODEL_CORES || model == OMNI_MODEL_PREFORK);
        IS(noted->ended[0], noted->started[0]);
        IS(noted->ended[1], noted->started[1]);
        IS(noted->in_other_thread, 0);
        IS(noted->opened_before_start, 0);
        if (!forks(model)) {
            OK(omni_loop_poller(noted->last) == NULL);
            OK(strstr(omni_last_error(), "ESTALE"));
        }
    }
}

static int fail_to_start(omni_loop *event_loop, uint32_t worker, void *context)
{
    OK(event_loop && worker < 2);
    return *(const int *)context;
}

static int not_reached(omni_conn *conn, void *context)
{
    (void)conn;
    (void)context;
    OK(!"a connection was opened");
    return 0;
}

static void end_not_reached(omni_loop *event_loop, uint32_t worker, void *context)
{
    (void)event_loop;
    (void)worker;
    (void)context;
    OK(!"a worker has ended that had not started");
}

/* Runs a server whose workers return this at their start, and passes on what it returns. */
static int run_without_start(uint32_t engine, uint32_t model, int returned)
{
    omni_server_options options = {.size = sizeof options, .engine = engine, .model = model, .workers = 2};
    omni_handler handler = {.size = sizeof handler,
                            .context = &returned,
                            .on_open = not_reached,
                            .on_worker_start = fail_to_start,
                            .on_worker_end = end_not_reached};
    omni_server *server = new_server(&options, &handler);
    int port = listen_somewhere(server);
    /* A worker that is a client's starts with it. */
    int fd = has_worker_per_client(model) ? try_to_connect(port) : -1;
    int result = omni_server_run(server);
    close(fd);
    omni_server_free(server);
    return result;
}

static void starts_that_fail(uint32_t engine)
{
    static const int returned[][2] = {
        {-EACCES, -EACCES}, {1, -ECANCELED}, {-1000000, -ECANCELED}, {INT_MIN, -ECANCELED}};
    for (EVERY_MODEL(model))
        for (size_t i = 0; i < sizeof returned / sizeof *returned; i++) {
            int status;
            fflush(stdout);
            /* A process that forks has no other threads. */
            pid_t pid = fork();
            if (pid == 0) {
                alarm(60);
                IS(run_without_start(engine, model, returned[i][0]), returned[i][1]);
                _exit(0);
            }
            IS(waitpid(pid, &status, 0), pid);
            IS(status, 0);
        }
}

enum { TIMER = 1, POST, PIPE };

static _Thread_local int ends[2];

static int wait_for_things(omni_loop *event_loop, uint32_t worker, void *context)
{
    omni_poller *poller = omni_loop_poller(event_loop);
    OK(poller);
    IS(omni_poller_timer_add(poller, MS, 0, TIMER, NULL), 0);
    IS(omni_poller_post(poller, POST, 7), 0);
    IS(pipe(ends), 0);
    put(ends[1], 1);
    IS(omni_poller_add(poller, ends[0], OMNI_READ, PIPE), 0);
    /* What is the server's to do, and the loop's. */
    IS(omni_loop_run(event_loop), -EPERM);
    IS(omni_loop_stop(event_loop, 0), -EPERM);
    IS(omni_loop_listen(event_loop, "127.0.0.1:0", NULL, 0), -EPERM);
    IS(omni_loop_address(event_loop, NULL, 0), -EPERM);
    IS(omni_poller_add(poller, ends[1], OMNI_WRITE, UINT64_MAX), -EINVAL);
    return worker_start(event_loop, worker, context);
}

static void note_event(omni_loop *event_loop, const omni_event *event, void *context)
{
    OK(context == &seen && event_loop == own);
    switch (event->token) {
    case TIMER: IS(event->kind, OMNI_EVENT_TIMER); break;
    case POST:
        IS(event->kind, OMNI_EVENT_POST);
        IS(event->value, 7);
        break;
    case PIPE:
        IS(event->kind, OMNI_EVENT_IO);
        IS(event->value, ends[0]);
        IS(omni_poller_remove(omni_loop_poller(event_loop), ends[0]), 0);
        close(ends[0]);
        close(ends[1]);
        break;
    default: OK(!"an event of something else");
    }
    noted->events++;
}

static void events_of_its_own(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        memset(noted, 0, sizeof *noted);
        omni_handler handler = worker_handler();
        handler.on_worker_start = wait_for_things;
        handler.on_event = note_event;
        serve_with(&service, engine, model, handler, (omni_server_options){.workers = 2});
        int fd = client();
        exchange(fd, "hello");
        int workers = model == OMNI_MODEL_CORES || model == OMNI_MODEL_PREFORK ? 2 : 1;
        UNTIL(noted->events == 3 * workers);
        exchange(fd, "again");
        close(fd);
        finish(&service);
        IS(noted->events, 3 * workers);
    }
}

static const struct behaviour behaviours[] = {
    {"each worker starts and ends once, in its thread or process", start_and_end},
    {"a worker that does not start ends the server", starts_that_fail},
    {"a worker waits for what the program adds to its poller", events_of_its_own},
};

int main(void)
{
    share_what_is_seen();
    noted = mmap(NULL, sizeof *noted, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    OK(noted != MAP_FAILED);
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
