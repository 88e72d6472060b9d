/* SPDX-License-Identifier: MIT
 * c-ares in the runtime's loop: its sockets are watched there, its deadlines are in the runtime's heap; see
 * channel.h. */
#include "plugins/ares/channel.h"

#include "plugins/ares/dns.h"

#include <string.h>

enum {
    MANY = 64,           /* questions under way of one line */
    LINE_QUESTIONS = 16, /* that a line takes before there is a new one */
    LINES_MAX = 32       /* each has 80 KB in c-ares, and a socket for each server that was asked */
};

struct line {
    struct line *next;
    struct channel *channel;
    ares_channel c;
    struct asio_timer timer; /* when c-ares wants to look at its deadlines */
    struct link *links;
    unsigned opened; /* sockets, ever */
    unsigned asked;  /* questions since it had nothing under way */
    unsigned flying; /* questions under way */
    unsigned wanted; /* of which light threads wait for */
    int failure;     /* of what c-ares cannot be told: gives all questions up; 0: none */
};

struct link {
    struct link *next;
    struct line *line;
    struct asio_fd_watch *watch;
    ares_socket_t fd;
};

static void ares_channel_settle_line(struct line *l);

/* ---- sockets ------------------------------------------------------------------------------ */

static void ares_channel_process(struct line *l, ares_socket_t readable, ares_socket_t writable)
{
    struct asio_ares_env *env = l->channel->env;
    ares_process_fd(l->c, readable, writable);
    ares_channel_settle_line(l);
    env->returned(env);
}

static void ares_channel_on_events(void *arg, int events)
{
    struct link *k = arg;
    ares_channel_process(k->line, events & UV_READABLE ? k->fd : ARES_SOCKET_BAD,
        events & UV_WRITABLE ? k->fd : ARES_SOCKET_BAD);
}

static struct link **ares_channel_find_link(struct line *l, ares_socket_t fd)
{
    struct link **at = &l->links;
    while (*at && (*at)->fd != fd)
        at = &(*at)->next;
    return at;
}

static struct link *ares_channel_open_link(struct line *l, ares_socket_t fd, int *status)
{
    const struct asio_ares_env *env = l->channel->env;
    const struct asio_allocator *mem = env->core->mem->allocator;
    struct link *k = mem->malloc(sizeof *k);
    *status = UV_ENOMEM;
    if (!k)
        return NULL;
    k->line = l;
    k->fd = fd;
    k->watch = env->core->loop->watch_open(env->rt, fd, ares_channel_on_events, k, status);
    if (!k->watch) {
        mem->free(k);
        return NULL;
    }
    k->next = l->links;
    l->links = k;
    l->opened++;
    return k;
}

static void ares_channel_close_link(struct line *l, struct link **at)
{
    const struct asio_plugin *core = l->channel->env->core;
    struct link *k = *at;
    *at = k->next;
    core->loop->watch_close(k->watch);
    core->mem->allocator->free(k);
}

/* c-ares opens, uses (readable, writable: what it waits for) or is about to close a socket. */
static void ares_channel_on_socket(void *data, ares_socket_t fd, int readable, int writable)
{
    struct line *l = data;
    struct link **at = ares_channel_find_link(l, fd), *k = *at;
    int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0), status = 0;
    if (!events) {
        if (k)
            ares_channel_close_link(l, at);
        return;
    }
    if (!k)
        k = ares_channel_open_link(l, fd, &status);
    if (k)
        status = l->channel->env->core->loop->watch_set(k->watch, events);
    if (status < 0)
        l->failure = status;
}

/* ---- deadlines ---------------------------------------------------------------------------- */

