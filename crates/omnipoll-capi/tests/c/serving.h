/* What the tests of the serving API share: a server that runs while its clients are here, what
 * its callbacks have seen, and clients. */
#ifndef SERVING_H
#define SERVING_H

#include "harness.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>

static const int64_t SECOND = 1000 * MS;

/* Passes once it is so. The alarm of check_on_every_engine bounds it. */
#define UNTIL(condition) \
    while (!(condition)) \
    sched_yield()

/* ---- What callbacks have seen, in memory that forked processes share ------------------------- */

static struct seen {
    _Atomic int port;
    _Atomic int opened, closed, ended, drained, stopped, posted;
    _Atomic int error;            /* the last that on_close got */
    _Atomic int64_t value;        /* the last that on_post got */
    _Atomic(omni_conn *) conn;    /* the last that came */
} *seen;

static inline int note_open(omni_conn *conn, void *context)
{
    OK(context == &seen);
    OK(conn);
    seen->conn = conn;
    seen->opened++;
    return 0;
}

static inline void note_close(omni_conn *conn, int error, void *context)
{
    OK(context == &seen);
    OK(conn);
    seen->error = error;
    seen->closed++;
}

static inline void note_end(omni_conn *conn, void *context)
{
    OK(context == &seen);
    seen->ended++;
    IS(omni_conn_has_ended(conn), 1);
    IS(omni_conn_close(conn), 0);
}

static inline void note_drain(omni_conn *conn, void *context)
{
    OK(conn && context == &seen);
    seen->drained++;
}

static inline void note_stop(omni_conn *conn, void *context)
{
    OK(conn && context == &seen);
    IS(omni_conn_stopping(conn), 1);
    seen->stopped++;
}

static inline void note_post(omni_conn *conn, int64_t value, void *context)
{
    OK(conn && context == &seen);
    seen->value = value;
    seen->posted++;
}

static inline void echo(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(context == &seen);
    OK(omni_conn_write(conn, data, length) >= 0);
}

/* A handler that notes everything and does this with data. */
static inline omni_handler noting(void (*on_data)(omni_conn *, const uint8_t *, size_t, void *))
{
    return (omni_handler){.size = sizeof(omni_handler),
                          .context = &seen,
                          .on_open = note_open,
                          .on_data = on_data,
                          .on_drain = note_drain,
                          .on_close = note_close,
                          .on_end = note_end,
                          .on_post = note_post,
                          .on_stop = note_stop};
}

/* The id is the handle. */
static inline omni_conn *by_id(uint64_t id)
{
    return (omni_conn *)(uintptr_t)id;
}

/* ---- A server that runs ---------------------------------------------------------------------- */

struct service {
    omni_server *server; /* NULL when it is in a process of its own */
    pthread_t thread;
    pid_t pid;
    int result;
};

static inline int forks(uint32_t model)
{
    return model == OMNI_MODEL_FORK || model == OMNI_MODEL_PREFORK;
}

static inline omni_server *new_server(const omni_server_options *options, const omni_handler *handler)
{
    omni_server *server = NULL;
    IS(omni_server_new(options, handler, &server), 0);
    OK(server);
    return server;
}

/* Listens on a port of the system's choice. */
static inline int listen_somewhere(omni_server *server)
{
    char address[64];
    IS(omni_server_listen(server, "127.0.0.1:0"), 0);
    OK(omni_server_address(server, address, sizeof address) < (int)sizeof address);
    return atoi(strrchr(address, ':') + 1);
}

static inline void *run_server(void *argument)
{
    struct service *service = argument;
    service->result = omni_server_run(service->server);
    return NULL;
}

static omni_server *stopped_by_signal;

static inline void stop_server(int signo)
{
    (void)signo;
    omni_server_stop(stopped_by_signal, 10 * SECOND);
}

