/* tests/test_compress.c - would catch: a key kept at the wrong place or turned by the wrong angle,
 * a snippet's first token instead of its last, a remainder or a sink that is lost, weights of the
 * wrong head, a base that does not move, pages that are not given back, keys that depend on whether
 * there were pages to spare.
 *
 * The reference is attention as the textbook has it over the keys that should be there, at the
 * positions where they should stand, in double.
 */
#include "engine/kv/compress.h"

#include "engine/cpu/kv.h"
#include "tests/support/attn_world.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CONTEXT WORLD_CONTEXT
#define L       64u

/* --- what should be there --------------------------------------------------------------------- */

/* The keys that head h sees before token t when segments of `packed` (a bit each) were compressed;
 * their positions are 0, 1, ... Selected heads of segment k are those with the largest weights. */
static uint32_t keys_of(const struct compress_spec *c, unsigned packed, const float *const *weights,
                        uint32_t h, uint32_t t, uint32_t *ret)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k * L <= t; k++) {
        uint32_t s = k == 0 ? c->sinks : 0, last = (L - s) / c->ratio * c->ratio + s;
        uint32_t rank[L], n_keys = s + (L - s) / c->ratio + (L - s) % c->ratio;

        for (uint32_t i = 0; i < L; i++) {
            rank[i] = 0;
            for (uint32_t j = s; weights[k] && j < L; j++)
                rank[i] += weights[k][h * L + j] > weights[k][h * L + i];
        }
        for (uint32_t i = 0; i < L && k * L + i <= t; i++) {
            bool snippet = (i - s) % c->ratio == c->ratio - 1 || i >= last;
            bool kept = c->method == COMPRESS_FINE_KV ? snippet : rank[i] < n_keys - s;

            if (!(packed & 1u << k) || (c->method != COMPRESS_NONE && (i < s || kept)))
                ret[n++] = k * L + i;
        }
    }
    return n;
}

static double error_of(const struct world *w, const struct compress_spec *c, unsigned packed,
                       const float *const *weights, uint32_t t, const float *out)
{
    uint32_t hd = w->m.head_dim, keys[CONTEXT];
    double want[KERNELS_HEAD_DIM_MAX], positions[CONTEXT], worst = 0;

    for (uint32_t i = 0; i < CONTEXT; i++)
        positions[i] = i;
    for (uint32_t h = 0; h < w->m.n_head; h++) {
        uint32_t n = keys_of(c, packed, weights, h / (w->m.n_head / w->m.n_head_kv), t, keys);

        world_textbook(w, t, n - 1, h, n, keys, positions, want, NULL);
        for (uint32_t i = 0; i < hd; i++)
            worst = near_worse(worst, want[i], (double)out[h * hd + i]);
    }
    return worst;
}

/* --- each method ------------------------------------------------------------------------------ */

static void compress(struct world *w, const struct compress_spec *spec, uint32_t segment,
                     const float *weights)
{
    struct compress_side side = { .n_done = 0 };
    struct compressor *c;

    assert_int_equal(compress_open(&w->m, world_backend(w), &c), 0);
    assert_int_equal(compress_check(spec, L, NULL), 0);
    side.n_done = compress_rows_left(spec, &w->seq, segment, &side);
    side.floats = (float *)weights; /* as if its observers had run */
    if (!compress_keeps_all(spec))
        assert_int_equal(compress_finish(c, spec, &w->seq, segment, &side), 0);
    compress_close(c);
}

/* f32 keys are turned back with an error of the last bit; f16 and q8_0 are rounded again. */
static const double tolerance[KV__N] = { [KV_F32] = 1e-5, [KV_F16] = 4e-3, [KV_Q8_0] = 4e-2 };

/* Segments are compressed when all tokens were read, the later one first; then a token of the last
 * segment, which stays raw, sees what is left. */
