/* What the C tests share: checks that end the program, descriptors, waits, and the run on every
 * engine. Include it first. */
#ifndef HARNESS_H
#define HARNESS_H

#define _GNU_SOURCE /* syscall(SYS_gettid) */
/* The tests pass NULL on purpose. */
#define OMNI_NONNULL(...)
#include <omnipoll.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 16, FOREVER = -1, LOOK = 0, MS = 1000000 };

/* ---- Checking ------------------------------------------------------------------------------ */

static inline void is(long long actual, long long expected, const char *what, int line)
{
    if (actual == expected)
        return;
    fflush(stdout);
    fprintf(stderr, "line %d: %s is %lld, not %lld; the last error is \"%s\"\n", line, what, actual,
            expected, omni_last_error());
    exit(1);
}

#define IS(actual, expected) is((long long)(actual), (long long)(expected), #actual, __LINE__)
#define OK(condition) IS(!!(condition), 1)

/* ---- Descriptors --------------------------------------------------------------------------- */

struct pair {
    int ours, theirs;
};

static inline void unblock(int fd)
{
    IS(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

/* ours reads what theirs writes. */
static inline struct pair pipe_pair(void)
{
    int ends[2];
    IS(pipe(ends), 0);
    unblock(ends[0]);
    unblock(ends[1]);
    return (struct pair){ends[0], ends[1]};
}

static inline struct pair socket_pair(void)
{
    int ends[2];
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    unblock(ends[0]);
    unblock(ends[1]);
    return (struct pair){ends[0], ends[1]};
}

static inline struct pair tcp_pair(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    struct pair pair;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    IS(bind(listener, (struct sockaddr *)&address, length), 0);
    IS(listen(listener, 1), 0);
    IS(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    pair.theirs = socket(AF_INET, SOCK_STREAM, 0);
    IS(connect(pair.theirs, (struct sockaddr *)&address, length), 0);
    pair.ours = accept(listener, NULL, NULL);
    OK(pair.ours >= 0);
    unblock(pair.ours);
    close(listener);
    return pair;
}

static inline void close_pair(struct pair pair)
{
    close(pair.ours);
    close(pair.theirs);
}

static inline void put(int fd, size_t length)
{
    static const char zeroes[4096];
    IS(write(fd, zeroes, length), length);
}

static inline void take(int fd, size_t length)
{
    char bytes[4096];
    IS(read(fd, bytes, length), length);
}

static inline void drain(int fd)
{
    char bytes[4096];
    while (read(fd, bytes, sizeof bytes) > 0)
        ;
    IS(errno, EAGAIN);
}

/* A number that no file has. */
static inline int closed_descriptor(void)
{
    int fd = dup(0);
    OK(fd >= 0);
    close(fd);
    return fd;
}

static inline int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* ---- Waiting ------------------------------------------------------------------------------- */

static inline omni_poller *new_poller(uint32_t engine)
{
    omni_poller *poller = NULL;
    IS(omni_poller_new(engine, 0, &poller), 0);
    return poller;
}

static inline int look(omni_poller *poller)
{
    omni_event events[ROOM];
    return omni_poller_wait(poller, events, ROOM, LOOK);
}

/* The wait returns one event, of this descriptor: what it is ready for. */
static inline uint32_t one_event(omni_poller *poller, int fd, uint64_t token)
{
    omni_event events[ROOM];
    IS(omni_poller_wait(poller, events, ROOM, FOREVER), 1);
    IS(events[0].kind, OMNI_EVENT_IO);
    IS(events[0].value, fd);
    IS(events[0].token, token);
    OK(events[0].ready);
    return events[0].ready;
}

/* The wait returns one event of this kind and token. */
static inline omni_event one_of(omni_poller *poller, uint32_t kind, uint64_t token)
{
    omni_event events[ROOM];
    IS(omni_poller_wait(poller, events, ROOM, FOREVER), 1);
    IS(events[0].kind, kind);
    IS(events[0].token, token);
    IS(events[0].ready, kind == OMNI_EVENT_SIGNAL ? events[0].ready : 0);
    return events[0];
}

/* The wait returns one event, a wake: how many of them. */
static inline int64_t one_wake(omni_poller *poller)
{
    omni_event events[ROOM];
    IS(omni_poller_wait(poller, events, ROOM, FOREVER), 1);
    IS(events[0].kind, OMNI_EVENT_WAKE);
    IS(events[0].token, 0);
    IS(events[0].ready, 0);
    return events[0].value;
}

/* A thread in omni_poller_wait. */
struct waiter {
    pthread_t thread;
    omni_poller *poller;
    int64_t timeout;
    _Atomic long tid;
    int result;
    omni_event events[ROOM];
};

static inline void *wait_once(void *argument)
{
    struct waiter *waiter = argument;
    waiter->tid = syscall(SYS_gettid);
    waiter->result = omni_poller_wait(waiter->poller, waiter->events, ROOM, waiter->timeout);
    return NULL;
}

/* Whether the kernel has put the thread to sleep: the 'S' of proc(5). */
static inline int is_asleep(long tid)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%ld/stat", tid);
    FILE *file = fopen(path, "r");
    OK(file && fgets(line, sizeof line, file));
    fclose(file);
    return strrchr(line, ')')[2] == 'S';
}

/* Returns once the thread sleeps in its wait. */
static inline void start_waiting(struct waiter *waiter, omni_poller *poller, int64_t timeout)
{
    memset(waiter, 0, sizeof *waiter);
    waiter->poller = poller;
    waiter->timeout = timeout;
    IS(pthread_create(&waiter->thread, NULL, wait_once, waiter), 0);
    while (!waiter->tid || !is_asleep(waiter->tid))
        sched_yield();
}

static inline int finish_waiting(struct waiter *waiter)
{
    IS(pthread_join(waiter->thread, NULL), 0);
    return waiter->result;
}

/* In a forked child. Freed while a thread waits in it, the poller is dropped when that has left, and
 * not before. */
static inline void free_under_a_wait(omni_poller *poller)
{
    struct waiter waiter;
    IS(omni_poller_after_fork(poller), 0);
    while (look(poller) > 0) /* what the child has closed */
        ;
    start_waiting(&waiter, poller, FOREVER);
    omni_poller_free(poller);
    IS(finish_waiting(&waiter), -ESTALE);
}

static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Lets time pass, which is all that is waited for. */
static inline void let_pass(int64_t duration_ns)
{
    for (int64_t end = now_ns() + duration_ns; now_ns() < end;)
        sched_yield();
}

/* ---- Running ------------------------------------------------------------------------------- */

struct behaviour {
    const char *name;
    void (*check)(uint32_t engine);
};

/* Checks each behaviour on each engine, and prints a line for it. */
static inline void check_on_every_engine(const struct behaviour *behaviours, size_t count)
{
    const uint32_t engines[] = {OMNI_ENGINE_SELECT, OMNI_ENGINE_POLL, OMNI_ENGINE_EPOLL,
                                OMNI_ENGINE_IO_URING};
    alarm(300);
    for (size_t e = 0; e < sizeof engines / sizeof *engines; e++) {
        /* Every kernel has the others; io_uring may be too old, or forbidden. */
        if (engines[e] == OMNI_ENGINE_IO_URING && !omni_engine_available(engines[e])) {
            omni_poller *poller = NULL;
            IS(omni_poller_new(engines[e], 0, &poller), -ENOSYS);
            printf("--  io_uring is refused: %s\n", omni_last_error());
            continue;
        }
        IS(omni_engine_available(engines[e]), 1);
        for (size_t b = 0; b < count; b++) {
            behaviours[b].check(engines[e]);
            printf("ok  %s %s\n", omni_engine_name(engines[e]), behaviours[b].name);
            fflush(stdout);
        }
    }
}

#endif
