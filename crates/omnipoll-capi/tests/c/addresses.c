/* What servers listen on, checked through the public header: addresses, files, inherited sockets.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

#include <sys/un.h>

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

static const struct behaviour behaviours[] = {
    {"a server listens on several addresses", addresses},
    {"an error has words of its own", words},
    {"a listening socket is handed on", listeners},
    {"the file of a unix socket is removed, or kept", files_of_sockets},
    {"an abstract name is served", abstract_names},
    {"what systemd passes is served", socket_activation},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
