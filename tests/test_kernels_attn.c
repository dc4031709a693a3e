/* Would catch: fast attention that differs from its plain twin; that looks at a key it must not
 * see, or at what lies in a tile past the last key; that leaves its buffers; whose row depends on
 * the rows beside it; tiles stored the wrong way round; partial results that do not merge to the
 * result of the whole.
 *
 * Tolerances. A score is a sum of head_dim products of about unit size, off by some 1e-6; exp of it
 * is off by as much, relative; weights are averages of that. 2e-5 leaves room for head_dim 256.
 */
#include "engine/cpu/kernels.h"
#include "tests/support/counted.h"
#include "tests/support/fenced.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct kernels *fast;
static const struct kernels *const plain = &kernels_scalar;

static uint64_t seed = 0x2545f4914f6cdd1du;

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

/* --- a pool with one sequence in it ----------------------------------------------------------- */

#define PAGES_MAX 64u

struct scene {
    enum kv_type kv;
    uint32_t hd, n_rows;
    uint32_t pages[PAGES_MAX];
    uint8_t *pool;
    float *q, *m[2], *l[2], *o[2];
    struct kernels_attn a;
    struct fenced buffers[8]; /* of all those */
    uint32_t n_buffers;
};

static void shuffle_pages(uint32_t pages[PAGES_MAX])
{
    for (uint32_t i = 0; i < PAGES_MAX; i++)
        pages[i] = i;
    for (uint32_t i = PAGES_MAX - 1; i > 0; i--) {
        uint32_t j = random_u32() % (i + 1), t = pages[i];

        pages[i] = pages[j];
        pages[j] = t;
    }
}

static void fill_keys(struct scene *s, uint32_t n_keys)
{
    float k[512], v[512];

    for (uint32_t j = 0; j < n_keys; j++) {
        uint8_t *page = s->pool + s->pages[j / PAGE_TOKENS] * s->a.page_bytes;

        for (uint32_t i = 0; i < s->hd; i++) {
            k[i] = random_f32(2);
            v[i] = random_f32(3);
        }
        plain->kv_store[s->kv](k, v, s->hd, j % PAGE_TOKENS, page + s->a.k_off, page + s->a.v_off);
    }
}

static void *scene_buffer(struct scene *s, size_t len)
{
    struct fenced *f = &s->buffers[s->n_buffers++];

    *f = fenced_new(len);
    return f->p;
}

static void scene_init(struct scene *s, enum kv_type kv, uint32_t hd, uint32_t group,
                       uint32_t n_tokens, uint32_t n_keys, uint32_t first_visible, float q_by)
{
    size_t tile = kv_tile_bytes(kv, hd);
    uint32_t n_rows = n_tokens * group;

    *s = (struct scene){ .kv = kv, .hd = hd, .n_rows = n_rows };
    s->a = (struct kernels_attn){ .n_rows = n_rows,
                                  .group = group,
                                  .head_dim = hd,
                                  .n_keys = n_keys,
                                  .first_visible = first_visible,
                                  .stride = 1,
                                  .page_bytes = 3 * tile + 64,
                                  .k_off = 64,
                                  .v_off = 64 + 2 * tile };
    s->pool = scene_buffer(s, PAGES_MAX * s->a.page_bytes);
    memset(s->pool, 0xff, PAGES_MAX * s->a.page_bytes); /* all that is no key is NaN */
    shuffle_pages(s->pages);
    fill_keys(s, n_keys);
    s->q = scene_buffer(s, n_rows * hd * sizeof(float));
    for (uint32_t i = 0; i < n_rows * hd; i++)
        s->q[i] = random_f32(q_by);
    for (int i = 0; i < 2; i++) {
        s->m[i] = scene_buffer(s, n_rows * sizeof(float));
        s->l[i] = scene_buffer(s, n_rows * sizeof(float));
        s->o[i] = scene_buffer(s, n_rows * hd * sizeof(float));
        memset(s->o[i], 0xff, n_rows * hd * sizeof(float));
    }
    s->a.q = s->q;
    s->a.pool = s->pool;
    s->a.pages = s->pages;
}

static void scene_fini(struct scene *s)
{
    for (uint32_t i = 0; i < s->n_buffers; i++)
        fenced_free(&s->buffers[i]);
}

static void scene_run(struct scene *s, const struct kernels *k, int to)
{
    s->a.m = s->m[to];
    s->a.l = s->l[to];
    s->a.o = s->o[to];
    k->attn[s->kv](&s->a);
}

/* sum |v| weighs at most 3 an element. Averages o / l are compared, as m may differ in its last
 * bits and shifts both. */
