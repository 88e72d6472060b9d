/* SPDX-License-Identifier: MIT
 *
 * Short cuts for what compiled Lua code does most: reading what is buffered, queueing a string that is to be sent when
 * the light thread parks. lua/asio/quick.lua calls these functions through the FFI, which the JIT compiles to a plain
 * call; a function of the C API ends a trace (measured: 30 ns a call). None of them touches the Lua state, none waits;
 * where anything is unusual they do nothing, say so, and the call goes on to the function of the C API.
 *
 * Bytes to be read go through a buffer of the runtime's own, in three steps: a copy into the buffer, a string made of
 * it by Lua, and only then they are taken from the stream. A hook, a finalizer or an error may come between the steps:
 * the string's making loses nothing, and what has changed meanwhile is found by the third step. */
#include "core/bind.h"
#include "stream/conn.h"
#include "stream/read.h"
#include "stream/write.h"

#include <string.h>

enum { QUICK_MAX = 1024 }; /* longer ones gain little */

/* Lifetime: made with the part, freed with it. */
struct quick {
    char bytes[QUICK_MAX];            /* first: its address is the struct's, which quick.lua knows */
    const struct asio_stream *stream; /* whose bytes they are; compared, not followed */
    const char *at;                   /* where they lie in the stream's buffer */
    uint64_t turn;
    size_t n, drop; /* bytes of the string, bytes to be taken */
    bool busy;      /* between the first step and the third */
};

/* The open stream of a userdata that has a connection's metatable; NULL. The debug library can give that to another
 * userdata, or to a light one, of which NULL is the usual. */
static inline struct asio_stream *quick_stream(void *p)
{
    struct asio_conn *c = p;
    struct asio_stream *s = c && c->magic == &asio_conn_magic ? c->stream : NULL;
    return s && s->rt->forks == asio_sys_forks ? s : NULL;
}

/* NULL: the C API's function has to see to it. */
static inline struct quick *quick_may_read(const struct asio_stream *s)
{
    const struct asio_rt *rt = s->rt;
    struct quick *q = asio_rt_part(rt, ASIO_PART_QUICK);
    if (!q || rt->self->cancelled || rt->self->scope || asio_stream_is_read(s))
        return NULL;
    if (q->busy && q->turn == rt->turns) /* an older one was given up by an error */
        return NULL;
    return q;
}

static inline int quick_offer(struct quick *q, const struct asio_stream *s, size_t n, size_t drop)
{
    q->stream = s;
    q->at = asio_inbuf_bytes(&s->in);
    q->turn = s->rt->turns;
    q->n = n;
    q->drop = drop;
    q->busy = true;
    memcpy(q->bytes, q->at, n);
    return (int)n;
}

/* The first step of read(size). How many bytes are in the buffer; -1: none. */
static int quick_read(void *conn, double size)
{
    struct asio_stream *s = quick_stream(conn);
    if (!s || !(size >= 1 && size <= QUICK_MAX))
        return -1;
    size_t n = (size_t)size;
    struct quick *q = quick_may_read(s);
    if (!q || (double)n != size || asio_inbuf_length(&s->in) < n)
        return -1;
    return quick_offer(q, s, n, n);
}

/* The first step of read_line(). */
static int quick_read_line(void *conn)
{
    struct asio_stream *s = quick_stream(conn);
    size_t there = s ? asio_inbuf_length(&s->in) : 0;
    struct quick *q = there > 0 ? quick_may_read(s) : NULL;
    if (!q)
        return -1;
    const char *bytes = asio_inbuf_bytes(&s->in);
    const char *newline = memchr(bytes, '\n', there < QUICK_MAX ? there : QUICK_MAX);
    if (!newline)
        return -1;
    size_t n = (size_t)(newline - bytes);
    return quick_offer(q, s, n - (n > 0 && newline[-1] == '\r'), n + 1);
}

/* The third step, after a first one that gave n. 0: the bytes are the caller's; -1: something else has
 * read them, or has closed the connection. */
