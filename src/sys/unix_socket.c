/* SPDX-License-Identifier: MIT
 *
 * Unix sockets on POSIX systems; see sys.h. Made here and not by libuv, which up to 1.44 at least binds
 * a name of 107 zeroes for every abstract one, and cuts long paths silently (each was seen). */
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Inode numbers of 64 bits, which stat refuses otherwise. */
_Static_assert(sizeof(off_t) >= 8, "compiled with _FILE_OFFSET_BITS=64");

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef MSG_CMSG_CLOEXEC
#define MSG_CMSG_CLOEXEC 0
#endif

static int sys_unix_socket_failed(void)
{
    return uv_translate_sys_error(errno);
}

/* ---- names -------------------------------------------------------------------------------- */

static bool is_abstract(const char *name)
{
    return name[0] == '@';
}

/* '@' alone lets the system choose a name, as port 0 does. */
static int abstract_address(const char *name, size_t n, struct sockaddr_un *addr, socklen_t *length)
{
#ifdef __linux__
    memcpy(addr->sun_path + 1, name + 1, n - 1); /* behind a zero */
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (n > 1 ? n : 0));
    return 0;
#else
    (void)name, (void)n, (void)addr, (void)length;
    return UV_ENOTSUP;
#endif
}

static int to_address(const char *name, size_t n, struct sockaddr_un *addr, socklen_t *length)
{
    memset(addr, 0, sizeof *addr);
    addr->sun_family = AF_UNIX;
    if (n == 0)
        return UV_EINVAL;
    bool abstract = is_abstract(name);
    if (n > sizeof addr->sun_path - !abstract)
        return UV_ENAMETOOLONG;
    if (abstract)
        return abstract_address(name, n, addr, length);
    if (memchr(name, 0, n))
        return UV_EINVAL;
    memcpy(addr->sun_path, name, n);
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    return 0;
}

int asio_sys_pipe_name(const char *name, size_t n, char pipe[ASIO_SYS_PATH_MAX])
{
    (void)name, (void)n, (void)pipe;
    return UV_ENOTSUP;
}

int asio_sys_unix_name(uv_os_fd_t fd, bool peer, char *name, size_t *size)
{
    struct sockaddr_un addr;
    socklen_t length = sizeof addr, path = offsetof(struct sockaddr_un, sun_path);
    memset(&addr, 0, sizeof addr);
    int error = peer ? getpeername(fd, (struct sockaddr *)&addr, &length)
                     : getsockname(fd, (struct sockaddr *)&addr, &length);
    if (error != 0)
        return sys_unix_socket_failed();
    if (addr.sun_family != AF_UNIX && length > 0)
        return UV_EAFNOSUPPORT;
    size_t n = length > path ? length - path : 0;
    if (n > sizeof addr.sun_path)
        n = sizeof addr.sun_path;
    if (n > 0 && addr.sun_path[0] == 0)
        addr.sun_path[0] = '@';
    else
        n = strnlen(addr.sun_path, n);
    if (n > *size)
        return UV_ENOBUFS;
    memcpy(name, addr.sun_path, n);
    *size = n;
    return 0;
}

/* ---- making sockets ----------------------------------------------------------------------- */

static int sys_unix_socket_new_socket(uv_os_sock_t *fd)
{
    *fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (*fd < 0)
        return sys_unix_socket_failed();
    asio_sys_cloexec(*fd);
    if (fcntl(*fd, F_SETFL, O_NONBLOCK) == 0)
        return 0;
    int status = sys_unix_socket_failed();
    close(*fd);
    return status;
}

static int try_connect(uv_os_sock_t fd, const struct sockaddr_un *addr, socklen_t length)
{
    int error;
    do
        error = connect(fd, (const struct sockaddr *)addr, length);
    while (error != 0 && errno == EINTR);
    return error == 0 ? 0 : sys_unix_socket_failed();
}

static bool is_other_file(const char *path)
{
    struct stat found;
    return stat(path, &found) == 0 && !S_ISSOCK(found.st_mode);
}

