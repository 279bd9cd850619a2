/*
 * in_glib.c: the echo server of echo_loop.h in GLib's main loop, as a program of GTK or GStreamer has one.
 *
 * Build:  cc -std=c11 -O2 -o in_glib in_glib.c $(pkg-config --cflags --libs omnipoll glib-2.0)
 * Run:    ./in_glib [--engine epoll|io_uring] [--address 127.0.0.1:7000]
 */
#define _GNU_SOURCE /* getopt_long */
#include "echo_loop.h"
#include <glib-unix.h>

static GMainLoop *main_loop;

static gboolean on_readable(gint fd, GIOCondition condition, gpointer loop)
{
    (void)fd, (void)condition;
    if (echo_loop_step(loop))
        return G_SOURCE_CONTINUE;
    g_main_loop_quit(main_loop);
    return G_SOURCE_REMOVE;
}

int main(int argc, char **argv)
{
    omni_loop *loop = echo_loop_new(argc, argv);
    main_loop = g_main_loop_new(NULL, FALSE);
    g_unix_fd_add(check(omni_loop_descriptor(loop)), G_IO_IN, on_readable, loop);
    g_main_loop_run(main_loop);
    g_main_loop_unref(main_loop);
    omni_loop_free(loop);
    return EXIT_SUCCESS;
}
