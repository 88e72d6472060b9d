/* SPDX-License-Identifier: MIT
 *
 * asio/worker.so as a plugin: its functions for the Lua files beside it, which are embedded here and make of them what
 * scripts see. */
#include "base/error.h"
#include "plugins/worker/worker.h"

#include <string.h>

/* The Lua files beside this one, written into C files when it is built. worker.lua is first; what few states need is
 * loaded by it when it is asked for. */
extern const char asio_worker_worker_lua[], asio_worker_channel_lua[], asio_worker_dict_lua[],
    asio_worker_inspect_lua[], asio_worker_offload_lua[], asio_worker_server_lua[],
    asio_worker_server_thread_lua[];
static const struct {
    const char *name; /* NULL: it is loaded at once */
    const char *text;
} worker_texts[] = { { NULL, asio_worker_worker_lua }, { NULL, asio_worker_channel_lua },
    { NULL, asio_worker_dict_lua }, { NULL, asio_worker_inspect_lua }, { "offload", asio_worker_offload_lua },
    { "server", asio_worker_server_lua }, { "server_thread", asio_worker_server_thread_lua } };
enum { WORKER_TEXTS = sizeof worker_texts / sizeof *worker_texts };

const struct asio_plugin *asio_worker_core;

static int worker_module_load(const struct asio_plugin *core)
{
    if (!ASIO_PLUGIN_HAS(core, mem, MEM) || !ASIO_PLUGIN_HAS(core, loop, LOOP) ||
        !ASIO_PLUGIN_HAS(core, wait, WAIT) || !ASIO_PLUGIN_HAS(core, error, ERROR) ||
        !ASIO_PLUGIN_HAS(core, threads, THREADS))
        return UV_ENOTSUP;
    if (asio_worker_core) /* by another Lua state */
        return 0;
    asio_worker_core = core;
    int status = asio_shared_load();
    if (status == 0)
        status = asio_peer_load();
    if (status == 0)
        status = asio_dict_load();
    if (status < 0)
        asio_worker_core = NULL;
    return status;
}

void asio_worker_bind(lua_State *L, struct asio_rt *rt, struct peer *peer, const luaL_Reg *functions)
{
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushlightuserdata(L, rt);
        lua_pushlightuserdata(L, peer_home(peer));
        lua_pushcclosure(L, f->func, 2);
        lua_setfield(L, -2, f->name);
    }
}

void asio_worker_check_open(lua_State *L, const char *fname)
{
    const char *why = asio_worker_core->threads->obstacle(worker_rt(L));
    if (why)
        asio_worker_core->error->misuse(L, "%s: %s", fname, why);
}

/* worker.misuse(text), worker.bad(arg, fname, text): raise for the line of the script */
static int l_worker_misuse(lua_State *L)
{
    return asio_worker_core->error->misuse(L, "%s", lua_tostring(L, 1));
}

static int l_worker_bad(lua_State *L)
{
    return asio_worker_core->error->arg(
        L, (int)lua_tonumber(L, 1), lua_tostring(L, 2), "%s", lua_tostring(L, 3));
}

/* worker.parallelism() -> processors */
static int l_worker_parallelism(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)asio_worker_core->threads->parallelism());
    return 1;
}

/* worker.is_closed(): this state's runtime has closed, or this process is a fork that must not use it. */
static int l_worker_is_closed(lua_State *L)
{
    lua_pushboolean(L, asio_worker_core->threads->obstacle(worker_rt(L)) != NULL);
    return 1;
}

/* Runs text(core, worker), which are at these stack indexes. */
static void worker_run_text(lua_State *L, const char *text, int core, int worker)
{
    if (luaL_loadbuffer(L, text, strlen(text), ASIO_CHUNK_NAME) != 0)
        lua_error(L);
    lua_pushvalue(L, core);
    lua_pushvalue(L, worker);
    lua_call(L, 2, 0);
}

/* worker.load(name, core, worker) */
static int l_worker_load(lua_State *L)
{
    const char *name = lua_tostring(L, 1);
    for (int i = 0; i < WORKER_TEXTS; i++)
        if (worker_texts[i].name && strcmp(worker_texts[i].name, name) == 0)
            worker_run_text(L, worker_texts[i].text, 2, 3);
    return 0;
}

static void worker_module_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg functions[] = { { "misuse", l_worker_misuse }, { "bad", l_worker_bad },
        { "parallelism", l_worker_parallelism }, { "load", l_worker_load },
        { "is_closed", l_worker_is_closed }, { NULL, NULL } };
    struct peer *peer = asio_peer_open(L, rt);
    asio_message_open(L, rt);
    asio_shared_open(L, rt, peer);
    lua_createtable(L, 0, 16);
    asio_worker_bind(L, rt, peer, functions);
    asio_peer_bind(L, rt, peer);
    asio_state_bind(L, rt, peer);
    asio_shared_channel_bind(L, rt, peer);
    asio_inspect_bind(L, rt, peer);
    asio_server_bind(L, rt, peer);
    asio_dict_bind(L, rt, peer);
    asio_offload_bind(L, rt, peer);
    for (int i = 0; i < WORKER_TEXTS; i++)
        if (!worker_texts[i].name)
            worker_run_text(L, worker_texts[i].text, 1, lua_gettop(L));
}

static const struct asio_plugin_module worker_module = {
    .version = ASIO_PLUGIN_MODULE_VERSION,
    .load = worker_module_load,
    .open = worker_module_open,
};

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    int luaopen_asio_worker(lua_State *L);

int luaopen_asio_worker(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&worker_module);
    return 1;
}
