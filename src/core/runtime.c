/* SPDX-License-Identifier: MIT
 * The runtime; see runtime.h. */
#include "core/runtime.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

static const char rt_key = 0; /* its address is the runtime's key in the registry */

/* ---- protected calls ----------------------------------------------------------------------- */

/* The script's debug hook, while it is set aside. */
struct held_hook {
    lua_Hook hook;
    int mask, count;
};

static void hook_put_back(lua_State *L, struct held_hook *held)
{
    if (held->mask && !lua_gethook(L))
        lua_sethook(L, held->hook, held->mask, held->count);
    held->mask = 0;
}

static int protected_body(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    void (*body)(lua_State * L, void *arg) = rt->body;
    void *arg = rt->body_arg;
    if (rt->held_hook)
        hook_put_back(L, rt->held_hook);
    body(L, arg);
    return 0;
}

/* The closure is made once: lua_cpcall makes one every time, which was measured at four times
 * the cost. May nest: the arguments are restored. A hook of the script's is not called for the closure: it could
 * end what the body is about to use (stop the timer that fires). Leaves the message of an error on the stack. */
static int protect(struct asio_rt *rt, void (*body)(lua_State *L, void *arg), void *arg)
{
    void (*outer_body)(lua_State * L, void *arg) = rt->body;
    void *outer_arg = rt->body_arg;
    struct held_hook *outer_held = rt->held_hook;
    struct held_hook held = { .mask = 0 };
    if (lua_gethookmask(rt->L) & LUA_MASKCALL) {
        held = (struct held_hook){ lua_gethook(rt->L), lua_gethookmask(rt->L), lua_gethookcount(rt->L) };
        lua_sethook(rt->L, NULL, 0, 0);
    }
    rt->held_hook = held.mask ? &held : NULL;
    lua_rawgeti(rt->L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_PROTECT]);
    rt->body = body;
    rt->body_arg = arg;
    int status = lua_pcall(rt->L, 0, 0, 0);
    rt->body = outer_body;
    rt->body_arg = outer_arg;
    rt->held_hook = outer_held;
    hook_put_back(rt->L, &held); /* the body has not begun */
    return status;
}

int asio_rt_protect(struct asio_rt *rt, void (*body)(lua_State *L, void *arg), void *arg, const char *doing)
{
    int status = protect(rt, body, arg);
    if (status == 0)
        return 0;
    if (status != LUA_ERRMEM) {
        const char *text = lua_tostring(rt->L, -1);
        fprintf(stderr, "asio: error while %s: %s\n", doing, text ? text : "(no message)");
    }
    lua_pop(rt->L, 1);
    return status;
}

int asio_rt_protect_retry(
    struct asio_rt *rt, void (*body)(lua_State *L, void *arg), void *arg, const char *doing)
{
    enum { TRIES = 100 };
    int status = LUA_ERRRUN;
    for (int i = 0; i < TRIES && status == LUA_ERRRUN; i++)
        status = asio_rt_protect(rt, body, arg, doing);
    return status;
}

/* ---- anchors ------------------------------------------------------------------------------- */

struct anchor {
    lua_State *from;
    struct asio_rt *rt;
    int index, ref;
};

static void anchor(lua_State *L, void *arg)
{
    struct anchor *a = arg;
    lua_pushvalue(a->from, a->index);
    if (a->from != L)
        lua_xmove(a->from, L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, a->rt->refs[ASIO_REF_ANCHORS]);
    lua_insert(L, -2);
    a->ref = luaL_ref(L, -2);
    lua_pop(L, 1);
}

int asio_rt_anchor(struct asio_rt *rt, lua_State *L, int index)
{
    struct anchor a = { L, rt, index, LUA_NOREF };
    if (L == rt->L)
        anchor(L, &a); /* by a protected body already, whose stack a nested call would not see */
    else
        asio_rt_protect(rt, anchor, &a, "keeping a value");
    return a.ref;
}

void asio_rt_push_anchored(lua_State *L, struct asio_rt *rt, int ref)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_ANCHORS]);
    lua_rawgeti(L, -1, ref);
    lua_remove(L, -2);
}

void asio_rt_release(void *p, int ref)
{
    struct asio_rt *rt = p;
    if (rt->closed)
        return; /* everything goes anyway, and rt->L may be gone */
    lua_rawgeti(rt->L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_ANCHORS]);
    luaL_unref(rt->L, -1, ref); /* stores under keys that exist: allocates nothing */
    lua_pop(rt->L, 1);
}

void asio_rt_wrapper_add(lua_State *L, struct asio_rt *rt, void *object)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_WRAPPERS]);
    lua_pushlightuserdata(L, object);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

void asio_rt_wrapper_push(lua_State *L, struct asio_rt *rt, void *object)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_WRAPPERS]);
    lua_pushlightuserdata(L, object);
    lua_rawget(L, -2);
    lua_remove(L, -2);
}

/* ---- flushing ----------------------------------------------------------------------------- */

