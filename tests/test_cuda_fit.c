/* tests/test_cuda_fit.c - would catch: a key chosen that the CPU doesn't, sinks that are weighed or
 * fitted, a packed key whose K isn't the move's, a system solved wrongly whichever of the two it
 * is, a list that is done twice or not at all, values that a page has no room for.
 *
 * The reference is the CPU's fit over the same pages. */
#include "cuda/fit.h"
#include "cuda/shim/cuda_runtime_api.h"
#include "cuda/shim/shim.h"
#include "engine/cpu/fit.h"
#include "engine/cpu/kv.h"
#include "engine/fit.h"
#include "engine/run.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS 2u
#define HEADS  2u
#define LISTS  (LAYERS * HEADS)
#define N_RAW  64u
#define PAGES  (N_RAW / PAGE_TOKENS)

/* What is fitted: the two systems, and no sinks. */
static const struct shape {
    uint32_t hd, n_asked, n_keys, sinks;
} shapes[] = { { 64, 43, 20, 4 }, { 40, 11, 24, 2 }, { 128, 40, 16, 0 } };

struct world {
    struct shape s;
    struct model m;
    struct pool pool;
    struct rotary rotary;
    struct workers *w;
    struct fit *cpu;
    float freq[128], *asked;
    uint8_t *before, *want; /* the whole pool */
    uint32_t from[PAGES], to[PAGES];
    uint64_t seed;
};

static float noise(struct world *w)
{
    w->seed = w->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (float)((double)(w->seed >> 33) / (double)(1u << 30) - 1.0);
}

static uint8_t *tile_of(const struct world *w, uint8_t *mem, uint32_t page, uint32_t list)
{
    return mem + page * w->pool.page_bytes + pool_k_off(&w->pool, 0, list);
}

static void fill_pool(struct world *w)
{
    uint32_t hd = w->s.hd;
    float k[256], v[256];

    memset(w->pool.mem, 0xff, w->pool.mem_len);
    for (uint32_t i = 0; i < N_RAW * LISTS; i++) {
        uint32_t key = i / LISTS;
        uint8_t *tile = tile_of(w, w->pool.mem, w->from[key / PAGE_TOKENS], i % LISTS);

        for (uint32_t c = 0; c < hd; c++) {
            k[c] = noise(w);
            v[c] = noise(w);
        }
        kernels_scalar.kv_store[w->pool.kv](k, v, hd, key % PAGE_TOKENS, tile,
                                            tile + w->pool.head_bytes / 2);
    }
    memcpy(w->before, w->pool.mem, w->pool.mem_len);
}

static void open_world(struct world *w, const struct shape *s, enum kv_type kv)
{
    struct pool_account all = { .limit = UINT32_MAX };
    uint32_t hd = s->hd;

    *w = (struct world){
        .s = *s,
        .m = { .n_layer = LAYERS, .n_head = HEADS, .n_head_kv = HEADS, .head_dim = hd },
        .seed = 3
    };
    for (uint32_t i = 0; i < hd / 2; i++)
        w->freq[i] = (float)pow(10000.0, -2.0 * i / hd);
    assert_int_equal(rotary_open(&w->rotary, w->freq, hd), 0);
    assert_int_equal(workers_open(1, false, &w->w), 0);
    assert_int_equal(fit_open(&w->m, &kernels_scalar, w->w, &w->rotary, &w->cpu), 0);
    assert_int_equal(
        pool_open(&w->pool, NULL, &w->m, kv, 2 * PAGES * pool_page_bytes(&w->m, kv), NULL), 0);
    assert_int_equal(pool_take(&w->pool, &all, PAGES, w->from), 0);
    assert_int_equal(pool_take(&w->pool, &all, PAGES, w->to), 0);
    w->before = malloc(w->pool.mem_len);
    w->want = malloc(w->pool.mem_len);
    fill_pool(w);
    /* The last number of a row is the logarithm of all that it sees, more than of the segment. */
    w->asked = malloc(LISTS * s->n_asked * ASKED_FLOATS(hd) * sizeof(float));
    for (size_t i = 0; i < LISTS * s->n_asked * ASKED_FLOATS(hd); i++)
        w->asked[i] = i % ASKED_FLOATS(hd) == hd ? 4 + noise(w) : 4 / sqrtf((float)hd) * noise(w);
}

static void close_world(struct world *w)
{
    pool_close(&w->pool);
    fit_close(w->cpu);
    workers_close(w->w);
    rotary_close(&w->rotary);
    free(w->asked);
    free(w->before);
    free(w->want);
}

/* Lists [first, first + n), on the CPU, from a fresh pool. */
static void run_cpu(struct world *w, const uint32_t *to, uint32_t first, uint32_t n)
{
    memcpy(w->pool.mem, w->before, w->pool.mem_len);
    for (uint32_t i = 0; i < n;) {
        struct backend_fit f = { .pool = &w->pool,
                                 .from = w->from,
                                 .to = to,
                                 .n_raw = N_RAW,
                                 .n_keys = w->s.n_keys,
                                 .sinks = w->s.sinks,
                                 .asked = w->asked,
                                 .n_asked = w->s.n_asked,
                                 .first_list = first + i,
                                 .n_lists = n - i };
        int r = fit_run(w->cpu, &f);

        assert_true(r > 0);
        i += (uint32_t)r;
    }
    memcpy(w->want, w->pool.mem, w->pool.mem_len);
}

