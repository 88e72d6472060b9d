/* SPDX-License-Identifier: MIT
 *
 * What every stream of libuv does for a transport: sockets, pipes, terminals. A transport's struct is
 * an asio_stream with its libuv handle right behind it, so that the functions here find the
 * handle without asking which kind it is; a transport puts them into its table, and its own where it
 * differs.
 *
 * Lifetime: made by asio_uvstream_new, freed by asio_uvstream_close's callback. */
#ifndef ASIO_UVSTREAM_H
#define ASIO_UVSTREAM_H

#include "net/socket_options.h"
#include "stream/stream.h"

/* The beginning of every such struct. */
struct asio_uvstream {
    struct asio_stream stream; /* first */
    uv_stream_t handle;        /* the beginning of a uv_tcp_t, uv_pipe_t, uv_tty_t */
};

#define ASIO_UVSTREAM_LAYOUT(type)                                                                           \
    _Static_assert(offsetof(type, handle) == offsetof(struct asio_uvstream, handle), "handle out of place")

static inline struct asio_uvstream *asio_uvstream_of(struct asio_stream *s)
{
    return (struct asio_uvstream *)(void *)s;
}

/* Memory of `size` bytes for a transport's struct, its stream begun; NULL: out of memory. The caller
 * initialises the handle, and lets its data point to the stream. */
struct asio_uvstream *asio_uvstream_new(
    struct asio_rt *rt, size_t size, const struct asio_transport *transport);

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
struct asio_uvstream *asio_uvstream_adopt(struct asio_rt *rt, const struct asio_socket_family *family,
    const struct asio_socket_options *options, uv_os_sock_t fd, int *status);

/* Gives back a stream that was never a connection. */
static inline void asio_uvstream_discard(struct asio_uvstream *u)
{
    u->stream.transport->close(&u->stream);
}

/* Entries of a transport's table; see stream.h. */
int asio_uvstream_read_start(struct asio_stream *s);
void asio_uvstream_read_stop(struct asio_stream *s);
ssize_t asio_uvstream_try_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count); /* sockets */
int asio_uvstream_write(struct asio_stream *s, const uv_buf_t *bufs, unsigned count, size_t bytes);
int asio_uvstream_shutdown(struct asio_stream *s);
size_t asio_uvstream_unsent(struct asio_stream *s);
size_t asio_uvstream_unread(struct asio_stream *s);
void asio_uvstream_close(struct asio_stream *s);
int asio_uvstream_fd(struct asio_stream *s, uv_os_fd_t *fd);

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
