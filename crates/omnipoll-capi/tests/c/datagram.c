/* Datagrams, checked through the public header on every engine and under every model that has them.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

static void inherited_datagrams(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
        omni_handler handler = {.size = sizeof handler, .context = &seen, .on_datagram = reply_local};
        struct service service = {.server = new_server(&options, &handler)};
        char address[32], returned[64], expected[64];
        int port, fd = bound(SOCK_DGRAM, &port);
        snprintf(address, sizeof address, "fd:%d", fd);
        if (!takes_datagrams(model)) {
            IS(omni_server_listen(service.server, address), -ENOTSUP);
            OK(!(fcntl(fd, F_GETFD) & FD_CLOEXEC));
            omni_server_free(service.server);
            close(fd);
            continue;
        }
        IS(omni_server_listen(service.server, address), 0);
        OK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
        snprintf(expected, sizeof expected, "udp:127.0.0.1:%d", port);
        IS(omni_server_address(service.server, returned, sizeof returned), strlen(expected));
        IS(strcmp(returned, expected), 0);
        if (forks(model)) {
            omni_server_free(service.server);
            continue; /* socket_activation has it serve */
        }
        IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
        ask_where(1, port);
        finish(&service);
    }
}

static _Atomic(omni_datagram *) last_datagram;

static void reply(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    char peer[64], some[5];
    OK(context == &seen);
    if (last_datagram)
        IS(omni_datagram_reply(last_datagram, "", 0), -ESTALE);
    last_datagram = datagram;
    int peer_length = omni_datagram_peer(datagram, peer, sizeof peer);
    IS(peer_length, strlen(peer));
    OK(strncmp(peer, "127.0.0.1:", 10) == 0);
    IS(omni_datagram_peer(datagram, some, sizeof some), peer_length);
    OK(strcmp(some, "127.") == 0);
    IS(omni_datagram_peer(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_reply(datagram, NULL, 1), -EINVAL);
    IS(omni_datagram_reply(datagram, peer, 65508), -EMSGSIZE);
    IS(omni_datagram_reply(datagram, data, length), 0);
}

/* A server at every address of the machine answers from the one that was asked. */
static void addresses_of_datagrams(uint32_t engine)
{
    const char *const wildcards[] = {"udp:0.0.0.0:0", "udp::0", "udp:*:0"};
    for (uint32_t model = OMNI_MODEL_REACTOR; model <= OMNI_MODEL_CORES; model++)
        for (size_t i = 0; i < sizeof wildcards / sizeof *wildcards; i++) {
            omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
            omni_handler handler = {.size = sizeof handler, .context = &seen, .on_datagram = reply_local};
            struct service service = {.server = new_server(&options, &handler)};
            char address[64];
            IS(omni_server_listen(service.server, wildcards[i]), 0);
            OK(omni_server_address(service.server, address, sizeof address) > 0);
            IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
            for (int host = 1; host <= 3; host++)
                ask_where(host, atoi(strrchr(address, ':') + 1));
            finish(&service);
        }
}

static void datagrams(uint32_t engine)
{
    IS(omni_datagram_reply(NULL, "", 0), -EINVAL);
    IS(omni_datagram_peer(NULL, NULL, 0), -EINVAL);
    IS(omni_datagram_local(NULL, NULL, 0), -EINVAL);
    for (uint32_t model = OMNI_MODEL_REACTOR; model <= OMNI_MODEL_CORES; model++) {
        struct service service = {0};
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model};
        omni_handler handler = {.size = sizeof handler, .context = &seen, .on_datagram = reply};
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        char address[64];
        service.server = new_server(&options, &handler);
        IS(omni_server_listen(service.server, "udp:127.0.0.1:0"), 0);
        omni_server_address(service.server, address, sizeof address);
        to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
        IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        IS(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        for (int i = 0; i < 5; i++) {
            send_text(fd, "hello");
            receive(fd, "hello");
        }
        close(fd);
        omni_datagram *datagram = last_datagram;
        IS(omni_datagram_reply(datagram, "", 0), -ESTALE);
        IS(omni_datagram_peer(datagram, NULL, 0), -ESTALE);
        IS(omni_datagram_local(datagram, NULL, 0), -ESTALE);
        omni_server_statistics stats = {.size = sizeof stats};
        IS(omni_server_stats(service.server, UINT32_MAX, &stats), 0);
        IS(stats.datagrams_in, 5);
        IS(stats.datagrams_dropped, 0);
        finish(&service);
        last_datagram = NULL;
    }
}

static const struct behaviour behaviours[] = {
    {"an inherited datagram socket is served", inherited_datagrams},
    {"datagrams are answered, and stale in the end", datagrams},
    {"a datagram has the address that was asked", addresses_of_datagrams},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
