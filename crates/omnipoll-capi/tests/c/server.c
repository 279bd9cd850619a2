/* Servers, checked through the public header on every engine and under every model that applies:
 * their options, addresses, life and end, and what is reported of them.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

#include <stddef.h>
#include <sys/un.h>

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
    REFUSED(size, sizeof options - 1, -EINVAL);
    REFUSED(size, 4097, -E2BIG); /* garbage: not read so far */
    REFUSED(size, UINT32_MAX, -E2BIG);
    REFUSED(model, 6, -EINVAL);
    REFUSED(engine, 77, -EINVAL);
    REFUSED(engine, OMNI_ENGINE_KQUEUE, -ENOSYS);
    REFUSED(flags, 8, -EINVAL);
    REFUSED(flags, OMNI_SERVER_REUSE_PORT | OMNI_SERVER_SHARE_PORT, -EINVAL);
    REFUSED(reserved, 1, -EINVAL);
    REFUSED(high_water, 1024, -EINVAL); /* below the default of the low mark */
    REFUSED(low_water, 1 << 20, -EINVAL);
#undef REFUSED

    const omni_handler unset = {.size = sizeof handler - 1};
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
                                             .drain_ns = -1};
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

/* ---- Addresses ------------------------------------------------------------------------------- */

/* An abstract name that is new: as the system has it, and, in `address`, as it is written. A ring
 * that is gone may keep an old one for a moment. */
static socklen_t abstract_name(struct sockaddr_un *name, char address[64])
{
    static int names;
    int count = snprintf(address, 64, "unix:@omnipoll-c-%d-%d", (int)getpid(), ++names);
    *name = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(name->sun_path + 1, address + 6, (size_t)count - 6);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)count - 5);
}

static void refuses_descriptors(omni_server *server)
{
    struct pair connected = socket_pair(), no_sockets = pipe_pair();
    const int fds[] = {closed_descriptor(), no_sockets.ours, connected.ours};
    const int errors[] = {-EBADF, -ENOTSOCK, -EINVAL};
    char address[32];
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        snprintf(address, sizeof address, "fd:%d", fds[i]);
        IS(omni_server_listen(server, address), errors[i]);
        OK(strstr(omni_last_error(), address));
    }
    close_pair(connected);
    close_pair(no_sockets);
}

static void addresses(uint32_t engine)
{
    omni_server_options options = {.size = sizeof options, .engine = engine};
    omni_handler handler = {.size = sizeof handler};
    omni_server *server = new_server(&options, &handler), *other = new_server(&options, &handler);
    char all[256], some[8], again[64], abstract[64];
    struct sockaddr_un name;
    abstract_name(&name, abstract);
    IS(omni_server_address(server, all, sizeof all), 0);
    IS(strlen(all), 0);
    IS(omni_server_dup_listener(server, 0), -ENOENT);

    IS(omni_server_listen(server, "127.0.0.1:0"), 0);
    IS(omni_server_listen(server, abstract), 0);
    int length = omni_server_address(server, all, sizeof all);
    IS(length, strlen(all));
    OK(strncmp(all, "127.0.0.1:", 10) == 0);
    IS(strcmp(strchr(all, ' ') + 1, abstract), 0);
    IS(omni_server_address(server, NULL, 0), length);
    IS(omni_server_address(server, NULL, 1), -EINVAL);
    IS(omni_server_address(server, some, sizeof some), length);
    OK(strcmp(some, "127.0.0") == 0);

    snprintf(again, sizeof again, "%.*s", (int)strcspn(all, " "), all);
    IS(omni_server_listen(other, again), -EADDRINUSE);
    IS(omni_server_listen(other, NULL), -EINVAL);
    IS(omni_server_listen(other, "nowhere"), -EINVAL);
    IS(omni_server_listen(other, "\xff"), -EINVAL);
    IS(omni_server_listen(other, "127.0.0.1:70000"), -EINVAL);
    IS(omni_server_listen(other, "192.0.2.1:0"), -EADDRNOTAVAIL);
    IS(omni_server_listen(other, "unix:/nowhere/socket"), -ENOENT);
    IS(omni_server_listen(other, "systemd"), -EINVAL);
    refuses_descriptors(other);
    omni_server_free(server);
    IS(omni_server_listen(other, again), 0);
    omni_server_free(other);

    const char *const every[] = {":0", "*:0"};
    for (size_t i = 0; i < 2; i++) {
        server = new_server(&options, &handler);
        IS(omni_server_listen(server, every[i]), 0);
        OK(omni_server_address(server, all, sizeof all) > 0);
        OK(strncmp(all, "[::]:", 5) == 0 || strncmp(all, "0.0.0.0:", 8) == 0);
        int fd = try_to_connect(atoi(strrchr(all, ':') + 1));
        OK(fd >= 0);
        close(fd);
        omni_server_free(server);
    }

    for (EVERY_MODEL(model)) {
        options.model = model;
        server = new_server(&options, &handler);
        int refused = model == OMNI_MODEL_THREAD || model == OMNI_MODEL_FORK;
        IS(omni_server_listen(server, "udp:127.0.0.1:0"), refused ? -ENOTSUP : 0);
        omni_server_free(server);
    }
}

