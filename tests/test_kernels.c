/* Would catch: a fast product that differs from its plain twin, or from the definition of the
 * weight format; one that reads past its rows, writes outside its range, or whose result depends on
 * how the work was cut; vector kernels that are wrong at odd lengths or at the ends of the number
 * range.
 *
 * Tolerances. A product adds the same exact integers of the same blocks in another order: each of
 * the n additions is off by at most 2^-24 of the running sum, which is at most the largest weight
 * times the sum of |x|. Bound used: (n + 8) * 2^-23 of that, n the number of terms. Activations are
 * such that their bf16 form is exact.
 */
#include "engine/cpu/kernels.h"
#include "engine/cpu/linear.h"
#include "tests/support/counted.h"
#include "tests/support/fenced.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct kernels *fast; /* of the tables that this CPU has, the one under test */
static const struct kernels *const plain = &kernels_scalar;

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint32_t random_u32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}

static float random_f32(float by)
{
    return ((float)random_u32() / 2147483648.0f - 1) * by;
}

/* --- weights ---------------------------------------------------------------------------------- */

enum fill { FILL_RANDOM, FILL_ZERO, FILL_DENORMAL, FILL_HUGE, FILL_EXTREME_BYTES, FILL__N };

static uint16_t random_scale(enum fill fill)
{
    switch (fill) {
    case FILL_ZERO:
        return 0;
    case FILL_DENORMAL:
        return (uint16_t)(random_u32() % 64 | (random_u32() & 0x8000));
    case FILL_HUGE:
        return quant_f32_to_f16(random_f32(60000));
    default:
        return quant_f32_to_f16(random_f32(0.05f));
    }
}

static void put_u16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof(v));
}

static float random_weight(enum fill fill)
{
    switch (fill) {
    case FILL_ZERO:
        return 0;
    case FILL_DENORMAL:
        return random_f32(1e-39f);
    case FILL_HUGE:
        return random_f32(60000);
    default:
        return random_f32(0.1f);
    }
}

static bool has_min(enum quant type)
{
    return type == QUANT_Q4_1 || type == QUANT_Q5_1 || type == QUANT_Q4_K || type == QUANT_Q5_K;
}

/* Where a block's scale is; its minimum, if it has one, is behind it. */
static size_t scale_off(enum quant type)
{
    return type == QUANT_Q6_K ? offsetof(struct quant_q6_k, d) : 0;
}

/* Random bytes are valid in every block format but for the f16 fields, which are set. */
static void fill_block(enum quant type, enum fill fill, uint8_t *b)
{
    uint32_t len = quant_info(type)->block_bytes, bits;
    float f = random_weight(fill);

    for (uint32_t i = 0; i < len; i++)
        b[i] =
            fill == FILL_EXTREME_BYTES ? (random_u32() & 1 ? 0x80 : 0xff) : (uint8_t)random_u32();
    switch (type) {
    case QUANT_F32:
        memcpy(b, &f, 4);
        break;
    case QUANT_F16:
        put_u16(b, quant_f32_to_f16(f));
        break;
    case QUANT_BF16:
        memcpy(&bits, &f, 4);
        put_u16(b, (uint16_t)(bits >> 16));
        break;
    default:
        put_u16(b + scale_off(type), random_scale(fill));
        if (has_min(type))
            put_u16(b + 2, random_scale(fill));
    }
}

/* --- a product, with everything fenced -------------------------------------------------------- */

struct product {
    enum quant type;
    uint32_t n_rows, n_cols, n_x;
    uint8_t *rows; /* the weight as a file has it */
    size_t row_bytes;
    struct fenced w, x[KERNELS_FORM__N], y[2];
    float *x_values; /* (n_x, n_cols): what the kernel sees */
    struct kernels_matmul a;
};

static float to_bf16(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, 4);
    bits &= 0xffff0000;
    memcpy(&f, &bits, 4);
    return f;
}

