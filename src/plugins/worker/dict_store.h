/* SPDX-License-Identifier: MIT
 *
 * A dict: keys and values that all Lua states of the process share. What is here knows no Lua, and any thread may call
 * any function. Times are those of the loop, in nanoseconds; 0 as a time of expiry: never. */
#ifndef ASIO_WORKER_DICT_STORE_H
#define ASIO_WORKER_DICT_STORE_H

#include "plugins/worker/dict_core.h"
#include "plugins/worker/dict_value.h"

void asio_dict_get(struct dict *d, struct dict_key *key, struct dict_read *r);

/* Lets go of what was read. */
void asio_dict_release(struct dict *d, struct dict_key *key, struct dict_read *r);

enum dict_set_mode { DICT_SET, DICT_ADD, DICT_REPLACE, DICT_UPDATE };

struct asio_dict_set {
    enum dict_set_mode mode;
    struct dict_value *value;
    uint64_t version; /* UPDATE: if it is still that; 0: absent */
    bool keep_expiry; /* as it is, if the key is there */
    uint64_t expires;
};

/* 0; UV_EEXIST (ADD), UV_ENOENT (REPLACE), UV_EAGAIN (UPDATE: another version), UV_ENOMEM: nothing has changed. */
int asio_dict_set(struct dict *d, struct dict_key *key, struct asio_dict_set *set);

/* 0; UV_ENOENT: absent; UV_EAGAIN: *version is given, and another one. */
int asio_dict_delete(struct dict *d, struct dict_key *key, const uint64_t *version);

/* Adds to a number; if the key is absent, to *init. 0; UV_ENOENT: absent, without init; UV_EINVAL: no number;
 * UV_ENOMEM. */
struct asio_dict_incr {
    double by;
    const double *init;
    uint64_t expires; /* of a new number */
    double result;
};
int asio_dict_incr(struct dict *d, struct dict_key *key, struct asio_dict_incr *incr);

/* 0; UV_ENOENT: absent; UV_ENOMEM. */
int asio_dict_expire(struct dict *d, struct dict_key *key, uint64_t expires);
int asio_dict_expires(struct dict *d, struct dict_key *key, uint64_t *expires);

/* Exact in each stripe; what changes meanwhile in others may count or not. */
size_t asio_dict_count(struct dict *d);
size_t asio_dict_bytes(struct dict *d);

/* The keys of a stripe (below d->count), one behind the other: a struct dict_key_head and the bytes, and so on. Returns
 * the size of all of them; writes those that fit, and sets *written. */
struct dict_key_head {
    uint32_t length;
    uint32_t is_number;
};
size_t asio_dict_keys(struct dict *d, unsigned stripe, char *buf, size_t size, size_t *written);

#endif
