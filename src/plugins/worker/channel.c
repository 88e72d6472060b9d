/* SPDX-License-Identifier: MIT
 *
 * Channels between Lua states. Messages are in one queue under the channel's lock. Each state that has a handle has a
 * port: its light threads that wait for a message, or with one for room. A port is told (a post in its state's mailbox)
 * when it can go on, once for any number of messages; it then serves its light threads on its own thread.
 *
 * Lifetime of a port: made with the state's handle; the handle's finalizer takes it out of the channel. A light thread
 * that runs while the port serves it may have dropped the handle: the port is freed when that is over. */
#include "plugins/worker/worker.h"

#include <math.h>
#include <string.h>

enum { WAKES = 4 };

struct shared_channel {
    struct shared shared; /* first */
    uv_mutex_t lock;      /* guards all below, and the fields of ports that say so */
    struct message *first, *last;
    size_t count, capacity;
    size_t
        hungry; /* light threads in all states that wait for a message: for each of them there is room for one */
    struct port *ports, *ports_last;
    unsigned idle_receivers, idle_senders; /* ports with such light threads that were not told */
    struct peer
        *wake[WAKES]; /* references: to be woken once the lock is free, on which they would wait at once */
    unsigned wakes;
    bool closed;
};

/* A light thread that waits for room. Owned by its wait. */
struct sending {
    struct sending *next;
    struct port *port;
    struct asio_wait *wait;
    struct message *message;
};

struct port {
    struct post post;
    struct shared_channel *channel;
    struct peer *peer;
    struct port *next, *prev;        /* under the channel's lock, like these: */
    size_t receiving, sending;       /* light threads in the lists below */
    bool told;                       /* it is to serve them */
    bool soon;                       /* and its loop waited for events when it was told: it will at once */
    struct asio_wait_list receivers; /* of the own thread, like these: */
    struct sending *senders, *senders_last;
    struct message *kept;  /* taken, but there was no memory to hand it over: the next one to be received */
    struct message *spare; /* of a send that raised before it could wait */
    unsigned kept_tries;
    bool serving;
    bool gone; /* the handle has; freed when serving ends */
};

static void shared_channel_unlock(struct shared_channel *c)
{
    struct peer *wake[WAKES];
    unsigned wakes = c->wakes;
    memcpy(wake, c->wake, sizeof wake);
    c->wakes = 0;
    worker_unlock(&c->lock);
    while (wakes > 0)
        peer_wake(wake[--wakes]);
}

/* ---- under the lock ------------------------------------------------------------------------ */

static bool shared_channel_has_room(const struct shared_channel *c)
{
    return c->count < c->capacity + c->hungry;
}

/* A port counts as idle while it has light threads and was not told. */
static void port_uncount(struct port *p)
{
    p->channel->idle_receivers -= p->receiving > 0 && !p->told;
    p->channel->idle_senders -= p->sending > 0 && !p->told;
}

static void port_count(struct port *p)
{
    p->channel->idle_receivers += p->receiving > 0 && !p->told;
    p->channel->idle_senders += p->sending > 0 && !p->told;
}

static void port_unlink(struct port *p)
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

static void port_link(struct port *p)
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
static void port_tell(struct port *p)
{
    struct shared_channel *c = p->channel;
    port_uncount(p);
    p->told = true;
    port_unlink(p);
    port_link(p);
    struct peer *wake = peer_post_begin(p->peer, &p->post, &p->soon);
    if (wake && c->wakes < WAKES)
        c->wake[c->wakes++] = wake;
    else if (wake)
        peer_wake(wake);
}

/* Tells as many ports as there are messages, or places, for. A state that computes, or whose loop does not run, is told
 * as well, but not relied on. */
static void shared_channel_balance(struct shared_channel *c)
{
    size_t left = c->count;
    for (struct port *p = c->ports, *next; p && c->idle_receivers > 0 && left > 0; p = next) {
        next = p->next;
        if (p->receiving == 0)
            continue;
        if (!p->told)
            port_tell(p);
        if (p->soon)
            left -= left < p->receiving ? left : p->receiving;
    }
    for (struct port *p = c->ports, *next; p && c->idle_senders > 0 && shared_channel_has_room(c); p = next) {
        next = p->next;
        if (p->sending > 0 && !p->told) {
            port_tell(p);
            break; /* which tells the next one when it is done */
        }
    }
}

/* In the queue of a channel a message's references to this channel do not count: it would hold itself. */
static void shared_channel_count_own(
    struct shared_channel *c, const struct message *m, void (*change)(struct shared *))
{
    for (unsigned i = 0; i < m->refs; i++)
        if (m->ref[i].shared == &c->shared)
            change(&c->shared);
}