static void check(const struct kernels *k, const struct world_shape *shape, enum kv_type kv,
                  const struct compress_spec *spec)
{
    struct world w;
    uint32_t t = CONTEXT - 1, n_pages;
    float *weights[CONTEXT / L + 1] = { NULL };
    float *out;
    double worst;

    assert_int_equal(world_open(&w, shape, k, kv, 2, L, 7), 0);
    out = malloc(CONTEXT * (size_t)shape->n_head * shape->head_dim * sizeof(float));
    for (uint32_t i = 0; i < 4; i++) {
        weights[i] = calloc((size_t)shape->n_head_kv * L, sizeof(float));
        world_attend(&w, i * L, L, weights[i], out);
    }
    world_attend(&w, 4 * L, CONTEXT - 4 * L, NULL, out);
    n_pages = w.seq.n_pages;
    compress(&w, spec, 2, weights[2]);
    compress(&w, spec, 0, weights[0]);
    if (spec->method != COMPRESS_FULL) {
        uint32_t left = compress_n_keys(spec, L, 0, 0), left2 = compress_n_keys(spec, L, 2, 0);

        assert_int_equal(seq_position(&w.seq, CONTEXT), 7 + CONTEXT - 2 * L + left + left2);
        assert_int_equal(w.seq.n_pages,
                         n_pages - 2 * L / 16 + (left + 15) / 16 + (left2 + 15) / 16);
    }
    assert_int_equal(w.account.used, w.seq.n_pages);
    world_attend(&w, t, 1, NULL, out);
    worst = error_of(&w, spec, spec->method == COMPRESS_FULL ? 0 : 5u,
                     (const float *const *)weights, t, out);
    if (!(worst <= tolerance[kv]))
        fail_msg("%s, %s, ratio %u, kv %d: off by %g", shape->name, compress_name(spec->method),
                 spec->ratio, kv, worst);
    for (uint32_t i = 0; i < 4; i++)
        free(weights[i]);
    free(out);
    world_close(&w);
}

static void keys_stand_where_they_should(void **state)
{
    static const struct compress_spec specs[] = {
        { COMPRESS_FULL, 1, 0, NULL },    { COMPRESS_NONE, 1, 0, NULL },
        { COMPRESS_FINE_KV, 2, 4, NULL }, { COMPRESS_FINE_KV, 8, 4, NULL },
        { COMPRESS_FINE_KV, 8, 3, NULL }, { COMPRESS_FINE_KV, 64, 0, NULL },
        { COMPRESS_SELECT, 4, 4, NULL },  { COMPRESS_SELECT, 16, 0, NULL },
    };

    for (uint32_t s = 0; s < WORLD_SHAPES; s++)
        for (size_t i = 0; i < sizeof(specs) / sizeof(*specs); i++)
            for (enum kv_type kv = 0; kv < KV__N; kv++)
                if (kv == KV_F32 || s == 0)
                    check(*state, &world_shapes[s], kv, &specs[i]);
}

/* --- fresh pages, or in place ------------------------------------------------------------------
 */

/* K and V of one key of one head, as they lie, in tiles of their own. */
static void take_key(const struct world *w, uint32_t segment, uint32_t i, uint32_t head,
                     uint8_t *ret)
{
    const uint8_t *page = w->pool.mem + seq_pages(&w->seq, segment)[i / 16] * w->pool.page_bytes;
    size_t tile = kv_tile_bytes(w->pool.kv, w->m.head_dim);

    memset(ret, 0, 2 * tile);
    kv_copy(w->pool.kv, page + pool_k_off(&w->pool, 0, head), page + pool_v_off(&w->pool, 0, head),
            ret, ret + tile, w->m.head_dim, i % 16);
}

static void open_small(struct world *w, const struct kernels *k, enum kv_type kv, float *weights,
                       float *out)
{
    const struct world_shape *shape = &world_shapes[0];
    size_t n = (size_t)CONTEXT * shape->n_head_kv * shape->head_dim;

    assert_int_equal(world_open(w, shape, k, kv, 2, L, 0), 0);
    /* Scales of q8_0 are f16: these have few bits there, and rounding a key once more shows. */
    for (size_t i = 0; i < n; i++) {
        w->kk[i] *= 3e-5f;
        w->v[i] *= 1e-5f;
    }
    world_attend(w, 0, L, weights, out);
}

/* The same keys to the bit, whether there were pages for them or not. Where there were, the raw
 * ones are as before: something else may still hold them. */
