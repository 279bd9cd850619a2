/*
 * proxy.c: a TCP proxy: every client is passed on to one of the backends, in turn.
 *
 * Shows:
 *  - connections out: omni_loop_connect, on the loop of the client that they are made for, so that both
 *    can be used in each other's callbacks. The server's handler is called for both;
 *  - omni_conn_relay: bytes, the end of a direction and resets go from one connection to the other,
 *    no faster than they are read there;
 *  - health: a backend that can't be connected to is left out for --retry seconds, unless all are, by
 *    all threads and processes of the server;
 *  - the PROXY protocol: --proxy-in requires its header of every client (proxy_header_ns), --proxy-out 1 or
 *    2 sends one to every backend (omni_conn_write_proxy_header);
 *  - a stop on SIGINT and SIGTERM: no new clients, and those that are there have DRAIN_NS to end.
 *
 * Build:  cc -std=c11 -O2 -o proxy proxy.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./proxy [--model reactor|cores|thread|fork|prefork] [--engine select|poll|epoll|io_uring]
 *                 [--proxy-in] [--proxy-out 1|2] [--retry SECONDS] LISTEN BACKEND...
 *         ./proxy 127.0.0.1:7000 127.0.0.1:7001 backend.example:80 unix:/path
 */
#define _GNU_SOURCE /* getopt_long, MAP_ANONYMOUS */
#include <errno.h>
#include <getopt.h>
#include <omnipoll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MAX_BACKENDS = 64 }; /* bits of what a client has tried */

#define SECOND INT64_C(1000000000)

static const int64_t DRAIN_NS = 30 * SECOND, CONNECT_NS = 5 * SECOND, HEADER_NS = 5 * SECOND;

/* A client and its backend: the context of both connections. */
struct session {
    omni_conn *client, *backend; /* NULL when it has ended, or is not there yet */
    bool is_relayed;
    unsigned current;      /* the backend's number */
    uint64_t tried;        /* backends, a bit for each */
};

/* What all threads and processes of the server have in common. */
static struct shared {
    atomic_uint next_backend;
    _Atomic int64_t down_until[MAX_BACKENDS]; /* 0: it was well when it was last tried */
} *shared;

static const char **backends; /* addresses */
static unsigned backend_count;
static int64_t retry_ns = 5 * SECOND;
static uint32_t proxy_out; /* 0: no header */

/* ---- Health ---------------------------------------------------------------------------------- */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static void set_up(unsigned number)
{
    if (shared->down_until[number] != 0 && atomic_exchange(&shared->down_until[number], 0) != 0)
        fprintf(stderr, "proxy: %s is up\n", backends[number]);
}

/* After a connection to it has failed. A shortage of this machine's says nothing of the backend. */
static void set_down(unsigned number, int error)
{
    const char *words = omni_last_error();
    bool is_ours = error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS
                   || error == -EADDRNOTAVAIL || error == -ECANCELED;
    if (is_ours)
        fprintf(stderr, "proxy: %s: %s\n", backends[number], words);
    else if (atomic_exchange(&shared->down_until[number], now_ns() + retry_ns) == 0)
        fprintf(stderr, "proxy: %s is down: %s\n", backends[number], words);
}

/* A backend that this client has not tried yet, in turn: one that is well if there is any. -1: none. */
static int choose(const struct session *session)
{
    unsigned first = atomic_fetch_add(&shared->next_backend, 1);
    int64_t now = now_ns();
    int last_resort = -1;
    for (unsigned i = 0; i < backend_count; i++) {
        unsigned number = (first + i) % backend_count;
        if (session->tried >> number & 1)
            continue;
        if (shared->down_until[number] <= now)
            return (int)number;
        if (last_resort < 0)
            last_resort = (int)number;
    }
    return last_resort;
}

/* ---- The backend's side ---------------------------------------------------------------------- */

static bool relay(struct session *session)
{
    omni_conn *client = session->client, *backend = session->backend;
    session->is_relayed = true;
    return (!proxy_out || omni_conn_write_proxy_header(backend, proxy_out, client) >= 0)
           && omni_conn_relay(client, backend) >= 0 && omni_conn_relay(backend, client) >= 0
           && omni_conn_resume(client) >= 0;
}

static void on_backend_open(struct session *session)
{
    set_up(session->current);
    if (!relay(session)) {
        omni_conn_abort(session->client);
        omni_conn_abort(session->backend);
    }
}

