/* SPDX-License-Identifier: MIT
 *
 * What asio.so hands to the shared objects beside it (asio/ares.so, later asio/tls.so and asio/http.so): they
 * reach the core through this table alone. So asio.so needs libuv and libc and nothing else, and the plugins need
 * no libuv of their own (asio.so may carry one inside).
 *
 * The table consists of sub-tables, each with a version of its own. A plugin checks, before all else, the versions
 * of the sub-tables that it uses (ASIO_PLUGIN_HAS) and refuses to load if one differs: so a change of one sub-table
 * leaves the plugins alone that do not use it. A version is raised with every change of its sub-table, or of a
 * struct that passes through it.
 *
 * Lifetime: constant tables of the process. */
#ifndef ASIO_PLUGIN_H
#define ASIO_PLUGIN_H

#include "base/asio.h"
#include "base/timer_heap.h"
#include "plugin/layer.h"
#include "plugin/scan.h"
#include "plugin/threads.h"
#include "plugin/wait.h"

enum {
    ASIO_PLUGIN_MEM_VERSION = 1,
    ASIO_PLUGIN_LOOP_VERSION = 1,
    ASIO_PLUGIN_STREAM_VERSION = 4,
    ASIO_PLUGIN_NAMES_VERSION = 2,
    ASIO_PLUGIN_ERROR_VERSION = 2,
    ASIO_PLUGIN_MODULE_VERSION = 1
};

struct asio_fd_watch;
struct asio_stream;

struct asio_plugin_mem {
    unsigned version;
    const struct asio_allocator *allocator;
};

struct asio_plugin_loop {
    unsigned version;
    uint64_t (*now)(void); /* nanoseconds, the clock of the deadlines */

    /* A deadline of the runtime's heap; see timer_heap.h. */
    void (*timer_init)(struct asio_timer *t, void (*fire)(struct asio_timer *t));
    int (*timer_set)(struct asio_rt *rt, struct asio_timer *t, uint64_t at);
    void (*timer_remove)(struct asio_rt *rt, struct asio_timer *t);

    /* See core/fd_watch.h. If the state closes first, the plugin's `close` must have closed its watches. */
    struct asio_fd_watch *(*watch_open)(
        struct asio_rt *rt, uv_os_sock_t fd, void (*fn)(void *arg, int events), void *arg, int *status);
    int (*watch_set)(struct asio_fd_watch *w, int events);
    void (*watch_close)(struct asio_fd_watch *w);
};

struct asio_plugin_stream {
    unsigned version;
    /* The stream of the connection at a stack index; NULL: it is closed, or something else. */
    struct asio_stream *(*stream_at)(lua_State *L, int index);
    /* Streams over streams. */
    const struct asio_plugin_layer *layer;
    /* Reads what a scan finds: a waiting function, see scan.h. */
    int (*scan)(lua_State *L, struct asio_stream *s, struct asio_scan *scan);
    /* Writing, for a waiting function: queues bytes, which may be those of the value at a stack index that keeps them
     * alive; a status. Then `written` ends the function: it parks if too much is queued. */
    int (*queue)(lua_State *L, struct asio_stream *s, int index, const char *bytes, size_t n);
    int (*written)(lua_State *L, struct asio_stream *s);
    /* Bytes of a file, without waiting; see stream/send_file.h. */
    ssize_t (*send_file)(struct asio_stream *s, int file, int64_t offset, size_t n);
    /* A handshake of a server is over: asio.stats counts. */
    void (*count_handshake)(struct asio_rt *rt, bool done);
};

/* For plugins that look names up; their side of it is in plugin/names.h. */
struct asio_plugin_names {
    unsigned version;
    /* Changes when the file does; 0: there is none. */
    uint64_t (*file_stamp)(const char *path);
    /* Where this system keeps its table of names. */
    void (*hosts_path)(char *path, size_t size);
};

/* How failures look to Lua; see base/error.h. */
struct asio_plugin_error {
    unsigned version;
    int (*push)(lua_State *L, int status);
    int (*push_text)(lua_State *L, int status, const char *fmt, ...);
    int (*arg)(lua_State *L, int arg, const char *fname, const char *fmt, ...);
    int (*misuse)(lua_State *L, const char *fmt, ...);
    /* Arguments: seconds, negative for none; a whole number in [min, max]. Raise. */
    double (*timeout)(lua_State *L, int index, int arg, const char *fname);
    double (*integer)(lua_State *L, int index, int arg, const char *fname, double min, double max);
};

struct asio_plugin {
    const struct asio_plugin_mem *mem;
    const struct asio_plugin_loop *loop;
    const struct asio_plugin_wait *wait;
    const struct asio_plugin_stream *stream;
    const struct asio_plugin_names *names;
    const struct asio_plugin_error *error;
    const struct asio_plugin_threads *threads;
};

/* A plugin with functions for Lua: luaopen_asio_NAME returns it as a light userdata. Constant, of the process. */
struct asio_plugin_module {
    unsigned version; /* ASIO_PLUGIN_MODULE_VERSION */
    /* Before all else in each Lua state, one thread at a time: 0, or an error. UV_ENOTSUP: built for another asio.so. */
    int (*load)(const struct asio_plugin *core);
    /* Pushes what its functions are in: a table. At stack index 1 is the table that the parts in lua/asio share. */
    void (*open)(lua_State *L, struct asio_rt *rt);
};

/* Whether the plugin was built with this sub-table: ASIO_PLUGIN_HAS(core, loop, LOOP). */
#define ASIO_PLUGIN_HAS(core, table, NAME) ((core)->table->version == ASIO_PLUGIN_##NAME##_VERSION)

#endif
