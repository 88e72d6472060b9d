/* SPDX-License-Identifier: MIT
 *
 * What goes out: the head of a response, formatted once into a buffer, and its body behind it. If the buffer was too
 * small, it is formatted once more into one that is large enough. What would break the message (a line break in a
 * value) raises, before anything is queued. */
#include "plugins/http/http.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* What a message has beside the headers that the script gives; http.lua knows the numbers. */
enum output_flags {
    OUTPUT_CLOSE = 1,      /* Connection: close */
    OUTPUT_NO_BODY = 2,    /* of a response to HEAD: the body's length alone */
    OUTPUT_CHUNKED = 4,    /* the body follows in chunks */
    OUTPUT_NO_LENGTH = 8,  /* 1xx, 204, 304, or the headers tell it */
    OUTPUT_KEEP_ALIVE = 16 /* Connection: keep-alive, for HTTP/1.0 */
};

/* Headers that the script has given. */
enum output_given { GIVEN_DATE = 1, GIVEN_LENGTH = 2, GIVEN_CONNECTION = 4, GIVEN_CLOSE = 8 };

struct output {
    lua_State *L;
    char *to;
    size_t n, room; /* bytes that there are, and that fit */
    int headers;    /* stack index */
    int status, flags, given;
};

static void output_add(struct output *o, const char *bytes, size_t n)
{
    if (o->n + n <= o->room)
        memcpy(o->to + o->n, bytes, n);
    o->n += n;
}

#define OUTPUT_LITERAL(o, text) output_add(o, text, sizeof text - 1)

static void output_number(struct output *o, size_t number)
{
    char digits[24];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    output_add(o, digits + at, sizeof digits - at);
}

/* RFC 9110, 5.6.2: token. A bit for each character, 32 in a word. */
static bool output_is_name(const char *s, size_t n)
{
    static const uint32_t token[8] = { 0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff };
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (!(token[c >> 5] >> (c & 31) & 1))
            return false;
    }
    return n > 0;
}

/* No control characters but the tab. */
static bool output_is_value(const char *s, size_t n)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bad |= (unsigned)((c < ' ') & (c != '\t')) | (unsigned)(c == 127);
    }
    return bad == 0;
}

/* Whether a list of words (RFC 9110, 5.6.1) has this one. */
static bool output_has_word(const char *list, size_t n, const char *lower)
{
    size_t at = 0;
    while (at < n) {
        size_t end = at;
        while (end < n && list[end] != ',')
            end++;
        size_t last = end;
        while (at < last && (list[at] == ' ' || list[at] == '\t'))
            at++;
        while (last > at && (list[last - 1] == ' ' || list[last - 1] == '\t'))
            last--;
        if (asio_http_is(list + at, last - at, lower))
            return true;
        at = end + 1;
    }
    return false;
}

/* How the message is framed is not the script's: its Transfer-Encoding is left out, and so is its Content-Length where
 * the body is known, or cannot be (RFC 9110, 8.6). False: leave this header out. */
static bool output_consider(struct output *o, const char *name, size_t n, const char *value, size_t length)
{
    if (n == 4 && asio_http_is(name, n, "date"))
        o->given |= GIVEN_DATE;
    if (n == 17 && asio_http_is(name, n, "transfer-encoding"))
        return false;
    if (n == 14 && asio_http_is(name, n, "content-length")) {
        if (o->status < 200 || o->status == 204 || !(o->flags & (OUTPUT_NO_BODY | OUTPUT_NO_LENGTH)))
            return false;
        o->given |= GIVEN_LENGTH;
    }
    if (n == 10 && asio_http_is(name, n, "connection")) {
        if (o->flags & OUTPUT_CLOSE)
            return false;
        o->given |= GIVEN_CONNECTION | (output_has_word(value, length, "close") ? GIVEN_CLOSE : 0);
    }
    return true;
}

static void output_text(struct output *o, const char *name, size_t n, const char *value, size_t m)
{
    output_add(o, name, n);
    OUTPUT_LITERAL(o, ": ");
    output_add(o, value, m);
    OUTPUT_LITERAL(o, "\r\n");
}

/* The name at the stack index `name`, the value at `value`. */
static void output_field(struct output *o, int name, int value)
{
    lua_State *L = o->L;
    size_t n, m = 0;
    const char *key = lua_tolstring(L, name, &n);
    int type = lua_type(L, value);
    const char *text = type == LUA_TSTRING || type == LUA_TNUMBER ? lua_tolstring(L, value, &m) : NULL;
    if (!text)
        asio_http_core->error->misuse(
            L, "header '%s': string or number expected, got %s", key, lua_typename(L, type));
    if (!output_is_name(key, n) || !output_is_value(text, m))
        asio_http_core->error->misuse(L, "header '%s': a character that is not allowed", key);
    if (output_consider(o, key, n, text, m))
        output_text(o, key, n, text, m);
}

