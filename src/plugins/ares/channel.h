/* SPDX-License-Identifier: MIT
 *
 * A channel: one of c-ares, which asks one set of name servers. Its sockets are watched by the runtime's loop,
 * its deadlines are in the runtime's heap. One that has nothing under way has no socket open.
 *
 * Lifetime: in resolver->channels from channel_open to channel_free. */
#ifndef ARES_CHANNEL_H
#define ARES_CHANNEL_H

#include "plugin/names.h"

#include <ares.h>

struct resolver;
struct entry;
struct link; /* one of its sockets, see channel.c */

struct channel {
    struct channel *next;
    struct resolver *resolver;
    ares_channel c;
    struct asio_timer timer; /* when c-ares wants to look at its deadlines */
    struct link *links;
    unsigned opened; /* sockets, ever */
    unsigned flying; /* questions under way */
    unsigned wanted; /* of which somebody waits for */
    bool out_of_memory;
    bool retired; /* resolv.conf is another one now: freed when nothing is under way */
    uint64_t used_at;
    uint64_t patience;      /* ns that a server has for its first answer */
    unsigned servers_count; /* 0: the system's */
    struct sockaddr_storage servers[];
};

/* NULL: *status says why. */
struct channel *channel_open(
    struct resolver *r, const struct sockaddr_storage *servers, unsigned count, int *status);

/* Nothing may be under way, unless the resolver is closing. */
void channel_free(struct channel *ch);

/* There are 65,536 ids: when all are taken c-ares 1.2x looks for another one for ever. */
enum { CHANNEL_QUESTIONS_MAX = 32768 };

/* Sends a question; its end comes as resolver_complete, maybe before this returns. */
void channel_ask(struct channel *ch, struct entry *e);

/* To be called after every channel_ask, and when fewer are wanted: arms the timer, gives up what nobody
 * waits for. The channel may be gone afterwards. */
void channel_settle(struct channel *ch);

/* Whether the hosts file comes in (nsswitch.conf). */
bool channel_uses_hosts(struct channel *ch);

extern const char channel_conf_path[];

#endif
