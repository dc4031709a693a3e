/* What a warp's registers become in one instruction. Fragments as PTX's manual has them,
 * "Warp-level matrix instructions": with g = lane / 4 and t = lane % 4,
 *
 *     16-bit k16   a[0] row g, columns 2t, 2t + 1     a[1] row g + 8     a[2], a[3] columns + 8
 *                  b[0] rows 2t, 2t + 1, column g     b[1] rows + 8
 *     int8 k32     a[0] row g, columns 4t .. 4t + 3   a[1] row g + 8     a[2], a[3] columns + 16
 *                  b[0] rows 4t .. 4t + 3, column g   b[1] rows + 16
 *     int8 k16     a[0], a[1], b[0] of that
 *     c, d         [0], [1] row g, columns 2t, 2t + 1                    [2], [3] row g + 8
 */
#include "cuda/shim/machine.h"

#include <string.h>

/* Exact: bit by bit what a device makes of it. */
static float half_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13, bits;
    float f;

    /* The exponent's bias by a product, which also makes what is denormal right. */
    memcpy(&f, &rest, sizeof(f));
    f *= 0x1p112f;
    if ((h & 0x7c00) == 0x7c00)
        bits = 0x7f800000u | rest;
    else
        memcpy(&bits, &f, sizeof(bits));
    bits |= sign;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static float bfloat_float(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* Gathered into whole matrices, multiplied, and given back. */
static void mma_16bit(struct warp_lane *lanes, float (*to_float)(uint16_t))
{
    float a[16][16], b[8][16]; /* (row, k), (column, k) */

    for (unsigned l = 0; l < 32; l++) {
        const uint32_t *in = lanes[l].in;
        unsigned g = l / 4, t = l % 4;

        for (unsigned i = 0; i < 4; i++)
            for (unsigned j = 0; j < 2; j++)
                a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + j] = to_float((uint16_t)(in[i] >> 16 * j));
        for (unsigned i = 0; i < 2; i++)
            for (unsigned j = 0; j < 2; j++)
                b[g][2 * t + 8 * i + j] = to_float((uint16_t)(in[4 + i] >> 16 * j));
    }
    for (unsigned l = 0; l < 32; l++) {
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = l / 4 + 8 * (i / 2), col = l % 4 * 2 + i % 2;
            /* A device adds in an order of its own; tests have limits for that. */
            float sum = 0, c;

            for (unsigned k = 0; k < 16; k++)
                sum += a[row][k] * b[col][k];
            memcpy(&c, &lanes[l].in[6 + i], sizeof(c));
            c += sum;
            memcpy(&lanes[l].out[i], &c, sizeof(c));
        }
    }
}

static int dot_s8(const int8_t *a, const int8_t *b, unsigned n)
{
    int sum = 0;

    for (unsigned i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* n_a, n_b: registers of each. */
static void mma_s8(struct warp_lane *lanes, unsigned n_k)
{
    int8_t a[16][32], b[8][32];
    unsigned n_a = n_k / 8, n_b = n_k / 16;

    for (unsigned l = 0; l < 32; l++) {
        const uint32_t *in = lanes[l].in;
        unsigned g = l / 4, t = l % 4;

        for (unsigned i = 0; i < n_a; i++)
            memcpy(&a[g + 8 * (i % 2)][4 * t + 16 * (i / 2)], &in[i], 4);
        for (unsigned i = 0; i < n_b; i++)
            memcpy(&b[g][4 * t + 16 * i], &in[n_a + i], 4);
    }
    for (unsigned l = 0; l < 32; l++)
        for (unsigned i = 0; i < 4; i++)
            lanes[l].out[i] = lanes[l].in[n_a + n_b + i] +
                              (uint32_t)dot_s8(a[l / 4 + 8 * (i / 2)], b[l % 4 * 2 + i % 2], n_k);
}

/* Lane l's row is row l % 8 of matrix l / 8; a lane gets two neighbours of row g (transposed: of
 * column g) of each matrix. */
static void load_rows(struct warp_lane *lanes, bool trans)
{
    for (unsigned l = 0; l < 32; l++) {
        for (unsigned i = 0; i < 4; i++) {
            unsigned g = l / 4, t = l % 4;
            uint16_t row[8], two[2];

            if (trans) {
                for (unsigned j = 0; j < 2; j++) {
                    memcpy(row, lanes[8 * i + 2 * t + j].in, sizeof(row));
                    two[j] = row[g];
                }
            } else {
                memcpy(row, lanes[8 * i + g].in, sizeof(row));
                two[0] = row[2 * t];
                two[1] = row[2 * t + 1];
            }
            lanes[l].out[i] = two[0] | (uint32_t)two[1] << 16;
        }
    }
}

/* Two registers, for what is 64 bits wide. */
static void shuffle(enum shim_op op, unsigned mask, struct warp_lane *lanes)
{
    for (unsigned l = 0; l < 32; l++) {
        unsigned from = (op == SHIM_SHUFFLE_XOR ? l ^ lanes[l].arg : lanes[l].arg) % 32;

        if (!(mask >> l & 1))
            continue;
        if (!(mask >> from & 1))
            shim_fail("a shuffle reads a lane that is not in its mask");
        lanes[l].out[0] = lanes[from].in[0];
        lanes[l].out[1] = lanes[from].in[1];
    }
}

static void ballot(unsigned mask, struct warp_lane *lanes)
{
    uint32_t votes = 0;

    for (unsigned l = 0; l < 32; l++)
        votes |= (mask >> l & 1 && lanes[l].in[0]) ? 1u << l : 0;
    for (unsigned l = 0; l < 32; l++)
        if (mask >> l & 1)
            lanes[l].out[0] = votes;
}

/* By the last lane that came, for all lanes of the mask. */
void warp_compute(enum shim_op op, unsigned mask, struct warp_lane lanes[32])
{
    if (op >= SHIM_ROWS && mask != ~0u)
        shim_fail("an instruction of whole warps has a mask");
    switch (op) {
    case SHIM_SYNCWARP:
        break;
    case SHIM_SHUFFLE_XOR:
    case SHIM_SHUFFLE:
        shuffle(op, mask, lanes);
        break;
    case SHIM_BALLOT:
        ballot(mask, lanes);
        break;
    case SHIM_ROWS:
    case SHIM_ROWS_TRANS:
        load_rows(lanes, op == SHIM_ROWS_TRANS);
        break;
    case SHIM_MMA_F16:
        mma_16bit(lanes, half_float);
        break;
    case SHIM_MMA_BF16:
        mma_16bit(lanes, bfloat_float);
        break;
    case SHIM_MMA_S8_K16:
        mma_s8(lanes, 16);
        break;
    case SHIM_MMA_S8_K32:
        mma_s8(lanes, 32);
        break;
    }
}
