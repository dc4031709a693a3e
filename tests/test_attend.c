/* tests/test_attend.c - would catch: a key turned by the wrong distance, a segment left out or
 * merged twice, a head of the wrong group, a mask off by one, work split over workers that changes
 * bits.
 *
 * The reference is attention as the textbook has it: absolute positions, one softmax, double. */
#include "engine/attend.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FREQ_BASE 500000.0
#define CONTEXT   300u

struct shape {
    const char *name;
    uint32_t n_head, n_head_kv, head_dim;
};

static const struct shape shapes[] = {
    { "SmolLM2-135M", 9, 3, 64 }, { "Llama-3.1-8B", 32, 8, 128 }, { "Qwen2-7B", 28, 4, 128 },
    { "no groups", 3, 3, 16 },    { "one KV head", 8, 1, 40 },
};

struct world {
    struct model m;
    const struct kernels *k;
    struct workers *w;
    struct rotary rotary;
    struct attend *a;
    struct pool pool;
    struct pool_account account;
    struct seq seq;
    float freq[128];
    float *q, *kk, *v; /* (CONTEXT, heads, hd), not rotated */
};

static float noise(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (float)((double)(*state >> 33) / (double)(1u << 30) - 1.0);
}

static float *random_rows(uint64_t *seed, size_t n)
{
    float *x = malloc(n * sizeof(float));

    for (size_t i = 0; i < n; i++)
        x[i] = noise(seed);
    return x;
}

static void open_world(struct world *w, const struct shape *s, const struct kernels *k,
                       enum kernels_kv kv, uint32_t n_workers, uint32_t seg_len, uint32_t pos0)
{
    uint64_t seed = 11;

    memset(w, 0, sizeof(*w));
    w->m = (struct model){
        .n_layer = 1, .n_head = s->n_head, .n_head_kv = s->n_head_kv, .head_dim = s->head_dim
    };
    w->k = k;
    w->account.limit = UINT32_MAX;
    for (uint32_t i = 0; i < s->head_dim / 2; i++)
        w->freq[i] = (float)pow(FREQ_BASE, -2.0 * i / s->head_dim);
    assert_int_equal(workers_open(n_workers, false, &w->w), 0);
    assert_int_equal(rotary_open(&w->rotary, w->freq, s->head_dim), 0);
    assert_int_equal(attend_open(&w->m, k, w->w, &w->rotary, &w->a), 0);
    assert_int_equal(pool_open(&w->pool, &w->m, kv, 32u << 20, false, NULL), 0);
    assert_int_equal(seq_open(&w->seq, &w->pool, &w->account, CONTEXT, seg_len, pos0), 0);
    assert_int_equal(seq_reserve(&w->seq, CONTEXT), 0);
    w->q = random_rows(&seed, (size_t)CONTEXT * s->n_head * s->head_dim);
    w->kk = random_rows(&seed, (size_t)CONTEXT * s->n_head_kv * s->head_dim);
    w->v = random_rows(&seed, (size_t)CONTEXT * s->n_head_kv * s->head_dim);
}

static void close_world(struct world *w)
{
    seq_close(&w->seq);
    pool_close(&w->pool);
    attend_close(w->a);
    rotary_close(&w->rotary);
    workers_close(w->w);
    free(w->q);
    free(w->kk);
    free(w->v);
}

