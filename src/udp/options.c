/* SPDX-License-Identifier: MIT
 * What a datagram socket can be told once it is there: groups, time to live, broadcast. A socket that
 * has no address yet is opened for IPv4 by it, or for the family of the group. */
#include "udp/options.h"

#include "base/error.h"
#include "core/address.h"
#include "core/bind.h"
#include "udp/socket.h"

#include <stdio.h>
#include <string.h>

static int udp_options_result(lua_State *L, int status)
{
    if (status < 0)
        return asio_error_push(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- interfaces --------------------------------------------------------------------------- */

/* libuv wants an IPv4 interface by its address, an IPv6 interface as the scope of some address. The script
 * may give its name too. */
static int udp_options_interface(const char *name, size_t length, int family, char text[ASIO_IP_MAX])
{
    union asio_sockaddr addr;
    int status = asio_address_read(name, length, 0, &addr);
    if (status < 0 && status != UV_EINVAL)
        return status;
    if (strlen(name) != length || length >= UV_IF_NAMESIZE + 40)
        return UV_ENODEV;
    if (status < 0 && family == AF_INET) { /* a name */
        status = asio_sys_interface_ip4(name, &addr.v4);
        return status < 0 ? status : uv_ip4_name(&addr.v4, text, ASIO_IP_MAX);
    }
    snprintf(text, ASIO_IP_MAX, status < 0 ? "::%%%s" : "%s", name);
    if (status < 0)
        return asio_address_read(text, strlen(text), 0, &addr);
    bool meant = addr.any.sa_family == family && (family == AF_INET || addr.v6.sin6_scope_id != 0);
    return meant ? 0 : UV_ENODEV;
}

/* The interface at a stack index as libuv wants it; *nic is NULL for none. */
static int udp_options_check_interface(
    lua_State *L, int index, const char *fname, int family, char text[ASIO_IP_MAX], const char **nic)
{
    size_t length;
    *nic = NULL;
    if (lua_isnoneornil(L, index))
        return 0;
    const char *name = lua_type(L, index) == LUA_TSTRING ? lua_tolstring(L, index, &length) : NULL;
    if (!name)
        asio_error_type(L, index, index - 1, fname, "address or name of an interface");
    *nic = text;
    return udp_options_interface(name, length, family, text);
}

/* ---- groups ------------------------------------------------------------------------------- */

static int udp_options_membership(lua_State *L, const char *fname, uv_membership how)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, fname);
    union asio_sockaddr group;
    char text[ASIO_IP_MAX];
    const char *nic;
    size_t length;
    if (lua_type(L, 2) != LUA_TSTRING)
        asio_error_type(L, 2, 1, fname, "address of a group");
    const char *address = lua_tolstring(L, 2, &length);
    int status = asio_address_read(address, length, 0, &group);
    int interface_status = udp_options_check_interface(L, 3, fname, group.any.sa_family, text, &nic);
    if (!s)
        status = UV_EBADF;
    if (status == 0)
        status = interface_status;
    if (status == 0)
        status = asio_udp_socket_open_as(s, group.any.sa_family);
    if (status == 0)
        status = uv_udp_set_membership(&s->handle, address, nic, how);
    return udp_options_result(L, status);
}

static int l_udp_join(lua_State *L)
{
    return udp_options_membership(L, "join", UV_JOIN_GROUP);
}

static int l_udp_leave(lua_State *L)
{
    return udp_options_membership(L, "leave", UV_LEAVE_GROUP);
}

static int l_udp_set_multicast_interface(lua_State *L)
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, "set_multicast_interface");
    char text[ASIO_IP_MAX];
    const char *nic;
    int status = s ? asio_udp_socket_open_as(s, AF_UNSPEC) : UV_EBADF;
    int family = s ? s->family : AF_INET;
    int interface_status = udp_options_check_interface(L, 2, "set_multicast_interface", family, text, &nic);
    if (status == 0)
        status = interface_status;
    if (status == 0)
        status = uv_udp_set_multicast_interface(&s->handle, nic);
    return udp_options_result(L, status);
}

/* ---- numbers and switches ----------------------------------------------------------------- */

static int udp_options_set(lua_State *L, const char *fname, int value, int (*fn)(uv_udp_t *handle, int value))
{
    struct asio_udp_socket *s = asio_udp_socket_check(L, fname);
    int status = s ? asio_udp_socket_open_as(s, AF_UNSPEC) : UV_EBADF;
    return udp_options_result(L, status < 0 ? status : fn(&s->handle, value));
}

static int udp_options_set_number(
    lua_State *L, const char *fname, int min, int (*fn)(uv_udp_t *handle, int value))
{
    asio_udp_socket_check(L, fname);
    return udp_options_set(L, fname, (int)asio_check_integer(L, 2, 1, fname, min, 255), fn);
}

static int udp_options_set_switch(lua_State *L, const char *fname, int (*fn)(uv_udp_t *handle, int value))
{
    asio_udp_socket_check(L, fname);
    if (lua_type(L, 2) != LUA_TBOOLEAN)
        asio_error_type(L, 2, 1, fname, "boolean");
    return udp_options_set(L, fname, lua_toboolean(L, 2), fn);
}

static int l_udp_set_ttl(lua_State *L)
{
    return udp_options_set_number(L, "set_ttl", 1, uv_udp_set_ttl);
}

static int l_udp_set_multicast_ttl(lua_State *L)
{
    return udp_options_set_number(L, "set_multicast_ttl", 0, uv_udp_set_multicast_ttl);
}

static int l_udp_set_multicast_loop(lua_State *L)
{
    return udp_options_set_switch(L, "set_multicast_loop", uv_udp_set_multicast_loop);
}

static int l_udp_set_broadcast(lua_State *L)
{
    return udp_options_set_switch(L, "set_broadcast", uv_udp_set_broadcast);
}

void asio_udp_options_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg methods[] = { { "join", l_udp_join }, { "leave", l_udp_leave },
        { "set_multicast_interface", l_udp_set_multicast_interface }, { "set_ttl", l_udp_set_ttl },
        { "set_multicast_ttl", l_udp_set_multicast_ttl }, { "set_multicast_loop", l_udp_set_multicast_loop },
        { "set_broadcast", l_udp_set_broadcast }, { NULL, NULL } };
    asio_bind_functions(L, rt, "udp", methods);
}
