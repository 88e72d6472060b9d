/* SPDX-License-Identifier: MIT
 * Light threads: spawning, resuming and waking them, and what is to be told of them; see sched.h. The only
 * lua_resume there is. */
#include "core/sched.h"

#include "core/coroutine.h"
#include "base/error.h"
#include "core/hook.h"
#include "core/scope.h"

#include <string.h>

static struct asio_thread *sched_thread_of(struct asio_wait *w)
{
    return ASIO_CONTAINER(w, struct asio_thread, wait);
}

void asio_sched_push_handle(lua_State *L, struct asio_thread *t)
{
    asio_slot_get(L, t->wait.rt, t->wait.slot, ASIO_SLOT_HANDLE);
}

void asio_sched_push_owned(lua_State *L, struct asio_thread *t)
{
    asio_slot_get(L, t->wait.rt, t->wait.slot, ASIO_SLOT_OWNED);
}

void asio_sched_push_current(lua_State *L, struct asio_rt *rt)
{
    if (rt->current)
        asio_sched_push_handle(L, rt->current);
    else
        lua_pushnil(L);
}

void asio_sched_forget(struct asio_thread *t)
{
    asio_slot_give_back(t->wait.rt, t->wait.slot);
}

/* ---- resuming ----------------------------------------------------------------------------- */

/* The thread is over. Its outcome is taken over by rt->thread_ended (thread.c), then the
 * coroutine goes back to the pool, or to the collector if it failed. A failed thread's handle
 * stays anchored in the slot until the report. */
static void retire(struct asio_thread *t, int status)
{
    struct asio_rt *rt = t->wait.rt;
    lua_State *co = t->co;
    asio_timer_remove(&rt->timers, &t->wait.timer);
    for (struct asio_user_coroutine *n = t->wait.user_coroutine; n; n = n->outer)
        n->wait = NULL; /* a stray yield: they will not be resumed any more */
    t->wait.user_coroutine = NULL;
    if (t->wait.scope)
        asio_scope_drop(&t->wait, NULL);
    rt->threads--;
    rt->attention = true;
    rt->thread_ended(t, status);
    t->co = NULL;
    if (t->owns)
        asio_slot_clear(rt, t->wait.slot, ASIO_SLOT_OWNED);
    bool failed = t->state == ASIO_THREAD_FAILED;
    if (!failed) {
        lua_settop(co, 0); /* nothing on its stack: resuming it by hand finds it dead */
        if (!t->escaped && asio_coroutine_keep(rt, (struct asio_coroutine){ co, t->wait.slot }))
            return;
    }
    asio_coroutine_drop(rt, t->wait.slot);
    if (!failed || (t->joined && !t->held))
        asio_slot_give_back(rt, t->wait.slot);
}

static struct asio_counter *sched_take_counter(struct asio_thread *t)
{
    struct asio_counter *counter = t->counter;
    t->counter = NULL;
    return counter;
}

static void sched_uncount(struct asio_counter *counter)
{
    if (!counter)
        return;
    counter->count--;
    counter->gone(counter);
}

static void sched_ended(struct asio_thread *t, int status)
{
    struct asio_counter *counter = sched_take_counter(t);
    retire(t, status); /* nothing may keep its handle afterwards */
    sched_uncount(counter);
}

#if defined __x86_64__ || defined __i386__ || defined _M_X64 || defined _M_IX86
enum { RESULTS_BY_COUNT = 1 };
#else
enum { RESULTS_BY_COUNT = 0 };
#endif

/* LuaJIT 2.1 for ARM, MIPS and PowerPC returns all that is on the stack of a C function that has yielded (vm_resume in
 * its vm_arm64.dasc and others), and not so many values as were given: what lies below them, the arguments, goes. */
static void sched_leave_results(lua_State *co, int nargs)
{
    if (RESULTS_BY_COUNT || lua_status(co) != LUA_YIELD)
        return;
    for (int below = lua_gettop(co) - nargs; below > 0; below--)
        lua_remove(co, 1);
}

