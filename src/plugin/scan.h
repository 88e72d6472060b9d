/* SPDX-License-Identifier: MIT
 *
 * A scan: reading something whose end only a plugin can tell (a request of HTTP), as read_until reads up to a
 * delimiter. Like every read it takes nothing when it fails, has the connection's time-out, and can be cancelled.
 *
 * Lifetime: the first member of the plugin's own struct, which has to be alive while the light thread waits: in a
 * userdata among the arguments of the C function, for instance. */
#ifndef ASIO_PLUGIN_SCAN_H
#define ASIO_PLUGIN_SCAN_H

#include "base/asio.h"

struct asio_scan {
    /* Looks at all bytes that are there; `ended`: no more will come. Returns how many at the front make up the whole;
     * 0: more are needed, `need` in all if it is set, else one more; or an error, with which the read fails. The
     * bytes may lie elsewhere at the next call. Runs no user code. */
    ssize_t (*look)(struct asio_scan *scan, const char *bytes, size_t n, bool ended);
    /* Pushes what was found in the first n bytes; returns how many values, at most ASIO_WAIT_RESULTS - 1. May raise out
     * of memory: nothing has been taken then, and it may be called again. */
    int (*push)(lua_State *L, struct asio_scan *scan, const char *bytes, size_t n);
    size_t need;
};

#endif
