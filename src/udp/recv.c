/* SPDX-License-Identifier: MIT
 *
 * Receiving. As many datagrams as there are, up to ASIO_SYS_BATCH, are taken in one call; a reader that
 * waits runs once for all of them and finds the rest when it calls again; each is copied once, into its Lua
 * string. Datagrams that no reader takes are kept, up to a mark.
 *
 * libuv's own batches (UV_UDP_RECVMMSG) are of 20, and another call says that nothing is left: measured
 * at a tenth of the processor time of an echo server. So libuv only tells that there is something, by asking
 * for memory; it is given none, which ends its reading, once we have read. */
#include "udp/recv.h"

#include "base/error.h"
#include "core/address.h"
#include "core/bind.h"
#include "core/hook.h"
#include "core/park.h"
#include "udp/address.h"

#include <string.h>

/* ---- from libuv --------------------------------------------------------------------------- */

/* Datagrams can be read. Only the call is made here: uv_udp_recv_stop is not allowed inside this callback. */
static void udp_recv_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct asio_udp_socket *s = handle->data;
    struct asio_udp_shared *shared = s->shared;
    uv_os_fd_t fd;
    if (!shared->batch && !shared->one_by_one)
        shared->batch = asio_sys_batch_new();
    shared->received = shared->batch ? uv_fileno(handle, &fd) : UV_ENOTSUP;
    if (shared->received == 0)
        shared->received = asio_sys_batch_receive(shared->batch, fd);
    bool leave = shared->received == UV_ENOTSUP;
    if (shared->batch && leave) {
        asio_mem.free(shared->batch);
        shared->batch = NULL;
        shared->one_by_one = true;
    }
    *buf = leave ? asio_rt_scratch(s->rt) : uv_buf_init(NULL, 0);
}

void asio_udp_recv_stop(struct asio_udp_socket *s)
{
    if (s->reading)
        uv_udp_recv_stop(&s->handle);
    s->reading = false;
}

static void udp_recv_wake_reader(struct asio_udp_socket *s, int status)
{
    struct asio_wait *w = s->reader;
    s->reader = NULL;
    asio_sched_wake(w, status);
}

/* Keeps what the reader has not taken: the next batch lands in the same memory. */
static void udp_recv_keep_rest(struct asio_udp_socket *s)
{
    struct asio_udp_shared *shared = s->shared;
    size_t before = s->in.cost;
    for (; shared->first < shared->end && !s->closing; shared->first++)
        if (asio_datagram_add(&s->in, &shared->env, &shared->list[shared->first]) < 0)
            asio_udp_socket_failed(s, UV_ENOMEM); /* lost: the next reader gets the error */
    if (s->in.cost > before)
        asio_rt_external(s->rt, s->in.cost - before);
    shared->owner = NULL;
}

/* User code runs: the socket may have been closed afterwards, but its memory is there until libuv calls back. */
static void udp_recv_deliver(struct asio_udp_socket *s, struct asio_datagram *list, unsigned count)
{
    struct asio_udp_shared *shared = s->shared;
    for (unsigned i = 0; i < count; i++)
        s->rt->stats.bytes_in += list[i].size;
    shared->owner = s;
    shared->list = list;
    shared->first = 0;
    shared->end = count;
    if (s->reader && s->in.count == 0)
        udp_recv_wake_reader(s, 0);
    udp_recv_keep_rest(s);
    if (!s->closing && !s->reader && s->in.cost > s->options.recv_queue) {
        asio_udp_recv_stop(s);
        s->full = true;
    }
}

static void udp_recv_on_error(struct asio_udp_socket *s, int status)
{
    if (!asio_udp_socket_is_answer(status))
        asio_udp_recv_stop(
            s); /* or libuv reports it in every turn; the next reader finds out whether it lasts */
    if (s->reader)
        udp_recv_wake_reader(s, status);
    else
        asio_udp_socket_failed(s, status);
}

static void udp_recv_deliver_one(
    struct asio_udp_socket *s, const uv_buf_t *buf, size_t size, const struct sockaddr *addr, bool partial)
{
    struct asio_datagram d = { .bytes = buf->base, .size = (uint32_t)size, .partial = partial };
    memcpy(&d.address, addr, addr->sa_family == AF_INET6 ? sizeof d.address.v6 : sizeof d.address.v4);
    udp_recv_deliver(s, &d, 1);
}

static void udp_recv_on_recv(
    uv_udp_t *handle, ssize_t n, const uv_buf_t *buf, const struct sockaddr *addr, unsigned flags)
{
    struct asio_udp_socket *s = handle->data;
    bool taken = n == UV_ENOBUFS && buf->len == 0 && s->shared->received != UV_ENOTSUP;
    if (taken)
        n = s->shared->received;
    else if (n == UV_ENOBUFS && buf->len == 0) /* that is libuv's word for having got no memory */
        n = UV_ENOMEM;
    if (n < 0)
        udp_recv_on_error(s, (int)n);
    else if (taken && n > 0)
        udp_recv_deliver(s, s->shared->batch->list, (unsigned)n);
    else if (addr) /* NULL: nothing was there; an empty datagram has one */
        udp_recv_deliver_one(s, buf, (size_t)n, addr, flags & UV_UDP_PARTIAL);
}

