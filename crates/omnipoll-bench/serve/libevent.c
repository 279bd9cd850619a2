/* A server on libevent's bufferevents: libevent http|redis. */
#include "../echo/echo.h"
#include "protocol.h"
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

static protocol *answer;

static void on_data(struct bufferevent *client, void *context) {
    static struct output output;
    struct evbuffer *input = bufferevent_get_input(client);
    const char *data = (const char *)evbuffer_pullup(input, -1);
    (void)context;
    output.length = 0;
    evbuffer_drain(input, answer(data, evbuffer_get_length(input), &output));
    if (output.length > 0)
        bufferevent_write(client, output.bytes, output.length);
}

static void on_end(struct bufferevent *client, short what, void *context) {
    (void)what, (void)context;
    bufferevent_free(client);
}

static void on_client(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer, int length,
                      void *context) {
    struct event_base *base = evconnlistener_get_base(listener);
    struct bufferevent *client = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    (void)peer, (void)length, (void)context;
    must(client != NULL, "bufferevent_socket_new");
    bufferevent_setcb(client, on_data, NULL, on_end, NULL);
    bufferevent_enable(client, EV_READ | EV_WRITE);
}

int main(int argc, char **argv) {
    answer = protocol_named(argc > 1 ? argv[1] : NULL);
    int fd = listen_on_loopback();
    struct event_base *base = event_base_new();
    must(base != NULL, "event_base_new");
    must(evconnlistener_new(base, on_client, NULL, LEV_OPT_CLOSE_ON_FREE, 0, fd) != NULL, "evconnlistener_new");
    event_base_dispatch(base);
}
