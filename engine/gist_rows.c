#include "engine/gist_rows.h"

#include <string.h>

unsigned gist_rows_forms(const struct gist_rows *g, const struct kernels *k, uint32_t layer)
{
    unsigned forms = 0;

    for (unsigned i = 0; g->n && i < ADAPTER_QKV__N; i++) {
        const struct model_tensor *w = &g->adapter->layers[layer].p[i].w;

        if (w->data)
            forms |= 1u << k->form[w->type];
    }
    return forms;
}

/* The inputs of gists in one form, one after the other: where they lie, or in copy. */
static const void *gather(const struct gist_rows *g, const void *rows, size_t row_bytes, void *copy)
{
    const uint8_t *from = rows;

    if (!rows)
        return NULL;
    from += g->first * row_bytes;
    for (uint32_t i = 0; g->step > 1 && i < g->n; i++)
        memcpy((uint8_t *)copy + i * row_bytes, from + i * g->step * row_bytes, row_bytes);
    return g->step > 1 ? copy : from;
}

/* y, of which a row is n wide, has the gists' rows replaced by x, or x added to them. */
static void scatter(const struct gist_rows *g, const struct kernels *k, const float *x, uint32_t n,
                    bool add, float *y)
{
    for (uint32_t i = 0; i < g->n; i++) {
        float *to = y + ((size_t)g->first + (size_t)i * g->step) * n;

        if (add)
            k->add(to, x + (size_t)i * n, n);
        else
            memcpy(to, x + (size_t)i * n, n * sizeof(*x));
    }
}

static void project(const struct gist_rows *g, const struct kernels *k, struct workers *w,
                    const struct adapter_projection *p, const struct linear_input *in,
                    const struct gist_scratch *scratch, float *y)
{
    struct linear_input low = { .n_cols = p->a.n_rows, .form[KERNELS_FORM_F32] = scratch->low };
    struct linear_output own = { &p->w, scratch->own }, a = { &p->a, scratch->low },
                         b = { &p->b, scratch->high };

    if (p->w.data) {
        linear_run(k, w, in, g->n, &own, 1);
        scatter(g, k, scratch->own, p->w.n_rows, false, y);
    }
    if (!p->a.data)
        return;
    linear_run(k, w, in, g->n, &a, 1);
    linear_run(k, w, &low, g->n, &b, 1);
    scatter(g, k, scratch->high, p->b.n_rows, true, y);
}

void gist_rows_project(const struct gist_rows *g, const struct kernels *k, struct workers *w,
                       uint32_t layer, const struct linear_input *in,
                       const struct gist_scratch *scratch, float *const y[ADAPTER_QKV__N])
{
    size_t f32_bytes = linear_row_bytes(KERNELS_FORM_F32, in->n_cols);
    struct linear_input own = { .n_cols = in->n_cols };

    if (g->n == 0)
        return;
    own.form[KERNELS_FORM_F32] = gather(g, in->form[KERNELS_FORM_F32], f32_bytes, scratch->copy);
    own.form[KERNELS_FORM_BF16] =
        gather(g, in->form[KERNELS_FORM_BF16], linear_row_bytes(KERNELS_FORM_BF16, in->n_cols),
               (uint8_t *)scratch->copy + g->n * f32_bytes);
    for (unsigned i = 0; i < ADAPTER_QKV__N; i++)
        project(g, k, w, &g->adapter->layers[layer].p[i], &own, scratch, y[i]);
}
