/*
 * curl_adapter.h: libcurl's multi socket interface on a loop. libcurl says which sockets to watch for what
 * (CURLMOPT_SOCKETFUNCTION), and that it loses interest before it closes one, so that omni_poller_set is all
 * there is to do; and when it wants to be called at the latest (CURLMOPT_TIMERFUNCTION).
 */
#ifndef CURL_ADAPTER_H
#define CURL_ADAPTER_H

#include "adapter.h"
#include <curl/curl.h>

struct curl_adapter {
    struct adapter base; /* first, so that its address is both's */
    CURLM *multi;
    /* A transfer has ended, and is no longer in `multi`: clean its handle up, or add it again. */
    void (*on_done)(struct curl_adapter *adapter, CURL *easy, CURLcode result);
};

static inline int curl_adapter_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *socket)
{
    struct curl_adapter *adapter = context;
    uint32_t interest = (what & CURL_POLL_IN ? OMNI_READ : 0) | (what & CURL_POLL_OUT ? OMNI_WRITE : 0);
    (void)easy, (void)socket;
    return adapter_watch(&adapter->base, fd, interest) < 0 ? -1 : 0;
}

/* libcurl must not be called from here, not even when the time is 0. */
static inline int curl_adapter_timer(CURLM *multi, long timeout_ms, void *context)
{
    struct curl_adapter *adapter = context;
    (void)multi;
    return adapter_set_timer(&adapter->base, timeout_ms < 0 ? -1 : timeout_ms * INT64_C(1000000)) < 0 ? -1 : 0;
}

static inline void curl_adapter_event(struct adapter *base, const omni_event *event)
{
    struct curl_adapter *adapter = (struct curl_adapter *)base;
    curl_socket_t fd = CURL_SOCKET_TIMEOUT;
    int mask = 0, number;
    CURLMsg *message;
    if (event->kind == OMNI_EVENT_IO) {
        fd = (curl_socket_t)event->value;
        mask = (adapter_can_read(event) ? CURL_CSELECT_IN : 0) | (event->ready & OMNI_WRITE ? CURL_CSELECT_OUT : 0) |
               (event->ready & OMNI_ERROR ? CURL_CSELECT_ERR : 0);
    }
    curl_multi_socket_action(adapter->multi, fd, mask, &number);
    while ((message = curl_multi_info_read(adapter->multi, &number)) != NULL)
        if (message->msg == CURLMSG_DONE) {
            CURL *easy = message->easy_handle; /* the message is gone when its handle is removed */
            CURLcode result = message->data.result;
            curl_multi_remove_handle(adapter->multi, easy);
            adapter->on_done(adapter, easy, result);
        }
}

/* Then add transfers by curl_multi_add_handle; they begin when the loop runs. End with curl_multi_cleanup,
 * before the loop is freed. Returns 0, or -ENOMEM. */
static inline int curl_adapter_init(struct curl_adapter *adapter, omni_loop *loop,
                                    void (*on_done)(struct curl_adapter *, CURL *, CURLcode))
{
    *adapter = (struct curl_adapter){.base = {.loop = loop, .on_event = curl_adapter_event}, .on_done = on_done};
    adapter->multi = curl_multi_init();
    if (adapter->multi == NULL)
        return -ENOMEM;
    curl_multi_setopt(adapter->multi, CURLMOPT_SOCKETFUNCTION, curl_adapter_socket);
    curl_multi_setopt(adapter->multi, CURLMOPT_SOCKETDATA, adapter);
    curl_multi_setopt(adapter->multi, CURLMOPT_TIMERFUNCTION, curl_adapter_timer);
    curl_multi_setopt(adapter->multi, CURLMOPT_TIMERDATA, adapter);
    return 0;
}

#endif
