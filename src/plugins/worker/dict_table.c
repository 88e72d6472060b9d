/* SPDX-License-Identifier: MIT
 *
 * The hash table of a stripe of a dict; see dict_table.h. */
#include "plugins/worker/dict_table.h"

#include "plugins/worker/worker.h"

#include <string.h>

enum {
    LEAST_PLACES = 8,
    PLACES_A_STEP = 4 /* more than one, so that a growth has ended before the next one is due */
};

static inline uint64_t siphash_turn(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void siphash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = siphash_turn(v[1], 13) ^ v[0];
    v[3] = siphash_turn(v[3], 16) ^ v[2];
    v[0] = siphash_turn(v[0], 32) + v[3];
    v[2] += v[1];
    v[1] = siphash_turn(v[1], 17) ^ v[2];
    v[3] = siphash_turn(v[3], 21) ^ v[0];
    v[2] = siphash_turn(v[2], 32);
}

static inline void siphash_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    siphash_round(v);
    v[0] ^= word;
}

/* Words are taken in the machine's order of bytes: a hash never leaves the process. */
uint64_t asio_dict_hash(const uint64_t seed[2], const struct dict_key *key)
{
    uint64_t v[4] = { seed[0] ^ 0x736f6d6570736575, seed[1] ^ 0x646f72616e646f6d,
        seed[0] ^ 0x6c7967656e657261, seed[1] ^ 0x7465646279746573 };
    uint64_t word;
    size_t i = 0;
    for (; i + sizeof word <= key->length; i += sizeof word) {
        memcpy(&word, key->bytes + i, sizeof word);
        siphash_word(v, word);
    }
    word = 0;
    memcpy(
        &word, key->bytes + i, key->length - i); /* at most 7: one byte of the word is left at either end */
    word = (word ^ siphash_turn((uint64_t)key->length, 56)) + key->is_number;
    siphash_word(v, word);
    v[2] ^= 0xff;
    siphash_round(v);
    siphash_round(v);
    siphash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static inline uint32_t table_smaller(const struct dict_table *t)
{
    return t->now.mask < t->next.mask ? t->now.mask : t->next.mask;
}

static inline struct dict_entry **table_place(struct dict_table *t, uint32_t hash)
{
    if (t->next.at && (hash & table_smaller(t)) < t->moved)
        return &t->next.at[hash & t->next.mask];
    return &t->now.at[hash & t->now.mask];
}

struct dict_entry **asio_dict_table_find(struct dict_table *t, const struct dict_key *key)
{
    struct dict_entry **link = table_place(t, key->hash);
    for (; *link; link = &(*link)->next) {
        const struct dict_entry *e = *link;
        if (e->hash == key->hash && e->key_length == key->length && e->key_is_number == key->is_number &&
            !memcmp(e->key, key->bytes, key->length))
            break;
    }
    return link;
}

struct dict_entry **asio_dict_table_link(struct dict_table *t, const struct dict_entry *e)
{
    struct dict_entry **link = table_place(t, e->hash);
    while (*link != e)
        link = &(*link)->next;
    return link;
}

uint32_t asio_dict_table_wants(const struct dict_table *t, bool adding)
{
    if (!t->now.at)
        return adding ? LEAST_PLACES : 0;
    size_t places = (size_t)t->now.mask + 1;
    if (t->next.at)
        return 0;
    if (adding)
        return t->count >= places && places <= UINT32_MAX / 4 ? (uint32_t)places * 2 : 0;
    return places > LEAST_PLACES && t->count < places / 4 ? (uint32_t)places / 2 : 0;
}

/* Places of a table that grows or shrinks are written as its entries come there. */
bool asio_dict_table_resize(struct dict_table *t, uint32_t places)
{
    struct dict_entry **at = worker_alloc(places * sizeof *at);
    if (!at)
        return false;
    struct dict_places *which = t->now.at ? &t->next : &t->now;
    which->at = at;
    which->mask = places - 1;
    t->moved = 0;
    for (uint32_t i = 0; which == &t->now && i < places; i++)
        at[i] = NULL;
    return true;
}

static void table_move(struct dict_table *t, struct dict_entry *chain)
{
    while (chain) {
        struct dict_entry *e = chain, **place = &t->next.at[e->hash & t->next.mask];
        chain = e->next;
        e->next = *place;
        *place = e;
    }
}

/* One of two sizes is twice the other: place p of the smaller one belongs to two of the larger one. */
static void table_move_place(struct dict_table *t)
{
    size_t step = (size_t)table_smaller(t) + 1, p = t->moved;
    for (size_t i = p; i <= t->next.mask; i += step)
        t->next.at[i] = NULL;
    for (size_t i = p; i <= t->now.mask; i += step)
        table_move(t, t->now.at[i]);
    t->moved++;
}

uint32_t asio_dict_table_step(struct dict_table *t)
{
    if (!t->next.at)
        return 0;
    uint32_t last = table_smaller(t);
    for (int i = 0; i < PLACES_A_STEP && t->moved <= last; i++)
        table_move_place(t);
    if (t->moved <= last)
        return 0;
    uint32_t freed = t->now.mask + 1;
    worker_free(t->now.at);
    t->now = t->next;
    t->next = (struct dict_places){ NULL, 0 };
    return freed;
}

uint32_t asio_dict_table_reset(struct dict_table *t)
{
    uint32_t freed = (t->now.at ? t->now.mask + 1 : 0) + (t->next.at ? t->next.mask + 1 : 0);
    worker_free(t->now.at);
    worker_free(t->next.at);
    t->now = t->next = (struct dict_places){ NULL, 0 };
    t->moved = 0;
    return freed;
}
