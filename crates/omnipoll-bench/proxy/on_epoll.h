/* The loop on epoll, level-triggered, of the proxies with no library. */
#ifndef ON_EPOLL_H
#define ON_EPOLL_H

#include "epoll_interest.h"
#include "pair.h"

static unsigned ready_of(uint32_t events) {
    if (events & (EPOLLERR | EPOLLHUP))
        return IN | OUT;
    return (events & EPOLLIN ? IN : 0) | (events & EPOLLOUT ? OUT : 0);
}

static void run(int argc, char **argv) {
    static struct epoll_event events[BATCH];
    struct epoll_event event = {.events = EPOLLIN};
    backend = backend_of(argc, argv);
    int listener = listen_on_loopback();
    set = epoll_create1(EPOLL_CLOEXEC);
    must(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == 0, "epoll_ctl");
    for (;;) {
        int count = epoll_wait(set, events, BATCH, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                accept_pairs(listener);
            else
                handle(events[i].data.ptr, ready_of(events[i].events));
        }
        free_closed();
    }
}

#endif
