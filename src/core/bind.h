/* SPDX-License-Identifier: MIT
 *
 * How files offer functions to Lua. While the module is being opened the table `core`
 * is at stack index 1: it holds the public module table (core.asio), one table of methods a
 * class, and the C functions behind the Lua shims. Every C function has the runtime as its first
 * upvalue. */
#ifndef ASIO_BIND_H
#define ASIO_BIND_H

#include "core/runtime.h"

enum { ASIO_BIND_CORE = 1 }; /* the stack index of core */

/* Adds functions to core (where = "core") or to core[where], made at first use. */
void asio_bind_functions(lua_State *L, struct asio_rt *rt, const char *where, const luaL_Reg *functions);

/* Makes a metatable whose __index is core[name], with these methods and metamethods. Keeps it
 * under the registry reference. */
void asio_bind_class(lua_State *L, struct asio_rt *rt, const char *name, const luaL_Reg *methods,
    const luaL_Reg *meta, int ref);

/* Raises if the runtime is closed, naming the function. */
void asio_bind_check_open(lua_State *L, struct asio_rt *rt, const char *fname);

/* The same for a function that fails with UV_EBADF when the state closes: raises only in the child of a fork. */
bool asio_bind_is_closed(lua_State *L, struct asio_rt *rt, const char *fname);

/* The userdata at a stack index if its metatable is the one under `ref`, else NULL. */
void *asio_bind_to(lua_State *L, int index, int ref);

/* The same, or raises: self of the method `fname` of a `what` is something else. */
void *asio_bind_check(lua_State *L, int index, int ref, const char *fname, const char *what);

#endif
