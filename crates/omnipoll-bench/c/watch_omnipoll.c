/* A loop on omnipoll, the same for every engine: under LEVEL, and under EDGE. */
#include "watcher.h"
#include <omnipoll.h>

static omni_poller *poller;
static uint32_t trigger; /* 0 or OMNI_EDGE */

static void ours(int result) {
    if (result < 0) {
        fprintf(stderr, "%s\n", omni_last_error());
        exit(1);
    }
}

static void open_poller(uint32_t engine) {
    ours(omni_poller_new(engine, 0, &poller));
}

static void open_poller_of_edges(uint32_t engine) {
    open_poller(engine);
    trigger = OMNI_EDGE;
}

static void close_poller(void) {
    omni_poller_free(poller);
    trigger = 0;
}

static void add(int index) {
    ours(omni_poller_add(poller, descriptors[index], OMNI_READ | trigger, (uint64_t)descriptors[index]));
}

static void change(int index, enum interest interest) {
    uint32_t wanted = interest == READABLE ? OMNI_READ : OMNI_WRITE;
    ours(omni_poller_modify(poller, descriptors[index], wanted | trigger, (uint64_t)descriptors[index]));
}

static void forget(int index) {
    ours(omni_poller_remove(poller, descriptors[index]));
}

static void wait_once(int for_ever) {
    static omni_event events[CAPACITY];
    int count = omni_poller_wait(poller, events, CAPACITY, for_ever ? -1 : 0);
    ours(count);
    for (int i = 0; i < count; i++)
        visit((int)events[i].token);
}

const struct watcher omnipoll = {"omnipoll", 0, open_poller, close_poller, add, change, forget, wait_once};
const struct watcher omnipoll_edges = {"omnipoll", 0, open_poller_of_edges, close_poller, add, change, forget,
                                       wait_once};
