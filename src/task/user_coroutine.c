/* SPDX-License-Identifier: MIT
 *
 * Users' own coroutines inside light threads: what asio.coroutine (lua/asio/user_coroutine.lua) needs to
 * know to let waits pass through them. Only the coroutine that is resumed innermost
 * may wait; a wait yields to its resumer, which sees (core.passes) that it is no yield of the
 * user's and passes it on, down to the light thread, and its results back up.
 *
 * A coroutine that yields inside a scope takes that along, and has it again when it is resumed:
 * maybe by another light thread. Its deadline goes on meanwhile, and is told of then.
 *
 * Lifetime of struct asio_user_coroutine: a userdata, made when asio.coroutine first meets a coroutine;
 * the value under that coroutine in a table with weak keys (rt->refs[ASIO_REF_USER_COROUTINE]); on the stack of its resumer
 * while it runs; its finalizer frees scopes that will not be left any more. */
#include "base/error.h"
#include "core/bind.h"
#include "core/scope.h"
#include "core/park.h"

#include <string.h>

static struct asio_user_coroutine *new_user_coroutine(lua_State *L, struct asio_rt *rt)
{
    struct asio_user_coroutine *n = lua_newuserdata(L, sizeof *n);
    memset(n, 0, sizeof *n);
    n->co = lua_tothread(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_USER_COROUTINE_MT]);
    lua_setmetatable(L, -2);
    return n;
}

/* Pushes the record of the coroutine at index 1; made if there is none. */
static struct asio_user_coroutine *push_user_coroutine(lua_State *L, struct asio_rt *rt)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_USER_COROUTINE]);
    lua_pushvalue(L, 1);
    lua_rawget(L, -2);
    struct asio_user_coroutine *n = lua_touserdata(L, -1);
    if (n)
        return n;
    lua_pop(L, 1);
    n = new_user_coroutine(L, rt);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, -4);
    return n;
}

/* core.coroutine_enter(co) -> its record, or nil: it runs already. */
static int l_user_coroutine_enter(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_wait *w = rt->self;
    if (!lua_isthread(L, 1))
        asio_error_type(L, 1, 1, "resume", "coroutine");
    lua_settop(L, 1);
    struct asio_user_coroutine *n = push_user_coroutine(L, rt);
    if (n->wait)
        return 0;
    n->stuck = !asio_park_owns(L, rt) || (w->user_coroutine && w->user_coroutine->stuck) ||
        (rt->current && !lua_isyieldable(L));
    n->wait = w;
    n->outer = w->user_coroutine;
    n->mark = w->scope;
    w->user_coroutine = n;
    asio_scope_resume(w, n->suspended);
    n->suspended = NULL;
    return 1;
}

/* With those that are still above it: an error has gone through their resumers. Nothing to do
 * when the light thread is over. */
static void take_off(struct asio_user_coroutine *n)
{
    while (n->wait)
        asio_scope_pop_user_coroutine(n->wait);
}

/* core.coroutine_leave(record): it yielded to its resumer, or has ended. */
static int l_user_coroutine_leave(lua_State *L)
{
    take_off(lua_touserdata(L, 1));
    return 0;
}

/* core.passes(record): it yielded because it waits. */
static int l_passes(lua_State *L)
{
    const struct asio_user_coroutine *n = lua_touserdata(L, 1);
    lua_pushboolean(L, n->wait && n->wait->state != ASIO_WAIT_IDLE);
    return 1;
}

/* core.coroutine_active(co): it was resumed, and has not come back. */
static int l_active(lua_State *L)
{
    lua_settop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, asio_rt_of(L)->refs[ASIO_REF_USER_COROUTINE]);
    lua_pushvalue(L, 1);
    lua_rawget(L, -2);
    const struct asio_user_coroutine *n = lua_touserdata(L, -1);
    lua_pushboolean(L, n && n->wait);
    return 1;
}

/* core.at_base(escapes): called by a light thread itself, and not by a coroutine in it. With
 * `escapes` the script gets to know that coroutine: it is not used for another light thread then. */
static int l_at_base(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    bool base = rt->current && rt->current->co == L;
    if (base && lua_toboolean(L, 1))
        rt->current->escaped = true;
    lua_pushboolean(L, base);
    return 1;
}

static int l_user_coroutine_gc(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_user_coroutine *n = asio_bind_to(L, 1, rt->refs[ASIO_REF_USER_COROUTINE_MT]);
    if (!n)
        return 0;
    take_off(n); /* an error has gone through its resumer; a record must not outlive its userdata */
    asio_scope_free(rt, n->suspended);
    n->suspended = NULL;
    return 0;
}

static void user_coroutine_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "coroutine_enter", l_user_coroutine_enter },
        { "coroutine_leave", l_user_coroutine_leave }, { "passes", l_passes },
        { "coroutine_active", l_active }, { "at_base", l_at_base }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_user_coroutine_gc }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_class(L, rt, "user_coroutine", methods, meta, rt->refs[ASIO_REF_USER_COROUTINE_MT]);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_USER_COROUTINE]);
}

const struct asio_part asio_part_user_coroutine = { "user_coroutine", user_coroutine_part_open, NULL };
