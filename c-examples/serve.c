/*
 * serve.c: the echo server of echo.c through the serving API. The library accepts, reads, queues
 * what a client does not take, stops reading from one that does not read, and ends on SIGINT and
 * SIGTERM; what is left to say is what to do with the bytes, and in which way to serve.
 *
 * Build:  cc -std=c11 -O2 -o serve serve.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./serve [--model reactor|cores|thread|fork|prefork] [--engine select|poll|epoll]
 *                 [--address 127.0.0.1:7000] [--max-clients 1000]
 */
#define _GNU_SOURCE /* getopt_long */
#include <getopt.h>
#include <omnipoll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "serve: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

/* A number that is no engine if there is none of that name, which omni_server_new refuses. */
static uint32_t engine_named(const char *name)
{
    uint32_t engine = OMNI_ENGINE_AUTO;
    while (omni_engine_name(engine) && strcmp(omni_engine_name(engine), name) != 0)
        engine++;
    return engine;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"model", 1, NULL, 'm'}, {"engine", 1, NULL, 'e'}, {"address", 1, NULL, 'a'},
        {"max-clients", 1, NULL, 'c'}, {0}};
    omni_handler handler = {.size = sizeof handler, .on_data = on_data, .on_stop = on_stop};
    omni_server_options options = {.size = sizeof options, .flags = OMNI_SERVER_SIGNALS};
    const char *address = "127.0.0.1:0"; /* the system chooses a port */
    omni_server *server;
    char listening[256];
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'm': options.model = (uint32_t)check(omni_model_by_name(optarg)); break;
        case 'e': options.engine = engine_named(optarg); break;
        case 'a': address = optarg; break;
        case 'c': options.max_clients = (uint32_t)strtoul(optarg, NULL, 10); break;
        default: return EXIT_FAILURE;
        }
    check(omni_server_new(&options, &handler, &server));
    check(omni_server_listen(server, address));
    check(omni_server_address(server, listening, sizeof listening));
    printf("listening on %s\n", listening);
    fflush(stdout); /* before a model forks: a child would have the line, too */
    check(omni_server_run(server));
    omni_server_free(server);
    return EXIT_SUCCESS;
}
