/* SPDX-License-Identifier: MIT
 *
 * Channels between Lua states as Lua sees them: send, recv, close, asio.select. See channel.h. */
#include "plugins/worker/channel.h"

#include <math.h>
#include <string.h>

/* ---- waiting ------------------------------------------------------------------------------- */

static void port_abort_receive(struct asio_wait *w)
{
    struct port *p = ((struct shared_handle *)asio_worker_core->wait->source(w))->local;
    if (p->giving == w) { /* it is neither in the list nor counted */
        p->giving = NULL;
        return;
    }
    asio_worker_core->wait->list_remove(&p->receivers, w);
    worker_lock(&p->channel->lock);
    asio_port_set_receiving(p, p->receiving - 1);
    asio_shared_channel_balance(p->channel);
    asio_shared_channel_unlock(p->channel);
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
    asio_sending_unlink(s);
    worker_lock(&p->channel->lock);
    asio_port_set_sending(p, p->sending - 1);
    asio_shared_channel_balance(p->channel);
    asio_shared_channel_unlock(p->channel);
    asio_message_free(s->message);
    worker_free(s);
    asio_worker_core->wait->item_clear(w);
}

static const struct asio_wait_op port_send_op = {
    .name = "send", .outside = true, .shared = true, .abort = port_abort_send
};

/* ---- receiving ----------------------------------------------------------------------------- */

static const char port_push_key = 0; /* its address: the registry's key of l_port_push */

/* The next message, which is the caller's then; NULL: there is none. */
static struct message *port_take(struct port *p, unsigned *tries)
{
    struct shared_channel *c = p->channel;
    struct message *m = asio_port_take_kept(p, tries);
    if (m)
        return m;
    worker_lock(&c->lock);
    m = asio_shared_channel_take(c);
    if (m && c->idle_senders > 0)
        asio_shared_channel_balance(c);
    asio_shared_channel_unlock(c);
    return m;
}

/* push(handle) -> the value of the message that its port is pushing */
static int l_port_push(lua_State *L)
{
    struct port *p = ((struct shared_handle *)lua_touserdata(L, 1))->local;
    return asio_message_push(L, p->pushing);
}

/* With the error at the top of L: memory ran out, which loading a function and making a handle report by the text. */
static bool port_was_short(lua_State *L, int status)
{
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    return status == LUA_ERRMEM || strstr(text, "not enough memory");
}

/* Pushes token and value; 0: there is nothing yet. The handle is at index 1. What pushing allocates may run a finalizer,
 * which may receive as well: the message is in no list meanwhile. */
static int port_receive_now(lua_State *L, struct port *p)
{
    unsigned tries;
    struct message *m = port_take(p, &tries);
    if (!m)
        return 0;
    asio_worker_core->wait->push_ok(L, worker_rt(L));
    lua_pushlightuserdata(L, (void *)&port_push_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, 1);
    p->pushing = m;
    int status = lua_pcall(L, 1, 1, 0);
    if (status != 0 && tries == 0 && port_was_short(L, status))
        asio_port_keep(p, m, 1);
    else /* or what it refers to cannot be found here: it must not stop the channel */
        asio_message_free(m);
    return status == 0 ? 2 : lua_error(L);
}

static bool port_is_closed(struct port *p)
{
    worker_lock(&p->channel->lock);
    bool closed = p->channel->closed && !p->channel->first;
    asio_shared_channel_unlock(p->channel);
    return closed;
}

/* False: there is something to take, or the channel is closed. */
static bool port_await(struct port *p, struct asio_wait *w)
{
    struct shared_channel *c = p->channel;
    worker_lock(&c->lock);
    bool waits = !c->first && !c->closed;
    if (waits) {
        asio_port_set_receiving(p, p->receiving + 1);
        asio_shared_channel_balance(c);
    }
    asio_shared_channel_unlock(c);
    if (waits)
        asio_worker_core->wait->list_add(&p->receivers, w);
    return waits;
}

/* worker.receive(channel, timeout) */
static int l_port_receive(lua_State *L)
{
    struct shared_handle *h = asio_shared_check(L, &asio_shared_channel_kind, "recv");
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
    int status = c->closed ? UV_EBADF : asio_shared_channel_has_room(c) ? 0 : UV_EAGAIN;
    if (status == 0 && !m->committed)
        status = asio_message_commit(m);
    if (status == 0) {
        asio_shared_channel_put(c, m);
        if (c->idle_receivers > 0)
            asio_shared_channel_balance(c);
    }
    asio_shared_channel_unlock(c);
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
        asio_message_free(m);
        return asio_worker_core->wait->push_fail(L, UV_ENOMEM);
    }
    *s = (struct sending){ .port = p, .wait = w, .message = m };
    asio_worker_core->wait->item_set(L, w);
    worker_lock(&p->channel->lock);
    asio_port_set_sending(p, p->sending + 1);
    asio_shared_channel_balance(p->channel); /* there may be room by now, or an end */
    if (p->channel->closed && !p->told)
        asio_port_tell(p);
    asio_shared_channel_unlock(p->channel);
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
    struct port *p = asio_shared_check(L, &asio_shared_channel_kind, "send")->local;
    if (lua_isnoneornil(L, 2))
        asio_worker_core->error->arg(L, 1, "send", "nil cannot be sent: it would end the receiver's loop");
    double timeout = asio_worker_core->error->timeout(L, 3, 2, "send");
    int n = asio_worker_core->wait->interrupt(L, worker_rt(L));
    if (n > 0)
        return n;
    lua_settop(L, 3);
    if (p->spare)
        asio_message_free(p->spare);
    p->spare = NULL;
    struct message *m = asio_message_pack_scalar(L, 2);
    if (m)
        lua_pushnil(L);
    else
        m = asio_message_pack(L, 2, 2, &place);
    int status = p->senders ? UV_EAGAIN : port_send_now(p, m);
    if (status == UV_EAGAIN && timeout != 0)
        return port_park_sender(L, p, m, timeout);
    if (status < 0) {
        asio_message_free(m);
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
    asio_worker_check_open(L, "select");
    int n = port_receive_now(L, p);
    return n > 0 || !port_is_closed(p) ? n : asio_worker_core->wait->push_fail(L, UV_EBADF);
}

