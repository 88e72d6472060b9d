/* SPDX-License-Identifier: MIT
 *
 * A Lua state as the others see it: a mailbox that wakes its loop. And the list of all states, in which a deadlock shows:
 * when each of them waits for the others alone, none will ever wake. */
#include "plugins/worker/worker.h"

#include <stdio.h>
#include <string.h>

enum {
    PEER_LOOK_OUT = 50000, /* ns */
    PEER_STREAM = 1000,    /* ns: what comes as soon as this is the next of many */
    PEER_STREAM_SLEEPS = 16
};

static uv_mutex_t peer_list_lock;
static struct peer *peer_list, *peer_list_last;
static unsigned peer_between; /* threads whose state is not in the list, and which will wake another */

static const char peer_home_key = 0, peer_receive_key = 0; /* their addresses: keys in the registry */

int asio_peer_load(void)
{
    return asio_worker_core->threads->mutex_init(&peer_list_lock);
}

void asio_peer_keep(struct peer *p)
{
    worker_lock(&p->lock);
    p->references++;
    worker_unlock(&p->lock);
}

void asio_peer_drop(struct peer *p)
{
    worker_lock(&p->lock);
    unsigned left = --p->references;
    worker_unlock(&p->lock);
    if (left > 0)
        return;
    asio_worker_core->threads->async_free(p->async);
    asio_worker_core->threads->mutex_destroy(&p->lock);
    worker_free(p);
}

/* ---- the mailbox --------------------------------------------------------------------------- */

/* With p->lock held. True: the loop is to be woken. */
static bool peer_append(struct peer *p, struct post *post)
{
    bool empty = !p->first;
    if (post->next)
        return false;
    post->next = post;
    if (p->last)
        p->last->next = post;
    else
        p->first = post;
    p->last = post;
    p->blocked = false;
    return empty;
}

/* The woken thread may get the processor at once: the caller's, if that is where it last ran. Hence without a lock. */
bool asio_peer_post(struct peer *p, struct post *post)
{
    worker_lock(&p->lock);
    bool open = !p->closed, wake = open && peer_append(p, post);
    p->references += wake;
    worker_unlock(&p->lock);
    if (wake)
        asio_peer_wake(p);
    return open;
}

struct peer *asio_peer_post_begin(struct peer *p, struct post *post, bool *asleep)
{
    worker_lock(&p->lock);
    *asleep = p->asleep;
    bool wake = !p->closed && peer_append(p, post);
    p->references += wake;
    worker_unlock(&p->lock);
    return wake ? p : NULL;
}

void asio_peer_wake(struct peer *p)
{
    asio_worker_core->threads->async_send(p->async);
    asio_peer_drop(p);
}

/* With p->lock held. */
static struct post *peer_take(struct peer *p)
{
    struct post *post = p->first;
    if (!post)
        return NULL;
    p->first = post->next == post ? NULL : post->next;
    if (!p->first)
        p->last = NULL;
    post->next = NULL;
    return post;
}

void asio_peer_withdraw(struct peer *p, struct post *post)
{
    worker_lock(&p->lock);
    struct post *before = NULL, *at = p->first;
    while (at && at != post) {
        before = at;
        at = at->next == at ? NULL : at->next;
    }
    if (at && !before) {
        peer_take(p);
    } else if (at) {
        before->next = at->next == at ? before : at->next;
        if (p->last == at)
            p->last = before;
        at->next = NULL;
    }
    worker_unlock(&p->lock);
}

struct post *asio_peer_take_kind(struct peer *p, void (*run)(struct post *p, struct peer *peer, bool open))
{
    worker_lock(&p->lock);
    struct post *post = p->first;
    while (post && post->run != run)
        post = post->next == post ? NULL : post->next;
    worker_unlock(&p->lock);
    if (post)
        asio_peer_withdraw(p, post);
    return post;
}

