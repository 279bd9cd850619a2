/* Parsing and answering, the same for every server in C. */
#define _GNU_SOURCE
#include "protocol.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *grown(void *memory, size_t size) {
    memory = realloc(memory, size);
    if (memory == NULL)
        abort();
    return memory;
}

static void append(struct output *output, const char *bytes, size_t length) {
    if (output->length + length > output->capacity) {
        output->capacity = 2 * (output->length + length);
        output->bytes = grown(output->bytes, output->capacity);
    }
    memcpy(output->bytes + output->length, bytes, length);
    output->length += length;
}

static void say(struct output *output, const char *text) {
    append(output, text, strlen(text));
}

/* HTTP */

static size_t http(const char *data, size_t length, struct output *output) {
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n"
                                 "Hello, world!";
    size_t done = 0;
    const char *end;
    while ((end = memmem(data + done, length - done, "\r\n\r\n", 4)) != NULL) {
        done = (size_t)(end - data) + 4;
        append(output, answer, sizeof answer - 1);
    }
    return done;
}

/* Redis */

enum { MAX_WORDS = 8, BUCKETS = 65536 };

struct word {
    const char *bytes;
    size_t length;
};

struct entry {
    struct entry *next;
    char *key, *value;
    size_t key_length, value_length;
};

static struct entry *buckets[BUCKETS];

/* FNV-1a */
static struct entry **find(struct word key) {
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < key.length; i++)
        hash = (hash ^ (unsigned char)key.bytes[i]) * 0x100000001b3;
    struct entry **place = &buckets[hash % BUCKETS];
    while (*place != NULL && ((*place)->key_length != key.length || memcmp((*place)->key, key.bytes, key.length) != 0))
        place = &(*place)->next;
    return place;
}

static void set(struct word key, struct word value) {
    struct entry **place = find(key), *entry = *place;
    if (entry == NULL) {
        *place = entry = memset(grown(NULL, sizeof *entry), 0, sizeof *entry);
        entry->key = memcpy(grown(NULL, key.length + 1), key.bytes, key.length);
        entry->key_length = key.length;
    }
    entry->value = memcpy(grown(entry->value, value.length + 1), value.bytes, value.length);
    entry->value_length = value.length;
}

static void get(struct word key, struct output *output) {
    struct entry *entry = *find(key);
    char head[32];
    if (entry == NULL) {
        say(output, "$-1\r\n");
        return;
    }
    append(output, head, (size_t)snprintf(head, sizeof head, "$%zu\r\n", entry->value_length));
    append(output, entry->value, entry->value_length);
    say(output, "\r\n");
}

static int is(struct word word, const char *name) {
    return word.length == strlen(name) && strncasecmp(word.bytes, name, word.length) == 0;
}

static void execute(const struct word *words, size_t count, struct output *output) {
    if (count == 1 && is(words[0], "PING"))
        say(output, "+PONG\r\n");
    else if (count == 3 && is(words[0], "SET")) {
        set(words[1], words[2]);
        say(output, "+OK\r\n");
    } else if (count == 2 && is(words[0], "GET"))
        get(words[1], output);
    else
        say(output, "-ERR no such command here\r\n");
}

/* The number after the mark at `*place`, which then is behind its line; -1 when the line is not
 * whole. */
static long number(const char *data, size_t length, size_t *place) {
    const char *end = memchr(data + *place, '\n', length - *place);
    if (end == NULL)
        return -1;
    long value = atol(data + *place + 1);
    *place = (size_t)(end - data) + 1;
    return value;
}

static size_t redis(const char *data, size_t length, struct output *output) {
    size_t done = 0;
    while (done < length) {
        struct word words[MAX_WORDS];
        size_t place = done;
        long count = number(data, length, &place);
        if (count < 0 || count > MAX_WORDS)
            return done;
        for (long i = 0; i < count; i++) {
            long size = place < length ? number(data, length, &place) : -1;
            if (size < 0 || place + (size_t)size + 2 > length)
                return done;
            words[i] = (struct word){data + place, (size_t)size};
            place += (size_t)size + 2;
        }
        execute(words, (size_t)count, output);
        done = place;
    }
    return done;
}

protocol *protocol_named(const char *name) {
    return name != NULL && strcmp(name, "redis") == 0 ? redis : http;
}

/* Sessions */

void feed(struct session *session, protocol *answer, const char *data, size_t length, struct output *output) {
    if (session->length > 0) {
        session->begun = grown(session->begun, session->length + length);
        memcpy(session->begun + session->length, data, length);
        data = session->begun;
        length += session->length;
    }
    size_t rest = length - answer(data, length, output);
    if (rest > 0) {
        if (session->length == 0)
            session->begun = grown(session->begun, rest);
        memmove(session->begun, data + length - rest, rest);
    }
    session->length = rest;
}

void end_session(struct session *session) {
    free(session->begun);
}
