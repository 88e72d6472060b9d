/* SPDX-License-Identifier: MIT
 * require 'asio': tables, nothing else. */
#include "core/bind.h"
#include "module/embedded.h"
#include "module/parts.h"
#include "module/plugin_table.h"
#include "base/error.h"
#include "sys/sys.h"

#include <string.h>

static void set_tokens(lua_State *L, struct asio_rt *rt)
{
    lua_pushnumber(L, rt->token_ok);
    lua_setfield(L, ASIO_BIND_CORE, "OK");
    lua_pushnumber(L, rt->token_fail);
    lua_setfield(L, ASIO_BIND_CORE, "FAIL");
    lua_pushnumber(L, rt->token_interrupt);
    lua_setfield(L, ASIO_BIND_CORE, "INTERRUPT");
}

struct embedded_reader {
    const unsigned char *at;     /* in the part that is being read */
    unsigned short word_at[257]; /* where in words that of byte c starts, and that of c - 1 ends */
    char words[ASIO_EMBEDDED_WORDS];
    char piece[512];
};

static char *put_byte(const struct embedded_reader *r, char *to, unsigned c)
{
    size_t n = (size_t)(r->word_at[c + 1] - r->word_at[c]);
    if (n == 0) {
        *to = (char)c;
        return to + 1;
    }
    memcpy(to, r->words + r->word_at[c], n);
    return to + n;
}

/* Writes the words out, from the lowest byte to the highest: put_byte sees no words for the bytes to come. */
static void read_words(struct embedded_reader *r)
{
    char *to = r->words;
    memset(r->word_at, 0, sizeof r->word_at);
    r->at = asio_embedded;
    for (unsigned c = 0; c < 256; c++, r->at++) {
        r->word_at[c] = (unsigned short)(to - r->words);
        while (*r->at)
            to = put_byte(r, to, *r->at++);
    }
    r->word_at[256] = (unsigned short)(to - r->words);
}

/* A lua_Reader: the next piece of the part, in which words are written out. */
static const char *embedded_read(lua_State *L, void *arg, size_t *n)
{
    struct embedded_reader *r = arg;
    char *to = r->piece;
    while (*r->at && to <= r->piece + sizeof r->piece - ASIO_EMBEDDED_LONGEST)
        to = put_byte(r, to, *r->at++);
    *n = (size_t)(to - r->piece);
    return r->piece;
}

/* Runs each embedded part as chunk(core). wait.lua runs first; the other parts
 * must not depend on one another while loading. */
static void run_embedded(lua_State *L)
{
    struct embedded_reader reader;
    for (read_words(&reader); *reader.at; reader.at++) {
        if (lua_load(L, embedded_read, &reader, ASIO_CHUNK_NAME) != 0)
            lua_error(L);
        lua_pushvalue(L, ASIO_BIND_CORE);
        lua_call(L, 1, 0);
    }
}

#define DECLARE(name) extern const struct asio_part asio_part_##name;
ASIO_PARTS_LIST(DECLARE)

#define ADDRESS(name) &asio_part_##name,
static const struct asio_part *const module_parts[] = { ASIO_PARTS_LIST(ADDRESS) NULL };

/* A require that failed has left parts that are open; their functions are in the table `core`. */
static void push_core(lua_State *L, struct asio_rt *rt)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CORE]);
    if (lua_istable(L, -1))
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CORE]);
}

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    int luaopen_asio(lua_State *L);

static int open_module(lua_State *L)
{
    asio_sys_pin(&asio_plugin); /* lua_close unloads modules before it has called all finalizers */
    struct asio_rt *rt = asio_rt_open(L);
    rt->plugin = &asio_plugin;
    rt->module = luaopen_asio;
    lua_settop(L, 0);
    push_core(L, rt);
    set_tokens(L, rt);
    asio_rt_open_parts(L, rt, module_parts);
    run_embedded(L);
    lua_pushvalue(L, ASIO_BIND_CORE);
    lua_setfield(L, LUA_REGISTRYINDEX, "asio.core"); /* for plugins that scripts require by name */
    lua_getfield(L, ASIO_BIND_CORE, "asio");
    return 1;
}

static const char module_key = 0; /* the module table: a second require must not open a second time */

int luaopen_asio(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&module_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1))
        return 1;
    lua_pushcfunction(L, open_module);
    lua_call(L, 0, 1);
    lua_pushlightuserdata(L, (void *)&module_key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 1;
}
