/* SPDX-License-Identifier: MIT
 *
 * Dicts for Lua, over dict_store.c and dict_list.c; dict.lua adds what is easier there. No function raises while it holds
 * a lock or a reference to a value: what can raise is done before, or in a protected call. */
#include "plugins/worker/dict_list.h"
#include "plugins/worker/dict_stack.h"
#include "plugins/worker/dict_store.h"

#include <math.h>
#include <string.h>

struct dict_shared {
    struct shared shared; /* first */
    struct dict *dict;
    struct dict_shared
        *next; /* in the list of names, which has a reference of its own for as long as the process */
    char name[];
};

static uv_mutex_t dict_names_lock;
static struct dict_shared *dict_names;

static struct dict *dict_check(lua_State *L, const char *fname)
{
    return ((struct dict_shared *)asio_shared_check(L, &asio_dict_kind, fname)->object)->dict;
}

/* Methods -------------------------------------------------------------------------------------- */

/* dict:get(key) -> value | nil[, message, code] */
static int l_dict_get(lua_State *L)
{
    struct dict *d = dict_check(L, "get");
    struct dict_key key;
    struct dict_read r;
    asio_dict_check_key(L, "get", &key);
    asio_dict_get(d, &key, &r);
    if (r.type == DICT_LIST)
        return asio_dict_push_fail(L, UV_EINVAL, "the value is a list");
    if (r.type == DICT_NONE)
        lua_pushnil(L);
    else
        asio_dict_push_read(L, d, &key, &r);
    return 1;
}

/* What set, add, replace and update have in common. */
static int dict_store(
    lua_State *L, struct dict *d, struct dict_key *key, struct dict_value *v, struct asio_dict_set *set)
{
    set->value = v;
    int status = asio_dict_set(d, key, set);
    if (v->blob)
        asio_dict_blob_drop(v->blob);
    return asio_dict_push_true(L, status);
}

static int dict_store_at(lua_State *L, const char *fname, enum dict_set_mode mode)
{
    struct dict *d = dict_check(L, fname);
    struct dict_key key;
    struct dict_value v;
    struct asio_dict_set set = { .mode = mode };
    asio_dict_check_key(L, fname, &key);
    if (mode != DICT_SET)
        asio_dict_check_present(L, fname);
    set.expires = asio_dict_check_ttl(L, 4, fname);
    if (asio_dict_value_at(L, 3, fname, NULL, &v) < 0)
        return asio_dict_push_fail(L, UV_ENOMEM, NULL);
    if (v.type != DICT_NONE)
        return dict_store(L, d, &key, &v, &set);
    asio_dict_delete(d, &key, NULL);
    return asio_dict_push_true(L, 0);
}

/* dict:set(key, value[, ttl]) -> true | nil, message, code; nil: deletes */
static int l_dict_set(lua_State *L)
{
    return dict_store_at(L, "set", DICT_SET);
}

static int l_dict_add(lua_State *L)
{
    return dict_store_at(L, "add", DICT_ADD);
}

static int l_dict_replace(lua_State *L)
{
    return dict_store_at(L, "replace", DICT_REPLACE);
}

/* dict:incr(key[, by[, init[, ttl]]]) -> number | nil, message, code */
static int l_dict_incr(lua_State *L)
{
    struct dict *d = dict_check(L, "incr");
    struct dict_key key;
    double init = 0;
    struct asio_dict_incr incr = { .by = 1 };
    asio_dict_check_key(L, "incr", &key);
    if (!lua_isnoneornil(L, 3))
        incr.by = asio_dict_check_number(L, 3, "incr");
    if (!lua_isnoneornil(L, 4)) {
        init = asio_dict_check_number(L, 4, "incr");
        incr.init = &init;
    }
    incr.expires = asio_dict_check_ttl(L, 5, "incr");
    int status = asio_dict_incr(d, &key, &incr);
    if (status < 0)
        return asio_dict_push_fail(L, status, "the value is not a number");
    lua_pushnumber(L, incr.result);
    return 1;
}

