/* SPDX-License-Identifier: MIT
 * What only Linux has, on systems that are not Linux: there is no such thing, see sys.h for what is done then. */
#include "sys/sys.h"

struct asio_sys_batch *asio_sys_batch_new(void)
{
    return NULL;
}

int asio_sys_batch_receive(struct asio_sys_batch *b, uv_os_fd_t fd)
{
    (void)b, (void)fd;
    return UV_ENOTSUP;
}

size_t asio_sys_unsent(uv_os_fd_t fd)
{
    (void)fd;
    return 0;
}

int asio_sys_credentials(uv_os_fd_t fd, struct asio_sys_credentials *found)
{
    (void)fd, (void)found;
    return UV_ENOTSUP;
}

int asio_sys_original_dst(uv_os_fd_t fd, struct sockaddr_storage *addr)
{
    (void)fd, (void)addr;
    return UV_ENOTSUP;
}

int asio_sys_pipe(uv_os_sock_t ends[2])
{
    (void)ends;
    return UV_ENOTSUP;
}

ssize_t asio_sys_splice(uv_os_fd_t from, uv_os_fd_t to, size_t n)
{
    (void)from, (void)to, (void)n;
    return UV_ENOTSUP;
}

ssize_t asio_sys_send_file(uv_os_fd_t to, int file, int64_t offset, size_t n)
{
    (void)to, (void)file, (void)offset, (void)n;
    return UV_ENOTSUP;
}

ssize_t asio_sys_pipe_read(uv_os_sock_t end, char *to, size_t n)
{
    (void)end, (void)to, (void)n;
    return UV_ENOTSUP;
}

/* A kqueue is not inherited: without a new one libuv aborts. */
int asio_sys_unshare_loop(uv_loop_t *loop)
{
    uv_fs_t req;
    uv_loop_fork(loop);
    int fd = uv_fs_open(NULL, &req, "/dev/null", UV_FS_O_RDWR, 0, NULL);
    uv_fs_req_cleanup(&req);
    return fd;
}

int asio_sys_event_open(uv_os_sock_t *fd)
{
    (void)fd;
    return UV_ENOTSUP;
}

void asio_sys_event_set(uv_os_sock_t fd)
{
    (void)fd;
}

void asio_sys_event_clear(uv_os_sock_t fd)
{
    (void)fd;
}
