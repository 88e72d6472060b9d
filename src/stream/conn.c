/* SPDX-License-Identifier: MIT
 * The methods of a connection: argument checks, then the stream. */
#include "stream/conn.h"

#include "base/error.h"
#include "core/address.h"
#include "core/bind.h"
#include "core/park.h"
#include "stream/lifecycle.h"
#include "stream/read.h"
#include "stream/write.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char asio_conn_magic = 0;

struct asio_conn *asio_conn_push(lua_State *L, struct asio_rt *rt)
{
    struct asio_conn *c = lua_newuserdata(L, sizeof *c);
    c->magic = &asio_conn_magic;
    c->stream = NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CONN_MT]);
    lua_setmetatable(L, -2);
    return c;
}

/* Comparing metatables was measured at a third of the cost of a read from the buffer; a mark in the
 * userdata takes two calls. (A light userdata has no length.) */
static inline struct asio_conn *to_conn(lua_State *L, int index)
{
    struct asio_conn *c = lua_touserdata(L, index);
    if (!c || lua_objlen(L, index) != sizeof *c || c->magic != &asio_conn_magic)
        return NULL;
    if (c->stream)
        asio_rt_notice_fork(c->stream->rt);
    return c;
}

static struct asio_conn *check_conn(lua_State *L, const char *fname)
{
    struct asio_conn *c = to_conn(L, 1);
    if (!c)
        asio_error_misuse(L, "calling '%s' on something that is not a connection", fname);
    return c;
}

struct asio_conn *asio_conn_to(lua_State *L, int index)
{
    return to_conn(L, index);
}

struct asio_stream *asio_conn_stream_at(lua_State *L, int index)
{
    struct asio_conn *conn = asio_conn_to(L, index);
    return conn ? conn->stream : NULL;
}

struct asio_conn *asio_conn_check(lua_State *L, const char *fname)
{
    return check_conn(L, fname);
}

/* ---- reading ------------------------------------------------------------------------------ */

/* Lua numbers hold whole numbers exactly up to 2^53; more cannot be meant. */
static const double size_max = 9007199254740991.0;

static size_t to_size(double n)
{
    return n < (double)(SIZE_MAX / 2) ? (size_t)n : SIZE_MAX / 2;
}

static inline bool may_wait(const struct asio_stream *s)
{
    return s && !asio_sched_interrupted(s->rt);
}

/* Why not. */
static int not_now(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    return asio_sched_interrupted(rt) ? asio_push_interrupt(L, rt) : asio_push_fail(L, UV_EBADF);
}

static int read_now(lua_State *L, struct asio_stream *s, size_t need, size_t max)
{
    return may_wait(s) ? asio_stream_read(L, s, need, max) : not_now(L);
}

static int l_read(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "read")->stream;
    size_t n = to_size(asio_check_integer(L, 2, 1, "read", 0, size_max));
    return read_now(L, s, n, n);
}

static int l_read_some(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "read_some")->stream;
    size_t max = SIZE_MAX;
    if (!lua_isnoneornil(L, 2))
        max = to_size(asio_check_integer(L, 2, 1, "read_some", 1, size_max));
    return read_now(L, s, 1, max);
}

static int l_peek(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "peek")->stream;
    size_t n = to_size(asio_check_integer(L, 2, 1, "peek", 0, size_max));
    return may_wait(s) ? asio_stream_peek(L, s, n) : not_now(L);
}

/* The most that may come before what a read looks for: by default 1 MiB, inf for no limit. */
static size_t check_max(lua_State *L, int index, int arg, const char *fname)
{
    enum { DEFAULT_MAX = 1024 * 1024 };
    if (lua_isnoneornil(L, index))
        return DEFAULT_MAX;
    if (lua_tonumber(L, index) == HUGE_VAL)
        return SIZE_MAX / 2;
    return to_size(asio_check_integer(L, index, arg, fname, 1, size_max));
}

static int l_read_line(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "read_line")->stream;
    size_t max = check_max(L, 2, 1, "read_line");
    return may_wait(s) ? asio_stream_read_line(L, s, max) : not_now(L);
}

/* core.check_lines(self, max): lines blames the line that calls it, not the loop. */
static int l_check_lines(lua_State *L)
{
    check_conn(L, "lines");
    check_max(L, 2, 1, "lines");
    return 0;
}

