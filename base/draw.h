/* base/draw.h - what is drawn at random: splitmix64, so that everything follows from a seed
 * and a number.
 *
 * Source     Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
 *
 * Threads    pure functions; a state is its caller's.
 */
#ifndef BASE_DRAW_H
#define BASE_DRAW_H

#include <stdint.h>

#define DRAW_GAMMA 0x9e3779b97f4a7c15u

static inline uint64_t draw_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The next of a stream. */
static inline uint64_t draw_next(uint64_t *state)
{
    return draw_mix(*state += DRAW_GAMMA);
}

/* One number of a seed, by its index. */
static inline uint64_t draw_at(uint64_t seed, uint64_t index)
{
    return draw_mix((draw_mix(seed + DRAW_GAMMA) ^ index) + DRAW_GAMMA);
}

/* Uniform on [0, 1). */
static inline double draw_unit(uint64_t x)
{
    return (double)(x >> 11) * 0x1p-53;
}

#endif
