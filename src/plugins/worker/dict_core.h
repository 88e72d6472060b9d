/* SPDX-License-Identifier: MIT
 *
 * A dict without its operations: stripes, entries, what they may take.
 *
 * Keys are spread over stripes, each with a lock, a table, and lists of its own; no more than one of these locks is held
 * at a time. `room`, the lock of what concerns all stripes, is taken inside of it. Times are those of the loop, in
 * nanoseconds; 0 as a time of expiry: never.
 *
 * What counts as the dict's bytes: entries with their keys, values, lists, tables. */
#ifndef ASIO_WORKER_DICT_CORE_H
#define ASIO_WORKER_DICT_CORE_H

#include "plugins/worker/dict_expiry.h"
#include "plugins/worker/dict_table.h"
#include "plugins/worker/worker.h"

/* Guarded by its lock. */
struct dict_stripe {
    uv_mutex_t lock;
    struct dict_table table;
    struct dict_expiry expiry;
    struct dict_entry *newest, *oldest;
    uint64_t versions; /* given so far */
    uint64_t soonest;  /* `expires` of the stripe's hint */
    size_t bytes;
};

/* Where there is something to free. Guarded by `room`. */
struct dict_hint {
    uint64_t used;    /* no later than the oldest entry was; UINT64_MAX: none */
    uint64_t expires; /* no later than the first entry does */
};

/* Made by asio_dict_new; freed by asio_dict_free, when no other thread knows it any more. */
struct dict {
    uint64_t seed[2];
    unsigned count;   /* of stripes: a power of two */
    size_t max_bytes; /* 0: no limit, and the rest is not used */
    bool evict;
    uv_mutex_t room;
    size_t bytes; /* of all stripes; guarded by room */
    struct dict_hint *hints;
    struct dict_stripe stripes[];
};

/* A key in its stripe, while that is locked. */
struct dict_at {
    struct dict *d;
    struct dict_stripe *s;
    const struct dict_key *key;
    struct dict_entry *entry; /* NULL: absent */
    uint64_t now;             /* 0: not looked up yet */
    size_t need;              /* bytes that this change has charged, or could not: for the next attempt */
    bool changed;             /* tables may have to change their sizes */
};

/* NULL: out of memory. */
struct dict *asio_dict_new(size_t max_bytes, bool evict);
void asio_dict_free(struct dict *d);

/* Removes all entries, of one stripe after the other. */
void asio_dict_clear(struct dict *d);

/* Locks the stripe of a key and finds its entry, if it has not expired; or a stripe. */
void asio_dict_enter(struct dict_at *at, struct dict *d, struct dict_key *key);
void asio_dict_enter_stripe(struct dict_at *at, struct dict *d, unsigned stripe);
void asio_dict_leave(struct dict_at *at);

/* Enters, calls `change`, leaves; again as long as it returns UV_ENOBUFS and room can be made. Returns what it
 * returns, UV_ENOMEM instead of UV_ENOBUFS. */
int asio_dict_change(
    struct dict *d, struct dict_key *key, int (*change)(struct dict_at *at, void *arg), void *arg);

/* The entry has been used, for the order of eviction; or changed as well. */
void asio_dict_touch(struct dict_at *at);
void asio_dict_touch_changed(struct dict_at *at);

/* So many bytes are to be allocated, or were freed. UV_ENOBUFS: there is no room. */
int asio_dict_charge(struct dict_at *at, size_t more, size_t less);
void asio_dict_refund(struct dict_at *at, size_t less);

/* Whether an entry of this size, as a whole, could be in the dict at all: to be asked before others are evicted. */
bool asio_dict_fits(const struct dict *d, size_t size);

/* Makes sure that the entry can be given a time of expiry: 0, UV_ENOBUFS, UV_ENOMEM. */
int asio_dict_reserve_expiry(struct dict_at *at);
void asio_dict_set_expiry(struct dict_at *at, uint64_t expires);

/* Makes at->entry, without a value and an expiry, but charges `more` bytes for them: 0, UV_ENOBUFS, UV_ENOMEM. */
int asio_dict_add_entry(struct dict_at *at, size_t more);

void asio_dict_remove_entry(struct dict_at *at, struct dict_entry *e);

/* Frees up to so many entries that have expired; not at->entry. */
void asio_dict_purge(struct dict_at *at, size_t max);

#endif