/* dict:delete(key) -> boolean: it was there */
static int l_dict_delete(lua_State *L)
{
    struct dict *d = dict_check(L, "delete");
    struct dict_key key;
    asio_dict_check_key(L, "delete", &key);
    lua_pushboolean(L, asio_dict_delete(d, &key, NULL) == 0);
    return 1;
}

/* dict:expire(key[, ttl]) -> true | nil, message, code */
static int l_dict_expire(lua_State *L)
{
    struct dict *d = dict_check(L, "expire");
    struct dict_key key;
    asio_dict_check_key(L, "expire", &key);
    return asio_dict_push_true(L, asio_dict_expire(d, &key, asio_dict_check_ttl(L, 3, "expire")));
}

/* dict:ttl(key) -> seconds | nil */
static int l_dict_ttl(lua_State *L)
{
    struct dict *d = dict_check(L, "ttl");
    struct dict_key key;
    uint64_t expires;
    asio_dict_check_key(L, "ttl", &key);
    if (asio_dict_expires(d, &key, &expires) < 0) {
        lua_pushnil(L);
        return 1;
    }
    uint64_t now = asio_worker_core->loop->now();
    lua_pushnumber(L, !expires ? HUGE_VAL : expires > now ? (double)(expires - now) / 1e9 : 0);
    return 1;
}

static int l_dict_count(lua_State *L)
{
    lua_pushnumber(L, (double)asio_dict_count(dict_check(L, "count")));
    return 1;
}

static int l_dict_bytes(lua_State *L)
{
    lua_pushnumber(L, (double)asio_dict_bytes(dict_check(L, "bytes")));
    return 1;
}

static int l_dict_clear(lua_State *L)
{
    asio_dict_clear(dict_check(L, "clear"));
    return 0;
}

/* Keys ----------------------------------------------------------------------------------------- */

static void dict_push_key(lua_State *L, const struct dict_key_head *head, const char *bytes)
{
    double number;
    if (!head->is_number) {
        lua_pushlstring(L, bytes, head->length);
        return;
    }
    memcpy(&number, bytes, sizeof number);
    lua_pushnumber(L, number);
}

/* Pushes a buffer with the keys of a stripe, or one with none; *written: how many bytes. */
static const char *dict_push_keys(lua_State *L, struct dict *d, unsigned stripe, size_t *written)
{
    char *buf = NULL;
    size_t size = 0, needed;
    lua_pushnil(L);
    while ((needed = asio_dict_keys(d, stripe, buf, size, written)) > size) {
        size = needed + needed / 8; /* others may add keys meanwhile */
        lua_pop(L, 1);
        buf = lua_newuserdata(L, size);
    }
    return buf;
}

/* dict:keys([max]) -> list */
static int l_dict_keys(lua_State *L)
{
    struct dict *d = dict_check(L, "keys");
    double max = lua_isnoneornil(L, 2) ? HUGE_VAL : asio_dict_check_number(L, 2, "keys");
    int count = 0;
    lua_newtable(L);
    for (unsigned stripe = 0; stripe < d->count && count < max; stripe++) {
        size_t written;
        const char *buf = dict_push_keys(L, d, stripe, &written);
        for (size_t at = 0; at < written && count < max;) {
            struct dict_key_head head;
            memcpy(&head, buf + at, sizeof head);
            dict_push_key(L, &head, buf + at + sizeof head);
            lua_rawseti(L, -3, ++count);
            at += sizeof head + head.length;
        }
        lua_pop(L, 1);
    }
    return 1;
}

/* Lists ---------------------------------------------------------------------------------------- */

static int dict_push_at(lua_State *L, const char *fname, enum dict_end end)
{
    struct dict *d = dict_check(L, fname);
    struct dict_key key;
    struct dict_value v;
    struct asio_dict_push push = { .end = end, .value = &v };
    asio_dict_check_key(L, fname, &key);
    asio_dict_check_present(L, fname);
    int status = asio_dict_value_at(L, 3, fname, NULL, &v);
    if (status == 0)
        status = asio_dict_push(d, &key, &push);
    if (v.blob)
        asio_dict_blob_drop(v.blob);
    if (status < 0)
        return asio_dict_push_fail(L, status, "the value is not a list");
    lua_pushnumber(L, (double)push.length);
    return 1;
}

