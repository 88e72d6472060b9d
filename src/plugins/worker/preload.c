/* SPDX-License-Identifier: MIT
 *
 * What a program has put into package.preload: a new state finds the same modules there, above all those of a program
 * that links asio and can load no files. C functions alone, without upvalues: what else is there belongs to its state. */
#include "plugins/worker/worker.h"

#include <string.h>

struct preload {
    struct preload *next;
    lua_CFunction open;
    char name[];
};

/* Pushes package.preload; false: there is none, and nothing is pushed. */
static bool preload_push_table(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_PRELOAD");
    if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    return true;
}

/* The value at the top. */
static lua_CFunction preload_function(lua_State *L)
{
    lua_CFunction open = lua_tocfunction(L, -1);
    if (open && lua_getupvalue(L, -1, 1)) {
        lua_pop(L, 1);
        return NULL;
    }
    return open;
}

static struct preload *preload_new(const char *name, size_t length, lua_CFunction open)
{
    struct preload *p = worker_alloc(sizeof *p + length + 1);
    if (!p)
        return NULL;
    p->open = open;
    memcpy(p->name, name, length + 1);
    return p;
}

int asio_preload_copy(lua_State *L, struct preload **first)
{
    int status = 0;
    luaL_checkstack(L, 8, "preload");
    if (!preload_push_table(L))
        return 0;
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_CFunction open = lua_type(L, -2) == LUA_TSTRING ? preload_function(L) : NULL;
        size_t length;
        const char *name = open ? lua_tolstring(L, -2, &length) : NULL;
        struct preload *p = name ? preload_new(name, length, open) : NULL;
        if (p) {
            p->next = *first;
            *first = p;
        } else if (name)
            status = UV_ENOMEM;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return status;
}

void asio_preload_apply(lua_State *L, const struct preload *p)
{
    if (!preload_push_table(L))
        return;
    for (; p; p = p->next) {
        lua_pushstring(L, p->name);
        lua_rawget(L, -2);
        bool has = !lua_isnil(L, -1);
        lua_pop(L, 1);
        if (has)
            continue;
        lua_pushstring(L, p->name);
        lua_pushcfunction(L, p->open);
        lua_rawset(L, -3);
    }
    lua_pop(L, 1);
}

void asio_preload_free(struct preload *p)
{
    while (p) {
        struct preload *next = p->next;
        worker_free(p);
        p = next;
    }
}
