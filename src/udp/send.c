/* SPDX-License-Identifier: MIT
 *
 * Sending. Datagrams are copied to a queue, which goes to the kernel in one call when the light thread
 * waits or ends. While the kernel has no room the first one is left to libuv, which watches the
 * socket; above a mark senders wait. What cannot be sent is dropped, and the next send or flush returns the
 * error. */
#include "udp/send.h"

#include "base/error.h"
#include "core/bind.h"
#include "core/park.h"
#include "udp/address.h"

#include <string.h>

enum { V4_MAX = 65507, V6_MAX = 65527 }; /* what fits into a packet, behind the headers */
enum { COALESCE = 64 * 1024 };           /* a queue this long is sent at once, not when the thread parks */
static const double udp_send_again_in = 0.001; /* seconds, where the kernel cannot say when it has room */

/* ---- to the kernel ------------------------------------------------------------------------ */

static void udp_send_drop_sent(struct asio_udp_socket *s, unsigned n)
{
    asio_datagram_drop(&s->out, &s->shared->env, n);
}

static const struct sockaddr *udp_send_address_of(const struct asio_datagram *d)
{
    return d->address.any.sa_family == AF_UNSPEC ? NULL : &d->address.any;
}

/* How many were sent, or an error. */
static int udp_send_some(struct asio_udp_socket *s)
{
    struct asio_datagram *list[ASIO_SYS_DATAGRAMS];
    unsigned count = asio_datagram_gather(&s->out, list, ASIO_SYS_DATAGRAMS);
    uv_os_fd_t fd;
    int n = uv_fileno((uv_handle_t *)&s->handle, &fd);
    if (n == 0)
        n = asio_sys_send_datagrams(fd, list, count);
    if (n == UV_ENOTSUP) {
        uv_buf_t buf = uv_buf_init((char *)list[0]->bytes, list[0]->size);
        n = uv_udp_try_send(&s->handle, &buf, 1, udp_send_address_of(list[0]));
        n = n < 0 ? n : 1;
    }
    for (int i = 0; i < n; i++)
        s->rt->stats.bytes_out += list[i]->size;
    return n;
}

static void udp_send_on_sent(uv_udp_send_t *req, int status)
{
    struct asio_udp_socket *s = req->handle->data;
    asio_mem.free(req);
    s->sending = false;
    asio_rt_unref(s->rt);
    if (s->gone)
        return;
    if (status == 0)
        s->rt->stats.bytes_out += asio_datagram_first(&s->out)->size;
    udp_send_drop_sent(s, 1);
    if (status < 0)
        asio_udp_socket_failed(s, status);
    asio_udp_send_flush(s);
}

/* The first one is libuv's until it is out. */
static bool udp_send_hand_over(struct asio_udp_socket *s)
{
    struct asio_datagram *d = asio_datagram_first(&s->out);
    uv_buf_t buf = uv_buf_init((char *)d->bytes, d->size);
    uv_udp_send_t *req = asio_mem.malloc(sizeof *req); /* not kept in the socket: this is rare */
    if (req && uv_udp_send(req, &s->handle, &buf, 1, udp_send_address_of(d), udp_send_on_sent) == 0)
        return true;
    asio_mem.free(req);
    return false;
}

/* Some systems have no buffer of their own for a full device (ENOBUFS): the socket is writable all the
 * while, and there is nothing to wait for but time. */
static bool udp_send_retry_later(struct asio_udp_socket *s)
{
    s->retrying = asio_timer_set(&s->rt->timers, &s->timer, asio_rt_deadline(udp_send_again_in)) == 0;
    return s->retrying;
}

static void udp_send_wait_for_room(struct asio_udp_socket *s, int status)
{
    if ((status == UV_EAGAIN && udp_send_hand_over(s)) || udp_send_retry_later(s)) {
        s->sending = true;
        asio_rt_ref(s->rt);
        return;
    }
    udp_send_drop_sent(s, 1);
    asio_udp_socket_failed(s, UV_ENOMEM);
}

