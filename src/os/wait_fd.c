/* SPDX-License-Identifier: MIT
 *
 * asio.wait_fd: descriptors of other C libraries. libuv takes each descriptor only once, so all waits for one share a
 * poller.
 *
 * Lifetime of struct poller: made by the first wait for its descriptor; in the table of pollers while there are waits;
 * freed by libuv's close callback. The descriptor belongs to the library that opened it, which must not close it
 * while a light thread waits. */
#include "core/bind.h"
#include "base/error.h"
#include "core/park.h"

#include <string.h>

struct poller {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    struct asio_rt *rt;
    struct poller *next;
    uv_poll_t handle;
    uv_os_sock_t fd;
    struct asio_wait_list waiters;
};

_Static_assert(offsetof(struct poller, ops) == 0, "teardown finds the table at the beginning");

enum { WAIT_FD_BUCKETS = 64 };

/* The part's state: a hash table of descriptors, made at the first wait. */
struct wait_fd_table {
    struct poller *buckets[WAIT_FD_BUCKETS];
};

/* NULL: there is no table. */
static struct poller **wait_fd_bucket(const struct asio_rt *rt, uv_os_sock_t fd)
{
    struct wait_fd_table *table = asio_rt_part(rt, ASIO_PART_WAIT_FD);
    return table ? &table->buckets[(uintptr_t)fd % WAIT_FD_BUCKETS] : NULL;
}

static bool wait_fd_make_table(struct asio_rt *rt)
{
    if (asio_rt_part(rt, ASIO_PART_WAIT_FD))
        return true;
    struct wait_fd_table *table = asio_mem.malloc(sizeof *table);
    if (!table)
        return false;
    memset(table, 0, sizeof *table);
    asio_rt_part_set(rt, ASIO_PART_WAIT_FD, table);
    return true;
}

static void wait_fd_on_close(uv_handle_t *handle)
{
    asio_mem.free(handle->data);
}

static void close_poller(struct poller *p)
{
    struct poller **link = wait_fd_bucket(p->rt, p->fd);
    while (link && *link != p)
        link = &(*link)->next;
    if (link) /* else the state closes */
        *link = p->next;
    uv_close((uv_handle_t *)&p->handle, wait_fd_on_close);
}

static void wait_fd_teardown(void *owner)
{
    close_poller(owner);
}

static const struct asio_handle_ops poller_ops = { wait_fd_teardown };

static void wait_fd_on_poll(uv_poll_t *handle, int status, int events);

/* Asks libuv for the events that are waited for; closes when there is no wait left. */
static int wait_fd_update(struct poller *p)
{
    int events = 0;
    for (struct asio_wait *w = p->waiters.first; w; w = w->next)
        events |= w->u.fd.events;
    if (events)
        return uv_poll_start(&p->handle, events, wait_fd_on_poll);
    close_poller(p);
    return 0;
}

/* The light threads that are served run in the next turn: one that waits again at once waits for new events.
 * libuv says EBADF for every error condition (a connection refused, a pipe without readers). The next call on the
 * descriptor tells which: the waits end as if everything that they wait for were there. */