/* A value, or a list of values: one field each. */
static void output_fields(struct output *o, int name, int value)
{
    lua_State *L = o->L;
    if (!lua_istable(L, value)) {
        output_field(o, name, value);
        return;
    }
    int count = (int)lua_objlen(L, value);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, value, i);
        output_field(o, name, lua_gettop(L));
        lua_pop(L, 1);
    }
}

static void output_headers(struct output *o)
{
    lua_State *L = o->L;
    if (!lua_istable(L, o->headers))
        return;
    lua_pushnil(L);
    while (lua_next(L, o->headers)) {
        int name = lua_gettop(L) - 1;
        if (lua_type(L, name) != LUA_TSTRING)
            asio_http_core->error->misuse(L, "headers: a name that is no string");
        output_fields(o, name, name + 1);
        lua_pop(L, 1);
    }
}

/* ---- the clock ----------------------------------------------------------------------------- */

/* Made once a second. Of this thread's runtime: hung on the function's second upvalue. */
struct output_clock {
    time_t second;
    size_t n;
    char text[40];
    int status; /* whose line is the next one: that of the last answer */
    size_t line_n;
    char line[80];
};

static const struct output_clock *output_date(struct output_clock *c)
{
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t t = time(NULL);
    if (t == c->second)
        return c;
    c->second = t;
    struct tm tm;
#ifdef _WIN32
    gmtime_s(&tm, &t);
#else
    gmtime_r(&t, &tm);
#endif
    c->n = (size_t)snprintf(c->text, sizeof c->text, "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n",
        days + 3 * tm.tm_wday, tm.tm_mday % 100, months + 3 * tm.tm_mon, (tm.tm_year + 1900) % 10000,
        tm.tm_hour % 100, tm.tm_min % 100, tm.tm_sec % 100);
    return c;
}

/* ---- messages ------------------------------------------------------------------------------ */

static const char *output_reason(int status)
{
    switch (status) {
#define OUTPUT_CASE(number, name, text)                                                                      \
    case number:                                                                                             \
        return #text;
        HTTP_STATUS_MAP(OUTPUT_CASE)
#undef OUTPUT_CASE
    }
    return "";
}

/* NOT_FOUND becomes "Not Found", which people are used to see. */
static void output_make_line(struct output_clock *c, int status)
{
    const char *reason = output_reason(status);
    size_t n = (size_t)snprintf(c->line, sizeof c->line, "HTTP/1.1 %d ", status);
    bool first = true;
    for (; *reason && n < sizeof c->line - 2; reason++, n++) {
        char letter = *reason;
        bool kept = first || !(letter >= 'A' && letter <= 'Z') || status == 200;
        c->line[n] = letter == '_' ? ' ' : kept ? letter : (char)(letter + 32);
        first = letter == '_';
    }
    c->line[n++] = '\r';
    c->line[n++] = '\n';
    c->line_n = n;
    c->status = status;
}

static void output_framing(struct output *o, size_t length)
{
    if (o->flags & OUTPUT_CHUNKED) {
        OUTPUT_LITERAL(o, "Transfer-Encoding: chunked\r\n");
    } else if (!(o->flags & OUTPUT_NO_LENGTH) && !(o->given & GIVEN_LENGTH)) {
        OUTPUT_LITERAL(o, "Content-Length: ");
        output_number(o, length);
        OUTPUT_LITERAL(o, "\r\n");
    }
    if (o->flags & OUTPUT_CLOSE)
        OUTPUT_LITERAL(o, "Connection: close\r\n");
    else if (o->flags & OUTPUT_KEEP_ALIVE && !(o->given & GIVEN_CONNECTION))
        OUTPUT_LITERAL(o, "Connection: keep-alive\r\n");
}

enum { OUTPUT_OWN = 2048 };

/* The buffer was too small: there is one now that is not, at the top of the stack; unless finalizers that run as it is
 * made give the script's table more fields. */
static bool output_enlarge(struct output *o)
{
    if (o->n <= o->room)
        return false;
    o->room = o->n;
    o->to = lua_newuserdata(o->L, o->room);
    return true;
}

/* The head, and the body at a stack index, or NULL; in one piece if it fits. */
static void output_queue(struct output *o, struct asio_stream *s, int index, const char *body, size_t length)
{
    if (o->flags & OUTPUT_NO_BODY)
        length = 0;
    bool joined = length > 0 && o->n + length <= o->room;
    if (joined)
        output_add(o, body, length);
    int result = asio_http_core->stream->queue(o->L, s, lua_gettop(o->L), o->to, o->n);
    if (result == 0 && length > 0 && !joined)
        asio_http_core->stream->queue(o->L, s, index, body, length);
}

enum { RESPOND_CONN = 1, RESPOND_STATUS, RESPOND_HEADERS, RESPOND_BODY, RESPOND_FLAGS, RESPOND_INPUT };

