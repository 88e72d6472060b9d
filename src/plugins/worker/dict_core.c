/* SPDX-License-Identifier: MIT
 *
 * A dict without its operations; see dict_core.h. */
#include "plugins/worker/dict_core.h"

#include "plugins/worker/dict_value.h"

#include <string.h>

enum {
    STRIPES_MIN = 16,
    STRIPES_MAX = 128,
    STRIPES_A_PROCESSOR = 4,
    PURGED_BY_A_CHANGE = 2, /* more than one: what expires is freed sooner than it is made */
    PURGED_FOR_ROOM = 64    /* while the lock is held */
};

static uint64_t dict_now(struct dict_at *at)
{
    if (!at->now)
        at->now = asio_worker_core->loop->now();
    return at->now;
}

/* What may be allocated ------------------------------------------------------------------------ */

int asio_dict_charge(struct dict_at *at, size_t more, size_t less)
{
    struct dict *d = at->d;
    if (d->max_bytes && more != less) {
        worker_lock(&d->room);
        bool fits = more <= less || more - less <= d->max_bytes - d->bytes;
        if (fits)
            d->bytes += more - less;
        worker_unlock(&d->room);
        at->need += more > less ? more - less : 0;
        if (!fits)
            return UV_ENOBUFS;
    }
    at->s->bytes += more - less;
    return 0;
}

void asio_dict_refund(struct dict_at *at, size_t less)
{
    if (less)
        asio_dict_charge(at, 0, less);
}

bool asio_dict_fits(const struct dict *d, size_t size)
{
    return !d->max_bytes || size <= d->max_bytes;
}

static inline struct dict_hint *dict_hint_of(struct dict_at *at)
{
    return &at->d->hints[at->s - at->d->stripes];
}

/* Tells all stripes from when on there is something to free in this one. */
static void dict_set_hint(struct dict_at *at, uint64_t used, uint64_t expires)
{
    at->s->soonest = expires;
    worker_lock(&at->d->room);
    *dict_hint_of(at) = (struct dict_hint){ used, expires };
    worker_unlock(&at->d->room);
}

static void dict_hint_exactly(struct dict_at *at)
{
    struct dict_stripe *s = at->s;
    dict_set_hint(at, s->oldest ? s->oldest->used : UINT64_MAX, dict_expiry_soonest(&s->expiry));
}

/* Entries -------------------------------------------------------------------------------------- */

static void dict_link_newest(struct dict_stripe *s, struct dict_entry *e)
{
    e->newer = NULL;
    e->older = s->newest;
    if (s->newest)
        s->newest->newer = e;
    else
        s->oldest = e;
    s->newest = e;
}

static void dict_unlink(struct dict_stripe *s, struct dict_entry *e)
{
    if (e->newer)
        e->newer->older = e->older;
    else
        s->newest = e->older;
    if (e->older)
        e->older->newer = e->newer;
    else
        s->oldest = e->newer;
}

void asio_dict_touch(struct dict_at *at)
{
    struct dict_entry *e = at->entry;
    if (!at->d->max_bytes || !at->d->evict)
        return;
    e->used = dict_now(at);
    if (at->s->newest == e)
        return;
    dict_unlink(at->s, e);
    dict_link_newest(at->s, e);
}

void asio_dict_touch_changed(struct dict_at *at)
{
    at->entry->version = ++at->s->versions;
    asio_dict_touch(at);
}

/* A dict that evicts makes room for a larger table; another one lives with long chains if there is none. */
static int dict_reserve_place(struct dict_at *at)
{
    struct dict_table *t = &at->s->table;
    uint32_t places = asio_dict_table_wants(t, true);
    if (!places)
        return 0;
    size_t size = places * sizeof(struct dict_entry *);
    int status = asio_dict_charge(at, size, 0);
    if (status == 0 && !asio_dict_table_resize(t, places)) {
        asio_dict_refund(at, size);
        status = UV_ENOMEM;
    }
    if (!t->now.at || status == 0 || (status == UV_ENOBUFS && at->d->evict))
        return status;
    at->need -= at->d->max_bytes ? size : 0; /* the change can do without */
    return 0;
}

int asio_dict_add_entry(struct dict_at *at, size_t more)
{
    const struct dict_key *key = at->key;
    size_t size = sizeof(struct dict_entry) + key->length;
    at->changed = true;
    int status = dict_reserve_place(at);
    if (status == 0)
        status = asio_dict_charge(at, size + more, 0);
    if (status < 0)
        return status;
    struct dict_entry *e = worker_alloc(size);
    if (!e) {
        asio_dict_refund(at, size + more);
        return UV_ENOMEM;
    }
    memset(e, 0, sizeof *e);
    e->hash = key->hash;
    e->key_length = (uint32_t)key->length;
    e->key_is_number = key->is_number;
    memcpy(e->key, key->bytes, key->length);
    *asio_dict_table_find(&at->s->table, key) = e;
    at->s->table.count++;
    at->entry = e;
    if (at->d->max_bytes && at->d->evict)
        e->used = dict_now(at);
    dict_link_newest(at->s, e);
    if (at->d->max_bytes && at->s->oldest == e)
        dict_hint_exactly(at);
    return 0;
}