static void ares_channel_on_timer(struct asio_timer *t)
{
    ares_channel_process(ASIO_CONTAINER(t, struct line, timer), ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

/* c-ares goes through all questions to say which is due first. So with many it is asked only when the time has
 * come: no question that was sent since is due earlier than one that is sent now. */
static void ares_channel_arm(struct line *l)
{
    const struct asio_ares_env *env = l->channel->env;
    uint64_t now = env->core->loop->now(), at = now + (uint64_t)l->channel->conf.timeout * 1000000000;
    struct timeval tv;
    if (l->flying == 0) {
        asio_timer_clear(&l->timer);
        return;
    }
    if (l->flying > MANY && l->timer.at != ASIO_NEVER)
        at = l->timer.at < at ? l->timer.at : at;
    else if (ares_timeout(l->c, NULL, &tv))
        at = now + (uint64_t)tv.tv_sec * 1000000000 + (uint64_t)tv.tv_usec * 1000 + 1000000;
    int status = env->core->loop->timer_set(env->rt, &l->timer, at);
    if (status < 0)
        l->failure = status;
}

/* ---- lines -------------------------------------------------------------------------------- */

static int ares_channel_status(const struct line *l, int result)
{
    int obstacle;
    switch (result) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENODATA:
        return UV_EAI_NODATA;
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
    case ARES_EBADQUERY:
        return UV_EAI_NONAME;
    case ARES_ECONNREFUSED: /* of all servers; c-ares says the same when it can make no socket */
    case ARES_ETIMEOUT:
        obstacle = asio_ares_conf_obstacle();
        return obstacle < 0 ? obstacle : UV_EAI_AGAIN;
    case ARES_ESERVFAIL: /* a server does not answer now, or does not want to */
    case ARES_EREFUSED:  /* these two as such from c-ares 1.2x on */
    case ARES_ENOTIMP:
    case ARES_EOF:
        return UV_EAI_AGAIN;
    case ARES_ENOMEM:
        return UV_ENOMEM;
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION:
        return l && l->failure < 0 ? l->failure : UV_ECANCELED;
    default:
        return UV_EAI_FAIL;
    }
}

/* Around opening c-ares nothing may have been missing that it does without in silence. */
static int ares_channel_open_ares(struct channel *ch, struct line *l)
{
    const struct asio_allocator *mem = ch->env->core->mem->allocator;
    int status = asio_ares_conf_obstacle();
    if (status < 0)
        return status;
    int result = asio_ares_conf_open(&ch->conf, mem, ares_channel_on_socket, l, &l->c);
    if (result != ARES_SUCCESS)
        return ares_channel_status(NULL, result);
    status = asio_ares_conf_obstacle();
    if (status < 0)
        ares_destroy(l->c);
    return status;
}

static int ares_channel_open_line(struct channel *ch)
{
    const struct asio_plugin *core = ch->env->core;
    struct line *l = core->mem->allocator->malloc(sizeof *l);
    if (!l)
        return UV_ENOMEM;
    memset(l, 0, sizeof *l);
    l->channel = ch;
    core->loop->timer_init(&l->timer, ares_channel_on_timer);
    int status = ares_channel_open_ares(ch, l);
    if (status < 0) {
        core->mem->allocator->free(l);
        return status;
    }
    l->next = ch->lines;
    ch->lines = l;
    ch->lines_count++;
    ch->current = l;
    return 0;
}

static void ares_channel_free_line(struct line *l)
{
    struct channel *ch = l->channel;
    const struct asio_plugin *core = ch->env->core;
    struct line **at = &ch->lines;
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    ch->lines_count--;
    ares_destroy(l->c);
    while (l->links) /* none: c-ares has closed its sockets */
        ares_channel_close_link(l, &l->links);
    core->loop->timer_remove(ch->env->rt, &l->timer);
    core->mem->allocator->free(l);
}

/* c-ares has returned. The line, and a retired channel, may be gone afterwards. */
static void ares_channel_settle_line(struct line *l)
{
    struct channel *ch = l->channel;
    ares_channel_arm(l);
    if (l->flying > 0 && (l->wanted == 0 || l->failure < 0)) {
        ares_cancel(l->c);
        asio_timer_clear(&l->timer);
    }
    l->failure = 0;
    if (ch->retired && ch->flying == 0)
        asio_ares_channel_free(ch);
    else if (l != ch->current && l->flying == 0)
        ares_channel_free_line(l);
}

/* The line for the next question: a new one when the current has taken its share. Once there are many, or when no
 * new one can be opened, they take turns. */
static struct line *ares_channel_next_line(struct channel *ch)
{
    struct line *l = ch->current;
    if (l->flying == 0) /* its next question opens a new socket */
        l->asked = 0;
    if (l->asked < LINE_QUESTIONS)
        return l;
    if (ch->lines_count >= LINES_MAX || ares_channel_open_line(ch) < 0)
        ch->current = l->next ? l->next : ch->lines;
    return ch->current;
}

/* ---- questions ---------------------------------------------------------------------------- */

static void ares_channel_on_answer(void *arg, int result, int timeouts, unsigned char *bytes, int length)
{
    struct entry *e = arg;
    struct line *l = e->line;
    struct asio_ares_env *env = l->channel->env;
    struct asio_answer *answer = NULL;
    uint32_t keep = 0;
    int status = ares_channel_status(l, result);
    if (status == 0)
        status =
            asio_ares_dns_answer(env->core->mem->allocator, bytes, (size_t)length, e->type, &answer, &keep);
    else if (bytes && (result == ARES_ENODATA || result == ARES_ENOTFOUND))
        keep = asio_ares_dns_negative(bytes, (size_t)length);
    if (answer)
        answer->received = env->core->loop->now();
    l->flying--;
    l->channel->flying--;
    env->answered(env, e, status, answer, keep);
}

/* What has come so far. All questions of a line to a server share a socket: when the server's port is closed, the
 * error that an earlier question has left would be taken for the next one's, and the earlier one would wait for its
 * time-out. */
static void ares_channel_fetch(struct line *l)
{
    enum { SOCKETS = 8, ROUNDS = 8 }; /* c-ares tries again at once, on a new socket */
    unsigned opened;
    int rounds = 0;
    do {
        ares_socket_t fds[SOCKETS];
        int n = 0;
        opened = l->opened;
        for (struct link *k = l->links; k && n < SOCKETS; k = k->next)
            fds[n++] = k->fd;
        while (n-- > 0)
            if (*ares_channel_find_link(l, fds[n]))
                ares_process_fd(l->c, fds[n], ARES_SOCKET_BAD);
    } while (l->opened != opened && ++rounds < ROUNDS);
}

void asio_ares_channel_ask(struct channel *ch, struct entry *e)
{
    enum { CLASS_IN = 1 };
    struct line *l = ares_channel_next_line(ch);
    if (l->flying > 0)
        ares_channel_fetch(l);
    ch->used_at = ch->env->core->loop->now();
    e->line = l;
    l->wanted++;
    l->asked++;
    l->flying++;
    ch->flying++;
    ares_search(l->c, e->name, CLASS_IN, e->type, ares_channel_on_answer, e);
    ares_channel_settle_line(l);
}

void asio_ares_channel_want(struct entry *e)
{
    e->line->wanted++;
}

void asio_ares_channel_unwant(struct entry *e)
{
    e->line->wanted--;
}

void asio_ares_channel_settle(struct entry *e)
{
    if (e->line->wanted == 0)
        ares_channel_settle_line(e->line);
}

/* ---- opening ------------------------------------------------------------------------------ */

struct channel *asio_ares_channel_open(
    struct asio_ares_env *env, const struct sockaddr_storage *servers, unsigned count, int *status)
{
    const struct asio_allocator *mem = env->core->mem->allocator;
    struct channel *ch = mem->malloc(sizeof *ch + count * sizeof *servers);
    *status = UV_ENOMEM;
    if (!ch)
        return NULL;
    memset(ch, 0, sizeof *ch);
    ch->env = env;
    ch->conf.servers = ch->servers;
    ch->conf.servers_count = count;
    if (count > 0)
        memcpy(ch->servers, servers, count * sizeof *servers);
    *status = asio_ares_conf_read(&ch->conf);
    if (*status == 0)
        *status = ares_channel_open_line(ch);
    if (*status < 0) {
        mem->free(ch);
        return NULL;
    }
    ch->next = env->channels;
    env->channels = ch;
    return ch;
}

void asio_ares_channel_free(struct channel *ch)
{
    struct asio_ares_env *env = ch->env;
    struct channel **at = &env->channels;
    while (*at != ch)
        at = &(*at)->next;
    *at = ch->next;
    while (ch->lines)
        ares_channel_free_line(ch->lines);
    env->core->mem->allocator->free(ch);
}

bool asio_ares_channel_uses_hosts(const struct channel *ch)
{
    return asio_ares_conf_uses_hosts(ch->current->c);
}
