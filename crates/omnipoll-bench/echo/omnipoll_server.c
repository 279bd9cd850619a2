/* The echo server on omnipoll's own serving API, one loop: omnipoll_server ENGINE. */
#include "echo.h"
#include "omnipoll_named.h"

static void on_data(omni_conn *client, const uint8_t *data, size_t length, void *context) {
    (void)context;
    omni_conn_write(client, data, length);
}

int main(int argc, char **argv) {
    const omni_handler handler = {.size = sizeof handler, .on_data = on_data};
    run_one_loop(argc > 1 ? argv[1] : "auto", &handler);
}
