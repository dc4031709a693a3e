#include "engine/cpu/linear.h"

#include <assert.h>

#define OUT_MAX 3u

/* Weight bytes of a slice: small enough that a slow core is left behind by little; large enough
 * that handing out slices costs nothing. */
#define SLICE_BYTES (64u * 1024)

/* With so many activation rows it is they that a slice goes over. As long as they stay in the
 * second-level cache the least that a kernel takes at a time is enough; else more tiles, so that
 * they are brought in less often. */
#define MANY_ROWS        9u
#define MANY_BYTES       (1280u * 1024)
#define SLICE_TILES      2u
#define SLICE_TILES_LONG 8u

struct job {
    struct kernels_matmul a[OUT_MAX];
    void (*fn[OUT_MAX])(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
    uint32_t slice_rows[OUT_MAX], first_slice[OUT_MAX + 1];
    uint32_t n_out;
};

size_t linear_row_bytes(enum kernels_form form, uint32_t n_cols)
{
    switch (form) {
    case KERNELS_FORM_Q8:
        return n_cols / 32 * sizeof(struct kernels_q8);
    case KERNELS_FORM_BF16:
        return (n_cols + 1) / 2 * 2 * sizeof(uint16_t);
    default:
        return n_cols * sizeof(float);
    }
}

unsigned linear_forms(const struct kernels *k, const struct linear_output *out, uint32_t n_out)
{
    unsigned forms = 0;

    for (uint32_t i = 0; i < n_out; i++)
        forms |= 1u << k->form[out[i].w->type];
    return forms;
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
    if (r1 > j->a[i].n_rows)
        r1 = j->a[i].n_rows;
    j->fn[i](&j->a[i], r0, r1);
}

static uint32_t slice_rows(const struct model_tensor *w, const struct kernels_matmul *a,
                           size_t x_bytes, uint32_t n_workers)
{
    uint32_t tiles = (uint32_t)(SLICE_BYTES / w->tile_len);
    uint32_t fair = tile_count(w->n_rows) / (4 * n_workers); /* some slices for each worker */

    if (a->n_x >= MANY_ROWS)
        tiles = x_bytes > MANY_BYTES ? SLICE_TILES_LONG : SLICE_TILES;
    if (tiles > fair)
        tiles = fair;
    return (tiles > 0 ? tiles : 1) * TILE_ROWS;
}

void linear_run(const struct kernels *k, struct workers *w, const struct linear_input *in,
                uint32_t n_x, const struct linear_output *out, uint32_t n_out)
{
    struct job j = { .n_out = n_out };

    assert(n_out <= OUT_MAX);
    for (uint32_t i = 0; i < n_out; i++) {
        const struct model_tensor *t = out[i].w;
        enum kernels_form form = k->form[t->type];
        size_t row_bytes = linear_row_bytes(form, in->n_cols);

        j.a[i] = (struct kernels_matmul){
            .type = t->type,
            .w = t->data,
            .tile_len = t->tile_len,
            .n_rows = t->n_rows,
            .n_cols = t->n_cols,
            .x = in->form[form],
            .x_row_bytes = row_bytes * (1 + in->skip),
            .n_x = n_x,
            .y = out[i].y,
            .y_stride = out[i].stride ? out[i].stride : (size_t)t->n_rows * (1 + out[i].skip),
            .ahead = k->ahead,
        };
        assert(t->n_cols == in->n_cols);
        j.fn[i] = k->matmul[t->type];
        j.slice_rows[i] = slice_rows(t, &j.a[i], n_x * row_bytes, workers_n(w));
        j.first_slice[i + 1] =
            j.first_slice[i] + (t->n_rows + j.slice_rows[i] - 1) / j.slice_rows[i];
    }
    workers_run(w, run_slice, &j, j.first_slice[n_out]);
}
