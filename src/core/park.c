/* SPDX-License-Identifier: MIT
 * Parking: whether a call may wait, and suspending it; see park.h. The only lua_yield there is. */
#include "core/park.h"

#include "base/error.h"
#include "core/hook.h"
#include "core/scope.h"
#include "core/turn.h"

static bool is_main(lua_State *L)
{
    bool main = lua_pushthread(L);
    lua_pop(L, 1);
    return main;
}

static bool is_base(lua_State *L, const struct asio_rt *rt)
{
    return rt->current ? rt->current->co == L : is_main(L);
}

/* The users' coroutines that run above L do so no more if L itself asks: an error (a stack that
 * overflowed) has gone through the function that resumed them. */
static void forget_above(lua_State *L, struct asio_rt *rt)
{
    struct asio_wait *w = rt->self;
    struct asio_user_coroutine *n = w->user_coroutine;
    while (n && n->co != L)
        n = n->outer;
    if (!n && !is_base(L, rt))
        return; /* a coroutine that is not known */
    while (w->user_coroutine != n)
        asio_scope_pop_user_coroutine(w);
}

bool asio_park_owns(lua_State *L, struct asio_rt *rt)
{
    const struct asio_wait *w = rt->self;
    /* A hook that runs on L asks for nothing: the coroutine above may just have yielded because it waits. */
    if (w->user_coroutine && w->user_coroutine->co != L && w->state == ASIO_WAIT_IDLE &&
        !asio_hook_active(L, rt))
        forget_above(L, rt);
    return w->user_coroutine ? w->user_coroutine->co == L : is_base(L, rt);
}

static const char cannot_suspend[] = "inside a call from C that cannot be suspended (table.sort, "
                                     "string.gsub, a finalizer, a hook, require)";

/* Why a call from L cannot wait; NULL: it can. */
static const char *park_obstacle(lua_State *L, struct asio_rt *rt)
{
    struct asio_wait *w = rt->self;
    const char *why = asio_rt_obstacle(rt);
    if (why)
        return why;
    if (!asio_park_owns(L, rt))
        return "inside a coroutine of the script's own; asio.coroutine.install() lets waits pass through "
               "such";
    if (w->state != ASIO_WAIT_IDLE)
        return "the light thread waits already";
    if (rt->current)
        return lua_isyieldable(L) && !(w->user_coroutine && w->user_coroutine->stuck) ? NULL : cannot_suspend;
    if (rt->looping)
        return "the event loop is already running";
    if (asio_hook_active(L, rt))
        return "inside a finalizer or a hook";
    return NULL;
}

bool asio_park_can_wait(lua_State *L, struct asio_rt *rt)
{
    return park_obstacle(L, rt) == NULL;
}

struct asio_wait *asio_park_claim(lua_State *L, struct asio_rt *rt)
{
    const char *why = park_obstacle(L, rt);
    if (why)
        asio_error_misuse(L, "cannot wait here: %s", why);
    return rt->self;
}

static bool park_is_over(const void *arg)
{
    return ((const struct asio_wait *)arg)->state != ASIO_WAIT_PARKED;
}

/* The main chunk does not yield: it runs the loop itself until its wait is over. A wait that was
 * over wins over a Ctrl-C or an asio.stop of the same turn, which then ends the next one: what the
 * script sees as one wait may be several (asio.connect by name). */
static int drive(lua_State *L, struct asio_wait *w)
{
    struct asio_rt *rt = w->rt;
    luaL_checkstack(L, ASIO_WAIT_RESULTS, "too many results");
    rt->main_L = L;
    rt->stop = rt->stop_due;
    rt->deadlock = false;
    asio_turn_loop(rt, true, park_is_over, w);
    if (rt->closed) { /* a light thread has forked, and this is the child */
        w->state = ASIO_WAIT_IDLE;
        asio_error_misuse(L, "%s", asio_rt_obstacle(rt));
    }
    bool ended = park_is_over(w);
    rt->stop_due = ended && rt->stop;
    asio_sched_abort(w, UV_ECANCELED); /* unless it has */
    w->state = ASIO_WAIT_IDLE;
    if (ended || (rt->stop && !rt->interrupted))
        return rt->main_results;
    asio_turn_raise_interrupted(L, rt);
    return asio_turn_deadlock(L, rt);
}

/* The operation asked before it began; what it has allocated since may have run a finalizer that cancels. */
static int park_begin(struct asio_wait *w, double timeout)
{
    if (w->cancelled && asio_wait_interrupted(w))
        return ASIO_INTERRUPTED;
    return timeout < 0 ? 0 : asio_timer_set(&w->rt->timers, &w->timer, asio_rt_deadline(timeout));
}

int asio_park(lua_State *L, struct asio_wait *w, const struct asio_wait_op *op, double timeout)
{
    struct asio_rt *rt = w->rt;
    assert(w == rt->self && w->state == ASIO_WAIT_IDLE); /* claimed */
    assert(op && !w->counted && w->timer.at == ASIO_NEVER);
    w->op = op;
    w->status = park_begin(w, timeout);
    if (w->status < 0) {
        if (op->abort)
            op->abort(w);
        return asio_wait_push(L, w);
    }
    asio_wait_count(w, timeout >= 0);
    w->since = (uint32_t)uv_now(&rt->loop);
    w->state = ASIO_WAIT_PARKED;
    if (w->main)
        return drive(L, w);
    /* All arguments stay on the stack, and so alive, while it waits: self may be a temporary. */
    return lua_yield(L, lua_gettop(L));
}
