/* SPDX-License-Identifier: MIT
 * The hosts file; see hosts.h. */
#include "plugins/ares/hosts.h"

#include "plugins/ares/conf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    KEPT_MAX = 64 * 1024, /* a larger file is read again where it is needed, in blocks of this size... */
    FILE_MAX =
        64 * 1024 * 1024, /* ...or as long as its longest line; what comes after that is not looked at */
    ADDRESSES_MAX = 64,   /* of one name */
    TOKEN_MAX = 256,      /* bytes of a name, or an address */
};

struct token {
    const char *text;
    size_t length;
};

static bool ares_hosts_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static char ares_hosts_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* The next word of a line; length 0 at its end, or at a comment. */
static struct token ares_hosts_next_token(const char **p, const char *end)
{
    while (*p < end && ares_hosts_is_space(**p))
        (*p)++;
    struct token t = { *p, 0 };
    while (*p < end && !ares_hosts_is_space(**p) && **p != '\n' && **p != '#')
        (*p)++;
    t.length = (size_t)(*p - t.text);
    return t;
}

/* Reads a file line by line. */
struct reader {
    const struct asio_allocator *mem;
    FILE *file;      /* NULL: there is none; at its end at once */
    char *block;     /* owned */
    size_t capacity; /* of the block: KEPT_MAX, or more for a long line */
    size_t size;     /* of what is in it */
    size_t next;     /* where in it the next line begins */
    size_t base;     /* where in the file it begins */
    bool at_end, out_of_memory;
};

static int ares_hosts_reader_open(struct reader *r, const struct hosts *h)
{
    memset(r, 0, sizeof *r);
    r->mem = h->core->mem->allocator;
    r->capacity = KEPT_MAX;
    r->block = r->mem->malloc(KEPT_MAX);
    if (!r->block)
        return UV_ENOMEM;
    r->file = fopen(h->path, "rb");
    r->at_end = !r->file;
    int status = r->file ? 0 : asio_ares_conf_obstacle_of(errno);
    if (status < 0)
        r->mem->free(r->block);
    return status;
}

static void ares_hosts_reader_close(struct reader *r)
{
    if (r->file)
        fclose(r->file);
}

static bool ares_hosts_grow(struct reader *r)
{
    char *block = r->mem->realloc(r->block, 2 * r->capacity);
    if (!block)
        return false;
    r->block = block;
    r->capacity *= 2;
    return true;
}

/* Moves what is left of the block to its beginning, and fills it up. A file that fits is not moved. */
static void ares_hosts_refill(struct reader *r)
{
    size_t rest = r->size - r->next;
    r->out_of_memory = rest == r->capacity && !ares_hosts_grow(r);
    if (r->out_of_memory)
        return;
    memmove(r->block, r->block + r->next, rest);
    r->base += r->next;
    r->next = 0;
    r->size = rest + fread(r->block + rest, 1, r->capacity - rest, r->file);
    r->at_end = r->size < r->capacity || r->base + r->size > FILE_MAX;
}

/* The next line, without its end. */
static bool ares_hosts_next_line(struct reader *r, struct token *line, size_t *at)
{
    for (;;) {
        char *start = r->block + r->next, *end = r->block + r->size;
        char *newline = r->next < r->size ? memchr(start, '\n', (size_t)(end - start)) : NULL;
        if (!newline && !r->at_end && !r->out_of_memory) {
            ares_hosts_refill(r);
            continue;
        }
        if (start == end || r->out_of_memory)
            return false;
        *at = r->base + r->next;
        *line = (struct token){ start, (size_t)((newline ? newline : end) - start) };
        r->next += line->length + (newline != NULL);
        return true;
    }
}

/* An address: 4 or 16 bytes, or 0. With a scope it is left alone. */
static size_t ares_hosts_parse_address(struct token t, unsigned char bytes[16])
{
    char text[48];
    if (t.length == 0 || t.length >= sizeof text)
        return 0;
    memcpy(text, t.text, t.length);
    text[t.length] = '\0';
    if (inet_pton(AF_INET, text, bytes) == 1)
        return 4;
    return inet_pton(AF_INET6, text, bytes) == 1 ? 16 : 0;
}

