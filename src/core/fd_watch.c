/* SPDX-License-Identifier: MIT
 * Watches of descriptors that belong to other code; see fd_watch.h. */
#include "core/fd_watch.h"

#include "core/poll.h"

#include <string.h>

struct asio_fd_watch {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    uv_poll_t handle;
    void (*fn)(void *arg, int events);
    void *arg;
    int wanted;
    bool closed;
};

_Static_assert(offsetof(struct asio_fd_watch, ops) == 0, "teardown finds the table at the beginning");

static void fd_watch_on_close(uv_handle_t *handle)
{
    asio_mem.free(handle->data);
}

/* An owner that watches for room is about to write, and may not know how to do that without SIGPIPE: c-ares by TCP. */
static void fd_watch_want(struct asio_fd_watch *w, int events)
{
    struct asio_rt *rt = ASIO_CONTAINER(w->handle.loop, struct asio_rt, loop);
    bool writes = events & UV_WRITABLE, wrote = w->wanted & UV_WRITABLE;
    w->wanted = events;
    if (writes && !wrote) {
        asio_poll_sending_begins(rt);
        asio_poll_sending_began(rt);
    } else if (wrote && !writes) {
        asio_poll_sending_ends(rt);
    }
}

void asio_fd_watch_close(struct asio_fd_watch *w)
{
    assert(!w->closed);
    fd_watch_want(w, 0);
    w->closed = true;
    uv_close((uv_handle_t *)&w->handle, fd_watch_on_close);
}

static void fd_watch_teardown(void *owner)
{
    asio_fd_watch_close(owner);
}

static const struct asio_handle_ops fd_watch_ops = { fd_watch_teardown };

/* libuv stops watching at an error condition (a datagram that was refused), which is the owner's to
 * fetch: told as whatever is wanted. If the owner goes on with the descriptor, so does the watch. */
static void fd_watch_on_poll(uv_poll_t *handle, int status, int events)
{
    struct asio_fd_watch *w = handle->data;
    w->fn(w->arg, status < 0 ? w->wanted : events);
    if (status < 0 && !w->closed && w->wanted) /* nothing frees it before libuv's callback returns */
        uv_poll_start(handle, w->wanted, fd_watch_on_poll);
}

struct asio_fd_watch *asio_fd_watch_open(
    struct asio_rt *rt, uv_os_sock_t fd, void (*fn)(void *arg, int events), void *arg, int *status)
{
    struct asio_fd_watch *w = asio_mem.malloc(sizeof *w);
    *status = UV_ENOMEM;
    if (!w)
        return NULL;
    memset(w, 0, sizeof *w);
    w->ops = &fd_watch_ops;
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

int asio_fd_watch_set(struct asio_fd_watch *w, int events)
{
    assert(!w->closed);
    fd_watch_want(w, events);
    return events ? uv_poll_start(&w->handle, events, fd_watch_on_poll) : uv_poll_stop(&w->handle);
}