/* dict:lpush(key, value) -> length | nil, message, code */
static int l_dict_lpush(lua_State *L)
{
    return dict_push_at(L, "lpush", DICT_FRONT);
}

static int l_dict_rpush(lua_State *L)
{
    return dict_push_at(L, "rpush", DICT_BACK);
}

/* An item is pushed first and taken out then, if it is still there: pushing may raise. */
static int dict_pop_at(lua_State *L, const char *fname, enum dict_end end)
{
    struct dict *d = dict_check(L, fname);
    struct dict_key key;
    struct dict_read r;
    asio_dict_check_key(L, fname, &key);
    for (;;) {
        int status = asio_dict_peek(d, &key, end, &r);
        if (status < 0)
            return asio_dict_push_fail(L, status, "the value is not a list");
        if (r.type == DICT_NONE)
            lua_pushnil(L);
        else
            asio_dict_push_read(L, d, &key, &r);
        if (r.version == 0 || asio_dict_pop(d, &key, end, r.version))
            return 1;
        lua_pop(L, 1);
    }
}

/* dict:lpop(key) -> value | nil[, message, code] */
static int l_dict_lpop(lua_State *L)
{
    return dict_pop_at(L, "lpop", DICT_FRONT);
}

static int l_dict_rpop(lua_State *L)
{
    return dict_pop_at(L, "rpop", DICT_BACK);
}

/* dict:llen(key) -> length | nil, message, code */
static int l_dict_llen(lua_State *L)
{
    struct dict *d = dict_check(L, "llen");
    struct dict_key key;
    size_t length;
    asio_dict_check_key(L, "llen", &key);
    int status = asio_dict_length(d, &key, &length);
    if (status < 0)
        return asio_dict_push_fail(L, status, "the value is not a list");
    lua_pushnumber(L, (double)length);
    return 1;
}

/* For dict.lua --------------------------------------------------------------------------------- */

/* c.dict_read(dict, key) -> version, value | nil, message, code */
static int l_dict_read(lua_State *L)
{
    struct dict *d = dict_check(L, "update");
    struct dict_key key;
    struct dict_read r;
    asio_dict_check_key(L, "update", &key);
    asio_dict_get(d, &key, &r);
    if (r.type == DICT_LIST)
        return asio_dict_push_fail(L, UV_EINVAL, "the value is a list");
    lua_pushnumber(L, (double)r.version);
    if (r.type == DICT_NONE)
        lua_pushnil(L);
    else
        asio_dict_push_read(L, d, &key, &r);
    return 2;
}

/* c.dict_write(dict, key, value, ttl, version) -> true | false: another version | nil, message, code */
static int l_dict_write(lua_State *L)
{
    struct dict *d = dict_check(L, "update");
    struct dict_key key;
    struct dict_value v;
    struct asio_dict_set set = { .mode = DICT_UPDATE, .value = &v };
    asio_dict_check_key(L, "update", &key);
    set.keep_expiry = lua_isnil(L, 4);
    set.expires = asio_dict_check_ttl(L, 4, "update");
    set.version = (uint64_t)lua_tonumber(L, 5);
    int status = asio_dict_value_at(L, 3, "update", "update: the new value", &v);
    if (status == 0)
        status = v.type == DICT_NONE ? asio_dict_delete(d, &key, &set.version) : asio_dict_set(d, &key, &set);
    if (v.blob)
        asio_dict_blob_drop(v.blob);
    if (status == UV_ENOENT) /* there was nothing to delete */
        status = 0;
    if (status != UV_EAGAIN)
        return asio_dict_push_true(L, status);
    lua_pushboolean(L, false);
    return 1;
}

/* The dict of that name; or NULL. With the lock of names. */
static struct dict_shared *dict_find_name(const char *name, size_t length)
{
    struct dict_shared *s = dict_names;
    while (s && (strlen(s->name) != length || memcmp(s->name, name, length) != 0))
        s = s->next;
    return s;
}

