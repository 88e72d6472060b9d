/* SPDX-License-Identifier: MIT
 *
 * Keys and values of a dict on Lua's stack; see dict_stack.h. */
#include "plugins/worker/dict_stack.h"

static const char dict_push_value_key; /* its address: the registry's key of l_dict_push_value */

/* Arguments ------------------------------------------------------------------------------------ */

void asio_dict_check_key(lua_State *L, const char *fname, struct dict_key *key)
{
    switch (lua_type(L, 2)) {
    case LUA_TSTRING:
        key->is_number = false;
        key->bytes = lua_tolstring(L, 2, &key->length);
        return;
    case LUA_TNUMBER:
        key->is_number = true;
        key->number = lua_tonumber(L, 2) + 0.0; /* -0 is 0 */
        key->bytes = (const char *)&key->number;
        key->length = sizeof key->number;
        if (key->number != key->number)
            asio_worker_core->error->arg(L, 1, fname, "NaN cannot be a key");
        return;
    default:
        asio_worker_core->error->arg(L, 1, fname, "string or number expected, got %s",
            lua_isnone(L, 2) ? "no value" : luaL_typename(L, 2));
    }
}

uint64_t asio_dict_check_ttl(lua_State *L, int index, const char *fname)
{
    if (lua_isnoneornil(L, index))
        return 0;
    if (lua_type(L, index) != LUA_TNUMBER)
        asio_worker_core->error->arg(
            L, index - 1, fname, "number of seconds expected, got %s", luaL_typename(L, index));
    double ns = lua_tonumber(L, index) * 1e9;
    if (!(ns >= 0))
        asio_worker_core->error->arg(L, index - 1, fname, "seconds must not be negative or NaN");
    return ns < 9e18 ? asio_worker_core->loop->now() + (uint64_t)ns : 0;
}

double asio_dict_check_number(lua_State *L, int index, const char *fname)
{
    if (lua_type(L, index) != LUA_TNUMBER)
        asio_worker_core->error->arg(L, index - 1, fname, "number expected, got %s",
            lua_isnone(L, index) ? "no value" : luaL_typename(L, index));
    return lua_tonumber(L, index);
}

static int dict_string_value(lua_State *L, int index, struct dict_value *v)
{
    v->bytes = lua_tolstring(L, index, &v->length);
    if (v->length <= DICT_SMALL)
        return 0;
    v->blob = asio_dict_blob_new(v->bytes, v->length);
    return v->blob ? 0 : UV_ENOMEM;
}

/* The message as it lies in memory: it refers to nothing. */
static int dict_message_value(
    lua_State *L, int index, const struct message_place *place, struct dict_value *v)
{
    struct message *m = asio_message_pack(L, index, index, place);
    v->length = sizeof *m + m->length;
    v->blob = asio_dict_blob_new(m, v->length);
    asio_message_free(m);
    lua_pop(L, 1);
    return v->blob ? 0 : UV_ENOMEM;
}

int asio_dict_value_at(lua_State *L, int index, const char *fname, const char *what, struct dict_value *v)
{
    *v = (struct dict_value){ .type = DICT_NONE };
    switch (lua_type(L, index)) {
    case LUA_TNONE:
    case LUA_TNIL:
        return 0;
    case LUA_TBOOLEAN:
        v->type = DICT_BOOLEAN;
        v->number = lua_toboolean(L, index);
        return 0;
    case LUA_TNUMBER:
        v->type = DICT_NUMBER;
        v->number = lua_tonumber(L, index);
        return 0;
    case LUA_TSTRING:
        v->type = DICT_STRING;
        return dict_string_value(L, index, v);
    default:
        v->type = DICT_MESSAGE;
        return dict_message_value(
            L, index, &(struct message_place){ fname, what ? 0 : index - 1, what, MESSAGE_NO_REFS }, v);
    }
}

void asio_dict_check_present(lua_State *L, const char *fname)
{
    if (lua_isnoneornil(L, 3))
        asio_worker_core->error->arg(L, 2, fname, "a value expected, got nil");
}

/* Results -------------------------------------------------------------------------------------- */

int asio_dict_push_fail(lua_State *L, int status, const char *einval)
{
    switch (status) {
    case UV_EEXIST:
        return asio_worker_core->error->push_text(L, status, "the key is there already");
    case UV_ENOENT:
        return asio_worker_core->error->push_text(L, status, "no such key");
    case UV_EINVAL:
        return asio_worker_core->error->push_text(L, status, "%s", einval);
    default:
        return asio_worker_core->error->push(L, status);
    }
}

int asio_dict_push_true(lua_State *L, int status)
{
    if (status < 0)
        return asio_dict_push_fail(L, status, NULL);
    lua_pushboolean(L, true);
    return 1;
}

static void dict_push_bytes(lua_State *L, const struct dict_read *r)
{
    if (r->type == DICT_STRING)
        lua_pushlstring(L, r->blob ? (const char *)r->blob->bytes : r->small, r->length);
    else
        asio_message_push(L, (struct message *)(void *)r->blob->bytes);
}

/* push_value(handle) -> what its state is reading */
static int l_dict_push_value(lua_State *L)
{
    struct shared_handle *h = lua_touserdata(L, 1);
    dict_push_bytes(L, ((struct dict_local *)h->local)->reading);
    return 1;
}

/* What has a blob is pushed in a protected call. Nothing before that allocates. */
void asio_dict_push_read(lua_State *L, struct dict *d, struct dict_key *key, struct dict_read *r)
{
    if (r->type == DICT_BOOLEAN) {
        lua_pushboolean(L, r->number != 0);
    } else if (r->type == DICT_NUMBER) {
        lua_pushnumber(L, r->number);
    } else if (!r->blob) {
        dict_push_bytes(L, r);
    } else {
        struct shared_handle *h = lua_touserdata(L, 1);
        ((struct dict_local *)h->local)->reading = r;
        lua_pushlightuserdata(L, (void *)&dict_push_value_key);
        lua_rawget(L, LUA_REGISTRYINDEX);
        lua_pushvalue(L, 1);
        int status = lua_pcall(L, 1, 1, 0);
        asio_dict_release(d, key, r);
        if (status != 0)
            lua_error(L);
    }
}

void asio_dict_stack_open(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&dict_push_value_key);
    lua_pushcfunction(L, l_dict_push_value);
    lua_rawset(L, LUA_REGISTRYINDEX);
}
