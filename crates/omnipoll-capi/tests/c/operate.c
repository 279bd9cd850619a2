/* Servers as a service manager operates them, checked through the public header on every engine and under
 * every model: its notifications, and how they are replaced.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

#include <stddef.h>
#include <sys/un.h>

/* The socket of a service manager, at an abstract name that the environment has from now on. */
static int manager(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char text[64];
    int length = snprintf(text, sizeof text, "@omnipoll-operate-%d", (int)getpid());
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(name.sun_path + 1, text + 1, (size_t)length - 1);
    IS(bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length)), 0);
    IS(setenv("NOTIFY_SOCKET", text, 1), 0);
    return fd;
}

/* Reads the next notification. */
static void expect_notification(int fd, const char *expected)
{
    char text[256];
    ssize_t length = recv(fd, text, sizeof text - 1, 0);
    OK(length > 0);
    text[length] = 0;
    OK(strcmp(text, expected) == 0);
}

static void notified_by_a_server(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        int reads = manager(), status;
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            omni_server_options options = {.size = sizeof options,
                                           .engine = engine,
                                           .model = model,
                                           .flags = OMNI_SERVER_SIGNALS | OMNI_SERVER_NOTIFY,
                                           .workers = 2};
            omni_handler handler = noting(echo);
            omni_server *server = new_server(&options, &handler);
            listen_somewhere(server);
            IS(omni_server_notify(server, NULL), -EINVAL);
            IS(omni_server_notify(server, "STATUS=listening"), 1);
            IS(omni_server_run(server), 0);
            omni_server_free(server);
            _exit(42);
        }
        expect_notification(reads, "STATUS=listening");
        expect_notification(reads, "READY=1");
        IS(kill(pid, SIGTERM), 0);
        expect_notification(reads, "STOPPING=1");
        IS(waitpid(pid, &status, 0), pid);
        OK(WIFEXITED(status));
        IS(WEXITSTATUS(status), 42);
        close(reads);
    }
}

static void nothing_is_sent(uint32_t engine)
{
    omni_server_options options = {.size = sizeof options, .engine = engine, .flags = OMNI_SERVER_NOTIFY};
    omni_handler handler = noting(echo);
    omni_server *server = NULL;
    IS(unsetenv("NOTIFY_SOCKET"), 0);
    server = new_server(&options, &handler);
    IS(omni_server_notify(server, "STATUS=x"), 0);
    omni_server_free(server);
    IS(setenv("NOTIFY_SOCKET", "somewhere", 1), 0);
    IS(omni_server_new(&options, &handler, &server), -EINVAL);
    options.flags = 0;
    server = new_server(&options, &handler);
    IS(omni_server_notify(server, "STATUS=x"), 0);
    omni_server_free(server);
}

/* ---- Restarts -------------------------------------------------------------------------------- */

static const char NEXT[] = "OPERATE_NEXT"; /* the model and engine of the process that follows */

/* Answers with the process that serves, or that which has forked it. */
static pid_t served_by;

static void who(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    char answer[32];
    (void)data, (void)length, (void)context;
    OK(omni_conn_write(conn, answer, (size_t)snprintf(answer, sizeof answer, "%d\n", (int)(served_by ? served_by : getpid()))) >= 0);
}

static void note_outcome(int outcome, void *context)
{
    OK(context == &seen);
    seen->value = outcome;
}

/* Serves until it was replaced or stopped; does not return. */
static void serve_who(uint32_t model, uint32_t engine, const omni_restart_options *restart, int reports)
{
    omni_server_options options = {.size = sizeof options,
                                   .engine = engine,
                                   .model = model,
                                   .flags = OMNI_SERVER_SIGNALS,
                                   .workers = 2,
                                   .restart = restart};
    omni_handler handler = {.size = sizeof handler, .on_data = who};
    alarm(60);
    served_by = getpid();
    omni_server *server = new_server(&options, &handler);
    int port = listen_somewhere(server);
    if (reports)
        seen->port = port;
    IS(omni_server_run(server), 0);
    omni_server_free(server);
    _exit(42);
}

