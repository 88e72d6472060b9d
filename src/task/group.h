/* SPDX-License-Identifier: MIT
 * What groups have to report; see group.c. */
#ifndef ASIO_GROUP_H
#define ASIO_GROUP_H

#include "core/runtime.h"

/* How many were dropped in this turn before their light threads had ended; counts from 0 again. */
int asio_group_take_dropped(struct asio_rt *rt);

#endif
