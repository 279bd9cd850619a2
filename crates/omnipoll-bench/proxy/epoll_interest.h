/* Interest in descriptors on epoll, level-triggered, for the proxies with no library. */
#ifndef EPOLL_INTEREST_H
#define EPOLL_INTEREST_H

#include "interest.h"
#include "proxy.h"
#include <sys/epoll.h>

static int set;

static void set_interest(int fd, void *side, unsigned before, unsigned now) {
    struct epoll_event event = {
        .events = (now & IN ? EPOLLIN : 0) | (now & OUT ? EPOLLOUT : 0),
        .data.ptr = side,
    };
    int operation = before == 0 ? EPOLL_CTL_ADD : now == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    must(epoll_ctl(set, operation, fd, &event) == 0, "epoll_ctl");
}

/* The set forgets a descriptor that is closed. */
static void forget(int fd, unsigned interest) {
    (void)fd, (void)interest;
}

#endif
