/* SPDX-License-Identifier: MIT
 *
 * How values become bytes and values again: what message.c, names.c, pack.c, unpack.c and code.c share.
 *
 * The bytes of a message: a byte of enum pack_flags, then each value: a byte of enum pack_tag, and what its comment
 * there says. Numbers are as the processor has them, at any address: reader and writer are one process.
 *
 * Tables, functions and connections are numbered from 1 in the order in which they begin. A second reference to one of
 * them is its number. */
#ifndef ASIO_WORKER_PACK_H
#define ASIO_WORKER_PACK_H

#include "plugins/worker/worker.h"

#include <string.h>

enum pack_flags {
    PACK_HAS_SEEN = 1, /* some value refers to one before it: the reader has to keep all that are numbered */
};

enum pack_tag {
    PACK_NIL,
    PACK_FALSE,
    PACK_TRUE,
    PACK_NUMBER,       /* double */
    PACK_SHORT_STRING, /* uint8_t length, bytes */
    PACK_STRING,       /* uint32_t length, bytes */
    PACK_INT64,        /* int64_t */
    PACK_UINT64,       /* uint64_t */
    PACK_TABLE, /* uint32_t array items, uint32_t other items; items: PACK_NEXT, value; or key, value; PACK_END */
    PACK_NEXT,     /* the key that follows the last PACK_NEXT: 1, 2 ... */
    PACK_END,      /* of a table, of a function's upvalues; as an environment: the state's globals */
    PACK_SEEN,     /* uint32_t number */
    PACK_NAMED,    /* uint32_t length, bytes: the module, then fields, with a zero byte between */
    PACK_FUNCTION, /* uint32_t length, bytecode; upvalues; PACK_END; environment */
    PACK_UPVALUE,  /* value */
    PACK_JOINED,   /* uint32_t number of a function, uint8_t number of its upvalue: they share it */
    PACK_REF,      /* uint32_t index of the message's refs */
};

enum {
    PACK_DEEPEST = 200,  /* tables in tables; each level takes a frame of C and some slots of Lua's stack */
    PACK_SEARCHED = 16,  /* so many objects are looked for one by one, more in a hash */
    PACK_COPIED = 4096,  /* longer bytes are not copied: the message takes the scratch memory over */
    PACK_KEPT = 1 << 16, /* more scratch memory is not kept for the next message */
};

/* An object that the message has already. Objects do not move, and the values hold them. */
struct pack_seen {
    const void *object;
    uint32_t number;
    uint32_t upvalue; /* 0; or the object is an upvalue: of the function `number`, this one */
};

/* Memory for messages that are being packed, and what it is for: one for each state, in its registry; where a finalizer
 * packs while its state does, one more, which takes the first one's place.
 * The collector frees it, and what a raise has left in it. */
struct pack_scratch {
    struct asio_rt *rt;
    bool busy;
    size_t modules; /* in package.loaded when the names were collected */

    unsigned char *bytes; /* a struct message, not filled in, and its bytes */
    size_t length, size;
    struct message_ref *refs;
    unsigned refs_count, refs_size;
    struct pack_seen *seen;
    uint32_t seen_count, seen_size;
    uint32_t *index; /* if `hashed`: positions in `seen` from 1, by a hash of the object; 0: free */
    uint32_t index_size;
    bool hashed;
};

/* What is in the environment of that userdata. */
enum pack_slot { PACK_NAMES = 1, PACK_REQUIRE, PACK_INT64_KIND, PACK_INT64_MAKE };

/* The way to the value that is packed, for messages; lives in C frames. */
struct pack_step {
    const struct pack_step *up; /* NULL: one of the values themselves */
    enum pack_step_kind { PACK_AT_VALUE, PACK_AT_FIELD, PACK_AT_KEY, PACK_AT_UPVALUE, PACK_AT_ENV } kind;
    int index;        /* on the stack: the value, or the key of the field */
    const char *name; /* of the upvalue */
};

