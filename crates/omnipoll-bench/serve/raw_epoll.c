/* A server on epoll, level-triggered, with no library: raw_epoll http|redis. */
#include "../echo/echo.h"
#include "protocol.h"
#include <sys/epoll.h>

struct visitor {
    struct client *client;
    struct session session;
};

static int set;
static protocol *answer;

static void control(int operation, int fd, enum wish wish, struct visitor *visitor) {
    struct epoll_event event = {.events = wish == WRITE ? EPOLLOUT : EPOLLIN, .data.ptr = visitor};
    must(epoll_ctl(set, operation, fd, &event) == 0, "epoll_ctl");
}

static enum wish read_and_answer(struct visitor *visitor) {
    static char buffer[BUFFER];
    static struct output output;
    struct client *client = visitor->client;
    ssize_t length = recv(client->fd, buffer, sizeof buffer, 0);
    if (length <= 0)
        return length < 0 && errno == EAGAIN ? READ : CLOSE;
    output.length = 0;
    feed(&visitor->session, answer, buffer, (size_t)length, &output);
    ssize_t sent = output.length > 0 ? send(client->fd, output.bytes, output.length, MSG_NOSIGNAL) : 0;
    if (sent < 0 && errno != EAGAIN)
        return CLOSE;
    size_t done = sent < 0 ? 0 : (size_t)sent;
    return done == output.length ? READ : keep(client, output.bytes + done, output.length - done);
}

static void serve_visitor(struct visitor *visitor) {
    struct client *client = visitor->client;
    enum wish before = client->kept != NULL ? WRITE : READ;
    enum wish wish = before == WRITE ? write_kept(client) : read_and_answer(visitor);
    if (wish == CLOSE) {
        close_client(client);
        end_session(&visitor->session);
        free(visitor);
    } else if (wish != before)
        control(EPOLL_CTL_MOD, client->fd, wish, visitor);
}

static void accept_visitors(int listener) {
    struct client *client;
    while ((client = accept_client(listener)) != NULL) {
        struct visitor *visitor = calloc(1, sizeof *visitor);
        must(visitor != NULL, "calloc");
        visitor->client = client;
        control(EPOLL_CTL_ADD, client->fd, READ, visitor);
    }
}

int main(int argc, char **argv) {
    static struct epoll_event events[BATCH];
    answer = protocol_named(argc > 1 ? argv[1] : NULL);
    int listener = listen_on_loopback();
    set = epoll_create1(EPOLL_CLOEXEC);
    control(EPOLL_CTL_ADD, listener, READ, NULL);
    for (;;) {
        int count = epoll_wait(set, events, BATCH, -1);
        for (int i = 0; i < count; i++)
            if (events[i].data.ptr != NULL)
                serve_visitor(events[i].data.ptr);
            else
                accept_visitors(listener);
    }
}
