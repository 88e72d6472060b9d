/* SPDX-License-Identifier: MIT
 *
 * asio/tls.so as a plugin: its functions for tls.lua, which is embedded here and makes of them what scripts see. */
#include "base/error.h"
#include "plugins/tls/tls.h"

#include <string.h>

extern const char asio_tls_lua[]; /* tls.lua, written into a C file when it is built */

const struct asio_plugin *asio_tls_core;

static int tls_module_load(const struct asio_plugin *core)
{
    if (!ASIO_PLUGIN_HAS(core, mem, MEM) || !ASIO_PLUGIN_HAS(core, loop, LOOP) ||
        !ASIO_PLUGIN_HAS(core, wait, WAIT) || !ASIO_PLUGIN_HAS(core, stream, STREAM) ||
        !ASIO_PLUGIN_HAS(core, names, NAMES) || !ASIO_PLUGIN_HAS(core, error, ERROR))
        return UV_ENOTSUP;
    if (!asio_tls_core) /* else other threads read it now */
        asio_tls_core = core;
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL) !=
        1) /* other threads may use it as the process ends */
        return UV_ENOMEM;
    int status = tls_contexts_load();
    if (status == 0)
        status = tls_resume_load();
    return status < 0 ? status : tls_session_load();
}

/* tls.stamp(path) -> a number that changes when the file does; 0: there is none */
static int l_tls_stamp(lua_State *L)
{
    lua_pushnumber(L, (double)(asio_tls_core->names->file_stamp(luaL_checkstring(L, 1)) >> 11));
    return 1;
}

/* tls.trusted() -> the file of the certificates that the system trusts */
static int l_tls_trusted(lua_State *L)
{
    lua_pushstring(L, tls_trusted_file());
    return 1;
}

/* tls.bad(arg, fname, text): raises */
static int l_tls_bad(lua_State *L)
{
    return asio_tls_core->error->arg(
        L, (int)lua_tonumber(L, 1), lua_tostring(L, 2), "%s", lua_tostring(L, 3));
}

/* tls.misuse(text): raises */
static int l_tls_misuse(lua_State *L)
{
    return asio_tls_core->error->misuse(L, "%s", lua_tostring(L, 1));
}

static void tls_module_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg functions[] = { { "context", tls_l_context }, { "name", tls_l_name },
        { "asks", tls_l_asks }, { "ticket_keys", tls_l_ticket_keys }, { "share_keys", tls_l_share_keys },
        { "start", tls_l_start }, { "handshake", tls_l_handshake }, { "choose", tls_l_choose },
        { "info", tls_l_info }, { "stamp", l_tls_stamp }, { "trusted", l_tls_trusted }, { "bad", l_tls_bad },
        { "misuse", l_tls_misuse }, { NULL, NULL } };
    tls_contexts_open(L);
    if (luaL_loadbuffer(L, asio_tls_lua, strlen(asio_tls_lua), ASIO_CHUNK_NAME) != 0)
        lua_error(L);
    lua_pushvalue(L, 1);
    lua_createtable(L, 0, 16);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushlightuserdata(L, rt);
        lua_pushcclosure(L, f->func, 1);
        lua_setfield(L, -2, f->name);
    }
    lua_call(L, 2, 1);
}

static const struct asio_plugin_module tls_module = {
    .version = ASIO_PLUGIN_MODULE_VERSION,
    .load = tls_module_load,
    .open = tls_module_open,
};

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    int luaopen_asio_tls(lua_State *L);

int luaopen_asio_tls(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&tls_module);
    return 1;
}
