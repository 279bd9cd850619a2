/* The core of the contract, checked through the public header on every engine.
 *
 * One line for each behaviour and engine: "ok  epoll LEVEL is reported as long as it holds".
 * Ends with status 1 at the first thing that is not as promised, and by itself in any case. */

#include "harness.h"

#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- The contract -------------------------------------------------------------------------- */

static int engine_reports(omni_poller *poller, int capability)
{
    return omni_poller_capabilities(poller) & capability;
}

static void level(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pipe = pipe_pair();
    IS(omni_poller_add(poller, pipe.ours, OMNI_READ, 7), 0);
    IS(look(poller), 0);
    put(pipe.theirs, 2048);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    take(pipe.ours, 1024);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    take(pipe.ours, 1024);
    IS(look(poller), 0);
    omni_poller_free(poller);
    close_pair(pipe);
}

static void edge(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pipe = pipe_pair();
    IS(omni_poller_add(poller, pipe.ours, OMNI_READ | OMNI_EDGE, 7), 0);
    put(pipe.theirs, 2048);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    take(pipe.ours, 1024);
    IS(look(poller), 0);

    drain(pipe.ours);
    IS(omni_poller_rearm(poller, pipe.ours, OMNI_READ), 0);
    IS(look(poller), 0);
    put(pipe.theirs, 1);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);

    /* What arrives between the EAGAIN and the rearm is not lost. */
    drain(pipe.ours);
    put(pipe.theirs, 1);
    IS(omni_poller_rearm(poller, pipe.ours, OMNI_READ), 0);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    omni_poller_free(poller);
    close_pair(pipe);
}

static void oneshot(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pipe = pipe_pair();
    IS(omni_poller_add(poller, pipe.ours, OMNI_READ | OMNI_ONESHOT, 7), 0);
    put(pipe.theirs, 1);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    put(pipe.theirs, 1);
    IS(look(poller), 0);
    IS(omni_poller_rearm(poller, pipe.ours, OMNI_READ), -EINVAL);
    IS(omni_poller_modify(poller, pipe.ours, OMNI_READ | OMNI_ONESHOT, 8), 0);
    IS(one_event(poller, pipe.ours, 8), OMNI_READ);
    IS(look(poller), 0);
    /* Not even the end of the pipe is reported, and it doesn't spin. */
    close(pipe.theirs);
    IS(look(poller), 0);
    IS(omni_poller_modify(poller, pipe.ours, OMNI_READ | OMNI_ONESHOT | OMNI_EDGE, 9), 0);
    OK(one_event(poller, pipe.ours, 9) & OMNI_READ);
    IS(look(poller), 0);
    omni_poller_free(poller);
    close(pipe.ours);
}

static void modify(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    IS(look(poller), 0);
    IS(omni_poller_modify(poller, pair.ours, OMNI_READ | OMNI_WRITE, 2), 0);
    IS(one_event(poller, pair.ours, 2), OMNI_WRITE);
    put(pair.theirs, 1);
    IS(one_event(poller, pair.ours, 2), OMNI_READ | OMNI_WRITE);
    IS(omni_poller_modify(poller, pair.ours, OMNI_READ, UINT64_MAX), 0);
    IS(one_event(poller, pair.ours, UINT64_MAX), OMNI_READ);
    IS(omni_poller_remove(poller, pair.ours), 0);
    IS(look(poller), 0);
    omni_poller_free(poller);
    close_pair(pair);
}

static void set(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    const int none[] = {-1, INT_MAX, closed_descriptor()};
    IS(omni_poller_set(poller, pair.ours, 0, 1), 0);
    IS(omni_poller_remove(poller, pair.ours), -ENOENT);
    /* Added, modified, removed; and so once more. */
    for (uint64_t token = 1; token < 4; token += 2) {
        IS(omni_poller_set(poller, pair.ours, OMNI_WRITE, token), 0);
        IS(one_event(poller, pair.ours, token), OMNI_WRITE);
        IS(omni_poller_set(poller, pair.ours, OMNI_READ, token + 1), 0);
        IS(look(poller), 0);
        put(pair.theirs, 1);
        IS(one_event(poller, pair.ours, token + 1), OMNI_READ);
        drain(pair.ours);
        IS(omni_poller_set(poller, pair.ours, 0, 0), 0);
        put(pair.theirs, 1);
        IS(look(poller), 0);
        drain(pair.ours);
        IS(omni_poller_remove(poller, pair.ours), -ENOENT);
    }
    /* Triggers are taken as well. */
    IS(omni_poller_set(poller, pair.ours, OMNI_WRITE | OMNI_ONESHOT, 5), 0);
    IS(one_event(poller, pair.ours, 5), OMNI_WRITE);
    IS(look(poller), 0);
    IS(omni_poller_set(poller, pair.ours, OMNI_WRITE | OMNI_ONESHOT, 6), 0);
    IS(one_event(poller, pair.ours, 6), OMNI_WRITE);
    /* What is wrong changes nothing. */
    IS(omni_poller_set(poller, pair.ours, OMNI_READ | OMNI_HANGUP, 7), -EINVAL);
    IS(omni_poller_set(poller, pair.ours, 0x80000000, 7), -EINVAL);
    IS(omni_poller_modify(poller, pair.ours, OMNI_WRITE, 8), 0);
    IS(one_event(poller, pair.ours, 8), OMNI_WRITE);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        IS(omni_poller_set(poller, none[i], OMNI_READ, 9), -EBADF);
    omni_poller_free(poller);
    close_pair(pair);
}

