/* Timers of omnipoll's poller, which takes a lock for each call. */
#include "timers.h"
#include <omnipoll.h>

static omni_poller *poller;
static uint64_t ids[MOST + BATCH];

static void open_timers(void) {
    must(omni_poller_new(OMNI_ENGINE_AUTO, 0, &poller) == 0, "omni_poller_new");
}

static void arm(int timer, int64_t nanoseconds) {
    must(omni_poller_timer_add(poller, nanoseconds, 0, (uint64_t)timer, &ids[timer]) == 0,
         "omni_poller_timer_add");
}

static void cancel(int timer) {
    must(omni_poller_timer_cancel(poller, ids[timer]) == 0, "omni_poller_timer_cancel");
}

static void run(void) {
    static omni_event events[BATCH];
    int count = omni_poller_wait(poller, events, BATCH, 0);
    must(count >= 0, "omni_poller_wait");
    expired += count;
}

const struct timers omnipoll = {"omnipoll, C", open_timers, arm, cancel, run};
