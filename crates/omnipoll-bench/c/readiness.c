/* What a wait costs through the C library, beside loops written straight on the system calls.
 *
 *   readiness [--quick] [ENGINE [WATCHED [READY]]]
 *       For each engine: N socket pairs are watched, K of them made readable each round. Timed is
 *       the wait and the read of one byte from each that is ready. The loops watch the same
 *       sockets in the same process and take turns, forwards and backwards (raw, omnipoll,
 *       omnipoll, raw, ...); a ratio is the median over the turns. The raw loop takes a second
 *       turn: how far that ratio is from 1 is how far to trust the others. On epoll a third raw
 *       loop keeps a record for each connection and finds it by the event's pointer, as programs
 *       do that need more than the descriptor; omnipoll returns descriptor and token.
 *   readiness count ENGINE raw|omnipoll WATCHED READY WAITS
 *       Only waits, for tools that count: see count.sh. What is ready is never read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <omnipoll.h>

enum { CAPACITY = 1024, MOST_ROUNDS = 100, MOST_TURNS = 100000 };
enum { WORD_BITS = 8 * sizeof(unsigned long) };

/* How long a turn goes on, in nanoseconds, unless it needs longer for three rounds. */
static const double TURN = 1e6;

/* SERVE: wait for ever, read a byte from each. LOOK: no wait, no read. COUNT: wait, no read. */
enum mode { SERVE, LOOK, COUNT };

typedef int loop(enum mode mode);

struct engine {
    const char *name;
    uint32_t number;
    void (*raw_open)(void);
    void (*raw_close)(void);
    loop *raw, *records; /* NULL where there is none */
};

static int watched, *readers, *writers;

static void die(const char *what) {
    fprintf(stderr, "readiness: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void visit(int fd, enum mode mode) {
    char byte;
    if (mode == SERVE && read(fd, &byte, 1) != 1)
        die("read");
}

/* The loops on epoll_wait: one whose events carry descriptors, one whose events carry pointers. */

struct record {
    int fd;
    char rest[100]; /* what a server knows of a client */
};

static int epoll = -1, epoll_of_records = -1;
static struct record *records;

static void epoll_add(int set, int fd, epoll_data_t data) {
    struct epoll_event event = {.events = EPOLLIN, .data = data};
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static void epoll_open(void) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_of_records = epoll_create1(EPOLL_CLOEXEC);
    records = calloc(watched, sizeof *records);
    for (int i = 0; i < watched; i++) {
        records[i].fd = readers[i];
        epoll_add(epoll, readers[i], (epoll_data_t){.fd = readers[i]});
        epoll_add(epoll_of_records, readers[i], (epoll_data_t){.ptr = &records[i]});
    }
}

static void epoll_close(void) {
    close(epoll);
    close(epoll_of_records);
    free(records);
}

static int epoll_loop(enum mode mode) {
    static struct epoll_event events[CAPACITY];
    int count = epoll_wait(epoll, events, CAPACITY, mode == LOOK ? 0 : -1);
    for (int i = 0; i < count; i++)
        visit(events[i].data.fd, mode);
    return count;
}

static int records_loop(enum mode mode) {
    static struct epoll_event events[CAPACITY];
    int count = epoll_wait(epoll_of_records, events, CAPACITY, mode == LOOK ? 0 : -1);
    for (int i = 0; i < count; i++) {
        const struct record *record = events[i].data.ptr;
        visit(record->fd, mode);
    }
    return count;
}

/* The loop on poll. */

static struct pollfd *entries;

static void poll_open(void) {
    entries = calloc(watched, sizeof *entries);
    for (int i = 0; i < watched; i++)
        entries[i] = (struct pollfd){.fd = readers[i], .events = POLLIN};
}

static void poll_close(void) {
    free(entries);
}

static int poll_loop(enum mode mode) {
    int count = poll(entries, watched, mode == LOOK ? 0 : -1);
    for (int i = 0, left = count; left > 0; i++)
        if (entries[i].revents != 0) {
            visit(entries[i].fd, mode);
            left--;
        }
    return count;
}

/* The loop on select. fd_set ends at FD_SETSIZE, the kernel's sets don't: so these are as long as
 * the highest descriptor needs, and read a word at a time. */

static unsigned long *interest, *result;
static int nfds;

static size_t set_size(void) {
    return (nfds + WORD_BITS - 1) / WORD_BITS * sizeof(unsigned long);
}

static void select_open(void) {
    nfds = 0;
    for (int i = 0; i < watched; i++)
        if (readers[i] >= nfds)
            nfds = readers[i] + 1;
    interest = calloc(1, set_size());
    result = calloc(1, set_size());
    for (int i = 0; i < watched; i++)
        interest[readers[i] / WORD_BITS] |= 1ul << readers[i] % WORD_BITS;
}

static void select_close(void) {
    free(interest);
    free(result);
}

static int select_loop(enum mode mode) {
    struct timeval none = {0, 0};
    memcpy(result, interest, set_size());
    int count = select(nfds, (fd_set *)result, NULL, NULL, mode == LOOK ? &none : NULL);
    for (int word = 0, left = count; left > 0; word++)
        for (unsigned long bits = result[word]; bits != 0; bits &= bits - 1, left--)
            visit(word * WORD_BITS + __builtin_ctzl(bits), mode);
    return count;
}

/* The loop on omnipoll, the same for every engine. */

static omni_poller *poller;

static void omnipoll_open(uint32_t engine) {
    if (omni_poller_new(engine, 0, &poller) != 0)
        die(omni_last_error());
    for (int i = 0; i < watched; i++)
        if (omni_add(poller, readers[i], OMNI_READ, readers[i]) != 0)
            die(omni_last_error());
}

static int omnipoll_loop(enum mode mode) {
    static omni_event events[CAPACITY];
    int count = omni_wait(poller, events, CAPACITY, mode == LOOK ? 0 : -1);
    for (int i = 0; i < count; i++)
        visit((int)events[i].token, mode);
    return count;
}

static const struct engine engines[] = {
    {"epoll", OMNI_ENGINE_EPOLL, epoll_open, epoll_close, epoll_loop, records_loop},
    {"poll", OMNI_ENGINE_POLL, poll_open, poll_close, poll_loop, NULL},
    {"select", OMNI_ENGINE_SELECT, select_open, select_close, select_loop, NULL},
};

/* The sockets. */

static int *order; /* every index once; what is chosen comes first */

static uint32_t choose(uint32_t below) {
    static uint64_t state = 0x9e3779b97f4a7c15; /* Marsaglia's xorshift */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static void open_pairs(int count) {
    watched = count;
    readers = calloc(count, sizeof *readers);
    writers = calloc(count, sizeof *writers);
    order = calloc(count, sizeof *order);
    for (int i = 0; i < count; i++) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0)
            die("socketpair");
        readers[i] = ends[0];
        writers[i] = ends[1];
        order[i] = i;
    }
}

