/* SPDX-License-Identifier: MIT
 *
 * The plugins, for lua/asio/plugin.lua, which finds their files: where to look, why one could not be loaded, and the
 * opening of those that have functions for Lua. */
#include "base/error.h"
#include "core/bind.h"
#include "core/load.h"
#include "core/part.h"

#include <errno.h>
#include <string.h>

/* This module can be opened, unless descriptors or memory are used up. */
static int plugins_probe(const struct asio_plugin *core)
{
    char path[1024];
    uv_fs_t req;
    if (asio_sys_module_path(core, path, sizeof path) < 0)
        return 0;
    int fd = uv_fs_open(NULL, &req, path, UV_FS_O_RDONLY, 0, NULL);
    uv_fs_req_cleanup(&req);
    if (fd < 0)
        return fd;
    uv_fs_close(NULL, &req, fd, NULL);
    uv_fs_req_cleanup(&req);
    return 0;
}

/* core.plugin_obstacle(message) -> nil, message, code: the library may be there, and cannot be loaded now; else
 * nothing. The dynamic linker says it in words of the system, with the file's name; Lua's search for modules says
 * only that there is no such file, whatever the reason. */
static int l_plugin_obstacle(lua_State *L)
{
    static const struct {
        int error, status;
    } passing[] = { { EMFILE, UV_EMFILE }, { ENFILE, UV_ENFILE }, { ENOMEM, UV_ENOMEM } };
    const char *message = luaL_checkstring(L, 1);
    int status = plugins_probe(asio_rt_of(L)->plugin);
    for (unsigned i = 0; i < sizeof passing / sizeof *passing; i++)
        if (status == passing[i].status || strstr(message, strerror(passing[i].error)))
            return asio_error_push(L, passing[i].status);
    return 0;
}

/* core.plugin_beside() -> the file name of this module, or nil */
static int l_plugin_beside(lua_State *L)
{
    char path[1024];
    if (asio_sys_module_path(asio_rt_of(L)->plugin, path, sizeof path) < 0)
        return 0;
    lua_pushstring(L, path);
    return 1;
}

/* core.plugin_open(core, plugin) -> its functions; nil: it belongs to another asio.so; nil, message, code */
static int l_plugin_open(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    const struct asio_plugin_module *plugin = lua_touserdata(L, 2);
    bool known = plugin && plugin->version == ASIO_PLUGIN_MODULE_VERSION;
    int status = known ? asio_load(rt->plugin, plugin, plugin->load) : UV_ENOTSUP;
    if (status == UV_ENOTSUP)
        return 0;
    if (status < 0)
        return asio_error_push(L, status);
    plugin->open(L, rt);
    return 1;
}

static void plugins_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "plugin_obstacle", l_plugin_obstacle },
        { "plugin_beside", l_plugin_beside }, { "plugin_open", l_plugin_open }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_plugins = { "plugins", plugins_part_open, NULL };
