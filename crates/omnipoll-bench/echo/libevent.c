/* The echo server on libevent: a bufferevent for each client. What was read is moved to its
 * output without a copy. */
#include "echo.h"
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

static void on_data(struct bufferevent *client, void *context) {
    (void)context;
    bufferevent_write_buffer(client, bufferevent_get_input(client));
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
    /* By default it reads and writes 16 KiB at a time. */
    bufferevent_set_max_single_read(client, BUFFER);
    bufferevent_set_max_single_write(client, BUFFER);
    bufferevent_setcb(client, on_data, NULL, on_end, NULL);
    bufferevent_enable(client, EV_READ | EV_WRITE);
}

int main(void) {
    int fd = listen_on_loopback();
    struct event_base *base = event_base_new();
    must(base != NULL, "event_base_new");
    must(evconnlistener_new(base, on_client, NULL, LEV_OPT_CLOSE_ON_FREE, 0, fd) != NULL, "evconnlistener_new");
    event_base_dispatch(base);
}
