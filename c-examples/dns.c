/*
 * dns.c: a DNS forwarder with a cache, over UDP and TCP. It asks its upstreams by UDP, the next one
 * as soon as one is not there.
 *
 * Shows:
 *  - datagrams in and out of one loop, beside connections: a datagram socket of our own that is
 *    connected to each upstream, handed to the server as "fd:N";
 *  - an answer that comes later than the callback of its question: sent by the socket's handle,
 *    from the address that was asked, or to the connection by its handle;
 *  - on_datagram_error: an upstream that is not there is noticed at once, and the questions it was
 *    asked go to the next, without waiting for a time-out;
 *  - messages that come in parts, and many that come at once, over TCP.
 *
 * Answers are kept for as long as their records' lives permit, by the whole question but for its id.
 * Everything that a client or an upstream chooses is bounded: questions that wait, answers that are
 * kept, what is kept of a connection. A question without an answer is given up after five seconds.
 *
 * It is an example and leaves out what a resolver on the open internet needs: a new port for each
 * question, so that nobody can guess where an answer is waited for, and TCP to the upstreams. An answer
 * that is too long for UDP is passed on as the upstream has cut it.
 *
 * Build:  cc -std=c11 -O2 -o dns dns.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./dns [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:5353]
 *               --upstream 192.0.2.1:53 [--upstream 192.0.2.2:53], then: dig @127.0.0.1 -p 5353 example.org
 */
#define _GNU_SOURCE /* getopt_long */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <omnipoll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    HEADER = 12,
    LONGEST_QUESTION = 512,
    LONGEST_MESSAGE = 65535,
    CACHED = 4096,      /* answers */
    WAITING = 4096,     /* questions */
    UPSTREAMS = 4,
    PATIENCE = 5,       /* seconds */
    LONGEST_LIFE = 3600 /* seconds */
};

/* RFC 1035, 4.1.1 */
enum { QUERY_BIT = 0x80, TRUNCATED_BIT = 0x02, RCODE = 0x0f, SERVER_FAILURE = 2, NO_SUCH_NAME = 3 };
enum { TYPE_SOA = 6, TYPE_OPT = 41 };

struct message {
    const uint8_t *bytes;
    size_t length;
};

/* Who has asked: a connection, or else an address. */
struct client {
    omni_conn *conn;
    omni_datagram_socket *socket;
    struct sockaddr_storage peer, local;
    uint32_t peer_length, local_length;
};

/* A question that an upstream was asked, by the id that we have given it. */
struct question {
    struct client client;
    time_t since;
    int upstream, tries;
    size_t length;
    uint8_t bytes[LONGEST_QUESTION]; /* as the client has sent it */
};

/* The answer to a question, and both with other ids. */
struct answer {
    time_t since, until;
    size_t question_length, length;
    uint8_t bytes[]; /* the question, and the answer */
};

/* The context of a connection: what is not a whole message yet. */
struct stream {
    size_t length;
    uint8_t bytes[2 + LONGEST_MESSAGE];
};

static struct question *asked[65536];
static int asked_count;
static struct answer *cache[CACHED];
static omni_server *server;
static omni_datagram_socket *sockets[1 + UPSTREAMS]; /* ours, and the upstreams' */
static int upstream_count, upstream_now;

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static uint32_t number_at(const uint8_t *bytes, int count)
{
    uint32_t number = 0;
    while (count-- > 0)
        number = number << 8 | *bytes++;
    return number;
}

static void put_number(uint8_t *bytes, int count, uint32_t number)
{
    for (; count-- > 0; number >>= 8)
        bytes[count] = (uint8_t)number;
}

/* ---- Messages ------------------------------------------------------------------------------- */

/* Where a name ends that begins at `at`; 0 if it doesn't. */
static size_t end_of_name(struct message message, size_t at)
{
    while (at < message.length) {
        uint8_t length = message.bytes[at];
        if (length == 0)
            return at + 1;
        if (length >= 0xc0) /* the rest is elsewhere */
            return at + 2 <= message.length ? at + 2 : 0;
        at += 1u + length;
    }
    return 0;
}

/* Where the one question of a message ends; 0 if there isn't one. */
static size_t end_of_question(struct message message)
{
    if (message.length < HEADER || number_at(message.bytes + 4, 2) != 1)
        return 0;
    size_t end = end_of_name(message, HEADER);
    return end > 0 && end + 4 <= message.length ? end + 4 : 0;
}

/* A pass over the records of an answer. Takes `age` seconds from the life of each, if it may write, and
 * returns the shortest life; 0 if there is none, or the message is no good. */
