/* The echo server on select, with no library. fd_set ends at FD_SETSIZE, the kernel's sets don't:
 * so these are as long as MAX_CLIENTS needs, and read a word at a time. */
#include "echo.h"
#include <sys/select.h>

enum { WORD_BITS = 8 * sizeof(unsigned long), WORDS = MAX_CLIENTS / WORD_BITS + 1 };
enum { READABLE, WRITABLE, SETS };

static unsigned long wanted[SETS][WORDS], ready[SETS][WORDS];
static struct client *clients[MAX_CLIENTS];
static int listener, highest;

static void wish_for(int fd, enum wish wish) {
    unsigned long bit = 1ul << fd % WORD_BITS;
    wanted[READABLE][fd / WORD_BITS] &= ~bit;
    wanted[WRITABLE][fd / WORD_BITS] &= ~bit;
    if (wish != CLOSE)
        wanted[wish == READ ? READABLE : WRITABLE][fd / WORD_BITS] |= bit;
}

static void accept_clients(void) {
    struct client *client;
    while ((client = accept_client(listener)) != NULL) {
        must(client->fd < MAX_CLIENTS, "a descriptor below MAX_CLIENTS");
        clients[client->fd] = client;
        if (client->fd > highest)
            highest = client->fd;
        wish_for(client->fd, READ);
    }
}

static void serve_client(int fd) {
    enum wish wish = serve(clients[fd]);
    wish_for(fd, wish);
    if (wish == CLOSE) {
        close_client(clients[fd]);
        clients[fd] = NULL;
    }
    while (clients[highest] == NULL && highest > listener)
        highest--;
}

int main(void) {
    listener = highest = listen_on_loopback();
    wish_for(listener, READ);
    for (;;) {
        size_t words = (size_t)highest / WORD_BITS + 1;
        for (int which = 0; which < SETS; which++)
            memcpy(ready[which], wanted[which], words * sizeof(unsigned long));
        int left = select(highest + 1, (fd_set *)ready[READABLE], (fd_set *)ready[WRITABLE], NULL, NULL);
        int knocked = (ready[READABLE][listener / WORD_BITS] >> listener % WORD_BITS) & 1;
        ready[READABLE][listener / WORD_BITS] &= ~(1ul << listener % WORD_BITS);
        left -= knocked;
        for (size_t word = 0; left > 0 && word < words; word++)
            for (unsigned long bits = ready[READABLE][word] | ready[WRITABLE][word]; bits != 0; bits &= bits - 1) {
                serve_client((int)word * WORD_BITS + __builtin_ctzl(bits));
                left--;
            }
        if (knocked)
            accept_clients();
    }
}
