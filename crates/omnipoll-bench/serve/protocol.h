/* The two protocols that are served: of HTTP/1.1 a static answer, of Redis's PING, SET and GET. */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include <stddef.h>

/* Answers, to be written. */
struct output {
    char *bytes;
    size_t length, capacity;
};

/* Appends the answers to all whole requests in `data`; returns how much of it these were. */
typedef size_t protocol(const char *data, size_t length, struct output *output);

/* "http" or "redis". */
protocol *protocol_named(const char *name);

/* What a connection has sent of a request that is not whole yet. Begin with zeroes. */
struct session {
    char *begun;
    size_t length;
};

/* Answers what is whole in what has come, and keeps the rest. */
void feed(struct session *session, protocol *answer, const char *data, size_t length, struct output *output);
void end_session(struct session *session);

#endif
