/* SPDX-License-Identifier: MIT
 * The wait record; see wait.h. */
#include "core/wait.h"

#include "base/error.h"
#include "core/coroutine.h"

#include <string.h>

void asio_wait_init(struct asio_wait *w, struct asio_rt *rt, void (*fire)(struct asio_timer *t))
{
    memset(w, 0, sizeof *w);
    w->rt = rt;
    asio_timer_init(&w->timer, fire);
}

void asio_wait_init_callback(struct asio_wait *w, struct asio_rt *rt, const struct asio_wait_op *op,
    void *source, void (*callback)(struct asio_wait *w))
{
    asio_wait_init(w, rt, NULL);
    w->op = op;
    w->source = source;
    w->callback = callback;
    w->state = ASIO_WAIT_PARKED;
}

int asio_push_true(lua_State *L)
{
    asio_push_ok(L, asio_rt_of(L));
    lua_pushboolean(L, 1);
    return 2;
}

int asio_push_fail(lua_State *L, int status)
{
    lua_pushnumber(L, asio_rt_of(L)->token_fail);
    return 1 + asio_error_push(L, status);
}

int asio_push_failed(lua_State *L)
{
    lua_pushnumber(L, asio_rt_of(L)->token_fail);
    lua_insert(L, -4);
    return 4;
}

/* Has its deadline passed, though the loop has not seen to it yet? One of 0 seconds waits for the
 * loop, but not for ever. */
static bool is_late(const struct asio_scope *s, uint64_t *now)
{
    enum { MILLISECOND = 1000000 };
    uint64_t at = s->timer.at;
    if (at == ASIO_NEVER)
        return false;
    if (!*now)
        *now = uv_hrtime();
    return *now >= (asio_rt_is_soon(at) ? at + MILLISECOND : at);
}

/* From the inside to the outside. The clock is asked too, since a light thread that finds its data
 * there every time may not let the loop see to its deadlines. */
bool asio_wait_interrupt(const struct asio_wait *w, struct asio_scope **which)
{
    bool found = false;
    uint64_t now = 0;
    if (w->deaf)
        return false;
    for (struct asio_scope *s = w->scope; s; s = s->outer) {
        bool tripped = s->tripped || is_late(s, &now);
        if (s->shield && !tripped)
            return found;
        if (!s->shield && tripped) {
            found = true;
            *which = s;
        }
    }
    if (!w->cancelled)
        return found;
    *which = NULL;
    return true;
}

/* The object by which a scope knows its own interrupt, made at the first one. Raises out of
 * memory: the interrupt then comes again at the next wait. */
static void push_interrupt_object(lua_State *L, struct asio_rt *rt, struct asio_scope *s)
{
    if (s->ref != LUA_NOREF) {
        asio_rt_push_anchored(L, rt, s->ref);
        return;
    }
    lua_newuserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_INTERRUPT_MT]);
    lua_setmetatable(L, -2);
    s->ref = asio_rt_anchor(rt, L, lua_gettop(L));
    if (s->ref == LUA_NOREF)
        asio_error_no_memory(L);
}

static int push_interrupt(lua_State *L, const struct asio_wait *w)
{
    struct asio_scope *which = NULL;
    asio_wait_interrupt(w, &which);
    lua_pushnumber(L, w->rt->token_interrupt);
    if (which)
        push_interrupt_object(L, w->rt, which);
    else
        lua_rawgeti(L, LUA_REGISTRYINDEX, w->rt->refs[ASIO_REF_CANCELLED]);
    return 2;
}

bool asio_wait_is_interrupt(lua_State *L, struct asio_rt *rt, int index)
{
    if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index))
        return false;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_INTERRUPT_MT]);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CANCELLED]);
    bool same = lua_rawequal(L, -2, -3) || lua_rawequal(L, -1, index);
    lua_pop(L, 3);
    return same;
}

int asio_push_interrupt(lua_State *L, struct asio_rt *rt)
{
    return push_interrupt(L, rt->self);
}

int asio_wait_push(lua_State *L, struct asio_wait *w)
{
    if (w->status == ASIO_INTERRUPTED)
        return push_interrupt(L, w);
    if (w->op->push)
        return w->op->push(L, w);
    return w->status < 0 ? asio_push_fail(L, w->status) : asio_push_true(L);
}

void asio_wait_list_add(struct asio_wait_list *list, struct asio_wait *w)
{
    assert(!w->next && !w->prev && list->first != w); /* in no list */
    w->next = NULL;
    w->prev = list->last;
    if (list->last)
        list->last->next = w;
    else
        list->first = w;
    list->last = w;
}

void asio_wait_list_remove(struct asio_wait_list *list, struct asio_wait *w)
{
    assert(w->prev ? w->prev->next == w : list->first == w);
    if (w->prev)
        w->prev->next = w->next;
    else
        list->first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        list->last = w->prev;
    w->next = w->prev = NULL;
}

void asio_wait_item_set(lua_State *L, struct asio_wait *w)
{
    asio_slot_set(L, w->rt, w->slot, ASIO_SLOT_ITEM);
}

void asio_wait_item_get(lua_State *L, struct asio_wait *w)
{
    asio_slot_get(L, w->rt, w->slot, ASIO_SLOT_ITEM);
    asio_wait_item_clear(w);
}

void asio_wait_item_clear(struct asio_wait *w)
{
    asio_slot_clear(w->rt, w->slot, ASIO_SLOT_ITEM);
}
