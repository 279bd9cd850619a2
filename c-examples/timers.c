/*
 * timers.c: several timers in one wait: the soonest first, late by a little, never early.
 *
 * Shows, on each engine:
 *  - timers armed in any order, returned in the order of their deadlines; one that was cancelled
 *    is not returned, and one that was moved is returned when it is due then;
 *  - a timer with a period, until it is cancelled;
 *  - a timer with a period in a program that has no time for it: it is returned once, with how
 *    many periods have passed, and not once for each of them.
 * An event's token says whose it is: here the place in an array.
 *
 * Build:  cc -std=c11 -O2 -o timers timers.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./timers
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <inttypes.h>
#include <omnipoll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const int64_t MS = 1000 * 1000;
static const int64_t FOREVER = -1;
enum { BATCH = 8 };

struct timer {
    const char *name;
    int64_t delay_ns, period_ns;    /* a period of 0 is none */
    uint64_t id;
    int64_t armed_ns;               /* when it was armed or moved */
    int events;
    int64_t periods, late_ns;
};

/* The messages of omnipoll name the function that failed. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "timers: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

static int64_t now_ns(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0) {
        perror("timers: clock_gettime");
        exit(EXIT_FAILURE);
    }
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void arm(omni_poller *poller, struct timer *timer, uint64_t token)
{
    timer->armed_ns = now_ns();
    check(omni_poller_timer_add(poller, timer->delay_ns, timer->period_ns, token, &timer->id));
}

static void move(omni_poller *poller, struct timer *timer, int64_t delay_ns)
{
    timer->armed_ns = now_ns();
    timer->delay_ns = delay_ns;
    check(omni_poller_timer_set(poller, timer->id, delay_ns, timer->period_ns));
}

static void print(omni_poller *poller, const struct timer *timer)
{
    printf("%-8s  %-22s  %6d  %7" PRId64 "  %9" PRId64 "\n",
           omni_engine_name(omni_poller_engine(poller)), timer->name, timer->events,
           timer->periods, timer->late_ns);
}

/* Keeps the books of one event. */
static struct timer *timer_of(const omni_event *event, struct timer *timers)
{
    struct timer *timer = &timers[event->token];

    timer->events++;
    timer->periods += event->value;
    timer->late_ns = now_ns() - timer->armed_ns - timer->delay_ns
                     - (timer->periods - 1) * timer->period_ns;
    return timer;
}

static void once(omni_poller *poller)
{
    struct timer timers[] = {
        { .name = "100 ms", .delay_ns = 100 * MS },
        { .name = "10 ms", .delay_ns = 10 * MS },
        { .name = "15 ms, cancelled", .delay_ns = 15 * MS },
        { .name = "5 ms, moved to 120 ms", .delay_ns = 5 * MS },
        { .name = "20 ms", .delay_ns = 20 * MS },
    };
    enum { COUNT = sizeof timers / sizeof *timers };

    for (uint64_t token = 0; token < COUNT; token++)
        arm(poller, &timers[token], token);
    check(omni_poller_timer_cancel(poller, timers[2].id));
    move(poller, &timers[3], 120 * MS);

    for (int left = COUNT - 1; left > 0;) {
        omni_event events[BATCH];
        int count = omni_poller_wait(poller, events, BATCH, FOREVER);
        check(count);
        for (int i = 0; i < count; i++, left--)
            print(poller, timer_of(&events[i], timers));
    }
    print(poller, &timers[2]);
}

static void periodic(omni_poller *poller)
{
    struct timer timer = { .name = "each 2 ms, five times", .delay_ns = 2 * MS, .period_ns = 2 * MS };

    arm(poller, &timer, 0);
    while (timer.periods < 5) {
        omni_event event;
        check(omni_poller_wait(poller, &event, 1, FOREVER));
        timer_of(&event, &timer);
    }
    check(omni_poller_timer_cancel(poller, timer.id));
    print(poller, &timer);
}

static void late(omni_poller *poller)
{
    struct timer timer = { .name = "each 2 ms, after 20 ms", .delay_ns = 2 * MS, .period_ns = 2 * MS };
    omni_event event;

    arm(poller, &timer, 0);
    while (now_ns() - timer.armed_ns < 20 * MS)
        ; /* busy with something else */
    check(omni_poller_wait(poller, &event, 1, FOREVER));
    timer_of(&event, &timer);
    check(omni_poller_timer_cancel(poller, timer.id));
    print(poller, &timer);
}

int main(void)
{
    printf("%-8s  %-22s  %6s  %7s  %9s\n", "engine", "timer", "events", "periods", "late (ns)");
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++) {
        if (!omni_engine_available(engine))
            continue;
        omni_poller *poller;
        check(omni_poller_new(engine, 0, &poller));
        once(poller);
        periodic(poller);
        late(poller);
        omni_poller_free(poller);
    }
    return EXIT_SUCCESS;
}
