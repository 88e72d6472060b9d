/* SPDX-License-Identifier: MIT
 * A stream's beginning and its end. */
#ifndef ASIO_STREAM_LIFECYCLE_H
#define ASIO_STREAM_LIFECYCLE_H

#include "stream/stream.h"

void asio_stream_init(struct asio_stream *s, struct asio_rt *rt, const struct asio_transport *transport);
void asio_stream_attach(struct asio_stream *s, struct asio_conn *conn);

/* Puts `above`, which is new, in the place of `s` under its connection. It takes over the connection, its names, its
 * time-outs and linger; the counter stays with `s`, whose handle is counted. What is queued in `s` goes out first; what
 * is buffered in it, and its tap, are the caller's. A status; refused (nothing has changed then): UV_EBADF, closed;
 * UV_EBUSY, a reader, a writer or a tap; or what has ended one of the ways. */
int asio_stream_exchange(struct asio_stream *s, struct asio_stream *above);

void asio_stream_close(struct asio_stream *s, bool collected); /* orderly; returns at once */
/* The same, but what follows the last byte is a reset: the peer gets everything, and cannot take it for the whole. */
void asio_stream_break(struct asio_stream *s);
void asio_stream_abort(struct asio_stream *s); /* resets, drops output */
void asio_stream_drop(struct asio_stream *s);  /* at once; the peer is told nothing by us */
void asio_stream_teardown(void *s);            /* a transport's handle.teardown */

/* From the transport's close callback; the struct's memory stays the transport's. */
void asio_stream_free(struct asio_stream *s);

#endif
