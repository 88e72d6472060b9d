/* SPDX-License-Identifier: MIT
 * The default allocator: libc's. See struct asio_allocator in asio.h. */
#include "base/asio.h"

#include <stdlib.h>

struct asio_allocator asio_mem = { malloc, realloc, free };
