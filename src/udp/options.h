/* SPDX-License-Identifier: MIT
 * What an open datagram socket can be told; see options.c. */
#ifndef ASIO_UDP_OPTIONS_H
#define ASIO_UDP_OPTIONS_H

#include "core/runtime.h"

void asio_udp_options_open(lua_State *L, struct asio_rt *rt);

#endif
