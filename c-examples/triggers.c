/*
 * triggers.c: LEVEL, EDGE and ONESHOT, compared by one experiment with a pipe.
 *
 * Its read end is registered. Then
 *   1. 2 kB are written into it, and we wait;
 *   2. 1 kB is read, so that 1 kB is left, and we wait again;
 *   3. the rest is read until EAGAIN, and the library is informed as the trigger needs
 *      (nothing for LEVEL, omni_poller_rearm for EDGE, omni_poller_modify for ONESHOT), one byte is
 *      written, and we wait a last time.
 * LEVEL reports at step 2 what EDGE and ONESHOT keep quiet about; all report at step 3. The
 * rows are the same on every engine, though only epoll has edges of its own.
 *
 * Build:  cc -std=c11 -O2 -o triggers triggers.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./triggers
 */
#define _GNU_SOURCE /* pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <omnipoll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t TIMEOUT_NS = 50 * 1000 * 1000;
static const uint64_t TOKEN = 42;

static const struct trigger {
    const char *name;
    uint32_t bit;
} TRIGGERS[] = { { "LEVEL", 0 }, { "EDGE", OMNI_EDGE }, { "ONESHOT", OMNI_ONESHOT } };

/* For the functions of omnipoll, whose messages name the function. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "triggers: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* For the functions of the system. */
static void check_system(ssize_t result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "triggers: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

/* Waits once and says what came back. */
static const char *wait_once(omni_poller *poller)
{
    omni_event event;
    int count = omni_poller_wait(poller, &event, 1, TIMEOUT_NS);

    check(count);
    if (count == 0)
        return "nothing";
    return event.token == TOKEN && event.ready == OMNI_READ ? "READ" : "something else";
}

static void read_until_empty(int fd)
{
    char buffer[4096];
    ssize_t count;

    do
        count = read(fd, buffer, sizeof buffer);
    while (count > 0 || (count < 0 && errno == EINTR));
    if (errno != EAGAIN)
        check_system(count, "read");
}

static void experiment(uint32_t engine, const struct trigger *trigger)
{
    char buffer[2048] = { 0 };
    const uint32_t interest = OMNI_READ | trigger->bit;
    omni_poller *poller;
    int ends[2];

    check(omni_poller_new(engine, 0, &poller));
    check_system(pipe2(ends, O_NONBLOCK | O_CLOEXEC), "pipe2");
    check(omni_poller_add(poller, ends[0], interest, TOKEN));

    /* An empty pipe takes and gives these amounts whole: pipe(7), PIPE_BUF. */
    check_system(write(ends[1], buffer, 2048), "write");
    const char *first = wait_once(poller);

    check_system(read(ends[0], buffer, 1024), "read");
    const char *second = wait_once(poller);

    read_until_empty(ends[0]);
    if (trigger->bit == OMNI_EDGE)
        check(omni_poller_rearm(poller, ends[0], OMNI_READ));
    if (trigger->bit == OMNI_ONESHOT)
        check(omni_poller_modify(poller, ends[0], interest, TOKEN));
    check_system(write(ends[1], buffer, 1), "write");
    const char *third = wait_once(poller);

    printf("%-9s %-9s %-14s %-12s %s\n", omni_engine_name(engine), trigger->name, first, second,
           third);
    check(omni_poller_remove(poller, ends[0]));
    close(ends[0]);
    close(ends[1]);
    omni_poller_free(poller);
}

int main(void)
{
    printf("%-9s %-9s %-14s %-12s %s\n", "engine", "trigger", "2 kB written", "1 kB read",
           "emptied, 1 byte written");
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++)
        for (size_t i = 0; omni_engine_available(engine) && i < sizeof TRIGGERS / sizeof *TRIGGERS; i++)
            experiment(engine, &TRIGGERS[i]);
    return EXIT_SUCCESS;
}
