/* SPDX-License-Identifier: MIT
 *
 * The hosts file. c-ares would read it from end to end at every look-up (2.4 ms for 1 MB, measured); here it is
 * read when it has changed, and indexed by name. A small file is kept, of a large one only where its lines are.
 *
 * Lifetime: part of struct resolver (ares.c); asio_ares_hosts_free with it. */
#ifndef ARES_HOSTS_H
#define ARES_HOSTS_H

#include "plugin/names.h"

struct hosts_entry {
    uint32_t hash;       /* of a name, in lower case */
    uint32_t name, line; /* where the name, and the address that its line begins with, are in the file */
    uint32_t next;       /* in its bucket, in the order of the file; index + 1, 0: none */
};

struct hosts {
    const struct asio_plugin *core;
    char path[300];
    char *text; /* NULL: too large to keep */
    size_t size;
    struct hosts_entry *entries;
    uint32_t *buckets; /* first entry, then last entry of each: index + 1 */
    uint32_t count, capacity, buckets_count;
    uint64_t stamp, looked_at; /* of the file as read; when that was last compared */
};

void asio_ares_hosts_init(struct hosts *h, const struct asio_plugin *core);
void asio_ares_hosts_free(struct hosts *h);

/* All addresses of a name; for `type` A or AAAA only those. Returns 0 with an answer (owned); UV_EAI_NODATA: there
 * are only others; UV_EAI_NONAME: none at all; UV_ENOMEM, UV_EMFILE, UV_ENFILE. */
int asio_ares_hosts_find(struct hosts *h, const char *name, uint16_t type, struct asio_answer **answer);

bool asio_ares_hosts_is_localhost(const char *name);

/* The first name of an address. 0, UV_EAI_NONAME, or a failure as above. */
int asio_ares_hosts_find_name(
    struct hosts *h, const struct sockaddr_storage *addr, struct asio_answer **answer);

#endif
