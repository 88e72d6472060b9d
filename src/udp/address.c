/* SPDX-License-Identifier: MIT
 *
 * Addresses of datagrams, between the kernel's form and the text that scripts see. Every datagram needs that
 * once or twice; making the Lua string and parsing it again was measured at a quarter of what this library adds
 * to an echoed datagram. So the texts of the last addresses are kept, in a table at ASIO_REF_UDP_IPS: Lua has
 * each text once, and it is recognized by its pointer. */
#include "udp/address.h"

#include "base/error.h"
#include "core/address.h"

#include <string.h>

static bool udp_address_same(const union asio_sockaddr *a, const struct sockaddr *addr)
{
    const union asio_sockaddr *b = (const void *)addr;
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0 &&
        a->v6.sin6_scope_id == b->v6.sin6_scope_id;
}

static unsigned udp_address_scramble(uint32_t n)
{
    return (n * 2654435769u) >> 27; /* of ASIO_UDP_IPS places */
}

static unsigned udp_address_place(const struct sockaddr *addr)
{
    const union asio_sockaddr *a = (const void *)addr;
    uint32_t words[4];
    if (addr->sa_family == AF_INET)
        return udp_address_scramble(a->v4.sin_addr.s_addr);
    memcpy(words, &a->v6.sin6_addr, sizeof words);
    return udp_address_scramble(words[0] ^ words[1] ^ words[2] ^ words[3] ^ a->v6.sin6_scope_id);
}

static unsigned udp_address_place_of_text(const char *text)
{
    return udp_address_scramble((uint32_t)((uintptr_t)text >> 3));
}

/* The text at the top of L is what asio_address_write makes of the address. */
static void udp_address_keep(
    lua_State *L, struct asio_udp_shared *shared, struct asio_rt *rt, const struct sockaddr *addr)
{
    unsigned place = udp_address_place(addr);
    struct asio_udp_ip *known = &shared->ips[place];
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_UDP_IPS]);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, (int)place + 1); /* the place exists since the start: this allocates nothing */
    lua_pop(L, 1);
    memcpy(&known->addr, addr, addr->sa_family == AF_INET6 ? sizeof known->addr.v6 : sizeof known->addr.v4);
    known->text = lua_tostring(L, -1);
    shared->by_text[udp_address_place_of_text(known->text)] = (uint8_t)place;
}

void asio_udp_address_push_ip(lua_State *L, struct asio_udp_socket *s, const struct sockaddr *addr)
{
    char ip[ASIO_IP_MAX];
    unsigned place = udp_address_place(addr);
    if (udp_address_same(&s->shared->ips[place].addr, addr)) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, s->rt->refs[ASIO_REF_UDP_IPS]);
        lua_rawgeti(L, -1, (int)place + 1);
        lua_replace(L, -2);
        return;
    }
    size_t length = asio_address_write(addr, ip);
    lua_pushlstring(L, ip, length);
    const char *scope = memchr(ip, '%', length);
    if (!scope || scope[1] < '0' ||
        scope[1] > '9') /* a number: the interface's name could not be found out now */
        udp_address_keep(L, s->shared, s->rt, addr);
}

static int udp_address_read(
    lua_State *L, struct asio_udp_socket *s, int index, int port, union asio_sockaddr *addr)
{
    size_t length;
    const char *text = lua_tolstring(L, index, &length);
    struct asio_udp_ip *known =
        s ? &s->shared->ips[s->shared->by_text[udp_address_place_of_text(text)]] : NULL;
    if (known && known->text == text) {
        *addr = known->addr;
        if (addr->any.sa_family == AF_INET)
            addr->v4.sin_port = htons((uint16_t)port);
        else
            addr->v6.sin6_port = htons((uint16_t)port);
        return 0;
    }
    int status = asio_address_read(text, length, port, addr);
    if (s && status == 0 && addr->any.sa_family == AF_INET) { /* IPv6 has several ways to write one */
        lua_pushvalue(L, index);
        udp_address_keep(L, s->shared, s->rt, &addr->any);
        lua_pop(L, 1);
    }
    return status == UV_EINVAL ? ASIO_UDP_NAME : status;
}

/* For the most part two strings and a number: nothing is asked twice. */
int asio_udp_address_check(
    lua_State *L, struct asio_udp_socket *s, int host, const char *fname, union asio_sockaddr *addr)
{
    struct sockaddr_storage raw;
    if (lua_type(L, host) != LUA_TSTRING)
        asio_error_type(L, host, host - 1, fname, "address or name");
    int type = lua_type(L, host + 1);
    if (type <= LUA_TNIL && asio_address_raw(L, host, &raw)) {
        memcpy(addr, &raw, sizeof *addr);
        return 0;
    }
    double port = type == LUA_TNUMBER ? lua_tonumber(L, host + 1) : 0;
    if (!(port >= 1 && port <= 65535) || port != (int)port)
        port = asio_check_port(L, host + 1, host, fname, 1);
    return udp_address_read(L, s, host, (int)port, addr);
}

int asio_udp_address_push_name(lua_State *L, struct asio_udp_socket *s)
{
    lua_pushnumber(L, s->rt->token_fail);
    lua_pushboolean(L, 0);
    return 2;
}

static const unsigned char udp_address_mapped[12] = { [10] = 0xff, [11] = 0xff };

bool asio_udp_address_is_mapped(const struct sockaddr *addr)
{
    const union asio_sockaddr *a = (const void *)addr;
    return addr->sa_family == AF_INET6 &&
        memcmp(&a->v6.sin6_addr, udp_address_mapped, sizeof udp_address_mapped) == 0;
}

/* An IPv6 socket reaches IPv4 addresses as ::ffff:a.b.c.d. */
static void udp_address_map(union asio_sockaddr *addr)
{
    struct sockaddr_in v4 = addr->v4;
    unsigned char *bytes = (unsigned char *)&addr->v6.sin6_addr;
    memset(addr, 0, sizeof *addr);
    addr->v6.sin6_family = AF_INET6;
    addr->v6.sin6_port = v4.sin_port;
    memcpy(bytes, udp_address_mapped, sizeof udp_address_mapped);
    memcpy(bytes + sizeof udp_address_mapped, &v4.sin_addr, 4);
}

int asio_udp_address_fit(struct asio_udp_socket *s, union asio_sockaddr *addr)
{
    if (s->family == addr->any.sa_family)
        return 0;
    if (s->family == AF_INET6 && addr->any.sa_family == AF_INET)
        udp_address_map(addr);
    return asio_udp_socket_open_as(s, addr->any.sa_family);
}

void asio_udp_address_open(lua_State *L, struct asio_rt *rt)
{
    lua_createtable(L, ASIO_UDP_IPS, 0);
    for (int i = 1; i <= ASIO_UDP_IPS; i++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, i);
    }
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_UDP_IPS]);
}
