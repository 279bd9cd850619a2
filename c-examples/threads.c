/*
 * threads.c: worker threads hand their results to the thread that waits.
 *
 * The workers count primes, each one range of numbers after the other, and post what they have
 * found; the main thread adds it up. In a server it would serve its clients in the same wait.
 *
 * Shows, on each engine:
 *  - omni_poller_post from any thread: each post is returned once, and those of one thread in their order;
 *  - a post's value may be a pointer: the thread that takes it owns what it points to. What was
 *    written before the post is seen after the wait, without a lock of ours;
 *  - what a worker does when the queue is full (65,536 posts): it posts again later.
 *
 * Build:  cc -std=c11 -O2 -pthread -o threads threads.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./threads
 */
#include <errno.h>
#include <omnipoll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORKERS = 4, BATCH = 16, RANGE = 1000, LIMIT = 200000 };

static const int64_t FOREVER = -1;

struct result {
    int begin;      /* of the range */
    int primes;     /* in it */
};

static omni_poller *poller;
static atomic_int next_begin;

/* For the functions of omnipoll, whose messages name the function. */
static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "threads: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
}

static bool is_prime(int number)
{
    for (int divisor = 2; divisor * divisor <= number; divisor++)
        if (number % divisor == 0)
            return false;
    return number >= 2;
}

static struct result *count_primes(int begin)
{
    struct result *result = malloc(sizeof *result);

    if (result == NULL) {
        fprintf(stderr, "threads: out of memory\n");
        exit(EXIT_FAILURE);
    }
    *result = (struct result){ .begin = begin };
    for (int number = begin; number < begin + RANGE; number++)
        result->primes += is_prime(number);
    return result;
}

/* Gives a result away; NULL says that no more come. */
static void post(uint64_t worker, struct result *result)
{
    int posted;

    while ((posted = omni_poller_post(poller, worker, (intptr_t)result)) == -EAGAIN)
        sched_yield(); /* the main thread is behind */
    check(posted);
}

static void *work(void *argument)
{
    uint64_t worker = (uintptr_t)argument;
    int begin;

    while ((begin = atomic_fetch_add(&next_begin, RANGE)) < LIMIT)
        post(worker, count_primes(begin));
    post(worker, NULL);
    return NULL;
}

/* Takes the results until every worker has said that no more come. */
static void collect(int *results, int *primes, bool *in_order)
{
    int last_begin[WORKERS] = { -1, -1, -1, -1 };

    for (int working = WORKERS; working > 0;) {
        omni_event events[BATCH];
        int count = omni_poller_wait(poller, events, BATCH, FOREVER);
        check(count);
        for (int i = 0; i < count; i++) {
            struct result *result = (struct result *)(intptr_t)events[i].value;
            if (result == NULL) {
                working--;
                continue;
            }
            int *last = &last_begin[events[i].token];
            *in_order = *in_order && *last < result->begin;
            *last = result->begin;
            *primes += result->primes;
            ++*results;
            free(result);
        }
    }
}

static void show(uint32_t engine)
{
    pthread_t threads[WORKERS];
    int results = 0, primes = 0;
    bool in_order = true;

    check(omni_poller_new(engine, 0, &poller));
    next_begin = 0;
    for (uintptr_t worker = 0; worker < WORKERS; worker++)
        if (pthread_create(&threads[worker], NULL, work, (void *)worker) != 0) {
            fprintf(stderr, "threads: no thread\n");
            exit(EXIT_FAILURE);
        }
    collect(&results, &primes, &in_order);
    for (int worker = 0; worker < WORKERS; worker++)
        pthread_join(threads[worker], NULL);
    printf("%-8s  %7d  %6d  %s\n", omni_engine_name(engine), results, primes,
           in_order ? "yes" : "no");
    omni_poller_free(poller);
}

int main(void)
{
    printf("%-8s  %7s  %6s  %s\n", "engine", "results", "primes", "in order");
    for (uint32_t engine = OMNI_ENGINE_SELECT; engine <= OMNI_ENGINE_IO_URING; engine++)
        if (omni_engine_available(engine))
            show(engine);
    return EXIT_SUCCESS;
}
