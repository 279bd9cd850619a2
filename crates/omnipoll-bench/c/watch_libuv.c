/* A loop on libuv's uv_poll_t. */
#include "watcher.h"
#include <uv.h>

static uv_loop_t loop;
static uv_poll_t *handles;

static void on_ready(uv_poll_t *handle, int status, int ready) {
    (void)status, (void)ready;
    visit(descriptors[handle - handles]);
}

static void open_loop(uint32_t engine) {
    (void)engine;
    must(uv_loop_init(&loop) == 0, "uv_loop_init");
    handles = calloc((size_t)watched, sizeof *handles);
}

static void close_loop(void) {
    must(uv_loop_close(&loop) == 0, "uv_loop_close");
    free(handles);
}

static void add(int index) {
    must(uv_poll_init(&loop, &handles[index], descriptors[index]) == 0, "uv_poll_init");
    must(uv_poll_start(&handles[index], UV_READABLE, on_ready) == 0, "uv_poll_start");
}

static void change(int index, enum interest interest) {
    int events = interest == READABLE ? UV_READABLE : UV_WRITABLE;
    must(uv_poll_start(&handles[index], events, on_ready) == 0, "uv_poll_start");
}

static void forget(int index) {
    uv_close((uv_handle_t *)&handles[index], NULL);
}

static void wait_once(int for_ever) {
    uv_run(&loop, for_ever ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

const struct watcher libuv = {"libuv", 0, open_loop, close_loop, add, change, forget, wait_once};