static void fresh_pages_are_the_same(void **state)
{
    static const struct compress_spec specs[] = { { COMPRESS_FINE_KV, 4, 4, NULL },
                                                  { COMPRESS_SELECT, 2, 4, NULL } };
    const struct world_shape *shape = &world_shapes[0];
    float *out = malloc(CONTEXT * (size_t)shape->n_head * shape->head_dim * sizeof(*out));

    for (size_t i = 0; i < 2 * KV__N; i++) {
        const struct compress_spec *spec = &specs[i % 2];
        uint32_t n_keys = compress_n_keys(spec, L, 0, 0);
        float weights[3 * L] = { 0 };
        uint8_t a[2 * 64 * 16 * 4], b[2 * 64 * 16 * 4], *raw;
        uint32_t pages[L / 16], held;
        struct world fresh, place;
        size_t len;

        open_small(&fresh, *state, (enum kv_type)(i / 2), weights, out);
        memset(weights, 0, sizeof(weights));
        open_small(&place, *state, (enum kv_type)(i / 2), weights, out);
        len = fresh.pool.page_bytes;
        raw = malloc(len * (L / 16));
        memcpy(pages, seq_pages(&fresh.seq, 0), sizeof(pages));
        for (uint32_t p = 0; p < L / 16; p++)
            memcpy(raw + p * len, fresh.pool.mem + pages[p] * len, len);
        held = fresh.seq.n_pages;
        compress(&fresh, spec, 0, weights);
        place.account.limit = place.account.used;
        compress(&place, spec, 0, weights);

        assert_int_equal(fresh.seq.n_pages, held - L / 16 + seq_n_pages(n_keys));
        assert_int_equal(place.seq.n_pages, fresh.seq.n_pages);
        for (uint32_t p = 0; p < seq_n_pages(n_keys); p++) {
            assert_int_equal(seq_pages(&place.seq, 0)[p], pages[p]);
            for (uint32_t q = 0; q < L / 16; q++)
                assert_int_not_equal(seq_pages(&fresh.seq, 0)[p], pages[q]);
        }
        for (uint32_t p = 0; p < L / 16; p++)
            assert_memory_equal(raw + p * len, fresh.pool.mem + pages[p] * len, len);
        for (uint32_t h = 0; h < shape->n_head_kv; h++)
            for (uint32_t key = 0; key < n_keys; key++) {
                take_key(&fresh, 0, key, h, a);
                take_key(&place, 0, key, h, b);
                if (memcmp(a, b, 2 * kv_tile_bytes((enum kv_type)(i / 2), 64)) != 0)
                    fail_msg("KV %zu, %s: key %u of head %u differs", i / 2,
                             compress_name(spec->method), key, h);
            }
        free(raw);
        world_close(&fresh);
        world_close(&place);
    }
    free(out);
}

/* --- weights ---------------------------------------------------------------------------------- */

/* The last 37 tokens of segment 1, whatever the chunks they come in. */
static void weights_are_attention(void **state)
{
    static const uint32_t chunks[] = { 37, 16, 1 };
    const struct world_shape *shape = &world_shapes[0];
    uint32_t group = shape->n_head / shape->n_head_kv, n = shape->n_head_kv * L;
    uint32_t t0 = 2 * L - 37, keys[2 * L];
    double positions[2 * L], p[2 * L], o[KERNELS_HEAD_DIM_MAX];
    double *want = calloc(n, sizeof(*want));
    float *got[3], *out = malloc(CONTEXT * (size_t)shape->n_head * shape->head_dim * sizeof(*out));
    struct world w;

    assert_int_equal(world_open(&w, shape, *state, KV_F32, 2, L, 0), 0);
    world_attend(&w, 0, 2 * L, NULL, out);
    for (uint32_t i = 0; i < 2 * L; i++) {
        keys[i] = i;
        positions[i] = i;
    }
    for (uint32_t t = t0; t < 2 * L; t++)
        for (uint32_t h = 0; h < shape->n_head; h++) {
            world_textbook(&w, t, t, h, t + 1, keys, positions, o, p);
            for (uint32_t i = 0; i + L <= t; i++)
                want[h / group * L + i] += p[L + i];
        }
    for (uint32_t c = 0; c < 3; c++) {
        got[c] = calloc(n, sizeof(float));
        for (uint32_t t = t0; t < 2 * L; t += chunks[c])
            world_attend(&w, t, t + chunks[c] > 2 * L ? 2 * L - t : chunks[c], got[c], out);
        assert_memory_equal(got[c], got[0], n * sizeof(float));
    }
    for (uint32_t i = 0; i < n; i++)
        if (!near_within(want[i], (double)got[0][i], 1e-4))
            fail_msg("key %u of head %u: %g, not %g", i % L, i / L, got[0][i], want[i]);
    for (uint32_t c = 0; c < 3; c++)
        free(got[c]);
    free(want);
    free(out);
    world_close(&w);
}

/* --- the sequence ----------------------------------------------------------------------------- */

