/*
 * ares_adapter.h: c-ares on a loop. c-ares says which sockets to watch for what (ARES_OPT_SOCK_STATE_CB), and
 * that it loses interest before it closes one. When it wants to be called at the latest has to be asked after
 * each call of it (ares_timeout).
 */
#ifndef ARES_ADAPTER_H
#define ARES_ADAPTER_H

#include "adapter.h"
#include <ares.h>
#include <sys/time.h>

struct ares_adapter {
    struct adapter base; /* first, so that its address is both's */
    ares_channel channel;
};

static inline void ares_adapter_socket(void *context, ares_socket_t fd, int readable, int writable)
{
    struct ares_adapter *adapter = context;
    adapter_watch(&adapter->base, fd, (readable ? OMNI_READ : 0) | (writable ? OMNI_WRITE : 0));
}

/* After queries were begun: has c-ares called again when the first of them takes too long. */
static inline void ares_adapter_update(struct ares_adapter *adapter)
{
    struct timeval left;
    int is_waiting = ares_timeout(adapter->channel, NULL, &left) != NULL;
    int64_t left_ns = left.tv_sec * INT64_C(1000000000) + left.tv_usec * INT64_C(1000);
    adapter_set_timer(&adapter->base, is_waiting ? left_ns : -1);
}

static inline void ares_adapter_event(struct adapter *base, const omni_event *event)
{
    struct ares_adapter *adapter = (struct ares_adapter *)base;
    ares_socket_t fd = (ares_socket_t)event->value;
    int is_socket = event->kind == OMNI_EVENT_IO;
    ares_process_fd(adapter->channel, is_socket && adapter_can_read(event) ? fd : ARES_SOCKET_BAD,
                    is_socket && adapter_can_write(event) ? fd : ARES_SOCKET_BAD);
    ares_adapter_update(adapter);
}

/* A channel with these options, as ares_init_options takes them, on a loop. End with ares_destroy, before the
 * loop is freed. Returns what ares_init_options does. */
static inline int ares_adapter_init(struct ares_adapter *adapter, omni_loop *loop, struct ares_options *options,
                                    int mask)
{
    *adapter = (struct ares_adapter){.base = {.loop = loop, .on_event = ares_adapter_event}};
    options->sock_state_cb = ares_adapter_socket;
    options->sock_state_cb_data = adapter;
    return ares_init_options(&adapter->channel, options, mask | ARES_OPT_SOCK_STATE_CB);
}

#endif
