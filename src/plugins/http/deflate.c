/* SPDX-License-Identifier: MIT
 * Compression of what is sent: gzip (RFC 1952) by zlib. */
#include "plugins/http/http.h"

#ifdef ASIO_HTTP_ZLIB
#include <string.h>
#include <zlib.h>

/* Lifetime: a userdata; owns what zlib has allocated (256 KB), until the stream has ended or is collected. */
struct http_deflate {
    const void *magic;
    bool open;
    z_stream z;
};

static const char deflate_magic = 0; /* its address: also the registry's key of the metatable */

static voidpf deflate_alloc(voidpf opaque, uInt items, uInt size)
{
    (void)opaque;
    return asio_http_core->mem->allocator->malloc((size_t)items * size);
}

static void deflate_free(voidpf opaque, voidpf p)
{
    (void)opaque;
    asio_http_core->mem->allocator->free(p);
}

static void deflate_close(struct http_deflate *d)
{
    if (d->open)
        deflateEnd(&d->z);
    d->open = false;
}

static struct http_deflate *deflate_check(lua_State *L)
{
    struct http_deflate *d = lua_touserdata(L, 1);
    if (!d || lua_objlen(L, 1) != sizeof *d || d->magic != &deflate_magic)
        asio_http_core->error->misuse(L, "a compressor expected");
    return d;
}

static int l_deflate_gc(lua_State *L)
{
    deflate_close(deflate_check(L));
    return 0;
}

/* deflate(level) -> compressor; nil, message, code */
int asio_http_l_deflate(lua_State *L)
{
    enum { GZIP = 16, MEMORY = 8 };
    struct http_deflate *d = lua_newuserdata(L, sizeof *d);
    memset(d, 0, sizeof *d);
    d->magic = &deflate_magic;
    d->z.zalloc = deflate_alloc;
    d->z.zfree = deflate_free;
    lua_pushlightuserdata(L, (void *)&deflate_magic);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    int status = deflateInit2(
        &d->z, (int)lua_tointeger(L, 1), Z_DEFLATED, MAX_WBITS + GZIP, MEMORY, Z_DEFAULT_STRATEGY);
    d->open = status == Z_OK;
    return d->open ? 1 : asio_http_core->error->push(L, UV_ENOMEM);
}

/* deflate_add(compressor, data, how) -> what has come out. how: 0, it may be kept; 1, all that was added can be read
 * from what has come out; 2, this was the end. */
int asio_http_l_deflate_add(lua_State *L)
{
    static const int modes[] = { Z_NO_FLUSH, Z_SYNC_FLUSH, Z_FINISH };
    struct http_deflate *d = deflate_check(L);
    size_t n;
    const char *data = luaL_checklstring(L, 2, &n);
    int mode = modes[lua_tointeger(L, 3) % 3];
    luaL_Buffer out;
    if (!d->open || n > UINT32_MAX)
        return asio_http_core->error->push(L, UV_EINVAL);
    d->z.next_in = (Bytef *)(uintptr_t)data;
    d->z.avail_in = (uInt)n;
    luaL_buffinit(L, &out);
    do { /* until it leaves room: then there is no more */
        d->z.next_out = (Bytef *)luaL_prepbuffer(&out);
        d->z.avail_out = LUAL_BUFFERSIZE;
        deflate(&d->z, mode);
        luaL_addsize(&out, LUAL_BUFFERSIZE - d->z.avail_out);
    } while (d->z.avail_out == 0);
    if (mode == Z_FINISH)
        deflate_close(d);
    luaL_pushresult(&out);
    return 1;
}

void asio_http_deflate_open(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&deflate_magic);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_deflate_gc);
    lua_setfield(L, -2, "__gc");
    lua_rawset(L, LUA_REGISTRYINDEX);
}

#else

int asio_http_l_deflate(lua_State *L)
{
    return asio_http_core->error->push_text(L, UV_ENOTSUP, "asio/http was built without zlib");
}

int asio_http_l_deflate_add(lua_State *L)
{
    return asio_http_l_deflate(L);
}

void asio_http_deflate_open(lua_State *L)
{
    (void)L;
}

#endif
