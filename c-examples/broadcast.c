/*
 * broadcast.c: a chat: every line goes to all clients. What chat.c does
 * by itself, a server's omni_server_broadcast does here.
 *
 * It works under the models whose clients live in one process: reactor, cores and thread. Under
 * fork and prefork they live in several, which don't reach each other's clients: there the
 * library says so, and the program ends with what it said.
 *
 * Build:  cc -std=c11 -O2 -o broadcast broadcast.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./broadcast [--model reactor|cores|thread] [--engine select|poll|epoll|io_uring]
 *                     [--address 127.0.0.1:7000]
 */
#define _GNU_SOURCE /* getopt_long */
#include <getopt.h>
#include <omnipoll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_LINE = 1024 };

struct client {
    size_t length;
    char line[LONGEST_LINE]; /* as much of it as has come */
};

static omni_server *server;

static int on_open(omni_conn *conn, void *context)
{
    struct client *client = calloc(1, sizeof *client);
    (void)context;
    omni_conn_set_context(conn, client);
    return client ? 0 : -1;
}

static void on_data(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    struct client *client = omni_conn_context(conn);
    (void)context;
    for (size_t i = 0; i < length; i++) {
        client->line[client->length++] = (char)data[i];
        if (data[i] == '\n' || client->length == LONGEST_LINE) {
            /* A client that doesn't read has no room for it and misses it. */
            omni_server_broadcast(server, client->line, client->length);
            client->length = 0;
        }
    }
}

static void on_stop(omni_conn *conn, void *context)
{
    (void)context;
    omni_conn_close(conn);
}

static void on_close(omni_conn *conn, int error, void *context)
{
    (void)error;
    (void)context;
    free(omni_conn_context(conn));
}

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "broadcast: %s\n", omni_last_error());
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
        {"model", 1, NULL, 'm'}, {"engine", 1, NULL, 'e'}, {"address", 1, NULL, 'a'}, {0}};
    omni_handler handler = {.size = sizeof handler,
                            .on_open = on_open,
                            .on_data = on_data,
                            .on_stop = on_stop,
                            .on_close = on_close};
    omni_server_options options = {.size = sizeof options, .flags = OMNI_SERVER_SIGNALS};
    const char *address = "127.0.0.1:0"; /* the system chooses a port */
    char listening[256];
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'm': options.model = (uint32_t)check(omni_model_by_name(optarg)); break;
        case 'e': options.engine = engine_named(optarg); break;
        case 'a': address = optarg; break;
        default: return EXIT_FAILURE;
        }
    check(omni_server_new(&options, &handler, &server));
    check(omni_server_broadcast(server, "", 0)); /* to no client yet: does the model have it? */
    check(omni_server_listen(server, address));
    check(omni_server_address(server, listening, sizeof listening));
    printf("listening on %s\n", listening);
    fflush(stdout);
    check(omni_server_run(server));
    omni_server_free(server);
    return EXIT_SUCCESS;
}
