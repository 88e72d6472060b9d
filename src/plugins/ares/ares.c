/* SPDX-License-Identifier: MIT
 * Look-ups: who asks, of whom, and who is told; see ares.h. */
#include "plugins/ares/ares.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS_MAX = 8 }; /* more than that only while all are in use */

/* ---- answered ----------------------------------------------------------------------------- */

static void add_done(struct resolver *r, struct asio_names_query *q)
{
    q->listed = true;
    q->next = NULL;
    q->prev = r->last_done;
    if (q->prev)
        q->prev->next = q;
    else
        r->first_done = q;
    r->last_done = q;
}

static void remove_done(struct resolver *r, struct asio_names_query *q)
{
    q->listed = false;
    if (q->prev)
        q->prev->next = q->next;
    else
        r->first_done = q->next;
    if (q->next)
        q->next->prev = q->prev;
    else
        r->last_done = q->prev;
}

static int how_bad(int status)
{
    return status == 0 ? 0 : status == UV_EAI_NONAME ? 1 : status == UV_EAI_NODATA ? 2 : 3;
}

/* Of two failures the worse is told: if one family could not be asked for, it is worth trying again. */
static void note(struct asio_names_query *q, int i, int status, struct asio_answer *answer)
{
    if (answer) {
        answer->references++;
        q->answers[i] = answer;
    } else if (how_bad(status) >= how_bad(q->status)) {
        q->status = status;
    }
}

static void conclude(struct asio_names_query *q)
{
    if (q->answers[0] || q->answers[1])
        q->status = 0;
}

void resolver_tell(struct resolver *r)
{
    while (r->first_done) {
        struct asio_names_query *q = r->first_done;
        remove_done(r, q);
        q->done(q); /* runs user code; q is gone */
    }
}

static void on_soon(struct asio_timer *t)
{
    resolver_tell(ASIO_CONTAINER(t, struct resolver, soon));
}

/* ---- questions ---------------------------------------------------------------------------- */

static void link_part(struct entry *e, struct asio_names_part *p)
{
    if (!e->parts)
        e->channel->wanted++;
    p->flight = e;
    p->prev = NULL;
    p->next = e->parts;
    if (p->next)
        p->next->prev = p;
    e->parts = p;
}

static void unlink_part(struct asio_names_part *p)
{
    struct entry *e = p->flight;
    if (p->prev)
        p->prev->next = p->next;
    else
        e->parts = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->flight = NULL;
    if (!e->parts)
        e->channel->wanted--;
}

static bool worth_keeping(const struct entry *e, int status, const struct asio_answer *answer)
{
    size_t size = 0;
    if (!e->listed || e->channel->retired)
        return false;
    if (!answer)
        return status == UV_EAI_NONAME || status == UV_EAI_NODATA;
    for (unsigned i = 0; i < answer->count && size <= CACHE_ANSWER_MAX; i++)
        size += sizeof *answer->records + answer->records[i].length;
    return size <= CACHE_ANSWER_MAX;
}

void resolver_complete(
    struct resolver *r, struct entry *e, int status, struct asio_answer *answer, uint32_t keep)
{
    while (e->parts && !r->closing) {
        struct asio_names_part *p = e->parts;
        struct asio_names_query *q = p->query;
        unlink_part(p);
        note(q, (int)(p - q->parts), status, answer);
        if (--q->pending > 0)
            continue;
        conclude(q);
        if (!q->starting)
            add_done(r, q);
    }
    if (keep > 0 && !r->closing && worth_keeping(e, status, answer)) {
        cache_keep(&r->cache, e, status, answer, r->core->loop->now() + keep * (uint64_t)1000000000);
    } else {
        cache_drop(&r->cache, e);
        asio_answer_release(r->core->mem->allocator, answer);
    }
}

