/* SPDX-License-Identifier: MIT
 *
 * asio.server, and servers as Lua sees them: where to listen, and the methods. */
#include "net/systemd.h"
#include "core/address.h"
#include "core/bind.h"
#include "core/park.h"
#include "base/error.h"
#include "net/fd_passing.h"
#include "net/listener.h"
#include "net/tcp.h"
#include "net/unix.h"
#include "task/thread.h"

#include <string.h>

/* ---- where to listen ---------------------------------------------------------------------- */

/* asio.server's arguments. */
struct request {
    struct asio_endpoint where;
    int handler; /* stack index; the options are behind it */
    int given;   /* a descriptor's number; -1: none */
    bool keep;   /* the descriptor stays open beside ours */
    bool all;    /* listen on all addresses ... */
    int port;    /* ... at this port */
};

static int server_refuse(lua_State *L, int status, const char *why)
{
    return asio_error_push_text(L, status, "%s", why);
}

/* Looks at a descriptor that another program has opened. 0, or the results of a failure. */
static int inspect(lua_State *L, struct request *r)
{
    enum asio_sys_kind kind;
    bool listening;
    int status = asio_sys_socket_kind(r->where.fd, &kind, &listening);
    if (status == UV_EBADF)
        return server_refuse(L, status, "there is no open descriptor of this number");
    if (status == UV_ENOTSOCK)
        return server_refuse(L, status, "this descriptor is not a socket");
    if (status < 0)
        return asio_error_push(L, status);
    if (kind == ASIO_SYS_OTHER)
        return server_refuse(L, UV_EPROTOTYPE, "this descriptor is not a stream socket");
    r->where.family = kind == ASIO_SYS_TCP ? &asio_tcp_family : &asio_unix_family;
    return 0;
}

/* 'systemd:NAME' */
static int find_passed(lua_State *L, struct request *r)
{
    static const char prefix[] = "systemd:";
    const char *why;
    size_t n;
    const char *name = lua_tolstring(L, 1, &n) + sizeof prefix - 1;
    r->keep = true;
    r->where.fd = asio_systemd_find(name, n - (sizeof prefix - 1), &why);
    return why ? server_refuse(L, UV_ENOENT, why) : inspect(L, r);
}

static void server_set_address(struct request *r, const union asio_sockaddr *addr)
{
    memset(&r->where.address, 0, sizeof r->where.address);
    memcpy(&r->where.address, addr, sizeof *addr);
}

static int server_read_address(lua_State *L, struct request *r, int port)
{
    union asio_sockaddr addr;
    size_t length;
    const char *text = lua_tolstring(L, 1, &length);
    int status = asio_address_read_own(text, length, port, &addr, &r->all);
    r->where.family = &asio_tcp_family;
    r->port = port;
    server_set_address(r, &addr);
    return status < 0 ? asio_address_push_bad(L, 1, status) : 0;
}

static bool is_activation(lua_State *L)
{
    return lua_type(L, 1) == LUA_TSTRING && strncmp(lua_tostring(L, 1), "systemd:", 8) == 0;
}

/* Fills in *r from the arguments before the handler; raises. Returns the port of an address, else 0. */
static int check_where(lua_State *L, struct request *r)
{
    *r = (struct request){ .handler = 2, .given = -1, .where = { .fd = ASIO_NO_SOCKET } };
    if (lua_type(L, 1) == LUA_TNUMBER) {
        r->given = (int)asio_check_integer(L, 1, 1, "server", 0, 0x7fffffff);
        return 0;
    }
    r->where.path = asio_unix_name(L, 1, &r->where.path_length);
    if (r->where.path || is_activation(L))
        return 0;
    if (lua_type(L, 1) != LUA_TSTRING)
        asio_error_type(L, 1, 1, "server", "address string");
    r->handler = 3;
    return asio_check_port(L, 2, 2, "server", 0);
}

