/* SPDX-License-Identifier: MIT
 * The head of a request or a response as Lua has it; see http.h. */
#include "plugins/http/http.h"

#include <string.h>

/* Of the head's own bytes. A head that is read has fewer than 64 KB: see asio_http_l_input. */
struct head_span {
    uint16_t at, length;
};

struct head_field {
    struct head_span name, value;
};

/* The head of a request or a response, as it came: a userdata. Fields are looked up when they are asked for. */
struct http_head {
    const void *magic;
    uint16_t count;
    struct head_field fields[];
    /* and the bytes of all from the first name to the last value behind them */
};

static const char head_magic = 0; /* its address: also the registry's key of the metatable */

static const char *head_bytes(const struct http_head *h)
{
    return (const char *)(h->fields + h->count);
}

static struct head_span head_span(struct http_span span, uint32_t first)
{
    return (struct head_span){ (uint16_t)(span.length > 0 ? span.at - first : 0), (uint16_t)span.length };
}

/* How many bytes from `first` on the values and names take. */
static uint32_t head_size(const struct http_field *fields, uint32_t count, uint32_t first)
{
    if (count == 0)
        return 0;
    const struct http_field *last = &fields[count - 1];
    const struct http_span *end = last->value.length > 0 ? &last->value : &last->name;
    return end->at + end->length - first;
}

void asio_http_head_push(lua_State *L, const struct http_field *fields, uint32_t count, const char *bytes)
{
    uint32_t first = count > 0 ? fields[0].name.at : 0, size = head_size(fields, count, first);
    struct http_head *h = lua_newuserdata(L, sizeof *h + count * sizeof *h->fields + size);
    h->magic = &head_magic;
    h->count = (uint16_t)count;
    for (uint32_t i = 0; i < count; i++)
        h->fields[i] =
            (struct head_field){ head_span(fields[i].name, first), head_span(fields[i].value, first) };
    memcpy((char *)(h->fields + count), bytes + first, size);
    lua_pushlightuserdata(L, (void *)&head_magic);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
}

static const struct http_head *head_check(lua_State *L)
{
    const struct http_head *h = lua_touserdata(L, 1);
    if (!h || lua_objlen(L, 1) < sizeof *h || h->magic != &head_magic)
        asio_http_core->error->misuse(L, "calling a method of headers on something else");
    return h;
}

/* In any case. Most characters are the same ones. */
static bool head_same(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char lower = (char)(a[i] | 32);
        if (a[i] != b[i] && (lower != (b[i] | 32) || lower < 'a' || lower > 'z'))
            return false;
    }
    return true;
}

/* The next field of this name from field `i` on; count: there is none. */
static uint32_t head_find(const struct http_head *h, uint32_t i, const char *name, size_t n)
{
    const char *bytes = head_bytes(h);
    for (; i < h->count; i++) {
        const struct head_span *span = &h->fields[i].name;
        if (span->length == n && head_same(bytes + span->at, name, n))
            break;
    }
    return i;
}

static void head_push_span(lua_State *L, const struct http_head *h, struct head_span span)
{
    lua_pushlstring(L, head_bytes(h) + span.at, span.length);
}

/* headers:get(name) -> the value of the first field of this name, or nil */
static int l_head_get(lua_State *L)
{
    const struct http_head *h = head_check(L);
    size_t n;
    const char *name = luaL_checklstring(L, 2, &n);
    uint32_t i = head_find(h, 0, name, n);
    if (i == h->count)
        return 0;
    head_push_span(L, h, h->fields[i].value);
    return 1;
}

/* headers:get for compiled code (quick.lua), which calls it through the FFI: 65536 times where the value begins in the
 * head, and its length; -1: there is none; -2: not a head. One number: a finalizer that asks another head may run before
 * Lua has made the string. */
static double head_quick_get(const void *head, const char *name, double n)
{
    const struct http_head *h = head;
    if (!h || h->magic != &head_magic)
        return -2;
    uint32_t i = head_find(h, 0, name, (size_t)n);
    if (i == h->count)
        return -1;
    const char *value = head_bytes(h) + h->fields[i].value.at;
    return (double)(value - (const char *)head) * 65536 + h->fields[i].value.length;
}

/* headers:all(name) -> all values, in order */
static int l_head_all(lua_State *L)
{
    const struct http_head *h = head_check(L);
    size_t n;
    const char *name = luaL_checklstring(L, 2, &n);
    int count = 0;
    lua_newtable(L);
    for (uint32_t i = head_find(h, 0, name, n); i < h->count; i = head_find(h, i + 1, name, n)) {
        head_push_span(L, h, h->fields[i].value);
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

/* headers:field(i) -> name, value of the field number i, as they came; nil: there are no more */
static int l_head_field(lua_State *L)
{
    const struct http_head *h = head_check(L);
    lua_Number i = luaL_checknumber(L, 2);
    if (!(i >= 1 && i <= h->count))
        return 0;
    head_push_span(L, h, h->fields[(uint32_t)i - 1].name);
    head_push_span(L, h, h->fields[(uint32_t)i - 1].value);
    return 2;
}

/* #headers */
static int l_head_count(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)head_check(L)->count);
    return 1;
}

void asio_http_head_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg methods[] = { { "get", l_head_get }, { "all", l_head_all },
        { "field", l_head_field }, { "count", l_head_count }, { NULL, NULL } };
    lua_pushlightuserdata(L, (void *)&head_magic);
    lua_createtable(L, 0, 2);
    lua_newtable(L);
    for (const luaL_Reg *m = methods; m->name; m++) {
        lua_pushlightuserdata(L, rt);
        lua_pushcclosure(L, m->func, 1);
        lua_setfield(L, -2, m->name);
    }
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, -1);
    lua_insert(L, -3);
    lua_rawset(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, (void *)(uintptr_t)head_quick_get);
}
