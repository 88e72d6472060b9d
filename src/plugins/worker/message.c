/* SPDX-License-Identifier: MIT
 *
 * Messages: made of values by pack.c, made values again by unpack.c; here is their memory, and that in which they are
 * packed. What the bytes mean: pack.h. */
#include "plugins/worker/pack.h"

/* ---- the scratch memory of a state ---------------------------------------------------------- */

static const char message_key; /* its address: the scratch in the registry */

static void scratch_free(struct pack_scratch *s)
{
    asio_pack_clear(s);
    worker_free(s->bytes);
    worker_free(s->refs);
    worker_free(s->seen);
    worker_free(s->index);
}

static int l_scratch_gc(lua_State *L)
{
    struct pack_scratch *s = lua_touserdata(L, 1);
    scratch_free(s);
    memset(s, 0, sizeof *s);
    return 0;
}

/* Makes a scratch the state's and pushes it; its environment is the table at the top, its metatable the one below:
 * pops both. */
static struct pack_scratch *scratch_make(lua_State *L, struct asio_rt *rt)
{
    struct pack_scratch *s = lua_newuserdata(L, sizeof *s);
    *s = (struct pack_scratch){ .rt = rt };
    lua_insert(L, -3);
    lua_setfenv(L, -3);
    lua_setmetatable(L, -2);
    lua_pushlightuserdata(L, (void *)&message_key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return s;
}

void asio_message_open(lua_State *L, struct asio_rt *rt)
{
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_scratch_gc);
    lua_setfield(L, -2, "__gc");
    lua_createtable(L, 4, 0);
    lua_getglobal(L, "require");
    lua_rawseti(L, -2, PACK_REQUIRE);
    scratch_make(L, rt);
    lua_pop(L, 1);
}

struct pack_scratch *asio_pack_push_scratch(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&message_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    return lua_touserdata(L, -1);
}

/* One that is not in use. The one in use stays on the stack of the call that uses it; or a raise has left it, and the
 * collector takes it. */
static struct pack_scratch *scratch_take(lua_State *L)
{
    struct pack_scratch *s = asio_pack_push_scratch(L);
    if (s->busy) {
        int old = lua_gettop(L);
        lua_getmetatable(L, old);
        lua_getfenv(L, old);
        struct pack_scratch *fresh = scratch_make(L, s->rt);
        fresh->modules = s->modules;
        lua_remove(L, old);
        s = fresh;
    }
    s->busy = true;
    return s;
}

void asio_pack_clear(struct pack_scratch *s)
{
    for (unsigned i = 0; i < s->refs_count; i++)
        if (s->refs[i].shared)
            asio_shared_drop(s->refs[i].shared);
    s->refs_count = 0;
    s->seen_count = 0;
    s->hashed = false;
    s->length = 0;
    s->busy = false;
}

static void scratch_trim(struct pack_scratch *s)
{
    if (s->size <= PACK_KEPT && s->seen_size <= PACK_KEPT / sizeof *s->seen && s->refs_size <= 1024)
        return;
    scratch_free(s);
    *s = (struct pack_scratch){ .rt = s->rt, .modules = s->modules };
}

void asio_pack_no_memory(struct pack *p)
{
    asio_pack_clear(p->s);
    luaL_error(p->L, "not enough memory");
}

bool asio_pack_try_room(struct pack_scratch *s, size_t n)
{
    size_t needed = (s->length ? s->length : offsetof(struct message, bytes)) + n;
    if (needed > s->size) {
        size_t size = s->size * 2 > needed ? s->size * 2 : needed + 256;
        void *bytes = asio_worker_core->mem->allocator->realloc(s->bytes, size);
        if (!bytes)
            return false;
        s->bytes = bytes;
        s->size = size;
    }
    return true;
}

void asio_pack_add_ref(struct pack *p, struct message_ref ref)
{
    struct pack_scratch *s = p->s;
    if (s->refs_count == s->refs_size) {
        unsigned size = s->refs_size ? s->refs_size * 2 : 8;
        void *refs = asio_worker_core->mem->allocator->realloc(s->refs, size * sizeof *s->refs);
        if (!refs)
            asio_pack_no_memory(p);
        s->refs = refs;
        s->refs_size = size;
    }
    pack_fixed(p, PACK_REF, &(uint32_t){ s->refs_count }, sizeof(uint32_t));
    if (ref.shared)
        asio_shared_keep(ref.shared);
    s->refs[s->refs_count++] = ref;
}

/* ---- objects that the message has already --------------------------------------------------- */

