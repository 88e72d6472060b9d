/* SPDX-License-Identifier: MIT
 * Queues of datagrams; see datagram.h. */
#include "udp/datagram.h"

#include <string.h>

/* A small block for the first datagrams of a queue, large ones when it goes on growing. */
enum { SMALL = 2 * 1024, LARGE = 16 * 1024, SPARE_SMALL = 16, SPARE_LARGE = 4, ALIGNMENT = 8 };

/* Owned by its queue, then by the spares; freed by whichever drops it. */
struct asio_datagram_block {
    struct asio_datagram_block *next;
    size_t start, end, capacity;
    union {
        struct asio_datagram align;
        char bytes[1];
    } data; /* capacity bytes: datagrams, one after the other, each followed by its bytes */
};

static size_t datagram_room(size_t size)
{
    return (sizeof(struct asio_datagram) + size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

static struct asio_datagram *datagram_at(const struct asio_datagram_block *b, size_t offset)
{
    return (struct asio_datagram *)(void *)((char *)b + offsetof(struct asio_datagram_block, data) + offset);
}

static struct asio_datagram_block *datagram_new_block(size_t capacity)
{
    struct asio_datagram_block *b = asio_mem.malloc(offsetof(struct asio_datagram_block, data) + capacity);
    if (b)
        b->capacity = capacity;
    return b;
}

static struct asio_datagram_block *datagram_take_block(
    struct asio_datagram_queue *q, struct asio_datagram_env *env, size_t need)
{
    bool large = q->first || need > SMALL;
    size_t capacity = large ? LARGE : SMALL;
    struct asio_datagram_block **spare = large ? &env->large : &env->small, *b = *spare;
    if (b && need <= capacity) {
        *spare = b->next;
        *(large ? &env->large_count : &env->small_count) -= 1;
    } else {
        b = datagram_new_block(need > capacity ? need : capacity);
    }
    if (!b)
        return NULL;
    b->next = NULL;
    b->start = b->end = 0;
    if (q->last)
        q->last->next = b;
    else
        q->first = b;
    q->last = b;
    return b;
}

static void datagram_give_back(struct asio_datagram_block *b, struct asio_datagram_env *env)
{
    bool large = b->capacity == LARGE, kept = large || b->capacity == SMALL;
    int *count = large ? &env->large_count : &env->small_count;
    if (!kept || *count == (large ? SPARE_LARGE : SPARE_SMALL)) {
        asio_mem.free(b);
        return;
    }
    struct asio_datagram_block **spare = large ? &env->large : &env->small;
    b->next = *spare;
    *spare = b;
    *count += 1;
}

static void datagram_free_all(struct asio_datagram_block *b)
{
    while (b) {
        struct asio_datagram_block *following = b->next;
        asio_mem.free(b);
        b = following;
    }
}

void asio_datagram_env_free(struct asio_datagram_env *env)
{
    datagram_free_all(env->small);
    datagram_free_all(env->large);
    *env = (struct asio_datagram_env){ 0 };
}

int asio_datagram_add(
    struct asio_datagram_queue *q, struct asio_datagram_env *env, const struct asio_datagram *d)
{
    size_t need = datagram_room(d->size);
    struct asio_datagram_block *b = q->last;
    if (!b || b->capacity - b->end < need)
        b = datagram_take_block(q, env, need);
    if (!b)
        return UV_ENOMEM;
    struct asio_datagram *copy = datagram_at(b, b->end);
    *copy = *d;
    copy->bytes = (char *)(copy + 1);
    if (d->size > 0)
        memcpy(copy + 1, d->bytes, d->size);
    b->end += need;
    q->count++;
    q->cost += asio_datagram_cost(d->size);
    return 0;
}

struct asio_datagram *asio_datagram_first(const struct asio_datagram_queue *q)
{
    return q->first ? datagram_at(q->first, q->first->start) : NULL;
}

unsigned asio_datagram_gather(const struct asio_datagram_queue *q, struct asio_datagram **list, unsigned max)
{
    unsigned count = 0;
    for (struct asio_datagram_block *b = q->first; b && count < max; b = b->next) {
        for (size_t offset = b->start; offset < b->end && count < max;) {
            list[count] = datagram_at(b, offset);
            offset += datagram_room(list[count++]->size);
        }
    }
    return count;
}

void asio_datagram_drop(struct asio_datagram_queue *q, struct asio_datagram_env *env, size_t n)
{
    for (; n > 0; n--) {
        struct asio_datagram_block *b = q->first;
        size_t size = datagram_at(b, b->start)->size;
        b->start += datagram_room(size);
        q->count--;
        q->cost -= asio_datagram_cost(size);
        if (b->start < b->end)
            continue;
        q->first = b->next;
        if (!q->first)
            q->last = NULL;
        datagram_give_back(b, env);
    }
}
