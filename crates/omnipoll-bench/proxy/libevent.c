/* The proxy on libevent: two bufferevents for each client. What one read is moved to the other's output
 * without a copy; while that holds much, nothing more is read. */
#include "proxy.h"
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

enum { MUCH = 256 * 1024 };

struct side {
    struct bufferevent *stream;
    struct side *other;
    int ended;
};

struct pair {
    struct side client, backend;
};

static struct sockaddr_in backend;

static void close_pair(struct side *side) {
    struct pair *pair = (struct pair *)(side < side->other ? side : side->other);
    bufferevent_free(pair->client.stream);
    bufferevent_free(pair->backend.stream);
    free(pair);
}

static size_t unsent(struct side *side) {
    return evbuffer_get_length(bufferevent_get_output(side->stream));
}

/* Behind all that came before; two ends are the end of both. */
static void pass_end_on(struct side *side) {
    if (unsent(side->other) > 0)
        return;
    if (side->other->ended && unsent(side) == 0)
        close_pair(side);
    else
        shutdown(bufferevent_getfd(side->other->stream), SHUT_WR);
}

static void on_data(struct bufferevent *stream, void *context) {
    struct side *side = context;
    bufferevent_write_buffer(side->other->stream, bufferevent_get_input(stream));
    if (unsent(side->other) > MUCH)
        bufferevent_disable(stream, EV_READ);
}

/* The output is empty. */
static void on_written(struct bufferevent *stream, void *context) {
    struct side *side = context;
    (void)stream;
    if (!side->other->ended)
        bufferevent_enable(side->other->stream, EV_READ);
    else
        pass_end_on(side->other);
}

static void on_event(struct bufferevent *stream, short what, void *context) {
    struct side *side = context;
    (void)stream;
    if (what & BEV_EVENT_CONNECTED) {
        bufferevent_enable(side->other->stream, EV_READ);
        return;
    }
    side->ended = 1;
    if (what & BEV_EVENT_EOF)
        pass_end_on(side);
    else
        close_pair(side);
}

static struct bufferevent *open_stream(struct event_base *base, int fd, struct side *side) {
    struct bufferevent *stream = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    must(stream != NULL, "bufferevent_socket_new");
    /* By default it reads and writes 16 KiB at a time. */
    bufferevent_set_max_single_read(stream, BUFFER);
    bufferevent_set_max_single_write(stream, BUFFER);
    bufferevent_setcb(stream, on_data, on_written, on_event, side);
    return stream;
}

static void on_client(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer, int length,
                      void *context) {
    struct event_base *base = evconnlistener_get_base(listener);
    struct pair *pair = calloc(1, sizeof *pair);
    (void)peer, (void)length, (void)context;
    must(pair != NULL, "calloc");
    pair->client = (struct side){open_stream(base, fd, &pair->client), &pair->backend, 0};
    pair->backend = (struct side){open_stream(base, backend_socket(), &pair->backend), &pair->client, 0};
    bufferevent_enable(pair->backend.stream, EV_READ);
    if (bufferevent_socket_connect(pair->backend.stream, (struct sockaddr *)&backend, sizeof backend) != 0)
        close_pair(&pair->client);
}

int main(int argc, char **argv) {
    backend = backend_of(argc, argv);
    int fd = listen_on_loopback();
    struct event_base *base = event_base_new();
    must(base != NULL, "event_base_new");
    must(evconnlistener_new(base, on_client, NULL, LEV_OPT_CLOSE_ON_FREE, 0, fd) != NULL, "evconnlistener_new");
    event_base_dispatch(base);
}
