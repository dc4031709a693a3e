/* Products of f16 and bf16 weights and bf16 activations, by AVX512_BF16.
 *
 * Activations lose all but 8 bits, and so do f16 weights: less than activations in int8 lose
 * (1.1e-3 of each on average, against 7e-3).
 */
#include "engine/cpu/kernels_bf16.h"

#include "engine/cpu/kernels_avx512_floats.h"

#define TILES      2u
#define CHUNK_COLS 256u /* of two tiles: 16 KB of bf16; even */

static const struct floats_kind bf16 = { QUANT_BF16, true }, f16 = { QUANT_F16, true };

void bf16_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    floats_run(bf16, a, r0, r1);
}

/* Columns [0, n) of tiles of f16 to pairs of bf16. */
static void unpack_pairs(const uint8_t *w, uint32_t n, const struct kernels_matmul *a, __m512i *ret)
{
    for (uint32_t c = 0; c < n; c += 2) {
        avx512_call_ahead(a, a->n_x, w + (size_t)c * 32, 64);
        ret[c / 2] = (__m512i)floats_load_pair(f16, w + (size_t)c * 32, c + 1 == n);
    }
}

/* A chunk of columns of two tiles becomes bf16 on the stack, where it stays in the first-level
 * cache while all activation rows pass by; the accumulators rest in y between chunks. */
static void run_chunks(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    __m512i w[TILES][CHUNK_COLS / 2];
    struct floats_block b = { .w = { (const uint8_t *)w[0], (const uint8_t *)w[1] } };

    for (b.c0 = 0; b.c0 < a->n_cols; b.c0 += CHUNK_COLS) {
        b.n = a->n_cols - b.c0 < CHUNK_COLS ? a->n_cols - b.c0 : CHUNK_COLS;
        for (b.r = r0; b.r < r1; b.r += TILES * TILE_ROWS) {
            uint32_t n_tiles = r1 - b.r > TILE_ROWS ? 2 : 1;

            for (uint32_t k = 0; k < n_tiles; k++)
                unpack_pairs((const uint8_t *)a->w + (b.r / TILE_ROWS + k) * a->tile_len +
                                 (size_t)b.c0 * 32,
                             b.n, a, w[k]);
            if (n_tiles == 2)
                floats_run_rows(bf16, a, &b, false, 2);
            else
                floats_run_rows(bf16, a, &b, false, 1);
        }
    }
}

void bf16_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    if (a->n_x <= FLOATS_X)
        floats_run(f16, a, r0, r1);
    else
        run_chunks(a, r0, r1);
}

void bf16_from_f32(const float *x, uint32_t n, uint16_t *ret)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 lanes = avx512_first(n - i);
        __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i));

        _mm256_mask_storeu_epi16(ret + i, lanes, (__m256i)v);
    }
    if (n % 2)
        ret[n] = 0;
}
