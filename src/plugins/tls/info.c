/* SPDX-License-Identifier: MIT
 *
 * What TLS has agreed on, and the peer's certificate, as a Lua table. */
#include "plugins/tls/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#ifndef _WIN32
#include <arpa/inet.h>
#endif

/* What is held while the table is made: Lua may raise at any time. */
struct info_held {
    struct tls_session *session;
    X509 *peer;
    BIO *bio;
    GENERAL_NAMES *names;
};

static void info_set(lua_State *L, const char *field, const char *text)
{
    if (!text)
        return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, field);
}

/* RFC 2253, without what could be taken for something else. */
static BIO *info_name(X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio)
        X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    return bio;
}

void tls_subject(X509 *cert, char *text, size_t size)
{
    BIO *bio = info_name(X509_get_subject_name(cert));
    int n = bio ? BIO_read(bio, text, (int)size - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    BIO_free(bio);
}

/* Days since 1970 of a date of the Gregorian calendar, by Howard Hinnant's days_from_civil. */
static double info_days(int year, int month, int day)
{
    year -= month <= 2;
    int era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    int of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    return (double)era * 146097 + days - 719468;
}

double tls_seconds(const ASN1_TIME *time)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(time, &tm) != 1)
        return 0;
    return info_days(tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday) * 86400 + tm.tm_hour * 3600 +
        tm.tm_min * 60 + tm.tm_sec;
}

/* Takes the BIO. */
static void info_set_bio(lua_State *L, struct info_held *held, const char *field, BIO *bio)
{
    char *bytes;
    long n = bio ? BIO_get_mem_data(bio, &bytes) : 0;
    held->bio = bio;
    lua_pushlstring(L, n > 0 ? bytes : "", n > 0 ? (size_t)n : 0);
    lua_setfield(L, -2, field);
    held->bio = NULL;
    BIO_free(bio);
}

/* The alternative names of kinds that can be compared: DNS, and addresses. */
static void info_set_names(lua_State *L, struct info_held *held)
{
    int count = 0;
    char text[64];
    lua_newtable(L);
    held->names = X509_get_ext_d2i(held->peer, NID_subject_alt_name, NULL, NULL);
    GENERAL_NAMES *names = held->names;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        const ASN1_STRING *s = name->d.ia5;
        int family = name->type != GEN_IPADD ? 0 : ASN1_STRING_length(s) == 4 ? AF_INET : AF_INET6;
        if (name->type == GEN_DNS)
            lua_pushlstring(L, (const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
        else if (family && (ASN1_STRING_length(s) == 4 || ASN1_STRING_length(s) == 16) &&
            inet_ntop(family, ASN1_STRING_get0_data(s), text, sizeof text))
            lua_pushstring(L, text);
        else
            continue;
        lua_rawseti(L, -2, ++count);
    }
    lua_setfield(L, -2, "names");
}

static void info_set_digest(lua_State *L, X509 *cert)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char text[2 * EVP_MAX_MD_SIZE + 1];
    unsigned n = 0;
    X509_digest(cert, EVP_sha256(), digest, &n);
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < 2; k++)
            text[2 * i + k] = "0123456789abcdef"[digest[i] >> (k ? 0 : 4) & 15];
    lua_pushlstring(L, text, 2 * (size_t)n);
    lua_setfield(L, -2, "sha256");
}

static void info_push_certificate(lua_State *L, struct info_held *held)
{
    X509 *cert = held->peer;
    lua_createtable(L, 0, 7);
    info_set_bio(L, held, "subject", info_name(X509_get_subject_name(cert)));
    info_set_bio(L, held, "issuer", info_name(X509_get_issuer_name(cert)));
    info_set_names(L, held);
    lua_pushnumber(L, tls_seconds(X509_get0_notBefore(cert)));
    lua_setfield(L, -2, "not_before");
    lua_pushnumber(L, tls_seconds(X509_get0_notAfter(cert)));
    lua_setfield(L, -2, "not_after");
    info_set_digest(L, cert);
    BIO *pem = BIO_new(BIO_s_mem());
    if (pem)
        PEM_write_bio_X509(pem, cert);
    info_set_bio(L, held, "pem", pem);
}