static void registration_errors(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    const int not_open[] = {-1, INT_MIN, INT_MAX, closed_descriptor()};
    for (size_t i = 0; i < sizeof not_open / sizeof *not_open; i++)
        IS(omni_poller_add(poller, not_open[i], OMNI_READ, 0), -EBADF);
    IS(omni_poller_modify(poller, -1, OMNI_READ, 0), -EBADF);
    IS(omni_poller_remove(poller, -1), -EBADF);
    IS(omni_poller_rearm(poller, -1, OMNI_READ), -EBADF);

    const int unknown[] = {pair.ours, INT_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        IS(omni_poller_modify(poller, unknown[i], OMNI_READ, 0), -ENOENT);
        IS(omni_poller_remove(poller, unknown[i]), -ENOENT);
        IS(omni_poller_rearm(poller, unknown[i], OMNI_READ), -ENOENT);
    }

    IS(omni_poller_add(poller, pair.ours, OMNI_WRITE, 1), 0);
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 2), -EEXIST);
    IS(one_event(poller, pair.ours, 1), OMNI_WRITE);
    IS(omni_poller_remove(poller, pair.ours), 0);
    IS(omni_poller_remove(poller, pair.ours), -ENOENT);
    omni_poller_free(poller);
    close_pair(pair);
}

static void no_direction(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    omni_event event;
    IS(omni_poller_add(poller, pair.ours, 0, 1), 0);
    IS(write(pair.theirs, "x", 1), 1);
    IS(omni_poller_wait(poller, &event, 1, 0), 0);
    close(pair.theirs);
    if (engine_reports(poller, OMNI_REPORTS_HANGUP))
        IS(one_event(poller, pair.ours, 1), OMNI_HANGUP);
    else
        IS(omni_poller_wait(poller, &event, 1, 0), 0);
    omni_poller_free(poller);
    close(pair.ours);
}

static void interest_bits(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    const uint32_t wrong[] = {
        OMNI_READ | OMNI_READ_CLOSED, OMNI_READ | OMNI_HANGUP,
        OMNI_READ | 0x800, OMNI_READ | 0x80000000, UINT32_MAX,
        OMNI_READ | OMNI_EXCLUSIVE | OMNI_ONESHOT, OMNI_PRIORITY | OMNI_EXCLUSIVE,
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        IS(omni_poller_add(poller, pair.ours, wrong[i], 0), -EINVAL);
    IS(omni_poller_remove(poller, pair.ours), -ENOENT);

    /* A refused change changes nothing. */
    IS(omni_poller_add(poller, pair.ours, OMNI_WRITE, 5), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        IS(omni_poller_modify(poller, pair.ours, wrong[i], 6), -EINVAL);
        IS(omni_poller_rearm(poller, pair.ours, wrong[i]), -EINVAL);
    }
    IS(one_event(poller, pair.ours, 5), OMNI_WRITE);
    omni_poller_free(poller);
    close_pair(pair);
}

static void exclusive(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    if (engine_reports(poller, OMNI_HAS_EXCLUSIVE)) {
        IS(omni_poller_add(poller, pair.ours, OMNI_READ | OMNI_EXCLUSIVE, 7), 0);
        put(pair.theirs, 1);
        IS(one_event(poller, pair.ours, 7), OMNI_READ);
        IS(omni_poller_modify(poller, pair.ours, OMNI_READ, 8), -EINVAL);
    } else {
        IS(omni_poller_add(poller, pair.ours, OMNI_READ | OMNI_EXCLUSIVE, 7), -EINVAL);
        IS(omni_poller_remove(poller, pair.ours), -ENOENT);
    }
    omni_poller_free(poller);
    close_pair(pair);
}

static void regular_files(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    omni_poller *lenient = NULL;
    int file = open("/proc/self/exe", O_RDONLY);
    int directory = open("/", O_RDONLY);
    IS(omni_poller_add(poller, file, OMNI_READ, 1), -EPERM);
    IS(omni_poller_add(poller, directory, OMNI_READ, 1), -EPERM);

    IS(omni_poller_new(engine, OMNI_FILES_ALWAYS_READY, &lenient), 0);
    IS(omni_poller_add(lenient, file, OMNI_READ, 1), 0);
    OK(one_event(lenient, file, 1) & OMNI_READ);
    OK(one_event(lenient, file, 1) & OMNI_READ);
    IS(omni_poller_remove(lenient, file), 0);
    IS(look(lenient), 0);
    omni_poller_free(poller);
    omni_poller_free(lenient);
    close(file);
    close(directory);
}

static void hangup(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    uint32_t hung_up = engine_reports(poller, OMNI_REPORTS_HANGUP) ? OMNI_HANGUP : 0;
    uint32_t read_closed = engine_reports(poller, OMNI_REPORTS_READ_CLOSED) ? OMNI_READ_CLOSED : 0;
    struct pair pair = socket_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    IS(shutdown(pair.theirs, SHUT_WR), 0);
    IS(one_event(poller, pair.ours, 1), OMNI_READ | read_closed);
    close(pair.theirs);
    IS(one_event(poller, pair.ours, 1), OMNI_READ | read_closed | hung_up);
    omni_poller_free(poller);
    close(pair.ours);
}

static void urgent_data(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = tcp_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_PRIORITY, 1), 0);
    put(pair.theirs, 1);
    IS(look(poller), 0);
    IS(send(pair.theirs, "!", 1, MSG_OOB), 1);
    IS(one_event(poller, pair.ours, 1), OMNI_PRIORITY);
    omni_poller_free(poller);
    close_pair(pair);
}

