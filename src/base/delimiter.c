/* SPDX-License-Identifier: MIT
 * Looking for a delimiter; see delimiter.h. */
#include "base/delimiter.h"

#include <string.h>

/* A long delimiter: its bytes, and for each beginning of it the length of its longest proper
 * beginning that is also its end (its border). In one block of memory, owned by the delimiter. */
struct asio_pattern {
    size_t length;
    size_t matched; /* how much of the delimiter the bytes looked at end with */
    unsigned char *bytes;
    uint32_t border[];
};

static struct asio_pattern *new_pattern(const char *bytes, size_t n)
{
    if (n > UINT32_MAX / 8) /* longer than any Lua string */
        return NULL;
    struct asio_pattern *p = asio_mem.malloc(sizeof *p + n * (sizeof p->border[0] + 1));
    if (!p)
        return NULL;
    p->length = n;
    p->matched = 0;
    p->bytes = (unsigned char *)(p->border + n);
    memcpy(p->bytes, bytes, n);
    uint32_t k = 0;
    p->border[0] = 0;
    for (size_t i = 1; i < n; i++) {
        while (k > 0 && p->bytes[i] != p->bytes[k])
            k = p->border[k - 1];
        k += p->bytes[i] == p->bytes[k];
        p->border[i] = k;
    }
    return p;
}

void asio_delimiter_free(struct asio_delimiter *d)
{
    if (d->is_long)
        asio_mem.free(d->u.pattern);
    *d = (struct asio_delimiter){ 0 };
}

int asio_delimiter_set(struct asio_delimiter *d, const char *bytes, size_t n)
{
    asio_delimiter_free(d);
    if (n <= ASIO_DELIMITER_SHORT) {
        memcpy(d->u.bytes, bytes, n);
        d->length = (uint8_t)n;
        return 0;
    }
    d->u.pattern = new_pattern(bytes, n);
    d->is_long = d->u.pattern != NULL;
    return d->is_long ? 0 : UV_ENOMEM;
}

void asio_delimiter_set_line(struct asio_delimiter *d)
{
    if (d->is_long)
        asio_delimiter_free(d);
    d->u.bytes[0] = '\n';
    d->length = 1;
    d->line = true;
}

size_t asio_delimiter_length(const struct asio_delimiter *d)
{
    return d->is_long ? d->u.pattern->length : (size_t)d->length + d->line;
}

static const char *find_byte(const char *from, const char *end, unsigned char byte)
{
    return from < end ? memchr(from, byte, (size_t)(end - from)) : NULL;
}

/* Of those looked at, the last bytes may be its beginning: they are looked at once more. */
static bool find_short(const struct asio_delimiter *d, const char *bytes, size_t n, size_t seen, size_t *end)
{
    size_t tail = d->length - 1u;
    const char *from = bytes + (seen > tail ? seen - tail : 0), *last = bytes + (n > tail ? n - tail : 0);
    const char *hit = find_byte(from, last, d->u.bytes[0]);
    while (hit && memcmp(hit, d->u.bytes, d->length) != 0)
        hit = find_byte(hit + 1, last, d->u.bytes[0]);
    if (hit)
        *end = (size_t)(hit - bytes) + d->length;
    return hit != NULL;
}

static bool find_long(struct asio_pattern *p, const char *bytes, size_t n, size_t seen, size_t *end)
{
    size_t k = p->matched, i;
    for (i = seen; i < n && k < p->length; i++) {
        const char *hit = k == 0 ? memchr(bytes + i, p->bytes[0], n - i) : bytes + i;
        if (!hit)
            break;
        i = (size_t)(hit - bytes);
        while (k > 0 && (unsigned char)*hit != p->bytes[k])
            k = p->border[k - 1];
        k += (unsigned char)*hit == p->bytes[k];
    }
    p->matched = k;
    *end = i;
    return k == p->length;
}

bool asio_delimiter_find(struct asio_delimiter *d, const char *bytes, size_t n, size_t seen, size_t *end)
{
    return d->is_long ? find_long(d->u.pattern, bytes, n, seen, end) : find_short(d, bytes, n, seen, end);
}

static bool ends_with_return(const struct asio_delimiter *d, const char *bytes, size_t n)
{
    return d->line && n > 0 && bytes[n - 1] == '\r';
}

size_t asio_delimiter_content(const struct asio_delimiter *d, const char *bytes, size_t end)
{
    size_t n = end - (d->is_long ? d->u.pattern->length : d->length);
    return n - ends_with_return(d, bytes, n);
}

size_t asio_delimiter_earliest(const struct asio_delimiter *d, const char *bytes, size_t n)
{
    if (d->is_long)
        return n - d->u.pattern->matched;
    size_t k = d->length - 1u < n ? d->length - 1u : n;
    while (memcmp(bytes + n - k, d->u.bytes, k) != 0)
        k--;
    return n - k - ends_with_return(d, bytes, n);
}