void asio_peer_each_other(const struct peer *self, void (*fn)(struct peer *p, void *arg), void *arg)
{
    worker_lock(&peer_list_lock);
    for (struct peer *p = peer_list; p; p = p->next)
        if (p != self)
            fn(p, arg);
    worker_unlock(&peer_list_lock);
}

static struct post *peer_next_post(struct peer *p)
{
    worker_lock(&p->lock);
    struct post *post = peer_take(p);
    worker_unlock(&p->lock);
    return post;
}

/* A post has come so long after the loop began to wait. Of a stream a state gets more at a time if it sleeps. */
static void peer_judge(struct peer *p, uint64_t waited)
{
    if (waited >= PEER_LOOK_OUT)
        p->trust = 0;
    else if (waited < PEER_STREAM)
        p->trust = -PEER_STREAM_SLEEPS;
    else if (p->trust <= 0)
        p->trust++;
}

/* So many at a time that what comes meanwhile cannot keep the loop from the rest of its work. A post may run user code,
 * which may fork: in the child no lock may be touched. */
static void peer_on_wake(void *arg)
{
    enum { AT_A_TIME = 1000 };
    struct peer *p = arg;
    struct post *post;
    int count = 0;
    p->told = true;
    peer_judge(p, asio_worker_core->loop->now() - p->wait_began);
    asio_peer_keep(p);
    while (count++ < AT_A_TIME && (post = peer_next_post(p)) != NULL) {
        post->run(post, p, true);
        if (asio_worker_core->threads->obstacle(p->rt))
            return;
    }
    worker_lock(&p->lock);
    bool more = p->first != NULL;
    worker_unlock(&p->lock);
    if (more)
        asio_worker_core->threads->async_send(p->async);
    asio_peer_drop(p);
}

/* ---- opening and closing ------------------------------------------------------------------- */

void asio_peer_count_between(int change)
{
    worker_lock(&peer_list_lock);
    peer_between += (unsigned)change;
    worker_unlock(&peer_list_lock);
}

/* In one moment for those that look for a deadlock: before, the thread may wake the other state; afterwards, that state
 * has something to do. */
bool asio_peer_post_last(struct peer *p, struct post *post)
{
    worker_lock(&peer_list_lock);
    bool open = asio_peer_post(p, post);
    peer_between--;
    worker_unlock(&peer_list_lock);
    return open;
}

/* Behind those that have started it, and more often have something else to do: see peer_lock_blocked. */
static void peer_list_add(struct peer *p)
{
    worker_lock(&peer_list_lock);
    p->prev = peer_list_last;
    if (p->prev)
        p->prev->next = p;
    else
        peer_list = p;
    peer_list_last = p;
    worker_unlock(&peer_list_lock);
}

static void peer_list_remove(struct peer *p)
{
    worker_lock(&peer_list_lock);
    if (p->next)
        p->next->prev = p->prev;
    else
        peer_list_last = p->prev;
    if (p->prev)
        p->prev->next = p->next;
    else
        peer_list = p->next;
    worker_unlock(&peer_list_lock);
}

/* No other thread can wake this state afterwards. In the child of a fork all this is the parent's. */
static void peer_on_closing(void *arg)
{
    struct peer *p = arg;
    struct post *post;
    p->home->peer = NULL;
    asio_worker_core->threads->watch_waiting(p->rt, NULL, NULL);
    if (asio_worker_core->threads->forked(p->rt))
        return;
    asio_state_end_all(p);
    peer_list_remove(p);
    worker_lock(&p->lock);
    p->closed = true;
    worker_unlock(&p->lock);
    while ((post = peer_next_post(p)) != NULL)
        post->run(post, p, false);
    asio_peer_drop(p);
}

