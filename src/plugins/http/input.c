/* SPDX-License-Identifier: MIT
 *
 * What comes in: llhttp over the stream's own buffer. A head stays in the buffer until it is complete, then it is copied
 * once; a body is handed on in the pieces that come. The parser pauses behind a head, behind each piece of a body, and
 * at the end of a message, so that the bytes of the next one stay in the buffer. */
#include "plugins/http/http.h"

#include <string.h>

enum input_state { INPUT_HEAD, INPUT_BODY, INPUT_OVER };

/* What an input has while it reads a message; idle connections have none. Begins with the first bytes. */
struct input_work {
    llhttp_t parser;  /* its `data` is the input */
    const char *base; /* where the buffer lies during a look */
    size_t fed;       /* bytes at its front that the parser has seen */
    size_t found;     /* what the last look found, until it is pushed: a cancel may come between the two */
    bool begun;       /* a byte of the message has come, not only of empty lines before it */
    bool in_value, paused;  /* the last span was of a value; */
    struct http_span start; /* target, or reason */
    struct http_span body;
    uint32_t count, capacity; /* of fields */
    uint32_t head_count;      /* fields behind these are trailers */
    struct http_field *fields;
};

/* One that no input needs now. Lifetime: a userdata of the Lua state, anchored by the metatable of inputs; owns `work`. */
struct input_spare {
    struct input_work *work;
};

/* Lifetime: a userdata, an argument of the waiting function while the parser is in use; owns `work`. */
struct http_input {
    struct asio_scan scan;     /* first */
    struct input_work *work;   /* NULL: no byte of a message has come, or it is over */
    struct input_spare *spare; /* of its Lua state */
    uint16_t max_head, max_fields, max_target;
    uint16_t refusal : 10; /* status with which to answer; 0: none */
    uint16_t state : 2;
    uint16_t response : 1;
    uint16_t closing : 1; /* of a server: the answer said Connection: close */
    uint16_t no_body : 1; /* of the response: it answers HEAD */
};

static const char input_key = 0; /* its address: the registry's key of the metatable */

/* ---- callbacks of llhttp ------------------------------------------------------------------- */

static struct http_input *input_of(llhttp_t *parser)
{
    return parser->data;
}

/* A span comes in pieces where the bytes did. False: something lies between them: a line that was folded. */
static bool input_extend(const struct http_input *in, struct http_span *span, const char *at, size_t n)
{
    uint32_t offset = (uint32_t)(at - in->work->base);
    if (span->length == 0)
        span->at = offset;
    else if (span->at + span->length != offset)
        return false;
    span->length += (uint32_t)n;
    return true;
}

static bool input_grow(struct input_work *w)
{
    uint32_t capacity = w->capacity ? w->capacity * 2 : 8;
    void *fields = asio_http_core->mem->allocator->realloc(w->fields, capacity * sizeof *w->fields);
    if (!fields)
        return false;
    w->fields = fields;
    w->capacity = capacity;
    return true;
}

static int input_refuse(struct http_input *in, int status)
{
    in->refusal = (uint16_t)status & 1023;
    return -1;
}

/* llhttp skips carriage returns and line feeds before this. */
static int input_on_begin(llhttp_t *parser)
{
    input_of(parser)->work->begun = true;
    return 0;
}

static int input_on_start(llhttp_t *parser, const char *at, size_t n)
{
    struct http_input *in = input_of(parser);
    struct http_span *start = &in->work->start;
    if (!input_extend(in, start, at, n))
        return input_refuse(in, 400);
    return start->length <= in->max_target || in->response ? 0 : input_refuse(in, 414);
}

static int input_on_name(llhttp_t *parser, const char *at, size_t n)
{
    struct http_input *in = input_of(parser);
    struct input_work *w = in->work;
    if (w->count == 0 || w->in_value) {
        if (w->count == in->max_fields)
            return input_refuse(in, 431);
        if (w->count == w->capacity && !input_grow(w))
            return input_refuse(in, 503);
        w->fields[w->count++] = (struct http_field){ 0 };
        w->in_value = false;
    }
    return input_extend(in, &w->fields[w->count - 1].name, at, n) ? 0 : input_refuse(in, 400);
}