static int l_read_all(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "read_all")->stream;
    size_t max = check_max(L, 2, 1, "read_all");
    return may_wait(s) ? asio_stream_read_all(L, s, max) : not_now(L);
}

static int l_read_until(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "read_until")->stream;
    size_t n;
    if (lua_type(L, 2) != LUA_TSTRING)
        asio_error_type(L, 2, 1, "read_until", "string");
    const char *delim = lua_tolstring(L, 2, &n);
    if (n == 0)
        asio_error_arg(L, 1, "read_until", "delimiter must not be empty");
    size_t max = check_max(L, 3, 2, "read_until");
    return may_wait(s) ? asio_stream_read_until(L, s, delim, n, max) : not_now(L);
}

/* ---- writing ------------------------------------------------------------------------------ */

enum { NESTING_MAX = 50 };

/* Pushes the metatable of LuaJIT's string.buffer, kept once a script has loaded that. */
static bool push_buffer_metatable(lua_State *L, struct asio_rt *rt)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_BUFFER_MT]);
    if (lua_istable(L, -1))
        return true;
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(L, -1, "string.buffer");
    if (!lua_istable(L, -1))
        return false;
    lua_getfield(L, -1, "new");
    lua_call(L, 0, 1);
    if (!lua_getmetatable(L, -1))
        return false;
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_BUFFER_MT]);
    return true;
}

static bool is_string_buffer(lua_State *L, int index)
{
    struct asio_rt *rt = asio_rt_of(L);
    int top = lua_gettop(L);
    bool same = false;
    if (lua_type(L, index) != LUA_TUSERDATA)
        return false;
    luaL_checkstack(L, 8, "tables nested too deep");
    if (lua_getmetatable(L, index) && push_buffer_metatable(L, rt))
        same = lua_rawequal(L, -1, top + 1);
    lua_settop(L, top);
    return same;
}

/* Everything is looked at before anything is queued: a bad value leaves the connection as it was. */
static void check_data(lua_State *L, int index, int arg, int nesting)
{
    int type = lua_type(L, index);
    if (type == LUA_TSTRING || type == LUA_TNUMBER || is_string_buffer(L, index))
        return;
    if (type != LUA_TTABLE)
        asio_error_type(
            L, index, arg, "write", nesting ? "table of strings" : "string, number, table or string.buffer");
    if (nesting >= NESTING_MAX)
        asio_error_arg(L, arg, "write", "tables nested too deep");
    luaL_checkstack(L, 4, "tables nested too deep");
    int n = (int)lua_objlen(L, index);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, index, i);
        check_data(L, lua_gettop(L), arg, nesting + 1);
        lua_pop(L, 1);
    }
}

/* Making a string may run a finalizer, which may put anything into a table that was looked at before: it is looked at
 * again. Other parts of the same write may be out: nothing can follow. */
static int fail_data(struct asio_conn *c)
{
    if (!c->stream)
        return UV_ECANCELED;
    asio_stream_write_fail(c->stream, UV_EINVAL);
    return UV_EINVAL;
}

static int queue_data(lua_State *L, struct asio_conn *c, int index, int nesting);

static int queue_table(lua_State *L, struct asio_conn *c, int index, int nesting)
{
    int status = 0, n = (int)lua_objlen(L, index);
    if (nesting >= NESTING_MAX || !lua_checkstack(L, 6))
        return fail_data(c);
    for (int i = 1; i <= n && status == 0; i++) {
        lua_rawgeti(L, index, i);
        status = queue_data(L, c, lua_gettop(L), nesting + 1);
        lua_pop(L, 1);
    }
    return status;
}

static int queue_data(lua_State *L, struct asio_conn *c, int index, int nesting)
{
    int type = lua_type(L, index);
    if (type == LUA_TTABLE)
        return queue_table(L, c, index, nesting);
    if (type == LUA_TUSERDATA && is_string_buffer(L, index))
        luaL_callmeta(L, index, "__tostring"); /* a copy: the buffer is not consumed */
    else
        lua_pushvalue(L, index); /* a number in a table must stay one */
    size_t n;
    const char *bytes = lua_tolstring(L, -1, &n);
    int status = !bytes ? fail_data(c)
        : !c->stream    ? UV_ECANCELED /* a finalizer has closed it */
                        : asio_stream_queue(L, c->stream, lua_gettop(L), bytes, n);
    lua_pop(L, 1);
    return status;
}

