/* SPDX-License-Identifier: MIT
 * Answers of name servers as Lua values; see records.c. */
#ifndef ASIO_RECORDS_H
#define ASIO_RECORDS_H

#include "core/wait.h"
#include "plugin/names.h"

/* The number of a type of records by its name, "A", "SRV", ...; 0: no such type, or NULL. */
uint16_t asio_records_type(const char *name);

/* Each pushes what a waiting function returns: a token, then its results. Raises out of memory alone, and has
 * then changed nothing. */

/* A list of tables, one for each record. */
int asio_records_push(lua_State *L, struct asio_rt *rt, const struct asio_names_query *q);

/* Lists of raw socket addresses, as connect takes them: IPv6, IPv4, whether the first was IPv4. */
int asio_records_push_raw(lua_State *L, struct asio_rt *rt, const struct asio_names_query *q, int port);

/* The list for a host that is an address: itself, or the failure where `type` is the other family. */
int asio_records_push_numeric(
    lua_State *L, struct asio_rt *rt, const struct sockaddr_storage *addr, uint16_t type);

#endif
