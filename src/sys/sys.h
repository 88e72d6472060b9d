/* SPDX-License-Identifier: MIT
 *
 * What one system alone has, or what libuv does not reach, behind one function each. sys_unix.c
 * (with sys_unix_socket.c) and sys_win.c implement all of it but the last group, which sys_linux.c implements;
 * the others carry the fallback. */
#ifndef ASIO_SYS_H
#define ASIO_SYS_H

#include "base/asio.h"

/* Sends without ever raising SIGPIPE. Returns bytes sent, UV_EAGAIN, or another error;
 * UV_ENOTSUP where only libuv can write to the handle. */
ssize_t asio_sys_send(uv_os_fd_t fd, const uv_buf_t *bufs, unsigned count);

/* Of a longer queue libuv gets so many bytes at a time; 0: all of it. On Windows nothing tells how far a write has
 * come, and one that makes progress must not look like one that stands still. */
#ifdef _WIN32
enum { ASIO_SYS_PIECE = 65536 };
#else
enum { ASIO_SYS_PIECE = 0 };
#endif

/* Whether a loop can end while one of its callbacks runs. On Windows the request that the callback is about ends after
 * it, and its handle with that. */
#ifdef _WIN32
enum { ASIO_SYS_ENDS_WITHIN = 0 };
#else
enum { ASIO_SYS_ENDS_WITHIN = 1 };
#endif

/* Half-closes (sends FIN); UV_ENOTSUP: use uv_shutdown. */
int asio_sys_shutdown(uv_os_fd_t fd);

/* Why a stream has ended that libuv says has ended in order: 0: it has, or a status. */
int asio_sys_end_reason(uv_os_fd_t fd);

/* A socket has failed, which the next call on it would tell; asking does not take the error. False where it cannot be
 * known. */
bool asio_sys_has_failed(uv_os_fd_t fd);

/* Has close reset a connection, and drop what is on its way, where there is such a thing. */
void asio_sys_reset_on_close(uv_os_fd_t fd, bool on);

/* Duplicates a listening socket: 0, an error, or UV_ENOTSUP where there is no need of it. */
int asio_sys_dup(uv_os_fd_t fd, uv_os_sock_t *copy);
void asio_sys_close(uv_os_sock_t fd);

/* True when a descriptor that was just opened is so near the process's limit that accepting
 * should wait. */
bool asio_sys_files_short(uv_os_sock_t newest);

/* How often this process has come out of a fork; 0 where there is no such thing. Counted from the first call of
 * watch_forks on; a fork that bypasses libc is not seen. */
extern unsigned asio_sys_forks;
void asio_sys_watch_forks(void);

/* In the child of a fork: the kernel's object behind a loop is the parent's too. Puts a private one in its place, and returns a descriptor to be passed to asio_sys_unshare; -1: there is none. */
int asio_sys_unshare_loop(uv_loop_t *loop);
/* Lets the child's descriptor of a shared socket refer to something that has no effect; the parent keeps the socket. */
void asio_sys_unshare(uv_os_fd_t fd, int inert);

#define ASIO_NO_SOCKET ((uv_os_sock_t)-1)

/* A descriptor that becomes readable when any thread sets it, until it is cleared. Elsewhere uv_async_t does, which
 * spins for tens of microseconds where the thread that sends is interrupted by the one that it has woken. */
#ifdef __linux__
enum { ASIO_SYS_EVENTS = 1 };
#else
enum { ASIO_SYS_EVENTS = 0 };
#endif
int asio_sys_event_open(uv_os_sock_t *fd);
void asio_sys_event_set(uv_os_sock_t fd);
void asio_sys_event_clear(uv_os_sock_t fd);

/* How many processors this process may use; at least 1. */
unsigned asio_sys_parallelism(void);

/* Starts fn(arg) in a thread that is not joined, with so many bytes of stack. 0 or an error. */
enum { ASIO_SYS_HELPER_STACK = 256 * 1024 };
int asio_sys_thread(void (*fn)(void *arg), void *arg, size_t stack);

/* libuv's own writes raise SIGPIPE. Blocks it in this thread; ending that takes out one that came
 * meanwhile, also where the program had it blocked itself. */
enum asio_sigpipe { ASIO_SIGPIPE_LEFT, ASIO_SIGPIPE_TAKE_OUT, ASIO_SIGPIPE_UNBLOCK };
enum asio_sigpipe asio_sys_sigpipe_block(void);
void asio_sys_sigpipe_end(enum asio_sigpipe how);

/* Whether a process can get this signal here; 0 is none. */
bool asio_sys_signal_comes(int number);

/* A watcher of a signal calls enter before and leave after: the first one to enter remembers what
 * the process does with it, the last one to leave puts that back (libuv sets the default).
 * Calls nest across threads. Entering returns false when the process ignores the signal. */
bool asio_sys_signal_enter(int number);
void asio_sys_signal_leave(int number);

