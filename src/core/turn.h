/* SPDX-License-Identifier: MIT
 *
 * The turn of the loop, and what drives it. A turn: ready light threads, flush, libuv (waiting for an event only
 * if nothing is ready), deadlines, the collector's share, reports. */
#ifndef ASIO_TURN_H
#define ASIO_TURN_H

#include "core/sched.h"

/* Runs turns until over(arg), asio.stop, Ctrl-C, or nothing is left; without `over` exactly one. */
void asio_turn_loop(struct asio_rt *rt, bool wait, bool (*over)(const void *arg), const void *arg);

/* Raises "interrupted!" if Ctrl-C came. */
void asio_turn_raise_interrupted(lua_State *L, struct asio_rt *rt);

/* Raises the report that light threads wait and nothing can wake them. */
int asio_turn_deadlock(lua_State *L, struct asio_rt *rt);

#endif
