/* SPDX-License-Identifier: MIT
 *
 * What comes in: llhttp over the stream's own buffer. A head stays in the buffer until it is complete, then it is copied
 * once; a body is handed on in the pieces that come. The parser pauses behind a head, behind each piece of a body, and
 * at the end of a message, so that the bytes of the next one stay in the buffer. */
#include "plugins/http/http.h"

#include <string.h>

enum input_state { INPUT_HEAD, INPUT_BODY, INPUT_OVER };

/* An array of fields that no input needs now: idle connections have none of their own.
 * Lifetime: a userdata of the Lua state, anchored by the metatable of inputs; owns `fields`. */
struct input_spare {
    struct http_field *fields;
    uint32_t capacity;
};

/* Lifetime: a userdata, an argument of the waiting function while the parser is in use; owns `fields`. */
struct http_input {
    struct asio_scan scan; /* first */
    const void *magic;
    llhttp_t parser;
    const char *base; /* where the buffer lies during a look */
    size_t fed;       /* bytes at its front that the parser has seen */
    size_t found;     /* what the last look found, until it is pushed: a cancel may come between the two */
    uint32_t max_head, max_fields, max_target;
    uint8_t state;
    bool closing;                   /* of a server: the answer said Connection: close */
    bool begun;                     /* a byte of the message has come, not only of empty lines before it */
    bool in_value, paused, stopped; /* the last span was of a value; */
    bool no_body;                   /* of the response: it answers HEAD */
    int refusal;                    /* status with which to answer; 0: none */
    struct http_span start;         /* target, or reason */
    struct http_span body;
    struct input_spare *spare; /* of its Lua state */
    struct http_field *fields;
    uint32_t count, capacity;
    uint32_t head_count; /* fields behind these are trailers */
};

static const char input_magic = 0; /* its address: also the registry's key of the metatable */

/* ---- callbacks of llhttp ------------------------------------------------------------------- */

static struct http_input *input_of(llhttp_t *parser)
{
    return parser->data;
}

/* A span comes in pieces where the bytes did. False: something lies between them: a line that was folded. */
static bool input_extend(const struct http_input *in, struct http_span *span, const char *at, size_t n)
{
    uint32_t offset = (uint32_t)(at - in->base);
    if (span->length == 0)
        span->at = offset;
    else if (span->at + span->length != offset)
        return false;
    span->length += (uint32_t)n;
    return true;
}

static bool input_grow(struct http_input *in)
{
    if (!in->fields && in->spare->fields) {
        in->fields = in->spare->fields;
        in->capacity = in->spare->capacity;
        in->spare->fields = NULL;
        return true;
    }
    uint32_t capacity = in->capacity ? in->capacity * 2 : 8;
    void *fields = asio_http_core->mem->allocator->realloc(in->fields, capacity * sizeof *in->fields);
    if (!fields)
        return false;
    in->fields = fields;
    in->capacity = capacity;
    return true;
}

/* The fields have been copied, and there are no trailers to come. */
static void input_release(struct http_input *in)
{
    if (in->spare->fields) {
        asio_http_core->mem->allocator->free(in->fields);
    } else {
        in->spare->fields = in->fields;
        in->spare->capacity = in->capacity;
    }
    in->fields = NULL;
    in->capacity = in->count = in->head_count = 0;
}

static int input_refuse(struct http_input *in, int status)
{
    in->refusal = status;
    return -1;
}

/* llhttp skips carriage returns and line feeds before this. */
static int input_on_begin(llhttp_t *parser)
{
    input_of(parser)->begun = true;
    return 0;
}

static int input_on_start(llhttp_t *parser, const char *at, size_t n)
{
    struct http_input *in = input_of(parser);
    if (!input_extend(in, &in->start, at, n))
        return input_refuse(in, 400);
    return in->start.length <= in->max_target || parser->type == HTTP_RESPONSE ? 0 : input_refuse(in, 414);
}

static int input_on_name(llhttp_t *parser, const char *at, size_t n)
{
    struct http_input *in = input_of(parser);
    if (in->count == 0 || in->in_value) {
        if (in->count == in->max_fields)
            return input_refuse(in, 431);
        if (in->count == in->capacity && !input_grow(in))
            return input_refuse(in, 503);
        in->fields[in->count++] = (struct http_field){ 0 };
        in->in_value = false;
    }
    return input_extend(in, &in->fields[in->count - 1].name, at, n) ? 0 : input_refuse(in, 400);
}

