/* SPDX-License-Identifier: MIT
 * Writing to a stream: the queue, the waits of writers, and what a transport tells of a write of its own. */
#ifndef ASIO_STREAM_WRITE_H
#define ASIO_STREAM_WRITE_H

#include "stream/stream.h"

/* Queues n bytes of the string at stack index `index`, or fails with a status. */
int asio_stream_queue(lua_State *L, struct asio_stream *s, int index, const char *bytes, size_t n);
/* After queueing: parks if the queue is above the mark. Returns as a waiting function. */
int asio_stream_write_end(lua_State *L, struct asio_stream *s);
int asio_stream_flush_wait(lua_State *L, struct asio_stream *s);

/* Half-closes behind what is queued; a status. */
int asio_stream_shutdown(struct asio_stream *s);

/* For transports: a write that was on its way has ended. */
void asio_stream_sent(struct asio_stream *s, size_t bytes, int status);

void asio_stream_flush(struct asio_stream *s);
void asio_stream_write_fail(struct asio_stream *s, int status);  /* the first one stays */
void asio_stream_write_abort(struct asio_stream *s, int status); /* wakes all writers */
void asio_stream_drop_output(struct asio_stream *s);

#endif
