/* SPDX-License-Identifier: MIT
 *
 * Reads the table of options that a script passes to a function. Each function has a static table of lines, one
 * for each option: its name, its kind, where its value goes, what holds without it, and its range. A name that
 * no line has raises: a misspelt option must not be ignored. */
#ifndef ASIO_OPTIONS_H
#define ASIO_OPTIONS_H

#include "base/asio.h"

/* An option that a script has given, while it is read. */
struct asio_option_value {
    lua_State *L;
    int index;         /* of the value on the stack; absolute */
    const char *name;  /* of the option: static */
    int arg;           /* the table is this argument ... */
    const char *fname; /* ... of this public function */
};

enum asio_option_kind {
    ASIO_OPTION_FLAG,    /* bool: true or false */
    ASIO_OPTION_INT,     /* int: a whole number in [min, max] */
    ASIO_OPTION_SIZE,    /* size_t: the same */
    ASIO_OPTION_NUMBER,  /* double in [min, max]; max may be HUGE_VAL, and the value infinite */
    ASIO_OPTION_TIMEOUT, /* double: seconds; negative: none (nil, and inf) */
    ASIO_OPTION_READ,    /* `read` stores it */
    ASIO_OPTION_IGNORED, /* a valid name that means nothing here */
};

struct asio_option {
    const char *name;
    enum asio_option_kind kind;
    size_t offset;                                             /* of the field in the struct that is filled */
    double unless, min, max;                                   /* unless: what holds without the option */
    void (*read)(const struct asio_option_value *v, void *to); /* raises for bad values; READ alone */
};

/* Fills the struct at `to` from the table, or nothing, at stack index `index`; raises for another type, an unknown
 * name, a bad value. `lines` ends with a line without a name. What a READ line stores has its default in *to
 * already. Owns nothing, so that it may raise. */
void asio_options_read(
    lua_State *L, int index, int arg, const char *fname, const struct asio_option *lines, void *to);

/* The same, and skips names that it does not know: a second reader of a table that was read in full before. */
void asio_options_read_part(
    lua_State *L, int index, int arg, const char *fname, const struct asio_option *lines, void *to);

/* For `read` functions. Raises "option 'name': <expected> expected, got ...". */
int asio_option_bad(const struct asio_option_value *v, const char *expected);

/* A number in [min, max], or raises. */
double asio_option_number(const struct asio_option_value *v, double min, double max, const char *expected);

#endif
