/* SPDX-License-Identifier: MIT
 *
 * asio.resolve, and the look-ups of asio.connect: which light thread waits for which question. The question is
 * checked by question.c, answered by the resolver of backend.c, and its answer made Lua values by records.c.
 *
 * Lifetime of struct resolve_lookup:
 * - created by a call; listed while the resolver has its question, and referenced by the light thread's wait;
 * - freed when the question has been answered, or the wait was given up;
 * - answered at once: kept in `held` until the next such call, since making its results may raise;
 * - if the state closes first: freed with the part. */
#include "core/address.h"
#include "core/bind.h"
#include "core/park.h"
#include "base/error.h"
#include "dns/backend.h"
#include "dns/question.h"
#include "dns/records.h"

#include <string.h>

struct resolve_lookup {
    struct resolve_lookup *next, *prev;
    struct asio_wait *wait;
    struct asio_names_query query;
    int port; /* see struct asio_question */
    struct sockaddr_storage servers[];
};

struct resolve_state { /* of the part, in its slot of the runtime */
    struct asio_backend backend;
    struct resolve_lookup *lookups; /* under way */
    struct resolve_lookup *held;
};

static struct resolve_state *resolve_state_of(struct asio_rt *rt)
{
    return asio_rt_part(rt, ASIO_PART_RESOLVE);
}

static void resolve_free(struct resolve_lookup *k)
{
    if (!k)
        return;
    asio_answer_release(&asio_mem, k->query.answers[0]);
    asio_answer_release(&asio_mem, k->query.answers[1]);
    asio_mem.free(k);
}

static void resolve_link(struct resolve_state *n, struct resolve_lookup *k)
{
    k->prev = NULL;
    k->next = n->lookups;
    if (k->next)
        k->next->prev = k;
    n->lookups = k;
}

static void resolve_unlink(struct resolve_state *n, struct resolve_lookup *k)
{
    if (k->prev)
        k->prev->next = k->next;
    else
        n->lookups = k->next;
    if (k->next)
        k->next->prev = k->prev;
}

/* ---- the wait ----------------------------------------------------------------------------- */

static int resolve_push_found(lua_State *L, struct asio_rt *rt, const struct resolve_lookup *k)
{
    return k->port ? asio_records_push_raw(L, rt, &k->query, k->port) : asio_records_push(L, rt, &k->query);
}

/* Called by the resolver, from a callback of libuv. */
static void resolve_on_done(struct asio_names_query *q)
{
    struct resolve_lookup *k = ASIO_CONTAINER(q, struct resolve_lookup, query);
    resolve_unlink(resolve_state_of(k->wait->rt), k);
    asio_sched_wake(k->wait, q->status);
    resolve_free(k);
}

static void resolve_on_abort(struct asio_wait *w)
{
    struct resolve_lookup *k = w->source;
    struct resolve_state *n = resolve_state_of(w->rt);
    n->backend.ops->cancel(n->backend.state, &k->query);
    resolve_unlink(n, k);
    resolve_free(k);
}

static int resolve_push_answered(lua_State *L, struct asio_wait *w)
{
    return w->status < 0 ? asio_push_fail(L, w->status) : resolve_push_found(L, w->rt, w->source);
}

static const struct asio_wait_op resolve_op = {
    .name = "resolve", .outside = true, .abort = resolve_on_abort, .push = resolve_push_answered
};

static struct resolve_lookup *resolve_new(const char *host, size_t length, const struct asio_question *q)
{
    size_t servers = q->query.servers_count * sizeof *q->servers;
    struct resolve_lookup *k = asio_mem.malloc(sizeof *k + servers + length + 1);
    if (!k)
        return NULL;
    char *copy = (char *)k->servers + servers;
    memcpy(copy, host, length + 1);
    memcpy(k->servers, q->servers, servers);
    k->query = q->query;
    k->query.done = resolve_on_done;
    k->query.host = copy;
    k->query.servers = k->servers;
    k->port = q->port;
    return k;
}

static int resolve_look_up(
    lua_State *L, struct asio_rt *rt, const char *host, size_t length, const struct asio_question *q)
{
    struct asio_wait *w = asio_park_claim(L, rt);
    struct resolve_state *n = resolve_state_of(rt);
    int status = n ? asio_backend_ready(&n->backend, rt) : UV_EBADF;
    struct resolve_lookup *k = status == 0 ? resolve_new(host, length, q) : NULL;
    if (status == 0)
        status = k ? n->backend.ops->start(n->backend.state, &k->query) : UV_ENOMEM;
    if (status == ASIO_NAMES_ANSWERED)
        status = k->query.status;
    if (status < 0) {
        resolve_free(k);
        return asio_push_fail(L, status);
    }
    if (status == ASIO_NAMES_ANSWERED) {
        resolve_free(n->held);
        n->held = k;
        return resolve_push_found(L, rt, k);
    }
    resolve_link(n, k);
    k->wait = w;
    w->source = k;
    return asio_park(L, w, &resolve_op, q->timeout);
}

