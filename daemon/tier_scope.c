/* What is read back must mean what was written: keys of another model, of other gists, of another
 * number format or behind a past that was compressed in another way are no use, and would not be
 * noticed. All that tells such apart is put into a line of text, whose hash the store knows as the
 * scope. And what one realm has read another is not to find.
 */
#include "daemon/tier_inner.h"

#include "base/digest.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(XXH128_canonical_t) == STORE_SCOPE_LEN, "a scope is a hash");

void tier_scope(const struct tier *t, const struct policy *p, uint8_t ret[STORE_SCOPE_LEN])
{
    struct policy n = policy_normal(p);
    char layout[POOL_LAYOUT_MAX], text[512 + POLICY_REALM_MAX];
    XXH128_canonical_t hash;
    int len;

    pool_layout(t->pool, layout);
    len = snprintf(text, sizeof(text),
                   "model %s; adapter %s; %s; %s, segment %u, ratio %u, sinks %u, tail %u, "
                   "budget %u, late %d, fixed %d",
                   t->model->digest, n.spec.adapter ? n.spec.adapter->digest : "none", layout,
                   compress_name(n.spec.method), n.seg_len, n.spec.ratio, n.spec.sinks, n.keep_tail,
                   n.budget, n.late, n.fixed);
    if (n.hydrate && len > 0 && (size_t)len < sizeof(text))
        len += snprintf(text + len, sizeof(text) - (size_t)len, ", spare %u", n.hydrate);
    if (n.realm[0] && len > 0 && (size_t)len < sizeof(text))
        len += snprintf(text + len, sizeof(text) - (size_t)len, ", realm %s", n.realm);
    assert(len > 0 && (size_t)len < sizeof(text));
    XXH128_canonicalFromHash(&hash, XXH3_128bits(text, (size_t)len));
    memcpy(ret, hash.digest, STORE_SCOPE_LEN);
}
