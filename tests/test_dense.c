/* tests/test_dense.c - would catch: a product of f32 matrices that differs from its definition at
 * any number of rows, tiles or terms or for matrices that lie another way; one that reads or writes
 * past what it was given; exponentials of a row that are off, lose a NaN or touch what is behind
 * them; f16 that are widened to other numbers.
 *
 * The tolerance of a sum is that of its terms, each off by 2^-24 of the running sum at most, which
 * is at most the sum of their sizes.
 */
#include "engine/cpu/kernels.h"
#include "tests/support/counted.h"
#include "tests/support/fenced.h"
#include "tests/support/near.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct kernels *fast; /* the table under test */

static uint64_t seed = 0x9e3779b97f4a7c15u;

static float random_f32(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(seed >> 32) / 2147483648.0f;
}

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = random_f32();
}

/* --- products --------------------------------------------------------------------------------- */

/* How the three matrices lie: a as it is or turned, tiles of b and c one after the other or side by
 * side. */
struct shape {
    uint32_t n_rows, n_tiles, n_inner;
    bool turned, side_by_side;
    int by;
};

static void check_element(const struct kernels_dense *p, uint32_t i, uint32_t t, uint32_t j,
                          float was)
{
    double sum = 0, size = fabs((double)was);

    for (uint32_t k = 0; k < p->n_inner; k++) {
        double x = (double)p->a[i * p->a_row + k * p->a_col] *
                   (double)p->b[t * p->b_tile + k * p->b_row + j];

        sum += x;
        size += fabs(x);
    }
    sum = p->by ? (double)was + p->by * sum : sum;
    expect_that(near_within((double)p->c[i * p->c_row + t * p->c_tile + j], sum,
                            (p->n_inner + 4) * 0x1p-24 * size),
                "%s: %u rows, %u tiles, %u terms: row %u, tile %u, column %u", fast->name,
                p->n_rows, p->n_tiles, p->n_inner, i, t, j);
}

/* Each matrix ends at a page that nobody may touch. Gaps in c stay as they are. */
static void check_product(const struct shape *s)
{
    uint32_t m = s->n_rows, n = s->n_tiles * TILE_ROWS, gap = s->side_by_side ? 5 : 0;
    size_t c_len = s->side_by_side ? (size_t)m * (n + gap) - gap : (size_t)m * n;
    struct fenced a = fenced_new((size_t)m * s->n_inner * sizeof(float)),
                  b = fenced_new((size_t)n * s->n_inner * sizeof(float)),
                  c = fenced_new(c_len * sizeof(float));
    float *was = malloc(c_len * sizeof(*was));
    struct kernels_dense p = { .a = a.p,
                               .b = b.p,
                               .c = c.p,
                               .a_row = s->turned ? 1 : s->n_inner,
                               .a_col = s->turned ? m : 1,
                               .b_tile = s->side_by_side ? TILE_ROWS : TILE_ROWS * s->n_inner,
                               .b_row = s->side_by_side ? n : TILE_ROWS,
                               .c_tile = s->side_by_side ? TILE_ROWS : TILE_ROWS * m,
                               .c_row = s->side_by_side ? n + gap : TILE_ROWS,
                               .n_rows = m,
                               .n_tiles = s->n_tiles,
                               .n_inner = s->n_inner,
                               .by = s->by };

    fill(a.p, (size_t)m * s->n_inner);
    fill(b.p, (size_t)n * s->n_inner);
    fill(was, c_len);
    memcpy(c.p, was, c_len * sizeof(*was));
    fast->dense(&p);
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t t = 0; t < s->n_tiles; t++)
            for (uint32_t j = 0; j < TILE_ROWS; j++)
                check_element(&p, i, t, j, was[i * p.c_row + t * p.c_tile + j]);
    for (uint32_t i = 0; i + 1 < m; i++)
        assert_memory_equal(p.c + i * p.c_row + n, was + i * p.c_row + n,
                            (s->side_by_side ? gap : 0) * sizeof(float));
    fenced_free(&a);
    fenced_free(&b);
    fenced_free(&c);
    free(was);
}

static void equals_its_definition(void **state)
{
    static const uint32_t inner[] = { 1, 2, 15, 64, 256, 257, 520 };

    (void)state;
    for (uint32_t rows = 1; rows <= 27; rows++)
        for (uint32_t i = 0; i < sizeof(inner) / sizeof(*inner); i++) {
            struct shape s = { .n_rows = rows,
                               .n_tiles = 1 + (rows + i) % 5,
                               .n_inner = inner[i],
                               .turned = (rows + i) % 2,
                               .side_by_side = rows / 2 % 2,
                               .by = (int)((rows + i) % 3) - 1 };

            check_product(&s);
        }
}

