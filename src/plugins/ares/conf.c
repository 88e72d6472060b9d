/* SPDX-License-Identifier: MIT
 *
 * How c-ares is set up. It reads resolv.conf itself, and when it cannot open that file, for whatever reason, it asks
 * 127.0.0.1 and says nothing; without /dev/urandom the ids of its questions can be predicted. So it is opened only
 * while files can be opened. */
#include "plugins/ares/conf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TIMEOUT = 2,             /* seconds that a name server has for its first answer, then twice that... */
    TRIES = 3,               /* ...so often; resolv.conf can say otherwise */
    RECEIVE_BUFFER = 1 << 20 /* answers of a thousand questions that come at once */
};

const char asio_ares_conf_path[] = "/etc/resolv.conf";

/* ---- resolv.conf -------------------------------------------------------------------------- */

int asio_ares_conf_obstacle_of(int error)
{
    return error == EMFILE ? UV_EMFILE : error == ENFILE ? UV_ENFILE : error == ENOMEM ? UV_ENOMEM : 0;
}

int asio_ares_conf_obstacle(void)
{
    FILE *file = fopen(asio_ares_conf_path, "r");
    if (!file)
        return asio_ares_conf_obstacle_of(errno);
    fclose(file);
    return 0;
}

static void ares_conf_read_option(const char *word, struct asio_ares_conf *conf)
{
    int n;
    if (sscanf(word, "timeout:%d", &n) == 1)
        conf->timeout = n < 1 ? 1 : n > 30 ? 30 : n;
    if (sscanf(word, "attempts:%d", &n) == 1)
        conf->tries = n < 1 ? 1 : n > 5 ? 5 : n;
}

static void ares_conf_read_options(const char *text, struct asio_ares_conf *conf)
{
    for (const char *word = text; *word;) {
        size_t length = strcspn(word, " \t\r\n");
        ares_conf_read_option(word, conf);
        word += length;
        word += strspn(word, " \t\r\n");
    }
}

/* "options timeout:N attempts:N": before 1.2x c-ares reads neither. The environment comes last. */
int asio_ares_conf_read(struct asio_ares_conf *conf)
{
    char line[512];
    conf->timeout = TIMEOUT;
    conf->tries = TRIES;
    FILE *file = fopen(asio_ares_conf_path, "r");
    int status = file ? 0 : asio_ares_conf_obstacle_of(errno);
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "options", 7) == 0)
            ares_conf_read_options(line + 7 + strspn(line + 7, " \t"), conf);
    if (file)
        fclose(file);
    const char *environment = getenv("RES_OPTIONS");
    if (environment)
        ares_conf_read_options(environment, conf);
    return status;
}

/* ---- c-ares ------------------------------------------------------------------------------- */

static int ares_conf_set_servers(
    const struct asio_ares_conf *conf, const struct asio_allocator *mem, ares_channel c)
{
    struct ares_addr_port_node *nodes = mem->malloc(conf->servers_count * sizeof *nodes);
    if (!nodes)
        return ARES_ENOMEM;
    memset(nodes, 0, conf->servers_count * sizeof *nodes);
    for (unsigned i = 0; i < conf->servers_count; i++) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&conf->servers[i];
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&conf->servers[i];
        nodes[i].family = conf->servers[i].ss_family;
        if (nodes[i].family == AF_INET)
            memcpy(&nodes[i].addr, &in->sin_addr, sizeof in->sin_addr);
        else
            memcpy(&nodes[i].addr, &in6->sin6_addr, sizeof in6->sin6_addr);
        nodes[i].udp_port = nodes[i].tcp_port =
            ntohs(nodes[i].family == AF_INET ? in->sin_port : in6->sin6_port);
        nodes[i].next = i + 1 < conf->servers_count ? &nodes[i + 1] : NULL;
    }
    int status = ares_set_servers_ports(c, nodes);
    mem->free(nodes);
    return status;
}

/* Servers that a question names are asked for exactly the name: search domains are for the system's. */
int asio_ares_conf_open(const struct asio_ares_conf *conf, const struct asio_allocator *mem,
    ares_sock_state_cb on_socket, void *data, ares_channel *c)
{
    struct ares_options o;
    int mask = ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_RCVBUF;
    memset(&o, 0, sizeof o);
    o.sock_state_cb = on_socket;
    o.sock_state_cb_data = data;
    o.timeout = conf->timeout * 1000;
    o.tries = conf->tries;
    o.socket_receive_buffer_size = RECEIVE_BUFFER;
    if (conf->servers_count > 0) {
        mask |= ARES_OPT_FLAGS;
        o.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES;
    }
#ifdef ARES_OPT_QUERY_CACHE /* later ones have a cache of their own, which `cache = false` would not pass by */
    mask |= ARES_OPT_QUERY_CACHE;
#endif
    int status = ares_init_options(c, &o, mask);
    if (status != ARES_SUCCESS)
        return status;
    if (conf->servers_count > 0)
        status = ares_conf_set_servers(conf, mem, *c);
    if (status != ARES_SUCCESS)
        ares_destroy(*c);
    return status;
}

bool asio_ares_conf_uses_hosts(ares_channel c)
{
    struct ares_options o;
    int mask;
    memset(&o, 0, sizeof o);
    bool uses = true;
    if (ares_save_options(c, &o, &mask) == ARES_SUCCESS && o.lookups)
        uses = strchr(o.lookups, 'f') != NULL;
    ares_destroy_options(&o);
    return uses;
}
