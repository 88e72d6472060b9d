/* SPDX-License-Identifier: MIT
 *
 * Decoding of gzip and deflate (RFC 9110, 8.4.1) with zlib, a piece at a time: a few bytes may become a thousand times
 * as many, so that the caller gets at most INFLATE_PIECE of them in one call. Without zlib there is no decoder. */
#include "base/error.h"
#include "plugins/http/http.h"

#ifdef ASIO_HTTP_ZLIB

#include <string.h>
#include <zlib.h>

enum { INFLATE_PIECE = 32768 };

/* Lifetime: a userdata; owns zlib's memory from the first byte until it is collected or its stream is over. */
struct http_inflate {
    const void *magic;
    z_stream z;
    bool gzip, begun, over, failed;
};

static const char inflate_magic = 0; /* its address: also the registry's key of the metatable */

static struct http_inflate *inflate_check(lua_State *L)
{
    struct http_inflate *f = lua_touserdata(L, 1);
    if (!f || lua_objlen(L, 1) != sizeof *f || f->magic != &inflate_magic)
        asio_http_core->error->misuse(L, "not a decoder of HTTP");
    return f;
}

static void *inflate_alloc(void *opaque, unsigned n, unsigned size)
{
    (void)opaque;
    return asio_http_core->mem->allocator->malloc((size_t)n * size);
}

static void inflate_free(void *opaque, void *p)
{
    (void)opaque;
    asio_http_core->mem->allocator->free(p);
}

static int l_inflate_gc(lua_State *L)
{
    struct http_inflate *f = inflate_check(L);
    if (f->begun)
        inflateEnd(&f->z);
    f->begun = false;
    f->failed = true;
    return 0;
}

/* http.inflater(gzip) -> a decoder: of gzip, or of what "deflate" means */
int asio_http_l_inflater(lua_State *L)
{
    bool gzip = lua_toboolean(L, 1);
    struct http_inflate *f = lua_newuserdata(L, sizeof *f);
    memset(f, 0, sizeof *f);
    f->magic = &inflate_magic;
    f->gzip = gzip;
    lua_pushlightuserdata(L, (void *)&inflate_magic);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    return 1;
}

/* "deflate" is the format of zlib; some servers send what is inside it alone. The first byte tells. */
static int inflate_begin(struct http_inflate *f, unsigned char first)
{
    int bits = f->gzip ? MAX_WBITS + 16 : (first & 15) == 8 && first >> 4 <= 7 ? MAX_WBITS : -MAX_WBITS;
    f->z.zalloc = inflate_alloc;
    f->z.zfree = inflate_free;
    int result = inflateInit2(&f->z, bits);
    f->begun = result == Z_OK;
    return result;
}

/* One step; several streams may follow one another in gzip (RFC 1952, 2.2). */
static int inflate_step(struct http_inflate *f)
{
    int result = Z_OK;
    if (!f->begun)
        result = inflate_begin(f, *f->z.next_in);
    if (result == Z_OK && f->over)
        result = f->gzip ? inflateReset(&f->z) : Z_DATA_ERROR;
    f->over = false;
    while (result == Z_OK) {
        result = inflate(&f->z, Z_NO_FLUSH);
        if (f->z.avail_in == 0 || f->z.avail_out == 0)
            break;
    }
    f->over = result == Z_STREAM_END;
    return result == Z_BUF_ERROR || result == Z_STREAM_END ? Z_OK : result;
}

/* http.inflate(decoder, data, at) -> bytes, where to go on in data, or nil if all of it is used up */
int asio_http_l_inflate(lua_State *L)
{
    struct http_inflate *f = inflate_check(L);
    size_t n, at = (size_t)lua_tonumber(L, 3) - 1;
    const char *data = luaL_checklstring(L, 2, &n);
    unsigned char out[INFLATE_PIECE];
    if (f->failed || at > n || (at == n && (!f->begun || f->over)))
        return asio_http_core->error->push(L, UV_EPROTO);
    f->z.next_in = (Bytef *)(uintptr_t)(data + at);
    f->z.avail_in = (uInt)(n - at);
    f->z.next_out = out;
    f->z.avail_out = INFLATE_PIECE;
    int result = inflate_step(f);
    f->failed = result != Z_OK;
    if (f->failed)
        return asio_http_core->error->push_text(
            L, result == Z_MEM_ERROR ? UV_ENOMEM : UV_EPROTO, "the compressed body is damaged");
    lua_pushlstring(L, (char *)out, INFLATE_PIECE - f->z.avail_out);
    /* Behind a full piece there may be more that zlib keeps: it is asked once more, without input. */
    if (f->z.avail_in == 0 && (f->z.avail_out > 0 || f->over))
        return 1;
    lua_pushnumber(L, (lua_Number)(n - f->z.avail_in + 1));
    return 2;
}

/* http.inflated(decoder) -> whether all that began has ended */
int asio_http_l_inflated(lua_State *L)
{
    struct http_inflate *f = inflate_check(L);
    lua_pushboolean(L, f->over || !f->begun);
    return 1;
}

void asio_http_inflate_open(lua_State *L, struct asio_rt *rt)
{
    lua_pushlightuserdata(L, (void *)&inflate_magic);
    lua_createtable(L, 0, 1);
    lua_pushlightuserdata(L, rt);
    lua_pushcclosure(L, l_inflate_gc, 1);
    lua_setfield(L, -2, "__gc");
    lua_rawset(L, LUA_REGISTRYINDEX);
}

#else

int asio_http_l_inflater(lua_State *L)
{
    (void)L;
    return 0;
}

int asio_http_l_inflate(lua_State *L)
{
    return asio_http_core->error->push(L, UV_ENOTSUP);
}

int asio_http_l_inflated(lua_State *L)
{
    (void)L;
    return 0;
}

void asio_http_inflate_open(lua_State *L, struct asio_rt *rt)
{
    (void)L;
    (void)rt;
}

#endif