/* Stores K and V of tokens [t0, t0 + n) and attends to them: out (n, n_head, hd). */
static void attend_tokens(struct world *w, uint32_t t0, uint32_t n, float *out)
{
    uint32_t hd = w->m.head_dim, width = w->m.n_head * hd, L = w->seq.seg_len, n_pieces = 0;
    float *q = malloc((size_t)n * width * sizeof(float)), key[256];
    struct attend_piece pieces[CONTEXT];

    memcpy(q, w->q + (size_t)t0 * width, (size_t)n * width * sizeof(float));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = t0 + i, off = t % L;
        const float *angles = rotary_by(&w->rotary, off, NULL);
        uint8_t *page = w->pool.mem + w->seq.pages[t / POOL_PAGE_TOKENS] * w->pool.page_bytes;

        w->k->rope(q + (size_t)i * width, w->m.n_head, hd, angles);
        w->k->scale(q + (size_t)i * width, width, 1.0f / sqrtf((float)hd));
        for (uint32_t h = 0; h < w->m.n_head_kv; h++) {
            size_t at = ((size_t)t * w->m.n_head_kv + h) * hd;

            memcpy(key, w->kk + at, hd * sizeof(float));
            w->k->rope(key, 1, hd, angles);
            w->k->kv_store[w->pool.kv](key, w->v + at, hd, off % POOL_PAGE_TOKENS,
                                       page + pool_k_off(&w->pool, 0, h),
                                       page + pool_v_off(&w->pool, 0, h));
        }
        if (i == 0 || off == 0)
            pieces[n_pieces++] =
                (struct attend_piece){ .seq = &w->seq, .segment = t / L, .off = off, .row = i };
        pieces[n_pieces - 1].n++;
    }
    attend_run(w->a, pieces, n_pieces, 0, q, out);
    free(q);
}

static void rotate(const float *x, const float *freq, uint32_t hd, double pos, double *ret)
{
    for (uint32_t i = 0; i < hd / 2; i++) {
        double c = cos(pos * (double)freq[i]), s = sin(pos * (double)freq[i]);

        ret[i] = x[i] * c - x[hd / 2 + i] * s;
        ret[hd / 2 + i] = x[i] * s + x[hd / 2 + i] * c;
    }
}

static void textbook(const struct world *w, uint32_t t, uint32_t head, double *ret)
{
    uint32_t hd = w->m.head_dim, kv = head / (w->m.n_head / w->m.n_head_kv);
    double q[256], k[256], p[CONTEXT], sum = 0, top = -INFINITY;

    rotate(w->q + ((size_t)t * w->m.n_head + head) * hd, w->freq, hd, t, q);
    for (uint32_t j = 0; j <= t; j++) {
        rotate(w->kk + ((size_t)j * w->m.n_head_kv + kv) * hd, w->freq, hd, j, k);
        p[j] = 0;
        for (uint32_t i = 0; i < hd; i++)
            p[j] += q[i] * k[i];
        p[j] /= sqrt(hd);
        top = fmax(top, p[j]);
    }
    memset(ret, 0, hd * sizeof(*ret));
    for (uint32_t j = 0; j <= t; j++)
        sum += p[j] = exp(p[j] - top);
    for (uint32_t j = 0; j <= t; j++)
        for (uint32_t i = 0; i < hd; i++)
            ret[i] += p[j] / sum * w->v[((size_t)j * w->m.n_head_kv + kv) * hd + i];
}

static void equals_the_textbook(void **state)
{
    const struct kernels *k = *state;

    for (size_t s = 0; s < sizeof(shapes) / sizeof(*shapes); s++) {
        struct world w;
        size_t width = (size_t)shapes[s].n_head * shapes[s].head_dim;
        float *out = malloc(CONTEXT * width * sizeof(float));
        double want[256], worst = 0;

        open_world(&w, &shapes[s], k, KERNELS_KV_F32, 2, 64, 0);
        attend_tokens(&w, 0, 213, out);
        for (uint32_t t = 213; t < CONTEXT; t++) /* one by one: split by segments */
            attend_tokens(&w, t, 1, out + t * width);
        for (uint32_t t = 0; t < CONTEXT; t += 7)
            for (uint32_t h = 0; h < shapes[s].n_head; h++) {
                textbook(&w, t, h, want);
                for (uint32_t i = 0; i < shapes[s].head_dim; i++)
                    worst =
                        fmax(worst, fabs(want[i] - out[t * width + h * shapes[s].head_dim + i]));
            }
        /* f32 sums of 300 terms of size 1: some 1e-6; a wrong key would be off by 1e-2. */
        if (worst > 1e-5)
            fail_msg("%s: off by %g", shapes[s].name, worst);
        free(out);
        close_world(&w);
    }
}