/* Everything but a single string. */
static void queue_all(lua_State *L, struct asio_conn *c)
{
    int status = 0, top = lua_gettop(L);
    if (top < 2)
        asio_error_type(L, 2, 1, "write", "string");
    for (int i = 2; i <= top; i++)
        check_data(L, i, i - 1, 0);
    for (int i = 2; i <= top && status == 0 && c->stream && c->stream->write_status == 0; i++)
        status = queue_data(L, c, i, 0);
}

static inline int queue_string(lua_State *L, struct asio_stream *s, int index, const char *bytes, size_t n)
{
    if (!asio_outbuf_fit(&s->out, bytes, n))
        return asio_stream_queue(L, s, index, bytes, n);
    s->queued += n;
    return 0;
}

/* Several strings, a line and its end for instance: without the steps that tables need. */
static bool queue_strings(lua_State *L, struct asio_stream *s, int top)
{
    int status = 0;
    for (int i = 2; i <= top; i++)
        if (lua_type(L, i) != LUA_TSTRING)
            return false;
    for (int i = 2; i <= top && status == 0 && !s->closing; i++) {
        size_t n;
        const char *bytes = lua_tolstring(L, i, &n);
        status = queue_string(L, s, i, bytes, n);
    }
    return top > 2;
}

static int l_write(lua_State *L)
{
    struct asio_conn *c = check_conn(L, "write");
    struct asio_stream *s = c->stream;
    size_t n;
    if (s && s->out.length > ASIO_HIGH_WATER)
        asio_park_claim(L, s->rt); /* it will have to wait: raise before anything is queued */
    int top = lua_gettop(L);
    bool open = s && s->write_status == 0 && !s->shut && !s->tap;
    const char *bytes = top == 2 ? lua_tolstring(L, 2, &n) : NULL;
    if (!bytes && !(open && queue_strings(L, s, top)))
        queue_all(L, c);
    else if (bytes && open)
        queue_string(L, s, 2, bytes, n);
    return s ? asio_stream_write_end(L, s) : asio_push_fail(L, UV_EBADF);
}

static int l_conn_flush(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "flush")->stream;
    return may_wait(s) ? asio_stream_flush_wait(L, s) : not_now(L);
}

/* ---- the rest, which never waits ---------------------------------------------------------- */

static int l_conn_close(lua_State *L)
{
    struct asio_conn *c = check_conn(L, "close");
    if (c->stream)
        asio_stream_close(c->stream, false);
    return 0;
}

static int l_abort(lua_State *L)
{
    struct asio_conn *c = check_conn(L, "abort");
    if (c->stream)
        asio_stream_abort(c->stream);
    return 0;
}

static int l_conn_shutdown(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "shutdown")->stream;
    int status = s && s->tap ? UV_EBUSY : s ? asio_stream_shutdown(s) : UV_EBADF;
    if (status < 0)
        return asio_error_push(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

/* A finalizer: must not raise, nor touch anything after the runtime has gone (the stream is then no longer
 * attached). */
static int l_conn_gc(lua_State *L)
{
    struct asio_conn *c = to_conn(L, 1);
    if (c && c->stream)
        asio_stream_close(c->stream, true);
    return 0;
}

static int l_conn_set_timeout(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "set_timeout")->stream;
    double read = asio_check_timeout(L, 2, 1, "set_timeout");
    double write = lua_gettop(L) < 3 ? read : asio_check_timeout(L, 3, 2, "set_timeout");
    if (!s)
        return asio_error_push(L, UV_EBADF);
    s->read_timeout = read;
    s->write_timeout = write;
    lua_pushboolean(L, 1);
    return 1;
}

/* Its names are paths, and not internet addresses. */
static bool has_path(const struct asio_stream *s)
{
    return s->alias ? s->alias->path_of != NULL : s->transport->path_of != NULL;
}

static int conn_name_of(struct asio_stream *s, struct sockaddr_storage *addr, bool peer)
{
    return s->alias ? s->alias->name_of(s->alias, addr, peer) : s->transport->name_of(s, addr, peer);
}

static int conn_path_of(struct asio_stream *s, char *path, size_t *n, bool peer)
{
    return s->alias ? s->alias->path_of(s->alias, path, n, peer) : s->transport->path_of(s, path, n, peer);
}

