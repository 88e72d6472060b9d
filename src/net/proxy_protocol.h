/* SPDX-License-Identifier: MIT
 *
 * The PROXY protocol of HAProxy, versions 1 and 2: what a proxy says first on a connection about the client that it
 * stands for. A parser of bytes, which knows neither Lua nor streams. */
#ifndef ASIO_PROXY_PROTOCOL_H
#define ASIO_PROXY_PROTOCOL_H

#include "sys/sys.h"

enum { ASIO_PROXY_PATH = 108 }; /* bytes of a path, padded with zeros */

/* The client, and what it has connected to. AF_UNSPEC: the proxy names none, and the
 * addresses of the connection hold. */
struct asio_proxy_names {
    union asio_sockaddr source, target;
    char paths[2 * ASIO_PROXY_PATH]; /* of both, if their family is AF_UNIX */
};

/* Looks at the first n bytes of a connection. Returns the length of the header if it is there; 0 if it goes on,
 * *need is then the least number of bytes to look at again; UV_EPROTO if it is none. */
int asio_proxy_parse(const char *bytes, size_t n, struct asio_proxy_names *names, size_t *need);

#endif
