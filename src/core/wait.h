/* SPDX-License-Identifier: MIT
 *
 * The wait record: what every waiting operation has in common. A function that starts an operation fills
 * in `op` and `source`, links the record where the operation can find it, and parks (park.h). The record
 * is then ended exactly once: by its source (done), or from outside (a deadline, cancel, the end of a run), which
 * unlinks it through op->abort. The first end wins.
 *
 * It also knows what interrupts its light thread: being cancelled, and the scopes it has entered
 * (scope.h). Interrupts are level-triggered: every waiting function asks before its fast path.
 *
 * What a waiting C function returns to its Lua shim starts with a token, so that the shim can
 * tell a completion from an interrupt to raise, and both from values that a script passed to
 * coroutine.resume by hand. Tokens are random numbers of 52 bits, the runtime's own, which a script cannot
 * guess. (Light userdata would do, but pushing one was measured at five times the cost.)
 *
 * Lifetime: part of a light thread (or, for the main chunk, of the runtime). Referenced by its
 * source only while parked; by the heap of deadlines until the light thread ends. */
#ifndef ASIO_WAIT_H
#define ASIO_WAIT_H

#include "core/runtime.h"
#include "plugin/wait.h"

/* A stretch of a light thread's run (asio.timeout, asio.shield, a group's function).
 * Created by entering it; owned by the record it is entered on, or, while a user's own coroutine is
 * suspended inside of it, by that coroutine's struct asio_user_coroutine; freed by leaving it, at the end
 * of the light thread, or with the coroutine; if the state closes first, with the record. */
struct asio_scope {
    struct asio_timer timer; /* its deadline */
    struct asio_scope *outer;
    struct asio_wait *wait;     /* the record it is entered on; NULL: suspended with a coroutine */
    struct asio_scope **holder; /* a pointer to it that is cleared when it goes, or NULL */
    uint64_t id;                /* names it to the function that leaves it */
    int ref;                    /* anchor of the object that it raises; LUA_NOREF: none yet */
    bool shield;                /* keeps interrupts from outside out, until its deadline */
    bool tripped;               /* its deadline has passed, or it was cancelled */
};

/* A user's own coroutine that asio.coroutine resumes, see user_coroutine.c. */
struct asio_user_coroutine {
    lua_State *co;
    struct asio_wait *wait;            /* of the light thread it runs for; NULL: it does not run */
    struct asio_user_coroutine *outer; /* its resumer, if that is a coroutine too */
    struct asio_scope *mark;           /* the scope its resumer was in */
    struct asio_scope *suspended;      /* innermost of the scopes it was in when it yielded */
    bool stuck;                        /* a call that cannot be suspended lies below it */
};

enum asio_wait_state { ASIO_WAIT_IDLE, ASIO_WAIT_PARKED, ASIO_WAIT_DONE };

struct asio_wait {
    const struct asio_wait_op *op;
    struct asio_rt *rt;
    void *source;
    struct asio_wait *next, *prev; /* in the source's list, if it keeps one */
    struct asio_timer timer;       /* the deadline of this wait alone */
    union {
        struct { /* reading */
            size_t need, max;
        } in;
        struct { /* writing: ends when this many bytes have ever been sent */
            uint64_t target, unsent;
        } out;
        struct { /* relaying: bytes each way */
            uint64_t sent[2];
        } relay;
        struct { /* wait_fd: UV_READABLE, UV_WRITABLE; wanted, then found */
            int events;
        } fd;
    } u;
    /* Called at its end, for a record that no light thread is parked on (a branch of a select, a child of a
     * group); else NULL. */
    void (*callback)(struct asio_wait *w);
    struct asio_scope *scope; /* innermost */
    struct asio_user_coroutine
        *user_coroutine; /* innermost user's coroutine; NULL: the light thread itself runs */
    int status;          /* 0 or a libuv error, once done */
    int slot;            /* of its light thread, see coroutine.h; 0: the main chunk's */
    uint32_t since;      /* uv_now() when it parked */
    uint8_t state;       /* enum asio_wait_state */
    bool main;           /* the main chunk's: its results are put on its own stack at once */
    uint8_t counted;     /* 1: in rt->alive; 2: and in rt->shared */
    bool cancelled;      /* interrupted for good: every wait raises from now on */
    bool deaf;           /* interrupts wait until this wait is over; set and cleared by what waits */
};

/* A record with nothing on it; with `callback` one that no light thread parks on, and that can be ended at once. */
void asio_wait_init(struct asio_wait *w, struct asio_rt *rt, void (*fire)(struct asio_timer *t));
void asio_wait_init_callback(struct asio_wait *w, struct asio_rt *rt, const struct asio_wait_op *op,
    void *source, void (*callback)(struct asio_wait *w));

static inline void asio_push_ok(lua_State *L, const struct asio_rt *rt)
{
    lua_pushnumber(L, rt->token_ok);
}

/* Token, then `true`: returns 2. */
int asio_push_true(lua_State *L);

/* Token, nil, message, code: returns 4. */
int asio_push_fail(lua_State *L, int status);

/* Token, then the three values of an asio_error_push_text at the top: returns 4. */
int asio_push_failed(lua_State *L);

/* A wait's status when it was interrupted; no libuv error has this number. */
enum { ASIO_INTERRUPTED = -1000000 };

/* Looks at the scopes of a record, which has some or was cancelled. With several interrupts the
 * outermost that no shield keeps out is the one: *which, NULL for being cancelled. */
bool asio_wait_interrupt(const struct asio_wait *w, struct asio_scope **which);

static inline bool asio_wait_interrupted(const struct asio_wait *w)
{
    struct asio_scope *which;
    return (w->cancelled || w->scope) && asio_wait_interrupt(w, &which);
}

/* Token, the object to raise in the running light thread (or main chunk): returns 2. */
int asio_push_interrupt(lua_State *L, struct asio_rt *rt);

/* The value at `index` is what some interrupt raises: a scope's object, or asio.cancelled. */
bool asio_wait_is_interrupt(lua_State *L, struct asio_rt *rt, int index);

/* Pushes what a done wait returns. */
int asio_wait_push(lua_State *L, struct asio_wait *w);

static inline void asio_wait_uncount(struct asio_wait *w)
{
    if (w->counted) {
        asio_rt_unref(w->rt);
        w->rt->shared -= w->counted >> 1;
    }
    w->counted = 0;
}

/* The reasons for a waiting record to keep run going: that something outside can end the wait, or that it has a
 * deadline (`limited`), or a scope's. */
static inline void asio_wait_count(struct asio_wait *w, bool limited)
{
    for (struct asio_scope *s = w->scope; s && !limited; s = s->outer)
        limited = s->timer.at != ASIO_NEVER;
    asio_wait_uncount(w);
    if (!limited && !w->op->outside)
        return;
    w->counted = 1 + (w->op->shared && !limited);
    asio_rt_ref(w->rt);
    w->rt->shared += w->counted >> 1;
}

/* The value that a record gives, or is given, while it waits (struct asio_wait_op.push fetches it).
 * Setting pops it from L. None of these allocates. */
void asio_wait_item_set(lua_State *L, struct asio_wait *w);
void asio_wait_item_get(lua_State *L, struct asio_wait *w); /* and clears it */
void asio_wait_item_clear(struct asio_wait *w);

void asio_wait_list_add(struct asio_wait_list *list, struct asio_wait *w);
void asio_wait_list_remove(struct asio_wait_list *list, struct asio_wait *w);

#endif
