/* SPDX-License-Identifier: MIT
 *
 * asio.resolve, and the look-ups of asio.connect: arguments, the wait, and results as Lua values. Who
 * looks up is behind names.h, and chosen by lua/asio/resolve.lua at the first look-up.
 *
 * Lifetime of struct lookup: made by a call; freed when it has been answered (or, if the answer was there
 * at once, by the next such call), given up, or when the state closes. */
#include "plugin/names.h"

#include "core/address.h"
#include "core/bind.h"
#include "base/error.h"
#include "core/park.h"

#include <stdlib.h>
#include <string.h>

enum { SERVERS_MAX = 16, NAME_MAX_LENGTH = 254, DNS_PORT = 53 };

struct lookup {
    struct lookup *next, *prev; /* in names->lookups, while it goes on */
    struct asio_wait *wait;
    struct asio_names_query query;
    int port; /* of connect, which wants raw addresses; 0: resolve */
    struct sockaddr_storage servers[];
};

/* The runtime's part; made with it, freed when it closes. */
struct asio_names {
    const struct asio_names_backend *backend; /* NULL: not chosen yet */
    void *state;                              /* the backend's; NULL: not opened yet */
    struct lookup *lookups;
    struct lookup *held; /* answered at once: its results are being made, and that may raise */
};

static void lookup_free(struct lookup *k)
{
    if (!k)
        return;
    asio_answer_release(&asio_mem, k->query.answers[0]);
    asio_answer_release(&asio_mem, k->query.answers[1]);
    asio_mem.free(k);
}

static void link_lookup(struct asio_names *n, struct lookup *k)
{
    k->prev = NULL;
    k->next = n->lookups;
    if (k->next)
        k->next->prev = k;
    n->lookups = k;
}

static void unlink_lookup(struct asio_names *n, struct lookup *k)
{
    if (k->prev)
        k->prev->next = k->next;
    else
        n->lookups = k->next;
    if (k->next)
        k->next->prev = k->prev;
}

/* ---- arguments ---------------------------------------------------------------------------- */

/* What is asked, before there is a struct lookup. */
struct options {
    struct asio_names_query query;
    int port;
    double timeout;
    struct sockaddr_storage servers[SERVERS_MAX];
};

static const struct {
    uint16_t type;
    const char *name, *text; /* what the bytes of such a record are called; NULL: an address */
} types[] = { { ASIO_NAMES_A, "A", NULL }, { ASIO_NAMES_AAAA, "AAAA", NULL },
    { ASIO_NAMES_SRV, "SRV", "target" }, { ASIO_NAMES_MX, "MX", "exchange" },
    { ASIO_NAMES_TXT, "TXT", "text" }, { ASIO_NAMES_PTR, "PTR", "name" } };
enum { TYPES = sizeof types / sizeof *types };

static uint16_t type_by_name(const char *name)
{
    for (int i = 0; name && i < TYPES; i++)
        if (strcmp(name, types[i].name) == 0)
            return types[i].type;
    return 0;
}

static uint16_t check_type(lua_State *L, int index, int arg, const char *fname)
{
    if (lua_isnil(L, index))
        return ASIO_NAMES_BOTH;
    uint16_t type = type_by_name(lua_tostring(L, index));
    if (type == 0)
        asio_error_arg(L, arg, fname, "type must be 'A', 'AAAA', 'SRV', 'MX', 'TXT' or 'PTR'");
    return type;
}

/* "ip", "ip:port" or "[ip]:port". */
static int parse_server(const char *text, struct sockaddr_storage *addr)
{
    char ip[64];
    bool brackets = *text == '[';
    const char *end = brackets ? strchr(text, ']') : strchr(text, ':');
    if (brackets)
        text++;
    else if (end && strchr(end + 1, ':')) /* more than one: an IPv6 address alone */
        end = NULL;
    size_t length = end ? (size_t)(end - text) : strlen(text);
    const char *rest = end ? end + brackets : "";
    if ((brackets && !end) || length >= sizeof ip || memchr(text, '%', length))
        return UV_EINVAL; /* c-ares takes no scopes */
    memcpy(ip, text, length);
    ip[length] = '\0';
    long port = DNS_PORT;
    if (*rest) {
        char *stop;
        port = rest[1] >= '0' && rest[1] <= '9' ? strtol(rest + 1, &stop, 10) : 0;
        if (*rest != ':' || port < 1 || port > 65535 || *stop)
            return UV_EINVAL;
    }
    memset(addr, 0, sizeof *addr);
    if (!brackets && uv_ip4_addr(ip, (int)port, (struct sockaddr_in *)addr) == 0)
        return 0;
    return uv_ip6_addr(ip, (int)port, (struct sockaddr_in6 *)addr);
}

