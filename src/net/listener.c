/* SPDX-License-Identifier: MIT
 *
 * Listening; see listener.h.
 *
 * Connections are taken in batches: a batch begins with one, and grows while connections wait in every turn. So
 * a burst is spread over several turns, and a single connection costs no call that only says that there is
 * no other. A pause ends by the timer. The acceptor is watched while connections are wanted; a connection that
 * comes in a pause switches watching off, and the end of the pause switches it on. */
#include "net/listener.h"

#include "core/address.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"
#include "base/error.h"

#include <stdio.h>
#include <string.h>

enum { BATCH_MAX = 64 };
static const double backoff_min = 0.005, backoff_max = 1, report_every = 60; /* seconds */

static void listener_on_ready(struct asio_acceptor *a, int status);
static void listener_on_timer(struct asio_timer *timer);
static void listener_on_room(void *owner);
static void listener_on_proxied(struct asio_proxy_gate *gate, struct asio_stream *s);

/* ---- opening and closing ------------------------------------------------------------------ */

static void listener_on_closed(struct asio_acceptor *a)
{
    struct asio_listener *l = ASIO_CONTAINER(a, struct asio_listener, acceptor);
    asio_timer_remove(&l->rt->timers, &l->timer);
    asio_mem.free(l->path);
    asio_mem.free(l);
}

void asio_listener_close(struct asio_listener *l)
{
    if (l->server)
        l->server->listener = NULL;
    l->server = NULL;
    if (l->rt->closed)
        l->accepters = (struct asio_wait_list){ 0 };
    while (l->accepters.first) /* may run finalizers: they find a server that is closed */
        asio_sched_abort(l->accepters.first, UV_ECANCELED);
    asio_proxy_gate_close(&l->gate);
    asio_drain_disown(l->drain);
    if (l->handled)
        asio_rt_unref(l->rt);
    asio_timer_remove(&l->rt->timers, &l->timer);
    /* A fork keeps the file for the parent, which listens. Frees the listener, at the latest in the next turn. */
    asio_acceptor_close(&l->acceptor, l->rt->forked);
}

static void listener_teardown(void *owner)
{
    asio_listener_close(ASIO_CONTAINER(owner, struct asio_listener, acceptor));
}

static const struct asio_handle_ops listener_ops = { listener_teardown };

static int listener_learn_path(struct asio_listener *l)
{
    char path[ASIO_SYS_PATH_MAX];
    size_t n = sizeof path;
    int status = asio_acceptor_path(&l->acceptor, path, &n);
    if (status < 0)
        return status;
    l->path = asio_mem.malloc(n + 1);
    if (!l->path)
        return UV_ENOMEM;
    memcpy(l->path, path, n);
    l->path_length = n;
    return 0;
}

static int listener_learn_name(struct asio_listener *l)
{
    if (l->acceptor.family->local)
        return listener_learn_path(l);
    return asio_acceptor_address(&l->acceptor, &l->address);
}

static struct asio_listener *listener_new(
    struct asio_rt *rt, const struct asio_socket_options *options, bool handled)
{
    struct asio_listener *l = asio_mem.malloc(sizeof *l);
    if (!l)
        return NULL;
    memset(l, 0, sizeof *l);
    l->acceptor.ops = &listener_ops;
    l->acceptor.ready = listener_on_ready;
    l->acceptor.closed = listener_on_closed;
    l->rt = rt;
    l->options = *options;
    l->handled = handled;
    l->batch = 1;
    l->backoff = backoff_min;
    asio_timer_init(&l->timer, listener_on_timer);
    l->gate.arrived = listener_on_proxied;
    l->drain = asio_drain_new(rt, l, listener_on_room);
    if (l->drain)
        return l;
    asio_mem.free(l);
    return NULL;
}

int asio_listener_open(struct asio_rt *rt, struct asio_server *server, const struct asio_endpoint *where,
    const struct asio_socket_options *options, bool handled)
{
    struct asio_listener *l = listener_new(rt, options, handled);
    if (!l)
        return UV_ENOMEM;
    l->server = server;
    server->listener = l;
    server->drain = l->drain;
    if (handled) /* else a light thread in server:accept is what keeps run going */
        asio_rt_ref(rt);
    int status = asio_acceptor_open(&l->acceptor, rt, where, options);
    if (status == 0)
        status = listener_learn_name(l);
    if (status == 0 && handled)
        asio_acceptor_watch(&l->acceptor);
    if (status == 0)
        return 0;
    asio_listener_close(l);
    asio_drain_let_go(server->drain);
    server->drain = NULL;
    return status;
}

