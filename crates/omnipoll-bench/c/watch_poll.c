/* A loop on poll, with no library. */
#include "watcher.h"
#include <poll.h>

static struct pollfd *entries;
static nfds_t used;

static void open_entries(uint32_t engine) {
    (void)engine;
    entries = calloc((size_t)watched, sizeof *entries);
    used = 0;
}

static void close_entries(void) {
    free(entries);
}

static void add(int index) {
    entries[index] = (struct pollfd){.fd = descriptors[index], .events = POLLIN};
    if ((nfds_t)index >= used)
        used = (nfds_t)index + 1;
}

static void change(int index, enum interest interest) {
    entries[index].events = interest == READABLE ? POLLIN : POLLOUT;
}

/* poll passes over descriptors below 0. */
static void forget(int index) {
    entries[index].fd = -1;
    while (used > 0 && entries[used - 1].fd < 0)
        used--;
}

static void wait_once(int for_ever) {
    int left = poll(entries, used, for_ever ? -1 : 0);
    for (nfds_t i = 0; left > 0; i++)
        if (entries[i].revents != 0) {
            visit(entries[i].fd);
            left--;
        }
}

const struct watcher raw_poll = {"raw poll", 0, open_entries, close_entries, add, change, forget, wait_once};