static struct peer *peer_new(struct asio_rt *rt, struct peer_home *home, int *status)
{
    struct peer *p = worker_alloc(sizeof *p);
    *status = UV_ENOMEM;
    if (!p)
        return NULL;
    memset(p, 0, sizeof *p);
    p->references = 1;
    p->rt = rt;
    p->home = home;
    p->several = asio_worker_core->threads->parallelism() > 1;
    strcpy(p->name, "main");
    *status = asio_worker_core->threads->mutex_init(&p->lock);
    if (*status == 0) {
        p->async = asio_worker_core->threads->async_open(rt, peer_on_wake, peer_on_closing, p, status);
        if (p->async)
            return p;
        asio_worker_core->threads->mutex_destroy(&p->lock);
    }
    worker_free(p);
    return NULL;
}

/* ---- deadlock ------------------------------------------------------------------------------ */

static void peer_on_deadlock(struct post *post, struct peer *p, bool open)
{
    (void)post;
    if (open)
        asio_worker_core->threads->set_deadlock(p->rt);
}

/* Locks the peers from the first one on, as long as they are blocked. Returns the first that is not; NULL: all are,
 * in one moment: else one could be woken by another that blocks afterwards. *waits: how many endless ones they have. */
static struct peer *peer_lock_blocked(size_t *waits)
{
    *waits = 0;
    for (struct peer *p = peer_list; p; p = p->next) {
        worker_lock(&p->lock);
        if (!p->blocked || p->first) {
            worker_unlock(&p->lock);
            return p;
        }
        *waits += p->passive ? 0 : p->waits;
    }
    return NULL;
}

/* With all locks held. */
static void peer_tell_deadlock(void)
{
    for (struct peer *p = peer_list; p; p = p->next)
        if (p->waits > 0 && !p->passive && peer_append(p, &p->deadlock))
            asio_worker_core->threads->async_send(p->async);
}

/* States that wait for their workers alone are told by the ends of these. */
static void peer_find_deadlock(struct peer *self, size_t waits)
{
    worker_lock(&peer_list_lock);
    worker_lock(&self->lock);
    self->waits = waits;
    self->blocked = !self->first;
    worker_unlock(&self->lock);
    if (peer_between == 0) {
        struct peer *awake = peer_lock_blocked(&waits);
        if (!awake && waits > 0)
            peer_tell_deadlock();
        for (struct peer *p = peer_list; p != awake; p = p->next)
            worker_unlock(&p->lock);
    }
    worker_unlock(&peer_list_lock);
}

/* Being woken by another processor takes tens of microseconds where that one has to be woken itself. A state whose last
 * answer from another one came as soon as that looks out for the next one for a moment, before it sleeps. One look in
 * vain ends it, so that states that have nothing to say to each other take no time. */
static void peer_look_out(struct peer *p, size_t waits)
{
    if (p->trust <= 0 || waits == 0 || !p->several)
        return;
    bool found = false;
    while (!found && asio_worker_core->loop->now() - p->wait_began < PEER_LOOK_OUT) {
        worker_lock(&p->lock);
        found = p->first != NULL;
        worker_unlock(&p->lock);
    }
}

static void peer_on_wait_begins(struct peer *p)
{
    size_t waits;
    bool alone = asio_worker_core->threads->waits_only(p->rt, p->counted, &waits);
    p->wait_began = asio_worker_core->loop->now();
    p->told = false;
    peer_look_out(p, waits);
    worker_lock(&p->lock);
    p->asleep = true;
    p->blocked = false;
    worker_unlock(&p->lock);
    if (alone)
        peer_find_deadlock(p, waits);
}

static void peer_on_waiting(void *arg, bool begins)
{
    struct peer *p = arg;
    if (begins) {
        peer_on_wait_begins(p);
        return;
    }
    worker_lock(&p->lock);
    p->asleep = false;
    p->blocked = false;
    worker_unlock(&p->lock);
    if (!p->told && p->trust > 0)
        p->trust = 0;
}

struct peer *asio_peer_of(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&peer_home_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    struct peer_home *home = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return home ? home->peer : NULL;
}

void asio_peer_set_name(struct peer *p, const char *name)
{
    worker_lock(&peer_list_lock);
    snprintf(p->name, sizeof p->name, "%s", name);
    worker_unlock(&peer_list_lock);
}

