/* SPDX-License-Identifier: MIT
 * Windows; see sys.h. libuv writes, half-closes and watches Ctrl-C by itself there, and there is
 * no SIGPIPE and no small limit of open sockets. */
#include "sys.h"

#include <process.h>
#include <string.h>

ssize_t asio_sys_send(uv_os_fd_t fd, const uv_buf_t *bufs, unsigned count)
{
    (void)fd, (void)bufs, (void)count;
    return UV_ENOTSUP;
}

int asio_sys_shutdown(uv_os_fd_t fd)
{
    (void)fd;
    return UV_ENOTSUP;
}

int asio_sys_dup(uv_os_fd_t fd, uv_os_sock_t *copy)
{
    (void)fd, (void)copy;
    return UV_ENOTSUP;
}

void asio_sys_close(uv_os_sock_t fd)
{
    closesocket(fd);
}

bool asio_sys_files_short(uv_os_sock_t newest)
{
    (void)newest;
    return false;
}

struct start {
    void (*fn)(void *arg);
    void *arg;
};

static unsigned __stdcall thread_main(void *p)
{
    struct start s = *(struct start *)p;
    asio_mem.free(p);
    s.fn(s.arg);
    return 0;
}

int asio_sys_thread(void (*fn)(void *arg), void *arg)
{
    struct start *s = asio_mem.malloc(sizeof *s);
    if (!s)
        return UV_ENOMEM;
    *s = (struct start){ fn, arg };
    uintptr_t handle = _beginthreadex(NULL, 0, thread_main, s, 0, NULL);
    if (!handle) {
        asio_mem.free(s);
        return UV_EAGAIN;
    }
    CloseHandle((HANDLE)handle);
    return 0;
}

enum asio_sigpipe asio_sys_sigpipe_block(void)
{
    return ASIO_SIGPIPE_LEFT;
}

void asio_sys_sigpipe_end(enum asio_sigpipe how)
{
    (void)how;
}

bool asio_sys_signal_enter(int number)
{
    (void)number;
    return true;
}

void asio_sys_signal_leave(int number)
{
    (void)number;
}

size_t asio_sys_unsent(uv_os_fd_t fd)
{
    (void)fd;
    return 0;
}

size_t asio_sys_unread(uv_os_fd_t fd)
{
    u_long n = 0;
    return ioctlsocket((SOCKET)fd, FIONREAD, &n) == 0 ? n : 0;
}

int asio_sys_original_dst(uv_os_fd_t fd, struct sockaddr_storage *addr)
{
    (void)fd, (void)addr;
    return UV_ENOTSUP;
}

int asio_sys_file_flags(uv_os_sock_t fd)
{
    (void)fd;
    return -1;
}

void asio_sys_set_file_flags(uv_os_sock_t fd, int flags)
{
    (void)fd, (void)flags;
}

int asio_sys_send_datagrams(uv_os_fd_t fd, struct asio_datagram *const *list, unsigned count)
{
    (void)fd, (void)list, (void)count;
    return UV_ENOTSUP;
}

int asio_sys_send_datagram(uv_os_fd_t fd, const struct asio_datagram *d)
{
    (void)fd, (void)d;
    return UV_ENOTSUP;
}

int asio_sys_reuse_port(uv_os_fd_t fd)
{
    (void)fd;
    return UV_ENOTSUP;
}

int asio_sys_interface_ip4(const char *name, struct sockaddr_in *addr)
{
    uv_interface_address_t *list;
    int count, status = uv_interface_addresses(&list, &count);
    if (status < 0)
        return status;
    status = UV_ENODEV;
    for (int i = 0; i < count && status < 0; i++) {
        if (list[i].address.address4.sin_family == AF_INET && strcmp(list[i].name, name) == 0) {
            *addr = list[i].address.address4;
            status = 0;
        }
    }
    uv_free_interface_addresses(list, count);
    return status;
}

struct asio_sys_batch *asio_sys_batch_new(void)
{
    return NULL;
}

int asio_sys_batch_receive(struct asio_sys_batch *b, uv_os_fd_t fd)
{
    (void)b, (void)fd;
    return UV_ENOTSUP;
}
