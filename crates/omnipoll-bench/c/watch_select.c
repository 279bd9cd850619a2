/* A loop on select, with no library. fd_set ends at FD_SETSIZE, the kernel's sets don't: so these
 * are as long as the highest descriptor needs, and read a word at a time. */
#include "watcher.h"
#include <sys/select.h>

enum { WORD_BITS = 8 * sizeof(unsigned long), SETS = 2 };

static unsigned long *wanted[SETS], *ready[SETS];
static int nfds;

static size_t set_size(void) {
    return ((size_t)nfds + WORD_BITS - 1) / WORD_BITS * sizeof(unsigned long);
}

static void open_sets(uint32_t engine) {
    (void)engine;
    nfds = 0;
    for (int i = 0; i < watched; i++)
        if (descriptors[i] >= nfds)
            nfds = descriptors[i] + 1;
    for (int which = 0; which < SETS; which++) {
        wanted[which] = calloc(1, set_size());
        ready[which] = calloc(1, set_size());
    }
}

static void close_sets(void) {
    for (int which = 0; which < SETS; which++) {
        free(wanted[which]);
        free(ready[which]);
    }
}

static void put(enum interest which, int fd, unsigned long bit) {
    unsigned long *word = &wanted[which][fd / WORD_BITS], mask = 1ul << fd % WORD_BITS;
    *word = (*word & ~mask) | bit << fd % WORD_BITS;
}

static void add(int index) {
    put(READABLE, descriptors[index], 1);
}

static void change(int index, enum interest interest) {
    put(READABLE, descriptors[index], interest == READABLE);
    put(WRITABLE, descriptors[index], interest == WRITABLE);
}

static void forget(int index) {
    put(READABLE, descriptors[index], 0);
    put(WRITABLE, descriptors[index], 0);
}

static void wait_once(int for_ever) {
    struct timeval none = {0, 0};
    for (int which = 0; which < SETS; which++)
        memcpy(ready[which], wanted[which], set_size());
    int left = select(nfds, (fd_set *)ready[READABLE], (fd_set *)ready[WRITABLE], NULL, for_ever ? NULL : &none);
    for (int word = 0; left > 0; word++)
        for (unsigned long bits = ready[READABLE][word] | ready[WRITABLE][word]; bits != 0; bits &= bits - 1, left--)
            visit(word * WORD_BITS + __builtin_ctzl(bits));
}

const struct watcher raw_select = {"raw select", 0, open_sets, close_sets, add, change, forget, wait_once};
