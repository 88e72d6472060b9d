/* SPDX-License-Identifier: MIT
 *
 * Mode find: looking for delimiters (src/stream_find.c), against a search that could not be simpler, and
 * in amounts for which a search that is not linear would take hours. */
#include "host.h"

#include "base/delimiter.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { DELIM_MAX = 24, TEXT_MAX = 80 };

static uint32_t state = 20260731;

static unsigned chance(unsigned n) /* 0 to n - 1 */
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % n;
}

/* Few letters, so that beginnings of the delimiter are everywhere. */
static void random_text(char *text, size_t n, unsigned letters)
{
    static const char alphabet[] = "\na\rb";
    for (size_t i = 0; i < n; i++)
        text[i] = alphabet[chance(letters)];
}

/* Where the first delimiter ends, 0: there is none. */
static size_t plain_find(const char *text, size_t n, const char *delim, size_t length)
{
    for (size_t i = 0; i + length <= n; i++)
        if (memcmp(text + i, delim, length) == 0)
            return i + length;
    return 0;
}

/* Where a delimiter may begin that is not whole. */
static size_t plain_earliest(const char *text, size_t n, const char *delim, size_t length)
{
    size_t i = n >= length ? n - length + 1 : 0;
    while (memcmp(text + i, delim, n - i) != 0)
        i++;
    return i;
}

static size_t return_before(bool line, const char *text, size_t n)
{
    return line && n > 0 && text[n - 1] == '\r';
}

static bool same(struct asio_delimiter *d, bool line, const char *text, size_t n, size_t seen,
    const char *delim, size_t length)
{
    size_t end = 0, expected = plain_find(text, n, delim, length);
    bool found = asio_delimiter_find(d, text, n, seen, &end);
    if (found != (expected > 0))
        return false;
    if (found)
        return end == expected &&
            asio_delimiter_content(d, text, end) == end - length - return_before(line, text, end - length);
    return asio_delimiter_earliest(d, text, n) ==
        plain_earliest(text, n, delim, length) - return_before(line, text, n);
}

/* The text arrives in pieces, until the delimiter is there. */
static bool arrives_in_pieces(void)
{
    char delim[DELIM_MAX], text[TEXT_MAX];
    bool line = chance(8) == 0;
    unsigned letters = line ? 4 : 1 + chance(3);
    size_t length = line ? 1 : 1 + chance(DELIM_MAX), total = chance(TEXT_MAX), n = 0, seen = 0;
    struct asio_delimiter d = { 0 };
    random_text(delim, line ? 0 : length, letters);
    random_text(text, total, letters);
    if (line)
        delim[0] = '\n';
    if (line)
        asio_delimiter_set_line(&d);
    else if (asio_delimiter_set(&d, delim, length) < 0)
        return false;
    if (!line && total >= length && chance(2)) /* chance alone would seldom do it */
        memcpy(text + chance((unsigned)(total - length) + 1), delim, length);
    bool ok = asio_delimiter_length(&d) == length + line;
    while (ok && n < total && plain_find(text, n, delim, length) == 0) {
        n += 1 + chance(chance(2) ? 1 : (unsigned)(total - n));
        ok = same(&d, line, text, n, seen, delim, length);
        seen = n;
    }
    asio_delimiter_free(&d);
    return ok;
}

static void agrees_with_a_plain_search(void)
{
    long rounds = host_long ? 10000000 : 300000;
    bool ok = true;
    host_doing("find: pieces");
    host_limit(60);
    for (long i = 0; i < rounds && ok; i++) {
        uint32_t before = state;
        ok = arrives_in_pieces();
        host_check(ok, "differs, state %u", before);
    }
}

/* One byte after the other, and a delimiter that is always nearly there. */
static void is_linear(size_t length)
{
    enum { TOTAL = 64 * 1024 * 1024 };
    char *delim = malloc(length), *text = malloc(TOTAL);
    struct asio_delimiter d = { 0 };
    size_t end;
    bool found = false;
    if (!delim || !text)
        abort();
    host_doing("find: 64 MB, %lu bytes to look for", (unsigned long)length);
    host_limit(60);
    memset(text, 'a', TOTAL);
    memset(delim, 'a', length - 1);
    delim[length - 1] = 'b';
    host_check(asio_delimiter_set(&d, delim, length) == 0, "not set");
    for (size_t n = 1; n <= TOTAL && !found && !host_late(); n++)
        found = asio_delimiter_find(&d, text, n, n - 1, &end);
    host_check(!found && !host_late(), "found what is not there, or too slow");
    host_check(asio_delimiter_earliest(&d, text, TOTAL) == TOTAL - (length - 1), "begins elsewhere");
    text[TOTAL - 1] = 'b';
    asio_delimiter_set(&d, delim, length);
    host_check(asio_delimiter_find(&d, text, TOTAL, 0, &end) && end == TOTAL, "not found in one piece");
    asio_delimiter_free(&d);
    free(delim);
    free(text);
}

void mode_find(void)
{
    agrees_with_a_plain_search();
    is_linear(1);
    is_linear(2);
    is_linear(ASIO_DELIMITER_SHORT);
    is_linear(ASIO_DELIMITER_SHORT + 1);
    is_linear(1000000);
}