static uint32_t shortest_life(struct message message, uint8_t *writable, uint32_t age)
{
    uint32_t shortest = LONGEST_LIFE, records = 0;
    size_t at = end_of_question(message);
    if (at == 0)
        return 0;
    for (int section = 6; section <= 10; section += 2)
        records += number_at(message.bytes + section, 2);
    bool has_any = false;
    for (; records > 0; records--) {
        at = end_of_name(message, at);
        if (at == 0 || at + 10 > message.length)
            return 0;
        uint32_t type = number_at(message.bytes + at, 2), life = number_at(message.bytes + at + 4, 4);
        size_t life_at = at + 4, data = number_at(message.bytes + at + 8, 2);
        at += 10 + data;
        if (at > message.length)
            return 0;
        if (type == TYPE_OPT)
            continue; /* its life is none */
        has_any = true;
        if (writable)
            put_number(writable + life_at, 4, life > age ? life - age : 0);
        if (type == TYPE_SOA && data >= 4 && number_at(message.bytes + at - 4, 4) < life)
            life = number_at(message.bytes + at - 4, 4); /* how long it is true that there is nothing */
        if (life < shortest)
            shortest = life;
    }
    return has_any ? shortest : 0;
}

/* Whether it answers this question: the names may differ in case. */
static bool answers(struct message message, const struct question *question)
{
    struct message asked_for = {question->bytes, question->length};
    size_t end = end_of_question(asked_for);
    if (end == 0 || end_of_question(message) != end || !(message.bytes[2] & QUERY_BIT))
        return false;
    for (size_t i = HEADER; i < end; i++)
        if (tolower(message.bytes[i]) != tolower(question->bytes[i]))
            return false;
    return true;
}

/* ---- The cache ------------------------------------------------------------------------------ */

/* FNV-1a, of all but the id. A forwarder for strangers needs a hash with a secret. */
static struct answer **place_of(struct message question)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 2; i < question.length; i++)
        hash = (hash ^ question.bytes[i]) * 16777619u;
    return &cache[hash % CACHED];
}

static void keep(struct message question, struct message message)
{
    int code = message.bytes[3] & RCODE;
    uint32_t life = shortest_life(message, NULL, 0);
    if (life == 0 || message.bytes[2] & TRUNCATED_BIT || (code != 0 && code != NO_SUCH_NAME))
        return;
    struct answer *answer = malloc(sizeof *answer + question.length + message.length), **place;
    if (!answer)
        return;
    answer->since = now();
    answer->until = answer->since + (time_t)life;
    answer->question_length = question.length;
    answer->length = message.length;
    memcpy(answer->bytes, question.bytes, question.length);
    memcpy(answer->bytes + question.length, message.bytes, message.length);
    place = place_of(question);
    free(*place);
    *place = answer;
}

/* Writes the answer that is kept to a question, and returns its length; 0 if there is none. */
static size_t recall(struct message question, uint8_t *to)
{
    const struct answer *answer = *place_of(question);
    if (!answer || answer->until <= now() || answer->question_length != question.length
        || memcmp(answer->bytes + 2, question.bytes + 2, question.length - 2) != 0)
        return 0;
    memcpy(to, answer->bytes + answer->question_length, answer->length);
    memcpy(to, question.bytes, 2);
    shortest_life((struct message){to, answer->length}, to, (uint32_t)(now() - answer->since));
    return answer->length;
}

/* ---- Questions and answers ------------------------------------------------------------------ */

/* A client that has gone by now, or that takes nothing, misses it. */
static void answer_client(const struct client *client, struct message message)
{
    static uint8_t framed[2 + LONGEST_MESSAGE];
    if (client->conn) {
        put_number(framed, 2, (uint32_t)message.length);
        memcpy(framed + 2, message.bytes, message.length);
        omni_conn_write(client->conn, framed, 2 + message.length);
        return;
    }
    omni_datagram_socket_send_from(client->socket, (const struct sockaddr *)&client->local,
                                   client->local_length, (const struct sockaddr *)&client->peer,
                                   client->peer_length, message.bytes, message.length);
}

/* Says that there is no answer. */
static void fail(struct question *question)
{
    size_t end = end_of_question((struct message){question->bytes, question->length});
    question->bytes[2] |= QUERY_BIT;
    question->bytes[3] = (uint8_t)((question->bytes[3] & ~RCODE) | SERVER_FAILURE);
    memset(question->bytes + 6, 0, 6); /* no records */
    answer_client(&question->client, (struct message){question->bytes, end});
}

static void forget(uint32_t id)
{
    free(asked[id]);
    asked[id] = NULL;
    asked_count--;
}

