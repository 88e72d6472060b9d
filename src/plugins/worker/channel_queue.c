/* SPDX-License-Identifier: MIT
 *
 * The queue of a channel between Lua states, and which ports are told of what is in it. All under the channel's lock. */
#include "plugins/worker/channel.h"

#include <string.h>

void asio_shared_channel_unlock(struct shared_channel *c)
{
    struct peer *wake[WAKES];
    unsigned wakes = c->wakes;
    memcpy(wake, c->wake, sizeof wake);
    c->wakes = 0;
    worker_unlock(&c->lock);
    while (wakes > 0)
        asio_peer_wake(wake[--wakes]);
}

/* ---- under the lock ------------------------------------------------------------------------ */

bool asio_shared_channel_has_room(const struct shared_channel *c)
{
    return c->count < c->capacity + c->hungry;
}

/* A port counts as idle while it has light threads and was not told. */
void asio_port_uncount(struct port *p)
{
    p->channel->idle_receivers -= p->receiving > 0 && !p->told;
    p->channel->idle_senders -= p->sending > 0 && !p->told;
}

void asio_port_count(struct port *p)
{
    p->channel->idle_receivers += p->receiving > 0 && !p->told;
    p->channel->idle_senders += p->sending > 0 && !p->told;
}

void asio_port_unlink(struct port *p)
{
    struct shared_channel *c = p->channel;
    if (p->next)
        p->next->prev = p->prev;
    else
        c->ports_last = p->prev;
    if (p->prev)
        p->prev->next = p->next;
    else
        c->ports = p->next;
    p->next = p->prev = NULL;
}

void asio_port_link(struct port *p)
{
    struct shared_channel *c = p->channel;
    p->prev = c->ports_last;
    if (c->ports_last)
        c->ports_last->next = p;
    else
        c->ports = p;
    c->ports_last = p;
}

/* It goes to the end of the list: others have their turn. A state that closes does not answer. */
void asio_port_tell(struct port *p)
{
    struct shared_channel *c = p->channel;
    asio_port_uncount(p);
    p->told = true;
    asio_port_unlink(p);
    asio_port_link(p);
    struct peer *wake = asio_peer_post_begin(p->peer, &p->post, &p->soon);
    if (wake && c->wakes < WAKES)
        c->wake[c->wakes++] = wake;
    else if (wake)
        asio_peer_wake(wake);
}

/* Tells as many ports as there are messages, or places, for. A state that computes, or whose loop does not run, is told
 * as well, but not relied on. */
void asio_shared_channel_balance(struct shared_channel *c)
{
    size_t left = c->count;
    for (struct port *p = c->ports, *next; p && c->idle_receivers > 0 && left > 0; p = next) {
        next = p->next;
        if (p->receiving == 0)
            continue;
        if (!p->told)
            asio_port_tell(p);
        if (p->soon)
            left -= left < p->receiving ? left : p->receiving;
    }
    for (struct port *p = c->ports, *next; p && c->idle_senders > 0 && asio_shared_channel_has_room(c);
         p = next) {
        next = p->next;
        if (p->sending > 0 && !p->told) {
            asio_port_tell(p);
            break; /* which tells the next one when it is done */
        }
    }
}

/* In the queue of a channel a message's references to this channel do not count: it would hold itself. */
void asio_shared_channel_count_own(
    struct shared_channel *c, const struct message *m, void (*change)(struct shared *))
{
    for (unsigned i = 0; i < m->refs; i++)
        if (m->ref[i].shared == &c->shared)
            change(&c->shared);
}

/* The caller has a reference of the channel. */
void asio_shared_channel_put(struct shared_channel *c, struct message *m)
{
    m->next = NULL;
    if (c->last)
        c->last->next = m;
    else
        c->first = m;
    c->last = m;
    c->count++;
    asio_shared_channel_count_own(c, m, asio_shared_drop);
}

struct message *asio_shared_channel_take(struct shared_channel *c)
{
    struct message *m = c->first;
    if (!m)
        return NULL;
    c->first = m->next;
    if (!c->first)
        c->last = NULL;
    c->count--;
    asio_shared_channel_count_own(c, m, asio_shared_keep);
    return m;
}

/* It was the first; the caller has a reference of the channel. */
void asio_shared_channel_put_back(struct shared_channel *c, struct message *m)
{
    m->next = c->first;
    c->first = m;
    c->last = c->last ? c->last : m;
    c->count++;
    asio_shared_channel_count_own(c, m, asio_shared_drop);
}

void asio_port_keep(struct port *p, struct message *m, unsigned tries)
{
    m->next = p->kept;
    p->kept = m;
    p->kept_tries = tries;
}

struct message *asio_port_take_kept(struct port *p, unsigned *tries)
{
    struct message *m = p->kept;
    *tries = p->kept_tries;
    p->kept_tries = 0;
    if (m)
        p->kept = m->next;
    return m;
}

void asio_port_set_receiving(struct port *p, size_t n)
{
    asio_port_uncount(p);
    p->channel->hungry += n - p->receiving;
    p->receiving = n;
    asio_port_count(p);
}

void asio_port_set_sending(struct port *p, size_t n)
{
    asio_port_uncount(p);
    p->sending = n;
    asio_port_count(p);
}