/* An error's words are its own, whatever the errors of the same number before it were. */
static void words(uint32_t engine)
{
    const omni_handler handler = {.size = sizeof handler};
    const omni_server_options options = {.size = sizeof options, .engine = engine};
    omni_server *server = new_server(&options, &handler);
    omni_poller *poller = new_poller(engine);
    IS(omni_poller_remove(poller, 0), -ENOENT);
    OK(strstr(omni_last_error(), "omni_poller_remove: the descriptor is not registered (ENOENT)"));
    IS(omni_server_listen(server, "unix:/nowhere/at/all"), -ENOENT);
    OK(strstr(omni_last_error(), "No such file or directory"));
    IS(omni_poller_remove(poller, 0), -ENOENT);
    OK(strstr(omni_last_error(), "omni_poller_remove: the descriptor is not registered (ENOENT)"));
    omni_poller_free(poller);
    omni_server_free(server);
}

static void listeners(uint32_t engine)
{
    omni_server_options options = {.size = sizeof options, .engine = engine};
    omni_handler handler = {.size = sizeof handler};
    omni_server *server = new_server(&options, &handler);
    memset(seen, 0, sizeof *seen);
    seen->port = listen_somewhere(server);
    int listener = omni_server_dup_listener(server, 0);
    OK(listener >= 0);
    OK(fcntl(listener, F_GETFD) & FD_CLOEXEC);
    IS(omni_server_dup_listener(server, 1), -ENOENT);
    IS(omni_server_dup_listener(server, UINT32_MAX), -ENOENT);

    /* It outlives its server, and another takes it over. */
    int early = client();
    omni_server_free(server);
    char address[32];
    snprintf(address, sizeof address, "fd:%d", listener);
    struct service next = {0};
    handler = noting(echo);
    server = next.server = new_server(&options, &handler);
    IS(omni_server_listen(server, address), 0);
    close(listener);
    IS(pthread_create(&next.thread, NULL, run_server, &next), 0);
    int late = client();
    send_text(early, "early");
    send_text(late, "late");
    receive(early, "early");
    receive(late, "late");
    close(early);
    close(late);
    finish(&next);
    IS(try_to_connect(seen->port), -ECONNREFUSED);
}

static int client_of(const struct sockaddr_un *name, socklen_t length)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    IS(connect(fd, (const struct sockaddr *)name, length), 0);
    return fd;
}

/* The file of a unix socket goes with its server, unless another process has the socket. */
static void files_of_sockets(uint32_t engine)
{
    for (MODELS_HERE(model))
        for (int kept = 0; kept < 2; kept++) {
            omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
            omni_handler handler = noting(echo);
            struct sockaddr_un name = {.sun_family = AF_UNIX};
            char address[128];
            struct service service = {.server = new_server(&options, &handler)};
            snprintf(name.sun_path, sizeof name.sun_path, "/tmp/omnipoll-c-%d", (int)getpid());
            snprintf(address, sizeof address, "unix:%s", name.sun_path);
            IS(omni_server_listen(service.server, address), 0);
            int listener = omni_server_dup_listener(service.server, 0);
            OK(listener >= 0);
            if (kept)
                IS(omni_server_keep_files(service.server), 0);
            IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
            finish(&service);
            IS(access(name.sun_path, F_OK), kept ? 0 : -1);
            if (kept) {
                /* The path leads to the socket's present owner, whose file it is not. */
                snprintf(address, sizeof address, "fd:%d", listener);
                service = (struct service){.server = new_server(&options, &handler)};
                IS(omni_server_listen(service.server, address), 0);
                IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
                int fd = client_of(&name, sizeof name);
                send_text(fd, "hello");
                receive(fd, "hello");
                close(fd);
                finish(&service);
                IS(unlink(name.sun_path), 0);
            }
            close(listener);
        }
}

