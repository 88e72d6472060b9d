/* SPDX-License-Identifier: MIT
 *
 * A Lua state with the core in it, on an allocator that counts. */
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char error_text[500];

/* Lua's last resort: an error that nothing catches. The message is printed with the crash. */
static int on_panic(lua_State *L)
{
    const char *text = lua_tostring(L, -1);
    host_doing("unprotected error: %s", text ? text : "?");
    return 0;
}

static void die(lua_State *L)
{
    fprintf(stderr, "host: %s\n", lua_tostring(L, -1));
    host_print_stderr(2000);
    exit(1);
}

/* ---- what scripts get --------------------------------------------------------------------- */

static int l_arm(lua_State *L)
{
    (void)L;
    memory_arm();
    return 0;
}

static int l_late(lua_State *L)
{
    lua_pushboolean(L, host_late());
    return 1;
}

static const luaL_Reg host_functions[] = { { "arm", l_arm }, { "late", l_late }, { NULL, NULL } };

lua_State *state_open(const char *file)
{
    char path[500];
    lua_State *L = lua_newstate(memory_lua, NULL);
    if (!L) {
        fputs("host: no Lua state: this LuaJIT takes no allocator of ours\n", stdout);
        exit(1);
    }
    lua_atpanic(L, on_panic);
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_asio);
    lua_setfield(L, -2, "asio");
    lua_pop(L, 2);
    luaL_register(L, "host", host_functions);
    lua_pop(L, 1);
    snprintf(path, sizeof path, "%s%s", HOST_DIR, file);
    if (luaL_loadfile(L, path) != 0 || lua_pcall(L, 0, 1, 0) != 0)
        die(L);
    lua_setglobal(L, "script");
    return L;
}

/* Allocates nothing after a failure: memory may still be out. */
bool state_call(lua_State *L, const char *name, int nargs, int nresults)
{
    lua_getglobal(L, "script");
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
    lua_insert(L, -1 - nargs);
    if (lua_pcall(L, nargs, nresults, 0) == 0)
        return true;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1);
    snprintf(error_text, sizeof error_text, "%s", text);
    lua_pop(L, 1);
    return false;
}

const char *state_error(void)
{
    return error_text;
}

bool state_close(lua_State *L, int fds_before)
{
    bool unwound = system_uv_runs() > 0;
    lua_close(L);
    memory_disarm();
    bool settled = memory_settled();
    int fds = system_fds();
    if (unwound)
        printf("  an error went through a frame of libuv\n");
    if (fds != fds_before)
        printf("  descriptors: %d before, %d after\n", fds_before, fds);
    return settled && !unwound && fds == fds_before;
}