static void check_scene(const struct scene *s)
{
    for (uint32_t r = 0; r < s->n_rows; r++) {
        float m0 = s->m[0][r], m1 = s->m[1][r], l0 = s->l[0][r], l1 = s->l[1][r];

        expect_that(fabsf(m0 - m1) <= 2e-6f * (1 + fabsf(m0)) * 4,
                    "hd %u, row %u: m plain %.9g, fast %.9g", s->hd, r, m0, m1);
        expect_that(fabsf(l0 - l1) <= 2e-5f * l0 * (1 + fabsf(m0)),
                    "hd %u, row %u: l plain %.9g, fast %.9g", s->hd, r, l0, l1);
        for (uint32_t i = 0; i < s->hd; i++) {
            float a = s->o[0][r * s->hd + i] / l0, b = s->o[1][r * s->hd + i] / l1;

            expect_that(fabsf(a - b) <= 2e-5f * 3 * (1 + fabsf(m0) / 8),
                        "hd %u, group %u, keys %u, row %u of %u, element %u: plain %.9g, fast %.9g",
                        s->hd, s->a.group, s->a.n_keys, r, s->n_rows, i, a, b);
        }
    }
}

static void check_attn(enum kv_type kv, uint32_t hd, uint32_t group, uint32_t n_tokens,
                       uint32_t n_keys, uint32_t first_visible, float q_by)
{
    struct scene s;

    scene_init(&s, kv, hd, group, n_tokens, n_keys, first_visible, q_by);
    scene_run(&s, plain, 0);
    scene_run(&s, fast, 1);
    check_scene(&s);
    scene_fini(&s);
}

/* --- tests ------------------------------------------------------------------------------------ */

/* A decoding token: group rows, all keys of the segment. */
static void test_attn_decode(void **state)
{
    static const uint32_t dims[] = { 8, 16, 24, 64, 72, 80, 96, 120, 128, 248, 256 };

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        for (size_t k = 0; k < sizeof(dims) / sizeof(dims[0]); k++) {
            for (uint32_t group = 1; group <= 13; group++)
                check_attn(kv, dims[k], group, 1, 75, 75, 0.5f);
        }
        for (uint32_t n_keys = 1; n_keys <= 150; n_keys++)
            check_attn(kv, 64, 3, 1, n_keys, n_keys, 0.5f);
        check_attn(kv, 64, 3, 1, 1024, 1024, 0.5f);
    }
}

/* A chunk of a prompt: row i / group sees one key more than the token before. */
static void test_attn_prefill(void **state)
{
    static const uint32_t groups[] = { 1, 2, 3, 4, 7, 8 };

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        for (size_t k = 0; k < sizeof(groups) / sizeof(groups[0]); k++) {
            for (uint32_t first = 1; first <= 131; first += 13) {
                uint32_t n = 1 + first % 37;

                check_attn(kv, 64, groups[k], n, first + n - 1, first, 0.5f);
                check_attn(kv, 64, groups[k], n, first + n / 2, first, 0.5f); /* keys end first */
            }
        }
        check_attn(kv, 80, 4, 50, 150, 101, 0.5f);
        check_attn(kv, 96, 4, 50, 150, 101, 0.5f);
        check_attn(kv, 128, 4, 70, 70, 1, 0.5f);
        check_attn(kv, 256, 2, 33, 95, 63, 0.5f);
        check_attn(kv, 24, 2, 33, 95, 63, 0.5f);
        check_attn(kv, 248, 2, 33, 95, 63, 0.5f);
        check_attn(kv, 64, 3, 100, 512, 512, 0.5f);
    }
}

/* Gists: each sees a snippet more than the one before. */
static void test_attn_strides(void **state)
{
    static const uint32_t strides[] = { 2, 4, 7, 16, 32, 64 };

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        for (size_t k = 0; k < sizeof(strides) / sizeof(strides[0]); k++) {
            for (uint32_t n = 1; n <= 45; n += 11) {
                uint32_t n_keys = (n - 1) * strides[k] + 5;
                struct scene s;

                if (n_keys > PAGES_MAX * PAGE_TOKENS)
                    continue;
                scene_init(&s, kv, 64, 1 + n % 3, n, n_keys, 5, 0.5f);
                s.a.stride = strides[k];
                scene_run(&s, plain, 0);
                scene_run(&s, fast, 1);
                check_scene(&s);
                scene_fini(&s);
            }
        }
    }
}

/* Sharp softmax: all but a few weights underflow, and maxima come late. */
static void test_attn_sharp(void **state)
{
    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        check_attn(kv, 64, 3, 1, 500, 500, 6);
        check_attn(kv, 64, 3, 40, 500, 461, 6);
        check_attn(kv, 64, 3, 40, 500, 461, 0);
        check_attn(kv, 128, 4, 20, 300, 281, 20);
    }
}

