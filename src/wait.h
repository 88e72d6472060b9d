/* SPDX-License-Identifier: MIT
 *
 * The wait record: what every waiting operation has in common. Whoever starts an operation fills
 * in `op` and `source`, links the record where the operation can find it, and parks (sched.h). The record
 * is then ended exactly once: by its source (done), or by somebody else (deadline, cancel, the
 * end of a run), who has it unlinked through op->abort. The first to end it wins.
 *
 * What a waiting C function returns to its Lua shim starts with a token, so that the shim can
 * tell a completion from an interrupt to raise, and both from values that somebody passed to
 * coroutine.resume by hand. Tokens are random numbers of 52 bits, the runtime's own: nobody makes
 * one up. (Light userdata would do, but pushing one was measured at five times the cost.)
 *
 * Lifetime: part of a light thread (or, for the main chunk, of the runtime). Referenced by its
 * source only while parked; by the heap of deadlines until the light thread ends. */
#ifndef ASIO_WAIT_H
#define ASIO_WAIT_H

#include "runtime.h"

struct asio_wait;

struct asio_wait_op {
    const char *name; /* what a dump shows: "read" */
    bool outside;     /* something outside of this Lua state can end it */
    /* Unlinks the record from its source, which must not touch it again. Called at most once,
     * never after the source ended the wait. May note things in the record for `push`. */
    void (*abort)(struct asio_wait *w);
    /* Pushes token and results for w->status, returns how many (at most ASIO_WAIT_RESULTS). If
     * it raises out of memory, nothing may have been consumed. NULL: true, or the failure. */
    int (*push)(lua_State *L, struct asio_wait *w);
};

enum { ASIO_WAIT_RESULTS = 8 };

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
    } u;
    int status;    /* 0 or a libuv error, once done */
    uint8_t state; /* enum asio_wait_state */
    bool main;     /* the main chunk's: its results are put on its own stack at once */
    bool counted;  /* in rt->alive */
};

static inline void asio_push_ok(lua_State *L, const struct asio_rt *rt)
{
    lua_pushnumber(L, rt->token_ok);
}

/* Token, then `true`: returns 2. */
int asio_push_true(lua_State *L);

/* Token, nil, message, code: returns 4. */
int asio_push_fail(lua_State *L, int status);

/* A wait's status when the light thread was cancelled; no libuv error has this number. */
enum { ASIO_INTERRUPTED = -1000000 };

/* Token, the object to raise: returns 2. */
int asio_push_interrupt(lua_State *L, struct asio_rt *rt);

/* Pushes what a done wait returns. */
int asio_wait_push(lua_State *L, struct asio_wait *w);

/* A list of records in order of arrival. */
struct asio_wait_list {
    struct asio_wait *first, *last;
};
void asio_wait_list_add(struct asio_wait_list *list, struct asio_wait *w);
void asio_wait_list_remove(struct asio_wait_list *list, struct asio_wait *w);

#endif
