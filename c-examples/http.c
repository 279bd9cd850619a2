/*
 * http.c: the same answer to every request, over HTTP/1.1: what it takes to measure a server with
 * `wrk -c 100 http://127.0.0.1:8080/`, and what every text protocol needs.
 *
 * Shows:
 *  - requests that come in parts, and several that come at once: what is not whole yet is kept
 *    for the connection, what is whole is answered with one write;
 *  - keep-alive, until the client or a stop says `Connection: close`; a client that speaks
 *    HTTP/1.0 asks for it;
 *  - a clean stop on SIGINT and SIGTERM: idle connections are closed, one with a request under
 *    way gets its answer first;
 *  - limits: a head above 8 KiB is 431, what is no HTTP is 400, and a client that sends nothing for 30
 *    seconds is let go.
 * It keeps nothing that clients share, so it is the same under every model. It takes GET and HEAD
 * without a body: whatever else it would have to read, it refuses and closes the connection.
 *
 * Build:  cc -std=c11 -O2 -o http http.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./http [--model reactor|cores|thread|fork|prefork] [--engine select|poll|epoll|io_uring]
 *                [--address 127.0.0.1:8080]
 */
#define _GNU_SOURCE /* getopt_long */
#include <getopt.h>
#include <omnipoll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BODY "Hello, world!\n"

enum { LONGEST_HEAD = 8192, ANSWERS = 16384 };

/* The beginning of a request: a connection's context, while there is one. */
struct part {
    size_t length;
    char bytes[LONGEST_HEAD];
};

struct request {
    size_t length;    /* of its head; 0 when that is not whole */
    int refusal;      /* the status it is refused with; 0 when it is right */
    bool head_only;   /* HEAD */
    bool is_http_1_0; /* where the connection ends with each request, unless it says otherwise */
    bool keep_alive;  /* it says so */
    bool close;       /* the connection ends with it */
};

/* Answers that go out in one write. */
struct answers {
    size_t length;
    char bytes[ANSWERS];
};

/* ---- A request ----------------------------------------------------------------------------- */

/* The length of the line at the start, without its end; *next is where the next one starts. NULL
 * there when the line is not whole. */
static size_t line_length(const char *text, size_t length, const char **next)
{
    const char *end = memchr(text, '\n', length);
    *next = end ? end + 1 : NULL;
    if (!end)
        return length;
    return (size_t)(end - text) - (end > text && end[-1] == '\r');
}

static bool equals(const char *text, size_t length, const char *word)
{
    return length == strlen(word) && strncasecmp(text, word, length) == 0;
}

