/* SPDX-License-Identifier: MIT
 *
 * The codec: bytes of a stream through an SSL object. OpenSSL reads what has come where it lies, and writes into the
 * queue of the stream below, so that a flush sends many records by one system call.
 *
 * The handshake goes on by itself as bytes come; a light thread waits for its end (tls.handshake), and chooses a
 * certificate by the name if the script has a function for that. */
#include "base/error.h"
#include "plugins/tls/tls.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

enum {
    RECORD = 16384, /* bytes of the script that a record holds, at most */
    RECORDS = 4,    /* that are read at a time */
    SMALL_RECORD =
        1300, /* fits into one packet: the peer can decrypt the first bytes without waiting for more */
    SMALL_COUNT = 12,  /* after a pause: about a first congestion window */
    MESSAGES_MAX = 64, /* key updates and tickets without a byte for the script in between */
    REFUSALS_MAX = 8,  /* answers to a peer that wants to negotiate anew (TLS 1.2) */
    HELLO_MAX = 32768 /* bytes that may come while the script chooses: those of a ClientHello, and few more */
};
static const uint64_t pause_after = 1000000000; /* ns */

static const struct asio_plugin_layer *session_layers(void)
{
    return asio_tls_core->stream->layer;
}

/* SSL_get_error looks at the queue of errors, where other users of OpenSSL may have left some. */
static void session_clear_errors(void)
{
    if (ERR_peek_error())
        ERR_clear_error();
}

/* ---- the bytes below ----------------------------------------------------------------------- */

static BIO_METHOD *session_bio_method; /* of the process */

static int session_bio_read(BIO *bio, char *to, int n)
{
    struct tls_session *s = BIO_get_data(bio);
    size_t piece = s->in_left < (size_t)n ? s->in_left : (size_t)n;
    BIO_clear_retry_flags(bio);
    if (piece == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(to, s->in, piece);
    s->in += piece;
    s->in_left -= piece;
    return (int)piece;
}

static int session_bio_write(BIO *bio, const char *from, int n)
{
    struct tls_session *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    s->status = session_layers()->send(s->layer, from, (size_t)n);
    if (s->status == UV_ENOBUFS)
        tls_session_note(s, "EPROTO", "the peer does not read the answers that it asks for");
    return s->status < 0 ? -1 : n;
}

static long session_bio_ctrl(BIO *bio, int what, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return what == BIO_CTRL_FLUSH;
}

static int session_bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

int tls_session_load(void)
{
    if (session_bio_method)
        return 0;
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "asio");
    if (!m)
        return UV_ENOMEM;
    BIO_meth_set_read(m, session_bio_read);
    BIO_meth_set_write(m, session_bio_write);
    BIO_meth_set_ctrl(m, session_bio_ctrl);
    BIO_meth_set_create(m, session_bio_create);
    session_bio_method = m;
    return 0;
}

/* ---- failures ------------------------------------------------------------------------------ */

void tls_session_note(struct tls_session *s, const char *code, const char *text)
{
    if (s->failure)
        return;
    s->failure = asio_tls_core->mem->allocator->malloc(sizeof *s->failure);
    if (!s->failure)
        return;
    snprintf(s->failure->text, sizeof s->failure->text, "%s", text);
    snprintf(s->failure->code, sizeof s->failure->code, "%s", code);
}

void tls_session_count(struct tls_session *s, bool done)
{
    if (s->server && !s->counted)
        asio_tls_core->stream->count_handshake(s->rt, done);
    s->counted = true;
}

static void session_wake(struct tls_session *s, int status)
{
    struct asio_wait *w = s->waiter;
    s->waiter = NULL;
    if (w)
        asio_tls_core->wait->ready(w, status);
}

/* At once, if no light thread runs: what it writes goes out with the last records of the handshake. */
static void session_wake_now(struct tls_session *s)
{
    struct asio_wait *w = s->waiter;
    s->waiter = NULL;
    if (w)
        asio_tls_core->wait->wake(w, 0);
}

/* The connection is of no use any more. An alert that OpenSSL has written goes out. User code may run. */
static void session_fail(struct tls_session *s)
{
    char text[TLS_TEXT];
    tls_error_text(text, sizeof text);
    if (s->failed)
        return;
    s->failed = true;
    tls_session_note(s, "EPROTO", text);
    if (!s->ready)
        tls_session_count(s, false);
    session_wake(s, 0);
    session_layers()->resume(s->layer); /* writers learn of it */
    session_layers()->end(s->layer, UV_EPROTO);
}

/* ---- the handshake ------------------------------------------------------------------------- */

