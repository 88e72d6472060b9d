/* SPDX-License-Identifier: MIT
 * The state of a datagram socket, the kernel's socket behind it, and its errors; see socket.h. */
#include "udp/socket.h"

#include "base/error.h"

#include <string.h>

const char asio_udp_socket_magic = 0;

struct asio_udp *asio_udp_socket_refuse(lua_State *L, const char *fname)
{
    asio_error_misuse(L, "calling '%s' on something that is not a datagram socket", fname);
    return NULL;
}

int asio_udp_socket_push_closed(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    return asio_sched_interrupted(rt) ? asio_push_interrupt(L, rt) : asio_push_fail(L, UV_EBADF);
}

/* ---- what sockets share ------------------------------------------------------------------- */

void asio_udp_socket_release(struct asio_udp_shared *shared)
{
    assert(shared->references > 0);
    if (--shared->references > 0)
        return;
    asio_datagram_env_free(&shared->env);
    asio_mem.free(shared->batch);
    asio_mem.free(shared);
}

struct asio_udp_shared *asio_udp_socket_share(struct asio_rt *rt)
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

/* ---- the kernel's socket ------------------------------------------------------------------ */

static int udp_socket_apply_options(struct asio_udp_socket *s)
{
    struct asio_udp_options *o = &s->options;
    int status = o->broadcast ? uv_udp_set_broadcast(&s->handle, 1) : 0;
    if (status == 0 && o->recv_buffer)
        status = uv_recv_buffer_size((uv_handle_t *)&s->handle, &o->recv_buffer);
    if (status == 0 && o->send_buffer)
        status = uv_send_buffer_size((uv_handle_t *)&s->handle, &o->send_buffer);
    return status;
}

int asio_udp_socket_bind(struct asio_udp_socket *s, const union asio_sockaddr *addr)
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
    return udp_socket_apply_options(s);
}

int asio_udp_socket_open_as(struct asio_udp_socket *s, int family)
{
    union asio_sockaddr any;
    assert(!s->gone);
    if (s->family != AF_UNSPEC)
        return family == s->family || family == AF_UNSPEC ? 0 : UV_EAFNOSUPPORT;
    memset(&any, 0, sizeof any);
    any.any.sa_family = family == AF_UNSPEC ? AF_INET : (unsigned short)family;
    return asio_udp_socket_bind(s, &any);
}

static void udp_socket_on_close(uv_handle_t *handle)
{
    struct asio_udp_socket *s = handle->data;
    asio_datagram_drop(&s->in, &s->shared->env, s->in.count);
    asio_datagram_drop(&s->out, &s->shared->env, s->out.count);
    asio_udp_socket_release(s->shared);
    asio_mem.free(s);
}

void asio_udp_socket_finish(struct asio_udp_socket *s)
{
    if (s->gone)
        return;
    assert(s->closing && !s->holder);
    s->gone = true;
    if (s->retrying)
        asio_rt_unref(s->rt);
    asio_timer_remove(&s->rt->timers, &s->timer);
    asio_rt_flush_forget(s->rt, &s->flush);
    uv_close((uv_handle_t *)&s->handle, udp_socket_on_close);
}

/* ---- errors ------------------------------------------------------------------------------- */

bool asio_udp_socket_is_answer(int status)
{
    return status == UV_ECONNREFUSED || status == UV_ECONNRESET || status == UV_EHOSTUNREACH ||
        status == UV_ENETUNREACH || status == UV_ENOPROTOOPT;
}

/* The first one stays until a call reports it. */
void asio_udp_socket_failed(struct asio_udp_socket *s, int status)
{
    struct asio_wait *w = s->reader;
    if (w && s->connected && asio_udp_socket_is_answer(status)) {
        s->reader = NULL;
        asio_sched_ready(w, status);
    } else if (s->error == 0) {
        s->error = status;
    }
}

int asio_udp_socket_push_failed(lua_State *L, struct asio_udp_socket *s)
{
    int status = s->error;
    s->error = 0;
    return asio_push_fail(L, status);
}
