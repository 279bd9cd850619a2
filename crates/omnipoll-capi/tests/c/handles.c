/* Handles of pollers that are stale or being freed, and what needs no handle.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "harness.h"

#include <limits.h>
#include <sys/wait.h>

/* ---- Handles and bad arguments ------------------------------------------------------------- */

static void ignore_finding(const omni_finding *finding, void *context)
{
    (void)finding;
    (void)context;
}

static void null_arguments(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    omni_event event;
    omni_poller_statistics stats = {.size = sizeof stats};
    IS(omni_poller_new(engine, 0, NULL), -EINVAL);
    IS(omni_poller_add(NULL, 0, OMNI_READ, 0), -EINVAL);
    IS(omni_poller_modify(NULL, 0, OMNI_READ, 0), -EINVAL);
    IS(omni_poller_remove(NULL, 0), -EINVAL);
    IS(omni_poller_rearm(NULL, 0, OMNI_READ), -EINVAL);
    IS(omni_poller_wait(NULL, &event, 1, LOOK), -EINVAL);
    IS(omni_poller_wait(poller, NULL, 1, LOOK), -EINVAL);
    IS(omni_poller_wait(poller, &event, 0, LOOK), -EINVAL);
    IS(omni_poller_wait(poller, NULL, 0, FOREVER), -EINVAL);
    IS(omni_poller_wake(NULL), -EINVAL);
    IS(omni_poller_timer_add(NULL, 0, 0, 0, NULL), -EINVAL);
    IS(omni_poller_timer_add_at(NULL, 0, 0, NULL), -EINVAL);
    IS(omni_poller_timer_set(NULL, 0, 0, 0), -EINVAL);
    IS(omni_poller_timer_cancel(NULL, 0), -EINVAL);
    IS(omni_poller_signal_add(NULL, SIGUSR1, 0), -EINVAL);
    IS(omni_poller_signal_remove(NULL, SIGUSR1), -EINVAL);
    IS(omni_poller_child_add(NULL, getpid(), 0), -EINVAL);
    IS(omni_poller_child_remove(NULL, getpid()), -EINVAL);
    IS(omni_poller_post(NULL, 0, 0), -EINVAL);
    IS(omni_poller_on_finding(NULL, ignore_finding, NULL), -EINVAL);
    IS(omni_poller_stats(NULL, &stats), -EINVAL);
    IS(omni_poller_stats(poller, NULL), -EINVAL);
    IS(omni_poller_dump(NULL, NULL, 0), -EINVAL);
    IS(omni_poller_dump(poller, NULL, 1), -EINVAL);
    IS(omni_poller_after_fork(NULL), -EINVAL);
    IS(omni_poller_capabilities(NULL), -EINVAL);
    IS(omni_poller_engine(NULL), 0);
    omni_poller_free(NULL);
    omni_poller_free(poller);
}

static void every_call_is_stale(omni_poller *poller)
{
    omni_event event;
    omni_poller_statistics stats = {.size = sizeof stats};
    uint64_t id = 7;
    IS(omni_poller_add(poller, 0, OMNI_READ, 0), -ESTALE);
    IS(omni_poller_modify(poller, 0, OMNI_READ, 0), -ESTALE);
    IS(omni_poller_remove(poller, 0), -ESTALE);
    IS(omni_poller_rearm(poller, 0, OMNI_READ), -ESTALE);
    IS(omni_poller_wait(poller, &event, 1, FOREVER), -ESTALE);
    IS(omni_poller_wake(poller), -ESTALE);
    IS(omni_poller_timer_add(poller, 0, 0, 0, &id), -ESTALE);
    IS(omni_poller_timer_add_at(poller, 0, 0, &id), -ESTALE);
    IS(id, 7);
    IS(omni_poller_timer_set(poller, 0, 0, 0), -ESTALE);
    IS(omni_poller_timer_cancel(poller, 0), -ESTALE);
    IS(omni_poller_signal_add(poller, SIGUSR1, 0), -ESTALE);
    IS(omni_poller_signal_remove(poller, SIGUSR1), -ESTALE);
    IS(omni_poller_child_add(poller, getpid(), 0), -ESTALE);
    IS(omni_poller_child_remove(poller, getpid()), -ESTALE);
    IS(omni_poller_post(poller, 0, 0), -ESTALE);
    IS(omni_poller_on_finding(poller, ignore_finding, NULL), -ESTALE);
    IS(omni_poller_stats(poller, &stats), -ESTALE);
    IS(omni_poller_dump(poller, NULL, 0), -ESTALE);
    IS(omni_poller_after_fork(poller), -ESTALE);
    IS(omni_poller_capabilities(poller), -ESTALE);
    IS(omni_poller_engine(poller), 0);
    omni_poller_free(poller);
}

