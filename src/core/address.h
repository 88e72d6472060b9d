/* SPDX-License-Identifier: MIT
 * Internet addresses: as text, as Lua values, and raw as the kernel gives them. */
#ifndef ASIO_ADDRESS_H
#define ASIO_ADDRESS_H

#include "sys/sys.h"

enum { ASIO_IP_MAX = 64, ASIO_ADDRESS_MAX = 80 };

/* A numeric address and a port into a socket address: 0; UV_EINVAL if it is none; UV_ENODEV for an
 * interface ("fe80::1%eth0", by name or number) that is not there; UV_EMFILE and the like when that cannot be found
 * out. */
int asio_address_read(const char *ip, size_t length, int port, union asio_sockaddr *addr);

/* An address of this machine to be bound: a numeric one; 'localhost', which is 127.0.0.1; '*' or nothing: all
 * addresses (*all), as "::", for which "0.0.0.0" can stand where the system has no IPv6. Else as asio_address_read. */
int asio_address_read_own(const char *text, size_t length, int port, union asio_sockaddr *addr, bool *all);

/* Pushes nil, message, code for what that said of the text at a stack index; returns 3. */
int asio_address_push_bad(lua_State *L, int index, int status);

/* The numeric address as text, with its interface if it has one. Returns the length; 0 for other families. */
size_t asio_address_write(const struct sockaddr *addr, char ip[ASIO_IP_MAX]);

int asio_address_port(const struct sockaddr *addr); /* of these two families */

/* The same for the text at a stack index. */
int asio_address_parse(lua_State *L, int index, int port, struct sockaddr_storage *addr);

/* A port at a stack index, number or numeric string, in [min, 65535]; raises. */
int asio_check_port(lua_State *L, int index, int arg, const char *fname, int min);

/* "ip:port" or "[ip]:port"; UV_EAFNOSUPPORT for other families. */
int asio_address_format(const struct sockaddr_storage *addr, char text[ASIO_ADDRESS_MAX]);

/* Pushes ip, port, or nil, message, code. */
int asio_address_push(lua_State *L, const struct sockaddr_storage *addr);

/* A raw address at a stack index, as get_original_dst returns it; false if it is none. */
bool asio_address_raw(lua_State *L, int index, struct sockaddr_storage *addr);

/* Pushes the name of a Unix socket or pipe as scripts give it: "unix:/path", "unix:@name"; "unix:" for
 * one without. */
void asio_address_push_path(lua_State *L, const char *path, size_t n);

#endif
