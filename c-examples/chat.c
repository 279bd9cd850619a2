/*
 * chat.c: what one client writes, all the others get, line by line. Try it with several
 * `nc 127.0.0.1 7000`.
 *
 * Shows:
 *  - one event that leads to writing on many descriptors: each client has a queue of fixed
 *    size, and OMNI_WRITE is asked for only while there is something in it;
 *  - that a slow client cannot hold up the others: when its queue overflows, it is dropped,
 *    and the server says so;
 *  - removal in the middle of a batch: the events still to come in the batch may be those of
 *    a client that was just dropped. So a client is only marked as gone, and is closed and
 *    freed when the batch has been handled.
 *
 * Build:  cc -std=c11 -O2 -o chat chat.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./chat [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000]
 */
#define _GNU_SOURCE /* accept4, memrchr */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <omnipoll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINE_SIZE = 4096, QUEUE_SIZE = 256 * 1024, BATCH = 64 };

static const int64_t FOREVER = -1;
static const int64_t RETRY_NS = 100 * 1000 * 1000;

struct client {
    int fd;
    unsigned number;                /* how messages name it */
    uint32_t interest;              /* what its registration asks for */
    bool gone;                      /* to be closed after this batch */
    size_t typed;                   /* line[0..typed) is read and has no newline yet */
    size_t begin, end;              /* queue[begin..end) waits to be written */
    struct client *next;
    char line[LINE_SIZE];
    char queue[QUEUE_SIZE];
};

static omni_poller *poller;
static int listener;                /* registered with token 0, a client with its address */
static bool paused;                 /* not accepting: out of descriptors or memory */
static struct client *clients;

static void stop(int signo)
{
    (void)signo;
    omni_poller_wake(poller); /* may be called from a signal handler, and is never lost */
}

/* For the functions of omnipoll, whose messages name the function. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "chat: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* For the functions of the system. */
static void check_system(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "chat: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: chat [--engine select|poll|epoll|io_uring] [--address IPV4:PORT]\n");
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

/* Opens a listening socket on "127.0.0.1:7000"; port 0 lets the system choose one. */
static int listen_on(const char *address)
{
    struct sockaddr_in name = { .sin_family = AF_INET };
    socklen_t length = sizeof name;
    char host[INET_ADDRSTRLEN];
    unsigned port;
    const int yes = 1;

    if (sscanf(address, "%15[0-9.]:%5u", host, &port) != 2 || port > UINT16_MAX
        || inet_pton(AF_INET, host, &name.sin_addr) != 1)
        usage();
    name.sin_port = htons((uint16_t)port);

    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    check_system(fd, "socket");
    check_system(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), "SO_REUSEADDR");
    /* Accepted sockets inherit it. */
    check_system(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes), "TCP_NODELAY");
    check_system(bind(fd, (struct sockaddr *)&name, length), "bind");
    check_system(listen(fd, SOMAXCONN), "listen");
    check_system(getsockname(fd, (struct sockaddr *)&name, &length), "getsockname");
    printf("listening on %s:%u\n", host, (unsigned)ntohs(name.sin_port));
    fflush(stdout);
    return fd;
}

static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = stop };

    check_system(sigaction(SIGINT, &action, NULL), "sigaction");
    check_system(sigaction(SIGTERM, &action, NULL), "sigaction");
}

/* Accepts again: something may have been freed meanwhile. */
static void resume(void)
{
    if (paused) {
        check(omni_poller_add(poller, listener, OMNI_READ, 0));
        paused = false;
    }
}

static void open_client(int fd)
{
    static unsigned number;
    struct client *client = calloc(1, sizeof *client);

    if (client == NULL || omni_poller_add(poller, fd, OMNI_READ, (uintptr_t)client) < 0) {
        fprintf(stderr, "chat: client turned away: %s\n",
                client == NULL ? "out of memory" : omni_last_error());
        free(client);
        close(fd);
        return;
    }
    client->fd = fd;
    client->number = ++number;
    client->interest = OMNI_READ;
    client->next = clients;
    clients = client;
}

/* The caller has unlinked it from the list. */
static void close_client(struct client *client)
{
    check(omni_poller_remove(poller, client->fd)); /* always before close */
    close(client->fd);
    free(client);
    resume();
}

