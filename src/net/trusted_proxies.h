/* SPDX-License-Identifier: MIT
 *
 * Who may say on a connection whose it is: the option `proxy_protocol` of servers.
 *
 * Lifetime of struct asio_trust: a userdata, anchored in the environment table of the server. */
#ifndef ASIO_TRUST_H
#define ASIO_TRUST_H

#include "base/asio.h"

struct asio_stream;

struct asio_network {
    unsigned char bytes[16]; /* IPv4 is mapped into IPv6 */
    unsigned char prefix;    /* bits; ASIO_NETWORK_UNIX: all Unix sockets */
};
enum { ASIO_NETWORK_UNIX = 255 };

struct asio_trust {
    double timeout; /* seconds until the header has to be there */
    size_t count, room;
    struct asio_network networks[];
};

/* Reads the option's value at `index` into `to` (NULL: only looks at it). Raises for what makes no sense. Returns how
 * many networks there are. */
size_t asio_trust_read(lua_State *L, int index, int arg, const char *fname, struct asio_trust *to);

/* Pushes it as a userdata; the same arguments. */
struct asio_trust *asio_trust_push(lua_State *L, int index, int arg, const char *fname);

/* The peer of a connection is among them. */
bool asio_trust_has(const struct asio_trust *trust, struct asio_stream *s);

#endif
