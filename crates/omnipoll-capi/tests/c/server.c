/* Servers, checked through the public header on every engine and under every model that applies:
 * options, handlers, statistics, broadcasts.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

/* ---- Making one ------------------------------------------------------------------------------ */

static int made(const omni_server_options *options, const omni_handler *handler)
{
    omni_server *server = (omni_server *)&server;
    int result = omni_server_new(options, handler, &server);
    if (result < 0)
        OK(server == (omni_server *)&server);
    else
        omni_server_free(server);
    return result;
}

static void bad_options(uint32_t engine)
{
    const omni_handler handler = {.size = sizeof handler};
    const omni_server_options good = {.size = sizeof good, .engine = engine};
    omni_server_options options = good;
    IS(made(&good, &handler), 0);
    IS(made(NULL, &handler), 0);
    IS(made(&good, NULL), -EINVAL);
    IS(omni_server_new(&good, &handler, NULL), -EINVAL);

#define REFUSED(field, bad, error)                 \
    (options = good, options.field = (bad));       \
    IS(made(&options, &handler), error)
    REFUSED(size, 0, -EINVAL);
    REFUSED(size, offsetof(omni_server_options, wait_ns) - 1, -EINVAL);
    REFUSED(size, 4097, -E2BIG); /* garbage: not read so far */
    REFUSED(size, UINT32_MAX, -E2BIG);
    REFUSED(model, 6, -EINVAL);
    REFUSED(engine, 77, -EINVAL);
    REFUSED(engine, OMNI_ENGINE_KQUEUE, -ENOSYS);
    REFUSED(flags, UINT32_C(1) << 31, -EINVAL);
    REFUSED(flags, OMNI_SERVER_REUSE_PORT | OMNI_SERVER_SHARE_PORT, -EINVAL);
    REFUSED(allow, "10.0.0.1/8", -EINVAL);
    REFUSED(multicast, "10.0.0.1", -EINVAL);
    REFUSED(keep_alive_idle, 1, -EINVAL);
    REFUSED(unix_mode, 01000, -EINVAL);
    REFUSED(deny, "\xff", -EINVAL);
    REFUSED(wait_policy, OMNI_WAIT_THRIFTY, -EINVAL);
    REFUSED(wait_ns, 1, -EINVAL);
    REFUSED(high_water, 1024, -EINVAL); /* below the default of the low mark */
    REFUSED(low_water, 1 << 20, -EINVAL);
#undef REFUSED

    const omni_handler unset = {.size = offsetof(omni_handler, on_datagram_error) - 1};
    IS(made(&good, &unset), -EINVAL);
    const omni_handler garbage = {.size = UINT32_MAX};
    IS(made(&good, &garbage), -E2BIG);
}

static void every_option(uint32_t engine)
{
    const omni_handler handler = {.size = sizeof handler};
    for (EVERY_MODEL(model)) {
        const omni_server_options options = {.size = sizeof options,
                                             .model = model,
                                             .engine = engine,
                                             .flags = OMNI_SERVER_SIGNALS | OMNI_SERVER_SHARE_PORT,
                                             .workers = 3,
                                             .max_clients = 10,
                                             .backlog = UINT32_MAX,
                                             .queue_limit = UINT64_MAX,
                                             .total_queue_limit = UINT64_MAX,
                                             .high_water = 2,
                                             .low_water = 1,
                                             .idle_timeout_ns = INT64_MAX,
                                             .read_timeout_ns = -1,
                                             .write_timeout_ns = 1,
                                             .linger_ns = -1,
                                             .drain_ns = -1,
                                             .proxy_header_ns = INT64_MAX,
                                             .max_address_clients = UINT32_MAX,
                                             .max_address_rate = UINT32_MAX,
                                             .allow = "127.0.0.0/8",
                                             .deny = "::/0",
                                             .max_receive_rate = UINT64_MAX,
                                             .keep_alive_idle = 60,
                                             .keep_alive_interval = 10,
                                             .keep_alive_count = 5,
                                             .defer_accept = 1,
                                             .fast_open = UINT32_MAX,
                                             .unix_mode = 0660,
                                             .receive_buffer = 20000,
                                             .multicast = "239.1.2.3"};
        omni_server *server = new_server(&options, &handler);
        IS(omni_server_engine(server), engine);
        IS(omni_server_model(server), model);
        IS(omni_server_workers(server), model == OMNI_MODEL_CORES || model == OMNI_MODEL_PREFORK ? 3 : 1);
        omni_server_free(server);
    }
}

