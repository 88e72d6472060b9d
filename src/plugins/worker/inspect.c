/* SPDX-License-Identifier: MIT
 *
 * Asking the other Lua states what their light threads do. Each answers for itself, on its own thread; the one that asks
 * blocks meanwhile, and answers those that ask it at the same time.
 *
 * Lifetime of struct inspect_question: one for each state that is asked, referenced by the asker and by the mailbox of
 * the other; freed by the last. */
#include "plugins/worker/worker.h"

#include <string.h>

enum { INSPECT_SLICE = 20000000, INSPECT_SLICES = 25 }; /* ns; half a second in all */

/* Of one call. Shared by its questions. */
struct inspect_round {
    uv_mutex_t lock; /* guards all of it, and of its questions */
    uv_cond_t answered;
    unsigned references; /* questions that are not freed, and the asker */
    unsigned open;       /* questions without an answer */
    struct inspect_question *first, *last;
};

struct inspect_question {
    struct post post;
    struct inspect_round *round;
    struct inspect_question *next;
    unsigned references;
    char *text; /* the answer, owned; NULL: none yet */
    size_t length;
    bool closed; /* the state has closed instead of answering */
    char name[64];
};

/* Their addresses: the registry's keys of the function that answers, and of a metatable. */
static const char inspect_answer_key = 0, inspect_class = 0;

/* ---- references, under the round's lock ---------------------------------------------------- */

static void inspect_round_drop(struct inspect_round *r)
{
    unsigned left = --r->references;
    worker_unlock(&r->lock);
    if (left > 0)
        return;
    asio_worker_core->threads->cond_destroy(&r->answered);
    asio_worker_core->threads->mutex_destroy(&r->lock);
    worker_free(r);
}

/* Unlocks. */
static void inspect_question_drop(struct inspect_question *q)
{
    struct inspect_round *r = q->round;
    if (--q->references > 0) {
        worker_unlock(&r->lock);
        return;
    }
    worker_free(q->text);
    worker_free(q);
    inspect_round_drop(r);
}

/* ---- the one that is asked ----------------------------------------------------------------- */

static void inspect_answer(lua_State *L, void *arg)
{
    struct inspect_question *q = arg;
    lua_pushlightuserdata(L, (void *)&inspect_answer_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_call(L, 0, 1);
    size_t length;
    const char *text = lua_tolstring(L, -1, &length);
    char *copy = text ? worker_alloc(length + 1) : NULL;
    if (!copy)
        return;
    memcpy(copy, text, length);
    worker_lock(&q->round->lock);
    q->text = copy;
    q->length = length;
    worker_unlock(&q->round->lock);
}

static void inspect_on_question(struct post *post, struct peer *peer, bool open)
{
    struct inspect_question *q = (struct inspect_question *)(void *)post;
    if (open)
        asio_worker_core->wait->protect(peer->rt, inspect_answer, q, "describing light threads");
    worker_lock(&q->round->lock);
    q->closed = !open;
    q->round->open--;
    asio_worker_core->threads->cond_broadcast(&q->round->answered);
    inspect_question_drop(q);
}

/* ---- the asker ----------------------------------------------------------------------------- */

static void inspect_ask(struct peer *p, void *arg)
{
    struct inspect_round *r = arg;
    struct inspect_question *q = worker_alloc(sizeof *q);
    if (!q)
        return;
    *q = (struct inspect_question){ .post = { .run = inspect_on_question }, .round = r, .references = 2 };
    memcpy(q->name, p->name, sizeof q->name);
    worker_lock(&r->lock);
    r->references++;
    r->open++;
    if (r->last)
        r->last->next = q;
    else
        r->first = q;
    r->last = q;
    worker_unlock(&r->lock);
    asio_peer_post(p, &q->post); /* it is open: it is in the list */
}

static void inspect_await(struct peer *self, struct inspect_round *r)
{
    struct post *post;
    worker_lock(&r->lock);
    for (int i = 0; i < INSPECT_SLICES && r->open > 0; i++) {
        asio_worker_core->threads->cond_timedwait(&r->answered, &r->lock, INSPECT_SLICE);
        worker_unlock(&r->lock);
        while ((post = asio_peer_take_kind(self, inspect_on_question)) != NULL)
            inspect_on_question(post, self, true);
        worker_lock(&r->lock);
    }
    worker_unlock(&r->lock);
}

static struct inspect_round *inspect_round_new(void)
{
    struct inspect_round *r = worker_alloc(sizeof *r);
    if (!r)
        return NULL;
    memset(r, 0, sizeof *r);
    r->references = 1;
    if (asio_worker_core->threads->mutex_init(&r->lock) == 0) {
        if (asio_worker_core->threads->cond_init(&r->answered) == 0)
            return r;
        asio_worker_core->threads->mutex_destroy(&r->lock);
    }
    worker_free(r);
    return NULL;
}

/* The asker's part, also after an error: in a userdata with a finalizer. */
static void inspect_release(struct inspect_round *r)
{
    struct inspect_question *q = r->first;
    while (q) {
        struct inspect_question *next = q->next;
        worker_lock(&r->lock);
        inspect_question_drop(q);
        q = next;
    }
    worker_lock(&r->lock);
    inspect_round_drop(r);
}

static int l_inspect_gc(lua_State *L)
{
    struct inspect_round **box = lua_touserdata(L, 1);
    if (*box && !asio_worker_core->threads->forked(worker_rt(L)))
        inspect_release(*box);
    *box = NULL;
    return 0;
}

static void inspect_push_answer(lua_State *L, struct inspect_question *q)
{
    worker_lock(&q->round->lock);
    const char *text = q->text; /* stays: answered once */
    worker_unlock(&q->round->lock);
    lua_createtable(L, 0, 2);
    lua_pushstring(L, q->name);
    lua_setfield(L, -2, "name");
    if (text)
        lua_pushlstring(L, text, q->length);
    else
        lua_pushnil(L);
    lua_setfield(L, -2, "text");
}

/* worker.ask_others() -> { { name =, text = or nil }, ... }. Blocks. */
static int l_inspect_ask(lua_State *L)
{
    struct peer *self = worker_peer(L);
    asio_worker_check_open(L, "dump");
    struct inspect_round **box = lua_newuserdata(L, sizeof(struct inspect_round *));
    *box = NULL;
    lua_pushlightuserdata(L, (void *)&inspect_class);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    struct inspect_round *r = *box = inspect_round_new();
    if (!r)
        return luaL_error(L, "not enough memory");
    asio_peer_each_other(self, inspect_ask, r);
    inspect_await(self, r);
    lua_newtable(L);
    int count = 0;
    for (struct inspect_question *q = r->first; q; q = q->next) {
        worker_lock(&r->lock);
        bool closed = q->closed;
        worker_unlock(&r->lock);
        if (closed)
            continue;
        inspect_push_answer(L, q);
        lua_rawseti(L, -2, ++count);
    }
    *box = NULL;
    inspect_release(r);
    return 1;
}

/* worker.on_ask(fn): fn() -> the text that others get */
static int l_inspect_on_ask(lua_State *L)
{
    lua_settop(L, 1);
    lua_pushlightuserdata(L, (void *)&inspect_answer_key);
    lua_insert(L, 1);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 0;
}

void asio_inspect_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "ask_others", l_inspect_ask }, { "on_ask", l_inspect_on_ask },
        { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_inspect_gc }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, functions);
    lua_pushlightuserdata(L, (void *)&inspect_class);
    lua_createtable(L, 0, 1);
    asio_worker_bind(L, rt, peer, meta);
    lua_rawset(L, LUA_REGISTRYINDEX);
}
