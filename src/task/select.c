/* SPDX-License-Identifier: MIT
 *
 * asio.select: waits for the first of several. Each object's queue gets a record of its own, a branch,
 * on which no light thread is parked: the first that ends takes the others out of their queues and then
 * ends the one record that the light thread is parked on.
 *
 * The branches are a userdata in the list of the objects, which is on the stack of the waiting light thread. */
#include "task/select.h"

#include "core/bind.h"
#include "core/park.h"
#include "base/error.h"
#include "task/thread.h"

enum { BRANCHES_MAX = 10000 };

struct select;

struct branch {
    struct asio_wait wait; /* first */
    struct select *select;
};

struct select {
    struct asio_wait *parked;
    int count, won; /* won: index of the branch that ended first */
    struct branch branches[];
};

/* ---- ending ------------------------------------------------------------------------------- */

/* Takes all branches that are still in a queue out of it. */
static void leave_queues(struct select *s)
{
    for (int i = 0; i < s->count; i++) {
        struct asio_wait *b = &s->branches[i].wait;
        if (b->state != ASIO_WAIT_PARKED)
            continue;
        b->state = ASIO_WAIT_IDLE;
        b->op->abort(b);
    }
}

static void abort_select(struct asio_wait *w)
{
    leave_queues(w->source);
}

/* With a token and n results from index `first` on at the top of L: puts the index of the object
 * before them. What is a failure of the object's own is a result here. */
static int select_finish(lua_State *L, struct asio_rt *rt, int first, int index, int n)
{
    lua_remove(L, first);
    asio_push_ok(L, rt);
    lua_insert(L, first);
    lua_pushinteger(L, index);
    lua_insert(L, first + 1);
    return n + 1;
}

static int push_won(lua_State *L, struct asio_wait *w)
{
    struct select *s = w->source;
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    int first = lua_gettop(L) + 1, n = asio_wait_push(L, &s->branches[s->won].wait);
    return select_finish(L, w->rt, first, s->won + 1, n);
}

static const struct asio_wait_op select_op = { .name = "select", .abort = abort_select, .push = push_won };
static const struct asio_wait_op select_shared_op = {
    .name = "select", .outside = true, .shared = true, .abort = abort_select, .push = push_won
};

static void on_branch(struct asio_wait *w)
{
    struct branch *b = (struct branch *)(void *)w;
    struct select *s = b->select;
    s->won = (int)(b - s->branches);
    leave_queues(s);
    asio_sched_ready(s->parked, 0);
}

/* ---- beginning ---------------------------------------------------------------------------- */

enum { OBJECT = 1, TIMEOUT, LIST }; /* the stack; the object that is being polled is at 1 */

static const struct asio_selectable *kind_of(lua_State *L, struct asio_rt *rt, int index)
{
    const struct {
        int ref;
        const struct asio_selectable *kind;
    } kinds[] = { { rt->refs[ASIO_REF_CHANNEL_MT], &asio_channel_selectable },
        { rt->refs[ASIO_REF_THREAD_MT], &asio_thread_selectable },
        { rt->refs[ASIO_REF_EVENT_MT], &asio_event_selectable },
        { rt->refs[ASIO_REF_SEMAPHORE_MT], &asio_semaphore_selectable } };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (asio_bind_to(L, index, kinds[i].ref))
            return kinds[i].kind;
    if (!lua_isuserdata(L, index) || !luaL_getmetafield(L, index, ASIO_SELECTABLE))
        return NULL;
    const struct asio_selectable *kind = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return kind;
}

/* Everything is looked at before anything is taken. The list is the shim's own: it stays as it is. */
static int check_objects(lua_State *L, struct asio_rt *rt)
{
    int count = (int)lua_objlen(L, LIST);
    if (count == 0)
        asio_error_arg(L, 1, "select", "the list is empty");
    if (count > BRANCHES_MAX)
        asio_error_arg(L, 1, "select", "more than %d objects", BRANCHES_MAX);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, LIST, i);
        if (!kind_of(L, rt, -1))
            asio_error_arg(L, 1, "select", "channel, light thread, event or semaphore expected at %d, got %s",
                i, luaL_typename(L, -1));
        if (rt->current && lua_touserdata(L, -1) == (void *)rt->current)
            asio_error_arg(L, 1, "select", "a light thread cannot wait for itself");
        lua_pop(L, 1);
    }
    return count;
}

/* The first in the list that is ready: pushes what select returns; 0: none is. */
static int poll_all(lua_State *L, struct asio_rt *rt, int count)
{
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, LIST, i);
        lua_replace(L, OBJECT);
        int first = lua_gettop(L) + 1;
        int n = kind_of(L, rt, OBJECT)->poll(L, lua_touserdata(L, OBJECT));
        if (n > 0)
            return select_finish(L, rt, first, i, n);
    }
    return 0;
}

/* Returns whether one of them can be ended by another Lua state. */
static bool join_all(lua_State *L, struct asio_rt *rt, struct select *s, struct asio_wait *w, int count)
{
    s->parked = w;
    s->count = count;
    s->won = 0;
    bool shared = false;
    for (int i = 0; i < count; i++) {
        struct branch *b = &s->branches[i];
        lua_rawgeti(L, LIST, i + 1);
        b->select = s;
        asio_wait_init_callback(&b->wait, rt, NULL, lua_touserdata(L, -1), on_branch);
        b->wait.slot = w->slot;
        b->wait.op = kind_of(L, rt, -1)->join(&b->wait);
        shared = shared || b->wait.op->shared;
        lua_pop(L, 1);
    }
    return shared;
}

/* core.select(list, timeout) -> index, results */
static int l_select(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    if (!lua_istable(L, 1))
        asio_error_type(L, 1, 1, "select", "table");
    double timeout = asio_check_timeout(L, 2, 2, "select");
    lua_settop(L, 2);
    lua_pushvalue(L, 1);
    int count = check_objects(L, rt);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    int n = poll_all(L, rt, count);
    if (n > 0)
        return n;
    if (timeout == 0)
        return asio_push_fail(L, UV_ETIMEDOUT);
    struct asio_wait *w = asio_park_claim(L, rt);
    struct select *s = lua_newuserdata(L, sizeof *s + (size_t)count * sizeof *s->branches);
    lua_rawseti(L, LIST, 0);    /* outlives this call's stack: a coroutine.resume by hand ends the call */
    n = poll_all(L, rt, count); /* once more: making that may have run finalizers, which send */
    if (n > 0)
        return n;
    bool shared = join_all(L, rt, s, w, count);
    w->source = s;
    return asio_park(L, w, shared ? &select_shared_op : &select_op, timeout);
}

static int l_is_thread(lua_State *L)
{
    lua_pushboolean(L, asio_thread_to(L, 1) != NULL);
    return 1;
}

static void select_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "select", l_select }, { "is_thread", l_is_thread }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_select = { "select", select_part_open, NULL };
