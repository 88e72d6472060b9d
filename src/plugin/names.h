/* SPDX-License-Identifier: MIT
 *
 * The contract between dns/resolve.c, which knows Lua and waits, and a resolver, which answers questions. There are
 * two resolvers: dns/getaddrinfo.c (the system's, on helper threads) and asio/ares.so (c-ares, src/plugins/ares/).
 *
 * Lifetime of struct asio_names_query: made and freed by the asker, also if the state closes first; after `start`
 * has returned ASIO_NAMES_PENDING the resolver refers to it until it calls `done`, or `cancel` is called.
 * Lifetime of struct asio_answer: made by a resolver, shared by references (one thread at a time), never
 * changed once made; freed with the last. */
#ifndef ASIO_NAMES_H
#define ASIO_NAMES_H

#include "base/asio.h"
#include "plugin/plugin.h"

/* Numbers as DNS has them. */
enum asio_names_type {
    ASIO_NAMES_BOTH = 0, /* addresses of either family */
    ASIO_NAMES_A = 1,
    ASIO_NAMES_PTR = 12,
    ASIO_NAMES_MX = 15,
    ASIO_NAMES_TXT = 16,
    ASIO_NAMES_AAAA = 28,
    ASIO_NAMES_SRV = 33,
};

struct asio_record {
    const char *bytes; /* address as on the wire; or target, exchange, text, name */
    uint32_t length;
    uint32_t scope; /* of a link-local IPv6 address */
    int32_t ttl;    /* seconds from when it was received; -1: unknown */
    uint16_t type;
    uint16_t priority, weight, port;
};

struct asio_answer {
    uint64_t received; /* core->now() */
    unsigned references;
    unsigned count;
    struct asio_record records[]; /* what they refer to lies behind */
};

/* With one reference and room for so many bytes at *bytes; NULL: out of memory. Records are zeroed but
 * for an unknown ttl. */
static inline struct asio_answer *asio_answer_new(
    const struct asio_allocator *mem, unsigned count, size_t size, char **bytes)
{
    struct asio_answer *a = mem->malloc(sizeof *a + count * sizeof *a->records + size);
    if (!a)
        return NULL;
    a->received = 0;
    a->references = 1;
    a->count = count;
    for (unsigned i = 0; i < count; i++)
        a->records[i] = (struct asio_record){ .ttl = -1 };
    *bytes = (char *)&a->records[count];
    return a;
}

static inline void asio_answer_release(const struct asio_allocator *mem, struct asio_answer *a)
{
    if (a && --a->references == 0)
        mem->free(a);
}

struct asio_names_part { /* one question to a name server */
    struct asio_names_query *query;
    void *flight; /* the resolver's; NULL: answered, or none */
    struct asio_names_part *next, *prev;
};

struct asio_names_query {
    /* Answered: `status` and `answers` are set, the resolver refers to the query no more. Light threads run: to be
     * called from callbacks of libuv alone, and not by `start`. */
    void (*done)(struct asio_names_query *q);

    /* What is asked */
    const char *host;
    uint16_t type;
    bool half;    /* one family of two that are asked for apart: an entry of the hosts file ends both */
    bool fresh;   /* not from the cache */
    bool numeric; /* PTR: of `address`, not of a name */
    struct sockaddr_storage address;
    const struct sockaddr_storage *servers; /* instead of the system's */
    unsigned servers_count;

    /* What was found: status 0 with at least one record, or why not. The answers are owned. */
    int status;
    struct asio_answer *answers[2];

    /* The resolver's own */
    struct asio_names_part parts[2];
    int pending;
    bool starting, listed;
    struct asio_names_query *next, *prev;
};

enum { ASIO_NAMES_ANSWERED = 0, ASIO_NAMES_PENDING = 1 };

struct asio_names_backend {
    unsigned version; /* ASIO_PLUGIN_NAMES_VERSION it was built with */
    const char *name;
    /* Before all else: 0 or an error; UV_ENOTSUP: built for another asio.so. */
    int (*load)(const struct asio_plugin *core);
    /* Its state in one runtime; NULL: *status says why. */
    void *(*open)(const struct asio_plugin *core, struct asio_rt *rt, int *status);
    /* The state closes: gives everything back, queries are forgotten. */
    void (*close)(void *self);
    /* ASIO_NAMES_ANSWERED at once, ASIO_NAMES_PENDING, or an error: not begun. */
    int (*start)(void *self, struct asio_names_query *q);
    /* The light thread waits no more: the resolver forgets the query. */
    void (*cancel)(void *self, struct asio_names_query *q);
    /* Forgets all answers. NULL: it keeps none. */
    void (*clear)(void *self);
};

#endif
