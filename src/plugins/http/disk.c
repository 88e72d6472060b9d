/* SPDX-License-Identifier: MIT
 *
 * Files for responses. A path from outside is opened beneath a root. Symbolic links are followed as long as they stay
 * there, where the system checks that itself; elsewhere it is opened component by component, and none of them may be a
 * link. Reading a file does not wait as a socket does: the loop stands still while the disk is read. */
#define _GNU_SOURCE /* O_PATH, O_LARGEFILE */
#include "plugins/http/http.h"

#include <string.h>

#ifndef _WIN32
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/syscall.h>
#endif

#ifndef O_PATH
#define O_PATH O_RDONLY
#endif
#ifndef O_LARGEFILE
#define O_LARGEFILE 0
#endif

/* Lifetime: a userdata; owns the descriptor, until disk_close or its collection. */
struct http_disk {
    const void *magic;
    int fd; /* -1: closed */
};

static const char disk_magic = 0; /* its address: also the registry's key of the metatable */

static int disk_fail(lua_State *L)
{
    return asio_http_core->error->push(L, -errno);
}

static void disk_close_quietly(int fd)
{
    int e = errno;
    close(fd);
    errno = e;
}

/* The next component of a path beneath the root, and what is behind it. False: it is none that may be followed. */
static bool disk_component(const char **path, char name[256])
{
    const char *end = strchr(*path, '/');
    size_t n = end ? (size_t)(end - *path) : strlen(*path);
    if (n == 0 || n > 255 || memchr(*path, '\\', n) || (end && !end[1]))
        return false;
    memcpy(name, *path, n);
    name[n] = 0;
    *path += n + (end != NULL);
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool disk_is_plain(const char *path)
{
    char name[256];
    while (*path)
        if (!disk_component(&path, name))
            return false;
    return true;
}

/* Opening a FIFO does not wait. */
enum { DISK_FLAGS = O_RDONLY | O_NONBLOCK | O_CLOEXEC };

/* Linux 5.6 follows a link only if it stays beneath the root; an absolute one does not, wherever it leads. EAGAIN:
 * something was renamed meanwhile, and the kernel is not sure. ENOSYS: the system does not know this. */
static int disk_open_resolved(int root, const char *path)
{
    errno = ENOSYS;
#ifdef SYS_openat2
    enum { TRIES = 8, NO_MAGICLINKS = 2, BENEATH = 8 };
    /* struct open_how, whose header not every libc finds: flags, mode, how to look up */
    const uint64_t how[3] = { DISK_FLAGS | O_LARGEFILE, 0, BENEATH | NO_MAGICLINKS };
    for (int i = 0; i < TRIES; i++) {
        long fd = syscall(SYS_openat2, root, path, how, sizeof how);
        if (fd >= 0)
            return (int)fd;
        if (errno != EAGAIN)
            break;
    }
    if (errno == EXDEV) /* out of the root */
        errno = ENOENT;
#else
    (void)root;
    (void)path;
#endif
    return -1;
}

/* Takes `at`. A symbolic link is ELOOP, or ENOTDIR where a directory is needed. */
static int disk_open_walking(int at, const char *path)
{
    char name[256];
    while (at >= 0 && *path && disk_component(&path, name)) {
        int flags = O_NOFOLLOW | (*path ? O_PATH | O_DIRECTORY | O_CLOEXEC : DISK_FLAGS);
        int next = openat(at, name, flags);
        disk_close_quietly(at);
        at = next;
    }
    return at;
}

static int disk_open_beneath(const char *root, const char *path)
{
    errno = ENOENT;
    if (!disk_is_plain(path))
        return -1;
    if (*path == 0)
        return open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0)
        return -1;
    int fd = disk_open_resolved(at, path);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) /* EPERM: a filter that does not know the call */
        return disk_open_walking(at, path);
    disk_close_quietly(at);
    return fd;
}

/* kind, size, seconds and nanoseconds of the last change */
static int disk_push_stat(lua_State *L, const struct stat *s)
{
    lua_pushstring(L, S_ISREG(s->st_mode) ? "file" : S_ISDIR(s->st_mode) ? "directory" : "other");
    lua_pushnumber(L, (lua_Number)s->st_size);
#ifdef __APPLE__
    lua_pushnumber(L, (lua_Number)s->st_mtimespec.tv_sec);
    lua_pushnumber(L, (lua_Number)s->st_mtimespec.tv_nsec);
#else
    lua_pushnumber(L, (lua_Number)s->st_mtim.tv_sec);
    lua_pushnumber(L, (lua_Number)s->st_mtim.tv_nsec);
#endif
    return 4;
}

