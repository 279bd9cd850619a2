/* The echo server on omnipoll's own serving API, one loop or so many processes: omnipoll_server ENGINE
 * [PROCESSES [POLICY]]. */
#include "echo.h"
#include "omnipoll_named.h"

static void on_data(omni_conn *client, const uint8_t *data, size_t length, void *context) {
    (void)context;
    omni_conn_write(client, data, length);
}

int main(int argc, char **argv) {
    const omni_handler handler = {.size = sizeof handler, .on_data = on_data};
    run_server(argc > 1 ? argv[1] : "auto", argc > 2 ? (uint32_t)atoi(argv[2]) : 0,
               argc > 3 ? argv[3] : "balanced", &handler);
}
