/* SPDX-License-Identifier: MIT
 *
 * Names of what every Lua state has from its own modules: string.format, io.stdout, asio.connect. Such a thing goes to
 * another state as a name, which is looked up there; the module is loaded there if need be.
 *
 * The names are a table with weak keys, thing -> "module\0field\0field", made when the first message needs it, and anew
 * when modules have come or a thing is not found. */
#include "plugins/worker/pack.h"

/* Lua's own libraries. Their things are named for them first: another module may have the same function as a field.
 * Functions in Lua that a script has added are not theirs: they go by value. */
static const char *const names_libraries[] = { "string", "table", "math", "io", "os", "coroutine", "debug",
    "package", "bit", "jit", "ffi", NULL };

enum names_of { NAMES_OF_GLOBALS, NAMES_OF_LIBRARY, NAMES_OF_MODULE };

struct names {
    lua_State *L;
    int names, loaded; /* stack indexes */
    int level;         /* how many fields behind the module are given names now */
};

/* The value at the top gets the name at an index, if it has none. */
static void names_set(struct names *n, int name)
{
    lua_pushvalue(n->L, -1);
    lua_rawget(n->L, n->names);
    bool known = !lua_isnil(n->L, -1);
    lua_pop(n->L, 1);
    if (known)
        return;
    lua_pushvalue(n->L, -1);
    lua_pushvalue(n->L, name);
    lua_rawset(n->L, n->names);
}

/* Whether the table at the top is more than data: a name space or a class. Data goes by value, as the sender sees it. */
static bool names_is_space(struct names *n)
{
    lua_State *L = n->L;
    if (lua_rawequal(L, -1, n->loaded))
        return true;
    if (lua_getmetatable(L, -1)) {
        lua_pop(L, 1);
        return true;
    }
    bool found = false;
    lua_pushnil(L);
    while (!found && lua_next(L, -2)) {
        found = lua_isfunction(L, -1);
        lua_pop(L, found ? 2 : 1);
    }
    return found;
}

/* The function at the top, field `name` of a library: in C, or one of those that LuaJIT has in bytecode. Their source is
 * their name, or "=[builtin:name]"; that of scripts never. */
static bool names_is_built_in(lua_State *L, const char *name)
{
    lua_Debug ar;
    if (lua_iscfunction(L, -1))
        return true;
    lua_pushvalue(L, -1);
    return lua_getinfo(L, ">S", &ar) && (strcmp(ar.source, name) == 0 || !strncmp(ar.source, "=[builtin", 9));
}

/* The value at the top, whose key is the string below it. */
static bool names_is_nameable(struct names *n, enum names_of of)
{
    switch (lua_type(n->L, -1)) {
    case LUA_TFUNCTION:
        return of == NAMES_OF_MODULE || names_is_built_in(n->L, lua_tostring(n->L, -2));
    case LUA_TUSERDATA:
        return of != NAMES_OF_GLOBALS;
    case LUA_TTABLE:
        return of != NAMES_OF_GLOBALS && names_is_space(n);
    default:
        return false;
    }
}

/* Names the fields of the table at the top, whose own name is the string at an index; or those of its fields, and so
 * on. */
static void names_add_fields(struct names *n, int name, int level, enum names_of of)
{
    lua_State *L = n->L;
    int table = lua_gettop(L);
    luaL_checkstack(L, 8, "names");
    lua_pushnil(L);
    while (lua_next(L, table)) {
        if (lua_type(L, -2) == LUA_TSTRING && names_is_nameable(n, of)) {
            lua_pushvalue(L, name);
            lua_pushlstring(L, "", 1);
            lua_pushvalue(L, -4);
            lua_concat(L, 3);
            lua_insert(L, -2); /* key, name, value */
            if (level == 1)
                names_set(n, table + 2);
            else if (lua_istable(L, -1))
                names_add_fields(n, table + 2, level - 1, of);
            lua_remove(L, -2);
        }
        lua_pop(L, 1);
    }
}

static enum names_of names_kind(const char *name)
{
    for (const char *const *library = names_libraries; *library; library++)
        if (strcmp(name, *library) == 0)
            return NAMES_OF_LIBRARY;
    return strcmp(name, "_G") == 0 ? NAMES_OF_GLOBALS : NAMES_OF_MODULE;
}

/* The value at the top is what package.loaded has for the name below it. */
static void names_add_module(struct names *n)
{
    lua_State *L = n->L;
    int name = lua_gettop(L) - 1;
    if (lua_type(L, name) != LUA_TSTRING)
        return;
    enum names_of of = names_kind(lua_tostring(L, name));
    if (n->level == 0)
        names_set(n, name);
    else if (lua_istable(L, -1) && (of != NAMES_OF_GLOBALS || n->level == 1))
        names_add_fields(n, name, n->level, of);
}