void asio_rt_flush(struct asio_rt *rt)
{
    asio_rt_notice_fork(rt);
    while (rt->flush_list) {
        struct asio_flush_node *node = rt->flush_list;
        rt->flush_list = node->next == node ? NULL : node->next;
        node->next = NULL;
        node->flush(node);
    }
}

void asio_rt_flush_soon(struct asio_rt *rt)
{
    enum { BATCH = 64, BYTES = 128 * 1024 };
    if (rt->polling && ++rt->unflushed < BATCH && rt->out_env.taken < BYTES)
        return;
    rt->unflushed = 0;
    rt->out_env.taken = 0;
    asio_rt_flush(rt);
}

void asio_rt_flush_forget(struct asio_rt *rt, struct asio_flush_node *node)
{
    if (!node->next)
        return;
    struct asio_flush_node **link = &rt->flush_list, *before = NULL;
    while (*link != node) {
        before = *link;
        link = &before->next;
    }
    if (node->next != node)
        *link = node->next;
    else if (before)
        before->next = before;
    else
        rt->flush_list = NULL;
    node->next = NULL;
}

/* ---- the clock ---------------------------------------------------------------------------- */

uint64_t asio_rt_deadline(double seconds)
{
    double ns = seconds * 1e9;
    uint64_t now = uv_hrtime();
    if (seconds <= 0)
        return now | 1;
    return ns < 9e18 && now < UINT64_MAX / 2 ? (now + (uint64_t)ns) & ~(uint64_t)1 : ASIO_NEVER;
}

/* ---- memory ------------------------------------------------------------------------------- */

uv_buf_t asio_rt_scratch(struct asio_rt *rt)
{
    if (!rt->scratch)
        rt->scratch = asio_mem.malloc(ASIO_SCRATCH_SIZE);
    return uv_buf_init(rt->scratch, rt->scratch ? ASIO_SCRATCH_SIZE : 0);
}

static void collect_all(lua_State *L, void *arg)
{
    (void)arg;
    lua_gc(L, LUA_GCCOLLECT, 0);
}

void asio_rt_collect(struct asio_rt *rt)
{
#ifdef LUA_GCISRUNNING
    if (!lua_gc(rt->L, LUA_GCISRUNNING, 0))
        return;
#endif
    asio_rt_protect(rt, collect_all, NULL, "collecting garbage");
}

/* ---- opening and closing ------------------------------------------------------------------ */

void asio_rt_open_parts(lua_State *L, struct asio_rt *rt, const struct asio_part *const *parts)
{
    const struct asio_part *part;
    rt->parts = parts;
    while ((part = parts[rt->parts_open])) {
        rt->parts_begun = rt->parts_open + 1;
        if (part->open)
            part->open(L, rt);
        rt->parts_open++;
    }
}

static void close_parts(struct asio_rt *rt)
{
    while (rt->parts_begun > 0) {
        const struct asio_part *part = rt->parts[--rt->parts_begun];
        if (part->close)
            part->close(rt);
    }
}

static void teardown_own(void *owner)
{
    (void)owner; /* the runtime closes its own handles by itself */
}

static const struct asio_handle_ops own_ops = { teardown_own };
static const struct asio_handle_ops *own_owner = &own_ops;

static void teardown_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (uv_is_closing(handle))
        return;
    const struct asio_handle_ops *const *ops = handle->data;
    if (!ops || *ops == &own_ops)
        uv_close(handle, NULL);
    else
        (*ops)->teardown(handle->data);
}

/* Nothing can be woken any more, waits are dropped with their coroutines. Close callbacks free the memory. */
static void shut_down(struct asio_rt *rt)
{
    rt->closed = true;
    if (rt->turn_ended && !rt->forked)
        rt->turn_ended(rt); /* what is still to be told: on standard error now */
    close_parts(rt);
    if (rt->loop_open)
        uv_walk(&rt->loop, teardown_handle, NULL);
}

/* Everything that libuv still holds is waited for. Not in a fork, where helper threads are not there; and not where
 * libuv cannot end within one of its callbacks: then os.exit has closed the state, and the process ends. */
static void end_loop(struct asio_rt *rt)
{
    bool forever = rt->forked || (rt->polling && !ASIO_SYS_ENDS_WITHIN);
    uv_run(&rt->loop, forever ? UV_RUN_NOWAIT : UV_RUN_DEFAULT);
    uv_loop_close(&rt->loop);
    rt->loop_open = false;
}

/* The finalizer; its argument is not looked at, since a script can call it with anything. */
static int l_rt_gc(lua_State *L)
{
    struct asio_rt *rt = asio_rt_of(L);
    if (rt->freed)
        return 0;
    rt->freed = true;
    if (!asio_rt_notice_process(rt)) {
        rt->current = NULL;
        rt->self = rt->main_wait;
        shut_down(rt);
    }
    if (rt->loop_open)
        end_loop(rt);
    asio_timer_heap_free(&rt->timers);
    asio_blocks_free(&rt->blocks);
    asio_mem.free(rt->scratch);
    rt->scratch = NULL;
    return 0;
}