/* Each token alone, each with just the keys that it sees, and pairs: the same bits. */
static void test_attn_split(void **state)
{
    static const uint32_t steps[] = { 1, 2, 3, 5, 8 };
    const uint32_t n_tokens = 41, first = 23, n_keys = first + n_tokens - 1;

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        for (uint32_t group = 1; group <= 8; group++) {
            for (size_t k = 0; k < sizeof(steps) / sizeof(steps[0]); k++) {
                struct scene s;

                scene_init(&s, kv, 64, group, n_tokens, n_keys, first, 0.7f);
                scene_run(&s, fast, 0);
                for (uint32_t t = 0; t < n_tokens; t += steps[k]) {
                    struct kernels_attn a = s.a;
                    uint32_t n = n_tokens - t < steps[k] ? n_tokens - t : steps[k];

                    a.q += (size_t)t * group * s.hd;
                    a.n_rows = n * group;
                    a.first_visible += t;
                    a.n_keys = k % 2 ? n_keys : a.first_visible + n - 1;
                    a.m = s.m[1] + t * group;
                    a.l = s.l[1] + t * group;
                    a.o = s.o[1] + (size_t)t * group * s.hd;
                    fast->attn[kv](&a);
                }
                assert_memory_equal(s.m[0], s.m[1], s.n_rows * sizeof(float));
                assert_memory_equal(s.l[0], s.l[1], s.n_rows * sizeof(float));
                assert_memory_equal(s.o[0], s.o[1], s.n_rows * s.hd * sizeof(float));
                scene_fini(&s);
            }
        }
    }
}

/* A key that is not a number hurts only the rows that see it. */
static void test_attn_hides_bad_keys(void **state)
{
    struct scene s;
    uint8_t *page;

    (void)state;
    scene_init(&s, KV_F32, 64, 1, 30, 60, 31, 0.5f);
    scene_run(&s, fast, 0);
    page = s.pool + s.pages[50 / PAGE_TOKENS] * s.a.page_bytes;
    ((float *)(page + s.a.v_off))[50 % PAGE_TOKENS * 64] = NAN;
    ((float *)(page + s.a.k_off))[50 % PAGE_TOKENS] = NAN;
    scene_run(&s, fast, 1);
    assert_memory_equal(s.o[0], s.o[1], 20 * 64 * sizeof(float)); /* these see 31 to 50 keys */
    assert_memory_equal(s.l[0], s.l[1], 20 * sizeof(float));
    assert_true(isnan(s.o[1][20 * 64]));
    scene_fini(&s);
}

/* Pages of several segments: what a page does not hold is NaN. */
static void spoil_gaps(struct scene *s, const struct kernels_joined *joined, uint32_t n_pages)
{
    for (uint32_t p = 0; p < n_pages; p++) {
        uint8_t *page = s->pool + s->pages[p] * s->a.page_bytes;

        for (uint32_t slot = joined[p].n_keys; slot < PAGE_TOKENS; slot++)
            for (uint32_t i = 0; i < s->hd; i++) {
                ((float *)(page + s->a.k_off))[i * PAGE_TOKENS + slot] = NAN;
                ((float *)(page + s->a.v_off))[slot * s->hd + i] = NAN;
            }
    }
}

static void check_joined(enum kv_type kv, uint32_t hd, uint32_t group, uint32_t n_tokens,
                         uint32_t n_pages, uint32_t n_keys)
{
    struct kernels_joined joined[PAGES_MAX];
    float *cs = malloc(n_pages * hd * sizeof(*cs));
    size_t o_len = (size_t)group * hd * sizeof(float);
    struct scene s;

    scene_init(&s, kv, hd, group, n_tokens, n_pages * PAGE_TOKENS, n_pages * PAGE_TOKENS, 0.5f);
    for (uint32_t p = 0; p < n_pages; p++) {
        for (uint32_t i = 0; i < hd / 2; i++) {
            float angle = random_f32(3);

            cs[p * hd + i] = cosf(angle);
            cs[p * hd + hd / 2 + i] = sinf(angle);
        }
        joined[p].cs = cs + p * hd;
        joined[p].n_keys = n_keys ? n_keys : 1 + random_u32() % PAGE_TOKENS;
    }
    if (kv == KV_F32)
        spoil_gaps(&s, joined, n_pages);
    s.a.joined = joined;
    scene_run(&s, plain, 0);
    scene_run(&s, fast, 1);
    check_scene(&s);

    /* Each token alone: the same bits. */
    s.a.n_rows = group;
    for (uint32_t t = 0; t < n_tokens; t++) {
        s.a.q = s.q + t * group * hd;
        scene_run(&s, fast, 0);
        assert_memory_equal(s.o[0], s.o[1] + t * group * hd, o_len);
        assert_memory_equal(s.l[0], s.l[1] + t * group, group * sizeof(float));
    }
    scene_fini(&s);
    free(cs);
}

