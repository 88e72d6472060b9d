/* SPDX-License-Identifier: MIT
 *
 * The options of asio.connect and asio.server: one table with one set of names, so that a script can
 * keep one table for both ends. What an end has no use for is ignored; an unknown name raises. */
#ifndef ASIO_SOCKET_OPTIONS_H
#define ASIO_SOCKET_OPTIONS_H

#include "base/asio.h"

struct asio_socket_options {
    double linger;       /* seconds without progress that close allows after it has returned */
    int keepalive;       /* seconds of silence until the system asks the peer; 0: it does not */
    int backlog;         /* of a server */
    int max_connections; /* of a server at a time; 0: any number */
    bool nodelay;
    bool reuseport, ipv6only;
    bool handles;      /* Unix sockets: connections may be passed over it */
    bool unlink_stale; /* Unix sockets: a file that no server listens on any more gives way */
    bool proxied;      /* server: connections come through a proxy, see trusted_proxies.h */
    bool bound;        /* connect: from `bind` */
    struct sockaddr_storage bind;
};

/* What holds without a table. */
struct asio_socket_options asio_socket_options_default(void);

/* Reads the table (or nothing) at `index`, which is argument `arg` of `fname`; raises for an unknown name or a
 * bad value. */
struct asio_socket_options asio_socket_options_check(lua_State *L, int index, int arg, const char *fname);

#endif
