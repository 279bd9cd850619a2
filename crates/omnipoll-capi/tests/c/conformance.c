/* Registrations, checked through the public header on every engine.
 *
 * One line for each behaviour and engine: "ok  epoll LEVEL is reported as long as it holds".
 * Ends with status 1 at the first thing that is not as promised, and by itself in any case. */

#include "harness.h"

#include <limits.h>
#include <sys/resource.h>

static int engine_reports(omni_poller *poller, int capability)
{
    return omni_poller_capabilities(poller) & capability;
}

static void level(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pipe = pipe_pair();
    IS(omni_poller_add(poller, pipe.ours, OMNI_READ, 7), 0);
    IS(look(poller), 0);
    put(pipe.theirs, 2048);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    take(pipe.ours, 1024);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    take(pipe.ours, 1024);
    IS(look(poller), 0);
    omni_poller_free(poller);
    close_pair(pipe);
}

static void edge(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pipe = pipe_pair();
    IS(omni_poller_add(poller, pipe.ours, OMNI_READ | OMNI_EDGE, 7), 0);
    put(pipe.theirs, 2048);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    take(pipe.ours, 1024);
    IS(look(poller), 0);

    drain(pipe.ours);
    IS(omni_poller_rearm(poller, pipe.ours, OMNI_READ), 0);
    IS(look(poller), 0);
    put(pipe.theirs, 1);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);

    /* What arrives between the EAGAIN and the rearm is not lost. */
    drain(pipe.ours);
    put(pipe.theirs, 1);
    IS(omni_poller_rearm(poller, pipe.ours, OMNI_READ), 0);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    omni_poller_free(poller);
    close_pair(pipe);
}

static void oneshot(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pipe = pipe_pair();
    IS(omni_poller_add(poller, pipe.ours, OMNI_READ | OMNI_ONESHOT, 7), 0);
    put(pipe.theirs, 1);
    IS(one_event(poller, pipe.ours, 7), OMNI_READ);
    put(pipe.theirs, 1);
    IS(look(poller), 0);
    IS(omni_poller_rearm(poller, pipe.ours, OMNI_READ), -EINVAL);
    IS(omni_poller_modify(poller, pipe.ours, OMNI_READ | OMNI_ONESHOT, 8), 0);
    IS(one_event(poller, pipe.ours, 8), OMNI_READ);
    IS(look(poller), 0);
    /* Not even the end of the pipe is reported, and it doesn't spin. */
    close(pipe.theirs);
    IS(look(poller), 0);
    IS(omni_poller_modify(poller, pipe.ours, OMNI_READ | OMNI_ONESHOT | OMNI_EDGE, 9), 0);
    OK(one_event(poller, pipe.ours, 9) & OMNI_READ);
    IS(look(poller), 0);
    omni_poller_free(poller);
    close(pipe.ours);
}

static void modify(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    IS(look(poller), 0);
    IS(omni_poller_modify(poller, pair.ours, OMNI_READ | OMNI_WRITE, 2), 0);
    IS(one_event(poller, pair.ours, 2), OMNI_WRITE);
    put(pair.theirs, 1);
    IS(one_event(poller, pair.ours, 2), OMNI_READ | OMNI_WRITE);
    IS(omni_poller_modify(poller, pair.ours, OMNI_READ, UINT64_MAX), 0);
    IS(one_event(poller, pair.ours, UINT64_MAX), OMNI_READ);
    IS(omni_poller_remove(poller, pair.ours), 0);
    IS(look(poller), 0);
    omni_poller_free(poller);
    close_pair(pair);
}

