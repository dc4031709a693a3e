/* tests/test_cuda_move.c - would catch: a key written over before it was read, one that is turned
 * by the wrong way or rounded though it stays, a slot of a neighbour touched.
 *
 * The reference is the CPU's moves, to the bit: all of the pool is compared. */
#include "cuda/move.h"
#include "cuda/shim/cuda_runtime_api.h"
#include "cuda/shim/shim.h"
#include "engine/cpu/move.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS  2u
#define HEADS   2u
#define LISTS   (LAYERS * HEADS)
#define PAGES   12u /* of a segment */
#define MAX_KEY (PAGES * PAGE_TOKENS)

struct world {
    struct model m;
    struct pool pool;
    struct rotary rotary;
    struct workers *w;
    struct move *cpu;
    float freq[128];
    uint8_t *before, *want; /* the whole pool */
    uint32_t from[PAGES], to[PAGES], kept[LISTS * MAX_KEY];
};

static void open_world(struct world *w, uint32_t hd, enum kv_type kv)
{
    struct pool_account all = { .limit = UINT32_MAX };
    uint64_t seed = 5;

    *w = (struct world){
        .m = { .n_layer = LAYERS, .n_head = HEADS, .n_head_kv = HEADS, .head_dim = hd }
    };
    for (uint32_t i = 0; i < hd / 2; i++)
        w->freq[i] = (float)pow(10000.0, -2.0 * i / hd);
    assert_int_equal(rotary_open(&w->rotary, w->freq, hd), 0);
    assert_int_equal(workers_open(1, false, &w->w), 0);
    assert_int_equal(move_open(&w->m, &kernels_scalar, w->w, &w->rotary, &w->cpu), 0);
    assert_int_equal(
        pool_open(&w->pool, NULL, &w->m, kv, 2 * PAGES * pool_page_bytes(&w->m, kv), NULL), 0);
    assert_int_equal(pool_take(&w->pool, &all, PAGES, w->from), 0);
    assert_int_equal(pool_take(&w->pool, &all, PAGES, w->to), 0);
    for (uint32_t i = 0; i < 2 * MAX_KEY * LISTS; i++) {
        uint32_t page = i / LISTS / PAGE_TOKENS, list = i % LISTS;
        uint8_t *k = w->pool.mem + page * w->pool.page_bytes + pool_k_off(&w->pool, 0, list);
        float x[2][256];

        for (uint32_t c = 0; c < 2 * hd; c++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            x[c / hd][c % hd] = (float)((double)(seed >> 33) / (double)(1u << 30) - 1.0);
        }
        kernels_scalar.kv_store[kv](x[0], x[1], hd, i / LISTS % PAGE_TOKENS, k,
                                    k + w->pool.head_bytes / 2);
    }
    w->before = malloc(w->pool.mem_len);
    w->want = malloc(w->pool.mem_len);
    memcpy(w->before, w->pool.mem, w->pool.mem_len);
}

static void close_world(struct world *w)
{
    pool_close(&w->pool);
    move_close(w->cpu);
    workers_close(w->w);
    rotary_close(&w->rotary);
    free(w->before);
    free(w->want);
}

static struct k_pool pool_of(const struct world *w)
{
    return (struct k_pool){ w->pool.mem, w->pool.page_bytes, w->pool.head_bytes, w->pool.kv, LAYERS,
                            HEADS,       w->m.head_dim };
}

/* On the CPU, and then in both orders of blocks: the same bytes everywhere. */
static void check(struct world *w, const struct backend_move *m)
{
    struct k_move a = { .pool = pool_of(w),
                        .angles = { w->rotary.fine, w->rotary.coarse },
                        .from = m->from,
                        .to = m->to,
                        .kept = m->kept,
                        .per_head = m->per_head,
                        .first = m->first,
                        .n_keys = m->n_keys };

    memcpy(w->pool.mem, w->before, w->pool.mem_len);
    move_run(w->cpu, m);
    memcpy(w->want, w->pool.mem, w->pool.mem_len);
    for (int order = 0; order < (SANITIZED ? 1 : 2); order++) {
        memcpy(w->pool.mem, w->before, w->pool.mem_len);
        shim_set_order(order);
        assert_int_equal(k_move(NULL, &a), 0);
        assert_int_equal(cudaDeviceSynchronize(), 0);
        assert_memory_equal(w->pool.mem, w->want, w->pool.mem_len);
    }
    shim_set_order(false);
}

/* The first few stay, then every so many of each list, each list another. */
static uint32_t keep_some(struct world *w, uint32_t every)
{
    uint32_t n = 0;

    for (uint32_t list = 0; list < LISTS; list++) {
        uint32_t *kept = w->kept + (size_t)list * (4 + (MAX_KEY - 8) / every);

        n = 0;
        while (n < 4)
            kept[n] = n, n++;
        for (uint32_t i = 0; i < (MAX_KEY - 8) / every; i++)
            kept[n++] = 4 + i * every + (list + i) % (every < 4 ? every : 4);
    }
    return n;
}

static void check_type(uint32_t hd, enum kv_type kv)
{
    struct world w;
    uint32_t n;

    open_world(&w, hd, kv);
    struct backend_move m = { .pool = &w.pool, .from = w.from, .to = w.from, .kept = w.kept };

    for (uint32_t every = 2; every <= (SANITIZED ? 2 : 8);
         every += 3) { /* thinned where they stand, or elsewhere */
        n = m.n_keys = keep_some(&w, every);
        m.per_head = true;
        m.first = 0;
        m.to = w.from;
        check(&w, &m);
        m.to = w.to;
        check(&w, &m);
        m.per_head = false;
        m.first = 3;
        m.to = w.from;
        check(&w, &m);
    }
    /* To higher places: a gap is opened in the middle. */
    n = 100;
    for (uint32_t i = 0; i < n; i++)
        w.kept[i] = i < 37 ? i : i - 5;
    m.n_keys = n;
    m.first = 37;
    check(&w, &m);
    close_world(&w);
}

static void moves(void **state)
{
    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        if (!SANITIZED) {
            check_type(64, kv);
            check_type(128, kv);
        }
        check_type(40, kv); /* a block of q8_0 that is not full */
    }
}

static void norms(void **state)
{
    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        float want[LISTS * MAX_KEY], got[LISTS * MAX_KEY];
        uint32_t n = MAX_KEY - 3;
        struct world w;

        open_world(&w, 80, kv);
        move_norms(w.cpu, &w.pool, w.to, n, want);
        memset(got, 0xff, sizeof(got));
        struct k_norms a = { pool_of(&w), w.to, n, got };
        assert_int_equal(k_norms(NULL, &a), 0);
        assert_int_equal(cudaDeviceSynchronize(), 0);
        /* Sums of 80 squares of size 1, in another order. */
        assert_true(near_worst(0, want, got, LISTS * n) <= 2e-5);
        close_world(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(moves), cmocka_unit_test(norms) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
