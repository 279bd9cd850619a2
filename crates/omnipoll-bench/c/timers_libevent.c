/* Timers of libevent. It counts in microseconds. */
#include "timers.h"
#include <event2/event.h>
#include <event2/event_struct.h>

static struct event_base *base;
static struct event timers[MOST + BATCH];

static void on_told(evutil_socket_t fd, short what, void *context) {
    (void)fd, (void)what, (void)context;
    expired++;
}

static void open_timers(void) {
    must((base = event_base_new()) != NULL, "event_base_new");
    for (int timer = 0; timer < MOST + BATCH; timer++)
        evtimer_assign(&timers[timer], base, on_told, NULL);
}

static void arm(int timer, int64_t nanoseconds) {
    int64_t microseconds = (nanoseconds + 999) / 1000;
    struct timeval delay = {.tv_sec = microseconds / 1000000, .tv_usec = microseconds % 1000000};
    must(evtimer_add(&timers[timer], &delay) == 0, "evtimer_add");
}

static void cancel(int timer) {
    evtimer_del(&timers[timer]);
}

static void run(void) {
    event_base_loop(base, EVLOOP_NONBLOCK);
}

const struct timers libevent = {"libevent, C", open_timers, arm, cancel, run};