static int input_on_value(llhttp_t *parser, const char *at, size_t n)
{
    struct http_input *in = input_of(parser);
    struct input_work *w = in->work;
    w->in_value = true;
    return input_extend(in, &w->fields[w->count - 1].value, at, n) ? 0 : input_refuse(in, 400);
}

static int input_on_value_complete(llhttp_t *parser)
{
    input_of(parser)->work->in_value = true; /* an empty one has no span */
    return 0;
}

/* The end of a head. RFC 9112, 6.3: a length in a response without a body tells what another one would have had. RFC
 * 9110, 7.8: an upgrade is the handler's business; without it the request is read as any other. */
static int input_on_head(llhttp_t *parser)
{
    struct http_input *in = input_of(parser);
    const struct input_work *w = in->work;
    int status = in->response ? parser->status_code : 0;
    if (in->response && status < 100) /* llhttp takes fewer than three digits */
        return input_refuse(in, 400);
    if (in->no_body || (status >= 100 && status < 200) || status == 204 || status == 304)
        parser->flags |= F_SKIPBODY;
    if (in->response)
        return HPE_PAUSED;
    const struct http_request_head head = { w->base, w->start, w->fields, w->count, parser->http_major,
        parser->http_minor };
    int refusal = asio_http_check_request(&head);
    parser->upgrade = 0;
    return refusal == 0 ? HPE_PAUSED : input_refuse(in, refusal);
}

static int input_on_body(llhttp_t *parser, const char *at, size_t n)
{
    struct input_work *w = input_of(parser)->work;
    w->body = (struct http_span){ (uint32_t)(at - w->base), (uint32_t)n };
    return HPE_PAUSED;
}

