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

#include "stream/stream.h"

/* The beginning of every such struct. */
struct asio_uvstream {
    struct asio_stream stream; /* first */
    uv_stream_t handle;        /* the beginning of a uv_tcp_t, uv_pipe_t, uv_tty_t */
};

#define ASIO_UVSTREAM_LAYOUT(type)                                                                           \
    _Static_assert(offsetof(type, handle) == offsetof(struct asio_uvstream, handle), "handle out of place")

_Static_assert(
    offsetof(struct asio_stream, transport) == 0, "handle->data points to the table of handle operations");

static inline struct asio_uvstream *asio_uvstream_of(struct asio_stream *s)
{
    return (struct asio_uvstream *)(void *)s;
}

/* Memory of `size` bytes for a transport's struct, its stream begun; NULL: out of memory. The caller
 * initialises the handle, and lets its data point to the stream. */
struct asio_uvstream *asio_uvstream_new(
    struct asio_rt *rt, size_t size, const struct asio_transport *transport);

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
void asio_uvstream_reset(struct asio_stream *s);          /* sockets */
void asio_uvstream_guard(struct asio_stream *s, bool on); /* TCP */
int asio_uvstream_fd(struct asio_stream *s, uv_os_fd_t *fd);

#endif
