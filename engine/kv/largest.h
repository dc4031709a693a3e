/* engine/kv/largest.h - which keys of a head stay: the sinks, and those with the largest numbers.
 *
 * For compressors, and for backends that choose keys themselves (engine/fit.h), so that two
 * of them choose the same.
 *
 * Threads    pure functions.
 */
#ifndef ENGINE_KV_LARGEST_H
#define ENGINE_KV_LARGEST_H

#include <stdint.h>

/* One head's numbers, and room to sort them. */
struct largest {
    uint32_t sinks, len; /* keys that stay anyway, and those behind them */
    float *weights;      /* (len); what is no number counts as the smallest, and is made that */
    float *order;        /* (len) */
};

/* Places of the sinks, and of the largest; of equals the later ones, which are nearer to what
 * comes. Ascending, n_keys in all. */
void largest_keep(const struct largest *k, uint32_t n_keys, uint32_t *ret);

#endif