struct pack {
    lua_State *L;
    struct pack_scratch *s;
    const struct message_place *place;
    int first;             /* the values */
    int keep, self, names; /* stack indexes: what stays on the stack, the scratch, the names (or nil) */
    unsigned depth;
    uint32_t numbers;
    bool has_seen;
    bool counted;   /* modules have been counted for this message */
    bool collected; /* names have been collected for this message */
    bool again; /* it has to be packed once more, with new names; what cannot be carried is nil meanwhile */
};

struct unpack {
    lua_State *L;
    struct message *m;
    const unsigned char *at;
    int seen, self; /* stack indexes: the numbered values (0: not kept), the scratch (0: not fetched yet) */
    uint32_t numbers;
};

/* ---- message.c: memory. All raise out of memory, and let the message go then ---- */

struct pack_scratch *asio_pack_push_scratch(lua_State *L); /* the state's: pushes it */
bool asio_pack_try_room(
    struct pack_scratch *s, size_t n);        /* room for n more bytes; false: no memory; does not raise */
void asio_pack_clear(struct pack_scratch *s); /* forgets the message */
void asio_pack_no_memory(struct pack *p);     /* raises */
void asio_pack_add_ref(struct pack *p, struct message_ref ref);
const struct pack_seen *asio_pack_find(const struct pack *p, const void *object);
void asio_pack_remember(struct pack *p, const void *object, uint32_t number, uint32_t upvalue);

static inline unsigned char *pack_room(struct pack *p, size_t n)
{
    if (p->s->size - p->s->length < n && !asio_pack_try_room(p->s, n))
        asio_pack_no_memory(p);
    unsigned char *at = p->s->bytes + p->s->length;
    p->s->length += n;
    return at;
}

static inline void pack_byte(struct pack *p, enum pack_tag tag)
{
    *pack_room(p, 1) = (unsigned char)tag;
}

static inline void pack_fixed(struct pack *p, enum pack_tag tag, const void *bytes, size_t n)
{
    unsigned char *at = pack_room(p, 1 + n);
    *at = (unsigned char)tag;
    memcpy(at + 1, bytes, n);
}

/* ---- names.c: functions, tables and userdata that each state gets from its own modules ---- */

/* Packs the name of the value at an index, if it has one. */
bool asio_pack_named(struct pack *p, int index);
/* The same, for what is likely to have one: functions and userdata. Looks whether modules have come since the names were
 * collected. */
bool asio_pack_named_anew(struct pack *p, int index);
/* Collects all names anew. */
void asio_pack_collect_names(struct pack *p);
/* Pushes what a PACK_NAMED stands for; `at` is behind the tag. */
void asio_unpack_named(struct unpack *u);

/* ---- pack.c ---- */

void asio_pack_value(struct pack *p, int index, const struct pack_step *step);
/* Packs the number of an object, if the message has it already. */
bool asio_pack_is_seen(struct pack *p, const void *object);
/* Raises: the value at the step cannot be carried. Returns where names have to be collected first: it packs nil. */
void asio_pack_refuse(struct pack *p, const struct pack_step *step, const char *fmt, ...);
/* One level deeper, or it refuses: false. */
bool asio_pack_enter(struct pack *p, const struct pack_step *step);

/* ---- unpack.c ---- */

void asio_unpack_value(struct unpack *u);
/* Pushes slot `slot` of the scratch's environment. */
void asio_unpack_push_slot(struct unpack *u, enum pack_slot slot);
/* The value at the top gets the next number. */
void asio_unpack_number(struct unpack *u);

static inline uint32_t unpack_uint32(struct unpack *u)
{
    uint32_t n;
    memcpy(&n, u->at, sizeof n);
    u->at += sizeof n;
    return n;
}

/* ---- code.c: functions in Lua ---- */

void asio_pack_function(struct pack *p, int index, const struct pack_step *step);
void asio_unpack_function(struct unpack *u); /* `at` is behind the tag */

/* ---- int64.c: 64-bit integers, which only the Lua library ffi knows ---- */

/* Packs the cdata at an index, if it is one. */
bool asio_pack_int64(struct pack *p, int index);
void asio_unpack_int64(struct unpack *u, enum pack_tag tag); /* `at` is behind the tag */

#endif