/* From copies: the strings' making may run finalizers, and closing a listener that pauses frees it. */
int asio_listener_push_address(lua_State *L, const struct asio_listener *l)
{
    struct sockaddr_storage address = l->address;
    char path[ASIO_SYS_PATH_MAX];
    size_t n = l->path_length;
    if (!l->path)
        return asio_address_push(L, &address);
    memcpy(path, l->path, n);
    asio_address_push_path(L, path, n);
    return 1;
}

/* ---- pauses ------------------------------------------------------------------------------- */

/* Once per trouble, not once per connection: at most every minute while it lasts. */
static void listener_report(struct asio_listener *l, const char *what)
{
    char name[ASIO_ADDRESS_MAX] = "?";
    int length = ASIO_ADDRESS_MAX;
    uint64_t now = uv_hrtime();
    if (l->reported_at && (double)(now - l->reported_at) < report_every * 1e9)
        return;
    l->reported_at = now;
    asio_address_format(&l->address, name);
    if (l->path)
        length = (int)l->path_length;
    fprintf(stderr, "asio: server %s%.*s: %s; accepting pauses until that is over\n", l->path ? "unix:" : "",
        length, l->path ? l->path : name, what);
    fflush(stderr);
}

static void listener_retry_later(struct asio_listener *l, double seconds)
{
    l->paused = true;
    if (asio_timer_set(&l->rt->timers, &l->timer, asio_rt_deadline(seconds)) == 0)
        return;
    fputs("asio: server: not enough memory to pause; closed\n", stderr);
    asio_listener_close(l);
}

static void listener_back_off(struct asio_listener *l)
{
    double seconds = l->backoff;
    l->backoff = seconds * 2 < backoff_max ? seconds * 2 : backoff_max;
    listener_retry_later(l, seconds);
}

/* Accepting has failed. */
static void listener_fault(struct asio_listener *l, int status)
{
    char text[128];
    asio_error_message(status, text, sizeof text);
    listener_report(l, text);
    listener_back_off(l);
}

/* The descriptor in hand is one of the last. It is looked at again when it is higher than at the last time, or
 * after a tenth of a second. */
static bool listener_files_short(struct asio_listener *l)
{
    uv_os_sock_t fd = l->acceptor.taken;
    uint64_t now = uv_now(&l->rt->loop);
    if (fd != ASIO_NO_SOCKET && fd <= l->files_newest && now - l->files_at < 100)
        return false;
    if (asio_acceptor_files_short(&l->acceptor))
        return true;
    l->files_newest = fd;
    l->files_at = now;
    return false;
}

/* Connections that the script no longer refers to are closed by a collection; if that is not enough, accepting
 * waits: existing connections keep a few descriptors for what they need, and clients wait in the backlog. */
static void listener_save_files(struct asio_listener *l)
{
    l->files_at = 0;
    asio_rt_collect(l->rt);
    if (!l->server || !asio_acceptor_files_short(&l->acceptor)) /* the listener may have been collected */
        return;
    listener_report(l, "too many open files");
    listener_back_off(l);
}

/* ---- accepting ---------------------------------------------------------------------------- */

struct accept {
    struct asio_listener *listener;
    struct asio_uvstream *stream; /* once taken */
    int ref;                      /* anchor of its connection until the handler has it */
    int status;
    struct asio_wait *accepter; /* to be woken */
    bool spawned;               /* the handler, a light thread or the gate has it */
    bool complete;              /* a proxy has said whose it is */
};

/* Makes a connection of what the acceptor has in hand, once all that can run out of memory is there. Finalizers run
 * on the way: they may take what is in hand, and close the listener. */
static int listener_take(lua_State *L, struct accept *a)
{
    struct asio_listener *l = a->listener;
    struct asio_conn *conn = asio_conn_push(L, l->rt);
    int status = l->server ? asio_acceptor_fetch(&l->acceptor) : UV_ECANCELED;
    if (status < 0)
        return status;
    struct asio_uvstream *u = asio_acceptor_adopt(&l->acceptor, l->rt, &l->options, &status);
    if (!u)
        return status;
    u->stream.counter = &l->drain->connections;
    l->drain->connections.count++;
    asio_stream_attach(&u->stream, conn);
    a->stream = u;
    a->ref = asio_rt_anchor(l->rt, L, -1);
    return a->ref == LUA_NOREF ? UV_ENOMEM : 0;
}

/* To the light thread that has waited longest in server:accept. */
static void listener_hand_over(lua_State *L, struct accept *a)
{
    struct asio_wait *w = a->listener->accepters.first;
    if (!w)
        return;
    asio_wait_list_remove(&a->listener->accepters, w);
    asio_rt_push_anchored(L, a->listener->rt, a->ref);
    asio_wait_item_set(L, w);
    a->accepter = w;
    a->spawned = true;
}

