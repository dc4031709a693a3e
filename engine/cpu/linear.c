/* engine/cpu/linear.c - products cut into slices of weight rows, and handed to the workers.
 *
 * A slice is some rows of a matrix times all rows of activations: so a weight is read by one
 * worker, once, and no two workers write to one output. All that is decided here is where slices
 * begin; no kernel's result depends on it (engine/cpu/kernels.h).
 */
#include "engine/cpu/linear.h"

#include <assert.h>

#define OUT_MAX 3u

/* Weight bytes of a slice: small enough that a slow core is left behind by little; large enough
 * that handing out slices costs nothing. */
#define SLICE_BYTES (64u * 1024)

/* With so many activation rows it is they that a slice goes over. As long as they stay in the
 * second-level cache the least that a kernel takes at a time is enough, a pair of tiles; else more,
 * so that they are brought in less often. */
#define MANY_BYTES       (1280u * 1024)
#define SLICE_PAIRS      1u
#define SLICE_PAIRS_LONG 4u

/* Slices stand worker by worker, each with an equal share of every matrix, so that all end at the
 * same time where they are equally fast. The last ones of a share are ever smaller, for who is done
 * before the others: a whole one would be a tenth of a small matrix.
 *
 *     worker 0                                      worker 1
 *     | q  q  q | k  k | v  v  v v|                 | q  q  q | k  k | v  v  v v|
 */
struct part {
    uint32_t len, n_longer;     /* units of a share; so many have one more */
    uint32_t chunk;             /* units of a slice */
    uint32_t whole[2], rest[2]; /* of a share, and of one that is longer: slices of a chunk, and the
                                 * units that the last ones have, less than two chunks */
    bool last;
};

struct job {
    struct kernels_matmul a[OUT_MAX];
    void (*fn[OUT_MAX])(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
    uint32_t n_out;

    uint32_t n_workers, unit_rows;
    struct part parts[OUT_MAX];                 /* one a matrix; with `then` one for all */
    uint32_t first_slice[OUT_MAX + 1], n_parts; /* of each worker's */
    struct linear_then then;
};

/* A row of bf16 has an even number of them: kernels take two at a time. */
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

/* Matrices of one layer may have types of their own, so it can be more than one. */
unsigned linear_forms(const struct kernels *k, const struct linear_output *out, uint32_t n_out)
{
    unsigned forms = 0;

    for (uint32_t i = 0; i < n_out; i++)
        forms |= 1u << k->form[out[i].w->type];
    return forms;
}

/* --- slices ----------------------------------------------------------------------------------- */

/* Where slice i of a share begins: the rest is halved again and again. Of all parts but the last
 * slices stay whole: who is done with those before the others has the next part to go on with. */
static uint32_t slice_at(const struct part *p, bool longer, uint32_t i)
{
    uint32_t whole = p->whole[longer], len = p->len + longer;

    if (!p->last)
        return i * p->chunk < len ? i * p->chunk : len;
    if (i <= whole)
        return i * p->chunk;
    return i - whole < 32 ? len - (p->rest[longer] >> (i - whole)) : len;
}

/* As many as a longer share has, for every share, so that a slice's number divided by this is its
 * worker. In a shorter share the last one may be empty. */
static uint32_t count_slices(const struct part *p)
{
    bool longer = p->n_longer > 0;
    uint32_t n = p->whole[longer];

    if (!p->last)
        return (p->len + longer + p->chunk - 1) / p->chunk;
    for (uint32_t rest = p->rest[longer]; rest > 0; rest >>= 1)
        n++;
    return n;
}

/* Slices are numbered share by share, all shares with equally many: so the range that workers_run
 * gives a worker is one share of every matrix. Who takes another's slice computes what that one
 * would have. */
static void run_slice(void *arg, uint32_t slice, uint32_t worker)
{
    const struct job *j = arg;
    uint32_t each = j->first_slice[j->n_parts], of = slice / each, i = 0, begin, r0, r1;
    const struct part *p;
    bool longer;

    (void)worker;
    slice -= of * each;
    while (slice >= j->first_slice[i + 1])
        i++;
    slice -= j->first_slice[i];
    p = &j->parts[i];
    if (i % 2) /* or the first workers would have all the longer shares */
        of = j->n_workers - 1 - of;
    longer = of < p->n_longer;
    begin = of * p->len + (longer ? of : p->n_longer);
    r0 = (begin + slice_at(p, longer, slice)) * j->unit_rows;
    r1 = (begin + slice_at(p, longer, slice + 1)) * j->unit_rows;
    if (r1 > j->a[i].n_rows)
        r1 = j->a[i].n_rows;
    if (r0 >= r1)
        return;
    if (!j->then.fn) {
        j->fn[i](&j->a[i], r0, r1);
        return;
    }
    for (i = 0; i < j->n_out; i++)
        j->fn[i](&j->a[i], r0, r1);
    j->then.fn(j->then.arg, r0, r1);
}

/* tile_bytes: of weights that a tile of rows has. n_rows of a matrix in units, which are tiles, or
 * pairs of tiles where kernels take two. */
static struct part make_part(const struct job *j, uint32_t n_rows, size_t tile_bytes,
                             size_t x_bytes)
{
    uint32_t unit_tiles = j->unit_rows / TILE_ROWS;
    uint32_t n_units = (n_rows + j->unit_rows - 1) / j->unit_rows;
    uint32_t fair = n_units / (4 * j->n_workers); /* some slices for each worker */
    struct part p = { .len = n_units / j->n_workers, .n_longer = n_units % j->n_workers };

    p.chunk = (uint32_t)(SLICE_BYTES / (tile_bytes * unit_tiles));
    if (j->a[0].n_x >= LINEAR_MANY)
        p.chunk = x_bytes > MANY_BYTES ? SLICE_PAIRS_LONG : SLICE_PAIRS;
    /* A small matrix in whole chunks would be done by some of the workers alone. */
    if (p.chunk > fair)
        p.chunk = fair;
    if (p.chunk == 0)
        p.chunk = 1;
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t len = p.len + i;

        p.whole[i] = len < p.chunk ? 0 : len / p.chunk - 1;
        p.rest[i] = len - p.whole[i] * p.chunk;
    }
    return p;
}

