/* A server on omnipoll's own serving API, one loop: omnipoll_server http|redis ENGINE. */
#include "../echo/echo.h"
#include "../echo/omnipoll_named.h"
#include "protocol.h"

static protocol *answer;

static int on_open(omni_conn *client, void *context) {
    struct session *session = calloc(1, sizeof *session);
    (void)context;
    must(session != NULL, "calloc");
    return omni_conn_set_context(client, session);
}

static void on_data(omni_conn *client, const uint8_t *data, size_t length, void *context) {
    static struct output output;
    (void)context;
    output.length = 0;
    feed(omni_conn_context(client), answer, (const char *)data, length, &output);
    if (output.length > 0 && omni_conn_write(client, output.bytes, output.length) < 0)
        omni_conn_close(client);
}

static void on_close(omni_conn *client, int error, void *context) {
    struct session *session = omni_conn_context(client);
    (void)error, (void)context;
    end_session(session);
    free(session);
}

int main(int argc, char **argv) {
    const omni_handler handler = {
        .size = sizeof handler, .on_open = on_open, .on_data = on_data, .on_close = on_close};
    answer = protocol_named(argc > 1 ? argv[1] : NULL);
    run_server(argc > 2 ? argv[2] : "auto", 0, "balanced", &handler);
}