static struct http_disk *disk_check(lua_State *L, int index)
{
    struct http_disk *d = lua_touserdata(L, index);
    if (!d || lua_objlen(L, index) != sizeof *d || d->magic != &disk_magic)
        asio_http_core->error->misuse(L, "an open file expected");
    return d;
}

/* disk_open(root or nil, path) -> file, kind, size, seconds, nanoseconds; nil, message, code */
int asio_http_l_disk_open(lua_State *L)
{
    size_t n;
    const char *root = lua_tostring(L, 1), *path = luaL_checklstring(L, 2, &n);
    struct stat s;
    if (memchr(path, 0, n))
        return asio_http_core->error->push(L, UV_ENOENT);
    struct http_disk *d = lua_newuserdata(L, sizeof *d);
    *d = (struct http_disk){ &disk_magic, -1 };
    lua_pushlightuserdata(L, (void *)&disk_magic);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    d->fd = root ? disk_open_beneath(root, path) : open(path, DISK_FLAGS);
    if (d->fd < 0 || fstat(d->fd, &s) != 0)
        return disk_fail(L);
    return 1 + disk_push_stat(L, &s);
}

/* disk_stat(file) -> kind, size, seconds, nanoseconds; nil, message, code */
int asio_http_l_disk_stat(lua_State *L)
{
    struct stat s;
    if (fstat(disk_check(L, 1)->fd, &s) != 0)
        return disk_fail(L);
    return disk_push_stat(L, &s);
}

/* disk_read(file, offset, n) -> at most n bytes, '': there are none; nil, message, code */
int asio_http_l_disk_read(lua_State *L)
{
    enum { MOST = 65536 };
    char bytes[MOST];
    struct http_disk *d = disk_check(L, 1);
    lua_Number n = lua_tonumber(L, 3);
    ssize_t got;
    do
        got = pread(d->fd, bytes, n < MOST ? (size_t)n : MOST, (off_t)lua_tonumber(L, 2));
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return disk_fail(L);
    lua_pushlstring(L, bytes, (size_t)got);
    return 1;
}

/* disk_send(conn, file, offset, n) -> how many bytes the system has taken; 0: none now; -1: it does not take them from
 * this file to this connection, or there are none; nil, message, code: the connection has failed. */
int asio_http_l_disk_send(lua_State *L)
{
    struct asio_stream *s = asio_http_core->stream->stream_at(L, 1);
    const struct http_disk *d = disk_check(L, 2);
    if (!s)
        return asio_http_core->error->push(L, UV_EBADF);
    ssize_t sent =
        asio_http_core->stream->send_file(s, d->fd, (int64_t)lua_tonumber(L, 3), (size_t)lua_tonumber(L, 4));
    bool no_way = sent == UV_ENOTSUP || sent == UV_EOF;
    if (sent < 0 && sent != UV_EAGAIN && !no_way)
        return asio_http_core->error->push(L, (int)sent);
    lua_pushnumber(L, no_way ? -1 : sent > 0 ? (lua_Number)sent : 0);
    return 1;
}

/* disk_close(file) */
int asio_http_l_disk_close(lua_State *L)
{
    struct http_disk *d = disk_check(L, 1);
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
    return 0;
}

void asio_http_disk_open(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&disk_magic);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, asio_http_l_disk_close);
    lua_setfield(L, -2, "__gc");
    lua_rawset(L, LUA_REGISTRYINDEX);
}

#else

int asio_http_l_disk_open(lua_State *L)
{
    return asio_http_core->error->push(L, UV_ENOTSUP);
}

int asio_http_l_disk_stat(lua_State *L)
{
    return asio_http_core->error->push(L, UV_ENOTSUP);
}

int asio_http_l_disk_read(lua_State *L)
{
    return asio_http_core->error->push(L, UV_ENOTSUP);
}

int asio_http_l_disk_send(lua_State *L)
{
    return asio_http_core->error->push(L, UV_ENOTSUP);
}

int asio_http_l_disk_close(lua_State *L)
{
    (void)L;
    return 0;
}

void asio_http_disk_open(lua_State *L)
{
    (void)L;
}

#endif
