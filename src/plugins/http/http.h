/* SPDX-License-Identifier: MIT
 *
 * asio/http.so: HTTP/1.1 on connections. llhttp parses in the stream's own buffer, as a scan (plugin/scan.h); heads of
 * answers are formatted into the output queue. What its files share. */
#ifndef ASIO_HTTP_H
#define ASIO_HTTP_H

#include "base/asio.h"
#include "plugin/plugin.h"

#include <llhttp/llhttp.h>

/* The core's tables: constant, of the process. Set by the first `load`. */
extern const struct asio_plugin *asio_http_core;

struct http_span {
    uint32_t at, length;
};

struct http_field {
    struct http_span name, value;
};

/* ---- heads (head.c) ------------------------------------------------------------------------- */

/* Pushes the head of a request or a response, a userdata with a copy of the bytes of its fields, which lie below 64 KB.
 * Raises out of memory. */
void asio_http_head_push(lua_State *L, const struct http_field *fields, uint32_t count, const char *bytes);
/* Pushes the metatable, and an address for head.lua. */
void asio_http_head_open(lua_State *L, struct asio_rt *rt);

/* ---- what requests have to be (check.c) ------------------------------------------------------ */

struct http_request_head {
    const char *bytes;
    struct http_span target;
    const struct http_field *fields;
    uint32_t count;
    int major, minor;
};

/* What llhttp leaves to its user: 0, or the status with which the request is refused. */
int asio_http_check_request(const struct http_request_head *head);

/* The lines between the pieces of a body in chunks: no line feed without its carriage return. Both of a pair lie between
 * the same two pieces. */
bool asio_http_check_framing(const char *bytes, size_t from, size_t to);

/* Whether the n bytes are `lower`, in any case. */
bool asio_http_is(const char *bytes, size_t n, const char *lower);

/* ---- what comes in (input.c) ---------------------------------------------------------------- */

/* http.input(response, max_head, max_fields[, max_target]) -> input */
int asio_http_l_input(lua_State *L);
/* http.read_head(conn, input, no_body): waits. `no_body`: the response answers HEAD or CONNECT. Request: head, method, target, minor, keep_alive, length; response: head, status,
 * reason, minor, keep_alive, length. length: nil, no body; -1, not known. */
int asio_http_l_read_head(lua_State *L);
/* http.read_body(conn, input): waits. The next bytes of the body, and whether they are the last; nil: it is
 * over; then, third, the trailers if there are any. */
int asio_http_l_read_body(lua_State *L);
/* http.refusal(input) -> the status with which a request that could not be read is answered, and why */
int asio_http_l_refusal(lua_State *L);
/* http.state(input) -> "head", "body", "over"; whether bytes of a head have come */
int asio_http_l_state(lua_State *L);
/* The input at a stack index gives no further head: the end of its connection has been announced. */
void asio_http_input_closing(lua_State *L, int index);
void asio_http_input_open(lua_State *L, struct asio_rt *rt);

/* ---- what goes out (output.c) --------------------------------------------------------------- */

/* http.respond(conn, status, headers or nil, body or nil, flags[, input]): waits while too much is queued */
int asio_http_l_respond(lua_State *L);
/* http.chunk(conn, data): a chunk; an empty one ends the body */
int asio_http_l_chunk(lua_State *L);
/* http.request_head(conn, method, target, lines, headers, body, flags...) */
int asio_http_l_request_head(lua_State *L);
/* http.last_chunk(conn, trailers): ends the body */
int asio_http_l_last_chunk(lua_State *L);
void asio_http_output_open(lua_State *L, struct asio_rt *rt); /* sets what is above, and quick.lua's */

/* ---- files (disk.c), compression (deflate.c) -------------------------------------------------- */

int asio_http_l_disk_open(lua_State *L);
int asio_http_l_disk_stat(lua_State *L);
int asio_http_l_disk_read(lua_State *L);
int asio_http_l_disk_send(lua_State *L);
int asio_http_l_disk_close(lua_State *L);
int asio_http_l_moved(lua_State *L);
int asio_http_l_working_directory(lua_State *L);
int asio_http_l_random(lua_State *L);
void asio_http_disk_open(lua_State *L); /* the metatable */
int asio_http_l_deflate(lua_State *L);
int asio_http_l_deflate_add(lua_State *L);
void asio_http_deflate_open(lua_State *L); /* the metatable */

/* ---- decoding (inflate.c) ------------------------------------------------------------------- */

int asio_http_l_inflater(lua_State *L); /* nothing without zlib */
int asio_http_l_inflate(lua_State *L);
int asio_http_l_inflated(lua_State *L);
void asio_http_inflate_open(lua_State *L, struct asio_rt *rt);

#endif
