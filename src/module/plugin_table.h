/* SPDX-License-Identifier: MIT
 * The table that plugins get, see plugin/plugin.h. */
#ifndef ASIO_PLUGIN_TABLE_H
#define ASIO_PLUGIN_TABLE_H

#include "plugin/plugin.h"

extern const struct asio_plugin asio_plugin;

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    int luaopen_asio(lua_State *L); /* module.c: `require 'asio'` */

/* module.c; see struct asio_plugin_threads. */
struct asio_rt *asio_module_open_guest(lua_State *L);

#endif
