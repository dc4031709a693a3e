/* tests/test_cuda_matvec.c - would catch: a product with a weight on the GPU that is not the CPU's,
 * for any type, shape or number of rows; a row whose bits depend on its neighbours or on the order
 * of blocks; a read or write past an end; a weight as bf16 that is not what its tile says.
 *
 * The scalar kernels are the reference. Tolerance: of the sum of |w x|, a few roundings of f32 in
 * another order than the CPU's; sums of a block are exact in both. */
#include "cuda/matvec.h"
#include "cuda/shim/shim.h"
#include "engine/cpu/kernels.h"
#include "tests/support/bf16.h"
#include "tests/support/counted.h"
#include "tests/support/cuda_mem.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 1e-6

static uint64_t seed = 88172645463325252ull;

static uint32_t random_u32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 11);
}

static float random_f32(void)
{
    return (float)(random_u32() & 0xffffff) / 8388608.0f - 1;
}

/* --- a weight, rows of x and what the CPU makes of them --------------------------------------- */

struct product {
    struct k_matvec a;  /* device pointers */
    uint8_t *tiles;     /* the host's */
    float *x;           /* (n_x, n_cols), as the product sees it */
    void *form;         /* the same as the product takes it */
    float *want, *most; /* (n_x, n_rows): the CPU's, and the sum of |w x| */
    size_t x_len;
};

/* Random bytes are valid in every format, but for the f16 fields. */
static void fill_block(enum quant type, uint8_t *b)
{
    static const size_t at[QUANT__N][2] = { [QUANT_Q6_K] = { 208, 208 },
                                            [QUANT_Q4_1] = { 0, 2 },
                                            [QUANT_Q5_1] = { 0, 2 },
                                            [QUANT_Q4_K] = { 0, 2 },
                                            [QUANT_Q5_K] = { 0, 2 } };
    float f = random_f32();
    uint32_t bits;

    for (uint32_t i = 0; i < quant_info(type)->block_bytes; i++)
        b[i] = (uint8_t)random_u32();
    memcpy(&bits, &f, sizeof(bits));
    if (type == QUANT_F32) {
        memcpy(b, &f, sizeof(f));
    } else if (type == QUANT_BF16) {
        memcpy(b, (uint8_t *)&bits + 2, 2);
    } else {
        for (int i = 0; i < 2; i++) {
            uint16_t h = quant_f32_to_f16(random_f32() * 0.05f);

            memcpy(b + at[type][i], &h, sizeof(h));
        }
    }
}

static uint8_t *make_tiles(enum quant type, uint32_t n_rows, uint32_t n_cols)
{
    size_t len = tile_len(type, n_cols), row = quant_row_bytes(type, n_cols);
    uint8_t *ret = calloc(tile_count(n_rows), len), *rows = malloc(TILE_ROWS * row);

    for (uint32_t r = 0; r < n_rows; r += TILE_ROWS) {
        const void *lanes[TILE_ROWS] = { NULL };

        for (uint32_t i = 0; i < TILE_ROWS && r + i < n_rows; i++) {
            for (size_t off = 0; off < row; off += quant_info(type)->block_bytes)
                fill_block(type, rows + i * row + off);
            lanes[i] = rows + i * row;
        }
        tile_pack(type, lanes, n_cols, ret + r / TILE_ROWS * len);
    }
    free(rows);
    return ret;
}

static void make_x(struct product *p, uint32_t n_x)
{
    size_t n = (size_t)n_x * p->a.n_cols;
    bool q8 = k_matvec_takes_q8(p->a.type);

    p->x = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        p->x[i] = random_f32() * 2;
    p->x_len = q8 ? n / 32 * sizeof(struct k_q8) : n * sizeof(float);
    p->form = malloc(p->x_len);
    memcpy(p->form, p->x, q8 ? 0 : p->x_len);
    if (q8)
        kernels_scalar.quantise(p->x, (uint32_t)n, p->form);
    for (size_t i = 0; q8 && i < n; i++) {
        const struct k_q8 *b = (const struct k_q8 *)p->form + i / 32;

        p->x[i] = b->d * b->q[i % 32];
    }
    p->a.n_x = n_x;
    p->a.x_stride = p->x_len / n_x;
    p->a.x = cuda_put(p->form, p->x_len);
}

