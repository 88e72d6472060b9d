/* SPDX-License-Identifier: MIT
 *
 * http_fuzz request|response [ROUNDS [SEED]]: feeds what reads messages (src/plugins/http/input.c, check.c) with good
 * ones, several behind one another, and with mangled ones: whole, byte by byte, and in pieces, each look in a block of
 * exactly its size. All three have to say the same. The sanitizers find what reads elsewhere. With -DLIBFUZZER, and
 * clang's -fsanitize=fuzzer, libFuzzer makes the messages: see test/http/http_fuzz_test.lua. */
#include "plugins/http/check.c"
#include "plugins/http/head.c"
#include "plugins/http/input.c"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

/* No message reaches a limit: which of two faults is named would depend on the pieces. */
enum { MOST = 1500, SAID = 1 << 16, MAX_HEAD = 4000, MAX_FIELDS = 400 };

static const struct asio_allocator allocator = { malloc, realloc, free };
static const struct asio_plugin_mem mem = { .allocator = &allocator };
static const struct asio_plugin core = { .mem = &mem };
const struct asio_plugin *asio_http_core = &core;

static lua_State *L;
static bool responses;
static uint64_t state = 88172645463325252u; /* xorshift: the same on every machine */
static unsigned long accepted, refused;

static unsigned number(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 33) % below;
}

static void check(bool holds, const char *what)
{
    if (holds)
        return;
    printf("%s\n", what);
    fflush(stdout);
    abort();
}

/* ---- reading ------------------------------------------------------------------------------ */

/* What has come so far of a message that comes in pieces. */
struct arrival {
    const char *bytes;
    size_t taken, there, n;
    unsigned pieces; /* 0: all at once; 1: byte by byte; else up to so many at a time */
};

/* What one way of reading has found, as text. */
struct account {
    char text[SAID];
    size_t length;
};

static void say(struct account *a, const char *bytes, size_t n)
{
    check(a->length + n <= SAID, "too much is found");
    memcpy(a->text + a->length, bytes, n);
    a->length += n;
}

static void say_number(struct account *a, const char *what, long value)
{
    char text[64];
    say(a, text, (size_t)snprintf(text, sizeof text, "|%s %ld", what, value));
}

static bool more(struct arrival *from)
{
    if (from->there == from->n)
        return false;
    size_t left = from->n - from->there;
    size_t piece = from->pieces == 0 ? left : from->pieces == 1 ? 1 : 1 + number(from->pieces);
    from->there += piece < left ? piece : left;
    return true;
}

/* Looks until something is found; pushes it. The bytes that it took; 0: the end has come; or an error. */
static ssize_t find(struct http_input *in, struct arrival *from)
{
    for (;;) {
        size_t n = from->there - from->taken;
        bool ended = from->there == from->n;
        char *copy = malloc(n ? n : 1); /* no byte more */
        memcpy(copy, from->bytes + from->taken, n);
        ssize_t found = in->scan.look(&in->scan, copy, n, ended);
        check(found <= (ssize_t)n, "more is found than there is");
        if (found > 0) {
            int results = in->scan.push(L, &in->scan, copy, (size_t)found);
            check(results == lua_gettop(L) - 1, "a wrong number of results");
            from->taken += (size_t)found;
        }
        free(copy);
        if (found != 0 || !more(from))
            return found;
    }
}

/* What two programs could read differently is not accepted. Line ends in front of a request are skipped. */
static void check_accepted(const char *bytes, size_t n)
{
    while (n > 0 && (*bytes == '\r' || *bytes == '\n')) {
        bytes++;
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        check(bytes[i] != 0, "a NUL in a head");
        check(bytes[i] != '\n' || (i > 0 && bytes[i - 1] == '\r'), "a bare line feed in a head");
        check(bytes[i] != '\r' || (i + 1 < n && bytes[i + 1] == '\n'), "a bare carriage return in a head");
    }
    accepted++;
}

static void say_head(struct account *a)
{
    const struct http_head *h = lua_touserdata(L, 2);
    size_t size = lua_objlen(L, 2) - (size_t)(head_bytes(h) - (const char *)h);
    say_number(a, "fields", h->count);
    for (uint32_t i = 0; i < h->count; i++) {
        const struct head_field *f = &h->fields[i];
        check(f->name.at + f->name.length <= size && f->value.at + f->value.length <= size,
            "a field that is elsewhere");
        const char *bytes = (const char *)&h->fields[h->count];
        say(a, bytes + f->name.at, f->name.length);
        say(a, "=", 1);
        say(a, bytes + f->value.at, f->value.length);
    }
    for (int i = 3; i <= 7; i++) {
        size_t n = 0;
        const char *text =
            lua_isboolean(L, i) ? (lua_toboolean(L, i) ? "true" : "false") : lua_tolstring(L, i, &n);
        say(a, "|", 1);
        say(a, text ? text : "nil", text ? (n ? n : strlen(text)) : 3);
    }
}

