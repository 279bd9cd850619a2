/*
 * closed.c: a descriptor is closed by another thread while this one waits for it.
 *
 * That is a mistake: omni_poller_remove comes before close. Straight on the system calls it has
 * three outcomes: select fails with EBADF for all descriptors, poll returns POLLNVAL at
 * once, again and again, and epoll is silent. The library cannot undo the mistake, but it keeps
 * the harm small and alike: the wait continues for the other descriptors and never spins.
 * Where the system reports the mistake (select and poll), the descriptor is reported once
 * as OMNI_INVALID and its registration is over. (When it is closed while select sleeps, Linux
 * first has select call it readable, for a read would not block: it fails. The next wait
 * reports.) epoll drops a descriptor that is closed without reporting it; removing it
 * afterwards is still allowed. io_uring doesn't report it either, and holds the file until
 * it is removed, so that the peer doesn't notice that it was closed.
 *
 * Build:  cc -std=c11 -O2 -pthread -o closed closed.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./closed
 */
#define _GNU_SOURCE /* pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <omnipoll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { READ_END, WRITE_END };
enum { TOKEN_CLOSED = 1, TOKEN_OTHER = 2 };
enum { TOO_MANY = 1000 };

static const int64_t FOREVER = -1;
static const int64_t QUIET_NS = 50 * 1000 * 1000;

struct pipes {
    int closed[2]; /* its read end is closed while it is waited for */
    int other[2];  /* this one must keep working */
};

/* For the functions of omnipoll, whose messages name the function. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "closed: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* For the functions of the system. */
static void check_system(ssize_t result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "closed: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static void *close_one_write_other(void *argument)
{
    /* Most likely the wait has begun by then. If not, what it returns is still the same. */
    const struct timespec a_while = { .tv_nsec = 20 * 1000 * 1000 };
    const struct pipes *pipes = argument;

    nanosleep(&a_while, NULL);
    close(pipes->closed[READ_END]);
    check_system(write(pipes->other[WRITE_END], "x", 1), "write");
    return NULL;
}

/* Waits until nothing more comes, and counts the events of each of the two. */
static void count_events(omni_poller *poller, const struct pipes *pipes, int *invalid, int *other)
{
    int waits = 0;

    *invalid = *other = 0;
    for (;;) {
        omni_event events[8];
        int count = omni_poller_wait(poller, events, 8, *other == 0 ? FOREVER : QUIET_NS);
        check(count);
        if (count == 0)
            return;
        if (++waits > TOO_MANY) {
            fprintf(stderr, "closed: the wait spins\n");
            exit(EXIT_FAILURE);
        }
        for (int i = 0; i < count; i++) {
            char byte;
            if (events[i].token == TOKEN_OTHER) {
                check_system(read(pipes->other[READ_END], &byte, 1), "read");
                ++*other;
            } else if (events[i].ready & OMNI_INVALID) {
                ++*invalid;
            } /* else select's OMNI_READ, see above */
        }
    }
}

static void show(uint32_t engine)
{
    struct pipes pipes;
    omni_poller *poller;
    pthread_t thread;
    int invalid, other;

    check(omni_poller_new(engine, 0, &poller));
    check_system(pipe2(pipes.closed, O_CLOEXEC), "pipe2");
    check_system(pipe2(pipes.other, O_CLOEXEC), "pipe2");
    check(omni_poller_add(poller, pipes.closed[READ_END], OMNI_READ, TOKEN_CLOSED));
    check(omni_poller_add(poller, pipes.other[READ_END], OMNI_READ, TOKEN_OTHER));
    if (pthread_create(&thread, NULL, close_one_write_other, &pipes) != 0) {
        fprintf(stderr, "closed: no thread\n");
        exit(EXIT_FAILURE);
    }
    count_events(poller, &pipes, &invalid, &other);
    pthread_join(thread, NULL);

    int removed = omni_poller_remove(poller, pipes.closed[READ_END]);
    printf("%-9s INVALID x %-12d READ x %-8d %s\n", omni_engine_name(engine), invalid, other,
           removed == 0 ? "done" : removed == -ENOENT ? "not registered" : omni_strerror(removed));

    close(pipes.closed[WRITE_END]);
    close(pipes.other[READ_END]);
    close(pipes.other[WRITE_END]);
    omni_poller_free(poller);
}

int main(void)
{
    printf("%-9s %-22s %-15s %s\n", "engine", "closed descriptor", "the other one",
           "omni_poller_remove after it");
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++)
        if (omni_engine_available(engine))
            show(engine);
    return EXIT_SUCCESS;
}
