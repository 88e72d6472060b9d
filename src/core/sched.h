/* SPDX-License-Identifier: MIT
 *
 * Light threads and the only lua_yield and lua_resume there are.
 *
 * A waiting operation is four steps: check the arguments; the fast path; asio_sched_claim, which
 * raises when this coroutine cannot wait; start the operation, link the record, and
 * `return asio_sched_park(...)`. Whoever completes it calls asio_sched_wake from a libuv callback
 * (the light thread runs at once: its data is still in the cache) or asio_sched_ready from Lua
 * (it is queued, so that two threads that wake each other cannot starve the loop). */
#ifndef ASIO_SCHED_H
#define ASIO_SCHED_H

#include "core/wait.h"

enum asio_thread_state {
    ASIO_THREAD_NEW,     /* spawned too deep to start at once: in the ready list */
    ASIO_THREAD_RUNNING, /* on the C stack: current, or has spawned the current one */
    ASIO_THREAD_WAITING, /* its wait record says for what; done records are in the ready list */
    ASIO_THREAD_DONE,
    ASIO_THREAD_FAILED,
};

/* A light thread; Lua's handle of it is this userdata.
 * Created by spawn; anchored in rt->refs[ASIO_REF_THREADS] while alive and until an error was reported, then
 * only by who holds the handle; freed by the collector; if the state closes first nothing of it
 * needs closing. */
struct asio_thread {
    struct asio_wait wait;
    lua_State *co; /* NULL once ended; anchored in its slot while not */
    int nargs;     /* NEW: arguments on co, above the function */
    int nresults;  /* DONE: results kept in the environment table */
    uint32_t id;
    uint8_t state;            /* enum asio_thread_state */
    bool joined;              /* somebody took, or waits for, the outcome: no report */
    bool by_cancel;           /* FAILED: by being cancelled, which is no error to report */
    bool kept;                /* has an environment table of its own: name, results, error */
    bool owns;                /* a server's handler: the connection to close on error is in the slot */
    bool escaped;             /* the script knows its coroutine: it is not used again */
    bool reports;             /* runs the script's on_error: its own error goes to stderr */
    uint32_t born;            /* uv_now() when it was spawned */
    struct asio_thread *next; /* ready list or failed list */
    struct asio_wait_list joiners;
    struct asio_counter *counter; /* counts it until it has ended, or NULL */
};

enum asio_spawn {
    ASIO_SPAWN_PLAIN,
    ASIO_SPAWN_OWNER,     /* the value below the function (popped too) is closed if the thread fails */
    ASIO_SPAWN_REPORTER,  /* runs the script's on_error */
    ASIO_SPAWN_CANCELLED, /* from the start */
};

/* Makes a light thread of the function and its nargs arguments at the top of L (popped), pushes
 * its handle and runs it until it first waits. Raises out of memory. */
void asio_sched_spawn(struct asio_rt *rt, lua_State *L, int nargs, enum asio_spawn how);

/* The same, as ASIO_SPAWN_OWNER, for a light thread that is counted. */
void asio_sched_spawn_counted(struct asio_rt *rt, lua_State *L, int nargs, struct asio_counter *counter);

/* The running light thread has an interrupt pending. Every waiting function asks after checking
 * its arguments and before its fast path, so that a busy peer cannot outrun a cancel, and then
 * `return asio_push_interrupt(L, rt)`. */
static inline bool asio_sched_interrupted(const struct asio_rt *rt)
{
    return asio_wait_interrupted(rt->self);
}

/* The wait record to use for a wait from L, or raises: not a light thread's coroutine, inside a
 * C call that cannot be suspended, loop already running below. Owns nothing yet. */
struct asio_wait *asio_sched_claim(lua_State *L, struct asio_rt *rt);

bool asio_sched_can_wait(lua_State *L, struct asio_rt *rt);

/* L is what the running light thread (or the main chunk) runs on, and not a coroutine that somebody
 * made beside asio. */
bool asio_sched_owns(lua_State *L, struct asio_rt *rt);

/* Suspends the caller until the wait ends; use as `return asio_sched_park(...)`. The record must
 * be linked with its source. timeout in seconds: negative none, 0 only what is
 * there now. */
int asio_sched_park(lua_State *L, struct asio_wait *w, const struct asio_wait_op *op, double timeout);

/* Ends a parked wait; false if it was over already. The source has unlinked it. */
bool asio_sched_wake(struct asio_wait *w, int status);  /* from libuv callbacks: runs it now */
bool asio_sched_ready(struct asio_wait *w, int status); /* from anywhere: runs it soon */

/* The wait that ends at once: lets the others run, and the loop look, before it runs again. */
extern const struct asio_wait_op asio_yield_op;

/* Ends a wait on somebody else's behalf: unlinks it, then as asio_sched_ready. */
void asio_sched_abort(struct asio_wait *w, int status);

/* Something that may interrupt this record has happened (from a timer: it then runs at once). */
void asio_sched_interrupt(struct asio_wait *w);

/* The value that a record gives, or is given, while it waits (struct asio_wait_op.push fetches it).
 * Setting pops it from L. None of these allocates. */
void asio_wait_item_set(lua_State *L, struct asio_wait *w);
void asio_wait_item_get(lua_State *L, struct asio_wait *w); /* and clears it */
void asio_wait_item_clear(struct asio_wait *w);

/* For the shims: the light thread was resumed by hand; goes on waiting. */
int asio_sched_repark(lua_State *L);

/* For the turn: runs a light thread that was ready, until it waits again or ends. */
void asio_sched_run(struct asio_thread *t);

/* The running light thread's handle, or nil. */
void asio_sched_push_current(lua_State *L, struct asio_rt *rt);

/* Pushes the handle of a thread that is alive, or failed and not yet reported. */
void asio_sched_push_handle(lua_State *L, struct asio_thread *t);

/* Pushes what the thread was spawned with as `owns`. */
void asio_sched_push_owned(lua_State *L, struct asio_thread *t);

/* Lets go of a failed thread once reported. */
void asio_sched_forget(struct asio_thread *t);

/* ---- turn.c ---- */

/* Runs turns until over(arg), asio.stop, Ctrl-C, or nothing is left; without `over` exactly one. A
 * turn: ready threads, flush, libuv (waiting for an event only if nobody is ready), deadlines, the
 * collector's share, reports. */
void asio_sched_loop(struct asio_rt *rt, bool wait, bool (*over)(const void *arg), const void *arg);

/* Raises "interrupted!" if Ctrl-C came. */
void asio_sched_raise_interrupted(lua_State *L, struct asio_rt *rt);

static inline bool asio_sched_has_ready(const struct asio_rt *rt)
{
    return rt->ready.first || rt->yielded.first;
}

/* Something is to be told at the end of the turn. */
static inline bool asio_sched_has_reports(const struct asio_rt *rt)
{
    return rt->failed || rt->reports > 0 || rt->groups_dropped > 0;
}

/* Something can still happen. */
static inline bool asio_sched_alive(const struct asio_rt *rt)
{
    return rt->alive > 0 || asio_sched_has_ready(rt);
}

/* Raises the report that light threads wait and nothing can wake them. */
int asio_sched_deadlock(lua_State *L, struct asio_rt *rt);

#endif
