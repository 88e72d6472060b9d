/* SPDX-License-Identifier: MIT
 *
 * What asio.so hands to the shared objects beside it (asio/ares.so): they reach the core through this
 * table alone. So asio.so needs libuv and libc and nothing else, they need no libuv of their own (asio.so
 * may carry one inside), and one that does not belong to this asio.so is told by the version.
 *
 * Lifetime: one constant table. A watch: made by watch_open, closed by watch_close; if the state
 * closes first, its owner's `close` must have closed it. */
#ifndef ASIO_PLUGIN_H
#define ASIO_PLUGIN_H

#include "base/asio.h"
#include "base/timer_heap.h"

/* To be raised with every change of this table, or of a struct that goes through it. */
enum { ASIO_PLUGIN_VERSION = 2 };

struct asio_rt;
struct asio_watch;

struct asio_plugin {
    unsigned version;
    const struct asio_allocator *mem;
    uint64_t (*now)(void); /* nanoseconds, the clock of the deadlines */

    /* A deadline of the runtime's heap; see timer_heap.h. */
    void (*timer_init)(struct asio_timer *t, void (*fire)(struct asio_timer *t));
    int (*timer_set)(struct asio_rt *rt, struct asio_timer *t, uint64_t at);
    void (*timer_remove)(struct asio_rt *rt, struct asio_timer *t);

    /* Calls fn(arg, events) while one of the wanted events (UV_READABLE, UV_WRITABLE; 0: none) is there.
     * The descriptor stays its owner's; the watch is closed before the descriptor. NULL: *status says why. */
    struct asio_watch *(*watch_open)(
        struct asio_rt *rt, uv_os_sock_t fd, void (*fn)(void *arg, int events), void *arg, int *status);
    int (*watch_set)(struct asio_watch *w, int events);
    void (*watch_close)(struct asio_watch *w);

    /* Changes when the file does; 0: there is none. */
    uint64_t (*file_stamp)(const char *path);
    /* Where this system keeps its table of names. */
    void (*hosts_path)(char *path, size_t size);
};

extern const struct asio_plugin asio_plugin;

#endif