/* The caller has a reference of the channel. */
static void shared_channel_put(struct shared_channel *c, struct message *m)
{
    m->next = NULL;
    if (c->last)
        c->last->next = m;
    else
        c->first = m;
    c->last = m;
    c->count++;
    shared_channel_count_own(c, m, shared_drop);
}

static struct message *shared_channel_take(struct shared_channel *c)
{
    struct message *m = c->first;
    if (!m)
        return NULL;
    c->first = m->next;
    if (!c->first)
        c->last = NULL;
    c->count--;
    shared_channel_count_own(c, m, shared_keep);
    return m;
}

static void port_set_receiving(struct port *p, size_t n)
{
    port_uncount(p);
    p->channel->hungry += n - p->receiving;
    p->receiving = n;
    port_count(p);
}

static void port_set_sending(struct port *p, size_t n)
{
    port_uncount(p);
    p->sending = n;
    port_count(p);
}

/* ---- serving ------------------------------------------------------------------------------- */

static void sending_unlink(struct sending *s)
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
        message_free(s->message);
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
    else if (!shared_channel_has_room(c))
        status = UV_EAGAIN;
    else if (!s->message->committed)
        status = message_commit(s->message);
    if (status == 0) {
        shared_channel_put(c, s->message);
        s->message = NULL;
    }
    if (status != UV_EAGAIN)
        port_set_sending(p, p->sending - 1);
    shared_channel_balance(c);
    shared_channel_unlock(c);
    if (status == UV_EAGAIN)
        return false;
    sending_unlink(s);
    sending_end(s, status);
    return true;
}

struct port_gift {
    struct asio_wait *wait;
    struct message *message;
};

static void port_give(lua_State *L, void *arg)
{
    const struct port_gift *g = arg;
    if (message_push(L, g->message) != 1)
        lua_pushboolean(L, 0);
    asio_worker_core->wait->item_set(L, g->wait);
}

/* With the receiver out of the list. Without memory the message stays for the next receiver. */
static void port_hand_over(struct port *p, struct asio_wait *w, struct message *m)
{
    struct port_gift gift = { w, m };
    int status =
        asio_worker_core->wait->protect(p->peer->rt, port_give, &gift, "receiving from a shared channel");
    if (status == LUA_ERRMEM) {
        p->kept = m;
        p->kept_tries = 0;
    } else {
        message_free(m);
    }
    asio_worker_core->wait->wake(w, status == 0 ? 0 : status == LUA_ERRMEM ? UV_ENOMEM : UV_EPROTO);
}

static bool port_serve_receiver(struct port *p)
{
    struct shared_channel *c = p->channel;
    struct asio_wait *w = p->receivers.first;
    if (!w)
        return false;
    worker_lock(&c->lock);
    struct message *m = p->kept ? p->kept : shared_channel_take(c);
    bool closed = c->closed;
    p->kept = NULL;
    if (m || closed) {
        port_set_receiving(p, p->receiving - 1);
        shared_channel_balance(c);
    }
    shared_channel_unlock(c);
    if (!m && !closed)
        return false;
    asio_worker_core->wait->list_remove(&p->receivers, w);
    if (m)
        port_hand_over(p, w, m);
    else
        asio_worker_core->wait->wake(w, UV_EBADF);
    return true;
}

static void port_free(struct port *p)
{
    if (p->kept)
        message_free(p->kept);
    if (p->spare)
        message_free(p->spare);
    worker_free(p);
}

/* What has come since it was last looked for is told of anew. */
static void port_end_serving(struct port *p)
{
    struct shared_channel *c = p->channel;
    worker_lock(&c->lock);
    port_uncount(p);
    p->told = false;
    port_count(p);
    shared_channel_balance(c);
    shared_channel_unlock(c);
}

/* Light threads run in between: the handle may be collected, the process forked, the state closed. */
static void port_on_told(struct post *post, struct peer *peer, bool open)
{
    struct port *p = (struct port *)(void *)post;
    struct shared_channel *c = p->channel;
    if (!open)
        return;
    shared_keep(&c->shared);
    p->serving = true;
    while (!p->gone && (port_serve_receiver(p) || port_serve_sender(p)))
        if (asio_worker_core->threads->obstacle(peer->rt))
            break;
    if (asio_worker_core->threads->forked(peer->rt))
        return;
    p->serving = false;
    if (p->gone)
        port_free(p);
    else
        port_end_serving(p);
    shared_drop(&c->shared);
}