static void abstract_names(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
        omni_handler handler = noting(echo);
        struct sockaddr_un name;
        char address[64], returned[64];
        socklen_t length = abstract_name(&name, address);
        struct service service = {.server = new_server(&options, &handler)};
        memset(seen, 0, sizeof *seen);
        IS(omni_server_listen(service.server, address), 0);
        IS(omni_server_address(service.server, returned, sizeof returned), strlen(address));
        OK(strcmp(returned, address) == 0);
        IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
        int fd = client_of(&name, length);
        send_text(fd, "hello");
        receive(fd, "hello");
        close(fd);
        UNTIL(seen->closed == 1);
        finish(&service);
    }
}

static int takes_datagrams(uint32_t model)
{
    return model != OMNI_MODEL_THREAD && model != OMNI_MODEL_FORK;
}

/* Answers with the address that the datagram was sent to. */
static void reply_local(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    char local[64], some[5];
    OK(data && length && context == &seen);
    int local_length = omni_datagram_local(datagram, local, sizeof local);
    IS(local_length, strlen(local));
    IS(omni_datagram_local(datagram, some, sizeof some), local_length);
    IS(strlen(some), 4);
    IS(strncmp(some, local, 4), 0);
    IS(omni_datagram_local(datagram, NULL, 0), local_length);
    IS(omni_datagram_local(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_reply(datagram, local, (size_t)local_length), 0);
}

/* A client of 127.0.0.`host` gets a reply from that address, and no other. */
static void ask_where(int host, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + (uint32_t)host)};
    char expected[64];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    IS(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    send_text(fd, "where?");
    snprintf(expected, sizeof expected, "127.0.0.%d:%d", host, port);
    receive(fd, expected);
    close(fd);
}

/* A socket bound to a port of 127.0.0.1. */
static int bound(int type, int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, type, 0);
    IS(bind(fd, (struct sockaddr *)&address, length), 0);
    IS(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

enum { PASSED = 3 };

/* Serves what it is passed as systemd passes it: from descriptor 3 on, counted in the environment.
 * The last is for datagrams. */
static void serve_what_is_passed(const omni_server_options *options, const int passed[PASSED])
{
    char text[32];
    for (int i = 0; i < PASSED; i++)
        IS(dup2(passed[i], 3 + i), 3 + i);
    snprintf(text, sizeof text, "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
    setenv("LISTEN_FDS", "3", 1);
    omni_handler handler = noting(echo);
    handler.on_datagram = reply_local;
    omni_server *server = new_server(options, &handler);
    if (!takes_datagrams(options->model)) {
        IS(omni_server_listen(server, "systemd"), -ENOTSUP);
        OK(strstr(omni_last_error(), "descriptor 5: "));
        setenv("LISTEN_FDS", "2", 1);
    }
    IS(omni_server_listen(server, "systemd"), 0);
    IS(omni_server_run(server), 0);
    omni_server_free(server);
    _exit(42);
}

static void socket_activation(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        const omni_server_options options = {.size = sizeof options,
                                             .engine = engine,
                                             .model = model,
                                             .flags = OMNI_SERVER_SIGNALS,
                                             .workers = 2};
        struct sockaddr_un name;
        char address[64];
        socklen_t name_length = abstract_name(&name, address);
        int port, udp_port, status;
        memset(seen, 0, sizeof *seen);
        int sockets[PASSED] = {bound(SOCK_STREAM, &port), socket(AF_UNIX, SOCK_STREAM, 0),
                               bound(SOCK_DGRAM, &udp_port)};
        IS(bind(sockets[1], (struct sockaddr *)&name, name_length), 0);
        IS(listen(sockets[0], 8) | listen(sockets[1], 8), 0);
        seen->port = port;
        for (int i = 0; i < PASSED; i++) {
            int out_of_the_way = fcntl(sockets[i], F_DUPFD, 64); /* of 3, 4 and 5 */
            close(sockets[i]);
            sockets[i] = out_of_the_way;
        }
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            serve_what_is_passed(&options, sockets);
        }
        int fds[2] = {client(), client_of(&name, name_length)};
        for (int i = 0; i < 2; i++) {
            send_text(fds[i], "hello");
            receive(fds[i], "hello");
            close(fds[i]);
        }
        if (takes_datagrams(model))
            ask_where(1, udp_port);
        IS(kill(pid, SIGTERM), 0);
        IS(waitpid(pid, &status, 0), pid);
        OK(WIFEXITED(status));
        IS(WEXITSTATUS(status), 42);
        /* A client that comes now waits for the next one that is started. */
        close(client());
        for (int i = 0; i < PASSED; i++)
            close(sockets[i]);
    }
}