static void resume(struct asio_thread *t, int nargs)
{
    struct asio_rt *rt = t->wait.rt;
    assert(t->co && (t->state == ASIO_THREAD_NEW || t->wait.state == ASIO_WAIT_DONE));
    assert(rt->depth <= ASIO_DEPTH_MAX);
    struct asio_thread *before = rt->current;
    struct asio_wait *self_before = rt->self;
    t->state = ASIO_THREAD_RUNNING;
    t->wait.state = ASIO_WAIT_IDLE;
    rt->current = t;
    rt->self = &t->wait;
    rt->depth++;
    asio_rt_woken(rt);
    if (rt->on_resume)
        rt->on_resume(rt, t, true);
    sched_leave_results(t->co, nargs);
    int status = lua_resume(t->co, nargs);
    asio_rt_notice_fork(rt);
    if (rt->on_resume)
        rt->on_resume(rt, t, false);
    rt->depth--;
    rt->current = before;
    rt->self = self_before;
    assert(status == LUA_YIELD || t->wait.state == ASIO_WAIT_IDLE);
    if (status == LUA_YIELD && t->wait.state != ASIO_WAIT_IDLE)
        t->state = ASIO_THREAD_WAITING;
    else
        sched_ended(t, status);
    if (rt->depth == 0)
        asio_rt_flush_soon(rt);
}

struct push {
    struct asio_wait *wait;
    lua_State *to;
    int count;
};

/* Results are made on the runtime's own thread and moved: an error raised on a suspended
 * coroutine has no frame that would catch it. */
static void push_results(lua_State *L, void *arg)
{
    struct push *p = arg;
    p->count = asio_wait_push(L, p->wait);
    lua_xmove(L, p->to, p->count);
}

/* Every string of this failure exists since the start: it can be pushed when memory is out. */
static void push_no_memory(lua_State *L, void *arg)
{
    struct push *p = arg;
    lua_pushnumber(L, p->wait->rt->token_fail);
    lua_pushnil(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, p->wait->rt->refs[ASIO_REF_NO_MEMORY]);
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    lua_remove(L, -3);
    p->count = 4;
    lua_xmove(L, p->to, 4);
}

static int results_to(struct asio_wait *w, lua_State *to)
{
    static const char doing[] = "making the results of a wait";
    struct push p = { w, to, 0 };
    if (asio_rt_protect_retry(w->rt, push_results, &p, doing) != 0)
        asio_rt_protect(w->rt, push_no_memory, &p, doing);
    return p.count;
}

/* ---- spawning ----------------------------------------------------------------------------- */

static void sched_list_add(struct asio_thread_list *list, struct asio_thread *t)
{
    t->next = NULL;
    if (list->last)
        list->last->next = t;
    else
        list->first = t;
    list->last = t;
}

static int reserve_body(lua_State *L)
{
    luaL_checkstack(L, *(int *)lua_touserdata(L, 1), "too many arguments");
    return 0;
}

/* Room for n values on a coroutine that is not running: growing may raise, and only a call made
 * on that coroutine can catch it. A new coroutine has room for a few without. */
static bool sched_reserve(lua_State *co, int n)
{
    if (n < LUA_MINSTACK - 4)
        return true;
    n += LUA_MINSTACK;
    if (lua_cpcall(co, reserve_body, &n) == 0)
        return true;
    lua_settop(co, 0);
    return false;
}

/* Once the state is being closed no light thread is woken any more, and sources may be gone: in the child of a
 * fork, which may have happened in a deadline of the same turn. */
static bool is_parked(const struct asio_wait *w)
{
    return w->state == ASIO_WAIT_PARKED && !w->rt->closed;
}

static void sched_on_deadline(struct asio_timer *timer)
{
    struct asio_wait *w = ASIO_CONTAINER(timer, struct asio_wait, timer);
    if (!is_parked(w))
        return;
    w->status = UV_ETIMEDOUT;
    if (w->op->abort)
        w->op->abort(w);
    asio_sched_wake(w, w->status);
}

static struct asio_thread *sched_push_thread(lua_State *L, struct asio_rt *rt)
{
    struct asio_thread *t = lua_newuserdata(L, sizeof *t);
    memset(t, 0, sizeof *t);
    asio_wait_init(&t->wait, rt, sched_on_deadline);
    t->id = ++rt->last_id;
    t->born = (uint32_t)uv_now(&rt->loop);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_THREAD_MT]);
    lua_setmetatable(L, -2);
    return t;
}

