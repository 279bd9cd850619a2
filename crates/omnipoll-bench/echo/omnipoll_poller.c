/* The echo server of raw_epoll.c on omnipoll's poller: omnipoll_poller ENGINE. */
#include "echo.h"
#include "omnipoll_named.h"

static omni_poller *poller;

static void serve_client(struct client *client) {
    enum wish before = client->kept != NULL ? WRITE : READ, wish = serve(client);
    if (wish == CLOSE) {
        omni_poller_remove(poller, client->fd);
        close_client(client);
    } else if (wish != before) {
        uint32_t interest = wish == WRITE ? OMNI_WRITE : OMNI_READ;
        ours(omni_poller_modify(poller, client->fd, interest, (uintptr_t)client), "omni_poller_modify");
    }
}

int main(int argc, char **argv) {
    static omni_event events[BATCH];
    ours(omni_poller_new(engine_named(argc > 1 ? argv[1] : "auto"), 0, &poller), "omni_poller_new");
    int listener = listen_on_loopback();
    ours(omni_poller_add(poller, listener, OMNI_READ, 0), "omni_poller_add");
    for (;;) {
        int count = omni_poller_wait(poller, events, BATCH, -1);
        ours(count, "omni_poller_wait");
        for (int i = 0; i < count; i++) {
            struct client *client = (struct client *)(uintptr_t)events[i].token;
            if (client != NULL)
                serve_client(client);
            else
                while ((client = accept_client(listener)) != NULL)
                    ours(omni_poller_add(poller, client->fd, OMNI_READ, (uintptr_t)client), "omni_poller_add");
        }
    }
}