/* Asks the present upstream, or another if it can't be sent there; false if there is none left. */
static bool ask(uint32_t id)
{
    struct question *question = asked[id];
    uint8_t sent[LONGEST_QUESTION];
    memcpy(sent, question->bytes, question->length);
    put_number(sent, 2, id);
    while (question->tries++ < upstream_count) {
        question->upstream = upstream_now;
        if (omni_datagram_socket_send(sockets[1 + upstream_now], sent, question->length) == 0)
            return true;
        upstream_now = (upstream_now + 1) % upstream_count;
    }
    return false;
}

/* Gives up what has waited too long: its upstream is not the one to ask. */
static void give_up_old(void)
{
    static time_t last;
    if (now() == last)
        return;
    last = now();
    for (uint32_t id = 0; id < 65536 && asked_count > 0; id++)
        if (asked[id] && asked[id]->since + PATIENCE < last) {
            if (asked[id]->upstream == upstream_now)
                upstream_now = (upstream_now + 1) % upstream_count;
            forget(id);
        }
}

static void ask_upstream(const struct client *client, struct message message)
{
    uint16_t id;
    struct question *question = asked_count < WAITING ? calloc(1, sizeof *question) : NULL;
    if (!question)
        return; /* the client asks again */
    do {
        if (getrandom(&id, sizeof id, 0) != sizeof id) {
            free(question);
            return;
        }
    } while (asked[id]);
    question->client = *client;
    question->since = now();
    question->length = message.length;
    memcpy(question->bytes, message.bytes, message.length);
    asked[id] = question;
    asked_count++;
    if (!ask(id)) {
        fail(question);
        forget(id);
    }
}

static void handle_question(const struct client *client, struct message message)
{
    static uint8_t kept[LONGEST_MESSAGE];
    give_up_old();
    if (message.length > LONGEST_QUESTION || end_of_question(message) == 0 || message.bytes[2] & QUERY_BIT)
        return;
    size_t length = recall(message, kept);
    if (length > 0)
        answer_client(client, (struct message){kept, length});
    else
        ask_upstream(client, message);
}

static void handle_answer(int upstream, struct message message)
{
    static uint8_t own[LONGEST_MESSAGE];
    if (message.length < HEADER)
        return;
    uint32_t id = number_at(message.bytes, 2);
    struct question *question = asked[id];
    if (!question || question->upstream != upstream || !answers(message, question))
        return; /* too late, or somebody else's */
    keep((struct message){question->bytes, question->length}, message);
    memcpy(own, message.bytes, message.length);
    memcpy(own, question->bytes, 2);
    answer_client(&question->client, (struct message){own, message.length});
    forget(id);
}

/* ---- Callbacks ------------------------------------------------------------------------------ */

/* Which upstream a socket is connected to; -1 for our own. */
static int upstream_of(const omni_datagram_socket *udp)
{
    if (!sockets[0])
        omni_server_datagram_sockets(server, sockets, 1 + UPSTREAMS); /* in the order of listening */
    for (int i = 0; i < upstream_count; i++)
        if (udp == sockets[1 + i])
            return i;
    return -1;
}

static void on_datagram(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    struct client client = {.socket = omni_datagram_receiver(datagram)};
    struct message message = {data, length};
    int upstream = upstream_of(client.socket);
    (void)context;
    if (upstream >= 0) {
        handle_answer(upstream, message);
        return;
    }
    client.peer_length = sizeof client.peer;
    client.local_length = sizeof client.local;
    omni_datagram_peer_sockaddr(datagram, (struct sockaddr *)&client.peer, &client.peer_length);
    omni_datagram_local_sockaddr(datagram, (struct sockaddr *)&client.local, &client.local_length);
    handle_question(&client, message);
}

/* An upstream is not there: the others are asked what it was. */
static void on_datagram_error(omni_datagram_socket *udp, int error, void *context)
{
    int upstream = upstream_of(udp);
    (void)context;
    if (upstream < 0)
        return;
    fprintf(stderr, "dns: upstream %d: %s\n", upstream + 1, omni_strerror(error));
    if (upstream == upstream_now)
        upstream_now = (upstream_now + 1) % upstream_count;
    for (uint32_t id = 0; id < 65536 && asked_count > 0; id++)
        if (asked[id] && asked[id]->upstream == upstream && !ask(id)) {
            fail(asked[id]);
            forget(id);
        }
}

static int on_open(omni_conn *conn, void *context)
{
    struct stream *stream = calloc(1, sizeof *stream);
    (void)context;
    upstream_of(NULL);
    omni_conn_set_context(conn, stream);
    return stream ? 0 : -1;
}

