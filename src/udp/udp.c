/* SPDX-License-Identifier: MIT
 * Datagram sockets: creation, closing, timers and methods; see socket.h. */
#include "base/error.h"
#include "core/address.h"
#include "core/bind.h"
#include "core/options.h"
#include "udp/address.h"
#include "udp/options.h"
#include "udp/recv.h"
#include "udp/send.h"

#include <string.h>

enum { QUEUE = 128 * 1024, SIZE_LIMIT = 1 << 30 }; /* bytes kept in either direction: by itself, at most */
static const double udp_linger = 5; /* seconds that a closed socket may take for what is queued */

/* ---- the end ------------------------------------------------------------------------------ */

static void udp_on_timer(struct asio_timer *timer)
{
    struct asio_udp_socket *s = ASIO_CONTAINER(timer, struct asio_udp_socket, timer);
    if (s->closing && uv_hrtime() >= s->give_up) {
        asio_udp_socket_finish(s);
    } else if (s->retrying) {
        s->sending = s->retrying = false;
        asio_rt_unref(s->rt);
        asio_udp_send_flush(s);
    }
}

static void udp_on_flush(struct asio_flush_node *node)
{
    asio_udp_send_flush(ASIO_CONTAINER(node, struct asio_udp_socket, flush));
}

static void udp_detach(struct asio_udp_socket *s)
{
    if (s->holder)
        s->holder->socket = NULL;
    s->holder = NULL;
}

/* What is queued still goes out, behind the script's back where the kernel has no room just now. */
static void udp_shut(struct asio_udp_socket *s)
{
    if (s->closing)
        return;
    s->closing = true;
    s->give_up = asio_rt_deadline(udp_linger);
    udp_detach(s);
    asio_udp_recv_abort(s, UV_ECANCELED);
    asio_udp_send_abort(s, UV_ECANCELED);
    asio_udp_recv_stop(s);
    asio_udp_send_flush(s); /* which finishes when nothing is left */
}

static void udp_teardown(void *owner)
{
    struct asio_udp_socket *s = owner;
    udp_detach(s);
    s->closing = true;
    asio_udp_send_flush(s);
    asio_udp_socket_finish(s);
}

static const struct asio_handle_ops udp_ops = { udp_teardown };

/* ---- the beginning ------------------------------------------------------------------------ */

/* A kernel's socket of that family at once; AF_UNSPEC: later. NULL: failed. */
static struct asio_udp_socket *udp_new_socket(
    struct asio_rt *rt, const struct asio_udp_options *options, int family, int *status)
{
    struct asio_udp_socket *s = asio_mem.malloc(sizeof *s);
    *status = UV_ENOMEM;
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    s->ops = &udp_ops;
    s->rt = rt;
    s->options = *options;
    s->read_timeout = s->write_timeout = -1;
    s->flush.flush = udp_on_flush;
    asio_timer_init(&s->timer, udp_on_timer);
    s->shared = asio_udp_socket_share(rt);
    if (s->shared)
        *status = uv_udp_init_ex(&rt->loop, &s->handle, (unsigned)family);
    if (*status < 0) {
        if (s->shared)
            asio_udp_socket_release(s->shared);
        asio_mem.free(s);
        return NULL;
    }
    s->handle.data = s;
    asio_rt_external(rt, 2048); /* with what the kernel keeps for it */
    return s;
}

/* ---- asio.udp ----------------------------------------------------------------------------- */

#define UDP_FIELD(name) offsetof(struct asio_udp_options, name)

static const struct asio_option udp_options[] = {
    { .name = "reuseaddr", .kind = ASIO_OPTION_FLAG, .offset = UDP_FIELD(reuse_address) },
    { .name = "reuseport", .kind = ASIO_OPTION_FLAG, .offset = UDP_FIELD(reuse_port) },
    { .name = "ipv6only", .kind = ASIO_OPTION_FLAG, .offset = UDP_FIELD(ipv6_only) },
    { .name = "broadcast", .kind = ASIO_OPTION_FLAG, .offset = UDP_FIELD(broadcast) },
    { "recv_buffer", ASIO_OPTION_INT, UDP_FIELD(recv_buffer), 0, 1, SIZE_LIMIT, NULL },
    { "send_buffer", ASIO_OPTION_INT, UDP_FIELD(send_buffer), 0, 1, SIZE_LIMIT, NULL },
    { "recv_queue", ASIO_OPTION_SIZE, UDP_FIELD(recv_queue), QUEUE, 1, SIZE_LIMIT, NULL },
    { "send_queue", ASIO_OPTION_SIZE, UDP_FIELD(send_queue), QUEUE, 1, SIZE_LIMIT, NULL },
    { .name = NULL },
};

