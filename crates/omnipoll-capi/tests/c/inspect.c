/* What is inside a poller, checked through the public header on every engine.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "harness.h"

#include <signal.h>
#include <sys/wait.h>

static omni_poller_statistics stats_of(omni_poller *poller)
{
    omni_poller_statistics stats;
    memset(&stats, 0x55, sizeof stats);
    stats.size = sizeof stats;
    IS(omni_poller_stats(poller, &stats), 0);
    IS(stats.size, sizeof stats);
    return stats;
}

/* A line for each, that says what it is. */
static void features(uint32_t engine)
{
    char text[4096], few[8];
    int length = omni_engine_features(engine, text, sizeof text);
    OK(length >= 0 && (size_t)length < sizeof text);
    IS(length, strlen(text));
    IS(omni_engine_features(engine, few, sizeof few), length);
    OK(!strncmp(few, text, sizeof few - 1) && strlen(few) < sizeof few);
    IS(omni_engine_features(engine, NULL, 0), length);
    OK((length > 0) == (engine == OMNI_ENGINE_EPOLL || engine == OMNI_ENGINE_IO_URING));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        OK(strstr(line, " (Linux ") && strstr(line, "): "));
    if (engine == OMNI_ENGINE_EPOLL) {
        IS(omni_engine_features(engine, text, sizeof text), length);
        OK(strstr(text, "EPOLLEXCLUSIVE (Linux 4.5): in use\n"));
        OK(strstr(text, "EPIOCSPARAMS (Linux 6.9): "));
    }
}

static void stats(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pair = pipe_pair();
    omni_event events[ROOM];
    omni_poller_statistics stats = stats_of(poller);
    IS(stats.registrations + stats.timers + stats.signals + stats.children + stats.posts, 0);
    IS(stats.waits + stats.system_calls + stats.spurious + stats.io_events, 0);
    IS(stats.longest_dispatch_ns, -1);

    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    IS(omni_poller_signal_add(poller, SIGUSR1, 1), 0);
    IS(omni_poller_timer_add(poller, INT64_MAX, 0, 1, NULL), 0);
    IS(omni_poller_timer_add_at(poller, INT64_MAX, 1, NULL), 0);
    IS(omni_poller_post(poller, 1, 1), 0);
    pid_t pid = fork();
    if (pid == 0) {
        omni_poller_statistics none = {.size = sizeof none};
        IS(omni_poller_stats(poller, &none), -EOWNERDEAD);
        IS(omni_poller_dump(poller, NULL, 0), -EOWNERDEAD);
        _exit(0);
    }
    OK(pid > 0);
    IS(omni_poller_child_add(poller, pid, 1), 0);
    stats = stats_of(poller);
    IS(stats.registrations, 1);
    IS(stats.timers, 2);
    IS(stats.signals, 1);
    IS(stats.children, 1);
    IS(stats.posts, 1);

    IS(omni_poller_wait(poller, events, ROOM, LOOK) >= 1, 1);
    while (stats_of(poller).child_events == 0)
        OK(omni_poller_wait(poller, events, ROOM, FOREVER) >= 0);
    put(pair.theirs, 1);
    IS(omni_poller_wake(poller), 0);
    IS(raise(SIGUSR1), 0);
    IS(omni_poller_timer_add(poller, 0, 0, 1, NULL), 0);
    uint64_t waits = stats_of(poller).waits;
    IS(omni_poller_wait(poller, events, ROOM, FOREVER), 4);
    stats = stats_of(poller);
    IS(stats.waits, waits + 1);
    OK(stats.system_calls >= stats.waits);
    OK(stats.spurious <= stats.system_calls);
    IS(stats.children, 0);
    IS(stats.posts, 0);
    IS(stats.io_events, 1);
    IS(stats.timer_events, 1);
    IS(stats.signal_events, 1);
    IS(stats.child_events, 1);
    IS(stats.wake_events, 1);
    IS(stats.post_events, 1);
    omni_poller_free(poller);
    close_pair(pair);
}

