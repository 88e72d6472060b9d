/* SPDX-License-Identifier: MIT
 *
 * Where errors were raised. A light thread keeps its name, its results, or its error with the traceback in the
 * environment table of its handle, and they go with that. */
#ifndef ASIO_TRACEBACK_H
#define ASIO_TRACEBACK_H

#include "core/sched.h"

/* Keys in that table of a failed light thread; results are 1..n, the rest are strings. */
enum { ASIO_KEPT_ERROR = 1, ASIO_KEPT_TRACEBACK = 2 };

/* Pushes the environment table of the handle at a stack index; made at the first use. */
void asio_traceback_push_kept(lua_State *L, int index, struct asio_thread *t);

/* Pushes where a light thread is now, the user's coroutines inside of it first. It must not have ended. */
void asio_traceback_push(lua_State *L, const struct asio_thread *t);

/* Pushes where the error at `index`, which has ended the light thread, was raised first. */
void asio_traceback_push_of_error(lua_State *L, struct asio_thread *t, int index);

#endif