static void high_descriptor(uint32_t engine)
{
    struct rlimit limit;
    IS(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    IS(setrlimit(RLIMIT_NOFILE, &limit), 0);

    omni_poller *poller = new_poller(engine);
    struct pair low = pipe_pair();
    const int lowest[] = {1024, 3000};
    for (size_t i = 0; i < sizeof lowest / sizeof *lowest; i++) {
        struct pair high = pipe_pair();
        int fd = fcntl(high.ours, F_DUPFD, lowest[i]);
        OK(fd >= lowest[i]);
        IS(omni_poller_add(poller, low.ours, OMNI_READ, 1), 0);
        IS(omni_poller_add(poller, fd, OMNI_READ, 2), 0);
        put(high.theirs, 1);
        IS(one_event(poller, fd, 2), OMNI_READ);
        IS(omni_poller_remove(poller, low.ours), 0);
        IS(omni_poller_remove(poller, fd), 0);
        close(fd);
        close_pair(high);
    }
    omni_poller_free(poller);
    close_pair(low);
}

static void small_capacity(uint32_t engine)
{
    enum { PAIRS = 8, CAPACITY = 3 };
    omni_poller *poller = new_poller(engine);
    struct pair pairs[PAIRS];
    omni_event events[CAPACITY + 1];
    unsigned seen = 0;
    for (int i = 0; i < PAIRS; i++) {
        pairs[i] = pipe_pair();
        put(pairs[i].theirs, 1);
        IS(omni_poller_add(poller, pairs[i].ours, OMNI_READ, (uint64_t)i), 0);
    }
    /* Everything stays ready; everybody's turn comes; nothing is written past the capacity. */
    for (int round = 0; round < 3; round++) {
        memset(events, 0x55, sizeof events);
        IS(omni_poller_wait(poller, events, CAPACITY, FOREVER), CAPACITY);
        IS(events[CAPACITY].token, 0x5555555555555555);
        for (int i = 0; i < CAPACITY; i++)
            seen |= 1u << events[i].token;
    }
    IS(seen, (1u << PAIRS) - 1);
    IS(look(poller), PAIRS);
    omni_poller_free(poller);
    for (int i = 0; i < PAIRS; i++)
        close_pair(pairs[i]);
}

/* Whether the engine notices that a registered descriptor was closed. */
static int reports_closed(uint32_t engine)
{
    return engine == OMNI_ENGINE_SELECT || engine == OMNI_ENGINE_POLL;
}

static void closed_while_registered(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair closed = pipe_pair(), other = pipe_pair();
    IS(omni_poller_add(poller, closed.ours, OMNI_READ, 1), 0);
    IS(omni_poller_add(poller, other.ours, OMNI_READ, 2), 0);
    close(closed.ours);
    if (reports_closed(engine))
        IS(one_event(poller, closed.ours, 1), OMNI_INVALID);
    IS(look(poller), 0);
    put(other.theirs, 1);
    IS(one_event(poller, other.ours, 2), OMNI_READ);
    IS(omni_poller_remove(poller, closed.ours), reports_closed(engine) ? -ENOENT : 0);

    /* The number's next file gets no event of the old one. */
    struct pair next = pipe_pair();
    put(closed.theirs, 0);
    IS(dup2(next.ours, closed.ours), closed.ours);
    IS(omni_poller_add(poller, closed.ours, OMNI_READ, 3), 0);
    take(other.ours, 1);
    IS(look(poller), 0);
    put(next.theirs, 1);
    IS(one_event(poller, closed.ours, 3), OMNI_READ);
    omni_poller_free(poller);
    close_pair(closed);
    close_pair(other);
    close_pair(next);
}

static void closed_while_waiting(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair closed = pipe_pair(), other = pipe_pair();
    struct waiter waiter;
    int reported_closed = 0, told_ready = 0, count;
    IS(omni_poller_add(poller, closed.ours, OMNI_READ, 1), 0);
    IS(omni_poller_add(poller, other.ours, OMNI_READ | OMNI_ONESHOT, 2), 0);
    start_waiting(&waiter, poller, FOREVER);
    close(closed.ours);
    put(other.theirs, 1);
    /* The other one is reported; the closed one with it, afterwards, or never, but once. select(2)
     * itself calls a descriptor readable that was closed meanwhile. */
    for (count = finish_waiting(&waiter); count > 0;
         count = omni_poller_wait(poller, waiter.events, ROOM, LOOK)) {
        for (int i = 0; i < count; i++) {
            reported_closed += waiter.events[i].token == 1 && waiter.events[i].ready == OMNI_INVALID;
            told_ready += waiter.events[i].token == 2 && waiter.events[i].ready == OMNI_READ;
        }
    }
    IS(count, 0);
    IS(told_ready, 1);
    IS(reported_closed, reports_closed(engine));
    omni_poller_free(poller);
    close(closed.theirs);
    close_pair(other);
}

static void changes_while_waiting(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    struct waiter waiter;
    start_waiting(&waiter, poller, FOREVER);
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    IS(omni_poller_modify(poller, pair.ours, OMNI_WRITE, 2), 0);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].token, 2);
    IS(waiter.events[0].ready, OMNI_WRITE);
    omni_poller_free(poller);
    close_pair(pair);
}

