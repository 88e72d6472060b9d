/* SPDX-License-Identifier: MIT
 *
 * The hash table of a stripe of a dict. It changes its size a few places at a time, so that no call takes long. It
 * allocates its places and owns no entries; accounting is the caller's. */
#ifndef ASIO_WORKER_DICT_TABLE_H
#define ASIO_WORKER_DICT_TABLE_H

#include "plugins/worker/dict_entry.h"

struct dict_places {
    struct dict_entry **at; /* NULL: none */
    uint32_t mask;
};

/* All zero: empty. While the size changes, entries move from `now` to `next`: those of place p of the smaller one, and
 * of the place of the larger one that belongs to p as well, have moved if p < moved. */
struct dict_table {
    struct dict_places now, next;
    uint32_t moved;
    size_t count;
};

/* Of a key, for all dicts with this seed; SipHash-1-3. */
uint64_t asio_dict_hash(const uint64_t seed[2], const struct dict_key *key);

/* The link that points to the entry of the key, or NULL: at the end of a chain, where it can be put. The table has
 * places. */
struct dict_entry **asio_dict_table_find(struct dict_table *t, const struct dict_key *key);

/* The link that points to this entry. */
struct dict_entry **asio_dict_table_link(struct dict_table *t, const struct dict_entry *e);

/* How many places the table should get before an entry is added, or after some were removed; 0: as it is. */
uint32_t asio_dict_table_wants(const struct dict_table *t, bool adding);

/* Begins to change to that size; false: out of memory. */
bool asio_dict_table_resize(struct dict_table *t, uint32_t places);

/* Moves the entries of a few places; returns how many places were freed. */
uint32_t asio_dict_table_step(struct dict_table *t);

/* Frees the places of an empty table; returns how many. */
uint32_t asio_dict_table_reset(struct dict_table *t);

#endif
