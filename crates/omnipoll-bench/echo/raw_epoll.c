/* The echo server on epoll, level-triggered, with no library. */
#include "echo.h"
#include <sys/epoll.h>

static int set;

static void control(int operation, int fd, enum wish wish, struct client *client) {
    struct epoll_event event = {.events = wish == WRITE ? EPOLLOUT : EPOLLIN, .data.ptr = client};
    must(epoll_ctl(set, operation, fd, &event) == 0, "epoll_ctl");
}

static void serve_client(struct client *client) {
    enum wish before = client->kept != NULL ? WRITE : READ, wish = serve(client);
    if (wish == CLOSE)
        close_client(client);
    else if (wish != before)
        control(EPOLL_CTL_MOD, client->fd, wish, client);
}

int main(void) {
    static struct epoll_event events[BATCH];
    int listener = listen_on_loopback();
    set = epoll_create1(EPOLL_CLOEXEC);
    control(EPOLL_CTL_ADD, listener, READ, NULL);
    for (;;) {
        int count = epoll_wait(set, events, BATCH, -1);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (client != NULL)
                serve_client(client);
            else
                while ((client = accept_client(listener)) != NULL)
                    control(EPOLL_CTL_ADD, client->fd, READ, client);
        }
    }
}
