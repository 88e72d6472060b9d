/* SPDX-License-Identifier: MIT
 * Datagram sockets: their beginning and end, and what they tell about themselves; see udp.h. */
#include "udp/udp.h"

#include "core/address.h"
#include "core/bind.h"
#include "base/error.h"

#include <string.h>

enum { QUEUE = 128 * 1024 };    /* bytes kept in either direction unless told otherwise */
static const double linger = 5; /* seconds that a closed socket may take for what is queued */
static const double size_max = 1 << 30;

const char asio_udp_magic = 0;

struct asio_udp *asio_udp_refuse(lua_State *L, const char *fname)
{
    asio_error_misuse(L, "calling '%s' on something that is not a datagram socket", fname);
    return NULL;
}

int asio_udp_closed(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    return asio_sched_interrupted(rt) ? asio_push_interrupt(L, rt) : asio_push_fail(L, UV_EBADF);
}

/* ---- what sockets share ------------------------------------------------------------------- */

static void udp_release(struct asio_udp_shared *shared)
{
    if (--shared->references > 0)
        return;
    asio_datagram_env_free(&shared->env);
    asio_mem.free(shared->batch);
    asio_mem.free(shared);
}

static struct asio_udp_shared *share(struct asio_rt *rt)
{
    struct asio_udp_shared *shared = asio_rt_part(rt, ASIO_PART_UDP);
    if (!shared) {
        shared = asio_mem.malloc(sizeof *shared);
        if (!shared)
            return NULL;
        memset(shared, 0, sizeof *shared);
        shared->references = 1;
        asio_rt_part_set(rt, ASIO_PART_UDP, shared);
    }
    shared->references++;
    return shared;
}

static void udp_part_close(struct asio_rt *rt)
{
    struct asio_udp_shared *shared = asio_rt_part(rt, ASIO_PART_UDP);
    if (shared)
        udp_release(shared);
    asio_rt_part_set(rt, ASIO_PART_UDP, NULL);
}

/* ---- the end ------------------------------------------------------------------------------ */

static void udp_on_close(uv_handle_t *handle)
{
    struct asio_udp_socket *s = handle->data;
    asio_datagram_drop(&s->in, &s->shared->env, s->in.count);
    asio_datagram_drop(&s->out, &s->shared->env, s->out.count);
    udp_release(s->shared);
    asio_mem.free(s);
}

void asio_udp_finish(struct asio_udp_socket *s)
{
    if (s->gone)
        return;
    s->gone = true;
    if (s->retrying)
        asio_rt_unref(s->rt);
    asio_timer_remove(&s->rt->timers, &s->timer);
    asio_rt_flush_forget(s->rt, &s->flush);
    uv_close((uv_handle_t *)&s->handle, udp_on_close);
}

static void udp_on_timer(struct asio_timer *timer)
{
    struct asio_udp_socket *s = ASIO_CONTAINER(timer, struct asio_udp_socket, timer);
    if (s->closing && uv_hrtime() >= s->give_up) {
        asio_udp_finish(s);
    } else if (s->retrying) {
        s->sending = s->retrying = false;
        asio_rt_unref(s->rt);
        asio_udp_flush(s);
    }
}

static void udp_on_flush(struct asio_flush_node *node)
{
    asio_udp_flush(ASIO_CONTAINER(node, struct asio_udp_socket, flush));
}

static void udp_detach(struct asio_udp_socket *s)
{
    if (s->holder)
        s->holder->socket = NULL;
    s->holder = NULL;
}

/* What is queued still goes out, behind the script's back where the kernel has no room just now. */
static void close_socket(struct asio_udp_socket *s)
{
    if (s->closing)
        return;
    s->closing = true;
    s->give_up = asio_rt_deadline(linger);
    udp_detach(s);
    asio_udp_recv_abort(s, UV_ECANCELED);
    asio_udp_send_abort(s, UV_ECANCELED);
    if (s->reading)
        uv_udp_recv_stop(&s->handle);
    s->reading = false;
    asio_udp_flush(s); /* which finishes when nothing is left */
}

static void udp_teardown(void *owner)
{
    struct asio_udp_socket *s = owner;
    udp_detach(s);
    s->closing = true;
    asio_udp_flush(s);
    asio_udp_finish(s);
}

static const struct asio_handle_ops ops = { udp_teardown };

/* ---- the beginning ------------------------------------------------------------------------ */

