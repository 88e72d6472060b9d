/* SPDX-License-Identifier: MIT
 * Receiving; see recv.c. */
#ifndef ASIO_UDP_RECV_H
#define ASIO_UDP_RECV_H

#include "udp/socket.h"

void asio_udp_recv_open(lua_State *L, struct asio_rt *rt);
void asio_udp_recv_stop(struct asio_udp_socket *s);
void asio_udp_recv_abort(struct asio_udp_socket *s, int status); /* wakes the reader, if any */

#endif
