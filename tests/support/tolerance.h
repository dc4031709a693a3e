/* tests/support/tolerance.h - what logits of the tiny models may be off by, on the CPU and on a
 * device.
 *
 * On the CPU each sum has one order, so a text in chunks gives the bits of the text as a whole. A
 * device multiplies up to eight rows by a kernel of ours and more by a library, and attends for a
 * few rows otherwise than for many (docs/cuda.md): only steps of the same shape give the same bits.
 * What else is to be equal is so to rounding: to the reference, and in one way of reading to
 * another.
 *
 * What is rounded, by how much of itself at most
 *
 *     f16   2^-11      K and V in f16 pages, on the CPU too. On a device also the queries and the
 *                      weights of attention, of a prompt over f16 or q8_0 pages.
 *     int8  2^-8       rows that quantised weights take, of the largest of 32; on the CPU too.
 *     bf16  2^-9       the same rows and such weights, where there are many rows. Two of them are
 *                      no coarser than one of int8.
 *     pair  3 * 2^-18  float weights times many rows: each side is a high and a low part in bf16,
 *                      which leave over 2^-9 of 2^-9; and the product of the low parts, which is
 *                      as small, is left out.
 *     f32   2^-24      all else: nothing beside these.
 *
 * How far that goes until it is a logit depends on the model, and is the same whatever was rounded.
 * So a device's are not measured: they follow by the sizes above from what is allowed on the CPU
 * over f16 pages, which round K and V. Roundings are independent of each other, so that their
 * squares are added: of these models 4.2e-2 over f16 pages, 1.3e-3 over f32 and 0.48 over q8_0.
 */
#ifndef TESTS_SUPPORT_TOLERANCE_H
#define TESTS_SUPPORT_TOLERANCE_H

#include "engine/kv/page.h"

#include <math.h>

/* The CPU's. Logits there have a standard deviation of 3 and are up to 14. transformers in f32 is
 * up to 3e-5 from itself in f64, llama.cpp up to 5e-5 from transformers, we up to 8e-5. With f16
 * KV, K and V have 11 bits and a score of 8 moves by up to 4e-3: up to 2e-2 in the logits. The
 * smallest of the mistakes that tests/reference/check_tiny.py makes on purpose moves them by 8e-2.
 * q8_0 rounds to 1/254 of the greatest of 32 elements, 16 times as coarse as f16 for that one, so
 * 16 times f16's tolerance: it would let mistakes pass that the other two then find. */
static const float tolerance_tiny[KV__N] = {
    [KV_F16] = 3e-2f, [KV_F32] = 2e-4f, [KV_Q8_0] = 48e-2f
};

#define TOLERANCE_F16  0x1p-11
#define TOLERANCE_PAIR (3 * 0x1p-18)

/* Seven products a layer (q, k, v, o, gate, up, down), where f16 pages round two things. */
#define TOLERANCE_PAIRS_TO_F16 (TOLERANCE_PAIR / TOLERANCE_F16 * sqrt(7.0 / 2.0)) /* 0.044 */

/* Of a model with float weights over pages of this kind. cpu: what the CPU's may be off by. */
static inline double tolerance_of_device(const float cpu[KV__N], enum kv_type kv)
{
    double pairs = (double)cpu[KV_F16] * TOLERANCE_PAIRS_TO_F16;
    double attention = kv == KV_F32 ? 0 : (double)cpu[KV_F16];

    return sqrt((double)cpu[kv] * cpu[kv] + pairs * pairs + attention * attention);
}

/* exact: rig_exact(). */
static inline double tolerance_of(bool exact, const float cpu[KV__N], enum kv_type kv)
{
    return exact ? (double)cpu[kv] : tolerance_of_device(cpu, kv);
}

#endif
