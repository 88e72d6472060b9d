/* SPDX-License-Identifier: MIT
 *
 * A heap of deadlines. A timer is embedded in whatever it belongs to and costs no allocation of
 * its own. Moving a deadline later, or clearing it, is one store: the heap entry keeps its old
 * key and is put right when it comes to the top. (A uv_timer_t each was measured at 0.3 us to
 * start and 1.7 us to fire with a million of them; the runtime drives this heap with one.)
 *
 * Lifetime: the owner must call asio_timer_remove before its memory goes. */
#ifndef ASIO_TIMER_HEAP_H
#define ASIO_TIMER_HEAP_H

#include "base/asio.h"

#define ASIO_NEVER UINT64_MAX

struct asio_timer {
    void (*fire)(struct asio_timer *t); /* called once when the deadline has passed */
    uint64_t at;                        /* uv_hrtime() nanoseconds; ASIO_NEVER: not set */
    uint32_t index;                     /* place in the heap + 1; 0: not in it */
};

struct asio_timer_entry {
    uint64_t key; /* <= timer->at, unless the timer was cleared */
    struct asio_timer *timer;
};

struct asio_timer_heap {
    struct asio_timer_entry *heap;
    uint32_t count, capacity;
};

void asio_timer_init(struct asio_timer *t, void (*fire)(struct asio_timer *));

/* Sets or moves the deadline. Returns 0 or UV_ENOMEM (the timer is then not set). */
int asio_timer_set(struct asio_timer_heap *ts, struct asio_timer *t, uint64_t at);

/* Unsets the deadline; the timer may stay in the heap. */
static inline void asio_timer_clear(struct asio_timer *t)
{
    t->at = ASIO_NEVER;
}

void asio_timer_remove(struct asio_timer_heap *ts, struct asio_timer *t);

/* Takes the first timer whose deadline is <= now out of the heap and unsets it; NULL: none. */
struct asio_timer *asio_timer_heap_pop(struct asio_timer_heap *ts, uint64_t now);

/* The earliest deadline, or ASIO_NEVER. */
uint64_t asio_timer_heap_next(struct asio_timer_heap *ts);

/* No deadline is earlier than this. Costs nothing, where asio_timer_heap_next puts moved timers right. */
static inline uint64_t asio_timer_heap_bound(const struct asio_timer_heap *ts)
{
    return ts->count ? ts->heap[0].key : ASIO_NEVER;
}

void asio_timer_heap_free(struct asio_timer_heap *ts);

#endif
