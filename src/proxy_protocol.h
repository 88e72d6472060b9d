/* SPDX-License-Identifier: MIT
 *
 * The PROXY protocol of HAProxy, versions 1 and 2: what a proxy says first on a connection about the client that it
 * stands for. A parser of bytes, which knows neither Lua nor streams. */
#ifndef ASIO_PROXY_PROTOCOL_H
#define ASIO_PROXY_PROTOCOL_H

#include "sys.h"

enum asio_proxy_kind {
    ASIO_PROXY_NONE, /* nobody in particular: the connection's own addresses hold */
    ASIO_PROXY_IP,
    ASIO_PROXY_UNIX,
};

enum { ASIO_PROXY_PATH = 108 }; /* bytes of a path, padded with zeros */

struct asio_proxy_header {
    enum asio_proxy_kind kind;
    union asio_sockaddr source, target;
    const char *paths; /* UNIX: both, inside of the header */
};

/* Looks at the first n bytes of a connection. Returns the length of the header if it is there; 0 if it goes on,
 * *need is then the least number of bytes to look at again; UV_EPROTO if it is none. */
int asio_proxy_parse(const char *bytes, size_t n, struct asio_proxy_header *header, size_t *need);

#endif
