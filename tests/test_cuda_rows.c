/* tests/test_cuda_rows.c - would catch: an embedding, a norm, a conversion, a gate, a
 * log-probability on the GPU that is not the CPU's; a NaN that is lost on the way; a result that
 * depends on the order of blocks; anything past an end.
 *
 * What only moves, rounds or converts has the CPU's bits. Sums are taken in another order: 1e-5 of
 * the value; exp is another library's: a few of its last bits. */
#include "cuda/rows.h"
#include "cuda/shim/shim.h"
#include "engine/cpu/kernels.h"
#include "engine/plan.h"
#include "tests/support/bf16.h"
#include "tests/support/counted.h"
#include "tests/support/cuda_mem.h"
#include "tests/support/near.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct kernels *const cpu = &kernels_scalar;
static uint64_t seed = 88172645463325252ull;

static uint32_t random_u32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 11);
}

static float random_f32(float by)
{
    return ((float)(random_u32() & 0xffffff) / 8388608.0f - 1) * by;
}

static float *randoms(size_t n, float by)
{
    float *ret = malloc(n * sizeof(*ret));

    for (size_t i = 0; i < n; i++)
        ret[i] = random_f32(by);
    return ret;
}

/* high and low: 16 bits of x together, or NaN where there is no number to be left over. */
static void check_parts(float x, uint16_t high, uint16_t low)
{
    float rest = x - of_bf16(bf16(x));

    assert_int_equal(high, bf16(x));
    if (isnan(rest))
        assert_true(isnan(of_bf16(low)));
    else
        assert_int_equal(low, bf16(rest));
}

/* Rows in the forms of products, and whether they are those of x (n), which the device made. */
struct formed {
    struct k_forms on;
    size_t n;
};

static struct formed formed_new(size_t n)
{
    return (struct formed){
        { cuda_new(n / 32 * sizeof(struct k_q8)), cuda_new(n * 2), cuda_new(n * 2) }, n
    };
}

static void formed_check(const struct formed *f, const float *x)
{
    struct kernels_q8 *want = malloc(f->n / 32 * sizeof(*want)),
                      *got = malloc(f->n / 32 * sizeof(*got));
    uint16_t *b = malloc(f->n * sizeof(*b)), *low = malloc(f->n * sizeof(*low));

    cpu->quantise(x, (uint32_t)f->n, want);
    cuda_get(got, f->on.q8, f->n / 32 * sizeof(*got));
    cuda_get(b, f->on.bf16, f->n * sizeof(*b));
    cuda_get(low, f->on.low, f->n * sizeof(*low));
    for (size_t i = 0; i < f->n / 32; i++) {
        if (isnan(want[i].d)) {
            assert_true(isnan(got[i].d) && isnan(got[i].s));
            want[i].d = want[i].s = got[i].d = got[i].s = 0;
        }
        assert_memory_equal(&want[i], &got[i], sizeof(want[i]));
    }
    for (size_t i = 0; i < f->n; i++)
        check_parts(x[i], b[i], low[i]);
    free(want);
    free(got);
    free(b);
    free(low);
}

static void formed_free(struct formed *f)
{
    cuda_give(f->on.q8);
    cuda_give(f->on.bf16);
    cuda_give(f->on.low);
}

/* --- conversions ------------------------------------------------------------------------------ */

static void converts(void **state)
{
    static const float by[] = { 1, 0, 1e-45f, 1e-40f, 1e-37f, 1e-30f, 1e30f, 3e38f, 127, 0.5f };
    enum { ROWS = 3, N = 288 };

    (void)state;
    for (unsigned i = 0; i < sizeof(by) / sizeof(*by); i++) {
        float *x = randoms(ROWS * N, by[i]), *on;
        struct formed f = formed_new(ROWS * N);

        if (by[i] == 0.5f) {
            x[7] = NAN;
            x[40] = INFINITY;
            x[N + 64] = -INFINITY;
        }
        on = cuda_put(x, ROWS * N * sizeof(*x));
        assert_int_equal(k_convert(NULL, &(struct k_convert){ on, ROWS, N, f.on }), 0);
        formed_check(&f, x);
        formed_free(&f);
        cuda_give(on);
        free(x);
    }
}

