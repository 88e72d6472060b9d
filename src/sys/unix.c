/* SPDX-License-Identifier: MIT
 * POSIX systems; see sys.h. */
#define _GNU_SOURCE /* dladdr */
#include "sys/sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <ifaddrs.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* elsewhere the blocked signal has to do */
#endif

ssize_t asio_sys_send(uv_os_fd_t fd, const uv_buf_t *bufs, unsigned count)
{
    ssize_t n;
    do {
        if (count == 1) {
            n = send(fd, bufs[0].base, bufs[0].len, MSG_NOSIGNAL | MSG_DONTWAIT);
        } else { /* uv_buf_t is laid out as struct iovec on POSIX systems: libuv relies on it too */
            struct msghdr msg = { .msg_iov = (struct iovec *)(void *)bufs, .msg_iovlen = count };
            n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
        return UV_EAGAIN;
    return uv_translate_sys_error(errno);
}

/* Not libuv's list of them, which crashes when memory runs out. */
int asio_sys_interface_ip4(const char *name, struct sockaddr_in *addr)
{
    struct ifaddrs *list;
    if (getifaddrs(&list) != 0)
        return uv_translate_sys_error(errno);
    int status = UV_ENODEV;
    for (struct ifaddrs *i = list; i && status < 0; i = i->ifa_next) {
        if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && strcmp(i->ifa_name, name) == 0) {
            memcpy(addr, i->ifa_addr, sizeof *addr);
            status = 0;
        }
    }
    freeifaddrs(list);
    return status;
}

static socklen_t address_length(const struct asio_datagram *d)
{
    switch (d->address.any.sa_family) {
    case AF_INET:
        return sizeof d->address.v4;
    case AF_INET6:
        return sizeof d->address.v6;
    default:
        return 0;
    }
}

int asio_sys_send_datagram(uv_os_fd_t fd, const struct asio_datagram *d)
{
    socklen_t length = address_length(d);
    ssize_t n;
    do
        n = sendto(fd, d->bytes, d->size, MSG_NOSIGNAL, length ? &d->address.any : NULL, length);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return 1;
    return errno == EWOULDBLOCK ? UV_EAGAIN : uv_translate_sys_error(errno);
}

int asio_sys_shutdown(uv_os_fd_t fd)
{
    return shutdown(fd, SHUT_WR) == 0 ? 0 : uv_translate_sys_error(errno);
}

/* libuv takes a hang-up behind a read that did not fill its buffer for the end, and does not ask why. EPIPE
 * is a reset that came after the peer's orderly end. */
int asio_sys_end_reason(uv_os_fd_t fd)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error == EPIPE)
        return 0;
    return error ? uv_translate_sys_error(error) : 0;
}

bool asio_sys_has_failed(uv_os_fd_t fd)
{
    struct pollfd p = { .fd = fd };
    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR);
}

void asio_sys_reset_on_close(uv_os_fd_t fd, bool on)
{
    struct linger linger = { .l_onoff = on };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

int asio_sys_dup(uv_os_fd_t fd, uv_os_sock_t *copy)
{
    *copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return *copy < 0 ? uv_translate_sys_error(errno) : 0;
}

void asio_sys_close(uv_os_sock_t fd)
{
    close(fd);
}

static bool is_free(rlim_t fd)
{
    return fcntl((int)fd, F_GETFD) < 0;
}

/* Whether two more can be opened: libuv accepts one more than it is asked for, and sheds it if it cannot. */
static bool has_room(int fd)
{
    int next = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int after = next < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (after >= 0)
        close(after);
    if (next >= 0)
        close(next);
    return after >= 0;
}

/* New descriptors take the lowest free number, so the number itself tells how near the limit is,
 * whichever library opened the others; unless the last numbers are taken, and there are holes below. */
bool asio_sys_files_short(uv_os_sock_t newest)
{
    enum { RESERVE = 8 };
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > INT_MAX || limit.rlim_cur < RESERVE)
        return false;
    if ((rlim_t)newest + RESERVE >= limit.rlim_cur)
        return true;
    return !(is_free(limit.rlim_cur - 1) && is_free(limit.rlim_cur - 2)) && !has_room(newest);
}

struct start {
    void (*fn)(void *arg);
    void *arg;
};

static void *sys_unix_thread_main(void *p)
{
    struct start s = *(struct start *)p;
    asio_mem.free(p);
    s.fn(s.arg);
    return NULL;
}

/* All signals are blocked in the new thread: they are for the program's own threads. */
unsigned asio_sys_forks;

static void unix_on_fork(void)
{
    asio_sys_forks++;
}

static void unix_watch_forks(void)
{
    pthread_atfork(NULL, NULL, unix_on_fork);
}

void asio_sys_watch_forks(void)
{
    static uv_once_t once = UV_ONCE_INIT;
    uv_once(&once, unix_watch_forks);
}

