/* http/guard.h - who may ask: keys, names of hosts, origins of pages.
 *
 * A server on localhost is reached by every web page that its user opens: a page may send requests
 * (their answers are hidden from it, their effect is not), and one whose own name was turned to
 * 127.0.0.1 may read answers, too. So a request that says where it comes from (Origin) must come
 * from localhost or a page that is allowed, and the name that it was sent to (Host) must be ours.
 * Addresses are always ours: nobody can turn those.
 *
 * Threads    guard_open: before there are any. The rest only reads.
 * Ownership  guard_close frees the keys and forgets them.
 * Errors     guard_open: a negative errno and a sentence.
 */
#ifndef HTTP_GUARD_H
#define HTTP_GUARD_H

#include "http/conf.h"

#define GUARD_NAME_MAX 63u
#define GUARD_KEY_MAX  255u
#define GUARD_KEYS_MAX 1000u

struct guard_key {
    char name[GUARD_NAME_MAX + 1], key[GUARD_KEY_MAX + 1];
};

struct guard {
    const struct conf *conf;
    struct guard_key *keys;
    size_t n_keys;
};

int guard_open(struct guard *g, const struct conf *conf, struct why *why);
void guard_close(struct guard *g);

/* authorization and x_api_key are the headers, NULL where there are none. The name of the key's
 * owner; "" where no key is needed; NULL: refused. */
const char *guard_who(const struct guard *g, const char *authorization, const char *x_api_key);

size_t guard_n_names(const struct guard *g); /* that guard_who gives */

bool guard_host(const struct guard *g, const char *host); /* "name", "name:port", "[::1]:port" */
bool guard_origin(const struct guard *g, const char *origin); /* "http://name:port" */

#endif
