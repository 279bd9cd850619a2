/* The proxy on io_uring, with liburing: everything but socket(2) and shutdown(2) is a request. Each side
 * receives by one request that lasts (multishot), into buffers of the ring; they are sent one after another to
 * the other side. The request is cancelled while many wait for a slow side. */
#include "proxy.h"
#include <liburing.h>

enum { REQUESTS = 1024, COMPLETIONS = 32768, BUFFERS = 256, GROUP = 0, MANY = 16, NONE = -1 };
enum operation { IGNORED, ACCEPT, CONNECT, RECEIVE, SEND };

struct side {
    struct side *other;
    struct side *next;       /* of those for whose receive there was no buffer */
    int fd, first, last, count; /* buffers that it received and the other side did not get yet */
    unsigned char connecting, receiving, sending, ended, starved;
};

struct pair {
    struct side client, backend;
    int broken;
};

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static char *memory;
static int following[BUFFERS], length_of[BUFFERS];
static struct side *starved;
static struct sockaddr_in backend;

/* What comes back with its completion: the operation is in the low bits. */
static uint64_t key(struct side *side, enum operation operation) {
    return (uintptr_t)side | operation;
}

static struct io_uring_sqe *request(void) {
    struct io_uring_sqe *own = io_uring_get_sqe(&ring);
    if (own == NULL) {
        must(io_uring_submit(&ring) >= 0, "io_uring_enter");
        own = io_uring_get_sqe(&ring);
    }
    return own;
}

/* One whose own completion is of no interest. */
static void ignore(struct io_uring_sqe *own) {
    own->flags |= IOSQE_CQE_SKIP_SUCCESS;
    own->user_data = key(NULL, IGNORED);
}

static void receive(struct side *side) {
    struct io_uring_sqe *own = request();
    io_uring_prep_recv_multishot(own, side->fd, NULL, 0, 0);
    own->flags |= IOSQE_BUFFER_SELECT;
    own->buf_group = GROUP;
    own->user_data = key(side, RECEIVE);
    side->receiving = 1;
}

static void send_first(struct side *side) {
    struct io_uring_sqe *own = request();
    io_uring_prep_send(own, side->other->fd, memory + (size_t)side->first * BUFFER,
                       (size_t)length_of[side->first], MSG_NOSIGNAL | MSG_WAITALL);
    own->user_data = key(side, SEND);
    side->sending = 1;
}

static void cancel(struct side *side, enum operation operation) {
    struct io_uring_sqe *own = request();
    io_uring_prep_cancel64(own, key(side, operation), 0);
    ignore(own);
}