/* Over TCP each message follows its length. */
static void on_data(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    struct stream *stream = omni_conn_context(conn);
    const struct client client = {.conn = conn};
    (void)context;
    while (length > 0) {
        size_t whole = stream->length < 2 ? 2 : 2 + number_at(stream->bytes, 2);
        size_t part = whole - stream->length < length ? whole - stream->length : length;
        memcpy(stream->bytes + stream->length, data, part);
        stream->length += part;
        data += part;
        length -= part;
        if (stream->length >= 2 && stream->length == 2 + number_at(stream->bytes, 2)) {
            handle_question(&client, (struct message){stream->bytes + 2, stream->length - 2});
            stream->length = 0;
        }
    }
}

static void on_stop(omni_conn *conn, void *context)
{
    (void)context;
    omni_conn_close(conn);
}

static void on_close(omni_conn *conn, int error, void *context)
{
    (void)error;
    (void)context;
    free(omni_conn_context(conn));
}

/* ---- The program ---------------------------------------------------------------------------- */

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "dns: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

/* A socket that is connected to "192.0.2.1:53" or "[2001:db8::1]:53". */
static int connect_upstream(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    char host[64] = "";
    const char *colon = strrchr(text, ':');
    uint16_t port = colon ? htons((uint16_t)atoi(colon + 1)) : 0;
    bool is_v6 = text[0] == '[';
    int fd = -1;
    if (port != 0 && colon - text > 2 * is_v6 && colon - text < (ptrdiff_t)sizeof host) {
        memcpy(host, text + is_v6, (size_t)(colon - text) - 2 * is_v6);
        const struct sockaddr *address = is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
        socklen_t length = is_v6 ? sizeof v6 : sizeof v4;
        v4.sin_port = v6.sin6_port = port;
        if (inet_pton(address->sa_family, host, is_v6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) == 1) {
            fd = socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
            if (fd >= 0 && connect(fd, address, length) == 0)
                return fd;
        }
    }
    fprintf(stderr, "dns: %s: %s\n", text, fd < 0 ? "not an address with a port" : strerror(errno));
    exit(EXIT_FAILURE);
}

/* A number that is no engine if there is none of that name, which omni_server_new refuses. */
static uint32_t engine_named(const char *name)
{
    uint32_t engine = OMNI_ENGINE_AUTO;
    while (omni_engine_name(engine) && strcmp(omni_engine_name(engine), name) != 0)
        engine++;
    return engine;
}

/* The same port for TCP and UDP; returns it as text. */
static void listen_on(const char *address, char *listening, size_t room)
{
    char udp[280];
    check(omni_server_listen(server, address));
    check(omni_server_address(server, listening, room));
    snprintf(udp, sizeof udp, "udp:%s", listening);
    check(omni_server_listen(server, udp));
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"engine", 1, NULL, 'e'}, {"address", 1, NULL, 'a'}, {"upstream", 1, NULL, 'u'}, {0}};
    omni_handler handler = {.size = sizeof handler,
                            .on_open = on_open,
                            .on_data = on_data,
                            .on_stop = on_stop,
                            .on_close = on_close,
                            .on_datagram = on_datagram,
                            .on_datagram_error = on_datagram_error};
    omni_server_options options = {
        .size = sizeof options, .flags = OMNI_SERVER_SIGNALS, .idle_timeout_ns = INT64_C(10000000000)};
    const char *address = "127.0.0.1:0"; /* the system chooses a port */
    char listening[256], inherited[32];
    int upstreams[UPSTREAMS];
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'e': options.engine = engine_named(optarg); break;
        case 'a': address = optarg; break;
        case 'u':
            if (upstream_count < UPSTREAMS)
                upstreams[upstream_count++] = connect_upstream(optarg);
            break;
        default: return EXIT_FAILURE;
        }
    if (upstream_count == 0) {
        fprintf(stderr, "dns: whom to ask? --upstream 192.0.2.1:53\n");
        return EXIT_FAILURE;
    }
    check(omni_server_new(&options, &handler, &server));
    listen_on(address, listening, sizeof listening);
    for (int i = 0; i < upstream_count; i++) {
        snprintf(inherited, sizeof inherited, "fd:%d", upstreams[i]);
        check(omni_server_listen(server, inherited));
        close(upstreams[i]); /* the server has a duplicate */
    }
    printf("listening on %s\n", listening);
    fflush(stdout);
    check(omni_server_run(server));
    omni_server_free(server);
    for (int i = 0; i < CACHED; i++)
        free(cache[i]);
    for (uint32_t id = 0; id < 65536; id++)
        free(asked[id]);
    return EXIT_SUCCESS;
}
