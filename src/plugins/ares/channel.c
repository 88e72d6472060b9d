/* SPDX-License-Identifier: MIT
 * c-ares in the runtime's loop; see channel.h. */
#include "plugins/ares/channel.h"

#include "plugins/ares/ares.h"
#include "plugins/ares/dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TIMEOUT = 2,             /* seconds that a name server has for its first answer, then twice that... */
    TRIES = 3,               /* ...so often; resolv.conf can say otherwise */
    MANY = 64,               /* questions under way */
    RECEIVE_BUFFER = 1 << 20 /* answers of a thousand questions that come at once */
};

const char channel_conf_path[] = "/etc/resolv.conf";

struct link {
    struct link *next;
    struct channel *channel;
    struct asio_fd_watch *watch;
    ares_socket_t fd;
};

/* ---- sockets ------------------------------------------------------------------------------ */

static void on_events(void *arg, int events)
{
    struct link *l = arg;
    struct channel *ch = l->channel;
    struct resolver *r = ch->resolver;
    ares_socket_t fd = l->fd; /* the link may go with the socket */
    ares_process_fd(
        ch->c, events & UV_READABLE ? fd : ARES_SOCKET_BAD, events & UV_WRITABLE ? fd : ARES_SOCKET_BAD);
    channel_settle(ch);
    resolver_tell(r);
}

static struct link **find_link(struct channel *ch, ares_socket_t fd)
{
    struct link **at = &ch->links;
    while (*at && (*at)->fd != fd)
        at = &(*at)->next;
    return at;
}

static struct link *open_link(struct channel *ch, ares_socket_t fd)
{
    const struct asio_plugin *core = ch->resolver->core;
    int status;
    struct link *l = core->mem->allocator->malloc(sizeof *l);
    if (!l)
        return NULL;
    l->channel = ch;
    l->fd = fd;
    l->watch = core->loop->watch_open(ch->resolver->rt, fd, on_events, l, &status);
    if (!l->watch) {
        core->mem->allocator->free(l);
        return NULL;
    }
    l->next = ch->links;
    ch->links = l;
    ch->opened++;
    return l;
}

static void close_link(struct channel *ch, struct link **at)
{
    struct link *l = *at;
    *at = l->next;
    ch->resolver->core->loop->watch_close(l->watch);
    ch->resolver->core->mem->allocator->free(l);
}

/* c-ares opens, uses (readable, writable: what it waits for) or is about to close a socket. */
static void on_socket(void *data, ares_socket_t fd, int readable, int writable)
{
    struct channel *ch = data;
    struct link **at = find_link(ch, fd), *l = *at;
    int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (!events) {
        if (l)
            close_link(ch, at);
        return;
    }
    if (!l)
        l = open_link(ch, fd);
    if (!l || ch->resolver->core->loop->watch_set(l->watch, events) < 0)
        ch->out_of_memory = true; /* c-ares cannot be told here */
}

/* ---- deadlines ---------------------------------------------------------------------------- */

static void ares_channel_on_timer(struct asio_timer *t)
{
    struct channel *ch = ASIO_CONTAINER(t, struct channel, timer);
    struct resolver *r = ch->resolver;
    ares_process_fd(ch->c, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    channel_settle(ch);
    resolver_tell(r);
}

/* c-ares goes through all questions to say which is due first. So with many it is asked only when the time has
 * come: no question that was sent since is due earlier than one that is sent now. */
static void arm(struct channel *ch)
{
    const struct asio_plugin *core = ch->resolver->core;
    uint64_t now = core->loop->now(), at = now + ch->patience;
    struct timeval tv;
    if (ch->flying == 0) {
        asio_timer_clear(&ch->timer);
        return;
    }
    if (ch->flying > MANY && ch->timer.at != ASIO_NEVER)
        at = ch->timer.at < at ? ch->timer.at : at;
    else if (ares_timeout(ch->c, NULL, &tv))
        at = now + (uint64_t)tv.tv_sec * 1000000000 + (uint64_t)tv.tv_usec * 1000 + 1000000;
    if (core->loop->timer_set(ch->resolver->rt, &ch->timer, at) < 0)
        ch->out_of_memory = true;
}

void channel_settle(struct channel *ch)
{
    arm(ch);
    if (ch->flying > 0 && (ch->wanted == 0 || ch->out_of_memory)) {
        ares_cancel(ch->c);
        asio_timer_clear(&ch->timer);
    }
    ch->out_of_memory = false;
    if (ch->retired && ch->flying == 0)
        channel_free(ch);
}

/* ---- questions ---------------------------------------------------------------------------- */

static int status_of(const struct channel *ch, int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENODATA:
        return UV_EAI_NODATA;
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
    case ARES_EBADQUERY:
        return UV_EAI_NONAME;
    case ARES_ESERVFAIL: /* nobody has answered, or somebody who cannot now, or does not want to */
    case ARES_EREFUSED:  /* these two as such from c-ares 1.2x on */
    case ARES_ENOTIMP:
    case ARES_ETIMEOUT:
    case ARES_ECONNREFUSED:
    case ARES_EOF:
        return UV_EAI_AGAIN;
    case ARES_ENOMEM:
        return UV_ENOMEM;
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION:
        return ch->out_of_memory ? UV_ENOMEM : UV_ECANCELED;
    default:
        return UV_EAI_FAIL;
    }
}

