/* What it costs to watch descriptors, by several ways that take turns in one process.
 *
 *   watch PAIRS READY IDLE MILLISECONDS
 *       One end each of PAIRS socket pairs is watched, and IDLE eventfds, on which nothing happens.
 *       A turn of a contender adds them all; then, round after round, makes READY of the pairs
 *       readable, waits, and reads the byte from each; then changes the pairs' interest from
 *       reading to writing, which never is possible; and removes them all. Changes count when a
 *       wait has taken them, so each kind is timed with one wait of no time after all of
 *       them. The contenders take turns for so long, in an order drawn again each time, for what one
 *       leaves behind in the kernel's caches is found by the next. Prints a line of JSON for each:
 *       nanoseconds of an event, of an addition, a change and a removal, and the bytes allocated
 *       for a registration.
 *   watch count CONTENDER PAIRS READY WAITS
 *       Only waits, for tools that count: see count.sh. What is ready is never read.
 */
#include "watcher.h"
#include <malloc.h>
#include <omnipoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

enum { MAX_ROUNDS = 100, MAX_CONTENDERS = 16 };

/* How long the rounds of a turn last, in nanoseconds, unless it needs longer for three. */
static const double ROUNDS_TIME = 1e6;

int watched, *descriptors, visited, reads = 1;
static int pairs, *writers, *order;
static double clock_cost;

/* The contenders. */

enum { EVENT, ADD, CHANGE, REMOVE, BYTES, FIGURES };

struct contender {
    struct watcher watcher;
    char name[64];
    struct figure figures[FIGURES];
};

static struct contender contenders[MAX_CONTENDERS];
static int contestants;

static void enter(const struct watcher *watcher, const char *suffix, uint32_t engine) {
    static const char *const names[FIGURES] = {"event_ns", "add_ns", "change_ns", "remove_ns", "bytes"};
    struct contender *contender = &contenders[contestants++];
    contender->watcher = *watcher;
    contender->watcher.engine = engine;
    snprintf(contender->name, sizeof contender->name, "%s%s, C", watcher->name, suffix);
    for (int i = 0; i < FIGURES; i++)
        contender->figures[i].name = names[i];
}

/* The first is what the others are compared with; it runs twice, which shows the noise. */
static void enter_all(void) {
    enter(&raw_epoll, "", 0);
    enter(&raw_epoll, " again", 0);
    enter(&raw_epoll_edges, "", 0);
    enter(&raw_poll, "", 0);
    enter(&raw_select, "", 0);
    if (&raw_io_uring != NULL && omni_engine_available(OMNI_ENGINE_IO_URING))
        enter(&raw_io_uring, "", 0);
    const struct watcher *const libraries[] = {&libuv, &libevent, &libev};
    for (int i = 0; i < 3; i++)
        if (libraries[i] != NULL)
            enter(libraries[i], "", 0);
    for (uint32_t engine = 1; omni_engine_name(engine) != NULL; engine++)
        if (omni_engine_available(engine)) {
            char suffix[32];
            snprintf(suffix, sizeof suffix, " %s", omni_engine_name(engine));
            enter(&omnipoll, suffix, engine);
            if (engine == OMNI_ENGINE_EPOLL || engine == OMNI_ENGINE_IO_URING) {
                snprintf(suffix, sizeof suffix, " %s, edges", omni_engine_name(engine));
                enter(&omnipoll_edges, suffix, engine);
            }
        }
}

/* The descriptors. */

/* With its smallest buffer filled, an end is never writable. */
static void fill(int fd) {
    static const char bytes[2048];
    int least = 0;
    must(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof least) == 0, "SO_SNDBUF");
    while (write(fd, bytes, sizeof bytes) > 0)
        ;
}

static void open_descriptors(int idle) {
    watched = pairs + idle;
    descriptors = calloc((size_t)watched, sizeof *descriptors);
    writers = calloc((size_t)pairs, sizeof *writers);
    order = calloc((size_t)pairs, sizeof *order);
    must(may_open((rlim_t)(2 * pairs + idle + 100)), "the descriptor limit");
    for (int i = 0; i < pairs; i++) {
        int ends[2];
        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "socketpair");
        descriptors[i] = ends[0];
        writers[i] = ends[1];
        order[i] = i;
        fill(descriptors[i]);
    }
    for (int i = pairs; i < watched; i++)
        must((descriptors[i] = eventfd(0, EFD_NONBLOCK)) >= 0, "eventfd");
}

