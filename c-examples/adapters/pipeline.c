/*
 * pipeline.c: a Redis server asked by several connections at once, each of which sends all of its commands
 * without waiting for a reply, by hiredis on a loop (hiredis_adapter.h). Prints how many replies came, how
 * many commands got none, and the highest number that INCR has returned.
 *
 * Build:  cc -std=c11 -O2 -o pipeline pipeline.c $(pkg-config --cflags --libs omnipoll hiredis)
 * Run:    ./pipeline [--engine select|poll|epoll|io_uring] [--connections N] [--commands N] [--timeout MS] PORT
 */
#define _GNU_SOURCE /* getopt_long */
#include "hiredis_adapter.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 1000 };

static omni_loop *loop;
static int commands = 100, open_connections;
static long replies, missing, highest;

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "pipeline: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

static void ended(void)
{
    if (--open_connections == 0)
        omni_loop_stop(loop, 0);
}

/* The last reply of a connection that has all of them ends it. */
static void on_reply(redisAsyncContext *context, void *answer, void *is_last)
{
    redisReply *reply = answer;
    if (reply == NULL || reply->type != REDIS_REPLY_INTEGER) {
        missing++;
        return;
    }
    replies++;
    if (reply->integer > highest)
        highest = (long)reply->integer;
    if (is_last != NULL)
        redisAsyncDisconnect(context);
}

/* One that could not be made is freed by hiredis, without on_disconnect. */
static void on_connect(const redisAsyncContext *context, int status)
{
    if (status != REDIS_OK) {
        fprintf(stderr, "pipeline: %s\n", context->errstr);
        ended();
    }
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
    if (status != REDIS_OK)
        fprintf(stderr, "pipeline: %s\n", context->errstr);
    ended();
}

static void begin(struct hiredis_adapter *adapter, int port, int64_t timeout_ns)
{
    redisAsyncContext *context = redisAsyncConnect("127.0.0.1", port);
    must(context != NULL && context->err == 0, "redisAsyncConnect");
    must(hiredis_adapter_attach(adapter, loop, context, timeout_ns) == 0, omni_last_error());
    redisAsyncSetConnectCallback(context, on_connect);
    redisAsyncSetDisconnectCallback(context, on_disconnect);
    open_connections++;
    for (int i = 1; i <= commands; i++)
        redisAsyncCommand(context, on_reply, i == commands ? context : NULL, "INCR count");
}

int main(int argc, char **argv)
{
    static const struct option names[] = {{"engine", 1, NULL, 'e'}, {"connections", 1, NULL, 'c'},
                                          {"commands", 1, NULL, 'n'}, {"timeout", 1, NULL, 't'}, {0}};
    static struct hiredis_adapter adapters[MOST];
    omni_loop_options options = {.size = sizeof options};
    int connections = 1;
    int64_t timeout_ns = 0;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'e': options.engine = (uint32_t)omni_engine_by_name(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 'n': commands = atoi(optarg); break;
        case 't': timeout_ns = atol(optarg) * INT64_C(1000000); break;
        default: return EXIT_FAILURE;
        }
    must(argc == optind + 1 && 0 < connections && connections <= MOST && commands > 0, "one port, 1 to 1000 connections");
    must(omni_loop_new(&options, &adapter_handler, &loop) == 0, omni_last_error());
    for (int i = 0; i < connections; i++)
        begin(&adapters[i], atoi(argv[optind]), timeout_ns);
    must(omni_loop_run(loop) == 0, omni_last_error());
    for (int i = 0; i < connections; i++)
        must(adapters[i].base.error == 0, omni_strerror(adapters[i].base.error));
    omni_loop_free(loop);
    printf("%ld replies, %ld missing, highest %ld\n", replies, missing, highest);
    return missing > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
