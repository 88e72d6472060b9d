/* SPDX-License-Identifier: MIT
 * The system's resolver; see getaddrinfo.c. */
#ifndef ASIO_GETADDRINFO_H
#define ASIO_GETADDRINFO_H

#include "plugin/names.h"

extern const struct asio_names_backend asio_getaddrinfo;

#endif
