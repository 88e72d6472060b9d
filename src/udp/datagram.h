/* SPDX-License-Identifier: MIT
 *
 * A queue of datagrams: received and not yet taken by the script, or on their way to the kernel. Each has an
 * address and its bytes, copied into blocks that hold many: one allocation for a hundred small
 * datagrams, and none while a queue fills and empties, since emptied blocks are kept for the next.
 *
 * Lifetime of struct asio_datagram: in a block of its queue until it is dropped; it does not move. */
#ifndef ASIO_DATAGRAM_H
#define ASIO_DATAGRAM_H

#include "base/asio.h"
#include "sys/sys.h"

struct asio_datagram_block;

struct asio_datagram_queue {
    struct asio_datagram_block *first, *last;
    size_t count;
    size_t cost; /* bytes, each datagram counted with ASIO_DATAGRAM_COST on top: empty ones take room too */
};

enum { ASIO_DATAGRAM_COST = 64 };

/* What the queues of one runtime share: emptied blocks. */
struct asio_datagram_env {
    struct asio_datagram_block *small, *large;
    int small_count, large_count;
};
void asio_datagram_env_free(struct asio_datagram_env *env);

static inline size_t asio_datagram_cost(size_t size)
{
    return size + ASIO_DATAGRAM_COST;
}

/* Copies a datagram behind the others; 0, or UV_ENOMEM (nothing is then added). */
int asio_datagram_add(
    struct asio_datagram_queue *q, struct asio_datagram_env *env, const struct asio_datagram *d);

/* The first one; NULL: there is none. */
struct asio_datagram *asio_datagram_first(const struct asio_datagram_queue *q);

/* Lists up to max from the front; returns how many. */
unsigned asio_datagram_gather(const struct asio_datagram_queue *q, struct asio_datagram **list, unsigned max);

/* Drops the first n. */
void asio_datagram_drop(struct asio_datagram_queue *q, struct asio_datagram_env *env, size_t n);

#endif