static omni_poller *signalled;
static int woken_by_handler;

static void wake_in_handler(int signo)
{
    (void)signo;
    errno = 12345;
    woken_by_handler = omni_poller_wake(signalled);
    if (errno != 12345)
        _exit(1);
}

static void wake(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = pipe_pair();
    struct waiter waiter;
    for (int i = 0; i < 3; i++)
        IS(omni_poller_wake(poller), 0);
    /* A change of registrations in between loses no wake. */
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    IS(one_wake(poller), 3);
    IS(look(poller), 0);

    start_waiting(&waiter, poller, FOREVER);
    IS(omni_poller_wake(poller), 0);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].kind, OMNI_EVENT_WAKE);

    /* From a handler that interrupts the wait. */
    struct sigaction action = {.sa_handler = wake_in_handler}, old;
    IS(sigaction(SIGUSR1, &action, &old), 0);
    signalled = poller;
    woken_by_handler = -1;
    start_waiting(&waiter, poller, FOREVER);
    IS(pthread_kill(waiter.thread, SIGUSR1), 0);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].kind, OMNI_EVENT_WAKE);
    IS(woken_by_handler, 0);
    IS(sigaction(SIGUSR1, &old, NULL), 0);
    omni_poller_free(poller);
    close_pair(pair);
}

static void timeouts(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    const int64_t timeouts[] = {0, 1, 999, 1000000, 1000001, 30000000};
    for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
        omni_event event;
        int64_t start = now_ns();
        IS(omni_poller_wait(poller, &event, 1, timeouts[i]), 0);
        OK(now_ns() - start >= timeouts[i]);
    }
    omni_poller_free(poller);
}

static void absurd_timeouts(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    const int64_t timeouts[] = {INT64_MIN, INT64_MIN + 1, -1, INT64_MAX - 1, INT64_MAX};
    for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
        struct waiter waiter;
        start_waiting(&waiter, poller, timeouts[i]);
        IS(omni_poller_wake(poller), 0);
        IS(finish_waiting(&waiter), 1);
        IS(waiter.events[0].kind, OMNI_EVENT_WAKE);
    }
    omni_poller_free(poller);
}

static _Atomic int interruptions;

static void count_interruption(int signo)
{
    (void)signo;
    interruptions++;
}