static uint32_t seen_hash(const void *object)
{
    uint64_t bits = (uint64_t)(uintptr_t)object >> 3;
    return (uint32_t)(bits * 0x9E3779B97F4A7C15u >> 32);
}

/* The place of an object in the index: its position is there, or 0. */
static uint32_t *seen_place(const struct pack_scratch *s, const void *object)
{
    uint32_t i = seen_hash(object) & (s->index_size - 1);
    while (s->index[i] && s->seen[s->index[i] - 1].object != object)
        i = (i + 1) & (s->index_size - 1);
    return &s->index[i];
}

const struct pack_seen *asio_pack_find(const struct pack *p, const void *object)
{
    const struct pack_scratch *s = p->s;
    if (s->hashed) {
        uint32_t position = *seen_place(s, object);
        return position ? &s->seen[position - 1] : NULL;
    }
    for (uint32_t i = 0; i < s->seen_count; i++)
        if (s->seen[i].object == object)
            return &s->seen[i];
    return NULL;
}

/* Twice the room, and an index of it if there is more than is searched. */
static bool seen_grow(struct pack_scratch *s)
{
    const struct asio_allocator *mem = asio_worker_core->mem->allocator;
    uint32_t size = s->seen_size ? s->seen_size * 2 : PACK_SEARCHED;
    void *seen = mem->realloc(s->seen, size * sizeof *s->seen);
    if (!seen)
        return false;
    s->seen = seen;
    s->seen_size = size;
    void *index = mem->realloc(s->index, 2 * size * sizeof *s->index);
    if (!index)
        return false;
    s->index = index;
    s->index_size = 2 * size;
    s->hashed = false;
    return true;
}

static void seen_make_index(struct pack_scratch *s)
{
    memset(s->index, 0, s->index_size * sizeof *s->index);
    for (uint32_t i = 0; i < s->seen_count; i++)
        *seen_place(s, s->seen[i].object) = i + 1;
    s->hashed = true;
}

void asio_pack_remember(struct pack *p, const void *object, uint32_t number, uint32_t upvalue)
{
    struct pack_scratch *s = p->s;
    if (s->seen_count >= s->index_size / 2 &&
        !seen_grow(s)) /* index_size follows seen_size, and may have failed to */
        asio_pack_no_memory(p);
    s->seen[s->seen_count++] = (struct pack_seen){ object, number, upvalue };
    if (s->hashed)
        *seen_place(s, object) = s->seen_count;
    else if (s->seen_count > PACK_SEARCHED)
        seen_make_index(s);
}

/* ---- messages ------------------------------------------------------------------------------ */

/* Fills in what is the same for all. */
static void message_init(struct message *m, size_t length, unsigned values)
{
    m->next = NULL;
    m->length = length;
    m->values = values;
    m->refs = 0;
    m->committed = true;
    m->ref = NULL;
}

struct message *asio_message_pack_scalar(lua_State *L, int index)
{
    int type = lua_type(L, index);
    const char *bytes = NULL;
    size_t length = 0, head = 2; /* of bytes: flags, tag */
    if (type == LUA_TSTRING) {
        bytes = lua_tolstring(L, index, &length);
        head += length > UINT8_MAX ? sizeof(uint32_t) : sizeof(uint8_t);
    } else if (type == LUA_TNUMBER)
        length = sizeof(double);
    else if (type != LUA_TBOOLEAN)
        return NULL;
    struct message *m = worker_alloc(offsetof(struct message, bytes) + head + length);
    if (!m)
        return NULL;
    message_init(m, head + length, 1);
    m->bytes[0] = 0;
    if (type == LUA_TSTRING) {
        m->bytes[1] = length > UINT8_MAX ? PACK_STRING : PACK_SHORT_STRING;
        if (length > UINT8_MAX)
            memcpy(m->bytes + 2, &(uint32_t){ (uint32_t)length }, sizeof(uint32_t));
        else
            m->bytes[2] = (unsigned char)length;
        memcpy(m->bytes + head, bytes, length);
    } else if (type == LUA_TNUMBER) {
        m->bytes[1] = PACK_NUMBER;
        memcpy(m->bytes + 2, &(double){ lua_tonumber(L, index) }, sizeof(double));
    } else
        m->bytes[1] = lua_toboolean(L, index) ? PACK_TRUE : PACK_FALSE;
    return m;
}

