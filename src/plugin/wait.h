/* SPDX-License-Identifier: MIT
 *
 * Waiting, for the core and for plugins: what an operation says of itself, and what a plugin calls to wait.
 *
 * A waiting C function of a plugin is a closure with the runtime as its first upvalue, called by a Lua shim (see
 * lua/asio/wait.lua), and has four steps: check the arguments; `interrupt`, then the fast path; `claim`; start the
 * operation and `return park(...)`. The source of the wait ends it by `wake` or `ready`. */
#ifndef ASIO_PLUGIN_WAIT_H
#define ASIO_PLUGIN_WAIT_H

#include "base/asio.h"

struct asio_rt;
struct asio_wait;

enum { ASIO_WAIT_RESULTS = 8 };

struct asio_wait_op {
    const char *name; /* what a dump shows: "read" */
    bool outside;     /* something outside of this Lua state can end it */
    /* Unlinks the record from its source, which must not touch it again. Called at most once,
     * never after the source ended the wait. May note things in the record for `push`. */
    void (*abort)(struct asio_wait *w);
    /* Pushes token and results for w->status, returns how many (at most ASIO_WAIT_RESULTS). If
     * it raises out of memory, nothing may have been consumed. NULL: true, or the failure. */
    int (*push)(lua_State *L, struct asio_wait *w);
    bool shared; /* `outside` means another Lua state of this process, and nothing else */
};

/* A list of records in order of arrival. */
struct asio_wait_list {
    struct asio_wait *first, *last;
};

/* What asio.select can wait for. */
struct asio_selectable {
    /* Takes what is there now: pushes token and results, returns how many; 0: nothing yet. The
     * object is at index 1 of L. */
    int (*poll)(lua_State *L, void *object);
    /* Lets a record (source: the object) wait in the object's queue; its end fetches results by the
     * operation returned. */
    const struct asio_wait_op *(*join)(struct asio_wait *branch);
};

/* The field of the metatable of a plugin's userdata that asio.select can wait for: a light userdata, which points to
 * its struct asio_selectable. */
#define ASIO_SELECTABLE "asio.selectable"

enum { ASIO_PLUGIN_WAIT_VERSION = 2 };

struct asio_plugin_wait {
    unsigned version;

    /* 0; or an interrupt is pending: pushes it, returns how many values the function has to return. */
    int (*interrupt)(lua_State *L, struct asio_rt *rt);

    /* The record to wait on, or raises; see core/park.h. */
    struct asio_wait *(*claim)(lua_State *L, struct asio_rt *rt);

    /* Suspends the caller. `source`: for the operation's own functions. timeout in seconds: negative none. */
    int (*park)(
        lua_State *L, struct asio_wait *w, const struct asio_wait_op *op, void *source, double timeout);
    void *(*source)(const struct asio_wait *w);
    int (*status)(const struct asio_wait *w);

    /* Ends a parked wait with 0 or an error; false if it was over already. wake: from libuv callbacks, runs the light
     * thread now; ready: from anywhere, runs it soon. */
    bool (*wake)(struct asio_wait *w, int status);
    bool (*ready)(struct asio_wait *w, int status);

    /* For `push` and for functions that return without a wait. push_ok: the token alone, results follow. push_fail:
     * token, nil, message, code; returns 4. */
    void (*push_ok)(lua_State *L, const struct asio_rt *rt);
    int (*push_fail)(lua_State *L, int status);

    /* Several records that wait for one thing, in order. */
    void (*list_add)(struct asio_wait_list *list, struct asio_wait *w);
    void (*list_remove)(struct asio_wait_list *list, struct asio_wait *w);

    /* The Lua value that a record gives, or is given, while it waits. Setting pops it. None of these allocates. */
    void (*item_set)(lua_State *L, struct asio_wait *w);
    void (*item_get)(lua_State *L, struct asio_wait *w); /* and clears it */
    void (*item_clear)(struct asio_wait *w);

    /* Runs body with a Lua state in which nothing it raises gets out; see core/runtime.h. */
    int (*protect)(struct asio_rt *rt, void (*body)(lua_State *L, void *arg), void *arg, const char *doing);
};

#endif
