/* SPDX-License-Identifier: MIT
 * What only Linux has; see sys.h. */
#define _GNU_SOURCE /* struct ucred */
#include "sys.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    SO_ORIGINAL_DST_ = 80
}; /* same number for IPv4 and IPv6; <linux/netfilter_ipv4.h> clashes with libc */

size_t asio_sys_unsent(uv_os_fd_t fd)
{
    int n = 0;
    return ioctl(fd, SIOCOUTQ, &n) == 0 && n > 0 ? (size_t)n : 0;
}

int asio_sys_original_dst(uv_os_fd_t fd, struct sockaddr_storage *addr)
{
    socklen_t length = sizeof *addr;
    if (getsockname(fd, (struct sockaddr *)addr, &length) != 0)
        return uv_translate_sys_error(errno);
    int level = addr->ss_family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
    length = sizeof *addr;
    if (getsockopt(fd, level, SO_ORIGINAL_DST_, addr, &length) == 0)
        return 0;
    /* An IPv4 connection that came to an IPv6 socket: its entry is under IPv4. */
    length = sizeof *addr;
    if (level == IPPROTO_IPV6 && getsockopt(fd, IPPROTO_IP, SO_ORIGINAL_DST_, addr, &length) == 0)
        return 0;
    return uv_translate_sys_error(errno);
}

int asio_sys_credentials(uv_os_fd_t fd, struct asio_sys_credentials *found)
{
    struct sockaddr_storage addr;
    struct ucred who;
    socklen_t length = sizeof addr, size = sizeof who;
    if (getsockname(fd, (struct sockaddr *)&addr, &length) != 0)
        return uv_translate_sys_error(errno);
    if (addr.ss_family != AF_UNIX) /* others answer too, with nobody */
        return UV_ENOTSUP;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
        return uv_translate_sys_error(errno);
    *found = (struct asio_sys_credentials){ who.pid, who.uid, who.gid };
    return 0;
}
