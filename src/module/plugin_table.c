/* SPDX-License-Identifier: MIT
 *
 * The tables of functions for the shared objects beside asio.so; see plugin.h. */
#include "module/plugin_table.h"
#include "module/plugin_plain.h"

#include "base/error.h"
#include "core/async.h"
#include "core/fd_watch.h"
#include "core/park.h"
#include "module/parts.h"
#include "net/move.h"
#include "stream/conn.h"
#include "stream/layer.h"
#include "stream/read.h"
#include "stream/send_file.h"
#include "stream/write.h"
#include "sys/sys.h"

static const struct asio_plugin_mem plugin_mem = {
    .version = ASIO_PLUGIN_MEM_VERSION,
    .allocator = &asio_mem,
};

static const struct asio_plugin_loop plugin_loop = {
    .version = ASIO_PLUGIN_LOOP_VERSION,
    .now = uv_hrtime,
    .timer_init = asio_timer_init,
    .timer_set = asio_plugin_timer_set,
    .timer_remove = asio_plugin_timer_remove,
    .watch_open = asio_fd_watch_open,
    .watch_set = asio_fd_watch_set,
    .watch_close = asio_fd_watch_close,
};

static int plugin_interrupt(lua_State *L, struct asio_rt *rt)
{
    return asio_sched_interrupted(rt) ? asio_push_interrupt(L, rt) : 0;
}

static int plugin_park(
    lua_State *L, struct asio_wait *w, const struct asio_wait_op *op, void *source, double timeout)
{
    w->source = source;
    return asio_park(L, w, op, timeout);
}

static void plugin_push_ok(lua_State *L, const struct asio_rt *rt)
{
    asio_push_ok(L, rt);
}

static const struct asio_plugin_wait plugin_wait = {
    .version = ASIO_PLUGIN_WAIT_VERSION,
    .interrupt = plugin_interrupt,
    .claim = asio_park_claim,
    .park = plugin_park,
    .source = asio_plugin_source,
    .status = asio_plugin_status,
    .wake = asio_sched_wake,
    .ready = asio_sched_ready,
    .push_ok = plugin_push_ok,
    .push_fail = asio_push_fail,
    .list_add = asio_wait_list_add,
    .list_remove = asio_wait_list_remove,
    .item_set = asio_wait_item_set,
    .item_get = asio_wait_item_get,
    .item_clear = asio_wait_item_clear,
    .protect = asio_rt_protect,
};

static const struct asio_plugin_stream plugin_stream = {
    .version = ASIO_PLUGIN_STREAM_VERSION,
    .stream_at = asio_conn_stream_at,
    .layer = &asio_layer,
    .scan = asio_stream_scan,
    .queue = asio_stream_queue,
    .written = asio_stream_write_end,
    .send_file = asio_stream_send_file,
    .count_handshake = asio_plugin_count_handshake,
};

static const struct asio_plugin_names plugin_names = {
    .version = ASIO_PLUGIN_NAMES_VERSION,
    .file_stamp = asio_plugin_file_stamp,
    .hosts_path = asio_sys_hosts_path,
};

static const struct asio_plugin_error plugin_error = {
    .version = ASIO_PLUGIN_ERROR_VERSION,
    .push = asio_error_push,
    .push_text = asio_error_push_text,
    .arg = asio_error_arg,
    .misuse = asio_error_misuse,
    .timeout = asio_check_timeout,
    .integer = asio_check_integer,
};

/* Found in package.preload, so that no file is looked for. */
static struct asio_rt *plugin_open(lua_State *L, lua_CFunction module)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, module);
    lua_setfield(L, -2, "asio");
    lua_getglobal(L, "require");
    lua_pushliteral(L, "asio");
    lua_call(L, 1, 0);
    struct asio_rt *rt = asio_rt_open(L);
    rt->guest = true;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CORE]);
    return rt;
}

static const struct asio_plugin_threads plugin_threads = {
    .version = ASIO_PLUGIN_THREADS_VERSION,
    .open = plugin_open,
    .module = asio_plugin_module,
    .start = asio_sys_thread,
    .mutex_init = uv_mutex_init,
    .mutex_destroy = uv_mutex_destroy,
    .mutex_lock = uv_mutex_lock,
    .mutex_unlock = uv_mutex_unlock,
    .cond_init = uv_cond_init,
    .cond_destroy = uv_cond_destroy,
    .cond_broadcast = uv_cond_broadcast,
    .cond_timedwait = uv_cond_timedwait,
    .parallelism = asio_sys_parallelism,
    .async_open = asio_async_open,
    .async_send = asio_async_send,
    .async_free = asio_async_free,
    .ref = asio_plugin_ref,
    .unref = asio_plugin_unref,
    .waits_only = asio_plugin_waits_only,
    .stop = asio_plugin_stop,
    .set_deadlock = asio_plugin_set_deadlock,
    .watch_waiting = asio_plugin_watch_waiting,
    .obstacle = asio_rt_obstacle,
    .forked = asio_rt_notice_process,
    .conn_at = asio_conn_to,
    .move_obstacle = asio_move_obstacle,
    .move_prepare = asio_move_prepare,
    .move_out = asio_move_out,
    .move_in = asio_move_in,
    .move_free = asio_move_free,
    .count = asio_move_count,
};

const struct asio_plugin asio_plugin = { &plugin_mem, &plugin_loop, &plugin_wait, &plugin_stream,
    &plugin_names, &plugin_error, &plugin_threads };
