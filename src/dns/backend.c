/* SPDX-License-Identifier: MIT
 * Which resolver a runtime uses, c-ares or the system's, and the loading of c-ares. lua/asio/resolve.lua finds the
 * library. */
#include "dns/backend.h"

#include "core/runtime.h"
#include "dns/getaddrinfo.h"

static uv_once_t backend_once = UV_ONCE_INIT;
static uv_mutex_t
    backend_load_lock; /* libraries have a global state, and Lua states may run on several threads */
static int backend_load_lock_status;

static void backend_init_lock(void)
{
    backend_load_lock_status = uv_mutex_init(&backend_load_lock);
}

static int backend_load(const struct asio_plugin *core, const struct asio_names_backend *ops)
{
    uv_once(&backend_once, backend_init_lock);
    if (backend_load_lock_status < 0)
        return backend_load_lock_status;
    uv_mutex_lock(&backend_load_lock);
    asio_sys_pin(ops);
    int status = ops->load ? ops->load(core) : 0;
    uv_mutex_unlock(&backend_load_lock);
    return status;
}

int asio_backend_use(struct asio_backend *b, struct asio_rt *rt, const struct asio_names_backend *ops)
{
    if (!ops)
        ops = &asio_getaddrinfo;
    if (b->state)
        return b->ops == ops ? 0 : UV_ENOTSUP;
    if (ops->version != ASIO_PLUGIN_NAMES_VERSION)
        return UV_ENOTSUP;
    int status = backend_load(rt->plugin, ops);
    if (status == 0)
        b->ops = ops;
    return status;
}

int asio_backend_ready(struct asio_backend *b, struct asio_rt *rt)
{
    int status = UV_ENOMEM;
    if (!b->ops)
        b->ops = &asio_getaddrinfo;
    if (!b->state)
        b->state = b->ops->open(rt->plugin, rt, &status);
    assert(b->state || status < 0);
    return b->state ? 0 : status;
}

/* A helper thread of getaddrinfo may have held a lock when its process forked. */
void asio_backend_close(struct asio_backend *b, bool forked)
{
    if (b->state && !(forked && b->ops == &asio_getaddrinfo))
        b->ops->close(b->state);
    b->state = NULL;
}
