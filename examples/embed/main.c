/* SPDX-License-Identifier: MIT
 *
 * A program with two Lua states that links LuaAsio: a server on a thread of its own, in asio.run, and a client
 * in the program's own loop, by asio.run_once.
 *
 *     embed server.lua client.lua
 *
 * Makefile builds it with pkg-config, CMakeLists.txt with find_package. docs/embedding.md has the rules. */
#include <lua-asio.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <uv.h> /* for threads on every system */

#include <ctype.h>
#include <stdio.h>

/* A function of the program for the scripts: host.shout(text). */
static int l_shout(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (size_t i = 0; i < n; i++)
        luaL_addchar(&b, (char)toupper((unsigned char)text[i]));
    luaL_pushresult(&b);
    return 1;
}

static int open_host(lua_State *L)
{
    static const luaL_Reg functions[] = { { "shout", l_shout }, { NULL, NULL } };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}

/* Lua's libraries, and what `require` shall find in the program. */
static int open_libraries(lua_State *L)
{
    static const luaL_Reg modules[] = { { "asio", luaopen_asio }, { "host", open_host },
#ifdef WITH_ARES
        { "asio.ares", luaopen_asio_ares },
#endif
#ifdef WITH_HTTP
        { "asio.http", luaopen_asio_http },
#endif
        { NULL, NULL } };
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    luaL_register(L, NULL, modules);
    return 0;
}

/* After an error of lua_pcall. */
static int failed(lua_State *L)
{
    const char *text = lua_tostring(L, -1);
    fprintf(stderr, "embed: %s\n", text ? text : "an error that is no text");
    lua_pop(L, 1);
    return -1;
}

static lua_State *open_state(void)
{
    lua_State *L = luaL_newstate();
    if (L && lua_cpcall(L, open_libraries, NULL) == 0)
        return L;
    if (L) {
        failed(L);
        lua_close(L);
    }
    return NULL;
}

/* Runs a script with the number as its argument; its result, which is 0 if it returns no number; -1: it has failed. */
static long run_script(lua_State *L, const char *path, long argument)
{
    if (luaL_loadfile(L, path) != 0)
        return failed(L);
    lua_pushinteger(L, argument);
    if (lua_pcall(L, 1, 1, 0) != 0)
        return failed(L);
    long result = (long)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return result;
}

/* Calls asio.NAME(seconds), or asio.NAME() if they are negative: whether its first result is true; -1: an error. */
static int call_asio(lua_State *L, const char *name, double seconds)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "asio");
    if (lua_pcall(L, 1, 1, 0) != 0)
        return failed(L);
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
    if (seconds >= 0)
        lua_pushnumber(L, seconds);
    if (lua_pcall(L, seconds >= 0, 1, 0) != 0)
        return failed(L);
    int result = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return result;
}

/* The thread of the server: returns when nothing is left to wait for. */
static void serve(void *L)
{
    call_asio(L, "run", -1);
}

/* The program's own loop: in each round a turn of asio's loop, and what else it has to do. */
static int talk(lua_State *L, const char *script, long port)
{
    int more = run_script(L, script, port) < 0 ? -1 : 1;
    while (more > 0)
        more = call_asio(L, "run_once", 0.02); /* waits at most so long */
    return more;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: embed server.lua client.lua\n", stderr);
        return 2;
    }
    lua_State *server = open_state(), *client = open_state();
    int status = -1;
    if (server && client) {
        /* A state may move to another thread, as long as one thread uses it at a time. */
        long port = run_script(server, argv[1], 0);
        uv_thread_t thread;
        if (port > 0 && uv_thread_create(&thread, serve, server) == 0) {
            status = talk(client, argv[2], port);
            if (status < 0) /* and the server waits for a client */
                return 1;
            uv_thread_join(&thread);
        }
    }
    /* In any order, by any thread that has the state to itself. */
    if (client)
        lua_close(client);
    if (server)
        lua_close(server);
    puts(status == 0 ? "done" : "failed");
    return status == 0 ? 0 : 1;
}
