/* store/shares.h - whose the store's bytes are: of each owner's records, those that are being
 * written counted, those that are being deleted not.
 *
 * Owners share what there is evenly. Nothing is refused for that, for what nobody else wants is
 * anybody's: but when room has to be made, what goes is of those who have more than their share.
 *
 * Threads    one.
 * Ownership  shares_fini frees it.
 */
#ifndef STORE_SHARES_H
#define STORE_SHARES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct share {
    uint32_t owner;
    uint64_t bytes;
};
struct shares {
    struct share *of; /* (n) with bytes */
    size_t n, cap;
};

void shares_fini(struct shares *s);

/* Out of memory the owner is not counted, and has nothing as far as this is asked. */
void shares_add(struct shares *s, uint32_t owner, uint64_t bytes);
void shares_take(struct shares *s, uint32_t owner, uint64_t bytes);

uint64_t shares_of(const struct shares *s, uint32_t owner);
/* An even part of `all` for each of those who have something, and for this one. */
uint64_t shares_even(const struct shares *s, uint32_t owner, uint64_t all);

#endif