/* "GET /path HTTP/1.1" */
static void read_first_line(const char *line, size_t length, struct request *request)
{
    const char *target = memchr(line, ' ', length);
    const char *version = target ? memchr(target + 1, ' ', length - (size_t)(target + 1 - line)) : NULL;
    size_t method = target ? (size_t)(target - line) : 0;
    size_t left = version ? length - (size_t)(version + 1 - line) : 0;
    if (left != 8 || memcmp(version + 1, "HTTP/1.", 7) != 0 || version == target + 1 || method == 0) {
        request->refusal = 400;
        return;
    }
    request->head_only = method == 4 && memcmp(line, "HEAD", 4) == 0;
    if (!request->head_only && !(method == 3 && memcmp(line, "GET", 3) == 0))
        request->refusal = 405;
    request->is_http_1_0 = version[8] == '0';
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

/* Takes the blanks at both ends away. */
static const char *trim(const char *text, size_t *length)
{
    const char *end = text + *length;
    while (text < end && is_blank(*text))
        text++;
    while (end > text && is_blank(end[-1]))
        end--;
    *length = (size_t)(end - text);
    return text;
}

/* Whether a list has this word: "keep-alive, Upgrade". */
static bool has_word(const char *list, size_t length, const char *word)
{
    const char *end = list + length;
    for (const char *comma = list; comma; list = comma + 1) {
        comma = memchr(list, ',', (size_t)(end - list));
        size_t item_is = (size_t)((comma ? comma : end) - list);
        const char *item = trim(list, &item_is);
        if (equals(item, item_is, word))
            return true;
    }
    return false;
}

/* "Connection: close" */
static void read_field(const char *line, size_t length, struct request *request)
{
    const char *colon = memchr(line, ':', length);
    if (!colon || colon == line || memchr(line, ' ', (size_t)(colon - line))) {
        request->refusal = 400;
        return;
    }
    size_t name = (size_t)(colon - line), value_is = length - name - 1;
    const char *value = trim(colon + 1, &value_is);
    if (equals(line, name, "Connection")) {
        request->close |= has_word(value, value_is, "close");
        request->keep_alive |= has_word(value, value_is, "keep-alive");
    }
    if (equals(line, name, "Transfer-Encoding")
        || (equals(line, name, "Content-Length") && !equals(value, value_is, "0")))
        request->refusal = 400; /* it has a body */
}

/* Reads the request that the text starts with. What is wrong is found in its first lines, even if
 * the rest has not come. */
static struct request read_request(const char *text, size_t length)
{
    struct request request = {0};
    const char *end = text + (length < LONGEST_HEAD ? length : LONGEST_HEAD), *next;
    for (const char *line = text; line < end; line = next) {
        size_t line_is = line_length(line, (size_t)(end - line), &next);
        if (!next || request.refusal)
            break;
        if (line_is == 0) {
            request.length = (size_t)(next - text);
            request.close |= request.is_http_1_0 && !request.keep_alive;
            return request;
        }
        if (line == text)
            read_first_line(line, line_is, &request);
        else
            read_field(line, line_is, &request);
    }
    if (!request.refusal && length >= LONGEST_HEAD)
        request.refusal = 431;
    return request;
}

/* The length of the empty lines before a request, which RFC 9112 (2.2) says to ignore. */
static size_t empty_lines(const char *text, size_t length)
{
    size_t at = 0;
    const char *next;
    while (at < length && line_length(text + at, length - at, &next) == 0 && next)
        at = (size_t)(next - text);
    return at;
}

/* ---- Answers ------------------------------------------------------------------------------- */

static void send_answers(omni_conn *client, struct answers *answers)
{
    /* A client that reads no answers gets to send no requests, long before there is no room. */
    if (answers->length > 0 && omni_conn_write(client, answers->bytes, answers->length) < 0)
        omni_conn_abort(client);
    answers->length = 0;
}

/* What the answer says of the connection, where it is not what the version says anyway. */
static const char *connection_field(const struct request *request)
{
    if (request->close)
        return "Connection: close\r\n";
    return request->is_http_1_0 ? "Connection: keep-alive\r\n" : "";
}

static void answer(omni_conn *client, struct answers *answers, const char *status, const char *body,
                   const struct request *request)
{
    const size_t longest = 256;
    if (sizeof answers->bytes - answers->length < longest)
        send_answers(client, answers);
    answers->length += (size_t)snprintf(
        answers->bytes + answers->length, longest,
        "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n%s", status,
        strlen(body), connection_field(request), request->head_only ? "" : body);
}

static void refuse(omni_conn *client, struct answers *answers, struct request *request)
{
    static const char *const statuses[] = {"400 Bad Request", "405 Method Not Allowed",
                                           "431 Request Header Fields Too Large"};
    size_t which = request->refusal == 400 ? 0 : request->refusal == 405 ? 1 : 2;
    request->close = true;
    answer(client, answers, statuses[which], "", request);
}

/* ---- A connection -------------------------------------------------------------------------- */

/* Answers all the requests that are whole, and returns how many bytes they were long; -1 when the
 * last one has ended the connection. */
static ptrdiff_t serve(omni_conn *client, const char *text, size_t length)
{
    struct answers answers;
    answers.length = 0; /* an initializer would clear all the bytes, for each request */
    size_t served = 0;
    bool close = false;
    while (served < length && !close) {
        served += empty_lines(text + served, length - served);
        struct request request = read_request(text + served, length - served);
        if (request.refusal) {
            refuse(client, &answers, &request);
        } else if (request.length > 0) {
            served += request.length;
            request.close |= served == length && omni_conn_stopping(client) == 1;
            answer(client, &answers, "200 OK", BODY, &request);
        } else {
            break;
        }
        close = request.close;
    }
    send_answers(client, &answers);
    if (close)
        omni_conn_close(client);
    return close ? -1 : (ptrdiff_t)served;
}

/* Keeps what is not whole yet. It is shorter than LONGEST_HEAD, or would have been refused. */
static struct part *keep(omni_conn *client, struct part *part, const char *rest, size_t length)
{
    if (length == 0) {
        free(part);
        part = NULL;
    } else if (part || (part = malloc(sizeof *part))) {
        memmove(part->bytes, rest, length);
        part->length = length;
    } else {
        omni_conn_abort(client);
    }
    omni_conn_set_context(client, part);
    return part;
}

static void on_data(omni_conn *client, const uint8_t *data, size_t length, void *context)
{
    const char *text = (const char *)data;
    struct part *part = omni_conn_context(client);
    ptrdiff_t served;
    (void)context;
    while (part && length > 0) {
        /* What has begun continues, for as much as there is room for. */
        size_t room = sizeof part->bytes - part->length, more = length < room ? length : room;
        memcpy(part->bytes + part->length, text, more);
        part->length += more;
        text += more;
        length -= more;
        served = serve(client, part->bytes, part->length);
        if (served < 0)
            return;
        part = keep(client, part, part->bytes + served, part->length - (size_t)served);
    }
    if (length > 0) {
        served = serve(client, text, length);
        if (served >= 0)
            keep(client, NULL, text + served, length - (size_t)served);
    }
}

static void on_stop(omni_conn *client, void *context)
{
    (void)context;
    if (!omni_conn_context(client))
        omni_conn_close(client);
}

static void on_close(omni_conn *client, int error, void *context)
{
    (void)error;
    (void)context;
    free(omni_conn_context(client));
}

/* ---- The program --------------------------------------------------------------------------- */

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "http: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

/* A number that is no engine if there is none of that name, which omni_server_new refuses. */
static uint32_t engine_named(const char *name)
{
    uint32_t engine = OMNI_ENGINE_AUTO;
    while (omni_engine_name(engine) && strcmp(omni_engine_name(engine), name) != 0)
        engine++;
    return engine;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"model", 1, NULL, 'm'}, {"engine", 1, NULL, 'e'}, {"address", 1, NULL, 'a'}, {0}};
    omni_handler handler = {
        .size = sizeof handler, .on_data = on_data, .on_stop = on_stop, .on_close = on_close};
    omni_server_options options = {.size = sizeof options,
                                   .flags = OMNI_SERVER_SIGNALS,
                                   .idle_timeout_ns = 30 * INT64_C(1000000000)};
    const char *address = "127.0.0.1:0"; /* the system chooses a port */
    omni_server *server;
    char listening[256];
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'm': options.model = (uint32_t)check(omni_model_by_name(optarg)); break;
        case 'e': options.engine = engine_named(optarg); break;
        case 'a': address = optarg; break;
        default: return EXIT_FAILURE;
        }
    check(omni_server_new(&options, &handler, &server));
    check(omni_server_listen(server, address));
    check(omni_server_address(server, listening, sizeof listening));
    printf("listening on %s\n", listening);
    fflush(stdout); /* before a model forks: a child would have the line, too */
    check(omni_server_run(server));
    omni_server_free(server);
    return EXIT_SUCCESS;
}
