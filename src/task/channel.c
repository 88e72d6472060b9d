/* SPDX-License-Identifier: MIT
 *
 * Channels between light threads. What is buffered is a ring in the channel's environment table; what a
 * parked sender gives, or a receiver that is over has been given, is in the slot of its light thread
 * (asio_wait_item_*). So a waiter that leaves takes its own item along, and no other.
 *
 * Lifetime: the userdata is all there is; anchored by references of the script, and by the stacks of waiters;
 * freed by the collector; nothing to close. */
#include "task/select.h"

#include "core/bind.h"
#include "base/error.h"
#include "core/park.h"

#include <math.h>

enum { RING_MIN = 16 };

static const char channel_magic = 0;

struct channel {
    const void *magic;                        /* &channel_magic: tells it from other userdata of the size */
    struct asio_wait_list receivers, senders; /* never both */
    uint32_t first, count;                    /* items in the ring, at 1 + (first + i) % size */
    uint32_t size;                            /* of the ring; all its places exist */
    uint32_t capacity;
    bool closed;
};

/* A mark takes fewer calls than comparing metatables, see to_conn in stream/conn.c. */
static struct channel *channel_check(lua_State *L, const char *fname)
{
    struct channel *c = lua_touserdata(L, 1);
    if (!c || lua_objlen(L, 1) != sizeof *c || c->magic != &channel_magic)
        asio_error_misuse(L, "calling '%s' on something that is not a channel", fname);
    asio_rt_notice_fork(asio_rt_of(L));
    return c;
}

/* ---- the ring ----------------------------------------------------------------------------- */

/* Twice the size: what lies before `first` has wrapped around and moves behind the end. The new
 * places are made first, which may run out of memory; after that putting something there cannot.
 * Ring at the top of L. */
static void channel_grow(lua_State *L, struct channel *c)
{
    uint32_t size = c->size ? c->size * 2 : RING_MIN;
    uint32_t wrapped = c->first + c->count > c->size ? c->first + c->count - c->size : 0;
    for (uint32_t i = c->size; i < size; i++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, (int)(i + 1));
    }
    for (uint32_t i = 0; i < wrapped; i++) {
        lua_rawgeti(L, -1, (int)(i + 1));
        lua_rawseti(L, -2, (int)(c->size + i + 1));
    }
    c->size = size;
}

/* Adds the value at the top of L (popped) to the ring of the channel at index 1. */
static void push_item(lua_State *L, struct channel *c)
{
    lua_getfenv(L, 1);
    if (c->count == c->size)
        channel_grow(L, c);
    lua_insert(L, -2);
    lua_rawseti(L, -2, (int)(1 + (c->first + c->count) % c->size));
    lua_pop(L, 1);
    c->count++;
}

/* Pushes the first item of the ring, which it leaves. */
static void take_item(lua_State *L, struct channel *c)
{
    int key = (int)(1 + c->first);
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, key);
    lua_pushboolean(L, 0);
    lua_rawseti(L, -3, key);
    lua_remove(L, -2);
    c->first = (c->first + 1) % c->size;
    c->count--;
}

/* ---- waiting ------------------------------------------------------------------------------ */

static struct asio_wait *channel_first_of(struct asio_wait_list *list)
{
    struct asio_wait *w = list->first;
    if (w)
        asio_wait_list_remove(list, w);
    return w;
}

static void channel_abort_receive(struct asio_wait *w)
{
    asio_wait_list_remove(&((struct channel *)w->source)->receivers, w);
}

static void channel_abort_send(struct asio_wait *w)
{
    asio_wait_list_remove(&((struct channel *)w->source)->senders, w);
    asio_wait_item_clear(w);
}

static int channel_push_received(lua_State *L, struct asio_wait *w)
{
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    asio_wait_item_get(L, w);
    return 2;
}

static const struct asio_wait_op receive_op = {
    .name = "receive", .abort = channel_abort_receive, .push = channel_push_received
};
static const struct asio_wait_op send_op = { .name = "send", .abort = channel_abort_send };

/* channel:send(value[, timeout]) */
static int l_channel_send(lua_State *L)
{
    struct channel *c = channel_check(L, "send");
    struct asio_rt *rt = asio_rt_of(L);
    if (lua_isnoneornil(L, 2))
        asio_error_arg(L, 1, "send", "nil cannot be sent: it would end the receiver's loop");
    double timeout = asio_check_timeout(L, 3, 2, "send");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (c->closed)
        return asio_push_fail(L, UV_EBADF);
    struct asio_wait *w = channel_first_of(&c->receivers);
    lua_pushvalue(L, 2);
    if (w) {
        asio_wait_item_set(L, w);
        asio_sched_ready(w, 0);
        return asio_push_true(L);
    }
    if (c->count < c->capacity) {
        push_item(L, c);
        return asio_push_true(L);
    }
    if (timeout == 0)
        return asio_push_fail(L, UV_ETIMEDOUT);
    w = asio_park_claim(L, rt);
    asio_wait_item_set(L, w);
    w->source = c;
    asio_wait_list_add(&c->senders, w);
    return asio_park(L, w, &send_op, timeout);
}

