/* SPDX-License-Identifier: MIT
 * Reading from a stream: what a transport tells it, and the waits of readers. */
#ifndef ASIO_STREAM_READ_H
#define ASIO_STREAM_READ_H

#include "plugin/scan.h"
#include "stream/stream.h"

/* For transports. User code may run in both. The bytes are borrowed for the call. */
void asio_stream_received(struct asio_stream *s, char *bytes, size_t n);
void asio_stream_ended(struct asio_stream *s, int status);

/* Asks the transport to read on; false: the stream has ended, see read_status. */
bool asio_stream_start_reading(struct asio_stream *s);
void asio_stream_stop_reading(struct asio_stream *s);

/* Waits for `need` bytes, returns at most `max`. */
int asio_stream_read(lua_State *L, struct asio_stream *s, size_t need, size_t max);
/* All of these take nothing when they fail; where there is a max (at most SIZE_MAX / 2), more than
 * that before what ends it is UV_EMSGSIZE. */
int asio_stream_peek(lua_State *L, struct asio_stream *s, size_t n);
int asio_stream_read_all(lua_State *L, struct asio_stream *s, size_t max);
int asio_stream_read_line(lua_State *L, struct asio_stream *s, size_t max);
/* The delimiter's n bytes are borrowed for the call. */
int asio_stream_read_until(lua_State *L, struct asio_stream *s, const char *delim, size_t n, size_t max);
/* What a plugin's scan finds; see plugin/scan.h. */
int asio_stream_scan(lua_State *L, struct asio_stream *s, struct asio_scan *scan);
void asio_stream_read_abort(struct asio_stream *s, int status); /* wakes the reader, if any */

#endif
