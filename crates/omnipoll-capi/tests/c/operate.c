/* Servers as a service manager operates them, checked through the public header on every engine and under
 * every model: what it is told.
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

/* Reads what it is told next. */
static void told(int fd, const char *expected)
{
    char text[256];
    ssize_t length = recv(fd, text, sizeof text - 1, 0);
    OK(length > 0);
    text[length] = 0;
    OK(strcmp(text, expected) == 0);
}

static void told_by_a_server(uint32_t engine)
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
        told(reads, "STATUS=listening");
        told(reads, "READY=1");
        IS(kill(pid, SIGTERM), 0);
        told(reads, "STOPPING=1");
        IS(waitpid(pid, &status, 0), pid);
        OK(WIFEXITED(status));
        IS(WEXITSTATUS(status), 42);
        close(reads);
    }
}

static void told_nothing(uint32_t engine)
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

static const struct behaviour behaviours[] = {
    {"a service manager is told of the beginning and the end", told_by_a_server},
    {"nothing is told to none", told_nothing},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
