/*
 * in_libuv.c: the echo server of echo_loop.h in a loop of libuv, as Node.js has one.
 *
 * Build:  cc -std=c11 -O2 -o in_libuv in_libuv.c $(pkg-config --cflags --libs omnipoll libuv)
 * Run:    ./in_libuv [--engine epoll|io_uring] [--address 127.0.0.1:7000]
 */
#define _GNU_SOURCE /* getopt_long */
#include "echo_loop.h"
#include <uv.h>

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    if (!echo_loop_step(poll->data))
        uv_close((uv_handle_t *)poll, NULL); /* nothing is left that uv_run waits for */
}

int main(int argc, char **argv)
{
    omni_loop *loop = echo_loop_new(argc, argv);
    uv_poll_t poll = {.data = loop};
    uv_poll_init(uv_default_loop(), &poll, check(omni_loop_descriptor(loop)));
    uv_poll_start(&poll, UV_READABLE, on_readable);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    uv_loop_close(uv_default_loop());
    omni_loop_free(loop);
    return EXIT_SUCCESS;
}
