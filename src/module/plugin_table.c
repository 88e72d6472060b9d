/* SPDX-License-Identifier: MIT
 *
 * The tables of functions for the shared objects beside asio.so; see plugin.h. */
#include "module/plugin_table.h"

#include "core/fd_watch.h"
#include "core/runtime.h"
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

static const struct asio_plugin_names plugin_names = {
    .version = ASIO_PLUGIN_NAMES_VERSION,
    .file_stamp = file_stamp,
    .hosts_path = asio_sys_hosts_path,
};

const struct asio_plugin asio_plugin = { &plugin_mem, &plugin_loop, &plugin_names };