/* Drawn again each time: a set used twice would be in the cache the second time. */
static void make_ready(int count) {
    for (int i = 0; i < count; i++) {
        int other = i + (int)drawn((uint64_t)(pairs - i)), chosen = order[other];
        order[other] = order[i];
        order[i] = chosen;
        must(write(writers[chosen], "x", 1) == 1, "write");
    }
}

/* A turn. */

static void look(const struct watcher *watcher) {
    visited = 0;
    watcher->wait(0);
    must(visited == 0, "a wait that finds nothing");
}

static double time_round(const struct watcher *watcher, int ready) {
    make_ready(ready);
    visited = 0;
    double begin = now();
    while (visited < ready)
        watcher->wait(1);
    double nanoseconds = now() - begin - clock_cost;
    must(visited == ready, "a wait that finds all that is ready");
    return nanoseconds / ready;
}

static double time_rounds(const struct watcher *watcher, int ready) {
    double times[MAX_ROUNDS];
    int rounds = 0;
    time_round(watcher, ready);
    time_round(watcher, ready);
    for (double end = now() + ROUNDS_TIME; rounds < 3 || (now() < end && rounds < MAX_ROUNDS); rounds++)
        times[rounds] = time_round(watcher, ready);
    return middle(times, rounds);
}

static double allocated(void) {
    struct mallinfo2 info = mallinfo2();
    return (double)(info.uordblks + info.hblkhd);
}

static void take_turn(const struct watcher *watcher, int ready, double figures[FIGURES]) {
    double before = allocated();
    watcher->open(watcher->engine);
    double begin = now();
    for (int i = 0; i < watched; i++)
        watcher->add(i);
    look(watcher);
    figures[ADD] = (now() - begin) / watched;
    figures[EVENT] = time_rounds(watcher, ready);
    figures[BYTES] = (allocated() - before) / watched;
    begin = now();
    for (int i = 0; i < pairs; i++)
        watcher->change(i, WRITABLE);
    look(watcher);
    figures[CHANGE] = (now() - begin) / pairs;
    begin = now();
    for (int i = watched - 1; i >= 0; i--)
        watcher->remove(i);
    look(watcher);
    figures[REMOVE] = (now() - begin) / watched;
    watcher->close();
}

static void shuffle(int *places, int count) {
    for (int i = 0; i < count; i++) {
        int other = (int)drawn((uint64_t)i + 1);
        places[i] = places[other];
        places[other] = i;
    }
}

static void compare(int ready, double budget) {
    int turns = -1; /* the first is for the caches */
    for (double end = now() + budget; turns < 3 || (now() < end && turns < MAX_TURNS); turns++) {
        int places[MAX_CONTENDERS];
        shuffle(places, contestants);
        for (int i = 0; i < contestants; i++) {
            struct contender *contender = &contenders[places[i]];
            double figures[FIGURES];
            take_turn(&contender->watcher, ready, figures);
            for (int figure = 0; figure < FIGURES; figure++)
                contender->figures[figure].values[turns < 0 ? 0 : turns] = figures[figure];
        }
    }
    for (int i = 0; i < contestants; i++)
        report(contenders[i].name, contenders[i].figures, FIGURES, turns);
}

static void measure_clock(void) {
    enum { READINGS = 10000 };
    static double times[READINGS];
    for (int i = 0; i < READINGS; i++) {
        double begin = now();
        times[i] = now() - begin;
    }
    clock_cost = middle(times, READINGS);
}

static int count(const char *name, int ready, int waits) {
    struct contender *contender = contenders;
    while (strcmp(contender->name, name) != 0)
        must(++contender < contenders + contestants, "a contender of that name");
    contender->watcher.open(contender->watcher.engine);
    for (int i = 0; i < watched; i++)
        contender->watcher.add(i);
    make_ready(ready);
    reads = 0;
    for (int i = 0; i < waits; i++)
        contender->watcher.wait(1);
    must(visited == ready * waits, "waits that find all that is ready");
    return 0;
}

int main(int argc, char **argv) {
    int counts = argc == 6 && strcmp(argv[1], "count") == 0;
    if (argc != 5 && !counts) {
        fprintf(stderr, "usage: watch PAIRS READY IDLE MILLISECONDS\n"
                        "       watch count CONTENDER PAIRS READY WAITS\n");
        return 2;
    }
    enter_all();
    pairs = atoi(argv[counts ? 3 : 1]);
    open_descriptors(counts ? 0 : atoi(argv[3]));
    if (counts)
        return count(argv[2], atoi(argv[4]), atoi(argv[5]));
    settle_down();
    measure_clock();
    compare(atoi(argv[2]), atof(argv[4]) * 1e6);
    return 0;
}
