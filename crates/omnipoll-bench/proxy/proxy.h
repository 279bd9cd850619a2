/* What the proxies in C have in common: where they listen, and the backend that each connection is
 * passed on to, which is the last argument, ADDRESS:PORT. How bytes are passed on is what is compared. */
#ifndef PROXY_H
#define PROXY_H

#include "../echo/echo.h"

static inline struct sockaddr_in backend_of(int argc, char **argv) {
    struct sockaddr_in name = {.sin_family = AF_INET};
    char *port = argc > 1 ? strrchr(argv[argc - 1], ':') : NULL;
    must(port != NULL, "usage: ... ADDRESS:PORT");
    *port++ = '\0';
    must(inet_pton(AF_INET, argv[argc - 1], &name.sin_addr) == 1, "inet_pton");
    name.sin_port = htons((uint16_t)atoi(port));
    return name;
}

/* A non-blocking socket, which sends without delay as accepted ones do. */
static inline int backend_socket(void) {
    const int yes = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(fd >= 0, "socket");
    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "TCP_NODELAY");
    return fd;
}

#endif
