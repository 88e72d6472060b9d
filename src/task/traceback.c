/* SPDX-License-Identifier: MIT
 *
 * Where errors were raised, also when a function of ours catches one and raises it once more: the first traceback
 * is the useful one. It waits in the environment table of the running light thread, with its error. */
#include "task/traceback.h"

#include "base/error.h"
#include "core/bind.h"

#include <string.h>

static const char key_trace_error[] = "trace_error", key_trace[] = "trace";

void asio_traceback_push_kept(lua_State *L, int index, struct asio_thread *t)
{
    lua_pushvalue(L, index);
    if (!t->kept) {
        lua_newtable(L);
        lua_setfenv(L, -2);
        t->kept = true;
    }
    lua_getfenv(L, -1);
    lua_remove(L, -2);
}

void asio_traceback_push(lua_State *L, const struct asio_thread *t)
{
    int first = lua_gettop(L) + 1;
    luaL_checkstack(L, 8, "too many coroutines");
    lua_pushliteral(L, "");
    for (struct asio_user_coroutine *n = t->wait.user_coroutine; n; n = n->outer) {
        luaL_traceback(L, n->co, NULL, 0);
        lua_pushliteral(L, "\nresumed by\n");
        lua_concat(L, 3);
    }
    luaL_traceback(L, t->co, NULL, 0);
    lua_concat(L, lua_gettop(L) - first + 1);
}

/* The running light thread is about to raise the error at `index` again; its traceback is at the top (popped). */
static void traceback_set(lua_State *L, int index)
{
    struct asio_thread *t = asio_rt_of(L)->current;
    int trace = lua_gettop(L);
    asio_sched_push_handle(L, t);
    asio_traceback_push_kept(L, trace + 1, t);
    lua_pushvalue(L, index);
    lua_setfield(L, -2, key_trace_error);
    lua_pushvalue(L, trace);
    lua_setfield(L, -2, key_trace);
    lua_settop(L, trace - 1);
}

/* The first function at the top of the stack that is not C. */
static bool raised_by_us(lua_State *co)
{
    lua_Debug ar;
    for (int level = 0; lua_getstack(co, level, &ar) && lua_getinfo(co, "S", &ar); level++)
        if (*ar.what != 'C')
            return strcmp(ar.source, ASIO_CHUNK_NAME) == 0;
    return false;
}

/* The error at `index` is being raised again by a function of ours at the top of co's stack: pushes where it came
 * from. False: nothing pushed. */
static bool traceback_push_known(lua_State *L, int index, struct asio_thread *t, lua_State *co)
{
    int top = lua_gettop(L);
    if (!t->kept || !raised_by_us(co))
        return false;
    asio_sched_push_handle(L, t);
    lua_getfenv(L, -1);
    lua_getfield(L, -1, key_trace);
    lua_getfield(L, -2, key_trace_error);
    bool same = lua_isstring(L, -2) && lua_rawequal(L, -1, index);
    lua_pop(L, 1);
    lua_replace(L, top + 1);
    lua_settop(L, top + same);
    return same;
}

void asio_traceback_push_of_error(lua_State *L, struct asio_thread *t, int index)
{
    if (!traceback_push_known(L, index, t, t->co))
        luaL_traceback(L, t->co, NULL, 0);
}

/* core.trace(err) -> err. The handler of every xpcall of ours: remembers where an error came from, so
 * that raising it once more does not lose that. */
static int l_trace(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    lua_settop(L, 1);
    if (!rt->current || asio_wait_is_interrupt(L, rt, 1) || traceback_push_known(L, 1, rt->current, L)) {
        lua_settop(L, 1);
        return 1;
    }
    luaL_traceback(L, L, NULL, 1);
    traceback_set(L, 1);
    return 1;
}

/* core.set_trace(err, traceback): err is about to be raised here, and comes from elsewhere. */
static int l_set_trace(lua_State *L)
{
    lua_settop(L, 2);
    if (asio_rt_of(L)->current && lua_isstring(L, 2))
        traceback_set(L, 1);
    return 0;
}

static void traceback_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "trace", l_trace }, { "set_trace", l_set_trace }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_traceback = { "traceback", traceback_part_open, NULL };
