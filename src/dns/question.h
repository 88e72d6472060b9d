/* SPDX-License-Identifier: MIT
 * What a script asks for, checked; see question.c. */
#ifndef ASIO_QUESTION_H
#define ASIO_QUESTION_H

#include "plugin/names.h"

enum { ASIO_QUESTION_SERVERS = 16 };

/* On the C stack of one call; what goes on after the call is copied from it. */
struct asio_question {
    struct asio_names_query query;
    int port; /* of connect, which wants raw addresses; 0: resolve */
    double timeout;
    struct sockaddr_storage servers[ASIO_QUESTION_SERVERS];
};

/* Fills a question from the options (a table, nil or nothing) at `index` of resolve, its second argument. Raises
 * for bad values and for unknown names. */
void asio_question_read(lua_State *L, int index, struct asio_question *q);

/* The same for connect, its third argument: `servers` and `cache` alone, since connect has checked the others. */
void asio_question_read_part(lua_State *L, int index, struct asio_question *q);

/* Whether a name server may be asked for it: a name of a host (for addresses), or any name. */
bool asio_question_is_name(const char *name, size_t length, bool host);

#endif