static int input_on_value(llhttp_t *parser, const char *at, size_t n)
{
    struct http_input *in = input_of(parser);
    in->in_value = true;
    return input_extend(in, &in->fields[in->count - 1].value, at, n) ? 0 : input_refuse(in, 400);
}

static int input_on_value_complete(llhttp_t *parser)
{
    input_of(parser)->in_value = true; /* an empty one has no span */
    return 0;
}

/* The end of a head. RFC 9112, 6.3: a length in a response without a body tells what another one would have had. RFC
 * 9110, 7.8: an upgrade is the handler's business; without it the request is read as any other. */
static int input_on_head(llhttp_t *parser)
{
    struct http_input *in = input_of(parser);
    int status = parser->type == HTTP_RESPONSE ? parser->status_code : 0;
    if (parser->type == HTTP_RESPONSE && status < 100) /* llhttp takes fewer than three digits */
        return input_refuse(in, 400);
    if (in->no_body || (status >= 100 && status < 200) || status == 204 || status == 304)
        parser->flags |= F_SKIPBODY;
    if (parser->type != HTTP_REQUEST)
        return HPE_PAUSED;
    const struct http_request_head head = { in->base, in->start, in->fields, in->count, parser->http_major,
        parser->http_minor };
    int refusal = asio_http_check_request(&head);
    parser->upgrade = 0;
    return refusal == 0 ? HPE_PAUSED : input_refuse(in, refusal);
}

static int input_on_body(llhttp_t *parser, const char *at, size_t n)
{
    struct http_input *in = input_of(parser);
    in->body = (struct http_span){ (uint32_t)(at - in->base), (uint32_t)n };
    return HPE_PAUSED;
}

static int input_on_end(llhttp_t *parser)
{
    input_of(parser)->state = INPUT_OVER;
    input_of(parser)->begun = false;
    return HPE_PAUSED;
}

static const llhttp_settings_t input_settings = {
    .on_message_begin = input_on_begin,
    .on_url = input_on_start,
    .on_status = input_on_start,
    .on_header_field = input_on_name,
    .on_header_value = input_on_value,
    .on_header_value_complete = input_on_value_complete,
    .on_headers_complete = input_on_head,
    .on_body = input_on_body,
    .on_message_complete = input_on_end,
};

/* ---- looking ------------------------------------------------------------------------------- */

/* What has been fed is in order, beside what llhttp says. */
static bool input_framed(const struct http_input *in, const char *bytes, size_t to)
{
    if (in->state == INPUT_HEAD || in->parser.type == HTTP_RESPONSE || !(in->parser.flags & F_CHUNKED))
        return true;
    return asio_http_check_framing(bytes, in->fed, in->body.length > 0 ? in->body.at : to);
}

/* Feeds what is new. How many bytes make up what was looked for; 0: it is not complete; or an error. */
static ssize_t input_feed(struct http_input *in, const char *bytes, size_t n)
{
    if (in->paused)
        llhttp_resume(&in->parser);
    in->paused = false;
    in->base = bytes;
    llhttp_errno_t e = llhttp_execute(&in->parser, bytes + in->fed, n - in->fed);
    size_t to = e == HPE_PAUSED ? (size_t)(llhttp_get_error_pos(&in->parser) - bytes) : n;
    if ((e == HPE_OK || e == HPE_PAUSED) && !input_framed(in, bytes, to))
        e = HPE_STRICT;
    if (e == HPE_OK) {
        in->fed = n;
        return 0;
    }
    if (e != HPE_PAUSED) {
        bool version = e == HPE_INVALID_VERSION || e == HPE_PAUSED_H2_UPGRADE;
        in->refusal = in->refusal ? in->refusal : version ? 505 : 400;
        return UV_EPROTO;
    }
    in->paused = true;
    in->found = to;
    return (ssize_t)to;
}

static ssize_t input_look_head(struct asio_scan *scan, const char *bytes, size_t n, bool ended)
{
    struct http_input *in = (struct http_input *)(void *)scan;
    (void)ended;
    if (in->refusal)
        return UV_EPROTO;
    if (in->found > 0)
        return (ssize_t)in->found;
    ssize_t found = n > in->fed ? input_feed(in, bytes, n < in->max_head ? n : in->max_head) : 0;
    if (found == 0 && n >= in->max_head) {
        in->refusal = in->count == 0 && in->parser.type == HTTP_REQUEST ? 414 : 431;
        return UV_EPROTO;
    }
    return found;
}

