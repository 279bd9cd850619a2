/* Connections out and relays, checked through the public header on every engine: by handler, pulled, and
 * on the loops of a server's workers.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "looping.h"

static omni_loop *loop;

/* Runs the loop until the condition holds. */
#define RUN_UNTIL(condition) \
    while (!(condition))     \
    IS(omni_loop_run_once(loop, FOREVER), 1)

static const char *address_of(int port)
{
    static char text[64];
    snprintf(text, sizeof text, "127.0.0.1:%d", port);
    return text;
}

/* A port at which nobody listens. */
static int refused_port(void)
{
    int port;
    close(bound(SOCK_STREAM, &port));
    return port;
}

/* ---- By handler ------------------------------------------------------------------------------ */

static int opened, closed, last_error;
static char got[256], words[512];
static omni_conn *out;

static int open_out(omni_conn *conn, void *context)
{
    OK(context == got);
    OK(conn == out);
    IS(omni_conn_is_outgoing(conn), 1);
    IS(omni_conn_token(conn), 11);
    OK(omni_conn_context(conn) == &opened);
    OK(omni_conn_loop(conn) == loop);
    opened++;
    return 0;
}

static void data_out(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    OK(context == got);
    OK(conn == out);
    strncat(got, (const char *)data, length);
}

static void close_out(omni_conn *conn, int error, void *context)
{
    OK(context == got);
    OK(conn == out);
    snprintf(words, sizeof words, "%s", omni_last_error());
    last_error = error;
    OK(omni_conn_id(conn) == (uint64_t)(uintptr_t)conn);
    IS(omni_conn_token(conn), 11);
    OK(omni_conn_context(conn) == &opened);
    OK(omni_conn_loop(conn) == loop);
    closed++;
}

static const omni_handler handler_out = {.size = sizeof handler_out,
                                         .context = got,
                                         .on_open = open_out,
                                         .on_data = data_out,
                                         .on_close = close_out};

static void begin(uint32_t engine)
{
    omni_handler handler = noting(echo);
    memset(seen, 0, sizeof *seen);
    opened = closed = last_error = 0;
    got[0] = words[0] = 0;
    loop = new_loop(engine, &handler);
}

static int connect_with(const char *address, omni_connect_options options)
{
    options.size = sizeof options;
    options.context = &opened;
    out = NULL;
    return omni_loop_connect(loop, address, &options, &handler_out, 11, &out);
}

/* Echoes through a connection out, and ends it. */
static void echo_through(const char *address)
{
    int before = seen->closed;
    opened = closed = last_error = 0;
    got[0] = 0;
    IS(connect_with(address, (omni_connect_options){0}), 0);
    OK(out && opened == 0);
    IS(omni_conn_queued(out), -EPERM); /* it is not open */
    OK(omni_conn_write(out, "before", 6) >= 0);
    RUN_UNTIL(strlen(got) == 6);
    OK(omni_conn_write(out, " after", 6) >= 0);
    RUN_UNTIL(strlen(got) == 12);
    OK(strcmp(got, "before after") == 0);
    IS(opened, 1);
    IS(omni_conn_queued(out), 0);
    IS(omni_conn_close(out), 0);
    RUN_UNTIL(closed == 1 && seen->closed == before + 1);
    IS(last_error, 0);
    IS(omni_conn_close(out), -ESTALE);
}

static void by_handler(uint32_t engine)
{
    char name[64];
    begin(engine);
    int port = loop_listen(loop, NULL, 7);
    echo_through(address_of(port));
    snprintf(name, sizeof name, "localhost:%d", port);
    echo_through(name);
    IS(omni_loop_listen(loop, "unix:@omnipoll connect", NULL, 7), 0);
    echo_through("unix:@omnipoll connect");
    int fd = connect_to(port);
    snprintf(name, sizeof name, "fd:%d", fd);
    echo_through(name);
    close(fd);
    /* With the loop's own handler, and no handle or options. */
    int before = seen->opened;
    IS(omni_loop_connect(loop, address_of(port), NULL, NULL, 8, NULL), 0);
    RUN_UNTIL(seen->opened == before + 2);
    omni_loop_free(loop);
}

