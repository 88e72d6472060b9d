/* SPDX-License-Identifier: MIT
 *
 * What server.lua needs that is in C: a state that serves without a socket of its own goes on, and values are looked at
 * before threads are started for them. */
#include "plugins/worker/worker.h"

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
    message_free(message_pack(L, 2, 2, &place));
    return 0;
}

void server_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
    static const luaL_Reg functions[] = { { "hold", l_server_hold }, { "release", l_server_release },
        { "check_carried", l_server_check_carried }, { NULL, NULL } };
    worker_bind(L, rt, peer, functions);
}
