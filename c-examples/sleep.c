/*
 * sleep.c: a wait with nothing registered is a sleep, to the nanosecond.
 *
 * The oldest use of select: it sleeps for less than a second where sleep(3) cannot. Each
 * engine is asked for several durations and shown to be late by a little, and never early:
 * the system may take its time to wake us (its timer slack alone is 50 us, prctl(2)), but a
 * timeout is always rounded up.
 *
 * Build:  cc -std=c11 -O2 -o sleep sleep.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./sleep
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <inttypes.h>
#include <omnipoll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const int64_t DURATIONS_NS[] = {
    1, 20000, 100000, 500000, 1000000, 2500000, 10000000, 50000000, 250000000,
};

/* The messages of omnipoll name the function that failed. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "sleep: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

static int64_t now_ns(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0) {
        perror("sleep: clock_gettime");
        exit(EXIT_FAILURE);
    }
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Sleeps once and returns by how much it was late. */
static int64_t late_by(omni_poller *poller, int64_t duration_ns)
{
    omni_event event; /* nothing is registered: it stays as it is */
    int64_t start = now_ns();

    check(omni_poller_wait(poller, &event, 1, duration_ns));
    return now_ns() - start - duration_ns;
}

int main(void)
{
    int status = EXIT_SUCCESS;

    printf("%-8s %12s %12s\n", "engine", "asked (ns)", "late (ns)");
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++) {
        if (!omni_engine_available(engine))
            continue;
        omni_poller *poller;
        check(omni_poller_new(engine, 0, &poller));
        for (size_t i = 0; i < sizeof DURATIONS_NS / sizeof *DURATIONS_NS; i++) {
            int64_t late_ns = late_by(poller, DURATIONS_NS[i]);
            printf("%-8s %12" PRId64 " %12" PRId64 "\n", omni_engine_name(engine),
                   DURATIONS_NS[i], late_ns);
            if (late_ns < 0)
                status = EXIT_FAILURE;
        }
        omni_poller_free(poller);
    }
    return status;
}
