/* SPDX-License-Identifier: MIT
 *
 * Light threads as Lua sees them: spawn, sleep, yield, join, status, name, and what becomes of
 * their outcome. Results, or the error with its traceback, are kept in the environment table of
 * the handle, and go with it. */
#include "error.h"
#include "api.h"
#include "sched.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { KEPT_ERROR = 1, KEPT_TRACEBACK = 2 }; /* keys in a failed thread's table; results are 1..n */

/* ---- the end of a light thread ------------------------------------------------------------ */

/* Pushes the environment table of the handle at the top of the stack, made at first use. */
static void push_kept(lua_State *L, struct asio_thread *t)
{
    if (!t->kept) {
        lua_newtable(L);
        lua_setfenv(L, -2);
        t->kept = true;
    }
    lua_getfenv(L, -1);
}

static void keep_results(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    asio_sched_push_handle(L, t);
    push_kept(L, t);
    for (int i = t->nresults; i > 0; i--) {
        lua_xmove(t->co, L, 1);
        lua_rawseti(L, -2, i);
    }
}

/* The first traceback is the one that tells: an error that already carries one (it came through
 * a join or a scope) is a matter of those who re-raise. */
static void keep_error(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    asio_sched_push_handle(L, t);
    push_kept(L, t);
    lua_xmove(t->co, L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->wait.rt->ref_cancelled);
    if (lua_rawequal(L, -1, -2))
        t->joined = true; /* being cancelled is no failure to report */
    lua_pop(L, 1);
    luaL_traceback(L, t->co, NULL, 0);
    lua_rawseti(L, -3, KEPT_TRACEBACK);
    lua_rawseti(L, -2, KEPT_ERROR);
}

static void keep_stray_yield(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    lua_settop(t->co, 0);
    lua_pushliteral(L,
        "coroutine.yield called by a light thread: nobody would resume it; "
        "use asio.yield() to let others run");
    lua_xmove(L, t->co, 1);
    keep_error(L, arg);
}

static void keep_no_memory(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    if (!t->kept)
        return; /* join then says it without the help of a table */
    asio_sched_push_handle(L, t);
    push_kept(L, t);
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->wait.rt->ref_no_memory);
    lua_rawgeti(L, -1, 1);
    lua_rawseti(L, -3, KEPT_ERROR);
}

static void close_owned(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    asio_sched_push_owned(L, t);
    lua_getfield(L, -1, "close");
    lua_insert(L, -2);
    lua_call(L, 1, 0);
}

static void thread_ended(struct asio_thread *t, int status)
{
    struct asio_rt *rt = t->wait.rt;
    int kept = 0;
    t->joined = t->joined || t->joiners.first;
    if (status == 0) {
        t->state = ASIO_THREAD_DONE;
        t->nresults = lua_gettop(t->co);
        if (t->nresults)
            kept = asio_rt_protect(rt, keep_results, t);
    }
    if (status != 0 || kept != 0) {
        t->state = ASIO_THREAD_FAILED;
        if (t->owns)
            asio_rt_protect(rt, close_owned, t);
        if (kept == 0)
            kept = asio_rt_protect(rt, status == LUA_YIELD ? keep_stray_yield : keep_error, t);
        if (kept != 0)
            asio_rt_protect(rt, keep_no_memory, t);
        if (!t->joined) {
            t->next = rt->failed;
            rt->failed = t;
        }
    }
    while (t->joiners.first) {
        struct asio_wait *w = t->joiners.first;
        asio_wait_list_remove(&t->joiners, w);
        asio_sched_ready(w, 0);
    }
}

/* ---- reports ------------------------------------------------------------------------------ */

static void report(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    if (!t->kept) {
        fputs("asio: light thread failed: not enough memory\n", stderr);
        return;
    }
    enum { HANDLE = 1, KEPT, NAME, ERROR, TRACEBACK };
    lua_settop(L, 0);
    asio_sched_push_handle(L, t);
    lua_getfenv(L, HANDLE);
    lua_getfield(L, KEPT, "name");
    lua_rawgeti(L, KEPT, KEPT_ERROR);
    lua_rawgeti(L, KEPT, KEPT_TRACEBACK);
    const char *name = lua_tostring(L, NAME), *traceback = lua_tostring(L, TRACEBACK);
    const char *text = lua_tostring(L, ERROR);
    if (!name)
        name = lua_pushfstring(L, "#%d", (int)t->id);
    if (!text && luaL_callmeta(L, ERROR, "__tostring"))
        text = lua_tostring(L, -1);
    if (!text)
        text = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, ERROR));
    fprintf(stderr, "asio: light thread %s failed: %s\n%s\n", name, text, traceback ? traceback : "");
}

/* Errors that nobody has joined by the end of the turn, in the order in which they came. */
static void turn_ended(struct asio_rt *rt)
{
    struct asio_thread *t = rt->failed, *ordered = NULL;
    rt->failed = NULL;
    while (t) {
        struct asio_thread *following = t->next;
        t->next = ordered;
        ordered = t;
        t = following;
    }
    while (ordered) {
        t = ordered;
        ordered = t->next;
        t->next = NULL;
        if (!t->joined && asio_rt_protect(rt, report, t) != 0)
            fputs("asio: light thread failed, and its report too\n", stderr);
        t->joined = true;
        asio_sched_forget(t);
    }
    fflush(stderr);
}