static void output_line(struct output *o, struct output_clock *clock)
{
    o->n = 0;
    if (clock->status != o->status)
        output_make_line(clock, o->status);
    output_add(o, clock->line, clock->line_n);
}

/* Behind the headers. RFC 9110, 6.6.1: 1xx need no Date. */
static void output_end(struct output *o, size_t length, struct output_clock *clock)
{
    if (!(o->given & GIVEN_DATE) && (o->status >= 200 || o->status == 101)) {
        output_date(clock);
        output_add(o, clock->text, clock->n);
    }
    output_framing(o, length);
    OUTPUT_LITERAL(o, "\r\n");
}

static void output_response(struct output *o, size_t length, struct output_clock *clock)
{
    output_line(o, clock);
    output_headers(o);
    output_end(o, length, clock);
}

/* Into `own` if that is large enough, else into a userdata at the top of the stack. */
static void output_send(lua_State *L, struct asio_stream *s, struct output *o, const char *body,
    size_t length, struct output_clock *clock)
{
    char own[OUTPUT_OWN];
    o->to = own;
    o->room = OUTPUT_OWN;
    output_response(o, length, clock);
    while (output_enlarge(o))
        output_response(o, length, clock);
    output_queue(o, s, RESPOND_BODY, body, length);
}

/* http.respond(conn, status, headers or nil, body or nil, flags[, input]) */
int asio_http_l_respond(lua_State *L)
{
    struct asio_stream *s = asio_http_core->stream->stream_at(L, RESPOND_CONN);
    size_t length = 0;
    const char *body = lua_tolstring(L, RESPOND_BODY, &length);
    struct output o = { .L = L, .headers = RESPOND_HEADERS };
    o.status = (int)lua_tointeger(L, RESPOND_STATUS);
    o.flags = (int)lua_tointeger(L, RESPOND_FLAGS);
    if (!s)
        return asio_http_core->wait->push_fail(L, UV_EBADF);
    output_send(L, s, &o, body, length, lua_touserdata(L, lua_upvalueindex(2)));
    if (o.given & GIVEN_CLOSE && !lua_isnoneornil(L, RESPOND_INPUT))
        asio_http_input_closing(L, RESPOND_INPUT);
    return asio_http_core->stream->written(L, s);
}

/* ---- for compiled code ---------------------------------------------------------------------- */

/* Lifetime: an upvalue of http.respond; its address is quick.lua's. */
struct output_quick {
    struct output_clock clock; /* first */
    int (*write)(
        void *conn, const char *bytes, double n); /* the short cut of conn:write: 1, if it is queued */
};

/* False: not as the script gave it, or not at all. */
static bool output_quick_field(struct output *o, const char *name, double n, const char *value, double m)
{
    size_t name_n = (size_t)n, value_n = (size_t)m;
    if (!output_is_name(name, name_n) || !output_is_value(value, value_n) ||
        !output_consider(o, name, name_n, value, value_n) || o->given)
        return false;
    output_text(o, name, name_n, value, value_n);
    return true;
}

/* http.respond through the FFI: up to two headers, which say nothing of the message itself, and a small body. 1, if it
 * is queued; 0: http.respond has to see to it. Numbers are doubles, as Lua has them. */
static int output_quick_respond(struct output_quick *q, void *conn, double status, double flags,
    const char *name, double name_n, const char *value, double value_n, const char *name_2, double name_2_n,
    const char *value_2, double value_2_n, const char *body, double body_n)
{
    char own[OUTPUT_OWN];
    struct output o = { .to = own, .room = OUTPUT_OWN, .status = (int)status, .flags = (int)flags };
    output_line(&o, &q->clock);
    if (name_n > 0 && !output_quick_field(&o, name, name_n, value, value_n))
        return 0;
    if (name_2_n > 0 && !output_quick_field(&o, name_2, name_2_n, value_2, value_2_n))
        return 0;
    output_end(&o, (size_t)body_n, &q->clock);
    if (!(o.flags & OUTPUT_NO_BODY))
        output_add(&o, body, (size_t)body_n);
    return o.n <= o.room ? q->write(conn, own, (double)o.n) : 0;
}

/* ---- requests ------------------------------------------------------------------------------ */

enum {
    REQUEST_CONN = 1,
    REQUEST_METHOD,
    REQUEST_TARGET,
    REQUEST_LINES,
    REQUEST_HEADERS,
    REQUEST_BODY,
    REQUEST_FLAGS
};

/* RFC 9112, 3.2: nothing but visible ASCII. */
static bool output_is_target(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] > '~')
            return false;
    return n > 0;
}

static void output_string(struct output *o, int index)
{
    size_t n;
    const char *s = lua_tolstring(o->L, index, &n);
    output_add(o, s, n);
}