/* Connects to one backend after another, until one is being connected to. */
static void connect_next(struct session *session)
{
    omni_connect_options options = {.size = sizeof options, .timeout_ns = CONNECT_NS, .context = session};
    omni_loop *event_loop = omni_conn_loop(session->client);
    for (int number; (number = choose(session)) >= 0;) {
        session->tried |= UINT64_C(1) << number;
        session->current = (unsigned)number;
        int error = omni_loop_connect(event_loop, backends[number], &options, NULL, 0,
                                      &session->backend);
        if (error == 0)
            return;
        set_down(session->current, error);
    }
    omni_conn_abort(session->client);
}

/* The relay ends the client, too, if there was one already. */
static void on_backend_close(struct session *session, int error)
{
    session->backend = NULL;
    if (!session->is_relayed && session->client) {
        set_down(session->current, error);
        connect_next(session);
    }
}

/* ---- The client's side ----------------------------------------------------------------------- */

/* Nothing is read from the client until there is somebody to pass it on to. */
static int on_client_open(omni_conn *conn)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return -1;
    session->client = conn;
    omni_conn_set_context(conn, session);
    omni_conn_pause(conn);
    connect_next(session);
    return 0;
}

static void on_client_close(struct session *session)
{
    session->client = NULL;
    if (session->backend && !session->is_relayed)
        omni_conn_abort(session->backend);
}

/* ---- Both sides ------------------------------------------------------------------------------ */

/* A connection out has its context from the beginning. */
static int on_open(omni_conn *conn, void *context)
{
    struct session *session = omni_conn_context(conn);
    (void)context;
    if (!session)
        return on_client_open(conn);
    on_backend_open(session);
    return 0;
}

/* Also when the backend could not be connected to. */
static void on_close(omni_conn *conn, int error, void *context)
{
    struct session *session = omni_conn_context(conn);
    (void)context;
    if (conn == session->client)
        on_client_close(session);
    else
        on_backend_close(session, error);
    if (!session->client && !session->backend)
        free(session);
}

/* ---- The program ----------------------------------------------------------------------------- */

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "proxy: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

static int usage(void)
{
    fprintf(stderr, "usage: proxy [--model MODEL] [--engine ENGINE] [--proxy-in] [--proxy-out 1|2]\n"
                    "             [--retry SECONDS] LISTEN BACKEND...\n");
    return 2;
}

static int64_t nanoseconds(const char *seconds)
{
    char *end;
    double value = strtod(seconds, &end);
    if (end == seconds || *end || !(value >= 0 && value <= 1e9))
        exit(usage());
    return (int64_t)(value * 1e9);
}

static void serve(const omni_server_options *options, const char *address)
{
    omni_handler handler = {.size = sizeof handler, .on_open = on_open, .on_close = on_close};
    omni_server *server;
    char listening[256];
    check(omni_server_new(options, &handler, &server));
    check(omni_server_listen(server, address));
    check(omni_server_address(server, listening, sizeof listening));
    printf("listening on %s\n", listening);
    fflush(stdout);
    check(omni_server_run(server));
    omni_server_free(server);
}

int main(int argc, char **argv)
{
    static const struct option names[] = {{"model", 1, NULL, 'm'},    {"engine", 1, NULL, 'e'},
                                          {"proxy-in", 0, NULL, 'i'}, {"proxy-out", 1, NULL, 'o'},
                                          {"retry", 1, NULL, 'r'},    {0}};
    omni_server_options options = {
        .size = sizeof options, .flags = OMNI_SERVER_SIGNALS, .drain_ns = DRAIN_NS};
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'm': options.model = (uint32_t)check(omni_model_by_name(optarg)); break;
        case 'e': options.engine = (uint32_t)check(omni_engine_by_name(optarg)); break;
        case 'i': options.proxy_header_ns = HEADER_NS; break;
        case 'o':
            if (strcmp(optarg, "1") != 0 && strcmp(optarg, "2") != 0)
                return usage();
            proxy_out = (uint32_t)(optarg[0] - '0');
            break;
        case 'r': retry_ns = nanoseconds(optarg); break;
        default: return usage();
        }
    if (argc - optind < 2 || argc - optind - 1 > MAX_BACKENDS)
        return usage();
    backends = (const char **)argv + optind + 1;
    backend_count = (unsigned)(argc - optind - 1);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return EXIT_FAILURE;
    serve(&options, argv[optind]);
    return EXIT_SUCCESS;
}
