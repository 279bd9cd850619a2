/*
 * rooms.c: a chat with rooms and heartbeats, on an event loop. What a client says goes to all in its room;
 * "/join ROOM" changes the room. Try it with several `nc 127.0.0.1 7000`.
 *
 * Shows:
 *  - groups: a connection joins and leaves them, and one broadcast reaches all members, of whom one that
 *    does not read holds up nobody;
 *  - frames: `on_data` gets one line in each call;
 *  - a timer for each connection: a client that was silent for so long is asked whether it is there, and
 *    ended when it does not answer in time;
 *  - signals as events of the loop, and a stop that lets every client end.
 *
 * Build:  cc -std=c11 -O2 -o rooms rooms.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./rooms [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000] [--heartbeat SECONDS]
 */
#define _POSIX_C_SOURCE 200809L
#include <getopt.h>
#include <omnipoll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_SIZE = 1000, NAME_SIZE = 64, ROOM_SIZE = 256 };

static const int64_t SECOND = 1000000000;

struct client {
    char name[NAME_SIZE]; /* its address */
    char room[ROOM_SIZE];
    int is_asked;         /* whether it is there */
};

static omni_loop *loop;
static int64_t heartbeat_ns;

static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "rooms: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* Has all in the client's room read a line. One that has too much unread already does not get it. */
static void tell_room(const struct client *client, const char *words, const char *rest, size_t length)
{
    char line[NAME_SIZE + LINE_SIZE + 16];
    int size = snprintf(line, sizeof line, "%s%s%.*s\n", client->name, words, (int)length, rest);
    check(omni_loop_broadcast_group(loop, client->room, line, (size_t)size, NULL));
}

/* The client is in this room from now on. 0, or an error: it is in none. */
static int enter(omni_conn *conn, struct client *client, const char *room, size_t length)
{
    snprintf(client->room, sizeof client->room, "%.*s", (int)length, room);
    int error = omni_conn_join(conn, client->room);
    if (error == 0)
        tell_room(client, " has come", "", 0);
    return error;
}

static int on_open(omni_conn *conn, void *context)
{
    (void)context;
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return -1;
    int error = omni_conn_peer(conn, client->name, sizeof client->name);
    if (error >= 0)
        error = omni_conn_set_frame_until(conn, "\n", 1, LINE_SIZE);
    if (error >= 0)
        error = omni_conn_set_timer(conn, heartbeat_ns);
    if (error >= 0)
        error = enter(conn, client, "lobby", 5);
    if (error >= 0)
        error = omni_conn_set_context(conn, client);
    if (error < 0)
        free(client); /* on_close is not called for one that is refused */
    return error;
}

static void move_to(omni_conn *conn, struct client *client, const char *room, size_t length)
{
    omni_conn_leave(conn, client->room);
    tell_room(client, " has left", "", 0);
    if (enter(conn, client, room, length) < 0)
        omni_conn_abort(conn);
}

static void on_data(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    static const char join[] = "/join ";
    const size_t command = sizeof join - 1;
    const char *line = (const char *)data;
    struct client *client = omni_conn_context(conn);

    (void)context;
    client->is_asked = 0;
    omni_conn_set_timer(conn, heartbeat_ns);
    while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
        length--;
    if (length > command && length - command < ROOM_SIZE && memcmp(line, join, command) == 0)
        move_to(conn, client, line + command, length - command);
    else
        tell_room(client, ": ", line, length);
}

/* It has been silent for so long. */
static void on_timer(omni_conn *conn, void *context)
{
    struct client *client = omni_conn_context(conn);

    (void)context;
    if (client->is_asked) {
        omni_conn_write(conn, "goodbye\n", 8);
        omni_conn_close(conn);
    } else {
        client->is_asked = 1;
        omni_conn_write(conn, "are you there?\n", 15);
        omni_conn_set_timer(conn, heartbeat_ns);
    }
}

static void on_stop(omni_conn *conn, void *context)
{
    (void)context;
    omni_conn_close(conn);
}

static void on_close(omni_conn *conn, int error, void *context)
{
    struct client *client = omni_conn_context(conn);

    (void)error;
    (void)context;
    tell_room(client, " has left", "", 0);
    free(client);
}

/* SIGINT or SIGTERM. */
static void on_event(omni_loop *event_loop, const omni_event *event, void *context)
{
    (void)event;
    (void)context;
    check(omni_loop_stop(event_loop, SECOND));
}

/* A number that is no engine if there is none of that name, which omni_loop_new refuses. */
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
        {"engine", 1, NULL, 'e'}, {"address", 1, NULL, 'a'}, {"heartbeat", 1, NULL, 'h'}, {0}};
    omni_handler handler = {.size = sizeof handler,
                            .on_open = on_open,
                            .on_data = on_data,
                            .on_timer = on_timer,
                            .on_stop = on_stop,
                            .on_close = on_close,
                            .on_event = on_event};
    omni_loop_options options = {.size = sizeof options};
    const char *address = "127.0.0.1:0"; /* the system chooses a port */
    char listening[256];

    heartbeat_ns = 60 * SECOND;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'e': options.engine = engine_named(optarg); break;
        case 'a': address = optarg; break;
        case 'h': heartbeat_ns = (int64_t)(atof(optarg) * (double)SECOND); break;
        default: return EXIT_FAILURE;
        }
    check(omni_loop_new(&options, &handler, &loop));
    check(omni_poller_signal_add(omni_loop_poller(loop), SIGINT, SIGINT));
    check(omni_poller_signal_add(omni_loop_poller(loop), SIGTERM, SIGTERM));
    check(omni_loop_listen(loop, address, NULL, 0));
    check(omni_loop_address(loop, listening, sizeof listening));
    printf("listening on %s\n", listening);
    fflush(stdout);
    check(omni_loop_run(loop));
    omni_loop_free(loop);
    return EXIT_SUCCESS;
}
