/* What a timer costs through the C library, beside libuv's and libevent's.
 *
 *   timers [--quick]
 *       With 10, 10,000 and 1,000,000 others armed: the time to arm one, to cancel one, and to be
 *       told of one that is due. "again" cancels one of the others, chosen at random, and arms
 *       another in its place. All are in one process and take turns; each figure is the median of
 *       the turns. A library is left out without HAVE_LIBUV, HAVE_LIBEVENT.
 *
 * libuv counts in milliseconds and reads no clock when a timer is armed; libevent counts in
 * microseconds. Neither takes a lock here, for neither was told of threads; omnipoll does.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <omnipoll.h>

#ifdef HAVE_LIBUV
#include <uv.h>
#endif
#ifdef HAVE_LIBEVENT
#include <event2/event.h>
#include <event2/event_struct.h>
#endif

enum { BATCH = 1000, MOST = 1000000, MOST_TURNS = 101, THINGS = 4 };

/* Timers are numbered: the others from 0, those of a turn from MOST. */
struct library {
    const char *name;
    void (*open)(void);
    void (*arm)(int timer, int64_t nanoseconds);
    void (*cancel)(int timer);
    /* Runs what is due, without waiting. */
    void (*run)(void);
};

static int told;

static void must(int condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "timers: %s failed\n", what);
        exit(1);
    }
}

/* omnipoll */

static omni_poller *poller;
static uint64_t ids[MOST + BATCH];

static void omnipoll_open(void) {
    must(omni_poller_new(OMNI_ENGINE_AUTO, 0, &poller) == 0, "omni_poller_new");
}

static void omnipoll_arm(int timer, int64_t nanoseconds) {
    must(omni_timer_add(poller, nanoseconds, 0, (uint64_t)timer, &ids[timer]) == 0, "omni_timer_add");
}

static void omnipoll_cancel(int timer) {
    must(omni_timer_cancel(poller, ids[timer]) == 0, "omni_timer_cancel");
}

static void omnipoll_run(void) {
    static omni_event events[BATCH];
    int count = omni_wait(poller, events, BATCH, 0);
    must(count >= 0, "omni_wait");
    told += count;
}

/* libuv */

#ifdef HAVE_LIBUV
static uv_loop_t loop;
static uv_timer_t uv_timers[MOST + BATCH];

static void libuv_told(uv_timer_t *timer) {
    (void)timer;
    told++;
}

static void libuv_open(void) {
    must(uv_loop_init(&loop) == 0, "uv_loop_init");
    for (int timer = 0; timer < MOST + BATCH; timer++)
        uv_timer_init(&loop, &uv_timers[timer]);
}

static void libuv_arm(int timer, int64_t nanoseconds) {
    uint64_t milliseconds = (uint64_t)(nanoseconds + 999999) / 1000000;
    must(uv_timer_start(&uv_timers[timer], libuv_told, milliseconds, 0) == 0, "uv_timer_start");
}

static void libuv_cancel(int timer) {
    uv_timer_stop(&uv_timers[timer]);
}

static void libuv_run(void) {
    uv_run(&loop, UV_RUN_NOWAIT);
}
#endif

/* libevent */

#ifdef HAVE_LIBEVENT
static struct event_base *base;
static struct event events[MOST + BATCH];

static void libevent_told(evutil_socket_t fd, short what, void *context) {
    (void)fd, (void)what, (void)context;
    told++;
}

static void libevent_open(void) {
    must((base = event_base_new()) != NULL, "event_base_new");
    for (int timer = 0; timer < MOST + BATCH; timer++)
        evtimer_assign(&events[timer], base, libevent_told, NULL);
}

static void libevent_arm(int timer, int64_t nanoseconds) {
    int64_t microseconds = (nanoseconds + 999) / 1000;
    struct timeval delay = {.tv_sec = microseconds / 1000000, .tv_usec = microseconds % 1000000};
    must(evtimer_add(&events[timer], &delay) == 0, "evtimer_add");
}

static void libevent_cancel(int timer) {
    evtimer_del(&events[timer]);
}

static void libevent_run(void) {
    event_base_loop(base, EVLOOP_NONBLOCK);
}
#endif

