/* SPDX-License-Identifier: MIT
 *
 * asio/ares.so: names looked up by c-ares, in the runtime's loop. It reaches the core through the table of plugin.h
 * alone. In reading order:
 *
 *   dns       answers off the wire              hosts     the hosts file
 *   cache     questions under way, and answers that may be kept
 *   conf      resolv.conf, and c-ares set up by it
 *   channel   c-ares in the loop: sockets, deadlines, which question goes by which socket
 *   ares      this file: look-ups, the channels they ares_resolver_ask, the queries that wait for one answer
 *
 * Light threads run when a query is answered, and may then ares_resolver_ask, give up or ares_resolver_clear the cache: so c-ares is never on
 * the stack then. What its callbacks find out is listed, and reported when c-ares has returned.
 *
 * Lifetime of struct resolver: one in a runtime, made at the first look-up; freed when the state closes. */
#include "plugins/ares/cache.h"
#include "plugins/ares/channel.h"
#include "plugins/ares/hosts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS_MAX = 8 }; /* more than that only while all are in use */

struct resolver {
    struct asio_ares_env env; /* with all channels */
    struct hosts hosts;
    struct cache cache;
    struct channel *system;            /* one of them, by resolv.conf; NULL: not opened yet */
    uint64_t conf_stamp, conf_seen_at; /* of resolv.conf, as that channel knows it; when that was compared */
    struct asio_names_query *first_done, *last_done; /* answered, to be reported */
    struct asio_timer soon;                          /* reports them */
    bool use_hosts, closing;
    bool reporting; /* light threads run, and one may fork: the child closes all this meanwhile */
};

/* ---- answered ----------------------------------------------------------------------------- */

static void ares_resolver_add_done(struct resolver *r, struct asio_names_query *q)
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

static void ares_resolver_remove_done(struct resolver *r, struct asio_names_query *q)
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

static int ares_resolver_how_bad(int status)
{
    return status == 0 ? 0 : status == UV_EAI_NONAME ? 1 : status == UV_EAI_NODATA ? 2 : 3;
}

/* Of two failures the worse is told: if one family could not be asked for, it is worth trying again. */
static void ares_resolver_note(struct asio_names_query *q, int i, int status, struct asio_answer *answer)
{
    if (answer) {
        answer->references++;
        q->answers[i] = answer;
    } else if (ares_resolver_how_bad(status) >= ares_resolver_how_bad(q->status)) {
        q->status = status;
    }
}

static void ares_resolver_conclude(struct asio_names_query *q)
{
    if (q->answers[0] || q->answers[1])
        q->status = 0;
}

static void ares_resolver_report(struct resolver *r)
{
    r->reporting = true;
    while (r->first_done && !r->closing) {
        struct asio_names_query *q = r->first_done;
        ares_resolver_remove_done(r, q);
        q->done(q); /* runs user code; q is gone */
    }
    r->reporting = false;
    if (r->closing)
        r->env.core->mem->allocator->free(r);
}

static void ares_resolver_on_soon(struct asio_timer *t)
{
    ares_resolver_report(ASIO_CONTAINER(t, struct resolver, soon));
}

static void ares_resolver_on_returned(struct asio_ares_env *env)
{
    ares_resolver_report(ASIO_CONTAINER(env, struct resolver, env));
}

/* ---- questions ---------------------------------------------------------------------------- */

static void ares_resolver_link_part(struct entry *e, struct asio_names_part *p)
{
    if (!e->parts && e->line)
        asio_ares_channel_want(e);
    p->flight = e;
    p->prev = NULL;
    p->next = e->parts;
    if (p->next)
        p->next->prev = p;
    e->parts = p;
}

static void ares_resolver_unlink_part(struct asio_names_part *p)
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
        asio_ares_channel_unwant(e);
}

static bool ares_resolver_worth_keeping(const struct entry *e, int status, const struct asio_answer *answer)
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

static void ares_resolver_on_answered(
    struct asio_ares_env *env, struct entry *e, int status, struct asio_answer *answer, uint32_t keep)
{
    struct resolver *r = ASIO_CONTAINER(env, struct resolver, env);
    while (e->parts && !r->closing) {
        struct asio_names_part *p = e->parts;
        struct asio_names_query *q = p->query;
        ares_resolver_unlink_part(p);
        ares_resolver_note(q, (int)(p - q->parts), status, answer);
        if (--q->pending > 0)
            continue;
        ares_resolver_conclude(q);
        if (!q->starting)
            ares_resolver_add_done(r, q);
    }
    if (keep > 0 && !r->closing && ares_resolver_worth_keeping(e, status, answer)) {
        asio_ares_cache_keep(
            &r->cache, e, status, answer, r->env.core->loop->now() + keep * (uint64_t)1000000000);
    } else {
        asio_ares_cache_drop(&r->cache, e);
        asio_answer_release(r->env.core->mem->allocator, answer);
    }
}

