/* SPDX-License-Identifier: MIT
 * Internet addresses; see address.h. */
#include "core/address.h"

#include "core/bind.h"
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Dotted decimal, strictly. By hand: a server of datagrams reads one and writes one for each, and
 * libuv's functions were measured at ten times the cost. */
static bool read_ip4(const char *p, size_t length, unsigned char bytes[4])
{
    const char *end = p + length;
    for (int i = 0; i < 4; i++) {
        const char *first = p;
        unsigned n = 0;
        while (p < end && p - first < 3 && *p >= '0' && *p <= '9')
            n = n * 10 + (unsigned)(*p++ - '0');
        if (p == first || n > 255 || (*first == '0' && p - first > 1))
            return false;
        if (i < 3 && (p == end || *p++ != '.'))
            return false;
        bytes[i] = (unsigned char)n;
    }
    return p == end;
}

/* Why there is no such interface. Finding one by its name needs a descriptor; glibc hides the reason when it gets
 * none (ENOENT). */
static int no_scope(int error)
{
    uv_interface_address_t *list;
    int count;
    int status = error == ENODEV ? 0 : uv_interface_addresses(&list, &count);
    if (error != ENODEV && status == 0)
        uv_free_interface_addresses(list, count);
    return status < 0 ? status : UV_ENODEV;
}

/* The interface behind a '%'. libuv knows names on Unix and numbers on Windows, and silently takes
 * what it does not know for none; `error` is the errno that it has left. */
static int read_scope(const char *scope, int error, struct sockaddr_in6 *addr)
{
    char *end = (char *)scope;
    unsigned long number = *scope >= '0' && *scope <= '9' ? strtoul(scope, &end, 10) : 0;
    if (number > INT32_MAX) /* UINT32_MAX may be a number that was too long for a long, and libuv takes any */
        addr->sin6_scope_id = 0;
    else if (addr->sin6_scope_id == 0 && *end == '\0')
        addr->sin6_scope_id = (uint32_t)number;
    return addr->sin6_scope_id ? 0 : no_scope(error);
}

/* With or without the brackets that are around it before a port. */
static int read_ip6(const char *ip, size_t length, struct sockaddr_in6 *addr)
{
    char inside[ASIO_IP_MAX];
    if (strlen(ip) != length)
        return UV_EINVAL;
    if (length > 2 && length - 2 < sizeof inside && ip[0] == '[' && ip[length - 1] == ']') {
        memcpy(inside, ip + 1, length - 2);
        inside[length - 2] = '\0';
        ip = inside;
    }
    const char *percent = strchr(ip, '%');
    errno = 0;
    int status = uv_ip6_addr(ip, 0, addr);
    return status == 0 && percent ? read_scope(percent + 1, errno, addr) : status;
}

int asio_address_read(const char *ip, size_t length, int port, union asio_sockaddr *addr)
{
    unsigned char bytes[4];
    int status = 0;
    memset(addr, 0, sizeof *addr);
    if (read_ip4(ip, length, bytes)) {
        memcpy(&addr->v4.sin_addr, bytes, sizeof bytes);
        addr->v4.sin_family = AF_INET;
        addr->v4.sin_port = htons((uint16_t)port);
    } else {
        status = read_ip6(ip, length, &addr->v6);
        addr->v6.sin6_port = htons((uint16_t)port);
    }
    return status;
}

/* No name is looked up, which would have to wait. */
int asio_address_read_own(const char *text, size_t length, int port, union asio_sockaddr *addr, bool *all)
{
    *all = length == 0 || (length == 1 && *text == '*');
    if (*all)
        return asio_address_read("::", 2, port, addr);
    if (length == 9 && memcmp(text, "localhost", 9) == 0)
        return asio_address_read("127.0.0.1", 9, port, addr);
    return asio_address_read(text, length, port, addr);
}

int asio_address_push_bad(lua_State *L, int index, int status)
{
    if (status != UV_EINVAL)
        return asio_error_push(L, status);
    return asio_error_push_text(L, status, "'%s' is not a numeric address", lua_tostring(L, index));
}

int asio_address_parse(lua_State *L, int index, int port, struct sockaddr_storage *addr)
{
    size_t length;
    const char *ip = lua_tolstring(L, index, &length);
    union asio_sockaddr found;
    int status = asio_address_read(ip, length, port, &found);
    memset(addr, 0, sizeof *addr);
    memcpy(addr, &found, sizeof found);
    return status;
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

static size_t write_ip4(const unsigned char bytes[4], char *ip)
{
    char *p = ip;
    for (int i = 0; i < 4; i++) {
        unsigned n = bytes[i];
        if (i > 0)
            *p++ = '.';
        if (n >= 100)
            *p++ = (char)('0' + n / 100);
        if (n >= 10)
            *p++ = (char)('0' + n / 10 % 10);
        *p++ = (char)('0' + n % 10);
    }
    return (size_t)(p - ip);
}

static size_t write_ip6(const struct sockaddr_in6 *addr, char ip[ASIO_IP_MAX])
{
    char name[UV_IF_NAMESIZE];
    size_t size = sizeof name;
    if (uv_ip6_name(addr, ip, ASIO_IP_MAX) < 0)
        return 0;
    size_t length = strlen(ip);
    if (addr->sin6_scope_id == 0)
        return length;
    if (uv_if_indextoiid(addr->sin6_scope_id, name, &size) < 0)
        snprintf(name, sizeof name, "%lu", (unsigned long)addr->sin6_scope_id);
    snprintf(ip + length, ASIO_IP_MAX - length, "%%%s", name);
    return length + strlen(ip + length);
}

size_t asio_address_write(const struct sockaddr *addr, char ip[ASIO_IP_MAX])
{
    if (addr->sa_family == AF_INET)
        return write_ip4((const void *)&((const struct sockaddr_in *)(const void *)addr)->sin_addr, ip);
    if (addr->sa_family == AF_INET6)
        return write_ip6((const void *)addr, ip);
    return 0;
}

int asio_address_port(const struct sockaddr *addr)
{
    const union asio_sockaddr *a = (const void *)addr;
    return ntohs(addr->sa_family == AF_INET6 ? a->v6.sin6_port : a->v4.sin_port);
}

int asio_address_format(const struct sockaddr_storage *addr, char text[ASIO_ADDRESS_MAX])
{
    char ip[ASIO_IP_MAX];
    size_t length = asio_address_write((const struct sockaddr *)addr, ip);
    if (length == 0)
        return UV_EAFNOSUPPORT;
    snprintf(text, ASIO_ADDRESS_MAX, addr->ss_family == AF_INET ? "%.*s:%d" : "[%.*s]:%d", (int)length, ip,
        asio_address_port((const struct sockaddr *)addr));
    return 0;
}

int asio_address_push(lua_State *L, const struct sockaddr_storage *addr)
{
    char ip[ASIO_IP_MAX];
    size_t length = asio_address_write((const struct sockaddr *)addr, ip);
    if (length == 0)
        return asio_error_push(L, UV_EAFNOSUPPORT);
    lua_pushlstring(L, ip, length);
    lua_pushinteger(L, asio_address_port((const struct sockaddr *)addr));
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

static void address_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg module[] = { { "addr_to_str", l_addr_to_str }, { NULL, NULL } };
    asio_bind_functions(L, rt, "asio", module);
}

const struct asio_part asio_part_address = { "address", address_part_open, NULL };
