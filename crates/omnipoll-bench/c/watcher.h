/* One way to watch descriptors: what watch.c compares. */
#ifndef WATCHER_H
#define WATCHER_H

#include "measure.h"
#include <string.h>
#include <unistd.h>

/* Room for events, in every loop alike. */
enum { CAPACITY = 1024 };

/* What is watched, by index: what a watcher keeps for each, it keeps in arrays of that length. */
extern int watched, *descriptors;

enum interest { READABLE, WRITABLE };

/* Whether what is ready is read, or only counted. */
extern int reads;

/* Calls for everything that is ready. */
extern int visited;
static inline void visit(int fd) {
    char byte;
    if (reads)
        must(read(fd, &byte, 1) == 1, "read");
    visited++;
}

struct watcher {
    const char *name;
    uint32_t engine; /* ours only */
    void (*open)(uint32_t engine);
    void (*close)(void);
    void (*add)(int index);
    void (*change)(int index, enum interest interest);
    void (*remove)(int index);
    /* Waits once, indefinitely or not at all, and visits what is ready. */
    void (*wait)(int for_ever);
};

/* NULL where the library is missing. */
extern const struct watcher raw_epoll, raw_epoll_edges, raw_poll, raw_select;
extern const struct watcher raw_io_uring __attribute__((weak)), libuv __attribute__((weak)),
    libevent __attribute__((weak)), libev __attribute__((weak));
extern const struct watcher omnipoll, omnipoll_edges;

#endif