/* Runs a server: in a thread, or, under the models that fork, in a process that has no other. */
static inline void serve_with(struct service *service, uint32_t engine, uint32_t model,
                              omni_handler handler, omni_server_options options)
{
    memset(seen, 0, sizeof *seen);
    memset(service, 0, sizeof *service);
    options.size = sizeof options;
    options.engine = engine;
    options.model = model;
    fflush(stdout);
    service->pid = forks(model) ? fork() : 0;
    if (service->pid > 0) {
        UNTIL(seen->port || waitpid(service->pid, NULL, WNOHANG));
        OK(seen->port);
        return;
    }
    service->server = new_server(&options, &handler);
    int port = listen_somewhere(service->server);
    if (!forks(model)) {
        seen->port = port;
        IS(pthread_create(&service->thread, NULL, run_server, service), 0);
        return;
    }
    alarm(60);
    stopped_by_signal = service->server;
    signal(SIGUSR1, stop_server);
    seen->port = port;
    IS(omni_server_run(service->server), 0);
    omni_server_free(service->server);
    _exit(0);
}

static inline void serve(struct service *service, uint32_t engine, uint32_t model, omni_handler handler)
{
    serve_with(service, engine, model, handler, (omni_server_options){0});
}

/* What omni_server_run has returned. The server is not freed. */
static inline int join(struct service *service)
{
    IS(pthread_join(service->thread, NULL), 0);
    return service->result;
}

/* Stops it, in time for clients that leave. */
static inline void finish(struct service *service)
{
    if (service->pid) {
        int status;
        IS(kill(service->pid, SIGUSR1), 0);
        IS(waitpid(service->pid, &status, 0), service->pid);
        IS(status, 0);
        return;
    }
    IS(omni_server_stop(service->server, 10 * SECOND), 0);
    IS(join(service), 0);
    omni_server_free(service->server);
}

/* ---- Clients --------------------------------------------------------------------------------- */

static inline int try_to_connect(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    OK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -errno;
}

static inline int client(void)
{
    int fd = try_to_connect(seen->port);
    OK(fd >= 0);
    return fd;
}

static inline void send_text(int fd, const char *text)
{
    IS(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads so many bytes, whatever they are. MSG_WAITALL brings fewer when the kernel has work for a ring
 * that this thread has made. */
static inline void read_whole(int fd, char *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t count = recv(fd, bytes + at, length - at, 0);
        OK(count > 0);
        at += (size_t)count;
    }
}

static inline void hear_bytes_at(int fd, const void *expected, size_t length, int line)
{
    char received[4096];
    for (size_t at = 0; at < length;) {
        size_t left = length - at;
        ssize_t count = recv(fd, received, left < sizeof received ? left : sizeof received, 0);
        is(count > 0 ? 1 : count < 0 ? -errno : 0, 1, "what is received", line);
        is(memcmp((const char *)expected + at, received, (size_t)count), 0, "the difference", line);
        at += (size_t)count;
    }
}

#define hear_bytes(fd, expected, length) hear_bytes_at(fd, expected, length, __LINE__)
#define receive(fd, text) hear_bytes_at(fd, text, strlen(text), __LINE__)

/* The end of what the server sends: 0, or the errno of a reset. */
static inline int receive_end(int fd)
{
    char byte;
    ssize_t count = recv(fd, &byte, 1, 0);
    return count < 0 ? errno : (int)count;
}

static inline void reset(int fd)
{
    struct linger now = {.l_onoff = 1};
    IS(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(fd);
}

static inline void share_what_is_seen(void)
{
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    OK(seen != MAP_FAILED);
}

#define EVERY_MODEL(model) uint32_t model = OMNI_MODEL_REACTOR; model <= OMNI_MODEL_PREFORK; model++
/* Those whose clients live in this process. */
#define MODELS_HERE(model) uint32_t model = OMNI_MODEL_REACTOR; model <= OMNI_MODEL_THREAD; model++

/* ---- Datagrams ------------------------------------------------------------------------------- */

static inline int takes_datagrams(uint32_t model)
{
    return model != OMNI_MODEL_THREAD && model != OMNI_MODEL_FORK;
}

/* Answers with the address that the datagram was sent to. */
static inline void reply_local(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
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
static inline void ask_where(int host, int port)
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
static inline int bound(int type, int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, type, 0);
    IS(bind(fd, (struct sockaddr *)&address, length), 0);
    IS(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

#endif
