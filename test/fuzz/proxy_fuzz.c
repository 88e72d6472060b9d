/* SPDX-License-Identifier: MIT
 *
 * proxy_fuzz [ROUNDS]: feeds the parser of PROXY headers (src/proxy_protocol.c) with headers that are good, cut at
 * every byte, mangled, and with noise, each in a block of exactly its size. Checks what must hold of all; the
 * sanitizers find what reads elsewhere. */
#include "net/proxy_protocol.c"

#include <stdio.h>
#include <stdlib.h>

static uint64_t state = 88172645463325252u; /* xorshift: the same on every machine */

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
    exit(1);
}

struct outcome {
    int length;
    size_t need;
    struct asio_proxy_names names;
};

static struct outcome parse(const char *bytes, size_t n)
{
    struct outcome o = { .need = 0 };
    char *copy = malloc(n ? n : 1); /* no byte more: reading on is found */
    memcpy(copy, bytes, n);
    o.length = asio_proxy_parse(copy, n, &o.names, &o.need);
    check(o.length == UV_EPROTO || (o.length >= 0 && (size_t)o.length <= n), "a length that is not there");
    check(o.length != 0 || (o.need > n && o.need <= 65536 + 16), "does not say what it needs");
    check(o.length > 0 || o.names.source.any.sa_family == AF_UNSPEC, "names without a header");
    free(copy);
    return o;
}

/* Whatever comes first decides: more bytes change nothing, fewer only say that there are too few. */
static void try_all(const char *bytes, size_t n)
{
    struct outcome all = parse(bytes, n);
    for (size_t i = 0; i <= n && i < 400; i++) {
        struct outcome part = parse(bytes, i);
        bool over = all.length > 0 && i >= (size_t)all.length;
        check(!over || part.length == all.length, "bytes behind it matter");
        check(all.length <= 0 || over || part.length == 0, "an end in the middle");
        check(part.length >= 0 || all.length < 0, "more makes it good");
        check(part.length != 0 || part.need <= (all.length > 0 ? (size_t)all.length : SIZE_MAX),
            "wants too much");
    }
}

static size_t make(char *to)
{
    static const char *const lines[] = { "PROXY TCP4 255.255.255.255 1.2.3.4 65535 1\r\n",
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
        "65535\r\n",
        "PROXY TCP6 ::1 ::ffff:1.2.3.4 0 80\r\n", "PROXY UNKNOWN\r\n", "PROXY UNKNOWN what ever it is\r\n" };
    static const unsigned char least[] = { 0, 12, 36, 216 };
    unsigned kind = number(9);
    if (kind < 5) {
        strcpy(to, lines[kind]);
        return strlen(to);
    }
    unsigned family = number(4), length = least[family] + number(3) * 50;
    memcpy(to, signature, SIGNATURE);
    to[12] = (char)(0x20 | number(2));
    to[13] = (char)(family << 4 | number(3));
    to[14] = (char)(length >> 8);
    to[15] = (char)length;
    for (unsigned i = 0; i < length; i++)
        to[HEAD + i] = (char)number(256);
    return HEAD + length;
}

static void mangle(char *bytes, size_t *n)
{
    static const char odd[] = " \r\n\0./:%0129a";
    for (unsigned i = number(4); i > 0; i--) {
        size_t at = number((unsigned)*n);
        switch (number(4)) {
        case 0:
            bytes[at] = (char)number(256);
            break;
        case 1:
            bytes[at] = odd[number(sizeof odd)];
            break;
        case 2:
            memmove(bytes + at, bytes + at + 1, *n - at - 1);
            *n -= *n > 1;
            break;
        default:
            memmove(bytes + at + 1, bytes + at, *n - at);
            ++*n;
        }
    }
}

int main(int argc, char **argv)
{
    static char bytes[2000];
    long rounds = argc > 1 ? atol(argv[1]) : 10000, good = 0;
    for (long round = 0; round < rounds; round++) {
        size_t n = make(bytes);
        check(parse(bytes, n).length == (int)n, "a good one is refused");
        try_all(bytes, n);
        mangle(bytes, &n);
        for (unsigned i = number(50); i > 0; i--)
            bytes[n++] = (char)number(256);
        try_all(bytes, n);
        good += parse(bytes, n).length > 0;
    }
    printf("%ld headers, %ld mangled ones are still good\n", rounds, good);
    return 0;
}
