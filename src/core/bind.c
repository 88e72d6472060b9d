/* SPDX-License-Identifier: MIT
 * How files offer functions to Lua; see bind.h. */
#include "core/bind.h"

#include "base/error.h"

#include <string.h>

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
        lua_pushvalue(L, ASIO_BIND_CORE);
        return;
    }
    lua_getfield(L, ASIO_BIND_CORE, name);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, ASIO_BIND_CORE, name);
}

void asio_bind_functions(lua_State *L, struct asio_rt *rt, const char *where, const luaL_Reg *functions)
{
    push_table(L, where);
    set_functions(L, rt, functions);
    lua_pop(L, 1);
}

void asio_bind_class(lua_State *L, struct asio_rt *rt, const char *name, const luaL_Reg *methods,
    const luaL_Reg *meta, int ref)
{
    lua_newtable(L);
    set_functions(L, rt, meta);
    push_table(L, name);
    set_functions(L, rt, methods);
    lua_setfield(L, -2, "__index");
    lua_pushfstring(L, "asio.%s", name);
    lua_setfield(L, -2, "__name");
    lua_rawseti(L, LUA_REGISTRYINDEX, ref);
}

void asio_bind_check_open(lua_State *L, struct asio_rt *rt, const char *fname)
{
    const char *why = asio_rt_obstacle(rt);
    if (why)
        asio_error_misuse(L, "%s: %s", fname, why);
}

bool asio_bind_is_closed(lua_State *L, struct asio_rt *rt, const char *fname)
{
    if (asio_rt_notice_fork(rt))
        asio_bind_check_open(L, rt, fname);
    return rt->closed;
}

void *asio_bind_to(lua_State *L, int index, int ref)
{
    asio_rt_notice_fork(asio_rt_of(L));
    void *p = lua_touserdata(L, index);
    if (!p || !lua_getmetatable(L, index))
        return NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same ? p : NULL;
}

void *asio_bind_check(lua_State *L, int index, int ref, const char *fname, const char *what)
{
    void *p = asio_bind_to(L, index, ref);
    if (!p)
        asio_error_misuse(L, "calling '%s' on something that is not a %s", fname, what);
    return p;
}
