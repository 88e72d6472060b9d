/* SPDX-License-Identifier: MIT
 * The TCP transport: connecting, accepted and paired sockets. */
#ifndef ASIO_TCP_H
#define ASIO_TCP_H

#include "uvstream.h"

/* Options of a connection, from the opts table of connect or server. */
struct asio_tcp_options {
    double linger; /* seconds that close may take behind the script's back */
    bool nodelay;
};

struct asio_tcp {
    struct asio_stream stream; /* first */
    uv_tcp_t handle;           /* right behind it, see uvstream.h */
};

/* Reads options from the table (or nothing) at `index`, raising for bad ones. */
struct asio_tcp_options asio_tcp_check_options(lua_State *L, int index, int arg, const char *fname);

/* An opened handle without a socket; NULL: out of memory. Give it back with asio_uvstream_close. */
struct asio_tcp *asio_tcp_new(struct asio_rt *rt, struct asio_tcp_options options);

/* Once it has a connected socket: sets the socket's options. */
void asio_tcp_connected(struct asio_tcp *t, struct asio_tcp_options options);

#endif