static int find_where(lua_State *L, struct request *r, int port)
{
    if (r->given >= 0) {
        r->where.fd = (uv_os_sock_t)r->given;
        r->keep = r->given <= 2; /* a number that must not be given to something else */
        return inspect(L, r);
    }
    if (is_activation(L))
        return find_passed(L, r);
    if (r->handler == 3)
        return server_read_address(L, r, port);
    r->where.family = &asio_unix_family;
    return 0;
}

/* ---- asio.server -------------------------------------------------------------------------- */

/* The holder comes first, closed: nothing is left over when memory runs out on the way. */
static struct asio_server *push_holder(lua_State *L, struct asio_rt *rt, int handler, int trust)
{
    struct asio_server *server = lua_newuserdata(L, sizeof *server);
    *server = (struct asio_server){ 0 };
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_SERVER_MT]);
    lua_setmetatable(L, -2);
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, handler);
    lua_setfield(L, -2, "handler");
    lua_pushvalue(L, trust);
    lua_setfield(L, -2, "trust");
    lua_setfenv(L, -2);
    return server;
}

/* Pushes it, or nil. */
static struct asio_trusted_proxies *push_trust(
    lua_State *L, int index, const struct asio_socket_options *options)
{
    if (options->proxied) {
        lua_pushliteral(L, "proxy_protocol");
        lua_rawget(L, index);
        return asio_trusted_proxies_push(L, lua_gettop(L), index, "server");
    }
    lua_pushnil(L);
    return NULL;
}

/* All addresses are one socket for IPv6 and IPv4; IPv4 alone where the system has no IPv6. */
static int server_listen(struct asio_rt *rt, struct asio_server *server, struct request *r,
    const struct asio_socket_options *options, bool handled)
{
    int status = asio_listener_open(rt, server, &r->where, options, handled);
    if (!r->all || options->ipv6only || (status != UV_EAFNOSUPPORT && status != UV_EADDRNOTAVAIL))
        return status;
    union asio_sockaddr ipv4;
    asio_address_read("0.0.0.0", 7, r->port, &ipv4);
    server_set_address(r, &ipv4);
    return asio_listener_open(rt, server, &r->where, options, handled);
}

static int push_open_failure(lua_State *L, const struct request *r, int status)
{
    return r->where.path ? asio_unix_push_failure(L, status) : asio_error_push(L, status);
}

/* asio.server(ip, port, handler[, opts]); asio.server('unix:...' or 'systemd:...' or fd, handler[, opts]) */
static int l_server(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct request r;
    int port = check_where(L, &r), handler = r.handler;
    if (!lua_isnoneornil(L, handler) && !lua_isfunction(L, handler))
        asio_error_type(L, handler, handler, "server", "handler function");
    if (lua_gettop(L) < handler)
        lua_settop(L, handler);
    struct asio_socket_options options = asio_socket_options_check(L, handler + 1, handler + 1, "server");
    if (asio_bind_is_closed(L, rt, "server"))
        return asio_error_push(L, UV_EBADF);
    int results = find_where(L, &r, port);
    if (results)
        return results;
    if (options.handles && !r.where.family->local)
        asio_error_arg(L, handler + 1, "server", "option 'handles' is for Unix sockets alone");
    if (options.handles)
        r.where.family = &asio_fd_passing_family;
    struct asio_trusted_proxies *trust = push_trust(L, handler + 1, &options);
    struct asio_server *server = push_holder(L, rt, handler, lua_gettop(L));
    asio_rt_wrapper_add(L, rt, server); /* may raise: nothing listens yet */
    int status = server_listen(rt, server, &r, &options, !lua_isnil(L, handler));
    if (status < 0)
        return push_open_failure(L, &r, status);
    if (r.where.fd != ASIO_NO_SOCKET && !r.keep)
        asio_sys_close(r.where.fd); /* the server has its own */
    server->listener->gate.trust = trust;
    return 1;
}

static struct asio_server *check_server(lua_State *L, const char *fname)
{
    return asio_bind_check(L, 1, asio_rt_of(L)->refs[ASIO_REF_SERVER_MT], fname, "server");
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

static const struct asio_wait_op accept_op = {
    .name = "accept", .outside = true, .abort = abort_accept, .push = push_accepted
};

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
    if (asio_listener_take(L, l))
        return 2;
    struct asio_wait *w = asio_park_claim(L, rt);
    if (!l->server) /* a finalizer has closed it, or there was no memory to pause */
        return asio_push_fail(L, UV_ECANCELED);
    w->source = l;
    asio_listener_await(l, w);
    return asio_park(L, w, &accept_op, timeout);
}