/* The modes of a descriptor that all processes that share it see (O_NONBLOCK); -1: unknown, and not set. */
int asio_sys_file_flags(uv_os_sock_t fd);
void asio_sys_set_file_flags(uv_os_sock_t fd, int flags);

/* Whether there is a way to an address, as far as this system knows without asking the network. */
bool asio_sys_reachable(const struct sockaddr_storage *addr);

/* The table of names that an administrator keeps by hand. */
void asio_sys_hosts_path(char *path, size_t size);

/* The file that code or data at `address` was loaded from: 0 or an error; keeps that file loaded for good. */
int asio_sys_module_path(const void *address, char *path, size_t size);
void asio_sys_pin(const void *address);

/* Closing carefully: bytes the peer's system has not acknowledged, bytes received and not read.
 * 0 where it cannot be known. */
size_t asio_sys_unsent(uv_os_fd_t fd);
size_t asio_sys_unread(uv_os_fd_t fd);

/* Lets several sockets share a port; before binding. UV_ENOTSUP where there is no such thing. */
int asio_sys_reuseport(uv_os_fd_t fd);

/* ---- Listening (sys_unix_listen.c) ---- UV_ENOTSUP: libuv has to listen, and to accept. */
struct asio_sys_bind {
    bool reuseport, ipv6only;
    bool nodelay; /* for its connections, where these inherit it */
};
int asio_sys_tcp_bind(const struct sockaddr_storage *addr, struct asio_sys_bind how, uv_os_sock_t *fd);
int asio_sys_listen(uv_os_sock_t fd, int backlog); /* a socket that is bound */

/* Takes a connection, which neither waits nor is passed to programs that are started: 0, UV_EAGAIN, or an error;
 * UV_ECONNABORTED: that connection has failed, others may be there. */
int asio_sys_accept(uv_os_sock_t listener, uv_os_sock_t *fd);
bool asio_sys_has_nodelay(uv_os_sock_t fd);

/* Keeps a descriptor from programs that are started. */
void asio_sys_cloexec(uv_os_sock_t fd);

/* What a descriptor from elsewhere is; UV_EBADF, UV_ENOTSOCK; UV_ENOTSUP where there are only handles. */
enum asio_sys_kind { ASIO_SYS_OTHER, ASIO_SYS_TCP, ASIO_SYS_UNIX };
int asio_sys_socket_kind(uv_os_sock_t fd, enum asio_sys_kind *kind, bool *listening);

/* ---- Unix sockets (sys_unix_socket.c) ----
 * A name is a path, or '@' with an abstract name behind it. UV_ENAMETOOLONG beyond what the system holds;
 * UV_ENOTSOCK for a file that is something else. All return UV_ENOTSUP where libuv's pipes are something else. */
enum { ASIO_SYS_PATH_MAX = 300 }; /* of a name on any system, libuv's names of pipes on Windows too */

/* The file of a listening socket. */
struct asio_sys_file {
    char *path; /* absolute, owned; NULL: there is none, or it is not ours to remove */
    uint64_t device, inode;
};

/* A bound socket, with the file it made. Stale: a socket that refuses connections gives way. */
int asio_sys_unix_bind(
    const char *name, size_t n, bool unlink_stale, uv_os_sock_t *fd, struct asio_sys_file *file);

/* Lets go of the file, and removes it, unless `keep`, if it is still the one that was made. To be called while the
 * socket is open, and its inode so not given to another file. */
void asio_sys_unix_remove(struct asio_sys_file *file, bool keep);

/* A connected socket; UV_EAGAIN: the backlog is full. Never waits. */
int asio_sys_unix_connect(const char *name, size_t n, uv_os_sock_t *fd);

/* Windows: what libuv calls the pipe of such a name, terminated; UV_ENOTSUP for abstract names. */
int asio_sys_pipe_name(const char *name, size_t n, char pipe[ASIO_SYS_PATH_MAX]);

/* The name of either end, not terminated; *size in and out. Empty: it has none. */
int asio_sys_unix_name(uv_os_fd_t fd, bool peer, char *name, size_t *size);

/* Sends a descriptor, on one byte of its own; never waits. */
int asio_sys_send_handle(uv_os_fd_t fd, uv_os_fd_t handle);

/* Reads as recv does, into `buf`, and takes descriptors that come along. */
enum { ASIO_SYS_HANDLES_MAX = 16 }; /* at a time */
struct asio_sys_arrival {
    char *bytes; /* without what descriptors rode on */
    size_t n;
    uv_os_sock_t handles[ASIO_SYS_HANDLES_MAX];
    unsigned count;
    bool lost; /* there were more, for which the process has no room */
};
ssize_t asio_sys_recv_handles(uv_os_fd_t fd, uv_buf_t buf, struct asio_sys_arrival *arrival);

/* ---- Standard streams (sys_unix_stdio.c) ----
 * The description behind such a number is shared with other processes, so its modes stay as they are. */

/* Has numbers that are not open stand for nothing (bit n of the result: n was one of them). Else libuv's own
 * descriptors would get them, and it ends the process when it closes such a one. */
