/* engine/cpu/linear.h - up to three weights times the same rows of activations, over the workers.
 *
 * The input is held in the forms that the weights' kernels take (engine/cpu/kernels.h).
 * linear_forms() says which, so that each is made once.
 *
 * Threads    linear_run: the owner of the workers.
 */
#ifndef ENGINE_CPU_LINEAR_H
#define ENGINE_CPU_LINEAR_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/file/model.h"

struct linear_input {
    const void *form[KERNELS_FORM__N]; /* (T, n_cols); those that are needed */
    uint32_t n_cols;
    uint32_t skip; /* rows left out between one and the next */
};

struct linear_output {
    const struct model_tensor *w;
    float *y;        /* (T, w->n_rows) */
    uint32_t skip;   /* as of the input */
    uint32_t stride; /* floats from a row of y to the next; 0: w->n_rows, and skip counts */
};

/* Bytes of a row of n_cols activations in a form. */
size_t linear_row_bytes(enum kernels_form form, uint32_t n_cols);

/* Bit f is set when a weight takes form f. */
unsigned linear_forms(const struct kernels *k, const struct linear_output *out, uint32_t n_out);

/* With so many rows of activations it is they, and no more the weights, that take the time. */
#define LINEAR_MANY 9u

void linear_run(const struct kernels *k, struct workers *w, const struct linear_input *in,
                uint32_t n_x, const struct linear_output *out, uint32_t n_out);

/* The same, of matrices that have equally many rows: fn is told, by the worker that made them,
 * which rows [r0, r1) of all outputs are there, r0 a multiple of 32. What is made of a few numbers
 * then needs no job of its own, and finds them in a cache. */
struct linear_then {
    void (*fn)(void *arg, uint32_t r0, uint32_t r1); /* NULL: nothing */
    void *arg;
};
void linear_run_then(const struct kernels *k, struct workers *w, const struct linear_input *in,
                     uint32_t n_x, const struct linear_output *out, uint32_t n_out,
                     struct linear_then then);

#endif