/* Closed at first: nothing is left over when memory runs out on the way. */
static struct asio_udp *udp_push(lua_State *L, struct asio_rt *rt)
{
    struct asio_udp *u = lua_newuserdata(L, sizeof *u);
    u->magic = &asio_udp_socket_magic;
    u->socket = NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_UDP_MT]);
    lua_setmetatable(L, -2);
    return u;
}

/* Makes the socket and binds it; if that fails it is closed. */
static int udp_bind_new(struct asio_rt *rt, struct asio_udp *u, const struct asio_udp_options *options,
    const union asio_sockaddr *addr)
{
    int status;
    struct asio_udp_socket *s = udp_new_socket(rt, options, addr->any.sa_family, &status);
    if (!s)
        return status;
    u->socket = s;
    s->holder = u;
    status = addr->any.sa_family == AF_UNSPEC ? 0 : asio_udp_socket_bind(s, addr);
    if (status < 0)
        udp_shut(s);
    return status;
}

/* asio.udp([ip, port][, opts]) */
static int l_udp(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    union asio_sockaddr addr = { .any = { .sa_family = AF_UNSPEC } };
    bool placed = lua_type(L, 1) == LUA_TSTRING;
    int opts = placed || (lua_isnoneornil(L, 1) && lua_gettop(L) > 1) ? 3 : 1, port = 0, status = 0;
    if (placed)
        port = asio_check_port(L, 2, 2, "udp", 0);
    else if (opts == 3 && !lua_isnil(L, 2))
        asio_error_type(L, 1, 1, "udp", "address string");
    else if (opts == 1 && !lua_isnoneornil(L, 1) && !lua_istable(L, 1))
        asio_error_type(L, 1, 1, "udp", "address string or table");
    struct asio_udp_options options;
    lua_settop(L, 3);
    asio_options_read(L, opts, opts, "udp", udp_options, &options);
    if (options.reuse_port && !placed)
        asio_error_arg(L, opts, "udp", "reuseport needs an address and a port");
    if (asio_bind_is_closed(L, rt, "udp"))
        return asio_error_push(L, UV_EBADF);
    bool all = false;
    if (placed) {
        size_t length;
        const char *ip = lua_tolstring(L, 1, &length);
        status = asio_address_read_own(ip, length, port, &addr, &all);
    }
    if (status < 0)
        return asio_address_push_bad(L, 1, status);
    struct asio_udp *u = udp_push(L, rt);
    status = udp_bind_new(rt, u, &options, &addr);
    if (all && !options.ipv6_only && (status == UV_EAFNOSUPPORT || status == UV_EADDRNOTAVAIL)) {
        asio_address_read("0.0.0.0", 7, port, &addr); /* no IPv6 here */
        status = udp_bind_new(rt, u, &options, &addr);
    }
    return status == 0 ? 1 : asio_error_push(L, status);
}

/* ---- connecting --------------------------------------------------------------------------- */

static int l_udp_connect(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "connect");
    union asio_sockaddr addr;
    int status = asio_udp_address_check(L, s, 2, "connect", &addr);
    if (!s)
        return asio_udp_socket_push_closed(L);
    if (status == ASIO_UDP_NAME)
        return asio_udp_address_push_name(L, s);
    asio_udp_send_flush(s);
    if (s->out.count > 0)
        status = UV_EBUSY; /* the shim waits, and tries again */
    if (status == 0)
        status = asio_udp_address_fit(s, &addr);
    if (status == 0)
        status = uv_udp_connect(&s->handle, &addr.any);
    if (status < 0)
        return asio_push_fail(L, status);
    s->connected = true;
    return asio_push_true(L);
}

/* ---- methods that never wait -------------------------------------------------------------- */

static int l_udp_close(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "close");
    if (s)
        udp_shut(s);
    return 0;
}

/* A finalizer: must not raise, nor touch anything after the runtime has gone (the socket has then let
 * go of us). */
static int l_udp_gc(lua_State *L)
{
    struct asio_udp *u = asio_udp_socket_to(L);
    if (u && u->socket)
        udp_shut(u->socket);
    return 0;
}