void asio_dict_remove_entry(struct dict_at *at, struct dict_entry *e)
{
    struct dict_stripe *s = at->s;
    at->changed = true;
    *asio_dict_table_link(&s->table, e) = e->next;
    s->table.count--;
    dict_unlink(s, e);
    asio_dict_expiry_remove(&s->expiry, e);
    asio_dict_refund(at, sizeof *e + e->key_length + asio_dict_kept_size(&e->value));
    asio_dict_kept_free(&e->value);
    worker_free(e);
    if (at->entry == e)
        at->entry = NULL;
}

/* Expiry --------------------------------------------------------------------------------------- */

int asio_dict_reserve_expiry(struct dict_at *at)
{
    struct dict_expiry *x = &at->s->expiry;
    uint32_t slots = at->entry && at->entry->expiry ? 0 : asio_dict_expiry_wants(x, true);
    if (!slots)
        return 0;
    at->changed = true;
    size_t size = (slots - x->size) * sizeof *x->slots;
    int status = asio_dict_charge(at, size, 0);
    if (status == 0 && !asio_dict_expiry_resize(x, slots)) {
        asio_dict_refund(at, size);
        status = UV_ENOMEM;
    }
    return status;
}

void asio_dict_set_expiry(struct dict_at *at, uint64_t expires)
{
    at->entry->expires = expires;
    if (!expires)
        return;
    asio_dict_expiry_set(&at->s->expiry, at->entry);
    if (at->d->max_bytes && expires < at->s->soonest)
        dict_hint_exactly(at);
}

void asio_dict_purge(struct dict_at *at, size_t max)
{
    while (at->s->expiry.count && max-- > 0) {
        struct dict_entry *e = asio_dict_expiry_first(&at->s->expiry, dict_now(at));
        if (!e || e == at->entry)
            break;
        asio_dict_remove_entry(at, e);
    }
}

/* Entering and leaving ------------------------------------------------------------------------------------- */

void asio_dict_enter_stripe(struct dict_at *at, struct dict *d, unsigned stripe)
{
    *at = (struct dict_at){ .d = d, .s = &d->stripes[stripe] };
    worker_lock(&at->s->lock);
}

void asio_dict_enter(struct dict_at *at, struct dict *d, struct dict_key *key)
{
    uint64_t hash = asio_dict_hash(d->seed, key);
    key->hash = (uint32_t)hash;
    asio_dict_enter_stripe(at, d, (unsigned)(hash >> 32) & (d->count - 1));
    at->key = key;
    if (!at->s->table.now.at)
        return;
    struct dict_entry *e = *asio_dict_table_find(&at->s->table, key);
    if (e && e->expires && e->expires <= dict_now(at))
        asio_dict_remove_entry(at, e);
    else
        at->entry = e;
}

/* A heap that had room for more entries. */
static void dict_shrink_expiry(struct dict_at *at)
{
    struct dict_expiry *x = &at->s->expiry;
    uint32_t before = x->size, slots = x->count ? asio_dict_expiry_wants(x, false) : 0;
    if (before > 0 && (slots || !x->count) && asio_dict_expiry_resize(x, slots))
        asio_dict_refund(at, (before - slots) * sizeof *x->slots);
}

/* Where there is no memory or no room for a smaller table, the larger one stays. */
static void dict_shrink_table(struct dict_at *at)
{
    struct dict_table *t = &at->s->table;
    if (t->count == 0) {
        asio_dict_refund(at, asio_dict_table_reset(t) * sizeof(struct dict_entry *));
        return;
    }
    asio_dict_refund(at, asio_dict_table_step(t) * sizeof(struct dict_entry *));
    size_t size = asio_dict_table_wants(t, false) * sizeof(struct dict_entry *);
    if (size && asio_dict_charge(at, size, 0) == 0 &&
        !asio_dict_table_resize(t, asio_dict_table_wants(t, false)))
        asio_dict_refund(at, size);
}

void asio_dict_leave(struct dict_at *at)
{
    if (at->changed) {
        size_t need = at->need;
        dict_shrink_expiry(at);
        dict_shrink_table(at);
        at->need = need;
    }
    worker_unlock(&at->s->lock);
}

/* Making room ---------------------------------------------------------------------------------- */

/* Under `room`: the stripe where something can be freed: that has expired (*used: 0), or was used the longest time ago,
 * and no later than *used; NULL: none. */
