/* SPDX-License-Identifier: MIT
 *
 * Semaphore, mutex and event. First come, first served: what is released is handed to the first waiter
 * directly, so that no other light thread can come between.
 *
 * Lifetime: the userdata are all there is; anchored by references of the script, and by the stacks of the light threads that
 * wait; freed by the collector. A mutex that is held is in the list of its owner's joiners, and
 * is taken out by its finalizer. */
#include "core/bind.h"
#include "core/park.h"
#include "base/error.h"
#include "task/select.h"
#include "task/thread.h"

static struct asio_wait *sync_first_of(struct asio_wait_list *list)
{
    struct asio_wait *w = list->first;
    if (w)
        asio_wait_list_remove(list, w);
    return w;
}

/* All three begin with the list of waiters. */
static void sync_abort_wait(struct asio_wait *w)
{
    asio_wait_list_remove(w->source, w);
}

/* The four steps of all of them; `free`: nothing to wait for. */
static int sync_wait_for(
    lua_State *L, struct asio_wait_list *waiters, const struct asio_wait_op *op, double timeout)
{
    if (timeout == 0)
        return asio_push_fail(L, UV_ETIMEDOUT);
    struct asio_wait *w = asio_park_claim(L, asio_rt_of(L));
    w->source = waiters;
    asio_wait_list_add(waiters, w);
    return asio_park(L, w, op, timeout);
}

static void set_metatable(lua_State *L, int ref)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
    lua_setmetatable(L, -2);
}

/* ---- semaphore ---------------------------------------------------------------------------- */

struct semaphore {
    struct asio_wait_list waiters; /* first */
    double count;                  /* 0 while a light thread waits */
};

static const double count_max = 9007199254740991.0;

static const struct asio_wait_op acquire_op = { .name = "acquire", .abort = sync_abort_wait };

static struct semaphore *check_semaphore(lua_State *L, const char *fname)
{
    return asio_bind_check(L, 1, asio_rt_of(L)->refs[ASIO_REF_SEMAPHORE_MT], fname, "semaphore");
}

/* The public function for errors to name: the shim of `with` says so as a third argument. */
static const char *sync_caller(lua_State *L, const char *fname)
{
    return lua_isnoneornil(L, 3) ? fname : lua_tostring(L, 3);
}

/* core.acquire(semaphore, timeout[, caller]) */
static int l_acquire(lua_State *L)
{
    const char *fname = sync_caller(L, "acquire");
    struct semaphore *s = check_semaphore(L, fname);
    double timeout = asio_check_timeout(L, 2, 1, fname);
    if (asio_sched_interrupted(asio_rt_of(L)))
        return asio_push_interrupt(L, asio_rt_of(L));
    if (s->count == 0)
        return sync_wait_for(L, &s->waiters, &acquire_op, timeout);
    s->count--;
    return asio_push_true(L);
}

/* semaphore:release([n]) */
static int l_release(lua_State *L)
{
    struct semaphore *s = check_semaphore(L, "release");
    double n = 1;
    if (!lua_isnoneornil(L, 2))
        n = asio_check_integer(L, 2, 1, "release", 1, count_max);
    for (; n > 0 && s->waiters.first; n--)
        asio_sched_ready(sync_first_of(&s->waiters), 0);
    s->count += n;
    return 0;
}

static int l_count(lua_State *L)
{
    lua_pushnumber(L, check_semaphore(L, "count")->count);
    return 1;
}

static int poll_semaphore(lua_State *L, void *object)
{
    struct semaphore *s = object;
    if (s->count == 0)
        return 0;
    s->count--;
    return asio_push_true(L);
}

static const struct asio_wait_op *join_semaphore(struct asio_wait *branch)
{
    asio_wait_list_add(branch->source, branch);
    return &acquire_op;
}

const struct asio_selectable asio_semaphore_selectable = { poll_semaphore, join_semaphore };

static int l_semaphore_tostring(lua_State *L)
{
    lua_pushfstring(L, "semaphore (%f free)", check_semaphore(L, "tostring")->count);
    return 1;
}