static void never_opened(uint32_t engine)
{
    begin(engine);
    char expected[64];
    int port = refused_port();
    IS(connect_with(address_of(port), (omni_connect_options){0}), 0);
    RUN_UNTIL(closed);
    IS(last_error, -ECONNREFUSED);
    snprintf(expected, sizeof expected, "127.0.0.1:%d", port);
    OK(strstr(words, "omni_loop_connect: ") && strstr(words, expected) && strstr(words, "ECONNREFUSED"));
    IS(omni_conn_token(out), 0);
    OK(!omni_conn_context(out) && !omni_conn_loop(out));
    IS(omni_conn_write(out, "x", 1), -ESTALE);

    IS(connect_with("unix:/nobody is here", (omni_connect_options){0}), 0);
    RUN_UNTIL(closed == 2);
    IS(last_error, -ENOENT);
    OK(strstr(words, "/nobody is here"));

    /* One that is given up. */
    IS(connect_with(address_of(port), (omni_connect_options){0}), 0);
    IS(omni_conn_close(out), 0);
    RUN_UNTIL(closed == 3);
    OK(last_error == -ECANCELED || last_error == -ECONNREFUSED);
    /* And one of a loop that stops. */
    IS(connect_with(address_of(port), (omni_connect_options){0}), 0);
    IS(omni_loop_stop(loop, 0), 0);
    IS(omni_loop_run(loop), 0);
    IS(closed, 4);
    IS(opened, 0);
    omni_loop_free(loop);
}

static void bad_arguments(uint32_t engine)
{
    begin(engine);
    omni_connect_options options = {.size = sizeof options};
    IS(connect_with("nonsense", options), -EINVAL);
    OK(strstr(omni_last_error(), "omni_loop_connect: \"nonsense\""));
    OK(!out);
    IS(connect_with(NULL, options), -EINVAL);
    IS(connect_with("fd:0x", options), -EINVAL);
    IS(connect_with("127.0.0.1:80", (omni_connect_options){.flags = 2}), -EINVAL);
    IS(connect_with("127.0.0.1:80", (omni_connect_options){.local_address = "elsewhere"}), -EINVAL);
    IS(connect_with("unix:@x", (omni_connect_options){.local_address = "127.0.0.1"}), -EINVAL);
    options.size--;
    IS(omni_loop_connect(loop, "127.0.0.1:80", &options, NULL, 0, NULL), -EINVAL);
    options.size = UINT32_MAX;
    IS(omni_loop_connect(loop, "127.0.0.1:80", &options, NULL, 0, NULL), -E2BIG);
    const omni_handler unset = {.size = 8};
    IS(omni_loop_connect(loop, "127.0.0.1:80", NULL, &unset, 0, NULL), -EINVAL);
    omni_loop_free(loop);
    IS(omni_loop_connect(loop, "127.0.0.1:80", NULL, NULL, 0, NULL), -ESTALE);
}

static void every_option(uint32_t engine)
{
    begin(engine);
    int port = loop_listen(loop, NULL, 7);
    IS(connect_with(address_of(port), (omni_connect_options){.flags = OMNI_CONNECT_DELAY,
                                                             .timeout_ns = -1,
                                                             .keep_alive_ns = 60 * SECOND,
                                                             .local_address = "127.0.0.3"}),
       0);
    RUN_UNTIL(opened && seen->opened);
    char peer[64];
    OK(omni_conn_peer(seen->conn, peer, sizeof peer) > 0);
    OK(strncmp(peer, "127.0.0.3:", 10) == 0);
    omni_loop_free(loop);
}

/* ---- Pulled ---------------------------------------------------------------------------------- */

static void pulled(uint32_t engine)
{
    omni_loop *pulled_loop = new_loop(engine, NULL);
    const omni_connect_options with_context = {.size = sizeof with_context, .context = got};
    const uint8_t *buffer = NULL;
    int listener, port, refused = refused_port();
    IS(omni_loop_buffer(pulled_loop, &buffer, NULL), 0);
    listener = bound(SOCK_STREAM, &port);
    IS(listen(listener, 8), 0);
    IS(omni_loop_connect(pulled_loop, address_of(port), NULL, &handler_out, 1, &out), -EINVAL);
    IS(omni_loop_connect(pulled_loop, address_of(port), &with_context, NULL, 1, &out), -EINVAL);
    IS(omni_loop_connect(pulled_loop, address_of(port), NULL, NULL, 1, &out), 0);
    omni_loop_event event = one_loop_event(pulled_loop, OMNI_EVENT_CONNECTED, 1);
    OK(conn_of(&event) == out);
    IS(omni_conn_is_outgoing(out), 1);
    int fd = accept(listener, NULL, NULL);
    send_text(fd, "hello");
    event = one_loop_event(pulled_loop, OMNI_EVENT_DATA, 1);
    OK(event.length == 5 && memcmp(buffer + event.offset, "hello", 5) == 0);
    close(fd);
    one_loop_event(pulled_loop, OMNI_EVENT_ENDED, 1);
    IS(omni_conn_close(out), 0);
    one_loop_event(pulled_loop, OMNI_EVENT_CLOSED, 1);

    IS(omni_loop_connect(pulled_loop, address_of(refused), NULL, NULL, 2, &out), 0);
    event = one_loop_event(pulled_loop, OMNI_EVENT_CLOSED, 2);
    OK(conn_of(&event) == out);
    IS(event.ready, ECONNREFUSED);
    char text[256];
    snprintf(text, sizeof text, "%.*s", (int)event.length, (const char *)buffer + event.offset);
    OK(strstr(text, address_of(refused)));
    close(listener);
    omni_loop_free(pulled_loop);
}

