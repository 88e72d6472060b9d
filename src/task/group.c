/* SPDX-License-Identifier: MIT
 *
 * Groups of light threads that end together (structured concurrency): the C side of
 * lua/asio/group.lua. The group learns of the end of a child by a record of its own among the child's
 * joiners.
 *
 * Lifetime: the userdata is anchored by references of the script; the records of its children, which are freed
 * when these end or the group is collected; its finalizer cancels those that are left. The child
 * that failed first keeps its slot, as one that is to be reported: by a wait for the group, or
 * when the group is collected. */
#include "core/bind.h"
#include "core/park.h"
#include "base/error.h"
#include "core/scope.h"
#include "task/group.h"
#include "task/thread.h"
#include "task/timeout.h"

struct group;

struct child {
    struct asio_wait end; /* first; among the joiners of the thread */
    struct group *group;
    struct asio_thread *thread; /* NULL: it is being started */
    unsigned depth;             /* of resumes when it was spawned */
    struct child *next, *prev;
};

struct group {
    struct asio_wait_list waiters;
    struct child *children;
    struct asio_scope *scope;   /* of the function form, while it runs */
    struct asio_thread *failed; /* first; NULL: none, or told of */
    struct group *visited_next; /* in the list of a search for a circle */
    bool visited;
    int count;
    bool has_failed, cancelled;
    bool ended; /* waited for */
};

static struct group *group_check(lua_State *L, const char *fname)
{
    return asio_bind_check(L, 1, asio_rt_of(L)->refs[ASIO_REF_GROUP_MT], fname, "group");
}

/* ---- children ----------------------------------------------------------------------------- */

static void unlink_child(struct child *c)
{
    struct group *g = c->group;
    if (c->prev)
        c->prev->next = c->next;
    else
        g->children = c->next;
    if (c->next)
        c->next->prev = c->prev;
    g->count--;
    asio_mem.free(c);
}

static void cancel_all(struct group *g)
{
    g->cancelled = true;
    for (struct child *c = g->children; c; c = c->next)
        if (c->thread)
            asio_thread_cancel(c->thread);
}

/* The first failure is the group's, and ends the others. Later ones are reported. `joined`: the script waits for the
 * child itself, and is told. */
static bool takes_failure(struct group *g, struct child *c, bool joined)
{
    if (g->has_failed)
        return false;
    g->has_failed = true;
    g->failed = c->thread;
    g->failed->held = true; /* its slot is ours */
    g->failed->joined = joined;
    cancel_all(g);
    if (g->scope) {
        g->scope->tripped = true;
        if (g->scope->wait && asio_wait_interrupted(g->scope->wait)) /* queued: the child is still ending */
            asio_sched_abort(g->scope->wait, ASIO_INTERRUPTED);
    }
    return true;
}

static bool group_failed(const struct asio_thread *t)
{
    return t->state == ASIO_THREAD_FAILED && !t->by_cancel;
}

static void wake_waiters(struct group *g)
{
    while (g->count == 0 && g->waiters.first) {
        struct asio_wait *w = g->waiters.first;
        asio_wait_list_remove(&g->waiters, w);
        asio_sched_ready(w, 0);
    }
}

/* Its slot is given back with the reports. It is told of unless the script has joined it by then. */
static void group_report_child(struct asio_thread *failed, bool joined)
{
    failed->held = true;
    asio_sched_report(failed);
    failed->joined = joined;
}

static void on_child_end(struct asio_wait *end)
{
    struct child *c = (struct child *)(void *)end;
    struct group *g = c->group;
    bool joined = asio_thread_is_awaited(c->thread);
    if (group_failed(c->thread) && !takes_failure(g, c, joined))
        group_report_child(c->thread, joined);
    unlink_child(c);
    wake_waiters(g);
}

static const struct asio_wait_op child_op = { .name = "group" };

static struct child *new_child(lua_State *L, struct group *g)
{
    struct child *c = asio_mem.malloc(sizeof *c);
    if (!c)
        asio_error_no_memory(L);
    asio_wait_init_callback(&c->end, asio_rt_of(L), &child_op, g, on_child_end);
    c->group = g;
    c->thread = NULL;
    c->depth = c->end.rt->depth;
    c->prev = NULL;
    c->next = g->children;
    if (c->next)
        c->next->prev = c;
    g->children = c;
    g->count++;
    return c;
}

static int spawn_body(lua_State *L)
{
    bool cancelled = lua_toboolean(L, lua_upvalueindex(2));
    asio_sched_spawn(
        asio_rt_of(L), L, lua_gettop(L) - 1, cancelled ? ASIO_SPAWN_CANCELLED : ASIO_SPAWN_CHILD);
    return 1;
}

/* Ended within its start: it is on the list of those to be reported, unless something has joined it by then. Its slot
 * goes with the report, or is the group's. */
