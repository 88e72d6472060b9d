/* SPDX-License-Identifier: MIT
 *
 * asio/tls.so: TLS by OpenSSL, as a layer over any stream (plugin/layer.h). What its files share. */
#ifndef ASIO_TLS_H
#define ASIO_TLS_H

#define OPENSSL_API_COMPAT 0x10101000L /* what OpenSSL 1.1.1 has as well */

#include "base/asio.h"
#include "plugin/plugin.h"

#include <openssl/ssl.h>

/* The core's tables: constant, of the process. Set by the first `load`. */
extern const struct asio_plugin *asio_tls_core;

/* ---- contexts (context.c) ----------------------------------------------------------------- */

enum { TLS_PINS = 8, TLS_PIN = 32 }; /* public keys that a peer may have; bytes of a SHA-256 */

/* Keys for tickets: the first encrypts. Shared by references; one Lua state. */
struct tls_ticket_keys {
    unsigned references;
    unsigned count;
    bool own;      /* made here, and replaced as time passes */
    uint64_t made; /* now() of the first, if own */
    unsigned char bytes[3][80];
};

/* Certificates for a name: "example.org", or "*.example.org". */
struct tls_name {
    struct tls_name *next;
    SSL_CTX *ctx; /* a reference */
    char pattern[];
};

/* A session that a server has offered to resume. */
struct tls_resumable {
    struct tls_resumable *next;
    SSL_SESSION *session; /* a reference */
    char key[];           /* server and port */
};

/* What OpenSSL's context does not keep for us. Made with it, found by tls_context_of, and freed with it: an SSL object
 * keeps it alive. */
struct tls_context {
    bool server;
    bool asks;  /* the script's function chooses by the name */
    int verify; /* SSL_VERIFY_... */
    unsigned pins;
    unsigned char pin[TLS_PINS][TLS_PIN];
    unsigned char *alpn; /* as on the wire */
    unsigned alpn_length;
    unsigned char *ocsp; /* the response to staple */
    int ocsp_length;
    struct tls_name *names;
    struct tls_ticket_keys *keys;
    struct tls_resumable *resumable; /* the newest first */
    unsigned resumable_count;
};

struct tls_context *tls_context_of(const SSL_CTX *ctx);
int tls_context_verify_mode(const struct tls_context *c); /* as OpenSSL has it */

/* tls.context(opts, server, fname, arg) -> context | nil, message, code. Raises for values that cannot be meant. */
int tls_l_context(lua_State *L);

/* tls.name(context, pattern, other), tls.asks(context) */
int tls_l_name(lua_State *L);
int tls_l_asks(lua_State *L);

/* Argument `index`: a context. */
SSL_CTX *tls_check_context(lua_State *L, int index);

void tls_contexts_open(lua_State *L); /* the metatable */
int tls_contexts_load(void);          /* once for each process: 0 or an error */

/* ---- what a server agrees to (hello.c) ------------------------------------------------------ */

void tls_hello_set(SSL_CTX *ctx); /* the callbacks of a server's context */

/* Gives the SSL object of a handshake the certificates and demands of another context. False: memory is out. */
bool tls_context_choose(SSL *ssl, SSL_CTX *ctx);

/* ---- certificates from options (material.c) ------------------------------------------------ */

/* Each reads one option into the context: a file's name, or PEM text. 0, or the results of a failure are pushed (3).
 * `name`: of the option. */
int tls_read_identity(lua_State *L, SSL_CTX *ctx, const char *cert, const char *key, const char *password);
/* own: nothing else shares the store, since lists of revoked certificates go into it. */
int tls_read_authorities(lua_State *L, SSL_CTX *ctx, const char *ca, bool own, bool client_names);
const char *tls_trusted_file(void); /* of the certificates that the system trusts */
int tls_read_revoked(lua_State *L, SSL_CTX *ctx, const char *crl);
int tls_read_staple(lua_State *L, struct tls_context *c, const char *ocsp);

/* ---- resuming (resume.c) ------------------------------------------------------------------- */

