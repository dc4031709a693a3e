/* tests/support/bf16.h - bf16 as it is defined, for comparisons to the bit. */
#ifndef TESTS_SUPPORT_BF16_H
#define TESTS_SUPPORT_BF16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* To nearest, ties to even; a NaN stays one. */
static inline uint16_t bf16(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    if (isnan(x))
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float of_bf16(uint16_t b)
{
    uint32_t u = (uint32_t)b << 16;
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

#endif
