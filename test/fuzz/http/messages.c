/* SPDX-License-Identifier: MIT
 *
 * A part of http_fuzz.c: reads messages whole and in pieces, and looks whether all ways say the same. */

/* No message reaches a limit: which of two faults is named would depend on the pieces. */
enum { MOST = 1500, SAID = 1 << 16, MAX_HEAD = 4000, MAX_FIELDS = 400 };

static const struct asio_allocator allocator = { malloc, realloc, free };
static const struct asio_plugin_mem mem = { .allocator = &allocator };
static const struct asio_plugin core = { .mem = &mem };
const struct asio_plugin *asio_http_core = &core;

static unsigned long accepted, refused;

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
    size_t piece = from->pieces == 0 ? left : from->pieces == 1 ? 1 : 1 + number(&cutting, from->pieces);
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

/* What two programs could read differently is not accepted. */
static void check_accepted(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check(bytes[i] != 0, "a NUL in a head");
        check(bytes[i] != '\n' || (i > 0 && bytes[i - 1] == '\r'), "a bare line feed in a head");
        check(bytes[i] != '\r' || (i + 1 < n && bytes[i + 1] == '\n'), "a bare carriage return in a head");
    }
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
    accepted++;
    if (!in->response)
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

static void read_all(const char *bytes, size_t n, bool responses, unsigned pieces, struct account *a)
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
    check(!in->work || in->work->capacity <= 2 * MAX_FIELDS, "more fields than there may be");
    lua_settop(L, 0);
    lua_gc(L, LUA_GCCOLLECT, 0); /* what is left is a leak */
}

static void try_message(const char *bytes, size_t n, bool responses)
{
    static struct account whole, other;
    read_all(bytes, n, responses, 0, &whole);
    for (unsigned pieces = 1; pieces < 60; pieces += 29) {
        read_all(bytes, n, responses, pieces, &other);
        if (other.length == whole.length && memcmp(other.text, whole.text, whole.length) == 0)
            continue;
        printf("%.*s\n--\n%.*s\n--\n%.*s\n", (int)n, bytes, (int)whole.length, whole.text, (int)other.length,
            other.text);
        check(false, "in pieces it is something else");
    }
}

static void try_request(const char *bytes, size_t n)
{
    try_message(bytes, n, false);
}

static void try_response(const char *bytes, size_t n)
{
    try_message(bytes, n, true);
}