static uint32_t ares_hosts_hash_of(const char *name, size_t length)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)ares_hosts_lower(name[i])) * 16777619u;
    return hash;
}

static bool ares_hosts_same(const char *a, const char *b, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (ares_hosts_lower(a[i]) != ares_hosts_lower(b[i]))
            return false;
    return true;
}

/* A name without its last dot. */
static size_t ares_hosts_length_of(const char *name)
{
    size_t length = strlen(name);
    return length > 1 && name[length - 1] == '.' ? length - 1 : length;
}

/* ---- the index ---------------------------------------------------------------------------- */

static void ares_hosts_forget(struct hosts *h)
{
    h->core->mem->allocator->free(h->text);
    h->core->mem->allocator->free(h->entries);
    h->core->mem->allocator->free(h->buckets);
    h->text = NULL;
    h->entries = NULL;
    h->buckets = NULL;
    h->size = 0;
    h->count = h->capacity = h->buckets_count = 0;
}

static bool ares_hosts_add_entry(struct hosts *h, struct token name, size_t name_at, size_t line)
{
    if (h->count == h->capacity) {
        uint32_t capacity = h->capacity ? h->capacity * 2 : 64;
        void *entries = h->core->mem->allocator->realloc(h->entries, capacity * sizeof *h->entries);
        if (!entries)
            return false;
        h->entries = entries;
        h->capacity = capacity;
    }
    h->entries[h->count++] = (struct hosts_entry){
        .hash = ares_hosts_hash_of(name.text, name.length), .name = (uint32_t)name_at, .line = (uint32_t)line
    };
    return true;
}

static bool ares_hosts_add_line(struct hosts *h, struct token line, size_t at)
{
    const char *p = line.text, *end = p + line.length;
    struct token address = ares_hosts_next_token(&p, end), name;
    size_t address_at = at + (size_t)(address.text - line.text);
    while (address.length > 0 && (name = ares_hosts_next_token(&p, end)).length > 0)
        if (!ares_hosts_add_entry(h, name, at + (size_t)(name.text - line.text), address_at))
            return false;
    return true;
}

static bool ares_hosts_fill_buckets(struct hosts *h)
{
    uint32_t n = 16;
    while (n < h->count)
        n *= 2;
    h->buckets = h->core->mem->allocator->malloc(2 * n * sizeof *h->buckets);
    if (!h->buckets)
        return false;
    memset(h->buckets, 0, 2 * n * sizeof *h->buckets);
    h->buckets_count = n;
    for (uint32_t i = 0; i < h->count; i++) {
        uint32_t *bucket = &h->buckets[2 * (h->entries[i].hash & (n - 1))];
        if (bucket[1])
            h->entries[bucket[1] - 1].next = i + 1;
        else
            bucket[0] = i + 1;
        bucket[1] = i + 1;
    }
    return true;
}

static int ares_hosts_load(struct hosts *h)
{
    struct reader r;
    struct token line;
    size_t at;
    bool fine = true;
    ares_hosts_forget(h);
    int status = ares_hosts_reader_open(&r, h);
    if (status < 0)
        return status;
    while (fine && ares_hosts_next_line(&r, &line, &at))
        fine = ares_hosts_add_line(h, line, at);
    ares_hosts_reader_close(&r);
    fine = fine && !r.out_of_memory && ares_hosts_fill_buckets(h);
    h->text = r.block;
    h->size = r.size;
    if (!fine) {
        ares_hosts_forget(h);
    } else if (r.base > 0 || r.size >= KEPT_MAX) {
        h->core->mem->allocator->free(h->text);
        h->text = NULL;
    }
    return fine ? 0 : UV_ENOMEM;
}

