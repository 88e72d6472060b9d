/* SPDX-License-Identifier: MIT
 *
 * asio/worker.so: several Lua states, each on a system thread with a loop of its own, and what they share. What its
 * files share.
 *
 * One rule holds it together: a Lua state is touched by its own thread alone. What goes from one state to another is a
 * message (message.c): bytes, and references to things that states share (shared.c: channels, dicts) or hand over
 * (connections). A state is woken through its mailbox (peer.c).
 *
 * Locks, each with what may be taken while it is held:
 *   a channel's             peers', that of the references
 *   a stripe of a dict      the dict's `room`; one stripe at a time
 *   the names of dicts      none
 *   a pool's                peers'
 *   a worker's              the list's, peers'
 *   the list of peers       a round of questions, peers' (several, in the list's order: see peer_lock_blocked)
 *   a round of questions    none
 *   a peer's                none
 *   that of all references  none; it is free again before a thing is destroyed
 * No lock is held while Lua runs, nor taken in the child of a fork, where the thread that has it may be missing. */
#ifndef ASIO_WORKER_H
#define ASIO_WORKER_H

#include "base/asio.h"
#include "plugin/plugin.h"

/* The core's tables: constant, of the process. Set by the first `load`. */
extern const struct asio_plugin *asio_worker_core;

static inline void *worker_alloc(size_t size)
{
    return asio_worker_core->mem->allocator->malloc(size);
}

static inline void worker_free(void *p)
{
    asio_worker_core->mem->allocator->free(p);
}

static inline void worker_lock(uv_mutex_t *lock)
{
    asio_worker_core->threads->mutex_lock(lock);
}

static inline void worker_unlock(uv_mutex_t *lock)
{
    asio_worker_core->threads->mutex_unlock(lock);
}

