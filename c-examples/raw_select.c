/*
 * raw_select.c: the echo server of echo.c, written straight on select(2) with no library.
 *
 * What it has to do by itself, and what omnipoll does for a program:
 *  - An fd_set holds descriptors below FD_SETSIZE (1024) only, and FD_SET beyond it writes
 *    outside the set. Nothing checks that; this program does, and turns such clients away.
 *    On the library's select engine a descriptor may be as large as the system allows.
 *  - select overwrites the sets it is given, so each call gets fresh copies.
 *  - It looks at every descriptor up to the highest after each wait, and keeps count of
 *    which one that is.
 *  - A signal that arrives just before the wait must not be lost: SIGINT and SIGTERM stay
 *    blocked except inside pselect. With omnipoll the handler calls omni_poller_wake.
 *
 * Build:  cc -std=c11 -O2 -o raw_select raw_select.c
 * Run:    ./raw_select [--engine select] [--address 127.0.0.1:7000]
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
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_SIZE = 65536 };

static const struct timespec RETRY = { .tv_nsec = 100 * 1000 * 1000 };

struct client {
    bool ended;                     /* it will send no more */
    size_t begin, end;              /* queue[begin..end) is read and not yet written back */
    char queue[QUEUE_SIZE];
};

static struct client *clients[FD_SETSIZE];
static fd_set reading, writing;     /* what select is asked for; it gets copies */
static int highest;                 /* the highest descriptor in use */
static bool paused;                 /* not accepting: out of descriptors or memory */
static volatile sig_atomic_t stopping;

static void stop(int signo)
{
    (void)signo;
    stopping = 1;
}

static void check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "raw_select: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: raw_select [--engine select] [--address IPV4:PORT]\n");
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

static void open_client(int fd)
{
    struct client *client = NULL;

    if (fd >= FD_SETSIZE) {
        fprintf(stderr, "raw_select: client turned away: descriptor %d does not fit a set of %d\n",
                fd, FD_SETSIZE);
    } else if ((client = calloc(1, sizeof *client)) == NULL) {
        fprintf(stderr, "raw_select: client turned away: out of memory\n");
    }
    if (client == NULL) {
        close(fd);
        return;
    }
    clients[fd] = client;
    FD_SET(fd, &reading);
    if (fd > highest)
        highest = fd;
}

static void close_client(int fd)
{
    FD_CLR(fd, &reading);
    FD_CLR(fd, &writing);
    close(fd);
    free(clients[fd]);
    clients[fd] = NULL;
    paused = false;
}

/* Accepts one client; if there are more, the next wait says so. */
static void accept_client(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        open_client(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        /* The listener stays ready: waiting on it now would spin. */
        fprintf(stderr, "raw_select: accept: %s\n", strerror(errno));
        paused = true;
    }
    /* Any other error is that connection's own, or none is left (EAGAIN). */
}

/* Reads what there is room for. False when the connection is broken. */
static bool fill(int fd, struct client *client)
{
    ssize_t count = read(fd, client->queue + client->end, QUEUE_SIZE - client->end);

    if (count < 0)
        return errno == EAGAIN || errno == EINTR;
    client->end += (size_t)count;
    client->ended = count == 0;
    return true;
}

/* Writes what the socket takes. False when the connection is broken or all is done. */
static bool drain(int fd, struct client *client)
{
    while (client->begin < client->end) {
        ssize_t count = send(fd, client->queue + client->begin,
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

static void serve_client(int fd, bool readable)
{
    struct client *client = clients[fd];

    if ((readable && !fill(fd, client)) || !drain(fd, client)) {
        close_client(fd);
        return;
    }
    if (client->end < QUEUE_SIZE && !client->ended)
        FD_SET(fd, &reading);
    else
        FD_CLR(fd, &reading);
    if (client->begin < client->end)
        FD_SET(fd, &writing);
    else
        FD_CLR(fd, &writing);
}

static void serve(int listener, const sigset_t *mask)
{
    while (!stopping) {
        fd_set readable = reading, writable = writing;
        if (paused)
            FD_CLR(listener, &readable);
        int ready = pselect(highest + 1, &readable, &writable, NULL, paused ? &RETRY : NULL, mask);
        if (ready < 0 && errno == EINTR)
            continue;
        check(ready, "pselect");
        for (int fd = 0; fd <= highest; fd++)
            if (clients[fd] != NULL && (FD_ISSET(fd, &readable) || FD_ISSET(fd, &writable)))
                serve_client(fd, FD_ISSET(fd, &readable));
        while (clients[highest] == NULL && highest > listener)
            highest--;
        if (ready == 0)
            paused = false;
        if (FD_ISSET(listener, &readable))
            accept_client(listener);
    }
}

int main(int argc, char **argv)
{
    const char *address = "127.0.0.1:0";

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--address") == 0)
            address = argv[i + 1];
        else if (i + 1 == argc || strcmp(argv[i], "--engine") != 0
                 || strcmp(argv[i + 1], "select") != 0)
            usage();
    }
    sigset_t mask = catch_signals();
    int listener = listen_on(address);
    if (listener >= FD_SETSIZE) {
        fprintf(stderr, "raw_select: descriptor %d does not fit a set\n", listener);
        return EXIT_FAILURE;
    }
    FD_ZERO(&reading);
    FD_ZERO(&writing);
    FD_SET(listener, &reading);
    highest = listener;

    serve(listener, &mask);

    for (int fd = 0; fd <= highest; fd++)
        if (clients[fd] != NULL)
            close_client(fd);
    close(listener);
    return EXIT_SUCCESS;
}
