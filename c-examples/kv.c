/*
 * kv.c: an in-memory key-value server that redis-cli and redis-benchmark talk to. It knows PING,
 * ECHO, GET, SET, DEL, EXISTS and INCR, in the Redis protocol (RESP2, or RESP3 after HELLO 3) and
 * as plain lines.
 *
 * Shows:
 *  - requests that come in parts, and many that come at once: what is not whole yet is kept for
 *    the connection, what is whole is answered, all of it with one write;
 *  - a client that asks for more than it reads: once HIGH_WATER bytes wait to be sent, its other
 *    requests are kept, and answered when it has read;
 *  - one table for many threads: a lock, held for one request at a time, under the models that
 *    have threads, and none under the others;
 *  - a clean stop on SIGINT and SIGTERM: clients between two requests are closed.
 *
 * What the clients share depends on the model:
 *  - reactor, cores, thread: one table. What one client sets, all the others get.
 *  - prefork: a table for each process, so for the clients that happen to be served by it.
 *  - fork: a table for each client, empty when it comes and gone when it goes.
 *
 * Build:  cc -std=c11 -O2 -pthread -o kv kv.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./kv [--model reactor|cores|thread|fork|prefork] [--engine select|poll|epoll|io_uring]
 *              [--address 127.0.0.1:6379], then: redis-cli set greeting hello
 */
#define _GNU_SOURCE /* getopt_long */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <omnipoll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_WORDS = 1024,             /* of a request */
    LONGEST_LINE = 65536,         /* of a request that is a plain line */
    LONGEST_WORD = 1024 * 1024,
    LONGEST_REQUEST = 4 * LONGEST_WORD,
    HIGH_WATER = 64 * 1024,       /* bytes of answers: more are made when the client has read these */
};

/* Bytes of another owner. */
struct word {
    const char *bytes;
    size_t length;
};

/* Bytes of our own. */
struct text {
    char *bytes;
    size_t length, room;
    bool failed; /* there was no memory: nothing can be added any more */
};

/* The context of a connection. */
struct client {
    uint64_t id;
    int protocol;         /* RESP2 or RESP3 */
    struct text requests; /* that were not answered yet; the last may not be whole */
    struct text answers;  /* that were not written yet */
};

struct request {
    size_t count;
    struct word words[MAX_WORDS];
};

static void add(struct text *text, const char *bytes, size_t length)
{
    if (text->failed)
        return;
    if (length > text->room - text->length) {
        size_t room = 2 * text->room > text->length + length ? 2 * text->room : text->length + length;
        char *grown = realloc(text->bytes, room);
        if (!grown) {
            text->failed = true;
            return;
        }
        text->bytes = grown;
        text->room = room;
    }
    if (length > 0)
        memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

/* ---- The table ------------------------------------------------------------------------------ */

struct entry {
    struct entry *next; /* with a hash that falls into the same bucket */
    size_t key_length, value_length;
    char *value;
    char key[];
};

static struct {
    struct entry **buckets;
    size_t bucket_count, count;
} table;

/* FNV-1a. A server for strangers needs a hash with a secret, or they choose keys that collide. */
static size_t hash_of(struct word key)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < key.length; i++)
        hash = (hash ^ (unsigned char)key.bytes[i]) * 1099511628211u;
    return (size_t)(hash ^ hash >> 32);
}

/* Where the pointer to a key's entry is, or would be; NULL while there is no table. */
static struct entry **place_of(struct word key)
{
    if (!table.buckets)
        return NULL;
    struct entry **place = &table.buckets[hash_of(key) & (table.bucket_count - 1)];
    while (*place
           && ((*place)->key_length != key.length || memcmp((*place)->key, key.bytes, key.length) != 0))
        place = &(*place)->next;
    return place;
}

static struct entry *find(struct word key)
{
    struct entry **place = place_of(key);
    return place ? *place : NULL;
}

/* Twice the buckets once there is an entry for each. Without memory it stays as it is. */
static void make_room(void)
{
    if (table.buckets && table.count < table.bucket_count)
        return;
    size_t count = table.buckets ? 2 * table.bucket_count : 1024;
    struct entry **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return;
    for (size_t i = 0; i < table.bucket_count; i++)
        for (struct entry *entry = table.buckets[i], *next; entry; entry = next) {
            struct word key = {entry->key, entry->key_length};
            struct entry **place = &buckets[hash_of(key) & (count - 1)];
            next = entry->next;
            entry->next = *place;
            *place = entry;
        }
    free(table.buckets);
    table.buckets = buckets;
    table.bucket_count = count;
}