static int input_on_end(llhttp_t *parser)
{
    input_of(parser)->state = INPUT_OVER;
    input_of(parser)->work->begun = false;
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

static void input_free(struct input_work *w)
{
    if (w)
        asio_http_core->mem->allocator->free(w->fields);
    asio_http_core->mem->allocator->free(w);
}

/* NULL: out of memory. */
static struct input_work *input_acquire(struct http_input *in)
{
    struct input_work *w = in->spare->work;
    struct http_field *fields = w ? w->fields : NULL;
    uint32_t capacity = w ? w->capacity : 0;
    in->spare->work = NULL;
    if (!w)
        w = asio_http_core->mem->allocator->malloc(sizeof *w);
    if (!w)
        return NULL;
    *w = (struct input_work){ .fields = fields, .capacity = capacity };
    llhttp_init(&w->parser, in->response ? HTTP_RESPONSE : HTTP_REQUEST, &input_settings);
    w->parser.data = in;
    return in->work = w;
}

/* The message is over, and what was found has been pushed. */
static void input_release(struct http_input *in)
{
    if (in->spare->work)
        input_free(in->work);
    else
        in->spare->work = in->work;
    in->work = NULL;
}

/* What has been fed is in order, beside what llhttp says. */
static bool input_framed(const struct http_input *in, const char *bytes, size_t to)
{
    const struct input_work *w = in->work;
    if (in->state == INPUT_HEAD || in->response || !(w->parser.flags & F_CHUNKED))
        return true;
    return asio_http_check_framing(bytes, w->fed, w->body.length > 0 ? w->body.at : to);
}

/* Feeds what is new. How many bytes make up what was looked for; 0: it is not complete; or an error. */
static ssize_t input_feed(struct http_input *in, const char *bytes, size_t n)
{
    struct input_work *w = in->work;
    if (w->paused)
        llhttp_resume(&w->parser);
    w->paused = false;
    w->base = bytes;
    llhttp_errno_t e = llhttp_execute(&w->parser, bytes + w->fed, n - w->fed);
    size_t to = e == HPE_PAUSED ? (size_t)(llhttp_get_error_pos(&w->parser) - bytes) : n;
    if ((e == HPE_OK || e == HPE_PAUSED) && !input_framed(in, bytes, to))
        e = HPE_STRICT;
    if (e == HPE_OK) {
        w->fed = n;
        return 0;
    }
    if (e != HPE_PAUSED) {
        bool version = e == HPE_INVALID_VERSION || e == HPE_PAUSED_H2_UPGRADE;
        in->refusal = in->refusal ? in->refusal : version ? 505 : 400;
        return UV_EPROTO;
    }
    w->paused = true;
    w->found = to;
    return (ssize_t)to;
}

static ssize_t input_look_head(struct asio_scan *scan, const char *bytes, size_t n, bool ended)
{
    struct http_input *in = (struct http_input *)(void *)scan;
    (void)ended;
    if (in->refusal)
        return UV_EPROTO;
    if (n == 0)
        return 0;
    const struct input_work *w = in->work ? in->work : input_acquire(in);
    if (!w) {
        in->refusal = 503;
        return UV_EPROTO;
    }
    if (w->found > 0)
        return (ssize_t)w->found;
    ssize_t found = n > w->fed ? input_feed(in, bytes, n < in->max_head ? n : in->max_head) : 0;
    if (found == 0 && n >= in->max_head) {
        in->refusal = w->count == 0 && !in->response ? 414 : 431;
        return UV_EPROTO;
    }
    return found;
}

/* A body that lasts until the end of the connection has no end of its own. */
static ssize_t input_look_body(struct asio_scan *scan, const char *bytes, size_t n, bool ended)
{
    struct http_input *in = (struct http_input *)(void *)scan;
    struct input_work *w = in->work;
    if (in->refusal)
        return UV_EPROTO;
    if (w->found > 0)
        return (ssize_t)w->found;
    w->body.length = 0;
    ssize_t found = n > w->fed ? input_feed(in, bytes, n < UINT16_MAX ? n : UINT16_MAX) : 0;
    if (found == 0 && n >= in->max_head) { /* extensions of chunks, trailers */
        in->refusal = 431;
        return UV_EPROTO;
    }
    if (found != 0)
        return found;
    if (ended && in->state != INPUT_OVER && llhttp_message_needs_eof(&w->parser))
        in->state = INPUT_OVER;
    return 0;
}

/* What was looked for has been taken from the buffer. A message may be over without another byte. */
static void input_settle(struct http_input *in)
{
    struct input_work *w = in->work;
    w->fed = w->found = 0;
    llhttp_resume(&w->parser);
    w->paused = in->state != INPUT_OVER && llhttp_execute(&w->parser, "", 0) == HPE_PAUSED;
}

/* ---- Lua ----------------------------------------------------------------------------------- */

static struct http_input *input_check(lua_State *L, int index)
{
    struct http_input *in = lua_touserdata(L, index);
    if (!in || lua_objlen(L, index) != sizeof *in ||
        (in->scan.look != input_look_head && in->scan.look != input_look_body))
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
    input_free(in->work);
    in->work = NULL;
    return 0;
}

/* Its length: nil, there is none; -1, it ends by itself or with the connection. */
static void input_push_length(lua_State *L, const struct http_input *in)
{
    const llhttp_t *parser = &in->work->parser;
    if (in->state == INPUT_OVER)
        lua_pushnil(L);
    else if (parser->flags & F_CHUNKED || !(parser->flags & F_CONTENT_LENGTH))
        lua_pushinteger(L, -1);
    else
        lua_pushnumber(L, (lua_Number)parser->content_length);
}

/* RFC 9112, 9.3: `close` counts, whatever else is there; llhttp looks for it in HTTP/1.1 alone. */
static bool input_keeps_alive(const llhttp_t *parser)
{
    return llhttp_should_keep_alive(parser) && !(parser->flags & F_CONNECTION_CLOSE);
}

static int input_push_head(lua_State *L, struct asio_scan *scan, const char *bytes, size_t n)
{
    struct http_input *in = (struct http_input *)(void *)scan;
    struct input_work *w = in->work;
    (void)n;
    luaL_checkstack(L, 10, "no room for a head");
    asio_http_head_push(L, w->fields, w->count, bytes);
    if (in->response)
        lua_pushinteger(L, w->parser.status_code);
    else
        lua_pushstring(L, llhttp_method_name((llhttp_method_t)w->parser.method));
    lua_pushlstring(L, bytes + w->start.at, w->start.length);
    lua_pushinteger(L, w->parser.http_minor);
    lua_pushboolean(L, input_keeps_alive(&w->parser));
    w->head_count = w->count;
    if (in->state == INPUT_HEAD) { /* not again, if there was no memory for the first time */
        in->state = INPUT_BODY;
        input_settle(in);
    }
    w->fed = w->found = 0;
    input_push_length(L, in);
    if (in->state == INPUT_OVER)
        input_release(in);
    return 6;
}

static void input_begin(struct http_input *in)
{
    if (in->work) /* the last message was over with the connection's end */
        input_release(in);
    in->state = INPUT_HEAD;
    in->scan.look = input_look_head;
    in->scan.push = input_push_head;
}

static uint16_t input_limit(lua_State *L, int index)
{
    double value = lua_tonumber(L, index);
    return (uint16_t)(value < UINT16_MAX ? value : UINT16_MAX);
}

int asio_http_l_input(lua_State *L)
{
    lua_settop(L, 4);
    struct http_input *in = lua_newuserdata(L, sizeof *in);
    memset(in, 0, sizeof *in);
    input_begin(in);
    in->response = lua_toboolean(L, 1) != 0;
    in->max_head = input_limit(L, 2);
    in->max_fields = input_limit(L, 3);
    in->max_target = lua_isnil(L, 4) ? in->max_head : input_limit(L, 4);
    lua_pushlightuserdata(L, (void *)&input_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_getfield(L, -1, "spare");
    in->spare = lua_touserdata(L, -1);
    lua_pop(L, 1);
    lua_setmetatable(L, -2);
    return 1;
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
    in->no_body = lua_toboolean(L, 3) != 0;
    return asio_http_core->stream->scan(L, s, &in->scan);
}

static int input_push_body(lua_State *L, struct asio_scan *scan, const char *bytes, size_t n)
{
    struct http_input *in = (struct http_input *)(void *)scan;
    struct input_work *w = in->work;
    int results = 2;
    (void)n;
    luaL_checkstack(L, 8, "no room for trailers");
    if (w->body.length > 0)
        lua_pushlstring(L, bytes + w->body.at, w->body.length);
    else
        lua_pushnil(L);
    if (in->state == INPUT_BODY)
        input_settle(in);
    w->fed = w->found = 0;
    lua_pushboolean(L, in->state == INPUT_OVER);
    if (in->state != INPUT_OVER)
        return results;
    if (w->count > w->head_count) {
        asio_http_head_push(L, w->fields + w->head_count, w->count - w->head_count, bytes);
        results++;
    }
    input_release(in);
    return results;
}

int asio_http_l_read_body(lua_State *L)
{
    struct asio_stream *s = asio_http_core->stream->stream_at(L, 1);
    struct http_input *in = input_check(L, 2);
    int n = asio_http_core->wait->interrupt(L, lua_touserdata(L, lua_upvalueindex(1)));
    if (n > 0)
        return n;
    bool left = in->work && in->work->found > 0; /* its end, which there was no memory to push */
    if (in->state == INPUT_OVER && !left) {
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
    const char *reason = in->work ? llhttp_get_error_reason(&in->work->parser) : NULL;
    lua_pushinteger(L, in->refusal);
    lua_pushstring(L, reason ? reason : "");
    return 2;
}

int asio_http_l_state(lua_State *L)
{
    static const char *const names[] = { "head", "body", "over" };
    struct http_input *in = input_check(L, 1);
    lua_pushstring(L, names[in->state]);
    lua_pushboolean(L, in->work && in->work->begun);
    return 2;
}

static int l_input_spare_gc(lua_State *L)
{
    struct input_spare *spare = lua_touserdata(L, 1);
    input_free(spare->work);
    spare->work = NULL;
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
    lua_pushlightuserdata(L, (void *)&input_key);
    lua_createtable(L, 0, 2);
    input_push_spare(L);
    lua_setfield(L, -2, "spare");
    lua_pushlightuserdata(L, rt);
    lua_pushcclosure(L, l_input_gc, 1);
    lua_setfield(L, -2, "__gc");
    lua_rawset(L, LUA_REGISTRYINDEX);
}