/* ---- waiting ------------------------------------------------------------------------------- */

static void port_abort_receive(struct asio_wait *w)
{
    struct port *p = ((struct shared_handle *)asio_worker_core->wait->source(w))->local;
    asio_worker_core->wait->list_remove(&p->receivers, w);
    worker_lock(&p->channel->lock);
    port_set_receiving(p, p->receiving - 1);
    shared_channel_balance(p->channel);
    shared_channel_unlock(p->channel);
}

static int port_push_received(lua_State *L, struct asio_wait *w)
{
    int status = asio_worker_core->wait->status(w);
    if (status < 0)
        return asio_worker_core->wait->push_fail(L, status);
    asio_worker_core->wait->push_ok(L, worker_rt(L));
    asio_worker_core->wait->item_get(L, w);
    return 2;
}

static const struct asio_wait_op port_receive_op = { .name = "receive",
    .outside = true,
    .shared = true,
    .abort = port_abort_receive,
    .push = port_push_received };

static void port_abort_send(struct asio_wait *w)
{
    struct sending *s = asio_worker_core->wait->source(w);
    struct port *p = s->port;
    sending_unlink(s);
    worker_lock(&p->channel->lock);
    port_set_sending(p, p->sending - 1);
    shared_channel_balance(p->channel);
    shared_channel_unlock(p->channel);
    message_free(s->message);
    worker_free(s);
    asio_worker_core->wait->item_clear(w);
}

static const struct asio_wait_op port_send_op = {
    .name = "send", .outside = true, .shared = true, .abort = port_abort_send
};

/* ---- receiving ----------------------------------------------------------------------------- */

/* The next message; NULL: there is none. It stays `kept` until its values are on a stack. */
static struct message *port_take(struct port *p)
{
    struct shared_channel *c = p->channel;
    if (p->kept &&
        p->kept_tries++ > 0) { /* what it refers to cannot be found here: it must not stop the channel */
        message_free(p->kept);
        p->kept = NULL;
    }
    if (p->kept)
        return p->kept;
    p->kept_tries = 0;
    worker_lock(&c->lock);
    p->kept = shared_channel_take(c);
    if (p->kept && c->idle_senders > 0)
        shared_channel_balance(c);
    shared_channel_unlock(c);
    return p->kept;
}

/* Pushes token and value; 0: there is nothing yet. */
static int port_receive_now(lua_State *L, struct port *p)
{
    struct message *m = port_take(p);
    if (!m)
        return 0;
    asio_worker_core->wait->push_ok(L, worker_rt(L));
    int n = message_push(L, m);
    p->kept = NULL;
    message_free(m);
    return 1 + n;
}

static bool port_is_closed(struct port *p)
{
    worker_lock(&p->channel->lock);
    bool closed = p->channel->closed && !p->channel->first;
    shared_channel_unlock(p->channel);
    return closed;
}

/* False: there is something to take, or the channel is closed. */
static bool port_await(struct port *p, struct asio_wait *w)
{
    struct shared_channel *c = p->channel;
    worker_lock(&c->lock);
    bool waits = !c->first && !c->closed;
    if (waits) {
        port_set_receiving(p, p->receiving + 1);
        shared_channel_balance(c);
    }
    shared_channel_unlock(c);
    if (waits)
        asio_worker_core->wait->list_add(&p->receivers, w);
    return waits;
}

/* worker.receive(channel, timeout) */
static int l_port_receive(lua_State *L)
{
    struct shared_handle *h = shared_check(L, &shared_channel_kind, "recv");
    struct port *p = h->local;
    double timeout = asio_worker_core->error->timeout(L, 2, 1, "recv");
    int n = asio_worker_core->wait->interrupt(L, worker_rt(L));
    if (n > 0 || (n = port_receive_now(L, p)) > 0)
        return n;
    if (timeout == 0)
        return asio_worker_core->wait->push_fail(L, port_is_closed(p) ? UV_EBADF : UV_ETIMEDOUT);
    struct asio_wait *w = NULL;
    do {
        if (port_is_closed(p))
            return asio_worker_core->wait->push_fail(L, UV_EBADF);
        w = asio_worker_core->wait->claim(L, worker_rt(L));
        if (port_await(p, w))
            return asio_worker_core->wait->park(L, w, &port_receive_op, h, timeout);
    } while ((n = port_receive_now(L, p)) == 0);
    return n;
}

/* ---- sending ------------------------------------------------------------------------------- */

