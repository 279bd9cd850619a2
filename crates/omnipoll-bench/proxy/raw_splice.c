/* The proxy on epoll whose bytes stay in the kernel: splice(2) into a pipe, and out of it. A pipe is taken
 * for as long as there are bytes in it, so that connections on which nothing happens have none. */
#include "proxy.h"

enum { AT_ONCE = 1 << 20, SPLICE = SPLICE_F_MOVE | SPLICE_F_NONBLOCK };

struct rest {
    struct channel *channel; /* NULL while there is nothing */
};

struct channel {
    int read, write;
    size_t length;
    struct channel *next;
};

static struct channel *unused;

static struct channel *take_channel(void) {
    struct channel *channel = unused;
    if (channel != NULL) {
        unused = channel->next;
        return channel;
    }
    int ends[2];
    channel = malloc(sizeof *channel);
    must(channel != NULL && pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0, "pipe2");
    *channel = (struct channel){.read = ends[0], .write = ends[1]};
    return channel;
}

static void put_back(struct channel *channel) {
    channel->next = unused;
    unused = channel;
}

static int has_rest(const struct rest *rest) {
    return rest->channel != NULL;
}

/* With bytes in it a pipe is of no use to others. */
static void drop_rest(struct rest *rest) {
    if (rest->channel == NULL)
        return;
    close(rest->channel->read);
    close(rest->channel->write);
    free(rest->channel);
    rest->channel = NULL;
}

/* Sends what is in the pipe: whether the socket is well. */
static int drain(int to, struct rest *rest) {
    ssize_t sent = splice(rest->channel->read, NULL, to, NULL, rest->channel->length, SPLICE);
    if (sent < 0)
        return errno == EAGAIN;
    rest->channel->length -= (size_t)sent;
    if (rest->channel->length == 0) {
        put_back(rest->channel);
        rest->channel = NULL;
    }
    return 1;
}

/* Fills a pipe once and sends it: what the first splice returned, or -1 when either failed. */
static ssize_t fill(int from, int to, struct rest *rest) {
    struct channel *channel = take_channel();
    ssize_t length = splice(from, NULL, channel->write, NULL, AT_ONCE, SPLICE);
    if (length <= 0) {
        put_back(channel);
        return length;
    }
    channel->length = (size_t)length;
    rest->channel = channel;
    return drain(to, rest) ? length : -1;
}

#include "epoll_interest.h"
#include "pair.h"
#include "on_epoll.h"

int main(int argc, char **argv) {
    run(argc, argv);
}
