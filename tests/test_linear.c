/* tests/test_linear.c - would catch: rows of a product that no slice makes, or two do; a result
 * that depends on how many workers, matrices or activation rows there are; who is told of rows
 * before they are there, or of ones that begin in the middle of a block of 32. */
#include "engine/cpu/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COLS     40u
#define ROWS_MAX 20000u
#define X_MAX    12u
#define OUTS     3u

static const struct kernels *kernels;
static float x[X_MAX * COLS];

struct product {
    struct model_tensor w;
    float *tiles, *want, *y; /* y: (X_MAX, n_rows); a NaN where nothing was written */
    _Atomic uint8_t *told;   /* (n_rows) */
};

struct told {
    struct product *p;
    uint32_t n_out, n_x;
    _Atomic uint32_t bad;
};

static void product_init(struct product *p, uint32_t n_rows)
{
    size_t len = tile_len(QUANT_F32, COLS), n = tile_count(n_rows) * len / sizeof(float);
    struct kernels_matmul a = { .type = QUANT_F32,
                                .tile_len = len,
                                .n_rows = n_rows,
                                .n_cols = COLS,
                                .x = x,
                                .x_row_bytes = COLS * sizeof(float),
                                .n_x = X_MAX,
                                .y_stride = n_rows,
                                .ahead = kernels->ahead };

    p->tiles = aligned_alloc(64, (n * sizeof(float) + 63) & ~(size_t)63);
    p->want = malloc((size_t)X_MAX * n_rows * sizeof(float));
    p->y = malloc((size_t)X_MAX * n_rows * sizeof(float));
    p->told = malloc(n_rows);
    assert_true(p->tiles && p->want && p->y && p->told);
    for (size_t i = 0; i < n; i++)
        p->tiles[i] = (float)(int32_t)(i * 2654435761u + n_rows) * 0x1p-31f;
    p->w = (struct model_tensor){
        .data = p->tiles, .tile_len = len, .n_rows = n_rows, .n_cols = COLS, .type = QUANT_F32
    };
    a.w = p->tiles;
    a.y = p->want;
    kernels->matmul[QUANT_F32](&a, 0, n_rows);
}

static void product_fini(struct product *p)
{
    free(p->tiles);
    free(p->want);
    free(p->y);
    free((void *)p->told);
}

static bool made(const struct product *p, uint32_t n_x, uint32_t r0, uint32_t r1)
{
    for (uint32_t t = 0; t < n_x; t++)
        if (memcmp(p->y + (size_t)t * p->w.n_rows + r0, p->want + (size_t)t * p->w.n_rows + r0,
                   (r1 - r0) * sizeof(float)) != 0)
            return false;
    return true;
}

static void on_rows(void *arg, uint32_t r0, uint32_t r1)
{
    struct told *t = arg;

    if (r0 % 32 || r0 >= r1 || r1 > t->p->w.n_rows || (r1 % 32 && r1 != t->p->w.n_rows)) {
        atomic_fetch_add(&t->bad, 1);
        return;
    }
    for (uint32_t r = r0; r < r1; r++)
        atomic_fetch_add(&t->p->told[r], 1);
    for (uint32_t i = 0; i < t->n_out; i++)
        if (!made(&t->p[i], t->n_x, r0, r1))
            atomic_fetch_add(&t->bad, 1);
}

/* The first n_out products together. */
static void check(struct workers *w, struct product *p, uint32_t n_out, uint32_t n_x, bool then)
{
    struct linear_input in = { .form[KERNELS_FORM_F32] = x, .n_cols = COLS };
    struct told told = { .p = p, .n_out = n_out, .n_x = n_x };
    struct linear_output out[OUTS];

    for (uint32_t i = 0; i < n_out; i++) {
        memset(p[i].y, 0xff, (size_t)X_MAX * p[i].w.n_rows * sizeof(float));
        memset((void *)p[i].told, 0, p[i].w.n_rows);
        out[i] = (struct linear_output){ .w = &p[i].w, .y = p[i].y };
    }
    if (then)
        linear_run_then(kernels, w, &in, n_x, out, n_out, (struct linear_then){ on_rows, &told });
    else
        linear_run(kernels, w, &in, n_x, out, n_out);
    assert_int_equal(told.bad, 0);
    for (uint32_t i = 0; i < n_out; i++)
        assert_true(made(&p[i], n_x, 0, p[i].w.n_rows));
    for (uint32_t r = 0; then && r < p->w.n_rows; r++)
        assert_int_equal(p->told[r], 1);
}

static void each_way(struct product *p, uint32_t n_out, bool then)
{
    static const uint32_t workers[] = { 1, 2, 3, 5, 8 };

    for (size_t i = 0; i < sizeof(workers) / sizeof(workers[0]); i++) {
        struct workers *w;

        assert_int_equal(workers_open(workers[i], true, &w), 0);
        for (uint32_t n_x = 1; n_x <= X_MAX; n_x += n_x < 2 || n_x > 7 ? 1 : 3)
            check(w, p, n_out, n_x, then);
        workers_close(w);
    }
}

/* Of few tiles, of a last one that is not whole, of more than a worker's slices, of many. */
static const uint32_t sizes[] = { 1, 16, 17, 64, 100, 192, 576, 1536, 5000, ROWS_MAX };

static void alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct product p;

        product_init(&p, sizes[i]);
        each_way(&p, 1, false);
        each_way(&p, 1, true);
        product_fini(&p);
    }
}

static void of_several_sizes(void **state)
{
    static const uint32_t rows[][OUTS] = { { 576, 192, 192 }, { 17, 1, 333 }, { 48, 5000, 80 } };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct product p[OUTS];

        for (uint32_t k = 0; k < OUTS; k++)
            product_init(&p[k], rows[i][k]);
        each_way(p, 2, false);
        each_way(p, OUTS, false);
        for (uint32_t k = 0; k < OUTS; k++)
            product_fini(&p[k]);
    }
}

static void side_by_side(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct product p[2];

        product_init(&p[0], sizes[i]);
        product_init(&p[1], sizes[i]);
        each_way(p, 2, true);
        product_fini(&p[0]);
        product_fini(&p[1]);
    }
}

static int pick(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < X_MAX * COLS; i++)
        x[i] = (float)(int32_t)(i * 2246822519u) * 0x1p-31f;
    return kernels_pick("auto", &kernels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone),
        cmocka_unit_test(of_several_sizes),
        cmocka_unit_test(side_by_side),
    };

    return cmocka_run_group_tests(tests, pick, NULL);
}