/* Programs compiled with an earlier or a later header get what both sides know. */
static void struct_sizes(uint32_t engine)
{
    struct {
        omni_poller_statistics stats;
        uint8_t later[16];
    } bigger;
    omni_poller *poller = new_poller(engine);
    memset(&bigger, 0x55, sizeof bigger);
    bigger.stats.size = sizeof bigger;
    IS(omni_poller_stats(poller, &bigger.stats), 0);
    IS(bigger.stats.size, sizeof bigger.stats);
    IS(bigger.stats.waits, 0);
    for (size_t i = 0; i < sizeof bigger.later; i++)
        IS(bigger.later[i], 0x55);

    const uint32_t wrong[] = {0, 4, 119};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bigger.stats.size = wrong[i];
        bigger.stats.waits = 7;
        IS(omni_poller_stats(poller, &bigger.stats), -EINVAL);
        IS(bigger.stats.size, wrong[i]);
        IS(bigger.stats.waits, 7);
    }
    omni_poller_free(poller);
}

static void dump(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct pair pipe = pipe_pair(), pair = socket_pair();
    char text[512], expected[128], tail[512];
    IS(omni_poller_dump(poller, NULL, 0), 0);
    IS(omni_poller_dump(poller, text, 1), 0);
    IS(text[0], 0);
    IS(omni_poller_add(poller, pair.ours, OMNI_WRITE | OMNI_ONESHOT, 70), 0);
    IS(omni_poller_add(poller, pipe.ours, OMNI_READ | OMNI_EDGE, 80), 0);
    IS(omni_poller_timer_add(poller, INT64_MAX, 0, 90, NULL), 0);

    int length = omni_poller_dump(poller, text, sizeof text);
    IS(length, strlen(text));
    IS(text[length - 1], '\n');
    snprintf(expected, sizeof expected, "%d pipe:[", pipe.ours);
    OK(!strncmp(text, expected, strlen(expected)));
    OK(strstr(text, "] token 80 READ|EDGE"));
    snprintf(expected, sizeof expected, "\n%d socket:[", pair.ours);
    OK(strstr(text, expected));
    OK(strstr(text, "] token 70 WRITE|ONESHOT armed WRITE"));
    IS(strchr(strchr(text, '\n') + 1, '\n') == text + length - 1, 1);

    /* What has no room is cut off; nothing is written past the buffer. */
    for (int capacity = 0; capacity <= length + 2; capacity++) {
        int written = capacity > length ? length : capacity - 1;
        memset(tail, 0x55, sizeof tail);
        IS(omni_poller_dump(poller, tail, (size_t)capacity), length);
        OK(capacity == 0 || (!memcmp(tail, text, (size_t)written) && tail[written] == 0));
        IS(tail[capacity == 0 ? 0 : written + 1], 0x55);
    }
    IS(one_event(poller, pair.ours, 70), OMNI_WRITE);
    OK(omni_poller_dump(poller, text, sizeof text) > 0);
    OK(strstr(text, "] token 70 WRITE|ONESHOT disarmed\n"));
    omni_poller_free(poller);
    close_pair(pipe);
    close_pair(pair);
}

/* Strict mode keeps what an ordinary poller has no room for. */
static void strict(uint32_t engine)
{
    omni_poller *poller = NULL;
    struct pair pair = pipe_pair();
    char text[256];
    IS(omni_poller_new(engine, OMNI_STRICT, &poller), 0);
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 7), 0);
    put(pair.theirs, 1);
    IS(one_event(poller, pair.ours, 7), OMNI_READ);
    let_pass(2 * MS);
    IS(one_event(poller, pair.ours, 7), OMNI_READ);
    OK(stats_of(poller).longest_dispatch_ns >= 2 * MS);
    OK(omni_poller_dump(poller, text, sizeof text) > 0);
    OK(strstr(text, " age ") && strstr(text, " last READ ") && strstr(text, " ago\n"));
    IS(omni_poller_remove(poller, pair.ours), 0);
    omni_poller_free(poller);
    close_pair(pair);
}

static const struct behaviour behaviours[] = {
    {"which features of the kernel are in use", features},
    {"stats count what there is and what was returned", stats},
    {"structs of other sizes", struct_sizes},
    {"dump has a line for each registration, and cuts off like snprintf", dump},
    {"strict mode adds age, last event and longest dispatch", strict},
};

int main(void)
{
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
