/* SPDX-License-Identifier: MIT
 *
 * One table of questions: those under way, so that light threads that ask the same wait for the same answer, and
 * those whose answers may be kept for a while, at most CACHE_ENTRIES_MAX of them; the least recently used goes first.
 *
 * Lifetime of struct entry: made when a question is sent; while it is under way c-ares refers to it, and the
 * queries that wait for it; afterwards it is the table's, or freed. */
#ifndef ARES_CACHE_H
#define ARES_CACHE_H

#include "plugin/names.h"

enum { CACHE_BUCKETS = 256, CACHE_ENTRIES_MAX = 512, CACHE_ANSWER_MAX = 4096 };

struct channel;
struct line;

struct entry {
    struct entry *chain;           /* in its bucket */
    struct entry *older, *newer;   /* by last use, those that are kept */
    struct channel *channel;       /* of the servers that were asked */
    struct line *line;             /* of the channel; NULL: not asked yet, or answered */
    struct asio_names_part *parts; /* queries that wait for it */
    struct asio_answer *answer;    /* kept: owned; NULL: status says why there is none */
    int status;
    uint64_t until; /* kept: core->loop->now() when it ends */
    uint32_t hash;
    uint16_t type;
    bool flying; /* under way */
    bool listed; /* in the table: can be found */
    char name[];
};

struct cache {
    const struct asio_allocator *mem;
    struct entry *buckets[CACHE_BUCKETS];
    struct entry *newest, *oldest;
    unsigned kept;
};

struct entry *asio_ares_cache_find(
    struct cache *c, const struct channel *channel, uint16_t type, const char *name);

/* One under way, which can be found; NULL: out of memory. */
struct entry *asio_ares_cache_add(struct cache *c, struct channel *channel, uint16_t type, const char *name);

/* It is over, and kept with what was found (the answer is taken). */
void asio_ares_cache_keep(
    struct cache *c, struct entry *e, int status, struct asio_answer *answer, uint64_t until);

void asio_ares_cache_touch(struct cache *c, struct entry *e);

/* Takes it out of the table and frees it; neither c-ares nor a query refers to it. */
void asio_ares_cache_drop(struct cache *c, struct entry *e);

/* Forgets what was found, of one channel or (NULL) all; what is under way is not found any more. */
void asio_ares_cache_clear(struct cache *c, const struct channel *channel);

#endif