static bool set(struct word key, struct word value)
{
    make_room();
    struct entry **place = place_of(key);
    char *copy = place ? malloc(value.length + 1) : NULL;
    if (!copy)
        return false;
    memcpy(copy, value.bytes, value.length);
    if (!*place) {
        struct entry *entry = calloc(1, sizeof *entry + key.length);
        if (!entry) {
            free(copy);
            return false;
        }
        memcpy(entry->key, key.bytes, key.length);
        entry->key_length = key.length;
        *place = entry;
        table.count++;
    }
    free((*place)->value);
    (*place)->value = copy;
    (*place)->value_length = value.length;
    return true;
}

static bool delete(struct word key)
{
    struct entry **place = place_of(key), *entry = place ? *place : NULL;
    if (!entry)
        return false;
    *place = entry->next;
    free(entry->value);
    free(entry);
    table.count--;
    return true;
}

static void free_table(void)
{
    for (size_t i = 0; i < table.bucket_count; i++)
        while (table.buckets[i]) {
            struct entry *entry = table.buckets[i];
            table.buckets[i] = entry->next;
            free(entry->value);
            free(entry);
        }
    free(table.buckets);
}

/* ---- Commands ------------------------------------------------------------------------------- */

static void say(struct client *client, const char *format, ...)
{
    char line[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line - 2, format, arguments);
    va_end(arguments);
    strcat(line, "\r\n");
    add(&client->answers, line, strlen(line));
}

static void say_bytes(struct client *client, const char *bytes, size_t length)
{
    say(client, "$%zu", length);
    add(&client->answers, bytes, length);
    add(&client->answers, "\r\n", 2);
}

static void say_word(struct client *client, const char *word)
{
    say_bytes(client, word, strlen(word));
}

static void say_null(struct client *client)
{
    say(client, client->protocol == 3 ? "_" : "$-1");
}

/* Begins a list of pairs. */
static void say_map(struct client *client, int pairs)
{
    if (client->protocol == 3)
        say(client, "%%%d", pairs);
    else
        say(client, "*%d", 2 * pairs);
}

static const char no_memory[] = "-ERR there is not enough memory";

static void ping(struct client *client, const struct request *request)
{
    if (request->count == 1)
        say(client, "+PONG");
    else
        say_bytes(client, request->words[1].bytes, request->words[1].length);
}

static void echo(struct client *client, const struct request *request)
{
    say_bytes(client, request->words[1].bytes, request->words[1].length);
}

static void get_key(struct client *client, const struct request *request)
{
    const struct entry *entry = find(request->words[1]);
    if (entry)
        say_bytes(client, entry->value, entry->value_length);
    else
        say_null(client);
}

static void set_key(struct client *client, const struct request *request)
{
    say(client, set(request->words[1], request->words[2]) ? "+OK" : no_memory);
}

static void del(struct client *client, const struct request *request)
{
    int deleted = 0;
    for (size_t i = 1; i < request->count; i++)
        deleted += delete(request->words[i]);
    say(client, ":%d", deleted);
}

static void exists(struct client *client, const struct request *request)
{
    int found = 0;
    for (size_t i = 1; i < request->count; i++)
        found += find(request->words[i]) != NULL;
    say(client, ":%d", found);
}

/* Digits, with a sign or without, and nothing else. */
static bool read_number(const char *bytes, size_t length, int64_t *number)
{
    char text[24] = "", *end;
    if (length == 0 || length >= sizeof text || isspace((unsigned char)*bytes))
        return false;
    memcpy(text, bytes, length);
    *number = strtoll(text, &end, 10);
    return end == text + length && *number != INT64_MIN && *number != INT64_MAX;
}

static void incr(struct client *client, const struct request *request)
{
    const struct entry *entry = find(request->words[1]);
    int64_t number = 0;
    char digits[24];
    if (entry && !read_number(entry->value, entry->value_length, &number)) {
        say(client, "-ERR value is not an integer or out of range");
        return;
    }
    int length = snprintf(digits, sizeof digits, "%" PRId64, ++number);
    if (set(request->words[1], (struct word){digits, (size_t)length}))
        say(client, ":%" PRId64, number);
    else
        say(client, no_memory);
}

/* Says what server this is, in the protocol that the client wants from now on: HELLO 3. */
static void hello(struct client *client, const struct request *request)
{
    int64_t protocol = client->protocol;
    if (request->count > 1
        && (!read_number(request->words[1].bytes, request->words[1].length, &protocol) || protocol < 2
            || protocol > 3)) {
        say(client, "-NOPROTO unsupported protocol version");
        return;
    }
    client->protocol = (int)protocol;
    say_map(client, 5);
    say_word(client, "server");
    say_word(client, "kv");
    say_word(client, "proto");
    say(client, ":%d", client->protocol);
    say_word(client, "id");
    say(client, ":%" PRIu64, client->id);
    say_word(client, "mode");
    say_word(client, "standalone");
    say_word(client, "role");
    say_word(client, "master");
}

