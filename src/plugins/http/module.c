/* SPDX-License-Identifier: MIT
 *
 * asio/http.so as a plugin: its functions for http.lua, which is embedded here and makes of them what scripts see. */
#include "base/error.h"
#include "plugins/http/system.h"

#include <string.h>

/* The Lua files beside this one, written into C files when it is built. */
/* The formatter makes another thing of these lines each time. */
/* clang-format off */
#define HTTP_TEXTS(X) \
    X(http) X(quick) X(fields) X(options) X(escape) X(date) X(url) X(trust) X(request) X(response) X(sse) X(server) \
    X(threads) X(router) X(multipart) X(form) X(cookies) X(proxy) X(body) X(suffix) X(jar) X(pool) X(upload) X(exchange) X(reply) \
    X(client) X(range) X(file) X(types) X(gzip) X(log)
/* clang-format on */
#define HTTP_DECLARE(name) extern const char asio_http_##name##_lua[];
#define HTTP_NAME(name) asio_http_##name##_lua,
HTTP_TEXTS(HTTP_DECLARE)
static const char *const http_texts[] = { HTTP_TEXTS(HTTP_NAME) };

const struct asio_plugin *asio_http_core;

static int http_module_load(const struct asio_plugin *core)
{
    if (!ASIO_PLUGIN_HAS(core, mem, MEM) || !ASIO_PLUGIN_HAS(core, loop, LOOP) ||
        !ASIO_PLUGIN_HAS(core, wait, WAIT) || !ASIO_PLUGIN_HAS(core, stream, STREAM) ||
        !ASIO_PLUGIN_HAS(core, error, ERROR))
        return UV_ENOTSUP;
    asio_http_core = core;
    return 0;
}

/* bad(arg, fname, text): raises an error about an argument of the public function fname, with the caller's line. */
static int l_http_bad(lua_State *L)
{
    return asio_http_core->error->arg(
        L, (int)lua_tointeger(L, 1), lua_tostring(L, 2), "%s", lua_tostring(L, 3));
}

/* misuse(text): the same for any other text */
static int l_http_misuse(lua_State *L)
{
    return asio_http_core->error->misuse(L, "%s", lua_tostring(L, 1));
}

/* failure(errno) -> nil, message, code */
static int l_http_failure(lua_State *L)
{
    return asio_http_core->error->push(L, asio_http_system_failure((int)lua_tointeger(L, 1)));
}

static void http_module_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg functions[] = { { "input", asio_http_l_input },
        { "read_head", asio_http_l_read_head }, { "read_body", asio_http_l_read_body },
        { "refusal", asio_http_l_refusal }, { "state", asio_http_l_state }, { "chunk", asio_http_l_chunk },
        { "last_chunk", asio_http_l_last_chunk }, { "request_head", asio_http_l_request_head },
        { "disk_open", asio_http_l_disk_open }, { "disk_stat", asio_http_l_disk_stat },
        { "disk_read", asio_http_l_disk_read }, { "disk_send", asio_http_l_disk_send },
        { "disk_close", asio_http_l_disk_close }, { "deflate", asio_http_l_deflate },
        { "deflate_add", asio_http_l_deflate_add }, { "bad", l_http_bad }, { "misuse", l_http_misuse },
        { "failure", l_http_failure }, { "inflater", asio_http_l_inflater },
        { "inflate", asio_http_l_inflate }, { "inflated", asio_http_l_inflated },
        { "random", asio_http_l_random }, { "moved", asio_http_l_moved },
        { "working_directory", asio_http_l_working_directory }, { NULL, NULL } };
    asio_http_disk_open(L);
    asio_http_deflate_open(L);
    asio_http_input_open(L, rt);
    asio_http_inflate_open(L, rt);
    lua_newtable(L); /* what `require 'asio.http'` returns */
    lua_createtable(L, 0, 16);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushlightuserdata(L, rt);
        lua_pushcclosure(L, f->func, 1);
        lua_setfield(L, -2, f->name);
    }
    asio_http_output_open(L, rt);
    asio_http_head_open(L, rt);
    lua_setfield(L, -3, "head_quick_get");
    lua_setfield(L, -2, "head_meta");
    for (size_t i = 0; i < sizeof http_texts / sizeof *http_texts; i++) {
        if (luaL_loadbuffer(L, http_texts[i], strlen(http_texts[i]), ASIO_CHUNK_NAME) != 0)
            lua_error(L);
        lua_pushvalue(L, 1);
        lua_pushvalue(L, -3);
        lua_pushvalue(L, -5);
        lua_call(L, 3, 0);
    }
    lua_pop(L, 1);
}

static const struct asio_plugin_module http_module = {
    .version = ASIO_PLUGIN_MODULE_VERSION,
    .load = http_module_load,
    .open = http_module_open,
};

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    int luaopen_asio_http(lua_State *L);

/* asio.so asks without an argument; `require 'asio.http'` of a script gives the name, and gets what asio.so then makes. */
int luaopen_asio_http(lua_State *L)
{
    if (lua_gettop(L) == 0 || !lua_isstring(L, 1)) {
        lua_pushlightuserdata(L, (void *)&http_module);
        return 1;
    }
    lua_getglobal(L, "require");
    lua_pushliteral(L, "asio");
    lua_call(L, 1, 0);
    lua_getfield(L, LUA_REGISTRYINDEX, "asio.core");
    lua_getfield(L, -1, "plugin");
    lua_pushliteral(L, "http");
    lua_pushliteral(L, "llhttp");
    lua_call(L, 2, 2);
    if (lua_isnil(L, -2))
        return lua_error(L);
    lua_pop(L, 1);
    return 1;
}