/* The message in memory of its own: a copy, or the scratch's where that is long. NULL: no memory. */
static struct message *message_take_bytes(struct pack_scratch *s, size_t size)
{
    if (size > PACK_COPIED) {
        struct message *m = asio_worker_core->mem->allocator->realloc(s->bytes, size);
        if (m) {
            s->bytes = NULL;
            s->size = 0;
        }
        return m;
    }
    struct message *m = worker_alloc(size);
    if (m)
        memcpy(m->bytes, s->bytes + offsetof(struct message, bytes),
            s->length - offsetof(struct message, bytes));
    return m;
}

static struct message *message_make(struct pack *p, unsigned values)
{
    struct pack_scratch *s = p->s;
    size_t align = sizeof(void *), end = (s->length + align - 1) / align * align;
    struct message *m = message_take_bytes(s, end + s->refs_count * sizeof *s->refs);
    if (!m)
        asio_pack_no_memory(p);
    message_init(m, s->length - offsetof(struct message, bytes), values);
    m->bytes[0] = p->has_seen ? PACK_HAS_SEEN : 0;
    m->refs = s->refs_count;
    if (m->refs > 0) {
        m->ref = (struct message_ref *)(void *)((char *)m + end);
        memcpy(m->ref, s->refs, m->refs * sizeof *m->ref);
    }
    for (unsigned i = 0; i < m->refs; i++)
        if (m->ref[i].conn)
            m->committed = false;
    s->refs_count = 0; /* the references are the message's */
    return m;
}

static void message_pack_values(struct pack *p, int last)
{
    pack_room(p, offsetof(struct message, bytes) + 1);
    for (int i = p->first; i <= last; i++)
        asio_pack_value(p, i, &(struct pack_step){ .kind = PACK_AT_VALUE, .index = i });
}

struct message *asio_message_pack(lua_State *L, int first, int last, const struct message_place *place)
{
    luaL_checkstack(L, 16, "too many values");
    struct pack p = { .L = L, .place = place, .first = first };
    p.keep = lua_gettop(L) + 1;
    p.self = p.keep + 1;
    p.names = p.keep + 2;
    lua_pushnil(L);
    p.s = scratch_take(L);
    lua_pushnil(L);
    message_pack_values(&p, last);
    if (p.again) {
        p = (struct pack){ .L = L,
            .place = place,
            .first = first,
            .s = p.s,
            .keep = p.keep,
            .self = p.self,
            .names = p.names,
            .counted = true,
            .collected = p.collected };
        asio_pack_clear(p.s);
        p.s->busy = true;
        if (!p.collected)
            asio_pack_collect_names(&p);
        message_pack_values(&p, last);
    }
    struct message *m = message_make(&p, (unsigned)(last - first + 1));
    asio_pack_clear(p.s);
    scratch_trim(p.s);
    lua_settop(L, p.keep);
    return m;
}

/* What moving takes is there for each connection; or an error, and nothing has changed. */
static int message_prepare(struct message *m)
{
    int status = 0;
    for (unsigned i = 0; status == 0 && i < m->refs; i++)
        if (m->ref[i].conn)
            status = asio_worker_core->threads->move_prepare(m->ref[i].conn, &m->ref[i].moved);
    for (unsigned i = 0; status < 0 && i < m->refs; i++) {
        if (m->ref[i].moved)
            asio_worker_core->threads->move_free(m->ref[i].moved);
        m->ref[i].moved = NULL;
    }
    return status;
}

int asio_message_commit(struct message *m)
{
    if (m->committed)
        return 0;
    int status = message_prepare(m);
    if (status < 0)
        return status;
    for (unsigned i = 0; i < m->refs; i++) {
        if (m->ref[i].conn)
            asio_worker_core->threads->move_out(m->ref[i].conn, m->ref[i].moved);
        m->ref[i].conn = NULL;
    }
    m->committed = true;
    return 0;
}

void asio_message_free(struct message *m)
{
    for (unsigned i = 0; i < m->refs; i++) {
        if (m->ref[i].shared)
            asio_shared_drop(m->ref[i].shared);
        if (m->ref[i].moved)
            asio_worker_core->threads->move_free(m->ref[i].moved);
    }
    worker_free(m);
}

struct message *asio_message_of_string(const char *text)
{
    size_t length = strlen(text);
    if (length > UINT8_MAX)
        length = UINT8_MAX;
    struct message *m = worker_alloc(offsetof(struct message, bytes) + 3 + length);
    if (!m)
        return NULL;
    message_init(m, 3 + length, 1);
    m->bytes[0] = 0;
    m->bytes[1] = PACK_SHORT_STRING;
    m->bytes[2] = (unsigned char)length;
    memcpy(m->bytes + 3, text, length);
    return m;
}
