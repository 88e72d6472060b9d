/* SPDX-License-Identifier: MIT
 * Addresses of datagrams; see address.c. */
#ifndef ASIO_UDP_ADDRESS_H
#define ASIO_UDP_ADDRESS_H

#include "udp/socket.h"

void asio_udp_address_open(lua_State *L, struct asio_rt *rt);

/* The address and port at stack indices `host` and `host` + 1, or a raw address alone: 0, ASIO_UDP_NAME (not
 * numeric: a name), or an error. Raises for what is none of these. The socket may be NULL, closed. */
enum { ASIO_UDP_NAME = 1 };
int asio_udp_address_check(
    lua_State *L, struct asio_udp_socket *s, int host, const char *fname, union asio_sockaddr *addr);

/* Opens the socket for the address, or makes the address one of the socket's family. */
int asio_udp_address_fit(struct asio_udp_socket *s, union asio_sockaddr *addr);

void asio_udp_address_push_ip(lua_State *L, struct asio_udp_socket *s, const struct sockaddr *addr);

/* An IPv4 address as an IPv6 socket has it, ::ffff:a.b.c.d. */
bool asio_udp_address_is_mapped(const struct sockaddr *addr);

/* For a waiting function: the host is a name, which the shim has to resolve. */
int asio_udp_address_push_name(lua_State *L, struct asio_udp_socket *s);

#endif