static void close_pairs(void) {
    for (int i = 0; i < watched; i++) {
        close(readers[i]);
        close(writers[i]);
    }
    free(readers);
    free(writers);
    free(order);
}

/* Drawn anew each time: a set used twice would be in the cache the second time. */
static void make_ready(int count) {
    for (int i = 0; i < count; i++) {
        int other = i + choose(watched - i), chosen = order[other];
        order[other] = order[i];
        order[i] = chosen;
        if (write(writers[chosen], "x", 1) != 1)
            die("write");
    }
}

/* Time. */

static double clock_cost;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value a quarter, two or three of the way up. */
static double quartile(double *values, int count, int quarter) {
    qsort(values, count, sizeof *values, ascending);
    return values[(count - 1) * quarter / 4];
}

/* The mean of the middle half: as steady as the median, and finer than the clock's steps. */
static double middle(double *values, int count) {
    double sum = 0;
    int first = count / 4, end = count - first;
    qsort(values, count, sizeof *values, ascending);
    for (int i = first; i < end; i++)
        sum += values[i];
    return sum / (end - first);
}

static void measure_clock(void) {
    enum { READINGS = 10000 };
    double times[READINGS];
    for (int i = 0; i < READINGS; i++) {
        double begin = now();
        times[i] = now() - begin;
    }
    clock_cost = middle(times, READINGS);
}

static double time_round(loop *serve, int ready) {
    make_ready(ready);
    double begin = now();
    int count = serve(SERVE);
    double nanoseconds = now() - begin - clock_cost;
    if (count != ready)
        die("a wait did not return all that is ready");
    return nanoseconds / ready;
}

/* The time of an event over some rounds, after two for the caches. */
static double take_turn(loop *serve, int ready) {
    double times[MOST_ROUNDS];
    int rounds = 0;
    /* An epoll lists what the other loop's turn made ready until it is asked again. */
    if (serve(LOOK) != 0)
        die("something was left unread");
    time_round(serve, ready);
    time_round(serve, ready);
    for (double end = now() + TURN; rounds < 3 || (now() < end && rounds < MOST_ROUNDS); rounds++)
        times[rounds] = time_round(serve, ready);
    return middle(times, rounds);
}

enum { RAW, AGAIN, OURS, RECORDS, LOOPS };

/* What a turn of each loop took for an event. */
static double times[LOOPS][MOST_TURNS];

/* A quartile of the ratios, turn by turn. */
static double ratio(int own, int other, int turns, int quarter) {
    static double ratios[MOST_TURNS];
    for (int i = 0; i < turns; i++)
        ratios[i] = times[own][i] / times[other][i];
    return quartile(ratios, turns, quarter);
}

