/* SPDX-License-Identifier: MIT
 *
 * Listening; see listener.h.
 *
 * Accepting pauses in two ways. Within libuv: a connection that is not taken makes it stop listening for
 * more; used to spread a burst over several turns, when files run short, and while there are as many
 * connections as the script allows. By closing the handle: when accept itself goes on failing, libuv 1.44
 * would call back for ever within one turn, so the handle is closed and opened again later on a duplicate of
 * the socket, which keeps the clients that came in between. */
#include "net/listener.h"

#include "core/address.h"
#include "stream/conn.h"
#include "stream/lifecycle.h"
#include "base/error.h"

#include <stdio.h>
#include <string.h>

enum { ACCEPTS_A_TURN = 64 };
static const double backoff_min = 0.005, backoff_max = 1, report_every = 60; /* seconds */

static void on_connection(uv_stream_t *handle, int status);
static void listener_on_timer(struct asio_timer *timer);
static void listener_on_room(void *owner);
static void listener_on_proxied(struct asio_proxy_gate *gate, struct asio_stream *s);

/* ---- opening and closing ------------------------------------------------------------------ */

static void free_listener(struct asio_listener *l)
{
    asio_mem.free(l->path);
    asio_mem.free(l);
}

static void listener_on_close(uv_handle_t *handle)
{
    struct asio_listener *l = handle->data;
    l->state = ASIO_LISTENER_CLOSED;
    l->pending = false;
    if (l->server)
        return; /* paused by a fault: the timer opens it again */
    asio_timer_remove(&l->rt->timers, &l->timer);
    free_listener(l);
}

static void close_handle(struct asio_listener *l)
{
    if (l->state != ASIO_LISTENER_OPEN)
        return;
    l->state = ASIO_LISTENER_CLOSING;
    uv_close(&l->handle.any, listener_on_close);
}

/* The file goes first: while the socket is open nobody else's can be taken for it. */
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
    asio_rt_unref(l->rt);
    asio_timer_remove(&l->rt->timers, &l->timer);
    asio_sys_unix_remove(&l->file, l->rt->forked); /* a fork keeps it for the parent, which listens */
    if (l->spare != ASIO_NO_SOCKET)
        asio_sys_close(l->spare);
    if (l->state == ASIO_LISTENER_CLOSED)
        free_listener(l);
    else
        close_handle(l);
}

static void listener_teardown(void *owner)
{
    asio_listener_close(owner);
}

static const struct asio_handle_ops listener_ops = { listener_teardown };

/* The spare comes before listening: a server that could not pause would be at the mercy of the first
 * fault. Where the system needs none there is none. */
static int start_listening(struct asio_listener *l)
{
    uv_os_fd_t fd;
    int status = 0;
    if (l->spare == ASIO_NO_SOCKET)
        status = uv_fileno(&l->handle.any, &fd);
    if (status == 0 && l->spare == ASIO_NO_SOCKET && (status = asio_sys_dup(fd, &l->spare)) < 0)
        l->spare = ASIO_NO_SOCKET;
    if (status < 0 && status != UV_ENOTSUP)
        return status;
    return uv_listen(&l->handle.stream, l->options.backlog, on_connection);
}

/* A socket of another's, of which we have a duplicate then. */
static int open_given(struct asio_listener *l, uv_os_sock_t fd)
{
    uv_os_sock_t copy;
    int status = asio_sys_dup((uv_os_fd_t)fd, &copy);
    if (status < 0)
        return status;
    status = l->family->open(&l->handle.stream, copy);
    if (status < 0)
        asio_sys_close(copy);
    return status;
}

static int open_pipe(struct asio_listener *l, const char *name, size_t n)
{
    uv_os_sock_t fd;
    int status = asio_sys_unix_bind(name, n, l->options.unlink_stale, &fd, &l->file);
    if (status == UV_ENOTSUP) /* libuv's pipes are something else here */
        return l->options.handles ? status : uv_pipe_bind(&l->handle.pipe, name);
    if (status < 0)
        return status;
    status = l->family->open(&l->handle.stream, fd);
    if (status < 0)
        asio_sys_close(fd);
    return status;
}

static int learn_path(struct asio_listener *l)
{
    char path[ASIO_SYS_PATH_MAX];
    size_t n = sizeof path;
    uv_os_fd_t fd;
    int status = uv_fileno(&l->handle.any, &fd);
    if (status == 0)
        status = asio_sys_unix_name(fd, false, path, &n);
    if (status == UV_ENOTSUP)
        status = uv_pipe_getsockname(&l->handle.pipe, path, &n);
    if (status < 0)
        return status;
    l->path = asio_mem.malloc(n + 1);
    if (!l->path)
        return UV_ENOMEM;
    memcpy(l->path, path, n);
    l->path_length = n;
    return 0;
}

static int learn_name(struct asio_listener *l)
{
    int length = sizeof l->address;
    if (l->family->local)
        return learn_path(l);
    return uv_tcp_getsockname(&l->handle.tcp, (struct sockaddr *)&l->address, &length);
}