int asio_sys_unix_connect(const char *name, size_t n, uv_os_sock_t *fd)
{
    struct sockaddr_un addr;
    socklen_t length;
    int status = to_address(name, n, &addr, &length);
    if (status == 0)
        status = sys_unix_socket_new_socket(fd);
    if (status < 0)
        return status;
    status = try_connect(*fd, &addr, length);
    if (status == 0)
        return 0;
    close(*fd);
    if (status == UV_ECONNREFUSED && !is_abstract(name) && is_other_file(addr.sun_path))
        return UV_ENOTSOCK;
    return status;
}

/* ---- files -------------------------------------------------------------------------------- */

/* The socket of a server that was killed refuses connections. So does, for an instant, the socket of a server that has
 * been bound and does not listen yet: it is tried again. */
static bool refuses(const struct sockaddr_un *addr, socklen_t length, int *status)
{
    enum { TRIES = 3, BETWEEN = 10 /* ms */ };
    *status = UV_ECONNREFUSED;
    for (int i = 0; i < TRIES && *status == UV_ECONNREFUSED; i++) {
        uv_os_sock_t probe;
        if (i > 0)
            uv_sleep(BETWEEN);
        *status = sys_unix_socket_new_socket(&probe);
        if (*status < 0)
            return false;
        *status = try_connect(probe, addr, length);
        close(probe);
    }
    return *status == UV_ECONNREFUSED;
}

/* Another server may take the name between a look at the file and its removal. So the file is moved aside first, and
 * looked at once more: one that a server listens on gets its name back. */
static int remove_stale(const struct sockaddr_un *addr, socklen_t length)
{
    struct sockaddr_un aside = *addr;
    size_t used = strlen(addr->sun_path), room = sizeof aside.sun_path - used;
    int n = snprintf(aside.sun_path + used, room, ".%lx", (unsigned long)getpid()), status;
    if (n < 0 || (size_t)n >= room) /* no room for a second name */
        return unlink(addr->sun_path) == 0 ? 0 : sys_unix_socket_failed();
    if (rename(addr->sun_path, aside.sun_path) != 0)
        return errno == ENOENT ? 0 : sys_unix_socket_failed();
    if (refuses(&aside, length + (socklen_t)n, &status))
        return unlink(aside.sun_path) == 0 ? 0 : sys_unix_socket_failed();
    if (link(aside.sun_path, addr->sun_path) == 0 || errno == EEXIST)
        unlink(aside.sun_path);
    else
        rename(aside.sun_path, addr->sun_path);
    return UV_EADDRINUSE;
}

/* The name is taken. */
static int make_way(const struct sockaddr_un *addr, socklen_t length, bool unlink_stale)
{
    struct stat found;
    int status;
    if (lstat(addr->sun_path, &found) != 0)
        return errno == ENOENT ? 0 : UV_EADDRINUSE;
    if (!S_ISSOCK(found.st_mode))
        return UV_ENOTSOCK;
    if (!unlink_stale)
        return UV_EADDRINUSE;
    if (refuses(addr, length, &status))
        return remove_stale(addr, length);
    return status == UV_EMFILE || status == UV_ENFILE ? status : UV_EADDRINUSE;
}

/* The working directory may be another one by the time it is removed. */
static int absolute(const char *path, char **result)
{
    char cwd[4096];
    size_t size = sizeof cwd;
    int status = path[0] == '/' ? 0 : uv_cwd(cwd, &size);
    if (status < 0)
        return status;
    size = (path[0] == '/' ? 0 : size + 1) + strlen(path) + 1;
    *result = asio_mem.malloc(size);
    if (!*result)
        return UV_ENOMEM;
    snprintf(*result, size, "%s%s%s", path[0] == '/' ? "" : cwd, path[0] == '/' ? "" : "/", path);
    return 0;
}

static int try_bind(uv_os_sock_t fd, const struct sockaddr_un *addr, socklen_t length)
{
    return bind(fd, (const struct sockaddr *)addr, length) == 0 ? 0 : sys_unix_socket_failed();
}

