/* base/digest.h - a 128-bit hash as text: how models, adapters and corpora name what they belong
 * to.
 */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include <stdio.h>
#include <xxhash.h>

#define DIGEST_LEN 33 /* hexadecimal digits of xxh3-128 in canonical order, and a NUL */

static inline void digest_put(const XXH3_state_t *hash, char ret[DIGEST_LEN])
{
    XXH128_canonical_t c;

    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(hash));
    for (size_t i = 0; i < sizeof(c.digest); i++)
        (void)snprintf(ret + 2 * i, 3, "%02x", c.digest[i]);
}

#endif
