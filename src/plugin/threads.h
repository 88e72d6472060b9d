/* SPDX-License-Identifier: MIT
 *
 * What a plugin needs that runs several Lua states on several system threads: libuv's locks, threads, waking the loop
 * of another state, and connections that change their loop. */
#ifndef ASIO_PLUGIN_THREADS_H
#define ASIO_PLUGIN_THREADS_H

#include "base/asio.h"

struct asio_async;
struct asio_conn;
struct asio_moved;
struct asio_rt;

enum { ASIO_PLUGIN_THREADS_VERSION = 2 };

struct asio_plugin_threads {
    unsigned version;

    /* In a new Lua state with the standard libraries: `require 'asio'`, which finds this module. Pushes the table that
     * the parts in lua/asio share. Ctrl-C is another state's to see to. Raises. */
    struct asio_rt *(*open)(lua_State *L, lua_CFunction module);
    lua_CFunction (*module)(const struct asio_rt *rt); /* of a state that has it */

    /* Starts fn(arg) on a thread that is not joined, with so many bytes of stack: 0 or an error. */
    int (*start)(void (*fn)(void *arg), void *arg, size_t stack);

    /* libuv's. */
    int (*mutex_init)(uv_mutex_t *lock);
    void (*mutex_destroy)(uv_mutex_t *lock);
    void (*mutex_lock)(uv_mutex_t *lock);
    void (*mutex_unlock)(uv_mutex_t *lock);
    int (*cond_init)(uv_cond_t *cond);
    void (*cond_destroy)(uv_cond_t *cond);
    void (*cond_broadcast)(uv_cond_t *cond);
    int (*cond_timedwait)(uv_cond_t *cond, uv_mutex_t *lock, uint64_t ns);
    unsigned (*parallelism)(void); /* processors that this process may use */

    /* See core/async.h. */
    struct asio_async *(*async_open)(
        struct asio_rt *rt, void (*woken)(void *arg), void (*closing)(void *arg), void *arg, int *status);
    void (*async_send)(struct asio_async *a);
    void (*async_free)(struct asio_async *a);

    /* One reason more, or less, for asio.run to go on. */
    void (*ref)(struct asio_rt *rt);
    void (*unref)(struct asio_rt *rt);
    /* Nothing keeps asio.run going but endless waits for other states (struct asio_wait_op.shared) and so many
     * references. *waits: how many waits. */
    bool (*waits_only)(const struct asio_rt *rt, size_t references, size_t *waits);
    /* asio.stop */
    void (*stop)(struct asio_rt *rt);
    /* No state will end these waits: asio.run, or the wait of the main chunk, is a deadlock. */
    void (*set_deadlock)(struct asio_rt *rt);
    /* Calls fn(arg, true) before the loop waits for events, and fn(arg, false) afterwards. */
    void (*watch_waiting)(struct asio_rt *rt, void (*fn)(void *arg, bool begins), void *arg);
    /* Why a closed runtime refuses; NULL: it is open. */
    const char *(*obstacle)(struct asio_rt *rt);
    /* This process is a fork of the one that made the runtime: a lock may be held by a thread that is not here. */
    bool (*forked)(struct asio_rt *rt);

    /* Connections that go to another loop; see net/move.h. */
    struct asio_conn *(*conn_at)(lua_State *L, int index);
    int (*move_obstacle)(const struct asio_conn *conn);
    int (*move_prepare)(const struct asio_conn *conn, struct asio_moved **moved);
    void (*move_out)(struct asio_conn *conn, struct asio_moved *moved);
    int (*move_in)(lua_State *L, struct asio_rt *rt, struct asio_moved *moved);
    void (*move_free)(struct asio_moved *moved);
    /* Counts it until its descriptor is given back; false: it is closed. */
    bool (*count)(struct asio_conn *conn, struct asio_counter *counter);
};

#endif