/* Twice eight bits: what is left over is the CPU's too; and the two products are added. */
static void converts_finely(void **state)
{
    enum { ROWS = 2, N = 320, BLOCKS = N / 32 };
    float *x = randoms(ROWS * N, 3), rest[N];
    struct kernels_q8 want[BLOCKS], got[2 * ROWS * BLOCKS];
    float *on, *sums = randoms(2 * ROWS * N, 1), *sums_on, *to, folded[ROWS * N];
    struct k_q8 *q8 = cuda_new(sizeof(got));

    (void)state;
    on = cuda_put(x, ROWS * N * sizeof(*x));
    assert_int_equal(k_fine(NULL, &(struct k_fine){ on, ROWS, N, q8 }), 0);
    cuda_get(got, q8, sizeof(got));
    for (uint32_t t = 0; t < ROWS; t++) {
        cpu->quantise(x + t * N, N, want);
        assert_memory_equal(got + 2 * t * BLOCKS, want, sizeof(want));
        for (uint32_t c = 0; c < N; c++)
            rest[c] = x[t * N + c] - want[c / 32].d * want[c / 32].q[c % 32];
        cpu->quantise(rest, N, want);
        assert_memory_equal(got + (2 * t + 1) * BLOCKS, want, sizeof(want));
    }
    sums_on = cuda_put(sums, 2 * ROWS * N * sizeof(*sums));
    to = cuda_new(sizeof(folded));
    assert_int_equal(k_fold(NULL, &(struct k_fold){ sums_on, ROWS, N, to }), 0);
    cuda_get(folded, to, sizeof(folded));
    for (uint32_t i = 0; i < ROWS * N; i++)
        assert_true(folded[i] == sums[i / N * 2 * N + i % N] + sums[(i / N * 2 + 1) * N + i % N]);
    cuda_give(on);
    cuda_give(q8);
    cuda_give(sums_on);
    cuda_give(to);
    free(x);
    free(sums);
}

/* --- norms and gates -------------------------------------------------------------------------- */

static void check_norm(uint32_t n_rows, uint32_t n, float by, bool add)
{
    size_t len = (size_t)n_rows * n;
    float *x = randoms(len, by), *y = randoms(len, by), *w = randoms(n, 1);
    float *got = malloc(len * sizeof(*got)), *want = malloc(n * sizeof(*want));
    struct formed f = formed_new(len);
    struct k_norm a = { .x = cuda_put(x, len * sizeof(*x)),
                        .to = cuda_new(len * sizeof(*x)),
                        .add = add ? cuda_put(y, len * sizeof(*y)) : NULL,
                        .w = cuda_put(w, n * sizeof(*w)),
                        .n_rows = n_rows,
                        .n = n,
                        .eps = 1e-5f,
                        .forms = f.on };

    assert_int_equal(k_norm(NULL, &a), 0);
    if (add) {
        cpu->add(x, y, (uint32_t)len);
        cuda_get(got, a.x, len * sizeof(*got));
        assert_memory_equal(got, x, len * sizeof(*got));
    }
    cuda_get(got, a.to, len * sizeof(*got));
    for (uint32_t t = 0; t < n_rows; t++) {
        cpu->rmsnorm(x + (size_t)t * n, w, n, a.eps, want);
        for (uint32_t i = 0; i < n; i++)
            expect_that(isnan(want[i]) ? isnan(got[(size_t)t * n + i])
                                       : near_within((double)got[(size_t)t * n + i],
                                                     (double)want[i], 1e-5 * fabs((double)want[i])),
                        "norm of %u x %u by %g: %g at (%u, %u), the CPU has %g", n_rows, n,
                        (double)by, (double)got[(size_t)t * n + i], t, i, (double)want[i]);
    }
    formed_check(&f, got);
    formed_free(&f);
    cuda_give(a.x);
    cuda_give(a.to);
    cuda_give((void *)(uintptr_t)a.add);
    cuda_give((void *)(uintptr_t)a.w);
    free(x);
    free(y);
    free(w);
    free(got);
    free(want);
}

static void norms(void **state)
{
    static const uint32_t n[] = { 32, 64, 576, 1536, 2080 };
    static const float by[] = { 1, 1e-3f, 1e-15f, 1e15f, 1e30f /* the sum is infinite: NaN */ };

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        check_norm(1 + i, n[i], 1, i % 2 == 0);
    for (unsigned i = 0; i < 5; i++)
        check_norm(2, 96, by[i], i % 2 == 1);
}

static void gates(void **state)
{
    static const float by[] = { 1, 20, 100, 1e4f, 1e-20f };
    enum { ROWS = 3, N = 352 };

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        float *gate = randoms(ROWS * N, by[i]), *up = randoms(ROWS * N, 2), got[ROWS * N];
        struct formed f = formed_new(ROWS * N);
        struct k_swiglu a = { cuda_put(gate, sizeof(got)), cuda_put(up, sizeof(got)), ROWS, N,
                              f.on };

        cpu->swiglu(gate, up, ROWS * N);
        assert_int_equal(k_swiglu(NULL, &a), 0);
        cuda_get(got, a.gate, sizeof(got));
        for (uint32_t j = 0; j < ROWS * N; j++)
            assert_true(near_within((double)got[j], (double)gate[j], 1e-6 * fabs((double)gate[j])));
        formed_check(&f, got);
        formed_free(&f);
        cuda_give(a.gate);
        cuda_give((void *)(uintptr_t)a.up);
        free(gate);
        free(up);
    }
}

