/*
 * echo.c: one server, many clients, one thread. What a client sends comes back to it.
 *
 * Shows:
 *  - one program on any engine, chosen on the command line;
 *  - partial reads and writes: what the socket does not take now waits in a queue of fixed
 *    size, and a client whose queue is full is not read from until it has been emptied, so
 *    a client that never reads costs no more than its queue;
 *  - a clean end on SIGINT and SIGTERM: the handler calls omni_poller_wake, the wait returns it.
 * raw_select.c, raw_poll.c and raw_epoll.c are the same server without the library.
 *
 * Build:  cc -std=c11 -O2 -o echo echo.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./echo [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000]
 */
#define _GNU_SOURCE /* accept4 */
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

enum { QUEUE_SIZE = 65536, BATCH = 64 };

static const int64_t FOREVER = -1;
static const int64_t RETRY_NS = 100 * 1000 * 1000;

struct client {
    int fd;
    uint32_t interest;              /* what its registration asks for */
    bool ended;                     /* it will send no more */
    size_t begin, end;              /* queue[begin..end) is read and not yet written back */
    struct client *previous, *next;
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
        fprintf(stderr, "echo: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* For the functions of the system. */
static void check_system(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "echo: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: echo [--engine select|poll|epoll|io_uring] [--address IPV4:PORT]\n");
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
    struct client *client = calloc(1, sizeof *client);

    if (client == NULL || omni_poller_add(poller, fd, OMNI_READ, (uintptr_t)client) < 0) {
        fprintf(stderr, "echo: client turned away: %s\n",
                client == NULL ? "out of memory" : omni_last_error());
        free(client);
        close(fd);
        return;
    }
    client->fd = fd;
    client->interest = OMNI_READ;
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
        fprintf(stderr, "echo: accept: %s\n", strerror(errno));
        check(omni_poller_remove(poller, listener));
        paused = true;
    }
    /* Any other error is that connection's own, or none is left (EAGAIN). */
}

/* Reads what there is room for. False when the connection is broken. */
static bool fill(struct client *client)
{
    ssize_t count = read(client->fd, client->queue + client->end, QUEUE_SIZE - client->end);

    if (count < 0)
        return errno == EAGAIN || errno == EINTR;
    client->end += (size_t)count;
    client->ended = count == 0;
    return true;
}

/* Writes what the socket takes. False when the connection is broken or all is done. */
static bool drain(struct client *client)
{
    while (client->begin < client->end) {
        ssize_t count = send(client->fd, client->queue + client->begin,
                             client->end - client->begin, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno == EAGAIN;
        client->begin += (size_t)count;
    }
    client->begin = client->end = 0;
    return !client->ended;
}

static void serve_client(struct client *client, uint32_t ready)
{
    /* OMNI_READ comes only when it was asked for, which means: when there is room. */
    if (((ready & OMNI_READ) && !fill(client)) || !drain(client)) {
        close_client(client);
        return;
    }
    uint32_t interest = 0;
    if (client->end < QUEUE_SIZE && !client->ended)
        interest |= OMNI_READ;
    if (client->begin < client->end)
        interest |= OMNI_WRITE;
    if (interest != client->interest) {
        check(omni_poller_modify(poller, client->fd, interest, (uintptr_t)client));
        client->interest = interest;
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
            if (events[i].kind == OMNI_EVENT_WAKE)
                return;
            if (events[i].token == 0)
                accept_client();
            else
                serve_client((struct client *)(uintptr_t)events[i].token, events[i].ready);
        }
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

    while (clients != NULL)
        close_client(clients);
    close(listener);
    omni_poller_free(poller);
    return EXIT_SUCCESS;
}
