#include "engine/kv/rotary.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* Rows are all cosines and then all sines, as kernels take them: a vector of each is one load. */
static void fill(float *table, uint32_t n_rows, double step, const float *freq, uint32_t hd)
{
    for (uint32_t n = 0; n < n_rows; n++) {
        float *row = table + (size_t)n * hd;

        for (uint32_t i = 0; i < hd / 2; i++) {
            double angle = (double)n * step * (double)freq[i];

            row[i] = (float)cos(angle);
            row[hd / 2 + i] = (float)sin(angle);
        }
    }
}

/* Of head_dim 128 the two take 4.5 MiB. One table for 2^23 distances would take 4 GiB. */
int rotary_open(struct rotary *r, const float *freq, uint32_t hd)
{
    *r = (struct rotary){ .hd = hd };
    r->fine = malloc((size_t)ROTARY_FINE * hd * sizeof(float));
    r->coarse = malloc((size_t)ROTARY_COARSE * hd * sizeof(float));
    if (!r->fine || !r->coarse) {
        rotary_close(r);
        return -ENOMEM;
    }
    fill(r->fine, ROTARY_FINE, 1, freq, hd);
    fill(r->coarse, ROTARY_COARSE, ROTARY_FINE, freq, hd);
    return 0;
}

void rotary_close(struct rotary *r)
{
    if (!r)
        return;
    free(r->fine);
    free(r->coarse);
    *r = (struct rotary){ 0 };
}

/* By addition of angles, of a row of each table. Most distances are below ROTARY_FINE and cost
 * nothing. */
const float *rotary_by(const struct rotary *r, uint32_t n, float *scratch)
{
    const float *lo = r->fine + (size_t)(n % ROTARY_FINE) * r->hd;
    const float *hi;

    if (n < ROTARY_FINE)
        return lo;
    assert(n / ROTARY_FINE < ROTARY_COARSE);
    hi = r->coarse + (size_t)(n / ROTARY_FINE) * r->hd;
    for (uint32_t i = 0, h = r->hd / 2; i < h; i++) {
        scratch[i] = hi[i] * lo[i] - hi[h + i] * lo[h + i];
        scratch[h + i] = hi[h + i] * lo[i] + hi[i] * lo[h + i];
    }
    return scratch;
}