static int quick_take(void *conn, int n)
{
    struct asio_stream *s = quick_stream(conn);
    struct quick *q = s ? asio_rt_part(s->rt, ASIO_PART_QUICK) : NULL;
    if (!q || !q->busy)
        return -1;
    q->busy = false;
    if (q->stream != s || q->n != (size_t)n || asio_inbuf_bytes(&s->in) != q->at ||
        asio_inbuf_length(&s->in) < q->drop || asio_stream_is_read(s))
        return -1;
    asio_inbuf_skip(&s->in, &s->rt->blocks, q->drop);
    return 0;
}

/* Bytes are to be queued, and sent when the light thread parks: they stay fewer than what is sent at once. */
static inline bool quick_may_write(const struct asio_stream *s, size_t n)
{
    return s->rt->depth > 0 && s->write_status == 0 && !s->shut && !s->tap && n < ASIO_COALESCE &&
        s->out.length + n < ASIO_COALESCE;
}

/* write(string): 1 if it is queued. */
static int quick_write(void *conn, const char *bytes, double size)
{
    struct asio_stream *s = quick_stream(conn);
    size_t n = (size_t)size; /* a string's length */
    if (!s || n == 0 || !quick_may_write(s, n))
        return 0;
    if (!asio_outbuf_fit(&s->out, bytes, n) && asio_outbuf_copy(&s->out, &s->rt->out_env, bytes, n) < 0)
        return 0;
    s->queued += n;
    asio_rt_flush_later(s->rt, &s->flush);
    return 1;
}

/* write(string, string): 1 if both are queued. */
static int quick_write_two(void *conn, const char *a, double a_size, const char *b, double b_size)
{
    struct asio_stream *s = quick_stream(conn);
    size_t n = (size_t)a_size, m = (size_t)b_size;
    if (!s || !s->flush.next || !quick_may_write(s, n + m) || !asio_outbuf_fit_two(&s->out, a, n, b, m))
        return 0;
    s->queued += n + m;
    return 1;
}

/* core.quick_failed(conn): what a read returns whose third step has failed. */
static int quick_failed(lua_State *L)
{
    struct asio_conn *c = asio_conn_check(L, "read");
    return asio_push_fail(L, c->stream ? UV_EBUSY : UV_ECANCELED);
}

static void quick_set(lua_State *L, const char *name, void *p)
{
    lua_pushlightuserdata(L, p);
    lua_setfield(L, -2, name);
}

/* core.quick: addresses, for quick.lua alone. */
static void quick_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "quick_failed", quick_failed }, { NULL, NULL } };
    struct quick *q = asio_rt_part(rt, ASIO_PART_QUICK);
    if (!q)
        q = asio_mem.malloc(sizeof *q);
    if (!q)
        luaL_error(L, "not enough memory");
    memset(q, 0, sizeof *q);
    asio_rt_part_set(rt, ASIO_PART_QUICK, q);
    lua_createtable(L, 0, 7);
    quick_set(L, "buffer", q);
    quick_set(L, "read", (void *)(uintptr_t)quick_read);
    quick_set(L, "read_line", (void *)(uintptr_t)quick_read_line);
    quick_set(L, "take", (void *)(uintptr_t)quick_take);
    quick_set(L, "write", (void *)(uintptr_t)quick_write);
    quick_set(L, "write_two", (void *)(uintptr_t)quick_write_two);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_CONN_MT]);
    lua_setfield(L, -2, "metatable");
    lua_setfield(L, ASIO_BIND_CORE, "quick");
    asio_bind_functions(L, rt, "core", core);
}

static void quick_part_close(struct asio_rt *rt)
{
    asio_mem.free(asio_rt_part(rt, ASIO_PART_QUICK));
    asio_rt_part_set(rt, ASIO_PART_QUICK, NULL);
}

const struct asio_part asio_part_quick = { "quick", quick_part_open, quick_part_close };