static void set(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    const int none[] = {-1, INT_MAX, closed_descriptor()};
    IS(omni_poller_set(poller, pair.ours, 0, 1), 0);
    IS(omni_poller_remove(poller, pair.ours), -ENOENT);
    /* Added, modified, removed; and so once more. */
    for (uint64_t token = 1; token < 4; token += 2) {
        IS(omni_poller_set(poller, pair.ours, OMNI_WRITE, token), 0);
        IS(one_event(poller, pair.ours, token), OMNI_WRITE);
        IS(omni_poller_set(poller, pair.ours, OMNI_READ, token + 1), 0);
        IS(look(poller), 0);
        put(pair.theirs, 1);
        IS(one_event(poller, pair.ours, token + 1), OMNI_READ);
        drain(pair.ours);
        IS(omni_poller_set(poller, pair.ours, 0, 0), 0);
        put(pair.theirs, 1);
        IS(look(poller), 0);
        drain(pair.ours);
        IS(omni_poller_remove(poller, pair.ours), -ENOENT);
    }
    /* Triggers are taken as well. */
    IS(omni_poller_set(poller, pair.ours, OMNI_WRITE | OMNI_ONESHOT, 5), 0);
    IS(one_event(poller, pair.ours, 5), OMNI_WRITE);
    IS(look(poller), 0);
    IS(omni_poller_set(poller, pair.ours, OMNI_WRITE | OMNI_ONESHOT, 6), 0);
    IS(one_event(poller, pair.ours, 6), OMNI_WRITE);
    /* What is wrong changes nothing. */
    IS(omni_poller_set(poller, pair.ours, OMNI_READ | OMNI_HANGUP, 7), -EINVAL);
    IS(omni_poller_set(poller, pair.ours, 0x80000000, 7), -EINVAL);
    IS(omni_poller_modify(poller, pair.ours, OMNI_WRITE, 8), 0);
    IS(one_event(poller, pair.ours, 8), OMNI_WRITE);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        IS(omni_poller_set(poller, none[i], OMNI_READ, 9), -EBADF);
    omni_poller_free(poller);
    close_pair(pair);
}

static void registration_errors(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    const int not_open[] = {-1, INT_MIN, INT_MAX, closed_descriptor()};
    for (size_t i = 0; i < sizeof not_open / sizeof *not_open; i++)
        IS(omni_poller_add(poller, not_open[i], OMNI_READ, 0), -EBADF);
    IS(omni_poller_modify(poller, -1, OMNI_READ, 0), -EBADF);
    IS(omni_poller_remove(poller, -1), -EBADF);
    IS(omni_poller_rearm(poller, -1, OMNI_READ), -EBADF);

    const int unknown[] = {pair.ours, INT_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        IS(omni_poller_modify(poller, unknown[i], OMNI_READ, 0), -ENOENT);
        IS(omni_poller_remove(poller, unknown[i]), -ENOENT);
        IS(omni_poller_rearm(poller, unknown[i], OMNI_READ), -ENOENT);
    }

    IS(omni_poller_add(poller, pair.ours, OMNI_WRITE, 1), 0);
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 2), -EEXIST);
    IS(one_event(poller, pair.ours, 1), OMNI_WRITE);
    IS(omni_poller_remove(poller, pair.ours), 0);
    IS(omni_poller_remove(poller, pair.ours), -ENOENT);
    omni_poller_free(poller);
    close_pair(pair);
}

static void no_direction(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    omni_event event;
    IS(omni_poller_add(poller, pair.ours, 0, 1), 0);
    IS(write(pair.theirs, "x", 1), 1);
    IS(omni_poller_wait(poller, &event, 1, 0), 0);
    close(pair.theirs);
    if (engine_reports(poller, OMNI_REPORTS_HANGUP))
        IS(one_event(poller, pair.ours, 1), OMNI_HANGUP);
    else
        IS(omni_poller_wait(poller, &event, 1, 0), 0);
    omni_poller_free(poller);
    close(pair.ours);
}

