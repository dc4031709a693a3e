/* engine/cpu/head.c - see engine/cpu/head.h for why int8 activations go through twice.
 *
 * Two rows of int8 for each output make 2 n rows of logits in h->both, whose pairs are added while
 * the worker that made them has them in its cache (add_parts).
 */
#include "engine/cpu/head.h"

#include "engine/cpu/linear.h"
#include "engine/file/stream.h"

#include <string.h>

/* Some rows of x that are to be put into another form. */
struct convert {
    const struct head *h;
    const float *x;
    enum kernels_form form;
};

/* Row 2 t is x to 8 bits, row 2 t + 1 what those leave over. */
static void quantise_twice(const struct head *h, const float *x, uint32_t t)
{
    uint32_t n = h->m->n_embd, n_blocks = n / 32;
    float *rest = h->rest + (size_t)t * n;
    struct kernels_q8 *q =
        (struct kernels_q8 *)h->forms[KERNELS_FORM_Q8] + 2 * (size_t)t * n_blocks;

    h->k->quantise(x, n, q);
    for (uint32_t c = 0; c < n; c++)
        rest[c] = x[c] - q[c / 32].d * q[c / 32].q[c % 32];
    h->k->quantise(rest, n, q + n_blocks);
}

static void convert_row(void *arg, uint32_t t, uint32_t worker)
{
    const struct convert *c = arg;
    size_t n = c->h->m->n_embd;

    (void)worker;
    if (c->form == KERNELS_FORM_Q8)
        quantise_twice(c->h, c->x + t * n, t);
    else
        c->h->k->to_bf16(c->x + t * n, (uint32_t)n,
                         (uint16_t *)c->h->forms[KERNELS_FORM_BF16] + t * n);
}

/* Logits from `row` on of n outputs, whose two parts are in h->both, go to `to`. */
struct sum {
    const struct head *h;
    uint32_t n, row;
    float *to;
};

/* For matrix rows [r0, r1) of what comes by now. Copied and then added to, with the kernel that
 * adds everywhere else. */
static void add_parts(void *arg, uint32_t r0, uint32_t r1)
{
    const struct sum *s = arg;
    size_t n = s->h->m->n_vocab, at = s->row + r0;

    for (uint32_t t = 0; t < s->n; t++) {
        float *to = s->to + t * n + at;
        const float *from = s->h->both + 2 * t * n + at;

        memcpy(to, from, (r1 - r0) * sizeof(*to));
        s->h->k->add(to, from + n, r1 - r0);
    }
}

/* As a whole, or slice by slice as the matrix comes by: a row of it is the same chain of sums in
 * either. sum: of the n rows of input, two by two; NULL: they are not to be added. */
static int project(const struct head *h, const float *x, uint32_t n, float *to, struct sum *sum)
{
    const struct model *m = h->m;
    struct model_tensor part = m->output;
    struct linear_output out = { &part, to, 0, m->n_vocab };
    struct linear_input in = { .n_cols = m->n_embd };
    struct linear_then then = { sum ? add_parts : NULL, sum };

    memcpy(in.form, h->forms, sizeof(in.form));
    in.form[KERNELS_FORM_F32] = x;
    if (!m->stream || stream_keeps_output(m->stream)) {
        linear_run_then(h->k, h->w, &in, n, &out, 1, then);
        return 0;
    }
    for (uint32_t row = 0; row < m->n_vocab; row += part.n_rows) {
        int r = stream_output(m->stream, row, &part);

        if (r < 0)
            return r;
        out.y = to + row;
        if (sum)
            sum->row = row;
        linear_run_then(h->k, h->w, &in, n, &out, 1, then);
    }
    return 0;
}

/* f32 and bf16 lose nothing that has to be made up for, and go in one product, whatever n is. int8
 * goes by max_rows, so that h->both stays small. */
int head_logits(const struct head *h, const float *x, uint32_t n, float *ret)
{
    size_t n_embd = h->m->n_embd, n_vocab = h->m->n_vocab;
    struct convert c = { h, x, h->k->form[h->m->output.type] };
    int e = 0;

    if (c.form != KERNELS_FORM_Q8) {
        if (c.form == KERNELS_FORM_BF16)
            workers_run(h->w, convert_row, &c, n);
        return project(h, x, n, ret, NULL);
    }
    for (uint32_t at = 0, some; at < n && e == 0; at += some) {
        struct sum sum = { h, 0, 0, ret + at * n_vocab };

        some = n - at < h->max_rows ? n - at : h->max_rows;
        sum.n = some;
        c.x = x + at * n_embd;
        workers_run(h->w, convert_row, &c, some);
        e = project(h, c.x, 2 * some, h->both, &sum);
    }
    return e;
}