static void stale_handles(uint32_t engine)
{
    int before = open_descriptors();
    omni_poller *poller = new_poller(engine);
    IS(omni_poller_engine(poller), engine);
    omni_poller_free(poller);
    IS(open_descriptors(), before);
    every_call_is_stale(poller);
    omni_poller_free(poller);

    /* A poller made since, in the same slot maybe, is none of theirs. */
    omni_poller *next = new_poller(engine);
    OK(next != poller);
    every_call_is_stale(poller);
    const uintptr_t garbage[] = {1, 4096, (uintptr_t)&next, UINTPTR_MAX, (uintptr_t)next + 1,
                                 (uintptr_t)next ^ (UINTPTR_MAX / 2 + 1)};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++)
        every_call_is_stale((omni_poller *)garbage[i]);
    IS(look(next), 0);
    omni_poller_free(next);
}

static void freed_while_waiting(uint32_t engine)
{
    enum { THREADS = 4 };
    int before = open_descriptors();
    for (int round = 0; round < 20; round++) {
        omni_poller *poller = new_poller(engine);
        struct waiter waiters[THREADS];
        for (int i = 0; i < THREADS; i++)
            start_waiting(&waiters[i], poller, i % 2 ? FOREVER : INT64_MAX);
        omni_poller_free(poller);
        for (int i = 0; i < THREADS; i++)
            IS(finish_waiting(&waiters[i]), -ESTALE);
        IS(open_descriptors(), before);
    }
}

struct storm {
    _Atomic(omni_poller *) poller;
    _Atomic int over;
    int fd;
};

static void *use_while_freed(void *argument)
{
    struct storm *storm = argument;
    while (!storm->over) {
        omni_poller *poller = storm->poller;
        omni_event event;
        int added = omni_poller_add(poller, storm->fd, OMNI_READ, 1);
        OK(added == 0 || added == -EEXIST || added == -ESTALE);
        int armed = omni_poller_timer_add(poller, INT64_MAX, 0, 1, NULL);
        OK(armed == 0 || armed == -ESTALE);
        int posted = omni_poller_post(poller, 1, 1);
        OK(posted == 0 || posted == -EAGAIN || posted == -ESTALE);
        int woken = omni_poller_wake(poller);
        OK(woken == 0 || woken == -ESTALE);
        int waited = omni_poller_wait(poller, &event, 1, FOREVER);
        OK(waited == 1 || waited == -ESTALE);
    }
    return NULL;
}

static void freed_while_used(uint32_t engine)
{
    enum { THREADS = 3, ROUNDS = 2000 };
    pthread_t threads[THREADS];
    struct pair pair = socket_pair();
    struct storm storm = {.fd = pair.ours};
    int before = open_descriptors();
    put(pair.theirs, 1);
    storm.poller = new_poller(engine);
    for (int i = 0; i < THREADS; i++)
        IS(pthread_create(&threads[i], NULL, use_while_freed, &storm), 0);
    for (int round = 0; round < ROUNDS; round++) {
        omni_poller *old = atomic_exchange(&storm.poller, new_poller(engine));
        omni_poller_free(old);
    }
    storm.over = 1;
    omni_poller_free(storm.poller);
    for (int i = 0; i < THREADS; i++)
        IS(pthread_join(threads[i], NULL), 0);
    /* An omni_poller_wake that was the last to leave has left its poller to the next omni_poller_new. */
    omni_poller_free(new_poller(engine));
    IS(open_descriptors(), before);
    close_pair(pair);
}

static void *last_error_of_another_thread(void *argument)
{
    (void)argument;
    return strcmp(omni_last_error(), "") ? NULL : argument;
}

