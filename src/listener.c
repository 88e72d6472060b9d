/* SPDX-License-Identifier: MIT
 *
 * asio.server: listeners, and a light thread for every connection that comes.
 *
 * Lifetime of struct asio_listener: created by asio.server; referred to by its holder (the
 * userdata that Lua has) until close; freed by libuv's close callback. The holder is found from
 * here through a table with weak values, so that dropping it closes the server; handler and
 * options hang on the holder's environment table. If the state closes first, teardown closes the
 * handle.
 *
 * Accepting pauses in two ways. Within libuv: a connection that is not taken makes it stop
 * listening for more; used to spread a burst over several turns, and when files run short. By
 * closing the handle: when accept itself goes on failing, libuv 1.44 would call back for ever
 * within one turn, so the handle is closed and opened again later on a duplicate of the socket,
 * which keeps the clients that came in between. */
#include "address.h"
#include "conn.h"
#include "error.h"
#include "api.h"
#include "tcp.h"

#include <stdio.h>
#include <string.h>

enum { ACCEPTS_A_TURN = 64, BACKLOG = 511 };
#define NO_SOCKET ((uv_os_sock_t)-1)
static const double backoff_min = 0.005, backoff_max = 1, report_every = 60; /* seconds */

struct asio_server {                /* the userdata */
    struct asio_listener *listener; /* NULL: closed */
};

enum handle_state { OPEN, CLOSING, CLOSED };

struct asio_listener {
    const struct asio_handle_ops *ops; /* first: see runtime.h */
    struct asio_rt *rt;
    struct asio_server *server; /* NULL: closed, or collected */
    uv_tcp_t handle;
    struct asio_timer timer; /* when to go on accepting */
    uv_os_sock_t spare;      /* duplicate of the listening socket, or -1 */
    struct sockaddr_storage address;
    struct asio_tcp_options options;
    int backlog;
    struct asio_wait_list accepters; /* light threads in server:accept */
    uint8_t state;                   /* enum handle_state */
    bool handled;                    /* there is a handler */
    bool paused;                     /* accepting waits for the timer */
    bool pending;                    /* libuv holds a connection that was not taken */
    unsigned accepted;               /* in the turn `turn` */
    uint64_t turn;
    double backoff;       /* seconds to wait after the next fault */
    uint64_t reported_at; /* uv_hrtime(); 0: never */
};

static void on_connection(uv_stream_t *handle, int status);

/* ---- opening and closing ------------------------------------------------------------------ */

static void on_close(uv_handle_t *handle)
{
    struct asio_listener *l = handle->data;
    l->state = CLOSED;
    l->pending = false;
    if (l->server)
        return; /* paused by a fault: the timer opens it again */
    asio_timer_remove(&l->rt->timers, &l->timer);
    asio_mem.free(l);
}

static void close_handle(struct asio_listener *l)
{
    if (l->state != OPEN)
        return;
    l->state = CLOSING;
    uv_close((uv_handle_t *)&l->handle, on_close);
}

static void close_listener(struct asio_listener *l)
{
    if (l->rt->closed)
        l->accepters = (struct asio_wait_list){ 0 };
    while (l->accepters.first)
        asio_sched_abort(l->accepters.first, UV_ECANCELED);
    if (l->server)
        l->server->listener = NULL;
    l->server = NULL;
    l->rt->alive--;
    asio_timer_remove(&l->rt->timers, &l->timer);
    if (l->spare != NO_SOCKET)
        asio_sys_close(l->spare);
    if (l->state == CLOSED)
        asio_mem.free(l);
    else
        close_handle(l);
}

static void teardown(void *owner)
{
    close_listener(owner);
}

static const struct asio_handle_ops listener_ops = { teardown };

/* The spare comes before listening: a server that could not pause would be at the mercy of the first
 * fault. Where the system needs none there is none. */
static int start_listening(struct asio_listener *l)
{
    uv_os_fd_t fd;
    int status = 0;
    if (l->spare == NO_SOCKET)
        status = uv_fileno((uv_handle_t *)&l->handle, &fd);
    if (status == 0 && l->spare == NO_SOCKET && (status = asio_sys_dup(fd, &l->spare)) < 0)
        l->spare = NO_SOCKET;
    if (status < 0 && status != UV_ENOTSUP)
        return status;
    return uv_listen((uv_stream_t *)&l->handle, l->backlog, on_connection);
}

/* ---- faults ------------------------------------------------------------------------------- */

