/* SPDX-License-Identifier: MIT
 * Entering scopes on behalf of a script, see timeout.c. */
#ifndef ASIO_TIMEOUT_H
#define ASIO_TIMEOUT_H

#include "core/wait.h"

/* A scope with a deadline (uv_hrtime(), ASIO_NEVER: none) for the running light thread, or raises
 * naming the function. Lua leaves it by core.leave. */
struct asio_scope *asio_timeout_enter(lua_State *L, uint64_t at, const char *fname);

#endif