static void output_request(struct output *o, size_t length)
{
    o->n = 0;
    output_string(o, REQUEST_METHOD);
    OUTPUT_LITERAL(o, " ");
    output_string(o, REQUEST_TARGET);
    OUTPUT_LITERAL(o, " HTTP/1.1\r\n");
    output_string(o, REQUEST_LINES);
    output_headers(o);
    output_framing(o, length);
    OUTPUT_LITERAL(o, "\r\n");
}

/* As output_send. */
static void output_send_request(
    lua_State *L, struct asio_stream *s, int flags, const char *body, size_t length)
{
    char own[OUTPUT_OWN];
    struct output o = { .L = L, .headers = REQUEST_HEADERS, .flags = flags, .status = 200, .to = own };
    o.room = OUTPUT_OWN;
    output_request(&o, length);
    while (output_enlarge(&o))
        output_request(&o, length);
    output_queue(&o, s, REQUEST_BODY, body, length);
}

/* http.request_head(conn, method, target, lines, headers or nil, body or nil, flags). `lines`: fields that the caller
 * has formatted and checked, each with its CR LF. */
int asio_http_l_request_head(lua_State *L)
{
    size_t n, m, length = 0;
    const char *method = luaL_checklstring(L, REQUEST_METHOD, &n);
    const char *target = luaL_checklstring(L, REQUEST_TARGET, &m);
    luaL_checkstring(L, REQUEST_LINES);
    struct asio_stream *s = asio_http_core->stream->stream_at(L, REQUEST_CONN);
    if (!output_is_name(method, n))
        asio_http_core->error->misuse(L, "method: a character that is not allowed");
    if (!output_is_target(target, m))
        asio_http_core->error->misuse(L, "target: a character that is not allowed");
    if (!s)
        return asio_http_core->wait->push_fail(L, UV_EBADF);
    const char *body = lua_tolstring(L, REQUEST_BODY, &length);
    output_send_request(L, s, (int)lua_tonumber(L, REQUEST_FLAGS), body, length);
    return asio_http_core->stream->written(L, s);
}

/* http.chunk(conn, data): a chunk of a body; an empty one ends it */
int asio_http_l_chunk(lua_State *L)
{
    struct asio_stream *s = asio_http_core->stream->stream_at(L, 1);
    char head[24];
    size_t n;
    const char *data = luaL_checklstring(L, 2, &n);
    if (!s)
        return asio_http_core->wait->push_fail(L, UV_EBADF);
    int length = snprintf(head, sizeof head, "%zx\r\n", n);
    int status = asio_http_core->stream->queue(L, s, 2, head, (size_t)length);
    if (status == 0 && n > 0)
        status = asio_http_core->stream->queue(L, s, 2, data, n);
    if (status == 0)
        asio_http_core->stream->queue(L, s, 2, "\r\n", 2);
    return asio_http_core->stream->written(L, s);
}

static void output_trailers(struct output *o)
{
    o->n = 0;
    OUTPUT_LITERAL(o, "0\r\n");
    output_headers(o);
    OUTPUT_LITERAL(o, "\r\n");
}

/* http.last_chunk(conn, trailers). RFC 9112, 7.1.2. Content-Length and Transfer-Encoding are left out: they are too late. */
int asio_http_l_last_chunk(lua_State *L)
{
    char own[OUTPUT_OWN];
    struct asio_stream *s = asio_http_core->stream->stream_at(L, 1);
    struct output o = { .L = L, .headers = 2, .status = 200, .flags = OUTPUT_CLOSE, .to = own };
    if (!s)
        return asio_http_core->wait->push_fail(L, UV_EBADF);
    o.room = OUTPUT_OWN;
    output_trailers(&o);
    while (output_enlarge(&o))
        output_trailers(&o);
    output_queue(&o, s, 0, NULL, 0);
    return asio_http_core->stream->written(L, s);
}

/* Sets respond, and quick_respond and quick_state for quick.lua, in the table at the top of the stack. The table of the
 * core is at index 1. */
void asio_http_output_open(lua_State *L, struct asio_rt *rt)
{
    lua_getfield(L, 1, "quick");
    lua_getfield(L, -1, "write");
    void *write = lua_touserdata(L, -1);
    lua_pop(L, 2);
    lua_pushlightuserdata(L, rt);
    struct output_quick *q = lua_newuserdata(L, sizeof *q);
    memset(q, 0, sizeof *q);
    memcpy(&q->write, &write, sizeof q->write);
    lua_pushlightuserdata(L, q);
    lua_setfield(L, -4, "quick_state");
    lua_pushcclosure(L, asio_http_l_respond, 2);
    lua_setfield(L, -2, "respond");
    lua_pushlightuserdata(L, (void *)(uintptr_t)output_quick_respond);
    lua_setfield(L, -2, "quick_respond");
}
