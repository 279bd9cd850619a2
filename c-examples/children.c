/*
 * children.c: a supervisor: it starts a worker again when it crashes, and gives up when it
 * has crashed too often.
 *
 * Shows, on each engine:
 *  - the end of a child is an event like any other, with its wait status; the library reaps
 *    it, and no handler of SIGCHLD and no waitpid is needed;
 *  - back-off: each crash doubles the time until the next start, which is a timer in the same
 *    wait; so one thread looks after any number of workers.
 * One worker crashes three times and then does its work; the other one never does.
 *
 * Build:  cc -std=c11 -O2 -o children children.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./children
 */
#define _POSIX_C_SOURCE 200809L /* fork, kill */
#include <errno.h>
#include <inttypes.h>
#include <omnipoll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 8, MAX_CRASHES = 5 };

static const int64_t MS = 1000 * 1000;
static const int64_t FOREVER = -1;
static const int64_t FIRST_PAUSE_NS = 5 * 1000 * 1000;

struct worker {
    const char *name;
    void (*work)(int run);  /* runs in the child, and comes back if all went well */
    int runs, crashes;
    int64_t pause_ns;       /* until the next start, should it crash */
};

static omni_poller *poller;

/* For the functions of omnipoll, whose messages name the function. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "children: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* Crashes in one way and in another, and then no more. */
static void flaky(int run)
{
    if (run == 1)
        kill(getpid(), SIGKILL);
    if (run <= 3)
        _exit(run);
}

static void broken(int run)
{
    (void)run;
    _exit(EXIT_FAILURE);
}

static void start(struct worker *worker)
{
    worker->runs++;
    fflush(stdout); /* or the child would have what is not printed yet, too */
    pid_t pid = fork();
    if (pid < 0) {
        fprintf(stderr, "children: fork: %s\n", strerror(errno));
        exit(EXIT_FAILURE);
    }
    if (pid == 0) {
        /* Most workers would exec here, which closes the poller's descriptors. As long as the
         * child leaves the poller alone, it can't disturb its parent's. */
        worker->work(worker->runs);
        _exit(EXIT_SUCCESS);
    }
    /* If it has ended already, the next wait returns that. */
    check(omni_poller_child_add(poller, pid, (uintptr_t)worker));
}

static void describe(int status, char *text, size_t size)
{
    if (WIFEXITED(status))
        snprintf(text, size, "exit status %d", WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        snprintf(text, size, "signal %d", WTERMSIG(status));
    else
        snprintf(text, size, "status unknown");
}

/* What is to be done about a worker that has ended. False when its story is over. */
static bool ended(struct worker *worker, int status)
{
    const char *engine = omni_engine_name(omni_poller_engine(poller));
    char how[32];

    describe(status, how, sizeof how);
    printf("%-8s  %-8s  %-4d  %-16s  ", engine, worker->name, worker->runs, how);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
        printf("done\n");
        return false;
    }
    if (++worker->crashes == MAX_CRASHES) {
        printf("given up\n");
        return false;
    }
    printf("again after %" PRId64 " ms\n", worker->pause_ns / MS);
    check(omni_poller_timer_add(poller, worker->pause_ns, 0, (uintptr_t)worker, NULL));
    worker->pause_ns *= 2;
    return true;
}

static void supervise(void)
{
    struct worker workers[] = {
        { .name = "flaky", .work = flaky, .pause_ns = FIRST_PAUSE_NS },
        { .name = "broken", .work = broken, .pause_ns = FIRST_PAUSE_NS },
    };
    int left = sizeof workers / sizeof *workers;

    for (int i = 0; i < left; i++)
        start(&workers[i]);
    while (left > 0) {
        omni_event events[BATCH];
        int count = omni_poller_wait(poller, events, BATCH, FOREVER);
        check(count);
        for (int i = 0; i < count; i++) {
            struct worker *worker = (struct worker *)(uintptr_t)events[i].token;
            if (events[i].kind == OMNI_EVENT_TIMER)
                start(worker);
            else if (!ended(worker, (int)events[i].value))
                left--;
        }
    }
}

int main(void)
{
    printf("%-8s  %-8s  %-4s  %-16s  %s\n", "engine", "worker", "run", "ended by", "then");
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++) {
        if (!omni_engine_available(engine))
            continue;
        check(omni_poller_new(engine, 0, &poller));
        supervise();
        omni_poller_free(poller);
    }
    return EXIT_SUCCESS;
}
