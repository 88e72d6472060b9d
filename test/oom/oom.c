/* SPDX-License-Identifier: MIT
 *
 * Lua states that run short of memory at every point of a script in turn: test/oom SCRIPT [MODULE]. There is memory for
 * loading the module. The error passes through the frames of the module, by the means that the system has for that; then
 * the state is closed. Exits with 0 when the script has come to its end in the last state, which had all the memory it
 * wanted. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

int luaopen_asio(lua_State *L);
int luaopen_asio_worker(lua_State *L);

struct budget {
    long calls; /* for memory, since the script began */
    long short_at;
    bool begun;
};

struct task {
    struct budget *budget;
    const char *script, *module;
};

enum { SHORT_FOR = 3 }; /* calls: what frees memory and tries again must not always succeed */

static void *allocate(void *ud, void *p, size_t old, size_t size)
{
    struct budget *b = ud;
    if (size == 0) {
        free(p);
        return NULL;
    }
    if (size > old && b->begun) {
        b->calls++;
        if (b->calls >= b->short_at && b->calls < b->short_at + SHORT_FOR)
            return NULL;
    }
    return realloc(p, size);
}

static int panic(lua_State *L)
{
    fprintf(stderr, "an error that nothing caught: %s\n", lua_tostring(L, -1));
    exit(3);
}

static void require_module(lua_State *L, const char *name)
{
    lua_getglobal(L, "require");
    lua_pushstring(L, name);
    lua_call(L, 1, 0);
}

static int run(lua_State *L)
{
    struct task *task = lua_touserdata(L, 1);
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_asio);
    lua_setfield(L, -2, "asio");
    lua_pushcfunction(L, luaopen_asio_worker);
    lua_setfield(L, -2, "asio.worker");
    /* LuaJIT's own start would not survive it, nor lua_close a start of the FFI that was cut short. */
    require_module(L, "ffi");
    if (task->module)
        require_module(L, task->module);
    task->budget->begun = true;
    if (luaL_loadfile(L, task->script) != 0)
        lua_error(L);
    lua_call(L, 0, 0);
    return 0;
}

/* True when the script came to its end; *calls: for memory. */
static bool attempt(const char *script, const char *module, long short_at, long *calls)
{
    struct budget b = { .short_at = short_at };
    struct task task = { &b, script, module };
    lua_State *L = lua_newstate(allocate, &b);
    lua_atpanic(L, panic);
    int status = lua_cpcall(L, run, &task);
    if (status != 0 && b.calls < short_at)
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    b.begun = false;
    lua_close(L);
    *calls = b.calls;
    return status == 0;
}

int main(int argc, char **argv)
{
    long calls, ended = 0, failed = 0;
    if (argc != 2 && argc != 3)
        return 2;
    for (long at = 1;; at += 1 + at / 1000) {
        bool ok = attempt(argv[1], argv[2], at, &calls);
        ended += ok;
        failed += !ok;
        if (calls < at) {
            printf("%ld states ended with an error, %ld in order\n", failed, ended);
            return !ok;
        }
    }
}
