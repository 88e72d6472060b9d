/* SPDX-License-Identifier: MIT
 * Functions of the tables for plugins that call no Lua; see the sub-tables in plugin/. */
#ifndef ASIO_PLUGIN_PLAIN_H
#define ASIO_PLUGIN_PLAIN_H

#include "plugin/plugin.h"

int asio_plugin_timer_set(struct asio_rt *rt, struct asio_timer *t, uint64_t at);
void asio_plugin_timer_remove(struct asio_rt *rt, struct asio_timer *t);
uint64_t asio_plugin_file_stamp(const char *path);
void *asio_plugin_source(const struct asio_wait *w);
int asio_plugin_status(const struct asio_wait *w);
struct asio_wait *asio_plugin_list_next(const struct asio_wait *w);
void asio_plugin_count_handshake(struct asio_rt *rt, bool done);
lua_CFunction asio_plugin_module(const struct asio_rt *rt);
void asio_plugin_ref(struct asio_rt *rt);
void asio_plugin_unref(struct asio_rt *rt);
bool asio_plugin_waits_only(const struct asio_rt *rt, size_t references, size_t *waits);
void asio_plugin_stop(struct asio_rt *rt);
void asio_plugin_set_deadlock(struct asio_rt *rt);
void asio_plugin_watch_waiting(struct asio_rt *rt, void (*fn)(void *arg, bool begins), void *arg);

#endif
