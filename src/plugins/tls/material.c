/* SPDX-License-Identifier: MIT
 *
 * Certificates, keys, authorities and lists of revoked certificates: each option is a file's name, or PEM text. */
#include "plugins/tls/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool material_is_pem(const char *text)
{
    return strstr(text, "-----BEGIN") != NULL;
}

/* nil, "cert: no such file or directory (server.pem)", "ENOENT". */
static int material_fail(lua_State *L, const char *option, int status, const char *why, const char *source)
{
    bool pem = !source || material_is_pem(source);
    ERR_clear_error();
    return asio_tls_core->error->push_text(
        L, status, "%s: %s%s%s%s", option, why, pem ? "" : " (", pem ? "" : source, pem ? "" : ")");
}

static const struct {
    int error, status;
    const char *text;
} material_errors[] = {
    { ENOENT, UV_ENOENT, "no such file or directory" },
    { EACCES, UV_EACCES, "permission denied" },
    { EMFILE, UV_EMFILE, "too many open files" },
    { 0, UV_EIO, "cannot be read" },
};

/* The text, or the file. NULL: the results of a failure are pushed. */
static BIO *material_open(lua_State *L, const char *option, const char *source)
{
    errno = 0;
    BIO *bio = material_is_pem(source) ? BIO_new_mem_buf(source, -1) : BIO_new_file(source, "rb");
    if (bio)
        return bio;
    unsigned i = 0;
    while (material_errors[i].error && material_errors[i].error != errno)
        i++;
    material_fail(L, option, material_errors[i].status, material_errors[i].text, source);
    return NULL;
}

/* ---- the certificate and its key ------------------------------------------------------------ */

/* What OpenSSL asks when a PEM is encrypted: without such a function it would ask at the terminal. */
struct material_secret {
    const char *password; /* NULL: there is none */
    bool asked;
};

static int material_password(char *to, int size, int writing, void *arg)
{
    struct material_secret *secret = arg;
    (void)writing;
    secret->asked = true;
    size_t n = secret->password ? strlen(secret->password) : 0;
    if (!secret->password || n > (size_t)size)
        return -1;
    memcpy(to, secret->password, n);
    return (int)n;
}

/* The next certificate; NULL: there is none that can be read. */
static X509 *material_next(BIO *bio)
{
    struct material_secret none = { NULL, false };
    return PEM_read_bio_X509_AUX(bio, NULL, material_password, &none);
}

/* Why there was no next one: the text has ended. Else something in it cannot be read, and what is behind would be left
 * out in silence. */
static bool material_at_end(void)
{
    unsigned long error = ERR_peek_last_error();
    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

/* The first certificate is ours; those behind it make the chain. 0, or the results of a failure. */
static int material_read_chain(lua_State *L, SSL_CTX *ctx, const char *source)
{
    BIO *bio = material_open(L, "cert", source);
    if (!bio)
        return 3;
    X509 *cert = material_next(bio);
    bool found = cert != NULL, ok = found && SSL_CTX_use_certificate(ctx, cert) == 1;
    unsigned long error = ERR_peek_last_error();
    X509_free(cert);
    SSL_CTX_clear_chain_certs(ctx);
    while (ok && (cert = material_next(bio)) != NULL) {
        ok = SSL_CTX_add0_chain_cert(ctx, cert) == 1;
        if (!ok) {
            error = ERR_peek_last_error();
            X509_free(cert);
        }
    }
    BIO_free(bio);
    if (ok && !material_at_end())
        return material_fail(L, "cert", UV_EINVAL, "a certificate behind the first cannot be read", source);
    if (ok) {
        ERR_clear_error();
        return 0;
    }
    bool weak = found && ERR_GET_LIB(error) == ERR_LIB_SSL;
    return material_fail(L, "cert", UV_EINVAL,
        weak ? "OpenSSL refuses the certificate (key or signature is too weak)" : "no certificate in PEM",
        source);
}

static int material_read_key(lua_State *L, SSL_CTX *ctx, const char *source, const char *password)
{
    BIO *bio = material_open(L, "key", source);
    if (!bio)
        return 3;
    struct material_secret secret = { password, false };
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, material_password, &secret);
    BIO_free(bio);
    if (!key) {
        const char *why = !secret.asked ? "no private key in PEM"
            : password                  ? "cannot be decrypted with this password"
                                        : "is encrypted, and there is no option 'password'";
        return material_fail(L, "key", UV_EINVAL, why, source);
    }
    bool ok = SSL_CTX_use_PrivateKey(ctx, key) == 1;
    EVP_PKEY_free(key);
    if (ok && SSL_CTX_check_private_key(ctx) == 1)
        return 0;
    return material_fail(L, "key", UV_EINVAL, "is not the key of the certificate", source);
}

int tls_read_identity(lua_State *L, SSL_CTX *ctx, const char *cert, const char *key, const char *password)
{
    if (!cert)
        return material_fail(L, "cert", UV_EINVAL, "is needed beside a key", NULL);
    int n = material_read_chain(L, ctx, cert);
    return n ? n : material_read_key(L, ctx, key ? key : cert, password); /* one file may have both */
}

/* ---- authorities ---------------------------------------------------------------------------- */