static void structs_of_other_versions(uint32_t engine)
{
    struct {
        omni_server_options options;
        uint64_t more;
    } newer = {.options = {.size = sizeof newer, .engine = engine}};
    struct {
        omni_handler handler;
        void (*more)(void);
    } newer_handler = {.handler = {.size = sizeof newer_handler}};
    IS(made(&newer.options, &newer_handler.handler), 0);
    newer.more = 1;
    IS(made(&newer.options, &newer_handler.handler), -E2BIG);
    newer.more = 0;
    newer_handler.more = (void (*)(void))structs_of_other_versions;
    IS(made(&newer.options, &newer_handler.handler), -E2BIG);
}

static void names(uint32_t engine)
{
    (void)engine;
    const char *const names[] = {"reactor", "cores", "thread", "fork", "prefork"};
    for (EVERY_MODEL(model)) {
        OK(strcmp(omni_model_name(model), names[model - 1]) == 0);
        IS(omni_model_by_name(names[model - 1]), model);
    }
    OK(!omni_model_name(0) && !omni_model_name(6) && !omni_model_name(UINT32_MAX));
    IS(omni_model_by_name("Reactor"), -EINVAL);
    IS(omni_model_by_name(""), -EINVAL);
    IS(omni_model_by_name("\xff"), -EINVAL);
    IS(omni_model_by_name(NULL), -EINVAL);
}

static void no_server(uint32_t engine)
{
    (void)engine;
    omni_server_statistics stats = {.size = sizeof stats};
    omni_server *freed = new_server(NULL, &(omni_handler){.size = sizeof(omni_handler)});
    char byte;
    omni_server_free(freed);
    for (int i = 0; i < 2; i++) {
        omni_server *server = i ? freed : NULL;
        int error = i ? -ESTALE : -EINVAL;
        IS(omni_server_listen(server, "127.0.0.1:0"), error);
        IS(omni_server_address(server, &byte, 1), error);
        IS(omni_server_run(server), error);
        IS(omni_server_stop(server, 0), error);
        IS(omni_server_broadcast(server, "", 0), error);
        IS(omni_server_broadcast_except(server, "", 0, NULL), error);
        IS(omni_server_broadcast_group(server, "group", "", 0, NULL), error);
        IS(omni_server_stats(server, 0, &stats), error);
        IS(omni_server_workers(server), error);
        IS(omni_server_dup_listener(server, 0), error);
        IS(omni_server_keep_files(server), error);
        IS(omni_server_engine(server), 0);
        IS(omni_server_model(server), 0);
        omni_server_free(server);
    }
    OK(strstr(omni_last_error(), "omni_server_free: the handle is stale"));
}

static void too_many(uint32_t engine)
{
    enum { MOST = 1024 };
    static omni_server *servers[MOST];
    const omni_handler handler = {.size = sizeof handler};
    const omni_server_options options = {.size = sizeof options, .engine = engine};
    int count = 0, result;
    while (count < MOST && (result = omni_server_new(&options, &handler, &servers[count])) == 0)
        count++;
    /* The limit of descriptors may come first. */
    IS(made(&options, &handler), -EMFILE);
    while (count > 0)
        omni_server_free(servers[--count]);
    IS(made(&options, &handler), 0);
}

/* ---- Serving --------------------------------------------------------------------------------- */

static void serves(uint32_t engine)
{
    enum { CLIENTS = 20 };
    for (EVERY_MODEL(model)) {
        int before = open_descriptors();
        struct service service;
        int clients[CLIENTS];
        serve(&service, engine, model, noting(echo));
        for (int i = 0; i < CLIENTS; i++)
            clients[i] = client();
        for (int round = 0; round < 3; round++)
            for (int i = 0; i < CLIENTS; i++) {
                send_text(clients[i], "hello");
                receive(clients[i], "hello");
            }
        IS(seen->opened, CLIENTS);
        IS(seen->closed, 0);
        for (int i = 0; i < CLIENTS; i++)
            close(clients[i]);
        UNTIL(seen->closed == CLIENTS);
        IS(seen->ended, CLIENTS);
        IS(seen->error, 0);
        finish(&service);
        IS(seen->closed, CLIENTS);
        IS(seen->stopped, 0);
        IS(open_descriptors(), before);
    }
}

/* Without a callback: clients are taken, their data is thrown away, and their end is ours. */
static void nothing_to_call(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        serve(&service, engine, model, (omni_handler){.size = sizeof(omni_handler)});
        int fd = client();
        send_text(fd, "to no client");
        IS(shutdown(fd, SHUT_WR), 0);
        IS(receive_end(fd), 0);
        close(fd);
        finish(&service);
    }
}

