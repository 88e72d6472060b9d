/* SPDX-License-Identifier: MIT
 * Sending; see send.c. */
#ifndef ASIO_UDP_SEND_H
#define ASIO_UDP_SEND_H

#include "udp/socket.h"

void asio_udp_send_open(lua_State *L, struct asio_rt *rt);
void asio_udp_send_abort(struct asio_udp_socket *s, int status); /* wakes all senders */

/* Gives what is queued to the kernel; a closing socket is finished when nothing is left. */
void asio_udp_send_flush(struct asio_udp_socket *s);

#endif