static pid_t ask_who(void)
{
    char answer[32] = "";
    int fd = client();
    send_text(fd, "who");
    for (size_t length = 0; !strchr(answer, '\n');) {
        ssize_t more = recv(fd, answer + length, sizeof answer - 1 - length, 0);
        OK(more > 0);
        length += (size_t)more;
    }
    close(fd);
    return atoi(answer);
}

static void replaced(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        static const char *const missing[] = {"/nowhere/server", NULL};
        static const char *const itself[] = {"/proc/self/exe", "again", NULL};
        char next[32];
        int status;
        snprintf(next, sizeof next, "%u %u", model, engine);
        IS(setenv(NEXT, next, 1), 0);
        for (int is_good = 0; is_good < 2; is_good++) {
            omni_restart_options restart = {.size = sizeof restart,
                                            .arguments = is_good ? itself : missing,
                                            .timeout_ns = 50 * SECOND,
                                            .on_done = note_outcome,
                                            .context = &seen};
            memset(seen, 0, sizeof *seen);
            fflush(stdout);
            pid_t pid = fork();
            if (pid == 0)
                serve_who(model, engine, &restart, 1);
            UNTIL(seen->port);
            IS(ask_who(), pid);
            IS(kill(pid, SIGHUP), 0);
            UNTIL(seen->value);
            if (is_good) {
                pid_t follows = (pid_t)seen->value;
                OK(follows > 1);
                IS(waitpid(pid, &status, 0), pid);
                IS(WEXITSTATUS(status), 42);
                IS(ask_who(), follows);
                IS(kill(follows, SIGTERM), 0);
            } else {
                IS((int)seen->value, -ENOENT);
                IS(ask_who(), pid);
                IS(kill(pid, SIGTERM), 0);
                IS(waitpid(pid, &status, 0), pid);
            }
        }
    }
}

static void workers_replaced(uint32_t engine)
{
    struct service service;
    serve_with(&service, engine, OMNI_MODEL_PREFORK, noting(who),
               (omni_server_options){.workers = 1, .clients_per_worker = 2, .clients_jitter = 1,
                                     .hang_timeout_ns = 30 * SECOND});
    pid_t first = 0, now = 0;
    for (int i = 0; i < 1000 && (i < 3 || now == first); i++) {
        int fd = client();
        char answer[32] = "";
        send_text(fd, "who");
        OK(recv(fd, answer, sizeof answer - 1, 0) > 0);
        close(fd);
        now = atoi(answer);
        first = first ? first : now;
    }
    OK(now != first);
    finish(&service);
}

static void bad_restarts(uint32_t engine)
{
    static const char *const none[] = {NULL};
    omni_restart_options restart = {.size = sizeof restart};
    omni_server_options options = {.size = sizeof options, .engine = engine, .restart = &restart};
    omni_handler handler = {.size = sizeof handler, .on_data = who};
    omni_server *server = NULL;
    restart.arguments = none;
    IS(omni_server_new(&options, &handler, &server), -EINVAL);
    restart.arguments = NULL;
    restart.size = 8;
    IS(omni_server_new(&options, &handler, &server), -EINVAL);
    restart.size = sizeof restart;
    restart.reserved = 1;
    IS(omni_server_new(&options, &handler, &server), -EINVAL);
    restart.reserved = 0;
    options.flags = OMNI_SERVER_REUSE_PORT;
    IS(omni_server_new(&options, &handler, &server), -EINVAL);
    options.flags = 0;
    server = new_server(&options, &handler);
    IS(omni_server_restart(server), 0);
    IS(omni_server_restart(server), -EALREADY);
    omni_server_free(server);
    options.restart = NULL;
    server = new_server(&options, &handler);
    IS(omni_server_restart(server), -ENOTSUP);
    omni_server_free(server);
}

static const struct behaviour behaviours[] = {
    {"a service manager is notified of the beginning and the end", notified_by_a_server},
    {"without a service manager nothing is sent", nothing_is_sent},
    {"a new process takes over, or nothing changes", replaced},
    {"a worker is replaced when it has served enough", workers_replaced},
    {"restarts that make no sense are refused", bad_restarts},
};

int main(void)
{
    const char *next = getenv(NEXT);
    share_what_is_seen();
    if (next) {
        unsigned model, engine;
        IS(sscanf(next, "%u %u", &model, &engine), 2);
        serve_who(model, engine, NULL, 0);
    }
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