/* The name of a Unix socket or pipe, in the form in which scripts give it. */
static int push_path(lua_State *L, struct asio_stream *s, bool peer)
{
    char path[ASIO_SYS_PATH_MAX];
    size_t n = sizeof path;
    int status = conn_path_of(s, path, &n, peer);
    if (status < 0)
        return asio_error_push(L, status);
    asio_address_push_path(L, path, n);
    return 1;
}

static int conn_push_name(lua_State *L, const char *fname, bool peer)
{
    struct asio_stream *s = check_conn(L, fname)->stream;
    struct sockaddr_storage addr;
    if (s && has_path(s))
        return push_path(L, s, peer);
    int status = s ? conn_name_of(s, &addr, peer) : UV_EBADF;
    return status < 0 ? asio_error_push(L, status) : asio_address_push(L, &addr);
}

static int l_conn_peer(lua_State *L)
{
    return conn_push_name(L, "peer", true);
}

static int l_conn_address(lua_State *L)
{
    return conn_push_name(L, "address", false);
}

static int l_conn_fd(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "fd")->stream;
    uv_os_fd_t fd;
    int status = s ? s->transport->fd(s, &fd) : UV_EBADF;
    if (status < 0)
        return asio_error_push(L, status);
    lua_pushnumber(L, (double)(intptr_t)fd);
    return 1;
}

/* Bytes received and not yet read, bytes written and not yet taken by the kernel. */
static int l_conn_pending(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "pending")->stream;
    if (!s)
        return asio_error_push(L, UV_EBADF);
    lua_pushnumber(L, (double)asio_inbuf_length(&s->in));
    lua_pushnumber(L, (double)s->out.length);
    return 2;
}

static int l_original_dst(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "get_original_dst")->stream;
    struct sockaddr_storage addr;
    memset(&addr, 0, sizeof addr);
    uv_os_fd_t fd;
    int status = s ? s->transport->fd(s, &fd) : UV_EBADF;
    if (status == 0)
        status = asio_sys_original_dst(fd, &addr);
    if (status < 0)
        return asio_error_push(L, status);
    lua_pushlstring(L, (const char *)&addr, sizeof addr);
    return 1;
}

/* Of the two ends of a Unix connection mostly one has a name. */
static bool push_named(lua_State *L, struct asio_stream *s)
{
    return (push_path(L, s, true) == 1 && lua_objlen(L, -1) > strlen("unix:")) ||
        (push_path(L, s, false) == 1 && lua_objlen(L, -1) > strlen("unix:"));
}

static const char *conn_kind(const struct asio_stream *s)
{
    return s->transport->kind ? s->transport->kind(s) : s->transport->name;
}

static int l_conn_tostring(lua_State *L)
{
    struct asio_stream *s = check_conn(L, "tostring")->stream; /* finalizers may close it on the way */
    struct sockaddr_storage addr;
    char text[ASIO_ADDRESS_MAX];
    if (!s)
        lua_pushliteral(L, "connection (closed)");
    else if (has_path(s) && push_named(L, s))
        lua_pushfstring(L, "connection (%s)", lua_tostring(L, -1));
    else if (conn_name_of(s, &addr, true) < 0 || asio_address_format(&addr, text) < 0)
        lua_pushfstring(L, "connection (%s)", conn_kind(s));
    else
        lua_pushfstring(L, "connection (%s %s)", conn_kind(s), text);
    return 1;
}

static void conn_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "read", l_read }, { "read_some", l_read_some },
        { "read_until", l_read_until }, { "read_line", l_read_line }, { "read_all", l_read_all },
        { "check_lines", l_check_lines }, { "peek", l_peek }, { "write", l_write }, { "flush", l_conn_flush },
        { NULL, NULL } };
    static const luaL_Reg methods[] = { { "close", l_conn_close }, { "shutdown", l_conn_shutdown },
        { "abort", l_abort }, { "set_timeout", l_conn_set_timeout }, { "peer", l_conn_peer },
        { "address", l_conn_address }, { "fd", l_conn_fd }, { "pending", l_conn_pending },
        { "get_original_dst", l_original_dst }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_conn_gc }, { "__tostring", l_conn_tostring },
        { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_class(L, rt, "conn", methods, meta, rt->refs[ASIO_REF_CONN_MT]);
}

const struct asio_part asio_part_conn = { "conn", conn_part_open, NULL };