static void fill_q8(struct product *p)
{
    struct kernels_q8 *q = p->x[KERNELS_FORM_Q8].p;
    size_t n = (size_t)p->n_x * p->n_cols;

    plain->quantise(p->x_values, (uint32_t)n, q);
    for (size_t i = 0; i < n; i++)
        p->x_values[i] = q[i / 32].d * q[i / 32].q[i % 32];
}

static void fill_bf16(struct product *p)
{
    uint16_t *to = p->x[KERNELS_FORM_BF16].p;
    const uint16_t *halves = (const uint16_t *)(const void *)p->x_values;
    uint32_t width = (p->n_cols + 1) / 2 * 2;

    for (uint32_t t = 0; t < p->n_x; t++) {
        for (uint32_t c = 0; c < width; c++)
            to[t * width + c] = c < p->n_cols ? halves[2 * ((size_t)t * p->n_cols + c) + 1] : 0;
    }
}

/* Values that all forms in use hold exactly. */
static void fill_x(struct product *p, float by)
{
    size_t n = (size_t)p->n_x * p->n_cols;

    p->x_values = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        p->x_values[i] = to_bf16(random_f32(by));
    for (enum kernels_form f = 0; f < KERNELS_FORM__N; f++)
        p->x[f] = fenced_new(p->n_x * linear_row_bytes(f, p->n_cols));
    if (plain->form[p->type] == KERNELS_FORM_Q8) {
        fill_q8(p);
    } else {
        memcpy(p->x[KERNELS_FORM_F32].p, p->x_values, n * sizeof(float));
        fill_bf16(p);
    }
}

static void pack(struct product *p)
{
    size_t len = tile_len(p->type, p->n_cols);

    for (uint32_t r = 0; r < p->n_rows; r += TILE_ROWS) {
        const void *lanes[TILE_ROWS] = { NULL };

        for (uint32_t i = 0; i < TILE_ROWS && r + i < p->n_rows; i++)
            lanes[i] = p->rows + (r + i) * p->row_bytes;
        tile_pack(p->type, lanes, p->n_cols, (uint8_t *)p->w.p + r / TILE_ROWS * len);
    }
}

static void product_init(struct product *p, enum quant type, enum fill fill, uint32_t n_rows,
                         uint32_t n_cols, uint32_t n_x)
{
    size_t block = quant_info(type)->block_bytes, y_bytes = sizeof(float) * n_rows * n_x;

    *p = (struct product){ .type = type, .n_rows = n_rows, .n_cols = n_cols, .n_x = n_x };
    p->row_bytes = quant_row_bytes(type, n_cols);
    p->rows = malloc(n_rows * p->row_bytes);
    for (size_t off = 0; off < n_rows * p->row_bytes; off += block)
        fill_block(type, fill, p->rows + off);
    p->w = fenced_new(tile_count(n_rows) * tile_len(type, n_cols));
    pack(p);
    fill_x(p, fill == FILL_HUGE ? 1e4f : 2);
    for (int i = 0; i < 2; i++) {
        p->y[i] = fenced_new(y_bytes);
        memset(p->y[i].p, 0x5a, y_bytes);
    }
    p->a = (struct kernels_matmul){ .type = type,
                                    .w = p->w.p,
                                    .tile_len = tile_len(type, n_cols),
                                    .n_rows = n_rows,
                                    .n_cols = n_cols,
                                    .n_x = n_x,
                                    .y_stride = n_rows };
}

static void product_fini(struct product *p)
{
    fenced_free(&p->w);
    fenced_free(&p->y[0]);
    fenced_free(&p->y[1]);
    for (enum kernels_form f = 0; f < KERNELS_FORM__N; f++)
        fenced_free(&p->x[f]);
    free(p->rows);
    free(p->x_values);
}

/* The arguments as table k wants them. */
static struct kernels_matmul arguments(const struct product *p, const struct kernels *k, float *y)
{
    struct kernels_matmul a = p->a;

