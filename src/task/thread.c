/* SPDX-License-Identifier: MIT
 *
 * Light threads as Lua sees them: spawn, sleep, yield, join, cancel, status, name, and what becomes of
 * their outcome. Results, or the error with its traceback, are kept in the environment table of
 * the handle, and go with it. */
#include "base/error.h"
#include "core/bind.h"
#include "core/turn.h"
#include "core/park.h"
#include "core/coroutine.h"
#include "task/select.h"
#include "task/thread.h"
#include "task/traceback.h"

#include <string.h>

static const char key_name[] = "name"; /* in the environment table */

/* ---- the end of a light thread ------------------------------------------------------------ */

static void keep_results(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    asio_sched_push_handle(L, t);
    asio_traceback_push_kept(L, lua_gettop(L), t);
    for (int i = t->nresults; i > 0; i--) {
        lua_xmove(t->co, L, 1);
        lua_rawseti(L, -2, i);
    }
}

/* Being cancelled is no failure to report, and costs no table. */
static bool ended_by_cancel(lua_State *L, struct asio_thread *t)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->wait.rt->refs[ASIO_REF_CANCELLED]);
    t->by_cancel = lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    return t->by_cancel;
}

static void keep_error(lua_State *L, void *arg)
{
    enum { AT_ERROR = 1, AT_HANDLE, AT_KEPT };
    struct asio_thread *t = arg;
    lua_settop(L, 0);
    lua_xmove(t->co, L, 1);
    if (ended_by_cancel(L, t))
        return;
    asio_sched_push_handle(L, t);
    asio_traceback_push_kept(L, AT_HANDLE, t);
    lua_pushvalue(L, AT_ERROR);
    lua_rawseti(L, AT_KEPT, ASIO_KEPT_ERROR);
    asio_traceback_push_of_error(L, t, AT_ERROR);
    lua_rawseti(L, AT_KEPT, ASIO_KEPT_TRACEBACK);
}

static void keep_stray_yield(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    lua_settop(t->co, 0);
    lua_pushliteral(L,
        "coroutine.yield called by a light thread: nothing would resume it; "
        "use asio.yield() to let others run");
    lua_xmove(L, t->co, 1);
    keep_error(L, arg);
}

static void thread_keep_no_memory(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    if (!t->kept)
        return; /* join then says it without the help of a table */
    lua_settop(L, 0);
    asio_sched_push_handle(L, t);
    lua_getfenv(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->wait.rt->refs[ASIO_REF_NO_MEMORY]);
    lua_rawgeti(L, -1, 1);
    lua_rawseti(L, 2, ASIO_KEPT_ERROR);
}

/* The connection of a handler: half an answer must not pass for a whole one. */
static void abort_owned(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    asio_sched_push_owned(L, t);
    lua_getfield(L, -1, "abort");
    lua_insert(L, -2);
    lua_call(L, 1, 0);
}

static const char thread_doing[] = "keeping the outcome of a light thread";

static void fail(struct asio_thread *t, int status, int kept)
{
    struct asio_rt *rt = t->wait.rt;
    t->state = ASIO_THREAD_FAILED;
    if (t->owns)
        asio_rt_protect(rt, abort_owned, t, "aborting the connection of a handler");
    if (kept == 0)
        kept = asio_rt_protect(rt, status == LUA_YIELD ? keep_stray_yield : keep_error, t, thread_doing);
    if (kept != 0)
        asio_rt_protect(rt, thread_keep_no_memory, t, thread_doing);
    /* Looked at again: a finalizer may have dropped its group meanwhile. */
    t->joined = t->joined || t->by_cancel || asio_thread_is_awaited(t);
    if (!t->joined)
        asio_sched_report(t);
}

bool asio_thread_is_awaited(const struct asio_thread *t)
{
    const struct asio_wait *w = t->joiners.first;
    while (w && w->op != &asio_join_op)
        w = w->next;
    return w;
}

static void thread_ended(struct asio_thread *t, int status)
{
    int kept = 0;
    t->joined = t->joined || asio_thread_is_awaited(t);
    if (status == 0) {
        t->state = ASIO_THREAD_DONE;
        t->nresults = lua_gettop(t->co);
        if (t->nresults)
            kept = asio_rt_protect(t->wait.rt, keep_results, t, thread_doing);
    }
    if (status != 0 || kept != 0)
        fail(t, status, kept);
    while (t->joiners.first) {
        struct asio_wait *w = t->joiners.first;
        asio_wait_list_remove(&t->joiners, w);
        asio_sched_ready(w, 0);
    }
}

/* ---- spawn, sleep, yield ------------------------------------------------------------------ */

