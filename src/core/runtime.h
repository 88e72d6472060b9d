/* SPDX-License-Identifier: MIT
 *
 * The runtime: what one Lua state has once. It owns the libuv loop, the heap of deadlines, the
 * list of what is to be flushed, and a Lua thread of its own on which everything runs that
 * libuv calls. It knows no streams and no light threads: those hang their own state here, and
 * are told of the end through the hooks that libuv handles carry (see struct asio_handle_ops).
 *
 * Lifetime: created by the first require, as a userdata anchored in the registry before any
 * handle exists, so that lua_close collects it last; its finalizer closes every handle and runs
 * the loop until they are gone. Its memory outlives it to the end of lua_close, with `closed`
 * set, so that finalizers that come later find a runtime that refuses politely. */
#ifndef ASIO_RUNTIME_H
#define ASIO_RUNTIME_H

#include "base/asio.h"
#include "base/buffer.h"
#include "core/part.h"
#include "sys/sys.h"
#include "base/timer_heap.h"

#include <assert.h>

struct asio_plugin;
struct asio_thread;
struct asio_wait;
struct asio_scope;

/* Something that wants its output sent when the running light thread parks or ends. */
struct asio_flush_node {
    struct asio_flush_node *next; /* itself: last in the list; NULL: not in it */
    void (*flush)(struct asio_flush_node *node);
};

/* handle->data of every libuv handle of this loop points to a struct whose first member is a
 * pointer to such a table. */
struct asio_handle_ops {
    /* The state is being closed: one last non-blocking effort, then uv_close. No Lua. */
    void (*teardown)(void *owner);
};

_Static_assert(offsetof(struct asio_handle_ops, teardown) == 0, "a transport begins with such a table");

struct asio_coroutine {
    lua_State *L;
    int slot; /* place in the table that anchors it */
};

struct asio_thread_list {
    struct asio_thread *first, *last;
};

/* What asio.stats tells. */
struct asio_stats {
    uint64_t spawned;     /* light threads, ever */
    size_t threads_peak;  /* light threads alive at once, at most */
    uint64_t connections; /* opened, ever */
    size_t connections_open;
    uint64_t bytes_in, bytes_out;
    uint64_t handshakes, handshakes_failed; /* of servers */
    uint64_t longest_turn;                  /* ns that one turn kept the processor */
};

/* Resumes nest on the C stack (a spawn runs the new light thread inside the call of the old one): beyond this
 * depth the new one is queued. */
enum { ASIO_DEPTH_MAX = 100 };

enum { ASIO_POOL_MAX = 100, ASIO_SCRATCH_SIZE = 65536 };

struct held_hook;

struct asio_rt {
    uv_loop_t loop;
    uv_timer_t clock;   /* wakes the loop for the first deadline */
    uint64_t clock_at;  /* the loop time in ms it is armed for; ASIO_NEVER: not armed */
    uv_signal_t sigint; /* active while a loop runs; data set once initialised */
    struct asio_timer_heap timers;
    lua_State *L;  /* for what libuv calls; anchored in the registry */
    char *scratch; /* where reads land; valid for one read callback */
    struct asio_flush_node *flush_list;
    struct asio_blocks blocks; /* for what arrives and for what is sent */
    struct asio_outbuf_env out_env;
    size_t sending; /* transport writes on their way */
    size_t alive;   /* reasons for asio.run to go on, beside ready light threads; see asio_rt_ref */
    size_t shared;  /* those of them that are endless waits for other Lua states of this process */
    uint64_t turns; /* of the loop, since the start */
    uint64_t asked; /* uv_hrtime() before libuv was asked last, if there were any deadlines */
    uint64_t turn_began, wait_began, woken_at; /* uv_hrtime(), for stats.longest_turn; 0: not in this turn */
    size_t gc_debt; /* bytes outside of Lua's heap the collector has not been driven for */