static void session_handshake(struct tls_session *s)
{
    session_clear_errors();
    int done = SSL_do_handshake(s->ssl);
    if (done == 1) {
        s->ready = true;
        s->messages = 0;
        if (!s->server)
            tls_resume_renewed(s->ssl);
        tls_session_count(s, true);
        session_layers()->resume(s->layer);
        session_wake_now(s);
        return;
    }
    switch (SSL_get_error(s->ssl, done)) {
    case SSL_ERROR_WANT_READ:
        s->status = session_layers()->read(s->layer); /* else its end is told by `ended` */
        break;
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
        s->asked = true;
        session_wake(s, 0);
        break;
    default:
        session_fail(s);
    }
}

/* ---- reading ------------------------------------------------------------------------------- */

/* As many bytes for the script as there are, up to `size`. *reason: why there are no more. */
static size_t session_decrypt(struct tls_session *s, char *bytes, size_t size, int *reason)
{
    size_t filled = 0;
    *reason = SSL_ERROR_NONE;
    while (size - filled >= RECORD) {
        session_clear_errors();
        int n = SSL_read(s->ssl, bytes + filled, RECORD);
        if (n <= 0 || s->flooded) {
            *reason = s->flooded ? SSL_ERROR_SSL : SSL_get_error(s->ssl, n);
            break;
        }
        filled += (size_t)n;
        s->messages = 0;
        if (s->in_left == 0 && !SSL_has_pending(s->ssl)) {
            *reason =
                SSL_ERROR_WANT_READ; /* OpenSSL would find it out, for a tenth of a small message's cost */
            break;
        }
    }
    return filled;
}

/* Several records at a time: waking a reader costs a tenth of what a record does. */
static void session_read(struct tls_session *s)
{
    const struct asio_allocator *mem = asio_tls_core->mem->allocator;
    char small[RECORD], text[TLS_TEXT];
    char *large = s->in_left > RECORD ? mem->malloc(RECORDS * RECORD) : NULL;
    int reason = SSL_ERROR_NONE;
    while (reason == SSL_ERROR_NONE && !s->failed && !s->ended && !s->closed) {
        char *bytes = large ? large : small;
        size_t n = session_decrypt(s, bytes, large ? RECORDS * RECORD : sizeof small, &reason);
        bool broken =
            reason != SSL_ERROR_NONE && reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_ZERO_RETURN;
        if (broken) { /* before code of the script runs, which may use OpenSSL as well */
            tls_error_text(text, sizeof text);
            tls_session_note(s, "EPROTO", text);
        }
        if (n > 0)
            session_layers()->deliver(s->layer, bytes, n);
        if (broken) {
            session_fail(s);
        } else if (reason == SSL_ERROR_ZERO_RETURN) {
            s->ended = true;
            session_layers()->end(s->layer, UV_EOF);
        }
    }
    mem->free(large);
}

/* The handshake also if the script has closed: what it has written waits for that. */
void tls_session_go_on(struct tls_session *s)
{
    if (!s->ready && !s->failed && (!s->asked || s->chosen))
        session_handshake(s);
    if (s->ready)
        session_read(s);
}

/* What OpenSSL has not taken stays: it waits for the script's choice. */
void tls_session_keep(struct tls_session *s)
{
    const struct asio_allocator *mem = asio_tls_core->mem->allocator;
    char *old = s->kept;
    s->kept = NULL;
    if (s->in_left > 0 && !s->failed && !s->ended && !(s->closed && s->ready)) {
        s->kept = mem->malloc(s->in_left);
        if (s->kept)
            memcpy(s->kept, s->in, s->in_left);
        else
            session_fail(s);
    }
    if (!s->kept)
        s->in_left = 0;
    s->in = s->kept;
    mem->free(old);
}

/* Bytes that have come, behind those that are kept. */
static bool session_append(struct tls_session *s, const char *bytes, size_t n)
{
    const struct asio_allocator *mem = asio_tls_core->mem->allocator;
    char *all = mem->malloc(s->in_left + n);
    if (!all)
        return false;
    memcpy(all, s->in, s->in_left);
    memcpy(all + s->in_left, bytes, n);
    mem->free(s->kept);
    s->kept = all;
    s->in = all;
    s->in_left += n;
    return true;
}

static void session_received(void *state, const char *bytes, size_t n)
{
    struct tls_session *s = state;
    if (s->opening && !s->peeked) {
        s->clear = true;
        return;
    }
    if (s->failed || s->ended)
        return;
    if (s->in_left == 0) {
        s->in = bytes;
        s->in_left = n;
    } else if (s->in_left + n > HELLO_MAX) {
        tls_session_note(s, "EPROTO", "the peer sends too much before the handshake");
        session_fail(s);
        return;
    } else if (!session_append(s, bytes, n)) {
        session_fail(s);
        return;
    }
    if (!s->opening) /* else the handshake begins when the layer is there */
        tls_session_go_on(s);
    tls_session_keep(s);
}

