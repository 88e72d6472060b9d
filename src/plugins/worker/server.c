/* SPDX-License-Identifier: MIT
 *
 * What server.lua and server_thread.lua need that is in C: a state that serves without a socket of its own goes on; the
 * connections that it was sent are counted; values are looked at before threads are started for them. */
#include "plugins/worker/worker.h"

/* Connections of a server with max_connections in a state that gets them in messages.
 * Created by server_thread.lua; referred to by its userdata (`held`) and by what it counts; freed with the last of them.
 * If the state closes first, its connections go then, and its starter outlives it. */
struct server_counter {
    struct asio_counter counter;
    struct state *state; /* this one */
    uint64_t told;       /* that have gone, of which the starter was told */
    unsigned owed;       /* of which it was not told yet: there was no memory */
    bool held;
};

static const char server_class; /* its address: the registry's key of their metatable */

static void server_tell_gone(struct server_counter *n)
{
    while (n->owed > 0 && asio_state_report_word(n->state, "server_gone")) {
        n->owed--;
        n->told++;
    }
}

static void server_on_gone(struct asio_counter *counter)
{
    struct server_counter *n = ASIO_CONTAINER(counter, struct server_counter, counter);
    n->owed++;
    server_tell_gone(n);
    if (!n->held && n->counter.count == 0)
        worker_free(n);
}

static int l_server_counter_gc(lua_State *L)
{
    struct server_counter **box = lua_touserdata(L, 1), *n = *box;
    *box = NULL;
    if (!n)
        return 0;
    n->held = false;
    if (n->counter.count == 0)
        worker_free(n);
    return 0;
}

/* worker.new_counter(id) -> counter | nil, message, code */
static int l_server_new_counter(lua_State *L)
{
    struct server_counter **box = lua_newuserdata(L, sizeof *box);
    *box = NULL;
    lua_pushlightuserdata(L, (void *)&server_class);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_setmetatable(L, -2);
    struct server_counter *n = worker_alloc(sizeof *n);
    if (!n)
        return asio_worker_core->error->push(L, UV_ENOMEM);
    *n = (struct server_counter){
        .counter = { 0, server_on_gone }, .state = lua_touserdata(L, 1), .held = true
    };
    *box = n;
    return 1;
}

/* worker.count(counter, conn): the starter is told "server_gone" when the connection's descriptor is given back. */
static int l_server_count(lua_State *L)
{
    struct server_counter *n = *(struct server_counter **)lua_touserdata(L, 1);
    if (!asio_worker_core->threads->count(asio_worker_core->threads->conn_at(L, 2), &n->counter))
        n->owed++;
    server_tell_gone(n);
    return 0;
}

/* worker.hold(): one reason more for this state's asio.run to go on; worker.release(): it has gone. */
static int l_server_hold(lua_State *L)
{
    asio_worker_core->threads->ref(worker_rt(L));
    return 0;
}

static int l_server_release(lua_State *L)
{
    asio_worker_core->threads->unref(worker_rt(L));
    return 0;
}

/* worker.check_carried(what, value): raises if the value cannot be carried to another state, and names it `what`. */
static int l_server_check_carried(lua_State *L)
{
    const struct message_place place = { "server", 0, lua_tostring(L, 1), MESSAGE_PLAIN };
    asio_message_free(asio_message_pack(L, 2, 2, &place));
    return 0;
}

/* worker.gone(counter) -> how many have gone of which the starter was told */
static int l_server_gone(lua_State *L)
{
    struct server_counter *n = *(struct server_counter **)lua_touserdata(L, 1);
    server_tell_gone(n);
    lua_pushnumber(L, (lua_Number)n->told);
    return 1;
}

void asio_server_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "hold", l_server_hold }, { "release", l_server_release },
        { "check_carried", l_server_check_carried }, { "new_counter", l_server_new_counter },
        { "count", l_server_count }, { "gone", l_server_gone }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_server_counter_gc }, { NULL, NULL } };
    asio_worker_bind(L, rt, peer, functions);
    lua_pushlightuserdata(L, (void *)&server_class);
    lua_createtable(L, 0, 1);
    asio_worker_bind(L, rt, peer, meta);
    lua_rawset(L, LUA_REGISTRYINDEX);
}
