/* SPDX-License-Identifier: MIT
 * Things that several Lua states share: counted references, and the handles by which scripts have them; see worker.h. */
#include "plugins/worker/worker.h"

#include <string.h>

static const char shared_magic = 0;
static const char shared_handles = 0; /* its address: the registry's key of the table of a state's handles */
static uv_mutex_t shared_lock;        /* guards `references` of all */

static const struct shared_kind *const shared_kinds[] = { &asio_shared_channel_kind, &asio_dict_kind,
    &asio_offload_kind };

int asio_shared_load(void)
{
    return asio_worker_core->threads->mutex_init(&shared_lock);
}

void asio_shared_init(struct shared *s, const struct shared_kind *kind)
{
    s->kind = kind;
    s->references = 1;
}

void asio_shared_keep(struct shared *s)
{
    worker_lock(&shared_lock);
    s->references++;
    worker_unlock(&shared_lock);
}

void asio_shared_drop(struct shared *s)
{
    worker_lock(&shared_lock);
    unsigned left = --s->references;
    worker_unlock(&shared_lock);
    if (left == 0)
        s->kind->destroy(s);
}

/* In the child of a fork a thread that is not there may hold the lock: everything stays as it is. */
static void shared_release(struct shared_handle *h)
{
    struct shared *s = h->object;
    if (!s || asio_worker_core->threads->forked(peer_rt(h->peer)))
        return;
    h->object = NULL;
    s->kind->detach(s, h->local);
    asio_shared_drop(s);
    asio_peer_drop(h->peer);
}

static int l_shared_gc(lua_State *L)
{
    struct shared_handle *h = asio_shared_to(L, 1, NULL);
    if (h)
        shared_release(h);
    return 0;
}

struct shared_handle *asio_shared_to(lua_State *L, int index, const struct shared_kind *kind)
{
    struct shared_handle *h = lua_touserdata(L, index);
    if (!h || lua_type(L, index) != LUA_TUSERDATA || lua_objlen(L, index) != sizeof *h ||
        h->magic != &shared_magic)
        return NULL;
    return h->object && (!kind || h->object->kind == kind) ? h : NULL;
}

struct shared_handle *asio_shared_check(lua_State *L, const struct shared_kind *kind, const char *fname)
{
    struct shared_handle *h = asio_shared_to(L, 1, kind);
    if (!h)
        asio_worker_core->error->misuse(
            L, "calling '%s' on something that is not %s %s", fname, kind->article, kind->name);
    asio_worker_check_open(L, fname);
    return h;
}

void asio_shared_push_empty(lua_State *L, const struct shared_kind *kind)
{
    struct shared_handle *h = lua_newuserdata(L, sizeof *h);
    *h = (struct shared_handle){ .magic = &shared_magic };
    lua_pushlightuserdata(L, (void *)kind);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
}

void asio_shared_fill(lua_State *L, struct peer *peer, struct shared *s)
{
    struct shared_handle *h = lua_touserdata(L, -1);
    int status = s->kind->attach(s, peer, &h->local);
    if (status < 0) {
        asio_shared_drop(s);
        asio_worker_core->error->push(L, status);
        lua_pop(L, 1);
        lua_error(L);
    }
    asio_peer_keep(peer);
    h->peer = peer;
    h->object = s;
    lua_pushlightuserdata(L, (void *)&shared_handles);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, s);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

void asio_shared_push(lua_State *L, struct peer *peer, struct shared *s)
{
    luaL_checkstack(L, 5, "too many values");
    lua_pushlightuserdata(L, (void *)&shared_handles);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, s);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    asio_shared_push_empty(L, s->kind);
    asio_shared_keep(s);
    asio_shared_fill(L, peer, s);
}

/* With `core` at stack index 1. */
static void shared_open_kind(
    lua_State *L, struct asio_rt *rt, struct peer *peer, const struct shared_kind *kind)
{
    static const luaL_Reg meta[] = { { "__gc", l_shared_gc }, { NULL, NULL } };
    lua_pushlightuserdata(L, (void *)kind);
    lua_createtable(L, 0, 8);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, 1, kind->class);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, kind->name);
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, 0); /* a script must not call __gc: light threads may wait for the handle */
    lua_setfield(L, -2, "__metatable");
    asio_worker_bind(L, rt, peer, meta);
    kind->open(L, rt, peer);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

void asio_shared_open(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    lua_pushlightuserdata(L, (void *)&shared_handles);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    for (size_t i = 0; i < sizeof shared_kinds / sizeof *shared_kinds; i++)
        shared_open_kind(L, rt, peer, shared_kinds[i]);
}
