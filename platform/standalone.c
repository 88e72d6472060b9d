/* SPDX-License-Identifier: MIT
 *
 * For programs that have everything inside and cannot load libraries: `require 'asio'` finds the module in
 * package.preload, and ffi.C the functions in a table that platform/symbols.sh makes. */
#include <lua.h>
#include <lualib.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua-asio.h"

struct standalone_symbol {
    const char *name;
    void *address;
};
extern const struct standalone_symbol standalone_symbols[];
extern const unsigned standalone_count;

void __real_luaL_openlibs(lua_State *L);
void __wrap_luaL_openlibs(lua_State *L);
void *dlsym(void *restrict library, const char *restrict name);
void __dl_seterr(const char *format, ...);

void __wrap_luaL_openlibs(lua_State *L)
{
    __real_luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_asio);
    lua_setfield(L, -2, "asio");
#ifdef STANDALONE_ARES
    lua_pushcfunction(L, luaopen_asio_ares);
    lua_setfield(L, -2, "asio.ares");
#endif
#ifdef STANDALONE_HTTP
    lua_pushcfunction(L, luaopen_asio_http);
    lua_setfield(L, -2, "asio.http");
#endif
    lua_pushcfunction(L, luaopen_asio_worker);
    lua_setfield(L, -2, "asio.worker");
    lua_pop(L, 2);
}

static int standalone_compare(const void *key, const void *element)
{
    return strcmp(key, ((const struct standalone_symbol *)element)->name);
}

void *dlsym(void *restrict library, const char *restrict name)
{
    const struct standalone_symbol *found =
        bsearch(name, standalone_symbols, standalone_count, sizeof *found, standalone_compare);
    (void)library;
    if (found)
        return found->address;
    __dl_seterr("%s is not in this program", name); /* musl's own */
    return NULL;
}
