/* SPDX-License-Identifier: MIT
 * Waking a loop from other threads; see async.h. */
#include "core/async.h"

#include <string.h>

struct asio_async {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    uv_async_t handle;
    void (*woken)(void *arg);
    void (*closing)(void *arg);
    void *arg;
};

_Static_assert(offsetof(struct asio_async, ops) == 0, "teardown finds the table at the beginning");

static void async_on_close(uv_handle_t *handle)
{
    asio_mem.free(handle->data);
}

static void async_on_wake(uv_async_t *handle)
{
    struct asio_async *a = handle->data;
    if (!uv_is_closing((uv_handle_t *)handle))
        a->woken(a->arg);
}

static void async_teardown(void *owner)
{
    struct asio_async *a = owner;
    a->closing(a->arg);
    uv_close((uv_handle_t *)&a->handle, async_on_close);
}

static const struct asio_handle_ops async_ops = { async_teardown };

struct asio_async *asio_async_open(
    struct asio_rt *rt, void (*woken)(void *arg), void (*closing)(void *arg), void *arg, int *status)
{
    struct asio_async *a = asio_mem.malloc(sizeof *a);
    *status = UV_ENOMEM;
    if (!a)
        return NULL;
    memset(a, 0, sizeof *a);
    a->ops = &async_ops;
    a->woken = woken;
    a->closing = closing;
    a->arg = arg;
    *status = uv_async_init(&rt->loop, &a->handle, async_on_wake);
    if (*status < 0) {
        asio_mem.free(a);
        return NULL;
    }
    a->handle.data = a;
    uv_unref((uv_handle_t *)&a->handle); /* asio counts its own reasons */
    return a;
}

void asio_async_send(struct asio_async *a)
{
    uv_async_send(&a->handle);
}