/* Chunks of any size, one worker or three: the same bits. */
static void check_split(const struct kernels *k, enum kernels_kv kv)
{
    static const uint32_t chunks[] = { 1, 2, 3, 5, 16, 37, 64, 100, 300 };
    const struct shape *s = &shapes[0];
    size_t width = (size_t)s->n_head * s->head_dim, bytes = CONTEXT * width * sizeof(float);
    float *want = malloc(bytes), *got = malloc(bytes);

    for (size_t c = 0; c < sizeof(chunks) / sizeof(*chunks); c++) {
        struct world w;

        open_world(&w, s, k, kv, c % 2 ? 3 : 1, 64, 0);
        for (uint32_t t = 0; t < CONTEXT; t += chunks[c])
            attend_tokens(&w, t, t + chunks[c] > CONTEXT ? CONTEXT - t : chunks[c],
                          (c ? got : want) + t * width);
        if (c)
            assert_memory_equal(got, want, bytes);
        close_world(&w);
    }
    free(want);
    free(got);
}

static void split_changes_no_bit(void **state)
{
    for (enum kernels_kv kv = 0; kv < KERNELS_KV__N; kv++)
        check_split(*state, kv);
}

/* Many sequences in one call, more than a round holds, equal each alone. */
static void batch_equals_alone(void **state)
{
    enum { N = 150 };
    const struct kernels *k = *state;
    struct world w;
    struct attend_piece pieces[N];
    size_t width = (size_t)shapes[0].n_head * shapes[0].head_dim;
    float *want = malloc(CONTEXT * width * sizeof(float)), *q,
          *out = malloc(N * width * sizeof(float));

    open_world(&w, &shapes[0], k, KERNELS_KV_F32, 2, 64, 0);
    attend_tokens(&w, 0, CONTEXT, want);
    q = malloc(N * width * sizeof(float));
    for (uint32_t i = 0; i < N; i++) { /* token i of the same sequence, N times over */
        uint32_t t = CONTEXT - N + i, off = t % 64;

        memcpy(q + i * width, w.q + t * width, width * sizeof(float));
        w.k->rope(q + i * width, w.m.n_head, w.m.head_dim, rotary_by(&w.rotary, off, NULL));
        w.k->scale(q + i * width, (uint32_t)width, 1.0f / sqrtf((float)w.m.head_dim));
        pieces[i] =
            (struct attend_piece){ .seq = &w.seq, .segment = t / 64, .off = off, .row = i, .n = 1 };
    }
    attend_run(w.a, pieces, N, 0, q, out);
    assert_memory_equal(out, want + (CONTEXT - N) * width, N * width * sizeof(float));
    free(q);
    free(out);
    free(want);
    close_world(&w);
}

static void far_rotations(void **state)
{
    static const uint32_t distances[] = { 0,      1,       511,
                                          8191,   8192,    8193,
                                          131071, 1000000, SEQ_TOKENS_MAX - 1 };
    struct rotary r;
    float freq[32], scratch[64];

    (void)state;
    for (uint32_t i = 0; i < 32; i++)
        freq[i] = (float)pow(FREQ_BASE, -2.0 * i / 64);
    assert_int_equal(rotary_open(&r, freq, 64), 0);
    for (size_t d = 0; d < sizeof(distances) / sizeof(*distances); d++) {
        const float *cs = rotary_by(&r, distances[d], scratch);

        for (uint32_t i = 0; i < 32; i++) {
            assert_true(fabs(cs[i] - cos((double)distances[d] * (double)freq[i])) < 3e-7);
            assert_true(fabs(cs[32 + i] - sin((double)distances[d] * (double)freq[i])) < 3e-7);
        }
    }
    rotary_close(&r);
}

int main(void)
{
    const struct kernels *k;
    int failed = 0;

    for (unsigned i = 0; kernels_name(i); i++) {
        if (kernels_pick(kernels_name(i), &k) < 0)
            continue;
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate(equals_the_textbook, (void *)k),
            cmocka_unit_test_prestate(split_changes_no_bit, (void *)k),
            cmocka_unit_test_prestate(batch_equals_alone, (void *)k),
            cmocka_unit_test(far_rotations),
        };

        failed += cmocka_run_group_tests_name(k->name, tests, NULL, NULL);
    }
    return failed ? 1 : 0;
}
