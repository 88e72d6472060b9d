/* SPDX-License-Identifier: MIT
 * What a name server has answered, as Lua tables for asio.resolve and as raw addresses for asio.connect. */
#include "dns/records.h"

#include "core/address.h"

#include <string.h>

enum { DNS_PORT = 53 };

static const struct {
    uint16_t type;
    const char *name, *text; /* the field with the bytes of such a record; NULL: an address */
} records_types[] = { { ASIO_NAMES_A, "A", NULL }, { ASIO_NAMES_AAAA, "AAAA", NULL },
    { ASIO_NAMES_SRV, "SRV", "target" }, { ASIO_NAMES_MX, "MX", "exchange" },
    { ASIO_NAMES_TXT, "TXT", "text" }, { ASIO_NAMES_PTR, "PTR", "name" } };
enum { TYPES = sizeof records_types / sizeof *records_types };

uint16_t asio_records_type(const char *name)
{
    for (int i = 0; name && i < TYPES; i++)
        if (strcmp(name, records_types[i].name) == 0)
            return records_types[i].type;
    return 0;
}

static void records_address(const struct asio_record *r, int port, struct sockaddr_storage *addr)
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

/* ---- tables ------------------------------------------------------------------------------- */

static void records_set_number(lua_State *L, const char *field, lua_Number value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, field);
}

static void records_set_address(lua_State *L, const struct sockaddr_storage *addr)
{
    asio_address_push(L, addr);
    lua_pop(L, 1); /* the port */
    lua_setfield(L, -2, "address");
    lua_pushstring(L, addr->ss_family == AF_INET6 ? "inet6" : "inet");
    lua_setfield(L, -2, "family");
}

static void records_set_fields(lua_State *L, const struct asio_record *r)
{
    struct sockaddr_storage addr;
    const char *text = NULL;
    for (int i = 0; i < TYPES; i++)
        if (records_types[i].type == r->type)
            text = records_types[i].text;
    if (text) {
        lua_pushlstring(L, r->bytes, r->length);
        lua_setfield(L, -2, text);
    } else {
        records_address(r, 0, &addr);
        records_set_address(L, &addr);
    }
    if (r->type == ASIO_NAMES_SRV || r->type == ASIO_NAMES_MX)
        records_set_number(L, "priority", r->priority);
    if (r->type == ASIO_NAMES_SRV) {
        records_set_number(L, "port", r->port);
        records_set_number(L, "weight", r->weight);
    }
}

/* Appends a table a record to the list at the top. */
static void records_append(lua_State *L, const struct asio_answer *a)
{
    if (!a)
        return;
    double age = (double)((uv_hrtime() - a->received) / 1000000000);
    for (unsigned i = 0; i < a->count; i++) {
        const struct asio_record *r = &a->records[i];
        lua_createtable(L, 0, 3);
        records_set_fields(L, r);
        if (r->ttl >= 0)
            records_set_number(L, "ttl", r->ttl > age ? r->ttl - age : 0);
        lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
    }
}

/* Two answers are the two families', IPv6 first; it goes last where this machine has no route to it. */
int asio_records_push(lua_State *L, struct asio_rt *rt, const struct asio_names_query *q)
{
    bool last = false;
    if (q->answers[0] && q->answers[1]) {
        struct sockaddr_storage addr;
        records_address(&q->answers[0]->records[0], DNS_PORT, &addr);
        last = !asio_sys_reachable(&addr);
    }
    asio_push_ok(L, rt);
    lua_newtable(L);
    records_append(L, q->answers[last]);
    records_append(L, q->answers[!last]);
    return 2;
}

int asio_records_push_numeric(
    lua_State *L, struct asio_rt *rt, const struct sockaddr_storage *addr, uint16_t type)
{
    if (type != ASIO_NAMES_BOTH && (type == ASIO_NAMES_AAAA) != (addr->ss_family == AF_INET6))
        return asio_push_fail(L, UV_EAI_ADDRFAMILY);
    asio_push_ok(L, rt);
    lua_createtable(L, 1, 0);
    lua_createtable(L, 0, 2);
    records_set_address(L, addr);
    lua_rawseti(L, -2, 1);
    return 2;
}

/* ---- raw addresses ------------------------------------------------------------------------ */

int asio_records_push_raw(lua_State *L, struct asio_rt *rt, const struct asio_names_query *q, int port)
{
    int counts[2] = { 0, 0 };
    bool first4 = false;
    asio_push_ok(L, rt);
    lua_newtable(L);
    lua_newtable(L);
    for (int i = 0; i < 2; i++) {
        for (unsigned j = 0; q->answers[i] && j < q->answers[i]->count; j++) {
            const struct asio_record *r = &q->answers[i]->records[j];
            int is4 = r->type == ASIO_NAMES_A;
            struct sockaddr_storage addr;
            records_address(r, port, &addr);
            first4 = first4 || (is4 && counts[0] == 0);
            lua_pushlstring(L, (const char *)&addr, sizeof addr);
            lua_rawseti(L, is4 ? -2 : -3, ++counts[is4]);
        }
    }
    lua_pushboolean(L, first4);
    return 4;
}