/* Whether a new light thread may run at once; else it runs from the ready list. */
static bool sched_may_resume(struct asio_rt *rt, lua_State *L, enum asio_spawn how)
{
    if (rt->depth >= ASIO_DEPTH_MAX)
        return false;
    if (rt->current && rt->current->co == L && lua_isyieldable(L))
        return true;
#ifdef LUA_GCISRUNNING
    /* A server's handler, which C code spawns. The collector stands still in a finalizer; a hook may have closed
     * a connection and so made room for this one. */
    if (how == ASIO_SPAWN_OWNER && rt->polling && !rt->current && lua_gc(L, LUA_GCISRUNNING, 0) &&
        lua_gethookmask(L) == 0)
        return true;
#endif
    return !asio_hook_active(L, rt);
}

static void spawn(
    struct asio_rt *rt, lua_State *L, int nargs, enum asio_spawn how, struct asio_counter *counter)
{
    bool later = !sched_may_resume(rt, L, how);
    int base = lua_gettop(L) - nargs; /* the function */
    luaL_checkstack(L, 8, "too many arguments");
    struct asio_thread *t = sched_push_thread(L, rt);
    struct asio_coroutine c = asio_coroutine_take(rt, L, later);
    if (!sched_reserve(c.L, nargs + 1)) {
        asio_coroutine_drop(rt, c.slot);
        asio_slot_give_back(rt, c.slot);
        asio_error_no_memory(L);
    }
    t->co = c.L;
    t->wait.slot = c.slot;
    lua_pushvalue(L, -1);
    asio_slot_set(L, rt, c.slot, ASIO_SLOT_HANDLE);
    t->reports = how == ASIO_SPAWN_REPORTER;
    t->wait.cancelled = how == ASIO_SPAWN_CANCELLED;
    t->held = how == ASIO_SPAWN_CHILD || how == ASIO_SPAWN_CANCELLED;
    if (how == ASIO_SPAWN_OWNER) {
        t->owns = true;
        lua_pushvalue(L, base - 1);
        asio_slot_set(L, rt, c.slot, ASIO_SLOT_OWNED);
        lua_remove(L, --base);
    }
    lua_insert(L, base);
    lua_xmove(L, c.L, nargs + 1);
    if (++rt->threads > rt->stats.threads_peak)
        rt->stats.threads_peak = rt->threads;
    rt->stats.spawned++;
    t->counter = counter;
    if (counter)
        counter->count++;
    if (later) {
        t->nargs = nargs;
        sched_list_add(&rt->ready, t);
    } else {
        resume(t, nargs);
    }
}

void asio_sched_spawn(struct asio_rt *rt, lua_State *L, int nargs, enum asio_spawn how)
{
    spawn(rt, L, nargs, how, NULL);
}

void asio_sched_spawn_counted(struct asio_rt *rt, lua_State *L, int nargs, struct asio_counter *counter)
{
    spawn(rt, L, nargs, ASIO_SPAWN_OWNER, counter);
}

/* ---- ending a wait ------------------------------------------------------------------------ */

const struct asio_wait_op asio_yield_op = { .name = "yield" };

static void sched_settle(struct asio_wait *w, int status)
{
    assert(w->state == ASIO_WAIT_PARKED && w->op);
    asio_timer_clear(&w->timer);
    asio_wait_uncount(w);
    w->status = status;
    w->state = ASIO_WAIT_DONE;
}

bool asio_sched_ready(struct asio_wait *w, int status)
{
    if (!is_parked(w))
        return false;
    if (w->callback) {
        w->state = ASIO_WAIT_DONE;
        w->status = status;
        w->callback(w);
        return true;
    }
    sched_settle(w, status);
    if (w->main) { /* at once: its source may be gone by the end of the turn */
        w->rt->main_results = results_to(w, w->rt->main_L);
        w->rt->attention = true;
    } else {
        sched_list_add(w->op == &asio_yield_op ? &w->rt->yielded : &w->rt->ready, sched_thread_of(w));
    }
    return true;
}

/* Outside of the loop, and in a protected body (which may run finalizers), the caller may be a hook. */
bool asio_sched_wake(struct asio_wait *w, int status)
{
    const struct asio_rt *rt = w->rt;
    if (w->main || w->callback || rt->depth > 0 || !rt->looping || rt->body)
        return asio_sched_ready(w, status);
    if (!is_parked(w))
        return false;
    sched_settle(w, status);
    resume(sched_thread_of(w), results_to(w, sched_thread_of(w)->co));
    return true;
}

