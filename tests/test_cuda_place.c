/* tests/test_cuda_place.c - would catch: queries, keys or values on the GPU that are not the CPU's,
 * in rows or in pages: biases (of the model, of an adapter), rotary by small and large offsets,
 * rounding to each type of page, a key that is no number, rows whose page is there already, gists
 * beside a segment, which are turned twice.
 *
 * All to the bit: a page may come from either, and go to a store. */
#include "cuda/rows.h"
#include "cuda/shim/shim.h"
#include "engine/cpu/kernels.h"
#include "engine/kv/rotary.h"
#include "engine/plan.h"
#include "tests/support/counted.h"
#include "tests/support/cuda_mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS    6u
#define PIECES  3u
#define PAGES   3u
#define LAYERS  2u
#define LAYER   1u
#define N_HEAD  6u
#define N_KV    2u
#define FAR_OFF (3 * ROTARY_FINE + 17) /* beyond the fine table */

static const struct kernels *const cpu = &kernels_scalar;

static const struct plan_row rows[ROWS] = {
    { .kind = PLAN_TOKEN, .piece = 0, .q_off = 0, .k_off = 0, .page = 2, .slot = 0 },
    { .kind = PLAN_TOKEN, .piece = 0, .q_off = 1, .k_off = 1, .page = 2, .slot = 1 },
    { .kind = PLAN_GIST, .piece = 1, .q_off = FAR_OFF, .k_off = 3, .page = 0, .slot = 15 },
    { .kind = PLAN_GIST, .piece = 2, .q_off = 40, .k_off = 7, .page = 0, .slot = 4 },
    { .kind = PLAN_TOKEN, .piece = 0, .q_off = 9, .k_off = 9, .page = PLAN_NONE },
    { .kind = PLAN_TOKEN, .piece = 0, .q_off = FAR_OFF, .k_off = FAR_OFF, .page = 2, .slot = 9 },
};

/* Row by row, on the host. */
struct world {
    struct k_pool pool;
    struct rotary rotary;
    uint8_t *pages;
    float *q, *k, *v;
    float *bias[2][3]; /* the model's, and the first adapter's */
    uint32_t n_q, n_kv;
    bool biased;
};

static uint64_t seed = 88172645463325252ull;

static float *randoms(size_t n, float by)
{
    float *ret = malloc(n * sizeof(*ret));

    for (size_t i = 0; i < n; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        ret[i] = ((float)(seed >> 11 & 0xffffff) / 8388608.0f - 1) * by;
    }
    return ret;
}

static void world_open(struct world *w, enum kv_type kv, uint32_t hd, bool biased)
{
    float freq[K_HEAD_DIM_MAX / 2];

    *w = (struct world){ .n_q = N_HEAD * hd, .n_kv = N_KV * hd, .biased = biased };
    for (uint32_t i = 0; i < hd / 2; i++)
        freq[i] = powf(10000, -2.0f * (float)i / (float)hd);
    assert_int_equal(rotary_open(&w->rotary, freq, hd), 0);
    w->pool = (struct k_pool){ .head_bytes = 2 * kv_tile_bytes(kv, hd),
                               .kv = kv,
                               .n_layer = LAYERS,
                               .n_head_kv = N_KV,
                               .head_dim = hd };
    w->pool.page_bytes = LAYERS * N_KV * w->pool.head_bytes + 64;
    w->pages = calloc(PAGES, w->pool.page_bytes);
    w->q = randoms(ROWS * w->n_q, 2);
    w->k = randoms(ROWS * w->n_kv, 2);
    w->v = randoms(ROWS * w->n_kv, 2);
    w->k[5 * w->n_kv + 3] = 1e38f; /* no number in f16, nor as a scale */
    for (int own = 0; own < 2; own++)
        for (int i = 0; i < 3; i++)
            w->bias[own][i] = randoms(i == 0 ? w->n_q : w->n_kv, 0.5f);
}

static void world_close(struct world *w)
{
    rotary_close(&w->rotary);
    free(w->pages);
    free(w->q);
    free(w->k);
    free(w->v);
    for (int i = 0; i < 6; i++)
        free(w->bias[i / 3][i % 3]);
}

static void turn(const struct world *w, float *x, uint32_t n_heads, uint32_t by)
{
    float scratch[K_HEAD_DIM_MAX];

    cpu->rope(x, n_heads, w->pool.head_dim, rotary_by(&w->rotary, by, scratch));
}

/* As engine/cpu/layers.c's place_rows. Piece 1 has an adapter with biases of its own, which lies
 * beside its segment; piece 2's adapter has only a key's. */
