/* engine/linear.h - up to three weights times the same rows of activations, over the workers.
 *
 * The input is held in the two forms that weights ask for (engine/kernels.h): f32, and blocks of int8.
 * linear_needs_q8() says whether a set of weights needs the second, so that it is made once.
 *
 * Threads    linear_run: the owner of the workers.
 */
#ifndef ENGINE_LINEAR_H
#define ENGINE_LINEAR_H

#include "engine/kernels.h"
#include "engine/model.h"
#include "engine/workers.h"

struct linear_input {
    float *x;                        /* (T, n_cols) */
    struct kernels_q8 *q;            /* (T, n_cols / 32) */
    uint32_t n_cols;
};

struct linear_output { const struct model_tensor *w; float *y; };     /* y (T, w->n_rows) */

/* True when some of the weights take int8 activations: fill in->q with kernels.quantise. */
bool linear_needs_q8(const struct kernels *k, const struct linear_output *out, uint32_t n_out);

void linear_run(const struct kernels *k, struct workers *w, const struct linear_input *in, uint32_t n_x,
                const struct linear_output *out, uint32_t n_out);

#endif
