/* http/guard.c - keys from a file, and names that are judged as they stand in a header: nothing is
 * looked up, since what a name leads to is what an attacker could change. */

#include "http/guard.h"

#include "base/files.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1024u * 1024)

/* --- keys ------------------------------------------------------------------------------------- */

/* A line is a name and a key; empty ones and comments are none. Copied with zeros behind, which
 * same_key compares as well. */
static int add_key(struct guard *g, char *line, unsigned n, struct why *why)
{
    struct guard_key *keys = g->keys, *k;
    char *save = NULL, *name = strtok_r(line, " \t\r", &save);
    char *key = name ? strtok_r(NULL, " \t\r", &save) : NULL;

    if (!name || name[0] == '#')
        return 0;
    if (!key || strtok_r(NULL, " \t\r", &save))
        return why_set(why, -EINVAL, "%s, line %u: a name and a key are expected",
                       g->conf->api_keys, n);
    /* Nothing here slows down who tries one key after the other: short ones would be found. */
    if (strlen(name) > GUARD_NAME_MAX || strlen(key) > GUARD_KEY_MAX || strlen(key) < 8)
        return why_set(
            why, -EINVAL,
            "%s, line %u: a name has at most %u bytes, a key 8 to %u; `openssl rand -hex "
            "24` makes one",
            g->conf->api_keys, n, GUARD_NAME_MAX, GUARD_KEY_MAX);
    if (g->n_keys == GUARD_KEYS_MAX)
        return why_set(why, -EINVAL, "%s: more than %u keys", g->conf->api_keys, GUARD_KEYS_MAX);
    keys = realloc(g->keys, (g->n_keys + 1) * sizeof(*keys));
    if (!keys)
        return -ENOMEM;
    g->keys = keys;
    k = &g->keys[g->n_keys++];
    memset(k, 0, sizeof(*k));
    memcpy(k->name, name, strlen(name));
    memcpy(k->key, key, strlen(key));
    return 0;
}

static int read_lines(struct guard *g, FILE *f, struct why *why)
{
    char *line = NULL;
    size_t cap = 0;
    unsigned n = 0;
    ssize_t len;
    int r = 0;

    while (r == 0 && (len = getline(&line, &cap, f)) >= 0) {
        if (len > 0 && line[len - 1] == '\n')
            line[len - 1] = '\0';
        r = add_key(g, line, ++n, why);
    }
    /* The keys behind would be refused, in silence. */
    if (r == 0 && (r = files_lines_end(f)) < 0)
        why_set(why, r, "%s: cannot be read: %s", g->conf->api_keys, strerror(-r));
    if (line)
        explicit_bzero(line, cap);
    free(line);
    if (r == 0 && g->n_keys == 0)
        r = why_set(why, -EINVAL, "%s: there is no key in it: a line has a name and a key",
                    g->conf->api_keys);
    return r;
}

/* A key is a password: a file that others can read is refused, and not warned about. */
static int read_keys(struct guard *g, struct why *why)
{
    const char *path = g->conf->api_keys;
    int fd = open(path, O_RDONLY | O_CLOEXEC), r;
    struct stat st;
    FILE *f;

    if (fd < 0)
        return why_set(why, -errno, "%s: %s", path, strerror(errno));
    /* Of the descriptor, and not of the path: it is the file that is read. */
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
        r = why_set(why, -EINVAL, "%s: a file of at most a megabyte is expected", path);
    else if (st.st_mode & 077)
        r = why_set(why, -EPERM,
                    "%s: others than its owner may read or write it; `chmod 600 %s` ends that",
                    path, path);
    else
        r = 0;
    f = r == 0 ? fdopen(fd, "r") : NULL;
    if (!f) {
        (void)close(fd);
        return r < 0 ? r : -ENOMEM;
    }
    r = read_lines(g, f, why);
    (void)fclose(f);
    return r;
}

int guard_open(struct guard *g, const struct conf *conf, struct why *why)
{
    int r = 0;

    *g = (struct guard){ .conf = conf };
    if (conf->api_keys[0])
        r = read_keys(g, why);
    if (r < 0) {
        (void)why_set(why, r, "%s: %s", conf->api_keys, strerror(-r));
        guard_close(g);
    }
    return r;
}

