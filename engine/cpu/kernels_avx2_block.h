/* engine/cpu/kernels_avx2_block.h - blocks of quantised weights, unpacked for the products.
 *
 * A block of a tile (32 columns, 16 rows) as two vectors a dword of columns, rows 0 to 7 and 8 to
 * 15:
 *
 *                lane 0              lane 1                    lane 7
 *     q[k][0]  r0: 4k 4k+1 4k+2 4k+3 | r1: 4k .. 4k+3 | .. | r7: 4k .. 4k+3
 *     q[k][1]  r8: ..                | r9: ..         | .. | r15: ..
 *
 * Bytes are unsigned, but for Q8_0: what they are above a signed value is the format's offset,
 * which the product takes off again by the sums of the activations.
 *
 * A sum of products is turned into a float without a conversion: it starts at the bits of 1.5 *
 * 2^23, whose last place is 1, so that its bits, read as a float, are that much above its value
 * (which is below 2^21 in every format). base is what it stands for times the scale, and fma(float,
 * d, base) the product rounded once: scales have 19 bits at most, which times 3 * 2^22 is exact.
 */
#ifndef ENGINE_CPU_KERNELS_AVX2_BLOCK_H
#define ENGINE_CPU_KERNELS_AVX2_BLOCK_H

#include "engine/cpu/kernels_avx2.h"

#define AVX2_SUM_ZERO 12582912.0f

struct avx2_block {
    __m256i q[8][2];
    __m256 d[2][2], base[2][2]; /* [0]: of all columns, or of 0 to 15 when [1] has 16 to 31 */
    __m256 m[2];                /* of the types that have minima */
};

/* Blocks [b0, b0 + n) of a tile; b0 and n are multiples of 8 where the type has super-blocks. */
void avx2_unpack(enum quant type, const void *tile, uint32_t b0, uint32_t n,
                 struct avx2_block *ret);

#endif