static unsigned check_servers(
    lua_State *L, int index, int arg, const char *fname, struct sockaddr_storage servers[SERVERS_MAX])
{
    if (lua_isnil(L, index))
        return 0;
    if (!lua_istable(L, index))
        asio_error_arg(L, arg, fname, "servers must be a list of addresses, got %s", luaL_typename(L, index));
    size_t count = lua_objlen(L, index);
    if (count == 0 || count > SERVERS_MAX)
        asio_error_arg(L, arg, fname, "servers must be a list of 1 to %d addresses", (int)SERVERS_MAX);
    for (size_t i = 0; i < count; i++) {
        size_t length;
        lua_rawgeti(L, index, (int)i + 1);
        const char *text = lua_tolstring(L, -1, &length);
        if (!text || strlen(text) != length || parse_server(text, &servers[i]) < 0)
            asio_error_arg(L, arg, fname, "servers: '%s' is not 'ip', 'ip:port' or '[ip]:port'",
                text ? text : luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    return (unsigned)count;
}

/* The options that resolve and connect have in common; `index` is a table or nil. */
static void resolve_check_options(lua_State *L, int index, int arg, const char *fname, struct options *o)
{
    memset(&o->query, 0, sizeof o->query);
    o->port = 0;
    o->timeout = -1;
    if (!lua_istable(L, index))
        return;
    lua_getfield(L, index, "servers");
    o->query.servers_count = check_servers(L, lua_gettop(L), arg, fname, o->servers);
    lua_getfield(L, index, "cache");
    if (!lua_isnil(L, -1) && !lua_isboolean(L, -1))
        asio_error_arg(L, arg, fname, "cache must be true or false");
    o->query.fresh = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
    lua_pop(L, 2);
}

static bool host_character(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

/* What no name server is to be asked for: a name of a host has labels of letters, digits, '-' and '_', and the
 * last is not a number ("127.1" is a misspelt address). Other names may have what can be printed. */
static bool is_name(const char *name, size_t length, bool host)
{
    size_t label = 0;
    bool digits = true; /* the last label, so far */
    if (length == 0 || length > NAME_MAX_LENGTH || (length == 1 && *name == '.'))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c == '.') {
            if (label == 0 || (host && label > 63))
                return false;
            label = 0;
            digits = digits && i + 1 == length;
            continue;
        }
        if (host ? !host_character(c) : c < 0x20 || c == 0x7f)
            return false;
        digits = label == 0 ? c >= '0' && c <= '9' : digits && c >= '0' && c <= '9';
        label++;
    }
    return !host || (label <= 63 && !digits);
}

/* ---- results ------------------------------------------------------------------------------ */

static void record_address(const struct asio_record *r, int port, struct sockaddr_storage *addr)
{
    memset(addr, 0, sizeof *addr);
    if (r->type == ASIO_NAMES_A) {
        struct sockaddr_in *in = (struct sockaddr_in *)addr;
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        memcpy(&in->sin_addr, r->bytes, sizeof in->sin_addr);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)addr;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        in6->sin6_scope_id = r->scope;
        memcpy(&in6->sin6_addr, r->bytes, sizeof in6->sin6_addr);
    }
}

static void resolve_set_number(lua_State *L, const char *field, lua_Number value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, field);
}

static void resolve_set_address(lua_State *L, const struct sockaddr_storage *addr)
{
    asio_address_push(L, addr);
    lua_pop(L, 1); /* the port */
    lua_setfield(L, -2, "address");
    lua_pushstring(L, addr->ss_family == AF_INET6 ? "inet6" : "inet");
    lua_setfield(L, -2, "family");
}