static int apply_options(struct asio_udp_socket *s)
{
    struct asio_udp_options *o = &s->options;
    int status = o->broadcast ? uv_udp_set_broadcast(&s->handle, 1) : 0;
    if (status == 0 && o->recv_buffer)
        status = uv_recv_buffer_size((uv_handle_t *)&s->handle, &o->recv_buffer);
    if (status == 0 && o->send_buffer)
        status = uv_send_buffer_size((uv_handle_t *)&s->handle, &o->send_buffer);
    return status;
}

static int bind_to(struct asio_udp_socket *s, const union asio_sockaddr *addr)
{
    uv_os_fd_t fd;
    int status = 0;
    unsigned flags = s->options.reuse_address ? UV_UDP_REUSEADDR : 0;
    if (s->options.ipv6_only && addr->any.sa_family == AF_INET6)
        flags |= UV_UDP_IPV6ONLY;
    if (s->options.reuse_port && (status = uv_fileno((uv_handle_t *)&s->handle, &fd)) == 0)
        status = asio_sys_reuseport(fd);
    if (status == 0)
        status = uv_udp_bind(&s->handle, &addr->any, flags);
    if (status < 0)
        return status;
    s->family = addr->any.sa_family;
    return apply_options(s);
}

int asio_udp_open_as(struct asio_udp_socket *s, int family)
{
    union asio_sockaddr any;
    if (s->family != AF_UNSPEC)
        return family == s->family || family == AF_UNSPEC ? 0 : UV_EAFNOSUPPORT;
    memset(&any, 0, sizeof any);
    any.any.sa_family = family == AF_UNSPEC ? AF_INET : (unsigned short)family;
    return bind_to(s, &any);
}

/* A kernel's socket of that family at once; AF_UNSPEC: later. NULL: failed. */
static struct asio_udp_socket *udp_new_socket(
    struct asio_rt *rt, const struct asio_udp_options *options, int family, int *status)
{
    struct asio_udp_socket *s = asio_mem.malloc(sizeof *s);
    *status = UV_ENOMEM;
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    s->ops = &ops;
    s->rt = rt;
    s->options = *options;
    s->read_timeout = s->write_timeout = -1;
    s->flush.flush = udp_on_flush;
    asio_timer_init(&s->timer, udp_on_timer);
    s->shared = share(rt);
    if (s->shared)
        *status = uv_udp_init_ex(&rt->loop, &s->handle, (unsigned)family);
    if (*status < 0) {
        if (s->shared)
            udp_release(s->shared);
        asio_mem.free(s);
        return NULL;
    }
    s->handle.data = s;
    asio_rt_external(rt, 2048); /* with what the kernel keeps for it */
    return s;
}

/* ---- asio.udp ----------------------------------------------------------------------------- */

static bool check_flag(lua_State *L, int index, const char *name)
{
    lua_getfield(L, index, name);
    bool on = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return on;
}

static size_t check_size(lua_State *L, int index, int arg, const char *name, size_t unless)
{
    lua_getfield(L, index, name);
    if (!lua_isnil(L, -1))
        unless = (size_t)asio_check_integer(L, -1, arg, "udp", 1, size_max);
    lua_pop(L, 1);
    return unless;
}

static struct asio_udp_options udp_check_options(lua_State *L, int index, int arg)
{
    struct asio_udp_options o = { .recv_queue = QUEUE, .send_queue = QUEUE };
    if (lua_isnoneornil(L, index))
        return o;
    if (!lua_istable(L, index))
        asio_error_type(L, index, arg, "udp", "table");
    o.reuse_address = check_flag(L, index, "reuseaddr");
    o.reuse_port = check_flag(L, index, "reuseport");
    o.ipv6_only = check_flag(L, index, "ipv6only");
    o.broadcast = check_flag(L, index, "broadcast");
    o.recv_buffer = (int)check_size(L, index, arg, "recv_buffer", 0);
    o.send_buffer = (int)check_size(L, index, arg, "send_buffer", 0);
    o.recv_queue = check_size(L, index, arg, "recv_queue", o.recv_queue);
    o.send_queue = check_size(L, index, arg, "send_queue", o.send_queue);
    return o;
}