static void inherited_datagrams(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
        omni_handler handler = {.size = sizeof handler, .context = &seen, .on_datagram = reply_local};
        struct service service = {.server = new_server(&options, &handler)};
        char address[32], returned[64], expected[64];
        int port, fd = bound(SOCK_DGRAM, &port);
        snprintf(address, sizeof address, "fd:%d", fd);
        if (!takes_datagrams(model)) {
            IS(omni_server_listen(service.server, address), -ENOTSUP);
            OK(!(fcntl(fd, F_GETFD) & FD_CLOEXEC));
            omni_server_free(service.server);
            close(fd);
            continue;
        }
        IS(omni_server_listen(service.server, address), 0);
        OK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
        snprintf(expected, sizeof expected, "udp:127.0.0.1:%d", port);
        IS(omni_server_address(service.server, returned, sizeof returned), strlen(expected));
        IS(strcmp(returned, expected), 0);
        if (forks(model)) {
            omni_server_free(service.server);
            continue; /* socket_activation has it serve */
        }
        IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
        ask_where(1, port);
        finish(&service);
    }
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
        one.accepted = 77;
        IS(omni_server_stats(service.server, (uint32_t)workers, &one), -ENOENT);
        IS(one.accepted, 77);
        IS(omni_server_stats(service.server, 0, NULL), -EINVAL);
        one.size = sizeof one - 1;
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
        OK(strstr(omni_last_error(), "processes that share no memory"));
        omni_server_free(server);
    }
}

/* ---- Datagrams ------------------------------------------------------------------------------- */

static _Atomic(omni_datagram *) last_datagram;

