/*
 * proxy_header.h: the header of the PROXY protocol, version 1 (a line of text) and version 2 (binary), by
 * which a proxy passes on to the next server who has connected to it, and where.
 *
 * What comes is parsed strictly: a program that takes the header believes it, so it accepts nothing that
 * the protocol's description doesn't allow (haproxy.org/download/2.8/doc/proxy-protocol.txt). It needs no
 * library.
 */
#ifndef PROXY_HEADER_H
#define PROXY_HEADER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    PROXY_HEADER_WRITTEN = 108,  /* the longest that is written, and a zero */
    PROXY_HEADER_LONGEST = 4096, /* that is accepted: version 2 has room for more than addresses */
};

/* Who has connected to what. The family is AF_UNSPEC if that is not known, or not by IP. */
struct proxy_endpoints {
    int family; /* AF_INET, AF_INET6 or AF_UNSPEC */
    uint16_t source_port, destination_port;
    uint8_t source[16], destination[16]; /* 4 bytes of them with AF_INET */
};

static const uint8_t proxy_signature[12] = "\r\n\r\n\0\r\nQUIT\n";

/* ---- Version 1 ------------------------------------------------------------------------------- */

/* The next word of a line, which a single space ends, or the end of the line. */
static inline bool proxy_word(const char **line, char *word, size_t size)
{
    size_t length = strcspn(*line, " ");
    if (length == 0 || length >= size)
        return false;
    memcpy(word, *line, length);
    word[length] = '\0';
    *line += length;
    if (**line == ' ')
        (*line)++;
    return true;
}

static inline bool proxy_address(const char **line, int family, uint8_t *address)
{
    char word[INET6_ADDRSTRLEN];
    return proxy_word(line, word, sizeof word) && **line != '\0' && inet_pton(family, word, address) == 1;
}

/* Decimal, without a sign or a leading zero. */
static inline bool proxy_port(const char **line, uint16_t *port)
{
    char word[6];
    unsigned long value = 0;
    if (!proxy_word(line, word, sizeof word) || (word[0] == '0' && word[1] != '\0'))
        return false;
    for (const char *digit = word; *digit; digit++) {
        if (*digit < '0' || *digit > '9')
            return false;
        value = 10 * value + (unsigned long)(*digit - '0');
    }
    *port = (uint16_t)value;
    return value <= UINT16_MAX;
}

/* What stands behind "PROXY ", without the end of the line. */
static inline bool proxy_line(const char *line, struct proxy_endpoints *found)
{
    if (strcmp(line, "UNKNOWN") == 0 || strncmp(line, "UNKNOWN ", 8) == 0)
        return true;
    if (strncmp(line, "TCP4 ", 5) != 0 && strncmp(line, "TCP6 ", 5) != 0)
        return false;
    int family = line[3] == '4' ? AF_INET : AF_INET6;
    line += 5;
    if (!proxy_address(&line, family, found->source) || !proxy_address(&line, family, found->destination)
        || !proxy_port(&line, &found->source_port) || line[-1] != ' '
        || !proxy_port(&line, &found->destination_port) || line[-1] == ' ' || *line != '\0')
        return false;
    found->family = family;
    return true;
}

static inline int proxy_parse_line(const uint8_t *data, size_t length, struct proxy_endpoints *found)
{
    char line[108]; /* the longest is 107 bytes with its end */
    const uint8_t *end = memchr(data, '\n', length < 107 ? length : 107);
    if (!end)
        return length < 107 ? 0 : -1;
    size_t whole = (size_t)(end - data) + 1;
    if (whole < 8 || data[whole - 2] != '\r' || memchr(data, '\0', whole))
        return -1;
    memcpy(line, data, whole - 2);
    line[whole - 2] = '\0';
    return !strchr(line, '\r') && proxy_line(line + 6, found) ? (int)whole : -1;
}

/* ---- Version 2 ------------------------------------------------------------------------------- */

static inline size_t proxy_number(const uint8_t *bytes)
{
    return (size_t)bytes[0] << 8 | bytes[1];
}

/* Unspecified, or a family and a protocol: IPv4, IPv6 or unix, and stream or datagram. */
static inline bool proxy_is_family(uint8_t byte)
{
    unsigned family = byte >> 4, protocol = byte & 15;
    return byte == 0 || (family >= 1 && family <= 3 && protocol >= 1 && protocol <= 2);
}

/* How long the addresses of a family are, each with its port. */
static inline size_t proxy_addresses_length(unsigned family)
{
    static const size_t lengths[] = {0, 12, 36, 216}; /* unspecified, IPv4, IPv6, unix */
    return lengths[family];
}

/* What follows the addresses: type, length and value, one after another. */
static inline bool proxy_are_values(const uint8_t *data, size_t length)
{
    while (length >= 3 && proxy_number(data + 1) <= length - 3) {
        size_t one = 3 + proxy_number(data + 1);
        data += one;
        length -= one;
    }
    return length == 0;
}

