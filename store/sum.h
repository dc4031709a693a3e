/* store/sum.h - the store's hashes: xxh3-128, plain for checksums, keyed where somebody could want
 * two texts to meet.
 *
 * A checksum tells accidents from what was written; the files are ours alone, so nobody forges one.
 * The keyed hash names what token ids led to. Its secret is random, made with the store and kept in
 * its format file, so no client can look for two texts of one hash.
 *
 * Threads    any.
 */
#ifndef STORE_SUM_H
#define STORE_SUM_H

#include "store/store.h"

#define SUM_SECRET_LEN 192u

/* What formats hold is little-endian, and is copied as it lies in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian host has to swap");

struct store_hash sum_bytes(const void *bytes, size_t len);
/* Of a, then b: what stands around a checksum's own field. */
struct store_hash sum_two(const void *a, size_t a_len, const void *b, size_t b_len);
struct store_hash sum_keyed(const uint8_t secret[SUM_SECRET_LEN], const void *a, size_t a_len,
                            const void *b, size_t b_len);

static inline bool sum_equal(struct store_hash a, struct store_hash b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

#define SUM_TEXT 33u /* 32 hexadecimal digits and a NUL */
void sum_text(struct store_hash h, char ret[SUM_TEXT]);

#endif