/* ---- after a fork -------------------------------------------------------------------------- */

/* Descriptors that libuv only watches (uv_poll_t) belong to other code. */
static void unshare_handle(uv_handle_t *handle, void *arg)
{
    uv_os_fd_t fd;
    bool stream = handle->type == UV_TCP || handle->type == UV_NAMED_PIPE || handle->type == UV_TTY;
    if ((stream || handle->type == UV_UDP) && !uv_is_closing(handle) && uv_fileno(handle, &fd) == 0)
        asio_sys_unshare(fd, *(int *)arg);
}

/* Every shared descriptor is replaced first; closing then reaches nothing of the parent's. The fork may have happened
 * inside the loop: uv_close also takes back the events that libuv has still to deliver. */
void asio_rt_abandon(struct asio_rt *rt)
{
    rt->forks = asio_sys_forks;
    if (rt->closed)
        return;
    rt->forked = true;
    rt->stop = true;
    if (rt->loop_open) {
        int inert = asio_sys_unshare_loop(&rt->loop);
        uv_walk(&rt->loop, unshare_handle, &inert);
    }
    shut_down(rt);
}

bool asio_rt_notice_process(struct asio_rt *rt)
{
    if (rt->pid != uv_os_getpid() && !rt->closed)
        asio_rt_abandon(rt);
    return asio_rt_notice_fork(rt);
}

const char *asio_rt_obstacle(struct asio_rt *rt)
{
    if (asio_rt_notice_fork(rt))
        return "this process is a fork of the one that loaded asio, whose event loop it must not use";
    return rt->closed ? "the Lua state is being closed" : NULL;
}

static void open_loop(lua_State *L, struct asio_rt *rt)
{
    rt->stdio_closed = asio_sys_stdio_fill();
    int status = uv_loop_init(&rt->loop);
    if (status == 0) {
        rt->loop_open = true;
        status = uv_timer_init(&rt->loop, &rt->clock);
    }
    if (status < 0) {
        lua_pushfstring(L, "asio: cannot open an event loop: %s", uv_strerror(status));
        lua_error(L);
    }
    rt->clock.data = &own_owner;
    rt->clock_at = ASIO_NEVER;
}

/* Three different numbers in [1, 2) that cannot be guessed. */
static void choose_tokens(struct asio_rt *rt)
{
    uint64_t random[3] = { uv_hrtime(), (uintptr_t)rt, uv_hrtime() << 20 };
    uv_random(NULL, NULL, random, sizeof random, 0, NULL); /* if it fails: better than nothing */
    for (int i = 0; i < 3; i++)
        random[i] = (random[i] >> 14 << 2) | (unsigned)i;
    rt->token_ok = 1 + (double)random[0] / 4503599627370496.0;
    rt->token_fail = 1 + (double)random[1] / 4503599627370496.0;
    rt->token_interrupt = 1 + (double)random[2] / 4503599627370496.0;
}

/* All registry references are taken at once, and only stored to afterwards: LuaJIT can leave a table
 * whose growth ran out of memory with values that cannot be found, and luaL_ref then gives a
 * number out twice. */
static void reserve_refs(lua_State *L, struct asio_rt *rt)
{
    for (int i = 0; i < ASIO_REFS; i++) {
        lua_pushboolean(L, 0);
        rt->refs[i] = luaL_ref(L, LUA_REGISTRYINDEX);
        for (int j = 0; j < i; j++)
            if (rt->refs[j] == rt->refs[i])
                luaL_error(L, "not enough memory");
    }
}

/* The userdata gets its finalizer before the loop is opened, so that an error on the way leaves
 * nothing behind. */
struct asio_rt *asio_rt_open(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&rt_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    struct asio_rt *rt = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (rt)
        return rt;
    rt = lua_newuserdata(L, sizeof *rt);
    memset(rt, 0, sizeof *rt);
    rt->out_env.blocks = &rt->blocks;
    rt->out_env.release = asio_rt_release;
    rt->out_env.arg = rt;
    lua_createtable(L, 0, 1);
    lua_pushlightuserdata(L, rt);
    lua_pushcclosure(L, l_rt_gc, 1);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    choose_tokens(rt);
    asio_sys_watch_forks();
    rt->forks = asio_sys_forks;
    rt->pid = uv_os_getpid();
    asio_error_open(L);
    reserve_refs(L, rt);
    open_loop(L, rt);
    rt->L = lua_newthread(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_THREAD_L]);
    lua_pushlightuserdata(L, rt);
    lua_pushcclosure(L, protected_body, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_PROTECT]);
    lua_createtable(L, 8, 0);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_ANCHORS]);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawseti(L, LUA_REGISTRYINDEX, rt->refs[ASIO_REF_WRAPPERS]);
    lua_pushlightuserdata(L, (void *)&rt_key);
    lua_insert(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return rt;
}