static void interest_bits(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    const uint32_t wrong[] = {
        OMNI_READ | OMNI_READ_CLOSED, OMNI_READ | OMNI_HANGUP,
        OMNI_READ | 0x800, OMNI_READ | 0x80000000, UINT32_MAX,
        OMNI_READ | OMNI_EXCLUSIVE | OMNI_ONESHOT, OMNI_PRIORITY | OMNI_EXCLUSIVE,
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        IS(omni_poller_add(poller, pair.ours, wrong[i], 0), -EINVAL);
    IS(omni_poller_remove(poller, pair.ours), -ENOENT);

    /* A refused change changes nothing. */
    IS(omni_poller_add(poller, pair.ours, OMNI_WRITE, 5), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        IS(omni_poller_modify(poller, pair.ours, wrong[i], 6), -EINVAL);
        IS(omni_poller_rearm(poller, pair.ours, wrong[i]), -EINVAL);
    }
    IS(one_event(poller, pair.ours, 5), OMNI_WRITE);
    omni_poller_free(poller);
    close_pair(pair);
}

static void exclusive(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = socket_pair();
    if (engine_reports(poller, OMNI_HAS_EXCLUSIVE)) {
        IS(omni_poller_add(poller, pair.ours, OMNI_READ | OMNI_EXCLUSIVE, 7), 0);
        put(pair.theirs, 1);
        IS(one_event(poller, pair.ours, 7), OMNI_READ);
        IS(omni_poller_modify(poller, pair.ours, OMNI_READ, 8), -EINVAL);
    } else {
        IS(omni_poller_add(poller, pair.ours, OMNI_READ | OMNI_EXCLUSIVE, 7), -EINVAL);
        IS(omni_poller_remove(poller, pair.ours), -ENOENT);
    }
    omni_poller_free(poller);
    close_pair(pair);
}

static void regular_files(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    omni_poller *lenient = NULL;
    int file = open("/proc/self/exe", O_RDONLY);
    int directory = open("/", O_RDONLY);
    IS(omni_poller_add(poller, file, OMNI_READ, 1), -EPERM);
    IS(omni_poller_add(poller, directory, OMNI_READ, 1), -EPERM);

    IS(omni_poller_new(engine, OMNI_FILES_ALWAYS_READY, &lenient), 0);
    IS(omni_poller_add(lenient, file, OMNI_READ, 1), 0);
    OK(one_event(lenient, file, 1) & OMNI_READ);
    OK(one_event(lenient, file, 1) & OMNI_READ);
    IS(omni_poller_remove(lenient, file), 0);
    IS(look(lenient), 0);
    omni_poller_free(poller);
    omni_poller_free(lenient);
    close(file);
    close(directory);
}

static void hangup(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    uint32_t hung_up = engine_reports(poller, OMNI_REPORTS_HANGUP) ? OMNI_HANGUP : 0;
    uint32_t read_closed = engine_reports(poller, OMNI_REPORTS_READ_CLOSED) ? OMNI_READ_CLOSED : 0;
    struct pair pair = socket_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    IS(shutdown(pair.theirs, SHUT_WR), 0);
    IS(one_event(poller, pair.ours, 1), OMNI_READ | read_closed);
    close(pair.theirs);
    IS(one_event(poller, pair.ours, 1), OMNI_READ | read_closed | hung_up);
    omni_poller_free(poller);
    close(pair.ours);
}

static void urgent_data(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = tcp_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_PRIORITY, 1), 0);
    put(pair.theirs, 1);
    IS(look(poller), 0);
    IS(send(pair.theirs, "!", 1, MSG_OOB), 1);
    IS(one_event(poller, pair.ours, 1), OMNI_PRIORITY);
    omni_poller_free(poller);
    close_pair(pair);
}