/* One question: from the cache, together with somebody who has asked it already, or anew. */
static void ask(struct resolver *r, struct channel *ch, struct asio_names_query *q, int i, uint16_t type,
    const char *name)
{
    struct entry *e = cache_find(&r->cache, ch, type, name);
    if (e && !e->flying && (q->fresh || e->until <= r->core->loop->now())) {
        cache_drop(&r->cache, e);
        e = NULL;
    }
    if (e && !e->flying) {
        cache_touch(&r->cache, e);
        note(q, i, e->status, e->answer);
        return;
    }
    bool anew = !e, full = anew && ch->flying >= CHANNEL_QUESTIONS_MAX;
    if (anew && !full)
        e = cache_add(&r->cache, ch, type, name);
    if (!e) {
        note(q, i, full ? UV_EAI_AGAIN : UV_ENOMEM, NULL);
        return;
    }
    q->parts[i].query = q;
    q->pending++;
    link_part(e, &q->parts[i]);
    if (anew)
        channel_ask(ch, e);
}

/* ---- of whom ------------------------------------------------------------------------------ */

/* An old one ends with its last question. */
static void retire_system(struct resolver *r)
{
    struct channel *ch = r->system;
    r->system = NULL;
    cache_clear(&r->cache, ch);
    ch->retired = true;
    if (ch->flying == 0)
        channel_free(ch);
}

/* resolv.conf is looked at once a second: a router gets another one with every new uplink. */
static struct channel *system_channel(struct resolver *r, int *status)
{
    uint64_t now = r->core->loop->now();
    if (r->system && now - r->conf_seen_at < 1000000000)
        return r->system;
    uint64_t stamp = r->core->names->file_stamp(channel_conf_path);
    r->conf_seen_at = now;
    if (r->system && stamp == r->conf_stamp)
        return r->system;
    if (r->system)
        retire_system(r);
    r->conf_stamp = stamp;
    r->system = channel_open(r, NULL, 0, status);
    r->use_hosts = r->system && channel_uses_hosts(r->system);
    return r->system;
}

static bool asks(const struct channel *ch, const struct asio_names_query *q)
{
    return ch->servers_count == q->servers_count && !ch->retired &&
        memcmp(ch->servers, q->servers, q->servers_count * sizeof *q->servers) == 0;
}

/* Makes room for one more, if it can: those not used for longest go, of those that others were named for. */
static void free_idle_channels(struct resolver *r)
{
    for (;;) {
        struct channel *idle = NULL;
        unsigned count = 0;
        for (struct channel *ch = r->channels; ch; ch = ch->next) {
            count++;
            if (ch != r->system && ch->flying == 0 && (!idle || ch->used_at < idle->used_at))
                idle = ch;
        }
        if (count < CHANNELS_MAX || !idle)
            return;
        cache_clear(&r->cache, idle);
        channel_free(idle);
    }
}

static struct channel *channel_of(struct resolver *r, const struct asio_names_query *q, int *status)
{
    if (q->servers_count == 0)
        return system_channel(r, status);
    for (struct channel *ch = r->channels; ch; ch = ch->next)
        if (asks(ch, q))
            return ch;
    free_idle_channels(r);
    return channel_open(r, q->servers, q->servers_count, status);
}

/* ---- look-ups ----------------------------------------------------------------------------- */

enum { NAME_SIZE = 256 };

