/* SPDX-License-Identifier: MIT
 * Windows; see sys.h. libuv writes, half-closes and watches Ctrl-C by itself there, and there is
 * no SIGPIPE and no small limit of open sockets. */
#include "sys/sys.h"

#include <process.h>
#include <signal.h>
#include <stdio.h>
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

int asio_sys_end_reason(uv_os_fd_t fd)
{
    (void)fd;
    return 0;
}

bool asio_sys_has_failed(uv_os_fd_t fd)
{
    (void)fd;
    return false;
}

void asio_sys_reset_on_close(uv_os_fd_t fd, bool on)
{
    struct linger linger = { .l_onoff = on };
    setsockopt((SOCKET)fd, SOL_SOCKET, SO_LINGER, (const char *)&linger, sizeof linger);
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

static unsigned __stdcall sys_windows_thread_main(void *p)
{
    struct start s = *(struct start *)p;
    asio_mem.free(p);
    s.fn(s.arg);
    return 0;
}

unsigned asio_sys_parallelism(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwNumberOfProcessors > 0 ? info.dwNumberOfProcessors : 1;
}

int asio_sys_thread(void (*fn)(void *arg), void *arg, size_t stack)
{
    struct start *s = asio_mem.malloc(sizeof *s);
    if (!s)
        return UV_ENOMEM;
    *s = (struct start){ fn, arg };
    uintptr_t handle = _beginthreadex(NULL, (unsigned)stack, sys_windows_thread_main, s,
        STACK_SIZE_PARAM_IS_A_RESERVATION, NULL); /* or all of it would be committed */
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

/* What libuv makes of the events of a console. */
bool asio_sys_signal_comes(int number)
{
    return number == SIGINT || number == SIGBREAK || number == SIGHUP || number == SIGWINCH;
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

bool asio_sys_reachable(const struct sockaddr_storage *addr)
{
    int size = addr->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    SOCKET fd = socket(addr->ss_family, SOCK_DGRAM, 0);
    if (fd == INVALID_SOCKET)
        return false;
    bool reachable = connect(fd, (const struct sockaddr *)addr, size) == 0;
    closesocket(fd);
    return reachable;
}

void asio_sys_hosts_path(char *path, size_t size)
{
    char root[MAX_PATH];
    DWORD n = GetEnvironmentVariableA("SystemRoot", root, sizeof root);
    snprintf(
        path, size, "%s\\System32\\drivers\\etc\\hosts", n > 0 && n < sizeof root ? root : "C:\\Windows");
}

static HMODULE module_of(const void *address, DWORD flags)
{
    HMODULE module;
    flags |= GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    return GetModuleHandleExA(flags, address, &module) ? module : NULL;
}

int asio_sys_module_path(const void *address, char *path, size_t size)
{
    HMODULE module = module_of(address, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT);
    DWORD n = module ? GetModuleFileNameA(module, path, (DWORD)size) : 0;
    return n > 0 && n < size ? 0 : UV_ENOENT;
}

void asio_sys_pin(const void *address)
{
    module_of(address, GET_MODULE_HANDLE_EX_FLAG_PIN);
}

size_t asio_sys_unread(uv_os_fd_t fd)
{
    u_long n = 0;
    return ioctlsocket((SOCKET)fd, FIONREAD, &n) == 0 ? n : 0;
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

int asio_sys_reuseport(uv_os_fd_t fd)
{
    (void)fd;
    return UV_ENOTSUP;
}

int asio_sys_tcp_bind(const struct sockaddr_storage *addr, struct asio_sys_bind how, uv_os_sock_t *fd)
{
    (void)addr, (void)how, (void)fd;
    return UV_ENOTSUP;
}

int asio_sys_listen(uv_os_sock_t fd, int backlog)
{
    (void)fd, (void)backlog;
    return UV_ENOTSUP;
}

int asio_sys_accept(uv_os_sock_t listener, uv_os_sock_t *fd)
{
    (void)listener, (void)fd;
    return UV_ENOTSUP;
}

bool asio_sys_has_nodelay(uv_os_sock_t fd)
{
    (void)fd;
    return false;
}

void asio_sys_cloexec(uv_os_sock_t fd)
{
    SetHandleInformation((HANDLE)fd, HANDLE_FLAG_INHERIT, 0);
}

int asio_sys_socket_kind(uv_os_sock_t fd, enum asio_sys_kind *kind, bool *listening)
{
    (void)fd, (void)kind, (void)listening;
    return UV_ENOTSUP;
}

/* ---- named pipes --------------------------------------------------------------------------
 * libuv opens them. */

static const char pipes[] = "\\\\.\\pipe\\";

enum { PIPES = sizeof pipes - 1, PIPE_NAME_MAX = 256 };

int asio_sys_pipe_name(const char *name, size_t n, char pipe[ASIO_SYS_PATH_MAX])
{
    bool whole = n >= 2 && strchr("\\/", name[0]) && strchr("\\/", name[1]); /* \\COMPUTER\pipe\... */
    size_t before = whole ? 0 : PIPES;
    if (n == 0 || memchr(name, 0, n))
        return UV_EINVAL;
    if (name[0] == '@')
        return UV_ENOTSUP;
    if (before + n > PIPE_NAME_MAX)
        return UV_ENAMETOOLONG;
    memcpy(pipe, pipes, before);
    memcpy(pipe + before, name, n);
    pipe[before + n] = 0;
    return 0;
}

int asio_sys_unix_bind(
    const char *name, size_t n, bool unlink_stale, uv_os_sock_t *fd, struct asio_sys_file *file)
{
    (void)name, (void)n, (void)unlink_stale, (void)fd, (void)file;
    return UV_ENOTSUP;
}

void asio_sys_unix_remove(struct asio_sys_file *file, bool keep)
{
    (void)file, (void)keep;
}

int asio_sys_unix_connect(const char *name, size_t n, uv_os_sock_t *fd)
{
    (void)name, (void)n, (void)fd;
    return UV_ENOTSUP;
}

/* The end that was accepted has the name: asked for by libuv, it would be the other's. */
int asio_sys_unix_name(uv_os_fd_t fd, bool peer, char *name, size_t *size)
{
    union {
        FILE_NAME_INFO info;
        WCHAR room[ASIO_SYS_PATH_MAX + sizeof(FILE_NAME_INFO)];
    } found;
    DWORD flags;
    if (!GetNamedPipeInfo(fd, &flags, NULL, NULL, NULL))
        return UV_EBADF;
    bool accepted = flags & PIPE_SERVER_END;
    size_t room = *size;
    *size = 0;
    if (accepted == peer)
        return 0;
    if (!GetFileInformationByHandleEx(fd, FileNameInfo, &found, sizeof found))
        return UV_ENOENT;
    const WCHAR *wide = found.info.FileName;
    int n = (int)(found.info.FileNameLength / sizeof *wide), skipped = n > 0 && *wide == '\\';
    int written = WideCharToMultiByte(CP_UTF8, 0, wide + skipped, n - skipped, name + PIPES,
        room > PIPES ? (int)room - PIPES : 0, NULL, NULL);
    if (written <= 0)
        return UV_ENOBUFS;
    memcpy(name, pipes, PIPES);
    *size = (size_t)written + PIPES;
    return 0;
}

int asio_sys_send_handle(uv_os_fd_t fd, uv_os_fd_t handle)
{
    (void)fd, (void)handle;
    return UV_ENOTSUP;
}

ssize_t asio_sys_recv_handles(uv_os_fd_t fd, uv_buf_t buf, struct asio_sys_arrival *arrival)
{
    (void)fd, (void)buf, (void)arrival;
    return UV_ENOTSUP;
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

/* libuv's streams do it: there are no descriptions that are shared. */
int asio_sys_stdio_open(int number, uv_os_sock_t *fd)
{
    (void)number, (void)fd;
    return UV_ENOTSUP;
}

unsigned asio_sys_stdio_fill(void)
{
    return 0;
}

ssize_t asio_sys_stdio_read(uv_os_sock_t fd, enum asio_sys_stdio how, uv_buf_t buf)
{
    (void)fd, (void)how, (void)buf;
    return UV_ENOTSUP;
}

ssize_t asio_sys_stdio_write(uv_os_sock_t fd, enum asio_sys_stdio how, const uv_buf_t *bufs, unsigned count)
{
    (void)fd, (void)how, (void)bufs, (void)count;
    return UV_ENOTSUP;
}

bool asio_sys_stdio_wait(uv_os_sock_t fd, int ms)
{
    (void)fd, (void)ms;
    return false;
}

void asio_sys_stdio_discard(int number)
{
    (void)number;
}

int asio_sys_socket_name(uv_os_sock_t fd, struct sockaddr_storage *addr, bool peer)
{
    (void)fd, (void)addr, (void)peer;
    return UV_ENOTSOCK;
}

int asio_sys_stdio_watch(uv_os_sock_t fd, uv_os_sock_t *watch)
{
    (void)fd, (void)watch;
    return UV_ENOTSUP;
}

int asio_sys_stdio_poll(uv_os_sock_t watch, uv_os_sock_t fd, int events)
{
    (void)watch, (void)fd;
    return events;
}

/* ---- there is no fork ---------------------------------------------------------------------- */

unsigned asio_sys_forks;

void asio_sys_watch_forks(void)
{
}

void asio_sys_unshare(uv_os_fd_t fd, int inert)
{
    (void)fd, (void)inert;
}
