#include "store/sum.h"

#include <inttypes.h>
#include <stdio.h>

#define XXH_STATIC_LINKING_ONLY /* the state's size: it lives on the stack */
#include <xxhash.h>

_Static_assert(SUM_SECRET_LEN >= XXH3_SECRET_SIZE_MIN, "xxh3 reads that much of a secret");

static struct store_hash of(XXH128_hash_t h)
{
    return (struct store_hash){ .lo = h.low64, .hi = h.high64 };
}

struct store_hash sum_bytes(const void *bytes, size_t len)
{
    return of(XXH3_128bits(bytes, len));
}

/* The same as sum_bytes of both in one piece. The state has half a kilobyte and lives on the stack,
 * so nothing here can run out of memory. */
struct store_hash sum_two(const void *a, size_t a_len, const void *b, size_t b_len)
{
    XXH3_state_t state;

    XXH3_INITSTATE(&state);
    (void)XXH3_128bits_reset(&state);
    (void)XXH3_128bits_update(&state, a, a_len);
    (void)XXH3_128bits_update(&state, b, b_len);
    return of(XXH3_128bits_digest(&state));
}

/* The whole secret goes in, not a seed: 64 bits of seed could be searched, 192 random bytes can't.
 */
struct store_hash sum_keyed(const uint8_t secret[SUM_SECRET_LEN], const void *a, size_t a_len,
                            const void *b, size_t b_len)
{
    XXH3_state_t state;

    XXH3_INITSTATE(&state);
    (void)XXH3_128bits_reset_withSecret(&state, secret, SUM_SECRET_LEN);
    (void)XXH3_128bits_update(&state, a, a_len);
    (void)XXH3_128bits_update(&state, b, b_len);
    return of(XXH3_128bits_digest(&state));
}

/* The high half first, as a number of 128 bits is written. */
void sum_text(struct store_hash h, char ret[SUM_TEXT])
{
    (void)snprintf(ret, SUM_TEXT, "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
}
