/* SPDX-License-Identifier: MIT
 * In place of editor.c where there is no libedit: the prompt then reads lines from standard input. */
#include "cli/cli.h"

void cli_editor_open(lua_State *L)
{
    (void)L;
}

void cli_editor_close(void)
{
}
