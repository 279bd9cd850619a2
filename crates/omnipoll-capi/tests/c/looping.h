/* What the tests of loops share: a loop, where it listens, its events, and threads that are not its
 * own. */
#ifndef LOOPING_H
#define LOOPING_H

#include "serving.h"

static inline omni_loop *new_loop(uint32_t engine, const omni_handler *handler)
{
    omni_loop_options options = {.size = sizeof options, .engine = engine};
    omni_loop *loop = NULL;
    IS(omni_loop_new(&options, handler, &loop), 0);
    OK(loop);
    return loop;
}

/* Listens on a port of the system's choice, which it returns. */
static inline int loop_listen(omni_loop *loop, const omni_handler *handler, uint64_t token)
{
    char addresses[512];
    IS(omni_loop_listen(loop, "127.0.0.1:0", handler, token), 0);
    OK(omni_loop_address(loop, addresses, sizeof addresses) > 0);
    return atoi(strrchr(addresses, ':') + 1);
}

static inline int connect_to(int port)
{
    int fd = try_to_connect(port);
    OK(fd >= 0);
    return fd;
}

/* Runs `loop` until the condition holds. */
#define RUN_UNTIL(condition) \
    while (!(condition))     \
    IS(omni_loop_run_once(loop, FOREVER), 1)

static inline omni_conn *conn_of(const omni_loop_event *event)
{
    return (omni_conn *)(uintptr_t)event->value;
}

/* The wait returns one event, of this kind and token. */
static inline omni_loop_event one_loop_event_at(omni_loop *loop, uint32_t kind, uint64_t token, int line)
{
    omni_loop_event event;
    is(omni_loop_wait(loop, &event, 1, FOREVER), 1, "the wait", line);
    is(event.kind, kind, "the kind", line);
    is((long long)event.token, (long long)token, "the token", line);
    return event;
}

#define one_loop_event(loop, kind, token) one_loop_event_at(loop, kind, token, __LINE__)

static inline const uint8_t *buffer_of(omni_loop *loop, size_t *size)
{
    const uint8_t *start = NULL;
    IS(omni_loop_buffer(loop, &start, size), 0);
    OK(start);
    return start;
}

/* A loop with one connection. */
static inline omni_conn *accepted(omni_loop *loop, int port, int *fd)
{
    *fd = connect_to(port);
    omni_loop_event event = one_loop_event(loop, OMNI_EVENT_ACCEPTED, 7);
    OK(event.value != 0);
    IS(event.offset | event.length | event.ready, 0);
    return conn_of(&event);
}

/* Runs a function with the loop in another thread, to its end. */
static inline void elsewhere(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    IS(pthread_create(&thread, NULL, body, argument), 0);
    IS(pthread_join(thread, NULL), 0);
}

/* Waits for a child that must end with status 0. */
static inline void reap(pid_t pid)
{
    int status;
    OK(pid > 0);
    IS(waitpid(pid, &status, 0), pid);
    IS(status, 0);
}

#endif
