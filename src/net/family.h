/* SPDX-License-Identifier: MIT
 *
 * Kinds of stream sockets (TCP, Unix), and what is done alike for each: taking over a socket that is connected
 * already, and connecting one. */
#ifndef ASIO_FAMILY_H
#define ASIO_FAMILY_H

#include "net/socket_options.h"
#include "stream/uvstream.h"

/* A kind of stream that a server can listen for, and that another process can pass. */
struct asio_socket_family {
    const char *name;
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

/* A connect on its way.
 * Created before libuv is asked; owns the stream until the waiter has it; found through the wait
 * record and libuv's request; freed when libuv calls back, which it does also for a handle that was
 * closed meanwhile, so also if the state closes first. */
struct asio_connecting {
    uv_connect_t req; /* first */
    struct asio_uvstream *stream;
    struct asio_wait *wait; /* NULL: given up */
};

/* Takes the stream, also when it fails: NULL, out of memory. */
struct asio_connecting *asio_connecting_new(struct asio_uvstream *u);

/* Gives both back, when libuv was not asked after all. */
void asio_connecting_free(struct asio_connecting *c);

void asio_connecting_done(uv_connect_t *req, int status); /* the callback for libuv */

/* Waits for it; use as `return asio_connecting_park(...)`: the connection. */
int asio_connecting_park(lua_State *L, struct asio_wait *w, struct asio_connecting *c, double timeout);

#endif
