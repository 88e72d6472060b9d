/* SPDX-License-Identifier: MIT
 * The part of termcap that libedit uses. */
#ifndef TERMCAP_H
#define TERMCAP_H

int tgetent(char *buffer, const char *terminal);
int tgetflag(const char *name);
int tgetnum(const char *name);
char *tgetstr(const char *name, char **area);
char *tgoto(const char *capability, int column, int row);
int tputs(const char *text, int lines, int (*put)(int));

#endif