static void set_fields(lua_State *L, const struct asio_record *r)
{
    struct sockaddr_storage addr;
    const char *text = NULL;
    for (int i = 0; i < TYPES; i++)
        if (types[i].type == r->type)
            text = types[i].text;
    if (text) {
        lua_pushlstring(L, r->bytes, r->length);
        lua_setfield(L, -2, text);
    } else {
        record_address(r, 0, &addr);
        resolve_set_address(L, &addr);
    }
    if (r->type == ASIO_NAMES_SRV || r->type == ASIO_NAMES_MX)
        resolve_set_number(L, "priority", r->priority);
    if (r->type == ASIO_NAMES_SRV) {
        resolve_set_number(L, "port", r->port);
        resolve_set_number(L, "weight", r->weight);
    }
}

/* Appends a table a record to the list at the top. */
static void append_records(lua_State *L, const struct asio_answer *a)
{
    if (!a)
        return;
    double age = (double)((uv_hrtime() - a->received) / 1000000000);
    for (unsigned i = 0; i < a->count; i++) {
        const struct asio_record *r = &a->records[i];
        lua_createtable(L, 0, 3);
        set_fields(L, r);
        if (r->ttl >= 0)
            resolve_set_number(L, "ttl", r->ttl > age ? r->ttl - age : 0);
        lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
    }
}

/* Two answers are the two families', IPv6 first; it goes last where this machine has no way to it. */
static int push_records(lua_State *L, const struct asio_names_query *q)
{
    bool last = false;
    if (q->answers[0] && q->answers[1]) {
        struct sockaddr_storage addr;
        record_address(&q->answers[0]->records[0], DNS_PORT, &addr);
        last = !asio_sys_reachable(&addr);
    }
    append_records(L, q->answers[last]);
    append_records(L, q->answers[!last]);
    return 2;
}

/* Lists of raw socket addresses, as connect takes them: IPv6, IPv4, whether the first was IPv4. */
static int push_raw(lua_State *L, const struct asio_names_query *q, int port)
{
    int counts[2] = { 0, 0 };
    bool first4 = false;
    lua_newtable(L);
    for (int i = 0; i < 2; i++) {
        for (unsigned j = 0; q->answers[i] && j < q->answers[i]->count; j++) {
            const struct asio_record *r = &q->answers[i]->records[j];
            int is4 = r->type == ASIO_NAMES_A;
            struct sockaddr_storage addr;
            record_address(r, port, &addr);
            first4 = first4 || (is4 && counts[0] == 0);
            lua_pushlstring(L, (const char *)&addr, sizeof addr);
            lua_rawseti(L, is4 ? -2 : -3, ++counts[is4]);
        }
    }
    lua_pushboolean(L, first4);
    return 4;
}

static int resolve_push_found(lua_State *L, struct asio_rt *rt, const struct lookup *k)
{
    asio_push_ok(L, rt);
    lua_newtable(L);
    return k->port ? push_raw(L, &k->query, k->port) : push_records(L, &k->query);
}

/* ---- the wait ----------------------------------------------------------------------------- */

void asio_names_done(struct asio_names_query *q)
{
    struct lookup *k = ASIO_CONTAINER(q, struct lookup, query);
    unlink_lookup(asio_rt_part(k->wait->rt, ASIO_PART_NAMES), k);
    asio_sched_wake(k->wait, q->status);
    lookup_free(k);
}

static void abort_lookup(struct asio_wait *w)
{
    struct lookup *k = w->source;
    struct asio_names *n = asio_rt_part(w->rt, ASIO_PART_NAMES);
    n->backend->cancel(n->state, &k->query);
    unlink_lookup(n, k);
    lookup_free(k);
}

static int push_answered(lua_State *L, struct asio_wait *w)
{
    return w->status < 0 ? asio_push_fail(L, w->status) : resolve_push_found(L, w->rt, w->source);
}

static const struct asio_wait_op look_up_op = { "resolve", true, abort_lookup, push_answered };

