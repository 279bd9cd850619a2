/*
 * libpq_adapter.h: a connection of libpq on a loop. libpq calls nothing: after each call of it one asks what
 * to wait for. It does not say either when it closes its socket, which is where an adapter has to take care:
 *
 *  - PQconnectPoll may close the socket and open another, for the next host or address of its list, and the
 *    new one nearly always gets the number of the old. So the number is removed before the call, and what
 *    PQsocket returns is added after it, although it may look as if nothing had changed.
 *  - The other calls only close it, when the connection is lost. So the number is kept here, and removed as
 *    soon as PQstatus says so.
 */
#ifndef LIBPQ_ADAPTER_H
#define LIBPQ_ADAPTER_H

#include "adapter.h"
#include <libpq-fe.h>

struct libpq_adapter {
    struct adapter base; /* first, so that its address is both's */
    PGconn *connection;
    int fd; /* what is watched; -1: nothing */
    uint32_t interest;
    /* The connection can be used: send queries, and then call libpq_adapter_update. */
    void (*on_connected)(struct libpq_adapter *adapter);
    /* One result, to be freed by PQclear. */
    void (*on_result)(struct libpq_adapter *adapter, PGresult *result);
    /* The connection could not be made, or is lost: PQerrorMessage says why, or that time is up when `error`
     * is -ETIMEDOUT. Nothing is watched any more. */
    void (*on_lost)(struct libpq_adapter *adapter, int error);
};

static inline void libpq_adapter_watch(struct libpq_adapter *adapter, int fd, uint32_t interest)
{
    if (adapter->fd != fd && adapter->fd >= 0)
        adapter_watch(&adapter->base, adapter->fd, 0);
    if (fd >= 0 && (adapter->fd != fd || adapter->interest != interest))
        adapter_watch(&adapter->base, fd, interest);
    adapter->fd = fd;
    adapter->interest = interest;
}

static inline void libpq_adapter_lose(struct libpq_adapter *adapter, int error)
{
    libpq_adapter_watch(adapter, -1, 0);
    adapter_set_timer(&adapter->base, -1);
    adapter->on_lost(adapter, error);
}

/* Call it after queries were sent: sends what libpq could not yet. */
static inline void libpq_adapter_update(struct libpq_adapter *adapter)
{
    int left = PQflush(adapter->connection);
    if (left < 0 || PQstatus(adapter->connection) == CONNECTION_BAD)
        libpq_adapter_lose(adapter, -ECONNRESET);
    else
        libpq_adapter_watch(adapter, adapter->fd, OMNI_READ | (left > 0 ? OMNI_WRITE : 0));
}

static inline void libpq_adapter_connecting(struct libpq_adapter *adapter)
{
    libpq_adapter_watch(adapter, -1, 0);
    PostgresPollingStatusType status = PQconnectPoll(adapter->connection);
    if (status == PGRES_POLLING_FAILED) {
        libpq_adapter_lose(adapter, -ECONNREFUSED);
        return;
    }
    int writes = status == PGRES_POLLING_WRITING;
    libpq_adapter_watch(adapter, PQsocket(adapter->connection), writes ? OMNI_WRITE : OMNI_READ);
    if (status == PGRES_POLLING_OK) {
        adapter_set_timer(&adapter->base, -1);
        PQsetnonblocking(adapter->connection, 1);
        adapter->on_connected(adapter);
    }
}

/* Two in a row without a result: there is no query in the pipeline whose result is still to come. */
static inline void libpq_adapter_results(struct libpq_adapter *adapter)
{
    for (int empty = 0; empty < 2 && !PQisBusy(adapter->connection);) {
        PGresult *result = PQgetResult(adapter->connection);
        empty = result == NULL ? empty + 1 : 0;
        if (result != NULL)
            adapter->on_result(adapter, result);
        if (adapter->connection == NULL)
            return; /* on_result has ended it */
    }
    libpq_adapter_update(adapter);
}

static inline void libpq_adapter_event(struct adapter *base, const omni_event *event)
{
    struct libpq_adapter *adapter = (struct libpq_adapter *)base;
    if (adapter->fd < 0)
        return; /* a spurious event: it is over */
    int is_connected = PQstatus(adapter->connection) == CONNECTION_OK;
    if (event->kind == OMNI_EVENT_TIMER) {
        if (!is_connected)
            libpq_adapter_lose(adapter, -ETIMEDOUT);
    } else if (!is_connected)
        libpq_adapter_connecting(adapter);
    else if (adapter_can_read(event) && !PQconsumeInput(adapter->connection))
        libpq_adapter_lose(adapter, -ECONNRESET);
    else
        libpq_adapter_results(adapter);
}

/* Begins to connect. The callbacks, all of which must be set, are called by the loop. `timeout_ns` is the most
 * that connecting may take, with all hosts of the list; 0: as long as the system takes. Returns 0 or an
 * error. */
static inline int libpq_adapter_connect(struct libpq_adapter *adapter, omni_loop *loop, const char *where,
                                        int64_t timeout_ns)
{
    adapter->base = (struct adapter){.loop = loop, .on_event = libpq_adapter_event};
    adapter->fd = -1;
    adapter->connection = PQconnectStart(where);
    if (adapter->connection == NULL)
        return -ENOMEM;
    if (PQstatus(adapter->connection) == CONNECTION_BAD)
        return -EINVAL;
    libpq_adapter_watch(adapter, PQsocket(adapter->connection), OMNI_WRITE);
    if (timeout_ns > 0)
        adapter_set_timer(&adapter->base, timeout_ns);
    return adapter->base.error;
}

/* Ends the connection, also before it is there. May be called in its callbacks. */
static inline void libpq_adapter_finish(struct libpq_adapter *adapter)
{
    libpq_adapter_watch(adapter, -1, 0);
    adapter_set_timer(&adapter->base, -1);
    PQfinish(adapter->connection);
    adapter->connection = NULL;
}

#endif
