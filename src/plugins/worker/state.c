/* SPDX-License-Identifier: MIT
 *
 * A Lua state on a thread of its own: starting it with a function and arguments, telling it something, its end. What it
 * runs, and how scripts see it, is in worker.lua.
 *
 * Lifetime of struct state: made by the state that starts it; referenced by that state's list until it has seen the end,
 * by its handle, and by the thread; freed by the last of them. */
#include "plugins/worker/worker.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATE_STACK = 2 * 1024 * 1024, STATE_ERROR = 512 };
static const uint64_t second = 1000000000;
enum {
    STATE_CANCEL_SECONDS = 1,
    STATE_END_SECONDS = 5
}; /* that the end of its starter allows it, see docs/all-cores.md */

/* What one of them tells the other. */
struct state_word {
    struct post post;
    struct state *state; /* a reference */
    bool up;             /* to the starter */
    struct message *message;
    struct state_word *next;
};

struct state {
    uv_mutex_t lock; /* guards what follows */
    uv_cond_t changed;
    unsigned references;
    struct peer *child;              /* a reference; NULL: it is not open yet, or has ended */
    struct state_word *first, *last; /* told before it was open */
    bool ended;
    bool halted;

    struct peer *parent;     /* a reference; constant */
    lua_CFunction module;    /* constant */
    struct preload *preload; /* constant */
    struct message *start;   /* the thread's: what it is to run */
    struct message *outcome; /* the thread's until it has ended, then the parent's */
    char error[STATE_ERROR]; /* the same: why there is no outcome */
    struct post over;        /* to the parent: it has ended */
    struct post
        halt; /* to the child: asio.stop, without memory. It has left the mailbox before the thread ends */
    struct state *next, *prev; /* the parent's list */
    bool counted;              /* it keeps the parent's asio.run going */
    char name[64];             /* the parent's once the state is open: a server's thread gets another one */
    struct state_word *at_end; /* told when the handle is collected; or NULL */
};

static const char state_class = 0; /* its address: the registry's key of the handles' metatable */

/* ---- references ---------------------------------------------------------------------------- */

static void state_keep(struct state *s)
{
    worker_lock(&s->lock);
    s->references++;
    worker_unlock(&s->lock);
}

static void state_free(struct state *s)
{
    if (s->start)
        asio_message_free(s->start);
    if (s->outcome)
        asio_message_free(s->outcome);
    asio_preload_free(s->preload);
    asio_peer_drop(s->parent);
    asio_worker_core->threads->cond_destroy(&s->changed);
    asio_worker_core->threads->mutex_destroy(&s->lock);
    worker_free(s);
}

static void state_drop(struct state *s)
{
    worker_lock(&s->lock);
    unsigned left = --s->references;
    worker_unlock(&s->lock);
    if (left == 0)
        state_free(s);
}

static void state_word_free(struct state_word *w)
{
    asio_message_free(w->message);
    state_drop(w->state);
    worker_free(w);
}

/* ---- telling ------------------------------------------------------------------------------- */

static void state_on_word(struct post *post, struct peer *peer, bool open)
{
    struct state_word *w = (struct state_word *)(void *)post;
    if (open) {
        asio_peer_deliver(peer, w->up ? w->state : NULL, NULL, w->message);
        w->message = NULL;
        if (asio_worker_core->threads->forked(peer->rt))
            return;
    }
    if (w->message)
        asio_message_free(w->message);
    state_drop(w->state);
    worker_free(w);
}

/* NULL: out of memory, and the message is freed. */
static struct state_word *state_word_new(struct state *s, bool up, struct message *m)
{
    struct state_word *w = worker_alloc(sizeof *w);
    if (!w) {
        asio_message_free(m);
        return NULL;
    }
    *w = (struct state_word){ .post = { .run = state_on_word }, .state = s, .up = up, .message = m };
    state_keep(s);
    return w;
}

/* False: it has ended. Before it is open its words are kept for it. */
static bool state_tell(struct state *s, struct state_word *w)
{
    worker_lock(&s->lock);
    bool told = !s->ended;
    if (told && s->child) {
        told = asio_peer_post(s->child, &w->post);
    } else if (told) {
        if (s->last)
            s->last->next = w;
        else
            s->first = w;
        s->last = w;
    }
    worker_unlock(&s->lock);
    if (!told)
        state_word_free(w);
    return told;
}

/* Its loop is there: what it was told before comes first. */
static void state_opened(struct state *s, struct peer *child)
{
    asio_peer_keep(child);
    worker_lock(&s->lock);
    s->child = child;
    while (s->first) {
        struct state_word *w = s->first;
        s->first = w->next;
        asio_peer_post(child, &w->post);
    }
    s->last = NULL;
    if (s->halted)
        asio_peer_post(child, &s->halt);
    worker_unlock(&s->lock);
}

