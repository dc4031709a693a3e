#include "engine/linear.h"

#include <assert.h>

#define OUT_MAX 3u

/* Weight bytes of a slice: small enough that the slice stays in the second-level cache while all
 * the activation rows pass over it, and that a slow core is left behind by little; large enough
 * that handing out slices costs nothing. */
#define SLICE_BYTES (64u * 1024)
#define SLICE_ROWS  16u /* slices are multiples of this: kernels take rows in groups */

struct job {
    struct kernels_matmul a[OUT_MAX];
    void (*fn[OUT_MAX])(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
    uint32_t n_rows[OUT_MAX], slice_rows[OUT_MAX], first_slice[OUT_MAX + 1];
    uint32_t n_out;
};

bool linear_needs_q8(const struct kernels *k, const struct linear_output *out, uint32_t n_out)
{
    for (uint32_t i = 0; i < n_out; i++)
        if (k->quant_x[out[i].w->type])
            return true;
    return false;
}

static void run_slice(void *arg, uint32_t slice, uint32_t worker)
{
    const struct job *j = arg;
    uint32_t i = 0, r0, r1;

    (void)worker;
    while (slice >= j->first_slice[i + 1])
        i++;
    r0 = (slice - j->first_slice[i]) * j->slice_rows[i];
    r1 = r0 + j->slice_rows[i];
    if (r1 > j->n_rows[i])
        r1 = j->n_rows[i];
    j->fn[i](&j->a[i], r0, r1);
}

static uint32_t slice_rows(const struct model_tensor *w, uint32_t n_workers)
{
    uint32_t rows = (uint32_t)(SLICE_BYTES / w->row_bytes);
    uint32_t fair = w->n_rows / (4 * n_workers); /* some slices for each worker */

    if (rows > fair)
        rows = fair;
    rows -= rows % SLICE_ROWS;
    return rows < SLICE_ROWS ? SLICE_ROWS : rows;
}

void linear_run(const struct kernels *k, struct workers *w, const struct linear_input *in,
                uint32_t n_x, const struct linear_output *out, uint32_t n_out)
{
    struct job j = { .n_out = n_out };

    assert(n_out <= OUT_MAX);
    for (uint32_t i = 0; i < n_out; i++) {
        const struct model_tensor *t = out[i].w;
        bool q = k->quant_x[t->type];

        j.a[i] = (struct kernels_matmul){
            .w = t->data,
            .w_row_bytes = t->row_bytes,
            .n_cols = t->n_cols,
            .x = q ? (const void *)in->q : in->x,
            .x_row_bytes = q ? in->n_cols / 32 * sizeof(*in->q) : in->n_cols * sizeof(float),
            .n_x = n_x,
            .y = out[i].y,
            .y_stride = t->n_rows,
        };
        assert(t->n_cols == in->n_cols);
        j.fn[i] = k->matmul[t->type];
        j.n_rows[i] = t->n_rows;
        j.slice_rows[i] = slice_rows(t, workers_n(w));
        j.first_slice[i + 1] =
            j.first_slice[i] + (t->n_rows + j.slice_rows[i] - 1) / j.slice_rows[i];
    }
    workers_run(w, run_slice, &j, j.first_slice[n_out]);
}
