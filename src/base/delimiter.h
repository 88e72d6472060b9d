/* SPDX-License-Identifier: MIT
 *
 * Looking for a delimiter in bytes that arrive bit by bit. The caller remembers how far it has
 * looked, so that no byte is looked at again when more come: the whole search is linear in what
 * arrives, whatever the delimiter, however small the pieces. A delimiter of up to 8 bytes is
 * compared in place (at each byte, at worst); for a longer one there is a table, by which no byte
 * is compared more than twice (Knuth, Morris and Pratt). */
#ifndef ASIO_DELIMITER_H
#define ASIO_DELIMITER_H

#include "base/asio.h"

enum { ASIO_DELIMITER_SHORT = 8 };

struct asio_pattern;

/* What a reader looks for. Part of a stream; holds memory only for a long delimiter, until
 * another one is set or it is freed, which asio_stream_free does at the latest. Zeroed: nothing. */
struct asio_delimiter {
    union {
        unsigned char bytes[ASIO_DELIMITER_SHORT];
        struct asio_pattern *pattern; /* of a long one */
    } u;
    uint8_t length; /* of a short one; 0: long, or nothing */
    bool is_long;
    bool line; /* a carriage return before it belongs to it */
};

/* 0 or UV_ENOMEM. The bytes are copied; n is at least 1. */
int asio_delimiter_set(struct asio_delimiter *d, const char *bytes, size_t n);
void asio_delimiter_set_line(struct asio_delimiter *d);
void asio_delimiter_free(struct asio_delimiter *d);

/* Its bytes, at most. */
size_t asio_delimiter_length(const struct asio_delimiter *d);

/* Looks at bytes[seen, n). True: a delimiter is there, the first one ends at *end. After setting
 * the delimiter the first call has seen = 0; every later one has the n of the one before, and the
 * same bytes before it. */
bool asio_delimiter_find(struct asio_delimiter *d, const char *bytes, size_t n, size_t seen, size_t *end);

/* How many bytes come before a delimiter that was found to end at `end`. */
size_t asio_delimiter_content(const struct asio_delimiter *d, const char *bytes, size_t end);

/* After a search that did not find it: where it may begin at the earliest, once more has come. */
size_t asio_delimiter_earliest(const struct asio_delimiter *d, const char *bytes, size_t n);

#endif
