/* SPDX-License-Identifier: MIT
 * The Lua parts (lua/asio/), put into the library as source text when it is built: no bytecode,
 * which differs between architectures. In it a byte above 127 stands for a word: cmake/embed.cmake. */
#ifndef ASIO_EMBEDDED_H
#define ASIO_EMBEDDED_H

#include <stddef.h>

struct asio_embedded {
    const char *name;
    const unsigned char *source;
    size_t length;
};

enum { ASIO_EMBEDDED_LONGEST = 32 };

/* Word n is from asio_embedded_word_at[n] to asio_embedded_word_at[n + 1], at most ASIO_EMBEDDED_LONGEST bytes. */
extern const char asio_embedded_words[];
extern const unsigned short asio_embedded_word_at[];

extern const struct asio_embedded asio_embedded[]; /* ends with a NULL name */

#endif