static int session_ended(void *state, int status)
{
    struct tls_session *s = state;
    if (!s->ready && !s->failed) {
        s->failed = true;
        tls_session_count(s, false);
        if (status == UV_EOF)
            tls_session_note(s, "EOF", "the peer closed the connection during the handshake");
        s->status = status;
        session_wake(s, 0);
        session_layers()->resume(s->layer); /* what waits to be written will never be */
    }
    return status == UV_EOF && !s->ended ? ASIO_ETRUNCATED : status;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* After a pause the first records are small. */
static size_t session_record(struct tls_session *s, size_t n)
{
    if (n <= SMALL_RECORD)
        return n;
    uint64_t now = asio_tls_core->loop->now();
    if (now - s->wrote_at > pause_after)
        s->small = SMALL_COUNT;
    s->wrote_at = now;
    if (s->small == 0)
        return n < RECORD ? n : RECORD;
    s->small--;
    return SMALL_RECORD;
}

static ssize_t session_encode(void *state, const char *bytes, size_t n)
{
    struct tls_session *s = state;
    if (s->failed)
        return UV_EPROTO;
    if (!s->ready)
        return session_layers()->read(s->layer) < 0 ? UV_EPROTO : UV_EAGAIN;
    session_clear_errors();
    int wrote = SSL_write(s->ssl, bytes, (int)session_record(s, n));
    if (wrote > 0)
        return wrote;
    return s->status < 0 ? s->status : UV_EPROTO;
}

/* close_notify. After a failure the alert was the last word. A half-close waits for the end of the handshake, which could
 * not go on after it. */
static int session_finish(void *state)
{
    struct tls_session *s = state;
    if (!s->ready && !s->failed && !s->closed)
        return UV_EAGAIN;
    if (s->failed || !s->ready)
        return 0;
    session_clear_errors();
    return SSL_shutdown(s->ssl) < 0 && s->status < 0 ? s->status : 0;
}

/* ---- the end ------------------------------------------------------------------------------- */

static void session_closed(void *state)
{
    struct tls_session *s = state;
    s->closed = true;
    session_wake(s, UV_ECANCELED);
}

void tls_session_free(void *state)
{
    struct tls_session *s = state;
    const struct asio_allocator *mem = asio_tls_core->mem->allocator;
    if (s->layer)
        tls_session_count(s, false); /* unless it has been counted */
    SSL_free(s->ssl);
    mem->free(s->failure);
    mem->free(s->kept);
    mem->free(s->name);
    mem->free(s);
}

const struct asio_layer_codec tls_codec = {
    .name = "tls",
    .received = session_received,
    .encode = session_encode,
    .finish = session_finish,
    .ended = session_ended,
    .closed = session_closed,
    .free = tls_session_free,
};

/* ---- bounds on what a peer may ask for ----------------------------------------------------- */

/* Key updates cost the peer five bytes and us two derived keys; tickets fill memory; an alert that refuses to negotiate
 * anew waits in the queue of a peer that does not read. */
static void session_on_message(
    int sent, int version, int type, const void *bytes, size_t n, SSL *ssl, void *arg)
{
    (void)version, (void)arg;
    struct tls_session *s = SSL_get_app_data(ssl);
    const unsigned char *alert = bytes;
    if (!s || !s->ready)
        return;
    if (sent && type == SSL3_RT_ALERT && n == 2 && alert[1] == SSL_AD_NO_RENEGOTIATION &&
        ++s->refusals > REFUSALS_MAX) {
        s->flooded = true;
        tls_session_note(s, "EPROTO", "the peer does not stop asking for a new handshake");
    }
    if (sent || type != SSL3_RT_HANDSHAKE || n == 0)
        return;
    if (++s->messages > MESSAGES_MAX) {
        s->flooded = true;
        tls_session_note(s, "EPROTO", "the peer sends key updates or tickets without end");
    }
}

/* ---- a new one ------------------------------------------------------------------------------ */

struct tls_session *tls_session_new(struct asio_rt *rt, SSL_CTX *ctx)
{
    const struct asio_allocator *mem = asio_tls_core->mem->allocator;
    struct tls_session *s = mem->malloc(sizeof *s);
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    s->rt = rt;
    s->server = tls_context_of(ctx)->server;
    s->keys = tls_context_of(ctx)->keys;
    s->ssl = SSL_new(ctx);
    bool there = s->ssl && SSL_set_app_data(s->ssl, s) == 1;
    BIO *bio = there ? BIO_new(session_bio_method) : NULL;
    if (!bio) {
        ERR_clear_error();
        SSL_free(s->ssl);
        mem->free(s);
        return NULL;
    }
    BIO_set_data(bio, s);
    SSL_set_bio(s->ssl, bio, bio);
    SSL_set_msg_callback(s->ssl, session_on_message);
    if (s->server)
        SSL_set_accept_state(s->ssl);
    else
        SSL_set_connect_state(s->ssl);
    return s;
}

struct tls_session *tls_session_at(lua_State *L, int index)
{
    struct asio_stream *stream = asio_tls_core->stream->stream_at(L, index);
    return stream ? session_layers()->state(stream, &tls_codec) : NULL;
}