/* Whether the file is another one is asked once a second. */
static int ares_hosts_refresh(struct hosts *h)
{
    uint64_t now = h->core->loop->now();
    if (h->looked_at && now - h->looked_at < 1000000000)
        return 0;
    uint64_t stamp = h->core->names->file_stamp(h->path);
    int status = stamp != h->stamp || !h->buckets ? ares_hosts_load(h) : 0; /* no file: the stamp is 0 */
    if (status == 0) {
        h->stamp = stamp;
        h->looked_at = now;
    } else {
        h->stamp = h->looked_at = 0;
    }
    return status;
}

void asio_ares_hosts_init(struct hosts *h, const struct asio_plugin *core)
{
    memset(h, 0, sizeof *h);
    h->core = core;
    core->names->hosts_path(h->path, sizeof h->path);
}

void asio_ares_hosts_free(struct hosts *h)
{
    ares_hosts_forget(h);
}

/* ---- finding ------------------------------------------------------------------------------ */

/* Up to TOKEN_MAX bytes of the file at an offset; `file` where it was not kept. */
static struct token ares_hosts_bytes_at(
    const struct hosts *h, FILE *file, uint32_t at, char buffer[TOKEN_MAX])
{
    if (h->text)
        return (struct token){ h->text + at, h->size - at < TOKEN_MAX ? h->size - at : TOKEN_MAX };
    if (!file || fseek(file, (long)at, SEEK_SET) != 0)
        return (struct token){ buffer, 0 };
    return (struct token){ buffer, fread(buffer, 1, TOKEN_MAX, file) };
}

static struct token ares_hosts_token_at(
    const struct hosts *h, FILE *file, uint32_t at, char buffer[TOKEN_MAX])
{
    struct token bytes = ares_hosts_bytes_at(h, file, at, buffer);
    const char *p = bytes.text;
    return ares_hosts_next_token(&p, bytes.text + bytes.length);
}

struct addresses {
    unsigned char bytes[ADDRESSES_MAX][16];
    size_t sizes[ADDRESSES_MAX];
    unsigned count, others; /* others: of the family that was not asked for */
};

static void ares_hosts_add_address(
    struct addresses *a, const unsigned char bytes[16], size_t size, uint16_t type)
{
    if (type != ASIO_NAMES_BOTH && (type == ASIO_NAMES_AAAA) != (size == 16)) {
        a->others++;
        return;
    }
    for (unsigned i = 0; i < a->count; i++)
        if (a->sizes[i] == size && memcmp(a->bytes[i], bytes, size) == 0)
            return;
    if (a->count < ADDRESSES_MAX) {
        memcpy(a->bytes[a->count], bytes, size);
        a->sizes[a->count++] = size;
    }
}

static int ares_hosts_collect(struct hosts *h, const char *name, uint16_t type, struct addresses *found)
{
    char buffer[TOKEN_MAX];
    unsigned char bytes[16];
    size_t length = ares_hosts_length_of(name);
    uint32_t hash = ares_hosts_hash_of(name, length);
    uint32_t i = h->buckets[2 * (hash & (h->buckets_count - 1))];
    FILE *file = i && !h->text ? fopen(h->path, "rb") : NULL;
    if (i && !h->text && !file)
        return asio_ares_conf_obstacle_of(errno);
    for (; i; i = h->entries[i - 1].next) {
        const struct hosts_entry *e = &h->entries[i - 1];
        if (e->hash != hash)
            continue;
        struct token t = ares_hosts_token_at(h, file, e->name, buffer);
        if (t.length != length || !ares_hosts_same(t.text, name, length))
            continue;
        size_t size = ares_hosts_parse_address(ares_hosts_token_at(h, file, e->line, buffer), bytes);
        if (size > 0)
            ares_hosts_add_address(found, bytes, size, type);
    }
    if (file)
        fclose(file);
    return 0;
}

