/* SPDX-License-Identifier: MIT
 *
 * Functions of the tables for plugins that call no Lua: a file of their own, which needs no tables for unwinding (see
 * CMakeLists.txt). */
#include "core/sched.h"
#include "module/plugin_plain.h"

int asio_plugin_timer_set(struct asio_rt *rt, struct asio_timer *t, uint64_t at)
{
    return asio_timer_set(&rt->timers, t, at);
}

void asio_plugin_timer_remove(struct asio_rt *rt, struct asio_timer *t)
{
    asio_timer_remove(&rt->timers, t);
}

uint64_t asio_plugin_file_stamp(const char *path)
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

void *asio_plugin_source(const struct asio_wait *w)
{
    return w->source;
}

int asio_plugin_status(const struct asio_wait *w)
{
    return w->status;
}

struct asio_wait *asio_plugin_list_next(const struct asio_wait *w)
{
    return w->next;
}

void asio_plugin_count_handshake(struct asio_rt *rt, bool done)
{
    rt->stats.handshakes += done;
    rt->stats.handshakes_failed += !done;
}

lua_CFunction asio_plugin_module(const struct asio_rt *rt)
{
    return rt->module;
}

void asio_plugin_ref(struct asio_rt *rt)
{
    asio_rt_ref(rt);
}

void asio_plugin_unref(struct asio_rt *rt)
{
    asio_rt_unref(rt);
}

bool asio_plugin_waits_only(const struct asio_rt *rt, size_t references, size_t *waits)
{
    *waits = rt->shared;
    return rt->alive == rt->shared + references && !asio_sched_has_ready(rt) && !asio_sched_has_reports(rt);
}

void asio_plugin_stop(struct asio_rt *rt)
{
    rt->stop = true;
}

void asio_plugin_set_deadlock(struct asio_rt *rt)
{
    rt->deadlock = true;
}

void asio_plugin_watch_waiting(struct asio_rt *rt, void (*fn)(void *arg, bool begins), void *arg)
{
    rt->on_waiting = fn;
    rt->on_waiting_arg = arg;
}
