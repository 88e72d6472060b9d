/* SPDX-License-Identifier: MIT
 *
 * A port serves its light threads, on their thread: those that wait for a message get one, those that wait for room put
 * theirs into the queue. */
#include "plugins/worker/channel.h"

void asio_sending_unlink(struct sending *s)
{
    struct port *p = s->port;
    struct sending *before = NULL, *at = p->senders;
    while (at != s) {
        before = at;
        at = at->next;
    }
    if (before)
        before->next = s->next;
    else
        p->senders = s->next;
    if (p->senders_last == s)
        p->senders_last = before;
}

static void sending_end(struct sending *s, int status)
{
    struct asio_wait *w = s->wait;
    if (s->message)
        asio_message_free(s->message);
    worker_free(s);
    asio_worker_core->wait->item_clear(w);
    asio_worker_core->wait->wake(w, status);
}

/* The first light thread that waits for room gets it, or learns that it will not. False: none can go on. */
static bool port_serve_sender(struct port *p)
{
    struct shared_channel *c = p->channel;
    struct sending *s = p->senders;
    int status = 0;
    if (!s)
        return false;
    worker_lock(&c->lock);
    if (c->closed)
        status = UV_EBADF;
    else if (!asio_shared_channel_has_room(c))
        status = UV_EAGAIN;
    else if (!s->message->committed)
        status = asio_message_commit(s->message);
    if (status == 0) {
        asio_shared_channel_put(c, s->message);
        s->message = NULL;
    }
    if (status != UV_EAGAIN)
        asio_port_set_sending(p, p->sending - 1);
    asio_shared_channel_balance(c);
    asio_shared_channel_unlock(c);
    if (status == UV_EAGAIN)
        return false;
    asio_sending_unlink(s);
    sending_end(s, status);
    return true;
}

struct port_gift {
    struct port *port;
    struct asio_wait *wait;
    struct message *message;
};

static void port_give(lua_State *L, void *arg)
{
    const struct port_gift *g = arg;
    if (asio_message_push(L, g->message) != 1)
        lua_pushboolean(L, 0);
    if (g->port->giving == g->wait)
        asio_worker_core->wait->item_set(L, g->wait);
}

static void port_give_back(struct port *p, struct message *m)
{
    worker_lock(&p->channel->lock);
    asio_shared_channel_put_back(p->channel, m);
    asio_shared_channel_balance(p->channel);
    asio_shared_channel_unlock(p->channel);
}

/* With the receiver out of the list. Without memory the message stays for the next receiver; also if a finalizer has
 * cancelled this one meanwhile. */
static void port_hand_over(struct port *p, struct asio_wait *w, struct message *m)
{
    struct port_gift gift = { p, w, m };
    p->giving = w;
    int status =
        asio_worker_core->wait->protect(p->peer->rt, port_give, &gift, "receiving from a shared channel");
    bool waits = p->giving == w;
    p->giving = NULL;
    if (asio_worker_core->threads->forked(p->peer->rt)) /* a finalizer did it */
        return;
    if (!waits || status == LUA_ERRMEM)
        port_give_back(p, m);
    else
        asio_message_free(m);
    if (!waits)
        return;
    asio_worker_core->wait->wake(w, status == 0 ? 0 : status == LUA_ERRMEM ? UV_ENOMEM : UV_EPROTO);
}

static bool port_serve_receiver(struct port *p)
{
    struct shared_channel *c = p->channel;
    struct asio_wait *w = p->receivers.first;
    if (!w)
        return false;
    unsigned tries;
    struct message *m = asio_port_take_kept(p, &tries);
    worker_lock(&c->lock);
    if (!m)
        m = asio_shared_channel_take(c);
    bool closed = c->closed;
    if (m || closed) {
        asio_port_set_receiving(p, p->receiving - 1);
        asio_shared_channel_balance(c);
    }
    asio_shared_channel_unlock(c);
    if (!m && !closed)
        return false;
    asio_worker_core->wait->list_remove(&p->receivers, w);
    if (m)
        port_hand_over(p, w, m);
    else
        asio_worker_core->wait->wake(w, UV_EBADF);
    return true;
}

void asio_port_free(struct port *p)
{
    struct message *m;
    unsigned tries;
    while ((m = asio_port_take_kept(p, &tries)) != NULL)
        asio_message_free(m);
    if (p->spare)
        asio_message_free(p->spare);
    worker_free(p);
}

/* What has come since it was last looked for is told of anew. */
static void port_end_serving(struct port *p)
{
    struct shared_channel *c = p->channel;
    worker_lock(&c->lock);
    asio_port_uncount(p);
    p->told = false;
    asio_port_count(p);
    asio_shared_channel_balance(c);
    asio_shared_channel_unlock(c);
}

/* Light threads run in between: the handle may be collected, the process forked, the state closed. */
void asio_port_on_told(struct post *post, struct peer *peer, bool open)
{
    struct port *p = (struct port *)(void *)post;
    struct shared_channel *c = p->channel;
    if (!open)
        return;
    asio_shared_keep(&c->shared);
    p->serving = true;
    while (!p->gone && (port_serve_receiver(p) || port_serve_sender(p)))
        if (asio_worker_core->threads->obstacle(peer->rt))
            break;
    if (asio_worker_core->threads->forked(peer->rt))
        return;
    p->serving = false;
    if (p->gone)
        asio_port_free(p);
    else
        port_end_serving(p);
    asio_shared_drop(&c->shared);
}