/* ---- what Lua calls ----------------------------------------------------------------------- */

static bool resolve_wants_addresses(uint16_t type)
{
    return type == ASIO_NAMES_BOTH || type == ASIO_NAMES_A || type == ASIO_NAMES_AAAA;
}

/* core.resolve(host, opts). An address stands for itself; for PTR it is what is asked about. */
static int l_resolve(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_question q;
    size_t length;
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING)
        asio_error_type(L, 1, 1, "resolve", "host name");
    asio_question_read(L, 2, &q);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    const char *host = lua_tolstring(L, 1, &length);
    bool addresses = resolve_wants_addresses(q.query.type);
    int numeric = asio_address_parse(L, 1, 0, &q.query.address);
    if (numeric < 0 && numeric != UV_EINVAL)
        return asio_push_fail(L, numeric);
    if (numeric == 0 && addresses)
        return asio_records_push_numeric(L, rt, &q.query.address, q.query.type);
    if (numeric < 0 && !asio_question_is_name(host, length, addresses))
        return asio_push_fail(L, UV_EAI_NONAME);
    q.query.numeric = numeric == 0 && q.query.type == ASIO_NAMES_PTR;
    struct resolve_state *n = resolve_state_of(rt);
    if (n && !n->backend.ops) { /* the shim chooses one, and calls again */
        lua_pushnumber(L, rt->token_fail);
        lua_pushboolean(L, 0);
        return 2;
    }
    return resolve_look_up(L, rt, host, length, &q);
}

/* core.lookup(host, port, timeout, opts, type) -> IPv6 addresses, IPv4 addresses, whether the first is
 * IPv4. type: 'A' or 'AAAA' when the other family is asked for apart; nil: both. */
static int l_resolve_lookup(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_question q;
    size_t length;
    const char *host = lua_tolstring(L, 1, &length);
    lua_settop(L, 5);
    double timeout = asio_check_timeout(L, 3, 3, "connect");
    asio_question_read_part(L, 4, &q);
    q.timeout = timeout;
    q.port = (int)lua_tointeger(L, 2);
    q.query.type = asio_records_type(lua_tostring(L, 5));
    q.query.half = q.query.type != ASIO_NAMES_BOTH;
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!asio_question_is_name(host, length, true))
        return asio_push_fail(L, UV_EAI_NONAME);
    return resolve_look_up(L, rt, host, length, &q);
}

/* core.claim(opts): raises for bad options of a look-up, and where nothing can wait. */
static int l_resolve_claim(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct asio_question q;
    asio_question_read_part(L, 1, &q);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    asio_park_claim(L, rt);
    return asio_push_true(L);
}

/* core.names_use([backend]) -> its name; nil: it belongs to another asio.so; nil, message, code: not now. Without
 * an argument, the system's resolver. */
static int l_resolve_use(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct resolve_state *n = resolve_state_of(rt);
    int status = n ? asio_backend_use(&n->backend, rt, lua_touserdata(L, 1)) : UV_EBADF;
    if (status == UV_ENOTSUP)
        return 0;
    if (status < 0)
        return asio_error_push(L, status);
    lua_pushstring(L, n->backend.ops->name);
    return 1;
}

static int l_resolve_clear(lua_State *L)
{
    struct resolve_state *n = resolve_state_of(asio_rt_of(L));
    if (n && n->backend.state && n->backend.ops->clear)
        n->backend.ops->clear(n->backend.state);
    return 0;
}

static void resolve_part_close(struct asio_rt *rt)
{
    struct resolve_state *n = resolve_state_of(rt);
    if (!n)
        return;
    asio_backend_close(&n->backend, rt->forked);
    while (n->lookups) {
        struct resolve_lookup *k = n->lookups;
        n->lookups = k->next;
        resolve_free(k);
    }
    resolve_free(n->held);
    asio_mem.free(n);
    asio_rt_part_set(rt, ASIO_PART_RESOLVE, NULL);
}

static void resolve_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "resolve", l_resolve }, { "lookup", l_resolve_lookup },
        { "claim", l_resolve_claim }, { "names_use", l_resolve_use }, { NULL, NULL } };
    static const luaL_Reg module[] = { { "resolve_cache_clear", l_resolve_clear }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_functions(L, rt, "asio", module);
    struct resolve_state *n = asio_mem.malloc(sizeof *n);
    if (!n)
        luaL_error(L, "not enough memory");
    memset(n, 0, sizeof *n);
    asio_rt_part_set(rt, ASIO_PART_RESOLVE, n);
}

const struct asio_part asio_part_resolve = { "resolve", resolve_part_open, resolve_part_close };
