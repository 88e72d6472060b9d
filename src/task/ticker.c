/* SPDX-License-Identifier: MIT
 *
 * asio.after and asio.every: a function that is called later, in a light thread of its own each time.
 *
 * Lifetime of struct ticker: a userdata; anchored in the registry while active, and by references of the script;
 * function and last light thread are in its environment table; freed by the collector, which cannot
 * come while the timer is set; if the state closes first its timer is dropped with the heap. */
#include "core/bind.h"
#include "base/error.h"
#include "task/thread.h"

struct ticker {
    struct asio_timer timer;
    struct asio_rt *rt;
    uint64_t at;     /* when it is due */
    double interval; /* seconds; 0: once */
    int ref;         /* its own anchor; LUA_NOREF: not active */
};

enum { KEPT_FUNCTION = 1, KEPT_THREAD }; /* keys in the environment table */

static void deactivate(struct ticker *t)
{
    if (t->ref == LUA_NOREF)
        return;
    asio_timer_remove(&t->rt->timers, &t->timer);
    asio_rt_release(t->rt, t->ref);
    t->ref = LUA_NOREF;
    asio_rt_unref(t->rt);
}

/* The next of the regular times that lies ahead: what was missed is left out. */
static uint64_t next_time(const struct ticker *t)
{
    uint64_t now = uv_hrtime();
    double step = t->interval * 1e9;
    double missed = t->at < now ? (double)(now - t->at) / step : 0;
    double ahead = ((double)(uint64_t)missed + 1) * step;
    return ahead < 9e18 ? t->at + (uint64_t)ahead : ASIO_NEVER;
}

static void tick(lua_State *L, void *arg)
{
    struct ticker *t = arg;
    lua_settop(L, 0);
    asio_rt_push_anchored(L, t->rt, t->ref);
    lua_getfenv(L, 1);
    lua_rawgeti(L, 2, KEPT_THREAD);
    struct asio_thread *before = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (before && before->co)
        return; /* still at it: left out */
    lua_rawgeti(L, 2, KEPT_FUNCTION);
    if (t->interval == 0)
        deactivate(t);
    asio_sched_spawn(t->rt, L, 0, ASIO_SPAWN_PLAIN);
    if (t->interval > 0)
        lua_rawseti(L, 2, KEPT_THREAD);
}

/* When memory is out, or a finalizer raised, the call is made up for. */
static void on_time(struct asio_timer *timer)
{
    static const double retry = 0.01; /* seconds */
    struct ticker *t = ASIO_CONTAINER(timer, struct ticker, timer);
    struct asio_rt *rt = t->rt;
    if (t->interval > 0) {
        t->at = next_time(t);
        if (asio_timer_set(&rt->timers, &t->timer, t->at) < 0)
            deactivate(t); /* cannot be: its place in the heap was free a moment ago */
    }
    if (asio_rt_protect(rt, tick, t, "calling the function of a timer") != 0 && t->interval == 0 &&
        t->ref != LUA_NOREF)
        asio_timer_set(&rt->timers, &t->timer, asio_rt_deadline(retry));
}

static int ticker_start(lua_State *L, const char *fname, bool repeats)
{
    struct asio_rt *rt = asio_rt_of(L);
    if (lua_type(L, 1) != LUA_TNUMBER)
        asio_error_type(L, 1, 1, fname, "number of seconds");
    double seconds = asio_check_timeout(L, 1, 1, fname);
    if (seconds < 0 || (repeats && seconds < 1e-6))
        asio_error_arg(L, 1, fname,
            repeats ? "a microsecond at least, and less than for ever" : "less than for ever expected");
    if (!lua_isfunction(L, 2))
        asio_error_type(L, 2, 2, fname, "function");
    asio_bind_check_open(L, rt, fname);
    struct ticker *t = lua_newuserdata(L, sizeof *t);
    asio_timer_init(&t->timer, on_time);
    t->rt = rt;
    t->interval = repeats ? seconds : 0;
    t->at = asio_rt_deadline(seconds);
    t->ref = LUA_NOREF;
    lua_createtable(L, KEPT_THREAD, 0);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, KEPT_FUNCTION);
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, KEPT_THREAD);
    lua_setfenv(L, -2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_TICKER_MT]);
    lua_setmetatable(L, -2);
    t->ref = asio_rt_anchor(rt, L, lua_gettop(L));
    if (t->ref == LUA_NOREF)
        return asio_error_no_memory(L);
    asio_rt_ref(rt);
    if (asio_timer_set(&rt->timers, &t->timer, t->at) < 0) {
        deactivate(t);
        return asio_error_no_memory(L);
    }
    return 1;
}

/* asio.after(seconds, fn) */
static int l_after(lua_State *L)
{
    return ticker_start(L, "after", false);
}

/* asio.every(seconds, fn) */
static int l_every(lua_State *L)
{
    return ticker_start(L, "every", true);
}

/* timer:stop() -> whether there was something to stop */
static int l_ticker_stop(lua_State *L)
{
    struct ticker *t = asio_bind_check(L, 1, asio_rt_of(L)->refs[ASIO_REF_TICKER_MT], "stop", "timer");
    lua_pushboolean(L, t->ref != LUA_NOREF);
    if (!t->rt->closed)
        deactivate(t);
    return 1;
}

static int l_ticker_tostring(lua_State *L)
{
    struct ticker *t = asio_bind_check(L, 1, asio_rt_of(L)->refs[ASIO_REF_TICKER_MT], "tostring", "timer");
    lua_pushfstring(L, "timer (%s)", t->ref == LUA_NOREF ? "stopped" : t->interval > 0 ? "every" : "after");
    return 1;
}

static void ticker_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "after", l_after }, { "every", l_every }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { "stop", l_ticker_stop }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__tostring", l_ticker_tostring }, { NULL, NULL } };
    asio_bind_functions(L, rt, "asio", module);
    asio_bind_class(L, rt, "timer", methods, meta, rt->refs[ASIO_REF_TICKER_MT]);
}

const struct asio_part asio_part_ticker = { "ticker", ticker_part_open, NULL };
