/* SPDX-License-Identifier: MIT
 *
 * buffer_fuzz [ROUNDS [SEED]]: drives the byte queues and the store of blocks under them (src/base/buffer.c,
 * src/base/blocks.c) with random operations beside a plain model: an array of bytes. Allocations fail at random.
 * Checks after each step that the queues hold the model's bytes, that lent bytes stay where they are, that every
 * anchor is released once, and that the store keeps no more than it may. */
#include "base/blocks.c"
#include "base/buffer.c"

#include <stdio.h>
#include <stdlib.h>

enum { QUEUES = 24, MOST = 200 * 1024, ANCHORS = 4096 };

static uint64_t state; /* xorshift: the same on every machine */

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

/* ---- memory that fails -------------------------------------------------------------------- */

static long blocks_out;
static unsigned fails_one_in; /* 0: never */
static bool failed;

static void *failing_malloc(size_t size)
{
    failed = fails_one_in && number(fails_one_in) == 0;
    void *p = failed ? NULL : malloc(size);
    blocks_out += p != NULL;
    return p;
}

static void *no_realloc(void *p, size_t size)
{
    (void)p;
    (void)size;
    check(false, "realloc is not expected");
    return NULL;
}

static void counting_free(void *p)
{
    blocks_out -= p != NULL;
    free(p);
}

struct asio_allocator asio_mem = { failing_malloc, no_realloc, counting_free };

/* ---- the model ---------------------------------------------------------------------------- */

struct model {
    char bytes[MOST];
    size_t length;
};

struct pair {
    struct asio_outbuf out;
    struct model sent; /* what `out` holds */
    const char *lent;  /* where its first byte was when it was lent */
    struct asio_inbuf in;
    struct model got; /* what `in` holds */
};

static struct pair pairs[QUEUES];
static struct asio_blocks blocks;
static struct asio_outbuf_env env;
static char source[MOST]; /* where written bytes come from; strings do not move */
static char *anchored[ANCHORS];
static long anchors;

static void release(void *arg, int ref)
{
    (void)arg;
    check(ref >= 0 && ref < ANCHORS && anchored[ref], "an anchor is released twice");
    free(anchored[ref]);
    anchored[ref] = NULL;
    anchors--;
}

static void model_add(struct model *m, const char *p, size_t n)
{
    memcpy(m->bytes + m->length, p, n);
    m->length += n;
}

static void model_skip(struct model *m, size_t n)
{
    m->length -= n;
    memmove(m->bytes, m->bytes + n, m->length);
}

static size_t some_size(void)
{
    static const unsigned most[] = { 1, 70, 600, 5000, 17000, 70000 };
    return number(most[number(6)]) + 1;
}

/* ---- the queue of what is sent ------------------------------------------------------------ */

static void check_out(const struct pair *p)
{
    uv_buf_t bufs[4096];
    size_t total, at = 0;
    unsigned count = asio_outbuf_gather(&p->out, bufs, 4096, &total);
    check(p->out.length == p->sent.length && total == p->sent.length, "a wrong length to send");
    for (unsigned i = 0; i < count; i++) {
        check(bufs[i].len > 0, "an empty buffer is sent");
        check(memcmp(bufs[i].base, p->sent.bytes + at, bufs[i].len) == 0, "wrong bytes to send");
        at += bufs[i].len;
    }
    check(!p->lent || (count > 0 && bufs[0].base == p->lent), "lent bytes have moved");
}

static void write_copy(struct pair *p, const char *bytes, size_t n)
{
    failed = false;
    int status = asio_outbuf_copy(&p->out, &env, bytes, n);
    check(status == 0 || (status == UV_ENOMEM && failed), "a write fails without need");
    if (status == 0)
        model_add(&p->sent, bytes, n);
}

static void write_anchored(struct pair *p, const char *bytes, size_t n)
{
    int ref = 0;
    while (ref < ANCHORS && anchored[ref])
        ref++;
    if (ref == ANCHORS)
        return;
    anchored[ref] = malloc(n); /* freed when released: a use after that is found */
    memcpy(anchored[ref], bytes, n);
    anchors++;
    failed = false;
    if (asio_outbuf_refer(&p->out, &env, anchored[ref], n, ref) == 0) {
        model_add(&p->sent, bytes, n);
        return;
    }
    check(failed, "an anchored write fails without need");
    release(NULL, ref);
}

