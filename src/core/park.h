/* SPDX-License-Identifier: MIT
 *
 * Parking: how a call waits. A waiting operation is four steps: check the arguments; the fast path;
 * asio_park_claim, which raises when this coroutine cannot wait; start the operation, link the record, and
 * `return asio_park(...)`. */
#ifndef ASIO_PARK_H
#define ASIO_PARK_H

#include "core/sched.h"

/* The wait record to use for a wait from L, or raises: not a light thread's coroutine, inside a
 * C call that cannot be suspended, loop already running below. Owns nothing yet. */
struct asio_wait *asio_park_claim(lua_State *L, struct asio_rt *rt);

bool asio_park_can_wait(lua_State *L, struct asio_rt *rt);

/* L is what the running light thread (or the main chunk) runs on, and not a coroutine of
 * the script that asio.coroutine does not know. */
bool asio_park_owns(lua_State *L, struct asio_rt *rt);

/* Suspends the caller until the wait ends; use as `return asio_park(...)`. The record must
 * be linked with its source. timeout in seconds: negative none, 0 only what is
 * there now. */
int asio_park(lua_State *L, struct asio_wait *w, const struct asio_wait_op *op, double timeout);

#endif