static struct asio_listener *new_listener(
    struct asio_rt *rt, const struct asio_socket_family *family, const struct asio_socket_options *options)
{
    struct asio_listener *l = asio_mem.malloc(sizeof *l);
    if (!l)
        return NULL;
    memset(l, 0, sizeof *l);
    l->ops = &listener_ops;
    l->rt = rt;
    l->family = family;
    l->options = *options;
    l->backoff = backoff_min;
    l->spare = ASIO_NO_SOCKET;
    asio_timer_init(&l->timer, listener_on_timer);
    l->gate.arrived = listener_on_proxied;
    l->drain = asio_drain_new(rt, l, listener_on_room);
    if (l->drain)
        return l;
    asio_mem.free(l);
    return NULL;
}

static int init_handle(struct asio_listener *l, const struct asio_endpoint *where)
{
    if (where->path || where->fd != ASIO_NO_SOCKET)
        return l->family->init(&l->rt->loop, &l->handle.stream);
    return asio_tcp_init(&l->rt->loop, &l->handle.tcp, where->address.ss_family, &l->options);
}

static int listener_open_handle(struct asio_listener *l, const struct asio_endpoint *where)
{
    if (where->fd != ASIO_NO_SOCKET)
        return open_given(l, where->fd);
    if (where->path)
        return open_pipe(l, where->path, where->path_length);
    return asio_tcp_bind(&l->handle.tcp, &where->address, &l->options);
}

