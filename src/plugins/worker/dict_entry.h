/* SPDX-License-Identifier: MIT
 *
 * What a dict keeps: keys, values, entries. They belong to the stripe that the key lies in, and its lock guards them. */
#ifndef ASIO_WORKER_DICT_ENTRY_H
#define ASIO_WORKER_DICT_ENTRY_H

#include "base/asio.h"

enum dict_type { DICT_NONE, DICT_BOOLEAN, DICT_NUMBER, DICT_STRING, DICT_MESSAGE, DICT_LIST };

/* Bytes of a string or a message.
 * One reference belongs to the entry, the others to readers; all are guarded by the lock of the stripe that the key
 * lies in. The bytes do not change while there are readers. */
struct dict_blob {
    uint64_t length; /* 64 bits, so that the bytes are aligned for a struct message */
    uint32_t references;
    uint32_t unused;
    unsigned char bytes[];
};

struct dict_list;

/* A value as the dict has it. */
struct dict_kept {
    union {
        double number; /* of a boolean: 0 or 1 */
        struct dict_blob *blob;
        struct dict_list *list;
    } as;
    enum dict_type type;
};

struct dict_item {
    struct dict_item *next[2]; /* towards the front, towards the back */
    uint64_t version;          /* its own, never twice in a stripe */
    struct dict_kept value;
};

struct dict_list {
    struct dict_item *end[2]; /* the front, the back */
    size_t count;
    size_t bytes; /* in all, with this struct */
};

struct dict_key {
    const char *bytes;
    size_t length;
    double number; /* where the bytes of a number lie */
    bool is_number;
    uint32_t hash;
};

struct dict_entry {
    struct dict_entry *next;          /* in the same place of the table */
    struct dict_entry *newer, *older; /* in order of use, if the dict evicts; else of arrival */
    uint64_t used;                    /* when */
    uint64_t expires;                 /* when; 0: never */
    uint64_t version;                 /* another one after each change; never twice in a stripe */
    struct dict_kept value;
    uint32_t hash;
    uint32_t expiry; /* its place among those that expire, counted from 1; 0: none */
    uint32_t key_length;
    bool key_is_number;
    char key[];
};

#endif