/* 0: sent; UV_EAGAIN: there is no room. */
static int port_send_now(struct port *p, struct message *m)
{
    struct shared_channel *c = p->channel;
    worker_lock(&c->lock);
    int status = c->closed ? UV_EBADF : shared_channel_has_room(c) ? 0 : UV_EAGAIN;
    if (status == 0 && !m->committed)
        status = message_commit(m);
    if (status == 0) {
        shared_channel_put(c, m);
        if (c->idle_receivers > 0)
            shared_channel_balance(c);
    }
    shared_channel_unlock(c);
    return status;
}

/* With what keeps the message's connections alive at the top of L. */
static int port_park_sender(lua_State *L, struct port *p, struct message *m, double timeout)
{
    p->spare = m; /* the next line may raise */
    struct asio_wait *w = asio_worker_core->wait->claim(L, worker_rt(L));
    struct sending *s = worker_alloc(sizeof *s);
    p->spare = NULL;
    if (!s) {
        message_free(m);
        return asio_worker_core->wait->push_fail(L, UV_ENOMEM);
    }
    *s = (struct sending){ .port = p, .wait = w, .message = m };
    asio_worker_core->wait->item_set(L, w);
    worker_lock(&p->channel->lock);
    port_set_sending(p, p->sending + 1);
    shared_channel_balance(p->channel); /* there may be room by now, or an end */
    if (p->channel->closed && !p->told)
        port_tell(p);
    shared_channel_unlock(p->channel);
    if (p->senders_last)
        p->senders_last->next = s;
    else
        p->senders = s;
    p->senders_last = s;
    return asio_worker_core->wait->park(L, w, &port_send_op, s, timeout);
}

/* worker.send(channel, value, timeout) */
static int l_port_send(lua_State *L)
{
    static const struct message_place place = { "send", 1, NULL, MESSAGE_PLAIN };
    struct port *p = shared_check(L, &shared_channel_kind, "send")->local;
    if (lua_isnoneornil(L, 2))
        asio_worker_core->error->arg(L, 1, "send", "nil cannot be sent: it would end the receiver's loop");
    double timeout = asio_worker_core->error->timeout(L, 3, 2, "send");
    int n = asio_worker_core->wait->interrupt(L, worker_rt(L));
    if (n > 0)
        return n;
    lua_settop(L, 3);
    if (p->spare)
        message_free(p->spare);
    p->spare = NULL;
    struct message *m = message_pack_scalar(L, 2);
    if (m)
        lua_pushnil(L);
    else
        m = message_pack(L, 2, 2, &place);
    int status = p->senders ? UV_EAGAIN : port_send_now(p, m);
    if (status == UV_EAGAIN && timeout != 0)
        return port_park_sender(L, p, m, timeout);
    if (status < 0) {
        message_free(m);
        return asio_worker_core->wait->push_fail(L, status == UV_EAGAIN ? UV_ETIMEDOUT : status);
    }
    asio_worker_core->wait->push_ok(L, worker_rt(L));
    lua_pushboolean(L, 1);
    return 2;
}

/* ---- select -------------------------------------------------------------------------------- */

static int shared_channel_poll(lua_State *L, void *object)
{
    struct port *p = ((struct shared_handle *)object)->local;
    int n = port_receive_now(L, p);
    return n > 0 || !port_is_closed(p) ? n : asio_worker_core->wait->push_fail(L, UV_EBADF);
}

/* Something may have come since the poll: the port is told, and serves the branch. */
static const struct asio_wait_op *shared_channel_join(struct asio_wait *branch)
{
    struct port *p = ((struct shared_handle *)asio_worker_core->wait->source(branch))->local;
    worker_lock(&p->channel->lock);
    port_set_receiving(p, p->receiving + 1);
    shared_channel_balance(p->channel);
    if (p->channel->closed && !p->told)
        port_tell(p);
    shared_channel_unlock(p->channel);
    asio_worker_core->wait->list_add(&p->receivers, branch);
    return &port_receive_op;
}

static const struct asio_selectable shared_channel_selectable = { shared_channel_poll, shared_channel_join };

/* ---- the rest ------------------------------------------------------------------------------ */

/* channel:close(): what is in the queue can still be received. */
static int l_shared_channel_close(lua_State *L)
{
    struct port *own = shared_check(L, &shared_channel_kind, "close")->local;
    struct shared_channel *c = own->channel;
    worker_lock(&c->lock);
    c->closed = true;
    for (struct port *p = c->ports, *next, *last = c->ports_last; p; p = next) {
        next = p == last ? NULL : p->next;
        if (!p->told && (p->receiving > 0 || p->sending > 0))
            port_tell(p);
    }
    shared_channel_unlock(c);
    return 0;
}

