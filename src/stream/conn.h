/* SPDX-License-Identifier: MIT
 * The methods of a connection, the same for every transport. */
#ifndef ASIO_CONN_H
#define ASIO_CONN_H

#include "stream/stream.h"

extern const char asio_conn_magic;

/* Pushes a new connection that is closed; attach a stream to it (asio_stream_attach) once
 * nothing can fail any more. Raises out of memory. */
struct asio_conn *asio_conn_push(lua_State *L, struct asio_rt *rt);

/* The connection at a stack index; NULL: it is something else. */
struct asio_conn *asio_conn_to(lua_State *L, int index);

/* The stream of the connection at a stack index; NULL: it is closed, or something else. */
struct asio_stream *asio_conn_stream_at(lua_State *L, int index);

/* Argument 1, or raises: self of the method `fname` is something else. */
struct asio_conn *asio_conn_check(lua_State *L, const char *fname);

#endif
