/* SPDX-License-Identifier: MIT
 * Internet addresses; see address.h. */
#include "address.h"

#include "api.h"
#include "error.h"

#include <stdio.h>
#include <string.h>

int asio_address_parse(lua_State *L, int index, int port, struct sockaddr_storage *addr)
{
    size_t length;
    const char *ip = lua_tolstring(L, index, &length);
    memset(addr, 0, sizeof *addr);
    if (strlen(ip) != length)
        return UV_EINVAL;
    if (uv_ip4_addr(ip, port, (struct sockaddr_in *)addr) == 0)
        return 0;
    return uv_ip6_addr(ip, port, (struct sockaddr_in6 *)addr);
}

int asio_check_port(lua_State *L, int index, int arg, const char *fname, int min)
{
    if (!lua_isnumber(L, index))
        asio_error_type(L, index, arg, fname, "port number");
    double port = lua_tonumber(L, index);
    if (!(port >= min && port <= 65535) || port != (int)port)
        asio_error_arg(L, arg, fname, "port must be a whole number from %d to 65535", min);
    return (int)port;
}

static int split(const struct sockaddr_storage *addr, char *ip, size_t size, int *port)
{
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *a = (const void *)addr;
        *port = ntohs(a->sin_port);
        return uv_ip4_name(a, ip, size);
    }
    if (addr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const void *)addr;
        *port = ntohs(a->sin6_port);
        return uv_ip6_name(a, ip, size);
    }
    return UV_EAFNOSUPPORT;
}

int asio_address_format(const struct sockaddr_storage *addr, char text[ASIO_ADDRESS_MAX])
{
    char ip[48];
    int port, status = split(addr, ip, sizeof ip, &port);
    if (status == 0)
        snprintf(text, ASIO_ADDRESS_MAX, addr->ss_family == AF_INET ? "%s:%d" : "[%s]:%d", ip, port);
    return status;
}

int asio_address_push(lua_State *L, const struct sockaddr_storage *addr)
{
    char ip[48];
    int port, status = split(addr, ip, sizeof ip, &port);
    if (status < 0)
        return asio_error_push(L, status);
    lua_pushstring(L, ip);
    lua_pushinteger(L, port);
    return 2;
}

void asio_address_push_path(lua_State *L, const char *path, size_t n)
{
    lua_pushliteral(L, "unix:");
    lua_pushlstring(L, path, n);
    lua_concat(L, 2);
}

bool asio_address_raw(lua_State *L, int index, struct sockaddr_storage *addr)
{
    size_t n;
    const char *bytes = lua_tolstring(L, index, &n);
    if (!bytes || n < 64)
        return false;
    memset(addr, 0, sizeof *addr);
    memcpy(addr, bytes, n < sizeof *addr ? n : sizeof *addr);
    return addr->ss_family == AF_INET || addr->ss_family == AF_INET6;
}

static int l_addr_to_str(lua_State *L)
{
    struct sockaddr_storage addr;
    char text[ASIO_ADDRESS_MAX];
    if (lua_type(L, 1) != LUA_TSTRING)
        asio_error_type(L, 1, 1, "addr_to_str", "address string");
    if (!asio_address_raw(L, 1, &addr) || asio_address_format(&addr, text) < 0)
        asio_error_arg(L, 1, "addr_to_str", "not an address");
    lua_pushstring(L, text);
    return 1;
}

void asio_address_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "addr_to_str", l_addr_to_str }, { NULL, NULL } };
    asio_api_functions(L, rt, "asio", module);
}
