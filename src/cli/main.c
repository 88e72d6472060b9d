/* SPDX-License-Identifier: MIT
 *
 * The program `asio`: makes a Lua state and hands it to main.lua, which sees to all else; closes the state, so that
 * what was written is sent; ends with the status that main.lua has returned. It knows the public API alone. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

enum { STATUS_INTERRUPTED = -1 }; /* main.lua's word for: end as Ctrl-C ends a program */

struct program {
    int argc;
    char **argv;
    int status;
};

static int l_main_is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(luaL_checkint(L, 1)));
    return 1;
}

static const luaL_Reg main_functions[] = { { "is_terminal", l_main_is_terminal }, { NULL, NULL } };

static void main_load(lua_State *L, const struct cli_chunk *chunk)
{
    if (luaL_loadbuffer(L, (const char *)chunk->text, chunk->length, chunk->name) != 0)
        lua_error(L);
}

/* Calls main.lua with a table of functions and the words of the command line, the program's name first. */
static int main_protected(lua_State *L)
{
    struct program *p = lua_touserdata(L, 1);
    luaL_openlibs(L);
    main_load(L, &cli_main_lua);
    lua_newtable(L);
    luaL_register(L, NULL, main_functions);
    lua_pushliteral(L, CLI_VERSION);
    lua_setfield(L, -2, "version");
    cli_editor_open(L);
    cli_interrupt_open(L);
    main_load(L, &cli_prompt_lua);
    lua_setfield(L, -2, "prompt");
    main_load(L, &cli_script_lua);
    lua_setfield(L, -2, "script");
    luaL_checkstack(L, p->argc, "too many arguments");
    for (int i = 0; i < p->argc; i++)
        lua_pushstring(L, p->argv[i]);
    lua_call(L, p->argc + 1, 1);
    p->status = (int)lua_tointeger(L, -1);
    return 0;
}

static int main_complain(const char *what, const char *message)
{
    fprintf(stderr, "asio: %s%s\n", what, message);
    return 1;
}

/* print does not tell whether its output has arrived. */
static int main_flush(int status)
{
    errno = 0;
    if ((fflush(stdout) == 0 && !ferror(stdout)) || status != 0)
        return status;
    return main_complain("standard output: ", errno ? strerror(errno) : "not all was written");
}

int main(int argc, char **argv)
{
    struct program p = { argc, argv, 0 };
    lua_State *L = luaL_newstate();
    if (!L)
        return main_complain("", "not enough memory");
    if (lua_cpcall(L, main_protected, &p) != 0)
        p.status = main_complain("", lua_isstring(L, -1) ? lua_tostring(L, -1) : "failed");
    cli_editor_close();
    lua_close(L);
    if (p.status == STATUS_INTERRUPTED) { /* the shell shall see it */
        fflush(stdout);
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    return main_flush(p.status);
}