static int take_turns(const struct engine *engine, int ready, double budget) {
    loop *loops[LOOPS] = {engine->raw, engine->raw, omnipoll_loop, engine->records};
    int contenders = engine->records != NULL ? LOOPS : LOOPS - 1;
    int turns = -1; /* the first is for the caches */
    for (double end = now() + budget; turns < 3 || (now() < end && turns < MOST_TURNS); turns++)
        for (int i = 0; i < contenders; i++) {
            int who = turns % 2 == 0 ? i : contenders - 1 - i;
            times[who][turns < 0 ? 0 : turns] = take_turn(loops[who], ready);
        }
    return turns;
}

static void compare(const struct engine *engine, int ready, double budget) {
    int turns = take_turns(engine, ready, budget);
    double ours = ratio(OURS, RAW, turns, 2), again = ratio(AGAIN, RAW, turns, 2);
    double low = ratio(OURS, RAW, turns, 1), high = ratio(OURS, RAW, turns, 3);
    double records = engine->records != NULL ? ratio(OURS, RECORDS, turns, 2) : 0;
    double raw = quartile(times[RAW], turns, 2); /* last, for it sorts them */
    printf("%-7s%8d%7d%11.1f%11.1f%8.3f  %.3f-%.3f%11.3f", engine->name, watched, ready, raw,
           raw * ours, ours, low, high, again);
    if (engine->records != NULL)
        printf("%12.3f", records);
    printf("\n");
    fflush(stdout);
}

/* The machine. */

/* On the last core, for the first takes most interrupts, and with nobody else on it meanwhile,
 * where that is allowed. */
static void settle_down(void) {
    cpu_set_t allowed, one;
    struct sched_param first_come = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &first_come);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    for (int core = CPU_SETSIZE - 1; core >= 0; core--)
        if (CPU_ISSET(core, &allowed)) {
            CPU_ZERO(&one);
            CPU_SET(core, &one);
            sched_setaffinity(0, sizeof one, &one);
            return;
        }
}

static int may_open(rlim_t wanted) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= wanted)
        return 1;
    limit.rlim_cur = wanted;
    if (limit.rlim_max < wanted)
        limit.rlim_max = wanted;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* What to measure only: NULL and 0 for everything. */
struct choice {
    const char *engine;
    int watched, ready;
};

static void measure(const struct engine *engine, int count, int only_ready, double budget) {
    static const int ready[] = {1, 100, 1000};
    if (!may_open(2 * count + 100)) {
        printf("%-7s%8d  not measured: the descriptor limit is lower\n", engine->name, count);
        return;
    }
    open_pairs(count);
    engine->raw_open();
    omnipoll_open(engine->number);
    for (int i = 0; i < 3; i++)
        if (ready[i] <= count && (only_ready == 0 || only_ready == ready[i]))
            compare(engine, ready[i], budget);
    omni_poller_free(poller);
    engine->raw_close();
    close_pairs();
}

static void measure_all(struct choice only, double budget) {
    static const int counts[] = {100, 1000, 9000, 50000};
    settle_down();
    measure_clock();
    printf("Wait and read one byte, C library beside loops in C, ns an event\n\n");
    printf("engine  watched  ready        raw   omnipoll   ratio   quartiles   raw again  to records\n");
    for (int e = 0; e < 3; e++)
        for (int i = 0; i < 4; i++) {
            /* One poll or select of 50,000 takes tens of milliseconds. */
            int too_slow = engines[e].number != OMNI_ENGINE_EPOLL && counts[i] > 9000;
            int wanted = only.watched == 0 || only.watched == counts[i];
            if (wanted && !too_slow && (only.engine == NULL || strcmp(only.engine, engines[e].name) == 0))
                measure(&engines[e], counts[i], only.ready, budget);
        }
}

static int count(char **arguments) {
    int ready = atoi(arguments[3]), waits = atoi(arguments[4]);
    int is_raw = strcmp(arguments[1], "raw") == 0;
    const struct engine *engine = engines;
    while (strcmp(engine->name, arguments[0]) != 0)
        if (++engine == engines + 3)
            return 2;
    open_pairs(atoi(arguments[2]));
    if (is_raw)
        engine->raw_open();
    else
        omnipoll_open(engine->number);
    make_ready(ready);
    loop *wait = is_raw ? engine->raw : omnipoll_loop;
    for (int i = 0; i < waits; i++)
        if (wait(COUNT) != ready)
            die("a wait did not return all that is ready");
    return 0;
}

int main(int argc, char **argv) {
    int is_quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    if (argc == 7 && strcmp(argv[1], "count") == 0)
        return count(argv + 2);
    argv += is_quick, argc -= is_quick;
    if (argc > 4 || (argc > 1 && argv[1][0] == '-')) {
        fprintf(stderr, "usage: readiness [--quick] [ENGINE [WATCHED [READY]]]\n"
                        "       readiness count ENGINE raw|omnipoll WATCHED READY WAITS\n");
        return 2;
    }
    struct choice only = {argc > 1 ? argv[1] : NULL, argc > 2 ? atoi(argv[2]) : 0, argc > 3 ? atoi(argv[3]) : 0};
    measure_all(only, is_quick ? 0.3e9 : 2e9);
    return 0;
}