static int l_thread_spawn(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    if (!lua_isfunction(L, 1))
        asio_error_type(L, 1, 1, "spawn", "function");
    asio_bind_check_open(L, rt, "spawn");
    asio_sched_spawn(rt, L, lua_gettop(L) - 1, ASIO_SPAWN_PLAIN);
    return 1;
}

static const struct asio_wait_op sleep_op = { .name = "sleep", .outside = true };

/* A sleep ends when its own deadline does: that is its success. */
static int push_slept(lua_State *L, struct asio_wait *w)
{
    return w->status == UV_ETIMEDOUT ? asio_push_true(L) : asio_push_fail(L, w->status);
}

static const struct asio_wait_op timed_sleep_op = { .name = "sleep", .outside = true, .push = push_slept };

static int l_yield(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    struct asio_wait *w = asio_park_claim(L, rt);
    if (w->main) { /* one turn for the others */
        rt->stop = false;
        asio_turn_loop(rt, false, NULL, NULL);
        asio_turn_raise_interrupted(L, rt);
        return asio_push_true(L);
    }
    int n = asio_park(L, w, &asio_yield_op, -1);
    asio_sched_ready(w, 0);
    return n;
}

static int l_sleep(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TNUMBER)
        asio_error_type(L, 1, 1, "sleep", "number of seconds");
    double seconds = asio_check_timeout(L, 1, 1, "sleep");
    if (asio_sched_interrupted(asio_rt_of(L)))
        return asio_push_interrupt(L, asio_rt_of(L));
    if (seconds == 0)
        return l_yield(L);
    struct asio_wait *w = asio_park_claim(L, asio_rt_of(L));
    return asio_park(L, w, seconds < 0 ? &sleep_op : &timed_sleep_op, seconds);
}

static int l_current(lua_State *L)
{
    asio_sched_push_current(L, asio_rt_of(L));
    return 1;
}

static int l_now(lua_State *L)
{
    lua_pushnumber(L, (double)uv_hrtime() / 1e9);
    return 1;
}

/* ---- methods ------------------------------------------------------------------------------ */

struct asio_thread *asio_thread_to(lua_State *L, int index)
{
    return asio_bind_to(L, index, asio_rt_of(L)->refs[ASIO_REF_THREAD_MT]);
}

struct asio_thread *asio_thread_check(lua_State *L, int index, const char *fname)
{
    return asio_bind_check(L, index, asio_rt_of(L)->refs[ASIO_REF_THREAD_MT], fname, "light thread");
}

static void abort_join(struct asio_wait *w)
{
    struct asio_thread *t = w->source;
    asio_wait_list_remove(&t->joiners, w);
}

const struct asio_wait_op asio_join_op = { .name = "join", .abort = abort_join };

/* Waits for the end; the shim then asks for the outcome, which may be of any size. */
static int l_thread_join(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_thread *t = asio_thread_check(L, 1, "join");
    double timeout = asio_check_timeout(L, 2, 1, "join");
    if (t == rt->current)
        asio_error_misuse(L, "join: a light thread cannot join itself");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!t->co)
        return asio_push_true(L);
    struct asio_wait *w = asio_park_claim(L, rt);
    w->source = t;
    asio_wait_list_add(&t->joiners, w);
    return asio_park(L, w, &asio_join_op, timeout);
}

/* For asio.select; its shim asks for the outcome, too. */
static int poll_thread(lua_State *L, void *object)
{
    return ((struct asio_thread *)object)->co ? 0 : asio_push_true(L);
}

static const struct asio_wait_op *join_thread(struct asio_wait *branch)
{
    asio_wait_list_add(&((struct asio_thread *)branch->source)->joiners, branch);
    return &asio_join_op;
}

const struct asio_selectable asio_thread_selectable = { poll_thread, join_thread };

static int l_outcome(lua_State *L)
{
    struct asio_thread *t = asio_thread_check(L, 1, "join");
    bool done = t->state == ASIO_THREAD_DONE;
    int n = done ? t->nresults : 1;
    t->joined = true;
    luaL_checkstack(L, n + 2, "too many results");
    lua_pushboolean(L, done);
    if (t->by_cancel) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, t->wait.rt->refs[ASIO_REF_CANCELLED]);
        return 2;
    }
    if (!t->kept) { /* nothing was returned, or memory was out */
        if (!done)
            lua_pushliteral(L, "not enough memory");
        return done ? 1 : 2;
    }
    lua_getfenv(L, 1);
    int table = lua_gettop(L);
    for (int i = 1; i <= n; i++)
        lua_rawgeti(L, table, i);
    lua_remove(L, table);
    return n + 1;
}

