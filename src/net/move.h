/* SPDX-License-Identifier: MIT
 *
 * A connection that leaves its loop for that of another Lua state in this process. What was received and is not read
 * goes along, and so do its time-outs and names.
 *
 * Lifetime of struct asio_moved: made by asio_move_out; consumed by asio_move_in, or freed by asio_move_free, which
 * closes the socket; any thread. */
#ifndef ASIO_MOVE_H
#define ASIO_MOVE_H

#include "stream/conn.h"

struct asio_moved;

/* 0: a connection can leave. UV_EBADF: it is closed; UV_ENOTSUP: one of its kind never can; UV_EBUSY: a light thread
 * waits on it, or bytes are not sent yet; or the error that has ended its output. */
int asio_move_obstacle(const struct asio_conn *conn);

/* Takes the stream out of a connection, which is closed afterwards; its peer notices nothing. 0, or an error: nothing
 * has changed then. as asio_move_obstacle; UV_ENOTSUP: or not on this system. */
int asio_move_out(struct asio_conn *conn, struct asio_moved **moved);

/* Pushes the connection and consumes *moved: 0. Or an error, and *moved is as before; raises out of memory likewise. */
int asio_move_in(lua_State *L, struct asio_rt *rt, struct asio_moved *moved);

/* Counts a connection until its descriptor is given back; false: it is closed. */
bool asio_move_count(struct asio_conn *conn, struct asio_counter *counter);

void asio_move_free(struct asio_moved *moved);

#endif
