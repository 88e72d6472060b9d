/* SPDX-License-Identifier: MIT
 *
 * asio.timeout and asio.shield: the C functions behind lua/asio/timeout.lua. */
#include "base/error.h"
#include "core/bind.h"
#include "core/park.h"
#include "core/scope.h"
#include "task/thread.h"
#include "task/timeout.h"

#include <string.h>

static void timeout_on_deadline(struct asio_timer *timer)
{
    struct asio_scope *s = ASIO_CONTAINER(timer, struct asio_scope, timer);
    s->tripped = true;
    if (s->wait)
        asio_sched_interrupt(s->wait);
}

static uint64_t deadline(double seconds)
{
    return seconds < 0 ? ASIO_NEVER : asio_rt_deadline(seconds);
}

static int timeout_reserve_more(lua_State *L)
{
    luaL_checkstack(L, (int)lua_tointeger(L, 1), "stack overflow");
    return 0;
}

/* LuaJIT limits the values of one C function, its arguments included: a call of its own may have as many again. */
void asio_timeout_reserve(lua_State *L)
{
    enum { ROOM = 300, FEW = 1000, LIMIT = 7900 };
    int n = lua_gettop(L), wanted = n + ROOM < LIMIT ? n + ROOM : LIMIT;
    if (n < FEW) {
        luaL_checkstack(L, wanted, "stack overflow");
        return;
    }
    luaL_checkstack(L, 2, "stack overflow");
    lua_pushcfunction(L, timeout_reserve_more);
    lua_pushinteger(L, wanted);
    lua_call(L, 1, 0);
}

/* core.reserve(...): asio_timeout_reserve, for as many arguments. */
static int l_reserve(lua_State *L)
{
    asio_timeout_reserve(L);
    return 0;
}

static struct asio_scope *timeout_enter(lua_State *L, uint64_t at, bool shield, const char *fname)
{
    struct asio_rt *rt = asio_rt_of(L);
    asio_timeout_reserve(L);
    asio_bind_check_open(L, rt, fname);
    if (!asio_park_owns(L, rt))
        asio_error_misuse(L,
            "%s: inside a coroutine of the script's own; "
            "asio.coroutine.install() lets waits pass through such",
            fname);
    struct asio_scope *s = asio_scope_enter(rt->self, at, shield, timeout_on_deadline);
    if (!s)
        asio_error_no_memory(L);
    return s;
}

struct asio_scope *asio_timeout_enter(lua_State *L, uint64_t at, const char *fname)
{
    return timeout_enter(L, at, false, fname);
}

static int enter_for(lua_State *L, const char *fname, bool shield)
{
    double seconds = asio_check_timeout(L, 1, 1, fname);
    if (!lua_isfunction(L, 2))
        asio_error_type(L, 2, 2, fname, "function");
    lua_pushnumber(L, (double)timeout_enter(L, deadline(seconds), shield, fname)->id);
    return 1;
}

/* core.enter(seconds, fn, ...) -> the scope's id. fn is only checked, its arguments are counted. */
static int l_timeout_enter(lua_State *L)
{
    return enter_for(L, "timeout", false);
}

static int l_enter_shield(lua_State *L)
{
    return enter_for(L, "shield", true);
}

/* core.leave(id, err) -> whether err is this scope's own interrupt. Scopes inside of it go too. One
 * that is not there was dropped with its light thread, or belongs to a coroutine that was resumed
 * behind asio.coroutine's back. */
static int l_timeout_leave(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_scope *s = rt->self->scope;
    double id = lua_tonumber(L, 1);
    bool own = false;
    while (s && (double)s->id != id)
        s = s->outer;
    if (!s)
        return 0;
    if (s->ref != LUA_NOREF && lua_gettop(L) > 1) {
        asio_rt_push_anchored(L, rt, s->ref);
        own = lua_rawequal(L, 2, -1);
    }
    asio_scope_drop(rt->self, s->outer);
    lua_pushboolean(L, own);
    return 1;
}

/* core.is_interrupt(err) */
static int l_is_interrupt(lua_State *L)
{
    lua_settop(L, 1);
    lua_pushboolean(L, asio_wait_is_interrupt(L, asio_rt_of(L), 1));
    return 1;
}

static int interrupt_tostring(lua_State *L)
{
    lua_pushliteral(L, "operation timed out");
    return 1;
}

static void timeout_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "enter", l_timeout_enter }, { "enter_shield", l_enter_shield },
        { "leave", l_timeout_leave }, { "reserve", l_reserve }, { "is_interrupt", l_is_interrupt },
        { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, interrupt_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_INTERRUPT_MT]);
}

const struct asio_part asio_part_timeout = { "timeout", timeout_part_open, NULL };
