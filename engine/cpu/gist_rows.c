/* engine/cpu/gist_rows.c - an adapter's own matrices, for some rows of a batch.
 *
 * A projection of an adapter has a matrix of its own (w), or a low-rank part that is added to the
 * base model's (b times a), or neither. Either is a product of the batch's input with rows left out
 * (linear_input.skip): gists are not gathered, so nothing is copied but low-rank sums.
 */
#include "engine/cpu/gist_rows.h"

/* Low-rank matrices are f32, the form that is always there. */
unsigned gist_rows_forms(const struct gist_rows *g, const struct kernels *k, uint32_t layer,
                         const struct gist_output *out, uint32_t n_out)
{
    unsigned forms = 0;

    for (uint32_t i = 0; g->n && i < n_out; i++) {
        const struct model_tensor *w = &g->adapter->layers[layer].p[out[i].projection].w;

        if (w->data)
            forms |= 1u << k->form[w->type];
    }
    return forms;
}

/* The gists' rows of the batch's input. */
static struct linear_input input_of(const struct gist_rows *g, const struct linear_input *in)
{
    struct linear_input ret = { .n_cols = in->n_cols, .skip = g->step - 1 };

    for (enum kernels_form i = 0; i < KERNELS_FORM__N; i++)
        if (in->form[i])
            ret.form[i] = (const uint8_t *)in->form[i] + g->first * linear_row_bytes(i, in->n_cols);
    return ret;
}

/* y (., n) has x (n_rows, n) added to gists [first, first + n_rows). */
static void add_rows(const struct gist_rows *g, const struct kernels *k, const float *x, uint32_t n,
                     uint32_t first, uint32_t n_rows, float *y)
{
    for (uint32_t i = 0; i < n_rows; i++)
        k->add(y + (g->first + (size_t)(first + i) * g->step) * n, x + (size_t)i * n, n);
}

/* y += B (A x), of so many gists at a time as there is room for. A x of all gists comes first: it
 * is narrow. B of that is as wide as the output, and what it is added to has rows of others
 * between, so it goes by way of scratch. */
static void add_low_rank(const struct gist_rows *g, const struct kernels *k, struct workers *w,
                         const struct adapter_projection *p, const struct linear_input *in,
                         const struct gist_scratch *scratch, float *y)
{
    struct linear_output a = { &p->a, scratch->low, 0, 0 }, b = { &p->b, scratch->high, 0, 0 };
    uint32_t rank = p->a.n_rows, n_out = p->b.n_rows, n;
    size_t room = scratch->n_high / n_out;

    linear_run(k, w, in, g->n, &a, 1);
    for (uint32_t done = 0; done < g->n; done += n) {
        struct linear_input low = { .n_cols = rank,
                                    .form[KERNELS_FORM_F32] = scratch->low + (size_t)done * rank };

        n = g->n - done < room ? g->n - done : (uint32_t)room;
        linear_run(k, w, &low, n, &b, 1);
        add_rows(g, k, scratch->high, n_out, done, n, y);
    }
}

void gist_rows_project(const struct gist_rows *g, const struct kernels *k, struct workers *w,
                       uint32_t layer, const struct linear_input *in,
                       const struct gist_scratch *scratch, const struct gist_output *out,
                       uint32_t n_out)
{
    struct linear_input rows;

    if (g->n == 0)
        return;
    rows = input_of(g, in);
    for (uint32_t i = 0; i < n_out; i++) {
        const struct adapter_projection *p = &g->adapter->layers[layer].p[out[i].projection];
        struct linear_output own = { &p->w, out[i].y + (size_t)g->first * p->w.n_rows, g->step - 1,
                                     0 };

        /* Over the base model's rows. Its product for gists was wasted, but leaving them out would
         * cut the batch into pieces. */
        if (p->w.data)
            linear_run(k, w, &rows, g->n, &own, 1);
        if (p->a.data)
            add_low_rank(g, k, w, p, &rows, scratch, out[i].y);
    }
}