/* False: no further message can follow. */
static bool read_message(struct http_input *in, struct arrival *from, struct account *a)
{
    input_begin(in);
    size_t begin = from->taken;
    ssize_t found = find(in, from);
    if (found <= 0) {
        say_number(a, "no head", found < 0 ? in->refusal : 0);
        refused += found < 0;
        return false;
    }
    if (!responses)
        check_accepted(from->bytes + begin, (size_t)found);
    say_head(a);
    lua_settop(L, 1);
    say(a, "|body ", 6);
    while (in->state == INPUT_BODY) {
        in->scan.look = input_look_body;
        in->scan.push = input_push_body;
        found = find(in, from);
        if (found <= 0)
            break;
        size_t n = 0;
        const char *piece = lua_tolstring(L, 2, &n);
        say(a, piece ? piece : "", n);
        lua_settop(L, 1);
    }
    say_number(a, "over", in->state == INPUT_OVER);
    say_number(a, "refused", found < 0 ? in->refusal : 0);
    return in->state == INPUT_OVER;
}

static void read_all(const char *bytes, size_t n, unsigned pieces, struct account *a)
{
    struct arrival from = { .bytes = bytes, .n = n, .pieces = pieces };
    a->length = 0;
    lua_settop(L, 0);
    lua_pushcfunction(L, asio_http_l_input);
    lua_pushboolean(L, responses);
    lua_pushinteger(L, MAX_HEAD);
    lua_pushinteger(L, MAX_FIELDS);
    lua_call(L, 3, 1);
    struct http_input *in = lua_touserdata(L, 1);
    more(&from);
    while (read_message(in, &from, a))
        if (from.taken == from.n)
            break;
    lua_settop(L, 0);
}

static void try_message(const char *bytes, size_t n)
{
    static struct account whole, other;
    read_all(bytes, n, 0, &whole);
    for (unsigned pieces = 1; pieces < 60; pieces += 29) {
        read_all(bytes, n, pieces, &other);
        if (other.length == whole.length && memcmp(other.text, whole.text, whole.length) == 0)
            continue;
        printf("%.*s\n--\n%.*s\n--\n%.*s\n", (int)n, bytes, (int)whole.length, whole.text, (int)other.length,
            other.text);
        check(false, "in pieces it is something else");
    }
}

static void open_state(void)
{
    L = luaL_newstate();
    asio_http_head_open(L, NULL);
    asio_http_input_open(L, NULL);
    lua_settop(L, 0);
}

#ifdef LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (!L)
        open_state();
    responses = n > 0 && bytes[0] == 'H';
    if (n <= MOST)
        try_message((const char *)bytes, n);
    lua_gc(L, LUA_GCCOLLECT, 0); /* what is left is a leak */
    return 0;
}

#else

/* ---- making ------------------------------------------------------------------------------- */

static const char *const requests[] = { "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET http://x.test/a?b=c HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nX-Sum: "
    "1\r\n\r\n",
    "PUT /long HTTP/1.1\r\nhost:x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT x.test:443 HTTP/1.1\r\nHost: x.test:443\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: \r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" };
static const char *const answers[] = { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.1 500 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" };
static const char *const tokens[] = { "\r\n", "\n", "\r", "\r\n\r\n", " ", "\t", ":", "0\r\n\r\n", "0",
    "\r\n x", "Transfer-Encoding: chunked\r\n", "Content-Length: 3\r\n", "Host: y\r\n", "HTTP/1.1",
    "HTTP/1.0", ";", ",", "18446744073709551616", "ffffffffffffffff\r\n", "Connection: close\r\n", "X:\r\n" };

static const char *one_of(const char *const *list, size_t size)
{
    return list[number((unsigned)size)];
}

static size_t make(char *to)
{
    size_t n = 0;
    for (unsigned i = 1 + number(3); i > 0; i--) {
        const char *message = responses ? one_of(answers, sizeof answers / sizeof *answers)
                                        : one_of(requests, sizeof requests / sizeof *requests);
        memcpy(to + n, message, strlen(message));
        n += strlen(message);
    }
    return n;
}

static void insert(char *bytes, size_t *n, size_t at, const char *what, size_t length)
{
    if (*n + length > MOST)
        return;
    memmove(bytes + at + length, bytes + at, *n - at);
    memcpy(bytes + at, what, length);
    *n += length;
}

static void mangle(char *bytes, size_t *n)
{
    for (unsigned i = number(5); i > 0 && *n > 1; i--) {
        size_t at = number((unsigned)*n), length = 1 + number(8);
        const char *token = one_of(tokens, sizeof tokens / sizeof *tokens);
        char byte = (char)number(256), copy[8];
        switch (number(5)) {
        case 0:
            bytes[at] = byte;
            break;
        case 1:
            insert(bytes, n, at, &byte, 1);
            break;
        case 2:
            insert(bytes, n, at, token, strlen(token));
            break;
        case 3:
            length = length < *n - at ? length : *n - at;
            memmove(bytes + at, bytes + at + length, *n - at - length);
            *n -= length;
            break;
        default:
            length = length < *n - at ? length : *n - at;
            memcpy(copy, bytes + at, length);
            insert(bytes, n, number((unsigned)*n), copy, length);
        }
    }
}

int main(int argc, char **argv)
{
    static char bytes[MOST];
    long rounds = argc > 2 ? atol(argv[2]) : 20000;
    responses = argc > 1 && strcmp(argv[1], "response") == 0;
    state += argc > 3 ? (uint64_t)atol(argv[3]) : 0;
    open_state();
    for (long round = 0; round < rounds; round++) {
        size_t n = make(bytes);
        mangle(bytes, &n);
        try_message(bytes, n);
    }
    lua_close(L);
    printf("%ld rounds\n", rounds);
    if (getenv("HTTP_FUZZ_COUNTS"))
        printf("%lu accepted, %lu refused\n", accepted, refused);
    return 0;
}

#endif