static int ready(struct asio_rt *rt)
{
    struct asio_names *n = asio_rt_part(rt, ASIO_PART_NAMES);
    int status = UV_ENOMEM;
    if (!n->backend)
        n->backend = &asio_names_getaddrinfo;
    if (!n->state)
        n->state = n->backend->open(&asio_plugin, rt, &status);
    return n->state ? 0 : status;
}

static struct lookup *lookup_new(const char *host, size_t length, const struct options *o)
{
    size_t servers = o->query.servers_count * sizeof *o->servers;
    struct lookup *k = asio_mem.malloc(sizeof *k + servers + length + 1);
    if (!k)
        return NULL;
    char *copy = (char *)k->servers + servers;
    memcpy(copy, host, length + 1);
    memcpy(k->servers, o->servers, servers);
    k->query = o->query;
    k->query.host = copy;
    k->query.servers = k->servers;
    k->port = o->port;
    return k;
}

static int resolve_look_up(
    lua_State *L, struct asio_rt *rt, const char *host, size_t length, const struct options *o)
{
    struct asio_wait *w = asio_park_claim(L, rt);
    int status = ready(rt);
    struct asio_names *n = asio_rt_part(rt, ASIO_PART_NAMES);
    struct lookup *k = status == 0 ? lookup_new(host, length, o) : NULL;
    if (status == 0)
        status = k ? n->backend->start(n->state, &k->query) : UV_ENOMEM;
    if (status == ASIO_NAMES_ANSWERED)
        status = k->query.status;
    if (status < 0) {
        lookup_free(k);
        return asio_push_fail(L, status);
    }
    if (status == ASIO_NAMES_ANSWERED) {
        lookup_free(n->held);
        n->held = k;
        return resolve_push_found(L, rt, k);
    }
    link_lookup(n, k);
    k->wait = w;
    w->source = k;
    return asio_park(L, w, &look_up_op, o->timeout);
}

/* ---- what Lua calls ----------------------------------------------------------------------- */

/* An address stands for itself; for PTR it is what is asked about. */
static int push_numeric(lua_State *L, struct asio_rt *rt, const struct sockaddr_storage *addr, uint16_t type)
{
    if (type != ASIO_NAMES_BOTH && (type == ASIO_NAMES_AAAA) != (addr->ss_family == AF_INET6))
        return asio_push_fail(L, UV_EAI_ADDRFAMILY);
    asio_push_ok(L, rt);
    lua_createtable(L, 1, 0);
    lua_createtable(L, 0, 2);
    resolve_set_address(L, addr);
    lua_rawseti(L, -2, 1);
    return 2;
}

/* core.resolve(host, opts) */
static int l_resolve(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct options o;
    size_t length;
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING)
        asio_error_type(L, 1, 1, "resolve", "host name");
    if (!lua_isnil(L, 2) && !lua_istable(L, 2))
        asio_error_type(L, 2, 2, "resolve", "table");
    resolve_check_options(L, 2, 2, "resolve", &o);
    if (lua_istable(L, 2)) {
        lua_getfield(L, 2, "type");
        o.query.type = check_type(L, -1, 2, "resolve");
        lua_getfield(L, 2, "timeout");
        o.timeout = asio_check_timeout(L, -1, 2, "resolve");
        lua_settop(L, 2);
    }
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    const char *host = lua_tolstring(L, 1, &length);
    uint16_t type = o.query.type;
    bool addresses = type == ASIO_NAMES_BOTH || type == ASIO_NAMES_A || type == ASIO_NAMES_AAAA;
    bool numeric = asio_address_parse(L, 1, 0, &o.query.address) == 0;
    if (numeric && addresses)
        return push_numeric(L, rt, &o.query.address, type);
    if (!is_name(host, length, addresses) && !numeric)
        return asio_push_fail(L, UV_EAI_NONAME);
    o.query.numeric = numeric && type == ASIO_NAMES_PTR;
    return resolve_look_up(L, rt, host, length, &o);
}

/* core.lookup(host, port, timeout, opts, type) -> IPv6 addresses, IPv4 addresses, whether the first is
 * IPv4. type: 'A' or 'AAAA' when the other family is asked for apart; nil: both. */
