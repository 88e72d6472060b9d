/* SPDX-License-Identifier: MIT
 *
 * Light threads: spawned, resumed and woken. A source that completes a wait calls asio_sched_wake from a libuv
 * callback (the light thread runs at once: its data is still in the cache) or asio_sched_ready from Lua (the
 * light thread is queued, so that two of them that wake each other cannot starve the loop). park.h suspends
 * them, turn.h runs what is queued. */
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
 * only by references of the script to the handle; freed by the collector; if the state closes first nothing of it
 * needs closing. */
struct asio_thread {
    struct asio_wait wait;
    lua_State *co; /* NULL once ended; anchored in its slot while not */
    int nargs;     /* NEW: arguments on co, above the function */
    int nresults;  /* DONE: results kept in the environment table */
    uint32_t id;
    uint8_t state;            /* enum asio_thread_state */
    bool joined;              /* the outcome was taken, or is waited for: no report */
    bool by_cancel;           /* FAILED: by being cancelled, which is no error to report */
    bool kept;                /* has an environment table of its own: name, results, error */
    bool owns;                /* a server's handler: the connection to abort on error is in the slot */
    bool escaped;             /* the script knows its coroutine: it is not used again */
    bool held;                /* its slot is not given back by its end if it fails */
    bool reports;             /* runs the script's on_error: its own error goes to stderr */
    uint32_t born;            /* uv_now() when it was spawned */
    struct asio_thread *next; /* ready list or failed list */
    struct asio_wait_list joiners;
    struct asio_counter *counter; /* counts it until it has ended, or NULL */
};

enum asio_spawn {
    ASIO_SPAWN_PLAIN,
    ASIO_SPAWN_OWNER,     /* the value below the function (popped too) is aborted if the thread fails */
    ASIO_SPAWN_REPORTER,  /* runs the script's on_error */
    ASIO_SPAWN_CHILD,     /* of a group: the caller gives the slot back if it fails within its start */
    ASIO_SPAWN_CANCELLED, /* the same, cancelled from the start */
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

/* Ends a parked wait; false if it was over already. The source has unlinked it. */
bool asio_sched_wake(struct asio_wait *w, int status);  /* from libuv callbacks: runs it now */
bool asio_sched_ready(struct asio_wait *w, int status); /* from anywhere: runs it soon */

/* The wait that ends at once: lets the others run, and the loop look, before it runs again. */
extern const struct asio_wait_op asio_yield_op;

/* Ends a wait from outside of its source: unlinks it, then as asio_sched_ready. */
void asio_sched_abort(struct asio_wait *w, int status);

/* Something that may interrupt this record has happened (from a timer: it then runs at once). */
void asio_sched_interrupt(struct asio_wait *w);

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

static inline bool asio_sched_has_ready(const struct asio_rt *rt)
{
    return rt->ready.first || rt->yielded.first;
}

/* Something is to be told at the end of the turn. */
static inline bool asio_sched_has_reports(const struct asio_rt *rt)
{
    return rt->failed || rt->reports > 0 || rt->report_due;
}

/* Something can still happen. */
static inline bool asio_sched_alive(const struct asio_rt *rt)
{
    return rt->alive > 0 || asio_sched_has_ready(rt);
}

/* Has the error that ended a light thread told at the end of the turn, unless something joins it by then. */
void asio_sched_report(struct asio_thread *t);

/* Takes it back: the caller sees to the error, and to the slot. */
void asio_sched_withdraw(struct asio_thread *t);

/* Has the text at the top of L (popped) told at the end of the turn. Raises out of memory. */
void asio_sched_report_text(lua_State *L, struct asio_rt *rt);

#endif