/* redis-cli asks for a list of the commands, for its hints. */
static void command(struct client *client, const struct request *request)
{
    (void)request;
    say(client, "*0");
}

/* redis-benchmark asks for settings, to show them: CONFIG GET save. */
static void config(struct client *client, const struct request *request)
{
    say_map(client, 1);
    say_bytes(client, request->words[2].bytes, request->words[2].length);
    say_word(client, "");
}

static const struct command {
    const char *name;
    size_t least, most; /* words, its name among them */
    void (*run)(struct client *, const struct request *);
} commands[] = {
    {"PING", 1, 2, ping},           {"ECHO", 2, 2, echo},
    {"GET", 2, 2, get_key},         {"SET", 3, 3, set_key},
    {"DEL", 2, MAX_WORDS, del},     {"EXISTS", 2, MAX_WORDS, exists},
    {"INCR", 2, 2, incr},           {"COMMAND", 1, MAX_WORDS, command},
    {"CONFIG", 3, 3, config},       {"HELLO", 1, 2, hello},
};

/* Locked only where several threads use the table. */
static bool has_threads;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void execute(struct client *client, const struct request *request)
{
    struct word name = request->words[0];
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct command *command = &commands[i];
        if (name.length != strlen(command->name) || strncasecmp(name.bytes, command->name, name.length) != 0)
            continue;
        if (request->count < command->least || request->count > command->most) {
            say(client, "-ERR wrong number of arguments for '%s'", command->name);
            return;
        }
        if (has_threads)
            pthread_mutex_lock(&lock);
        command->run(client, request);
        if (has_threads)
            pthread_mutex_unlock(&lock);
        return;
    }
    say(client, "-ERR unknown command");
}

/* ---- The protocol --------------------------------------------------------------------------- */

/* What reading a request comes to, if not to its length. */
enum { NOT_WHOLE = 0, NO_REQUEST = -1 };

/* "*3\r\n": the number in a line that starts with `kind`. Returns the line's length. */
static ptrdiff_t read_header(const char *text, size_t length, char kind, int64_t most, int64_t *number)
{
    const char *end = memchr(text, '\n', length < 32 ? length : 32);
    if (length > 0 && *text != kind)
        return NO_REQUEST;
    if (!end)
        return length < 32 ? NOT_WHOLE : NO_REQUEST;
    if (end < text + 2 || end[-1] != '\r' || !read_number(text + 1, (size_t)(end - text) - 2, number)
        || *number < 0 || *number > most)
        return NO_REQUEST;
    return end + 1 - text;
}

/* "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n" */
static ptrdiff_t read_words(const char *text, size_t length, struct request *request)
{
    int64_t count, word;
    ptrdiff_t header = read_header(text, length, '*', MAX_WORDS, &count);
    size_t at = (size_t)header;
    if (header <= 0)
        return header;
    for (request->count = 0; request->count < (size_t)count; request->count++) {
        header = read_header(text + at, length - at, '$', LONGEST_WORD, &word);
        if (header <= 0)
            return header;
        at += (size_t)header;
        if (at + (size_t)word > LONGEST_REQUEST)
            return NO_REQUEST;
        if (length - at < (size_t)word + 2)
            return NOT_WHOLE;
        if (memcmp(text + at + word, "\r\n", 2) != 0)
            return NO_REQUEST;
        request->words[request->count] = (struct word){text + at, (size_t)word};
        at += (size_t)word + 2;
    }
    return (ptrdiff_t)at;
}

/* "GET key\r\n" */
static ptrdiff_t read_line(const char *text, size_t length, struct request *request)
{
    const char *end = memchr(text, '\n', length), *word = text;
    if (!end)
        return length < LONGEST_LINE ? NOT_WHOLE : NO_REQUEST;
    for (request->count = 0;; word += request->words[request->count++].length) {
        while (word < end && isspace((unsigned char)*word))
            word++;
        if (word == end)
            return end + 1 - text;
        if (request->count == MAX_WORDS)
            return NO_REQUEST;
        size_t letters = 0;
        while (!isspace((unsigned char)word[letters]))
            letters++;
        request->words[request->count] = (struct word){word, letters};
    }
}

/* Returns how many bytes the request is long that the text starts with; or NOT_WHOLE; or
 * NO_REQUEST, when it never will be one. */
