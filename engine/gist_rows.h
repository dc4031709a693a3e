/* engine/gist_rows.h - rows of a batch that are an adapter's gists: their q, k and v.
 *
 * Of a piece of the batch every step-th row is one: all of them where gists run by themselves, one behind
 * every r tokens where they stand among those. The base model's projections of all rows come first; gists'
 * are put over them, or added to them.
 *
 * Threads    the owner of the workers.
 */
#ifndef ENGINE_GIST_ROWS_H
#define ENGINE_GIST_ROWS_H

#include "engine/adapter.h"
#include "engine/kernels.h"
#include "engine/linear.h"
#include "engine/workers.h"

struct gist_rows {
    const struct adapter *adapter;
    uint32_t first, step, n;         /* rows first, first + step, ...; n 0: none, and no adapter */
};

/* Forms of the input that a layer's projections want, a bit each. */
unsigned gist_rows_forms(const struct gist_rows *g, const struct kernels *k, uint32_t layer);

struct gist_scratch {
    float *low;                      /* (n, rank) */
    float *own, *high;               /* (n, widest output) each */
    void *copy;                      /* of inputs where step > 1, in two forms */
};

/* in: all rows of the batch, normed. y (T, outputs): q, k and v without biases. */
void gist_rows_project(const struct gist_rows *g, const struct kernels *k, struct workers *w,
                       uint32_t layer, const struct linear_input *in,
                       const struct gist_scratch *scratch, float *const y[ADAPTER_QKV__N]);

#endif