/* RFC 6761: names under localhost are this machine, whatever the hosts file and name servers say. */
bool asio_ares_hosts_is_localhost(const char *name)
{
    static const char localhost[] = "localhost";
    size_t length = ares_hosts_length_of(name), n = sizeof localhost - 1;
    return length >= n && ares_hosts_same(name + length - n, localhost, n) &&
        (length == n || name[length - n - 1] == '.');
}

static void ares_hosts_add_loopback(struct addresses *found, uint16_t type)
{
    static const unsigned char four[16] = { 127, 0, 0, 1 }, six[16] = { [15] = 1 };
    ares_hosts_add_address(found, six, 16, type);
    ares_hosts_add_address(found, four, 4, type);
}

static int ares_hosts_make_answer(struct hosts *h, const struct addresses *found, struct asio_answer **answer)
{
    char *room;
    *answer =
        asio_answer_new(h->core->mem->allocator, found->count, found->count * sizeof *found->bytes, &room);
    if (!*answer)
        return UV_ENOMEM;
    memcpy(room, found->bytes, found->count * sizeof *found->bytes);
    for (unsigned i = 0; i < found->count; i++) {
        struct asio_record *r = &(*answer)->records[i];
        r->type = found->sizes[i] == 4 ? ASIO_NAMES_A : ASIO_NAMES_AAAA;
        r->length = (uint32_t)found->sizes[i];
        r->bytes = room + i * sizeof *found->bytes;
    }
    return 0;
}

int asio_ares_hosts_find(struct hosts *h, const char *name, uint16_t type, struct asio_answer **answer)
{
    struct addresses found;
    found.count = found.others = 0;
    int status = ares_hosts_refresh(h);
    if (status < 0)
        return status;
    status = ares_hosts_collect(h, name, type, &found);
    if (status < 0)
        return status;
    if (found.count + found.others == 0 && asio_ares_hosts_is_localhost(name))
        ares_hosts_add_loopback(&found, type);
    if (found.count > 0)
        return ares_hosts_make_answer(h, &found, answer);
    return found.others > 0 ? UV_EAI_NODATA : UV_EAI_NONAME;
}

/* The name in a line with that address. */
static struct token ares_hosts_name_in(struct token line, const unsigned char *wanted, size_t wanted_size)
{
    const char *p = line.text, *end = p + line.length;
    unsigned char bytes[16];
    struct token address = ares_hosts_next_token(&p, end), name = ares_hosts_next_token(&p, end);
    if (ares_hosts_parse_address(address, bytes) != wanted_size || memcmp(bytes, wanted, wanted_size) != 0)
        name.length = 0;
    return name;
}

static int ares_hosts_name_answer(struct hosts *h, struct token name, struct asio_answer **answer)
{
    char *room;
    if (name.length == 0)
        return UV_EAI_NONAME;
    *answer = asio_answer_new(h->core->mem->allocator, 1, name.length, &room);
    if (!*answer)
        return UV_ENOMEM;
    memcpy(room, name.text, name.length);
    struct asio_record *r = (*answer)->records;
    r->bytes = room;
    r->length = (uint32_t)name.length;
    r->type = ASIO_NAMES_PTR;
    return 0;
}

/* Not indexed: the file is read through. */
int asio_ares_hosts_find_name(
    struct hosts *h, const struct sockaddr_storage *addr, struct asio_answer **answer)
{
    bool six = addr->ss_family == AF_INET6;
    const void *wanted = six ? (const void *)&((const struct sockaddr_in6 *)addr)->sin6_addr
                             : (const void *)&((const struct sockaddr_in *)addr)->sin_addr;
    struct reader r;
    struct token line, name = { NULL, 0 };
    size_t at;
    int status = ares_hosts_reader_open(&r, h);
    if (status < 0)
        return status;
    while (name.length == 0 && ares_hosts_next_line(&r, &line, &at))
        name = ares_hosts_name_in(line, wanted, six ? 16 : 4);
    status = r.out_of_memory ? UV_ENOMEM : ares_hosts_name_answer(h, name, answer);
    ares_hosts_reader_close(&r);
    h->core->mem->allocator->free(r.block);
    return status;
}
