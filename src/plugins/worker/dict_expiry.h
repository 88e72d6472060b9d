/* SPDX-License-Identifier: MIT
 *
 * The entries of a stripe of a dict that expire: a heap, the soonest first. An entry that comes to expire later, or
 * never, stays in its place until that comes to the top: a change costs nothing then. Accounting is the caller's. */
#ifndef ASIO_WORKER_DICT_EXPIRY_H
#define ASIO_WORKER_DICT_EXPIRY_H

#include "plugins/worker/dict_entry.h"

struct dict_expiry_slot {
    uint64_t at; /* no later than the entry expires */
    struct dict_entry *entry;
};

/* All zero: empty. */
struct dict_expiry {
    struct dict_expiry_slot *slots;
    uint32_t count, size;
};

/* How many slots the heap should get before an entry is added, or after some were removed; 0: as it is. */
uint32_t asio_dict_expiry_wants(const struct dict_expiry *x, bool adding);

/* False: out of memory. 0: frees them. */
bool asio_dict_expiry_resize(struct dict_expiry *x, uint32_t slots);

/* e->expires has been set: to be called after each change to another time than never. There is a slot for it. */
void asio_dict_expiry_set(struct dict_expiry *x, struct dict_entry *e);

/* The entry goes. */
void asio_dict_expiry_remove(struct dict_expiry *x, struct dict_entry *e);

/* An entry that has expired at this time; NULL: none. */
struct dict_entry *asio_dict_expiry_first(struct dict_expiry *x, uint64_t now);

/* No entry expires before this time. */
static inline uint64_t dict_expiry_soonest(const struct dict_expiry *x)
{
    return x->count ? x->slots[0].at : UINT64_MAX;
}

#endif
