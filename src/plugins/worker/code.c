/* SPDX-License-Identifier: MIT
 *
 * Functions in Lua on their way to another state: bytecode, upvalues, environment. Upvalues that functions of one
 * message share stay shared. Of an environment that is the table of globals, the other state takes its own. */
#include "plugins/worker/pack.h"

static int code_write(lua_State *L, const void *bytes, size_t n, void *arg)
{
    (void)L;
    struct pack_scratch *s = arg;
    if (s->size - s->length < n && !asio_pack_try_room(s, n))
        return 1;
    memcpy(s->bytes + s->length, bytes, n);
    s->length += n;
    return 0;
}

static void pack_bytecode(struct pack *p, int index)
{
    uint32_t length = 0;
    pack_fixed(p, PACK_FUNCTION, &length, sizeof length);
    size_t start = p->s->length;
    lua_pushvalue(p->L, index);
    if (lua_dump(p->L, code_write, p->s) != 0)
        asio_pack_no_memory(p);
    lua_pop(p->L, 1);
    length = (uint32_t)(p->s->length - start);
    memcpy(p->s->bytes + start - sizeof length, &length, sizeof length);
}

/* The function at an index has the number `number`. */
static void pack_upvalues(struct pack *p, int index, uint32_t number, const struct pack_step *step)
{
    lua_State *L = p->L;
    const char *name;
    for (int i = 1; (name = lua_getupvalue(L, index, i)); i++) {
        const void *id = lua_upvalueid(L, index, i);
        const struct pack_seen *seen = asio_pack_find(p, id);
        if (seen) {
            p->has_seen = true;
            pack_fixed(p, PACK_JOINED, &seen->number, sizeof seen->number);
            *pack_room(p, 1) = (unsigned char)seen->upvalue;
        } else {
            asio_pack_remember(p, id, number, (uint32_t)i);
            pack_byte(p, PACK_UPVALUE);
            asio_pack_value(
                p, lua_gettop(L), &(struct pack_step){ .up = step, .kind = PACK_AT_UPVALUE, .name = name });
        }
        lua_pop(L, 1);
    }
    pack_byte(p, PACK_END);
}

static void pack_environment(struct pack *p, int index, const struct pack_step *step)
{
    lua_State *L = p->L;
    lua_getfenv(L, index);
    if (lua_rawequal(L, -1, LUA_GLOBALSINDEX))
        pack_byte(p, PACK_END);
    else
        asio_pack_value(p, lua_gettop(L), &(struct pack_step){ .up = step, .kind = PACK_AT_ENV });
    lua_pop(L, 1);
}

void asio_pack_function(struct pack *p, int index, const struct pack_step *step)
{
    lua_State *L = p->L;
    const void *object = lua_topointer(L, index);
    if (asio_pack_is_seen(p, object) || asio_pack_named_anew(p, index))
        return;
    if (lua_iscfunction(L, index)) {
        asio_pack_refuse(p, step, "a C function cannot go to another Lua state");
        return;
    }
    if (!asio_pack_enter(p, step))
        return;
    uint32_t number = ++p->numbers;
    asio_pack_remember(p, object, number, 0);
    pack_bytecode(p, index);
    pack_upvalues(p, index, number, step);
    pack_environment(p, index, step);
    p->depth--;
}

/* The function at a stack index gets the upvalue of another. */
static void unpack_joined(struct unpack *u, int function, int upvalue)
{
    lua_State *L = u->L;
    lua_rawgeti(L, u->seen, (int)unpack_uint32(u));
    lua_upvaluejoin(L, function, upvalue, lua_gettop(L), *u->at++);
    lua_pop(L, 1);
}

void asio_unpack_function(struct unpack *u)
{
    lua_State *L = u->L;
    uint32_t length = unpack_uint32(u);
    luaL_checkstack(L, 16, "nested too deeply");
    if (luaL_loadbuffer(L, (const char *)u->at, length, "=?") != 0)
        lua_error(L);
    u->at += length;
    int function = lua_gettop(L);
    asio_unpack_number(u);
    for (int i = 1; *u->at != PACK_END; i++) {
        if (*u->at++ == PACK_JOINED)
            unpack_joined(u, function, i);
        else {
            asio_unpack_value(u);
            lua_setupvalue(L, function, i);
        }
    }
    u->at++;
    if (*u->at == PACK_END) {
        u->at++;
        lua_pushvalue(L, LUA_GLOBALSINDEX);
    } else
        asio_unpack_value(u);
    lua_setfenv(L, function);
}