int asio_listener_open(struct asio_rt *rt, struct asio_server *server, const struct asio_endpoint *where,
    const struct asio_socket_options *options)
{
    struct asio_listener *l = new_listener(rt, where->family, options);
    int status = l ? init_handle(l, where) : UV_ENOMEM;
    if (status < 0) {
        if (l)
            asio_mem.free(l->drain);
        asio_mem.free(l);
        return status;
    }
    l->handle.any.data = l;
    l->server = server;
    server->listener = l;
    server->drain = l->drain;
    asio_rt_ref(rt);
    status = listener_open_handle(l, where);
    if (status == 0)
        status = start_listening(l);
    if (status == 0)
        status = learn_name(l);
    if (status < 0)
        asio_listener_close(l);
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

/* ---- faults ------------------------------------------------------------------------------- */

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

static void back_off(struct asio_listener *l)
{
    listener_retry_later(l, l->backoff);
    l->backoff = l->backoff * 2 < backoff_max ? l->backoff * 2 : backoff_max;
}

static void report_status(struct asio_listener *l, int status)
{
    char text[128];
    asio_error_message(status, text, sizeof text);
    listener_report(l, text);
}

/* Accept fails, and would go on failing. */
static void fault(struct asio_listener *l, int status)
{
    report_status(l, status);
    back_off(l);
    if (l->spare != ASIO_NO_SOCKET)
        close_handle(l);
}

static bool still_short(struct asio_listener *l)
{
    uv_os_sock_t fd;
    if (l->spare == ASIO_NO_SOCKET)
        return false;
    if (asio_sys_dup((uv_os_fd_t)l->spare, &fd) < 0)
        return true;
    bool is_short = asio_sys_files_short(fd);
    asio_sys_close(fd);
    return is_short;
}

/* The descriptor just opened is one of the last. Connections that nobody refers to any more
 * are closed by a collection; if that is not enough, accepting waits: existing connections
 * keep a few files for what they need, and clients wait in the backlog instead of being shed. */
static void files_short(struct asio_listener *l)
{
    asio_rt_collect(l->rt);
    if (!l->server || !still_short(l)) /* the listener may have been collected */
        return;
    listener_report(l, "too many open files");
    back_off(l);
}

/* ---- accepting ---------------------------------------------------------------------------- */

struct accept {
    struct asio_listener *listener;
    struct asio_uvstream *stream; /* once taken */
    int ref;                      /* anchor of its connection until the handler has it */
    int status;
    bool lost;                  /* libuv gave it, and something then failed */
    struct asio_wait *accepter; /* to be woken */
    bool spawned;               /* somebody has it */
    bool complete;              /* a proxy has said who it is */
};

/* Takes the connection from libuv, once all that can run out of memory is there. */
static int listener_take(lua_State *L, struct accept *a)
{
    struct asio_listener *l = a->listener;
    struct asio_conn *conn = asio_conn_push(L, l->rt);
    struct asio_uvstream *u = l->family->make(l->rt, &l->options);
    if (!u)
        return UV_ENOMEM;
    int status = uv_accept(&l->handle.stream, &u->handle);
    if (status == 0) {
        status = l->family->connected(u, &l->options);
        a->lost = status < 0;
    }
    if (status < 0) {
        asio_uvstream_discard(u);
        return status;
    }
    u->stream.counter = &l->drain->connections;
    l->drain->connections.count++;
    asio_stream_attach(&u->stream, conn);
    a->stream = u;
    a->ref = asio_rt_anchor(l->rt, L, -1);
    return a->ref == LUA_NOREF ? UV_ENOMEM : 0;
}

/* To whoever waits in server:accept, if it still does. */
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

/* It comes through a proxy, if that is one we know. */
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
    if (!a->stream && !a->lost)
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
    asio_rt_wrapper_push(L, l->rt, l);
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

static void after_accept(struct asio_listener *l, const struct accept *a)
{
    uv_os_fd_t fd;
    if (a->status == UV_EAGAIN) {
        l->pending = false; /* a finalizer has taken it in between */
    } else if (!a->stream) {
        l->pending = !a->lost;
        report_status(l, a->status);
        back_off(l);
    } else if (!a->stream->stream.gone && uv_fileno((uv_handle_t *)&a->stream->handle, &fd) == 0 &&
        asio_sys_files_short((uv_os_sock_t)fd)) {
        files_short(l);
    } else {
        l->backoff = backoff_min;
    }
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

/* Takes the connection that libuv offers. Afterwards the listener may be closing; its memory is there. */
static void accept_one(struct asio_listener *l)
{
    struct accept a = { .listener = l, .status = UV_ENOMEM, .ref = LUA_NOREF };
    l->pending = false;
    l->accepted++;
    hand_out(&a);
    if (l->server)
        after_accept(l, &a);
}

/* Without a handler connections wait until somebody accepts them. */
static bool wanted(const struct asio_listener *l)
{
    return l->handled || l->accepters.first;
}

/* The header of a connection is there. */
static void listener_on_proxied(struct asio_proxy_gate *gate, struct asio_stream *s)
{
    struct asio_listener *l = ASIO_CONTAINER(gate, struct asio_listener, gate);
    if (!wanted(l))
        return;
    struct accept a = { l, (struct asio_uvstream *)(void *)s, asio_proxy_accept_end(s), .complete = true };
    hand_out(&a);
}

static bool is_full(const struct asio_listener *l)
{
    return l->options.max_connections && l->drain->connections.count >= (size_t)l->options.max_connections;
}

/* Somebody waits for room. Connections that nobody refers to any more make some once they are collected,
 * which may not happen by itself while nothing goes on: seen to at most a hundredth of the time, and once
 * a second. */
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

static void on_connection(uv_stream_t *handle, int status)
{
    struct asio_listener *l = handle->data;
    if (!l->server)
        return;
    if (status < 0) {
        fault(l, status);
        return;
    }
    if (l->turn != l->rt->turns) {
        l->turn = l->rt->turns;
        l->accepted = 0;
    }
    l->pending = true; /* not taking it makes libuv stop here */
    if (l->paused || !wanted(l))
        return;
    if (is_full(l))
        look_for_room(l);
    else if (l->accepted >= ACCEPTS_A_TURN)
        listener_retry_later(l, 0);
    else
        accept_one(l);
}

/* The handle takes the spare over, so a new spare comes first: there is always one. */
static int reopen(struct asio_listener *l)
{
    uv_os_sock_t fd = l->spare, spare;
    int status = asio_sys_dup((uv_os_fd_t)fd, &spare);
    if (status < 0)
        return status;
    l->family->init(&l->rt->loop, &l->handle.stream);
    l->handle.any.data = l;
    l->state = ASIO_LISTENER_OPEN;
    l->spare = spare;
    status = l->family->open(&l->handle.stream, fd);
    if (status < 0)
        asio_sys_close(fd);
    else
        status = start_listening(l);
    if (status < 0)
        close_handle(l);
    return status;
}

static void listener_on_timer(struct asio_timer *timer)
{
    struct asio_listener *l = ASIO_CONTAINER(timer, struct asio_listener, timer);
    if (!l->paused) {
        if (l->pending && is_full(l))
            look_for_room(l);
        return;
    }
    if (l->state == ASIO_LISTENER_CLOSING) {
        listener_retry_later(l, backoff_min);
        return;
    }
    bool burst = l->accepted >= ACCEPTS_A_TURN && l->state == ASIO_LISTENER_OPEN;
    if (!burst && still_short(l)) {
        bool collect = l->backoff >= backoff_max;
        struct asio_rt *rt = l->rt;
        back_off(l); /* first: the collection may close, and free, this listener */
        if (collect)
            asio_rt_collect(rt);
        return;
    }
    l->paused = false;
    l->accepted = 0;
    int status = l->state == ASIO_LISTENER_CLOSED ? reopen(l) : 0;
    if (status < 0)
        fault(l, status);
    else if (l->pending && wanted(l) && is_full(l))
        look_for_room(l);
    else if (l->pending && wanted(l))
        accept_one(l); /* and libuv goes on listening */
}

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
    if (!l->pending || l->paused)
        return false;
    if (is_full(l)) {
        look_for_room(l);
        return false;
    }
    if (l->gate.trust) {
        accept_one(l);
        return false;
    }
    asio_push_ok(L, l->rt);
    a.status = listener_take(L, &a);
    l->pending = false;
    if (a.ref != LUA_NOREF)
        asio_rt_release(l->rt, a.ref);
    if (!a.stream)
        lua_pop(L, 2);
    if (l->server)
        after_accept(l, &a);
    return a.stream != NULL;
}

static void listener_on_room(void *owner)
{
    struct asio_listener *l = owner;
    if (!l->options.max_connections)
        return;
    if (l->pending && !l->paused && !is_full(l))
        listener_retry_later(l, 0);
}
