/* SPDX-License-Identifier: MIT
 *
 * A hand in what the core asks of the system: the linker sends the core's calls of these functions
 * here first (--wrap in CMakeLists.txt). */
#define _GNU_SOURCE
#include "host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "sys/sys.h"

int __real_uv_run(uv_loop_t *loop, uv_run_mode mode);
int __wrap_uv_run(uv_loop_t *loop, uv_run_mode mode);
ssize_t __real_send(int fd, const void *p, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *p, size_t n, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
int __real_getaddrinfo(
    const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **result);
int __wrap_getaddrinfo(
    const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **result);

int __real_asio_sys_unix_bind(
    const char *name, size_t n, bool unlink_stale, uv_os_sock_t *fd, struct asio_sys_file *file);
int __wrap_asio_sys_unix_bind(
    const char *name, size_t n, bool unlink_stale, uv_os_sock_t *fd, struct asio_sys_file *file);
int __real_asio_sys_unix_connect(const char *name, size_t n, uv_os_sock_t *fd);
int __wrap_asio_sys_unix_connect(const char *name, size_t n, uv_os_sock_t *fd);
int __wrap_asio_sys_pipe_name(const char *name, size_t n, char pipe[ASIO_SYS_PATH_MAX]);
int __real_asio_sys_unix_name(uv_os_fd_t fd, bool peer, char *name, size_t *size);
int __wrap_asio_sys_unix_name(uv_os_fd_t fd, bool peer, char *name, size_t *size);
int __real_asio_sys_tcp_bind(const struct sockaddr_storage *addr, struct asio_sys_bind how, uv_os_sock_t *fd);
int __wrap_asio_sys_tcp_bind(const struct sockaddr_storage *addr, struct asio_sys_bind how, uv_os_sock_t *fd);

int system_fds(void)
{
    struct rlimit limit;
    int n = 0, top = 4096;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 4096)
        top = (int)limit.rlim_cur;
    for (int fd = 0; fd < top; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* ---- uv_run ------------------------------------------------------------------------------- */

static _Thread_local int uv_runs;

int __wrap_uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    uv_runs++;
    int alive = __real_uv_run(loop, mode);
    uv_runs--;
    return alive;
}

int system_uv_runs(void)
{
    int n = uv_runs;
    uv_runs = 0;
    return n;
}

/* ---- sending ------------------------------------------------------------------------------ */

static _Thread_local void (*at_next_send)(void *arg);
static _Thread_local void *at_next_send_arg;

void system_at_next_send(void (*fn)(void *arg), void *arg)
{
    at_next_send = fn;
    at_next_send_arg = arg;
}

/* True: this send is to take nothing. */
static bool instead(void)
{
    void (*fn)(void *arg) = at_next_send;
    at_next_send = NULL;
    if (!fn)
        return false;
    fn(at_next_send_arg);
    errno = EAGAIN;
    return true;
}

ssize_t __wrap_send(int fd, const void *p, size_t n, int flags)
{
    return instead() ? -1 : __real_send(fd, p, n, flags);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return instead() ? -1 : __real_sendmsg(fd, msg, flags);
}

/* ---- names -------------------------------------------------------------------------------- */

/* No question leaves the machine: its name servers, if there are any, may need longer than a case has. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool hold;
    int held;
} lookups = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

void system_hold_lookups(bool hold)
{
    pthread_mutex_lock(&lookups.lock);
    lookups.hold = hold;
    pthread_cond_broadcast(&lookups.changed);
    pthread_mutex_unlock(&lookups.lock);
}

int system_lookups_held(void)
{
    pthread_mutex_lock(&lookups.lock);
    int n = lookups.held;
    pthread_mutex_unlock(&lookups.lock);
    return n;
}

int __wrap_getaddrinfo(
    const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **result)
{
    if (strncmp(host, "slow", 4) != 0)
        return __real_getaddrinfo(host, port, hints, result);
    pthread_mutex_lock(&lookups.lock);
    lookups.held++;
    while (lookups.hold)
        pthread_cond_wait(&lookups.changed, &lookups.lock);
    lookups.held--;
    pthread_mutex_unlock(&lookups.lock);
    return __real_getaddrinfo("127.0.0.1", port, hints, result);
}

/* ---- named pipes -------------------------------------------------------------------------- */

static _Thread_local bool named_pipes;

void system_named_pipes(bool named)
{
    named_pipes = named;
}

int __wrap_asio_sys_unix_bind(
    const char *name, size_t n, bool unlink_stale, uv_os_sock_t *fd, struct asio_sys_file *file)
{
    return named_pipes ? UV_ENOTSUP : __real_asio_sys_unix_bind(name, n, unlink_stale, fd, file);
}

int __wrap_asio_sys_tcp_bind(const struct sockaddr_storage *addr, struct asio_sys_bind how, uv_os_sock_t *fd)
{
    return named_pipes ? UV_ENOTSUP : __real_asio_sys_tcp_bind(addr, how, fd);
}

int __wrap_asio_sys_unix_connect(const char *name, size_t n, uv_os_sock_t *fd)
{
    return named_pipes ? UV_ENOTSUP : __real_asio_sys_unix_connect(name, n, fd);
}

/* Here libuv's pipes are Unix sockets, and have their names. */
int __wrap_asio_sys_pipe_name(const char *name, size_t n, char pipe[ASIO_SYS_PATH_MAX])
{
    if (n >= ASIO_SYS_PATH_MAX)
        return UV_ENAMETOOLONG;
    memcpy(pipe, name, n);
    pipe[n] = '\0';
    return 0;
}

int __wrap_asio_sys_unix_name(uv_os_fd_t fd, bool peer, char *name, size_t *size)
{
    return named_pipes ? UV_ENOTSUP : __real_asio_sys_unix_name(fd, peer, name, size);
}

/* ---- plain sockets ------------------------------------------------------------------------ */

int system_connect(int port)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    addr.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) != 0)
        abort();
    return fd;
}

/* Connections beyond the backlog are not answered: the kernel drops their SYN. */
void system_full_listener(void)
{
    char port[20];
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, length) != 0 || listen(fd, 0) != 0)
        abort();
    getsockname(fd, (struct sockaddr *)&addr, &length);
    snprintf(port, sizeof port, "%d", ntohs(addr.sin_port));
    setenv("HOST_FULL_PORT", port, 1);
    for (int i = 0; i < 4; i++) { /* they stay in the backlog after they are closed here */
        int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(client, (struct sockaddr *)&addr, length);
        usleep(1000);
        close(client);
    }
}