static struct asio_wait *udp_send_reached(struct asio_udp_socket *s)
{
    struct asio_wait *w = s->writers.first;
    while (w && w->u.out.target > s->queued - s->out.cost)
        w = w->next;
    return w;
}

/* From the start each time: the results of a wait of the main chunk are made at once, which may run
 * a finalizer that closes the socket. */
static void udp_send_wake_writers(struct asio_udp_socket *s)
{
    struct asio_wait *w;
    while ((w = udp_send_reached(s)) != NULL) {
        asio_wait_list_remove(&s->writers, w);
        asio_sched_ready(w, 0);
    }
}

static void udp_send_continue_close(struct asio_udp_socket *s)
{
    if (s->gone || s->retrying)
        return;
    bool waits = s->out.count > 0 && s->timer.at == ASIO_NEVER;
    if (s->out.count == 0 || (waits && asio_timer_set(&s->rt->timers, &s->timer, s->give_up) < 0))
        asio_udp_socket_finish(s);
}

/* Linux returns the answer to an earlier datagram instead of sending the next one, which is then tried again. */
void asio_udp_send_flush(struct asio_udp_socket *s)
{
    bool answered = false;
    while (s->out.count > 0 && !s->sending && !s->gone) {
        int n = udp_send_some(s);
        if (n == UV_EAGAIN || n == UV_ENOBUFS) {
            udp_send_wait_for_room(s, n);
            continue;
        }
        bool answer = n < 0 && s->connected && asio_udp_socket_is_answer(n) && !answered;
        if (!answer)
            udp_send_drop_sent(s, n < 0 ? 1 : (unsigned)n);
        if (n < 0)
            asio_udp_socket_failed(s, n); /* last: it may come back here, see udp_send_wake_writers */
        answered = answer;
    }
    if (s->writers.first)
        udp_send_wake_writers(s);
    if (s->closing)
        udp_send_continue_close(s);
}

/* ---- from Lua ----------------------------------------------------------------------------- */

static void udp_send_abort_send(struct asio_wait *w)
{
    struct asio_udp_socket *s = w->source;
    w->u.out.unsent = s->out.count;
    asio_wait_list_remove(&s->writers, w);
}

/* A time-out says how many datagrams are still queued: they will be sent, so do not send them again. */
static int udp_send_push_unsent(lua_State *L, struct asio_wait *w)
{
    int n = asio_push_fail(L, w->status);
    if (w->status != UV_ETIMEDOUT)
        return n;
    lua_pushnumber(L, (double)w->u.out.unsent);
    return n + 1;
}

static int udp_send_push_sent(lua_State *L, struct asio_wait *w)
{
    return w->status < 0 ? udp_send_push_unsent(L, w) : asio_push_true(L);
}

static int udp_send_push_flushed(lua_State *L, struct asio_wait *w)
{
    struct asio_udp_socket *s = w->source;
    return w->status == 0 && s->error ? asio_udp_socket_push_failed(L, s) : udp_send_push_sent(L, w);
}

static const struct asio_wait_op udp_send_op = {
    .name = "send", .outside = true, .abort = udp_send_abort_send, .push = udp_send_push_sent
};
static const struct asio_wait_op udp_send_flush_op = {
    .name = "flush", .outside = true, .abort = udp_send_abort_send, .push = udp_send_push_flushed
};

static int udp_send_park(
    lua_State *L, struct asio_udp_socket *s, const struct asio_wait_op *op, uint64_t target, double timeout)
{
    if (asio_sched_interrupted(s->rt))
        return asio_push_interrupt(L, s->rt);
    struct asio_wait *w = asio_park_claim(L, s->rt);
    w->source = s;
    w->u.out.target = target;
    asio_wait_list_add(&s->writers, w);
    return asio_park(L, w, op, timeout);
}

