/* engine/cpu/gist_rows.h - rows of a batch that are an adapter's gists: their products.
 *
 * Of a piece of the batch every step-th row is one: all of them where gists run by themselves, one
 * behind every r tokens where they stand among those. The base model's products of all rows come
 * first; gists' are put over them, or added to them.
 *
 * Threads    the owner of the workers.
 */
#ifndef ENGINE_CPU_GIST_ROWS_H
#define ENGINE_CPU_GIST_ROWS_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/workers.h"
#include "engine/file/adapter.h"

struct gist_rows {
    const struct adapter *adapter;
    uint32_t first, step, n; /* rows first, first + step, ...; n 0: none, and no adapter */
};

/* A projection (ADAPTER_Q and so on) of a layer, and what it leaves for all rows of the batch: (T,
 * n_out), without bias. */
struct gist_output {
    unsigned projection;
    float *y;
};

/* Forms of the input that gists' own matrices want, a bit each. */
unsigned gist_rows_forms(const struct gist_rows *g, const struct kernels *k, uint32_t layer,
                         const struct gist_output *out, uint32_t n_out);

struct gist_scratch {
    float *low; /* (n, rank) */
    float *high;
    size_t n_high; /* floats, of one row of an output at least */
};

/* in: all rows of the batch. */
void gist_rows_project(const struct gist_rows *g, const struct kernels *k, struct workers *w,
                       uint32_t layer, const struct linear_input *in,
                       const struct gist_scratch *scratch, const struct gist_output *out,
                       uint32_t n_out);

#endif