/* ---- A proxy --------------------------------------------------------------------------------- */

static int backend_port;

/* A client comes: it waits until there is a connection to the backend. */
static int open_at_proxy(omni_conn *conn, void *context)
{
    if (!omni_conn_is_outgoing(conn)) {
        omni_conn *backend;
        IS(omni_conn_pause(conn), 0);
        IS(omni_loop_connect(omni_conn_loop(conn), address_of(backend_port), NULL, NULL, omni_conn_id(conn),
                             &backend),
           0);
        return note_open(conn, context);
    }
    omni_conn *client = by_id(omni_conn_token(conn));
    IS(omni_conn_write_proxy_header(conn, 3, client), -EINVAL);
    IS(omni_conn_relay(conn, NULL), -EINVAL);
    IS(omni_conn_relay(conn, client), 0);
    IS(omni_conn_relay(client, conn), 0);
    IS(omni_conn_resume(client), 0);
    return note_open(conn, context);
}

static void close_at_proxy(omni_conn *conn, int error, void *context)
{
    note_close(conn, error, context);
    if (error == -ECONNREFUSED) { /* the client's connection is not relayed yet */
        OK(strstr(omni_last_error(), address_of(backend_port)));
        IS(omni_conn_abort(by_id(omni_conn_token(conn))), 0);
    }
}

static void *serve_backend(void *argument)
{
    char bytes[4096];
    ssize_t count;
    int fd = accept(*(int *)argument, NULL, NULL);
    OK(fd >= 0);
    while ((count = recv(fd, bytes, sizeof bytes, 0)) > 0)
        IS(send(fd, bytes, (size_t)count, MSG_NOSIGNAL), count);
    close(fd);
    return NULL;
}

/* What a client sends comes back through the proxy. */
static void go_through(int fd)
{
    send_text(fd, "there and back");
    receive(fd, "there and back");
    shutdown(fd, SHUT_WR);
    IS(receive_end(fd), 0);
    close(fd);
}

static void *go_through_elsewhere(void *argument)
{
    go_through(*(int *)argument);
    IS(omni_loop_stop(loop, -1), 0);
    return NULL;
}

static omni_handler proxy_handler(void)
{
    omni_handler handler = noting(NULL);
    handler.on_open = open_at_proxy;
    handler.on_close = close_at_proxy;
    return handler;
}

static void a_proxy(uint32_t engine)
{
    omni_handler handler = proxy_handler();
    pthread_t backend, client_thread;
    memset(seen, 0, sizeof *seen);
    loop = new_loop(engine, &handler);
    int listener = bound(SOCK_STREAM, &backend_port), fd = connect_to(loop_listen(loop, NULL, 0));
    IS(listen(listener, 8), 0);
    IS(pthread_create(&backend, NULL, serve_backend, &listener), 0);
    IS(pthread_create(&client_thread, NULL, go_through_elsewhere, &fd), 0);
    IS(omni_loop_run(loop), 0);
    IS(seen->opened, 2);
    IS(seen->closed, 2);
    IS(seen->error, 0);
    IS(pthread_join(backend, NULL), 0);
    IS(pthread_join(client_thread, NULL), 0);
    close(listener);
    omni_loop_free(loop);
}

static void a_proxy_without_a_backend(uint32_t engine)
{
    omni_handler handler = proxy_handler();
    memset(seen, 0, sizeof *seen);
    backend_port = refused_port();
    loop = new_loop(engine, &handler);
    int fd = connect_to(loop_listen(loop, NULL, 0));
    RUN_UNTIL(seen->closed == 2);
    IS(receive_end(fd), ECONNRESET);
    close(fd);
    omni_loop_free(loop);
}

static void a_proxy_by_a_server(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        pthread_t backend;
        int listener = bound(SOCK_STREAM, &backend_port);
        IS(listen(listener, 8), 0);
        serve(&service, engine, model, proxy_handler());
        IS(pthread_create(&backend, NULL, serve_backend, &listener), 0);
        go_through(client());
        UNTIL(seen->closed == 2);
        IS(seen->error, 0);
        finish(&service);
        IS(pthread_join(backend, NULL), 0);
        close(listener);
    }
}

static const struct behaviour behaviours[] = {
    {"by_handler", by_handler},
    {"never_opened", never_opened},
    {"bad_arguments", bad_arguments},
    {"every_option", every_option},
    {"pulled", pulled},
    {"a_proxy", a_proxy},
    {"a_proxy_without_a_backend", a_proxy_without_a_backend},
    {"a_proxy_by_a_server", a_proxy_by_a_server},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