/* What a name server is asked for the name of an address. */
static void reverse_name(const struct sockaddr_storage *addr, char name[NAME_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    if (addr->ss_family == AF_INET) {
        unsigned char b[4];
        memcpy(b, &((const struct sockaddr_in *)addr)->sin_addr, sizeof b);
        snprintf(name, NAME_SIZE, "%u.%u.%u.%u.in-addr.arpa.", b[3], b[2], b[1], b[0]);
        return;
    }
    const unsigned char *b = ((const struct sockaddr_in6 *)addr)->sin6_addr.s6_addr;
    char *p = name;
    for (int i = 15; i >= 0; i--) {
        *p++ = digits[b[i] & 15];
        *p++ = '.';
        *p++ = digits[b[i] >> 4];
        *p++ = '.';
    }
    strcpy(p, "ip6.arpa.");
}

static bool wants_addresses(const struct asio_names_query *q)
{
    return q->type == ASIO_NAMES_BOTH || q->type == ASIO_NAMES_A || q->type == ASIO_NAMES_AAAA;
}

/* Looks into the hosts file. True: that is the answer, or the end. */
static bool in_hosts(struct resolver *r, struct asio_names_query *q)
{
    int status = UV_EAI_NONAME;
    if (q->numeric)
        status = hosts_find_name(&r->hosts, &q->address, &q->answers[0]);
    else if (wants_addresses(q))
        status = hosts_find(&r->hosts, q->host, q->type, &q->answers[0]);
    q->status = status;
    if (status == UV_EAI_NODATA)
        return q->half || hosts_is_localhost(q->host);
    return status != UV_EAI_NONAME;
}

static int ares_start(void *self, struct asio_names_query *q)
{
    struct resolver *r = self;
    char reverse[NAME_SIZE];
    const char *name = q->host;
    int status;
    struct channel *ch = channel_of(r, q, &status);
    if (!ch)
        return status;
    if (q->servers_count == 0 && r->use_hosts && in_hosts(r, q))
        return q->status < 0 && q->status != UV_EAI_NODATA ? q->status : ASIO_NAMES_ANSWERED;
    if (q->numeric) {
        reverse_name(&q->address, reverse);
        name = reverse;
    }
    /* Others may be answered by the way: not told from here, where user code is on the stack. */
    if (r->core->loop->timer_set(r->rt, &r->soon, r->core->loop->now()) < 0)
        return UV_ENOMEM;
    q->status = 0;
    q->starting = true;
    if (q->type == ASIO_NAMES_BOTH) {
        ask(r, ch, q, 0, ASIO_NAMES_AAAA, name);
        ask(r, ch, q, 1, ASIO_NAMES_A, name);
    } else {
        ask(r, ch, q, 0, q->type, name);
    }
    channel_settle(ch);
    q->starting = false;
    if (!r->first_done)
        asio_timer_clear(&r->soon);
    if (q->pending > 0)
        return ASIO_NAMES_PENDING;
    conclude(q);
    return ASIO_NAMES_ANSWERED;
}

static void cancel(void *self, struct asio_names_query *q)
{
    struct resolver *r = self;
    if (q->listed)
        remove_done(r, q);
    for (int i = 0; i < 2; i++) {
        struct entry *e = q->parts[i].flight;
        if (!e)
            continue;
        struct channel *ch = e->channel;
        unlink_part(&q->parts[i]);
        if (ch->wanted == 0)
            channel_settle(ch);
    }
}

static void clear(void *self)
{
    struct resolver *r = self;
    cache_clear(&r->cache, NULL);
}

/* ---- opening and closing ------------------------------------------------------------------ */

static int ares_load(const struct asio_plugin *core)
{
    if (!ASIO_PLUGIN_HAS(core, mem, MEM) || !ASIO_PLUGIN_HAS(core, loop, LOOP) ||
        !ASIO_PLUGIN_HAS(core, names, NAMES))
        return UV_ENOTSUP;
    const struct asio_allocator *mem = core->mem->allocator;
    int status = mem->malloc == malloc
        ? ares_library_init(ARES_LIB_INIT_ALL)
        : ares_library_init_mem(ARES_LIB_INIT_ALL, mem->malloc, mem->free, mem->realloc);
    return status == ARES_SUCCESS ? 0 : UV_ENOMEM;
}

static void *open_resolver(const struct asio_plugin *core, struct asio_rt *rt, int *status)
{
    struct resolver *r = core->mem->allocator->malloc(sizeof *r);
    *status = UV_ENOMEM;
    if (!r)
        return NULL;
    memset(r, 0, sizeof *r);
    r->core = core;
    r->rt = rt;
    r->cache.mem = core->mem->allocator;
    hosts_init(&r->hosts, core);
    core->loop->timer_init(&r->soon, on_soon);
    return r;
}

static void close_resolver(void *self)
{
    struct resolver *r = self;
    r->closing = true;
    while (r->channels)
        channel_free(r->channels);
    cache_clear(&r->cache, NULL);
    hosts_free(&r->hosts);
    r->core->loop->timer_remove(r->rt, &r->soon);
    r->core->mem->allocator->free(r);
}

static const struct asio_names_backend backend = {
    .version = ASIO_PLUGIN_NAMES_VERSION,
    .name = "ares",
    .load = ares_load,
    .open = open_resolver,
    .close = close_resolver,
    .start = ares_start,
    .cancel = cancel,
    .clear = clear,
};

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    int luaopen_asio_ares(lua_State *L);

int luaopen_asio_ares(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&backend);
    return 1;
}