/* Once per trouble, not once per connection: at most every minute while it lasts. */
static void report(struct asio_listener *l, const char *what)
{
    char name[ASIO_ADDRESS_MAX] = "?";
    uint64_t now = uv_hrtime();
    if (l->reported_at && (double)(now - l->reported_at) < report_every * 1e9)
        return;
    l->reported_at = now;
    asio_address_format(&l->address, name);
    fprintf(stderr, "asio: server %s: %s; accepting pauses until that is over\n", name, what);
    fflush(stderr);
}

static void retry_later(struct asio_listener *l, double seconds)
{
    l->paused = true;
    if (asio_timer_set(&l->rt->timers, &l->timer, asio_rt_deadline(seconds)) == 0)
        return;
    fputs("asio: server: not enough memory to pause; closed\n", stderr);
    close_listener(l);
}

static void back_off(struct asio_listener *l)
{
    retry_later(l, l->backoff);
    l->backoff = l->backoff * 2 < backoff_max ? l->backoff * 2 : backoff_max;
}

static void full_collection(lua_State *L, void *arg)
{
    (void)arg;
    lua_gc(L, LUA_GCCOLLECT, 0);
}

/* Accept fails, and would go on failing. */
static void fault(struct asio_listener *l, int status)
{
    char text[128];
    asio_error_message(status, text, sizeof text);
    report(l, text);
    back_off(l);
    if (l->spare != NO_SOCKET)
        close_handle(l);
}

/* The descriptor just opened is one of the last. Connections that nobody refers to any more
 * are closed by a collection; if that is not enough, accepting waits: existing connections
 * keep a few files for what they need, and clients wait in the backlog instead of being shed. */
static void files_short(struct asio_listener *l)
{
    report(l, "too many open files");
    asio_rt_protect(l->rt, full_collection, NULL);
    back_off(l);
}

/* ---- accepting ---------------------------------------------------------------------------- */

struct accept {
    struct asio_listener *listener;
    struct asio_tcp *tcp; /* once taken */
    int ref;              /* anchor of its connection until the handler has it */
    int status;
    struct asio_wait *accepter; /* to be woken */
    bool spawned;               /* somebody has it */
};

/* Takes the connection from libuv, once all that can run out of memory is there. */
static int take(lua_State *L, struct accept *a)
{
    struct asio_listener *l = a->listener;
    struct asio_conn *conn = asio_conn_push(L, l->rt);
    struct asio_tcp *t = asio_tcp_new(l->rt, l->options);
    if (!t)
        return UV_ENOMEM;
    int status = uv_accept((uv_stream_t *)&l->handle, (uv_stream_t *)&t->handle);
    if (status < 0) {
        asio_uvstream_close(&t->stream);
        return status;
    }
    asio_tcp_connected(t, l->options);
    asio_stream_attach(&t->stream, conn);
    a->tcp = t;
    a->ref = asio_rt_anchor(l->rt, L, -1);
    return a->ref == LUA_NOREF ? UV_ENOMEM : 0;
}

/* To whoever waits in server:accept, if it still does. */
static void hand_over(lua_State *L, struct accept *a)
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

/* May be run again after an error: a finalizer that raises must not cost somebody a connection. */
static void accept_body(lua_State *L, void *arg)
{
    struct accept *a = arg;
    struct asio_listener *l = a->listener;
    if (!a->tcp)
        a->status = take(L, a);
    if (a->status < 0)
        return;
    if (!l->handled) {
        hand_over(L, a);
        return;
    }
    asio_rt_holder_push(L, l->rt, l);
    if (lua_isnil(L, -1))
        return;
    asio_rt_push_anchored(L, l->rt, a->ref);
    lua_getfenv(L, -2);
    lua_getfield(L, -1, "handler");
    lua_remove(L, -2);
    lua_pushvalue(L, -2);
    a->spawned = true;
    asio_sched_spawn(l->rt, L, 1, ASIO_SPAWN_OWNER);
}

/* Takes the connection that libuv offers. The handler runs inside: afterwards the listener may be
 * closing, but its memory is there. */
static void accept_one(struct asio_listener *l)
{
    enum { TRIES = 100 };
    struct accept a = { .listener = l, .status = UV_ENOMEM, .ref = LUA_NOREF };
    int error = LUA_ERRRUN;
    l->pending = false;
    l->accepted++;
    for (int i = 0; i < TRIES && error == LUA_ERRRUN && !a.spawned; i++)
        error = asio_rt_protect(l->rt, accept_body, &a);
    if (a.ref != LUA_NOREF)
        asio_rt_release(l->rt, a.ref);
    if (a.accepter)
        asio_sched_wake(a.accepter, 0);
    if (a.tcp && (error || !a.spawned) && a.tcp->stream.conn)
        asio_stream_close(&a.tcp->stream, true);
    if (!l->server)
        return;
    if (!a.tcp) {
        l->pending = true;
        report(l, "not enough memory");
        back_off(l);
        return;
    }
    uv_os_fd_t fd;
    if (!a.tcp->stream.gone && uv_fileno((uv_handle_t *)&a.tcp->handle, &fd) == 0 &&
        asio_sys_files_short((uv_os_sock_t)fd))
        files_short(l);
    else
        l->backoff = backoff_min;
}