static void ended_at_start(struct child *c, struct asio_thread *t)
{
    if (t->state != ASIO_THREAD_FAILED)
        return;
    asio_sched_withdraw(t);
    if (group_failed(t) && takes_failure(c->group, c, t->joined))
        return;
    if (t->joined)
        asio_sched_forget(t);
    else
        asio_sched_report(t);
}

static void started(struct child *c, struct asio_thread *t)
{
    struct group *g = c->group;
    c->thread = t;
    if (t->co) {
        t->held = false;
        t->joined = true;
        asio_wait_list_add(&t->joiners, &c->end);
        if (g->cancelled) /* meanwhile */
            asio_thread_cancel(t);
        return;
    }
    ended_at_start(c, t);
    unlink_child(c);
    wake_waiters(g);
}

/* group:spawn(fn, ...) -> thread. A child counts from before its start. */
static int l_group_spawn(lua_State *L)
{
    struct group *g = group_check(L, "spawn");
    struct asio_rt *rt = asio_rt_of(L);
    if (!lua_isfunction(L, 2))
        asio_error_type(L, 2, 1, "spawn", "function");
    asio_bind_check_open(L, rt, "spawn");
    if (g->ended)
        asio_error_misuse(L, "spawn: the group has ended");
    lua_pushlightuserdata(L, rt);
    lua_pushboolean(L, g->cancelled);
    lua_pushcclosure(L, spawn_body, 2);
    lua_insert(L, 2);
    struct child *c = new_child(L, g);
    if (lua_pcall(L, lua_gettop(L) - 2, 1, 0) != 0) {
        unlink_child(c);
        return asio_error_raise(L);
    }
    started(c, lua_touserdata(L, -1));
    return 1;
}

/* ---- waiting ------------------------------------------------------------------------------ */

static void group_abort_wait(struct asio_wait *w)
{
    asio_wait_list_remove(&((struct group *)w->source)->waiters, w);
}

/* Token, false: wait again, since a child has begun meanwhile, or to look for a circle (give_way). */
static int push_empty(lua_State *L, struct asio_wait *w)
{
    w->deaf = false;
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    lua_pushboolean(L, ((struct group *)w->source)->count == 0);
    return 2;
}

static const struct asio_wait_op wait_op = { .name = "group", .abort = group_abort_wait, .push = push_empty };
static const struct asio_wait_op owned_op = {
    .name = "group", .abort = group_abort_wait, .push = push_empty
};

static struct group *waited_for(const struct asio_thread *t)
{
    bool waits =
        t && t->wait.state == ASIO_WAIT_PARKED && (t->wait.op == &wait_op || t->wait.op == &owned_op);
    return waits ? t->wait.source : NULL;
}

/* The waits of children that are not owned look again whether they are part of a circle. */
static void give_way(struct group *g)
{
    for (struct child *c = g->children; c; c = c->next)
        if (waited_for(c->thread) && c->thread->wait.op == &wait_op)
            asio_sched_abort(&c->thread->wait, 0);
}

/* One that is being started has no handle here yet. It runs inside the call that starts it. */
static bool is_child(const struct child *c, const struct asio_thread *current)
{
    return c->thread ? c->thread == current : c->depth + 1 == current->wait.rt->depth;
}

/* The group waits for the running light thread: it is a child, or a child waits for a group that waits for it, and so on.
 * The search goes along a list of the groups that it has met. `must`: what it has met gives way. */
static bool waits_for(struct group *g, const struct asio_thread *t, bool must)
{
    struct group *last = g;
    bool found = false;
    g->visited = true;
    for (struct group *at = g; at; at = at->visited_next) {
        for (struct child *c = at->children; c; c = c->next) {
            struct group *next = waited_for(c->thread);
            found = found || is_child(c, t);
            if (!next || next->visited)
                continue;
            next->visited = true;
            last->visited_next = next;
            last = next;
        }
    }
    while (g) {
        struct group *next = g->visited_next;
        if (found && must)
            give_way(g);
        g->visited = false;
        g->visited_next = NULL;
        g = next;
    }
    return found;
}

/* core.group_wait(group, owned, cleaning) -> true: no child is left; false: to be called again. A wait that would close a
 * circle raises: neither could end, not even by cancelling, since a group that is cancelled is waited for too.
 * `owned`: of the function form, which has to wait when it cleans up (`must`): then the others in the circle raise. Of
 * every circle one wait is not owned. `cleaning`: interrupts come after it, without a shield, which takes memory. */
