/* SPDX-License-Identifier: MIT
 * The TCP transport over uv_tcp_t; see tcp.h. */
#include "net/tcp.h"

#include "stream/lifecycle.h"

ASIO_UVSTREAM_LAYOUT(struct asio_tcp);

static int tcp_name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    int length = sizeof *addr;
    const uv_tcp_t *handle = &((struct asio_tcp *)(void *)s)->handle;
    return peer ? uv_tcp_getpeername(handle, (struct sockaddr *)addr, &length)
                : uv_tcp_getsockname(handle, (struct sockaddr *)addr, &length);
}

static const struct asio_transport tcp_transport = {
    .handle = { asio_stream_teardown },
    .name = "tcp",
    .read_start = asio_uvstream_read_start,
    .read_stop = asio_uvstream_read_stop,
    .try_write = asio_uvstream_try_write,
    .write = asio_uvstream_write,
    .shutdown = asio_uvstream_shutdown,
    .unsent = asio_uvstream_unsent,
    .unread = asio_uvstream_unread,
    .close = asio_uvstream_close,
    .reset = asio_uvstream_reset,
    .guard = asio_uvstream_guard,
    .fd = asio_uvstream_fd,
    .name_of = tcp_name_of,
    .passable = true,
    .bare = true,
};

/* ---- family ------------------------------------------------------------------------------ */

static int tcp_init(uv_loop_t *loop, uv_stream_t *handle)
{
    return uv_tcp_init(loop, (uv_tcp_t *)handle);
}

static int tcp_open_socket(uv_stream_t *handle, uv_os_sock_t fd)
{
    return uv_tcp_open((uv_tcp_t *)handle, fd);
}

/* Sharing a port is asked for before binding, so that there has to be a socket from the start. */
int asio_tcp_init(uv_loop_t *loop, uv_tcp_t *handle, int family, const struct asio_socket_options *options)
{
    return uv_tcp_init_ex(loop, handle, options->reuseport ? (unsigned)family : AF_UNSPEC);
}

struct asio_uvstream *asio_tcp_make_for(
    struct asio_rt *rt, const struct asio_socket_options *options, int family, int *status)
{
    struct asio_uvstream *u = asio_uvstream_new(rt, sizeof(struct asio_tcp), &tcp_transport);
    *status = u ? asio_tcp_init(&rt->loop, (uv_tcp_t *)&u->handle, family, options) : UV_ENOMEM;
    if (*status < 0) {
        asio_mem.free(u);
        return NULL;
    }
    u->stream.linger = (float)options->linger;
    u->handle.data = &u->stream;
    return u;
}

static struct asio_uvstream *tcp_make(struct asio_rt *rt, const struct asio_socket_options *options)
{
    struct asio_socket_options unbound = { .linger = options->linger };
    int status; /* can only be that of memory */
    return asio_tcp_make_for(rt, &unbound, AF_UNSPEC, &status);
}

static int tcp_connected(struct asio_uvstream *u, const struct asio_socket_options *options)
{
    uv_tcp_t *handle = &((struct asio_tcp *)(void *)u)->handle;
    if (options->nodelay)
        uv_tcp_nodelay(handle, 1);
    if (options->keepalive)
        uv_tcp_keepalive(handle, 1, (unsigned)options->keepalive);
    return 0;
}

const struct asio_socket_family asio_tcp_family = { false, tcp_init, tcp_open_socket, tcp_make,
    tcp_connected };

int asio_tcp_bind(
    uv_tcp_t *handle, const struct sockaddr_storage *addr, const struct asio_socket_options *options)
{
    uv_os_fd_t fd;
    int status = options->reuseport ? uv_fileno((uv_handle_t *)handle, &fd) : 0;
    if (status == 0 && options->reuseport)
        status = asio_sys_reuseport(fd);
    if (status < 0)
        return status;
    bool only = options->ipv6only && addr->ss_family == AF_INET6;
    return uv_tcp_bind(handle, (const struct sockaddr *)addr, only ? UV_TCP_IPV6ONLY : 0);
}
