/* What the programs in C measure with: a clock, a core, random numbers, and figures in JSON. */
#ifndef MEASURE_H
#define MEASURE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_TURNS = 10000 };

static inline void must(int condition, const char *what) {
    if (!condition) {
        perror(what);
        exit(1);
    }
}

static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* Marsaglia's xorshift: always the same numbers. */
static inline uint64_t drawn(uint64_t end) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 8) % end;
}

static inline int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The mean of the middle half: as steady as the median, and finer than the clock's steps. */
static inline double middle(double *values, int count) {
    double sum = 0;
    int first = count / 4, end = count - first;
    qsort(values, (size_t)count, sizeof *values, ascending);
    for (int i = first; i < end; i++)
        sum += values[i];
    return sum / (end - first);
}

/* The last core it may run on, for the first takes most interrupts. */
static inline void settle_down(void) {
    cpu_set_t allowed, one;
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

static inline int may_open(rlim_t wanted) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= wanted)
        return 1;
    limit.rlim_cur = wanted;
    if (limit.rlim_max < wanted)
        limit.rlim_max = wanted;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* One figure of each turn. */
struct figure {
    const char *name;
    double values[MAX_TURNS];
};

/* A line of JSON: what one contender came to. */
static inline void report(const char *contender, const struct figure *figures, int count, int turns) {
    printf("{\"contender\": \"%s\", \"figures\": {", contender);
    for (int i = 0; i < count; i++) {
        printf("%s\"%s\": [", i > 0 ? ", " : "", figures[i].name);
        for (int turn = 0; turn < turns; turn++)
            printf("%s%.2f", turn > 0 ? ", " : "", figures[i].values[turn]);
        printf("]");
    }
    printf("}}\n");
}

#endif