/* A body that lasts until the end of the connection has no end of its own. */
static ssize_t input_look_body(struct asio_scan *scan, const char *bytes, size_t n, bool ended)
{
    struct http_input *in = (struct http_input *)(void *)scan;
    if (in->refusal)
        return UV_EPROTO;
    if (in->found > 0)
        return (ssize_t)in->found;
    in->body.length = 0;
    ssize_t found = n > in->fed ? input_feed(in, bytes, n) : 0;
    if (found == 0 && n >= in->max_head) { /* extensions of chunks, trailers */
        in->refusal = 431;
        return UV_EPROTO;
    }
    if (found != 0)
        return found;
    if (ended && in->state != INPUT_OVER && llhttp_message_needs_eof(&in->parser))
        in->state = INPUT_OVER;
    return 0;
}

/* What was looked for has been taken from the buffer. A message may be over without another byte. */
static void input_settle(struct http_input *in)
{
    in->fed = in->found = 0;
    llhttp_resume(&in->parser);
    in->paused = in->state != INPUT_OVER && llhttp_execute(&in->parser, "", 0) == HPE_PAUSED;
}

/* ---- Lua ----------------------------------------------------------------------------------- */

static struct http_input *input_check(lua_State *L, int index)
{
    struct http_input *in = lua_touserdata(L, index);
    if (!in || lua_objlen(L, index) != sizeof *in || in->magic != &input_magic)
        asio_http_core->error->misuse(L, "not an input of HTTP");
    return in;
}

void asio_http_input_closing(lua_State *L, int index)
{
    input_check(L, index)->closing = true;
}

static int l_input_gc(lua_State *L)
{
    struct http_input *in = input_check(L, 1);
    asio_http_core->mem->allocator->free(in->fields);
    in->fields = NULL;
    in->capacity = in->count = 0;
    return 0;
}

int asio_http_l_input(lua_State *L)
{
    lua_settop(L, 4);
    struct http_input *in = lua_newuserdata(L, sizeof *in);
    memset(in, 0, sizeof *in);
    in->magic = &input_magic;
    llhttp_init(&in->parser, lua_toboolean(L, 1) ? HTTP_RESPONSE : HTTP_REQUEST, &input_settings);
    in->parser.data = in;
    in->max_head = (uint32_t)lua_tonumber(L, 2);
    in->max_fields = (uint32_t)lua_tonumber(L, 3);
    in->max_target = lua_isnil(L, 4) ? in->max_head : (uint32_t)lua_tonumber(L, 4);
    lua_pushlightuserdata(L, (void *)&input_magic);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_getfield(L, -1, "spare");
    in->spare = lua_touserdata(L, -1);
    lua_pop(L, 1);
    lua_setmetatable(L, -2);
    return 1;
}

/* Its length: nil, there is none; -1, it ends by itself or with the connection. */
static void input_push_length(lua_State *L, struct http_input *in)
{
    if (in->state == INPUT_OVER)
        lua_pushnil(L);
    else if (in->parser.flags & F_CHUNKED || !(in->parser.flags & F_CONTENT_LENGTH))
        lua_pushinteger(L, -1);
    else
        lua_pushnumber(L, (lua_Number)in->parser.content_length);
}

static int input_push_head(lua_State *L, struct asio_scan *scan, const char *bytes, size_t n)
{
    struct http_input *in = (struct http_input *)(void *)scan;
    bool response = in->parser.type == HTTP_RESPONSE;
    luaL_checkstack(L, 10, "no room for a head");
    asio_http_head_push(L, in->fields, in->count, bytes, (uint32_t)n);
    if (response)
        lua_pushinteger(L, in->parser.status_code);
    else
        lua_pushstring(L, llhttp_method_name((llhttp_method_t)in->parser.method));
    lua_pushlstring(L, bytes + in->start.at, in->start.length);
    lua_pushinteger(L, in->parser.http_minor);
    lua_pushboolean(L, llhttp_should_keep_alive(&in->parser));
    in->head_count = in->count;
    if (in->state == INPUT_HEAD) { /* not again, if there was no memory for the first time */
        in->state = INPUT_BODY;
        input_settle(in);
    }
    in->fed = in->found = 0;
    input_push_length(L, in);
    if (in->state == INPUT_OVER)
        input_release(in);
    return 6;
}

