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

/* ---- From any thread ------------------------------------------------------------------------- */

/* What a thread needs to answer a datagram whose callback has returned. */
struct answer {
    omni_datagram_socket *socket;
    struct sockaddr_storage peer, local;
    uint32_t peer_length, local_length;
    char text[64];
};

static void *send_answer(void *context)
{
    struct answer *answer = context;
    const struct sockaddr *to = (struct sockaddr *)&answer->peer, *from = (struct sockaddr *)&answer->local;
    IS(omni_datagram_socket_send_from(answer->socket, from, answer->local_length, to, answer->peer_length,
                                      answer->text, strlen(answer->text)), 0);
    free(answer);
    return NULL;
}

static pthread_t answering;

/* Answers from another thread with the address that was asked, and checks what it is given. */
static void answer_later(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    struct answer *answer = calloc(1, sizeof *answer);
    struct sockaddr_in some;
    uint32_t short_length = 4;
    char peer[64];
    OK(answer && data && length && context == &seen);
    answer->socket = omni_datagram_receiver(datagram);
    answer->peer_length = answer->local_length = sizeof answer->peer;
    IS(omni_datagram_peer_sockaddr(datagram, (struct sockaddr *)&answer->peer, &answer->peer_length), 0);
    IS(omni_datagram_local_sockaddr(datagram, (struct sockaddr *)&answer->local, &answer->local_length), 0);
    IS(omni_datagram_peer_sockaddr(datagram, (struct sockaddr *)&some, &short_length), 0);
    IS(short_length, answer->peer_length);
    OK(omni_datagram_local(datagram, answer->text, sizeof answer->text) > 0);
    OK(omni_datagram_peer(datagram, peer, sizeof peer) > 0);
    if (answer->peer.ss_family == AF_INET) {
        memcpy(&some, &answer->peer, sizeof some);
        IS(ntohs(some.sin_port), atoi(strrchr(peer, ':') + 1));
        IS(answer->peer_length, sizeof some);
    }
    IS(pthread_create(&answering, NULL, send_answer, answer), 0);
    IS(pthread_join(answering, NULL), 0);
}

static void other_threads_send(uint32_t engine)
{
    for (uint32_t model = OMNI_MODEL_REACTOR; model <= OMNI_MODEL_CORES; model++) {
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model, .workers = 1};
        omni_handler handler = {.size = sizeof handler, .context = &seen, .on_datagram = answer_later};
        struct service service = {.server = new_server(&options, &handler)};
        omni_datagram_socket *sockets[2] = {0};
        char address[64], local[64];
        int port;
        IS(omni_server_listen(service.server, "udp:*:0"), 0);
        OK(omni_server_address(service.server, address, sizeof address) > 0);
        IS(omni_server_datagram_sockets(service.server, sockets, 2), 0);
        IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
        ask_where(1, atoi(strrchr(address, ':') + 1));
        ask_where(2, atoi(strrchr(address, ':') + 1));

        /* Without having been asked. */
        IS(omni_server_datagram_sockets(service.server, NULL, 0), 1);
        IS(omni_server_datagram_sockets(service.server, sockets, 2), 1);
        OK(omni_datagram_socket_local(sockets[0], local, sizeof local) > 0);
        IS(strcmp(local, address + strlen("udp:")), 0);
        IS(omni_datagram_socket_peer(sockets[0], local, sizeof local), 0);
        IS(local[0], 0);
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = bound(SOCK_DGRAM, &port);
        to.sin_port = htons((uint16_t)port);
        const struct sockaddr *peer = (struct sockaddr *)&to;
        IS(omni_datagram_socket_send_to(sockets[0], peer, sizeof to, "unasked", 7), 0);
        receive(fd, "unasked");
        IS(omni_datagram_socket_send_to(sockets[0], peer, sizeof to, address, 65508), -EMSGSIZE);
        IS(omni_datagram_socket_send(sockets[0], "x", 1), -EDESTADDRREQ);
        struct sockaddr_in foreign = to;
        foreign.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1 */
        const struct sockaddr *from = (struct sockaddr *)&foreign;
        OK(omni_datagram_socket_send_from(sockets[0], from, sizeof foreign, peer, sizeof to, "x", 1) < 0);
        close(fd);
        finish(&service);
        IS(omni_datagram_socket_send_to(sockets[0], peer, sizeof to, "late", 4), -ESTALE);
    }
}

static _Atomic int refused;

static void note_refusal(omni_datagram_socket *socket, int error, void *context)
{
    OK(context == &seen);
    IS(omni_datagram_socket_close(socket), 0);
    IS(omni_datagram_socket_close(socket), -ESTALE);
    refused = error;
}

static void refusals(uint32_t engine)
{
    for (uint32_t model = OMNI_MODEL_REACTOR; model <= OMNI_MODEL_CORES; model++) {
        omni_server_options options = {.size = sizeof options, .engine = engine, .model = model, .workers = 1};
        omni_handler handler = {.size = sizeof handler, .context = &seen, .on_datagram_error = note_refusal};
        struct service service = {.server = new_server(&options, &handler)};
        omni_datagram_socket *socket = NULL;
        char address[32], peer[64], expected[64];
        int nobody, fd, port;
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        nobody = bound(SOCK_DGRAM, &port);
        to.sin_port = htons((uint16_t)port);
        fd = bound(SOCK_DGRAM, &port);
        IS(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        close(nobody);
        snprintf(address, sizeof address, "fd:%d", fd);
        IS(omni_server_listen(service.server, address), 0);
        close(fd);
        refused = 0;
        IS(pthread_create(&service.thread, NULL, run_server, &service), 0);
        UNTIL(omni_server_datagram_sockets(service.server, &socket, 1) == 1);
        snprintf(expected, sizeof expected, "127.0.0.1:%d", ntohs(to.sin_port));
        IS(omni_datagram_socket_peer(socket, peer, sizeof peer), strlen(expected));
        IS(strcmp(peer, expected), 0);
        IS(omni_datagram_socket_send(socket, "hello", 5), 0);
        UNTIL(refused);
        IS(refused, -ECONNREFUSED);
        finish(&service);
    }
}

static const struct behaviour behaviours[] = {
    {"an inherited datagram socket is served", inherited_datagrams},
    {"datagrams are answered, and stale in the end", datagrams},
    {"a datagram has the address that was asked", addresses_of_datagrams},
    {"any thread sends from a datagram socket", other_threads_send},
    {"a connected datagram socket reports refusals", refusals},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