void asio_sys_unshare(uv_os_fd_t fd, int inert)
{
    if (inert >= 0 && fd > STDERR_FILENO && dup2(inert, fd) >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

unsigned asio_sys_parallelism(void)
{
#if UV_VERSION_HEX >= 0x012c00 /* 1.44: looks at the affinity mask */
    return uv_available_parallelism();
#else
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
#endif
}

int asio_sys_thread(void (*fn)(void *arg), void *arg, size_t stack)
{
    struct start *s = asio_mem.malloc(sizeof *s);
    if (!s)
        return UV_ENOMEM;
    *s = (struct start){ fn, arg };
    pthread_attr_t attr;
    pthread_t id;
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, stack);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&id, &attr, sys_unix_thread_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (error)
        asio_mem.free(s);
    return error ? uv_translate_sys_error(error) : 0;
}

/* Signal actions belong to the process; this is the one piece of state that several runtimes share. */
static struct {
    pthread_mutex_t lock;
    struct {
        int users;
        struct sigaction action;
    } of[NSIG];
} signals = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool ignored(const struct sigaction *action)
{
    return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_IGN;
}

bool asio_sys_signal_comes(int number)
{
    return number > 0;
}

bool asio_sys_signal_enter(int number)
{
    pthread_mutex_lock(&signals.lock);
    if (signals.of[number].users++ == 0)
        sigaction(number, NULL, &signals.of[number].action);
    bool watch = !ignored(&signals.of[number].action);
    pthread_mutex_unlock(&signals.lock);
    return watch;
}

void asio_sys_signal_leave(int number)
{
    pthread_mutex_lock(&signals.lock);
    if (--signals.of[number].users == 0)
        sigaction(number, &signals.of[number].action, NULL);
    pthread_mutex_unlock(&signals.lock);
}

int asio_sys_file_flags(uv_os_sock_t fd)
{
    return fcntl(fd, F_GETFL);
}

void asio_sys_set_file_flags(uv_os_sock_t fd, int flags)
{
    if (flags >= 0)
        fcntl(fd, F_SETFL, flags);
}

int asio_sys_reuseport(uv_os_fd_t fd)
{
#ifdef SO_REUSEPORT
    int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 ? 0 : uv_translate_sys_error(errno);
#else
    (void)fd;
    return UV_ENOTSUP;
#endif
}

void asio_sys_cloexec(uv_os_sock_t fd)
{
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0)
        fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
}

static int socket_number(uv_os_sock_t fd, int option, int *value)
{
    socklen_t size = sizeof *value;
    *value = 0;
    return getsockopt(fd, SOL_SOCKET, option, value, &size) == 0 ? 0 : uv_translate_sys_error(errno);
}

int asio_sys_socket_kind(uv_os_sock_t fd, enum asio_sys_kind *kind, bool *listening)
{
    struct sockaddr_storage addr;
    socklen_t length = sizeof addr;
    int type, accepts;
    *kind = ASIO_SYS_OTHER;
    int status = socket_number(fd, SO_TYPE, &type);
    if (status < 0)
        return status;
    socket_number(fd, SO_ACCEPTCONN, &accepts);
    *listening = accepts != 0;
    if (getsockname(fd, (struct sockaddr *)&addr, &length) != 0)
        return uv_translate_sys_error(errno);
    if (type == SOCK_STREAM && addr.ss_family == AF_UNIX)
        *kind = ASIO_SYS_UNIX;
    else if (type == SOCK_STREAM && (addr.ss_family == AF_INET || addr.ss_family == AF_INET6))
        *kind = ASIO_SYS_TCP;
    return 0;
}

static sigset_t sigpipe_alone(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    return set;
}

static bool sigpipe_pending(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

enum asio_sigpipe asio_sys_sigpipe_block(void)
{
    sigset_t set = sigpipe_alone(), old;
    if (pthread_sigmask(SIG_BLOCK, &set, &old) != 0)
        return ASIO_SIGPIPE_LEFT;
    if (sigismember(&old, SIGPIPE) == 0)
        return ASIO_SIGPIPE_UNBLOCK;
    return sigpipe_pending() ? ASIO_SIGPIPE_LEFT : ASIO_SIGPIPE_TAKE_OUT;
}

void asio_sys_sigpipe_end(enum asio_sigpipe how)
{
    sigset_t set = sigpipe_alone();
    int taken;
    if (how == ASIO_SIGPIPE_LEFT)
        return;
    if (sigpipe_pending())
        sigwait(&set, &taken);
    if (how == ASIO_SIGPIPE_UNBLOCK)
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

size_t asio_sys_unread(uv_os_fd_t fd)
{
    int n = 0;
    return ioctl(fd, FIONREAD, &n) == 0 && n > 0 ? (size_t)n : 0;
}

/* Connecting a datagram socket sends nothing: it looks at the routes. */
bool asio_sys_reachable(const struct sockaddr_storage *addr)
{
    socklen_t size = addr->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(addr->ss_family, SOCK_DGRAM, 0);
    if (fd < 0)
        return false;
    bool reachable = connect(fd, (const struct sockaddr *)addr, size) == 0;
    close(fd);
    return reachable;
}

void asio_sys_hosts_path(char *path, size_t size)
{
    snprintf(path, size, "/etc/hosts");
}

int asio_sys_module_path(const void *address, char *path, size_t size)
{
    Dl_info info;
    if (!dladdr(address, &info) || !info.dli_fname || strlen(info.dli_fname) >= size)
        return UV_ENOENT;
    snprintf(path, size, "%s", info.dli_fname);
    return 0;
}

/* The reference is never given back. */
void asio_sys_pin(const void *address)
{
    Dl_info info;
    if (dladdr(address, &info) && info.dli_fname)
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
}

#ifndef __linux__
int asio_sys_reopen(int fd, uv_os_sock_t *copy)
{
    (void)fd, (void)copy;
    return UV_ENOTSUP;
}

/* libuv sets O_NONBLOCK, which its caller takes back. */
int asio_sys_stdio_watch(uv_os_sock_t fd, uv_os_sock_t *watch)
{
    return asio_sys_dup(fd, watch);
}

int asio_sys_stdio_poll(uv_os_sock_t watch, uv_os_sock_t fd, int events)
{
    (void)watch, (void)fd;
    return events;
}

int asio_sys_send_datagrams(uv_os_fd_t fd, struct asio_datagram *const *list, unsigned count)
{
    (void)count;
    return asio_sys_send_datagram(fd, list[0]);
}
#endif