struct peer *asio_peer_open(lua_State *L, struct asio_rt *rt)
{
    struct peer *known = asio_peer_of(L);
    if (known) /* opened before, and then memory ran out */
        return known;
    struct peer_home *home = lua_newuserdata(L, sizeof *home);
    home->peer = NULL;
    lua_pushlightuserdata(L, (void *)&peer_home_key);
    lua_insert(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    int status;
    struct peer *p = peer_new(rt, home, &status);
    if (!p) {
        asio_worker_core->error->push(L, status);
        lua_pop(L, 1);
        lua_error(L);
    }
    p->deadlock.run = peer_on_deadlock;
    home->peer = p;
    asio_worker_core->threads->watch_waiting(rt, peer_on_waiting, p);
    peer_list_add(p);
    return p;
}

/* ---- what comes for Lua -------------------------------------------------------------------- */

struct peer_delivery {
    void *id;
    const char *what;
    struct message *message;
};

static int l_peer_unpack(lua_State *L)
{
    struct message *m = lua_touserdata(L, 1);
    lua_settop(L, 0);
    return asio_message_push(L, m);
}

/* Pushes `what` and the values. Of an outcome that cannot be received, such as a function that refers to a module which
 * is not found here, the end of the worker is told all the same. Returns how many. */
static int peer_push_outcome(lua_State *L, const struct peer_delivery *d)
{
    int what = lua_gettop(L) + 1;
    lua_pushstring(L, d->what);
    lua_pushcfunction(L, l_peer_unpack);
    lua_pushlightuserdata(L, d->message);
    if (lua_pcall(L, 1, LUA_MULTRET, 0) != 0) {
        lua_pushliteral(L, "died");
        lua_replace(L, what);
    }
    return lua_gettop(L) - what + 1;
}

static void peer_receive(lua_State *L, void *arg)
{
    const struct peer_delivery *d = arg;
    int values;
    lua_pushlightuserdata(L, (void *)&peer_receive_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (d->id)
        lua_pushlightuserdata(L, d->id);
    else
        lua_pushnil(L);
    if (d->what && d->message) {
        values = peer_push_outcome(L, d);
    } else if (d->what) {
        lua_pushstring(L, d->what);
        values = 1;
    } else {
        values = asio_message_push(L, d->message);
    }
    lua_call(L, 1 + values, 0);
}

int asio_peer_deliver(struct peer *p, void *id, const char *what, struct message *m)
{
    struct peer_delivery d = { id, what, m };
    int status = asio_worker_core->wait->protect(p->rt, peer_receive, &d, "receiving from another Lua state");
    if (m && !asio_worker_core->threads->forked(p->rt))
        asio_message_free(m);
    return status;
}

/* worker.on_receive(fn): fn(id, what, ...) is called for what other states tell this one; it must not wait. */
static int l_peer_on_receive(lua_State *L)
{
    lua_settop(L, 1);
    lua_pushlightuserdata(L, (void *)&peer_receive_key);
    lua_insert(L, 1);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 0;
}

/* worker.peer_name() -> "main", or the worker's name */
static int l_peer_name(lua_State *L)
{
    struct peer *p = worker_peer(L);
    char name[sizeof p->name];
    worker_lock(&peer_list_lock);
    memcpy(name, p->name, sizeof name);
    worker_unlock(&peer_list_lock);
    lua_pushstring(L, name);
    return 1;
}

/* worker.set_passive(): this state waits for work that may never come, which is no deadlock. */
static int l_peer_set_passive(lua_State *L)
{
    struct peer *p = worker_peer(L);
    worker_lock(&p->lock);
    p->passive = true;
    worker_unlock(&p->lock);
    return 0;
}

void asio_peer_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "on_receive", l_peer_on_receive }, { "peer_name", l_peer_name },
        { "set_passive", l_peer_set_passive }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, functions);
}
