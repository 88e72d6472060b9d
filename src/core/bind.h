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

/* The userdata at a stack index if its metatable is the one under `ref`, else NULL. */
void *asio_bind_to(lua_State *L, int index, int ref);

/* The same, or raises: self of the method `fname` of a `what` is something else. */
void *asio_bind_check(lua_State *L, int index, int ref, const char *fname, const char *what);

/* Each file's part of opening the module; module.c calls them, in this order. */
void asio_thread_open(lua_State *L, struct asio_rt *rt);
void asio_report_open(lua_State *L, struct asio_rt *rt);
void asio_timeout_open(lua_State *L, struct asio_rt *rt);
void asio_user_coroutine_open(lua_State *L, struct asio_rt *rt);
void asio_channel_open(lua_State *L, struct asio_rt *rt);
void asio_sync_open(lua_State *L, struct asio_rt *rt);
void asio_select_open(lua_State *L, struct asio_rt *rt);
void asio_group_open(lua_State *L, struct asio_rt *rt);
void asio_ticker_open(lua_State *L, struct asio_rt *rt);
void asio_signal_open(lua_State *L, struct asio_rt *rt);
void asio_wait_fd_open(lua_State *L, struct asio_rt *rt);
void asio_inspect_open(lua_State *L, struct asio_rt *rt);
void asio_watchdog_open(lua_State *L, struct asio_rt *rt);
void asio_run_open(lua_State *L, struct asio_rt *rt);
void asio_address_open(lua_State *L, struct asio_rt *rt);
void asio_conn_open(lua_State *L, struct asio_rt *rt);
void asio_tcp_open(lua_State *L, struct asio_rt *rt);
void asio_unix_open(lua_State *L, struct asio_rt *rt);
void asio_fd_passing_open(lua_State *L, struct asio_rt *rt);
void asio_splice_open(lua_State *L, struct asio_rt *rt);
void asio_relay_open(lua_State *L, struct asio_rt *rt);
void asio_stdio_open(lua_State *L, struct asio_rt *rt);
void asio_server_open(lua_State *L, struct asio_rt *rt);
void asio_names_open(lua_State *L, struct asio_rt *rt);
void asio_udp_open(lua_State *L, struct asio_rt *rt);

#endif
