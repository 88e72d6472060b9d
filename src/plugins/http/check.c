/* SPDX-License-Identifier: MIT
 *
 * What requests have to be beside what llhttp sees to: one Host (RFC 9112, 3.2), one way of framing (6.1, 6.3), lines
 * that end in CRLF and are not folded (2.2, 5.2). llhttp gives spans only, so the bytes between them are looked at once
 * more: what is there apart from colons, blanks and CRLF has been read differently by others on the way. */
#include "plugins/http/http.h"

#include <string.h>

bool asio_http_is(const char *bytes, size_t n, const char *lower)
{
    for (size_t i = 0; i < n; i++) {
        char c = bytes[i] >= 'A' && bytes[i] <= 'Z' ? (char)(bytes[i] + 32) : bytes[i];
        if (c != lower[i]) /* the end of `lower`, too */
            return false;
    }
    return lower[n] == 0;
}

static const char *check_skip_blanks(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

/* Behind a complete head there is a line feed at the latest, so looking ahead stops in time. NULL: no CRLF. */
static const char *check_line_end(const char *p)
{
    return p[0] == '\r' && p[1] == '\n' ? p + 2 : NULL;
}

/* The line of one field: where the next one begins; NULL: something else is between the spans. */
static const char *check_field_line(const char *bytes, const char *line, const struct http_field *f)
{
    const char *p = bytes + f->name.at;
    if (p != line || f->name.length == 0 || p[f->name.length] != ':')
        return NULL;
    p = check_skip_blanks(p + f->name.length + 1);
    if (f->value.length > 0 && p != bytes + f->value.at)
        return NULL;
    return check_line_end(check_skip_blanks(p + f->value.length));
}

/* RFC 9112, 2.2: empty lines before a request are skipped. llhttp also skips bare carriage returns and line feeds. */
static bool check_start(const char *p)
{
    while (p[0] == '\r' && p[1] == '\n')
        p += 2;
    return *p != '\r' && *p != '\n';
}

static bool check_lines(const struct http_request_head *h)
{
    static const char version[] = " HTTP/1.";
    const char *p = h->bytes + h->target.at + h->target.length;
    const char *target = h->bytes + h->target.at;
    if (h->target.length == 0 || h->target.at < 2 || target[-1] != ' ' || target[-2] == ' ' ||
        memcmp(p, version, sizeof version - 1) != 0 || !check_start(h->bytes))
        return false;
    p = check_line_end(p + sizeof version);
    for (uint32_t i = 0; p && i < h->count; i++)
        p = check_field_line(h->bytes, p, &h->fields[i]);
    return p && check_line_end(p);
}

/* RFC 3986, 3.2.2, roughly: nothing that would make a host into a path, a list or a user: no control characters, none of
 * "#,/<>?@\^`{|}. A bit for each character, 32 in a word. */
static bool check_host(const char *host, size_t n)
{
    static const uint32_t refused[8] = { 0xffffffff, 0xd000900d, 0x50000001, 0xb8000001 };
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)host[i];
        bad |= refused[c >> 5] >> (c & 31);
    }
    return !(bad & 1);
}

bool asio_http_check_framing(const char *bytes, size_t from, size_t to)
{
    const char *p = bytes + from, *end = bytes + to;
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
        if (p == bytes || p[-1] != '\r')
            return false;
        p++;
    }
    return true;
}

struct check_counts {
    int hosts, lengths, codings;
};

/* Those fields that decide what the message is. */
static int check_field(const struct http_request_head *h, const struct http_field *f, struct check_counts *n)
{
    const char *name = h->bytes + f->name.at, *value = h->bytes + f->value.at;
    size_t length = f->value.length;
    switch (f->name.length) {
    case 4:
        if (!asio_http_is(name, 4, "host"))
            return 0;
        return ++n->hosts == 1 && check_host(value, length) ? 0 : 400;
    case 6:
        if (!asio_http_is(name, 6, "expect") || h->minor == 0)
            return 0;
        return asio_http_is(value, length, "100-continue") ? 0 : 417;
    case 14:
        n->lengths += asio_http_is(name, 14, "content-length");
        return 0;
    case 17:
        if (!asio_http_is(name, 17, "transfer-encoding"))
            return 0;
        n->codings++;
        return asio_http_is(value, length, "chunked") ? 0 : length == 0 ? 400 : 501;
    default:
        return 0;
    }
}

int asio_http_check_request(const struct http_request_head *h)
{
    struct check_counts n = { 0 };
    if (h->major != 1)
        return 505;
    if (!check_lines(h))
        return 400;
    for (uint32_t i = 0; i < h->count; i++) {
        int status = check_field(h, &h->fields[i], &n);
        if (status != 0)
            return status;
    }
    bool framed =
        n.lengths <= 1 && n.codings <= 1 && n.lengths + n.codings <= 1 && (n.codings == 0 || h->minor > 0);
    return framed && (n.hosts == 1 || h->minor == 0) ? 0 : 400;
}