static void rewind_and_read_again(void **state)
{
    const struct compress_spec spec = { COMPRESS_FINE_KV, 4, 4, NULL };
    float *out = malloc(CONTEXT * (size_t)9 * 64 * sizeof(*out));
    struct world w;

    assert_int_equal(world_open(&w, &world_shapes[0], *state, KV_F32, 1, L, 0), 0);
    world_attend(&w, 0, CONTEXT, NULL, out);
    compress(&w, &spec, 0, NULL);
    compress(&w, &spec, 1, NULL);
    assert_int_equal(w.seq.segments[4].base, 19 + 16 + 2 * L);
    assert_int_equal(seq_position(&w.seq, 2 * L), 19 + 16);
    assert_int_equal(seq_position(&w.seq, 2 * L + 1), 19 + 16 + 1);
    assert_int_equal(seq_rewind(&w.seq, 2 * L + 20), 2 * L + 20); /* raw */
    assert_int_equal(w.seq.n_pages, 2 + 1 + 2);
    assert_int_equal(seq_rewind(&w.seq, 2 * L), 2 * L);
    assert_int_equal(seq_rewind(&w.seq, L + 33), L); /* compressed: from its start */
    assert_int_equal(w.seq.n_pages, 2);
    assert_int_equal(seq_reserve(&w.seq, CONTEXT - L), 0);
    assert_int_equal(w.seq.segments[1].base, 19);
    assert_int_equal(w.seq.segments[1].state, SEQ_RAW);
    world_attend(&w, L, CONTEXT - L, NULL, out);
    assert_true(error_of(&w, &spec, 1u, (const float *const[5]){ NULL }, CONTEXT - 1,
                         out + (size_t)(CONTEXT - 1 - L) * 9 * 64) < 1e-5);
    assert_int_equal(w.account.used, w.seq.n_pages);
    world_close(&w);
    free(out);
}

static void refuses_bad_specs(void **state)
{
    static const struct adapter among = { .name = "among",
                                          .method = ADAPTER_FINE_KV,
                                          .mask = ADAPTER_IN_SEGMENT };
    struct why why = { "" };

    (void)state;
    assert_int_equal(
        compress_check(&(struct compress_spec){ COMPRESS_SELECT, 65, 4, NULL }, 8192, &why),
        -EINVAL);
    assert_non_null(strstr(why.text, "a ratio of 65 is not possible"));
    assert_int_equal(
        compress_check(&(struct compress_spec){ COMPRESS_SELECT, 1, 4, NULL }, 64, NULL), -EINVAL);
    assert_int_equal(
        compress_check(&(struct compress_spec){ COMPRESS_FINE_KV, 7, 4, NULL }, 512, NULL),
        -EINVAL);
    assert_int_equal(
        compress_check(&(struct compress_spec){ COMPRESS_FINE_KV, 8, 17, NULL }, 512, NULL),
        -EINVAL);
    assert_int_equal(
        compress_check(&(struct compress_spec){ COMPRESS_NONE, 0, 0, NULL }, 512, NULL), 0);
    why.text[0] = '\0';
    assert_int_equal(
        compress_check(&(struct compress_spec){ COMPRESS_NONE, 8, 0, &among }, 512, &why), -EINVAL);
    assert_non_null(
        strstr(why.text, "adapter \"among\" makes gists, but compressor none keeps none"));
    why.text[0] = '\0';
    assert_int_equal(
        compress_check(&(struct compress_spec){ COMPRESS_FINE_KV, 8, 4, &among }, 8192, &why),
        -EINVAL);
    assert_non_null(
        strstr(why.text, "segments of 8192 tokens with 1024 gists among them are too long"));
    assert_int_equal(
        compress_check(&(struct compress_spec){ COMPRESS_FINE_KV, 8, 4, &among }, 4096, NULL), 0);
}

int main(void)
{
    const struct kernels *k;
    int failed = 0;

    for (unsigned i = 0; i < SANITIZED_TABLES && kernels_name(i); i++) {
        if (kernels_pick(kernels_name(i), &k) < 0)
            continue;
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate(keys_stand_where_they_should, (void *)k),
            cmocka_unit_test_prestate(fresh_pages_are_the_same, (void *)k),
            cmocka_unit_test_prestate(weights_are_attention, (void *)k),
            cmocka_unit_test_prestate(rewind_and_read_again, (void *)k),
            cmocka_unit_test(refuses_bad_specs),
        };

        failed += cmocka_run_group_tests_name(k->name, tests, NULL, NULL);
    }
    return failed ? 1 : 0;
}
