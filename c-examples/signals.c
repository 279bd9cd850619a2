/*
 * signals.c: a small server that ends gracefully, and reloads its settings, on a signal.
 *
 * A client sends a line and gets it back, after some work, with the number of the settings
 * before it. Shows:
 *  - SIGTERM and SIGINT: the server stops accepting, closes the connections on which nothing
 *    has been asked, answers what has, and then ends. It gives itself a second for that; when
 *    that is over, or the signal comes again, it ends at once, with status 1;
 *  - SIGHUP: it "reloads", without losing a client;
 *  - a signal is an event, handled in the loop like any other: no handler, no volatile
 *    variables, and everything may be called;
 *  - descriptors, timers (each client's work is one here) and signals in one wait. A client is
 *    OMNI_ONESHOT: while it is worked for, it is not listened to.
 *
 * Build:  cc -std=c11 -O2 -o signals signals.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./signals [--engine select|poll|epoll|io_uring] [--work MILLISECONDS]
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <omnipoll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, LINE_SIZE = 256 };
enum { LISTENER = 0, DEADLINE = 0, SIGNAL = 0 }; /* tokens; a client's is its address */

static const int64_t FOREVER = -1;
static const int64_t MS = 1000 * 1000;
static const int64_t DRAIN_NS = 1000 * 1000 * 1000;
static const uint32_t LISTEN_TO_CLIENT = OMNI_READ | OMNI_ONESHOT;

struct client {
    int fd;
    uint64_t work;              /* the timer of the work for it; 0: none is done */
    size_t length;              /* of what has come */
    char line[LINE_SIZE];
    struct client *previous, *next;
};

static omni_poller *poller;
static int listener;
static struct client *clients;
static int64_t work_ns = 50 * 1000 * 1000;
static unsigned settings;       /* how often they were reloaded */
static bool draining;

/* For the functions of omnipoll, whose messages name the function. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "signals: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* For the functions of the system. */
static void check_system(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "signals: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: signals [--engine select|poll|epoll|io_uring] [--work MILLISECONDS]\n");
    exit(EXIT_FAILURE);
}

static uint32_t engine_named(const char *name)
{
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++)
        if (strcmp(name, omni_engine_name(engine)) == 0)
            return engine;
    usage();
    return OMNI_ENGINE_AUTO;
}

static int open_listener(void)
{
    struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof name;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    check_system(fd, "socket");
    check_system(bind(fd, (struct sockaddr *)&name, length), "bind");
    check_system(listen(fd, SOMAXCONN), "listen");
    check_system(getsockname(fd, (struct sockaddr *)&name, &length), "getsockname");
    printf("listening on 127.0.0.1:%u\n", (unsigned)ntohs(name.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_client(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct client *client;

    if (fd < 0)
        return; /* what to do when descriptors run out, echo.c shows */
    client = calloc(1, sizeof *client);
    if (client == NULL || omni_poller_add(poller, fd, LISTEN_TO_CLIENT, (uintptr_t)client) < 0) {
        free(client);
        close(fd);
        return;
    }
    client->fd = fd;
    client->next = clients;
    if (clients != NULL)
        clients->previous = client;
    clients = client;
}

static void close_client(struct client *client)
{
    if (client->previous != NULL)
        client->previous->next = client->next;
    else
        clients = client->next;
    if (client->next != NULL)
        client->next->previous = client->previous;
    if (client->work != 0)
        check(omni_poller_timer_cancel(poller, client->work));
    check(omni_poller_remove(poller, client->fd));
    close(client->fd);
    free(client);
}

/* Begins the work for a line if there is one; if not, listens on, unless we are draining. */
static void work_or_listen(struct client *client)
{
    if (memchr(client->line, '\n', client->length) != NULL) {
        check(omni_poller_timer_add(poller, work_ns, 0, (uintptr_t)client, &client->work));
    } else if (draining || client->length == LINE_SIZE) {
        close_client(client);
    } else {
        check(omni_poller_modify(poller, client->fd, LISTEN_TO_CLIENT, (uintptr_t)client));
    }
}

static void read_client(struct client *client)
{
    ssize_t count = read(client->fd, client->line + client->length, LINE_SIZE - client->length);

    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        close_client(client);
        return;
    }
    if (count > 0)
        client->length += (size_t)count;
    work_or_listen(client);
}

/* Ends the work: sends the answer. */
static void answer_client(struct client *client)
{
    char answer[LINE_SIZE + 16];
    size_t line = (size_t)((char *)memchr(client->line, '\n', client->length) + 1 - client->line);
    int length = snprintf(answer, sizeof answer, "%u %.*s", settings, (int)line, client->line);

    client->work = 0;
    client->length -= line;
    memmove(client->line, client->line + line, client->length);
    /* A socket that does not take these few bytes is full of answers that are not read. */
    if (send(client->fd, answer, (size_t)length, MSG_NOSIGNAL) == length)
        read_client(client); /* it may have asked more meanwhile */
    else
        close_client(client);
}

/* Accepts no more clients, and closes those that have asked nothing. */
static void begin_to_drain(void)
{
    struct client *next;

    draining = true;
    check(omni_poller_remove(poller, listener));
    close(listener);
    check(omni_poller_timer_add(poller, DRAIN_NS, 0, DEADLINE, NULL));
    for (struct client *client = clients; client != NULL; client = next) {
        next = client->next;
        if (client->work == 0)
            read_client(client); /* what has come before the signal is answered */
    }
}

/* Serves until it has ended gracefully: true; or was stopped, or is out of time: false. */
static bool serve(void)
{
    while (!draining || clients != NULL) {
        omni_event events[BATCH];
        bool stop = false;
        int count = omni_poller_wait(poller, events, BATCH, FOREVER);
        check(count);
        for (int i = 0; i < count; i++) {
            uint64_t token = events[i].token;
            struct client *client = (struct client *)(uintptr_t)token;
            switch (events[i].kind) {
            case OMNI_EVENT_SIGNAL:
                if (events[i].value != SIGHUP)
                    stop = true;
                else
                    fprintf(stderr, "signals: settings %u\n", ++settings);
                break;
            case OMNI_EVENT_TIMER:
                if (token == DEADLINE)
                    return false;
                answer_client(client);
                break;
            case OMNI_EVENT_IO:
                if (token == LISTENER)
                    accept_client();
                else
                    read_client(client);
            }
        }
        /* Not sooner: events of clients that this closes may be in the batch. */
        if (stop && draining)
            return false;
        if (stop)
            begin_to_drain();
    }
    return true;
}

int main(int argc, char **argv)
{
    uint32_t engine = OMNI_ENGINE_AUTO;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--work") == 0)
            work_ns = atoi(argv[i + 1]) * MS;
        else if (i + 1 < argc && strcmp(argv[i], "--engine") == 0)
            engine = engine_named(argv[i + 1]);
        else
            usage();
    }
    check(omni_poller_new(engine, 0, &poller));
    check(omni_poller_signal_add(poller, SIGTERM, SIGNAL));
    check(omni_poller_signal_add(poller, SIGINT, SIGNAL));
    check(omni_poller_signal_add(poller, SIGHUP, SIGNAL));
    listener = open_listener();
    check(omni_poller_add(poller, listener, OMNI_READ, LISTENER));

    bool graceful = serve();

    int dropped = 0;
    for (; clients != NULL; dropped++)
        close_client(clients);
    omni_poller_free(poller);
    if (!graceful)
        fprintf(stderr, "signals: ended with %d clients unanswered\n", dropped);
    return graceful ? EXIT_SUCCESS : EXIT_FAILURE;
}