static int bind_file(uv_os_sock_t fd, const struct sockaddr_un *addr, socklen_t length, bool unlink_stale,
    struct asio_sys_file *file)
{
    struct stat made;
    int status = absolute(addr->sun_path, &file->path); /* first: what is made can be removed then */
    if (status < 0)
        return status;
    status = try_bind(fd, addr, length);
    if (status == UV_EADDRINUSE && (status = make_way(addr, length, unlink_stale)) == 0)
        status = try_bind(fd, addr, length);
    /* At once: while it does not listen another server may take the file for a stale one. */
    if (status == 0 && listen(fd, SOMAXCONN) != 0) {
        status = sys_unix_socket_failed();
        unlink(addr->sun_path);
    }
    if (status == 0 && lstat(file->path, &made) == 0) {
        file->device = (uint64_t)made.st_dev;
        file->inode = (uint64_t)made.st_ino;
        return 0;
    }
    asio_mem.free(file->path);
    file->path = NULL;
    return status;
}

int asio_sys_unix_bind(
    const char *name, size_t n, bool unlink_stale, uv_os_sock_t *fd, struct asio_sys_file *file)
{
    struct sockaddr_un addr;
    socklen_t length;
    file->path = NULL;
    int status = to_address(name, n, &addr, &length);
    if (status == 0)
        status = sys_unix_socket_new_socket(fd);
    if (status < 0)
        return status;
    status =
        is_abstract(name) ? try_bind(*fd, &addr, length) : bind_file(*fd, &addr, length, unlink_stale, file);
    if (status < 0)
        close(*fd);
    return status;
}

void asio_sys_unix_remove(struct asio_sys_file *file, bool keep)
{
    struct stat found;
    if (!file->path)
        return;
    if (!keep && lstat(file->path, &found) == 0 && S_ISSOCK(found.st_mode) &&
        (uint64_t)found.st_dev == file->device && (uint64_t)found.st_ino == file->inode)
        unlink(file->path);
    asio_mem.free(file->path);
    file->path = NULL;
}

/* ---- passing descriptors ------------------------------------------------------------------ */

/* Room for control data, aligned for its head. */
union control {
    struct cmsghdr head;
    char one[CMSG_SPACE(sizeof(int))];
    char many[CMSG_SPACE(ASIO_SYS_HANDLES_MAX * sizeof(int))];
};

/* The system's limit of descriptors on their way is told as that of open ones, which it derives from. */
int asio_sys_send_handle(uv_os_fd_t fd, uv_os_fd_t handle)
{
    char byte = 0;
    struct iovec part = { &byte, 1 };
    union control control;
    memset(&control, 0, sizeof control);
    struct msghdr msg = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.one
    };
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &handle, sizeof(int));
    ssize_t n;
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return 0;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
        return UV_EAGAIN;
    return errno == ETOOMANYREFS ? UV_EMFILE : sys_unix_socket_failed();
}

static void take_handles(struct msghdr *msg, struct asio_sys_arrival *a)
{
    for (struct cmsghdr *head = CMSG_FIRSTHDR(msg); head; head = CMSG_NXTHDR(msg, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && a->count < ASIO_SYS_HANDLES_MAX; i++) {
            memcpy(&a->handles[a->count], CMSG_DATA(head) + i * sizeof(int), sizeof(int));
            if (!MSG_CMSG_CLOEXEC)
                asio_sys_cloexec(a->handles[a->count]);
            a->count++;
        }
    }
}

/* Linux ends a read behind the bytes that came with descriptors, so theirs is the last; elsewhere a read
 * begins with them. */
static void take_marker(struct asio_sys_arrival *a)
{
#ifndef __linux__
    a->bytes++;
#endif
    a->n--;
}

ssize_t asio_sys_recv_handles(uv_os_fd_t fd, uv_buf_t buf, struct asio_sys_arrival *a)
{
    struct iovec part = { buf.base, buf.len };
    union control control;
    struct msghdr msg = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.many
    };
    ssize_t n;
    do
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? UV_EAGAIN : sys_unix_socket_failed();
    *a = (struct asio_sys_arrival){ .bytes = buf.base, .n = (size_t)n, .lost = msg.msg_flags & MSG_CTRUNC };
    take_handles(&msg, a);
    if (a->n > 0 && (a->count > 0 || a->lost))
        take_marker(a);
    return n;
}