static ptrdiff_t read_request(const char *text, size_t length, struct request *request)
{
    return *text == '*' ? read_words(text, length, request) : read_line(text, length, request);
}

/* ---- A connection --------------------------------------------------------------------------- */

/* Returns how many bytes wait for the client to read; less than 0 when the connection has ended. */
static int send_answers(omni_conn *conn, struct client *client)
{
    struct text *answers = &client->answers;
    int waiting = answers->failed ? -ENOMEM : omni_conn_write(conn, answers->bytes, answers->length);
    if (waiting < 0)
        omni_conn_abort(conn); /* an answer left out would give the next one to the wrong request */
    free(answers->bytes);
    *answers = (struct text){0};
    return waiting;
}

/* Answers the requests that are whole, until the client has to read first. Returns how many bytes
 * they were long, -1 when the connection has ended. */
static ptrdiff_t serve(omni_conn *conn, struct client *client, const char *bytes, size_t length)
{
    struct request request;
    size_t served = 0;
    ptrdiff_t is = NOT_WHOLE;
    int waiting = 0;
    while (served < length && waiting <= HIGH_WATER
           && (is = read_request(bytes + served, length - served, &request)) > 0) {
        served += (size_t)is;
        if (request.count > 0)
            execute(client, &request);
        if (client->answers.length > HIGH_WATER)
            waiting = send_answers(conn, client);
        if (waiting < 0)
            return -1;
    }
    if (is == NO_REQUEST)
        say(client, "-ERR Protocol error");
    if (send_answers(conn, client) < 0)
        return -1;
    if (is == NO_REQUEST || (served == length && omni_conn_stopping(conn) == 1))
        omni_conn_close(conn);
    return is == NO_REQUEST ? -1 : (ptrdiff_t)served;
}

/* Keeps requests for later. */
static bool keep(omni_conn *conn, struct client *client, const char *bytes, size_t length)
{
    add(&client->requests, bytes, length);
    if (client->requests.failed)
        omni_conn_abort(conn);
    return !client->requests.failed;
}

static void serve_what_is_kept(omni_conn *conn, struct client *client)
{
    struct text *kept = &client->requests;
    ptrdiff_t served = serve(conn, client, kept->bytes, kept->length);
    if (served < 0 || (size_t)served == kept->length) {
        free(kept->bytes);
        *kept = (struct text){0};
    } else {
        kept->length -= (size_t)served;
        memmove(kept->bytes, kept->bytes + served, kept->length);
    }
}

static int on_open(omni_conn *conn, void *context)
{
    struct client *client = calloc(1, sizeof *client);
    (void)context;
    if (!client)
        return -ENOMEM;
    client->id = omni_conn_id(conn);
    client->protocol = 2;
    return omni_conn_set_context(conn, client);
}

static void on_data(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    struct client *client = omni_conn_context(conn);
    const char *bytes = (const char *)data;
    (void)context;
    if (client->requests.length > 0) {
        if (keep(conn, client, bytes, length))
            serve_what_is_kept(conn, client);
        return;
    }
    ptrdiff_t served = serve(conn, client, bytes, length);
    if (served >= 0 && (size_t)served < length)
        keep(conn, client, bytes + served, length - (size_t)served);
}

static void on_drain(omni_conn *conn, void *context)
{
    struct client *client = omni_conn_context(conn);
    (void)context;
    if (client->requests.length > 0)
        serve_what_is_kept(conn, client);
}

static void on_stop(omni_conn *conn, void *context)
{
    const struct client *client = omni_conn_context(conn);
    (void)context;
    if (client->requests.length == 0)
        omni_conn_close(conn);
}

static void on_close(omni_conn *conn, int error, void *context)
{
    struct client *client = omni_conn_context(conn);
    (void)error;
    (void)context;
    free(client->requests.bytes);
    free(client->answers.bytes);
    free(client);
}

/* ---- The program ---------------------------------------------------------------------------- */

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "kv: %s\n", omni_last_error());
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
    omni_handler handler = {.size = sizeof handler,
                            .on_open = on_open,
                            .on_data = on_data,
                            .on_drain = on_drain,
                            .on_stop = on_stop,
                            .on_close = on_close};
    omni_server_options options = {
        .size = sizeof options, .flags = OMNI_SERVER_SIGNALS, .high_water = HIGH_WATER};
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
    has_threads = options.model == OMNI_MODEL_CORES || options.model == OMNI_MODEL_THREAD;
    printf("listening on %s\n", listening);
    fflush(stdout); /* before a model forks: a child would have the line, too */
    check(omni_server_run(server));
    omni_server_free(server);
    free_table();
    return EXIT_SUCCESS;
}
