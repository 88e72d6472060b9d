/* SPDX-License-Identifier: MIT
 * Waking a loop from other threads; see async.h. */
#include "core/async.h"

#include <string.h>

/* What the loop has of it; freed by libuv's close callback. */
struct async_watch {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    union {
        uv_handle_t any;
        uv_poll_t poll;
        uv_async_t async;
    } handle;
    struct asio_async *owner;
};

_Static_assert(offsetof(struct async_watch, ops) == 0, "teardown finds the table at the beginning");

struct asio_async {
    uv_os_sock_t fd; /* if ASIO_SYS_EVENTS; otherwise libuv's own, which must not be sent once it is closed */
    uv_mutex_t lock; /* then: guards `watch` */
    struct async_watch *watch;
    void (*woken)(void *arg);
    void (*closing)(void *arg);
    void *arg;
};

static void async_on_close(uv_handle_t *handle)
{
    asio_mem.free(handle->data);
}

static void async_on_event(uv_poll_t *handle, int status, int events)
{
    struct asio_async *a = ((struct async_watch *)handle->data)->owner;
    (void)status, (void)events;
    asio_sys_event_clear(a->fd);
    a->woken(a->arg);
}

static void async_on_wake(uv_async_t *handle)
{
    struct asio_async *a = ((struct async_watch *)handle->data)->owner;
    a->woken(a->arg);
}

/* `closing` may free it. */
static void async_teardown(void *p)
{
    struct async_watch *w = p;
    struct asio_async *a = w->owner;
    uv_close(&w->handle.any, async_on_close);
    if (!ASIO_SYS_EVENTS) {
        uv_mutex_lock(&a->lock);
        a->watch = NULL;
        uv_mutex_unlock(&a->lock);
    }
    a->closing(a->arg);
}

static const struct asio_handle_ops async_ops = { async_teardown };

static int async_init_uv(struct asio_rt *rt, struct asio_async *a)
{
    int status = uv_mutex_init(&a->lock);
    if (status == 0 && (status = uv_async_init(&rt->loop, &a->watch->handle.async, async_on_wake)) < 0)
        uv_mutex_destroy(&a->lock);
    return status;
}

static int async_init(struct asio_rt *rt, struct asio_async *a)
{
    if (!ASIO_SYS_EVENTS)
        return async_init_uv(rt, a);
    int status = asio_sys_event_open(&a->fd);
    if (status < 0)
        return status;
    status = uv_poll_init_socket(&rt->loop, &a->watch->handle.poll, a->fd);
    if (status < 0)
        asio_sys_close(a->fd);
    else
        uv_poll_start(&a->watch->handle.poll, UV_READABLE, async_on_event);
    return status;
}

struct asio_async *asio_async_open(
    struct asio_rt *rt, void (*woken)(void *arg), void (*closing)(void *arg), void *arg, int *status)
{
    struct asio_async *a = asio_mem.malloc(sizeof *a);
    struct async_watch *w = asio_mem.malloc(sizeof *w);
    *status = UV_ENOMEM;
    if (a && w) {
        memset(w, 0, sizeof *w);
        *w = (struct async_watch){ .ops = &async_ops, .owner = a };
        *a = (struct asio_async){ .watch = w, .woken = woken, .closing = closing, .arg = arg };
        *status = async_init(rt, a);
    }
    if (*status < 0) {
        asio_mem.free(a);
        asio_mem.free(w);
        return NULL;
    }
    w->handle.any.data = w;
    uv_unref(&w->handle.any); /* asio counts its own reasons */
    return a;
}

void asio_async_send(struct asio_async *a)
{
    if (ASIO_SYS_EVENTS) {
        asio_sys_event_set(a->fd);
        return;
    }
    uv_mutex_lock(&a->lock);
    if (a->watch)
        uv_async_send(&a->watch->handle.async);
    uv_mutex_unlock(&a->lock);
}

void asio_async_free(struct asio_async *a)
{
    if (ASIO_SYS_EVENTS)
        asio_sys_close(a->fd);
    else
        uv_mutex_destroy(&a->lock);
    asio_mem.free(a);
}
