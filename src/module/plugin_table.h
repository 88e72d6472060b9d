/* SPDX-License-Identifier: MIT
 * The table that plugins get, see plugin/plugin.h. */
#ifndef ASIO_PLUGIN_TABLE_H
#define ASIO_PLUGIN_TABLE_H

#include "plugin/plugin.h"

extern const struct asio_plugin asio_plugin;

#endif
