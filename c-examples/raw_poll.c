/*
 * raw_poll.c: the echo server of echo.c, written straight on poll(2) with no library.
 *
 * What it has to do by itself, and what omnipoll does for a program:
 *  - It keeps the array poll reads and a second one beside it with the clients, in the same
 *    order, closing the gap when a client leaves.
 *  - It looks through the whole array after each wait, however few are ready. So does the
 *    library on its poll engine; but there the same program can run on epoll.
 *  - A signal that arrives just before the wait must not be lost: SIGINT and SIGTERM stay
 *    blocked except inside ppoll. With omnipoll the handler calls omni_poller_wake.
 *  - POLLHUP and POLLERR arrive without POLLIN and unasked for, so they have to be read as
 *    "try to read and see". omnipoll reports OMNI_READ there on every engine.
 *
 * Build:  cc -std=c11 -O2 -o raw_poll raw_poll.c
 * Run:    ./raw_poll [--engine poll] [--address 127.0.0.1:7000]
 */
#define _GNU_SOURCE /* accept4, ppoll */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_SIZE = 65536 };

static const struct timespec RETRY = { .tv_nsec = 100 * 1000 * 1000 };

struct client {
    bool ended;                     /* it will send no more */
    size_t begin, end;              /* queue[begin..end) is read and not yet written back */
    char queue[QUEUE_SIZE];
};

static struct pollfd *watched;      /* the listener first; watched[i] belongs to clients[i] */
static struct client **clients;
static size_t count, capacity;
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
        fprintf(stderr, "raw_poll: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: raw_poll [--engine poll] [--address IPV4:PORT]\n");
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

/* Makes room for one more entry in both arrays. */
static bool reserve(void)
{
    if (count < capacity)
        return true;
    size_t wanted = capacity == 0 ? 64 : 2 * capacity;
    struct pollfd *more_watched = realloc(watched, wanted * sizeof *watched);
    if (more_watched == NULL)
        return false;
    watched = more_watched;
    struct client **more_clients = realloc(clients, wanted * sizeof *clients);
    if (more_clients == NULL)
        return false;
    clients = more_clients;
    capacity = wanted;
    return true;
}

static bool watch(int fd, struct client *client)
{
    if (!reserve())
        return false;
    watched[count] = (struct pollfd){ .fd = fd, .events = POLLIN };
    clients[count] = client;
    count++;
    return true;
}

static void open_client(int fd)
{
    struct client *client = calloc(1, sizeof *client);

    if (client == NULL || !watch(fd, client)) {
        fprintf(stderr, "raw_poll: client turned away: out of memory\n");
        free(client);
        close(fd);
    }
}

/* Closes client i and puts the last one in its place. */
static void close_client(size_t i)
{
    close(watched[i].fd);
    free(clients[i]);
    count--;
    watched[i] = watched[count];
    clients[i] = clients[count];
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
        fprintf(stderr, "raw_poll: accept: %s\n", strerror(errno));
        paused = true;
    }
    /* Any other error is that connection's own, or none is left (EAGAIN). */
}

/* Reads what there is room for. False when the connection is broken. */
static bool fill(int fd, struct client *client)
{
    ssize_t length = read(fd, client->queue + client->end, QUEUE_SIZE - client->end);

    if (length < 0)
        return errno == EAGAIN || errno == EINTR;
    client->end += (size_t)length;
    client->ended = length == 0;
    return true;
}

/* Writes what the socket takes. False when the connection is broken or all is done. */
static bool drain(int fd, struct client *client)
{
    while (client->begin < client->end) {
        ssize_t length = send(fd, client->queue + client->begin,
                              client->end - client->begin, MSG_NOSIGNAL);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return errno == EAGAIN;
        client->begin += (size_t)length;
    }
    client->begin = client->end = 0;
    return !client->ended;
}

static void serve_client(size_t i)
{
    struct client *client = clients[i];
    int fd = watched[i].fd;
    /* With a full queue, or at the end of input, input was not watched. */
    bool readable = (watched[i].events & POLLIN)
        && (watched[i].revents & (POLLIN | POLLHUP | POLLERR));

    if ((readable && !fill(fd, client)) || !drain(fd, client)) {
        close_client(i);
        return;
    }
    watched[i].events = 0;
    if (client->end < QUEUE_SIZE && !client->ended)
        watched[i].events |= POLLIN;
    if (client->begin < client->end)
        watched[i].events |= POLLOUT;
}

static void serve(int listener, const sigset_t *mask)
{
    while (!stopping) {
        watched[0].fd = paused ? -1 : listener; /* poll passes over negative descriptors */
        int ready = ppoll(watched, count, paused ? &RETRY : NULL, mask);
        if (ready < 0 && errno == EINTR)
            continue;
        check(ready, "ppoll");
        if (ready == 0)
            paused = false;
        /* From the end: a client that leaves is replaced by one already looked at. */
        for (size_t i = count - 1; i > 0; i--)
            if (watched[i].revents != 0)
                serve_client(i);
        if (watched[0].revents != 0)
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
                 || strcmp(argv[i + 1], "poll") != 0)
            usage();
    }
    sigset_t mask = catch_signals();
    int listener = listen_on(address);
    if (!watch(listener, NULL)) {
        fprintf(stderr, "raw_poll: out of memory\n");
        return EXIT_FAILURE;
    }

    serve(listener, &mask);

    while (count > 1)
        close_client(count - 1);
    close(listener);
    free(watched);
    free(clients);
    return EXIT_SUCCESS;
}