/* It comes through a proxy, if the peer is a trusted one. */
static void listener_begin(struct accept *a)
{
    struct asio_stream *s = &a->stream->stream;
    if (asio_proxy_accept_begin(&a->listener->gate, s, a->ref) < 0) {
        asio_stream_drop(s);
        return;
    }
    a->ref = LUA_NOREF;
    a->spawned = true;
}

/* Run again after an error, so that a finalizer that raises costs no client its connection; but a handler is spawned
 * once at most. */
static void accept_body(lua_State *L, void *arg)
{
    struct accept *a = arg;
    struct asio_listener *l = a->listener;
    if (a->spawned) {
        a->spawned = false;
        return;
    }
    if (!a->stream)
        a->status = listener_take(L, a);
    if (a->status < 0)
        return;
    if (l->gate.trust && !a->complete) {
        listener_begin(a);
        return;
    }
    if (!l->handled) {
        listener_hand_over(L, a);
        return;
    }
    asio_rt_wrapper_push(L, l->rt, l->server);
    if (lua_isnil(L, -1))
        return;
    asio_rt_push_anchored(L, l->rt, a->ref);
    lua_getfenv(L, -2);
    lua_getfield(L, -1, "handler");
    lua_remove(L, -2);
    lua_pushvalue(L, -2);
    a->spawned = true;
    asio_sched_spawn_counted(l->rt, L, 1, &l->drain->handlers);
}

/* The handler runs inside: afterwards the listener may have been closed. */
static void hand_out(struct accept *a)
{
    struct asio_rt *rt = a->listener->rt;
    int error = asio_rt_protect_retry(rt, accept_body, a, "accepting a connection");
    if (a->ref != LUA_NOREF)
        asio_rt_release(rt, a->ref);
    if (a->accepter)
        asio_sched_wake(a->accepter, 0);
    if (a->stream && (error || !a->spawned) && a->stream->stream.conn)
        asio_stream_close(&a->stream->stream, true);
}

static bool listener_is_full(const struct asio_listener *l)
{
    return l->options.max_connections && l->drain->connections.count >= (size_t)l->options.max_connections;
}

/* Without a handler connections wait until a light thread accepts them. */
static bool listener_wants(const struct asio_listener *l)
{
    return l->server && (l->handled || l->accepters.first);
}

/* What has become of a connection. */
static void listener_after(struct asio_listener *l, const struct accept *a, bool files_short)
{
    if (!l->server || a->status == UV_EAGAIN || a->status == UV_ECONNABORTED)
        return;
    if (!a->stream) {
        listener_fault(l, a->status);
        return;
    }
    l->backoff = backoff_min;
    if (files_short)
        listener_save_files(l);
}

/* Hands out the connection in hand. Afterwards the listener may be closing; its memory is there. */
static void listener_accept_one(struct asio_listener *l)
{
    struct accept a = { .listener = l, .status = UV_ENOMEM, .ref = LUA_NOREF };
    bool files_short = listener_files_short(l);
    hand_out(&a);
    listener_after(l, &a, files_short);
}

/* The header of a connection is there. */
static void listener_on_proxied(struct asio_proxy_gate *gate, struct asio_stream *s)
{
    struct asio_listener *l = ASIO_CONTAINER(gate, struct asio_listener, gate);
    if (!listener_wants(l))
        return;
    struct accept a = { l, (struct asio_uvstream *)(void *)s, asio_proxy_accept_end(s), .complete = true };
    hand_out(&a);
}

/* A client waits for room. Connections that the script no longer refers to make room when they are collected. While
 * nothing else goes on the collector does not run by itself, so it is run here: once a second, and for at most a
 * hundredth of the time. */
static void look_for_room(struct asio_listener *l)
{
    struct asio_rt *rt = l->rt;
    uint64_t now = uv_hrtime();
    if (now >= l->collect_at) {
        l->collect_at = ASIO_NEVER;
        asio_rt_collect(rt); /* the listener is still there: a collected one goes later */
        uint64_t took = uv_hrtime() - now;
        l->collect_at = now + (took > 10000000 ? took * 100 : 1000000000);
    }
    double seconds = (double)(l->collect_at - now) / 1e9;
    if (l->server) /* without memory for it: never mind */
        asio_timer_set(&rt->timers, &l->timer, asio_rt_deadline(seconds));
}