static int l_lookup(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct options o;
    size_t length;
    const char *host = lua_tolstring(L, 1, &length);
    double timeout = asio_check_timeout(L, 3, 3, "connect");
    resolve_check_options(L, 4, 3, "connect", &o);
    o.timeout = timeout;
    o.port = (int)lua_tointeger(L, 2);
    o.query.type = type_by_name(lua_tostring(L, 5));
    o.query.half = o.query.type != ASIO_NAMES_BOTH;
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    if (!is_name(host, length, true))
        return asio_push_fail(L, UV_EAI_NONAME);
    return resolve_look_up(L, rt, host, length, &o);
}

/* core.claim(opts): raises for bad options of a look-up, and where nothing can wait. */
static int l_claim(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    struct options o;
    resolve_check_options(L, 1, 3, "connect", &o);
    if (asio_sched_interrupted(rt))
        return asio_push_interrupt(L, rt);
    asio_park_claim(L, rt);
    return asio_push_true(L);
}

/* ---- the choice of who looks up ------------------------------------------------------------ */

static uv_once_t once = UV_ONCE_INIT;
static uv_mutex_t load_lock; /* libraries have a global state, and states may be on several threads */

static int load_lock_status;

static void init_load_lock(void)
{
    load_lock_status = uv_mutex_init(&load_lock);
}

static int resolve_load(const struct asio_names_backend *backend)
{
    uv_once(&once, init_load_lock);
    if (load_lock_status < 0)
        return load_lock_status;
    uv_mutex_lock(&load_lock);
    asio_sys_pin(backend);
    int status = backend->load ? backend->load(&asio_plugin) : 0;
    uv_mutex_unlock(&load_lock);
    return status;
}

/* core.names_use([backend]) -> name; or nil: it belongs to another asio.so. Without an argument, the
 * system's resolver. */
static int l_names_use(lua_State *L)
{
    struct asio_names *n = asio_rt_part(asio_rt_of(L), ASIO_PART_NAMES);
    const struct asio_names_backend *backend = lua_touserdata(L, 1);
    if (!backend)
        backend = &asio_names_getaddrinfo;
    if (n && !n->state && backend->version == ASIO_PLUGIN_VERSION && resolve_load(backend) == 0)
        n->backend = backend;
    if (!n || n->backend != backend)
        return 0;
    lua_pushstring(L, backend->name);
    return 1;
}

/* core.names_beside() -> the file name of this module, or nil */
static int l_names_beside(lua_State *L)
{
    char path[1024];
    if (asio_sys_module_path(&asio_plugin, path, sizeof path) < 0)
        return 0;
    lua_pushstring(L, path);
    return 1;
}

static int l_resolve_clear(lua_State *L)
{
    struct asio_names *n = asio_rt_part(asio_rt_of(L), ASIO_PART_NAMES);
    if (n && n->state && n->backend->clear)
        n->backend->clear(n->state);
    return 0;
}

static void names_part_close(struct asio_rt *rt)
{
    struct asio_names *n = asio_rt_part(rt, ASIO_PART_NAMES);
    if (!n)
        return;
    if (n->state)
        n->backend->close(n->state);
    while (n->lookups) {
        struct lookup *k = n->lookups;
        n->lookups = k->next;
        lookup_free(k);
    }
    lookup_free(n->held);
    asio_mem.free(n);
    asio_rt_part_set(rt, ASIO_PART_NAMES, NULL);
}

static void names_part_open(lua_State *L, struct asio_rt *rt)
{
    static const luaL_Reg core[] = { { "resolve", l_resolve }, { "lookup", l_lookup }, { "claim", l_claim },
        { "names_use", l_names_use }, { "names_beside", l_names_beside }, { NULL, NULL } };
    static const luaL_Reg module[] = { { "resolve_cache_clear", l_resolve_clear }, { NULL, NULL } };
    asio_bind_functions(L, rt, "core", core);
    asio_bind_functions(L, rt, "asio", module);
    struct asio_names *n = asio_mem.malloc(sizeof *n);
    if (!n)
        luaL_error(L, "not enough memory");
    memset(n, 0, sizeof *n);
    asio_rt_part_set(rt, ASIO_PART_NAMES, n);
}

const struct asio_part asio_part_names = { "names", names_part_open, names_part_close };
