/*
 * bigfd.c: descriptors past 1024, on select too.
 *
 * An fd_set ends at FD_SETSIZE, which is 1024, and a program that puts a larger descriptor
 * into one writes outside it. The system call knows no such limit: it reads as many bits as
 * its first argument says. omnipoll makes its sets as large as the highest descriptor needs.
 *
 * Build:  cc -std=c11 -O2 -o bigfd bigfd.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./bigfd
 */
#define _GNU_SOURCE /* dup3, pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <omnipoll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>

static const int64_t TIMEOUT_NS = INT64_C(5000000000);
static const int DESCRIPTORS[] = { FD_SETSIZE - 1, FD_SETSIZE, 1500, 5000 };
enum { HIGHEST = 5000 };

/* For the functions of omnipoll, whose messages name the function. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "bigfd: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

/* For the functions of the system. */
static void check_system(ssize_t result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "bigfd: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
}

/* Lets this process have descriptors up to `highest`, if the hard limit does. */
static void raise_limit(rlim_t highest)
{
    struct rlimit limit;

    check_system(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    if (limit.rlim_cur <= highest) {
        limit.rlim_cur = highest + 1;
        check_system(setrlimit(RLIMIT_NOFILE, &limit), "the limit of open files is too low");
    }
}

/* Watches a pipe's read end under the number `fd` while a byte lies in the pipe. */
static void show(uint32_t engine, int fd)
{
    omni_poller *poller;
    omni_event event;
    int ends[2];

    check(omni_poller_new(engine, 0, &poller));
    check_system(pipe2(ends, O_CLOEXEC), "pipe2");
    check_system(dup3(ends[0], fd, O_CLOEXEC), "dup3");
    check(omni_poller_add(poller, fd, OMNI_READ, 0));
    check_system(write(ends[1], "x", 1), "write");

    int count = omni_poller_wait(poller, &event, 1, TIMEOUT_NS);
    check(count);
    if (count == 0)
        printf("%-8s %10d  nothing\n", omni_engine_name(engine), fd);
    else
        printf("%-8s %10d  %s on %" PRId64 "\n", omni_engine_name(engine), fd,
               event.ready == OMNI_READ ? "READ" : "something else", event.value);

    check(omni_poller_remove(poller, fd));
    close(fd);
    close(ends[0]);
    close(ends[1]);
    omni_poller_free(poller);
}

int main(void)
{
    raise_limit(HIGHEST);
    printf("FD_SETSIZE is %d\n", FD_SETSIZE);
    printf("%-8s %10s  %s\n", "engine", "descriptor", "the wait returned");
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++)
        for (size_t i = 0; omni_engine_available(engine) && i < sizeof DESCRIPTORS / sizeof *DESCRIPTORS; i++)
            show(engine, DESCRIPTORS[i]);
    return EXIT_SUCCESS;
}
