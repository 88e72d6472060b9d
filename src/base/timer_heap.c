/* SPDX-License-Identifier: MIT
 * A heap of deadlines; see timer_heap.h. Four children to a node: half the levels of a binary heap,
 * and siblings share a cache line, which is what counts with a million entries. */
#include "base/timer_heap.h"

enum { ARITY = 4 };

void asio_timer_init(struct asio_timer *t, void (*fire)(struct asio_timer *))
{
    t->fire = fire;
    t->at = ASIO_NEVER;
    t->index = 0;
}

static void put(struct asio_timer_heap *ts, uint32_t i, struct asio_timer_entry e)
{
    ts->heap[i] = e;
    e.timer->index = i + 1;
}

static void sift_up(struct asio_timer_heap *ts, uint32_t i, struct asio_timer_entry e)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / ARITY;
        if (ts->heap[parent].key <= e.key)
            break;
        put(ts, i, ts->heap[parent]);
        i = parent;
    }
    put(ts, i, e);
}

static void sift_down(struct asio_timer_heap *ts, uint32_t i, struct asio_timer_entry e)
{
    for (;;) {
        uint32_t first = i * ARITY + 1, best = i;
        uint64_t key = e.key;
        for (uint32_t c = first; c < first + ARITY && c < ts->count; c++) {
            if (ts->heap[c].key < key) {
                key = ts->heap[c].key;
                best = c;
            }
        }
        if (best == i)
            break;
        put(ts, i, ts->heap[best]);
        i = best;
    }
    put(ts, i, e);
}

static int timer_heap_grow(struct asio_timer_heap *ts)
{
    uint32_t capacity = ts->capacity ? ts->capacity * 2 : 16;
    void *heap = asio_mem.realloc(ts->heap, capacity * sizeof *ts->heap);
    if (!heap)
        return UV_ENOMEM;
    ts->heap = heap;
    ts->capacity = capacity;
    return 0;
}

int asio_timer_set(struct asio_timer_heap *ts, struct asio_timer *t, uint64_t at)
{
    struct asio_timer_entry e = { at, t };
    if (t->index == 0) {
        if (ts->count == ts->capacity && timer_heap_grow(ts) < 0)
            return UV_ENOMEM;
        ts->count++;
        sift_up(ts, ts->count - 1, e);
    } else if (at < ts->heap[t->index - 1].key) {
        sift_up(ts, t->index - 1, e);
    } /* later than its key: put right when it surfaces */
    t->at = at;
    return 0;
}

static void remove_at(struct asio_timer_heap *ts, uint32_t i)
{
    ts->heap[i].timer->index = 0;
    ts->count--;
    if (i == ts->count)
        return;
    struct asio_timer_entry last = ts->heap[ts->count];
    if (i > 0 && last.key < ts->heap[(i - 1) / ARITY].key)
        sift_up(ts, i, last);
    else
        sift_down(ts, i, last);
}

void asio_timer_remove(struct asio_timer_heap *ts, struct asio_timer *t)
{
    if (t->index)
        remove_at(ts, t->index - 1);
    t->at = ASIO_NEVER;
}

/* Puts moved and cleared timers right until the top's key is its true deadline. Memory is given
 * back when the heap has become much smaller than it was. */
uint64_t asio_timer_heap_next(struct asio_timer_heap *ts)
{
    while (ts->count > 0) {
        struct asio_timer_entry top = ts->heap[0];
        if (top.timer->at == top.key)
            return top.key;
        if (top.timer->at == ASIO_NEVER) {
            remove_at(ts, 0);
        } else {
            top.key = top.timer->at;
            sift_down(ts, 0, top);
        }
    }
    if (ts->capacity > 1024)
        asio_timer_heap_free(ts);
    return ASIO_NEVER;
}

struct asio_timer *asio_timer_heap_pop(struct asio_timer_heap *ts, uint64_t now)
{
    uint64_t next = asio_timer_heap_next(ts);
    if (next == ASIO_NEVER || next > now)
        return NULL;
    struct asio_timer *t = ts->heap[0].timer;
    remove_at(ts, 0);
    t->at = ASIO_NEVER;
    return t;
}

void asio_timer_heap_free(struct asio_timer_heap *ts)
{
    for (uint32_t i = 0; i < ts->count; i++)
        ts->heap[i].timer->index = 0; /* their owners may still remove them */
    asio_mem.free(ts->heap);
    ts->heap = NULL;
    ts->count = ts->capacity = 0;
}
