/* SPDX-License-Identifier: MIT
 * The PROXY protocol; see proxy_protocol.h. */
#include "net/proxy_protocol.h"

#include <string.h>

static unsigned number16(const char *p)
{
    return (unsigned)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

static void proxy_protocol_set_address(
    union asio_sockaddr *addr, int family, const char *bytes, unsigned port)
{
    if (family == AF_INET) {
        addr->v4.sin_family = AF_INET;
        addr->v4.sin_port = htons((uint16_t)port);
        memcpy(&addr->v4.sin_addr, bytes, 4);
    } else {
        addr->v6.sin6_family = AF_INET6;
        addr->v6.sin6_port = htons((uint16_t)port);
        memcpy(&addr->v6.sin6_addr, bytes, 16);
    }
}

/* ---- version 1: a line of text ------------------------------------------------------------- */

/* The next word of the line, which ends with `separator`, or NULL: it is empty, or too long. */
static const char *next_word(const char **p, char separator, char word[64])
{
    size_t n = strcspn(*p, " \r");
    if (n == 0 || n >= 64 || (*p)[n] != separator)
        return NULL;
    memcpy(word, *p, n);
    word[n] = '\0';
    *p += n + 1;
    return word;
}

static bool proxy_protocol_read_address(const char **p, int family, char bytes[16])
{
    char word[64];
    return next_word(p, ' ', word) && !strchr(word, '%') && uv_inet_pton(family, word, bytes) == 0;
}

static bool read_port(const char **p, char separator, unsigned *port)
{
    char word[64];
    if (!next_word(p, separator, word) || strlen(word) > 5 || (word[0] == '0' && word[1]))
        return false;
    *port = 0;
    for (const char *c = word; *c; c++) {
        if (*c < '0' || *c > '9')
            return false;
        *port = *port * 10 + (unsigned)(*c - '0');
    }
    return *port <= 65535;
}

/* What follows "PROXY "; terminated, with its CR. */
static bool read_line(const char *p, struct asio_proxy_names *names)
{
    char source[16], target[16];
    unsigned source_port, target_port;
    if (strncmp(p, "UNKNOWN", 7) == 0 && (p[7] == ' ' || p[7] == '\r'))
        return true;
    int family = strncmp(p, "TCP4 ", 5) == 0 ? AF_INET : AF_INET6;
    if (family == AF_INET6 && strncmp(p, "TCP6 ", 5) != 0)
        return false;
    p += 5;
    if (!proxy_protocol_read_address(&p, family, source) ||
        !proxy_protocol_read_address(&p, family, target) || !read_port(&p, ' ', &source_port) ||
        !read_port(&p, '\r', &target_port) || *p)
        return false;
    proxy_protocol_set_address(&names->source, family, source, source_port);
    proxy_protocol_set_address(&names->target, family, target, target_port);
    return true;
}

static int parse_text(const char *bytes, size_t n, struct asio_proxy_names *names, size_t *need)
{
    enum { TEXT_MAX = 107 };
    char line[TEXT_MAX + 1];
    size_t most = n < TEXT_MAX ? n : TEXT_MAX;
    const char *newline = memchr(bytes, '\n', most);
    *need = n + 1;
    if (!newline)
        return n < TEXT_MAX ? 0 : UV_EPROTO;
    size_t length = (size_t)(newline - bytes);
    memcpy(line, bytes, length);
    line[length] = '\0';
    if (strlen(line) != length || line[length - 1] != '\r' || !read_line(line + 6, names))
        return UV_EPROTO;
    return (int)length + 1;
}

/* ---- version 2: binary --------------------------------------------------------------------- */

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";
enum { SIGNATURE = sizeof signature - 1, HEAD = 16 };

/* Addresses of their kind come first; what is behind them is skipped. */
static int read_binary(const char *p, size_t length, struct asio_proxy_names *names)
{
    static const unsigned char least[] = { 0, 12, 36, 2 * ASIO_PROXY_PATH };
    unsigned command = (unsigned char)p[12], family = (unsigned char)p[13] >> 4, protocol = p[13] & 15;
    const char *addresses = p + HEAD;
    if (command == 0x20) /* the proxy itself: checks whether we live */
        return 0;
    if (command != 0x21 || family > 3 || protocol > 2 || length < least[family])
        return UV_EPROTO;
    if (family == 0 || protocol == 0)
        return 0;
    if (family == 3) {
        names->source.any.sa_family = names->target.any.sa_family = AF_UNIX;
        memcpy(names->paths, addresses, sizeof names->paths);
        return 0;
    }
    size_t size = family == 1 ? 4 : 16;
    const char *ports = addresses + 2 * size;
    proxy_protocol_set_address(&names->source, family == 1 ? AF_INET : AF_INET6, addresses, number16(ports));
    proxy_protocol_set_address(
        &names->target, family == 1 ? AF_INET : AF_INET6, addresses + size, number16(ports + 2));
    return 0;
}

static int parse_binary(const char *bytes, size_t n, struct asio_proxy_names *names, size_t *need)
{
    *need = HEAD;
    if (n > 12 && (bytes[12] & 0xfe) != 0x20)
        return UV_EPROTO;
    if (n < HEAD)
        return 0;
    size_t length = number16(bytes + 14);
    *need = HEAD + length;
    if (n < *need)
        return 0;
    int status = read_binary(bytes, length, names);
    return status < 0 ? status : (int)*need;
}

/* ---- either -------------------------------------------------------------------------------- */

static bool begins(const char *bytes, size_t n, const char *with, size_t length)
{
    return memcmp(bytes, with, n < length ? n : length) == 0;
}

int asio_proxy_parse(const char *bytes, size_t n, struct asio_proxy_names *names, size_t *need)
{
    memset(names, 0, sizeof *names);
    if (begins(bytes, n, "PROXY ", 6))
        return parse_text(bytes, n, names, need);
    if (begins(bytes, n, signature, SIGNATURE))
        return parse_binary(bytes, n, names, need);
    return UV_EPROTO;
}
