/*
 * supervise.c: a supervisor. It starts each program again when it has ended, prints what it writes with
 * its name before each line, and ends them all by SIGTERM when it gets one itself.
 *
 * A COMMAND is a program and its arguments. One that has ended is started again after a second, after
 * two, four and so on to a minute when it keeps ending soon; after TIMES starts, if that is set in the
 * environment, no more. Everything is an event of one loop, which is pulled: output, ends, timers and
 * signals.
 *
 * Build: cc -std=c11 -O2 -o supervise supervise.c $(pkg-config --cflags --libs omnipoll)
 * Run: ./supervise COMMAND [-- COMMAND]...
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include <omnipoll.h>

#define MOST 64
#define SECOND 1000000000ll
#define LONGEST (60 * SECOND)
#define STOP_TOKEN MOST

struct program {
    const char *const *arguments;
    int pid;            /* 0 when it does not run */
    int streams;        /* how many of its streams are open */
    long starts;
    int64_t delay_ns;
    time_t began;
    char line[4096];    /* what it has written of its next line */
    size_t length;
};

static struct program programs[MOST];
static unsigned count;
static int stopping;
static long most_starts;

static void fail(const char *what, int error) {
    fprintf(stderr, "supervise: %s: %s\n", what, error < 0 ? omni_last_error() : "failed");
    exit(1);
}

/* The words between two "--". */
static void parse(char **arguments) {
    while (*arguments != NULL && count < MOST) {
        programs[count++].arguments = (const char *const *)arguments;
        while (*arguments != NULL && strcmp(*arguments, "--") != 0) {
            arguments++;
        }
        if (*arguments != NULL) {
            *arguments++ = NULL;
        }
    }
}

static void start_later(omni_loop *loop, struct program *program) {
    int error = omni_poller_timer_add(omni_loop_poller(loop), program->delay_ns, 0,
                                      (uint64_t)(program - programs), NULL);
    if (error < 0) {
        fail("timer", error);
    }
}

static void start(omni_loop *loop, struct program *program) {
    omni_spawn_options options = {.size = sizeof options, .flags = OMNI_SPAWN_STDOUT | OMNI_SPAWN_STDERR};
    omni_spawned spawned;
    int error;

    if (stopping || (most_starts > 0 && program->starts >= most_starts)) {
        return;
    }
    program->starts++;
    program->began = time(NULL);
    error = omni_loop_spawn(loop, program->arguments, &options, NULL, (uint64_t)(program - programs), &spawned);
    if (error < 0) {
        printf("%s: %s\n", program->arguments[0], omni_last_error());
        program->delay_ns = program->delay_ns == 0 ? SECOND : 2 * program->delay_ns;
        start_later(loop, program);
        return;
    }
    program->pid = spawned.pid;
    program->streams = 2;
}

/* Prints whole lines, and what is longer than a line may be in pieces. */
static void print(struct program *program, const char *data, size_t length, int is_last) {
    while (length > 0) {
        const char *end = memchr(data, '\n', length);
        size_t part = end != NULL ? (size_t)(end - data) : length;
        size_t room = sizeof program->line - program->length;

        if (part > room) {
            part = room;
            end = NULL;
        }
        memcpy(program->line + program->length, data, part);
        program->length += part;
        data += part + (end != NULL);
        length -= part + (end != NULL);
        if (end != NULL || program->length == sizeof program->line) {
            printf("%s: %.*s\n", program->arguments[0], (int)program->length, program->line);
            program->length = 0;
        }
    }
    if (is_last && program->length > 0) {
        printf("%s: %.*s\n", program->arguments[0], (int)program->length, program->line);
        program->length = 0;
    }
    fflush(stdout);
}

static void ended(omni_loop *loop, struct program *program, int status) {
    int was_soon = time(NULL) - program->began < 10;

    if (WIFSIGNALED(status)) {
        printf("%s: ended by signal %d\n", program->arguments[0], WTERMSIG(status));
    } else {
        printf("%s: ended with status %d\n", program->arguments[0], WEXITSTATUS(status));
    }
    fflush(stdout);
    program->pid = 0;
    program->delay_ns = was_soon && program->delay_ns > 0 ? 2 * program->delay_ns : SECOND;
    if (program->delay_ns > LONGEST) {
        program->delay_ns = LONGEST;
    }
    start_later(loop, program);
}

static void stop(void) {
    unsigned i;

    stopping = 1;
    for (i = 0; i < count; i++) {
        if (programs[i].pid > 0) {
            kill(programs[i].pid, SIGTERM);
        }
    }
}

static int is_over(void) {
    unsigned i, over = 0;

    for (i = 0; i < count; i++) {
        int is_done = stopping || (most_starts > 0 && programs[i].starts >= most_starts);
        over += is_done && programs[i].pid == 0 && programs[i].streams == 0;
    }
    return over == count;
}

static void handle(omni_loop *loop, const omni_loop_event *event, const char *data) {
    struct program *program = event->token < count ? &programs[event->token] : NULL;

    switch (event->kind) {
    case OMNI_EVENT_SIGNAL:
        stop();
        break;
    case OMNI_EVENT_TIMER:
        start(loop, program);
        break;
    case OMNI_EVENT_CHILD:
        ended(loop, program, (int)event->value);
        break;
    case OMNI_EVENT_DATA:
        print(program, data + event->offset, event->length, 0);
        break;
    case OMNI_EVENT_ENDED:
        omni_conn_close((omni_conn *)(uintptr_t)event->value);
        break;
    case OMNI_EVENT_CLOSED:
        program->streams--;
        print(program, NULL, 0, 1);
        break;
    default:
        break;
    }
}

int main(int argc, char **argv) {
    omni_loop_event events[64];
    const char *times = getenv("TIMES");
    omni_loop *loop;
    const uint8_t *data;
    size_t size;
    unsigned i;
    int error;

    most_starts = times != NULL ? atol(times) : 0;
    parse(argv + 1);
    if (argc < 2 || count == 0) {
        fprintf(stderr, "usage: supervise COMMAND [-- COMMAND]...\n");
        return 2;
    }
    error = omni_loop_new(NULL, NULL, &loop);
    if (error < 0) {
        fail("omni_loop_new", error);
    }
    omni_loop_buffer(loop, &data, &size);
    error = omni_poller_signal_add(omni_loop_poller(loop), SIGTERM, STOP_TOKEN);
    if (error == 0) {
        error = omni_poller_signal_add(omni_loop_poller(loop), SIGINT, STOP_TOKEN);
    }
    if (error < 0) {
        fail("signals", error);
    }
    for (i = 0; i < count; i++) {
        start(loop, &programs[i]);
    }
    while (!is_over()) {
        int found = omni_loop_wait(loop, events, 64, -1);
        int at;

        if (found < 0 && found != -EINTR) {
            fail("omni_loop_wait", found);
        }
        for (at = 0; at < found; at++) {
            handle(loop, &events[at], (const char *)data);
        }
    }
    omni_loop_free(loop);
    return 0;
}