/* What is there: pushes token and value and returns true. */
static bool take_now(lua_State *L, struct channel *c)
{
    if (c->count == 0 && !c->senders.first)
        return false;
    struct asio_wait *sender = c->senders.first;
    asio_push_ok(L, asio_rt_of(L));
    if (c->count > 0) {
        take_item(L, c);
        if (sender) { /* its item takes the place that became free: no growing */
            asio_wait_item_get(L, sender);
            push_item(L, c);
        }
    } else {
        asio_wait_item_get(L, sender);
    }
    if (sender) {
        asio_wait_list_remove(&c->senders, sender);
        asio_sched_ready(sender, 0);
    }
    return true;
}

/* channel:recv([timeout]) */
static int l_channel_receive(lua_State *L)
{
    struct channel *c = channel_check(L, "recv");
    struct asio_rt *rt = asio_rt_of(L);
    double timeout = asio_check_timeout(L, 2, 1, "recv");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (take_now(L, c))
        return 2;
    if (c->closed)
        return asio_push_fail(L, UV_EBADF);
    if (timeout == 0)
        return asio_push_fail(L, UV_ETIMEDOUT);
    struct asio_wait *w = asio_park_claim(L, rt);
    w->source = c;
    asio_wait_list_add(&c->receivers, w);
    return asio_park(L, w, &receive_op, timeout);
}

/* ---- select ------------------------------------------------------------------------------- */

/* With the channel at index 1 of L. */
static int poll_channel(lua_State *L, void *object)
{
    struct channel *c = object;
    if (take_now(L, c))
        return 2;
    return c->closed ? asio_push_fail(L, UV_EBADF) : 0;
}

static const struct asio_wait_op *join_channel(struct asio_wait *branch)
{
    asio_wait_list_add(&((struct channel *)branch->source)->receivers, branch);
    return &receive_op;
}

const struct asio_selectable asio_channel_selectable = { poll_channel, join_channel };

/* ---- the rest, which never waits ---------------------------------------------------------- */

/* Closing: receivers get what is buffered first, senders that wait take their items back. */
static int l_channel_close(lua_State *L)
{
    struct channel *c = channel_check(L, "close");
    struct asio_wait *w;
    c->closed = true;
    while ((w = channel_first_of(&c->receivers)) != NULL)
        asio_sched_ready(w, UV_EBADF);
    while ((w = channel_first_of(&c->senders)) != NULL) {
        asio_wait_item_clear(w);
        asio_sched_ready(w, UV_EBADF);
    }
    return 0;
}

static int l_channel_tostring(lua_State *L)
{
    struct channel *c = channel_check(L, "tostring");
    lua_pushfstring(L, "channel (%d buffered%s)", (int)c->count, c->closed ? ", closed" : "");
    return 1;
}

/* asio.channel([capacity]) */
static int l_channel(lua_State *L)
{
    enum { CAPACITY_MAX = 0x40000000 }; /* keys of the ring are ints */
    struct asio_rt *rt = asio_rt_of(L);
    double capacity = 0;
    if (!lua_isnoneornil(L, 1) && lua_tonumber(L, 1) == HUGE_VAL)
        capacity = CAPACITY_MAX;
    else if (!lua_isnoneornil(L, 1))
        capacity = asio_check_integer(L, 1, 1, "channel", 0, CAPACITY_MAX);
    struct channel *c = lua_newuserdata(L, sizeof *c);
    *c = (struct channel){ .magic = &channel_magic, .capacity = (uint32_t)capacity };
    lua_newtable(L);
    lua_setfenv(L, -2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CHANNEL_MT]);
    lua_setmetatable(L, -2);
    return 1;
}

static void channel_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "channel", l_channel }, { NULL, NULL } };
    static const luaL_Reg core[] = { { "send", l_channel_send }, { "receive", l_channel_receive },
        { NULL, NULL } };
    static const luaL_Reg methods[] = { { "close", l_channel_close }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__tostring", l_channel_tostring }, { NULL, NULL } };
    asio_bind_functions(L, rt, "asio", module);
    asio_bind_functions(L, rt, "core", core);
    asio_bind_class(L, rt, "channel", methods, meta, rt->refs[ASIO_REF_CHANNEL_MT]);
}

const struct asio_part asio_part_channel = { "channel", channel_part_open, NULL };
