/* SPDX-License-Identifier: MIT
 * A stream's beginning and its end. */
#ifndef ASIO_STREAM_LIFECYCLE_H
#define ASIO_STREAM_LIFECYCLE_H

#include "stream/stream.h"

void asio_stream_init(struct asio_stream *s, struct asio_rt *rt, const struct asio_transport *transport);
void asio_stream_attach(struct asio_stream *s, struct asio_conn *conn);

void asio_stream_close(struct asio_stream *s, bool collected); /* orderly; returns at once */
void asio_stream_abort(struct asio_stream *s);                 /* resets, drops output */
void asio_stream_drop(struct asio_stream *s);                  /* at once, without a word to the peer */
void asio_stream_teardown(void *s);                            /* a transport's handle.teardown */

/* From the transport's close callback; the struct's memory stays the transport's. */
void asio_stream_free(struct asio_stream *s);

#endif