void asio_sched_abort(struct asio_wait *w, int status)
{
    if (!is_parked(w))
        return;
    w->status = status;
    if (w->op->abort)
        w->op->abort(w);
    asio_sched_ready(w, w->status);
}

void asio_sched_interrupt(struct asio_wait *w)
{
    if (!is_parked(w))
        return;
    if (!asio_wait_interrupted(w)) { /* a shield's end, with nothing to let in */
        asio_wait_count(w, w->timer.at != ASIO_NEVER);
        return;
    }
    w->status = ASIO_INTERRUPTED;
    if (w->op->abort)
        w->op->abort(w);
    asio_sched_wake(w, w->status);
}

void asio_sched_run(struct asio_thread *t)
{
    assert(!t->next && !t->wait.rt->current);
    resume(t, t->state == ASIO_THREAD_NEW ? t->nargs : results_to(&t->wait, t->co));
}

/* ---- what is to be told --------------------------------------------------------------------- */

void asio_sched_report(struct asio_thread *t)
{
    assert(t->state == ASIO_THREAD_FAILED && !t->next);
    struct asio_rt *rt = t->wait.rt;
    t->joined = false;
    t->next = rt->failed;
    rt->failed = t;
}

void asio_sched_withdraw(struct asio_thread *t)
{
    struct asio_thread **link = &t->wait.rt->failed;
    while (*link && *link != t)
        link = &(*link)->next;
    if (*link)
        *link = t->next;
    t->next = NULL;
}

void asio_sched_report_text(lua_State *L, struct asio_rt *rt)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_REPORTS]);
    lua_insert(L, -2);
    lua_rawseti(L, -2, rt->reports + 1);
    rt->reports++;
    lua_pop(L, 1);
}

/* ---- opening and closing ------------------------------------------------------------------ */

static int cancelled_tostring(lua_State *L)
{
    lua_pushliteral(L, "cancelled");
    return 1;
}

/* What a cancelled wait raises: one object, known by its identity. */
static void keep_cancelled(lua_State *L, struct asio_rt *rt)
{
    lua_newuserdata(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, cancelled_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_setmetatable(L, -2);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CANCELLED]);
}

/* The messages of running out of memory, made while there is some. */
static void sched_keep_no_memory(lua_State *L, struct asio_rt *rt)
{
    lua_createtable(L, 2, 0);
    asio_error_push(L, UV_ENOMEM);
    lua_rawseti(L, -4, 2);
    lua_rawseti(L, -3, 1);
    lua_pop(L, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_NO_MEMORY]);
}

static void drop_scopes(struct asio_wait *w)
{
    while (w->user_coroutine)
        asio_scope_pop_user_coroutine(w);
    asio_scope_drop(w, NULL);
}

/* What is parked goes without a word; its scopes, and what counts it, are not Lua's memory. */
static void sched_part_close(struct asio_rt *rt)
{
    for (int slot = 1; slot <= rt->slot_top; slot++) {
        asio_slot_get(rt->L, rt, slot, ASIO_SLOT_HANDLE);
        struct asio_thread *t = lua_touserdata(rt->L, -1);
        lua_pop(rt->L, 1);
        if (t) {
            drop_scopes(&t->wait);
            sched_uncount(sched_take_counter(t));
        }
    }
    if (rt->main_wait)
        drop_scopes(rt->main_wait);
    asio_scope_close(rt);
}

static void sched_part_open(lua_State *L, struct asio_rt *rt)
{
    lua_createtable(L, 4 * ASIO_SLOT_KEYS, 0); /* an array from the start, see asio_slot_set */
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_THREADS]);
    sched_keep_no_memory(L, rt);
    keep_cancelled(L, rt);
    struct asio_wait *w = lua_newuserdata(L, sizeof *w);
    asio_wait_init(w, rt, sched_on_deadline);
    w->main = true;
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_MAIN_WAIT]);
    rt->main_wait = rt->self = w;
    asio_slot_open(L, rt);
}

const struct asio_part asio_part_sched = { "sched", sched_part_open, sched_part_close };