    a.x = p->x[k->form[p->type]].p;
    a.x_row_bytes = linear_row_bytes(k->form[p->type], p->n_cols);
    a.y = y;
    a.ahead = k->ahead;
    return a;
}

static const float *product_run(struct product *p, const struct kernels *k, int to)
{
    struct kernels_matmul a = arguments(p, k, p->y[to].p);

    k->matmul[p->type](&a, 0, p->n_rows);
    return a.y;
}

/* y of table k, whose weights are w. */
static void check_element(const struct product *p, const struct kernels *k, const float *w,
                          uint32_t r, uint32_t t, float y)
{
    uint32_t n_terms = plain->form[p->type] == KERNELS_FORM_Q8 ? p->n_cols / 16 : p->n_cols;
    const float *x = p->x_values + (size_t)t * p->n_cols;
    double truth = 0, sum_x = 0, most = 0, bound;

    for (uint32_t c = 0; c < p->n_cols; c++) {
        truth += (double)w[c] * x[c];
        sum_x += fabs((double)x[c]);
        most = fmax(most, fabs((double)w[c]));
    }
    bound = (n_terms + 8) * 0x1p-23 * most * sum_x + 1e-38;
    if (k->form[p->type] == KERNELS_FORM_BF16) /* denormal weights and products are zeros there */
        bound += 0x1p-126 * (sum_x + n_terms);
    expect_that(fabs((double)y - truth) <= bound,
                "%s, %s (%u x %u, %u rows of x): row %u, x %u: %.9g instead of %.9g, bound %.3g",
                k->name, quant_info(p->type)->name, p->n_rows, p->n_cols, p->n_x, r, t, y, truth,
                bound);
}

/* The values of row r as table k has them: to the nearest bf16 where it makes f16 that. */
static void weights_of(const struct product *p, const struct kernels *k, uint32_t r, float *ret)
{
    quant_dequantise_row(p->type, p->rows + r * p->row_bytes, p->n_cols, ret);
    for (uint32_t c = 0;
         p->type == QUANT_F16 && k->form[QUANT_F16] == KERNELS_FORM_BF16 && c < p->n_cols; c++) {
        uint32_t bits;

        memcpy(&bits, &ret[c], 4);
        bits += 0x7fff + (bits >> 16 & 1);
        memcpy(&ret[c], &bits, 4);
        ret[c] = to_bf16(ret[c]);
    }
}

static void check_product(enum quant type, enum fill fill, uint32_t n_rows, uint32_t n_cols,
                          uint32_t n_x)
{
    struct product p;
    const float *y0, *y1;
    float *w0 = malloc(n_cols * sizeof(*w0)), *w1 = malloc(n_cols * sizeof(*w1));

    product_init(&p, type, fill, n_rows, n_cols, n_x);
    y0 = product_run(&p, plain, 0);
    y1 = product_run(&p, fast, 1);
    for (uint32_t r = 0; r < n_rows; r++) {
        weights_of(&p, plain, r, w0);
        weights_of(&p, fast, r, w1);
        for (uint32_t t = 0; t < n_x; t++) {
            check_element(&p, plain, w0, r, t, y0[t * n_rows + r]);
            check_element(&p, fast, w1, r, t, y1[t * n_rows + r]);
        }
    }
    product_fini(&p);
    free(w0);
    free(w1);
}

static uint32_t block_cols(enum quant type)
{
    return quant_info(type)->block_cols;
}

static void test_matmul_rows(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        for (uint32_t n_x = 1; n_x <= 67; n_x++)
            check_product(type, FILL_RANDOM, 19, block_cols(type) < 256 ? 96 : 256, n_x);
        for (uint32_t n_rows = 1; n_rows <= 34; n_rows++) {
            check_product(type, FILL_RANDOM, n_rows, 256, 1);
            check_product(type, FILL_RANDOM, n_rows, 256, 10);
        }
        check_product(type, FILL_RANDOM, 133, 512, 1);
        check_product(type, FILL_RANDOM, 133, 512, 3);
    }
}