/* One question: answered from the cache, or waiting for one that is under way, or asked anew. */
static void ares_resolver_ask(struct resolver *r, struct channel *ch, struct asio_names_query *q, int i,
    uint16_t type, const char *name)
{
    struct entry *e = asio_ares_cache_find(&r->cache, ch, type, name);
    if (e && !e->flying && (q->fresh || e->until <= r->env.core->loop->now())) {
        asio_ares_cache_drop(&r->cache, e);
        e = NULL;
    }
    if (e && !e->flying) {
        asio_ares_cache_touch(&r->cache, e);
        ares_resolver_note(q, i, e->status, e->answer);
        return;
    }
    bool anew = !e, full = anew && ch->flying >= ASIO_ARES_QUESTIONS_MAX;
    if (anew && !full)
        e = asio_ares_cache_add(&r->cache, ch, type, name);
    if (!e) {
        ares_resolver_note(q, i, full ? UV_EAI_AGAIN : UV_ENOMEM, NULL);
        return;
    }
    q->parts[i].query = q;
    q->pending++;
    ares_resolver_link_part(e, &q->parts[i]);
    if (anew)
        asio_ares_channel_ask(ch, e);
}

/* ---- channels ------------------------------------------------------------------------------ */

/* An old one ends with its last question. */
static void ares_resolver_retire_system(struct resolver *r)
{
    struct channel *ch = r->system;
    r->system = NULL;
    asio_ares_cache_clear(&r->cache, ch);
    ch->retired = true;
    if (ch->flying == 0)
        asio_ares_channel_free(ch);
}

/* resolv.conf is looked at once a second: a router gets another one with every new uplink. */
static struct channel *ares_resolver_system_channel(struct resolver *r, int *status)
{
    uint64_t now = r->env.core->loop->now();
    if (r->system && now - r->conf_seen_at < 1000000000)
        return r->system;
    uint64_t stamp = r->env.core->names->file_stamp(asio_ares_conf_path);
    r->conf_seen_at = now;
    if (r->system && stamp == r->conf_stamp)
        return r->system;
    if (r->system)
        ares_resolver_retire_system(r);
    r->conf_stamp = stamp;
    r->system = asio_ares_channel_open(&r->env, NULL, 0, status);
    r->use_hosts = r->system && asio_ares_channel_uses_hosts(r->system);
    return r->system;
}

static bool ares_resolver_asks(const struct channel *ch, const struct asio_names_query *q)
{
    return ch->conf.servers_count == q->servers_count && !ch->retired &&
        memcmp(ch->servers, q->servers, q->servers_count * sizeof *q->servers) == 0;
}

/* Makes room for one more, if it can: the least recently used goes, of those for servers that queries name. */
static void ares_resolver_free_idle_channels(struct resolver *r)
{
    for (;;) {
        struct channel *idle = NULL;
        unsigned count = 0;
        for (struct channel *ch = r->env.channels; ch; ch = ch->next) {
            count++;
            if (ch != r->system && ch->flying == 0 && (!idle || ch->used_at < idle->used_at))
                idle = ch;
        }
        if (count < CHANNELS_MAX || !idle)
            return;
        asio_ares_cache_clear(&r->cache, idle);
        asio_ares_channel_free(idle);
    }
}

static struct channel *ares_resolver_channel_of(
    struct resolver *r, const struct asio_names_query *q, int *status)
{
    if (q->servers_count == 0)
        return ares_resolver_system_channel(r, status);
    for (struct channel *ch = r->env.channels; ch; ch = ch->next)
        if (ares_resolver_asks(ch, q))
            return ch;
    ares_resolver_free_idle_channels(r);
    return asio_ares_channel_open(&r->env, q->servers, q->servers_count, status);
}

/* ---- look-ups ----------------------------------------------------------------------------- */

enum { NAME_SIZE = 256 };

/* What a name server is asked for the name of an address. */
static void ares_resolver_reverse_name(const struct sockaddr_storage *addr, char name[NAME_SIZE])
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

static bool ares_resolver_wants_addresses(const struct asio_names_query *q)
{
    return q->type == ASIO_NAMES_BOTH || q->type == ASIO_NAMES_A || q->type == ASIO_NAMES_AAAA;
}

