/* SPDX-License-Identifier: MIT
 *
 * Ctrl-C at the prompt. libuv catches SIGINT and tells the loop, which a line that computes never reaches. So a
 * handler before libuv's makes the next instruction of the line raise an error, by a hook. If the line waits instead,
 * the loop gets to know, and prompt.lua cancels it. Neither may help: compiled loops ask for no hook, and a line may
 * catch all errors. So a second Ctrl-C ends the program.
 *
 * Signals concern the process, so all this is there once. */
#include "cli/cli.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>

static struct {
    struct sigaction next;       /* libuv's */
    lua_State *volatile line;    /* the coroutine of the line that runs; NULL: none */
    volatile sig_atomic_t times; /* Ctrl-C since it began */
    bool raised;                 /* by the hook, and the loop does not know yet */
} interrupt;

static void interrupt_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    if (L != interrupt.line)
        return;
    lua_sethook(L, NULL, 0, 0);
    interrupt.raised = true;
    luaL_error(L, "interrupted!");
}

static void interrupt_on_signal(int number, siginfo_t *info, void *context)
{
    lua_State *L = interrupt.line;
    if (L && interrupt.times++ > 0) {
        cli_editor_close();
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    } else if (L) {
        lua_sethook(L, interrupt_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
    }
    if (interrupt.next.sa_flags & SA_SIGINFO)
        interrupt.next.sa_sigaction(number, info, context);
    else if (interrupt.next.sa_handler != SIG_DFL && interrupt.next.sa_handler != SIG_IGN)
        interrupt.next.sa_handler(number);
}

/* catch_interrupts(): when libuv has its handler. */
static int l_interrupt_catch(lua_State *L)
{
    struct sigaction action;
    (void)L;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = interrupt_on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigfillset(&action.sa_mask);
    sigaction(SIGINT, &action, &interrupt.next);
    return 0;
}

/* busy(whether): the running coroutine is that of a line, or no line runs. */
static int l_interrupt_busy(lua_State *L)
{
    interrupt.line = NULL;
    interrupt.times = 0;
    if (lua_toboolean(L, 1))
        interrupt.line = L;
    return 0;
}

/* interrupted() -> whether the line has raised the error already. Called when the loop has noticed. */
static int l_interrupt_noticed(lua_State *L)
{
    lua_sethook(L, NULL, 0, 0);
    lua_pushboolean(L, interrupt.raised);
    interrupt.raised = false;
    return 1;
}

void cli_interrupt_open(lua_State *L)
{
    static const luaL_Reg functions[] = { { "catch_interrupts", l_interrupt_catch },
        { "busy", l_interrupt_busy }, { "interrupted", l_interrupt_noticed }, { NULL, NULL } };
    luaL_register(L, NULL, functions);
}