static int l_group_wait(lua_State *L)
{
    struct group *g = group_check(L, "wait");
    struct asio_rt *rt = asio_rt_of(L);
    bool owned = lua_toboolean(L, 2), cleaning = lua_toboolean(L, 3), must = owned && cleaning;
    if (rt->current && waits_for(g, rt->current, must) && !must)
        asio_error_misuse(
            L, "wait: a light thread cannot wait for its own group, or for one that waits for it");
    if (!cleaning && asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (g->count == 0)
        return asio_push_true(L);
    struct asio_wait *w = asio_park_claim(L, rt);
    w->source = g;
    w->deaf = cleaning;
    asio_wait_list_add(&g->waiters, w);
    return asio_park(L, w, owned ? &owned_op : &wait_op, -1);
}

/* The failure belongs to the caller from here on. */
static void group_report(struct group *g)
{
    g->failed->joined = true;
    asio_sched_forget(g->failed);
    g->failed = NULL;
}

/* core.group_end(group) -> the child that failed first, once; or nil. Nothing can be spawned any more. */
static int l_end(lua_State *L)
{
    struct group *g = group_check(L, "wait");
    g->ended = true;
    if (!g->failed) {
        lua_pushnil(L);
        return 1;
    }
    asio_sched_push_handle(L, g->failed);
    group_report(g);
    return 1;
}

static int l_group_cancel(lua_State *L)
{
    cancel_all(group_check(L, "cancel"));
    return 0;
}

/* core.group_enter(group) -> the id of a scope around the function form, tripped when a child fails. */
static int l_group_enter(lua_State *L)
{
    struct group *g = group_check(L, "group");
    asio_timeout_reserve(L);
    asio_park_claim(L, asio_rt_of(L)); /* where it could not wait for its children none is to be started */
    g->scope = asio_timeout_enter(L, ASIO_NEVER, "group");
    g->scope->holder = &g->scope;
    lua_pushnumber(L, (double)g->scope->id);
    return 1;
}

/* ---- the rest ----------------------------------------------------------------------------- */

static void drop_loudly(struct asio_rt *rt)
{
    ++*(int *)asio_rt_part(rt, ASIO_PART_GROUP);
    rt->report_due = true;
}

int asio_group_take_dropped(struct asio_rt *rt)
{
    int *dropped = asio_rt_part(rt, ASIO_PART_GROUP), n = dropped ? *dropped : 0;
    if (dropped)
        *dropped = 0;
    return n;
}

/* No wait will come for what is left: it is cancelled, and what goes wrong in it is reported. */
static int l_group_gc(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct group *g = asio_bind_to(L, 1, rt->refs[ASIO_REF_GROUP_MT]);
    if (!g)
        return 0;
    g->ended = true; /* a finalizer of the script's may still have it, and spawn */
    if (g->scope)
        g->scope->holder = NULL;
    if (g->failed && !rt->closed)
        group_report_child(g->failed, g->failed->joined);
    g->failed = NULL;
    if (g->count > 0 && !rt->closed)
        drop_loudly(rt);
    g->cancelled = true; /* with what is being started: a script has called this by hand */
    for (struct child *c = g->children, *following; c; c = following) {
        following = c->next;
        if (!c->thread)
            continue;
        if (!rt->closed) {
            asio_wait_list_remove(&c->thread->joiners, &c->end);
            c->thread->joined = false; /* unless another join comes */
            asio_thread_cancel(c->thread);
        }
        unlink_child(c);
    }
    return 0;
}

static int l_group_tostring(lua_State *L)
{
    lua_pushfstring(L, "group (%d light threads)", group_check(L, "tostring")->count);
    return 1;
}

/* core.new_group() */
static int l_group(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct group *g = lua_newuserdata(L, sizeof *g);
    *g = (struct group){ .count = 0 };
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_GROUP_MT]);
    lua_setmetatable(L, -2);
    return 1;
}

/* The part's state is the number of groups that were dropped in this turn. */
static void group_part_open(lua_State *L, struct asio_rt *rt)
{
    int *dropped = asio_rt_part(rt, ASIO_PART_GROUP);
    static const luaL_Reg core[] = { { "new_group", l_group }, { "group_wait", l_group_wait },
        { "group_end", l_end }, { "group_enter", l_group_enter }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { "spawn", l_group_spawn }, { "cancel", l_group_cancel },
        { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_group_gc }, { "__tostring", l_group_tostring },
        { NULL, NULL } };
    if (!dropped)
        dropped = asio_mem.malloc(sizeof *dropped);
    if (!dropped)
        asio_error_no_memory(L);
    *dropped = 0;
    asio_rt_part_set(rt, ASIO_PART_GROUP, dropped);
    asio_bind_functions(L, rt, "core", core);
    asio_bind_class(L, rt, "group", methods, meta, rt->refs[ASIO_REF_GROUP_MT]);
}

static void group_part_close(struct asio_rt *rt)
{
    asio_mem.free(asio_rt_part(rt, ASIO_PART_GROUP));
    asio_rt_part_set(rt, ASIO_PART_GROUP, NULL);
}

const struct asio_part asio_part_group = { "group", group_part_open, group_part_close };