/* Columns around chunks (1024, 2048), and for floats any number. */
static void test_matmul_cols(void **state)
{
    static const uint32_t odd[] = { 1, 3, 7, 8, 9, 31, 33, 575 };

    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        uint32_t unit = block_cols(type) == 1 ? 32 : block_cols(type);

        for (uint32_t n_cols = unit; n_cols <= 5 * unit; n_cols += unit)
            check_product(type, FILL_RANDOM, 9, n_cols, 5);
        for (uint32_t n_cols = 1024 - unit; n_cols <= 1024 + unit; n_cols += unit)
            check_product(type, FILL_RANDOM, 9, n_cols, 11);
        for (uint32_t n_cols = 2048 - unit; n_cols <= 2048 + unit; n_cols += unit)
            check_product(type, FILL_RANDOM, 9, n_cols, 11);
        for (size_t i = 0; block_cols(type) == 1 && i < sizeof(odd) / sizeof(odd[0]); i++) {
            check_product(type, FILL_RANDOM, 9, odd[i], 4);
            check_product(type, FILL_RANDOM, 3, odd[i], 1);
        }
    }
}

static void test_matmul_adversarial(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        for (enum fill fill = 0; fill < FILL__N; fill++) {
            check_product(type, fill, 17, 512, 1);
            check_product(type, fill, 17, 512, 11);
        }
    }
}

/* All bytes of the weight the same, its scales 1, and every activation at one of its ends. */
static void make_extreme(struct product *p, uint8_t byte)
{
    struct kernels_q8 *x = p->x[KERNELS_FORM_Q8].p;
    size_t block = quant_info(p->type)->block_bytes;

    memset(p->rows, byte, p->n_rows * p->row_bytes);
    for (uint8_t *b = p->rows; b < p->rows + p->n_rows * p->row_bytes; b += block) {
        put_u16(b + scale_off(p->type), 0x3c00);
        if (has_min(p->type))
            put_u16(b + 2, 0);
    }
    pack(p);
    for (uint32_t i = 0; i < p->n_x * p->n_cols / 32; i++) {
        int8_t q = i % 2 ? 127 : -127;

        memset(x[i].q, q, 32);
        x[i].d = 1;
        x[i].s = (float)(32 * q);
        x[i].sum[0] = x[i].sum[1] = (int16_t)(16 * q);
    }
}

/* Integer sums at their largest. */
static void test_matmul_saturation(void **state)
{
    static const uint8_t bytes[] = { 0x00, 0xff, 0x80, 0x7f, 0xf0, 0x0f };

    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        if (plain->form[type] != KERNELS_FORM_Q8)
            continue;
        for (size_t k = 0; k < sizeof(bytes); k++) {
            struct product p;
            const float *y0, *y1;

            product_init(&p, type, FILL_RANDOM, 8, 256, 11);
            make_extreme(&p, bytes[k]);
            y0 = product_run(&p, plain, 0);
            y1 = product_run(&p, fast, 1);
            for (int i = 0; i < 8 * 11; i++)
                assert_true(fabsf(y0[i] - y1[i]) <= 1e-6f * 127 * 256 * 255 * 128);
            /* All of it is integers, and small enough for f32 but in Q6_K. */
            if (type != QUANT_Q6_K)
                assert_memory_equal(y0, y1, sizeof(float) * 8 * 11);
            product_fini(&p);
        }
    }
}

/* Heads, feed-forwards and hidden sizes of 8B and Qwen2 7B models; some rows of each. */
static void test_matmul_large(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        check_product(type, FILL_RANDOM, 24, 4096, 6);
        check_product(type, FILL_RANDOM, 16, 14336, 5);
        check_product(type, FILL_RANDOM, 16, 18944, 1);
        check_product(type, FILL_RANDOM, 9, 3584, 40);
    }
}

