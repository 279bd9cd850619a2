/*
 * query.c: a statement of SQL run on several connections at once, on each so many times in a pipeline, by
 * libpq on a loop (libpq_adapter.h). Prints how many connections there were, and how many rows, errors and
 * losses. WHERE is libpq's: "host=one,two port=5432,5433" tries the second host when the first refuses.
 *
 * Build:  cc -std=c11 -O2 -o query query.c $(pkg-config --cflags --libs omnipoll libpq)
 * Run:    ./query [--engine select|poll|epoll|io_uring] [--connections N] [--times N] [--timeout MS] WHERE SQL
 */
#define _GNU_SOURCE /* getopt_long */
#include "libpq_adapter.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 100 };

static omni_loop *loop;
static const char *statement;
static int times = 1, open_connections;
static long connected, rows, errors, losses;

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "query: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

static void end(struct libpq_adapter *adapter)
{
    libpq_adapter_finish(adapter);
    if (--open_connections == 0)
        omni_loop_stop(loop, 0);
}

static void on_connected(struct libpq_adapter *adapter)
{
    connected++;
    must(PQenterPipelineMode(adapter->connection), "PQenterPipelineMode");
    for (int i = 0; i < times; i++)
        must(PQsendQueryParams(adapter->connection, statement, 0, NULL, NULL, NULL, NULL, 0), "PQsendQueryParams");
    must(PQpipelineSync(adapter->connection), "PQpipelineSync");
    libpq_adapter_update(adapter);
}

static void on_result(struct libpq_adapter *adapter, PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK)
        rows += PQntuples(result);
    else if (status != PGRES_COMMAND_OK && status != PGRES_PIPELINE_SYNC) {
        fprintf(stderr, "query: %s", PQresultErrorMessage(result));
        errors++;
    }
    PQclear(result);
    if (status == PGRES_PIPELINE_SYNC)
        end(adapter); /* that was the last */
}

static void on_lost(struct libpq_adapter *adapter, int error)
{
    fprintf(stderr, "query: %s", error == -ETIMEDOUT ? "time is up\n" : PQerrorMessage(adapter->connection));
    losses++;
    end(adapter);
}

int main(int argc, char **argv)
{
    static const struct option names[] = {{"engine", 1, NULL, 'e'}, {"connections", 1, NULL, 'c'},
                                          {"times", 1, NULL, 'n'}, {"timeout", 1, NULL, 't'}, {0}};
    static struct libpq_adapter adapters[MOST];
    omni_loop_options options = {.size = sizeof options};
    int64_t timeout_ns = 0;
    int connections = 1;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'e': options.engine = (uint32_t)omni_engine_by_name(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 'n': times = atoi(optarg); break;
        case 't': timeout_ns = atol(optarg) * INT64_C(1000000); break;
        default: return EXIT_FAILURE;
        }
    must(argc == optind + 2 && 0 < connections && connections <= MOST, "WHERE and SQL, 1 to 100 connections");
    statement = argv[optind + 1];
    must(omni_loop_new(&options, &adapter_handler, &loop) == 0, omni_last_error());
    for (; open_connections < connections; open_connections++) {
        struct libpq_adapter *adapter = &adapters[open_connections];
        *adapter = (struct libpq_adapter){.on_connected = on_connected, .on_result = on_result, .on_lost = on_lost};
        must(libpq_adapter_connect(adapter, loop, argv[optind], timeout_ns) == 0, PQerrorMessage(adapter->connection));
    }
    must(omni_loop_run(loop) == 0, omni_last_error());
    for (int i = 0; i < connections; i++)
        must(adapters[i].base.error == 0, omni_strerror(adapters[i].base.error));
    omni_loop_free(loop);
    printf("%ld connections, %ld rows, %ld errors, %ld losses\n", connected, rows, errors, losses);
    return errors + losses > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