static int udp_recv_start(struct asio_udp_socket *s)
{
    if (s->reading)
        return 0;
    int status = asio_udp_socket_open_as(s, AF_UNSPEC);
    if (status == 0)
        status = uv_udp_recv_start(&s->handle, udp_recv_on_alloc, udp_recv_on_recv);
    s->reading = status == 0;
    s->full = false;
    return status;
}

/* ---- to Lua ------------------------------------------------------------------------------- */

static bool udp_recv_has_batch(const struct asio_udp_socket *s)
{
    return s->shared->owner == s && s->shared->first < s->shared->end;
}

static const struct asio_datagram *udp_recv_first(const struct asio_udp_socket *s)
{
    if (s->in.count > 0)
        return asio_datagram_first(&s->in);
    return udp_recv_has_batch(s) ? &s->shared->list[s->shared->first] : NULL;
}

static void udp_recv_drop_first(struct asio_udp_socket *s)
{
    if (s->in.count == 0) {
        s->shared->first++;
        return;
    }
    asio_datagram_drop(&s->in, &s->shared->env, 1);
    if (s->full && s->in.cost <= s->options.recv_queue / 2)
        udp_recv_start(s); /* if that fails, the next reader that has to wait tries again */
}

/* The datagram is dropped last: running out of memory loses nothing. Making strings may run
 * finalizers, which may close the socket (its memory is there until libuv calls back), but are
 * kept from reading. */
static int udp_recv_push_first(lua_State *L, struct asio_udp_socket *s, size_t max)
{
    const struct asio_datagram *d = udp_recv_first(s);
    int n = 2;
    s->pushing = true;
    if (d->size > max || d->partial) {
        n = asio_push_fail(L, UV_EMSGSIZE);
    } else {
        asio_push_ok(L, s->rt);
        lua_pushlstring(L, d->bytes, d->size);
    }
    asio_udp_address_push_ip(L, s, &d->address.any);
    lua_pushinteger(L, asio_address_port(&d->address.any));
    s->pushing = false;
    if (!s->closing)
        udp_recv_drop_first(s);
    return n + 2;
}

static int udp_recv_push_received(lua_State *L, struct asio_wait *w)
{
    return w->status < 0 ? asio_push_fail(L, w->status) : udp_recv_push_first(L, w->source, w->u.in.max);
}

static void udp_recv_on_abort(struct asio_wait *w)
{
    struct asio_udp_socket *s = w->source;
    s->reader = NULL;
}

static const struct asio_wait_op udp_recv_op = {
    .name = "recv", .outside = true, .abort = udp_recv_on_abort, .push = udp_recv_push_received
};

/* Raising out of memory leaves `pushing` set: a finalizer is what makes it mean something. */
static bool udp_recv_is_busy(lua_State *L, const struct asio_udp_socket *s)
{
    return s->reader || (s->pushing && asio_hook_active(L, s->rt));
}

static bool udp_recv_is_for_readers(int status)
{
    return status == UV_ENOMEM || asio_udp_socket_is_answer(status);
}

static int udp_recv_wait(lua_State *L, struct asio_udp_socket *s, size_t max, double timeout)
{
    struct asio_wait *w = asio_park_claim(L, s->rt);
    int status = udp_recv_start(s);
    if (status < 0)
        return asio_push_fail(L, status);
    w->source = s;
    w->u.in.max = max;
    s->reader = w;
    return asio_park(L, w, &udp_recv_op, timeout);
}

/* core.udp_recv(socket, max, timeout) */
static int l_udp_recv(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "recv");
    size_t max = SIZE_MAX;
    double timeout = -1;
    bool own = false;
    if (lua_gettop(L) > 1) { /* mostly there is nothing */
        own = !lua_isnoneornil(L, 3);
        if (!lua_isnoneornil(L, 2))
            max = (size_t)asio_check_integer(L, 2, 1, "recv", 1, 1 << 30);
        timeout = asio_check_timeout(L, 3, 2, "recv");
    }
    if (!s)
        return asio_udp_socket_push_closed(L);
    if (asio_sched_interrupted(s->rt))
        return asio_push_interrupt(L, s->rt);
    if (udp_recv_is_busy(L, s))
        return asio_push_fail(L, UV_EBUSY);
    if (udp_recv_first(s))
        return udp_recv_push_first(L, s, max);
    if (udp_recv_is_for_readers(s->error))
        return asio_udp_socket_push_failed(L, s);
    return udp_recv_wait(L, s, max, own ? timeout : s->read_timeout);
}

void asio_udp_recv_abort(struct asio_udp_socket *s, int status)
{
    if (s->reader)
        asio_sched_abort(s->reader, status);
}

void asio_udp_recv_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "udp_recv", l_udp_recv }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}