static void run_device(struct world *w, const uint32_t *to, uint32_t first, uint32_t n)
{
    struct k_fit f = { .pool = { w->pool.mem, w->pool.page_bytes, w->pool.head_bytes, w->pool.kv,
                                 LAYERS, HEADS, w->s.hd },
                       .angles = { w->rotary.fine, w->rotary.coarse },
                       .from = w->from,
                       .to = to,
                       .n_raw = N_RAW,
                       .n_keys = w->s.n_keys,
                       .sinks = w->s.sinks,
                       .asked = w->asked,
                       .n_asked = w->s.n_asked,
                       .first_list = first,
                       .n_lists = n };
    size_t len = k_fit_scratch(&f);

    memcpy(w->pool.mem, w->before, w->pool.mem_len);
    f.scratch = malloc(len);
    memset(f.scratch, 0xff, len);
    assert_int_equal(k_fit(NULL, &f), 0);
    assert_int_equal(cudaDeviceSynchronize(), 0);
    free(f.scratch);
}

/* Keys that stay are the same to the bit, sinks with their values; values are near. Lists that were
 * not asked for are untouched. */
static void compare(struct world *w, const uint32_t *to, uint32_t first, uint32_t n, double most)
{
    uint32_t hd = w->s.hd;
    float k[2][256], v[2][256];
    double worst = 0;

    for (uint32_t i = 0; i < w->s.n_keys * LISTS; i++) {
        uint32_t key = i / LISTS, list = i % LISTS;
        const uint8_t *got = tile_of(w, w->pool.mem, to[key / PAGE_TOKENS], list),
                      *want = tile_of(w, w->want, to[key / PAGE_TOKENS], list);
        size_t of_v = w->pool.head_bytes / 2;

        if (list < first || list >= first + n)
            continue;
        kv_read(w->pool.kv, got, got + of_v, hd, key % PAGE_TOKENS, k[0], v[0]);
        kv_read(w->pool.kv, want, want + of_v, hd, key % PAGE_TOKENS, k[1], v[1]);
        assert_memory_equal(k[0], k[1], hd * sizeof(float));
        if (key < w->s.sinks)
            assert_memory_equal(v[0], v[1], hd * sizeof(float));
        worst = near_worst(worst, v[1], v[0], hd);
    }
    if (!(worst <= most))
        fail_msg("%u of %u keys of %u, %u queries, type %d: off by %g", w->s.n_keys, N_RAW, hd,
                 w->s.n_asked, w->pool.kv, worst);
    for (uint32_t list = 0; list < LISTS; list++)
        for (uint32_t i = 0; i < PAGES && (list < first || list >= first + n); i++)
            assert_memory_equal(tile_of(w, w->pool.mem, to[i], list),
                                tile_of(w, w->before, to[i], list), w->pool.head_bytes);
}

/* Values of size 1: f32's are off by what its sums are, times the system's condition; the others
 * may be rounded to the neighbour. */
static double most_of(enum kv_type kv)
{
    return kv == KV_F32 ? 2e-4 : kv == KV_F16 ? 2e-3 : 6e-2;
}

static void check(struct world *w, const uint32_t *to, uint32_t first, uint32_t n)
{
    run_cpu(w, to, first, n);
    for (int order = 0; order < (SANITIZED ? 1 : 2); order++) {
        shim_set_order(order);
        run_device(w, to, first, n);
        compare(w, to, first, n, most_of(w->pool.kv));
    }
    shim_set_order(false);
}

static void fits(void **state)
{
    (void)state;
    for (size_t i = 0; i < (SANITIZED ? 2 : sizeof(shapes) / sizeof(*shapes)); i++)
        for (enum kv_type kv = 0; kv < KV__N; kv++) {
            struct world w;

            open_world(&w, &shapes[i], kv);
            if (!SANITIZED) {
                check(&w, w.to, 0, LISTS);
                check(&w, w.from, 0, LISTS);
            }
            check(&w, w.from, 1, 2);
            close_world(&w);
        }
}

/* Queries that give the segment nothing, or are no numbers, don't count. */
static void without_a_word(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, &shapes[0], KV_F16);
    for (uint32_t i = 0; i < LISTS * w.s.n_asked; i++) {
        float *row = w.asked + i * ASKED_FLOATS(w.s.hd);

        if (i / w.s.n_asked == 1) /* nobody of this list */
            row[w.s.hd] = 100;
        else if (i % 3 == 0)
            row[i % w.s.hd] = NAN;
        else if (i % 3 == 1)
            row[w.s.hd] = i % 2 ? NAN : INFINITY;
    }
    check(&w, w.to, 0, LISTS);
    close_world(&w);
}

/* A value that a page has no room for: the head keeps its own, and the others don't. */
static void without_room(void **state)
{
    struct world w;
    uint32_t hd;
    float k[256], v[256];

    (void)state;
    open_world(&w, &shapes[0], KV_F16);
    hd = w.s.hd;
    for (uint32_t i = 0; i < N_RAW; i++) {
        uint32_t slot = i % PAGE_TOKENS;
        uint8_t *tile = tile_of(&w, w.before, w.from[i / PAGE_TOKENS], 2);

        kv_read(KV_F16, tile, tile + w.pool.head_bytes / 2, hd, slot, k, v);
        v[3] = i % 3 ? 65000 : -65000;
        kernels_scalar.kv_store[KV_F16](k, v, hd, slot, tile, tile + w.pool.head_bytes / 2);
    }
    check(&w, w.to, 0, LISTS);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(fits), cmocka_unit_test(without_a_word),
                                        cmocka_unit_test(without_room) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