/* ---- spawn, sleep, yield ------------------------------------------------------------------ */

static int l_spawn(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    if (!lua_isfunction(L, 1))
        asio_error_type(L, 1, 1, "spawn", "function");
    if (rt->closed)
        asio_error_misuse(L, "spawn: the Lua state is being closed");
    asio_sched_spawn(rt, L, lua_gettop(L) - 1, false);
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
    static const struct asio_wait_op op = { .name = "yield" };
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    struct asio_wait *w = asio_sched_claim(L, rt);
    if (w->main) { /* one turn for the others */
        rt->stop = false;
        asio_sched_loop(rt, false, NULL, NULL);
        asio_sched_raise_interrupted(L, rt);
        return asio_push_true(L);
    }
    int n = asio_sched_park(L, w, &op, -1);
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
    struct asio_wait *w = asio_sched_claim(L, asio_rt_of(L));
    return asio_sched_park(L, w, seconds < 0 ? &sleep_op : &timed_sleep_op, seconds);
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

static struct asio_thread *check_thread(lua_State *L, const char *fname)
{
    struct asio_thread *t = lua_touserdata(L, 1);
    if (t && lua_getmetatable(L, 1)) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, asio_rt_of(L)->ref_thread_mt);
        bool same = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
        if (same)
            return t;
    }
    asio_error_misuse(L, "calling '%s' on something that is not a light thread", fname);
    return NULL;
}

static void abort_join(struct asio_wait *w)
{
    struct asio_thread *t = w->source;
    asio_wait_list_remove(&t->joiners, w);
}

static const struct asio_wait_op join_op = { .name = "join", .abort = abort_join };

/* Waits for the end; the shim then asks for the outcome, whose size nobody knows before. */
static int l_join(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_thread *t = check_thread(L, "join");
    double timeout = asio_check_timeout(L, 2, 1, "join");
    if (t == rt->current)
        asio_error_misuse(L, "join: a light thread cannot join itself");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!t->co)
        return asio_push_true(L);
    struct asio_wait *w = asio_sched_claim(L, rt);
    w->source = t;
    asio_wait_list_add(&t->joiners, w);
    return asio_sched_park(L, w, &join_op, timeout);
}

static int l_outcome(lua_State *L)
{
    struct asio_thread *t = check_thread(L, "join");
    bool done = t->state == ASIO_THREAD_DONE;
    int n = done ? t->nresults : 1;
    t->joined = true;
    luaL_checkstack(L, n + 2, "too many results");
    lua_pushboolean(L, done);
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

static const char *status_name(struct asio_thread *t)
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

/* Interrupts: the flag stays, so code that swallows the error is told again at its next wait. */
static int l_cancel(lua_State *L)
{
    struct asio_thread *t = check_thread(L, "cancel");
    if (t->co) {
        t->cancelled = true;
        asio_sched_abort(&t->wait, ASIO_INTERRUPTED);
    }
    lua_pushboolean(L, t->co != NULL);
    return 1;
}

static int l_status(lua_State *L)
{
    lua_pushstring(L, status_name(check_thread(L, "status")));
    return 1;
}

static int l_name(lua_State *L)
{
    struct asio_thread *t = check_thread(L, "name");
    if (!lua_isnoneornil(L, 2)) {
        if (lua_type(L, 2) != LUA_TSTRING)
            asio_error_type(L, 2, 1, "name", "string");
        lua_settop(L, 2);
        lua_insert(L, 1);
        push_kept(L, t);
        lua_pushvalue(L, 1);
        lua_setfield(L, -2, "name");
        lua_settop(L, 1);
        return 1;
    }
    if (t->kept) {
        lua_getfenv(L, 1);
        lua_getfield(L, -1, "name");
        if (!lua_isnil(L, -1))
            return 1;
    }
    lua_pushfstring(L, "#%d", (int)t->id);
    return 1;
}

static int l_tostring(lua_State *L)
{
    struct asio_thread *t = check_thread(L, "tostring");
    lua_settop(L, 1);
    l_name(L);
    lua_pushfstring(L, "light thread %s (%s)", lua_tostring(L, -1), status_name(t));
    return 1;
}

void asio_thread_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "spawn", l_spawn }, { "current", l_current }, { "now", l_now },
        { NULL, NULL } };
    static const luaL_Reg waiting[] = { { "sleep", l_sleep }, { "yield", l_yield }, { "join", l_join },
        { "outcome", l_outcome }, { "repark", asio_sched_repark }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { "status", l_status }, { "name", l_name }, { "cancel", l_cancel },
        { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__tostring", l_tostring }, { NULL, NULL } };
    rt->thread_ended = thread_ended;
    rt->turn_ended = turn_ended;
    asio_api_functions(L, rt, "asio", module);
    asio_api_functions(L, rt, "core", waiting);
    lua_getfield(L, 1, "asio");
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->ref_cancelled);
    lua_setfield(L, -2, "cancelled");
    lua_pop(L, 1);
    asio_api_class(L, rt, "thread", methods, meta, rt->ref_thread_mt);
}
