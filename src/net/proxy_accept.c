/* SPDX-License-Identifier: MIT
 * Connections that come through a proxy; see proxy_accept.h. The reader of such a stream is a wait record on which no
 * light thread is parked: bytes behind the header stay for the script, and other connections are accepted
 * meanwhile. */
#include "net/proxy_accept.h"

#include "stream/lifecycle.h"
#include "stream/read.h"

#include <string.h>

static struct asio_proxy_accept *proxy_accept_of(struct asio_stream *s)
{
    return (struct asio_proxy_accept *)(void *)s->alias;
}

/* ---- the names of a connection that was handed out ------------------------------------------ */

static const struct asio_proxy_names *names_in(const struct asio_stream_alias *a)
{
    return &((const struct asio_proxy_accept *)(const void *)a)->names;
}

static int proxy_accept_name_of(const struct asio_stream_alias *a, struct sockaddr_storage *addr, bool peer)
{
    const struct asio_proxy_names *n = names_in(a);
    memcpy(addr, peer ? &n->source : &n->target, sizeof n->source);
    return 0;
}

static int proxy_accept_path_of(const struct asio_stream_alias *a, char *path, size_t *size, bool peer)
{
    memcpy(path, names_in(a)->paths + (peer ? 0 : ASIO_PROXY_PATH), ASIO_PROXY_PATH);
    path[ASIO_PROXY_PATH] = '\0';
    *size = *path ? strlen(path) : path[1] ? strlen(path + 1) + 1 : 0;
    if (*size && !*path)
        *path = '@';
    return 0;
}

/* ---- waiting for the header ---------------------------------------------------------------- */

static void proxy_accept_unlink(struct asio_proxy_accept *p)
{
    asio_wait_list_remove(p->complete ? &p->gate->complete : &p->gate->incomplete, &p->wait);
    asio_timer_remove(&p->wait.rt->timers, &p->timer);
}

int asio_proxy_accept_end(struct asio_stream *s)
{
    struct asio_proxy_accept *p = proxy_accept_of(s);
    int ref = p->ref, family = p->names.source.any.sa_family;
    proxy_accept_unlink(p);
    if (family == AF_UNSPEC) {
        asio_mem.free(p);
        s->alias = NULL;
        return ref;
    }
    p->alias.path_of = family == AF_UNIX ? proxy_accept_path_of : NULL;
    size_t kept = offsetof(struct asio_proxy_accept, names);
    kept += family == AF_UNIX ? sizeof p->names : offsetof(struct asio_proxy_names, paths);
    void *alias = asio_mem.realloc(p, kept);
    if (alias)
        s->alias = alias;
    return ref;
}

static void proxy_accept_give_up(struct asio_stream *s)
{
    struct asio_proxy_accept *p = proxy_accept_of(s);
    proxy_accept_unlink(p);
    if (s->reader == &p->wait)
        s->reader = NULL;
    asio_rt_release(s->rt, p->ref);
    asio_stream_drop(s);
}

void asio_proxy_gate_close(struct asio_proxy_gate *gate)
{
    while (gate->incomplete.first)
        proxy_accept_give_up(gate->incomplete.first->source);
    while (gate->complete.first)
        proxy_accept_give_up(gate->complete.first->source);
}

static void on_late(struct asio_timer *timer)
{
    proxy_accept_give_up(ASIO_CONTAINER(timer, struct asio_proxy_accept, timer)->wait.source);
}

static void await(struct asio_proxy_accept *p, size_t need)
{
    struct asio_stream *s = p->wait.source;
    p->wait.state = ASIO_WAIT_PARKED;
    p->wait.u.in.need = need;
    s->reader = &p->wait;
}

static void complete(struct asio_proxy_accept *p, size_t length)
{
    struct asio_stream *s = p->wait.source;
    asio_inbuf_skip(&s->in, &s->rt->blocks, length);
    proxy_accept_unlink(p);
    p->complete = true;
    asio_wait_list_add(&p->gate->complete, &p->wait);
    p->gate->arrived(p->gate, s);
}

/* As many bytes are there as were waited for; or it has ended. */
static void on_bytes(struct asio_wait *w)
{
    struct asio_proxy_accept *p = ASIO_CONTAINER(w, struct asio_proxy_accept, wait);
    struct asio_stream *s = w->source;
    size_t need;
    int length = w->status;
    if (length == 0)
        length = asio_proxy_parse(asio_inbuf_bytes(&s->in), asio_inbuf_length(&s->in), &p->names, &need);
    if (length < 0)
        proxy_accept_give_up(s);
    else if (length == 0)
        await(p, need);
    else
        complete(p, (size_t)length);
}

static void abort_header(struct asio_wait *w)
{
    ((struct asio_stream *)w->source)->reader = NULL;
}

static const struct asio_wait_op header_op = {
    .name = "proxy header", .outside = true, .abort = abort_header
};

int asio_proxy_accept_begin(struct asio_proxy_gate *gate, struct asio_stream *s, int ref)
{
    if (!asio_trusted_proxies_has(gate->trust, s))
        return UV_EACCES;
    struct asio_proxy_accept *p = asio_mem.malloc(sizeof *p);
    if (!p)
        return UV_ENOMEM;
    memset(p, 0, sizeof *p);
    s->alias = &p->alias;
    asio_wait_init_callback(&p->wait, s->rt, &header_op, s, on_bytes);
    asio_timer_init(&p->timer, on_late);
    p->alias.name_of = proxy_accept_name_of;
    p->gate = gate;
    p->ref = ref;
    int status = asio_timer_set(&s->rt->timers, &p->timer, asio_rt_deadline(gate->trust->timeout));
    if (status < 0)
        return status;
    if (!asio_stream_start_reading(s)) {
        asio_timer_remove(&s->rt->timers, &p->timer);
        return s->read_status;
    }
    asio_wait_list_add(&gate->incomplete, &p->wait);
    await(p, 1);
    return 0;
}
