/* SPDX-License-Identifier: MIT
 * Answers of name servers; see dns.h. */
#include "plugins/ares/dns.h"

#include <stdlib.h>
#include <string.h>

enum {
    HEADER = 12,
    NAME_MAX_WIRE = 255,
    TEXT_MAX = 4 * NAME_MAX_WIRE, /* every byte written as \DDD */
    ALIASES_MAX = 16,
    CLASS_IN = 1,
    TYPE_CNAME = 5,
    TYPE_SOA = 6,
    NEGATIVE_MAX = 30, /* seconds; briefly: names are set up just after they were found missing */
    NEGATIVE_UNKNOWN = 1,
    KEEP_MAX = 24 * 60 * 60, /* seconds: a ttl of 2^31-1 s would outlive any change of the zone */
};

struct message {
    const unsigned char *bytes;
    size_t length;
};

struct name { /* labels with their lengths, as on the wire but not compressed */
    unsigned char bytes[NAME_MAX_WIRE];
    size_t length;
};

struct rr {
    struct name owner;
    uint16_t type, class;
    uint32_t ttl;
    size_t data, length; /* where its data lies */
};

static uint16_t ares_dns_get16(const unsigned char *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t ares_dns_get32(const unsigned char *p)
{
    return (uint32_t)ares_dns_get16(p) << 16 | ares_dns_get16(p + 2);
}

/* ---- names -------------------------------------------------------------------------------- */

/* Pointers lead strictly backwards, so that following them ends. *at moves behind the name. */
static bool ares_dns_read_name(const struct message *m, size_t *at, struct name *name)
{
    size_t pos = *at, limit = m->length;
    bool jumped = false;
    name->length = 0;
    for (;;) {
        if (pos >= limit)
            return false;
        unsigned n = m->bytes[pos];
        if (n >= 0xc0) {
            if (pos + 1 >= limit)
                return false;
            size_t target = (size_t)(ares_dns_get16(m->bytes + pos) & 0x3fff);
            if (target >= pos)
                return false;
            if (!jumped)
                *at = pos + 2;
            jumped = true;
            limit = pos;
            pos = target;
            continue;
        }
        if (n > 63 || pos + 1 + n > limit || name->length + 1 + n > NAME_MAX_WIRE)
            return false;
        memcpy(name->bytes + name->length, m->bytes + pos, 1 + n);
        name->length += 1 + n;
        pos += 1 + n;
        if (n == 0)
            break;
    }
    if (!jumped)
        *at = pos;
    return true;
}

static unsigned char ares_dns_lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

static bool ares_dns_same_name(const struct name *a, const struct name *b)
{
    if (a->length != b->length)
        return false;
    for (size_t i = 0; i < a->length; i++)
        if (ares_dns_lower(a->bytes[i]) != ares_dns_lower(b->bytes[i]))
            return false;
    return true;
}

static size_t ares_dns_put_byte(char *text, unsigned char c)
{
    if (c == '.' || c == '\\') {
        text[0] = '\\';
        text[1] = (char)c;
        return 2;
    }
    if (c > 0x20 && c < 0x7f) {
        text[0] = (char)c;
        return 1;
    }
    text[0] = '\\';
    text[1] = (char)('0' + c / 100);
    text[2] = (char)('0' + c / 10 % 10);
    text[3] = (char)('0' + c % 10);
    return 4;
}

/* As text, without the last dot; the root is "." */
static size_t ares_dns_name_text(const struct name *name, char text[TEXT_MAX])
{
    size_t length = 0, at = 0;
    while (name->bytes[at]) {
        if (at > 0)
            text[length++] = '.';
        size_t end = at + 1 + name->bytes[at];
        for (at++; at < end; at++)
            length += ares_dns_put_byte(text + length, name->bytes[at]);
    }
    if (length == 0)
        text[length++] = '.';
    return length;
}

/* ---- records ------------------------------------------------------------------------------ */

static bool ares_dns_read_rr(const struct message *m, size_t *at, struct rr *r)
{
    if (!ares_dns_read_name(m, at, &r->owner) || *at + 10 > m->length)
        return false;
    const unsigned char *p = m->bytes + *at;
    r->type = ares_dns_get16(p);
    r->class = ares_dns_get16(p + 2);
    r->ttl = ares_dns_get32(p + 4);
    if (r->ttl > 0x7fffffff) /* RFC 2181: as zero */
        r->ttl = 0;
    if (r->ttl > KEEP_MAX)
        r->ttl = KEEP_MAX;
    r->length = ares_dns_get16(p + 8);
    r->data = *at + 10;
    *at = r->data + r->length;
    return *at <= m->length;
}

/* Where the answers begin, and the name they are about. One question, as was asked. */
static bool ares_dns_read_question(const struct message *m, size_t *at, struct name *name)
{
    if (m->length < HEADER || ares_dns_get16(m->bytes + 4) != 1)
        return false;
    *at = HEADER;
    if (!ares_dns_read_name(m, at, name) || *at + 4 > m->length)
        return false;
    *at += 4;
    return true;
}

static unsigned ares_dns_answers_of(const struct message *m)
{
    return ares_dns_get16(m->bytes + 6);
}

/* The name at the end of the aliases, wherever they stand among the answers, and the least of their ttls. */
static bool ares_dns_follow_aliases(const struct message *m, size_t answers, struct name *name, uint32_t *ttl)
{
    struct rr r;
    bool moved = true;
    for (int i = 0; i < ALIASES_MAX && moved; i++) {
        size_t at = answers;
        moved = false;
        for (unsigned n = ares_dns_answers_of(m); n > 0; n--) {
            if (!ares_dns_read_rr(m, &at, &r))
                return false;
            if (r.type != TYPE_CNAME || r.class != CLASS_IN || !ares_dns_same_name(&r.owner, name))
                continue;
            size_t data = r.data;
            if (!ares_dns_read_name(m, &data, name))
                return false;
            if (r.ttl < *ttl)
                *ttl = r.ttl;
            moved = true;
        }
    }
    return true;
}

/* ---- data of each type -------------------------------------------------------------------- */

/* Each writes what becomes of a record to text (at least the record's length and TEXT_MAX) and says how
 * much that is; -1: not well formed. */

static long ares_dns_take_name(const struct message *m, const struct rr *r, size_t skip, char *text)
{
    struct name name;
    size_t at = r->data + skip;
    if (r->length < skip + 1 || !ares_dns_read_name(m, &at, &name) || at != r->data + r->length)
        return -1;
    return (long)ares_dns_name_text(&name, text);
}

/* Character strings, one behind the other. */
static long ares_dns_take_text(const struct message *m, const struct rr *r, char *text)
{
    const unsigned char *p = m->bytes + r->data, *end = p + r->length;
    long length = 0;
    if (p == end)
        return -1;
    while (p < end) {
        size_t n = *p++;
        if (n > (size_t)(end - p))
            return -1;
        memcpy(text + length, p, n);
        length += (long)n;
        p += n;
    }
    return length;
}

static long ares_dns_take_address(const struct message *m, const struct rr *r, size_t size, char *text)
{
    if (r->length != size)
        return -1;
    memcpy(text, m->bytes + r->data, size);
    return (long)size;
}

static long ares_dns_take_data(
    const struct message *m, const struct rr *r, struct asio_record *record, char *text)
{
    const unsigned char *p = m->bytes + r->data;
    switch (r->type) {
    case ASIO_NAMES_A:
        return ares_dns_take_address(m, r, 4, text);
    case ASIO_NAMES_AAAA:
        return ares_dns_take_address(m, r, 16, text);
    case ASIO_NAMES_TXT:
        return ares_dns_take_text(m, r, text);
    case ASIO_NAMES_PTR:
        return ares_dns_take_name(m, r, 0, text);
    case ASIO_NAMES_MX:
        if (r->length < 3)
            return -1;
        record->priority = ares_dns_get16(p);
        return ares_dns_take_name(m, r, 2, text);
    case ASIO_NAMES_SRV:
        if (r->length < 7)
            return -1;
        record->priority = ares_dns_get16(p);
        record->weight = ares_dns_get16(p + 2);
        record->port = ares_dns_get16(p + 4);
        return ares_dns_take_name(m, r, 6, text);
    default:
        return -1;
    }
}

/* ---- answers ------------------------------------------------------------------------------ */

struct found {
    unsigned count;
    size_t size;
    uint32_t ttl; /* the least */
    bool garbage;
};

/* Goes through the records that are wanted; without an answer to fill it only counts. */
static struct found ares_dns_go_through(const struct message *m, size_t at, const struct name *name,
    uint16_t type, struct asio_answer *answer, char *bytes)
{
    struct found f = { .ttl = KEEP_MAX };
    struct rr r;
    char text[65536];
    for (unsigned n = ares_dns_answers_of(m); n > 0; n--) {
        struct asio_record record = { .type = type };
        if (!ares_dns_read_rr(m, &at, &r)) {
            f.garbage = true;
            break;
        }
        if (r.type != type || r.class != CLASS_IN || !ares_dns_same_name(&r.owner, name))
            continue;
        long length = ares_dns_take_data(m, &r, &record, text);
        if (length < 0) {
            f.garbage = true;
            break;
        }
        if (answer) {
            record.ttl = (int32_t)r.ttl;
            record.length = (uint32_t)length;
            record.bytes = memcpy(bytes + f.size, text, (size_t)length);
            answer->records[f.count] = record;
        }
        f.count++;
        f.size += (size_t)length;
        if (r.ttl < f.ttl)
            f.ttl = r.ttl;
    }
    return f;
}

/* The lowest priority is used first; within it, where a service weighs most. Otherwise as they came. */
static int ares_dns_by_priority(const void *a, const void *b)
{
    const struct asio_record *x = a, *y = b;
    if (x->priority != y->priority)
        return x->priority < y->priority ? -1 : 1;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

int asio_ares_dns_answer(const struct asio_allocator *mem, const unsigned char *bytes, size_t length,
    uint16_t type, struct asio_answer **answer, uint32_t *keep)
{
    struct message m = { bytes, length };
    struct name name;
    size_t at;
    char *room;
    uint32_t aliases_ttl = KEEP_MAX;
    *keep = 0;
    if (!ares_dns_read_question(&m, &at, &name) || !ares_dns_follow_aliases(&m, at, &name, &aliases_ttl))
        return UV_EAI_FAIL;
    struct found f = ares_dns_go_through(&m, at, &name, type, NULL, NULL);
    if (f.garbage)
        return UV_EAI_FAIL;
    if (f.count == 0) {
        *keep = asio_ares_dns_negative(bytes, length);
        return UV_EAI_NODATA;
    }
    *answer = asio_answer_new(mem, f.count, f.size, &room);
    if (!*answer)
        return UV_ENOMEM;
    ares_dns_go_through(&m, at, &name, type, *answer, room);
    if (type == ASIO_NAMES_SRV || type == ASIO_NAMES_MX)
        qsort((*answer)->records, f.count, sizeof *(*answer)->records, ares_dns_by_priority);
    *keep = aliases_ttl < f.ttl ? aliases_ttl : f.ttl;
    return 0;
}

/* Its last field is how long the zone's missing names may be taken for missing. */
static uint32_t ares_dns_soa_minimum(const struct message *m, const struct rr *r)
{
    if (r->length < 4)
        return 0;
    uint32_t minimum = ares_dns_get32(m->bytes + r->data + r->length - 4);
    uint32_t ttl = minimum < r->ttl ? minimum : r->ttl;
    return ttl < NEGATIVE_MAX ? ttl : NEGATIVE_MAX;
}

uint32_t asio_ares_dns_negative(const unsigned char *bytes, size_t length)
{
    struct message m = { bytes, length };
    struct name name;
    struct rr r;
    size_t at;
    if (!ares_dns_read_question(&m, &at, &name))
        return 0;
    for (unsigned n = ares_dns_answers_of(&m) + ares_dns_get16(bytes + 8); n > 0; n--) {
        if (!ares_dns_read_rr(&m, &at, &r))
            return 0;
        if (r.type == TYPE_SOA)
            return ares_dns_soa_minimum(&m, &r);
    }
    return NEGATIVE_UNKNOWN;
}