/* Every C function of the plugin is a closure with the runtime and the home of the state's peer as upvalues. */
struct peer;
static inline struct asio_rt *worker_rt(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* Where the functions of a state find its peer. Lives as long as they do. */
struct peer_home {
    struct peer *peer; /* NULL: the state is being closed */
};

static inline struct peer *worker_peer(lua_State *L)
{
    return ((struct peer_home *)lua_touserdata(L, lua_upvalueindex(2)))->peer;
}

/* Adds such closures to the table at the top of L. */
void asio_worker_bind(lua_State *L, struct asio_rt *rt, struct peer *peer, const luaL_Reg *functions);

/* Raises if the runtime is closed, or this process is a fork that must not use it. */
void asio_worker_check_open(lua_State *L, const char *fname);

/* ---- things that states share (shared.c) --------------------------------------------------- */

struct shared;

/* A kind of them: channel, dict. Constant, of the process. */
struct shared_kind {
    const char *name;                  /* "shared channel": what messages call it */
    const char *article;               /* "a" */
    void (*destroy)(struct shared *s); /* the last reference has gone; any thread */
    /* A state gets its first handle of this thing: makes what the state needs for it (handle->local); 0 or an error. */
    int (*attach)(struct shared *s, struct peer *peer, void **local);
    /* The state's handle has gone, by the collector or since the state closes; no Lua. */
    void (*detach)(struct shared *s, void *local);
    /* Adds what a metatable of this kind has beside __gc to the table at the top of L; methods are in
     * core[class], where the Lua parts add theirs: __index. */
    void (*open)(lua_State *L, struct asio_rt *rt, struct peer *peer);
    const char *class;
};

/* First in every such struct.
 * Created by its kind with one reference, which belongs to the creator; referenced by one handle for each Lua state and
 * by messages on their way; destroyed by the last one that goes, on any thread; outlives states. */
struct shared {
    const struct shared_kind *kind;
    unsigned references; /* guarded by the lock of all references */
};

void asio_shared_init(struct shared *s, const struct shared_kind *kind);
void asio_shared_keep(struct shared *s);
void asio_shared_drop(struct shared *s);

/* A state's handle: the userdata. One for each thing and state, so that handles are equal when things are. */
struct shared_handle {
    const void *magic;
    struct shared *object; /* a reference */
    void *local;           /* the kind's, see attach */
    struct peer *peer;
};

/* Pushes the handle; takes nothing: the handle gets a reference of its own. Raises out of memory, and for an error of
 * `attach`. */
void asio_shared_push(lua_State *L, struct peer *peer, struct shared *s);

/* For a new thing: first an empty handle is pushed, then the thing is made, then the handle at the top takes the
 * reference (also when it raises). */
void asio_shared_push_empty(lua_State *L, const struct shared_kind *kind);
void asio_shared_fill(lua_State *L, struct peer *peer, struct shared *s);

/* The handle at a stack index, of a kind (NULL: any); NULL: it is something else. */
struct shared_handle *asio_shared_to(lua_State *L, int index, const struct shared_kind *kind);

/* Argument 1, or raises: self of the method `fname` is something else; also raises in the child of a fork. */
struct shared_handle *asio_shared_check(lua_State *L, const struct shared_kind *kind, const char *fname);

/* Makes the metatables of all kinds in this state. */
void asio_shared_open(lua_State *L, struct asio_rt *rt, struct peer *peer);
int asio_shared_load(void);

extern const struct shared_kind asio_shared_channel_kind, asio_dict_kind, asio_offload_kind;

/* ---- values on their way between states (message.c, pack.c, code.c) ------------------------ */

/* Something in a message that is no bytes. */
struct message_ref {
    struct shared *shared;    /* a reference; or NULL: a connection */
    struct asio_conn *conn;   /* before the commit: still the sender's */
    struct asio_moved *moved; /* afterwards: taken out of its state */
};

/* Values of a Lua state, as bytes.
 * Created by asio_message_pack; owned by one at a time: the sender, a queue, the receiver; freed by asio_message_free, on any
 * thread. */
struct message {
    struct message *next; /* for its owner's queue */
    size_t length;        /* of bytes */
    unsigned values, refs;
    bool committed; /* connections have been taken out of the sender's state; true if there are none */
    struct message_ref *ref; /* behind the bytes; NULL: none */
    unsigned char bytes[];
};

enum message_flags {
    MESSAGE_PLAIN = 0,
    MESSAGE_NO_REFS = 1, /* no shared things, no connections: for what is kept */
};

/* Where the values stand, for "send: argument 1: field 'x': a coroutine cannot be sent to another Lua state". */
struct message_place {
    const char *fname; /* public name of the function */
    int arg;           /* number of the first value; 0: the values are not counted ("handler") */
    const char *what;  /* then: what they are; may be NULL */
    enum message_flags flags;
};

/* Packs the values at stack indexes first..last. Raises for values that cannot be carried, naming the place, and out of
 * memory. Pushes one value: what has to stay alive until the message is committed or freed (a table of connections), or
 * nil. The caller owns the message. */
struct message *asio_message_pack(lua_State *L, int first, int last, const struct message_place *place);

/* Takes the connections out of the sender's state, on its thread: all, or none. 0; or an error: nothing has changed. */
int asio_message_commit(struct message *m);

/* Pushes the values of a committed message, returns how many. Called from closures and from protected bodies: the
 * state's peer is asio_peer_of(L), not worker_peer(L). Its connections are the receiver's then; freeing the
 * message stays the caller's. Raises out of memory, and what `require` raises for a module that a function refers to:
 * then connections that were not pushed yet stay in the message. */
int asio_message_push(lua_State *L, struct message *m);

void asio_message_free(struct message *m);

/* Packs a single value that is a boolean, number or string without a detour: NULL: it is something else, or there is no
 * memory. For channels and dicts, which carry little else. */
struct message *asio_message_pack_scalar(lua_State *L, int index);

/* A message of one string, without Lua; NULL: out of memory. */
struct message *asio_message_of_string(const char *text);

/* What messages need in each state: scratch memory, the names of what its modules have. */
void asio_message_open(lua_State *L, struct asio_rt *rt);

/* ---- a state as the others see it (peer.c) -------------------------------------------------- */

/* Something that a state is to do, put into its mailbox by any thread. */
struct post {
    struct post *next; /* itself: last in the list; NULL: in no mailbox */
    /* On the state's thread, from a callback of libuv: no Lua error may leave it. `open` is false when the state closes
     * (or has closed) before it got there: only to let go of what the post owns. */
    void (*run)(struct post *p, struct peer *peer, bool open);
};

/* Created when a state opens the plugin; referenced by the state, by handles, by workers; freed by the last. */
struct peer {
    struct asio_async *async; /* constant */
    uv_mutex_t lock;          /* guards what follows */
    unsigned references;
    struct post *first, *last;
    bool closed;
    bool asleep;              /* its loop waits for events */
    bool blocked;             /* waits for other states, and for nothing else */
    bool passive;             /* of a pool: its waiting for work is no deadlock */
    size_t waits;             /* while blocked: endless ones for other states */
    struct peer *next, *prev; /* all that are open, guarded by the list's lock */

    /* of its own thread */
    struct asio_rt *rt;
    struct peer_home *home;
    uint64_t wait_began;   /* when its loop was to wait for events */
    bool several;          /* processors */
    bool told;             /* a post has come since */
    int trust;             /* above 0: the next one will come soon; see peer_look_out */
    struct state *workers; /* started by this state, not ended; see state.c */
    size_t counted;        /* of them: that keep asio.run going */
    struct post deadlock;
    char name[64]; /* under the list's lock */
};

int asio_peer_load(void);
struct peer *asio_peer_open(lua_State *L, struct asio_rt *rt); /* raises */
void asio_peer_bind(lua_State *L, struct asio_rt *rt, struct peer *peer);
void asio_peer_keep(struct peer *p);
void asio_peer_drop(struct peer *p);

/* The peer of a state; NULL: it is being closed. Where worker_peer is not known. */
struct peer *asio_peer_of(lua_State *L);

/* A thread that starts or ends is in no list of peers, and still at work: it counts itself meanwhile (1, then -1). */
void asio_peer_count_between(int change);
void asio_peer_set_name(struct peer *p, const char *name);

static inline struct asio_rt *peer_rt(const struct peer *p)
{
    return p->rt;
}

static inline struct peer_home *peer_home(const struct peer *p)
{
    return p->home;
}

/* Puts a post into a mailbox, and wakes its loop if it was empty; one that is there already stays. False: the state has
 * closed; `run` has not been called. */
bool asio_peer_post(struct peer *p, struct post *post);

/* The same in two steps, for callers that hold a lock: the peer that is to be woken when it is free; NULL: none is. */
struct peer *asio_peer_post_begin(
    struct peer *p, struct post *post, bool *asleep); /* its loop waits for events */
void asio_peer_wake(struct peer *p);

/* The same, as the last thing that a thread does which has counted itself (asio_peer_count_between): that ends, too. */
bool asio_peer_post_last(struct peer *p, struct post *post);

/* On the state's thread: takes a post out that has not run. */
void asio_peer_withdraw(struct peer *p, struct post *post);

/* The same for the first post that has this function; NULL: none has. */
struct post *asio_peer_take_kind(struct peer *p, void (*run)(struct post *p, struct peer *peer, bool open));

/* Calls fn for every other peer that is open, with the list locked: it may post to it. */
void asio_peer_each_other(const struct peer *self, void (*fn)(struct peer *p, void *arg), void *arg);

/* Calls the state's Lua function for what comes (asio_peer_bind) with `id`, `what` (NULL: it is the message's first value)
 * and the values of a message (NULL: there are none). `id` names a worker of this state; NULL: it comes from the state
 * that has started this one. If `what` is given and the values cannot be received, it is called with "died" and why.
 * Frees the message. Returns what lua_pcall does. */
int asio_peer_deliver(struct peer *p, void *id, const char *what, struct message *m);

/* ---- package.preload (preload.c) ------------------------------------------------------------ */

struct preload;

/* Adds copies of what package.preload has to the list: 0 or an error; the caller owns them in either case. */
int asio_preload_copy(lua_State *L, struct preload **first);
/* Puts them into the package.preload of a new state, where it has nothing of that name. Raises. */
void asio_preload_apply(lua_State *L, const struct preload *p);
void asio_preload_free(struct preload *p);

/* ---- the rest ------------------------------------------------------------------------------ */

void asio_state_bind(lua_State *L, struct asio_rt *rt, struct peer *peer);

/* Tells the state that has started this one a word, without Lua, on its own thread. False: out of memory, or in a fork. */
bool asio_state_report_word(struct state *s, const char *word);

/* The state that this peer belongs to closes: its workers end first. */
void asio_state_end_all(struct peer *parent);

void asio_shared_channel_bind(lua_State *L, struct asio_rt *rt, struct peer *peer);

void asio_inspect_bind(lua_State *L, struct asio_rt *rt, struct peer *peer);

void asio_offload_bind(lua_State *L, struct asio_rt *rt, struct peer *peer);

void asio_server_bind(lua_State *L, struct asio_rt *rt, struct peer *peer);

int asio_dict_load(void);
void asio_dict_bind(lua_State *L, struct asio_rt *rt, struct peer *peer);

#endif
