/* Bytes go from one socket to another through a buffer that all share; what is left over is copied. */
#ifndef COPY_H
#define COPY_H

#include "proxy.h"

struct rest {
    char *data; /* data[begin..end); NULL while there is nothing */
    size_t begin, end;
};

static int has_rest(const struct rest *rest) {
    return rest->data != NULL;
}

static void drop_rest(struct rest *rest) {
    free(rest->data);
    rest->data = NULL;
}

/* Sends what was left over: whether the socket is well. */
static int drain(int to, struct rest *rest) {
    ssize_t sent = send(to, rest->data + rest->begin, rest->end - rest->begin, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    rest->begin += (size_t)sent;
    if (rest->begin == rest->end)
        drop_rest(rest);
    return 1;
}

/* Receives once and sends it: what recv returned, or -1 when either failed. */
static ssize_t fill(int from, int to, struct rest *rest) {
    static char buffer[BUFFER];
    ssize_t length = recv(from, buffer, sizeof buffer, 0);
    if (length <= 0)
        return length;
    ssize_t sent = send(to, buffer, (size_t)length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return -1;
    size_t done = sent < 0 ? 0 : (size_t)sent, left = (size_t)length - done;
    if (left > 0) {
        *rest = (struct rest){.data = malloc(left), .end = left};
        must(rest->data != NULL, "malloc");
        memcpy(rest->data, buffer + done, left);
    }
    return length;
}

#endif