/* Closed at first: nothing is left over when memory runs out on the way. */
static struct asio_udp *push_udp(lua_State *L, struct asio_rt *rt)
{
    struct asio_udp *u = lua_newuserdata(L, sizeof *u);
    u->magic = &asio_udp_magic;
    u->socket = NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_UDP_MT]);
    lua_setmetatable(L, -2);
    return u;
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
    else if (opts == 1 && !lua_isnoneornil(L, 1) && !lua_istable(L, 1))
        asio_error_type(L, 1, 1, "udp", "address string or table");
    struct asio_udp_options options = udp_check_options(L, opts, opts);
    if (options.reuse_port && !placed)
        asio_error_arg(L, opts, "udp", "reuseport needs an address and a port");
    if (placed) {
        size_t length;
        const char *ip = lua_tolstring(L, 1, &length);
        status = asio_address_read(ip, length, port, &addr);
    }
    if (rt->closed)
        status = UV_EBADF;
    if (status < 0)
        return asio_error_push(L, status);
    struct asio_udp *u = push_udp(L, rt);
    struct asio_udp_socket *s = udp_new_socket(rt, &options, addr.any.sa_family, &status);
    if (!s)
        return asio_error_push(L, status);
    u->socket = s;
    s->holder = u;
    if (placed)
        status = bind_to(s, &addr);
    if (status == 0)
        return 1;
    close_socket(s);
    return asio_error_push(L, status);
}

/* ---- connecting --------------------------------------------------------------------------- */

int asio_udp_push_name(lua_State *L, struct asio_udp_socket *s)
{
    lua_pushnumber(L, s->rt->token_fail);
    lua_pushboolean(L, 0);
    if (s->write_timeout < 0)
        return 2;
    lua_pushnumber(L, s->write_timeout);
    return 3;
}

static int l_udp_connect(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_check(L, "connect");
    union asio_sockaddr addr;
    int status = asio_udp_address(L, s, 2, "connect", &addr);
    if (!s)
        return asio_udp_closed(L);
    if (status == ASIO_UDP_NAME)
        return asio_udp_push_name(L, s);
    asio_udp_flush(s);
    if (s->out.count > 0)
        status = UV_EBUSY; /* the shim waits, and tries again */
    if (status == 0)
        status = asio_udp_fit(s, &addr);
    if (status == 0)
        status = uv_udp_connect(&s->handle, &addr.any);
    if (status < 0)
        return asio_push_fail(L, status);
    s->connected = true;
    return asio_push_true(L);
}

/* ---- errors ------------------------------------------------------------------------------- */

bool asio_udp_is_answer(int status)
{
    return status == UV_ECONNREFUSED || status == UV_ECONNRESET || status == UV_EHOSTUNREACH ||
        status == UV_ENETUNREACH || status == UV_ENOPROTOOPT;
}

/* The first one stays until somebody is told. */
void asio_udp_failed(struct asio_udp_socket *s, int status)
{
    struct asio_wait *w = s->reader;
    if (w && s->connected && asio_udp_is_answer(status)) {
        s->reader = NULL;
        asio_sched_ready(w, status);
    } else if (s->error == 0) {
        s->error = status;
    }
}

int asio_udp_push_failed(lua_State *L, struct asio_udp_socket *s)
{
    int status = s->error;
    s->error = 0;
    return asio_push_fail(L, status);
}

/* ---- methods that never wait -------------------------------------------------------------- */

static int l_udp_close(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_check(L, "close");
    if (s)
        close_socket(s);
    return 0;
}

/* A finalizer: must not raise, nor touch anything after the runtime has gone (the socket has then let
 * go of us). */
static int l_udp_gc(lua_State *L)
{
    struct asio_udp *u = asio_udp_to(L);
    if (u && u->socket)
        close_socket(u->socket);
    return 0;
}

static int l_udp_set_timeout(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_check(L, "set_timeout");
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
    struct asio_udp_socket *s = asio_udp_check(L, "peer");
    struct sockaddr_storage addr;
    int status = !s ? UV_EBADF : !s->connected ? UV_ENOTCONN : udp_name_of(s, &addr, true);
    return status < 0 ? asio_error_push(L, status) : asio_address_push(L, &addr);
}

static int l_udp_address(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_check(L, "address");
    struct sockaddr_storage addr;
    int status = s ? asio_udp_open_as(s, AF_UNSPEC) : UV_EBADF;
    if (status == 0)
        status = udp_name_of(s, &addr, false);
    return status < 0 ? asio_error_push(L, status) : asio_address_push(L, &addr);
}

static int l_udp_fd(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_check(L, "fd");
    uv_os_fd_t fd;
    int status = s ? asio_udp_open_as(s, AF_UNSPEC) : UV_EBADF;
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
    struct asio_udp_socket *s = asio_udp_check(L, "pending");
    if (!s)
        return asio_error_push(L, UV_EBADF);
    lua_pushnumber(L, (double)s->in.count);
    lua_pushnumber(L, (double)s->out.count);
    return 2;
}

static int l_udp_tostring(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_check(L, "tostring");
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

static void udp_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "udp_connect", l_udp_connect }, { NULL, NULL } };
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