static struct dict_stripe *dict_choose(struct dict *d, uint64_t now, uint64_t *used)
{
    unsigned first = 0;
    uint64_t second = UINT64_MAX;
    for (unsigned i = 0; i < d->count; i++) {
        if (d->hints[i].expires <= now) {
            *used = 0;
            return &d->stripes[i];
        }
        if (d->hints[i].used < d->hints[first].used) {
            second = d->hints[first].used;
            first = i;
        } else if (i > 0 && d->hints[i].used < second) {
            second = d->hints[i].used;
        }
    }
    *used = second;
    return d->evict && d->hints[first].used != UINT64_MAX ? &d->stripes[first] : NULL;
}

/* Hints are too early where the oldest entry has been used since: then only the hint changes, and another stripe is
 * chosen the next time. */
static void dict_free_some(struct dict *d, struct dict_stripe *s, uint64_t used)
{
    struct dict_at at;
    asio_dict_enter_stripe(&at, d, (unsigned)(s - d->stripes));
    asio_dict_purge(&at, PURGED_FOR_ROOM);
    if (used > 0 && !at.changed && s->oldest && s->oldest->used <= used)
        asio_dict_remove_entry(&at, s->oldest);
    dict_hint_exactly(&at);
    asio_dict_leave(&at);
}

static bool dict_make_room(struct dict *d, size_t need)
{
    uint64_t now = asio_worker_core->loop->now(), used = 0;
    while (need <= d->max_bytes) {
        worker_lock(&d->room);
        bool enough = need <= d->max_bytes - d->bytes;
        struct dict_stripe *s = enough ? NULL : dict_choose(d, now, &used);
        worker_unlock(&d->room);
        if (!s)
            return enough;
        dict_free_some(d, s, used);
    }
    return false;
}

int asio_dict_change(
    struct dict *d, struct dict_key *key, int (*change)(struct dict_at *at, void *arg), void *arg)
{
    struct dict_at at;
    int status;
    do {
        asio_dict_enter(&at, d, key);
        status = change(&at, arg);
        asio_dict_purge(&at, PURGED_BY_A_CHANGE);
        asio_dict_leave(&at);
    } while (status == UV_ENOBUFS && dict_make_room(d, at.need));
    return status == UV_ENOBUFS ? UV_ENOMEM : status;
}

/* The whole ------------------------------------------------------------------------------------- */

/* Keys that collide cannot be chosen by a peer that does not know the seed. */
static void dict_make_seed(struct dict *d)
{
    struct dict_key key = { .bytes = (const char *)&d, .length = sizeof d };
    uint64_t now = asio_worker_core->loop->now();
    uint64_t code = (uint64_t)(uintptr_t)&dict_make_seed, here = (uint64_t)(uintptr_t)&key;
    d->seed[0] = asio_dict_hash((uint64_t[2]){ now, code }, &key);
    d->seed[1] = asio_dict_hash((uint64_t[2]){ here, d->seed[0] }, &key);
}

static unsigned dict_stripe_count(void)
{
    unsigned count = STRIPES_MIN, processors = asio_worker_core->threads->parallelism();
    while (count < STRIPES_MAX && count < processors * STRIPES_A_PROCESSOR)
        count *= 2;
    return count;
}

/* Without the first `made` of its locks. */
static struct dict *dict_destroy(struct dict *d, unsigned made)
{
    while (made > 0)
        asio_worker_core->threads->mutex_destroy(&d->stripes[--made].lock);
    worker_free(d->hints);
    worker_free(d);
    return NULL;
}

static bool dict_init_stripes(struct dict *d, unsigned *made)
{
    for (*made = 0; *made < d->count; ++*made) {
        d->stripes[*made].soonest = UINT64_MAX;
        d->hints[*made] = (struct dict_hint){ UINT64_MAX, UINT64_MAX };
        if (asio_worker_core->threads->mutex_init(&d->stripes[*made].lock) < 0)
            return false;
    }
    return true;
}

struct dict *asio_dict_new(size_t max_bytes, bool evict)
{
    unsigned made = 0, count = dict_stripe_count();
    struct dict *d = worker_alloc(sizeof *d + count * sizeof *d->stripes);
    if (!d)
        return NULL;
    memset(d, 0, sizeof *d + count * sizeof *d->stripes);
    d->count = count;
    d->max_bytes = max_bytes;
    d->evict = evict;
    dict_make_seed(d);
    d->hints = worker_alloc(count * sizeof *d->hints);
    if (!d->hints || !dict_init_stripes(d, &made) || asio_worker_core->threads->mutex_init(&d->room) < 0)
        return dict_destroy(d, made);
    return d;
}

void asio_dict_clear(struct dict *d)
{
    struct dict_at at;
    for (unsigned i = 0; i < d->count; i++) {
        asio_dict_enter_stripe(&at, d, i);
        while (at.s->oldest)
            asio_dict_remove_entry(&at, at.s->oldest);
        asio_dict_leave(&at);
    }
}

void asio_dict_free(struct dict *d)
{
    asio_dict_clear(d);
    asio_worker_core->threads->mutex_destroy(&d->room);
    dict_destroy(d, d->count);
}