static void compute(struct product *p)
{
    size_t n = (size_t)p->a.n_x * p->a.n_rows;
    float *w = malloc(p->a.n_cols * sizeof(*w));
    struct kernels_matmul m = { .type = (enum quant)p->a.type,
                                .w = p->tiles,
                                .tile_len = p->a.tile_len,
                                .n_rows = p->a.n_rows,
                                .n_cols = p->a.n_cols,
                                .x = p->form,
                                .x_row_bytes = p->a.x_stride,
                                .n_x = p->a.n_x,
                                .y_stride = p->a.n_rows };

    m.y = p->want = malloc(n * sizeof(float));
    p->most = malloc(n * sizeof(float));
    kernels_scalar.matmul[p->a.type](&m, 0, p->a.n_rows);
    for (uint32_t r = 0; r < p->a.n_rows; r++) {
        tile_dequantise_row((enum quant)p->a.type, p->tiles, r, p->a.n_cols, w);
        for (uint32_t t = 0; t < p->a.n_x; t++) {
            double sum = 0;

            for (uint32_t c = 0; c < p->a.n_cols; c++)
                sum += fabs((double)w[c] * (double)p->x[(size_t)t * p->a.n_cols + c]);
            p->most[(size_t)t * p->a.n_rows + r] = (float)sum;
        }
    }
    free(w);
}

static struct product product_new(enum quant type, uint32_t n_rows, uint32_t n_cols, uint32_t n_x)
{
    struct product p = { .a = { .type = type,
                                .tile_len = tile_len(type, n_cols),
                                .n_rows = n_rows,
                                .n_cols = n_cols,
                                .y_stride = n_rows } };

    p.tiles = make_tiles(type, n_rows, n_cols);
    p.a.w = cuda_put(p.tiles, tile_count(n_rows) * p.a.tile_len);
    make_x(&p, n_x);
    compute(&p);
    p.a.y = cuda_new((size_t)n_x * n_rows * sizeof(float));
    return p;
}

static void product_free(struct product *p)
{
    cuda_give((void *)(uintptr_t)p->a.w);
    cuda_give((void *)(uintptr_t)p->a.x);
    cuda_give(p->a.y);
    free(p->tiles);
    free(p->x);
    free(p->form);
    free(p->want);
    free(p->most);
}

/* By rows, as the kernel writes them; free it. */
static float *run(const struct product *p, const struct k_matvec *a)
{
    size_t len = (size_t)p->a.n_x * p->a.n_rows * sizeof(float);
    float *ret = malloc(len);

    assert_int_equal(k_matvec(NULL, a), 0);
    cuda_get(ret, a->y, len);
    return ret;
}

static void check(const struct product *p, const float *y)
{
    for (size_t i = 0; i < (size_t)p->a.n_x * p->a.n_rows; i++)
        expect_that(
            near_within((double)y[i], (double)p->want[i], TOLERANCE * (double)p->most[i] + 1e-30),
            "%s (%u, %u), %u rows: row %zu of x, %zu of w: %g, the CPU has %g",
            quant_info((enum quant)p->a.type)->name, p->a.n_rows, p->a.n_cols, p->a.n_x,
            i / p->a.n_rows, i % p->a.n_rows, (double)y[i], (double)p->want[i]);
}

/* In both orders of blocks: equal to the bit, and near the CPU's. */
static void check_product(enum quant type, uint32_t n_rows, uint32_t n_cols, uint32_t n_x)
{
    struct product p = product_new(type, n_rows, n_cols, n_x);
    float *y = run(&p, &p.a), *back;

    shim_set_order(true);
    back = run(&p, &p.a);
    shim_set_order(false);
    check(&p, y);
    assert_memory_equal(y, back, (size_t)n_x * n_rows * sizeof(float));
    free(y);
    free(back);
    product_free(&p);
}

static uint32_t block_cols(enum quant type)
{
    return quant_info(type)->block_cols;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void numbers_of_rows(void **state)
{
    static const uint32_t rows[] = { 1, 2, 15, 16, 17, 40 };

    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++)
        for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
            check_product(type, rows[i], 2 * block_cols(type), 1 + i);
}

static void numbers_of_x(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++)
        for (uint32_t n_x = 1; n_x <= K_MATVEC_ROWS; n_x++)
            check_product(type, 16, block_cols(type) == 1 ? 70 : block_cols(type), n_x);
}

static void numbers_of_columns(void **state)
{
    static const uint32_t odd[] = { 1, 2, 3, 7, 31, 33, 575 };

    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        uint32_t block = block_cols(type);

        for (unsigned i = 0; i < sizeof(odd) / sizeof(*odd) && block == 1; i++)
            check_product(type, 17, odd[i], 3);
        for (uint32_t n = 1; n <= (SANITIZED ? 3 : 19) && block > 1; n += n < 3 ? 1 : 4)
            check_product(type, 17, n * block, 2);
    }
}

/* Of models: more tiles than the launch has a border at, and columns for every warp. */
static void larger(void **state)
{
    (void)state;
    check_product(QUANT_Q8_0, SANITIZED ? 64 : 8320, 576, 1);
    check_product(QUANT_Q4_K, 64, SANITIZED ? 1024 : 14336, 1);
    check_product(QUANT_Q6_K, 64, SANITIZED ? 1024 : 4096, 8);
    check_product(QUANT_BF16, 64, SANITIZED ? 576 : 3584, 8);
}

