/* SPDX-License-Identifier: MIT
 *
 * Mode layers: streams over streams (stream/layer.c), by a codec that has all that TLS has: a greeting before which
 * nothing can be written, records, an end of its own, bytes that are changed. Scripts (layers.lua) get it as
 * host.scramble(conn). Every case runs in a state of its own, which is closed at its end whatever still goes on. */
#include "host.h"

#include "stream/conn.h"
#include "stream/layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECONDS = 20, PAYLOAD = 4000, HEAD = 2, KEY = 0x5a, GREETING = 0xffff, ASK = 0xfffe, END = 0 };

/* A record: its length, the high byte first, then its bytes. GREETING, ASK and END are records without bytes; ASK is
 * answered with a long one. */
struct scramble {
    struct asio_layer *layer;
    bool greeted, ended;
    size_t held; /* bytes of a record that is not complete */
    char record[HEAD + PAYLOAD];
};

static void scramble_bytes(char *to, const char *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (char)(from[i] ^ KEY);
}

static int send_record(struct scramble *x, unsigned head, const char *bytes, size_t n)
{
    char record[HEAD + PAYLOAD];
    record[0] = (char)(head >> 8);
    record[1] = (char)head;
    scramble_bytes(record + HEAD, bytes, n);
    return asio_layer.send(x->layer, record, HEAD + n);
}

static ssize_t scramble_encode(void *state, const char *bytes, size_t n)
{
    struct scramble *x = state;
    if (!x->greeted)
        return asio_layer.read(x->layer) < 0 ? UV_EPROTO : UV_EAGAIN;
    size_t piece = n < PAYLOAD ? n : PAYLOAD;
    int status = send_record(x, (unsigned)piece, bytes, piece);
    return status < 0 ? status : (ssize_t)piece;
}

static unsigned head_of(const struct scramble *x)
{
    return (unsigned char)x->record[0] << 8 | (unsigned char)x->record[1];
}

/* A record is complete. User code runs. */
static void take_record(struct scramble *x)
{
    unsigned head = head_of(x);
    char bytes[PAYLOAD] = { 0 };
    x->held = 0;
    if (head == GREETING) {
        x->greeted = true;
        asio_layer.resume(x->layer);
    } else if (head == ASK) {
        int status = send_record(x, PAYLOAD, bytes, PAYLOAD);
        if (status < 0)
            asio_layer.end(x->layer, status);
    } else if (head == END) {
        x->ended = true;
        asio_layer.end(x->layer, UV_EOF);
    } else {
        scramble_bytes(bytes, x->record + HEAD, head);
        asio_layer.deliver(x->layer, bytes, head);
    }
}

static size_t missing(const struct scramble *x)
{
    unsigned head = x->held < HEAD ? 0 : head_of(x);
    return HEAD + (head == GREETING || head == ASK ? 0 : head) - x->held;
}

static void scramble_received(void *state, const char *bytes, size_t n)
{
    struct scramble *x = state;
    while (n > 0 && !x->ended) {
        size_t want = missing(x), piece = want < n ? want : n;
        if (x->held == HEAD && head_of(x) > PAYLOAD && missing(x) > 0) {
            asio_layer.end(x->layer, UV_EPROTO);
            return;
        }
        memcpy(x->record + x->held, bytes, piece);
        x->held += piece;
        bytes += piece;
        n -= piece;
        if (x->held >= HEAD && missing(x) == 0)
            take_record(x);
    }
}

static int scramble_finish(void *state)
{
    return send_record(state, END, NULL, 0);
}

/* An end that the peer has not announced may be anybody's. */
static int scramble_ended(void *state, int status)
{
    struct scramble *x = state;
    return status == UV_EOF && !x->ended ? UV_ECONNRESET : status;
}

static void scramble_free(void *state)
{
    asio_mem.free(state);
}

static const struct asio_layer_codec scramble_codec = { "scrambled", scramble_received, scramble_encode,
    scramble_finish, scramble_ended, NULL, scramble_free };

static int push_status(lua_State *L, int status)
{
    lua_pushnil(L);
    lua_pushstring(L, uv_strerror(status));
    lua_pushstring(L, uv_err_name(status));
    return 3;
}

/* scramble(conn): true, or a failure */
int layers_scramble(lua_State *L)
{
    struct asio_stream *s = asio_conn_stream_at(L, 1);
    if (!s)
        return push_status(L, UV_EBADF);
    struct scramble *x = asio_mem.malloc(sizeof *x);
    if (!x)
        return push_status(L, UV_ENOMEM);
    memset(x, 0, sizeof *x);
    int status = asio_layer.open(s, &scramble_codec, x, &x->layer);
    if (status < 0) {
        asio_mem.free(x);
        return push_status(L, status);
    }
    status = send_record(x, GREETING, NULL, 0);
    if (status == 0) {
        lua_pushboolean(L, 1);
        return 1;
    }
    asio_layer.fail(x->layer, status);
    asio_layer.end(x->layer, status);
    return push_status(L, status);
}

static void run_case(const char *name)
{
    host_clear_stderr();
    host_doing("layers %s", name);
    host_limit(SECONDS);
    int fds = system_fds();
    lua_State *L = state_open("layers.lua");
    lua_pushstring(L, name);
    host_check(state_call(L, "run", 1, 0), "%s", state_error());
    host_check(state_close(L, fds), "left something over");
}

void mode_layers(void)
{
    char names[120][64];
    int count = state_names("layers.lua", names, 120);
    host_check(count > 0, "no cases");
    for (int i = 0; i < count; i++)
        if (!host_only || strcmp(host_only, names[i]) == 0)
            run_case(names[i]);
}