static int l_udp_set_timeout(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "set_timeout");
    double read = asio_check_timeout(L, 2, 1, "set_timeout");
    double write = lua_gettop(L) < 3 ? read : asio_check_timeout(L, 3, 2, "set_timeout");
    if (!s)
        return asio_error_push(L, UV_EBADF);
    s->read_timeout = read;
    s->write_timeout = write;
    lua_pushboolean(L, 1);
    return 1;
}

static int udp_name_of(struct asio_udp_socket *s, struct sockaddr_storage *addr, bool peer)
{
    int length = sizeof *addr;
    return peer ? uv_udp_getpeername(&s->handle, (struct sockaddr *)addr, &length)
                : uv_udp_getsockname(&s->handle, (struct sockaddr *)addr, &length);
}

static int l_udp_peer(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "peer");
    struct sockaddr_storage addr;
    int status = !s ? UV_EBADF : !s->connected ? UV_ENOTCONN : udp_name_of(s, &addr, true);
    return status < 0 ? asio_error_push(L, status) : asio_address_push(L, &addr);
}

static int l_udp_address(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "address");
    struct sockaddr_storage addr;
    int status = s ? asio_udp_socket_open_as(s, AF_UNSPEC) : UV_EBADF;
    if (status == 0)
        status = udp_name_of(s, &addr, false);
    return status < 0 ? asio_error_push(L, status) : asio_address_push(L, &addr);
}

/* core.udp_traits(socket) -> family or nil (not opened yet), seconds that writing may take or nil */
static int l_udp_traits(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "send");
    int family = s ? s->family : AF_UNSPEC;
    struct sockaddr_storage addr;
    if (family == AF_INET6 && udp_name_of(s, &addr, false) == 0 &&
        asio_udp_address_is_mapped((const struct sockaddr *)&addr))
        family = AF_INET; /* bound to ::ffff:192.0.2.1: no route to IPv6 addresses */
    if (family == AF_UNSPEC)
        lua_pushnil(L);
    else
        lua_pushstring(L, family == AF_INET6 ? "inet6" : "inet");
    if (!s || s->write_timeout < 0)
        return 1;
    lua_pushnumber(L, s->write_timeout);
    return 2;
}

static int l_udp_fd(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "fd");
    uv_os_fd_t fd;
    int status = s ? asio_udp_socket_open_as(s, AF_UNSPEC) : UV_EBADF;
    if (status == 0)
        status = uv_fileno((uv_handle_t *)&s->handle, &fd);
    if (status < 0)
        return asio_error_push(L, status);
    lua_pushnumber(L, (double)(intptr_t)fd);
    return 1;
}

/* Datagrams received and not yet taken, datagrams queued and not yet taken by the kernel. */
static int l_udp_pending(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "pending");
    if (!s)
        return asio_error_push(L, UV_EBADF);
    lua_pushnumber(L, (double)s->in.count);
    lua_pushnumber(L, (double)s->out.count);
    return 2;
}

static int l_udp_tostring(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "tostring");
    struct sockaddr_storage addr;
    char text[ASIO_ADDRESS_MAX];
    if (!s)
        lua_pushliteral(L, "datagram socket (closed)");
    else if (s->family == AF_UNSPEC || udp_name_of(s, &addr, false) < 0 ||
        asio_address_format(&addr, text) < 0)
        lua_pushliteral(L, "datagram socket (udp)");
    else
        lua_pushfstring(L, "datagram socket (udp %s)", text);
    return 1;
}

static void udp_part_close(struct asio_rt *rt)
{
    struct asio_udp_shared *shared = asio_rt_part(rt, ASIO_PART_UDP);
    if (shared)
        asio_udp_socket_release(shared);
    asio_rt_part_set(rt, ASIO_PART_UDP, NULL);
}

static void udp_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "udp_connect", l_udp_connect }, { "udp_traits", l_udp_traits },
        { NULL, NULL } };
    static const luaL_Reg module[] = { { "udp", l_udp }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { "close", l_udp_close }, { "set_timeout", l_udp_set_timeout },
        { "peer", l_udp_peer }, { "address", l_udp_address }, { "fd", l_udp_fd },
        { "pending", l_udp_pending }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_udp_gc }, { "__tostring", l_udp_tostring }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_functions(L, rt, "asio", module);
    asio_bind_class(L, rt, "udp", methods, meta, rt->refs[ASIO_REF_UDP_MT]);
    asio_udp_address_open(L, rt);
    asio_udp_recv_open(L, rt);
    asio_udp_send_open(L, rt);
    asio_udp_options_open(L, rt);
}

const struct asio_part asio_part_udp = { "udp", udp_part_open, udp_part_close };