/* A row has the same bits alone and among others, added to something, or in rows that lie apart. */
static void a_row_is_its_own(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        struct product p = product_new(type, 20, 2 * block_cols(type) + (block_cols(type) == 1), 5);
        float *all = run(&p, &p.a), one[20], apart[5 * 33];
        struct k_matvec a = p.a;

        a.n_x = 1;
        a.y = cuda_new(sizeof(one));
        for (uint32_t t = 0; t < 5; t++) {
            a.x = (const uint8_t *)p.a.x + t * p.a.x_stride;
            a.add = false;
            assert_int_equal(k_matvec(NULL, &a), 0);
            cuda_get(one, a.y, sizeof(one));
            assert_memory_equal(one, all + t * 20, sizeof(one));
            a.add = true;
            assert_int_equal(k_matvec(NULL, &a), 0);
            cuda_get(one, a.y, sizeof(one));
            for (int r = 0; r < 20; r++)
                assert_true(one[r] == 2 * all[t * 20 + (uint32_t)r]);
        }
        cuda_give(a.y);

        a = p.a;
        a.y = cuda_new(sizeof(apart));
        a.y_stride = 33;
        assert_int_equal(k_matvec(NULL, &a), 0);
        cuda_get(apart, a.y, sizeof(apart));
        for (int t = 0; t < 5; t++) {
            assert_memory_equal(apart + t * 33, all + t * 20, sizeof(one));
            assert_true(apart[t * 33 + 20] != apart[t * 33 + 20]); /* untouched */
        }
        cuda_give(a.y);
        free(all);
        product_free(&p);
    }
}

/* A row of x that is no number ends in NaN everywhere, and others do not notice. */
static void what_is_no_number(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        struct product p = product_new(type, 16, block_cols(type) == 1 ? 40 : block_cols(type), 3);
        float *good = run(&p, &p.a), *bad;

        if (k_matvec_takes_q8(type))
            ((struct k_q8 *)(uintptr_t)p.a.x)[p.a.n_cols / 32].d =
                ((struct k_q8 *)(uintptr_t)p.a.x)[p.a.n_cols / 32].s = NAN;
        else
            ((float *)(uintptr_t)p.a.x)[p.a.n_cols] = NAN;
        bad = run(&p, &p.a);
        for (int r = 0; r < 16; r++)
            assert_true(isnan(bad[16 + r]));
        assert_memory_equal(bad, good, 16 * sizeof(float));
        assert_memory_equal(bad + 32, good + 32, 16 * sizeof(float));
        free(good);
        free(bad);
        product_free(&p);
    }
}

/* To the bit, whichever rows are asked for; of the float types what is left over, too. */
static void as_bf16(void **state)
{
    static const uint32_t from[][2] = { { 0, 40 }, { 16, 40 }, { 16, 32 }, { 32, 33 } };

    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        struct product p =
            product_new(type, 40, block_cols(type) == 1 ? 37 : 3 * block_cols(type), 1);
        float *w = malloc(p.a.n_cols * sizeof(*w));

        for (unsigned i = 0; i < 4; i++) {
            uint32_t n = from[i][1] - from[i][0];
            size_t len = (size_t)n * p.a.n_cols * sizeof(uint16_t);
            bool parts = !k_matvec_takes_q8(type);
            uint16_t *got = malloc(2 * len), *to = cuda_new(2 * len), *low = to + len / 2;
            struct k_dequant a = { type,       p.a.w,      p.a.tile_len,
                                   p.a.n_rows, p.a.n_cols, from[i][0],
                                   from[i][1], to,         parts ? low : NULL };

            assert_int_equal(k_dequant(NULL, &a), 0);
            cuda_get(got, to, parts ? 2 * len : len);
            for (uint32_t r = 0; r < n; r++) {
                tile_dequantise_row(type, p.tiles, from[i][0] + r, p.a.n_cols, w);
                for (uint32_t c = 0; c < p.a.n_cols; c++) {
                    const uint16_t *high = got + (size_t)r * p.a.n_cols + c;

                    assert_int_equal(*high, bf16(w[c]));
                    if (parts)
                        assert_int_equal(high[len / 2], bf16(w[c] - of_bf16(*high)));
                }
            }
            cuda_give(to);
            free(got);
        }
        free(w);
        product_free(&p);
    }
}

static void refuses(void **state)
{
    struct k_matvec a = { .type = QUANT_Q8_0, .n_rows = 16, .n_cols = 32 };

    (void)state;
    assert_true(k_matvec(NULL, &a) < 0);
    a.n_x = K_MATVEC_ROWS + 1;
    assert_true(k_matvec(NULL, &a) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_rows),
        cmocka_unit_test(numbers_of_x),
        cmocka_unit_test(numbers_of_columns),
        cmocka_unit_test(larger),
        cmocka_unit_test(a_row_is_its_own),
        cmocka_unit_test(what_is_no_number),
        cmocka_unit_test(as_bf16),
        cmocka_unit_test(refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
