/* Timers of libev. */
#include "timers.h"
#include <ev.h>

static struct ev_loop *loop;
static ev_timer timers[MOST + BATCH];

static void on_told(struct ev_loop *same, ev_timer *timer, int what) {
    (void)same, (void)timer, (void)what;
    expired++;
}

static void open_timers(void) {
    must((loop = ev_loop_new(0)) != NULL, "ev_loop_new");
}

/* It takes the loop's time for now, which is that of the last wait. */
static void arm(int timer, int64_t nanoseconds) {
    ev_timer_init(&timers[timer], on_told, (double)nanoseconds / 1e9, 0);
    ev_timer_start(loop, &timers[timer]);
}

static void cancel(int timer) {
    ev_timer_stop(loop, &timers[timer]);
}

static void run(void) {
    ev_run(loop, EVRUN_NOWAIT);
}

const struct timers libev = {"libev, C", open_timers, arm, cancel, run};