static void wait_fd_on_poll(uv_poll_t *handle, int status, int events)
{
    struct poller *p = handle->data;
    if (status == UV_EBADF && asio_sys_file_flags(p->fd) >= 0) {
        status = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    struct asio_wait *w = p->waiters.first;
    while (w) {
        if (status == 0 && !(w->u.fd.events & events)) {
            w = w->next;
            continue;
        }
        asio_wait_list_remove(&p->waiters, w);
        w->u.fd.events &= events;
        asio_sched_ready(w, status);
        w = p->waiters.first; /* making the main chunk's results may have run finalizers */
    }
    if (!uv_is_closing((uv_handle_t *)handle))
        wait_fd_update(p);
}

static void abort_poll(struct asio_wait *w)
{
    struct poller *p = w->source;
    asio_wait_list_remove(&p->waiters, w);
    wait_fd_update(p);
}

static int push_events(lua_State *L, struct asio_wait *w)
{
    static const char *const names[] = { "", "r", "w", "rw" };
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    lua_pushstring(L, names[w->u.fd.events & 3]);
    return 2;
}

static const struct asio_wait_op poll_op = {
    .name = "wait_fd", .outside = true, .abort = abort_poll, .push = push_events
};

static struct poller *wait_fd_find(struct asio_rt *rt, uv_os_sock_t fd)
{
    struct poller **bucket = wait_fd_bucket(rt, fd), *p = bucket ? *bucket : NULL;
    while (p && p->fd != fd)
        p = p->next;
    return p;
}

struct search {
    uv_os_sock_t fd;
    bool found;
};

static void compare(uv_handle_t *handle, void *arg)
{
    struct search *s = arg;
    uv_os_fd_t fd;
    if (!uv_is_closing(handle) && uv_fileno(handle, &fd) == 0 && (uv_os_sock_t)fd == s->fd)
        s->found = true;
}

/* libuv takes a descriptor that one of its handles has, as long as that does not read, and aborts when
 * it does. Asked once per poller; it is the descriptors of others that are waited for often. */
static bool is_ours(struct asio_rt *rt, uv_os_sock_t fd)
{
    struct search s = { fd, false };
    uv_walk(&rt->loop, compare, &s);
    return s.found;
}

/* libuv makes what it polls non-blocking, which is the owner's decision: the mode is put back. */
static struct poller *open_poller(struct asio_rt *rt, uv_os_sock_t fd, int *status)
{
    *status = is_ours(rt, fd) ? UV_EEXIST : 0;
    if (*status < 0)
        return NULL;
    *status = UV_ENOMEM;
    if (!wait_fd_make_table(rt))
        return NULL;
    struct poller *p = asio_mem.malloc(sizeof *p);
    if (!p)
        return NULL;
    memset(p, 0, sizeof *p);
    p->ops = &poller_ops;
    p->rt = rt;
    p->fd = fd;
    int flags = asio_sys_file_flags(fd);
    *status = uv_poll_init_socket(&rt->loop, &p->handle, fd);
    asio_sys_set_file_flags(fd, flags);
    if (*status < 0) {
        asio_mem.free(p);
        return NULL;
    }
    p->handle.data = p;
    p->next = *wait_fd_bucket(rt, fd);
    *wait_fd_bucket(rt, fd) = p;
    return p;
}

static int check_events(lua_State *L)
{
    const char *events = lua_tostring(L, 2);
    if (events && strcmp(events, "r") == 0)
        return UV_READABLE;
    if (events && strcmp(events, "w") == 0)
        return UV_WRITABLE;
    if (events && strcmp(events, "rw") == 0)
        return UV_READABLE | UV_WRITABLE;
    return asio_error_arg(L, 2, "wait_fd", "'r', 'w' or 'rw' expected");
}

/* core.wait_fd(fd, events, timeout) */
static int l_wait_fd(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    uv_os_sock_t fd = (uv_os_sock_t)asio_check_integer(L, 1, 1, "wait_fd", 0, 0x7fffffff);
    int events = check_events(L), status;
    double timeout = asio_check_timeout(L, 3, 3, "wait_fd");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    struct asio_wait *w = asio_park_claim(L, rt);
    struct poller *p = wait_fd_find(rt, fd);
    if (!p)
        p = open_poller(rt, fd, &status);
    if (!p)
        return asio_push_fail(L, status);
    w->source = p;
    w->u.fd.events = events;
    asio_wait_list_add(&p->waiters, w);
    status = wait_fd_update(p);
    if (status < 0) {
        abort_poll(w);
        return asio_push_fail(L, status);
    }
    return asio_park(L, w, &poll_op, timeout);
}

static void wait_fd_part_close(struct asio_rt *rt)
{
    asio_mem.free(asio_rt_part(rt, ASIO_PART_WAIT_FD));
    asio_rt_part_set(rt, ASIO_PART_WAIT_FD, NULL);
}

static void wait_fd_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "wait_fd", l_wait_fd }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}

const struct asio_part asio_part_wait_fd = { "wait_fd", wait_fd_part_open, wait_fd_part_close };