static void words(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    pthread_t thread;
    void *empty = NULL;
    IS(omni_poller_remove(poller, 0), -ENOENT);
    OK(!strcmp(omni_last_error(), "omni_poller_remove: the descriptor is not registered (ENOENT)"));
    IS(look(poller), 0);
    IS(omni_poller_wake(NULL), -EINVAL);
    OK(!strcmp(omni_last_error(), "omni_poller_remove: the descriptor is not registered (ENOENT)"));
    IS(pthread_create(&thread, NULL, last_error_of_another_thread, poller), 0);
    IS(pthread_join(thread, &empty), 0);
    OK(empty);
    omni_poller_free(poller);
    omni_poller_free(poller);
    OK(strstr(omni_last_error(), "omni_poller_free") && strstr(omni_last_error(), "(ESTALE)"));
}

static const struct behaviour behaviours[] = {
    {"NULL and a capacity of 0", null_arguments},
    {"ESTALE for handles freed, freed twice and made up", stale_handles},
    {"ESTALE for every thread whose poller is freed while it waits", freed_while_waiting},
    {"2,000 pollers freed while others use them", freed_while_used},
    {"words for the thread's last error", words},
};

/* ---- What needs no engine ------------------------------------------------------------------ */

static void library(void)
{
    omni_poller *poller = NULL;
    char version[32];
    OK(omni_version() >= OMNI_VERSION);
    IS(OMNI_VERSION, OMNI_VERSION_MAJOR << 24 | OMNI_VERSION_MINOR << 16 | OMNI_VERSION_PATCH << 8);
    snprintf(version, sizeof version, "%d.%d.%d", OMNI_VERSION_MAJOR, OMNI_VERSION_MINOR, OMNI_VERSION_PATCH);
    OK(!strcmp(version, OMNI_VERSION_STRING));
    snprintf(version, sizeof version, "%u.%u.%u", (unsigned)(omni_version() >> 24),
             (unsigned)(omni_version() >> 16 & 0xff), (unsigned)(omni_version() >> 8 & 0xff));
    OK(!strcmp(version, omni_version_string()));
    for (uint32_t engine = OMNI_ENGINE_AUTO; engine <= OMNI_ENGINE_KQUEUE; engine++)
        IS(omni_engine_by_name(omni_engine_name(engine)), engine);
    const char *const no_engines[] = {NULL, "", "Epoll", "epoll ", "uring", "\xff"};
    for (size_t i = 0; i < sizeof no_engines / sizeof *no_engines; i++)
        IS(omni_engine_by_name(no_engines[i]), -EINVAL);
    IS(omni_engine_available(OMNI_ENGINE_AUTO), 1);
    IS(omni_engine_available(OMNI_ENGINE_KQUEUE), 0);
    IS(omni_poller_new(OMNI_ENGINE_KQUEUE, 0, &poller), -ENOSYS);
    const uint32_t unknown[] = {6, 1000, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        IS(omni_engine_available(unknown[i]), 0);
        OK(omni_engine_name(unknown[i]) == NULL);
        IS(omni_poller_new(unknown[i], 0, &poller), -EINVAL);
        IS(omni_poller_new(OMNI_ENGINE_AUTO, unknown[i] | 8, &poller), -EINVAL);
    }
    OK(poller == NULL);

    IS(setenv("OMNIPOLL_ENGINE", "poll", 1), 0);
    poller = new_poller(OMNI_ENGINE_AUTO);
    IS(omni_poller_engine(poller), OMNI_ENGINE_POLL);
    omni_poller_free(poller);
    IS(setenv("OMNIPOLL_ENGINE", "nonsense", 1), 0);
    IS(omni_poller_new(OMNI_ENGINE_AUTO, 0, &poller), -EINVAL);
    IS(unsetenv("OMNIPOLL_ENGINE"), 0);

    OK(!strcmp(omni_strerror(-EEXIST), omni_strerror(EEXIST)));
    OK(strstr(omni_strerror(-ESTALE), "stale"));
    const int errors[] = {0, -EPIPE, -99999, INT_MIN, INT_MAX};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        OK(*omni_strerror(errors[i]));
    printf("ok  versions, engines, and words for errors\n");
}

int main(void)
{
    library();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