/* Accepts one client; if there are more, the next wait says so. */
static void accept_client(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        open_client(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        /* The listener stays ready: waiting on it now would spin. */
        fprintf(stderr, "chat: accept: %s\n", strerror(errno));
        check(omni_poller_remove(poller, listener));
        paused = true;
    }
    /* Any other error is that connection's own, or none is left (EAGAIN). */
}

/* Writes what the socket takes of the queue. */
static void drain(struct client *client)
{
    while (client->begin < client->end) {
        ssize_t count = send(client->fd, client->queue + client->begin,
                             client->end - client->begin, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            if (errno != EAGAIN)
                client->gone = true;
            return;
        }
        client->begin += (size_t)count;
    }
    client->begin = client->end = 0;
}

/* Puts a message into the client's queue, or drops the client if there is no room for it. */
static void enqueue(struct client *client, const char *data, size_t length)
{
    if (length > QUEUE_SIZE - client->end) {
        drain(client);
        memmove(client->queue, client->queue + client->begin, client->end - client->begin);
        client->end -= client->begin;
        client->begin = 0;
    }
    if (client->gone)
        return;
    if (length > QUEUE_SIZE - client->end) {
        fprintf(stderr, "chat: client %u dropped: it has left %zu bytes unread\n",
                client->number, client->end);
        client->gone = true;
        return;
    }
    memcpy(client->queue + client->end, data, length);
    client->end += length;
}

static void broadcast(const struct client *sender, const char *data, size_t length)
{
    for (struct client *client = clients; client != NULL; client = client->next)
        if (client != sender && !client->gone)
            enqueue(client, data, length);
}

/* Reads once and passes on the lines that are complete. */
static void read_lines(struct client *client)
{
    ssize_t count = read(client->fd, client->line + client->typed, LINE_SIZE - client->typed);

    if (count <= 0) {
        client->gone = count == 0 || (errno != EAGAIN && errno != EINTR);
        return;
    }
    client->typed += (size_t)count;

    const char *newline = memrchr(client->line, '\n', client->typed);
    size_t complete = newline == NULL ? 0 : (size_t)(newline - client->line) + 1;
    if (complete == 0 && client->typed == LINE_SIZE)
        complete = LINE_SIZE; /* a longer line is passed on in pieces */
    broadcast(client, client->line, complete);
    client->typed -= complete;
    memmove(client->line, client->line + complete, client->typed);
}

/* Writes the queues, closes the clients that are gone, and watches for room where it is needed. */
static void finish_batch(void)
{
    struct client **link = &clients;

    while (*link != NULL) {
        struct client *client = *link;
        if (!client->gone)
            drain(client);
        if (client->gone) {
            *link = client->next;
            close_client(client);
            continue;
        }
        uint32_t interest = client->begin < client->end ? OMNI_READ | OMNI_WRITE : OMNI_READ;
        if (interest != client->interest) {
            check(omni_poller_modify(poller, client->fd, interest, (uintptr_t)client));
            client->interest = interest;
        }
        link = &client->next;
    }
}

static void serve(void)
{
    omni_event events[BATCH];

    for (;;) {
        int count = omni_poller_wait(poller, events, BATCH, paused ? RETRY_NS : FOREVER);
        check(count);
        if (count == 0)
            resume();
        for (int i = 0; i < count; i++) {
            struct client *client = (struct client *)(uintptr_t)events[i].token;
            if (events[i].kind == OMNI_EVENT_WAKE)
                return;
            if (client == NULL)
                accept_client();
            else if ((events[i].ready & OMNI_READ) && !client->gone)
                read_lines(client);
        }
        finish_batch();
    }
}

int main(int argc, char **argv)
{
    const char *address = "127.0.0.1:0";
    uint32_t engine = OMNI_ENGINE_AUTO;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--address") == 0)
            address = argv[i + 1];
        else if (i + 1 < argc && strcmp(argv[i], "--engine") == 0)
            engine = engine_named(argv[i + 1]);
        else
            usage();
    }
    check(omni_poller_new(engine, 0, &poller));
    catch_signals();
    listener = listen_on(address);
    check(omni_poller_add(poller, listener, OMNI_READ, 0));

    serve();

    while (clients != NULL) {
        struct client *client = clients;
        clients = client->next;
        close_client(client);
    }
    close(listener);
    omni_poller_free(poller);
    return EXIT_SUCCESS;
}
