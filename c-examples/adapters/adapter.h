/*
 * adapter.h: what the adapters of this directory have in common. An adapter lets another library's
 * descriptors and timeouts be waited for by a loop with a handler; adapter_handler passes each event on to
 * the adapter that asked for it. The program owns the adapters. Each must live until no wait can return an
 * event of it any more: as long as the loop, or until another wait of it has returned. An event that comes
 * after the library has lost interest is a spurious one, which all these libraries bear.
 */
#ifndef ADAPTER_H
#define ADAPTER_H

#include <errno.h>
#include <omnipoll.h>

struct adapter {
    omni_loop *loop;
    void (*on_event)(struct adapter *adapter, const omni_event *event);
    uint64_t timer; /* its id; 0 while there is none */
    int error;      /* of the loop's poller, which the other library has no way to hear of; 0 if there was none */
};

static inline int adapter_checked(struct adapter *adapter, int result)
{
    if (result < 0)
        adapter->error = result;
    return result;
}

/* Watches a descriptor of the library's for this; for nothing any more when the interest is 0. */
static inline int adapter_watch(struct adapter *adapter, int fd, uint32_t interest)
{
    omni_poller *poller = omni_loop_poller(adapter->loop);
    return adapter_checked(adapter, omni_poller_set(poller, fd, interest, (uint64_t)(uintptr_t)adapter));
}

/* Has OMNI_EVENT_TIMER come once, after so long; not any more when that is negative. */
static inline int adapter_set_timer(struct adapter *adapter, int64_t delay_ns)
{
    omni_poller *poller = omni_loop_poller(adapter->loop);
    if (delay_ns < 0) {
        omni_poller_timer_cancel(poller, adapter->timer); /* -ESTALE: it has expired, or there was none */
        return 0;
    }
    int error = omni_poller_timer_set(poller, adapter->timer, delay_ns, 0);
    if (error == -ESTALE)
        error = omni_poller_timer_add(poller, delay_ns, 0, (uint64_t)(uintptr_t)adapter, &adapter->timer);
    return adapter_checked(adapter, error);
}

/* An end and an error are found by reading; an error also by writing, where nothing is read. */
static inline int adapter_can_read(const omni_event *event)
{
    return (event->ready & ~OMNI_WRITE) != 0;
}

static inline int adapter_can_write(const omni_event *event)
{
    return (event->ready & (OMNI_WRITE | OMNI_HANGUP | OMNI_ERROR)) != 0;
}

static inline void adapter_on_event(omni_loop *loop, const omni_event *event, void *context)
{
    struct adapter *adapter = (struct adapter *)(uintptr_t)event->token;
    (void)loop, (void)context;
    adapter->on_event(adapter, event);
}

/* For omni_loop_new. */
static const omni_handler adapter_handler = {.size = sizeof(omni_handler), .on_event = adapter_on_event};

#endif
