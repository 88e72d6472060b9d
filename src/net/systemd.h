/* SPDX-License-Identifier: MIT
 *
 * Sockets that the program that started this process has opened for it: systemd's socket activation, which is three
 * environment variables and descriptors from 3 on. They stay open, so that a name can be asked for again, by
 * another Lua state too. */
#ifndef ASIO_SYSTEMD_H
#define ASIO_SYSTEMD_H

#include "base/asio.h"

/* The first descriptor of this name (of any, if it is empty); or NULL in *why, else what is wrong. */
uv_os_sock_t asio_systemd_find(const char *name, size_t n, const char **why);

#endif
