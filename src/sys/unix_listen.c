/* SPDX-License-Identifier: MIT
 * Listening and accepting on POSIX systems; see sys.h. */
#define _GNU_SOURCE /* accept4 */
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static int unix_listen_failed(void)
{
    return uv_translate_sys_error(errno);
}

static int unix_listen_set(uv_os_sock_t fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : unix_listen_failed();
}

int asio_sys_listen(uv_os_sock_t fd, int backlog)
{
    return listen(fd, backlog) == 0 ? 0 : unix_listen_failed();
}

/* The options that libuv sets too. An address that was in use a moment ago can be bound again. */
static int unix_listen_prepare(uv_os_sock_t fd, const struct sockaddr_storage *addr, struct asio_sys_bind how)
{
    asio_sys_cloexec(fd);
    int status = unix_listen_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (status == 0 && how.reuseport)
        status = asio_sys_reuseport(fd);
    if (status == 0 && addr->ss_family == AF_INET6)
        status = unix_listen_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, how.ipv6only);
    if (status == 0 && how.nodelay)
        unix_listen_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return status;
}

int asio_sys_tcp_bind(const struct sockaddr_storage *addr, struct asio_sys_bind how, uv_os_sock_t *fd)
{
    socklen_t length = addr->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    *fd = socket(addr->ss_family, SOCK_STREAM, 0);
    if (*fd < 0)
        return unix_listen_failed();
    int status = unix_listen_prepare(*fd, addr, how);
    if (status == 0 && bind(*fd, (const struct sockaddr *)addr, length) != 0)
        status = unix_listen_failed();
    if (status < 0)
        close(*fd);
    return status;
}

/* Linux reports on the listening socket what has become of a connection: accept(2) says to try again then. */
static bool is_of_one_connection(int error)
{
    switch (error) {
    case ECONNABORTED:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EPROTO:
    case ENOPROTOOPT:
#ifdef ENONET
    case ENONET:
#endif
        return true;
    default:
        return false;
    }
}

static int unix_accept(uv_os_sock_t listener)
{
    int fd;
    do
#ifdef SOCK_NONBLOCK
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
        fd = accept(listener, NULL, NULL);
#endif
    while (fd < 0 && errno == EINTR);
    return fd;
}

int asio_sys_accept(uv_os_sock_t listener, uv_os_sock_t *fd)
{
    *fd = unix_accept(listener);
    if (*fd < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return UV_EAGAIN;
        return is_of_one_connection(errno) ? UV_ECONNABORTED : unix_listen_failed();
    }
#ifndef SOCK_NONBLOCK
    asio_sys_cloexec(*fd); /* a connection that waits is made one that does not when libuv takes it */
#endif
    return 0;
}

bool asio_sys_has_nodelay(uv_os_sock_t fd)
{
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0 && value != 0;
}
