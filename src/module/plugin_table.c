/* SPDX-License-Identifier: MIT
 *
 * The table of functions for the shared objects beside asio.so; see plugin.h. Watches of their
 * descriptors live here: libuv's handle stays on this side. */
#include "plugin/plugin.h"

#include "core/runtime.h"
#include "sys/sys.h"
#include "core/wait.h"

#include <string.h>

/* Lifetime: see plugin.h; freed by libuv's close callback. */
struct asio_watch {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    uv_poll_t handle;
    void (*fn)(void *arg, int events);
    void *arg;
    int wanted;
    bool closed;
};

static void watch_on_close(uv_handle_t *handle)
{
    asio_mem.free(handle->data);
}

/* The owner of a watch for room is about to write, and its library may do that without MSG_NOSIGNAL: c-ares by TCP. */
static void want(struct asio_watch *w, int events)
{
    struct asio_rt *rt = ASIO_CONTAINER(w->handle.loop, struct asio_rt, loop);
    bool writes = events & UV_WRITABLE, wrote = w->wanted & UV_WRITABLE;
    w->wanted = events;
    if (writes && !wrote) {
        asio_rt_sending_begins(rt);
        asio_rt_sending_began(rt);
    } else if (wrote && !writes) {
        asio_rt_sending_ends(rt);
    }
}

static void watch_close(struct asio_watch *w)
{
    want(w, 0);
    w->closed = true;
    uv_close((uv_handle_t *)&w->handle, watch_on_close);
}

static void watch_teardown(void *owner)
{
    watch_close(owner);
}

static const struct asio_handle_ops watch_ops = { watch_teardown };

/* libuv stops watching at an error condition (a datagram that was refused), which is the owner's to
 * fetch: told as whatever is wanted. If the owner goes on with the descriptor, so does the watch. */
static void watch_on_poll(uv_poll_t *handle, int status, int events)
{
    struct asio_watch *w = handle->data;
    w->fn(w->arg, status < 0 ? w->wanted : events);
    if (status < 0 && !w->closed && w->wanted) /* nothing frees it before libuv's callback returns */
        uv_poll_start(handle, w->wanted, watch_on_poll);
}

static struct asio_watch *watch_open(
    struct asio_rt *rt, uv_os_sock_t fd, void (*fn)(void *arg, int events), void *arg, int *status)
{
    struct asio_watch *w = asio_mem.malloc(sizeof *w);
    *status = UV_ENOMEM;
    if (!w)
        return NULL;
    memset(w, 0, sizeof *w);
    w->ops = &watch_ops;
    w->fn = fn;
    w->arg = arg;
    *status = uv_poll_init_socket(&rt->loop, &w->handle, fd);
    if (*status < 0) {
        asio_mem.free(w);
        return NULL;
    }
    w->handle.data = w;
    return w;
}

static int watch_set(struct asio_watch *w, int events)
{
    want(w, events);
    return events ? uv_poll_start(&w->handle, events, watch_on_poll) : uv_poll_stop(&w->handle);
}

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

const struct asio_plugin asio_plugin = {
    .version = ASIO_PLUGIN_VERSION,
    .mem = &asio_mem,
    .now = uv_hrtime,
    .timer_init = asio_timer_init,
    .timer_set = timer_set,
    .timer_remove = timer_remove,
    .watch_open = watch_open,
    .watch_set = watch_set,
    .watch_close = watch_close,
    .file_stamp = file_stamp,
    .hosts_path = asio_sys_hosts_path,
};
