/* The proxy of raw_epoll.c on omnipoll's poller: omnipoll_poller ENGINE ADDRESS:PORT. */
#include "copy.h"
#include "interest.h"
#include "../echo/omnipoll_named.h"

static omni_poller *poller;

static void set_interest(int fd, void *side, unsigned before, unsigned now) {
    uint32_t interest = (now & IN ? OMNI_READ : 0) | (now & OUT ? OMNI_WRITE : 0);
    uint64_t token = (uintptr_t)side;
    if (before == 0)
        ours(omni_poller_add(poller, fd, interest, token), "omni_poller_add");
    else if (now == 0)
        ours(omni_poller_remove(poller, fd), "omni_poller_remove");
    else
        ours(omni_poller_modify(poller, fd, interest, token), "omni_poller_modify");
}

static void forget(int fd, unsigned interest) {
    if (interest != 0)
        ours(omni_poller_remove(poller, fd), "omni_poller_remove");
}

#include "pair.h"

static unsigned ready_of(uint32_t ready) {
    if (ready & (OMNI_ERROR | OMNI_HANGUP))
        return IN | OUT;
    return (ready & OMNI_READ ? IN : 0) | (ready & OMNI_WRITE ? OUT : 0);
}

int main(int argc, char **argv) {
    static omni_event events[BATCH];
    ours(omni_poller_new(engine_named(argc > 2 ? argv[1] : "auto"), 0, &poller), "omni_poller_new");
    backend = backend_of(argc, argv);
    int listener = listen_on_loopback();
    ours(omni_poller_add(poller, listener, OMNI_READ, 0), "omni_poller_add");
    for (;;) {
        int count = omni_poller_wait(poller, events, BATCH, -1);
        ours(count, "omni_poller_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].token == 0)
                accept_pairs(listener);
            else
                handle((struct side *)(uintptr_t)events[i].token, ready_of(events[i].ready));
        }
        free_closed();
    }
}
