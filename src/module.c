/* SPDX-License-Identifier: MIT
 * require 'asio': tables, nothing else. */
#include "module.h"

#include "embedded.h"
#include "error.h"
#include "sched.h"

#include <string.h>

enum { CORE = 1 };

static void set_functions(lua_State *L, struct asio_rt *rt, const luaL_Reg *functions)
{
    for (; functions->name; functions++) {
        lua_pushlightuserdata(L, rt);
        lua_pushcclosure(L, functions->func, 1);
        lua_setfield(L, -2, functions->name);
    }
}

static void push_table(lua_State *L, const char *name)
{
    if (strcmp(name, "core") == 0) {
        lua_pushvalue(L, CORE);
        return;
    }
    lua_getfield(L, CORE, name);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, CORE, name);
}

void asio_module_functions(lua_State *L, struct asio_rt *rt, const char *where, const luaL_Reg *functions)
{
    push_table(L, where);
    set_functions(L, rt, functions);
    lua_pop(L, 1);
}

int asio_module_class(
    lua_State *L, struct asio_rt *rt, const char *name, const luaL_Reg *methods, const luaL_Reg *meta)
{
    lua_newtable(L);
    set_functions(L, rt, meta);
    push_table(L, name);
    set_functions(L, rt, methods);
    lua_setfield(L, -2, "__index");
    lua_pushfstring(L, "asio.%s", name);
    lua_setfield(L, -2, "__name");
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

static void set_tokens(lua_State *L, struct asio_rt *rt)
{
    lua_pushnumber(L, rt->token_ok);
    lua_setfield(L, CORE, "OK");
    lua_pushnumber(L, rt->token_fail);
    lua_setfield(L, CORE, "FAIL");
    lua_pushnumber(L, rt->token_interrupt);
    lua_setfield(L, CORE, "INTERRUPT");
}

/* Runs one embedded part as chunk(core). Parts run in alphabetical order and must not depend on
 * one another while loading. */
static void run_embedded(lua_State *L, const struct asio_embedded *part)
{
    if (luaL_loadbuffer(L, part->source, part->length, ASIO_CHUNK_NAME) != 0)
        lua_error(L);
    lua_pushvalue(L, CORE);
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
    asio_run_open(L, rt);
    asio_conn_open(L, rt);
    asio_tcp_open(L, rt);
    asio_listener_open(L, rt);
    asio_resolver_open(L, rt);
    for (const struct asio_embedded *part = asio_embedded; part->name; part++)
        run_embedded(L, part);
    lua_getfield(L, CORE, "asio");
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