static void on_answer(void *arg, int result, int timeouts, unsigned char *bytes, int length)
{
    struct entry *e = arg;
    struct channel *ch = e->channel;
    const struct asio_plugin *core = ch->resolver->core;
    struct asio_answer *answer = NULL;
    uint32_t keep = 0;
    int status = status_of(ch, result);
    if (status == 0)
        status = dns_answer(core->mem->allocator, bytes, (size_t)length, e->type, &answer, &keep);
    else if (bytes && (result == ARES_ENODATA || result == ARES_ENOTFOUND))
        keep = dns_negative(bytes, (size_t)length);
    if (answer)
        answer->received = core->loop->now();
    ch->flying--;
    resolver_complete(ch->resolver, e, status, answer, keep);
}

/* What has come so far. All questions to a server share a socket, and when nobody listens there, the error that
 * an earlier one has left would be taken for the next one's, and the earlier one wait for its time-out. */
static void fetch(struct channel *ch)
{
    enum { SOCKETS = 8, ROUNDS = 8 }; /* c-ares tries again at once, on a new socket */
    unsigned opened;
    int rounds = 0;
    do {
        ares_socket_t fds[SOCKETS];
        int n = 0;
        opened = ch->opened;
        for (struct link *l = ch->links; l && n < SOCKETS; l = l->next)
            fds[n++] = l->fd;
        while (n-- > 0)
            if (*find_link(ch, fds[n]))
                ares_process_fd(ch->c, fds[n], ARES_SOCKET_BAD);
    } while (ch->opened != opened && ++rounds < ROUNDS);
}

void channel_ask(struct channel *ch, struct entry *e)
{
    enum { CLASS_IN = 1 };
    if (ch->flying > 0)
        fetch(ch);
    ch->flying++;
    ch->used_at = ch->resolver->core->loop->now();
    ares_search(ch->c, e->name, CLASS_IN, e->type, on_answer, e);
}

/* ---- opening ------------------------------------------------------------------------------ */

struct patience {
    int timeout, tries;
};

static void ares_channel_read_option(const char *word, struct patience *p)
{
    int n;
    if (sscanf(word, "timeout:%d", &n) == 1)
        p->timeout = n < 1 ? 1 : n > 30 ? 30 : n;
    if (sscanf(word, "attempts:%d", &n) == 1)
        p->tries = n < 1 ? 1 : n > 5 ? 5 : n;
}

static void read_options(char *text, struct patience *p)
{
    for (char *word = text; *word;) {
        size_t length = strcspn(word, " \t\r\n");
        ares_channel_read_option(word, p);
        word += length;
        word += strspn(word, " \t\r\n");
    }
}

/* "options timeout:N attempts:N": before 1.2x c-ares reads neither. The environment comes last. */
static struct patience read_patience(void)
{
    struct patience p = { TIMEOUT, TRIES };
    char line[512];
    FILE *file = fopen(channel_conf_path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "options", 7) == 0)
            read_options(line + 7 + strspn(line + 7, " \t"), &p);
    if (file)
        fclose(file);
    const char *environment = getenv("RES_OPTIONS");
    if (environment && strlen(environment) < sizeof line) {
        strcpy(line, environment);
        read_options(line, &p);
    }
    return p;
}