static void signals(uint32_t engine)
{
    struct sigaction action = {.sa_handler = count_interruption}, old;
    struct waiter waiter;
    omni_poller *poller = new_poller(engine), *interruptible = NULL;
    IS(sigaction(SIGUSR1, &action, &old), 0);

    /* The wait continues; a signal is no event. */
    interruptions = 0;
    start_waiting(&waiter, poller, FOREVER);
    for (int i = 1; i <= 10; i++) {
        IS(pthread_kill(waiter.thread, SIGUSR1), 0);
        while (interruptions < i || !is_asleep(waiter.tid))
            sched_yield();
    }
    IS(omni_poller_wake(poller), 0);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].kind, OMNI_EVENT_WAKE);

    IS(omni_poller_new(engine, OMNI_INTERRUPTIBLE, &interruptible), 0);
    start_waiting(&waiter, interruptible, FOREVER);
    IS(pthread_kill(waiter.thread, SIGUSR1), 0);
    IS(finish_waiting(&waiter), -EINTR);

    IS(sigaction(SIGUSR1, &old, NULL), 0);
    omni_poller_free(poller);
    omni_poller_free(interruptible);
}

/* What a handler has forked. */
static _Atomic pid_t forked_child;

/* Runs in a forked child, whose parent's other thread sits in a wait. */
static void use_inherited(omni_poller *poller, struct pair pair)
{
    omni_event event;
    IS(omni_poller_wait(poller, &event, 1, LOOK), -EOWNERDEAD);
    IS(omni_poller_add(poller, pair.theirs, OMNI_READ, 1), -EOWNERDEAD);
    IS(omni_poller_modify(poller, pair.ours, OMNI_READ, 1), -EOWNERDEAD);
    IS(omni_poller_rearm(poller, pair.ours, OMNI_READ), -EOWNERDEAD);
    IS(omni_poller_remove(poller, pair.ours), -EOWNERDEAD);
    IS(omni_poller_wake(poller), -EOWNERDEAD);

    IS(omni_poller_after_fork(poller), 0);
    IS(omni_poller_after_fork(poller), 0);
    IS(look(poller), 0);
    IS(omni_poller_wake(poller), 0);
    IS(one_wake(poller), 1);
    put(pair.theirs, 1);
    IS(one_event(poller, pair.ours, 1), OMNI_READ);
    take(pair.ours, 1);
    IS(omni_poller_remove(poller, pair.ours), 0);
}

static void fork_in_handler(int signal)
{
    (void)signal;
    forked_child = fork();
    if (forked_child == 0)
        alarm(60);
}

static void *wait_and_be_forked(void *argument)
{
    struct waiter *waiter = argument;
    wait_once(waiter);
    if (forked_child == 0) {
        IS(waiter->result, -EOWNERDEAD);
        free_under_a_wait(waiter->poller);
        _exit(0);
    }
    return NULL;
}

/* The handler interrupts a wait, which the child gets out of and the parent resumes. */
static void forked_in_a_handler(uint32_t engine)
{
    struct sigaction action = {.sa_handler = fork_in_handler}, former;
    struct pair pair = pipe_pair();
    omni_poller *poller = new_poller(engine);
    struct waiter waiter = {.poller = poller, .timeout = FOREVER};
    int status = 0;
    forked_child = -1;
    IS(sigaction(SIGUSR2, &action, &former), 0);
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    IS(pthread_create(&waiter.thread, NULL, wait_and_be_forked, &waiter), 0);
    while (!waiter.tid || !is_asleep(waiter.tid))
        sched_yield();
    IS(pthread_kill(waiter.thread, SIGUSR2), 0);
    while (forked_child < 0)
        sched_yield();
    IS(waitpid(forked_child, &status, 0), forked_child);
    IS(status, 0);
    put(pair.theirs, 1);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].token, 1);
    omni_poller_free(poller);
    IS(sigaction(SIGUSR2, &former, NULL), 0);
    close_pair(pair);
}

static void forked(uint32_t engine)
{
    struct pair pair = socket_pair();
    int before = open_descriptors();
    omni_poller *poller = new_poller(engine);
    struct waiter waiter;
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    for (int takes_over = 0; takes_over < 2; takes_over++) {
        int status = 0;
        start_waiting(&waiter, poller, FOREVER);
        pid_t child = fork();
        if (child == 0) {
            if (takes_over)
                use_inherited(poller, pair);
            omni_poller_free(poller);
            IS(look(poller), -ESTALE);
            IS(open_descriptors(), before);
            _exit(0);
        }
        OK(child > 0);
        IS(waitpid(child, &status, 0), child);
        IS(status, 0);
        /* The parent's registration is as it was. */
        put(pair.theirs, 1);
        IS(finish_waiting(&waiter), 1);
        IS(waiter.events[0].token, 1);
        take(pair.ours, 1);
    }
    omni_poller_free(poller);
    IS(open_descriptors(), before);
    close_pair(pair);
}