/* --- embedding and rows that are wanted ------------------------------------------------------- */

/* Random bytes, which are any type's but for f16 fields that may be no numbers: those compare too.
 */
static uint8_t *table(enum quant type, uint32_t n_rows, uint32_t n)
{
    size_t row = quant_row_bytes(type, n), len = tile_len(type, n);
    uint8_t *rows = malloc(n_rows * row), *ret = calloc(tile_count(n_rows), len);

    for (size_t i = 0; i < n_rows * row; i++)
        rows[i] = (uint8_t)random_u32();
    for (uint32_t r = 0; r < n_rows; r += TILE_ROWS) {
        const void *lanes[TILE_ROWS] = { NULL };

        for (uint32_t i = 0; i < TILE_ROWS && r + i < n_rows; i++)
            lanes[i] = rows + (r + i) * row;
        tile_pack(type, lanes, n, ret + r / TILE_ROWS * len);
    }
    free(rows);
    return ret;
}

static void embed_by_hand(const struct plan_row *row, enum quant type, const uint8_t *tiles,
                          uint32_t n, const float *gists, const float *soft, float *ret)
{
    memset(ret, 0, n * sizeof(float));
    if (row->kind != PLAN_SOFT && row->id != PLAN_NONE)
        tile_dequantise_row(type, tiles, row->id, n, ret);
    if (row->kind == PLAN_GIST)
        cpu->add(ret, gists + row->gist * n, n);
    if (row->kind == PLAN_SOFT)
        memcpy(ret, soft + row->id * n, n * sizeof(float));
}

static void check_embedding(enum quant type, uint32_t n)
{
    enum { VOCAB = 37, ROWS = 6 };
    struct plan_row rows[ROWS] = {
        { .kind = PLAN_TOKEN, .id = 0 },
        { .kind = PLAN_TOKEN, .id = 36 },
        { .kind = PLAN_GIST, .id = 17, .gist = 1, .piece = 1 },
        { .kind = PLAN_GIST, .id = PLAN_NONE, .gist = 2, .piece = 1 },
        { .kind = PLAN_SOFT, .id = 1, .piece = 2 },
        { .kind = PLAN_TOKEN, .id = 16, .piece = 2 },
    };
    struct plan_piece pieces[3] = { { .row = 0 } };
    float *gists = randoms(3 * n, 1), *soft = randoms(2 * n, 1);
    float *got = malloc(ROWS * n * sizeof(float)), *want = malloc(n * sizeof(float));
    uint8_t *tiles = table(type, VOCAB, n);
    const float *by_piece[3] = { NULL, cuda_put(gists, 3 * n * sizeof(float)), NULL };
    struct k_embed a = { .tiles = cuda_put(tiles, tile_count(VOCAB) * tile_len(type, n)),
                         .type = type,
                         .tile_len = tile_len(type, n),
                         .n_rows = ROWS,
                         .n_embd = n,
                         .x = cuda_new(ROWS * n * sizeof(float)) };

    pieces[2].soft = cuda_put(soft, 2 * n * sizeof(float));
    a.rows = cuda_put(rows, sizeof(rows));
    a.pieces = cuda_put(pieces, sizeof(pieces));
    a.gists = cuda_put(by_piece, sizeof(by_piece));
    assert_int_equal(k_embed(NULL, &a), 0);
    cuda_get(got, a.x, ROWS * n * sizeof(float));
    for (uint32_t t = 0; t < ROWS; t++) {
        embed_by_hand(&rows[t], type, tiles, n, gists, soft, want);
        for (uint32_t i = 0; i < n; i++)
            expect_that(isnan(want[i]) ? isnan(got[t * n + i]) : got[t * n + i] == want[i],
                        "%s: column %u of row %u is %g, expected %g", quant_info(type)->name, i, t,
                        (double)got[t * n + i], (double)want[i]);
    }
    cuda_give((void *)(uintptr_t)a.tiles);
    cuda_give((void *)(uintptr_t)a.rows);
    cuda_give((void *)(uintptr_t)a.pieces);
    cuda_give((void *)(uintptr_t)a.gists);
    cuda_give((void *)(uintptr_t)by_piece[1]);
    cuda_give((void *)(uintptr_t)pieces[2].soft);
    cuda_give(a.x);
    free(gists);
    free(soft);
    free(got);
    free(want);
    free(tiles);
}