/* Without a handler connections wait until somebody accepts them. */
static bool wanted(const struct asio_listener *l)
{
    return l->handled || l->accepters.first;
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
    if (l->accepted >= ACCEPTS_A_TURN)
        retry_later(l, 0);
    else
        accept_one(l);
}

static bool still_short(struct asio_listener *l)
{
    uv_os_sock_t fd;
    if (l->spare == NO_SOCKET)
        return false;
    if (asio_sys_dup((uv_os_fd_t)l->spare, &fd) < 0)
        return true;
    asio_sys_close(fd);
    return asio_sys_files_short(fd);
}

/* The handle takes the spare over, so a new spare comes first: there is always one. */
static int reopen(struct asio_listener *l)
{
    uv_os_sock_t fd = l->spare, spare;
    int status = asio_sys_dup((uv_os_fd_t)fd, &spare);
    if (status < 0)
        return status;
    uv_tcp_init(&l->rt->loop, &l->handle);
    l->handle.data = l;
    l->state = OPEN;
    l->spare = spare;
    status = uv_tcp_open(&l->handle, fd);
    if (status < 0)
        asio_sys_close(fd);
    else
        status = start_listening(l);
    if (status < 0)
        close_handle(l);
    return status;
}

static void on_timer(struct asio_timer *timer)
{
    struct asio_listener *l = ASIO_CONTAINER(timer, struct asio_listener, timer);
    if (l->state == CLOSING) {
        retry_later(l, backoff_min);
        return;
    }
    bool burst = l->accepted >= ACCEPTS_A_TURN && l->state == OPEN;
    if (!burst && still_short(l)) {
        bool collect = l->backoff >= backoff_max;
        struct asio_rt *rt = l->rt;
        back_off(l); /* first: the collection may close, and free, this listener */
        if (collect)
            asio_rt_protect(rt, full_collection, NULL);
        return;
    }
    l->paused = false;
    l->accepted = 0;
    int status = l->state == CLOSED ? reopen(l) : 0;
    if (status < 0)
        fault(l, status);
    else if (l->pending && wanted(l))
        accept_one(l); /* and libuv goes on listening */
}

/* ---- Lua ---------------------------------------------------------------------------------- */

static int open_listener(struct asio_rt *rt, struct asio_server *server, const struct sockaddr_storage *addr,
    struct asio_tcp_options options, int backlog)
{
    struct asio_listener *l = asio_mem.malloc(sizeof *l);
    if (!l)
        return UV_ENOMEM;
    memset(l, 0, sizeof *l);
    l->ops = &listener_ops;
    l->rt = rt;
    l->options = options;
    l->backlog = backlog;
    l->backoff = backoff_min;
    l->spare = NO_SOCKET;
    asio_timer_init(&l->timer, on_timer);
    int status = uv_tcp_init(&rt->loop, &l->handle);
    if (status < 0) {
        asio_mem.free(l);
        return status;
    }
    l->handle.data = l;
    l->server = server;
    server->listener = l;
    rt->alive++;
    int length = sizeof l->address;
    status = uv_tcp_bind(&l->handle, (const struct sockaddr *)addr, 0);
    if (status == 0)
        status = start_listening(l);
    if (status == 0)
        status = uv_tcp_getsockname(&l->handle, (struct sockaddr *)&l->address, &length);
    if (status < 0)
        close_listener(l);
    return status;
}

static int check_backlog(lua_State *L, int index)
{
    int backlog = BACKLOG;
    if (lua_isnoneornil(L, index))
        return backlog;
    lua_getfield(L, index, "backlog");
    if (!lua_isnil(L, -1))
        backlog = (int)asio_check_integer(L, -1, 4, "server", 1, 65535);
    lua_pop(L, 1);
    return backlog;
}

/* The holder comes first, closed: nothing is left over when memory runs out on the way. */
static struct asio_server *push_holder(lua_State *L, struct asio_rt *rt)
{
    struct asio_server *server = lua_newuserdata(L, sizeof *server);
    server->listener = NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->ref_server_mt);
    lua_setmetatable(L, -2);
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, 3);
    lua_setfield(L, -2, "handler");
    lua_setfenv(L, -2);
    return server;
}

