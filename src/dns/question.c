/* SPDX-License-Identifier: MIT
 * The arguments of a look-up: the options of resolve, those that connect has in common with it, and what can be
 * a name. */
#include "dns/question.h"

#include "base/error.h"
#include "core/options.h"
#include "dns/records.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_LENGTH = 254, LABEL_MAX = 63, DNS_PORT = 53 };

/* ---- options ------------------------------------------------------------------------------ */

static void question_read_type(const struct asio_option_value *v, void *to)
{
    struct asio_question *q = to;
    bool text = lua_type(v->L, v->index) == LUA_TSTRING;
    q->query.type = asio_records_type(text ? lua_tostring(v->L, v->index) : NULL);
    if (q->query.type == 0)
        asio_option_bad(v, "'A', 'AAAA', 'SRV', 'MX', 'TXT' or 'PTR'");
}

static void question_read_cache(const struct asio_option_value *v, void *to)
{
    struct asio_question *q = to;
    if (!lua_isboolean(v->L, v->index))
        asio_option_bad(v, "true or false");
    q->query.fresh = !lua_toboolean(v->L, v->index);
}

/* "ip", "ip:port" or "[ip]:port". */
static int question_parse_server(const char *text, struct sockaddr_storage *addr)
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

static void question_read_servers(const struct asio_option_value *v, void *to)
{
    struct asio_question *q = to;
    lua_State *L = v->L;
    size_t count = lua_istable(L, v->index) ? lua_objlen(L, v->index) : 0;
    if (count == 0 || count > ASIO_QUESTION_SERVERS)
        asio_option_bad(v, "list of 1 to 16 addresses");
    for (size_t i = 0; i < count; i++) {
        size_t length;
        lua_rawgeti(L, v->index, (int)i + 1);
        const char *text = lua_tolstring(L, -1, &length);
        if (!text || strlen(text) != length || question_parse_server(text, &q->servers[i]) < 0)
            asio_error_arg(L, v->arg, v->fname,
                "option 'servers': '%s' is not 'ip', 'ip:port' or '[ip]:port'",
                text ? text : luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    q->query.servers_count = (unsigned)count;
}

static const struct asio_option question_options[] = {
    { .name = "type", .kind = ASIO_OPTION_READ, .read = question_read_type },
    { .name = "servers", .kind = ASIO_OPTION_READ, .read = question_read_servers },
    { .name = "cache", .kind = ASIO_OPTION_READ, .read = question_read_cache },
    { .name = "timeout",
        .kind = ASIO_OPTION_TIMEOUT,
        .offset = offsetof(struct asio_question, timeout),
        .unless = -1 },
    { .name = NULL },
};

static const struct asio_option question_connect_options[] = {
    { .name = "servers", .kind = ASIO_OPTION_READ, .read = question_read_servers },
    { .name = "cache", .kind = ASIO_OPTION_READ, .read = question_read_cache },
    { .name = NULL },
};

void asio_question_read(lua_State *L, int index, struct asio_question *q)
{
    memset(&q->query, 0, sizeof q->query);
    q->port = 0;
    asio_options_read(L, index, 2, "resolve", question_options, q);
}

void asio_question_read_part(lua_State *L, int index, struct asio_question *q)
{
    memset(&q->query, 0, sizeof q->query);
    q->port = 0;
    q->timeout = -1;
    asio_options_read_part(L, index, 3, "connect", question_connect_options, q);
}

/* ---- names -------------------------------------------------------------------------------- */

static bool question_host_character(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

/* A name of a host has labels of letters, digits, '-' and '_', and the last is not a number ("127.1" is a
 * misspelt address). Other names may have what can be printed. */
bool asio_question_is_name(const char *name, size_t length, bool host)
{
    size_t label = 0;
    bool digits = true; /* the last label, so far */
    if (length == 0 || length > NAME_MAX_LENGTH || (length == 1 && *name == '.'))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c == '.') {
            if (label == 0 || (host && label > LABEL_MAX))
                return false;
            label = 0;
            digits = digits && i + 1 == length;
            continue;
        }
        if (host ? !question_host_character(c) : c < 0x20 || c == 0x7f)
            return false;
        digits = label == 0 ? c >= '0' && c <= '9' : digits && c >= '0' && c <= '9';
        label++;
    }
    return !host || (label <= LABEL_MAX && !digits);
}
