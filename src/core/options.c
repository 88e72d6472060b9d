/* SPDX-License-Identifier: MIT
 * The reader of tables of options; see options.h. */
#include "core/options.h"

#include "base/error.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- values ------------------------------------------------------------------------------- */

int asio_option_bad(const struct asio_option_value *v, const char *expected)
{
    bool number = lua_type(v->L, v->index) == LUA_TNUMBER;
    const char *got = number ? lua_tostring(v->L, v->index) : luaL_typename(v->L, v->index);
    return asio_error_arg(v->L, v->arg, v->fname, "option '%s': %s expected, got %s", v->name, expected, got);
}

double asio_option_number(const struct asio_option_value *v, double min, double max, const char *expected)
{
    double n = lua_tonumber(v->L, v->index);
    if (lua_type(v->L, v->index) != LUA_TNUMBER || !(n >= min && n <= max)) /* NaN fails */
        asio_option_bad(v, expected);
    return n;
}

static double option_whole(const struct asio_option_value *v, const struct asio_option *o)
{
    char expected[80];
    double n = lua_tonumber(v->L, v->index);
    assert(o->max <= 9007199254740992.0); /* numbers beyond 2^53 are not exact */
    if (lua_type(v->L, v->index) == LUA_TNUMBER && n >= o->min && n <= o->max && n == (double)(int64_t)n)
        return n;
    if (o->max < 2147483647)
        snprintf(expected, sizeof expected, "whole number from %.0f to %.0f", o->min, o->max);
    else
        snprintf(expected, sizeof expected, "whole number of at least %.0f", o->min);
    asio_option_bad(v, expected);
    return 0;
}

static double option_in_range(const struct asio_option_value *v, const struct asio_option *o)
{
    char expected[80];
    if (o->max < HUGE_VAL)
        snprintf(expected, sizeof expected, "number from %g to %g", o->min, o->max);
    else
        snprintf(expected, sizeof expected, "number of at least %g", o->min);
    return asio_option_number(v, o->min, o->max, expected);
}

static double option_timeout(const struct asio_option_value *v)
{
    double n = asio_option_number(v, 0, HUGE_VAL, "seconds, not negative,");
    return isinf(n) ? -1 : n;
}

static bool option_flag(const struct asio_option_value *v)
{
    if (!lua_isboolean(v->L, v->index))
        asio_option_bad(v, "true or false");
    return lua_toboolean(v->L, v->index);
}

static void option_store(const struct asio_option *o, void *to, double value)
{
    void *field = (char *)to + o->offset;
    switch (o->kind) {
    case ASIO_OPTION_FLAG:
        *(bool *)field = value != 0;
        break;
    case ASIO_OPTION_INT:
        *(int *)field = (int)value;
        break;
    case ASIO_OPTION_SIZE:
        *(size_t *)field = (size_t)value;
        break;
    case ASIO_OPTION_NUMBER:
    case ASIO_OPTION_TIMEOUT:
        *(double *)field = value;
        break;
    case ASIO_OPTION_READ:
    case ASIO_OPTION_IGNORED:
        break;
    }
}

static void option_read(const struct asio_option_value *v, const struct asio_option *o, void *to)
{
    switch (o->kind) {
    case ASIO_OPTION_FLAG:
        option_store(o, to, option_flag(v));
        break;
    case ASIO_OPTION_INT:
    case ASIO_OPTION_SIZE:
        option_store(o, to, option_whole(v, o));
        break;
    case ASIO_OPTION_NUMBER:
        option_store(o, to, option_in_range(v, o));
        break;
    case ASIO_OPTION_TIMEOUT:
        option_store(o, to, option_timeout(v));
        break;
    case ASIO_OPTION_READ:
        o->read(v, to);
        break;
    case ASIO_OPTION_IGNORED:
        break;
    }
}

/* ---- names -------------------------------------------------------------------------------- */

enum { NAME_LIMIT = 24 };

/* How many letters have to be added, dropped or changed to make b of a; a large number for long names. */
static unsigned option_distance(const char *a, const char *b)
{
    unsigned row[NAME_LIMIT + 1], n = (unsigned)strlen(b);
    if (n > NAME_LIMIT || strlen(a) > NAME_LIMIT)
        return NAME_LIMIT;
    for (unsigned i = 0; i <= n; i++)
        row[i] = i;
    for (unsigned line = 1; *a; a++, line++) {
        unsigned before = row[0]; /* up and left */
        row[0] = line;
        for (unsigned i = 1; i <= n; i++) {
            unsigned changed = before + (*a != b[i - 1]);
            unsigned shorter = (row[i] < row[i - 1] ? row[i] : row[i - 1]) + 1;
            before = row[i];
            row[i] = changed < shorter ? changed : shorter;
        }
    }
    return row[n];
}

static int option_unknown(const struct asio_option_value *v, const struct asio_option *lines)
{
    const char *nearest = NULL;
    unsigned best = 4; /* the name is another word then */
    for (const struct asio_option *o = lines; o->name; o++) {
        unsigned distance = option_distance(v->name, o->name);
        if (distance >= best || distance * 2 > strlen(o->name))
            continue;
        best = distance;
        nearest = o->name;
    }
    if (!nearest)
        return asio_error_arg(v->L, v->arg, v->fname, "unknown option '%s'", v->name);
    return asio_error_arg(
        v->L, v->arg, v->fname, "unknown option '%s'; did you mean '%s'?", v->name, nearest);
}

static const struct asio_option *option_find(const struct asio_option *lines, const char *name)
{
    for (; lines->name; lines++)
        if (strcmp(lines->name, name) == 0)
            return lines;
    return NULL;
}

/* ---- the table ---------------------------------------------------------------------------- */

static void options_read_pair(
    struct asio_option_value *v, bool part, const struct asio_option *lines, void *to)
{
    lua_State *L = v->L;
    if (lua_type(L, v->index - 1) != LUA_TSTRING) { /* lua_tostring would change a number in place */
        if (!part)
            asio_error_arg(L, v->arg, v->fname, "names of options are strings");
        return;
    }
    v->name = lua_tostring(L, v->index - 1);
    const struct asio_option *o = option_find(lines, v->name);
    if (o) {
        v->name = o->name; /* the string of the script's table may be collected before the struct is used */
        option_read(v, o, to);
    } else if (!part) {
        option_unknown(v, lines);
    }
}

static void options_read(struct asio_option_value v, bool part, const struct asio_option *lines, void *to)
{
    lua_State *L = v.L;
    int table = v.index;
    for (const struct asio_option *o = lines; o->name; o++)
        option_store(o, to, o->unless);
    if (lua_isnoneornil(L, table))
        return;
    if (!lua_istable(L, table))
        asio_error_type(L, table, v.arg, v.fname, "table");
    luaL_checkstack(L, 8, "too many arguments");
    for (lua_pushnil(L); lua_next(L, table); lua_settop(L, v.index - 1)) {
        v.index = lua_gettop(L);
        options_read_pair(&v, part, lines, to);
    }
}

void asio_options_read(
    lua_State *L, int index, int arg, const char *fname, const struct asio_option *lines, void *to)
{
    options_read((struct asio_option_value){ L, index, NULL, arg, fname }, false, lines, to);
}

void asio_options_read_part(
    lua_State *L, int index, int arg, const char *fname, const struct asio_option *lines, void *to)
{
    options_read((struct asio_option_value){ L, index, NULL, arg, fname }, true, lines, to);
}
