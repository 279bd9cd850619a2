/* Timers, checked through the public header on every engine.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "harness.h"

static int64_t wall_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void timer_order(uint32_t engine)
{
    const int64_t delays[] = {9 * MS, 2 * MS, 0, 5 * MS, 0, 1, 0};
    enum { TIMERS = sizeof delays / sizeof *delays };
    omni_poller *poller = new_poller(engine);
    /* Between which times each deadline is; the latest of those returned. */
    int64_t earliest[TIMERS], latest[TIMERS], last = 0;
    int returned[TIMERS] = {0}, all = 0;
    for (uint64_t i = 0; i < TIMERS; i++) {
        earliest[i] = now_ns() + delays[i];
        IS(omni_poller_timer_add(poller, delays[i], 0, i, NULL), 0);
        latest[i] = now_ns() + delays[i];
    }
    while (all < TIMERS) {
        omni_event events[ROOM];
        int count = omni_poller_wait(poller, events, ROOM, FOREVER);
        int64_t now = now_ns();
        for (int i = 0; i < count; i++, all++) {
            uint64_t token = events[i].token;
            IS(events[i].kind, OMNI_EVENT_TIMER);
            IS(events[i].value, 1);
            OK(token < TIMERS && !returned[token]++);
            OK(earliest[token] <= now);
            OK(last <= latest[token]);
            last = earliest[token] > last ? earliest[token] : last;
            /* Of equal delays the older is returned first. */
            OK(token != 4 || returned[2]);
            OK(token != 6 || returned[4]);
        }
    }
    IS(look(poller), 0);
    omni_poller_free(poller);
}

static void timer_cancel(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    uint64_t cancelled = 0, expired = 0, periodic = 0;
    IS(omni_poller_timer_add(poller, 0, 0, 1, &cancelled), 0);
    IS(omni_poller_timer_add(poller, 0, 0, 2, &expired), 0);
    OK(cancelled && expired && cancelled != expired);
    IS(omni_poller_timer_cancel(poller, cancelled), 0);
    IS(omni_poller_timer_cancel(poller, cancelled), -ESTALE);
    one_of(poller, OMNI_EVENT_TIMER, 2);

    /* Their places are taken by others, which their ids don't reach. */
    IS(omni_poller_timer_add(poller, 0, MS, 3, &periodic), 0);
    IS(omni_poller_timer_add(poller, INT64_MAX, 0, 4, NULL), 0);
    const uint64_t stale[] = {cancelled, expired, 0, 1, UINT32_MAX, periodic + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof stale / sizeof *stale; i++) {
        IS(omni_poller_timer_cancel(poller, stale[i]), -ESTALE);
        int moved = omni_poller_timer_set(poller, stale[i], 0, 0);
        OK(moved == -ESTALE || (moved == -EINVAL && stale[i] & 0x80000000));
    }
    one_of(poller, OMNI_EVENT_TIMER, 3);
    one_of(poller, OMNI_EVENT_TIMER, 3);
    IS(omni_poller_timer_cancel(poller, periodic), 0);
    let_pass(2 * MS);
    IS(look(poller), 0);
    omni_poller_free(poller);
}

static void timer_set(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct waiter waiter;
    uint64_t id = 0;
    IS(omni_poller_timer_add(poller, 0, 0, 1, &id), 0);
    IS(omni_poller_timer_set(poller, id, INT64_MAX, 0), 0);
    IS(look(poller), 0);
    /* Sooner, during a wait. */
    start_waiting(&waiter, poller, FOREVER);
    int64_t start = now_ns();
    IS(omni_poller_timer_set(poller, id, 3 * MS, INT64_MAX), 0);
    IS(finish_waiting(&waiter), 1);
    OK(now_ns() - start >= 3 * MS);
    IS(waiter.events[0].token, 1);
    /* It has a period now, and so it is still there. */
    IS(omni_poller_timer_set(poller, id, 0, 0), 0);
    one_of(poller, OMNI_EVENT_TIMER, 1);
    /* It has expired, and keeps its id until it is cancelled. */
    IS(omni_poller_timer_set(poller, id, 0, 0), 0);
    one_of(poller, OMNI_EVENT_TIMER, 1);
    IS(omni_poller_timer_cancel(poller, id), -ESTALE);
    IS(omni_poller_timer_set(poller, id, 0, 0), -ESTALE);
    omni_poller_free(poller);
}

