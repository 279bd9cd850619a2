/* What the echo servers in C have in common: a listener, and what is done for a client that is
 * ready. How they wait is what is compared. */
#ifndef ECHO_H
#define ECHO_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 65536, BATCH = 1024, MAX_CLIENTS = 20000 };

struct client {
    int fd;
    size_t begin, end;
    char *kept; /* kept[begin..end) is read and not yet written; NULL while there is nothing */
};

enum wish { CLOSE, READ, WRITE };

static inline void must(int condition, const char *what) {
    if (!condition) {
        perror(what);
        exit(1);
    }
}

static inline void end(int signo) {
    (void)signo;
    _exit(0);
}

/* The kernel sends SIGIO when the other end of standard input is closed: so no server has to
 * watch it. */
static inline void end_with_stdin(void) {
    signal(SIGIO, end);
    fcntl(STDIN_FILENO, F_SETOWN, getpid());
    fcntl(STDIN_FILENO, F_SETFL, O_ASYNC);
}

static inline void raise_descriptor_limit(void) {
    struct rlimit limit;
    must(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    must(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
}

static inline void tell_port(int port) {
    printf("%d\n", port);
    fflush(stdout);
}

static inline int port_of(int listener) {
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    must(getsockname(listener, (struct sockaddr *)&name, &length) == 0, "getsockname");
    return ntohs(name.sin_port);
}

/* A non-blocking listener on a free port of the loopback device, which it prints. The process
 * ends with its standard input. */
static inline int listen_on_loopback(void) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int yes = 1;
    end_with_stdin();
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(fd >= 0, "socket");
    /* Accepted sockets inherit it. */
    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "TCP_NODELAY");
    must(bind(fd, (struct sockaddr *)&name, sizeof name) == 0, "bind");
    must(listen(fd, SOMAXCONN) == 0, "listen");
    tell_port(port_of(fd));
    return fd;
}

/* The next client, or NULL when none is waiting. */
static inline struct client *accept_client(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct client *client = calloc(1, sizeof *client);
    must(client != NULL, "calloc");
    client->fd = fd;
    return client;
}

static inline void close_client(struct client *client) {
    close(client->fd);
    free(client->kept);
    free(client);
}

static inline enum wish keep(struct client *client, const char *data, size_t length) {
    client->kept = malloc(length);
    must(client->kept != NULL, "malloc");
    memcpy(client->kept, data, length);
    client->begin = 0;
    client->end = length;
    return WRITE;
}

static inline enum wish write_kept(struct client *client) {
    ssize_t sent = send(client->fd, client->kept + client->begin, client->end - client->begin, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN ? WRITE : CLOSE;
    client->begin += (size_t)sent;
    if (client->begin < client->end)
        return WRITE;
    free(client->kept);
    client->kept = NULL;
    return READ;
}

/* Reads once and writes it straight back. What the socket does not take is kept, and nothing is
 * read until it has. Returns what to wait for now. */
static inline enum wish serve(struct client *client) {
    static char buffer[BUFFER];
    if (client->kept != NULL)
        return write_kept(client);
    ssize_t length = recv(client->fd, buffer, sizeof buffer, 0);
    if (length <= 0)
        return length < 0 && errno == EAGAIN ? READ : CLOSE;
    ssize_t sent = send(client->fd, buffer, (size_t)length, MSG_NOSIGNAL);
    if (sent == length)
        return READ;
    if (sent < 0 && errno != EAGAIN)
        return CLOSE;
    size_t done = sent < 0 ? 0 : (size_t)sent;
    return keep(client, buffer + done, (size_t)length - done);
}

#endif