static void step_out(struct pair *p)
{
    size_t n = some_size();
    const char *bytes = source + number(MOST - 70001);
    unsigned what = number(10);
    if (what < 6 && p->sent.length + n <= MOST) {
        write_copy(p, bytes, n);
    } else if (what < 7 && p->sent.length + n <= MOST) {
        write_anchored(p, bytes, n);
    } else if (what < 8 && p->out.length > 0 && !p->lent) {
        uv_buf_t buf;
        size_t total;
        asio_outbuf_gather(&p->out, &buf, 1, &total);
        p->lent = buf.base;
        p->out.lent = true;
    } else {
        size_t sent = number(4) == 0 ? p->out.length : number((unsigned)p->out.length + 1);
        p->lent = NULL;
        p->out.lent = false;
        asio_outbuf_skip(&p->out, &env, sent);
        model_skip(&p->sent, sent);
    }
    check_out(p);
}

/* ---- the queue of what has come ----------------------------------------------------------- */

static void check_in(const struct pair *p)
{
    check(asio_inbuf_length(&p->in) == p->got.length, "a wrong length to read");
    check(p->got.length == 0 || memcmp(asio_inbuf_bytes(&p->in), p->got.bytes, p->got.length) == 0,
        "wrong bytes to read");
    check(p->got.length > 0 || p->in.capacity == 0, "an empty buffer has memory");
}

/* As a read callback: borrowed when there is nothing, a reader takes a part, the rest is copied. */
static void arrive(struct pair *p, char *bytes, size_t n)
{
    failed = false;
    if (asio_inbuf_length(&p->in) > 0) {
        int status = asio_inbuf_append(&p->in, &blocks, bytes, n);
        check(status == 0 || failed, "what comes is refused without need");
        if (status == 0)
            model_add(&p->got, bytes, n);
        return;
    }
    asio_inbuf_borrow(&p->in, bytes, n);
    model_add(&p->got, bytes, n);
    size_t taken = number((unsigned)n + 1);
    asio_inbuf_skip(&p->in, &blocks, taken);
    model_skip(&p->got, taken);
    if (asio_inbuf_own(&p->in, &blocks) < 0) {
        check(failed, "what is left is lost without need");
        p->got.length = 0;
    }
}

static void step_in(struct pair *p)
{
    size_t n = some_size();
    if (number(2) == 0 && p->got.length + n <= MOST) {
        char bytes[70001];
        memcpy(bytes, source + number(MOST - 70001), n);
        arrive(p, bytes, n);
    } else if (p->got.length > 0) {
        size_t taken = number(3) == 0 ? p->got.length : number((unsigned)p->got.length + 1);
        asio_inbuf_skip(&p->in, &blocks, taken);
        model_skip(&p->got, taken);
    }
    check_in(p);
}

/* ---- the store ---------------------------------------------------------------------------- */

static void check_store(void)
{
    size_t bytes = 0;
    for (unsigned class = 0; class < ASIO_BLOCK_CLASSES; class ++)
        bytes += blocks.bytes_of[class];
    check(bytes == blocks.bytes && bytes <= ASIO_BLOCKS_KEPT, "the store keeps more than it may");
}

static void empty_all(void)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        asio_outbuf_skip(&pairs[i].out, &env, pairs[i].out.length);
        asio_inbuf_free(&pairs[i].in, &blocks);
    }
    memset(pairs, 0, sizeof pairs);
    check(anchors == 0, "an anchor is left over");
    asio_blocks_free(&blocks);
    check(blocks_out == 0 && blocks.bytes == 0, "memory is left over");
}

/* What a batch of light threads writes turn after turn comes from the store: malloc is not called. */
static void check_steady(size_t size, unsigned batch)
{
    long mallocs = 0;
    for (int turn = 0; turn < 4; turn++) {
        long before = blocks_out;
        for (unsigned i = 0; i < batch; i++)
            for (size_t n = 0; n < size; n += 64)
                write_copy(&pairs[i % QUEUES], source, 64);
        for (unsigned i = 0; i < QUEUES; i++) {
            asio_outbuf_skip(&pairs[i].out, &env, pairs[i].out.length);
            pairs[i].sent.length = 0;
        }
        mallocs = blocks_out - before;
    }
    check(mallocs == 0, "memory is allocated turn after turn");
    empty_all();
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 200000;
    state = 88172645463325252u + (argc > 2 ? (uint64_t)atol(argv[2]) : 0);
    env = (struct asio_outbuf_env){ .blocks = &blocks, .release = release };
    for (size_t i = 0; i < sizeof source; i++)
        source[i] = (char)number(256);
    check_steady(64, QUEUES);
    check_steady(1024, QUEUES);
    check_steady(4096, QUEUES);
    for (long i = 0; i < rounds; i++) {
        struct pair *p = &pairs[number(QUEUES)];
        if (number(2))
            step_out(p);
        else
            step_in(p);
        check_store();
        if (number(2000) == 0)
            fails_one_in = number(2) ? 0 : 1 + number(20);
        if (number(20000) == 0)
            empty_all();
    }
    empty_all();
    printf("%ld rounds\n", rounds);
}