unsigned asio_sys_stdio_fill(void);

/* Opens what is behind a number once more, and says how it can be used; or an error; UV_ENOTSUP: libuv's
 * streams do it. */
enum asio_sys_stdio {
    ASIO_SYS_STDIO_OWN,    /* by a description of our own, which never waits */
    ASIO_SYS_STDIO_SOCKET, /* by calls that do not wait */
    ASIO_SYS_STDIO_SHARED, /* by looking before each call, and writing little at a time */
    ASIO_SYS_STDIO_FILE,   /* it cannot be polled: a thread may wait for it */
};
int asio_sys_stdio_open(int number, uv_os_sock_t *fd);

/* Bytes, UV_EAGAIN, or an error; not for files. */
ssize_t asio_sys_stdio_read(uv_os_sock_t fd, enum asio_sys_stdio how, uv_buf_t buf);
ssize_t asio_sys_stdio_write(uv_os_sock_t fd, enum asio_sys_stdio how, const uv_buf_t *bufs, unsigned count);

/* Waits so many milliseconds until it can be written to. */
bool asio_sys_stdio_wait(uv_os_sock_t fd, int ms);

/* Lets a number stand for nothing: it stays taken. */
void asio_sys_stdio_discard(int number);

/* The addresses of a socket of any kind. */
int asio_sys_socket_name(uv_os_sock_t fd, struct sockaddr_storage *addr, bool peer);

/* ---- sys_linux.c, with fallbacks ---- */

/* Another description of the same terminal or pipe, which never waits; UV_ENOTSUP. */
int asio_sys_reopen(int fd, uv_os_sock_t *copy);

/* A descriptor that libuv can poll in place of `fd` without changing the modes of that; UV_EPERM for files. */
int asio_sys_stdio_watch(uv_os_sock_t fd, uv_os_sock_t *watch);

/* Has it poll for these events; returns those that libuv is to be asked for. */
int asio_sys_stdio_poll(uv_os_sock_t watch, uv_os_sock_t fd, int events);

/* The process at the other end of a Unix socket; UV_ENOTSUP for others. */
struct asio_sys_credentials {
    long pid;
    unsigned long uid, gid;
};
int asio_sys_credentials(uv_os_fd_t fd, struct asio_sys_credentials *found);

union asio_sockaddr {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* A datagram and where it comes from or goes to. */
struct asio_datagram {
    const char *bytes;
    uint32_t size;
    bool partial;                /* received: the system has cut it */
    union asio_sockaddr address; /* AF_UNSPEC: none, the socket is connected */
};

/* Sends datagrams in their order. Returns how many the kernel has taken, at least one; UV_EAGAIN; what
 * became of the first, if it is some other error; UV_ENOTSUP where only libuv can do it. */
enum { ASIO_SYS_DATAGRAMS = 64 }; /* at most so many */
int asio_sys_send_datagrams(uv_os_fd_t fd, struct asio_datagram *const *list, unsigned count);

/* The same for one alone. */
int asio_sys_send_datagram(uv_os_fd_t fd, const struct asio_datagram *d);

/* Room for receiving many datagrams in one call, and those that came last. NULL: there is no such call, or
 * no memory: then libuv does it, one by one. */
enum { ASIO_SYS_BATCH = 32 };
struct asio_sys_batch {
    struct asio_datagram list[ASIO_SYS_BATCH];
};
struct asio_sys_batch *asio_sys_batch_new(void);

/* Takes what is there: how many (0: nothing), an error, or UV_ENOTSUP. */
int asio_sys_batch_receive(struct asio_sys_batch *b, uv_os_fd_t fd);

/* The first IPv4 address of an interface; UV_ENODEV. */
int asio_sys_interface_ip4(const char *name, struct sockaddr_in *addr);

/* A pipe through which bytes pass from socket to socket without being copied: [0] to read from, [1] to write
 * to, neither waits. UV_ENOTSUP where there is no such thing. */
int asio_sys_pipe(uv_os_sock_t ends[2]);

/* Moves up to n bytes into or out of such a pipe: how many, 0 at the end, UV_EAGAIN, or an error. May raise
 * SIGPIPE. */
ssize_t asio_sys_splice(uv_os_fd_t from, uv_os_fd_t to, size_t n);

/* Reads from such a pipe, which holds at least n bytes. */
ssize_t asio_sys_pipe_read(uv_os_sock_t end, char *to, size_t n);

/* Sends up to n bytes of a regular file, as much as the socket takes now: how many, 0 where the file has none, UV_EAGAIN,
 * or an error; UV_ENOTSUP where there is no such call. May raise SIGPIPE. */
ssize_t asio_sys_send_file(uv_os_fd_t to, int file, int64_t offset, size_t n);

/* The address a redirected connection was meant for; UV_ENOTSUP where there is no such thing. */
int asio_sys_original_dst(uv_os_fd_t fd, struct sockaddr_storage *addr);

#endif