/* With `then` the matrices are one part: a slice is the same rows of each of them, so its bytes are
 * the sum of theirs. */
static void cut(struct job *j, const struct linear_output *out, size_t x_bytes)
{
    /* then is told rows by 32, as int8 activations come in blocks of 32. */
    bool pairs = j->then.fn || j->a[0].n_x >= LINEAR_MANY;
    size_t tile_bytes = 0;

    j->unit_rows = (pairs ? 2 : 1) * TILE_ROWS;
    j->n_parts = j->then.fn ? 1 : j->n_out;
    for (uint32_t i = 0; i < j->n_out; i++) {
        tile_bytes = (j->then.fn ? tile_bytes : 0) + out[i].w->tile_len;
        if (!j->then.fn || i + 1 == j->n_out)
            j->parts[j->then.fn ? 0 : i] = make_part(j, out[i].w->n_rows, tile_bytes, x_bytes);
    }
    j->parts[j->n_parts - 1].last = true;
    for (uint32_t i = 0; i < j->n_parts; i++)
        j->first_slice[i + 1] = j->first_slice[i] + count_slices(&j->parts[i]);
}

/* --- products --------------------------------------------------------------------------------- */

void linear_run(const struct kernels *k, struct workers *w, const struct linear_input *in,
                uint32_t n_x, const struct linear_output *out, uint32_t n_out)
{
    linear_run_then(k, w, in, n_x, out, n_out, (struct linear_then){ NULL, NULL });
}

void linear_run_then(const struct kernels *k, struct workers *w, const struct linear_input *in,
                     uint32_t n_x, const struct linear_output *out, uint32_t n_out,
                     struct linear_then then)
{
    struct job j = { .n_out = n_out, .n_workers = workers_n(w), .then = then };
    size_t x_bytes = 0;

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
        assert(t->n_cols == in->n_cols && (!then.fn || t->n_rows == out[0].w->n_rows));
        j.fn[i] = k->matmul[t->type];
        if (n_x * row_bytes > x_bytes)
            x_bytes = n_x * row_bytes;
    }
    cut(&j, out, x_bytes);
    workers_run(w, run_slice, &j, j.n_workers * j.first_slice[j.n_parts]);
}