static void place_by_hand(struct world *w, uint32_t t)
{
    const struct plan_row *row = &rows[t];
    uint32_t hd = w->pool.head_dim;
    float *x[] = { w->q + t * w->n_q, w->k + t * w->n_kv, w->v + t * w->n_kv };
    uint8_t *at = w->pages + (row->page == PLAN_NONE ? 0 : row->page) * w->pool.page_bytes;

    for (int i = 0; i < 3; i++) {
        bool own = row->piece == 1 || (row->piece == 2 && i == 1);

        if (own || w->biased)
            cpu->add(x[i], w->bias[own][i], i == 0 ? w->n_q : w->n_kv);
    }
    turn(w, x[0], N_HEAD, row->q_off);
    cpu->scale(x[0], w->n_q, 1.0f / sqrtf((float)hd));
    if (row->page == PLAN_NONE)
        return;
    turn(w, x[1], N_KV, row->k_off);
    for (uint32_t h = 0; h < N_KV; h++) {
        uint8_t *tile = at + (LAYER * N_KV + h) * w->pool.head_bytes;

        cpu->kv_store[w->pool.kv](x[1] + h * hd, x[2] + h * hd, hd, row->slot, tile,
                                  tile + w->pool.head_bytes / 2);
    }
    if (row->piece == 1)
        turn(w, x[1], N_KV, row->q_off - row->k_off);
}

/* The same on the device: the arguments, from what the host has before it places anything. */
static struct k_place arguments(const struct world *w)
{
    uint32_t hd = w->pool.head_dim;
    struct plan_piece pieces[PIECES] = { { .row = 0 }, { .side = true }, { .row = 0 } };
    struct k_bias own[PIECES] = { { NULL, NULL, NULL } };
    const float *bias[2][3];
    struct k_place a = { .pool = w->pool, .layer = LAYER, .n_rows = ROWS, .n_head = N_HEAD };

    for (int i = 0; i < 6; i++)
        bias[i / 3][i % 3] =
            cuda_put(w->bias[i / 3][i % 3], (i % 3 == 0 ? w->n_q : w->n_kv) * sizeof(float));
    if (w->biased)
        a.bias = (struct k_bias){ bias[0][0], bias[0][1], bias[0][2] };
    own[1] = (struct k_bias){ bias[1][0], bias[1][1], bias[1][2] };
    own[2].k = bias[1][1];
    a.own = cuda_put(own, sizeof(own));
    a.rows = cuda_put(rows, sizeof(rows));
    a.pieces = cuda_put(pieces, sizeof(pieces));
    a.pool.mem = cuda_put(w->pages, PAGES * w->pool.page_bytes);
    a.angles.fine = cuda_put(w->rotary.fine, ROTARY_FINE * hd * sizeof(float));
    a.angles.coarse = cuda_put(w->rotary.coarse, ROTARY_COARSE * hd * sizeof(float));
    a.q = cuda_put(w->q, ROWS * w->n_q * sizeof(float));
    a.k = cuda_put(w->k, ROWS * w->n_kv * sizeof(float));
    a.v = cuda_put(w->v, ROWS * w->n_kv * sizeof(float));
    return a;
}

static void expect_same(const char *what, const void *on, const void *want, size_t len)
{
    uint8_t *got = malloc(len);
    size_t at = 0;

    cuda_get(got, on, len);
    while (at < len && got[at] == ((const uint8_t *)want)[at])
        at++;
    expect_that(at == len, "%s: byte %zu of %zu differs from the CPU's", what, at, len);
    free(got);
}

static void check(enum kv_type kv, uint32_t hd, bool biased, bool backwards)
{
    struct world w;
    struct k_place a;

    world_open(&w, kv, hd, biased);
    a = arguments(&w);
    shim_set_order(backwards);
    assert_int_equal(k_place(NULL, &a), 0);
    shim_set_order(false);
    for (uint32_t t = 0; t < ROWS; t++)
        place_by_hand(&w, t);
    expect_same("q", a.q, w.q, ROWS * w.n_q * sizeof(float));
    expect_same("k", a.k, w.k, ROWS * w.n_kv * sizeof(float));
    expect_same("v", a.v, w.v, ROWS * w.n_kv * sizeof(float));
    expect_same("pages", a.pool.mem, w.pages, PAGES * w.pool.page_bytes);
    cuda_give(a.pool.mem);
    cuda_give((void *)(uintptr_t)a.angles.fine);
    cuda_give((void *)(uintptr_t)a.angles.coarse);
    cuda_give(a.q);
    cuda_give(a.k);
    cuda_give(a.v);
    world_close(&w);
}

static void places(void **state)
{
    static const uint32_t dims[] = { 8, 64, 80, 96, 128 };

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++)
        for (unsigned i = 0; i < 5; i++)
            check(kv, dims[i], i % 2 == 0, i % 2 == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(places) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
