/* SPDX-License-Identifier: MIT
 *
 * Files for responses. A path from outside is opened beneath a root. Symbolic links are followed as long as they stay
 * there, where the system checks that itself; elsewhere it is opened component by component, and none of them may be a
 * link. Reading a file does not wait as a socket does: the loop stands still while the disk is read. */
#include "plugins/http/system.h"

#include <lualib.h>
#include <string.h>

/* Lifetime: a userdata; owns the file, until disk_close or its collection. */
struct http_disk {
    const void *magic;
    http_file file; /* -1: closed */
};

static const char disk_magic = 0; /* its address: also the registry's key of the metatable */

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

/* Takes what is in *file, the root. */
static int disk_open_walking(const char *path, http_file *file)
{
    char name[256];
    int status = 0;
    while (status == 0 && *path && disk_component(&path, name)) {
        http_file parent = *file;
        status = asio_http_system_child(parent, name, *path == 0, file);
        asio_http_system_close(parent);
    }
    return status;
}

static int disk_open_beneath(const char *root, const char *path, http_file *file)
{
    http_file at;
    if (!disk_is_plain(path))
        return UV_ENOENT;
    int status = asio_http_system_root(root, file);
    if (status < 0 || *path == 0)
        return status;
    at = *file;
    status = asio_http_system_resolve(at, path, file);
    if (status == UV_ENOSYS) {
        *file = at;
        return disk_open_walking(path, file);
    }
    asio_http_system_close(at);
    return status;
}

/* kind, size, seconds and nanoseconds of the last change */
static int disk_push_status(lua_State *L, const struct http_file_status *s)
{
    lua_pushstring(L, s->kind);
    lua_pushnumber(L, s->size);
    lua_pushnumber(L, s->seconds);
    lua_pushnumber(L, s->nanoseconds);
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
    struct http_file_status s;
    if (memchr(path, 0, n))
        return asio_http_core->error->push(L, UV_ENOENT);
    struct http_disk *d = lua_newuserdata(L, sizeof *d);
    *d = (struct http_disk){ &disk_magic, -1 };
    lua_pushlightuserdata(L, (void *)&disk_magic);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    http_file file;
    int status = root ? disk_open_beneath(root, path, &file) : asio_http_system_open(path, &file);
    if (status == 0) {
        d->file = file;
        status = asio_http_system_status(file, &s);
    }
    if (status < 0)
        return asio_http_core->error->push(L, status);
    return 1 + disk_push_status(L, &s);
}

/* disk_stat(file) -> kind, size, seconds, nanoseconds; nil, message, code */
int asio_http_l_disk_stat(lua_State *L)
{
    struct http_file_status s;
    int status = asio_http_system_status(disk_check(L, 1)->file, &s);
    if (status < 0)
        return asio_http_core->error->push(L, status);
    return disk_push_status(L, &s);
}

/* disk_read(file, offset, n) -> at most n bytes, '': there are none; nil, message, code */
int asio_http_l_disk_read(lua_State *L)
{
    enum { MOST = 65536 };
    char bytes[MOST];
    struct http_disk *d = disk_check(L, 1);
    lua_Number n = lua_tonumber(L, 3);
    ssize_t got =
        asio_http_system_read(d->file, bytes, n < MOST ? (size_t)n : MOST, (int64_t)lua_tonumber(L, 2));
    if (got < 0)
        return asio_http_core->error->push(L, (int)got);
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
    ssize_t sent = asio_http_core->stream->send_file(
        s, (int)d->file, (int64_t)lua_tonumber(L, 3), (size_t)lua_tonumber(L, 4));
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
    if (d->file != -1)
        asio_http_system_close(d->file);
    d->file = -1;
    return 0;
}

/* moved(file, path): whether a file of Lua's io library is no longer found by the path by which it was opened. False
 * for what else the script's io.open may return. */
int asio_http_l_moved(lua_State *L)
{
    FILE **file = luaL_testudata(L, 1, LUA_FILEHANDLE);
    lua_pushboolean(L, file && *file && asio_http_system_moved(*file, luaL_checkstring(L, 2)));
    return 1;
}

/* working_directory() -> its path, or nil: not known, or paths begin otherwise than with a slash */
int asio_http_l_working_directory(lua_State *L)
{
    char path[4096];
    if (!asio_http_system_directory(path, sizeof path))
        return 0;
    lua_pushstring(L, path);
    return 1;
}

/* random(n) -> n bytes, at most 64, or nil */
int asio_http_l_random(lua_State *L)
{
    char bytes[64];
    lua_Integer n = lua_tointeger(L, 1);
    if (n < 0 || n > (lua_Integer)sizeof bytes || !asio_http_system_random(bytes, (size_t)n))
        return 0;
    lua_pushlstring(L, bytes, (size_t)n);
    return 1;
}

void asio_http_disk_open(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&disk_magic);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, asio_http_l_disk_close);
    lua_setfield(L, -2, "__gc");
    lua_rawset(L, LUA_REGISTRYINDEX);
}