static inline void proxy_read_addresses(const uint8_t *data, int family, struct proxy_endpoints *found)
{
    size_t size = family == AF_INET ? 4 : 16;
    found->family = family;
    memcpy(found->source, data, size);
    memcpy(found->destination, data + size, size);
    found->source_port = (uint16_t)proxy_number(data + 2 * size);
    found->destination_port = (uint16_t)proxy_number(data + 2 * size + 2);
}

static inline int proxy_parse_binary(const uint8_t *data, size_t length, struct proxy_endpoints *found)
{
    /* The command: 0 is LOCAL, of the proxy itself, whose addresses mean nothing; 1 is PROXY. */
    if (length > 12 && data[12] != 0x20 && data[12] != 0x21)
        return -1;
    if (length > 13 && !proxy_is_family(data[13]))
        return -1;
    if (length < 16)
        return 0;
    unsigned family = data[13] >> 4;
    size_t whole = 16 + proxy_number(data + 14), addresses = proxy_addresses_length(family);
    if (whole > PROXY_HEADER_LONGEST || (data[12] == 0x21 && whole < 16 + addresses))
        return -1;
    if (length < whole)
        return 0;
    if (data[12] == 0x20 || family == 0)
        return (int)whole;
    if (family != 3)
        proxy_read_addresses(data + 16, family == 1 ? AF_INET : AF_INET6, found);
    return proxy_are_values(data + 16 + addresses, whole - 16 - addresses) ? (int)whole : -1;
}

/* ---- Both ------------------------------------------------------------------------------------ */

/* Looks for a header where a connection begins. Returns its length, 0 if it is not whole yet, or -1 if this is
 * none. `found` is set when it is whole. Nothing longer than PROXY_HEADER_LONGEST is ever waited for. */
static inline int proxy_header_parse(const uint8_t *data, size_t length, struct proxy_endpoints *found)
{
    memset(found, 0, sizeof *found);
    found->family = AF_UNSPEC;
    if (memcmp(data, proxy_signature, length < 12 ? length : 12) == 0)
        return length < 12 ? 0 : proxy_parse_binary(data, length, found);
    if (memcmp(data, "PROXY ", length < 6 ? length : 6) == 0)
        return length < 6 ? 0 : proxy_parse_line(data, length, found);
    return -1;
}

/* What a connection's two addresses are. */
static inline void proxy_endpoints_of(const struct sockaddr_storage *source,
                                      const struct sockaddr_storage *destination,
                                      struct proxy_endpoints *found)
{
    memset(found, 0, sizeof *found);
    found->family = AF_UNSPEC;
    if (source->ss_family != destination->ss_family)
        return;
    if (source->ss_family == AF_INET) {
        const struct sockaddr_in *from = (const void *)source, *to = (const void *)destination;
        memcpy(found->source, &from->sin_addr, 4);
        memcpy(found->destination, &to->sin_addr, 4);
        found->source_port = ntohs(from->sin_port);
        found->destination_port = ntohs(to->sin_port);
        found->family = AF_INET;
    } else if (source->ss_family == AF_INET6) {
        const struct sockaddr_in6 *from = (const void *)source, *to = (const void *)destination;
        memcpy(found->source, &from->sin6_addr, 16);
        memcpy(found->destination, &to->sin6_addr, 16);
        found->source_port = ntohs(from->sin6_port);
        found->destination_port = ntohs(to->sin6_port);
        found->family = AF_INET6;
    }
}

static inline size_t proxy_write_line(const struct proxy_endpoints *ends, uint8_t *out)
{
    char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
    if (ends->family == AF_UNSPEC)
        return (size_t)snprintf((char *)out, PROXY_HEADER_WRITTEN, "PROXY UNKNOWN\r\n");
    inet_ntop(ends->family, ends->source, source, sizeof source);
    inet_ntop(ends->family, ends->destination, destination, sizeof destination);
    return (size_t)snprintf((char *)out, PROXY_HEADER_WRITTEN, "PROXY TCP%c %s %s %u %u\r\n",
                            ends->family == AF_INET ? '4' : '6', source, destination,
                            (unsigned)ends->source_port, (unsigned)ends->destination_port);
}

static inline size_t proxy_write_binary(const struct proxy_endpoints *ends, uint8_t *out)
{
    size_t size = ends->family == AF_INET ? 4 : ends->family == AF_INET6 ? 16 : 0;
    size_t length = size == 0 ? 0 : 2 * size + 4;
    memcpy(out, proxy_signature, 12);
    out[12] = 0x21;
    out[13] = size == 0 ? 0 : size == 4 ? 0x11 : 0x21;
    out[14] = 0;
    out[15] = (uint8_t)length;
    if (size > 0) {
        const uint16_t ports[] = {htons(ends->source_port), htons(ends->destination_port)};
        memcpy(out + 16, ends->source, size);
        memcpy(out + 16 + size, ends->destination, size);
        memcpy(out + 16 + 2 * size, ports, 4);
    }
    return 16 + length;
}

/* Writes a header of version 1 or 2 to `out`, which has PROXY_HEADER_WRITTEN bytes; returns its length. */
static inline size_t proxy_header_write(int version, const struct proxy_endpoints *ends, uint8_t *out)
{
    return version == 1 ? proxy_write_line(ends, out) : proxy_write_binary(ends, out);
}

#endif