static void give_back(int buffer) {
    io_uring_buf_ring_add(buffers, memory + (size_t)buffer * BUFFER, BUFFER, (unsigned short)buffer,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(buffers, 1);
    if (starved != NULL) {
        struct side *side = starved;
        starved = side->next;
        side->starved = 0;
        receive(side);
    }
}

static void append(struct side *side, int buffer, int length) {
    length_of[buffer] = length;
    following[buffer] = NONE;
    if (side->count++ == 0)
        side->first = buffer;
    else
        following[side->last] = buffer;
    side->last = buffer;
}

static void drop_first(struct side *side) {
    int buffer = side->first;
    side->first = following[buffer];
    side->count--;
    give_back(buffer);
}

static struct pair *pair_of(struct side *side) {
    return (struct pair *)(side < side->other ? side : side->other);
}

static void accept_pairs(int listener) {
    struct io_uring_sqe *own = request();
    io_uring_prep_multishot_accept(own, listener, NULL, NULL, SOCK_CLOEXEC);
    own->user_data = key(NULL, ACCEPT);
}

static void on_accept(int fd) {
    must(fd >= 0, "accept");
    struct pair *pair = calloc(1, sizeof *pair);
    must(pair != NULL, "calloc");
    pair->client = (struct side){.fd = fd, .other = &pair->backend};
    pair->backend = (struct side){.fd = backend_socket(), .other = &pair->client, .connecting = 1};
    struct io_uring_sqe *own = request();
    io_uring_prep_connect(own, pair->backend.fd, (struct sockaddr *)&backend, sizeof backend);
    own->user_data = key(&pair->backend, CONNECT);
}

static int on_connect(struct side *side, int result) {
    side->connecting = 0;
    if (result < 0)
        return 0;
    receive(side->other);
    receive(side);
    return 1;
}

/* An end is passed on behind all that came before. */
static int pass_end_on(struct side *side) {
    return !side->ended || side->count > 0 || shutdown(side->other->fd, SHUT_WR) == 0;
}

static int on_receive(struct side *side, struct io_uring_cqe *completion) {
    int result = completion->res;
    side->receiving = (completion->flags & IORING_CQE_F_MORE) != 0;
    if (completion->flags & IORING_CQE_F_BUFFER)
        append(side, (int)(completion->flags >> IORING_CQE_BUFFER_SHIFT), result);
    if (result > 0) {
        if (!side->sending)
            send_first(side);
        if (side->receiving && side->count == MANY)
            cancel(side, RECEIVE);
        else if (!side->receiving && side->count < MANY)
            receive(side);
    } else if (result == 0) {
        side->ended = 1;
        return pass_end_on(side);
    } else if (result == -ENOBUFS) {
        side->next = starved;
        starved = side;
        side->starved = 1;
    } else if (result == -ECANCELED && side->count < MANY) {
        receive(side);
    }
    return result > 0 || result == -ENOBUFS || result == -ECANCELED;
}

static int on_send(struct side *side, int result) {
    int well = result == length_of[side->first];
    side->sending = 0;
    drop_first(side);
    if (side->count > 0)
        send_first(side);
    if (side->count < MANY / 2 && !side->receiving && !side->ended && !side->starved)
        receive(side);
    return well && pass_end_on(side);
}

static void stop(struct side *side) {
    for (struct side **place = &starved; side->starved && *place != NULL; place = &(*place)->next)
        if (*place == side) {
            *place = side->next;
            break;
        }
    if (side->receiving)
        cancel(side, RECEIVE);
    if (side->sending)
        cancel(side, SEND);
}

static int is_idle(struct side *side) {
    return !side->connecting && !side->receiving && !side->sending;
}

static void close_side(struct side *side) {
    while (side->count > 0)
        drop_first(side);
    struct io_uring_sqe *own = request();
    io_uring_prep_close(own, side->fd);
    ignore(own);
}

static void close_if_idle(struct pair *pair) {
    if (!is_idle(&pair->client) || !is_idle(&pair->backend))
        return;
    close_side(&pair->client);
    close_side(&pair->backend);
    free(pair);
}

/* A completion for a side that is to be closed. */
static void note_end(struct side *side, enum operation operation, struct io_uring_cqe *completion) {
    if (operation == RECEIVE)
        side->receiving = (completion->flags & IORING_CQE_F_MORE) != 0;
    else if (operation == SEND)
        side->sending = 0;
    else
        side->connecting = 0;
    if (completion->flags & IORING_CQE_F_BUFFER)
        append(side, (int)(completion->flags >> IORING_CQE_BUFFER_SHIFT), 0);
}

static int go_on(struct side *side, enum operation operation, struct io_uring_cqe *completion) {
    if (operation == CONNECT)
        return on_connect(side, completion->res);
    return operation == SEND ? on_send(side, completion->res) : on_receive(side, completion);
}

static void handle(struct io_uring_cqe *completion) {
    enum operation operation = completion->user_data & 7;
    struct side *side = (struct side *)(uintptr_t)(completion->user_data & ~(uint64_t)7);
    if (operation == ACCEPT)
        on_accept(completion->res);
    if (side == NULL)
        return;
    struct pair *pair = pair_of(side);
    if (pair->broken) {
        note_end(side, operation, completion);
    } else if (!go_on(side, operation, completion)) {
        pair->broken = 1;
        stop(&pair->client);
        stop(&pair->backend);
    }
    if (pair->broken || (side->ended && side->other->ended && side->count == 0 && side->other->count == 0))
        close_if_idle(pair);
}

static void open_ring(void) {
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };
    must(io_uring_queue_init_params(REQUESTS, &ring, &params) == 0, "io_uring_setup");
    must(posix_memalign((void **)&buffers, 4096, BUFFERS * sizeof(struct io_uring_buf)) == 0, "memory");
    must(posix_memalign((void **)&memory, 4096, (size_t)BUFFERS * BUFFER) == 0, "memory");
    struct io_uring_buf_reg group = {
        .ring_addr = (uintptr_t)buffers, .ring_entries = BUFFERS, .bgid = GROUP};
    must(io_uring_register_buf_ring(&ring, &group, 0) == 0, "io_uring_register");
    io_uring_buf_ring_init(buffers);
    for (int buffer = 0; buffer < BUFFERS; buffer++)
        give_back(buffer);
}

int main(int argc, char **argv) {
    backend = backend_of(argc, argv);
    open_ring();
    accept_pairs(listen_on_loopback());
    for (;;) {
        must(io_uring_submit_and_wait(&ring, 1) >= 0, "io_uring_enter");
        struct io_uring_cqe *completion;
        unsigned head, count = 0;
        io_uring_for_each_cqe(&ring, head, completion) {
            count++;
            handle(completion);
        }
        io_uring_cq_advance(&ring, count);
    }
}