/* What can be known before it is queued. */
static int udp_send_check(struct asio_udp_socket *s, struct asio_datagram *d, size_t size)
{
    bool addressed = d->address.any.sa_family != AF_UNSPEC;
    if (addressed == s->connected)
        return addressed ? UV_EISCONN : UV_EDESTADDRREQ;
    size_t max = d->address.any.sa_family == AF_INET || s->family == AF_INET ? V4_MAX : V6_MAX;
    if (size > max)
        return UV_EMSGSIZE;
    d->size = (uint32_t)size;
    return addressed ? asio_udp_address_fit(s, &d->address) : 0;
}

/* Outside of light threads it goes out at once, and what becomes of it can be told. */
static int udp_send_end(lua_State *L, struct asio_udp_socket *s, double timeout)
{
    struct asio_rt *rt = s->rt;
    bool now = rt->depth == 0 && !rt->looping, alone = s->out.count == 1;
    if (now || s->out.count >= ASIO_SYS_DATAGRAMS || s->out.cost >= COALESCE ||
        s->out.cost > s->options.send_queue)
        asio_udp_send_flush(s);
    else
        asio_rt_flush_later(rt, &s->flush);
    if (now && alone && s->error && !asio_udp_socket_is_answer(s->error))
        return asio_udp_socket_push_failed(L, s);
    if (s->out.cost <= s->options.send_queue || !asio_park_can_wait(L, rt)) {
        asio_push_ok(L, rt); /* the shim adds the `true` */
        return 1;
    }
    return udp_send_park(L, s, &udp_send_op, s->queued - s->options.send_queue / 4, timeout);
}

/* The time-out at a stack index, else the socket's (-1 for a closed one, which does not wait). */
static double udp_send_timeout(lua_State *L, int index, const struct asio_udp_socket *s)
{
    if (lua_gettop(L) >= index && !lua_isnil(L, index))
        return asio_check_timeout(L, index, index - 1, "send");
    return s ? s->write_timeout : -1;
}

/* core.udp_send(socket, data, host, port[, timeout]) or core.udp_send(socket, data[, raw]) */
static int l_udp_send(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "send");
    struct asio_datagram d = { .address.any.sa_family = AF_UNSPEC };
    size_t size;
    int status = 0;
    d.bytes = lua_tolstring(L, 2, &size);
    if (!d.bytes)
        asio_error_type(L, 2, 1, "send", "string");
    if (lua_gettop(L) > 2) /* connected, the shim gives nothing more */
        status = asio_udp_address_check(L, s, 3, "send", &d.address);
    if (!s)
        return asio_push_fail(L, UV_EBADF);
    if (status == ASIO_UDP_NAME)
        return s->connected ? asio_push_fail(L, UV_EISCONN) : asio_udp_address_push_name(L, s);
    if (s->out.cost > s->options.send_queue)
        asio_park_claim(L, s->rt); /* it will have to wait: raise before anything is queued */
    if (status == 0)
        status = udp_send_check(s, &d, size);
    if (status == 0 && s->error)
        return asio_udp_socket_push_failed(L, s);
    if (status == 0)
        status = asio_datagram_add(&s->out, &s->shared->env, &d);
    if (status < 0)
        return asio_push_fail(L, status);
    s->queued += asio_datagram_cost(size);
    return udp_send_end(L, s, udp_send_timeout(L, 5, s));
}

/* core.udp_flush(socket[, timeout]) */
static int l_udp_flush(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "flush");
    if (!s)
        return asio_udp_socket_push_closed(L);
    if (asio_sched_interrupted(s->rt))
        return asio_push_interrupt(L, s->rt);
    asio_udp_send_flush(s);
    if (s->error)
        return asio_udp_socket_push_failed(L, s);
    return s->out.count == 0 ? asio_push_true(L)
                             : udp_send_park(L, s, &udp_send_flush_op, s->queued, udp_send_timeout(L, 2, s));
}

void asio_udp_send_abort(struct asio_udp_socket *s, int status)
{
    while (s->writers.first)
        asio_sched_abort(s->writers.first, status);
}

void asio_udp_send_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "udp_send", l_udp_send }, { "udp_flush", l_udp_flush },
        { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
}