static void state_on_halt(struct post *post, struct peer *peer, bool open)
{
    (void)post;
    if (open)
        asio_worker_core->threads->stop(peer->rt);
}

static void state_halt(struct state *s)
{
    worker_lock(&s->lock);
    s->halted = true;
    if (s->child)
        asio_peer_post(s->child, &s->halt);
    worker_unlock(&s->lock);
}

/* ---- the thread ---------------------------------------------------------------------------- */

static int state_body(lua_State *L)
{
    struct state *s = lua_touserdata(L, 1);
    luaL_openlibs(L);
    asio_preload_apply(L, s->preload);
    asio_worker_core->threads->open(L, s->module);
    lua_getfield(L, -1, "plugin");
    lua_pushliteral(L, "worker");
    lua_call(L, 1, 2); /* found before, by the state that has started this one */
    if (lua_isnil(L, -2))
        return lua_error(L);
    lua_pop(L, 1);
    asio_peer_set_name(asio_peer_of(L), s->name);
    state_opened(s, asio_peer_of(L));
    asio_peer_count_between(-1);
    lua_getfield(L, -1, "bootstrap");
    lua_pushlightuserdata(L, s);
    lua_call(L, 1, 0);
    return 0;
}

static void state_note_error(struct state *s, const char *text)
{
    if (s->outcome)
        asio_message_free(s->outcome);
    s->outcome = NULL;
    snprintf(s->error, sizeof s->error, "%s", text);
}

static void state_end(struct state *s)
{
    worker_lock(&s->lock);
    struct peer *child = s->child;
    struct state_word *w = s->first;
    s->child = NULL;
    s->first = s->last = NULL;
    s->ended = true;
    asio_worker_core->threads->cond_broadcast(&s->changed);
    worker_unlock(&s->lock);
    if (child)
        asio_peer_drop(child);
    while (w) {
        struct state_word *next = w->next;
        state_word_free(w);
        w = next;
    }
    if (!asio_peer_post_last(s->parent, &s->over))
        state_drop(s);
}

/* In the child of a fork by this worker there is no other state to tell. */
static void state_end_fork(struct state *s)
{
    fprintf(stderr, "asio: %s: %s\n", s->name, s->error);
    exit(EXIT_FAILURE);
}

static void state_run_body(struct state *s, lua_State *L)
{
    if (lua_cpcall(L, state_body, s) != 0) {
        const char *text = lua_tostring(L, -1);
        state_note_error(s, text ? text : "(the error is no string)");
    }
    if (s->child && asio_worker_core->threads->forked(s->child->rt))
        state_end_fork(s);
    if (s->child) /* it was open */
        asio_peer_count_between(1);
}

static void state_main(void *arg)
{
    struct state *s = arg;
    lua_State *L = luaL_newstate();
    if (L) {
        state_run_body(s, L);
        lua_close(L);
    } else {
        state_note_error(s, "not enough memory");
    }
    state_end(s);
}

/* ---- the starter --------------------------------------------------------------------------- */

static void state_unlist(struct state *s)
{
    if (s->next)
        s->next->prev = s->prev;
    if (s->prev)
        s->prev->next = s->next;
    else
        s->parent->workers = s->next;
}

/* The starter's Lua learns of the end. False: for want of memory it has not, not even without a reason, which needs
 * none. */
static bool state_tell_over(struct state *s, struct peer *parent)
{
    struct message *outcome = s->outcome;
    s->outcome = NULL;
    int status;
    if (outcome) {
        snprintf(s->error, sizeof s->error, "not enough memory"); /* if that is told later */
        status = asio_peer_deliver(parent, s, "ended", outcome);
    } else {
        status = asio_peer_deliver(parent, s, "died", asio_message_of_string(s->error));
    }
    if (status == LUA_ERRMEM && !asio_worker_core->threads->forked(parent->rt))
        status = asio_peer_deliver(parent, s, "died", NULL);
    return status != LUA_ERRMEM;
}

/* The post has the thread's reference. A light thread may join the worker: without memory it is told later. */
static void state_on_over(struct post *post, struct peer *parent, bool open)
{
    struct state *s = ASIO_CONTAINER(post, struct state, over);
    if (open) {
        bool told = state_tell_over(s, parent);
        if (asio_worker_core->threads->forked(parent->rt))
            return;
        if (!told && asio_peer_post(parent, post))
            return;
        state_unlist(s);
        if (s->counted) {
            parent->counted--;
            asio_worker_core->threads->unref(parent->rt);
        }
        state_drop(s); /* the list's */
    }
    state_drop(s);
}

