/* SPDX-License-Identifier: MIT
 * The pool of coroutines and the table that anchors them; see coroutine.h. */
#include "core/coroutine.h"

void asio_slot_get(lua_State *L, struct asio_rt *rt, int slot, int key)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_THREADS]);
    lua_rawgeti(L, -1, ASIO_SLOT_KEYS * slot + key);
    lua_remove(L, -2);
}

void asio_slot_set(lua_State *L, struct asio_rt *rt, int slot, int key)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_THREADS]);
    lua_insert(L, -2);
    lua_rawseti(L, -2, ASIO_SLOT_KEYS * slot + key);
    lua_pop(L, 1);
}

void asio_slot_clear(struct asio_rt *rt, int slot, int key)
{
    lua_pushboolean(rt->L, 0); /* not nil, which would make room for nothing but free the key */
    asio_slot_set(rt->L, rt, slot, key);
}

static void make_keys(lua_State *L, struct asio_rt *rt, int slot)
{
    for (int key = 0; key < ASIO_SLOT_KEYS; key++) { /* upwards: the table stays an array */
        lua_pushboolean(L, 0);
        asio_slot_set(L, rt, slot, key);
    }
}

void asio_slot_open(lua_State *L, struct asio_rt *rt)
{
    make_keys(L, rt, 0);
}

/* A new coroutine in a slot of its own. Free slots are chained through the table itself, under
 * the coroutine's key, as luaL_ref does. The coroutine comes first: making it may run finalizers,
 * which may spawn. Raises out of memory, and is then as before. */
static struct asio_coroutine coroutine_new(struct asio_rt *rt, lua_State *L)
{
    struct asio_coroutine c = { .L = lua_newthread(L) };
    c.slot = rt->slot_free;
    if (c.slot) {
        asio_slot_get(L, rt, c.slot, ASIO_SLOT_COROUTINE);
        rt->slot_free = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
    } else {
        c.slot = rt->slot_top + 1;
        make_keys(L, rt, c.slot);
        rt->slot_top = c.slot;
    }
    asio_slot_set(L, rt, c.slot, ASIO_SLOT_COROUTINE);
    return c;
}

void asio_coroutine_drop(struct asio_rt *rt, int slot)
{
    asio_slot_clear(rt, slot, ASIO_SLOT_COROUTINE);
}

#ifndef NDEBUG
static bool coroutine_slot_is_free(struct asio_rt *rt, int slot)
{
    asio_slot_get(rt->L, rt, slot, ASIO_SLOT_COROUTINE);
    bool is_free = lua_type(rt->L, -1) == LUA_TNUMBER;
    lua_pop(rt->L, 1);
    return is_free;
}
#endif

void asio_slot_give_back(struct asio_rt *rt, int slot)
{
    assert(slot > 0 && slot <= rt->slot_top); /* not the main chunk's */
    assert(!coroutine_slot_is_free(rt, slot));
    asio_slot_clear(rt, slot, ASIO_SLOT_HANDLE);
    lua_pushinteger(rt->L, rt->slot_free);
    asio_slot_set(rt->L, rt, slot, ASIO_SLOT_COROUTINE);
    rt->slot_free = slot;
}

struct asio_coroutine asio_coroutine_take(struct asio_rt *rt, lua_State *L, bool fresh)
{
    if (fresh || rt->pool_count == 0)
        return coroutine_new(rt, L);
    struct asio_coroutine c = rt->pool[--rt->pool_count];
    /* A light thread that changed its globals table must not pass that on. */
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    lua_xmove(L, c.L, 1);
    lua_replace(c.L, LUA_GLOBALSINDEX);
    return c;
}

bool asio_coroutine_keep(struct asio_rt *rt, struct asio_coroutine c)
{
    assert(lua_gettop(c.L) == 0 && c.slot > 0);
    if (rt->pool_count == ASIO_POOL_MAX)
        return false;
    rt->pool[rt->pool_count++] = c;
    asio_slot_clear(rt, c.slot, ASIO_SLOT_HANDLE);
    return true;
}