void guard_close(struct guard *g)
{
    if (g->keys)
        explicit_bzero(g->keys, g->n_keys * sizeof(*g->keys));
    free(g->keys);
    g->keys = NULL;
    g->n_keys = 0;
}

/* Takes as long whatever is right of it: padded to the same length, all of it compared. */
static bool same_key(const struct guard_key *k, const char padded[GUARD_KEY_MAX + 1])
{
    unsigned char differs = 0;

    for (size_t i = 0; i < sizeof(k->key); i++)
        differs |= (unsigned char)(k->key[i] ^ padded[i]);
    return differs == 0;
}

/* All keys are compared, also behind the one that fits: the time tells nothing of which it was. */
const char *guard_who(const struct guard *g, const char *authorization, const char *x_api_key)
{
    char padded[GUARD_KEY_MAX + 1] = "";
    const char *who = NULL, *key = x_api_key;

    if (!g->conf->api_keys[0])
        return "";
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0)
        key = authorization + 7 + strspn(authorization + 7, " ");
    if (!key || strlen(key) > GUARD_KEY_MAX)
        return NULL;
    memcpy(padded, key, strlen(key));
    for (size_t i = 0; i < g->n_keys; i++)
        if (same_key(&g->keys[i], padded))
            who = g->keys[i].name;
    explicit_bzero(padded, sizeof(padded));
    return who;
}

static bool is_first(const struct guard *g, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (strcmp(g->keys[i].name, g->keys[at].name) == 0)
            return false;
    return true;
}

/* Where no key is needed there is one name, "". */
size_t guard_n_names(const struct guard *g)
{
    size_t n = 0;

    for (size_t i = 0; i < g->n_keys; i++)
        n += is_first(g, i);
    return n > 0 ? n : 1;
}

/* --- names ------------------------------------------------------------------------------------ */

static bool is_listed(const char *list, const char *name)
{
    char one[256];

    while (conf_next(&list, one, sizeof(one)))
        if (strcasecmp(one, name) == 0)
            return true;
    return false;
}

/* The name without its port; an address of IPv6 without its brackets. */
static bool split_host(const char *host, char *ret, size_t cap)
{
    const char *port;
    size_t n;

    if (host[0] == '[') {
        host++;
        n = strcspn(host, "]");
        port = host[n] ? host + n + 1 : NULL;
    } else {
        n = strcspn(host, ":");
        port = host + n;
    }
    if (!port || n == 0 || n >= cap || (*port && *port != ':') ||
        (*port && strspn(port + 1, "0123456789") != strlen(port + 1)))
        return false;
    memcpy(ret, host, n);
    ret[n] = '\0';
    return true;
}

/* A page gets to an address by naming it, and then its origin says so; only names can be turned to
 * another one. */
static bool is_address(const char *name)
{
    struct in6_addr a;

    return inet_pton(AF_INET, name, &a) == 1 || inet_pton(AF_INET6, name, &a) == 1;
}

bool guard_host(const struct guard *g, const char *host)
{
    char name[256];

    return split_host(host, name, sizeof(name)) &&
           (strcasecmp(name, "localhost") == 0 || is_address(name) ||
            is_listed(g->conf->hosts, name));
}

/* As an origin has it, which is where its page was loaded from. */
static bool is_loopback(const char *name)
{
    return strcasecmp(name, "localhost") == 0 || strcmp(name, "127.0.0.1") == 0 ||
           strcmp(name, "::1") == 0;
}

/* "null", which sandboxed pages and files send, is no address of localhost. */
bool guard_origin(const struct guard *g, const char *origin)
{
    const char *rest = strncmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncmp(origin, "https://", 8) == 0 ? origin + 8
                                                             : NULL;
    char name[256];

    if (is_listed(g->conf->origins, origin))
        return true;
    return rest && split_host(rest, name, sizeof(name)) && is_loopback(name);
}