/* ---- Handles and bad arguments ------------------------------------------------------------- */

static void ignore_finding(const omni_finding *finding, void *context)
{
    (void)finding;
    (void)context;
}

static void null_arguments(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    omni_event event;
    omni_poller_statistics stats = {.size = sizeof stats};
    IS(omni_poller_new(engine, 0, NULL), -EINVAL);
    IS(omni_poller_add(NULL, 0, OMNI_READ, 0), -EINVAL);
    IS(omni_poller_modify(NULL, 0, OMNI_READ, 0), -EINVAL);
    IS(omni_poller_remove(NULL, 0), -EINVAL);
    IS(omni_poller_rearm(NULL, 0, OMNI_READ), -EINVAL);
    IS(omni_poller_wait(NULL, &event, 1, LOOK), -EINVAL);
    IS(omni_poller_wait(poller, NULL, 1, LOOK), -EINVAL);
    IS(omni_poller_wait(poller, &event, 0, LOOK), -EINVAL);
    IS(omni_poller_wait(poller, NULL, 0, FOREVER), -EINVAL);
    IS(omni_poller_wake(NULL), -EINVAL);
    IS(omni_poller_timer_add(NULL, 0, 0, 0, NULL), -EINVAL);
    IS(omni_poller_timer_add_at(NULL, 0, 0, NULL), -EINVAL);
    IS(omni_poller_timer_set(NULL, 0, 0, 0), -EINVAL);
    IS(omni_poller_timer_cancel(NULL, 0), -EINVAL);
    IS(omni_poller_signal_add(NULL, SIGUSR1, 0), -EINVAL);
    IS(omni_poller_signal_remove(NULL, SIGUSR1), -EINVAL);
    IS(omni_poller_child_add(NULL, getpid(), 0), -EINVAL);
    IS(omni_poller_child_remove(NULL, getpid()), -EINVAL);
    IS(omni_poller_post(NULL, 0, 0), -EINVAL);
    IS(omni_poller_on_finding(NULL, ignore_finding, NULL), -EINVAL);
    IS(omni_poller_stats(NULL, &stats), -EINVAL);
    IS(omni_poller_stats(poller, NULL), -EINVAL);
    IS(omni_poller_dump(NULL, NULL, 0), -EINVAL);
    IS(omni_poller_dump(poller, NULL, 1), -EINVAL);
    IS(omni_poller_after_fork(NULL), -EINVAL);
    IS(omni_poller_capabilities(NULL), -EINVAL);
    IS(omni_poller_engine(NULL), 0);
    omni_poller_free(NULL);
    omni_poller_free(poller);
}

static void every_call_is_stale(omni_poller *poller)
{
    omni_event event;
    omni_poller_statistics stats = {.size = sizeof stats};
    uint64_t id = 7;
    IS(omni_poller_add(poller, 0, OMNI_READ, 0), -ESTALE);
    IS(omni_poller_modify(poller, 0, OMNI_READ, 0), -ESTALE);
    IS(omni_poller_remove(poller, 0), -ESTALE);
    IS(omni_poller_rearm(poller, 0, OMNI_READ), -ESTALE);
    IS(omni_poller_wait(poller, &event, 1, FOREVER), -ESTALE);
    IS(omni_poller_wake(poller), -ESTALE);
    IS(omni_poller_timer_add(poller, 0, 0, 0, &id), -ESTALE);
    IS(omni_poller_timer_add_at(poller, 0, 0, &id), -ESTALE);
    IS(id, 7);
    IS(omni_poller_timer_set(poller, 0, 0, 0), -ESTALE);
    IS(omni_poller_timer_cancel(poller, 0), -ESTALE);
    IS(omni_poller_signal_add(poller, SIGUSR1, 0), -ESTALE);
    IS(omni_poller_signal_remove(poller, SIGUSR1), -ESTALE);
    IS(omni_poller_child_add(poller, getpid(), 0), -ESTALE);
    IS(omni_poller_child_remove(poller, getpid()), -ESTALE);
    IS(omni_poller_post(poller, 0, 0), -ESTALE);
    IS(omni_poller_on_finding(poller, ignore_finding, NULL), -ESTALE);
    IS(omni_poller_stats(poller, &stats), -ESTALE);
    IS(omni_poller_dump(poller, NULL, 0), -ESTALE);
    IS(omni_poller_after_fork(poller), -ESTALE);
    IS(omni_poller_capabilities(poller), -ESTALE);
    IS(omni_poller_engine(poller), 0);
    omni_poller_free(poller);
}

