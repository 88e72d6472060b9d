/* SPDX-License-Identifier: MIT
 * The TCP transport, for sockets that were accepted or connected. */
#ifndef ASIO_TCP_H
#define ASIO_TCP_H

#include "net/family.h"

struct asio_tcp {
    struct asio_stream stream; /* first */
    uv_tcp_t handle;           /* right behind it, see uvstream.h */
};

extern const struct asio_socket_family asio_tcp_family;

/* A handle that can be bound to addresses of a family with these options. If it fails nothing is left. */
int asio_tcp_init(uv_loop_t *loop, uv_tcp_t *handle, int family, const struct asio_socket_options *options);
int asio_tcp_bind(
    uv_tcp_t *handle, const struct sockaddr_storage *addr, const struct asio_socket_options *options);

/* A stream that can be bound to, and connect to, addresses of a family. NULL: *status. */
struct asio_uvstream *asio_tcp_make_for(
    struct asio_rt *rt, const struct asio_socket_options *options, int family, int *status);

#endif