static void embeds(void **state)
{
    (void)state;
    for (enum quant type = 0; type < QUANT__N; type++)
        check_embedding(type, quant_info(type)->block_cols == 1 ? 70 : 512);
}

static void keeps(void **state)
{
    enum { ROWS = 9, N = 40, M = 300, OUT = 4 };
    static const uint32_t out_rows[OUT] = { 0, 3, 4, 8 };
    float *x = randoms(ROWS * N, 1), *y = randoms(ROWS * M, 1), got_x[OUT * N], got_y[OUT * M];
    struct k_keep a = {
        cuda_put(out_rows, sizeof(out_rows)),   OUT, cuda_put(x, ROWS * N * sizeof(float)),
        cuda_put(y, ROWS * M * sizeof(float)),  N,   M,
        cuda_new(OUT * (N + M) * sizeof(float))
    };

    (void)state;
    for (int backwards = 0; backwards < 2; backwards++) {
        shim_set_order(backwards);
        assert_int_equal(cudaMemcpy(a.x, x, ROWS * N * sizeof(float), cudaMemcpyHostToDevice), 0);
        assert_int_equal(cudaMemcpy(a.y, y, ROWS * M * sizeof(float), cudaMemcpyHostToDevice), 0);
        assert_int_equal(k_keep(NULL, &a), 0);
        cuda_get(got_x, a.x, sizeof(got_x));
        cuda_get(got_y, a.y, sizeof(got_y));
        for (uint32_t i = 0; i < OUT; i++) {
            assert_memory_equal(got_x + i * N, x + out_rows[i] * N, N * sizeof(float));
            assert_memory_equal(got_y + i * M, y + out_rows[i] * M, M * sizeof(float));
        }
    }
    shim_set_order(false);
    cuda_give((void *)(uintptr_t)a.out_rows);
    cuda_give(a.x);
    cuda_give(a.y);
    cuda_give(a.spare);
    free(x);
    free(y);
}

/* --- logits ----------------------------------------------------------------------------------- */

static void logprobs(void **state)
{
    enum { ROWS = 5, N = 1543 };
    static const uint32_t ids[ROWS] = { 0, 1542, 77, 600, 1 };
    float *x = randoms(ROWS * N, 30), got[ROWS], *on;
    struct k_logprobs a;

    (void)state;
    x[3 * N + 1541] = NAN;
    x[4 * N] = -INFINITY;
    on = cuda_put(x, ROWS * N * sizeof(*x));
    a = (struct k_logprobs){ on, cuda_put(ids, sizeof(ids)), ROWS, N, cuda_new(sizeof(got)) };
    assert_int_equal(k_logprobs(NULL, &a), 0);
    cuda_get(got, a.to, sizeof(got));
    for (int t = 0; t < 3; t++)
        assert_true(near_within(
            (double)got[t], (double)(x[t * N + (int)ids[t]] - cpu->logsumexp(x + t * N, N)), 1e-5));
    assert_true(isnan(got[3]) && isnan(got[4]));
    cuda_give(on);
    cuda_give((void *)(uintptr_t)a.ids);
    cuda_give(a.to);
    free(x);
}

static void largest(void **state)
{
    enum { ROWS = 6, N = 1543 };
    float *x = randoms(ROWS * N, 30), *on;
    uint32_t got[ROWS];
    struct k_argmax a;

    (void)state;
    x[N + 1542] = 31;
    x[2 * N + 5] = x[2 * N + 700] = x[2 * N + 1030] = 31; /* the first of equals */
    x[3 * N + 9] = NAN;
    for (int i = 0; i < N; i++) {
        x[4 * N + i] = NAN;
        x[5 * N + i] = -INFINITY;
    }
    on = cuda_put(x, ROWS * N * sizeof(*x));
    a = (struct k_argmax){ on, ROWS, N, cuda_new(sizeof(got)) };
    assert_int_equal(k_argmax(NULL, &a), 0);
    cuda_get(got, a.to, sizeof(got));
    for (int t = 0; t < ROWS; t++)
        assert_int_equal(got[t], cpu->sampling.argmax(x + t * N, N));
    cuda_give(on);
    cuda_give(a.to);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(converts), cmocka_unit_test(converts_finely), cmocka_unit_test(norms),
        cmocka_unit_test(gates),    cmocka_unit_test(embeds),          cmocka_unit_test(keeps),
        cmocka_unit_test(logprobs), cmocka_unit_test(largest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