static void reply(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    char peer[64], some[5];
    OK(context == &seen);
    if (last_datagram)
        IS(omni_datagram_reply(last_datagram, "", 0), -ESTALE);
    last_datagram = datagram;
    int peer_length = omni_datagram_peer(datagram, peer, sizeof peer);
    IS(peer_length, strlen(peer));
    OK(strncmp(peer, "127.0.0.1:", 10) == 0);
    IS(omni_datagram_peer(datagram, some, sizeof some), peer_length);
    OK(strcmp(some, "127.") == 0);
    IS(omni_datagram_peer(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_reply(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_reply(datagram, peer, 65508), -EMSGSIZE);
    IS(omni_datagram_reply(datagram, data, length), 0);
}

/* A server at every address of the machine answers from the one that was asked. */
static void addresses_of_datagrams(uint32_t engine)
{
    const char *const wildcards[] = {"udp:0.0.0.0:0", "udp::0", "udp:*:0"};
    for (uint32_t model = OMNI_MODEL_REACTOR; model <= OMNI_MODEL_CORES; model++)
        for (size_t i = 0; i < sizeof wildcards / sizeof *wildcards; i++) {
            omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
            omni_handler handler = {.size = sizeof handler, .context = &seen, .on_datagram = reply_local};
            struct service service = {.server = new_server(&options, &handler)};
            char address[64];
            IS(omni_server_listen(service.server, wildcards[i]), 0);
            OK(omni_server_address(service.server, address, sizeof address) > 0);
            IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
            for (int host = 1; host <= 3; host++)
                ask_where(host, atoi(strrchr(address, ':') + 1));
            finish(&service);
        }
}

static void datagrams(uint32_t engine)
{
    IS(omni_datagram_reply(NULL, "", 0), -EINVAL);
    IS(omni_datagram_peer(NULL, NULL, 0), -EINVAL);
    IS(omni_datagram_local(NULL, NULL, 0), -EINVAL);
    for (uint32_t model = OMNI_MODEL_REACTOR; model <= OMNI_MODEL_CORES; model++) {
        struct service service = {0};
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
        omni_handler handler = {.size = sizeof handler, .context = &seen, .on_datagram = reply};
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        char address[64];
        service.server = new_server(&options, &handler);
        IS(omni_server_listen(service.server, "udp:127.0.0.1:0"), 0);
        omni_server_address(service.server, address, sizeof address);
        to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
        IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        IS(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        for (int i = 0; i < 5; i++) {
            send_text(fd, "hello");
            receive(fd, "hello");
        }
        close(fd);
        omni_datagram *datagram = last_datagram;
        IS(omni_datagram_reply(datagram, "", 0), -ESTALE);
        IS(omni_datagram_peer(datagram, NULL, 0), -ESTALE);
        IS(omni_datagram_local(datagram, NULL, 0), -ESTALE);
        omni_server_statistics stats = {.size = sizeof stats};
        IS(omni_server_stats(service.server, UINT32_MAX, &stats), 0);
        IS(stats.datagrams_in, 5);
        IS(stats.datagrams_dropped, 0);
        finish(&service);
        last_datagram = NULL;
    }
}

/* ---- Its end --------------------------------------------------------------------------------- */

static void stopped_before_it_runs(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
        omni_handler handler = {.size = sizeof handler};
        omni_server *server = new_server(&options, &handler);
        listen_somewhere(server);
        IS(omni_server_stop(server, -1), 0);
        IS(omni_server_stop(server, INT64_MAX), 0);
        IS(omni_server_run(server), 0);
        IS(omni_server_run(server), -EINVAL);
        IS(omni_server_listen(server, "127.0.0.1:0"), -EINVAL);
        IS(omni_server_dup_listener(server, 0), -ENOENT);
        omni_server_free(server);
    }
}

/* Under THREAD a client's thread may stop before its server's. */
static void until_refused(int port)
{
    int fd;
    while ((fd = try_to_connect(port)) != -ECONNREFUSED)
        if (fd >= 0)
            close(fd);
}

/* A stop by a signal's handler: omni_server_stop may be called there. */
static void stopped_by_a_signal_handler(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        serve(&service, engine, model, noting(echo));
        stopped_by_signal = service.server;
        signal(SIGUSR1, stop_server);
        int fd = client();
        send_text(fd, "hello");
        receive(fd, "hello");
        IS(kill(getpid(), SIGUSR1), 0);
        UNTIL(seen->stopped == 1);
        /* It is still served. */
        send_text(fd, "again");
        receive(fd, "again");
        until_refused(seen->port);
        close(fd);
        IS(join(&service), 0);
        IS(seen->closed, seen->opened);
        IS(seen->error, 0);
        signal(SIGUSR1, SIG_DFL);
        omni_server_free(service.server);
    }
}

static void drained_in_no_time(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        serve(&service, engine, model, noting(echo));
        int fd = client();
        send_text(fd, "hello");
        receive(fd, "hello");
        IS(omni_server_stop(service.server, -1), 0);
        UNTIL(seen->stopped == 1);
        IS(omni_server_stop(service.server, 0), 0);
        IS(join(&service), 0);
        IS(seen->closed, 1);
        IS(seen->error, -ECANCELED);
        IS(receive_end(fd), ECONNRESET);
        close(fd);
        omni_server_free(service.server);
    }
}

static void signals_option(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        int status;
        memset(seen, 0, sizeof *seen);
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            /* One worker: the first watches signals, and must be running when they arrive. */
            omni_server_options options = {.size = sizeof options,
                                           .engine = engine,
                                           .model = model,
                                           .flags = OMNI_SERVER_SIGNALS,
                                           .workers = 1};
            omni_handler handler = noting(echo);
            omni_server *server = new_server(&options, &handler);
            seen->port = listen_somewhere(server);
            IS(omni_server_run(server), 0);
            omni_server_free(server);
            _exit(42);
        }
        UNTIL(seen->port);
        int fd = client();
        send_text(fd, "hello");
        receive(fd, "hello");
        IS(kill(pid, model % 2 ? SIGTERM : SIGINT), 0);
        UNTIL(seen->stopped == 1);
        close(fd);
        IS(waitpid(pid, &status, 0), pid);
        OK(WIFEXITED(status));
        IS(WEXITSTATUS(status), 42);
        IS(seen->closed, 1);
    }
}

