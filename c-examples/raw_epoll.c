/*
 * raw_epoll.c: the echo server of echo.c, written straight on epoll(7) with no library.
 *
 * What it has to do by itself, and what omnipoll does for a program:
 *  - It runs on Linux only. echo.c runs on whatever engine the machine has.
 *  - A signal that arrives just before the wait must not be lost: SIGINT and SIGTERM stay
 *    blocked except inside epoll_pwait. With omnipoll the handler calls omni_poller_wake.
 *  - EPOLLHUP and EPOLLERR arrive without EPOLLIN and unasked for, so they have to be read
 *    as "try to read and see". omnipoll reports OMNI_READ there on every engine.
 *  - Timeouts are whole milliseconds, and a descriptor closed while a duplicate of it is
 *    open is still reported. Neither matters here; omnipoll handles both.
 *
 * Build:  cc -std=c11 -O2 -o raw_epoll raw_epoll.c
 * Run:    ./raw_epoll [--engine epoll] [--address 127.0.0.1:7000]
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_SIZE = 65536, BATCH = 64, RETRY_MS = 100 };

struct client {
    int fd;
    uint32_t interest;              /* what its registration asks for */
    bool ended;                     /* it will send no more */
    size_t begin, end;              /* queue[begin..end) is read and not yet written back */
    struct client *previous, *next;
    char queue[QUEUE_SIZE];
};

static int epoll_fd;
static int listener;
static bool paused;                 /* not accepting: out of descriptors or memory */
static struct client *clients;
static volatile sig_atomic_t stopping;

static void stop(int signo)
{
    (void)signo;
    stopping = 1;
}

static void check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "raw_epoll: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: raw_epoll [--engine epoll] [--address IPV4:PORT]\n");
    exit(EXIT_FAILURE);
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
    check(fd, "socket");
    check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), "SO_REUSEADDR");
    /* Accepted sockets inherit it. */
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes), "TCP_NODELAY");
    check(bind(fd, (struct sockaddr *)&name, length), "bind");
    check(listen(fd, SOMAXCONN), "listen");
    check(getsockname(fd, (struct sockaddr *)&name, &length), "getsockname");
    printf("listening on %s:%u\n", host, (unsigned)ntohs(name.sin_port));
    fflush(stdout);
    return fd;
}

/* Blocks the signals that end the server and returns the mask to wait under. */
static sigset_t catch_signals(void)
{
    struct sigaction action = { .sa_handler = stop };
    sigset_t blocked, original;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    check(sigprocmask(SIG_BLOCK, &blocked, &original), "sigprocmask");
    check(sigaction(SIGINT, &action, NULL), "sigaction");
    check(sigaction(SIGTERM, &action, NULL), "sigaction");
    return original;
}

static int control(int operation, int fd, uint32_t interest, void *pointer)
{
    struct epoll_event event = { .events = interest, .data.ptr = pointer };
    return epoll_ctl(epoll_fd, operation, fd, &event);
}

/* Accepts again: something may have been freed meanwhile. */
static void resume(void)
{
    if (paused) {
        check(control(EPOLL_CTL_MOD, listener, EPOLLIN, NULL), "epoll_ctl");
        paused = false;
    }
}

static void open_client(int fd)
{
    struct client *client = calloc(1, sizeof *client);

    if (client == NULL || control(EPOLL_CTL_ADD, fd, EPOLLIN, client) < 0) {
        fprintf(stderr, "raw_epoll: client turned away: %s\n", strerror(errno));
        free(client);
        close(fd);
        return;
    }
    client->fd = fd;
    client->interest = EPOLLIN;
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
    close(client->fd); /* it has no duplicate, so this ends its registration too */
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
        fprintf(stderr, "raw_epoll: accept: %s\n", strerror(errno));
        check(control(EPOLL_CTL_MOD, listener, 0, NULL), "epoll_ctl");
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
    /* With a full queue, or at the end of input, input was not watched. */
    bool readable = (client->interest & EPOLLIN) && (ready & (EPOLLIN | EPOLLHUP | EPOLLERR));

    if ((readable && !fill(client)) || !drain(client)) {
        close_client(client);
        return;
    }
    uint32_t interest = 0;
    if (client->end < QUEUE_SIZE && !client->ended)
        interest |= EPOLLIN;
    if (client->begin < client->end)
        interest |= EPOLLOUT;
    if (interest != client->interest) {
        check(control(EPOLL_CTL_MOD, client->fd, interest, client), "epoll_ctl");
        client->interest = interest;
    }
}

static void serve(const sigset_t *mask)
{
    struct epoll_event events[BATCH];

    while (!stopping) {
        int count = epoll_pwait(epoll_fd, events, BATCH, paused ? RETRY_MS : -1, mask);
        if (count < 0 && errno == EINTR)
            continue;
        check(count, "epoll_pwait");
        if (count == 0)
            resume();
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                accept_client();
            else
                serve_client(events[i].data.ptr, events[i].events);
        }
    }
}

int main(int argc, char **argv)
{
    const char *address = "127.0.0.1:0";

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--address") == 0)
            address = argv[i + 1];
        else if (i + 1 == argc || strcmp(argv[i], "--engine") != 0
                 || strcmp(argv[i + 1], "epoll") != 0)
            usage();
    }
    sigset_t mask = catch_signals();
    listener = listen_on(address);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    check(epoll_fd, "epoll_create1");
    check(control(EPOLL_CTL_ADD, listener, EPOLLIN, NULL), "epoll_ctl");

    serve(&mask);

    while (clients != NULL)
        close_client(clients);
    close(epoll_fd);
    close(listener);
    return EXIT_SUCCESS;
}