/* Looks into the hosts file. True: that is the answer, or the end. */
static bool ares_resolver_in_hosts(struct resolver *r, struct asio_names_query *q)
{
    int status = UV_EAI_NONAME;
    if (q->numeric)
        status = asio_ares_hosts_find_name(&r->hosts, &q->address, &q->answers[0]);
    else if (ares_resolver_wants_addresses(q))
        status = asio_ares_hosts_find(&r->hosts, q->host, q->type, &q->answers[0]);
    q->status = status;
    if (status == UV_EAI_NODATA)
        return q->half || asio_ares_hosts_is_localhost(q->host);
    return status != UV_EAI_NONAME;
}

static int ares_resolver_start(void *self, struct asio_names_query *q)
{
    struct resolver *r = self;
    char reverse[NAME_SIZE];
    const char *name = q->host;
    int status;
    struct channel *ch = ares_resolver_channel_of(r, q, &status);
    if (!ch)
        return status;
    if (q->servers_count == 0 && r->use_hosts && ares_resolver_in_hosts(r, q))
        return q->status < 0 && q->status != UV_EAI_NODATA ? q->status : ASIO_NAMES_ANSWERED;
    if (q->numeric) {
        ares_resolver_reverse_name(&q->address, reverse);
        name = reverse;
    }
    /* Other queries may be answered by the way: not reported from here, where user code is on the stack. */
    if (r->env.core->loop->timer_set(r->env.rt, &r->soon, r->env.core->loop->now()) < 0)
        return UV_ENOMEM;
    q->status = 0;
    q->starting = true;
    if (q->type == ASIO_NAMES_BOTH) {
        ares_resolver_ask(r, ch, q, 0, ASIO_NAMES_AAAA, name);
        ares_resolver_ask(r, ch, q, 1, ASIO_NAMES_A, name);
    } else {
        ares_resolver_ask(r, ch, q, 0, q->type, name);
    }
    q->starting = false;
    if (!r->first_done)
        asio_timer_clear(&r->soon);
    if (q->pending > 0)
        return ASIO_NAMES_PENDING;
    ares_resolver_conclude(q);
    return ASIO_NAMES_ANSWERED;
}

static void ares_resolver_cancel(void *self, struct asio_names_query *q)
{
    struct resolver *r = self;
    if (q->listed)
        ares_resolver_remove_done(r, q);
    for (int i = 0; i < 2; i++) {
        struct entry *e = q->parts[i].flight;
        if (!e)
            continue;
        ares_resolver_unlink_part(&q->parts[i]);
        asio_ares_channel_settle(e);
    }
}

static void ares_resolver_clear(void *self)
{
    struct resolver *r = self;
    asio_ares_cache_clear(&r->cache, NULL);
}

/* ---- opening and closing ------------------------------------------------------------------ */

static int ares_resolver_load(const struct asio_plugin *core)
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

static void *ares_resolver_open(const struct asio_plugin *core, struct asio_rt *rt, int *status)
{
    struct resolver *r = core->mem->allocator->malloc(sizeof *r);
    *status = UV_ENOMEM;
    if (!r)
        return NULL;
    memset(r, 0, sizeof *r);
    r->env.core = core;
    r->env.rt = rt;
    r->env.answered = ares_resolver_on_answered;
    r->env.returned = ares_resolver_on_returned;
    r->cache.mem = core->mem->allocator;
    asio_ares_hosts_init(&r->hosts, core);
    core->loop->timer_init(&r->soon, ares_resolver_on_soon);
    return r;
}

static void ares_resolver_close(void *self)
{
    struct resolver *r = self;
    r->closing = true;
    while (r->env.channels)
        asio_ares_channel_free(r->env.channels);
    asio_ares_cache_clear(&r->cache, NULL);
    asio_ares_hosts_free(&r->hosts);
    r->env.core->loop->timer_remove(r->env.rt, &r->soon);
    if (!r->reporting)
        r->env.core->mem->allocator->free(r);
}

static const struct asio_names_backend ares_resolver_backend = {
    .version = ASIO_PLUGIN_NAMES_VERSION,
    .name = "ares",
    .load = ares_resolver_load,
    .open = ares_resolver_open,
    .close = ares_resolver_close,
    .start = ares_resolver_start,
    .cancel = ares_resolver_cancel,
    .clear = ares_resolver_clear,
};

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    int luaopen_asio_ares(lua_State *L);

int luaopen_asio_ares(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&ares_resolver_backend);
    return 1;
}
