/* SPDX-License-Identifier: MIT
 *
 * Looking at what goes on: every light thread, and the counters. The text of dumps and of the
 * deadlock report is made in lua/asio/inspect.lua. */
#include "core/bind.h"
#include "core/coroutine.h"
#include "base/error.h"
#include "task/thread.h"
#include "task/traceback.h"

static void set_seconds(lua_State *L, const struct asio_rt *rt, const char *field, uint32_t since)
{
    lua_pushnumber(L, (double)((uint32_t)uv_now(&rt->loop) - since) / 1000);
    lua_setfield(L, -2, field);
}

/* One that is in a queue waits no more: what for is of the past. */
static void inspect_push_thread(lua_State *L, struct asio_rt *rt, struct asio_thread *t)
{
    lua_createtable(L, 0, 8);
    asio_sched_push_handle(L, t);
    lua_setfield(L, -2, "thread");
    asio_thread_push_name(L, t);
    lua_setfield(L, -2, "name");
    lua_pushinteger(L, (int)t->id);
    lua_setfield(L, -2, "id");
    lua_pushstring(L, asio_thread_status(t));
    lua_setfield(L, -2, "status");
    set_seconds(L, rt, "age", t->born);
    if (t->state == ASIO_THREAD_WAITING && t->wait.state == ASIO_WAIT_PARKED) {
        lua_pushstring(L, t->wait.op->name);
        lua_setfield(L, -2, "wait");
        set_seconds(L, rt, "waiting", t->wait.since);
    }
    asio_traceback_push(L, t);
    lua_setfield(L, -2, "traceback");
}

/* asio.threads() */
static int l_threads(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    int count = 0;
    lua_settop(L, 0);
    uv_update_time(&rt->loop);
    lua_newtable(L);
    for (int slot = 1; slot <= rt->slot_top; slot++) {
        asio_slot_get(L, rt, slot, ASIO_SLOT_HANDLE);
        struct asio_thread *t = lua_touserdata(L, -1);
        lua_pop(L, 1);
        if (!t || !t->co)
            continue;
        inspect_push_thread(L, rt, t);
        lua_rawseti(L, 1, ++count);
    }
    return 1;
}

static void inspect_set_number(lua_State *L, const char *field, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, field);
}

/* asio.stats() */
static int l_stats(lua_State *L)
{
    static const char *const names[] = { "threads", "threads_peak", "threads_spawned", "connections",
        "connections_opened", "bytes_in", "bytes_out", "handshakes", "handshakes_failed", "turns",
        "longest_turn" };
    enum { COUNT = sizeof names / sizeof *names };
    const struct asio_rt *rt = asio_rt_of(L);
    const struct asio_stats *s = &rt->stats;
    const uint64_t values[COUNT] = { rt->threads, s->threads_peak, s->spawned, s->connections_open,
        s->connections, s->bytes_in, s->bytes_out, s->handshakes, s->handshakes_failed, rt->turns,
        s->longest_turn };
    lua_createtable(L, 0, COUNT);
    for (int i = 0; i < COUNT; i++)
        inspect_set_number(L, names[i], i == COUNT - 1 ? (double)values[i] / 1e9 : (double)values[i]);
    return 1;
}

/* core.set_deadlock(fn): makes the text of the report. */
static int l_set_deadlock(lua_State *L)
{
    lua_settop(L, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, asio_rt_of(L)->refs[ASIO_REF_DEADLOCK]);
    return 0;
}

static void inspect_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "threads", l_threads }, { "stats", l_stats }, { NULL, NULL } };
    static const luaL_Reg core[] = { { "set_deadlock", l_set_deadlock }, { NULL, NULL } };
    asio_bind_functions(L, rt, "asio", module);
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_inspect = { "inspect", inspect_part_open, NULL };
