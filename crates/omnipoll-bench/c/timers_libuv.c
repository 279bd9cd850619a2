/* Timers of libuv. It counts in milliseconds, and reads no clock when one is armed. */
#include "timers.h"
#include <uv.h>

static uv_loop_t loop;
static uv_timer_t timers[MOST + BATCH];

static void on_told(uv_timer_t *timer) {
    (void)timer;
    expired++;
}

static void open_timers(void) {
    must(uv_loop_init(&loop) == 0, "uv_loop_init");
    for (int timer = 0; timer < MOST + BATCH; timer++)
        uv_timer_init(&loop, &timers[timer]);
}

static void arm(int timer, int64_t nanoseconds) {
    uint64_t milliseconds = (uint64_t)(nanoseconds + 999999) / 1000000;
    must(uv_timer_start(&timers[timer], on_told, milliseconds, 0) == 0, "uv_timer_start");
}

static void cancel(int timer) {
    uv_timer_stop(&timers[timer]);
}

static void run(void) {
    uv_run(&loop, UV_RUN_NOWAIT);
}

const struct timers libuv = {"libuv, C", open_timers, arm, cancel, run};
