/* SPDX-License-Identifier: MIT
 * Listening sockets; see acceptor.h. */
#include "net/acceptor.h"

#include "net/tcp.h"

#include <assert.h>

static bool acceptor_polls(const struct asio_acceptor *a)
{
    return a->fd != ASIO_NO_SOCKET;
}

/* ---- watching ----------------------------------------------------------------------------- */

static void acceptor_on_poll(uv_poll_t *handle, int status, int events)
{
    struct asio_acceptor *a = handle->data;
    (void)events;
    if (a->watched)
        a->ready(a, status);
}

static void acceptor_on_connection(uv_stream_t *handle, int status)
{
    struct asio_acceptor *a = handle->data;
    a->offered += status == 0;
    if (a->watched)
        a->ready(a, status);
}

void asio_acceptor_watch(struct asio_acceptor *a)
{
    if (a->watched)
        return;
    a->watched = true;
    if (acceptor_polls(a))
        uv_poll_start(&a->handle.poll, UV_READABLE, acceptor_on_poll);
}

/* libuv does not go on accepting while it holds a connection that is not taken. */
void asio_acceptor_unwatch(struct asio_acceptor *a)
{
    if (a->watched && acceptor_polls(a))
        uv_poll_stop(&a->handle.poll);
    a->watched = false;
}

/* ---- opening ------------------------------------------------------------------------------ */

/* The listening socket; UV_ENOTSUP: libuv has to make it. */
static int acceptor_make_socket(struct asio_acceptor *a, const struct asio_endpoint *where,
    const struct asio_socket_options *options, uv_os_sock_t *fd)
{
    int status;
    if (where->fd != ASIO_NO_SOCKET)
        status = asio_sys_dup((uv_os_fd_t)where->fd, fd);
    else if (where->path)
        status = asio_sys_unix_bind(where->path, where->path_length, options->unlink_stale, fd, &a->file);
    else
        status = asio_sys_tcp_bind(&where->address,
            (struct asio_sys_bind){ options->reuseport, options->ipv6only, options->nodelay }, fd);
    if (status < 0)
        return status;
    status = asio_sys_listen(*fd, options->backlog);
    if (status < 0) {
        asio_sys_unix_remove(&a->file, false);
        asio_sys_close(*fd);
    }
    return status;
}

static int acceptor_bind_pipe(
    uv_pipe_t *handle, const struct asio_endpoint *where, const struct asio_socket_options *options)
{
    char pipe[ASIO_SYS_PATH_MAX];
    int status = options->handles ? UV_ENOTSUP : asio_sys_pipe_name(where->path, where->path_length, pipe);
    return status < 0 ? status : uv_pipe_bind(handle, pipe);
}

static int acceptor_poll(struct asio_acceptor *a, struct asio_rt *rt, uv_os_sock_t fd)
{
    int status = uv_poll_init_socket(&rt->loop, &a->handle.poll, fd);
    a->has_handle = status == 0;
    if (status == 0)
        a->fd = fd;
    else
        asio_sys_close(fd);
    return status;
}

static int acceptor_listen_by_libuv(struct asio_acceptor *a, struct asio_rt *rt,
    const struct asio_endpoint *where, const struct asio_socket_options *options)
{
    if (where->fd != ASIO_NO_SOCKET)
        return UV_ENOTSUP;
    int status = where->path ? a->family->init(&rt->loop, &a->handle.stream)
                             : asio_tcp_init(&rt->loop, &a->handle.tcp, where->address.ss_family, options);
    a->has_handle = status == 0;
    if (status == 0 && where->path)
        status = acceptor_bind_pipe(&a->handle.pipe, where, options);
    else if (status == 0)
        status = asio_tcp_bind(&a->handle.tcp, &where->address, options);
    a->handle.any.data = a;
    return status < 0 ? status : uv_listen(&a->handle.stream, options->backlog, acceptor_on_connection);
}

