/* SPDX-License-Identifier: MIT
 * Questions under way and answers that are kept; see cache.h. */
#include "plugins/ares/cache.h"

#include <string.h>

static char ares_cache_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static uint32_t ares_cache_hash_of(uint16_t type, const char *name)
{
    uint32_t hash = 2166136261u ^ type;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)ares_cache_lower(*name)) * 16777619u;
    return hash;
}

static bool ares_cache_same_name(const char *a, const char *b)
{
    while (*a && ares_cache_lower(*a) == ares_cache_lower(*b)) {
        a++;
        b++;
    }
    return *a == *b;
}

static struct entry **ares_cache_bucket(struct cache *c, uint32_t hash)
{
    return &c->buckets[(hash ^ hash >> 16) % CACHE_BUCKETS];
}

struct entry *asio_ares_cache_find(
    struct cache *c, const struct channel *channel, uint16_t type, const char *name)
{
    uint32_t hash = ares_cache_hash_of(type, name);
    struct entry *e = *ares_cache_bucket(c, hash);
    while (e &&
        (e->hash != hash || e->channel != channel || e->type != type || !ares_cache_same_name(e->name, name)))
        e = e->chain;
    return e;
}

struct entry *asio_ares_cache_add(struct cache *c, struct channel *channel, uint16_t type, const char *name)
{
    size_t size = strlen(name) + 1;
    struct entry *e = c->mem->malloc(sizeof *e + size);
    if (!e)
        return NULL;
    memset(e, 0, sizeof *e);
    e->channel = channel;
    e->type = type;
    e->hash = ares_cache_hash_of(type, name);
    e->flying = e->listed = true;
    memcpy(e->name, name, size);
    struct entry **head = ares_cache_bucket(c, e->hash);
    e->chain = *head;
    *head = e;
    return e;
}

/* ---- by last use -------------------------------------------------------------------------- */

static void ares_cache_push_newest(struct cache *c, struct entry *e)
{
    e->newer = NULL;
    e->older = c->newest;
    if (e->older)
        e->older->newer = e;
    else
        c->oldest = e;
    c->newest = e;
}

static void ares_cache_unlink_use(struct cache *c, struct entry *e)
{
    if (e->newer)
        e->newer->older = e->older;
    else
        c->newest = e->older;
    if (e->older)
        e->older->newer = e->newer;
    else
        c->oldest = e->newer;
}

void asio_ares_cache_touch(struct cache *c, struct entry *e)
{
    ares_cache_unlink_use(c, e);
    ares_cache_push_newest(c, e);
}

void asio_ares_cache_keep(
    struct cache *c, struct entry *e, int status, struct asio_answer *answer, uint64_t until)
{
    e->flying = false;
    e->line = NULL;
    e->status = status;
    e->answer = answer;
    e->until = until;
    ares_cache_push_newest(c, e);
    if (++c->kept > CACHE_ENTRIES_MAX)
        asio_ares_cache_drop(c, c->oldest);
}

/* ---- forgetting --------------------------------------------------------------------------- */

static void ares_cache_unlist(struct cache *c, struct entry *e)
{
    struct entry **link = ares_cache_bucket(c, e->hash);
    if (!e->listed)
        return;
    while (*link != e)
        link = &(*link)->chain;
    *link = e->chain;
    e->listed = false;
}

void asio_ares_cache_drop(struct cache *c, struct entry *e)
{
    ares_cache_unlist(c, e);
    if (!e->flying) {
        ares_cache_unlink_use(c, e);
        c->kept--;
    }
    asio_answer_release(c->mem, e->answer);
    c->mem->free(e);
}

void asio_ares_cache_clear(struct cache *c, const struct channel *channel)
{
    for (int i = 0; i < CACHE_BUCKETS; i++) {
        struct entry *e = c->buckets[i];
        while (e) {
            struct entry *following = e->chain;
            if (channel && e->channel != channel)
                ;
            else if (e->flying)
                ares_cache_unlist(c, e);
            else
                asio_ares_cache_drop(c, e);
            e = following;
        }
    }
}
