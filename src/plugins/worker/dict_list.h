/* SPDX-License-Identifier: MIT
 *
 * Lists in a dict: their operations. As in dict_store.h, any thread may call any function. */
#ifndef ASIO_WORKER_DICT_LIST_H
#define ASIO_WORKER_DICT_LIST_H

#include "plugins/worker/dict_core.h"
#include "plugins/worker/dict_value.h"

enum dict_end { DICT_FRONT, DICT_BACK };

struct asio_dict_push {
    enum dict_end end;
    struct dict_value *value;
    size_t length; /* afterwards */
};

/* 0; UV_EINVAL: the value is no list; UV_ENOMEM. */
int asio_dict_push(struct dict *d, struct dict_key *key, struct asio_dict_push *push);
int asio_dict_length(struct dict *d, struct dict_key *key, size_t *length);

/* Reads the item at an end: 0, DICT_NONE if there is none; or UV_EINVAL. A boolean or a number has been taken out then
 * (its version is 0). Others are taken out by asio_dict_pop: false if the item is no longer at that end. So an item that its
 * receiver has no memory for is not lost. */
int asio_dict_peek(struct dict *d, struct dict_key *key, enum dict_end end, struct dict_read *r);
bool asio_dict_pop(struct dict *d, struct dict_key *key, enum dict_end end, uint64_t version);

#endif