/* Any cut of activation rows and of tiles gives the same bits. */
static void check_split(struct product *p, const float *whole, uint32_t step_x, uint32_t step_r)
{
    float *y = p->y[1].p;

    memset(y, 0x5a, sizeof(float) * p->n_rows * p->n_x);
    for (uint32_t t = 0; t < p->n_x; t += step_x) {
        struct kernels_matmul a = arguments(p, fast, y + (size_t)t * p->n_rows);

        a.x = (const uint8_t *)a.x + t * a.x_row_bytes;
        a.n_x = p->n_x - t < step_x ? p->n_x - t : step_x;
        for (uint32_t r = 0; r < p->n_rows; r += step_r)
            fast->matmul[p->type](&a, r, p->n_rows - r < step_r ? p->n_rows : r + step_r);
    }
    assert_memory_equal(whole, y, sizeof(float) * p->n_rows * p->n_x);
}

static void test_matmul_split(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        struct product p;
        const float *whole;

        product_init(&p, type, FILL_RANDOM, 107, 1280, 19);
        whole = product_run(&p, fast, 0);
        for (uint32_t step_x = 1; step_x <= p.n_x; step_x++) {
            for (uint32_t step_r = TILE_ROWS; step_r <= p.n_rows; step_r += 2 * TILE_ROWS)
                check_split(&p, whole, step_x, step_r);
        }
        product_fini(&p);
    }
}

static void test_matmul_writes_its_range_only(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++) {
        for (uint32_t n_x = 1; n_x <= 13; n_x += 4) {
            struct product p;
            struct kernels_matmul a;
            const uint32_t *y;

            product_init(&p, type, FILL_RANDOM, 90, 256, n_x);
            a = arguments(&p, fast, p.y[0].p);
            fast->matmul[type](&a, 16, 64);
            y = p.y[0].p;
            for (uint32_t t = 0; t < n_x; t++) {
                for (uint32_t r = 0; r < p.n_rows; r++)
                    assert_int_equal(y[t * p.n_rows + r] == 0x5a5a5a5a, r < 16 || r >= 64);
            }
            product_fini(&p);
        }
    }
}

