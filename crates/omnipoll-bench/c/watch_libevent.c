/* A loop on libevent's struct event. */
#include "watcher.h"
#include <event2/event.h>
#include <event2/event_struct.h>

static struct event_base *base;
static struct event *events;

static void on_ready(evutil_socket_t fd, short ready, void *context) {
    (void)ready, (void)context;
    visit(fd);
}

static void open_base(uint32_t engine) {
    (void)engine;
    must((base = event_base_new()) != NULL, "event_base_new");
    events = calloc((size_t)watched, sizeof *events);
}

static void close_base(void) {
    event_base_free(base);
    free(events);
}

static void watch(int index, short what) {
    must(event_assign(&events[index], base, descriptors[index], what | EV_PERSIST, on_ready, NULL) == 0,
         "event_assign");
    must(event_add(&events[index], NULL) == 0, "event_add");
}

static void add(int index) {
    watch(index, EV_READ);
}

static void forget(int index) {
    must(event_del(&events[index]) == 0, "event_del");
}

static void change(int index, enum interest interest) {
    forget(index);
    watch(index, interest == READABLE ? EV_READ : EV_WRITE);
}

static void wait_once(int for_ever) {
    event_base_loop(base, for_ever ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
}

const struct watcher libevent = {"libevent", 0, open_base, close_base, add, change, forget, wait_once};
