/* SPDX-License-Identifier: MIT
 * Taking over sockets, and connecting; see family.h. */
#include "net/family.h"

#include "core/park.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"

struct asio_uvstream *asio_family_adopt(struct asio_rt *rt, const struct asio_socket_family *family,
    const struct asio_socket_options *options, uv_os_sock_t fd, int *status)
{
    struct asio_uvstream *u = family->make(rt, options);
    *status = u ? family->open(&u->handle, fd) : UV_ENOMEM;
    if (*status < 0)
        asio_sys_close(fd);
    else
        *status = family->connected(u, options);
    if (*status == 0)
        return u;
    if (u)
        asio_uvstream_discard(u);
    return NULL;
}

/* ---- connecting --------------------------------------------------------------------------- */

struct asio_connecting *asio_connecting_new(struct asio_uvstream *u)
{
    struct asio_connecting *c = asio_mem.malloc(sizeof *c);
    if (!c) {
        asio_uvstream_discard(u);
        return NULL;
    }
    c->stream = u;
    c->wait = NULL;
    return c;
}

void asio_connecting_free(struct asio_connecting *c)
{
    asio_uvstream_discard(c->stream);
    asio_mem.free(c);
}

/* The connection belongs to the waiter from here on; if it cannot be told, it is closed. */
static int push_connected(lua_State *L, struct asio_wait *w)
{
    struct asio_connecting *c = w->source;
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    asio_stream_attach(&c->stream->stream, asio_conn_push(L, w->rt));
    return 2;
}

void asio_connecting_done(uv_connect_t *req, int status)
{
    struct asio_connecting *c = (struct asio_connecting *)(void *)req;
    struct asio_stream *s = &c->stream->stream;
    if (c->wait) {
        asio_sched_wake(c->wait, status);
        if (!s->conn && !s->closing)
            asio_uvstream_discard(c->stream);
    }
    asio_mem.free(c);
}

static void abort_connect(struct asio_wait *w)
{
    struct asio_connecting *c = w->source;
    c->wait = NULL;
    asio_uvstream_discard(c->stream);
}

static const struct asio_wait_op connect_op = { "connect", true, abort_connect, push_connected };

int asio_connecting_park(lua_State *L, struct asio_wait *w, struct asio_connecting *c, double timeout)
{
    c->wait = w;
    w->source = c;
    return asio_park(L, w, &connect_op, timeout);
}