int asio_acceptor_open(struct asio_acceptor *a, struct asio_rt *rt, const struct asio_endpoint *where,
    const struct asio_socket_options *options)
{
    uv_os_sock_t fd;
    assert(a->ops && a->ready && a->closed);
    a->family = where->family;
    a->fd = a->taken = ASIO_NO_SOCKET;
    a->inherits_known = where->fd != ASIO_NO_SOCKET; /* the listening socket is not ours to change */
    int status = acceptor_make_socket(a, where, options, &fd);
    if (status == UV_ENOTSUP)
        return acceptor_listen_by_libuv(a, rt, where, options);
    if (status == 0)
        status = acceptor_poll(a, rt, fd);
    a->handle.any.data = a;
    return status;
}

static void acceptor_on_close(uv_handle_t *handle)
{
    struct asio_acceptor *a = handle->data;
    a->closed(a);
}

/* The file goes first: while the socket is open its inode is not given to another file. */
void asio_acceptor_close(struct asio_acceptor *a, bool keep_file)
{
    a->watched = false;
    asio_sys_unix_remove(&a->file, keep_file);
    if (a->taken != ASIO_NO_SOCKET)
        asio_sys_close(a->taken);
    a->taken = ASIO_NO_SOCKET;
    if (!a->has_handle) {
        a->closed(a);
        return;
    }
    uv_close(&a->handle.any, acceptor_on_close);
    if (acceptor_polls(a))
        asio_sys_close(a->fd); /* libuv no longer looks at it */
}

/* ---- accepting ---------------------------------------------------------------------------- */

int asio_acceptor_fetch(struct asio_acceptor *a)
{
    if (a->taken != ASIO_NO_SOCKET || a->offered)
        return 0;
    return acceptor_polls(a) ? asio_sys_accept(a->fd, &a->taken) : UV_EAGAIN;
}

/* Linux and others give a connection the listening socket's TCP_NODELAY. The first connection shows it. */
static void acceptor_learn_inherits(struct asio_acceptor *a, struct asio_socket_options *options)
{
    a->inherits_known = true;
    if (!a->family->local && options->nodelay && asio_sys_has_nodelay(a->taken))
        options->nodelay = false;
}

struct asio_uvstream *asio_acceptor_adopt(
    struct asio_acceptor *a, struct asio_rt *rt, struct asio_socket_options *options, int *status)
{
    assert(a->taken != ASIO_NO_SOCKET || a->offered);
    struct asio_uvstream *u = a->family->make(rt, options);
    *status = u ? 0 : UV_ENOMEM;
    if (!u)
        return NULL;
    if (acceptor_polls(a) && !a->inherits_known)
        acceptor_learn_inherits(a, options);
    if (acceptor_polls(a))
        *status = a->family->open(&u->handle, a->taken);
    else
        *status = uv_accept(&a->handle.stream, &u->handle);
    if (*status < 0 && acceptor_polls(a))
        asio_sys_close(a->taken);
    a->taken = ASIO_NO_SOCKET;
    a->offered -= a->offered > 0;
    if (*status == 0)
        *status = a->family->connected(u, options);
    if (*status == 0)
        return u;
    asio_uvstream_discard(u);
    return NULL;
}

bool asio_acceptor_files_short(const struct asio_acceptor *a)
{
    uv_os_sock_t fd = a->taken;
    if (fd != ASIO_NO_SOCKET)
        return asio_sys_files_short(fd);
    if (!acceptor_polls(a))
        return false;
    if (asio_sys_dup((uv_os_fd_t)a->fd, &fd) < 0)
        return true;
    bool is_short = asio_sys_files_short(fd);
    asio_sys_close(fd);
    return is_short;
}

/* ---- its name ----------------------------------------------------------------------------- */

int asio_acceptor_address(struct asio_acceptor *a, struct sockaddr_storage *address)
{
    int length = sizeof *address;
    if (acceptor_polls(a))
        return asio_sys_socket_name(a->fd, address, false);
    return uv_tcp_getsockname(&a->handle.tcp, (struct sockaddr *)address, &length);
}

int asio_acceptor_path(struct asio_acceptor *a, char *path, size_t *size)
{
    if (acceptor_polls(a))
        return asio_sys_unix_name((uv_os_fd_t)a->fd, false, path, size);
    return uv_pipe_getsockname(&a->handle.pipe, path, size);
}
