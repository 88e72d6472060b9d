/* SPDX-License-Identifier: MIT
 * The wait record; see wait.h. */
#include "wait.h"

#include "error.h"

int asio_push_true(lua_State *L)
{
    asio_push_ok(L, asio_rt_of(L));
    lua_pushboolean(L, 1);
    return 2;
}

int asio_push_fail(lua_State *L, int status)
{
    lua_pushnumber(L, asio_rt_of(L)->token_fail);
    return 1 + asio_error_push(L, status);
}

int asio_push_interrupt(lua_State *L, struct asio_rt *rt)
{
    lua_pushnumber(L, rt->token_interrupt);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rt->ref_cancelled);
    return 2;
}

int asio_wait_push(lua_State *L, struct asio_wait *w)
{
    if (w->status == ASIO_INTERRUPTED)
        return asio_push_interrupt(L, w->rt);
    if (w->op->push)
        return w->op->push(L, w);
    return w->status < 0 ? asio_push_fail(L, w->status) : asio_push_true(L);
}

void asio_wait_list_add(struct asio_wait_list *list, struct asio_wait *w)
{
    w->next = NULL;
    w->prev = list->last;
    if (list->last)
        list->last->next = w;
    else
        list->first = w;
    list->last = w;
}

void asio_wait_list_remove(struct asio_wait_list *list, struct asio_wait *w)
{
    if (w->prev)
        w->prev->next = w->next;
    else
        list->first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        list->last = w->prev;
    w->next = w->prev = NULL;
}
