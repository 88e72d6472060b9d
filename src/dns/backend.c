/* SPDX-License-Identifier: MIT
 * Which resolver a runtime uses, c-ares or the system's, and the loading of c-ares. lua/asio/resolve.lua finds the
 * library. */
#include "dns/backend.h"

#include "core/runtime.h"
#include "dns/getaddrinfo.h"

#include <errno.h>
#include <string.h>

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

/* ---- why loading failed ------------------------------------------------------------------- */

/* This module can be opened, unless descriptors or memory are used up. */
static int backend_probe(void)
{
    char path[1024];
    uv_fs_t req;
    if (asio_sys_module_path(&asio_getaddrinfo, path, sizeof path) < 0)
        return 0;
    int fd = uv_fs_open(NULL, &req, path, UV_FS_O_RDONLY, 0, NULL);
    uv_fs_req_cleanup(&req);
    if (fd < 0)
        return fd;
    uv_fs_close(NULL, &req, fd, NULL);
    uv_fs_req_cleanup(&req);
    return 0;
}

/* The dynamic linker says it in words of the system, with the file's name; Lua's search for modules says only that
 * there is no such file, whatever the reason. */
int asio_backend_obstacle(const char *message)
{
    static const struct {
        int error, status;
    } passing[] = { { EMFILE, UV_EMFILE }, { ENFILE, UV_ENFILE }, { ENOMEM, UV_ENOMEM } };
    int status = backend_probe();
    for (unsigned i = 0; i < sizeof passing / sizeof *passing; i++)
        if (status == passing[i].status || strstr(message, strerror(passing[i].error)))
            return passing[i].status;
    return 0;
}