static struct dict_shared *dict_shared_new(const char *name, size_t length, size_t max_bytes, bool evict)
{
    struct dict_shared *s = worker_alloc(sizeof *s + length + 1);
    if (!s)
        return NULL;
    asio_shared_init(&s->shared, &asio_dict_kind);
    s->next = NULL;
    memcpy(s->name, name, length);
    s->name[length] = '\0';
    s->dict = asio_dict_new(max_bytes, evict);
    if (s->dict)
        return s;
    worker_free(s);
    return NULL;
}

/* One that is never freed: the list keeps the first reference. */
static struct dict_shared *dict_named(const char *name, size_t length, size_t max_bytes, bool evict)
{
    worker_lock(&dict_names_lock);
    struct dict_shared *s = dict_find_name(name, length);
    if (!s && (s = dict_shared_new(name, length, max_bytes, evict)) != NULL) {
        s->next = dict_names;
        dict_names = s;
    }
    worker_unlock(&dict_names_lock);
    return s;
}

/* c.new_dict(name or nil, max_bytes, evict) -> dict | nil, message, code */
static int l_dict_new(lua_State *L)
{
    double max = lua_tonumber(L, 2);
    size_t length = 0, max_bytes = max < (double)SIZE_MAX ? (size_t)max : SIZE_MAX;
    const char *name = lua_tolstring(L, 1, &length);
    bool evict = lua_toboolean(L, 3);
    struct dict_shared *s;
    asio_worker_check_open(L, "dict");
    if (!name) {
        asio_shared_push_empty(L, &asio_dict_kind);
        if ((s = dict_shared_new("", 0, max_bytes, evict)) == NULL)
            return asio_worker_core->error->push(L, UV_ENOMEM);
        asio_shared_fill(L, worker_peer(L), &s->shared);
        return 1;
    }
    if ((s = dict_named(name, length, max_bytes, evict)) == NULL)
        return asio_worker_core->error->push(L, UV_ENOMEM);
    if (s->dict->max_bytes != max_bytes || s->dict->evict != evict)
        return asio_worker_core->error->push_text(
            L, UV_EEXIST, "dict '%s' was made with other options", s->name);
    asio_shared_push(L, worker_peer(L), &s->shared);
    return 1;
}

/* The kind ------------------------------------------------------------------------------------- */

static void dict_destroy_shared(struct shared *shared)
{
    struct dict_shared *s = (struct dict_shared *)shared;
    asio_dict_free(s->dict);
    worker_free(s);
}

static int dict_attach(struct shared *s, struct peer *peer, void **local)
{
    (void)s, (void)peer;
    *local = worker_alloc(sizeof(struct dict_local));
    return *local ? 0 : UV_ENOMEM;
}

static void dict_detach(struct shared *s, void *local)
{
    (void)s;
    worker_free(local);
}

static void dict_open(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg methods[] = { { "get", l_dict_get }, { "set", l_dict_set }, { "add", l_dict_add },
        { "replace", l_dict_replace }, { "incr", l_dict_incr }, { "delete", l_dict_delete },
        { "expire", l_dict_expire }, { "ttl", l_dict_ttl }, { "count", l_dict_count },
        { "bytes", l_dict_bytes }, { "clear", l_dict_clear }, { "keys", l_dict_keys },
        { "lpush", l_dict_lpush }, { "rpush", l_dict_rpush }, { "lpop", l_dict_lpop },
        { "rpop", l_dict_rpop }, { "llen", l_dict_llen }, { NULL, NULL } };
    lua_getfield(L, -1, "__index");
    asio_worker_bind(L, rt, peer, methods);
    lua_pop(L, 1);
    asio_dict_stack_open(L);
}

const struct shared_kind asio_dict_kind = {
    .name = "shared dict",
    .article = "a",
    .destroy = dict_destroy_shared,
    .attach = dict_attach,
    .detach = dict_detach,
    .open = dict_open,
    .class = "shared_dict",
};

int asio_dict_load(void)
{
    return asio_worker_core->threads->mutex_init(&dict_names_lock);
}

void asio_dict_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "new_dict", l_dict_new }, { "dict_read", l_dict_read },
        { "dict_write", l_dict_write }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, functions);
}