static int refuse(omni_conn *conn, void *context)
{
    note_open(conn, context);
    OK(omni_conn_write(conn, "full", 4) >= 0);
    return -1;
}

static void refuses(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        omni_handler handler = noting(echo);
        handler.on_open = refuse;
        serve(&service, engine, model, handler);
        int fd = client();
        receive(fd, "full");
        IS(receive_end(fd), 0);
        close(fd);
        if (service.server) {
            omni_server_statistics stats = {.size = sizeof stats};
            UNTIL(omni_server_stats(service.server, UINT32_MAX, &stats) == 0 && stats.active == 0);
            IS(stats.accepted, 1);
            IS(stats.refused, 1);
        }
        finish(&service);
        IS(seen->opened, 1);
        IS(seen->closed, 0);
    }
}

static void counts(uint32_t engine)
{
    struct {
        omni_server_statistics stats;
        uint64_t more;
    } newer = {.stats = {.size = sizeof newer}, .more = 42};
    for (MODELS_HERE(model)) {
        struct service service;
        omni_server_statistics total = {.size = sizeof total}, one = {.size = sizeof one};
        uint64_t accepted = 0;
        serve_with(&service, engine, model, noting(echo), (omni_server_options){.workers = 2});
        int fd = client(), other = client();
        send_text(fd, "hello");
        receive(fd, "hello");
        UNTIL(seen->opened == 2);
        IS(omni_server_listen(service.server, "127.0.0.1:0"), -EINVAL);
        IS(omni_server_run(service.server), -EINVAL);
        /* What was sent is counted after it was sent. */
        UNTIL(omni_server_stats(service.server, UINT32_MAX, &total) == 0 && total.bytes_out > 0);
        IS(total.size, sizeof total);
        IS(total.accepted, 2);
        IS(total.active, 2);
        IS(total.bytes_in, 5);
        IS(total.bytes_out, 5);
        IS(total.refused + total.timed_out + total.accept_pauses + total.restarts, 0);
        IS(total.reserved, 0);
        int workers = omni_server_workers(service.server);
        IS(workers, model == OMNI_MODEL_CORES ? 2 : 1);
        for (int worker = 0; worker < workers; worker++) {
            IS(omni_server_stats(service.server, (uint32_t)worker, &one), 0);
            accepted += one.accepted;
        }
        IS(accepted, 2);
        char text[16384];
        int length = omni_server_prometheus(service.server, text, sizeof text);
        IS(length, strlen(text));
        const char *line = strstr(text, "\nomnipoll_server_received_bytes_total{worker=\"");
        OK(line && strstr(text, "\n# TYPE omnipoll_server_active gauge\n"));
        IS(omni_server_prometheus(service.server, text, 5), length);
        IS(strcmp(text, "# HE"), 0);
        IS(omni_server_prometheus(service.server, NULL, 0), length);
        IS(omni_server_prometheus(service.server, NULL, 1), -EINVAL);
        one.accepted = 77;
        IS(omni_server_stats(service.server, (uint32_t)workers, &one), -ENOENT);
        IS(one.accepted, 77);
        IS(omni_server_stats(service.server, 0, NULL), -EINVAL);
        one.size = offsetof(omni_server_statistics, restarts);
        IS(omni_server_stats(service.server, 0, &one), -EINVAL);
        newer.stats.size = sizeof newer;
        IS(omni_server_stats(service.server, 0, &newer.stats), 0);
        IS(newer.stats.size, sizeof newer.stats);
        IS(newer.more, 42);
        close(fd);
        close(other);
        UNTIL(seen->closed == 2);
        UNTIL(omni_server_stats(service.server, UINT32_MAX, &total) == 0 && total.active == 0);
        finish(&service);
    }
}

static omni_server *told_to_broadcast;

static void broadcast_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(conn && context == &seen);
    IS(omni_server_broadcast(told_to_broadcast, data, length), 3);
}