    double token_ok, token_fail, token_interrupt; /* secrets between C and the shims, see wait.h */
    bool loop_open, closed, freed;
    bool forked;    /* closed, since this process is a fork of its own; see asio_rt_notice_fork */
    unsigned forks; /* asio_sys_forks when it was made */
    uv_pid_t pid;
    unsigned stdio_closed; /* bits: these numbers were not open at the start */
    bool watches_sigint;
    bool guest;    /* Ctrl-C is seen to by another runtime of this process */
    int unflushed; /* light threads that have run since the last flush */
    bool polling;  /* libuv is on the C stack */
    bool sigpipe_blocked;
    enum asio_sigpipe sigpipe; /* while blocked: how to end that */
    bool looping;              /* a run or a wait of the main chunk is on the C stack */
    bool stop, interrupted;
    bool stop_due;  /* asio.stop came as a wait of the main chunk was over: it ends the next one */
    bool deadlock;  /* what remains are waits that no Lua state of this process will end */
    bool attention; /* what drives the loop has something to look at: do not wait for events */

    int refs[ASIO_REFS];              /* by enum asio_ref: keys in the registry */
    const struct asio_plugin *plugin; /* what plugins are given */
    lua_CFunction module;             /* opens the module in another state */
    void *slots[ASIO_PARTS]; /* by enum asio_part_id: state of the parts, each set by its part alone */
    const struct asio_part *const *parts;  /* ends with NULL */
    unsigned parts_begun, parts_open;      /* the first so many of `parts` */
    void (*body)(lua_State *L, void *arg); /* arguments of the protected call being made */
    void *body_arg;
    struct held_hook *held_hook; /* of the protected call that begins; see runtime.c */
    bool hook_called;            /* see hook.c */

    /* the scheduler's (sched.c) */
    struct asio_thread *current;
    struct asio_wait *self;          /* the record of the running light thread, or the main chunk's */
    struct asio_thread_list ready;   /* to run */
    struct asio_thread_list yielded; /* to run after the loop has looked for events */
    struct asio_thread *failed;      /* to be reported at the end of the turn */
    struct asio_wait *main_wait;     /* the main chunk's one record; made at the start */
    lua_State *main_L;               /* while it waits: where its results go */
    int main_results;
    struct asio_coroutine pool[ASIO_POOL_MAX];
    int pool_count;
    int slot_top, slot_free; /* slots ever used; head of the free list kept in the table */
    unsigned depth;          /* nested resumes */
    uint32_t last_id;
    size_t threads;                                          /* alive */
    void (*thread_ended)(struct asio_thread *t, int status); /* set by thread.c */
    void (*turn_ended)(struct asio_rt *rt);
    /* Called before a light thread runs and when it has parked or ended; NULL: not. It may change itself. */
    void (*on_resume)(struct asio_rt *rt, struct asio_thread *t, bool begins);
    /* Called before the loop waits for events and afterwards, or NULL. */
    void (*on_waiting)(void *arg, bool begins);
    void *on_waiting_arg;

    struct asio_scope *spare_scopes; /* see scope.c */
    unsigned spare_scopes_count;
    uint64_t last_scope;
    int reports;         /* texts to be reported at the end of the turn, in the table of ASIO_REF_REPORTS */
    bool report_due;     /* a part has something to report then that needs no text before */
    int sigint_watchers; /* open asio.signal('SIGINT') */
    struct asio_stats stats;
};

/* The runtime of this Lua state; made at the first call. Raises. */
struct asio_rt *asio_rt_open(lua_State *L);

/* The runtime behind the running C function, which has it as its first upvalue. */
static inline struct asio_rt *asio_rt_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* Runs body(rt->L, arg) so that no Lua error leaves it. Returns 0; LUA_ERRMEM; or LUA_ERRRUN when the body raised, or a
 * finalizer of the script's that ran inside (LuaJIT passes its error on to the code that allocates). Such an error is
 * told on standard error, with `doing`: "collecting garbage". For use from libuv callbacks. */
int asio_rt_protect(struct asio_rt *rt, void (*body)(lua_State *L, void *arg), void *arg, const char *doing);

/* The same for a body that must be done: runs it again after LUA_ERRRUN, since a finalizer that raised has gone. */
int asio_rt_protect_retry(
    struct asio_rt *rt, void (*body)(lua_State *L, void *arg), void *arg, const char *doing);

/* Opens the parts of a list, which ends with NULL, that are not open yet: after an error the next call goes on
 * with the part that raised. Raises what a part raises. */
void asio_rt_open_parts(lua_State *L, struct asio_rt *rt, const struct asio_part *const *parts);