/* asio.semaphore(n) */
static int l_semaphore(lua_State *L)
{
    double n = asio_check_integer(L, 1, 1, "semaphore", 0, count_max);
    struct semaphore *s = lua_newuserdata(L, sizeof *s);
    *s = (struct semaphore){ .count = n };
    set_metatable(L, asio_rt_of(L)->refs[ASIO_REF_SEMAPHORE_MT]);
    return 1;
}

/* ---- event -------------------------------------------------------------------------------- */

struct event {
    struct asio_wait_list waiters; /* first */
    bool set;
};

static const struct asio_wait_op event_op = { .name = "event", .abort = sync_abort_wait };

static struct event *check_event(lua_State *L, const char *fname)
{
    return asio_bind_check(L, 1, asio_rt_of(L)->refs[ASIO_REF_EVENT_MT], fname, "event");
}

/* event:wait([timeout]) */
static int l_sync_wait(lua_State *L)
{
    struct event *e = check_event(L, "wait");
    double timeout = asio_check_timeout(L, 2, 1, "wait");
    if (asio_sched_interrupted(asio_rt_of(L)))
        return asio_push_interrupt(L, asio_rt_of(L));
    return e->set ? asio_push_true(L) : sync_wait_for(L, &e->waiters, &event_op, timeout);
}

static int l_set(lua_State *L)
{
    struct event *e = check_event(L, "set");
    e->set = true;
    while (e->waiters.first)
        asio_sched_ready(sync_first_of(&e->waiters), 0);
    return 0;
}

static int l_sync_clear(lua_State *L)
{
    check_event(L, "clear")->set = false;
    return 0;
}

static int l_is_set(lua_State *L)
{
    lua_pushboolean(L, check_event(L, "is_set")->set);
    return 1;
}

static int poll_event(lua_State *L, void *object)
{
    return ((struct event *)object)->set ? asio_push_true(L) : 0;
}

static const struct asio_wait_op *join_event(struct asio_wait *branch)
{
    asio_wait_list_add(branch->source, branch);
    return &event_op;
}

const struct asio_selectable asio_event_selectable = { poll_event, join_event };

static int l_event_tostring(lua_State *L)
{
    lua_pushfstring(L, "event (%s)", check_event(L, "tostring")->set ? "set" : "not set");
    return 1;
}

/* asio.event() */
static int l_event(lua_State *L)
{
    struct event *e = lua_newuserdata(L, sizeof *e);
    *e = (struct event){ .set = false };
    set_metatable(L, asio_rt_of(L)->refs[ASIO_REF_EVENT_MT]);
    return 1;
}

/* ---- mutex -------------------------------------------------------------------------------- */

struct mutex {
    struct asio_wait_list waiters; /* first */
    struct asio_wait *owner;       /* a light thread's record, or the main chunk's; NULL: free */
    struct asio_wait death;        /* among the joiners of an owner that is a light thread */
};

static const struct asio_wait_op death_op = { .name = "mutex" };

static struct mutex *check_mutex(lua_State *L, const char *fname)
{
    return asio_bind_check(L, 1, asio_rt_of(L)->refs[ASIO_REF_MUTEX_MT], fname, "mutex");
}

static struct asio_thread *sync_thread_of(struct asio_wait *w)
{
    return w->main ? NULL : ASIO_CONTAINER(w, struct asio_thread, wait);
}

static void owner_died(struct asio_wait *death);

static void give_to(struct mutex *m, struct asio_wait *w)
{
    struct asio_thread *t = sync_thread_of(w);
    m->owner = w;
    if (!t)
        return;
    asio_wait_init_callback(&m->death, w->rt, &death_op, m, owner_died);
    asio_wait_list_add(&t->joiners, &m->death);
}

static void pass_on(struct mutex *m)
{
    struct asio_wait *w = sync_first_of(&m->waiters);
    m->owner = NULL;
    if (!w)
        return;
    give_to(m, w);
    asio_sched_ready(w, 0);
}

/* Without the owner's death. */
static void take_back(struct mutex *m)
{
    struct asio_thread *t = m->owner ? sync_thread_of(m->owner) : NULL;
    if (t && m->death.state == ASIO_WAIT_PARKED)
        asio_wait_list_remove(&t->joiners, &m->death);
    m->death.state = ASIO_WAIT_IDLE;
}