static void freed_while_it_runs(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        int before = open_descriptors();
        struct service service;
        serve(&service, engine, model, noting(echo));
        int fd = client();
        send_text(fd, "hello");
        receive(fd, "hello");
        omni_conn *conn = seen->conn;
        omni_server_free(service.server);
        IS(omni_server_stop(service.server, 0), -ESTALE);
        IS(omni_server_workers(service.server), -ESTALE);
        IS(join(&service), -ESTALE);
        IS(seen->closed, 1);
        IS(seen->error, -ECANCELED);
        IS(omni_conn_write(conn, "late", 4), -ESTALE);
        IS(receive_end(fd), ECONNRESET);
        close(fd);
        omni_server_free(service.server);
        IS(open_descriptors(), before);
    }
}

static omni_server *to_free;

static void free_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(length > 0 && data && context == &seen);
    omni_server_free(to_free);
    IS(omni_server_stop(to_free, 0), -ESTALE);
    /* The connection is there until the call has returned. */
    OK(omni_conn_write(conn, "bye", 3) >= 0);
}

static void freed_by_a_callback(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        serve(&service, engine, model, noting(free_it));
        to_free = service.server;
        int fd = client();
        send_text(fd, "free");
        IS(join(&service), -ESTALE);
        IS(seen->closed, 1);
        close(fd);
    }
}

/* What a forked process does to the server, it does to its own serving. */
static void end_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    echo(conn, data, length, context);
    if (*data == 'F')
        omni_server_free(stopped_by_signal);
    if (*data == 'S')
        IS(omni_server_stop(stopped_by_signal, 0), 0);
}

static void ended_by_a_forked_process(uint32_t engine)
{
    for (uint32_t model = OMNI_MODEL_FORK; model <= OMNI_MODEL_PREFORK; model++) {
        struct service service;
        serve_with(&service, engine, model, noting(end_it), (omni_server_options){.workers = 2});
        int stays = client();
        send_text(stays, "hello");
        receive(stays, "hello");
        for (int i = 0; i < 2; i++) {
            int fd = client();
            if (model == OMNI_MODEL_FORK) {
                send_text(fd, i ? "FREE" : "STOP");
                receive(fd, i ? "FREE" : "STOP");
                receive_end(fd);
                UNTIL(seen->closed == i + 1);
                IS(seen->error, -ECANCELED);
            }
            close(fd);
        }
        send_text(stays, "still there");
        receive(stays, "still there");
        close(stays);
        int last = client();
        send_text(last, "hello");
        receive(last, "hello");
        close(last);
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
    {"a server listens on several addresses", addresses},
    {"an error has words of its own", words},
    {"a listening socket is handed on", listeners},
    {"the file of a unix socket is removed, or kept", files_of_sockets},
    {"an abstract name is served", abstract_names},
    {"what systemd passes is served", socket_activation},
    {"an inherited datagram socket is served", inherited_datagrams},
    {"clients are served, and each is closed once", serves},
    {"a handler may have no functions", nothing_to_call},
    {"a client is refused with some last words", refuses},
    {"a server counts", counts},
    {"a broadcast reaches everybody, or is refused", broadcasts},
    {"datagrams are answered, and stale in the end", datagrams},
    {"a datagram has the address that was asked", addresses_of_datagrams},
    {"a stop counts before the run", stopped_before_it_runs},
    {"a signal handler stops it", stopped_by_a_signal_handler},
    {"a drain without time resets the clients that are left", drained_in_no_time},
    {"SIGTERM and SIGINT stop it if asked to", signals_option},
    {"a server is freed while it runs", freed_while_it_runs},
    {"a server is freed by its own callback", freed_by_a_callback},
    {"a forked process ends its own serving only", ended_by_a_forked_process},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
