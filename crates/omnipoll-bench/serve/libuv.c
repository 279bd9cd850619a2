/* A server on libuv: libuv http|redis. What the socket does not take at once is queued, and
 * nothing is read until it is out. */
#include "../echo/echo.h"
#include "protocol.h"
#include <uv.h>

/* A client. */
struct visitor {
    uv_tcp_t stream; /* first, so that its address is both's */
    struct session session;
};

struct rest {
    uv_write_t request; /* first, so that its address is both's */
    char data[];
};

static protocol *answer;

static void on_closed(uv_handle_t *client) {
    end_session(&((struct visitor *)client)->session);
    free(client);
}

static void on_room(uv_handle_t *client, size_t size, uv_buf_t *buffer) {
    static char memory[BUFFER];
    (void)client, (void)size;
    *buffer = uv_buf_init(memory, BUFFER);
}

static void on_data(uv_stream_t *client, ssize_t length, const uv_buf_t *buffer);

static void on_written(uv_write_t *request, int status) {
    uv_stream_t *client = request->handle;
    free(request);
    if (status == 0)
        uv_read_start(client, on_room, on_data);
    else if (!uv_is_closing((uv_handle_t *)client))
        uv_close((uv_handle_t *)client, on_closed);
}

static void write_later(uv_stream_t *client, const char *data, size_t length) {
    struct rest *rest = malloc(sizeof *rest + length);
    must(rest != NULL, "malloc");
    memcpy(rest->data, data, length);
    uv_buf_t buffer = uv_buf_init(rest->data, (unsigned)length);
    uv_read_stop(client);
    uv_write(&rest->request, client, &buffer, 1, on_written);
}

static void on_data(uv_stream_t *client, ssize_t length, const uv_buf_t *buffer) {
    if (length < 0) {
        uv_close((uv_handle_t *)client, on_closed);
        return;
    }
    static struct output output;
    output.length = 0;
    feed(&((struct visitor *)client)->session, answer, buffer->base, (size_t)length, &output);
    if (output.length == 0)
        return;
    uv_buf_t out = uv_buf_init(output.bytes, (unsigned)output.length);
    int sent = uv_try_write(client, &out, 1);
    size_t done = sent < 0 ? 0 : (size_t)sent;
    if (sent < 0 && sent != UV_EAGAIN)
        uv_close((uv_handle_t *)client, on_closed);
    else if (done < output.length)
        write_later(client, output.bytes + done, output.length - done);
}

static void on_client(uv_stream_t *listener, int status) {
    struct visitor *visitor = calloc(1, sizeof *visitor);
    must(status == 0 && visitor != NULL, "a client");
    must(uv_tcp_init(listener->loop, &visitor->stream) == 0, "uv_tcp_init");
    must(uv_accept(listener, (uv_stream_t *)visitor) == 0, "uv_accept");
    uv_read_start((uv_stream_t *)visitor, on_room, on_data);
}

int main(int argc, char **argv) {
    answer = protocol_named(argc > 1 ? argv[1] : NULL);
    uv_tcp_t listener;
    uv_loop_t *loop = uv_default_loop();
    must(uv_tcp_init(loop, &listener) == 0, "uv_tcp_init");
    must(uv_tcp_open(&listener, listen_on_loopback()) == 0, "uv_tcp_open");
    must(uv_listen((uv_stream_t *)&listener, SOMAXCONN, on_client) == 0, "uv_listen");
    uv_run(loop, UV_RUN_DEFAULT);
}
