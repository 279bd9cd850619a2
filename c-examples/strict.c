/*
 * strict.c: the mistakes that strict mode finds, and what it says of each.
 *
 * OMNI_STRICT makes a poller look for what people get wrong with these system calls. Each
 * function below makes one mistake; the comment says what is right. What is found goes to a
 * callback here. Without one it is a line on stderr, and
 *     OMNIPOLL_STRICT=1 ./program
 * does that for a program that knows nothing of it. It is for development: every wait asks the
 * system about every descriptor, and a thread that waits gets up now and then to look.
 *
 * Build:  cc -std=c11 -O2 -o strict strict.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./strict
 */
#define _GNU_SOURCE /* nanosleep, SOCK_NONBLOCK */
#include <errno.h>
#include <fcntl.h>
#include <omnipoll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int64_t FOREVER = -1;
static const int64_t LOOK = 0;
static const uint64_t TOKEN = 42;

struct mistake {
    const char *name;
    uint32_t kind;                              /* of the finding */
    void (*make)(omni_poller *, int ours, int theirs);
};

struct audience {
    omni_poller *poller;
    const char *engine;
    const struct mistake *mistake;
};

/* For the functions of omnipoll, whose messages name the function. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "strict: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* For the functions of the system. */
static void check_system(ssize_t result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "strict: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static int wait_once(omni_poller *poller, int64_t timeout_ns)
{
    omni_event event;
    int count = omni_poller_wait(poller, &event, 1, timeout_ns);

    check(count);
    return count;
}

static void print(const struct audience *audience, const char *words)
{
    printf("%-8s  %-17s  %s\n", audience->engine, audience->mistake->name, words);
    fflush(stdout);
}

/* The callback. It may use the poller: here it ends the wait that nothing else would end. (What
 * omni_poller_free finds comes too late for that: -ESTALE.) */
static void said(const omni_finding *finding, void *context)
{
    struct audience *audience = context;

    /* On a busy machine any loop is blocked at times. */
    if (finding->kind == OMNI_FINDING_BLOCKED_LOOP && audience->mistake->kind != finding->kind)
        return;
    print(audience, finding->words);
    omni_poller_wake(audience->poller);
}

/* Right: O_NONBLOCK, for only a read that can return EAGAIN shows that everything was read. */
static void blocking_edge(omni_poller *poller, int ours, int theirs)
{
    (void)theirs;
    check_system(fcntl(ours, F_SETFL, 0), "fcntl");
    check(omni_poller_add(poller, ours, OMNI_READ | OMNI_EDGE, TOKEN));
    check(omni_poller_remove(poller, ours));
}

/* Right: read until EAGAIN, and then omni_poller_rearm. */
static void undrained_edge(omni_poller *poller, int ours, int theirs)
{
    char byte;

    check(omni_poller_add(poller, ours, OMNI_READ | OMNI_EDGE, TOKEN));
    check_system(write(theirs, "two", 2), "write");
    wait_once(poller, FOREVER);
    check_system(read(ours, &byte, 1), "read");
    wait_once(poller, FOREVER);
    check(omni_poller_remove(poller, ours));
}

/* Right: omni_poller_modify when the event is dealt with. */
static void forgotten_oneshot(omni_poller *poller, int ours, int theirs)
{
    check(omni_poller_add(poller, ours, OMNI_READ | OMNI_ONESHOT, TOKEN));
    check_system(write(theirs, "x", 1), "write");
    wait_once(poller, FOREVER);
    for (int i = 0; i < 16; i++)
        wait_once(poller, LOOK); /* it may still be dealt with */
    wait_once(poller, FOREVER);
    check(omni_poller_remove(poller, ours));
}

/* Right: omni_poller_remove before close. */
static void closed(omni_poller *poller, int ours, int theirs)
{
    int spare = dup(ours);

    (void)theirs;
    check_system(spare, "dup");
    check(omni_poller_add(poller, ours, OMNI_READ, TOKEN));
    close(ours);
    wait_once(poller, LOOK);
    omni_poller_remove(poller, ours); /* too late: select and poll have noticed */
    check_system(dup2(spare, ours), "dup2");
    close(spare);
}

/* Right: as before. What has the number now must not get the events of what had it. */
static void reused(omni_poller *poller, int ours, int theirs)
{
    check(omni_poller_add(poller, ours, OMNI_READ, TOKEN));
    check_system(dup2(theirs, ours), "dup2"); /* as close and an open that gets the number */
    wait_once(poller, LOOK);
    omni_poller_remove(poller, ours);
}

/* Right: OMNI_WRITE only as long as a write has said EAGAIN. */
static void busy_writer(omni_poller *poller, int ours, int theirs)
{
    (void)theirs;
    check(omni_poller_add(poller, ours, OMNI_READ | OMNI_WRITE, TOKEN));
    for (int i = 0; i < 1000; i++)
        wait_once(poller, FOREVER);
    check(omni_poller_remove(poller, ours));
}

/* Right: what takes long is another thread's work, which omni_poller_post brings back. */
static void blocked_loop(omni_poller *poller, int ours, int theirs)
{
    const struct timespec long_work = { .tv_nsec = 150 * 1000 * 1000 };
    char byte;

    check(omni_poller_add(poller, ours, OMNI_READ, TOKEN));
    check_system(write(theirs, "x", 1), "write");
    wait_once(poller, FOREVER);
    check_system(read(ours, &byte, 1), "read");
    nanosleep(&long_work, NULL);
    wait_once(poller, LOOK);
    check(omni_poller_remove(poller, ours));
}

/* Right: omni_poller_after_fork, or omni_poller_free, before anything else. */
static void forked_child(omni_poller *poller, int ours, int theirs)
{
    pid_t pid;

    (void)ours;
    (void)theirs;
    fflush(stdout);
    pid = fork();
    check_system(pid, "fork");
    if (pid == 0) {
        omni_event event;
        _exit(omni_poller_wait(poller, &event, 1, LOOK) == -EOWNERDEAD ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    check_system(waitpid(pid, NULL, 0), "waitpid");
}

/* Right: omni_poller_remove. */
static void leaked(omni_poller *poller, int ours, int theirs)
{
    (void)theirs;
    check(omni_poller_add(poller, ours, OMNI_READ, TOKEN));
}

/* All as it should be. */
static void no_mistake(omni_poller *poller, int ours, int theirs)
{
    char bytes[16];

    check(omni_poller_add(poller, ours, OMNI_READ | OMNI_EDGE, TOKEN));
    check_system(write(theirs, "x", 1), "write");
    wait_once(poller, FOREVER);
    while (read(ours, bytes, sizeof bytes) > 0)
        ;
    check(omni_poller_rearm(poller, ours, OMNI_READ));
    wait_once(poller, LOOK);
    check(omni_poller_remove(poller, ours));
}

static const struct mistake MISTAKES[] = {
    { "blocking EDGE", OMNI_FINDING_BLOCKING_EDGE, blocking_edge },
    { "undrained EDGE", OMNI_FINDING_UNDRAINED, undrained_edge },
    { "forgotten ONESHOT", OMNI_FINDING_FORGOTTEN_ONESHOT, forgotten_oneshot },
    { "closed", OMNI_FINDING_CLOSED, closed },
    { "number reused", OMNI_FINDING_REUSED, reused },
    { "busy writer", OMNI_FINDING_BUSY_WRITER, busy_writer },
    { "blocked loop", OMNI_FINDING_BLOCKED_LOOP, blocked_loop },
    { "forked child", OMNI_FINDING_FORKED_CHILD, forked_child },
    { "leaked", OMNI_FINDING_LEAKED, leaked },
    { "none", 0, no_mistake },
};

int main(void)
{
    printf("%-8s  %-17s  %s\n", "engine", "mistake", "what is said");
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++)
        for (size_t i = 0; omni_engine_available(engine) && i < sizeof MISTAKES / sizeof *MISTAKES; i++) {
            struct audience audience = { .engine = omni_engine_name(engine), .mistake = &MISTAKES[i] };
            int ends[2];
            check(omni_poller_new(engine, OMNI_STRICT, &audience.poller));
            check(omni_poller_on_finding(audience.poller, said, &audience));
            check_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends),
                         "socketpair");
            MISTAKES[i].make(audience.poller, ends[0], ends[1]);
            if (MISTAKES[i].kind == 0)
                print(&audience, "nothing");
            omni_poller_free(audience.poller);
            close(ends[0]);
            close(ends[1]);
        }
    return EXIT_SUCCESS;
}
