/* SPDX-License-Identifier: MIT
 * require 'asio': tables, nothing else. */
#include "core/bind.h"
#include "module/embedded.h"
#include "base/error.h"
#include "core/sched.h"

static void set_tokens(lua_State *L, struct asio_rt *rt)
{
    lua_pushnumber(L, rt->token_ok);
    lua_setfield(L, ASIO_BIND_CORE, "OK");
    lua_pushnumber(L, rt->token_fail);
    lua_setfield(L, ASIO_BIND_CORE, "FAIL");
    lua_pushnumber(L, rt->token_interrupt);
    lua_setfield(L, ASIO_BIND_CORE, "INTERRUPT");
}

/* Runs one embedded part as chunk(core). shims.lua runs first; the other parts
 * must not depend on one another while loading. */
static void run_embedded(lua_State *L, const struct asio_embedded *part)
{
    if (luaL_loadbuffer(L, part->source, part->length, ASIO_CHUNK_NAME) != 0)
        lua_error(L);
    lua_pushvalue(L, ASIO_BIND_CORE);
    lua_call(L, 1, 0);
}

static int open_parts(lua_State *L)
{
    struct asio_rt *rt = asio_rt_open(L);
    lua_settop(L, 0);
    lua_newtable(L);
    asio_sched_open(L, rt);
    set_tokens(L, rt);
    asio_thread_open(L, rt);
    asio_report_open(L, rt);
    asio_run_open(L, rt);
    asio_timeout_open(L, rt);
    asio_user_coroutine_open(L, rt);
    asio_channel_open(L, rt);
    asio_sync_open(L, rt);
    asio_select_open(L, rt);
    asio_group_open(L, rt);
    asio_ticker_open(L, rt);
    asio_inspect_open(L, rt);
    asio_watchdog_open(L, rt);
    asio_signal_open(L, rt);
    asio_wait_fd_open(L, rt);
    asio_address_open(L, rt);
    asio_conn_open(L, rt);
    asio_tcp_open(L, rt);
    asio_unix_open(L, rt);
    asio_fd_passing_open(L, rt);
    asio_splice_open(L, rt);
    asio_relay_open(L, rt);
    asio_stdio_open(L, rt);
    asio_server_open(L, rt);
    asio_names_open(L, rt);
    asio_udp_open(L, rt);
    for (const struct asio_embedded *part = asio_embedded; part->name; part++)
        run_embedded(L, part);
    lua_getfield(L, ASIO_BIND_CORE, "asio");
    return 1;
}

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    int luaopen_asio(lua_State *L);

static const char module_key = 0; /* the module table: a second require must not open a second time */

int luaopen_asio(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&module_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1))
        return 1;
    lua_pushcfunction(L, open_parts);
    lua_call(L, 0, 1);
    lua_pushlightuserdata(L, (void *)&module_key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 1;
}
