/* SPDX-License-Identifier: MIT
 *
 * Bytes become values again. They were written by pack.c in this process and are believed. */
#include "plugins/worker/pack.h"

void asio_unpack_push_slot(struct unpack *u, enum pack_slot slot)
{
    lua_getfenv(u->L, u->self);
    lua_rawgeti(u->L, -1, (int)slot);
    lua_remove(u->L, -2);
}

void asio_unpack_number(struct unpack *u)
{
    u->numbers++;
    if (!u->seen)
        return;
    lua_pushvalue(u->L, -1);
    lua_rawseti(u->L, u->seen, (int)u->numbers);
}

static void unpack_double(struct unpack *u)
{
    double n;
    memcpy(&n, u->at, sizeof n);
    u->at += sizeof n;
    lua_pushnumber(u->L, n);
}

static void unpack_string(struct unpack *u, size_t length)
{
    lua_pushlstring(u->L, (const char *)u->at, length);
    u->at += length;
}

static void unpack_table(struct unpack *u)
{
    lua_State *L = u->L;
    luaL_checkstack(L, 16, "nested too deeply");
    uint32_t ordered = unpack_uint32(u), others = unpack_uint32(u);
    lua_createtable(L, (int)ordered, (int)others);
    int table = lua_gettop(L), next = 0;
    asio_unpack_number(u);
    while (*u->at != PACK_END) {
        if (*u->at == PACK_NEXT) {
            u->at++;
            asio_unpack_value(u);
            lua_rawseti(L, table, ++next);
        } else {
            asio_unpack_value(u);
            asio_unpack_value(u);
            lua_rawset(L, table);
        }
    }
    u->at++;
}

/* A connection comes into this state. What fails is the system's doing; there is no place for it but an error. */
static void unpack_conn(struct unpack *u, struct message_ref *ref)
{
    lua_State *L = u->L;
    struct pack_scratch *s = lua_touserdata(L, u->self);
    if (!ref->moved) /* the values were made before, and then memory ran out */
        luaL_error(L, "a connection in a message that could not be received is closed");
    int status = asio_worker_core->threads->move_in(L, s->rt, ref->moved);
    if (status < 0) {
        asio_worker_core->error->push(L, status);
        luaL_error(L, "a connection cannot be taken over: %s", lua_tostring(L, -2));
    }
    ref->moved = NULL;
    asio_unpack_number(u);
}

static void unpack_ref(struct unpack *u)
{
    struct message_ref *ref = &u->m->ref[unpack_uint32(u)];
    luaL_checkstack(u->L, 16, "nested too deeply");
    struct peer *peer = asio_peer_of(u->L);
    if (!peer)
        luaL_error(u->L, "the Lua state is being closed");
    if (ref->shared)
        asio_shared_push(u->L, peer, ref->shared);
    else
        unpack_conn(u, ref);
}

void asio_unpack_value(struct unpack *u)
{
    lua_State *L = u->L;
    enum pack_tag tag = *u->at++;
    switch (tag) {
    case PACK_FALSE:
    case PACK_TRUE:
        lua_pushboolean(L, tag == PACK_TRUE);
        break;
    case PACK_NUMBER:
        unpack_double(u);
        break;
    case PACK_SHORT_STRING:
        u->at++;
        unpack_string(u, u->at[-1]);
        break;
    case PACK_STRING:
        unpack_string(u, unpack_uint32(u));
        break;
    case PACK_TABLE:
        unpack_table(u);
        break;
    case PACK_SEEN:
        lua_rawgeti(L, u->seen, (int)unpack_uint32(u));
        break;
    case PACK_INT64:
    case PACK_UINT64:
        asio_unpack_int64(u, tag);
        break;
    case PACK_NAMED:
        asio_unpack_named(u);
        break;
    case PACK_FUNCTION:
        asio_unpack_function(u);
        break;
    case PACK_REF:
        unpack_ref(u);
        break;
    default:
        lua_pushnil(L);
    }
}

int asio_message_push(lua_State *L, struct message *m)
{
    struct unpack u = { .L = L, .m = m, .at = m->bytes + 1 };
    luaL_checkstack(L, (int)m->values + 16, "too many values");
    if (m->values == 1 && m->bytes[1] <= PACK_STRING) { /* needs nothing of what follows */
        asio_unpack_value(&u);
        return 1;
    }
    u.self = lua_gettop(L) + 1;
    asio_pack_push_scratch(L);
    if (m->bytes[0] & PACK_HAS_SEEN) {
        lua_newtable(L);
        u.seen = u.self + 1;
    }
    for (unsigned i = 0; i < m->values; i++)
        asio_unpack_value(&u);
    lua_remove(L, u.self);
    if (u.seen)
        lua_remove(L, u.self);
    return (int)m->values;
}