/* Against the rounding of the integer that the bits are. */
static void test_to_bf16(void **state)
{
    static const uint32_t lengths[] = { 1, 2, 7, 16, 17, 33, 576 };

    (void)state;
    if (!fast->to_bf16)
        skip();
    for (size_t k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
        uint32_t n = lengths[k], width = (n + 1) / 2 * 2;
        struct fenced x = fenced_new(n * 4), y = fenced_new(width * 2);
        const uint16_t *got = y.p;

        for (uint32_t i = 0; i < n; i++)
            ((float *)x.p)[i] = random_f32(i % 3 ? 1 : 1e30f);
        memset(y.p, 0x5a, width * 2);
        fast->to_bf16(x.p, n, y.p);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t bits = ((uint32_t *)x.p)[i];

            assert_int_equal(got[i], (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        }
        assert_int_equal(n % 2 ? got[n] : 0, 0);
        fenced_free(&x);
        fenced_free(&y);
    }
}

static void test_quantise(void **state)
{
    static const float by[] = { 1, 0, 1e-45f, 1e-40f, 1e-37f, 1e-30f, 1e30f, 3e38f, 127, 0.5f };
    float x[64];
    struct kernels_q8 a[2], b[2];

    (void)state;
    for (size_t k = 0; k < sizeof(by) / sizeof(by[0]); k++) {
        for (int n = 0; n < 200; n++) {
            for (int i = 0; i < 64; i++)
                x[i] = n % 2 ? random_f32(by[k]) : roundf(random_f32(8)) / 8 * by[k];
            memset(a, 1, sizeof(a));
            memset(b, 2, sizeof(b));
            plain->quantise(x, 64, a);
            fast->quantise(x, 64, b);
            assert_memory_equal(a, b, sizeof(a));
            for (int i = 0; i < 64; i++) {
                assert_in_range(a[i / 32].q[i % 32] + 127, 0, 254);
                assert_true(fabsf(a[i / 32].d * a[i / 32].q[i % 32] - x[i]) <=
                            a[i / 32].d * 0.5001f + 4e-37f);
            }
        }
    }
}

/* --- vectors ---------------------------------------------------------------------------------- */

static const uint32_t lengths[] = { 1, 2, 7, 8, 9, 31, 32, 33, 64, 100, 576, 1536, 4096 };

#define N_LENGTHS  (sizeof(lengths) / sizeof(lengths[0]))
#define LENGTH_MAX 4096u

static void assert_near(const char *what, const float *a, const float *b, uint32_t n,
                        float relative, float absolute)
{
    for (uint32_t i = 0; i < n; i++) {
        expect_that(fabsf(a[i] - b[i]) <= relative * fabsf(a[i]) + absolute,
                    "%s: element %u of %u: plain %.9g, fast %.9g", what, i, n, a[i], b[i]);
    }
}

struct vectors {
    struct fenced f[4];
    float *a, *b, *y, *c;
};

/* a and b start equal; y is another operand, c a result. */
static struct vectors vectors_new(uint32_t n, float by)
{
    struct vectors v;

    for (int i = 0; i < 4; i++)
        v.f[i] = fenced_new(n * sizeof(float));
    v.a = v.f[0].p;
    v.b = v.f[1].p;
    v.y = v.f[2].p;
    v.c = v.f[3].p;
    for (uint32_t i = 0; i < n; i++) {
        v.a[i] = v.b[i] = random_f32(by);
        v.y[i] = random_f32(3);
    }
    return v;
}

static void vectors_free(struct vectors *v)
{
    for (int i = 0; i < 4; i++)
        fenced_free(&v->f[i]);
}

static void test_elementwise(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_LENGTHS; k++) {
        uint32_t n = lengths[k];
        struct vectors v = vectors_new(n, 5);

        plain->add(v.a, v.y, n);
        fast->add(v.b, v.y, n);
        assert_memory_equal(v.a, v.b, n * sizeof(float));
        plain->scale(v.a, n, 0.37f);
        fast->scale(v.b, n, 0.37f);
        assert_memory_equal(v.a, v.b, n * sizeof(float));
        vectors_free(&v);
    }
}

/* Tolerance: a sum of n squares, in another order: n / 2 ulp at the very worst, some in practice.
 */
static void test_rmsnorm(void **state)
{
    static const float by[] = { 1, 1e-3f, 1e-15f, 1e15f, 0 };

    (void)state;
    for (size_t k = 0; k < N_LENGTHS; k++) {
        for (size_t j = 0; j < sizeof(by) / sizeof(by[0]); j++) {
            uint32_t n = lengths[k];
            struct vectors v = vectors_new(n, by[j]);

            plain->rmsnorm(v.a, v.y, n, 1e-5f, v.b);
            fast->rmsnorm(v.a, v.y, n, 1e-5f, v.c);
            assert_near("rmsnorm", v.b, v.c, n, 2e-5f, 1e-37f);
            fast->rmsnorm(v.a, v.y, n, 1e-5f, v.a); /* in place */
            assert_memory_equal(v.a, v.c, n * sizeof(float));
            vectors_free(&v);
        }
    }
}

/* Tolerance: exp to about 1.5e-7, a division and a product. Where exp overflows the quotient is a
 * denormal or zero. */
