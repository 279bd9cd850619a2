/* A loop on libev's ev_io. */
#include "watcher.h"
#include <ev.h>

static struct ev_loop *loop;
static ev_io *watchers;

static void on_ready(struct ev_loop *own, ev_io *watcher, int ready) {
    (void)own, (void)ready;
    visit(watcher->fd);
}

static void open_loop(uint32_t engine) {
    (void)engine;
    must((loop = ev_loop_new(EVBACKEND_EPOLL)) != NULL, "ev_loop_new");
    watchers = calloc((size_t)watched, sizeof *watchers);
}

static void close_loop(void) {
    ev_loop_destroy(loop);
    free(watchers);
}

static void add(int index) {
    ev_io_init(&watchers[index], on_ready, descriptors[index], EV_READ);
    ev_io_start(loop, &watchers[index]);
}

static void forget(int index) {
    ev_io_stop(loop, &watchers[index]);
}

static void change(int index, enum interest interest) {
    forget(index);
    ev_io_set(&watchers[index], descriptors[index], interest == READABLE ? EV_READ : EV_WRITE);
    ev_io_start(loop, &watchers[index]);
}

static void wait_once(int for_ever) {
    ev_run(loop, for_ever ? EVRUN_ONCE : EVRUN_NOWAIT);
}

const struct watcher libev = {"libev", 0, open_loop, close_loop, add, change, forget, wait_once};
