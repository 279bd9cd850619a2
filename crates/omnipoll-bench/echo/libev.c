/* The echo server on libev: a watcher for each client. */
#include "echo.h"
#include <ev.h>

struct watched {
    ev_io watcher; /* first, so that its address is both's */
    struct client *client;
};

static void on_ready(struct ev_loop *loop, ev_io *watcher, int ready) {
    struct watched *watched = (struct watched *)watcher;
    enum wish before = watched->client->kept != NULL ? WRITE : READ, wish = serve(watched->client);
    (void)ready;
    if (wish == before)
        return;
    ev_io_stop(loop, watcher);
    if (wish == CLOSE) {
        close_client(watched->client);
        free(watched);
    } else {
        ev_io_set(watcher, watched->client->fd, wish == READ ? EV_READ : EV_WRITE);
        ev_io_start(loop, watcher);
    }
}

static void on_knock(struct ev_loop *loop, ev_io *watcher, int ready) {
    struct client *client;
    (void)ready;
    while ((client = accept_client(watcher->fd)) != NULL) {
        struct watched *watched = malloc(sizeof *watched);
        must(watched != NULL, "malloc");
        watched->client = client;
        ev_io_init(&watched->watcher, on_ready, client->fd, EV_READ);
        ev_io_start(loop, &watched->watcher);
    }
}

int main(void) {
    struct ev_loop *loop = ev_default_loop(EVBACKEND_EPOLL);
    ev_io listener;
    must(loop != NULL, "ev_default_loop");
    ev_io_init(&listener, on_knock, listen_on_loopback(), EV_READ);
    ev_io_start(loop, &listener);
    ev_run(loop, 0);
}