static void test_swiglu(void **state)
{
    static const float by[] = { 1, 20, 87, 100, 1e4f, 1e-20f, 0 };

    (void)state;
    for (size_t k = 0; k < N_LENGTHS; k++) {
        for (size_t j = 0; j < sizeof(by) / sizeof(by[0]); j++) {
            uint32_t n = lengths[k];
            struct vectors v = vectors_new(n, by[j]);

            plain->swiglu(v.a, v.y, n);
            fast->swiglu(v.b, v.y, n);
            assert_near("swiglu", v.a, v.b, n, 4e-7f, 2e-34f);
            vectors_free(&v);
        }
    }
}

static void test_rope(void **state)
{
    static const uint32_t dims[] = { 8, 16, 24, 64, 80, 96, 128, 256 };

    (void)state;
    for (size_t k = 0; k < sizeof(dims) / sizeof(dims[0]); k++) {
        uint32_t hd = dims[k], n_heads = 5;
        struct vectors v = vectors_new(n_heads * hd, 2);
        struct fenced cs = fenced_new(hd * sizeof(float));

        for (uint32_t i = 0; i < hd / 2; i++) {
            double angle = random_f32(100);

            ((float *)cs.p)[i] = (float)cos(angle);
            ((float *)cs.p)[hd / 2 + i] = (float)sin(angle);
        }
        plain->rope(v.a, n_heads, hd, cs.p);
        fast->rope(v.b, n_heads, hd, cs.p);
        assert_near("rope", v.a, v.b, n_heads * hd, 0, 5e-7f); /* one rounding less, of 2 + 2 */
        vectors_free(&v);
        fenced_free(&cs);
    }
}

static void test_logsumexp(void **state)
{
    static const uint32_t sizes[] = { 1, 5, 8, 511, 512, 513, 49152, 151936 };

    (void)state;
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        for (int way = 0; way < 4; way++) {
            uint32_t n = sizes[k];
            struct vectors v = vectors_new(n, way == 1 ? 300 : way == 2 ? 0 : 15);
            float a, b;

            for (uint32_t i = 1; way == 3 && i < n; i += 2)
                v.a[i] = -INFINITY;
            a = plain->logsumexp(v.a, n);
            b = fast->logsumexp(v.a, n);
            assert_true(fabsf(a - b) <= 1e-6f + 2e-7f * fabsf(a));
            for (uint32_t i = 0; i < n; i++)
                v.a[i] = -INFINITY;
            assert_true(fast->logsumexp(v.a, n) == -INFINITY);
            assert_true(plain->logsumexp(v.a, n) == -INFINITY);
            vectors_free(&v);
        }
    }
}

static void test_pick(void **state)
{
    const struct kernels *k = NULL;

    (void)state;
    assert_int_equal(kernels_pick("scalar", &k), 0);
    assert_ptr_equal(k, &kernels_scalar);
    for (unsigned i = 0; kernels_name(i); i++) {
        assert_int_equal(kernels_pick(kernels_name(i), &k), 0);
        assert_string_equal(k->name, kernels_name(i));
    }
    assert_int_equal(kernels_pick("auto", &k), 0);
    assert_true(k != &kernels_scalar || strcmp(kernels_name(0), "scalar") == 0);
    assert_int_equal(kernels_pick("AVX2", &k), -EINVAL);
    assert_int_equal(kernels_pick("", &k), -EINVAL);
}

/* Names of tests tell which table failed. */
static int run_table(const char *name)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantise),
        cmocka_unit_test(test_to_bf16),
        cmocka_unit_test(test_matmul_rows),
        cmocka_unit_test(test_matmul_cols),
        cmocka_unit_test(test_matmul_adversarial),
        cmocka_unit_test(test_matmul_saturation),
        cmocka_unit_test(test_matmul_large),
        cmocka_unit_test(test_matmul_split),
        cmocka_unit_test(test_matmul_writes_its_range_only),
        cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_logsumexp),
    };

    if (kernels_pick(name, &fast) < 0)
        return 1;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_pick) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    for (unsigned i = 0; kernels_name(i); i++)
        failed += run_table(kernels_name(i));
    return failed ? 1 : 0;
}
