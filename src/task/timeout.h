/* SPDX-License-Identifier: MIT
 * Entering scopes on behalf of a script, see timeout.c. */
#ifndef ASIO_TIMEOUT_H
#define ASIO_TIMEOUT_H

#include "core/wait.h"

/* A scope with a deadline (uv_hrtime(), ASIO_NEVER: none) for the running light thread, or raises
 * naming the function. Lua leaves it by core.leave. */
struct asio_scope *asio_timeout_enter(lua_State *L, uint64_t at, const char *fname);

/* Room on the Lua stack for what follows an entry until it is protected by xpcall, and for what undoes it. To be
 * called before anything is entered or taken: in the handler of an xpcall that fails again and again the stack
 * overflows, and an overflow between entry and xpcall would leave a scope, or a lock, held for ever. Raises. */
void asio_timeout_reserve(lua_State *L);

#endif
