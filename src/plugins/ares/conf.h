/* SPDX-License-Identifier: MIT
 * How c-ares is set up: by resolv.conf, by the environment, by the servers of a question; see conf.c. */
#ifndef ARES_CONF_H
#define ARES_CONF_H

#include "plugin/names.h"

#include <ares.h>

extern const char asio_ares_conf_path[];

struct asio_ares_conf {
    int timeout, tries;                     /* seconds for a server's first answer; rounds over all servers */
    const struct sockaddr_storage *servers; /* borrowed */
    unsigned servers_count;                 /* 0: the system's */
};

/* UV_EMFILE, UV_ENFILE or UV_ENOMEM of an errno of opening a file; 0: another reason, which does not pass. */
int asio_ares_conf_obstacle_of(int error);

/* Why no file can be opened now, as above; 0: one can. */
int asio_ares_conf_obstacle(void);

/* Reads `timeout` and `tries`. 0, or an obstacle. */
int asio_ares_conf_read(struct asio_ares_conf *conf);

/* Opens a channel of c-ares that tells on_socket(data, ...) of its sockets. A status of c-ares. */
int asio_ares_conf_open(const struct asio_ares_conf *conf, const struct asio_allocator *mem,
    ares_sock_state_cb on_socket, void *data, ares_channel *c);

/* Whether the hosts file is looked into (nsswitch.conf). */
bool asio_ares_conf_uses_hosts(ares_channel c);

#endif