/* Takes what the acceptor has: 0, UV_EAGAIN, or an error, after which accepting pauses. */
static int listener_fetch(struct asio_listener *l)
{
    int status = asio_acceptor_fetch(&l->acceptor);
    if (status == UV_EMFILE || status == UV_ENFILE) {
        asio_rt_collect(l->rt);
        status = l->server ? asio_acceptor_fetch(&l->acceptor) : UV_EAGAIN;
    }
    if (status == UV_ECONNABORTED && ++l->aborted < BATCH_MAX)
        return UV_EAGAIN;
    l->aborted = 0;
    if (status < 0 && status != UV_EAGAIN)
        listener_fault(l, status);
    return status;
}

/* A batch grows when connections waited in every turn, and shrinks to what there was. */
static void listener_fit_batch(struct asio_listener *l)
{
    if (l->batch_full && l->turn + 1 == l->rt->turns)
        l->batch = l->batch * 2 < BATCH_MAX ? l->batch * 2 : BATCH_MAX;
    l->turn = l->rt->turns;
}

/* Waits for connections. No event tells of those that are held: they are taken soon. */
static void listener_watch(struct asio_listener *l)
{
    if (!asio_acceptor_holds(&l->acceptor)) {
        asio_acceptor_watch(&l->acceptor);
        return;
    }
    asio_acceptor_unwatch(&l->acceptor);
    if (!l->paused && listener_wants(l))
        listener_retry_later(l, 0);
}

static void listener_accept_batch(struct asio_listener *l)
{
    unsigned n = 0;
    int status = 0;
    listener_fit_batch(l);
    while (listener_wants(l) && !l->paused && !listener_is_full(l) && n < l->batch) {
        status = listener_fetch(l);
        if (status < 0)
            break;
        n++;
        listener_accept_one(l);
    }
    l->batch_full = n == l->batch;
    if (status == UV_EAGAIN)
        l->batch = n > 0 ? n : 1;
    if (!l->server)
        return;
    if (n > 0 || status == UV_EAGAIN) {
        listener_watch(l);
        return;
    }
    asio_acceptor_unwatch(&l->acceptor); /* what is there waits for the timer, or for a light thread */
    if (listener_wants(l) && !l->paused)
        look_for_room(l);
}

static void listener_on_ready(struct asio_acceptor *acceptor, int status)
{
    struct asio_listener *l = ASIO_CONTAINER(acceptor, struct asio_listener, acceptor);
    if (status == 0) {
        listener_accept_batch(l);
        return;
    }
    asio_acceptor_unwatch(acceptor);
    if (!l->paused)
        listener_fault(l, status);
}

static void listener_on_timer(struct asio_timer *timer)
{
    struct asio_listener *l = ASIO_CONTAINER(timer, struct asio_listener, timer);
    bool in_hand = l->acceptor.taken != ASIO_NO_SOCKET; /* without memory for it: its number stays */
    if (l->paused && !in_hand && asio_acceptor_files_short(&l->acceptor)) {
        bool collect = l->backoff >= backoff_max;
        struct asio_rt *rt = l->rt;
        listener_back_off(l); /* first: the collection may close the listener */
        if (collect)
            asio_rt_collect(rt);
        return;
    }
    l->paused = false;
    listener_accept_batch(l);
}

/* ---- accepting by hand -------------------------------------------------------------------- */

/* One that came through a proxy. */
static void take_complete(lua_State *L, struct asio_listener *l)
{
    int ref = asio_proxy_accept_end(l->gate.complete.first->source);
    asio_push_ok(L, l->rt);
    asio_rt_push_anchored(L, l->rt, ref);
    asio_rt_release(l->rt, ref);
}

bool asio_listener_take(lua_State *L, struct asio_listener *l)
{
    struct accept a = { .listener = l, .ref = LUA_NOREF };
    if (l->gate.complete.first) {
        take_complete(L, l);
        return true;
    }
    if (l->paused || listener_is_full(l) || listener_fetch(l) < 0)
        return false;
    if (l->gate.trust) {
        listener_accept_one(l);
        return false;
    }
    bool files_short = listener_files_short(l);
    asio_push_ok(L, l->rt);
    a.status = listener_take(L, &a);
    if (a.ref != LUA_NOREF)
        asio_rt_release(l->rt, a.ref);
    if (!a.stream)
        lua_pop(L, 2);
    listener_after(l, &a, files_short);
    return a.stream != NULL;
}

void asio_listener_await(struct asio_listener *l, struct asio_wait *w)
{
    asio_wait_list_add(&l->accepters, w);
    if (!l->paused)
        listener_watch(l);
}

/* A connection has gone: there may be room for one that waits. */
static void listener_on_room(void *owner)
{
    struct asio_listener *l = owner;
    if (l->options.max_connections && !l->acceptor.watched && !l->paused && !listener_is_full(l))
        listener_retry_later(l, 0);
}
