/* The echo server on poll, with no library. */
#include "echo.h"
#include <poll.h>

/* The listener comes first; entries[i] is clients[i]'s. */
static struct pollfd entries[MAX_CLIENTS];
static struct client *clients[MAX_CLIENTS];
static int watched = 1;

static void accept_clients(void) {
    struct client *client;
    while (watched < MAX_CLIENTS && (client = accept_client(entries[0].fd)) != NULL) {
        clients[watched] = client;
        entries[watched++] = (struct pollfd){.fd = client->fd, .events = POLLIN};
    }
}

/* The last one takes the place of one that is gone. */
static void forget(int place) {
    close_client(clients[place]);
    clients[place] = clients[--watched];
    entries[place] = entries[watched];
}

int main(void) {
    entries[0] = (struct pollfd){.fd = listen_on_loopback(), .events = POLLIN};
    for (;;) {
        int left = poll(entries, (nfds_t)watched, -1);
        int knocked = entries[0].revents != 0;
        left -= knocked;
        /* Downwards, so that one that takes the place of another has been looked at. */
        for (int i = watched - 1; left > 0 && i > 0; i--) {
            if (entries[i].revents == 0)
                continue;
            left--;
            enum wish wish = serve(clients[i]);
            if (wish == CLOSE)
                forget(i);
            else
                entries[i].events = wish == WRITE ? POLLOUT : POLLIN;
        }
        if (knocked)
            accept_clients();
    }
}
