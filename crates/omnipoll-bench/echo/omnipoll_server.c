/* The echo server on omnipoll's own serving API, one loop: omnipoll_server ENGINE. */
#include "echo.h"
#include "omnipoll_named.h"

static void on_data(omni_conn *client, const uint8_t *data, size_t length, void *context) {
    (void)context;
    omni_conn_write(client, data, length);
}

int main(int argc, char **argv) {
    omni_server *server;
    char address[64];
    const omni_handler handler = {.size = sizeof handler, .on_data = on_data};
    const omni_server_options options = {
        .size = sizeof options,
        .model = OMNI_MODEL_REACTOR,
        .engine = engine_named(argc > 1 ? argv[1] : "auto"),
    };
    end_with_stdin();
    raise_descriptor_limit();
    ours(omni_server_new(&options, &handler, &server), "omni_server_new");
    ours(omni_server_listen(server, "127.0.0.1:0"), "omni_server_listen");
    ours(omni_server_address(server, address, sizeof address), "omni_server_address");
    tell_port(atoi(strrchr(address, ':') + 1));
    ours(omni_server_run(server), "omni_server_run");
}
