/* SPDX-License-Identifier: MIT
 * The loading of plugins, one at a time; see load.h. */
#include "core/load.h"

#include "sys/sys.h"

static uv_once_t load_once = UV_ONCE_INIT;
static uv_mutex_t load_lock;
static int load_lock_status;

static void load_init_lock(void)
{
    load_lock_status = uv_mutex_init(&load_lock);
}

int asio_load(const struct asio_plugin *core, const void *plugin, int (*load)(const struct asio_plugin *core))
{
    uv_once(&load_once, load_init_lock);
    if (load_lock_status < 0)
        return load_lock_status;
    uv_mutex_lock(&load_lock);
    asio_sys_pin(plugin);
    int status = load ? load(core) : 0;
    uv_mutex_unlock(&load_lock);
    return status;
}