static bool state_wait(struct state *s, uint64_t until)
{
    worker_lock(&s->lock);
    uint64_t now = asio_worker_core->loop->now();
    while (!s->ended && now < until) {
        asio_worker_core->threads->cond_timedwait(&s->changed, &s->lock, until - now);
        now = asio_worker_core->loop->now();
    }
    bool ended = s->ended;
    worker_unlock(&s->lock);
    return ended;
}

/* The words are made without Lua: the starter's state is being closed. */
static void state_cancel(struct state *s)
{
    struct message *m = asio_message_of_string("cancel");
    struct state_word *w = m ? state_word_new(s, false, m) : NULL;
    if (w)
        state_tell(s, w);
}

void asio_state_end_all(struct peer *parent)
{
    uint64_t now = asio_worker_core->loop->now();
    for (struct state *s = parent->workers; s; s = s->next)
        state_cancel(s);
    for (struct state *s = parent->workers; s; s = s->next)
        if (!state_wait(s, now + STATE_CANCEL_SECONDS * second))
            state_halt(s);
    while (parent->workers) {
        struct state *s = parent->workers;
        if (!state_wait(s, now + STATE_END_SECONDS * second)) {
            fprintf(stderr, "asio: %s does not end: it is left running\n", s->name);
            fflush(stderr);
        }
        state_unlist(s);
        state_drop(s);
    }
}

static struct state *state_new(struct peer *parent, const char *name, bool counted, int *status)
{
    struct state *s = worker_alloc(sizeof *s);
    *status = UV_ENOMEM;
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    *status = asio_worker_core->threads->mutex_init(&s->lock);
    if (*status == 0 && (*status = asio_worker_core->threads->cond_init(&s->changed)) < 0)
        asio_worker_core->threads->mutex_destroy(&s->lock);
    if (*status < 0) {
        worker_free(s);
        return NULL;
    }
    asio_peer_keep(parent);
    s->references = 1;
    s->parent = parent;
    s->module = asio_worker_core->threads->module(parent->rt);
    s->over.run = state_on_over;
    s->halt.run = state_on_halt;
    s->counted = counted;
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

static int state_run(struct state *s)
{
    s->references += 2; /* the list's, the thread's */
    asio_peer_count_between(1);
    int status = asio_worker_core->threads->start(state_main, s, STATE_STACK);
    if (status < 0) {
        s->references -= 2;
        asio_peer_count_between(-1);
        return status;
    }
    s->next = s->parent->workers;
    if (s->next)
        s->next->prev = s;
    s->parent->workers = s;
    if (s->counted) {
        s->parent->counted++;
        asio_worker_core->threads->ref(s->parent->rt);
    }
    return 0;
}

/* ---- Lua ----------------------------------------------------------------------------------- */

/* The state of a handle; NULL: the handle has been collected, since this state closes. */
static struct state *state_check(lua_State *L, int index)
{
    lua_pushlightuserdata(L, (void *)&state_class);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index) || !lua_rawequal(L, -1, -2))
        luaL_error(L, "a worker expected");
    lua_pop(L, 2);
    return *(struct state **)lua_touserdata(L, index);
}

static int l_state_gc(lua_State *L)
{
    struct state **s = lua_touserdata(L, 1);
    if (*s && !asio_worker_core->threads->forked((*s)->parent->rt)) {
        if ((*s)->at_end) /* it was made before: a finalizer does not run short of memory */
            state_tell(*s, (*s)->at_end);
        state_drop(*s);
    }
    *s = NULL;
    return 0;
}

/* worker.start(fname, what, name, counted, fn, ..., options) -> handle, id | nil, message, code. fn and what follows are
 * carried over; `what` names them in errors (nil: arguments of fname, counted). */
static int l_state_start(lua_State *L)
{
    enum { FNAME = 1, WHAT, NAME, COUNTED, FIRST };
    const char *what = lua_tostring(L, WHAT);
    int last = lua_gettop(L), status;
    const struct message_place place = { lua_tostring(L, FNAME), what ? 0 : 1, what, MESSAGE_PLAIN };
    asio_worker_check_open(L, place.fname);
    struct state **box = lua_newuserdata(L, sizeof(struct state *));
    *box = NULL;
    lua_pushlightuserdata(L, (void *)&state_class);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    struct state *s = state_new(worker_peer(L), lua_tostring(L, NAME), lua_toboolean(L, COUNTED), &status);
    if (!s)
        return asio_worker_core->error->push(L, status);
    *box = s;
    status = asio_preload_copy(L, &s->preload);
    if (status < 0)
        return asio_worker_core->error->push(L, status);
    s->start = asio_message_pack(L, FIRST, last, &place);
    status = asio_message_commit(s->start);
    if (status == 0)
        status = state_run(s);
    if (status < 0)
        return asio_worker_core->error->push(L, status);
    lua_pushvalue(L, last + 1);
    lua_pushlightuserdata(L, s);
    return 2;
}