static void stale_handles(uint32_t engine)
{
    int before = open_descriptors();
    omni_poller *poller = new_poller(engine);
    IS(omni_poller_engine(poller), engine);
    omni_poller_free(poller);
    IS(open_descriptors(), before);
    every_call_is_stale(poller);
    omni_poller_free(poller);

    /* A poller made since, in the same slot maybe, is none of theirs. */
    omni_poller *next = new_poller(engine);
    OK(next != poller);
    every_call_is_stale(poller);
    const uintptr_t garbage[] = {1, 4096, (uintptr_t)&next, UINTPTR_MAX, (uintptr_t)next + 1,
                                 (uintptr_t)next ^ (UINTPTR_MAX / 2 + 1)};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++)
        every_call_is_stale((omni_poller *)garbage[i]);
    IS(look(next), 0);
    omni_poller_free(next);
}

static void freed_while_waiting(uint32_t engine)
{
    enum { THREADS = 4 };
    int before = open_descriptors();
    for (int round = 0; round < 20; round++) {
        omni_poller *poller = new_poller(engine);
        struct waiter waiters[THREADS];
        for (int i = 0; i < THREADS; i++)
            start_waiting(&waiters[i], poller, i % 2 ? FOREVER : INT64_MAX);
        omni_poller_free(poller);
        for (int i = 0; i < THREADS; i++)
            IS(finish_waiting(&waiters[i]), -ESTALE);
        IS(open_descriptors(), before);
    }
}

struct storm {
    _Atomic(omni_poller *) poller;
    _Atomic int over;
    int fd;
};

static void *use_while_freed(void *argument)
{
    struct storm *storm = argument;
    while (!storm->over) {
        omni_poller *poller = storm->poller;
        omni_event event;
        int added = omni_poller_add(poller, storm->fd, OMNI_READ, 1);
        OK(added == 0 || added == -EEXIST || added == -ESTALE);
        int armed = omni_poller_timer_add(poller, INT64_MAX, 0, 1, NULL);
        OK(armed == 0 || armed == -ESTALE);
        int posted = omni_poller_post(poller, 1, 1);
        OK(posted == 0 || posted == -EAGAIN || posted == -ESTALE);
        int woken = omni_poller_wake(poller);
        OK(woken == 0 || woken == -ESTALE);
        int waited = omni_poller_wait(poller, &event, 1, FOREVER);
        OK(waited == 1 || waited == -ESTALE);
    }
    return NULL;
}

static void freed_while_used(uint32_t engine)
{
    enum { THREADS = 3, ROUNDS = 2000 };
    pthread_t threads[THREADS];
    struct pair pair = socket_pair();
    struct storm storm = {.fd = pair.ours};
    int before = open_descriptors();
    put(pair.theirs, 1);
    storm.poller = new_poller(engine);
    for (int i = 0; i < THREADS; i++)
        IS(pthread_create(&threads[i], NULL, use_while_freed, &storm), 0);
    for (int round = 0; round < ROUNDS; round++) {
        omni_poller *old = atomic_exchange(&storm.poller, new_poller(engine));
        omni_poller_free(old);
    }
    storm.over = 1;
    omni_poller_free(storm.poller);
    for (int i = 0; i < THREADS; i++)
        IS(pthread_join(threads[i], NULL), 0);
    /* An omni_poller_wake that was the last to leave has left its poller to the next omni_poller_new. */
    omni_poller_free(new_poller(engine));
    IS(open_descriptors(), before);
    close_pair(pair);
}

static void *last_error_of_another_thread(void *argument)
{
    (void)argument;
    return strcmp(omni_last_error(), "") ? NULL : argument;
}

static void words(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    pthread_t thread;
    void *empty = NULL;
    IS(omni_poller_remove(poller, 0), -ENOENT);
    OK(!strcmp(omni_last_error(), "omni_poller_remove: the descriptor is not registered (ENOENT)"));
    IS(look(poller), 0);
    IS(omni_poller_wake(NULL), -EINVAL);
    OK(!strcmp(omni_last_error(), "omni_poller_remove: the descriptor is not registered (ENOENT)"));
    IS(pthread_create(&thread, NULL, last_error_of_another_thread, poller), 0);
    IS(pthread_join(thread, &empty), 0);
    OK(empty);
    omni_poller_free(poller);
    omni_poller_free(poller);
    OK(strstr(omni_last_error(), "omni_poller_free") && strstr(omni_last_error(), "(ESTALE)"));
}