static void high_descriptor(uint32_t engine)
{
    struct rlimit limit;
    IS(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    IS(setrlimit(RLIMIT_NOFILE, &limit), 0);

    omni_poller *poller = new_poller(engine);
    struct pair low = pipe_pair();
    const int lowest[] = {1024, 3000};
    for (size_t i = 0; i < sizeof lowest / sizeof *lowest; i++) {
        struct pair high = pipe_pair();
        int fd = fcntl(high.ours, F_DUPFD, lowest[i]);
        OK(fd >= lowest[i]);
        IS(omni_poller_add(poller, low.ours, OMNI_READ, 1), 0);
        IS(omni_poller_add(poller, fd, OMNI_READ, 2), 0);
        put(high.theirs, 1);
        IS(one_event(poller, fd, 2), OMNI_READ);
        IS(omni_poller_remove(poller, low.ours), 0);
        IS(omni_poller_remove(poller, fd), 0);
        close(fd);
        close_pair(high);
    }
    omni_poller_free(poller);
    close_pair(low);
}

static void small_capacity(uint32_t engine)
{
    enum { PAIRS = 8, CAPACITY = 3 };
    omni_poller *poller = new_poller(engine);
    struct pair pairs[PAIRS];
    omni_event events[CAPACITY + 1];
    unsigned seen = 0;
    for (int i = 0; i < PAIRS; i++) {
        pairs[i] = pipe_pair();
        put(pairs[i].theirs, 1);
        IS(omni_poller_add(poller, pairs[i].ours, OMNI_READ, (uint64_t)i), 0);
    }
    /* Everything stays ready; everybody's turn comes; nothing is written past the capacity. */
    for (int round = 0; round < 3; round++) {
        memset(events, 0x55, sizeof events);
        IS(omni_poller_wait(poller, events, CAPACITY, FOREVER), CAPACITY);
        IS(events[CAPACITY].token, 0x5555555555555555);
        for (int i = 0; i < CAPACITY; i++)
            seen |= 1u << events[i].token;
    }
    IS(seen, (1u << PAIRS) - 1);
    IS(look(poller), PAIRS);
    omni_poller_free(poller);
    for (int i = 0; i < PAIRS; i++)
        close_pair(pairs[i]);
}

/* Whether the engine notices that a registered descriptor was closed. */
static int reports_closed(uint32_t engine)
{
    return engine == OMNI_ENGINE_SELECT || engine == OMNI_ENGINE_POLL;
}

static void closed_while_registered(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair closed = pipe_pair(), other = pipe_pair();
    IS(omni_poller_add(poller, closed.ours, OMNI_READ, 1), 0);
    IS(omni_poller_add(poller, other.ours, OMNI_READ, 2), 0);
    close(closed.ours);
    if (reports_closed(engine))
        IS(one_event(poller, closed.ours, 1), OMNI_INVALID);
    IS(look(poller), 0);
    put(other.theirs, 1);
    IS(one_event(poller, other.ours, 2), OMNI_READ);
    IS(omni_poller_remove(poller, closed.ours), reports_closed(engine) ? -ENOENT : 0);

    /* The number's next file gets no event of the old one. */
    struct pair next = pipe_pair();
    put(closed.theirs, 0);
    IS(dup2(next.ours, closed.ours), closed.ours);
    IS(omni_poller_add(poller, closed.ours, OMNI_READ, 3), 0);
    take(other.ours, 1);
    IS(look(poller), 0);
    put(next.theirs, 1);
    IS(one_event(poller, closed.ours, 3), OMNI_READ);
    omni_poller_free(poller);
    close_pair(closed);
    close_pair(other);
    close_pair(next);
}

static void closed_while_waiting(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair closed = pipe_pair(), other = pipe_pair();
    struct waiter waiter;
    int reported_closed = 0, told_ready = 0, count;
    IS(omni_poller_add(poller, closed.ours, OMNI_READ, 1), 0);
    IS(omni_poller_add(poller, other.ours, OMNI_READ | OMNI_ONESHOT, 2), 0);
    start_waiting(&waiter, poller, FOREVER);
    close(closed.ours);
    put(other.theirs, 1);
    /* The other one is reported; the closed one with it, afterwards, or never, but once. select(2)
     * itself calls a descriptor readable that was closed meanwhile. */
    for (count = finish_waiting(&waiter); count > 0;
         count = omni_poller_wait(poller, waiter.events, ROOM, LOOK)) {
        for (int i = 0; i < count; i++) {
            reported_closed += waiter.events[i].token == 1 && waiter.events[i].ready == OMNI_INVALID;
            told_ready += waiter.events[i].token == 2 && waiter.events[i].ready == OMNI_READ;
        }
    }
    IS(count, 0);
    IS(told_ready, 1);
    IS(reported_closed, reports_closed(engine));
    omni_poller_free(poller);
    close(closed.theirs);
    close_pair(other);
}

static const struct behaviour behaviours[] = {
    {"LEVEL is reported as long as it holds", level},
    {"EDGE is reported once, and after rearm again", edge},
    {"ONESHOT is reported once, and after modify again", oneshot},
    {"modify replaces interest and token", modify},
    {"set adds, modifies and removes", set},
    {"EEXIST, ENOENT and EBADF", registration_errors},
    {"hang-up alone without a direction", no_direction},
    {"EINVAL for bits that mean nothing", interest_bits},
    {"EXCLUSIVE where the engine has it, EINVAL elsewhere", exclusive},
    {"EPERM for regular files, unless asked for", regular_files},
    {"half-close and hang-up", hangup},
    {"urgent data", urgent_data},
    {"a descriptor above 1023", high_descriptor},
    {"a capacity smaller than what is ready", small_capacity},
    {"a descriptor closed while registered, and its number used again", closed_while_registered},
    {"a descriptor closed while waiting", closed_while_waiting},
};

int main(void)
{
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