static void broadcasts(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        int clients[3];
        serve(&service, engine, model, noting(broadcast_it));
        told_to_broadcast = service.server;
        IS(omni_server_broadcast(service.server, "nobody", 6), 0);
        IS(omni_server_broadcast(service.server, NULL, 1), -EINVAL);
        IS(omni_server_broadcast(service.server, NULL, 0), 0);
        for (int i = 0; i < 3; i++)
            clients[i] = client();
        UNTIL(seen->opened == 3);
        for (int i = 0; i < 3; i++)
            send_text(clients[i], i == 0 ? "first" : "next ");
        for (int i = 0; i < 3; i++) {
            char received[15];
            read_whole(clients[i], received, sizeof received);
            OK(memmem(received, 15, "first", 5));
            close(clients[i]);
        }
        finish(&service);
    }
    for (uint32_t model = OMNI_MODEL_FORK; model <= OMNI_MODEL_PREFORK; model++) {
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
        omni_server *server = new_server(&options, &(omni_handler){.size = sizeof(omni_handler)});
        IS(omni_server_broadcast(server, "", 0), -ENOTSUP);
        IS(omni_server_broadcast_except(server, "", 0, by_id(1)), -ENOTSUP);
        IS(omni_server_broadcast_group(server, "group", "", 0, NULL), -ENOTSUP);
        OK(strstr(omni_last_error(), "processes that share no memory"));
        omni_server_free(server);
    }
}

/* Joins the group that the client names, or leaves it after "-"; answers when that is done. */
static void join_or_leave(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    char group[16];
    OK(context == &seen && length < sizeof group);
    memcpy(group, data, length);
    group[length] = 0;
    IS(*group == '-' ? omni_conn_leave(conn, group + 1) : omni_conn_join(conn, group), 0);
    OK(omni_conn_write(conn, "ok", 2) >= 0);
}

static void ask_for(int fd, const char *group)
{
    send_text(fd, group);
    receive(fd, "ok");
}

/* Names that are none, and as many groups as a connection can be in. */
static void limits_of_groups(omni_server *server, omni_conn *conn)
{
    char name[257] = "";
    IS(omni_conn_join(conn, ""), -EINVAL);
    memset(name, 'x', sizeof name - 1);
    IS(omni_conn_join(conn, name), -EINVAL);
    OK(strstr(omni_last_error(), "255"));
    IS(omni_server_broadcast_group(server, name, "x", 1, NULL), -EINVAL);
    IS(omni_conn_join(conn, "\xff"), -EINVAL);
    name[255] = 0;
    IS(omni_conn_join(conn, name), 0);
    for (int i = 1; i < 64; i++) {
        snprintf(name, sizeof name, "%d", i);
        IS(omni_conn_join(conn, name), 0);
    }
    IS(omni_conn_join(conn, "one more"), -ENOBUFS);
}

static void groups(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        int clients[3];
        omni_conn *conns[3];
        serve(&service, engine, model, noting(join_or_leave));
        omni_server *server = service.server;
        for (int i = 0; i < 3; i++) {
            clients[i] = client();
            UNTIL(seen->opened == i + 1);
            conns[i] = seen->conn;
        }
        IS(omni_server_broadcast_group(server, "a", "nobody", 6, NULL), 0);
        ask_for(clients[0], "a");
        ask_for(clients[1], "a");
        ask_for(clients[1], "a"); /* it is in it already */
        IS(omni_conn_join(conns[2], "b"), 0); /* from another thread */
        IS(omni_server_broadcast_group(server, "a", "group", 5, NULL), 2);
        IS(omni_server_broadcast_group(server, "a", " but", 4, conns[0]), 1);
        IS(omni_server_broadcast_except(server, "one", 3, conns[1]), 2);
        IS(omni_server_broadcast_except(server, "all", 3, NULL), 3);
        receive(clients[0], "grouponeall");
        receive(clients[1], "group butall");
        receive(clients[2], "oneall");

        ask_for(clients[0], "-a");
        IS(omni_conn_leave(conns[0], "a"), 0); /* it is not in it any more */
        close(clients[1]);
        UNTIL(seen->closed == 1);
        IS(omni_server_broadcast_group(server, "a", "nobody", 6, NULL), 0);
        IS(omni_conn_join(conns[1], "a"), -ESTALE);
        IS(omni_conn_leave(conns[1], "a"), -ESTALE);
        limits_of_groups(server, conns[0]);
        close(clients[0]);
        close(clients[2]);
        finish(&service);
    }
}

static const struct behaviour behaviours[] = {
    {"options that make no sense are refused", bad_options},
    {"every option is taken", every_option},
    {"structs of other versions are read as far as they are known", structs_of_other_versions},
    {"models have names", names},
    {"a server that is NULL or was freed is an error", no_server},
    {"a process has so many servers and no more", too_many},
    {"clients are served, and each is closed once", serves},
    {"a handler may have no functions", nothing_to_call},
    {"a client is refused with some last words", refuses},
    {"a server counts", counts},
    {"a broadcast reaches everybody, or is refused", broadcasts},
    {"a broadcast reaches a group, or all but one", groups},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