const char *asio_thread_status(const struct asio_thread *t)
{
    switch (t->state) {
    case ASIO_THREAD_NEW:
        return "ready";
    case ASIO_THREAD_RUNNING:
        return "running";
    case ASIO_THREAD_WAITING:
        return t->wait.state == ASIO_WAIT_DONE ? "ready" : "waiting";
    case ASIO_THREAD_DONE:
        return "done";
    default:
        return "failed";
    }
}

void asio_thread_cancel(struct asio_thread *t)
{
    if (!t->co)
        return;
    t->wait.cancelled = true;
    if (asio_wait_interrupted(&t->wait))
        asio_sched_abort(&t->wait, ASIO_INTERRUPTED);
}

void asio_thread_cancel_counted(lua_State *L, struct asio_rt *rt, const struct asio_counter *counter)
{
    for (int slot = 1; slot <= rt->slot_top; slot++) {
        asio_slot_get(L, rt, slot, ASIO_SLOT_HANDLE);
        struct asio_thread *t = lua_touserdata(L, -1);
        if (t && t->counter == counter && t != rt->current)
            asio_thread_cancel(t);
        lua_pop(L, 1);
    }
}

/* Interrupts: the flag stays, so code that swallows the error is told again at its next wait. */
static int l_thread_cancel(lua_State *L)
{
    struct asio_thread *t = asio_thread_check(L, 1, "cancel");
    asio_thread_cancel(t);
    lua_pushboolean(L, t->co != NULL);
    return 1;
}

static int l_status(lua_State *L)
{
    lua_pushstring(L, asio_thread_status(asio_thread_check(L, 1, "status")));
    return 1;
}

/* The handle at a stack index says it. */
static const char *thread_push_name(lua_State *L, int index, struct asio_thread *t)
{
    if (t->kept) {
        lua_getfenv(L, index);
        lua_getfield(L, -1, key_name);
        lua_remove(L, -2);
        if (!lua_isnil(L, -1))
            return lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    return lua_pushfstring(L, "#%d", (int)t->id);
}

const char *asio_thread_push_name(lua_State *L, struct asio_thread *t)
{
    asio_sched_push_handle(L, t);
    const char *name = thread_push_name(L, lua_gettop(L), t);
    lua_remove(L, -2);
    return name;
}

/* thread:traceback() -> where it is, or where its error was raised; nil if it has returned, was cancelled, or memory
 * was out. Documented in lua/asio/meta.lua. */
static int l_traceback(lua_State *L)
{
    struct asio_thread *t = asio_thread_check(L, 1, "traceback");
    if (t->co) {
        asio_traceback_push(L, t);
        return 1;
    }
    if (!t->kept || t->state != ASIO_THREAD_FAILED)
        return 0;
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, ASIO_KEPT_TRACEBACK);
    return 1;
}

static int l_name(lua_State *L)
{
    struct asio_thread *t = asio_thread_check(L, 1, "name");
    if (!lua_isnoneornil(L, 2)) {
        if (lua_type(L, 2) != LUA_TSTRING)
            asio_error_type(L, 2, 1, "name", "string");
        asio_traceback_push_kept(L, 1, t);
        lua_pushvalue(L, 2);
        lua_setfield(L, -2, key_name);
        lua_settop(L, 2);
        return 1;
    }
    thread_push_name(L, 1, t);
    return 1;
}

static int l_thread_tostring(lua_State *L)
{
    struct asio_thread *t = asio_thread_check(L, 1, "tostring");
    lua_pushfstring(L, "light thread %s (%s)", thread_push_name(L, 1, t), asio_thread_status(t));
    return 1;
}

static void thread_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "spawn", l_thread_spawn }, { "current", l_current },
        { "now", l_now }, { NULL, NULL } };
    static const luaL_Reg waiting[] = { { "sleep", l_sleep }, { "yield", l_yield }, { "join", l_thread_join },
        { "outcome", l_outcome }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { "status", l_status }, { "name", l_name },
        { "traceback", l_traceback }, { "cancel", l_thread_cancel }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__tostring", l_thread_tostring }, { NULL, NULL } };
    rt->thread_ended = thread_ended;
    asio_bind_functions(L, rt, "asio", module);
    asio_bind_functions(L, rt, "core", waiting);
    lua_getfield(L, 1, "asio");
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CANCELLED]);
    lua_setfield(L, -2, "cancelled");
    lua_pop(L, 1);
    asio_bind_class(L, rt, "thread", methods, meta, rt->refs[ASIO_REF_THREAD_MT]);
}

const struct asio_part asio_part_thread = { "thread", thread_part_open, NULL };
