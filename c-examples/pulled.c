/*
 * pulled.c: the echo server on an event loop that is pulled: omni_loop_wait returns what has happened, and
 * nothing is called. The library accepts, reads, queues what a client does not take and stops reading from
 * one that does not read; a signal is an event like any other. The same form in languages whose callbacks
 * are expensive: ffi/pulled.*.
 *
 * Build:  cc -std=c11 -O2 -o pulled pulled.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./pulled [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000]
 */
#define _GNU_SOURCE /* getopt_long */
#include <getopt.h>
#include <omnipoll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 64, FOREVER = -1 };

static const int64_t TIME_TO_STOP = 10000000000; /* ns */

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "pulled: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

static void handle(omni_loop *loop, const omni_loop_event *event, const uint8_t *buffer)
{
    /* What most events are about: the number is the handle. */
    omni_conn *client = (omni_conn *)(uintptr_t)event->value;

    switch (event->kind) {
    case OMNI_EVENT_DATA:
        if (omni_conn_write(client, buffer + event->offset, event->length) < 0)
            omni_conn_abort(client); /* not a byte is left out in silence */
        break;
    case OMNI_EVENT_ENDED:
    case OMNI_EVENT_STOPPING:
        omni_conn_close(client); /* once it has been sent what waits for it */
        break;
    case OMNI_EVENT_SIGNAL:
        check(omni_loop_stop(loop, TIME_TO_STOP));
        break;
    }
}

static omni_loop *parse(int argc, char **argv)
{
    static const struct option names[] = {{"engine", 1, NULL, 'e'}, {"address", 1, NULL, 'a'}, {0}};
    omni_loop_options options = {.size = sizeof options};
    const char *address = "127.0.0.1:0"; /* the system chooses a port */
    omni_loop *loop;
    char listening[256];
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'e': options.engine = (uint32_t)check(omni_engine_by_name(optarg)); break;
        case 'a': address = optarg; break;
        default: exit(EXIT_FAILURE);
        }
    check(omni_loop_new(&options, NULL, &loop));
    check(omni_loop_listen(loop, address, NULL, 0));
    check(omni_loop_address(loop, listening, sizeof listening));
    printf("listening on %s\n", listening);
    fflush(stdout);
    return loop;
}

int main(int argc, char **argv)
{
    omni_loop *loop = parse(argc, argv);
    omni_loop_event events[BATCH];
    const uint8_t *buffer;
    int count;
    check(omni_poller_signal_add(omni_loop_poller(loop), SIGINT, 0));
    check(omni_poller_signal_add(omni_loop_poller(loop), SIGTERM, 0));
    check(omni_loop_buffer(loop, &buffer, NULL));
    /* 0: it was stopped, and all clients have gone. */
    while ((count = check(omni_loop_wait(loop, events, BATCH, FOREVER))) > 0)
        for (int i = 0; i < count; i++)
            handle(loop, &events[i], buffer);
    omni_loop_free(loop);
    return EXIT_SUCCESS;
}
