/* SPDX-License-Identifier: MIT
 *
 * Answers of name servers as they come off the wire. Nothing here trusts them: every length is
 * checked, names cannot loop. Pure functions over bytes; test/fuzz/dns_fuzz.c feeds them garbage. */
#ifndef ARES_DNS_H
#define ARES_DNS_H

#include "plugin/names.h"

/* The records of a type that belong to the name of the question, aliases followed; SRV and MX in the order
 * to use them. Returns 0 with an answer (owned, count > 0), UV_EAI_NODATA, UV_EAI_FAIL for what is not well
 * formed, or UV_ENOMEM. *keep: seconds for which that may be kept. */
int asio_ares_dns_answer(const struct asio_allocator *mem, const unsigned char *message, size_t length,
    uint16_t type, struct asio_answer **answer, uint32_t *keep);

/* Seconds for which a negative answer may be kept: what its SOA record says, or a second without one. */
uint32_t asio_ares_dns_negative(const unsigned char *message, size_t length);

#endif
