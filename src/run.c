/* SPDX-License-Identifier: MIT
 * asio.run, run_once, stop: the loop as the script drives it. */
#include "error.h"
#include "api.h"
#include "sched.h"

static void check_may_run(lua_State *L, struct asio_rt *rt, const char *fname)
{
    if (rt->closed)
        asio_error_misuse(L, "%s: the Lua state is being closed", fname);
    if (rt->current)
        asio_error_misuse(L, "%s: called by a light thread; it is the main chunk that runs the loop", fname);
    if (rt->looping)
        asio_error_misuse(L, "%s: the loop is already running", fname);
    if (asio_rt_in_finalizer(rt))
        asio_error_misuse(L, "%s: called by a finalizer", fname);
}

/* run(fn) ends at once if fn fails. */
static bool has_failed(const void *arg)
{
    const struct asio_thread *main = arg;
    return main && main->state == ASIO_THREAD_FAILED;
}

/* Returns to the shim the handle of the thread of run(fn), or nothing. */
static int l_run(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_thread *main = NULL;
    if (!lua_isnoneornil(L, 1) && !lua_isfunction(L, 1))
        asio_error_type(L, 1, 1, "run", "function");
    check_may_run(L, rt, "asio.run");
    rt->stop = false;
    if (lua_isfunction(L, 1)) {
        asio_sched_spawn(rt, L, lua_gettop(L) - 1, false);
        main = lua_touserdata(L, 1);
        main->joined = true;
    }
    asio_sched_loop(rt, true, has_failed, main);
    if (rt->failed)
        rt->turn_ended(rt);
    asio_sched_raise_interrupted(L, rt);
    if (!has_failed(main) && !rt->stop && rt->threads > 0)
        return asio_sched_deadlock(L, rt);
    lua_settop(L, main && !main->co ? 1 : 0);
    return lua_gettop(L);
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
        return luaL_error(L, "not enough memory");
    rt->stop = false;
    asio_sched_loop(rt, seconds != 0, NULL, NULL);
    asio_timer_remove(&rt->timers, &limit);
    asio_sched_raise_interrupted(L, rt);
    lua_pushboolean(L, asio_sched_alive(rt));
    return 1;
}

static int l_stop(lua_State *L)
{
    asio_rt_of(L)->stop = true;
    return 0;
}

void asio_run_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "run_once", l_run_once }, { "stop", l_stop }, { NULL, NULL } };
    static const luaL_Reg core[] = { { "run", l_run }, { NULL, NULL } };
    asio_api_functions(L, rt, "asio", module);
    asio_api_functions(L, rt, "core", core);
}