int tls_resume_load(void); /* once for each process: 0 or an error */
void tls_resume_set_client(SSL_CTX *ctx);
void tls_resume_set_server(SSL_CTX *ctx);
void tls_resume_offer(SSL *ssl, const char *key); /* a session that is kept for this key */
void tls_resume_renewed(SSL *ssl);                /* a client's handshake is done */
void tls_resume_forget(struct tls_context *c);

/* tls.ticket_keys(context, strings), tls.share_keys(context, from) */
int tls_l_ticket_keys(lua_State *L);
int tls_l_share_keys(lua_State *L);

/* ---- sessions (session.c) ------------------------------------------------------------------ */

enum { TLS_TEXT = 256 };

/* A failure in words: of OpenSSL, of a certificate. Allocated when it is needed. */
struct tls_failure {
    char text[TLS_TEXT];
    char code[48];
};

/* The state of a codec. Made by tls_session_new; the layer's from `open` on, and freed by it; found from its SSL object
 * (app data). */
struct tls_session {
    SSL *ssl;
    struct asio_layer *layer; /* NULL: not yet */
    struct asio_rt *rt;
    struct asio_wait *waiter; /* in tls.handshake */
    struct tls_failure *failure;
    const char *in; /* bytes that OpenSSL has not taken: borrowed, or `kept` */
    size_t in_left;
    char *kept;
    char *name; /* client: whose session may be resumed; server: the name that is asked for */
    struct tls_ticket_keys *keys; /* server: of its first context, which the SSL object keeps */
    uint64_t wrote_at;            /* now() of the last record */
    unsigned short small;         /* records that are still to be small */
    unsigned short messages;      /* of the handshake's kind, since the last byte for the script */
    unsigned char refusals;       /* of new handshakes */
    bool server;
    bool opening, peeked, clear; /* bytes that were there before: allowed, seen */
    bool ready;                  /* the handshake is done */
    bool asked, chosen;          /* the script's function is to choose; it has */
    bool failed, ended, closed;  /* ended: close_notify has come */
    bool refused;                /* there is no certificate for the name */
    bool counted, flooded;
    int status; /* why the stream below takes nothing */
};

extern const struct asio_layer_codec tls_codec;

int tls_session_load(void); /* once for each process: 0 or an error */

struct tls_session *tls_session_new(struct asio_rt *rt, SSL_CTX *ctx); /* NULL: out of memory */
void tls_session_free(void *session);                                  /* one that no layer has */

/* Lets OpenSSL go on with the bytes that are there, and keeps those that it does not take. User code may run. */
void tls_session_go_on(struct tls_session *s);
void tls_session_keep(struct tls_session *s);

void tls_session_count(struct tls_session *s, bool done); /* the handshake is over; once */

/* ---- beginning (start.c) -------------------------------------------------------------------- */

/* tls.start(conn, context, key, name, verified, peeked) -> true | nil, message, code */
int tls_l_start(lua_State *L);
/* tls.handshake(conn, seconds) waits */
int tls_l_handshake(lua_State *L);
/* tls.choose(conn, context | false | nil): for the name that was asked for; false: there is none; nil: as it is */
int tls_l_choose(lua_State *L);

/* The session of the connection at an index; NULL: it has no TLS, or is closed. */
struct tls_session *tls_session_at(lua_State *L, int index);

/* Notes what went wrong, unless something has before. */
void tls_session_note(struct tls_session *s, const char *code, const char *text);

/* ---- verification (verify.c) --------------------------------------------------------------- */

/* For SSL_set_verify: notes the reason in the session, and looks at pinned keys. */
int tls_verify(int ok, X509_STORE_CTX *store);

/* The first error in OpenSSL's queue, in lower case; empties the queue. */
void tls_error_text(char *text, size_t size);

/* The reason of a verification error without its prefix: "CERT_HAS_EXPIRED". */
const char *tls_verify_code(int error);

/* ---- what was agreed on (info.c) ----------------------------------------------------------- */

/* tls.info(conn) -> table | nil, message, code */
int tls_l_info(lua_State *L);

/* A certificate's subject as text: "CN=localhost", at most `size` bytes. */
void tls_subject(X509 *cert, char *text, size_t size);

/* Seconds since 1970. */
double tls_seconds(const ASN1_TIME *time);

#endif