static void input_begin(struct http_input *in)
{
    in->state = INPUT_HEAD;
    in->start = in->body = (struct http_span){ 0 };
    in->count = 0;
    in->in_value = false;
    in->scan.look = input_look_head;
    in->scan.push = input_push_head;
}

int asio_http_l_read_head(lua_State *L)
{
    struct asio_stream *s = asio_http_core->stream->stream_at(L, 1);
    struct http_input *in = input_check(L, 2);
    int n = asio_http_core->wait->interrupt(L, lua_touserdata(L, lua_upvalueindex(1)));
    if (n > 0)
        return n;
    if (!s)
        return asio_http_core->wait->push_fail(L, UV_EBADF);
    if (in->closing)
        return asio_http_core->wait->push_fail(L, UV_EOF);
    if (in->state == INPUT_BODY) /* the last one is not read to its end */
        return asio_http_core->wait->push_fail(L, UV_EBUSY);
    if (in->state == INPUT_OVER || in->scan.look != input_look_head)
        input_begin(in);
    in->no_body = lua_toboolean(L, 3);
    return asio_http_core->stream->scan(L, s, &in->scan);
}

static int input_push_body(lua_State *L, struct asio_scan *scan, const char *bytes, size_t n)
{
    struct http_input *in = (struct http_input *)(void *)scan;
    luaL_checkstack(L, 8, "no room for trailers");
    if (in->body.length > 0)
        lua_pushlstring(L, bytes + in->body.at, in->body.length);
    else
        lua_pushnil(L);
    if (in->state == INPUT_BODY)
        input_settle(in);
    in->fed = in->found = 0;
    lua_pushboolean(L, in->state == INPUT_OVER);
    if (in->state != INPUT_OVER || in->count == in->head_count)
        return 2;
    asio_http_head_push(L, in->fields + in->head_count, in->count - in->head_count, bytes, (uint32_t)n);
    return 3;
}

int asio_http_l_read_body(lua_State *L)
{
    struct asio_stream *s = asio_http_core->stream->stream_at(L, 1);
    struct http_input *in = input_check(L, 2);
    int n = asio_http_core->wait->interrupt(L, lua_touserdata(L, lua_upvalueindex(1)));
    if (n > 0)
        return n;
    if (in->state == INPUT_OVER) {
        asio_http_core->wait->push_ok(L, lua_touserdata(L, lua_upvalueindex(1)));
        lua_pushnil(L);
        return 2;
    }
    if (!s || in->state == INPUT_HEAD)
        return asio_http_core->wait->push_fail(L, UV_EBADF);
    in->scan.look = input_look_body;
    in->scan.push = input_push_body;
    return asio_http_core->stream->scan(L, s, &in->scan);
}

int asio_http_l_refusal(lua_State *L)
{
    struct http_input *in = input_check(L, 1);
    const char *reason = llhttp_get_error_reason(&in->parser);
    lua_pushinteger(L, in->refusal);
    lua_pushstring(L, reason ? reason : "");
    return 2;
}

int asio_http_l_state(lua_State *L)
{
    static const char *const names[] = { "head", "body", "over" };
    struct http_input *in = input_check(L, 1);
    lua_pushstring(L, names[in->state]);
    lua_pushboolean(L, in->begun);
    return 2;
}

static int l_input_spare_gc(lua_State *L)
{
    struct input_spare *spare = lua_touserdata(L, 1);
    asio_http_core->mem->allocator->free(spare->fields);
    spare->fields = NULL;
    return 0;
}

static void input_push_spare(lua_State *L)
{
    struct input_spare *spare = lua_newuserdata(L, sizeof *spare);
    *spare = (struct input_spare){ 0 };
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_input_spare_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
}

void asio_http_input_open(lua_State *L, struct asio_rt *rt)
{
    lua_pushlightuserdata(L, (void *)&input_magic);
    lua_createtable(L, 0, 2);
    input_push_spare(L);
    lua_setfield(L, -2, "spare");
    lua_pushlightuserdata(L, rt);
    lua_pushcclosure(L, l_input_gc, 1);
    lua_setfield(L, -2, "__gc");
    lua_rawset(L, LUA_REGISTRYINDEX);
}
