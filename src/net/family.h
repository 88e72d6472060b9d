/* SPDX-License-Identifier: MIT
 *
 * Kinds of stream sockets: TCP, Unix, Unix over which connections are passed. A server listens for one kind. */
#ifndef ASIO_FAMILY_H
#define ASIO_FAMILY_H

#include "net/socket_options.h"
#include "stream/uvstream.h"

/* A kind of stream that a server can listen for, and that another process can pass. */
struct asio_socket_family {
    bool local;                                        /* it has names instead of addresses and ports */
    int (*init)(uv_loop_t *loop, uv_stream_t *handle); /* one to listen with */
    int (*open)(uv_stream_t *handle, uv_os_sock_t fd); /* takes the socket, when it succeeds */
    /* A stream without a socket yet; NULL: out of memory. Give it back with asio_uvstream_discard. */
    struct asio_uvstream *(*make)(struct asio_rt *rt, const struct asio_socket_options *options);
    /* It has a connected socket: what the options want of that. */
    int (*connected)(struct asio_uvstream *u, const struct asio_socket_options *options);
};

/* A connection over a connected socket, which is taken over (also when it fails: NULL, *status). */
struct asio_uvstream *asio_family_adopt(struct asio_rt *rt, const struct asio_socket_family *family,
    const struct asio_socket_options *options, uv_os_sock_t fd, int *status);

#endif
