/* SPDX-License-Identifier: MIT
 *
 * asio/ares.so: names looked up by c-ares, in the runtime's loop. It reaches the core through the table
 * of plugin.h alone. In reading order:
 *
 *   dns.h/c      answers off the wire             hosts.h/c    the hosts file
 *   cache.h/c    questions under way, and answers that may be kept
 *   channel.h/c  c-ares itself: sockets, deadlines, resolv.conf
 *   ares.h/c     this page; look-ups: who asks, of whom, and who is told
 *
 * User code runs when somebody is told, and may then ask, give up or clear the cache: so c-ares is never on
 * the stack then. What its callbacks find out is put down, and told when it has returned.
 *
 * Lifetime of struct resolver: one in a runtime, made at the first look-up; freed when the state closes. */
#ifndef ARES_ARES_H
#define ARES_ARES_H

#include "plugins/ares/cache.h"
#include "plugins/ares/channel.h"
#include "plugins/ares/hosts.h"

struct resolver {
    const struct asio_plugin *core;
    struct asio_rt *rt;
    struct hosts hosts;
    struct cache cache;
    struct channel *channels;
    struct channel *system;            /* one of them: asks whom resolv.conf says; NULL: not opened yet */
    uint64_t conf_stamp, conf_seen_at; /* of resolv.conf, as that channel knows it; when it was looked at */
    struct asio_names_query *first_done, *last_done; /* answered, to be told */
    struct asio_timer soon;                          /* tells them */
    bool use_hosts, closing;
};

/* A question has come to its end: status 0 with an answer (taken), or why not; both may be kept
 * for so many seconds. Called by c-ares: tells nobody yet. */
void resolver_complete(
    struct resolver *r, struct entry *e, int status, struct asio_answer *answer, uint32_t keep);

/* c-ares has returned: tells whoever has been answered. To be called from libuv alone. */
void resolver_tell(struct resolver *r);

#endif
