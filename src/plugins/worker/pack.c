/* SPDX-License-Identifier: MIT
 *
 * Values become bytes. Nothing here calls Lua code: tables are read raw, their metatables are not carried. */
#include "plugins/worker/pack.h"

#include <stdio.h>

/* ---- what cannot be carried ----------------------------------------------------------------- */

enum { REFUSE_STEPS = 8, REFUSE_NAME = 40 };

static void refuse_add_field(luaL_Buffer *b, lua_State *L, int key)
{
    switch (lua_type(L, key)) {
    case LUA_TSTRING:
        luaL_addstring(b, "field '");
        luaL_addlstring(b, lua_tostring(L, key), strnlen(lua_tostring(L, key), REFUSE_NAME));
        luaL_addstring(b, "'");
        break;
    case LUA_TNUMBER: {
        char text[48];
        snprintf(text, sizeof text, "field %.14g", lua_tonumber(L, key));
        luaL_addstring(b, text);
        break;
    }
    default:
        luaL_addstring(b, "a field");
    }
}

/* "field 'x' of ", and the step to where that is. */
static void refuse_add_step(luaL_Buffer *b, lua_State *L, const struct pack_step *step)
{
    switch (step->kind) {
    case PACK_AT_FIELD:
        refuse_add_field(b, L, step->index);
        break;
    case PACK_AT_KEY:
        luaL_addstring(b, "a key");
        break;
    case PACK_AT_UPVALUE:
        luaL_addstring(b, "upvalue '");
        luaL_addlstring(b, step->name, strnlen(step->name, REFUSE_NAME));
        luaL_addstring(b, "'");
        break;
    case PACK_AT_ENV:
        luaL_addstring(b, "the environment");
        break;
    case PACK_AT_VALUE:
        luaL_addstring(b, lua_istable(L, step->index) ? "a table" : "a function");
        break;
    }
}

/* Pushes the way from the value that is refused up to that which the caller gave: "field 'x' of a table: "; empty: they
 * are the same. The one given is left out if it has a name of its own (place->what). */
static void refuse_push_way(struct pack *p, const struct pack_step *step)
{
    luaL_Buffer b;
    luaL_buffinit(p->L, &b);
    bool any = step->up;
    for (int n = 0; any && step && (step->up || p->place->arg > 0 || !p->place->what); step = step->up, n++) {
        if (n > 0)
            luaL_addstring(&b, " of ");
        if (n == REFUSE_STEPS && step->up) {
            luaL_addstring(&b, "...");
            break;
        }
        refuse_add_step(&b, p->L, step);
    }
    if (any)
        luaL_addstring(&b, ": ");
    luaL_pushresult(&b);
}

static const struct pack_step *refuse_root(const struct pack_step *step)
{
    while (step->up)
        step = step->up;
    return step;
}

void asio_pack_refuse(struct pack *p, const struct pack_step *step, const char *fmt, ...)
{
    const struct message_place *place = p->place;
    if (!p->collected || p->again) {
        pack_byte(p, PACK_NIL);
        p->again = true;
        return;
    }
    asio_pack_clear(p->s);
    lua_State *L = p->L;
    luaL_checkstack(L, 16, "not enough memory");
    int arg = place->arg + refuse_root(step)->index - p->first;
    refuse_push_way(p, step);
    va_list args;
    va_start(args, fmt);
    lua_pushvfstring(L, fmt, args);
    va_end(args);
    lua_concat(L, 2);
    const char *why = lua_tostring(L, -1);
    if (place->arg > 0)
        asio_worker_core->error->arg(L, arg, place->fname, "%s", why);
    else
        asio_worker_core->error->misuse(L, "%s: %s", place->what ? place->what : place->fname, why);
}

bool asio_pack_enter(struct pack *p, const struct pack_step *step)
{
    bool deep = p->depth >= PACK_DEEPEST;
    if (deep || !lua_checkstack(p->L, 16)) {
        asio_pack_refuse(p, step, "nested too deeply");
        return false;
    }
    p->depth++;
    return true;
}

/* ---- values --------------------------------------------------------------------------------- */

static void pack_string(struct pack *p, int index)
{
    size_t length;
    const char *bytes = lua_tolstring(p->L, index, &length);
    bool small = length <= UINT8_MAX;
    size_t head = 1 + (small ? sizeof(uint8_t) : sizeof(uint32_t));
    unsigned char *at = pack_room(p, head + length);
    at[0] = small ? PACK_SHORT_STRING : PACK_STRING;
    if (small)
        at[1] = (unsigned char)length;
    else
        memcpy(at + 1, &(uint32_t){ (uint32_t)length }, sizeof(uint32_t));
    memcpy(at + head, bytes, length);
}

bool asio_pack_is_seen(struct pack *p, const void *object)
{
    const struct pack_seen *seen = asio_pack_find(p, object);
    if (!seen)
        return false;
    p->has_seen = true;
    pack_fixed(p, PACK_SEEN, &seen->number, sizeof seen->number);
    return true;
}

