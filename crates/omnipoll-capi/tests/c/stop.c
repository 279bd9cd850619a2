/* The end of servers, checked through the public header on every engine and under every model: stops,
 * signals, and freeing.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

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