/* asio.server(ip, port, handler[, opts]) */
static int l_server(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct sockaddr_storage addr;
    if (lua_type(L, 1) != LUA_TSTRING)
        asio_error_type(L, 1, 1, "server", "address string");
    int port = asio_check_port(L, 2, 2, "server", 0);
    if (!lua_isnoneornil(L, 3) && !lua_isfunction(L, 3))
        asio_error_type(L, 3, 3, "server", "handler function");
    if (lua_gettop(L) < 3)
        lua_settop(L, 3);
    struct asio_tcp_options options = asio_tcp_check_options(L, 4, 4, "server");
    int backlog = check_backlog(L, 4);
    int status = rt->closed ? UV_EBADF : asio_address_parse(L, 1, port, &addr);
    if (status < 0)
        return asio_error_push(L, status);
    struct asio_server *server = push_holder(L, rt);
    status = open_listener(rt, server, &addr, options, backlog);
    if (status < 0)
        return asio_error_push(L, status);
    server->listener->handled = !lua_isnil(L, 3);
    asio_rt_holder_add(L, rt, server->listener); /* out of memory: the holder is collected, and closes */
    return 1;
}

static struct asio_server *check_server(lua_State *L, const char *fname)
{
    return asio_api_check(L, 1, asio_rt_of(L)->ref_server_mt, fname, "server");
}

/* ---- accepting by hand -------------------------------------------------------------------- */

static void abort_accept(struct asio_wait *w)
{
    asio_wait_list_remove(&((struct asio_listener *)w->source)->accepters, w);
}

static int push_accepted(lua_State *L, struct asio_wait *w)
{
    if (w->status < 0)
        return asio_push_fail(L, w->status);
    asio_push_ok(L, w->rt);
    asio_wait_item_get(L, w);
    return 2;
}

static const struct asio_wait_op accept_op = { "accept", true, abort_accept, push_accepted };

/* The one that libuv holds: pushes token and connection. */
static bool take_pending(lua_State *L, struct asio_listener *l)
{
    struct accept a = { .listener = l, .ref = LUA_NOREF };
    asio_push_ok(L, l->rt);
    l->pending = false;
    a.status = take(L, &a);
    if (a.ref != LUA_NOREF)
        asio_rt_release(l->rt, a.ref);
    if (a.tcp)
        return true;
    l->pending = true;
    lua_pop(L, 2);
    back_off(l);
    return false;
}

/* core.accept(server, timeout) */
static int l_accept(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_listener *l = check_server(L, "accept")->listener;
    double timeout = asio_check_timeout(L, 2, 1, "accept");
    if (l && l->handled)
        asio_error_misuse(L, "accept: this server has a handler, which gets the connections");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!l)
        return asio_push_fail(L, UV_EBADF);
    if (l->pending && !l->paused && take_pending(L, l))
        return 2;
    struct asio_wait *w = asio_sched_claim(L, rt);
    if (!l->server)
        return asio_push_fail(L, UV_ENOMEM);
    w->source = l;
    asio_wait_list_add(&l->accepters, w);
    return asio_sched_park(L, w, &accept_op, timeout);
}

static int l_close(lua_State *L)
{
    struct asio_server *server = check_server(L, "close");
    if (server->listener)
        close_listener(server->listener);
    return 0;
}

static int l_gc(lua_State *L)
{
    struct asio_server *server = asio_api_to(L, 1, asio_rt_of(L)->ref_server_mt);
    if (server && server->listener)
        close_listener(server->listener);
    return 0;
}

static int l_address(lua_State *L)
{
    struct asio_server *server = check_server(L, "address");
    if (!server->listener)
        return asio_error_push(L, UV_EBADF);
    return asio_address_push(L, &server->listener->address);
}

static int l_tostring(lua_State *L)
{
    struct asio_server *server = check_server(L, "tostring");
    char name[ASIO_ADDRESS_MAX];
    if (!server->listener || asio_address_format(&server->listener->address, name) < 0)
        lua_pushliteral(L, "server (closed)");
    else
        lua_pushfstring(L, "server (tcp %s)", name);
    return 1;
}

void asio_listener_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "server", l_server }, { "destory_server", l_close },
        { NULL, NULL } };
    static const luaL_Reg methods[] = { { "close", l_close }, { "address", l_address }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_gc }, { "__tostring", l_tostring }, { NULL, NULL } };
    asio_api_functions(L, rt, "asio", module);
    static const luaL_Reg core[] = { { "accept", l_accept }, { NULL, NULL } };
    asio_api_functions(L, rt, "core", core);
    asio_api_class(L, rt, "server", methods, meta, rt->ref_server_mt);
}