/* All certificates of the text. Returns how many; UV_ENOMEM; UV_EINVAL: one cannot be read. */
static int material_add_authorities(SSL_CTX *ctx, BIO *bio, bool client_names)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    int count = 0;
    X509 *cert;
    while ((cert = material_next(bio)) != NULL) {
        bool ok = X509_STORE_add_cert(store, cert) == 1;
        if (ok && client_names)
            ok = SSL_CTX_add_client_CA(ctx, cert) == 1;
        X509_free(cert);
        if (!ok)
            return UV_ENOMEM;
        count++;
    }
    bool end = count == 0 || material_at_end();
    ERR_clear_error();
    return end ? count : UV_EINVAL;
}

static bool material_is_directory(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && (s.st_mode & S_IFMT) == S_IFDIR;
}

/* What the system trusts: read once, as it takes some 20 ms; the contexts of a Lua state share it. Kept in the registry
 * under the address of its type. */
struct material_trust {
    X509_STORE *store; /* a reference; NULL: not read */
    uint64_t stamp;    /* of the file when it was read */
};
static const char material_trust_type = 0;

static int material_trust_gc(lua_State *L)
{
    struct material_trust *t = lua_touserdata(L, 1);
    X509_STORE_free(t->store);
    t->store = NULL;
    return 0;
}

static struct material_trust *material_trust_of(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&material_trust_type);
    lua_rawget(L, LUA_REGISTRYINDEX);
    struct material_trust *t = lua_touserdata(L, -1);
    if (t)
        return t;
    lua_pushlightuserdata(L, (void *)&material_trust_type);
    t = lua_newuserdata(L, sizeof *t);
    *t = (struct material_trust){ 0 };
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, material_trust_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return t;
}

const char *tls_trusted_file(void)
{
    const char *chosen = getenv(X509_get_default_cert_file_env());
    return chosen ? chosen : X509_get_default_cert_file();
}

static bool material_trust_system(lua_State *L, SSL_CTX *ctx)
{
    struct material_trust *t = material_trust_of(L);
    uint64_t stamp = asio_tls_core->names->file_stamp(tls_trusted_file());
    if (t->store && t->stamp == stamp)
        return SSL_CTX_set1_cert_store(ctx, t->store), true;
    if (SSL_CTX_set_default_verify_paths(ctx) != 1)
        return false;
    X509_STORE_free(t->store);
    t->store = SSL_CTX_get_cert_store(ctx);
    X509_STORE_up_ref(t->store);
    t->stamp = stamp;
    return true;
}

/* A file, a directory of files named by hashes (openssl rehash), PEM text; NULL: what the system trusts. */
int tls_read_authorities(lua_State *L, SSL_CTX *ctx, const char *ca, bool own, bool client_names)
{
    if (!ca) {
        bool ok = own ? SSL_CTX_set_default_verify_paths(ctx) == 1 : material_trust_system(L, ctx);
        return ok ? 0 : material_fail(L, "ca", UV_ENOENT, "no certificates of the system", NULL);
    }
    /* One that is named is trusted, also if it is no root, as curl and Go have it. */
    X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_PARTIAL_CHAIN);
    if (!material_is_pem(ca) && material_is_directory(ca))
        return SSL_CTX_load_verify_locations(ctx, NULL, ca) == 1
            ? 0
            : material_fail(L, "ca", UV_EINVAL, "cannot be used", ca);
    BIO *bio = material_open(L, "ca", ca);
    if (!bio)
        return 3;
    int count = material_add_authorities(ctx, bio, client_names);
    BIO_free(bio);
    if (count == UV_ENOMEM)
        return material_fail(L, "ca", UV_ENOMEM, "not enough memory", ca);
    if (count == UV_EINVAL)
        return material_fail(L, "ca", UV_EINVAL, "a certificate behind the first cannot be read", ca);
    return count > 0 ? 0 : material_fail(L, "ca", UV_EINVAL, "no certificate in PEM", ca);
}

/* Lists of revoked certificates: of the issuers of leaf certificates. */
int tls_read_revoked(lua_State *L, SSL_CTX *ctx, const char *crl)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *bio = material_open(L, "crl", crl);
    struct material_secret none = { NULL, false };
    X509_CRL *list;
    int count = 0;
    bool ok = true;
    if (!bio)
        return 3;
    while (ok && (list = PEM_read_bio_X509_CRL(bio, NULL, material_password, &none)) != NULL) {
        ok = X509_STORE_add_crl(store, list) == 1;
        X509_CRL_free(list);
        count++;
    }
    BIO_free(bio);
    if (!ok)
        return material_fail(L, "crl", UV_ENOMEM, "not enough memory", crl);
    if (count == 0)
        return material_fail(L, "crl", UV_EINVAL, "no list of revoked certificates in PEM", crl);
    if (!material_at_end())
        return material_fail(L, "crl", UV_EINVAL, "a list behind the first cannot be read", crl);
    ERR_clear_error();
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    return 0;
}

/* A response of OCSP in DER, as `openssl ocsp -respout` writes it. */
int tls_read_staple(lua_State *L, struct tls_context *c, const char *ocsp)
{
    BIO *bio = material_open(L, "ocsp", ocsp);
    if (!bio)
        return 3;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE_bio(bio, NULL);
    BIO_free(bio);
    if (!response)
        return material_fail(L, "ocsp", UV_EINVAL, "no OCSP response in DER", ocsp);
    c->ocsp_length = i2d_OCSP_RESPONSE(response, &c->ocsp);
    OCSP_RESPONSE_free(response);
    return c->ocsp_length > 0 ? 0 : material_fail(L, "ocsp", UV_ENOMEM, "not enough memory", ocsp);
}