/* The state that a part keeps in the runtime; NULL before it is set, and once the part is closed. */
static inline void *asio_rt_part(const struct asio_rt *rt, enum asio_part_id id)
{
    return rt->slots[id];
}

static inline void asio_rt_part_set(struct asio_rt *rt, enum asio_part_id id, void *state)
{
    rt->slots[id] = state;
}

/* In the child of a fork the runtime is the parent's: its loop, sockets and helper threads are shared, or not there.
 * The first call in the child closes the runtime without effect on anything that the parent has. True: it is closed
 * for that reason. Called before everything that might use the loop or a socket: methods, waits, the turn. */
void asio_rt_abandon(struct asio_rt *rt);
static inline bool asio_rt_notice_fork(struct asio_rt *rt)
{
    if (rt->forks != asio_sys_forks)
        asio_rt_abandon(rt);
    return rt->forked;
}

/* The same, by the number of the process: for a fork that libc was not asked for. */
bool asio_rt_notice_process(struct asio_rt *rt);

/* Why a closed runtime refuses; NULL: it is open. */
const char *asio_rt_obstacle(struct asio_rt *rt);

/* One reason more, or less, for asio.run to go on. */
static inline void asio_rt_ref(struct asio_rt *rt)
{
    rt->alive++;
}

static inline void asio_rt_unref(struct asio_rt *rt)
{
    assert(rt->alive > 0);
    rt->alive--;
}

/* Keeps the value at a stack index of L alive until released. Returns LUA_NOREF when memory is
 * out (in a protected body: raises). Releasing allocates nothing; it takes the runtime as void * to serve as a callback. */
int asio_rt_anchor(struct asio_rt *rt, lua_State *L, int index);
void asio_rt_push_anchored(lua_State *L, struct asio_rt *rt, int ref);
void asio_rt_release(void *rt, int ref);

/* A table from C objects to the userdata that hold them, which it does not keep alive. Adding: the
 * userdata is at the top of L; may raise. Pushing: nil when it has been, or is being, collected. */
void asio_rt_wrapper_add(lua_State *L, struct asio_rt *rt, void *object);
void asio_rt_wrapper_push(lua_State *L, struct asio_rt *rt, void *object);

static inline void asio_rt_flush_later(struct asio_rt *rt, struct asio_flush_node *node)
{
    if (!node->next) {
        node->next = rt->flush_list ? rt->flush_list : node;
        rt->flush_list = node;
    }
}
void asio_rt_flush(struct asio_rt *rt);
/* A light thread has parked or ended: flushes, while libuv runs only for every 64th, and then at the
 * end. Reading and running for all that have something first and sending for all then was
 * measured at a tenth of the processor time of an echo server: the code of each half stays in the cache,
 * and a peer that was woken finds more to do before it sleeps again. Large output goes earlier, since it would leave
 * the cache, and the runtime's store of blocks, before it is sent. */
void asio_rt_flush_soon(struct asio_rt *rt);
/* Takes a node out of the list, before its memory goes. */
void asio_rt_flush_forget(struct asio_rt *rt, struct asio_flush_node *node);

/* The deadline that lies `seconds` ahead; ASIO_NEVER beyond what the clock can hold. With 0 seconds what
 * is there now still counts: it is odd (all others are even), and passes once libuv has been asked. */
uint64_t asio_rt_deadline(double seconds);

static inline bool asio_rt_is_soon(uint64_t deadline)
{
    return deadline != ASIO_NEVER && (deadline & 1);
}

/* The loop's scratch buffer, or an empty one when memory is short. */
uv_buf_t asio_rt_scratch(struct asio_rt *rt);

/* Tells the collector of memory it cannot see; pays off by collecting at the end of the turn. */
static inline void asio_rt_external(struct asio_rt *rt, size_t bytes)
{
    rt->gc_debt += bytes;
}

/* A full collection, for what it may close; not against a script that stopped the collector. */
void asio_rt_collect(struct asio_rt *rt);

/* Waiting for events is over, if it was not before. */
static inline void asio_rt_woken(struct asio_rt *rt)
{
    if (rt->wait_began && !rt->woken_at)
        rt->woken_at = uv_hrtime();
}

#endif