/* ---- shutting down ------------------------------------------------------------------------ */

static void abort_shutdown(struct asio_wait *w)
{
    asio_wait_list_remove(&((struct asio_drain *)w->source)->waiters, w);
}

static const struct asio_wait_op shutdown_op = { .name = "shutdown", .abort = abort_shutdown };

/* core.shutdown(server, timeout): stops accepting, waits for the handlers. One that calls it itself is not
 * waited for. */
static int l_server_shutdown(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_server *server = check_server(L, "shutdown");
    struct asio_drain *drain = server->drain;
    double timeout = asio_check_timeout(L, 2, 1, "shutdown");
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (rt->closed || !drain)
        return asio_push_fail(L, UV_EBADF);
    bool alone = asio_drain_at_work(drain) == asio_drain_has(drain, rt->self);
    struct asio_wait *w = alone ? NULL : asio_park_claim(L, rt);
    if (server->listener)
        asio_listener_close(server->listener);
    if (alone)
        return asio_push_true(L);
    w->source = drain;
    asio_wait_list_add(&drain->waiters, w);
    return asio_park(L, w, &shutdown_op, timeout);
}

/* core.cancel_handlers(server): all but the calling one. */
static int l_cancel_handlers(lua_State *L)
{
    struct asio_drain *drain = check_server(L, "shutdown")->drain;
    if (drain)
        asio_thread_cancel_counted(L, asio_rt_of(L), &drain->handlers);
    return 0;
}

/* Light threads that wait for the handlers are woken; the handlers go on. */
static int l_server_close(lua_State *L)
{
    struct asio_server *server = check_server(L, "close");
    if (server->listener)
        asio_listener_close(server->listener);
    while (server->drain && server->drain->waiters.first && !server->drain->rt->closed)
        asio_sched_abort(server->drain->waiters.first, UV_ECANCELED);
    return 0;
}

static int l_server_gc(lua_State *L)
{
    struct asio_server *server = asio_bind_to(L, 1, asio_rt_of(L)->refs[ASIO_REF_SERVER_MT]);
    if (server && server->listener)
        asio_listener_close(server->listener);
    if (server && server->drain)
        asio_drain_let_go(server->drain);
    if (server)
        server->drain = NULL;
    return 0;
}

static int l_server_address(lua_State *L)
{
    struct asio_server *server = check_server(L, "address");
    if (!server->listener)
        return asio_error_push(L, UV_EBADF);
    return asio_listener_push_address(L, server->listener);
}

static int l_server_tostring(lua_State *L)
{
    struct asio_listener *l = check_server(L, "tostring")->listener;
    char name[ASIO_ADDRESS_MAX];
    if (l && l->path) {
        asio_listener_push_address(L, l);
        lua_pushfstring(L, "server (%s)", lua_tostring(L, -1));
    } else if (l && asio_address_format(&l->address, name) == 0)
        lua_pushfstring(L, "server (tcp %s)", name);
    else
        lua_pushliteral(L, "server (closed)");
    return 1;
}

static void server_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "server", l_server }, { "destory_server", l_server_close },
        { NULL, NULL } };
    static const luaL_Reg core[] = { { "accept", l_accept }, { "shutdown_server", l_server_shutdown },
        { "cancel_handlers", l_cancel_handlers }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { "close", l_server_close }, { "address", l_server_address },
        { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_server_gc }, { "__tostring", l_server_tostring },
        { NULL, NULL } };
    asio_bind_functions(L, rt, "asio", module);
    asio_bind_functions(L, rt, "core", core);
    asio_bind_class(L, rt, "server", methods, meta, rt->refs[ASIO_REF_SERVER_MT]);
}

const struct asio_part asio_part_server = { "server", server_part_open, NULL };
