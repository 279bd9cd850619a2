/* A loop on epoll, with no library: level-triggered, and by edges. */
#include "watcher.h"
#include <sys/epoll.h>

static int set;
static uint32_t trigger; /* 0 or EPOLLET */

static void control(int operation, int index, uint32_t events) {
    struct epoll_event event = {.events = events | trigger, .data.fd = descriptors[index]};
    must(epoll_ctl(set, operation, descriptors[index], &event) == 0, "epoll_ctl");
}

static void open_set(uint32_t engine) {
    (void)engine;
    set = epoll_create1(EPOLL_CLOEXEC);
}

static void open_set_of_edges(uint32_t engine) {
    open_set(engine);
    trigger = EPOLLET;
}

static void close_set(void) {
    close(set);
    trigger = 0;
}

static void add(int index) {
    control(EPOLL_CTL_ADD, index, EPOLLIN);
}

static void change(int index, enum interest interest) {
    control(EPOLL_CTL_MOD, index, interest == READABLE ? EPOLLIN : EPOLLOUT);
}

static void forget(int index) {
    control(EPOLL_CTL_DEL, index, 0);
}

static void wait_once(int for_ever) {
    static struct epoll_event events[CAPACITY];
    int count = epoll_wait(set, events, CAPACITY, for_ever ? -1 : 0);
    for (int i = 0; i < count; i++)
        visit(events[i].data.fd);
}

const struct watcher raw_epoll = {"raw epoll", 0, open_set, close_set, add, change, forget, wait_once};
const struct watcher raw_epoll_edges = {"raw epoll, edges", 0, open_set_of_edges, close_set, add, change,
                                        forget, wait_once};
