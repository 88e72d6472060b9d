/* SPDX-License-Identifier: MIT
 * asio.run, run_once, stop: the loop as the script drives it. */
#include "base/error.h"
#include "core/bind.h"
#include "core/hook.h"
#include "core/turn.h"

static void check_may_run(lua_State *L, struct asio_rt *rt, const char *fname)
{
    asio_bind_check_open(L, rt, fname);
    if (rt->current)
        asio_error_misuse(L, "%s: called by a light thread; it is the main chunk that runs the loop", fname);
    if (rt->looping)
        asio_error_misuse(L, "%s: the loop is already running", fname);
    if (asio_hook_active(L, rt))
        asio_error_misuse(L, "%s: called by a finalizer or a hook", fname);
}

/* run(fn) ends at once if fn fails, any run if a scope of the main chunk around it says so. */
struct run {
    struct asio_rt *rt;
    struct asio_thread *main; /* fn's; NULL: without */
};

static bool has_failed(const struct run *r)
{
    return r->main && r->main->state == ASIO_THREAD_FAILED;
}

static bool run_is_over(const void *arg)
{
    const struct run *r = arg;
    return has_failed(r) || asio_sched_interrupted(r->rt);
}

/* Token, nil, message, code. */
static int push_deadlock(lua_State *L, struct asio_rt *rt)
{
    lua_pushnumber(L, rt->token_fail);
    lua_pushnil(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_DEADLOCK]);
    lua_call(L, 0, 1);
    lua_pushliteral(L, "EDEADLK");
    return 4;
}

/* core.run([fn, ...]) -> the handle of fn's light thread, or nil. */
static int l_run(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct run r = { rt, NULL };
    if (!lua_isnoneornil(L, 1) && !lua_isfunction(L, 1))
        asio_error_type(L, 1, 1, "run", "function");
    check_may_run(L, rt, "asio.run");
    rt->stop = rt->stop_due = rt->deadlock = false;
    if (lua_isfunction(L, 1)) {
        asio_sched_spawn(rt, L, lua_gettop(L) - 1, ASIO_SPAWN_PLAIN);
        r.main = lua_touserdata(L, 1);
        r.main->joined = true;
    }
    bool again;
    do { /* the script's on_error may have begun something */
        asio_turn_loop(rt, true, run_is_over, &r);
        again = asio_sched_has_reports(rt);
        if (again)
            rt->turn_ended(rt);
    } while (again && !run_is_over(&r) && !rt->stop && !rt->interrupted && !rt->deadlock);
    asio_bind_check_open(L, rt, "asio.run");
    asio_turn_raise_interrupted(L, rt);
    if (!has_failed(&r) && asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!has_failed(&r) && !rt->stop && rt->threads > 0)
        return push_deadlock(L, rt);
    asio_push_ok(L, rt);
    if (!r.main || r.main->co)
        return 1;
    lua_pushvalue(L, 1);
    return 2;
}

static void on_limit(struct asio_timer *t)
{
    (void)t; /* having woken the loop is all it is for */
}

/* A turn; waits for an event at most `seconds`, without the argument for ever. */
static int l_run_once(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    double seconds = asio_check_timeout(L, 1, 1, "run_once");
    check_may_run(L, rt, "asio.run_once");
    struct asio_timer limit;
    asio_timer_init(&limit, on_limit);
    if (seconds > 0 && asio_timer_set(&rt->timers, &limit, asio_rt_deadline(seconds)) < 0)
        return asio_error_no_memory(L);
    rt->stop = rt->stop_due = false;
    asio_turn_loop(rt, seconds != 0, NULL, NULL);
    asio_timer_remove(&rt->timers, &limit);
    asio_bind_check_open(L, rt, "asio.run_once");
    asio_turn_raise_interrupted(L, rt);
    lua_pushboolean(L, asio_sched_alive(rt));
    return 1;
}

static int l_run_stop(lua_State *L)
{
    asio_rt_of(L)->stop = true;
    return 0;
}

static void run_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "run_once", l_run_once }, { "stop", l_run_stop }, { NULL, NULL } };
    static const luaL_Reg core[] = { { "run", l_run }, { NULL, NULL } };
    asio_bind_functions(L, rt, "asio", module);
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_run = { "run", run_part_open, NULL };
