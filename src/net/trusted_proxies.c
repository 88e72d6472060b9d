/* SPDX-License-Identifier: MIT
 * The proxies whose headers are believed; see trusted_proxies.h. */
#include "net/trusted_proxies.h"

#include "core/address.h"
#include "base/error.h"
#include "stream/stream.h"

#include <string.h>

static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static void trusted_proxies_map(const union asio_sockaddr *addr, unsigned char bytes[16])
{
    if (addr->any.sa_family == AF_INET) {
        memcpy(bytes, mapped, sizeof mapped);
        memcpy(bytes + sizeof mapped, &addr->v4.sin_addr, 4);
    } else {
        memcpy(bytes, &addr->v6.sin6_addr, 16);
    }
}

/* The whole of IPv6 does not have IPv4 in it. */
static bool contains(const struct asio_network *n, const unsigned char bytes[16])
{
    unsigned whole = n->prefix / 8, rest = n->prefix % 8;
    if (n->prefix > 128 || (n->prefix < 96 && memcmp(bytes, mapped, sizeof mapped) == 0))
        return false;
    return memcmp(bytes, n->bytes, whole) == 0 &&
        (rest == 0 || (bytes[whole] ^ n->bytes[whole]) >> (8 - rest) == 0);
}

bool asio_trusted_proxies_has(const struct asio_trusted_proxies *trust, struct asio_stream *s)
{
    struct sockaddr_storage addr;
    unsigned char bytes[16];
    bool internet = !s->transport->path_of;
    if (internet && s->transport->name_of(s, &addr, true) < 0)
        return false;
    if (internet)
        trusted_proxies_map((const union asio_sockaddr *)&addr, bytes);
    for (size_t i = 0; i < trust->count; i++)
        if (internet ? contains(&trust->networks[i], bytes) : trust->networks[i].prefix == ASIO_NETWORK_UNIX)
            return true;
    return false;
}

/* "address", "address/bits" or "unix" */
static bool read_network(const char *text, size_t n, struct asio_network *to)
{
    char ip[ASIO_IP_MAX];
    union asio_sockaddr addr;
    size_t length = strcspn(text, "/");
    if (n >= sizeof ip || memchr(text, '%', n))
        return false;
    to->prefix = ASIO_NETWORK_UNIX;
    if (n == 4 && memcmp(text, "unix", 4) == 0)
        return true;
    if (length > n)
        length = n;
    memcpy(ip, text, length);
    ip[length] = '\0';
    if (asio_address_read(ip, length, 0, &addr) < 0)
        return false;
    trusted_proxies_map(&addr, to->bytes);
    unsigned bits = addr.any.sa_family == AF_INET ? 32 : 128, prefix = length < n ? 0 : bits;
    if (length + 1 == n || n - length > 4)
        return false;
    for (size_t i = length + 1; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        prefix = prefix * 10 + (unsigned)(text[i] - '0');
    }
    to->prefix = (unsigned char)(prefix + 128 - bits);
    return prefix <= bits;
}

/* A list of the option being read. */
struct list {
    lua_State *L;
    int arg;
    const char *fname;
    struct asio_trusted_proxies *to;
    size_t count;
};

static void read_networks(struct list *l, const char *text)
{
    static const char separators[] = ", \t\r\n";
    struct asio_network network;
    if (!text)
        asio_error_arg(l->L, l->arg, l->fname, "option 'proxy_protocol': 'from' is a list of networks");
    for (text += strspn(text, separators); *text; text += strspn(text, separators)) {
        size_t n = strcspn(text, separators);
        if (!read_network(text, n, &network)) {
            lua_pushlstring(l->L, text, n);
            asio_error_arg(l->L, l->arg, l->fname, "option 'proxy_protocol': '%s' is not a network",
                lua_tostring(l->L, -1));
        }
        if (l->to && l->count < l->to->room)
            l->to->networks[l->to->count++] = network;
        l->count++;
        text += n;
    }
}

/* Strings alone: a number would be changed in the table. */
static const char *text_at(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : NULL;
}

static void read_from(struct list *l, int index)
{
    lua_State *L = l->L;
    if (!lua_istable(L, index)) {
        read_networks(l, text_at(L, index));
        return;
    }
    for (int i = 1; i <= (int)lua_objlen(L, index); i++) {
        lua_rawgeti(L, index, i);
        read_networks(l, text_at(L, -1));
        lua_pop(L, 1);
    }
}

size_t asio_trusted_proxies_read(
    lua_State *L, int index, int arg, const char *fname, struct asio_trusted_proxies *to)
{
    struct list l = { L, arg, fname, to, 0 };
    double timeout = 5;
    if (!lua_istable(L, index))
        asio_error_arg(L, arg, fname, "option 'proxy_protocol': { from = networks } expected, got %s",
            luaL_typename(L, index));
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        const char *name = text_at(L, -2);
        if (name && strcmp(name, "from") == 0)
            read_from(&l, lua_gettop(L));
        else if (name && strcmp(name, "timeout") == 0 && lua_type(L, -1) == LUA_TNUMBER &&
            lua_tonumber(L, -1) > 0)
            timeout = lua_tonumber(L, -1);
        else
            asio_error_arg(L, arg, fname, "option 'proxy_protocol' has 'from' and 'timeout' (seconds)");
    }
    if (l.count == 0)
        read_networks(&l, NULL);
    if (to)
        to->timeout = timeout;
    return l.count;
}

struct asio_trusted_proxies *asio_trusted_proxies_push(lua_State *L, int index, int arg, const char *fname)
{
    size_t n = asio_trusted_proxies_read(L, index, arg, fname, NULL);
    struct asio_trusted_proxies *trust = lua_newuserdata(L, sizeof *trust + n * sizeof *trust->networks);
    trust->count = 0;
    trust->room = n;
    asio_trusted_proxies_read(L, index, arg, fname, trust);
    return trust;
}