/* Something may have come since the poll: the port is told, and serves the branch. */
static const struct asio_wait_op *shared_channel_join(struct asio_wait *branch)
{
    struct port *p = ((struct shared_handle *)asio_worker_core->wait->source(branch))->local;
    worker_lock(&p->channel->lock);
    asio_port_set_receiving(p, p->receiving + 1);
    asio_shared_channel_balance(p->channel);
    if (p->channel->closed && !p->told)
        asio_port_tell(p);
    asio_shared_channel_unlock(p->channel);
    asio_worker_core->wait->list_add(&p->receivers, branch);
    return &port_receive_op;
}

static const struct asio_selectable shared_channel_selectable = { shared_channel_poll, shared_channel_join };

/* ---- the rest ------------------------------------------------------------------------------ */

/* channel:close(): what is in the queue can still be received. */
static int l_shared_channel_close(lua_State *L)
{
    struct port *own = asio_shared_check(L, &asio_shared_channel_kind, "close")->local;
    struct shared_channel *c = own->channel;
    worker_lock(&c->lock);
    c->closed = true;
    for (struct port *p = c->ports, *next, *last = c->ports_last; p; p = next) {
        next = p == last ? NULL : p->next;
        if (!p->told && (p->receiving > 0 || p->sending > 0))
            asio_port_tell(p);
    }
    asio_shared_channel_unlock(c);
    return 0;
}

static int l_shared_channel_tostring(lua_State *L)
{
    struct shared_channel *c =
        ((struct port *)asio_shared_check(L, &asio_shared_channel_kind, "tostring")->local)->channel;
    worker_lock(&c->lock);
    int count = (int)c->count;
    bool closed = c->closed;
    asio_shared_channel_unlock(c);
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
                m->ref[i].shared = NULL; /* not counted, see asio_shared_channel_count_own */
        asio_message_free(m);
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
    p->post.run = asio_port_on_told;
    p->channel = c;
    p->peer = peer;
    worker_lock(&c->lock);
    asio_port_link(p);
    asio_shared_channel_unlock(c);
    *local = p;
    return 0;
}

/* The others may have what was kept, in its order. */
static void port_put_back_kept(struct port *p)
{
    struct message *m, *last_first = NULL;
    unsigned tries;
    while ((m = asio_port_take_kept(p, &tries)) != NULL) {
        m->next = last_first;
        last_first = m;
    }
    while ((m = last_first) != NULL) {
        last_first = m->next;
        asio_shared_channel_put_back(p->channel, m);
    }
}

/* Light threads that wait refer to the handle: there are none, unless the state closes, which drops them. */
static void shared_channel_detach(struct shared *shared, void *local)
{
    struct shared_channel *c = (struct shared_channel *)(void *)shared;
    struct port *p = local;
    worker_lock(&c->lock);
    asio_port_set_receiving(p, 0);
    asio_port_set_sending(p, 0);
    asio_port_unlink(p);
    port_put_back_kept(p);
    asio_shared_channel_balance(c);
    asio_shared_channel_unlock(c);
    asio_peer_withdraw(p->peer, &p->post);
    for (struct sending *s = p->senders, *next; s; s = next) {
        next = s->next;
        asio_message_free(s->message);
        worker_free(s);
    }
    p->senders = NULL;
    p->gone = true;
    if (!p->serving)
        asio_port_free(p);
}

static void shared_channel_open(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg meta[] = { { "__tostring", l_shared_channel_tostring }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, meta);
    lua_pushlightuserdata(L, (void *)&shared_channel_selectable);
    lua_setfield(L, -2, ASIO_SELECTABLE);
    lua_pushlightuserdata(L, (void *)&port_push_key);
    lua_pushcfunction(L, l_port_push);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

const struct shared_kind asio_shared_channel_kind = {
    .name = "shared channel",
    .article = "a",
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
    asio_worker_check_open(L, "shared.channel");
    if (!lua_isnoneornil(L, 1) && lua_tonumber(L, 1) == HUGE_VAL)
        capacity = CAPACITY_MAX;
    else if (!lua_isnoneornil(L, 1))
        capacity = asio_worker_core->error->integer(L, 1, 1, "shared.channel", 0, CAPACITY_MAX);
    asio_shared_push_empty(L, &asio_shared_channel_kind);
    struct shared_channel *c = worker_alloc(sizeof *c);
    if (c)
        memset(c, 0, sizeof *c);
    if (!c || asio_worker_core->threads->mutex_init(&c->lock) < 0) {
        worker_free(c);
        return luaL_error(L, "not enough memory");
    }
    c->capacity = (size_t)capacity;
    asio_shared_init(&c->shared, &asio_shared_channel_kind);
    asio_shared_fill(L, worker_peer(L), &c->shared);
    return 1;
}

void asio_shared_channel_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "channel", l_shared_channel }, { "send", l_port_send },
        { "receive", l_port_receive }, { "close_channel", l_shared_channel_close }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, functions);
}