static const struct library libraries[] = {
    {"omnipoll", omnipoll_open, omnipoll_arm, omnipoll_cancel, omnipoll_run},
#ifdef HAVE_LIBUV
    {"libuv", libuv_open, libuv_arm, libuv_cancel, libuv_run},
#endif
#ifdef HAVE_LIBEVENT
    {"libevent", libevent_open, libevent_arm, libevent_cancel, libevent_run},
#endif
};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* Marsaglia's xorshift. */
static uint64_t drawn(uint64_t end) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 8) % end;
}

/* Between 10 and 1,000 seconds: longer than the measurement. */
static int64_t long_delay(void) {
    return 10000000000 + (int64_t)drawn(990000000000);
}

static void turn(const struct library *library, int armed, double figures[THINGS]) {
    static int64_t delays[BATCH];
    static int order[BATCH];
    for (int i = 0; i < BATCH; i++) {
        delays[i] = long_delay();
        int other = (int)drawn((uint64_t)i + 1);
        order[i] = order[other];
        order[other] = MOST + i;
    }
    double begin = now();
    for (int i = 0; i < BATCH; i++)
        library->arm(MOST + i, delays[i]);
    figures[0] = now() - begin;
    begin = now();
    for (int i = 0; i < BATCH; i++)
        library->cancel(order[i]);
    figures[1] = now() - begin;

    for (int i = 0; i < BATCH; i++)
        order[i] = (int)drawn((uint64_t)armed);
    begin = now();
    for (int i = 0; i < BATCH; i++) {
        library->cancel(order[i]);
        library->arm(order[i], delays[i]);
    }
    figures[2] = now() - begin;

    begin = now();
    for (int i = 0; i < BATCH; i++)
        library->arm(MOST + i, (int64_t)drawn(1000000));
    /* Until the last is due; libevent reads a clock that moves every 4 ms, or 10. */
    while (now() < begin + 12e6)
        ;
    begin = now();
    for (told = 0; told < BATCH;)
        library->run();
    figures[3] = now() - begin;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(int armed, int turns) {
    static double all[LIBRARIES][THINGS][MOST_TURNS];
    for (int number = 0; number < turns; number++)
        for (int index = 0; index < LIBRARIES; index++) {
            double figures[THINGS];
            turn(&libraries[index], armed, figures);
            for (int thing = 0; thing < THINGS; thing++)
                all[index][thing][number] = figures[thing] / BATCH;
        }
    for (int index = 0; index < LIBRARIES; index++) {
        printf("%9d  %-12s", armed, libraries[index].name);
        for (int thing = 0; thing < THINGS; thing++) {
            qsort(all[index][thing], (size_t)turns, sizeof(double), compare);
            printf("%10.1f", all[index][thing][turns / 2]);
        }
        printf("\n");
    }
}

/* The last core it may run on, for the first takes most interrupts. */
static void settle_down(void) {
    cpu_set_t allowed, last;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    for (int core = CPU_SETSIZE - 1; core >= 0; core--)
        if (CPU_ISSET(core, &allowed)) {
            CPU_ZERO(&last);
            CPU_SET(core, &last);
            sched_setaffinity(0, sizeof last, &last);
            return;
        }
}

int main(int argc, char **argv) {
    int turns = argc > 1 && strcmp(argv[1], "--quick") == 0 ? 21 : MOST_TURNS;
    settle_down();
    printf("Timers, C libraries, ns each (median of %d turns of %d)\n\n", turns, BATCH);
#ifndef HAVE_LIBUV
    printf("libuv: not measured: not installed (libuv1-dev)\n");
#endif
#ifndef HAVE_LIBEVENT
    printf("libevent: not measured: not installed (libevent-dev)\n");
#endif
    printf("%9s  %-12s%10s%10s%10s%10s\n", "armed", "", "arm", "cancel", "again", "expire");
    for (int index = 0; index < LIBRARIES; index++)
        libraries[index].open();
    int armed = 0;
    for (int more = 10; more <= MOST; more = more == 10 ? 10000 : more * 100) {
        for (; armed < more; armed++)
            for (int index = 0; index < LIBRARIES; index++)
                libraries[index].arm(armed, long_delay());
        measure(armed, turns);
    }
    return 0;
}
