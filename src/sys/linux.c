/* SPDX-License-Identifier: MIT
 * What only Linux has; see sys.h. */
#define _GNU_SOURCE /* struct ucred, sendmmsg, splice */
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SO_ORIGINAL_DST_ = 80
}; /* same number for IPv4 and IPv6; <linux/netfilter_ipv4.h> clashes with libc */

/* Of a TCP connection that a reset, or its own time-out, has ended Linux goes on to count what was not acknowledged. */
static bool linux_tcp_is_over(uv_os_fd_t fd)
{
    uint8_t state; /* the first member of struct tcp_info */
    socklen_t size = sizeof state;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &size) == 0 && state == TCP_CLOSE;
}

size_t asio_sys_unsent(uv_os_fd_t fd)
{
    int n = 0;
    return ioctl(fd, SIOCOUTQ, &n) == 0 && n > 0 && !linux_tcp_is_over(fd) ? (size_t)n : 0;
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
    struct ucred peer;
    socklen_t length = sizeof addr, size = sizeof peer;
    if (getsockname(fd, (struct sockaddr *)&addr, &length) != 0)
        return uv_translate_sys_error(errno);
    if (addr.ss_family != AF_UNIX) /* others answer too, with ids of no process */
        return UV_ENOTSUP;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return uv_translate_sys_error(errno);
    *found = (struct asio_sys_credentials){ peer.pid, peer.uid, peer.gid };
    return 0;
}

/* musl's function calls sendmsg for each, since its lengths have 32 bits where the kernel's have 64. With the padding
 * beside them zero they are the same. */
static int linux_sendmmsg(int fd, struct mmsghdr *messages, unsigned count)
{
#ifdef SYS_sendmmsg
    _Static_assert(offsetof(struct msghdr, msg_iov) == 2 * sizeof(size_t) &&
            offsetof(struct msghdr, msg_control) == 4 * sizeof(size_t) &&
            offsetof(struct msghdr, msg_flags) == 6 * sizeof(size_t),
        "the kernel's struct msghdr");
    return (int)syscall(SYS_sendmmsg, fd, messages, count, MSG_NOSIGNAL);
#else
    return sendmmsg(fd, messages, count, MSG_NOSIGNAL);
#endif
}

/* One call for all. A kernel or a sandbox without the call gets them one by one. */
int asio_sys_send_datagrams(uv_os_fd_t fd, struct asio_datagram *const *list, unsigned count)
{
    struct mmsghdr messages[ASIO_SYS_DATAGRAMS];
    struct iovec parts[ASIO_SYS_DATAGRAMS];
    if (count == 1)
        return asio_sys_send_datagram(fd, list[0]);
    for (unsigned i = 0; i < count; i++) {
        struct asio_datagram *d = list[i];
        parts[i] = (struct iovec){ (char *)d->bytes, d->size };
        messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
        if (d->address.any.sa_family != AF_UNSPEC) {
            bool v6 = d->address.any.sa_family == AF_INET6;
            messages[i].msg_hdr.msg_name = &d->address;
            messages[i].msg_hdr.msg_namelen = v6 ? sizeof d->address.v6 : sizeof d->address.v4;
        }
    }
    int n;
    do
        n = linux_sendmmsg(fd, messages, count);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    if (errno == ENOSYS)
        return asio_sys_send_datagram(fd, list[0]);
    return errno == EWOULDBLOCK ? UV_EAGAIN : uv_translate_sys_error(errno);
}

/* A datagram may have 64 KB, so each has as much room, of which the pages that are not touched cost nothing. They
 * are a cache line further apart than that, or they would all compete for the same lines of the cache. */
enum { ROOM = 64 * 1024, STRIDE = ROOM + 64 };

struct batch {
    struct asio_sys_batch public; /* first */
    struct mmsghdr messages[ASIO_SYS_BATCH];
    struct iovec parts[ASIO_SYS_BATCH];
    char bytes[ASIO_SYS_BATCH * STRIDE];
};

static void make_ready(struct batch *b, unsigned i)
{
    b->messages[i].msg_hdr.msg_namelen = sizeof b->public.list[i].address;
}

struct asio_sys_batch *asio_sys_batch_new(void)
{
    struct batch *b = asio_mem.malloc(sizeof *b);
    if (!b)
        return NULL;
    for (unsigned i = 0; i < ASIO_SYS_BATCH; i++) {
        struct asio_datagram *d = &b->public.list[i];
        d->bytes = b->bytes + (size_t)i * STRIDE;
        b->parts[i] = (struct iovec){ b->bytes + (size_t)i * STRIDE, ROOM };
        b->messages[i].msg_hdr =
            (struct msghdr){ .msg_name = &d->address, .msg_iov = &b->parts[i], .msg_iovlen = 1 };
        make_ready(b, i);
    }
    return &b->public;
}

