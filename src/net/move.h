/* SPDX-License-Identifier: MIT
 *
 * A connection that leaves its loop for that of another Lua state in this process. What was received and is not read
 * goes along, and so do its time-outs and names.
 *
 * Lifetime of struct asio_moved: made by asio_move_prepare; consumed by asio_move_in, or freed by asio_move_free, which
 * closes the socket; any thread. */
#ifndef ASIO_MOVE_H
#define ASIO_MOVE_H

#include "stream/conn.h"

struct asio_moved;

/* 0: a connection can leave. UV_EBADF: it is closed; UV_ENOTSUP: one of its kind never can; UV_EBUSY: a light thread
 * waits on it, or bytes are not sent yet; or the error that has ended its output. */
int asio_move_obstacle(const struct asio_conn *conn);

/* The first of two steps, so that several connections move together or none does: all that can fail. 0; or an error, also
 * for an obstacle. The connection is as before, and asio_move_free undoes the step. */
int asio_move_prepare(const struct asio_conn *conn, struct asio_moved **moved);

/* The second: takes the stream out, and the connection is closed; its peer notices nothing. No Lua has run and no event
 * was handled since the first. */
void asio_move_out(struct asio_conn *conn, struct asio_moved *moved);

/* Pushes the connection and consumes *moved: 0. Or an error, and *moved is as before; raises out of memory likewise. */
int asio_move_in(lua_State *L, struct asio_rt *rt, struct asio_moved *moved);

/* Counts a connection until its descriptor is given back; false: it is closed. */
bool asio_move_count(struct asio_conn *conn, struct asio_counter *counter);

void asio_move_free(struct asio_moved *moved);

#endif