/* ---- channel binding ------------------------------------------------------------------------ */

/* RFC 9266; with TLS 1.2 it is safe only where both have the extended master secret. */
static void info_set_exporter(lua_State *L, SSL *ssl)
{
    static const char label[] = "EXPORTER-Channel-Binding";
    unsigned char secret[32];
    if (SSL_version(ssl) < TLS1_3_VERSION && SSL_get_extms_support(ssl) != 1)
        return;
    if (SSL_export_keying_material(
            ssl, secret, sizeof secret, label, sizeof label - 1, (const unsigned char *)"", 0, 1) != 1)
        return;
    lua_pushlstring(L, (const char *)secret, sizeof secret);
    lua_setfield(L, -2, "tls-exporter");
}

/* RFC 5929: the digest of the server's certificate, by the algorithm of its signature, but no weaker than SHA-256. */
static void info_set_end_point(lua_State *L, SSL *ssl, X509 *peer, bool server)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int hash = NID_undef;
    X509 *cert = server ? SSL_get_certificate(ssl) : peer;
    if (cert && OBJ_find_sigid_algs(X509_get_signature_nid(cert), &hash, NULL) == 1) {
        const EVP_MD *md = EVP_get_digestbynid(hash);
        if (!md || hash == NID_md5 || hash == NID_sha1)
            md = EVP_sha256();
        if (X509_digest(cert, md, digest, &n) == 1) {
            lua_pushlstring(L, (const char *)digest, n);
            lua_setfield(L, -2, "tls-server-end-point");
        }
    }
}

static void info_set_bindings(lua_State *L, SSL *ssl, X509 *peer, bool server)
{
    lua_createtable(L, 0, 2);
    info_set_exporter(L, ssl);
    info_set_end_point(L, ssl, peer, server);
    lua_setfield(L, -2, "bindings");
}

/* ---- the table ------------------------------------------------------------------------------ */

/* (held) -> table */
static int l_info_fill(lua_State *L)
{
    struct info_held *held = lua_touserdata(L, 1);
    struct tls_session *s = held->session;
    const unsigned char *alpn;
    unsigned n;
    lua_createtable(L, 0, 7);
    held->peer = SSL_get_peer_certificate(s->ssl);
    info_set(L, "version", SSL_get_version(s->ssl));
    info_set(L, "cipher", SSL_get_cipher_name(s->ssl));
    info_set(L, "server_name", s->server ? s->name : SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name));
    SSL_get0_alpn_selected(s->ssl, &alpn, &n);
    if (n > 0) {
        lua_pushlstring(L, (const char *)alpn, n);
        lua_setfield(L, -2, "alpn");
    }
    lua_pushboolean(L, SSL_session_reused(s->ssl));
    lua_setfield(L, -2, "resumed");
    if (held->peer) {
        info_push_certificate(L, held);
        lua_setfield(L, -2, "peer");
    }
    info_set_bindings(L, s->ssl, held->peer, s->server);
    if (s->failed && s->failure)
        info_set(L, "failure", s->failure->text);
    return 1;
}

int tls_l_info(lua_State *L)
{
    struct info_held held = { .session = tls_session_at(L, 1) };
    if (!held.session && !asio_tls_core->stream->stream_at(L, 1))
        return asio_tls_core->error->push(L, UV_EBADF);
    if (!held.session)
        return asio_tls_core->error->push_text(L, UV_ENOTSUP, "the connection has no TLS");
    lua_pushcfunction(L, l_info_fill);
    lua_pushlightuserdata(L, &held);
    int error = lua_pcall(L, 1, 1, 0);
    X509_free(held.peer);
    BIO_free(held.bio);
    GENERAL_NAMES_free(held.names);
    ERR_clear_error();
    return error ? lua_error(L) : 1;
}