static void report_death(lua_State *L, void *arg)
{
    struct asio_thread *t = arg;
    lua_pushfstring(
        L, "light thread %s ended while it held a mutex, which is free again", asio_thread_push_name(L, t));
    asio_sched_report_text(L, t->wait.rt);
}

static void owner_died(struct asio_wait *death)
{
    struct mutex *m = death->source;
    struct asio_thread *t = sync_thread_of(m->owner);
    pass_on(m);
    asio_rt_protect(t->wait.rt, report_death, t,
        "reporting a mutex whose owner has ended"); /* last: it may collect the mutex */
}

static const struct asio_wait_op lock_op = { .name = "lock", .abort = sync_abort_wait };

/* core.lock(mutex, timeout[, caller]) */
static int l_lock(lua_State *L)
{
    const char *fname = sync_caller(L, "lock");
    struct mutex *m = check_mutex(L, fname);
    struct asio_rt *rt = asio_rt_of(L);
    double timeout = asio_check_timeout(L, 2, 1, fname);
    if (m->owner == rt->self)
        asio_error_misuse(L, "%s: this light thread holds the mutex already", fname);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (m->owner)
        return sync_wait_for(L, &m->waiters, &lock_op, timeout);
    give_to(m, rt->self);
    return asio_push_true(L);
}

static int l_unlock(lua_State *L)
{
    struct mutex *m = check_mutex(L, "unlock");
    if (m->owner != asio_rt_of(L)->self)
        asio_error_misuse(L, "unlock: this light thread does not hold the mutex");
    take_back(m);
    pass_on(m);
    return 0;
}

static int l_mutex_gc(lua_State *L)
{
    struct mutex *m = asio_bind_to(L, 1, asio_rt_of(L)->refs[ASIO_REF_MUTEX_MT]);
    if (m && !asio_rt_of(L)->closed)
        take_back(m);
    return 0;
}

static int l_mutex_tostring(lua_State *L)
{
    lua_pushfstring(L, "mutex (%s)", check_mutex(L, "tostring")->owner ? "locked" : "free");
    return 1;
}

/* asio.mutex() */
static int l_mutex(lua_State *L)
{
    struct mutex *m = lua_newuserdata(L, sizeof *m);
    *m = (struct mutex){ .owner = NULL };
    set_metatable(L, asio_rt_of(L)->refs[ASIO_REF_MUTEX_MT]);
    return 1;
}

static void sync_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "semaphore", l_semaphore }, { "event", l_event },
        { "mutex", l_mutex }, { NULL, NULL } };
    static const luaL_Reg core[] = { { "acquire", l_acquire }, { "wait_event", l_sync_wait },
        { "lock", l_lock }, { NULL, NULL } };
    static const luaL_Reg semaphore[] = { { "release", l_release }, { "count", l_count }, { NULL, NULL } };
    static const luaL_Reg event[] = { { "set", l_set }, { "clear", l_sync_clear }, { "is_set", l_is_set },
        { NULL, NULL } };
    static const luaL_Reg mutex[] = { { "unlock", l_unlock }, { NULL, NULL } };
    static const luaL_Reg semaphore_meta[] = { { "__tostring", l_semaphore_tostring }, { NULL, NULL } };
    static const luaL_Reg event_meta[] = { { "__tostring", l_event_tostring }, { NULL, NULL } };
    static const luaL_Reg mutex_meta[] = { { "__gc", l_mutex_gc }, { "__tostring", l_mutex_tostring },
        { NULL, NULL } };
    asio_bind_functions(L, rt, "asio", module);
    asio_bind_functions(L, rt, "core", core);
    asio_bind_class(L, rt, "semaphore", semaphore, semaphore_meta, rt->refs[ASIO_REF_SEMAPHORE_MT]);
    asio_bind_class(L, rt, "event", event, event_meta, rt->refs[ASIO_REF_EVENT_MT]);
    asio_bind_class(L, rt, "mutex", mutex, mutex_meta, rt->refs[ASIO_REF_MUTEX_MT]);
}

const struct asio_part asio_part_sync = { "sync", sync_part_open, NULL };
