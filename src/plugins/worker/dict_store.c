/* SPDX-License-Identifier: MIT
 *
 * The operations of a dict; see dict_store.h. */
#include "plugins/worker/dict_store.h"

#include <string.h>

void asio_dict_get(struct dict *d, struct dict_key *key, struct dict_read *r)
{
    struct dict_at at;
    r->type = DICT_NONE;
    r->blob = NULL;
    r->version = 0;
    asio_dict_enter(&at, d, key);
    if (at.entry) {
        asio_dict_touch(&at);
        asio_dict_kept_read(&at.entry->value, r);
        r->version = at.entry->version;
    }
    asio_dict_leave(&at);
}

void asio_dict_release(struct dict *d, struct dict_key *key, struct dict_read *r)
{
    struct dict_at at;
    if (!r->blob)
        return;
    asio_dict_enter(&at, d, key);
    asio_dict_blob_drop(r->blob);
    asio_dict_leave(&at);
    r->blob = NULL;
}

static int dict_check_mode(const struct dict_at *at, const struct asio_dict_set *set)
{
    switch (set->mode) {
    case DICT_ADD:
        return at->entry ? UV_EEXIST : 0;
    case DICT_REPLACE:
        return at->entry ? 0 : UV_ENOENT;
    case DICT_UPDATE:
        return (at->entry ? at->entry->version : 0) == set->version ? 0 : UV_EAGAIN;
    default:
        return 0;
    }
}

/* The entry gets its value; nothing changes if there is no memory. */
static int dict_put(struct dict_at *at, struct dict_value *v)
{
    size_t size = asio_dict_value_size(v), old = at->entry ? asio_dict_kept_size(&at->entry->value) : 0;
    size_t more = size > old ? size - old : 0;
    bool is_new = !at->entry;
    int status = is_new ? asio_dict_add_entry(at, more) : asio_dict_charge(at, more, 0);
    if (status < 0)
        return status;
    if (!asio_dict_keep(&at->entry->value, v)) {
        if (is_new)
            asio_dict_remove_entry(at, at->entry);
        asio_dict_refund(at, more);
        return UV_ENOMEM;
    }
    asio_dict_refund(at, size < old ? old - size : 0);
    return 0;
}

static int dict_change_set(struct dict_at *at, void *arg)
{
    struct asio_dict_set *set = arg;
    bool keep_expiry = set->keep_expiry && at->entry;
    int status = dict_check_mode(at, set);
    if (status < 0)
        return status;
    if (!asio_dict_fits(at->d, sizeof *at->entry + at->key->length + asio_dict_value_size(set->value)))
        return UV_ENOMEM;
    if (!keep_expiry && set->expires)
        status = asio_dict_reserve_expiry(at);
    if (status == 0)
        status = dict_put(at, set->value);
    if (status < 0)
        return status;
    asio_dict_touch_changed(at);
    if (!keep_expiry)
        asio_dict_set_expiry(at, set->expires);
    return 0;
}

int asio_dict_set(struct dict *d, struct dict_key *key, struct asio_dict_set *set)
{
    return asio_dict_change(d, key, dict_change_set, set);
}

static int dict_change_delete(struct dict_at *at, void *arg)
{
    const uint64_t *version = arg;
    if (version && *version != (at->entry ? at->entry->version : 0))
        return UV_EAGAIN;
    if (!at->entry)
        return UV_ENOENT;
    asio_dict_remove_entry(at, at->entry);
    return 0;
}

int asio_dict_delete(struct dict *d, struct dict_key *key, const uint64_t *version)
{
    return asio_dict_change(d, key, dict_change_delete, (void *)version);
}

static int dict_change_incr(struct dict_at *at, void *arg)
{
    struct asio_dict_incr *incr = arg;
    if (!at->entry && incr->init) {
        struct dict_value v = { .type = DICT_NUMBER, .number = incr->result = *incr->init + incr->by };
        struct asio_dict_set set = { .value = &v, .expires = incr->expires };
        return dict_change_set(at, &set);
    }
    if (!at->entry)
        return UV_ENOENT;
    if (at->entry->value.type != DICT_NUMBER)
        return UV_EINVAL;
    incr->result = at->entry->value.as.number += incr->by;
    asio_dict_touch_changed(at);
    return 0;
}

int asio_dict_incr(struct dict *d, struct dict_key *key, struct asio_dict_incr *incr)
{
    return asio_dict_change(d, key, dict_change_incr, incr);
}

static int dict_change_expire(struct dict_at *at, void *arg)
{
    const uint64_t *expires = arg;
    if (!at->entry)
        return UV_ENOENT;
    asio_dict_touch(at); /* so that it is the last one to be evicted */
    int status = *expires ? asio_dict_reserve_expiry(at) : 0;
    if (status == 0)
        asio_dict_set_expiry(at, *expires);
    return status;
}

int asio_dict_expire(struct dict *d, struct dict_key *key, uint64_t expires)
{
    return asio_dict_change(d, key, dict_change_expire, &expires);
}

int asio_dict_expires(struct dict *d, struct dict_key *key, uint64_t *expires)
{
    struct dict_at at;
    asio_dict_enter(&at, d, key);
    bool found = at.entry;
    if (found)
        *expires = at.entry->expires;
    asio_dict_leave(&at);
    return found ? 0 : UV_ENOENT;
}

size_t asio_dict_count(struct dict *d)
{
    struct dict_at at;
    size_t count = 0;
    for (unsigned i = 0; i < d->count; i++) {
        asio_dict_enter_stripe(&at, d, i);
        asio_dict_purge(&at, SIZE_MAX);
        count += at.s->table.count;
        asio_dict_leave(&at);
    }
    return count;
}

size_t asio_dict_bytes(struct dict *d)
{
    struct dict_at at;
    size_t bytes = 0;
    if (d->max_bytes) { /* a sum of what stripes have at different times may be more than there ever was */
        worker_lock(&d->room);
        bytes = d->bytes;
        worker_unlock(&d->room);
        return bytes;
    }
    for (unsigned i = 0; i < d->count; i++) {
        asio_dict_enter_stripe(&at, d, i);
        bytes += at.s->bytes;
        asio_dict_leave(&at);
    }
    return bytes;
}

size_t asio_dict_keys(struct dict *d, unsigned stripe, char *buf, size_t size, size_t *written)
{
    struct dict_at at;
    size_t needed = 0;
    *written = 0;
    asio_dict_enter_stripe(&at, d, stripe);
    asio_dict_purge(&at, SIZE_MAX);
    for (const struct dict_entry *e = at.s->oldest; e; e = e->newer) {
        struct dict_key_head head = { e->key_length, e->key_is_number };
        if (needed + sizeof head + e->key_length <= size) {
            memcpy(buf + needed, &head, sizeof head);
            memcpy(buf + needed + sizeof head, e->key, e->key_length);
            *written = needed + sizeof head + e->key_length;
        }
        needed += sizeof head + e->key_length;
    }
    asio_dict_leave(&at);
    return needed;
}
