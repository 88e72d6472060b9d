/* SPDX-License-Identifier: MIT
 * The Lua parts (lua/asio/), put into the library as source text when it is built: no bytecode,
 * which differs between architectures. */
#ifndef ASIO_EMBEDDED_H
#define ASIO_EMBEDDED_H

#include <stddef.h>

struct asio_embedded {
    const char *name;
    const char *source;
    size_t length;
};

extern const struct asio_embedded asio_embedded[]; /* ends with a NULL name */

#endif
