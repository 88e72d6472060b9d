/* SPDX-License-Identifier: MIT
 * Standard streams on POSIX systems; see sys.h. What is behind the numbers 0 to 2 mostly belongs to others
 * too: the shell, other processes of a pipeline. O_NONBLOCK would be theirs as well, and is never set, not
 * for a moment: a process that is killed could not take it back. */
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

unsigned asio_sys_stdio_fill(void)
{
    unsigned closed = 0;
    for (int number = 0; number < 3; number++) {
        if (fcntl(number, F_GETFD) >= 0)
            continue;
        closed |= 1u << number;
        if (open("/dev/null", O_RDWR) < 0) /* takes the lowest number */
            break;
    }
    return closed;
}

int asio_sys_stdio_open(int number, uv_os_sock_t *fd)
{
    struct stat st;
    if (fstat(number, &st) != 0)
        return uv_translate_sys_error(errno);
    if ((S_ISFIFO(st.st_mode) || isatty(number)) && asio_sys_reopen(number, fd) == 0)
        return ASIO_SYS_STDIO_OWN;
    int status = asio_sys_dup(number, fd);
    if (status < 0)
        return status;
    if (S_ISSOCK(st.st_mode))
        return ASIO_SYS_STDIO_SOCKET;
    return S_ISREG(st.st_mode) ? ASIO_SYS_STDIO_FILE : ASIO_SYS_STDIO_SHARED;
}

static bool is_ready(int fd, short events, int ms)
{
    struct pollfd p = { .fd = fd, .events = events };
    return poll(&p, 1, ms) > 0;
}

static ssize_t sys_unix_stdio_result(ssize_t n)
{
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? UV_EAGAIN
                                                                     : uv_translate_sys_error(errno);
}

ssize_t asio_sys_stdio_read(uv_os_sock_t fd, enum asio_sys_stdio how, uv_buf_t buf)
{
    if (how == ASIO_SYS_STDIO_SOCKET)
        return sys_unix_stdio_result(recv(fd, buf.base, buf.len, MSG_DONTWAIT));
    if (how == ASIO_SYS_STDIO_SHARED && !is_ready(fd, POLLIN, 0))
        return UV_EAGAIN;
    return sys_unix_stdio_result(read(fd, buf.base, buf.len));
}

/* A pipe that can be written to has room for at least so many bytes (POSIX's least PIPE_BUF). */
ssize_t asio_sys_stdio_write(uv_os_sock_t fd, enum asio_sys_stdio how, const uv_buf_t *bufs, unsigned count)
{
    enum { LITTLE = 512 };
    if (how == ASIO_SYS_STDIO_SOCKET)
        return asio_sys_send(fd, bufs, count);
    if (how == ASIO_SYS_STDIO_SHARED && !is_ready(fd, POLLOUT, 0))
        return UV_EAGAIN;
    enum asio_sigpipe sigpipe = asio_sys_sigpipe_block();
    ssize_t n = how == ASIO_SYS_STDIO_SHARED
        ? write(fd, bufs[0].base, bufs[0].len < LITTLE ? bufs[0].len : LITTLE)
        : writev(fd, (const struct iovec *)(const void *)bufs, (int)count);
    n = sys_unix_stdio_result(n);
    asio_sys_sigpipe_end(sigpipe);
    return n;
}

bool asio_sys_stdio_wait(uv_os_sock_t fd, int ms)
{
    return is_ready(fd, POLLOUT, ms);
}

void asio_sys_stdio_discard(int number)
{
    fflush(number == 1 ? stdout : stderr);
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    dup2(fd, number);
    close(fd);
}

int asio_sys_socket_name(uv_os_sock_t fd, struct sockaddr_storage *addr, bool peer)
{
    socklen_t length = sizeof *addr;
    struct sockaddr *a = (struct sockaddr *)addr;
    if ((peer ? getpeername(fd, a, &length) : getsockname(fd, a, &length)) != 0)
        return uv_translate_sys_error(errno);
    return 0;
}
