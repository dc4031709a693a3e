/* daemon/req_cache.c - what is kept on disk of a user's sessions: counted, listed, verified,
 * deleted.
 */
#include "daemon/sched.h"

static int cache_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    (void)m;
    (void)bulk;
    request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS, "this daemon keeps nothing on disk");
    return 0;
}

const struct request_ops request_cache = { .name = "cache", .start = cache_start };