static int l_shared_channel_tostring(lua_State *L)
{
    struct shared_channel *c =
        ((struct port *)shared_check(L, &shared_channel_kind, "tostring")->local)->channel;
    worker_lock(&c->lock);
    int count = (int)c->count;
    bool closed = c->closed;
    shared_channel_unlock(c);
    lua_pushfstring(L, "shared channel (%d buffered%s)", count, closed ? ", closed" : "");
    return 1;
}

static void shared_channel_destroy(struct shared *shared)
{
    struct shared_channel *c = (struct shared_channel *)(void *)shared;
    while (c->first) {
        struct message *m = c->first;
        c->first = m->next;
        for (unsigned i = 0; i < m->refs; i++)
            if (m->ref[i].shared == shared)
                m->ref[i].shared = NULL; /* not counted, see shared_channel_count_own */
        message_free(m);
    }
    asio_worker_core->threads->mutex_destroy(&c->lock);
    worker_free(c);
}

static int shared_channel_attach(struct shared *shared, struct peer *peer, void **local)
{
    struct shared_channel *c = (struct shared_channel *)(void *)shared;
    struct port *p = worker_alloc(sizeof *p);
    if (!p)
        return UV_ENOMEM;
    memset(p, 0, sizeof *p);
    p->post.run = port_on_told;
    p->channel = c;
    p->peer = peer;
    worker_lock(&c->lock);
    port_link(p);
    shared_channel_unlock(c);
    *local = p;
    return 0;
}

/* Light threads that wait refer to the handle: there are none, unless the state closes, which drops them. */
static void shared_channel_detach(struct shared *shared, void *local)
{
    struct shared_channel *c = (struct shared_channel *)(void *)shared;
    struct port *p = local;
    worker_lock(&c->lock);
    port_set_receiving(p, 0);
    port_set_sending(p, 0);
    port_unlink(p);
    if (p->kept && p->kept->committed) { /* first in, first out; the others may have the rest */
        p->kept->next = c->first;
        c->first = p->kept;
        c->last = c->last ? c->last : p->kept;
        c->count++;
        shared_channel_count_own(c, p->kept, shared_drop);
        p->kept = NULL;
    }
    shared_channel_balance(c);
    shared_channel_unlock(c);
    peer_withdraw(p->peer, &p->post);
    for (struct sending *s = p->senders, *next; s; s = next) {
        next = s->next;
        message_free(s->message);
        worker_free(s);
    }
    p->senders = NULL;
    p->gone = true;
    if (!p->serving)
        port_free(p);
}

static void shared_channel_open(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg meta[] = { { "__tostring", l_shared_channel_tostring }, { NULL, NULL } };
    worker_bind(L, rt, peer, meta);
    lua_pushlightuserdata(L, (void *)&shared_channel_selectable);
    lua_setfield(L, -2, ASIO_SELECTABLE);
}

const struct shared_kind shared_channel_kind = {
    .name = "shared channel",
    .destroy = shared_channel_destroy,
    .attach = shared_channel_attach,
    .detach = shared_channel_detach,
    .open = shared_channel_open,
    .class = "shared_channel",
};

/* worker.channel(capacity) */
static int l_shared_channel(lua_State *L)
{
    enum { CAPACITY_MAX = 0x40000000 };
    double capacity = 0;
    worker_check_open(L, "shared.channel");
    if (!lua_isnoneornil(L, 1) && lua_tonumber(L, 1) == HUGE_VAL)
        capacity = CAPACITY_MAX;
    else if (!lua_isnoneornil(L, 1))
        capacity = asio_worker_core->error->integer(L, 1, 1, "shared.channel", 0, CAPACITY_MAX);
    shared_push_empty(L, &shared_channel_kind);
    struct shared_channel *c = worker_alloc(sizeof *c);
    if (c)
        memset(c, 0, sizeof *c);
    if (!c || asio_worker_core->threads->mutex_init(&c->lock) < 0) {
        worker_free(c);
        return luaL_error(L, "not enough memory");
    }
    c->capacity = (size_t)capacity;
    shared_init(&c->shared, &shared_channel_kind);
    shared_fill(L, worker_peer(L), &c->shared);
    return 1;
}

void shared_channel_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "channel", l_shared_channel }, { "send", l_port_send },
        { "receive", l_port_receive }, { "close_channel", l_shared_channel_close }, { NULL, NULL } };
    worker_bind(L, rt, peer, functions);
}
