/*
 * echo_loop.h: an echo server on an event loop with a handler, for the programs that have another library's
 * loop run it: that one waits for the loop's descriptor, and calls echo_loop_step whenever it is readable.
 * SIGINT and SIGTERM stop it, as events of its poller.
 */
#ifndef ECHO_LOOP_H
#define ECHO_LOOP_H

#include <getopt.h>
#include <omnipoll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "%s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

static void on_data(omni_conn *client, const uint8_t *data, size_t length, void *context)
{
    (void)context;
    if (omni_conn_write(client, data, length) < 0)
        omni_conn_abort(client); /* not a byte is left out in silence */
}

static void on_stop(omni_conn *client, void *context)
{
    (void)context;
    omni_conn_close(client); /* once it has been sent what waits for it */
}

static void on_event(omni_loop *loop, const omni_event *event, void *context)
{
    (void)context;
    if (event->kind == OMNI_EVENT_SIGNAL)
        check(omni_loop_stop(loop, 10000000000)); /* ns */
}

static omni_loop *echo_loop_new(int argc, char **argv)
{
    static const struct option names[] = {{"engine", 1, NULL, 'e'}, {"address", 1, NULL, 'a'}, {0}};
    static const omni_handler handler = {
        .size = sizeof handler, .on_data = on_data, .on_stop = on_stop, .on_event = on_event};
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
    check(omni_loop_new(&options, &handler, &loop));
    check(omni_loop_listen(loop, address, NULL, 0));
    check(omni_loop_descriptor(loop)); /* select and poll have none */
    check(omni_loop_address(loop, listening, sizeof listening));
    check(omni_poller_signal_add(omni_loop_poller(loop), SIGINT, 0));
    check(omni_poller_signal_add(omni_loop_poller(loop), SIGTERM, 0));
    printf("listening on %s\n", listening);
    fflush(stdout);
    return loop;
}

/* Serves what has come: 0 when the loop was stopped and all clients have gone. */
static int echo_loop_step(omni_loop *loop)
{
    return check(omni_loop_run_once(loop, 0));
}

#endif
