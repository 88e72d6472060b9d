/* SPDX-License-Identifier: MIT
 *
 * The proxies whose headers are believed: the option `proxy_protocol` of servers.
 *
 * Lifetime of struct asio_trusted_proxies: a userdata, anchored in the environment table of the server. */
#ifndef ASIO_TRUSTED_PROXIES_H
#define ASIO_TRUSTED_PROXIES_H

#include "base/asio.h"

struct asio_stream;

struct asio_network {
    unsigned char bytes[16]; /* IPv4 is mapped into IPv6 */
    unsigned char prefix;    /* bits; ASIO_NETWORK_UNIX: all Unix sockets */
};
enum { ASIO_NETWORK_UNIX = 255 };

struct asio_trusted_proxies {
    double timeout; /* seconds until the header has to be there */
    size_t count, room;
    struct asio_network networks[];
};

/* Reads the option's value at `index` into `to` (NULL: only looks at it). Raises for what makes no sense. Returns how
 * many networks there are. */
size_t asio_trusted_proxies_read(
    lua_State *L, int index, int arg, const char *fname, struct asio_trusted_proxies *to);

/* Pushes it as a userdata; the same arguments. */
struct asio_trusted_proxies *asio_trusted_proxies_push(lua_State *L, int index, int arg, const char *fname);

/* The peer of a connection is among them. */
bool asio_trusted_proxies_has(const struct asio_trusted_proxies *trust, struct asio_stream *s);

#endif