/* worker.tell(handle, ...) -> true; false: it has ended */
static int l_state_tell(lua_State *L)
{
    static const struct message_place place = { "worker", 1, NULL, MESSAGE_PLAIN };
    struct state *s = state_check(L, 1);
    asio_worker_check_open(L, place.fname);
    if (!s) {
        lua_pushboolean(L, 0);
        return 1;
    }
    struct message *m = asio_message_pack(L, 2, lua_gettop(L), &place);
    int status = asio_message_commit(m);
    struct state_word *w = NULL;
    if (status < 0)
        asio_message_free(m);
    else if ((w = state_word_new(s, false, m)) == NULL)
        status = UV_ENOMEM;
    if (status < 0)
        return asio_worker_core->error->push(L, status);
    lua_pushboolean(L, state_tell(s, w));
    return 1;
}

/* worker.rename(handle, name): what asio.dump calls the state, and what it is called if it does not end. */
static int l_state_rename(lua_State *L)
{
    struct state *s = state_check(L, 1);
    asio_worker_check_open(L, "worker");
    if (!s)
        return 0;
    snprintf(s->name, sizeof s->name, "%s", lua_tostring(L, 2));
    worker_lock(&s->lock);
    if (s->child)
        asio_peer_set_name(s->child, s->name);
    worker_unlock(&s->lock);
    return 0;
}

/* worker.at_end(handle, word): what the state is told when the handle is collected -> true. Once. */
static int l_state_at_end(lua_State *L)
{
    struct state *s = state_check(L, 1);
    struct message *m = asio_message_of_string(lua_tostring(L, 2));
    struct state_word *w = m ? state_word_new(s, false, m) : NULL;
    if (!w)
        return asio_worker_core->error->push(L, UV_ENOMEM);
    s->at_end = w;
    lua_pushboolean(L, 1);
    return 1;
}

/* In the child of a fork a thread that is not there may hold the starter's lock. */
bool asio_state_report_word(struct state *s, const char *word)
{
    if (asio_worker_core->threads->forked(s->child->rt)) /* connections are closed in the child */
        return false;
    struct message *m = asio_message_of_string(word);
    struct state_word *w = m ? state_word_new(s, true, m) : NULL;
    if (w && !asio_peer_post(s->parent, &w->post))
        state_word_free(w);
    return w != NULL;
}

/* worker.report(id, ...): to the state that has started this one -> true; false: it has closed */
static int l_state_report(lua_State *L)
{
    static const struct message_place place = { "worker", 1, NULL, MESSAGE_PLAIN };
    struct state *s = lua_touserdata(L, 1);
    asio_worker_check_open(L, place.fname);
    struct message *m = asio_message_pack(L, 2, lua_gettop(L), &place);
    int status = asio_message_commit(m);
    struct state_word *w = NULL;
    if (status < 0)
        asio_message_free(m);
    else if ((w = state_word_new(s, true, m)) == NULL)
        status = UV_ENOMEM;
    if (status < 0)
        return asio_worker_core->error->push(L, status);
    bool told = asio_peer_post(s->parent, &w->post);
    if (!told)
        state_word_free(w);
    lua_pushboolean(L, told);
    return 1;
}

/* In the new state: worker.take_start(id) -> fn, ..., options */
static int l_state_take_start(lua_State *L)
{
    struct state *s = lua_touserdata(L, 1);
    int n = asio_message_push(L, s->start);
    asio_message_free(s->start);
    s->start = NULL;
    return n;
}

/* In the new state: worker.finish(id, ok, ...): its outcome. Raises for values that cannot be carried. */
static int l_state_finish(lua_State *L)
{
    static const struct message_place place = { "worker", 0, "result", MESSAGE_PLAIN };
    struct state *s = lua_touserdata(L, 1);
    asio_worker_check_open(L, "worker");
    struct message *m = asio_message_pack(L, 2, lua_gettop(L), &place);
    int status = asio_message_commit(m);
    if (status < 0) {
        asio_message_free(m);
        return asio_worker_core->error->push(L, status);
    }
    if (s->outcome)
        asio_message_free(s->outcome);
    s->outcome = m;
    lua_pushboolean(L, 1);
    return 1;
}

void asio_state_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "start", l_state_start }, { "tell", l_state_tell },
        { "report", l_state_report }, { "take_start", l_state_take_start }, { "finish", l_state_finish },
        { "at_end", l_state_at_end }, { "rename", l_state_rename }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_state_gc }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, functions);
    lua_pushlightuserdata(L, (void *)&state_class);
    lua_createtable(L, 0, 1);
    asio_worker_bind(L, rt, peer, meta);
    lua_rawset(L, LUA_REGISTRYINDEX);
}
