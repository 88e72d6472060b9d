/* SPDX-License-Identifier: MIT
 * Which resolver a runtime uses, c-ares or the system's, and the loading of c-ares. lua/asio/resolve.lua finds the
 * library. */
#include "dns/backend.h"

#include "core/load.h"
#include "core/runtime.h"
#include "dns/getaddrinfo.h"

int asio_backend_use(struct asio_backend *b, struct asio_rt *rt, const struct asio_names_backend *ops)
{
    if (!ops)
        ops = &asio_getaddrinfo;
    if (b->state)
        return b->ops == ops ? 0 : UV_ENOTSUP;
    if (ops->version != ASIO_PLUGIN_NAMES_VERSION)
        return UV_ENOTSUP;
    int status = asio_load(rt->plugin, ops, ops->load);
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
