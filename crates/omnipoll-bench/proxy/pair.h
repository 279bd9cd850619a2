/* A proxy for a kernel that reports which descriptor is ready: pairs of a client and its backend. Each side is read
 * while the other one takes what came; an end of one is passed on to the other; an error ends both.
 *
 * Before this the program includes or defines
 * - how bytes go from one side to the other, with what the other one did not take yet: struct rest, has_rest,
 *   drop_rest, drain, fill;
 * - how to wait: set_interest(fd, side, before, now) begins, changes or ends to wait for a descriptor, and
 *   forget(fd, interest) is called before one is closed. */
#ifndef PAIR_H
#define PAIR_H

#include "interest.h"
#include "proxy.h"

struct side {
    struct side *other;
    struct rest rest; /* of what the other side sent: not sent to this one yet */
    int fd;           /* -1 after the end */
    unsigned char interest, connecting, ended;
};

struct pair {
    struct side client, backend;
    struct pair *next;
};

static struct sockaddr_in backend;
static struct pair *closed; /* in this batch of events, which may still name them */

static void update(struct side *side) {
    int reads = !side->ended && !side->connecting && !side->other->connecting && !has_rest(&side->other->rest);
    int writes = side->connecting || has_rest(&side->rest);
    unsigned char now = (reads ? IN : 0) | (writes ? OUT : 0), before = side->interest;
    side->interest = now;
    if (now != before)
        set_interest(side->fd, side, before, now);
}

static void close_side(struct side *side) {
    drop_rest(&side->rest);
    forget(side->fd, side->interest);
    close(side->fd);
    side->fd = -1;
}

static void close_pair(struct side *side) {
    struct pair *pair = (struct pair *)(side < side->other ? side : side->other);
    close_side(side);
    close_side(side->other);
    pair->next = closed;
    closed = pair;
}

static void free_closed(void) {
    for (struct pair *pair; (pair = closed) != NULL; free(pair))
        closed = pair->next;
}

static int is_connected(struct side *side) {
    int error = 0;
    socklen_t length = sizeof error;
    side->connecting = 0;
    return getsockopt(side->fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
}

/* Passes on what has come to `side`: whether both sides are well. */
static int read_side(struct side *side) {
    ssize_t length = fill(side->fd, side->other->fd, &side->other->rest);
    if (length > 0 || (length < 0 && errno == EAGAIN))
        return 1;
    side->ended = 1;
    return length == 0 && shutdown(side->other->fd, SHUT_WR) == 0;
}

static void handle(struct side *side, unsigned ready) {
    if (side->fd < 0)
        return;
    int well = side->connecting ? is_connected(side) : 1;
    if (well && ready & OUT && has_rest(&side->rest))
        well = drain(side->fd, &side->rest);
    if (well && ready & side->interest & IN)
        well = read_side(side);
    if (!well || (side->ended && side->other->ended)) {
        close_pair(side);
        return;
    }
    update(side);
    update(side->other);
}

static void accept_pairs(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct pair *pair = calloc(1, sizeof *pair);
        must(pair != NULL, "calloc");
        pair->client = (struct side){.fd = fd, .other = &pair->backend};
        pair->backend = (struct side){.fd = backend_socket(), .other = &pair->client, .connecting = 1};
        int result = connect(pair->backend.fd, (struct sockaddr *)&backend, sizeof backend);
        if (result != 0 && errno != EINPROGRESS)
            close_pair(&pair->backend);
        else
            update(&pair->backend);
    }
}

#endif