static void timer_late(uint32_t engine)
{
    const int64_t delay = 2 * MS, period = MS;
    omni_poller *poller = new_poller(engine);
    omni_event events[ROOM];
    uint64_t id;
    int64_t before = now_ns();
    IS(omni_poller_timer_add(poller, delay, period, 1, &id), 0);
    int64_t after = now_ns();
    let_pass(20 * MS);
    int64_t least = (now_ns() - after - delay) / period + 1;
    IS(omni_poller_wait(poller, events, ROOM, LOOK), 1);
    int64_t most = (now_ns() - before - delay) / period + 1;
    OK(least >= 19 && least <= events[0].value && events[0].value <= most);

    /* The periods that follow continue from the first deadline; none is counted twice or never. */
    int64_t periods = events[0].value;
    while (periods < 40) {
        OK(omni_poller_wait(poller, events, ROOM, FOREVER) == 1 && events[0].value >= 1);
        periods += events[0].value;
        OK(now_ns() - before >= delay + (periods - 1) * period);
    }
    OK(periods <= (now_ns() - before - delay) / period + 1);
    omni_poller_free(poller);
}

static void timer_while_waiting(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    omni_event event;
    struct waiter waiter;
    /* The caller's timeout holds although a timer is armed, and the other way round. */
    IS(omni_poller_timer_add(poller, INT64_MAX, INT64_MAX, 1, NULL), 0);
    int64_t start = now_ns();
    IS(omni_poller_wait(poller, &event, 1, 3 * MS), 0);
    OK(now_ns() - start >= 3 * MS);
    start_waiting(&waiter, poller, INT64_MAX);
    IS(omni_poller_timer_add(poller, 3 * MS, 0, 2, NULL), 0);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].kind, OMNI_EVENT_TIMER);
    IS(waiter.events[0].token, 2);
    omni_poller_free(poller);
}

static void wall_clock(uint32_t engine)
{
    int before = open_descriptors();
    omni_poller *poller = new_poller(engine);
    struct waiter waiter;
    uint64_t id = 0, never = 0;
    /* 1970, and five milliseconds from now. */
    IS(omni_poller_timer_add_at(poller, 0, 1, &id), 0);
    IS(one_of(poller, OMNI_EVENT_TIMER, 1).value, 1);
    IS(omni_poller_timer_cancel(poller, id), -ESTALE);
    IS(omni_poller_timer_add_at(poller, INT64_MAX, 2, &never), 0);
    OK(never && never != id);
    IS(look(poller), 0);
    start_waiting(&waiter, poller, FOREVER);
    int64_t time = wall_clock_ns() + 5 * MS;
    IS(omni_poller_timer_add_at(poller, time, 3, NULL), 0);
    IS(finish_waiting(&waiter), 1);
    OK(wall_clock_ns() >= time);
    IS(waiter.events[0].kind, OMNI_EVENT_TIMER);
    IS(waiter.events[0].token, 3);

    IS(omni_poller_timer_set(poller, never, 0, 0), -EINVAL);
    IS(omni_poller_timer_cancel(poller, never), 0);
    IS(omni_poller_timer_cancel(poller, never), -ESTALE);
    IS(omni_poller_timer_add_at(poller, -1, 4, &id), -EINVAL);
    omni_poller_free(poller);
    IS(open_descriptors(), before);
}

static void timer_bad_input(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    uint64_t armed = 0, id = 7;
    IS(omni_poller_timer_add(poller, INT64_MAX, 0, 1, &armed), 0);
    const int64_t wrong[] = {-1, INT64_MIN};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        IS(omni_poller_timer_add(poller, wrong[i], 0, 2, &id), -EINVAL);
        IS(omni_poller_timer_add(poller, 0, wrong[i], 2, &id), -EINVAL);
        IS(omni_poller_timer_add_at(poller, wrong[i], 2, &id), -EINVAL);
        IS(omni_poller_timer_set(poller, armed, wrong[i], 0), -EINVAL);
        IS(omni_poller_timer_set(poller, armed, 0, wrong[i]), -EINVAL);
    }
    OK(strstr(omni_last_error(), "omni_poller_timer_set: period_ns is negative (EINVAL)"));
    IS(id, 7);
    IS(look(poller), 0);
    IS(omni_poller_timer_cancel(poller, armed), 0);
    omni_poller_free(poller);
}

static const struct behaviour behaviours[] = {
    {"timers come in order and never early", timer_order},
    {"a cancelled timer is silent, and its id stale", timer_cancel},
    {"a timer is moved, sooner and later", timer_set},
    {"a late periodic timer is returned once, with its periods", timer_late},
    {"timers and timeouts don't disturb each other", timer_while_waiting},
    {"timers by the wall clock", wall_clock},
    {"EINVAL for negative times", timer_bad_input},
};

int main(void)
{
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
