/* SPDX-License-Identifier: MIT
 *
 * A Lua state with the core in it, on an allocator that counts. */
#include "host.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

static int l_interrupt(lua_State *L)
{
    (void)L;
    raise(SIGINT);
    return 0;
}

/* What other modules do: the registry grows, and its table is laid out anew. */
static int l_grow_registry(lua_State *L)
{
    for (int i = 0; i < 100; i++) {
        lua_pushboolean(L, 1);
        luaL_ref(L, LUA_REGISTRYINDEX);
    }
    return 0;
}

/* ---- peers of plain sockets --------------------------------------------------------------- */

static int l_connect(lua_State *L)
{
    lua_pushinteger(L, system_connect((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int l_close(lua_State *L)
{
    close((int)luaL_checkinteger(L, 1));
    return 0;
}

static int l_reset(lua_State *L)
{
    struct linger at_once = { 1, 0 };
    int fd = (int)luaL_checkinteger(L, 1);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
    return 0;
}

/* half_close(fd[, both]) */
static int l_half_close(lua_State *L)
{
    shutdown((int)luaL_checkinteger(L, 1), lua_toboolean(L, 2) ? SHUT_RDWR : SHUT_WR);
    return 0;
}

static void call_kept(void *arg)
{
    lua_State *L = arg;
    lua_getfield(L, LUA_REGISTRYINDEX, "host.at_next_send");
    lua_call(L, 0, 0);
}

/* at_next_send(fn or nil): the next send takes nothing and calls fn instead. */
static int l_at_next_send(lua_State *L)
{
    lua_settop(L, 1);
    bool none = lua_isnil(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "host.at_next_send");
    lua_getfield(L, LUA_REGISTRYINDEX, "host.thread");
    if (lua_isnil(L, -1)) {
        lua_newthread(L); /* to call it on, whoever sends */
        lua_setfield(L, LUA_REGISTRYINDEX, "host.thread");
        lua_getfield(L, LUA_REGISTRYINDEX, "host.thread");
    }
    system_at_next_send(none ? NULL : call_kept, lua_tothread(L, -1));
    return 0;
}

/* named_pipes(true or false) */
static int l_named_pipes(lua_State *L)
{
    system_named_pipes(lua_toboolean(L, 1));
    return 0;
}

static const luaL_Reg host_functions[] = { { "arm", l_arm }, { "interrupt", l_interrupt },
    { "grow_registry", l_grow_registry }, { "connect", l_connect }, { "close", l_close },
    { "reset", l_reset }, { "half_close", l_half_close }, { "at_next_send", l_at_next_send },
    { "named_pipes", l_named_pipes }, { "scramble", layers_scramble }, { "plugin", plugins_open },
    { NULL, NULL } };

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

int state_names(const char *file, char names[][64], int max)
{
    int count = 0;
    lua_State *L = state_open(file);
    if (!state_call(L, "names", 0, 1))
        lua_newtable(L);
    for (; count < max && count < (int)lua_objlen(L, -1); count++) {
        lua_rawgeti(L, -1, count + 1);
        snprintf(names[count], sizeof names[count], "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_close(L);
    return count;
}

const char *state_error(void)
{
    return error_text;
}

/* Look-ups that the system holds up must not hold up the end. */
bool state_close(lua_State *L, int fds_before)
{
    bool unwound = system_uv_runs() > 0;
    lua_close(L);
    memory_disarm();
    system_hold_lookups(false);
    bool settled = memory_settled();
    int fds = system_fds();
    if (unwound)
        printf("  an error went through a frame of libuv\n");
    if (fds != fds_before)
        printf("  descriptors: %d before, %d after\n", fds_before, fds);
    return settled && !unwound && fds == fds_before;
}
