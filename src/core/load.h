/* SPDX-License-Identifier: MIT
 * The loading of plugins. Their libraries have a global state, and Lua states may run on several threads. */
#ifndef ASIO_LOAD_H
#define ASIO_LOAD_H

#include "plugin/plugin.h"

/* Keeps the file in which `plugin` lies loaded for good, and calls its `load` (or NULL), one thread at a time. 0, or an
 * error. */
int asio_load(
    const struct asio_plugin *core, const void *plugin, int (*load)(const struct asio_plugin *core));

#endif