static int set_servers(struct channel *ch)
{
    const struct asio_allocator *mem = ch->resolver->core->mem->allocator;
    struct ares_addr_port_node *nodes = mem->malloc(ch->servers_count * sizeof *nodes);
    if (!nodes)
        return ARES_ENOMEM;
    memset(nodes, 0, ch->servers_count * sizeof *nodes);
    for (unsigned i = 0; i < ch->servers_count; i++) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&ch->servers[i];
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&ch->servers[i];
        nodes[i].family = ch->servers[i].ss_family;
        if (nodes[i].family == AF_INET)
            memcpy(&nodes[i].addr, &in->sin_addr, sizeof in->sin_addr);
        else
            memcpy(&nodes[i].addr, &in6->sin6_addr, sizeof in6->sin6_addr);
        nodes[i].udp_port = nodes[i].tcp_port =
            ntohs(nodes[i].family == AF_INET ? in->sin_port : in6->sin6_port);
        nodes[i].next = i + 1 < ch->servers_count ? &nodes[i + 1] : NULL;
    }
    int status = ares_set_servers_ports(ch->c, nodes);
    mem->free(nodes);
    return status;
}

/* Servers that were named are asked for exactly the name: what the system adds to names is for its own. */
static int ares_channel_init(struct channel *ch)
{
    struct patience p = read_patience();
    struct ares_options o;
    int mask = ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_RCVBUF;
    memset(&o, 0, sizeof o);
    o.sock_state_cb = on_socket;
    o.sock_state_cb_data = ch;
    o.timeout = p.timeout * 1000;
    ch->patience = (uint64_t)p.timeout * 1000000000;
    o.tries = p.tries;
    o.socket_receive_buffer_size = RECEIVE_BUFFER;
    if (ch->servers_count > 0) {
        mask |= ARES_OPT_FLAGS;
        o.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES;
    }
#ifdef ARES_OPT_QUERY_CACHE /* later ones have a cache of their own, which `cache = false` would not pass by */
    mask |= ARES_OPT_QUERY_CACHE;
#endif
    int status = ares_init_options(&ch->c, &o, mask);
    if (status != ARES_SUCCESS)
        return status;
    if (ch->servers_count > 0)
        status = set_servers(ch);
    if (status != ARES_SUCCESS)
        ares_destroy(ch->c);
    return status;
}

struct channel *channel_open(
    struct resolver *r, const struct sockaddr_storage *servers, unsigned count, int *status)
{
    struct channel *ch = r->core->mem->allocator->malloc(sizeof *ch + count * sizeof *servers);
    *status = UV_ENOMEM;
    if (!ch)
        return NULL;
    memset(ch, 0, sizeof *ch);
    ch->resolver = r;
    ch->servers_count = count;
    if (count > 0)
        memcpy(ch->servers, servers, count * sizeof *servers);
    r->core->loop->timer_init(&ch->timer, ares_channel_on_timer);
    int result = ares_channel_init(ch);
    if (result != ARES_SUCCESS) {
        *status = status_of(ch, result);
        r->core->mem->allocator->free(ch);
        return NULL;
    }
    ch->next = r->channels;
    r->channels = ch;
    return ch;
}

void channel_free(struct channel *ch)
{
    struct resolver *r = ch->resolver;
    struct channel **link = &r->channels;
    while (*link != ch)
        link = &(*link)->next;
    *link = ch->next;
    ares_destroy(ch->c);
    while (ch->links) /* none: c-ares has closed its sockets */
        close_link(ch, &ch->links);
    r->core->loop->timer_remove(r->rt, &ch->timer);
    r->core->mem->allocator->free(ch);
}

bool channel_uses_hosts(struct channel *ch)
{
    struct ares_options o;
    int mask;
    memset(&o, 0, sizeof o);
    bool uses = true;
    if (ares_save_options(ch->c, &o, &mask) == ARES_SUCCESS && o.lookups)
        uses = strchr(o.lookups, 'f') != NULL;
    ares_destroy_options(&o);
    return uses;
}
