/* Waits, checked through the public header on every engine: wakes, timeouts, signals, forks.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "harness.h"

#include <sys/wait.h>

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

static omni_poller *with_policy(uint32_t engine, uint32_t policy, int64_t nanoseconds)
{
    omni_poller_options options = {sizeof options, engine, 0, policy, nanoseconds};
    omni_poller *poller = NULL;
    IS(omni_poller_new_with(&options, &poller), 0);
    IS(omni_poller_engine(poller), engine);
    return poller;
}

static uint64_t system_calls(omni_poller *poller)
{
    omni_poller_statistics stats = {.size = sizeof stats};
    IS(omni_poller_stats(poller, &stats), 0);
    return stats.system_calls;
}

static void policies(uint32_t engine)
{
    omni_event events[ROOM];
    struct pair pair = pipe_pair();
    omni_poller *poller = with_policy(engine, OMNI_WAIT_THRIFTY, 20 * MS);
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    put(pair.theirs, 1);
    IS(omni_poller_post(poller, 2, 0), 0);
    int64_t begun = now_ns();
    IS(omni_poller_wait(poller, events, ROOM, FOREVER), 2);
    OK(now_ns() - begun >= 20 * MS);
    omni_poller_free(poller);
    take(pair.ours, 1);

    /* It looks before it sleeps. */
    for (uint32_t policy = OMNI_WAIT_BALANCED; policy <= OMNI_WAIT_LATENCY; policy++) {
        poller = with_policy(engine, policy, policy == OMNI_WAIT_LATENCY ? MS : 0);
        IS(omni_poller_wait(poller, events, ROOM, 5 * MS), 0);
        OK(system_calls(poller) >= 1 + policy && (policy || system_calls(poller) <= 2));
        omni_poller_free(poller);
    }

    const omni_poller_options wrong[] = {
        {sizeof *wrong, engine, 0, OMNI_WAIT_BALANCED, 1},  {sizeof *wrong, engine, 0, OMNI_WAIT_LATENCY, 0},
        {sizeof *wrong, engine, 0, OMNI_WAIT_THRIFTY, -1}, {sizeof *wrong, engine, 0, OMNI_WAIT_THRIFTY + 1, 1},
        {sizeof *wrong, engine, 8, OMNI_WAIT_BALANCED, 0},  {0, engine, 0, OMNI_WAIT_BALANCED, 0},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        IS(omni_poller_new_with(&wrong[i], &poller), -EINVAL);
    close_pair(pair);
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

static const struct behaviour behaviours[] = {
    {"wait policies", policies},
    {"add and modify apply to the wait in progress", changes_while_waiting},
    {"wake before, during and from a signal handler", wake},
    {"timeouts are never early", timeouts},
    {"timeouts of INT64_MIN and INT64_MAX", absurd_timeouts},
    {"signals end a wait only when asked to", signals},
    {"a forked child: EOWNERDEAD, after_fork, free", forked},
    {"a child that a signal handler forks in a wait", forked_in_a_handler},
};

int main(void)
{
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
