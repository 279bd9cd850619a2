/* The proxy on libuv: two streams for each client; what one sends is written at once to the other with
 * uv_try_write, and what the socket does not take is queued, and nothing is read until it is out. */
#include "proxy.h"
#include <uv.h>

struct side {
    uv_tcp_t stream; /* first, so that its address is both's */
    struct side *other;
    int ended;
};

struct pair {
    struct side client, backend;
    uv_connect_t connect;
    uv_shutdown_t shutdowns[2];
    int closed; /* handles */
};

struct rest {
    uv_write_t request; /* first, so that its address is both's */
    char data[];
};

static struct sockaddr_in backend;

static struct pair *pair_of(struct side *side) {
    return (struct pair *)(side < side->other ? side : side->other);
}

static void on_closed(uv_handle_t *handle) {
    struct pair *pair = pair_of((struct side *)handle);
    if (++pair->closed == 2)
        free(pair);
}

static void close_pair(struct side *side) {
    if (uv_is_closing((uv_handle_t *)side))
        return;
    uv_close((uv_handle_t *)side, on_closed);
    uv_close((uv_handle_t *)side->other, on_closed);
}

static void on_room(uv_handle_t *side, size_t size, uv_buf_t *buffer) {
    static char memory[BUFFER];
    (void)side, (void)size;
    *buffer = uv_buf_init(memory, BUFFER);
}

static void on_data(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer);

static void on_written(uv_write_t *request, int status) {
    struct side *side = (struct side *)request->handle;
    free(request);
    if (status != 0)
        close_pair(side);
    else
        uv_read_start((uv_stream_t *)side->other, on_room, on_data);
}

static void write_later(struct side *to, const char *data, size_t length) {
    struct rest *rest = malloc(sizeof *rest + length);
    must(rest != NULL, "malloc");
    memcpy(rest->data, data, length);
    uv_buf_t buffer = uv_buf_init(rest->data, (unsigned)length);
    uv_read_stop((uv_stream_t *)to->other);
    uv_write(&rest->request, (uv_stream_t *)to, &buffer, 1, on_written);
}

static void on_end(struct side *side) {
    struct pair *pair = pair_of(side);
    side->ended = 1;
    if (side->other->ended)
        close_pair(side);
    else
        uv_shutdown(&pair->shutdowns[side == &pair->client], (uv_stream_t *)side->other, NULL);
}

static void on_data(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct side *side = (struct side *)stream;
    if (length == UV_EOF)
        on_end(side);
    else if (length < 0)
        close_pair(side);
    if (length <= 0)
        return;
    uv_buf_t out = uv_buf_init(buffer->base, (unsigned)length);
    int sent = uv_try_write((uv_stream_t *)side->other, &out, 1);
    if (sent < 0 && sent != UV_EAGAIN)
        close_pair(side);
    else if (sent < length)
        write_later(side->other, buffer->base + (sent < 0 ? 0 : sent), (size_t)(length - (sent < 0 ? 0 : sent)));
}

static void on_connected(uv_connect_t *request, int status) {
    struct side *side = (struct side *)request->handle;
    if (status != 0) {
        close_pair(side);
        return;
    }
    uv_tcp_nodelay(&side->stream, 1);
    uv_read_start((uv_stream_t *)side, on_room, on_data);
    uv_read_start((uv_stream_t *)side->other, on_room, on_data);
}

static void on_client(uv_stream_t *listener, int status) {
    struct pair *pair = calloc(1, sizeof *pair);
    must(status == 0 && pair != NULL, "a client");
    pair->client.other = &pair->backend;
    pair->backend.other = &pair->client;
    must(uv_tcp_init(listener->loop, &pair->client.stream) == 0, "uv_tcp_init");
    must(uv_tcp_init(listener->loop, &pair->backend.stream) == 0, "uv_tcp_init");
    must(uv_accept(listener, (uv_stream_t *)&pair->client) == 0, "uv_accept");
    if (uv_tcp_connect(&pair->connect, &pair->backend.stream, (struct sockaddr *)&backend, on_connected) != 0)
        close_pair(&pair->client);
}

int main(int argc, char **argv) {
    uv_tcp_t listener;
    uv_loop_t *loop = uv_default_loop();
    backend = backend_of(argc, argv);
    must(uv_tcp_init(loop, &listener) == 0, "uv_tcp_init");
    must(uv_tcp_open(&listener, listen_on_loopback()) == 0, "uv_tcp_open");
    must(uv_listen((uv_stream_t *)&listener, SOMAXCONN, on_client) == 0, "uv_listen");
    uv_run(loop, UV_RUN_DEFAULT);
}
