/* SPDX-License-Identifier: MIT
 *
 * dns_fuzz [ROUNDS]: feeds the parser of DNS answers (src/plugins/ares/dns.c) with answers that are mangled in all
 * ways, each in a block of exactly its size. Looks at all that comes out of it. The sanitizers find
 * what reads or writes elsewhere. */
#include "plugins/ares/dns.c"

#include <stdio.h>

static const struct asio_allocator allocator = { malloc, realloc, free };

static uint64_t state = 88172645463325252u; /* xorshift: the same on every machine */

static unsigned number(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 33) % below;
}

struct maker {
    unsigned char bytes[4096];
    size_t length;
};

static void put(struct maker *m, const void *bytes, size_t length)
{
    memcpy(m->bytes + m->length, bytes, length);
    m->length += length;
}

static void put16(struct maker *m, unsigned n)
{
    unsigned char bytes[2] = { (unsigned char)(n >> 8), (unsigned char)n };
    put(m, bytes, 2);
}

static void put_name(struct maker *m)
{
    static const char label[] = "\5label";
    if (number(3) > 0) { /* a pointer, mostly to the question */
        put16(m, 0xc000 | (number(4) ? 12 : number((unsigned)m->length)));
        return;
    }
    for (unsigned n = number(4); n > 0; n--)
        put(m, label, 6);
    put(m, "", 1);
}

static void put_data(struct maker *m, unsigned type)
{
    switch (type) {
    case ASIO_NAMES_A:
        put(m, "\x7f\0\0\1", 4);
        break;
    case ASIO_NAMES_AAAA:
        put(m, "0123456789abcdef", 16);
        break;
    case ASIO_NAMES_TXT:
        for (unsigned n = number(4) + 1; n > 0; n--)
            put(m, "\6text!\0", 7);
        break;
    case ASIO_NAMES_SRV:
        put16(m, number(3));
        put16(m, number(3)); /* fall through */
    case ASIO_NAMES_MX:
        put16(m, number(3)); /* fall through */
    default:
        put_name(m);
    }
}

static void put_record(struct maker *m, unsigned type)
{
    put_name(m);
    put16(m, type);
    put16(m, 1);
    put16(m, number(3) ? 0 : number(65536)); /* the ttl: mostly minutes, up to 2^32-1 s */
    put16(m, number(65536));
    size_t at = m->length;
    put16(m, 0);
    put_data(m, type);
    unsigned length = (unsigned)(m->length - at - 2);
    m->bytes[at] = (unsigned char)(length >> 8);
    m->bytes[at + 1] = (unsigned char)length;
}

static void make(struct maker *m, unsigned type)
{
    unsigned answers = number(6), authority = number(2);
    m->length = 0;
    put16(m, number(65536));
    put16(m, 0x8180);
    put16(m, 1);
    put16(m, answers);
    put16(m, authority);
    put16(m, 0);
    put(m, number(2) ? "\4name\4test" : "\4nAMe\4TEst", 11);
    put16(m, type);
    put16(m, 1);
    for (unsigned i = 0; i < answers; i++)
        put_record(m, number(4) ? type : TYPE_CNAME);
    if (authority)
        put_record(m, TYPE_SOA);
}

static void mangle(struct maker *m)
{
    for (unsigned n = number(4); n > 0 && m->length > 0; n--) {
        unsigned at = number((unsigned)m->length);
        switch (number(4)) {
        case 0:
            m->length = at;
            break;
        case 1:
            m->bytes[at] = (unsigned char)(0xc0 | number(2));
            break;
        case 2:
            m->bytes[at] ^= (unsigned char)(1 << number(8));
            break;
        default:
            m->bytes[at] = (unsigned char)number(256);
        }
    }
}

/* Reads every byte that came out, so that the sanitizers see it; returns whether there was something. */
static bool look(const struct maker *m, uint16_t type)
{
    struct asio_answer *answer = NULL;
    uint32_t keep;
    volatile unsigned sum = 0;
    unsigned char *exact = malloc(m->length ? m->length : 1);
    memcpy(exact, m->bytes, m->length);
    int status = asio_ares_dns_answer(&allocator, exact, m->length, type, &answer, &keep);
    if (asio_ares_dns_negative(exact, m->length) > NEGATIVE_MAX)
        abort();
    free(exact);
    if ((status == 0) != (answer != NULL) || (answer && answer->count == 0) || keep > KEEP_MAX)
        abort();
    for (unsigned i = 0; answer && i < answer->count; i++) {
        const struct asio_record *r = &answer->records[i];
        if (r->ttl < 0 || r->ttl > KEEP_MAX || r->type != type || (uint32_t)r->ttl < keep)
            abort();
        for (uint32_t j = 0; j < r->length; j++)
            sum += (unsigned char)r->bytes[j];
    }
    asio_answer_release(&allocator, answer);
    return status == 0;
}

int main(int argc, char **argv)
{
    static const uint16_t types[] = { ASIO_NAMES_A, ASIO_NAMES_AAAA, ASIO_NAMES_SRV, ASIO_NAMES_MX,
        ASIO_NAMES_TXT, ASIO_NAMES_PTR };
    static struct maker m;
    long rounds = argc > 1 ? atol(argv[1]) : 1000000, parsed = 0;
    for (long i = 0; i < rounds; i++) {
        uint16_t type = types[number(sizeof types / sizeof *types)];
        make(&m, type);
        mangle(&m);
        parsed += look(&m, type);
    }
    printf("%ld parsed, %ld refused\n", parsed, rounds - parsed);
    return 0;
}
