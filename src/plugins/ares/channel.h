/* SPDX-License-Identifier: MIT
 *
 * A channel asks one set of name servers. It has one or more lines, each a channel of c-ares with sockets of its own:
 * c-ares keeps one UDP socket to a server as long as any question is under way, and a forger who knows its port has
 * only the 16 bits of the id to guess. So a line takes a few questions, the next ones go by a new line, and a line
 * ends with its last question. A channel that has nothing under way has no socket open.
 *
 * A channel knows the core, the runtime and two functions of its owner; see struct asio_ares_env.
 *
 * Lifetime of struct channel: in env->channels from asio_ares_channel_open to asio_ares_channel_free.
 * Lifetime of struct line: in channel->lines; freed by asio_ares_channel_settle, or with the channel. */
#ifndef ARES_CHANNEL_H
#define ARES_CHANNEL_H

#include "plugins/ares/cache.h"
#include "plugins/ares/conf.h"

struct line;
struct link; /* a socket of c-ares */

/* What channels need of their owner; part of it. */
struct asio_ares_env {
    const struct asio_plugin *core;
    struct asio_rt *rt;
    struct channel *channels;
    /* A question has ended: status 0 with an answer (taken), or why not; both may be kept for so many seconds.
     * Called by c-ares: no light thread may run. */
    void (*answered)(
        struct asio_ares_env *env, struct entry *e, int status, struct asio_answer *answer, uint32_t keep);
    /* c-ares has returned to a callback of libuv: light threads may run. */
    void (*returned)(struct asio_ares_env *env);
};

struct channel {
    struct channel *next;
    struct asio_ares_env *env;
    struct line *lines;   /* the newest first; never none */
    struct line *current; /* takes the next question */
    unsigned lines_count;
    unsigned flying; /* questions under way, of all lines */
    bool retired;    /* resolv.conf has changed since: freed when nothing is under way */
    uint64_t used_at;
    struct asio_ares_conf conf;
    struct sockaddr_storage servers[]; /* conf.servers */
};

/* NULL: *status says why. */
struct channel *asio_ares_channel_open(
    struct asio_ares_env *env, const struct sockaddr_storage *servers, unsigned count, int *status);

/* Nothing may be under way, unless the owner is closing. */
void asio_ares_channel_free(struct channel *ch);

/* There are 65,536 ids: when all are taken c-ares 1.2x looks for another one for ever. */
enum { ASIO_ARES_QUESTIONS_MAX = 32768 };

/* Sends a question, for which a light thread waits; it ends by env->answered, maybe before this returns. */
void asio_ares_channel_ask(struct channel *ch, struct entry *e);

/* The first light thread waits for a question under way, or the last one has given it up. */
void asio_ares_channel_want(struct entry *e);
void asio_ares_channel_unwant(struct entry *e);

/* To be called after unwant, except in env->answered: gives up what no light thread waits for. The entry and the
 * channel may be gone afterwards. */
void asio_ares_channel_settle(struct entry *e);

bool asio_ares_channel_uses_hosts(const struct channel *ch);

#endif