/* A NaN of a row shows in that row, and nowhere else. */
static void keeps_rows_apart(void **state)
{
    float a[7 * 3], b[3 * TILE_ROWS], c[7 * TILE_ROWS];
    struct kernels_dense p = { .a = a,
                               .b = b,
                               .c = c,
                               .a_row = 3,
                               .a_col = 1,
                               .b_row = TILE_ROWS,
                               .c_row = TILE_ROWS,
                               .n_rows = 7,
                               .n_tiles = 1,
                               .n_inner = 3 };

    (void)state;
    for (uint32_t bad = 0; bad < 7; bad++) {
        fill(a, 7 * 3);
        fill(b, 3 * (size_t)TILE_ROWS);
        a[bad * 3 + 1] = NAN;
        fast->dense(&p);
        for (uint32_t i = 0; i < 7 * TILE_ROWS; i++)
            assert_true(!isnan(c[i]) == (i / TILE_ROWS != bad));
    }
}

/* --- rows ------------------------------------------------------------------------------------- */

static void check_soften(uint32_t n, float by)
{
    struct fenced f = fenced_new(n * sizeof(float));
    float *x = f.p, *was = malloc(n * sizeof(*was)), top, sum;
    double most = -INFINITY, all = 0;

    fill(x, n);
    for (uint32_t i = 0; i < n; i++) {
        x[i] *= by;
        most = (double)x[i] > most ? (double)x[i] : most;
    }
    memcpy(was, x, n * sizeof(*was));
    top = fast->soften(x, n, &sum);
    assert_true((double)top == most);
    for (uint32_t i = 0; i < n; i++) {
        double e = exp((double)was[i] - most);

        all += e;
        /* exp() of a float's difference, to 3e-7; what is below e^-87 may be 0. */
        expect_that(near_within((double)x[i], e, 3e-7 * e * (1 + most - (double)was[i]) + 2e-38),
                    "%s: element %u of %u: %g", fast->name, i, n, (double)x[i]);
    }
    assert_true(near_within((double)sum, all, 3e-6 * all));
    free(was);
    fenced_free(&f);
}

static void softens_rows(void **state)
{
    static const uint32_t sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 508, 512 };

    (void)state;
    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        check_soften(sizes[i], 1);
        check_soften(sizes[i], 30);
        check_soften(sizes[i], 300);
        check_soften(sizes[i], 0);
    }
}

/* Wherever it stands: a maximum may lose it. */
static void no_number_shows(void **state)
{
    static const float bad[] = { NAN, -NAN, INFINITY };
    float x[35], sum;

    (void)state;
    for (uint32_t n = 1; n <= 35; n++)
        for (uint32_t at = 0; at < n; at++)
            for (uint32_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                fill(x, n);
                x[at] = bad[i];
                (void)fast->soften(x, n, &sum);
                assert_true(isnan(sum));
            }
    x[0] = x[1] = -INFINITY;
    (void)fast->soften(x, 2, &sum);
    assert_true(isnan(sum));
    x[0] = -INFINITY;
    x[1] = 3;
    assert_true(fast->soften(x, 2, &sum) == 3);
    assert_true(sum == 1 && x[0] == 0 && x[1] == 1);
}

static void widens_all(void **state)
{
    struct fenced f = fenced_new(0x10000 * sizeof(uint16_t)),
                  r = fenced_new(0x10000 * sizeof(float));
    uint16_t *x = f.p;
    float *y = r.p;

    (void)state;
    for (uint32_t n = 0x10000 - 17; n <= 0x10000; n++) {
        uint16_t *from = x + 0x10000 - n;
        float *to = y + 0x10000 - n;

        for (uint32_t i = 0; i < n; i++)
            from[i] = (uint16_t)i;
        fast->widen_f16(from, n, to);
        for (uint32_t i = 0; i < n; i++) {
            float want = quant_f16_to_f32((uint16_t)i);

            assert_true(isnan(want) ? isnan(to[i]) : memcmp(&want, &to[i], sizeof(want)) == 0);
        }
    }
    fenced_free(&f);
    fenced_free(&r);
}

/* Names of tests tell which table failed. */
static int run_table(const char *name)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_its_definition),
        cmocka_unit_test(keeps_rows_apart),
        cmocka_unit_test(softens_rows),
        cmocka_unit_test(no_number_shows),
        cmocka_unit_test(widens_all),
    };

    if (kernels_pick(name, &fast) < 0)
        return 1;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
    int failed = 0;

    for (unsigned i = 0; kernels_name(i); i++)
        failed += run_table(kernels_name(i));
    return failed ? 1 : 0;
}