int asio_sys_batch_receive(struct asio_sys_batch *batch, uv_os_fd_t fd)
{
    struct batch *b = (struct batch *)(void *)batch;
    int n;
    do
        n = recvmmsg(fd, b->messages, ASIO_SYS_BATCH, MSG_DONTWAIT, NULL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == ENOSYS)
        return UV_ENOTSUP;
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : uv_translate_sys_error(errno);
    for (int i = 0; i < n; i++) {
        b->public.list[i].size = b->messages[i].msg_len;
        b->public.list[i].partial = b->messages[i].msg_hdr.msg_flags & MSG_TRUNC;
        make_ready(b, (unsigned)i);
    }
    return n;
}

/* What a pipe holds is counted in pieces of what arrived, each as small as a packet. CPU per GB relayed was measured
 * at 0.75 s with the system's 16 pieces (64 KB), 0.41 s with 64 and 0.28 s with 256, which is all that a user may
 * have without being asked. A user that has many pipes gets none so large, at last some of 2 pieces: better none. */
int asio_sys_pipe(uv_os_sock_t ends[2])
{
    enum { PIPE_SIZE = 1024 * 1024, LEAST = 64 * 1024 };
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return uv_translate_sys_error(errno);
    if (fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE) >= 0 || fcntl(ends[1], F_GETPIPE_SZ) >= LEAST)
        return 0;
    close(ends[0]);
    close(ends[1]);
    return UV_EMFILE;
}

ssize_t asio_sys_splice(uv_os_fd_t from, uv_os_fd_t to, size_t n)
{
    ssize_t moved;
    do
        moved = splice(from, NULL, to, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (moved < 0 && errno == EINTR);
    return moved < 0 ? uv_translate_sys_error(errno) : moved;
}

ssize_t asio_sys_send_file(uv_os_fd_t to, int file, int64_t offset, size_t n)
{
    off_t at = (off_t)offset;
    ssize_t sent;
    if (at != offset)
        return UV_ENOTSUP;
    do
        sent = sendfile(to, file, &at, n);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? uv_translate_sys_error(errno) : sent;
}

ssize_t asio_sys_pipe_read(uv_os_sock_t end, char *to, size_t n)
{
    ssize_t got;
    do
        got = read(end, to, n);
    while (got < 0 && errno == EINTR);
    return got < 0 ? uv_translate_sys_error(errno) : got;
}

static bool hung_up(int fd)
{
    struct pollfd p = { .fd = fd };
    return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
}

/* It is the same thing, and a description of its own: the old one has not become non-blocking. One of a FIFO
 * that was opened when the last writer had gone would never tell of the end. */
static bool is_equal(int fd, int copy, int flags)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstat(copy, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino &&
        fcntl(fd, F_GETFL) == flags && (!hung_up(fd) || hung_up(copy));
}

int asio_sys_reopen(int fd, uv_os_sock_t *copy)
{
    char path[32];
    unsigned number;
    int flags = fcntl(fd, F_GETFL);
    if (ioctl(fd, TIOCGPTN, &number) == 0)
        return UV_ENOTSUP; /* the master of a pseudo-terminal: that would make a new one */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    *copy = open(path, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (*copy < 0)
        return uv_translate_sys_error(errno);
    if (is_equal(fd, *copy, flags))
        return 0;
    asio_sys_set_file_flags(fd, flags);
    close(*copy);
    return UV_ENOTSUP;
}

/* An epoll descriptor is one that can be polled itself: libuv makes only that non-blocking. */
int asio_sys_stdio_watch(uv_os_sock_t fd, uv_os_sock_t *watch)
{
    struct epoll_event event = { .events = 0 };
    int made = epoll_create1(EPOLL_CLOEXEC);
    if (made >= 0 && epoll_ctl(made, EPOLL_CTL_ADD, fd, &event) == 0) {
        *watch = made;
        return 0;
    }
    int status = uv_translate_sys_error(errno);
    if (made >= 0)
        close(made);
    return status;
}

int asio_sys_stdio_poll(uv_os_sock_t watch, uv_os_sock_t fd, int events)
{
    struct epoll_event event = { .events = (events & UV_READABLE ? EPOLLIN : 0) |
            (events & UV_WRITABLE ? EPOLLOUT : 0) };
    epoll_ctl(watch, EPOLL_CTL_MOD, fd, &event);
    return events ? UV_READABLE : 0;
}

/* An epoll object without descriptors is inert, too: it can neither be read nor written. */
int asio_sys_unshare_loop(uv_loop_t *loop)
{
    int backend_fd = uv_backend_fd(loop);
    close(backend_fd); /* first: the process may have no other descriptor left */
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0 || fd == backend_fd)
        return fd;
    int placed = dup3(fd, backend_fd, O_CLOEXEC);
    close(fd);
    return placed;
}

int asio_sys_event_open(uv_os_sock_t *fd)
{
    *fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return *fd < 0 ? uv_translate_sys_error(errno) : 0;
}

void asio_sys_event_set(uv_os_sock_t fd)
{
    const uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void asio_sys_event_clear(uv_os_sock_t fd)
{
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
}