static const struct behaviour behaviours[] = {
    {"LEVEL is reported as long as it holds", level},
    {"EDGE is reported once, and after rearm again", edge},
    {"ONESHOT is reported once, and after modify again", oneshot},
    {"modify replaces interest and token", modify},
    {"set adds, modifies and removes", set},
    {"EEXIST, ENOENT and EBADF", registration_errors},
    {"hang-up alone without a direction", no_direction},
    {"EINVAL for bits that mean nothing", interest_bits},
    {"EXCLUSIVE where the engine has it, EINVAL elsewhere", exclusive},
    {"EPERM for regular files, unless asked for", regular_files},
    {"half-close and hang-up", hangup},
    {"urgent data", urgent_data},
    {"a descriptor above 1023", high_descriptor},
    {"a capacity smaller than what is ready", small_capacity},
    {"a descriptor closed while registered, and its number used again", closed_while_registered},
    {"a descriptor closed while waiting", closed_while_waiting},
    {"add and modify apply to the wait in progress", changes_while_waiting},
    {"wake before, during and from a signal handler", wake},
    {"timeouts are never early", timeouts},
    {"timeouts of INT64_MIN and INT64_MAX", absurd_timeouts},
    {"signals end a wait only when asked to", signals},
    {"a forked child: EOWNERDEAD, after_fork, free", forked},
    {"a child that a signal handler forks in a wait", forked_in_a_handler},
    {"NULL and a capacity of 0", null_arguments},
    {"ESTALE for handles freed, freed twice and made up", stale_handles},
    {"ESTALE for every thread whose poller is freed while it waits", freed_while_waiting},
    {"2,000 pollers freed while others use them", freed_while_used},
    {"words for the thread's last error", words},
};

/* ---- What needs no engine ------------------------------------------------------------------ */

static void library(void)
{
    omni_poller *poller = NULL;
    char version[32];
    OK(omni_version() >= OMNI_VERSION);
    IS(OMNI_VERSION, OMNI_VERSION_MAJOR << 24 | OMNI_VERSION_MINOR << 16 | OMNI_VERSION_PATCH << 8);
    snprintf(version, sizeof version, "%d.%d.%d", OMNI_VERSION_MAJOR, OMNI_VERSION_MINOR, OMNI_VERSION_PATCH);
    OK(!strcmp(version, OMNI_VERSION_STRING));
    snprintf(version, sizeof version, "%u.%u.%u", (unsigned)(omni_version() >> 24),
             (unsigned)(omni_version() >> 16 & 0xff), (unsigned)(omni_version() >> 8 & 0xff));
    OK(!strcmp(version, omni_version_string()));
    for (uint32_t engine = OMNI_ENGINE_AUTO; engine <= OMNI_ENGINE_KQUEUE; engine++)
        IS(omni_engine_by_name(omni_engine_name(engine)), engine);
    const char *const no_engines[] = {NULL, "", "Epoll", "epoll ", "uring", "\xff"};
    for (size_t i = 0; i < sizeof no_engines / sizeof *no_engines; i++)
        IS(omni_engine_by_name(no_engines[i]), -EINVAL);
    IS(omni_engine_available(OMNI_ENGINE_AUTO), 1);
    IS(omni_engine_available(OMNI_ENGINE_KQUEUE), 0);
    IS(omni_poller_new(OMNI_ENGINE_KQUEUE, 0, &poller), -ENOSYS);
    const uint32_t unknown[] = {6, 1000, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        IS(omni_engine_available(unknown[i]), 0);
        OK(omni_engine_name(unknown[i]) == NULL);
        IS(omni_poller_new(unknown[i], 0, &poller), -EINVAL);
        IS(omni_poller_new(OMNI_ENGINE_AUTO, unknown[i] | 8, &poller), -EINVAL);
    }
    OK(poller == NULL);

    IS(setenv("OMNIPOLL_ENGINE", "poll", 1), 0);
    poller = new_poller(OMNI_ENGINE_AUTO);
    IS(omni_poller_engine(poller), OMNI_ENGINE_POLL);
    omni_poller_free(poller);
    IS(setenv("OMNIPOLL_ENGINE", "nonsense", 1), 0);
    IS(omni_poller_new(OMNI_ENGINE_AUTO, 0, &poller), -EINVAL);
    IS(unsetenv("OMNIPOLL_ENGINE"), 0);

    OK(!strcmp(omni_strerror(-EEXIST), omni_strerror(EEXIST)));
    OK(strstr(omni_strerror(-ESTALE), "stale"));
    const int errors[] = {0, -EPIPE, -99999, INT_MIN, INT_MAX};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        OK(*omni_strerror(errors[i]));
    printf("ok  versions, engines, and words for errors\n");
}

int main(void)
{
    library();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