static void test_attn_joined(void **state)
{
    static const uint32_t dims[] = { 8, 24, 64, 80, 128, 256 };

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        for (size_t k = 0; k < sizeof(dims) / sizeof(dims[0]); k++)
            for (uint32_t group = 1; group <= 9; group++)
                check_joined(kv, dims[k], group, 2, 7, 0);
        for (uint32_t n_pages = 1; n_pages <= 9; n_pages++) {
            check_joined(kv, 64, 3, 1, n_pages, PAGE_TOKENS);
            check_joined(kv, 64, 3, 1, n_pages, 0);
            check_joined(kv, 64, 3, 45, n_pages, 0);
        }
        check_joined(kv, 64, 3, 1, PAGES_MAX, 0);
        check_joined(kv, 128, 4, 33, 16, 1);
    }
}

static void test_kv_store(void **state)
{
    static const uint32_t dims[] = { 8, 64, 80, 128, 256 };
    float k[256], v[256];
    uint8_t tiles[4][256 * PAGE_TOKENS * 4];

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++) {
            memset(tiles, 0, sizeof(tiles));
            for (uint32_t slot = 0; slot < PAGE_TOKENS; slot += 1 + slot % 3) {
                for (uint32_t i = 0; i < dims[d]; i++) {
                    k[i] = random_f32(slot % 2 ? 3 : 1e-5f);
                    v[i] = random_f32(i % 9 ? 3 : 70000);
                }
                plain->kv_store[kv](k, v, dims[d], slot, tiles[0], tiles[1]);
                fast->kv_store[kv](k, v, dims[d], slot, tiles[2], tiles[3]);
            }
            assert_memory_equal(tiles[0], tiles[2], 2 * sizeof(tiles[0]));
        }
    }
}

/* Two segments' partial results against the one of all keys in a row. */
static void test_attn_merge(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        const struct kernels *k = way ? fast : plain;

        for (uint32_t cut = 16; cut <= 112; cut += 16) {
            struct scene s;
            struct kernels_attn a, b;

            scene_init(&s, KV_F32, 64, 3, 1, 120, 120, 1);
            scene_run(&s, plain, 0);
            a = b = s.a;
            a.m = s.m[1];
            a.l = s.l[1];
            a.o = s.o[1];
            a.n_keys = a.first_visible = cut;
            b.n_keys = b.first_visible = 120 - cut;
            b.pages += cut / PAGE_TOKENS;
            b.m = malloc(3 * sizeof(float));
            b.l = malloc(3 * sizeof(float));
            b.o = malloc(3 * 64 * sizeof(float));
            k->attn[KV_F32](&a);
            k->attn[KV_F32](&b);
            for (uint32_t r = 0; r < 3; r++)
                k->attn_merge(&a.m[r], &a.l[r], a.o + r * 64, b.m[r], b.l[r], b.o + r * 64, 64);
            check_scene(&s);
            free(b.m);
            free(b.l);
            free(b.o);
            scene_fini(&s);
        }
    }
}

/* The empty set of keys on either side changes nothing, not even to NaN. */
static void test_attn_merge_empty(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        const struct kernels *k = way ? fast : plain;
        float m = 2, l = 3, o[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, zero[8] = { 0 };
        float m2 = -INFINITY, l2 = 0, o2[8] = { 0 };

        k->attn_merge(&m, &l, o, -INFINITY, 0, zero, 8);
        assert_true(m == 2 && l == 3 && o[0] == 1 && o[7] == 8);
        k->attn_merge(&m2, &l2, o2, m, l, o, 8);
        assert_true(m2 == 2 && l2 == 3 && o2[0] == 1 && o2[7] == 8);
        m = -INFINITY, l = 0;
        k->attn_merge(&m, &l, zero, -INFINITY, 0, zero, 8);
        assert_true(l == 0 && zero[0] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv_store),     cmocka_unit_test(test_attn_decode),
        cmocka_unit_test(test_attn_prefill), cmocka_unit_test(test_attn_sharp),
        cmocka_unit_test(test_attn_strides), cmocka_unit_test(test_attn_joined),
        cmocka_unit_test(test_attn_split),   cmocka_unit_test(test_attn_hides_bad_keys),
        cmocka_unit_test(test_attn_merge),   cmocka_unit_test(test_attn_merge_empty),
    };

    int failed = 0;

    for (unsigned i = 0; kernels_name(i); i++) {
        assert(kernels_pick(kernels_name(i), &fast) == 0);
        if (fast != plain)
            failed += cmocka_run_group_tests_name(fast->name, tests, NULL, NULL);
    }
    if (strcmp(kernels_name(0), plain->name) == 0) {
        puts("this CPU has no AVX2, FMA and F16C: nothing to hold against the scalar kernels");
        return 77;
    }
    return failed ? 1 : 0;
}
