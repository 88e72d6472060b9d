/* SPDX-License-Identifier: MIT
 *
 * What is wrong with a peer's certificate, in words and as a code; pinned keys; OpenSSL's errors. */
#include "plugins/tls/tls.h"

#include <ctype.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

const char *tls_verify_code(int error)
{
#define CODE(name)                                                                                           \
    case X509_V_ERR_##name:                                                                                  \
        return #name
    switch (error) {
        CODE(UNSPECIFIED);
        CODE(UNABLE_TO_GET_ISSUER_CERT);
        CODE(UNABLE_TO_GET_CRL);
        CODE(CERT_SIGNATURE_FAILURE);
        CODE(CRL_SIGNATURE_FAILURE);
        CODE(CERT_NOT_YET_VALID);
        CODE(CERT_HAS_EXPIRED);
        CODE(CRL_NOT_YET_VALID);
        CODE(CRL_HAS_EXPIRED);
        CODE(OUT_OF_MEM);
        CODE(DEPTH_ZERO_SELF_SIGNED_CERT);
        CODE(SELF_SIGNED_CERT_IN_CHAIN);
        CODE(UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
        CODE(UNABLE_TO_VERIFY_LEAF_SIGNATURE);
        CODE(CERT_CHAIN_TOO_LONG);
        CODE(CERT_REVOKED);
        CODE(INVALID_CA);
        CODE(PATH_LENGTH_EXCEEDED);
        CODE(INVALID_PURPOSE);
        CODE(CERT_UNTRUSTED);
        CODE(CERT_REJECTED);
        CODE(KEYUSAGE_NO_CERTSIGN);
        CODE(UNHANDLED_CRITICAL_EXTENSION);
        CODE(PERMITTED_VIOLATION);
        CODE(EXCLUDED_VIOLATION);
        CODE(UNSUPPORTED_NAME_SYNTAX);
        CODE(HOSTNAME_MISMATCH);
        CODE(IP_ADDRESS_MISMATCH);
        CODE(EE_KEY_TOO_SMALL);
        CODE(CA_KEY_TOO_SMALL);
        CODE(CA_MD_TOO_WEAK);
    default:
        return "CERT_NOT_ACCEPTED";
    }
#undef CODE
}

static void verify_lower(char *text)
{
    if (isupper((unsigned char)text[0]) && islower((unsigned char)text[1]))
        *text = (char)tolower((unsigned char)*text);
}

/* "certificate has expired (CN=localhost, 2026-01-01)" */
static void verify_note(struct tls_session *s, X509 *cert, int error)
{
    char text[TLS_TEXT], subject[128] = "", date[48] = "";
    const ASN1_TIME *when = NULL;
    struct tm tm;
    if (cert)
        tls_subject(cert, subject, sizeof subject);
    if (cert && error == X509_V_ERR_CERT_HAS_EXPIRED)
        when = X509_get0_notAfter(cert);
    if (cert && error == X509_V_ERR_CERT_NOT_YET_VALID)
        when = X509_get0_notBefore(cert);
    if (when && ASN1_TIME_to_tm(when, &tm) == 1)
        snprintf(date, sizeof date, ", %04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
    snprintf(text, sizeof text, "%s%s%s%s%s", X509_verify_cert_error_string(error), cert ? " (" : "", subject,
        date, cert ? ")" : "");
    verify_lower(text);
    tls_session_note(s, tls_verify_code(error), text);
}

/* The SHA-256 of the public key (SubjectPublicKeyInfo), as RFC 7469 has it. */
static bool verify_is_pinned(const struct tls_context *c, X509 *cert)
{
    unsigned char digest[EVP_MAX_MD_SIZE], *der = NULL;
    unsigned n = 0;
    int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    bool ok = length > 0 && EVP_Digest(der, (size_t)length, digest, &n, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    for (unsigned i = 0; ok && i < c->pins; i++)
        if (memcmp(c->pin[i], digest, TLS_PIN) == 0)
            return true;
    return false;
}

int tls_verify(int ok, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_session *s = SSL_get_app_data(ssl);
    const struct tls_context *c = tls_context_of(SSL_get_SSL_CTX(ssl));
    X509 *cert = X509_STORE_CTX_get_current_cert(store);
    if (!ok && c->verify != SSL_VERIFY_NONE) {
        verify_note(s, cert, X509_STORE_CTX_get_error(store));
        return 0;
    }
    if (X509_STORE_CTX_get_error_depth(store) > 0 || c->pins == 0 || !cert || verify_is_pinned(c, cert))
        return 1;
    tls_session_note(s, "PIN_MISMATCH", "the peer's public key is none of those that are pinned");
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

/* What an alert says; OpenSSL's list of descriptions lacks those of TLS 1.3: "tlsv13 alert certificate required". */
static const char *verify_alert(int alert, const char *words)
{
    static const char before[] = " alert ";
    const char *text = SSL_alert_desc_string_long(alert), *rest = words ? strstr(words, before) : NULL;
    return strcmp(text, "unknown") == 0 && rest ? rest + sizeof before - 1 : text;
}

/* An alert is the peer's word; else it is OpenSSL's. */
void tls_error_text(char *text, size_t size)
{
    unsigned long error = ERR_get_error();
    int reason = ERR_GET_REASON(error);
    const char *words = error ? ERR_reason_error_string(error) : NULL;
    if (error && ERR_GET_LIB(error) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET) {
        char alert[80];
        snprintf(alert, sizeof alert, "%s", verify_alert(reason - SSL_AD_REASON_OFFSET, words));
        verify_lower(alert);
        snprintf(text, size, "the peer refuses: %s", alert);
    } else {
        snprintf(text, size, "TLS: %s", words ? words : "protocol error");
    }
    ERR_clear_error();
}
