/* engine/kv/rotary.h - cosines and sines of rotary embedding for every distance a sequence can
 * span.
 *
 * A rotation by n positions turns the pair (i, i + hd/2) of a head by n * freq[i]. Rotations add
 * up, so two small tables cover all distances: one for 0 .. 8191 and one for the multiples of 8192.
 * Angles are computed in double (at 100,000 positions an f32 angle is off by a hundredth), the
 * tables are f32.
 *
 *     fine    (8192, hd)    cos[hd/2] then sin[hd/2] of a row's number of positions
 *     coarse  (1024, hd)    the same for 8192 times the row
 *
 * Source: RoFormer (arXiv 2104.09864); which frequencies: engine/file/model.h.
 *
 * Threads    immutable after rotary_open.
 */
#ifndef ENGINE_KV_ROTARY_H
#define ENGINE_KV_ROTARY_H

#include <stdint.h>

#define ROTARY_FINE   8192u
#define ROTARY_COARSE 1024u

struct rotary {
    uint32_t hd;
    float *fine, *coarse;
};

int rotary_open(struct rotary *r, const float *freq, uint32_t hd); /* freq (hd/2). -ENOMEM */
void rotary_close(struct rotary *r);

/* (hd) cosines and sines of a rotation by n < ROTARY_FINE * ROTARY_COARSE positions: a row of the
 * table, or composed in scratch (hd). */
const float *rotary_by(const struct rotary *r, uint32_t n, float *scratch);

#endif
