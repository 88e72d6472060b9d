/* SPDX-License-Identifier: MIT
 *
 * The tables of functions for the shared objects beside asio.so; see plugin.h. */
#include "module/plugin_table.h"

#include "base/error.h"
#include "core/fd_watch.h"
#include "core/park.h"
#include "stream/conn.h"
#include "stream/layer.h"
#include "stream/read.h"
#include "sys/sys.h"

static int timer_set(struct asio_rt *rt, struct asio_timer *t, uint64_t at)
{
    return asio_timer_set(&rt->timers, t, at);
}

static void timer_remove(struct asio_rt *rt, struct asio_timer *t)
{
    asio_timer_remove(&rt->timers, t);
}

static uint64_t file_stamp(const char *path)
{
    uv_fs_t req;
    int status = uv_fs_stat(NULL, &req, path, NULL);
    const uv_stat_t *s = &req.statbuf;
    uint64_t stamp = s->st_ino * 31 + s->st_size;
    stamp = stamp * 1000003 + (uint64_t)s->st_mtim.tv_sec * 1000000000 + (uint64_t)s->st_mtim.tv_nsec;
    stamp = stamp * 1000003 + (uint64_t)s->st_ctim.tv_sec * 1000000000 + (uint64_t)s->st_ctim.tv_nsec;
    uv_fs_req_cleanup(&req);
    return status < 0 ? 0 : stamp | 1;
}

static const struct asio_plugin_mem plugin_mem = {
    .version = ASIO_PLUGIN_MEM_VERSION,
    .allocator = &asio_mem,
};

static const struct asio_plugin_loop plugin_loop = {
    .version = ASIO_PLUGIN_LOOP_VERSION,
    .now = uv_hrtime,
    .timer_init = asio_timer_init,
    .timer_set = timer_set,
    .timer_remove = timer_remove,
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

static void *plugin_source(const struct asio_wait *w)
{
    return w->source;
}

static int plugin_status(const struct asio_wait *w)
{
    return w->status;
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
    .source = plugin_source,
    .status = plugin_status,
    .wake = asio_sched_wake,
    .ready = asio_sched_ready,
    .push_ok = plugin_push_ok,
    .push_fail = asio_push_fail,
    .protect = asio_rt_protect,
};

static void plugin_count_handshake(struct asio_rt *rt, bool done)
{
    rt->stats.handshakes += done;
    rt->stats.handshakes_failed += !done;
}

static const struct asio_plugin_stream plugin_stream = {
    .version = ASIO_PLUGIN_STREAM_VERSION,
    .stream_at = asio_conn_stream_at,
    .layer = &asio_layer,
    .scan = asio_stream_scan,
    .count_handshake = plugin_count_handshake,
};

static const struct asio_plugin_names plugin_names = {
    .version = ASIO_PLUGIN_NAMES_VERSION,
    .file_stamp = file_stamp,
    .hosts_path = asio_sys_hosts_path,
};

static const struct asio_plugin_error plugin_error = {
    .version = ASIO_PLUGIN_ERROR_VERSION,
    .push = asio_error_push,
    .push_text = asio_error_push_text,
    .arg = asio_error_arg,
    .misuse = asio_error_misuse,
};

const struct asio_plugin asio_plugin = { &plugin_mem, &plugin_loop, &plugin_wait, &plugin_stream,
    &plugin_names, &plugin_error };