static void names_add_level(struct names *n)
{
    for (const char *const *library = names_libraries; *library; library++) {
        lua_pushstring(n->L, *library);
        lua_pushvalue(n->L, -1);
        lua_rawget(n->L, n->loaded);
        if (!lua_isnil(n->L, -1))
            names_add_module(n);
        lua_pop(n->L, 2);
    }
    lua_pushnil(n->L);
    while (lua_next(n->L, n->loaded)) {
        names_add_module(n);
        lua_pop(n->L, 1);
    }
}

/* Pushes package.loaded, or a table in its place. */
static void names_push_loaded(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        lua_newtable(L);
    }
}

static size_t names_count_modules(lua_State *L)
{
    size_t count = 0;
    names_push_loaded(L);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        count++;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return count;
}

void asio_pack_collect_names(struct pack *p)
{
    lua_State *L = p->L;
    luaL_checkstack(L, 16, "names");
    size_t count = names_count_modules(L);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_replace(L, p->names);
    names_push_loaded(L);
    struct names n = { .L = L, .names = p->names, .loaded = lua_gettop(L) };
    for (n.level = 0; n.level <= 2; n.level++)
        names_add_level(&n);
    lua_pop(L, 1);
    lua_getfenv(L, p->self);
    lua_pushvalue(L, p->names);
    lua_rawseti(L, -2, PACK_NAMES);
    lua_pop(L, 1);
    p->s->modules = count;
    p->collected = true;
    p->counted = true;
}

static void names_fetch(struct pack *p)
{
    lua_getfenv(p->L, p->self);
    lua_rawgeti(p->L, -1, PACK_NAMES);
    lua_replace(p->L, p->names);
    lua_pop(p->L, 1);
    if (lua_isnil(p->L, p->names))
        asio_pack_collect_names(p);
}

/* True: modules have come that the names did not know; they do now. */
static bool names_have_grown(struct pack *p)
{
    if (p->counted)
        return false;
    p->counted = true;
    if (p->collected || names_count_modules(p->L) == p->s->modules)
        return false;
    asio_pack_collect_names(p);
    p->again = true; /* what has been packed already may have a name now */
    return true;
}

bool asio_pack_named(struct pack *p, int index)
{
    lua_State *L = p->L;
    if (lua_isnil(L, p->names))
        names_fetch(p);
    lua_pushvalue(L, index);
    lua_rawget(L, p->names);
    size_t length;
    const char *name = lua_tolstring(L, -1, &length);
    if (name) {
        unsigned char *at = pack_room(p, 1 + sizeof(uint32_t) + length);
        *at = PACK_NAMED;
        memcpy(at + 1, &(uint32_t){ (uint32_t)length }, sizeof(uint32_t));
        memcpy(at + 1 + sizeof(uint32_t), name, length);
    }
    lua_pop(L, 1);
    return name != NULL;
}

bool asio_pack_named_anew(struct pack *p, int index)
{
    return asio_pack_named(p, index) || (names_have_grown(p) && asio_pack_named(p, index));
}

/* Pushes what package.loaded has for a name, or what `require` returns. */
static void names_require(struct unpack *u, const char *name, size_t length)
{
    lua_State *L = u->L;
    names_push_loaded(L);
    lua_pushlstring(L, name, length);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    asio_unpack_push_slot(u, PACK_REQUIRE);
    lua_pushlstring(L, name, length);
    lua_call(L, 1, 1);
}

static void names_fail(lua_State *L, const char *name, size_t length)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (size_t i = 0; i < length; i++)
        luaL_addchar(&b, name[i] ? name[i] : '.');
    luaL_pushresult(&b);
    luaL_error(L, "this Lua state has no %s, which was sent to it by name", lua_tostring(L, -1));
}

void asio_unpack_named(struct unpack *u)
{
    lua_State *L = u->L;
    size_t length = unpack_uint32(u);
    const char *name = (const char *)u->at, *end = name + length;
    const char *at = memchr(name, 0, length); /* the zero byte before the next field */
    u->at += length;
    luaL_checkstack(L, 8, "names");
    names_require(u, name, (size_t)((at ? at : end) - name));
    while (at && !lua_isnil(L, -1)) {
        const char *field = at + 1;
        at = memchr(field, 0, (size_t)(end - field));
        lua_pushlstring(L, field, (size_t)((at ? at : end) - field));
        lua_gettable(L, -2);
        lua_remove(L, -2);
    }
    if (lua_isnil(L, -1))
        names_fail(L, name, length);
}