static void pack_items(struct pack *p, int index, const struct pack_step *step)
{
    lua_State *L = p->L;
    uint32_t items[2] = { 0, 0 }; /* in order, others */
    size_t head = p->s->length + 1;
    pack_fixed(p, PACK_TABLE, items, sizeof items);
    lua_pushnil(L);
    int key = lua_gettop(L);
    while (lua_next(L, index)) {
        if (lua_type(L, key) == LUA_TNUMBER && lua_tonumber(L, key) == items[0] + 1) {
            items[0]++;
            pack_byte(p, PACK_NEXT);
        } else {
            items[1]++;
            asio_pack_value(p, key, &(struct pack_step){ .up = step, .kind = PACK_AT_KEY });
        }
        asio_pack_value(p, key + 1, &(struct pack_step){ .up = step, .kind = PACK_AT_FIELD, .index = key });
        lua_settop(L, key);
    }
    pack_byte(p, PACK_END);
    memcpy(p->s->bytes + head, items, sizeof items);
}

static void pack_table(struct pack *p, int index, const struct pack_step *step)
{
    const void *object = lua_topointer(p->L, index);
    if (asio_pack_is_seen(p, object) || asio_pack_named(p, index) || !asio_pack_enter(p, step))
        return;
    asio_pack_remember(p, object, ++p->numbers, 0);
    pack_items(p, index, step);
    p->depth--;
}

static void pack_shared(struct pack *p, struct shared *shared, const struct pack_step *step)
{
    if (p->place->flags & MESSAGE_NO_REFS)
        asio_pack_refuse(p, step, "%s %s cannot be kept here", shared->kind->article, shared->kind->name);
    else
        asio_pack_add_ref(p, (struct message_ref){ .shared = shared });
}

/* Of a kind that can never be moved. What is in the way for now is seen to when the message is committed. */
static const char *conn_refusal(const struct asio_conn *conn)
{
    bool never = asio_worker_core->threads->move_obstacle(conn) == UV_ENOTSUP;
    return never ? "a connection of this kind cannot be moved" : NULL;
}

static void pack_conn(struct pack *p, struct asio_conn *conn, int index, const struct pack_step *step)
{
    lua_State *L = p->L;
    const void *object = lua_topointer(L, index);
    if (asio_pack_is_seen(p, object))
        return;
    const char *refusal =
        p->place->flags & MESSAGE_NO_REFS ? "a connection cannot be kept here" : conn_refusal(conn);
    if (refusal) {
        asio_pack_refuse(p, step, "%s", refusal);
        return;
    }
    if (lua_isnil(L, p->keep)) {
        lua_createtable(L, 1, 0);
        lua_replace(L, p->keep);
    }
    lua_pushvalue(L, index);
    lua_rawseti(L, p->keep, (int)lua_objlen(L, p->keep) + 1);
    asio_pack_remember(p, object, ++p->numbers, 0);
    asio_pack_add_ref(p, (struct message_ref){ .conn = conn });
}

static void pack_userdata(struct pack *p, int index, const struct pack_step *step)
{
    struct shared_handle *handle = asio_shared_to(p->L, index, NULL);
    struct asio_conn *conn = handle ? NULL : asio_worker_core->threads->conn_at(p->L, index);
    if (handle) {
        pack_shared(p, handle->object, step);
        return;
    }
    if (conn) {
        pack_conn(p, conn, index, step);
        return;
    }
    if (!asio_pack_named_anew(p, index))
        asio_pack_refuse(p, step, "a userdata cannot go to another Lua state");
}

void asio_pack_value(struct pack *p, int index, const struct pack_step *step)
{
    lua_State *L = p->L;
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        pack_byte(p, PACK_NIL);
        break;
    case LUA_TBOOLEAN:
        pack_byte(p, lua_toboolean(L, index) ? PACK_TRUE : PACK_FALSE);
        break;
    case LUA_TNUMBER:
        pack_fixed(p, PACK_NUMBER, &(double){ lua_tonumber(L, index) }, sizeof(double));
        break;
    case LUA_TSTRING:
        pack_string(p, index);
        break;
    case LUA_TTABLE:
        pack_table(p, index, step);
        break;
    case LUA_TFUNCTION:
        asio_pack_function(p, index, step);
        break;
    case LUA_TUSERDATA:
        pack_userdata(p, index, step);
        break;
    case LUA_TTHREAD:
        asio_pack_refuse(p, step, "a coroutine cannot go to another Lua state");
        break;
    case LUA_TLIGHTUSERDATA:
        asio_pack_refuse(p, step, "a light userdata cannot go to another Lua state");
        break;
    default:
        if (!asio_pack_int64(p, index))
            asio_pack_refuse(p, step, "a cdata value cannot go to another Lua state");
    }
}
