/*
 * hiredis_adapter.h: an asynchronous context of hiredis on a loop. hiredis has a function for each change of
 * interest, and one that it calls before it closes its socket. It asks again for what it has already, at each
 * command and each reply: what is watched is kept here, so that this costs no system call.
 *
 * hiredis before 1.0 has no timeouts, so there is one here: when replies are due, or the connection is not
 * there yet, and nothing has come in the whole of a period, the context is freed, and all callbacks of its
 * commands get NULL.
 */
#ifndef HIREDIS_ADAPTER_H
#define HIREDIS_ADAPTER_H

#include "adapter.h"
#include <hiredis/async.h>

struct hiredis_adapter {
    struct adapter base;        /* first, so that its address is both's */
    redisAsyncContext *context; /* NULL when hiredis has freed it */
    uint32_t interest;
    int has_read; /* in this period */
};

static inline void hiredis_adapter_watch(struct hiredis_adapter *adapter, uint32_t interest)
{
    if (interest != adapter->interest && adapter_watch(&adapter->base, adapter->context->c.fd, interest) == 0)
        adapter->interest = interest;
}

static inline void hiredis_adapter_add_read(void *adapter)
{
    hiredis_adapter_watch(adapter, ((struct hiredis_adapter *)adapter)->interest | OMNI_READ);
}

static inline void hiredis_adapter_del_read(void *adapter)
{
    hiredis_adapter_watch(adapter, ((struct hiredis_adapter *)adapter)->interest & ~OMNI_READ);
}

static inline void hiredis_adapter_add_write(void *adapter)
{
    hiredis_adapter_watch(adapter, ((struct hiredis_adapter *)adapter)->interest | OMNI_WRITE);
}

static inline void hiredis_adapter_del_write(void *adapter)
{
    hiredis_adapter_watch(adapter, ((struct hiredis_adapter *)adapter)->interest & ~OMNI_WRITE);
}

static inline void hiredis_adapter_cleanup(void *context)
{
    struct hiredis_adapter *adapter = context;
    hiredis_adapter_watch(adapter, 0);
    adapter_set_timer(&adapter->base, -1);
    adapter->context = NULL;
}

static inline int hiredis_adapter_is_waiting(const redisAsyncContext *context)
{
    return context->replies.head != NULL || (context->c.flags & REDIS_CONNECTED) == 0;
}

static inline void hiredis_adapter_event(struct adapter *base, const omni_event *event)
{
    struct hiredis_adapter *adapter = (struct hiredis_adapter *)base;
    /* Each of these may free the context. */
    if (event->kind == OMNI_EVENT_TIMER) {
        if (adapter->context != NULL && !adapter->has_read && hiredis_adapter_is_waiting(adapter->context))
            redisAsyncFree(adapter->context);
        adapter->has_read = 0;
        return;
    }
    if (adapter->context != NULL && adapter_can_read(event)) {
        adapter->has_read = 1;
        redisAsyncHandleRead(adapter->context);
    }
    if (adapter->context != NULL && adapter_can_write(event))
        redisAsyncHandleWrite(adapter->context);
}

/* A context that redisAsyncConnect has returned, and that has no error, on a loop. Disconnect, or free it,
 * before the loop is freed. `timeout_ns` 0: no timeout. Returns 0 or an error, and then it is not on it. */
static inline int hiredis_adapter_attach(struct hiredis_adapter *adapter, omni_loop *loop,
                                         redisAsyncContext *context, int64_t timeout_ns)
{
    *adapter = (struct hiredis_adapter){.base = {.loop = loop, .on_event = hiredis_adapter_event}, .context = context};
    if (timeout_ns > 0) {
        uint64_t token = (uint64_t)(uintptr_t)adapter;
        int error = omni_poller_timer_add(omni_loop_poller(loop), timeout_ns, timeout_ns, token, &adapter->base.timer);
        if (error < 0)
            return error;
    }
    context->ev.data = adapter;
    context->ev.addRead = hiredis_adapter_add_read;
    context->ev.delRead = hiredis_adapter_del_read;
    context->ev.addWrite = hiredis_adapter_add_write;
    context->ev.delWrite = hiredis_adapter_del_write;
    context->ev.cleanup = hiredis_adapter_cleanup;
    hiredis_adapter_watch(adapter, OMNI_WRITE); /* until it is connected */
    return adapter->base.error;
}

#endif
