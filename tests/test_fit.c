/* tests/test_fit.c - would catch: a query that is turned by the wrong distance, the share of the
 * wrong segment, sinks that are counted twice, observers of the wrong tokens, the wrong keys kept,
 * values that are not what least squares gives (with fewer queries than keys, too, and of a single
 * key), results that depend on how the observers came or on whether there were pages to spare, a
 * segment that is half packed when memory is short, segments that make no numbers, a page whose
 * unused slots have what was packed before, and memory that nobody said would be taken.
 *
 * The reference is the definition (docs/memory.md) in double, over the keys and values that are
 * stored.
 */
#include "engine/kv/asked.h"
#include "engine/kv/compress.h"

#include "engine/cpu/fit.h"
#include "engine/cpu/kv.h"
#include "tests/support/attn_world.h"
#include "tests/support/fault.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CONTEXT  WORLD_CONTEXT
#define KEYS_MAX 256u

/* One segment that is fitted, and how its observers come. */
struct shown {
    uint32_t seg_len, segment, ratio, sinks;
    uint32_t chunk;
    bool in_place;
    bool while_read; /* the shape of what is kept while it is read */
};

/* All keys and values of one head, as pages hold them. */
struct head {
    float k[KEYS_MAX][KERNELS_HEAD_DIM_MAX], v[KEYS_MAX][KERNELS_HEAD_DIM_MAX];
};

static void read_head(const struct world *w, uint32_t segment, uint32_t n, uint32_t h,
                      struct head *ret)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *page =
            w->pool.mem + seq_pages(&w->seq, segment)[i / POOL_PAGE_TOKENS] * w->pool.page_bytes;

        kv_read(w->pool.kv, page + pool_k_off(&w->pool, 0, h), page + pool_v_off(&w->pool, 0, h),
                w->m.head_dim, i % POOL_PAGE_TOKENS, ret->k[i], ret->v[i]);
    }
}

/* --- what is tested --------------------------------------------------------------------------- */

/* The observers' queries, as the forward pass makes them. */
static void run_observers(struct world *w, const struct forward_run *run)
{
    size_t width = (size_t)w->m.n_head * w->m.head_dim;
    float *q = malloc(run->n_tokens * width * sizeof(float));
    float *out = malloc(run->n_tokens * width * sizeof(float));

    for (uint32_t i = 0; i < run->n_tokens; i++) {
        uint32_t t = run->observe.first + i * run->observe.stride;

        world_queries(w, t, 1, t % w->seq.seg_len, q + i * width);
    }
    assert_int_equal(plan_add(&w->plan, run, 1), 0);
    world_run(w, q, out);
    free(q);
    free(out);
}

static int finish(struct world *w, struct compressor *k, const struct compress_spec *spec,
                  uint32_t segment, struct compress_side *side)
{
    int r;

    do
        r = compress_finish(k, spec, &w->seq, segment, side);
    while (r == -EAGAIN);
    return r;
}

static void fit(struct world *w, const struct shown *c)
{
    struct compress_spec spec = { COMPRESS_FIT, c->ratio, c->sinks, NULL };
    struct asked nothing = { .all = NULL };
    struct compress_side side = { .asked = c->while_read ? &nothing : NULL };
    struct pool_account others = { .limit = UINT32_MAX };
    uint32_t n_taken = c->in_place ? w->pool.n_free : 0;
    uint32_t *taken = malloc((n_taken + 1) * sizeof(*taken));
    struct compressor *k;
    struct forward_run run;

    assert_int_equal(compress_open(&w->m, world_backend(w), &k), 0);
    assert_int_equal(compress_check(&spec, c->seg_len, NULL), 0);
    while (compress_rows_left(&spec, &w->seq, c->segment, &side)) {
        assert_int_equal(compress_plan(k, &spec, &w->seq, c->segment, &side, c->chunk, &run), 0);
        run_observers(w, &run);
        compress_ran(&side, &run);
    }
    if (n_taken)
        assert_int_equal(pool_take(&w->pool, &others, n_taken, taken), 0);
    assert_int_equal(finish(w, k, &spec, c->segment, &side), 0);
    if (n_taken)
        pool_give(&w->pool, &others, n_taken, taken);
    compress_drop(k, &w->seq, &side);
    compress_close(k);
    free(taken);
}

/* --- what should come out --------------------------------------------------------------------- */

/* What one head's queries say of the segment. */
struct answers {
    uint32_t n;
    double *q;      /* (n, hd) turned by its offset, scaled */
    double *target; /* (n, hd) */
    double *share;  /* (n) */
    double received[KEYS_MAX];
};

static double score(const struct world *w, const double *q, double turn, const float *k)
{
    uint32_t hd = w->m.head_dim;
    float q32[KERNELS_HEAD_DIM_MAX] = { 0 };
    double turned[KERNELS_HEAD_DIM_MAX], s = 0;

    for (uint32_t i = 0; i < hd; i++)
        q32[i] = (float)q[i];
    world_rotate(w, q32, turn, turned);
    for (uint32_t i = 0; i < hd; i++)
        s += turned[i] * (double)k[i];
    return s;
}

static double log_sum(const double *s, uint32_t n)
{
    double top = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        top = s[i] > top ? s[i] : top;
    for (uint32_t i = 0; i < n; i++)
        sum += exp(s[i] - top);
    return top + log(sum);
}

/* One query, of the token at offset off: what it sees where it stands, and of the segment from one
 * segment later. before: the segments before, of raw keys. */
static void ask(const struct world *w, const struct shown *c, const struct head *before,
                const struct head *own, uint32_t off, struct answers *a)
{
    uint32_t hd = w->m.head_dim, n = 0, n_own = c->seg_len - c->sinks;
    const double *q = a->q + (size_t)a->n * hd;
    double s[2 * KEYS_MAX], later[KEYS_MAX], others, sum, share;

    for (uint32_t k = 0; k < c->segment; k++)
        for (uint32_t i = 0; i < c->seg_len; i++)
            s[n++] = score(w, q, (c->segment - k) * c->seg_len, before[k].k[i]);
    for (uint32_t i = 0; i <= off; i++)
        s[n++] = score(w, q, 0, own->k[i]);
    others = log_sum(s, n);
    for (uint32_t i = 0; i < n_own; i++)
        later[i] = score(w, q, c->seg_len, own->k[c->sinks + i]);
    sum = log_sum(later, n_own);
    share = 1 / (1 + exp(others - sum));
    memset(a->target + (size_t)a->n * hd, 0, hd * sizeof(double));
    for (uint32_t i = 0; i < n_own; i++) {
        double p = exp(later[i] - sum);

        a->received[c->sinks + i] += share * p * share * p;
        for (uint32_t d = 0; d < hd; d++)
            a->target[(size_t)a->n * hd + d] += p * (double)own->v[c->sinks + i][d];
    }
    a->share[a->n++] = share;
}

/* All of KV head h's; asked.received is zeros before. */
static void ask_all(const struct world *w, const struct shown *c, const struct head *before,
                    const struct head *own, uint32_t h, struct answers *a)
{
    uint32_t hd = w->m.head_dim, group = w->m.n_head / w->m.n_head_kv, n = 0;
    struct asked_shape k = asked_shape(c->seg_len, group, c->while_read);

    for (uint32_t off = k.tokens - 1; off < c->seg_len; off += k.tokens)
        for (uint32_t g = 0; g < group; g++) {
            if (++n % k.heads)
                continue;
            const float *q =
                w->q + ((size_t)(c->segment * c->seg_len + off) * w->m.n_head + h * group + g) * hd;

            world_rotate(w, q, off, a->q + (size_t)a->n * hd);
            for (uint32_t d = 0; d < hd; d++)
                a->q[(size_t)a->n * hd + d] /= sqrt(hd);
            ask(w, c, before, own, off, a);
        }
}

/* (B'B + ridge) v = B't + ridge v0 for n values, by elimination; v0 becomes v (n, hd). */
static void least_squares(uint32_t n, uint32_t n_queries, uint32_t hd, const double *b,
                          const double *t, double *v)
{
    double *m = calloc((size_t)n * n, sizeof(double)), trace = 0;

    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t q = 0; q < n_queries; q++)
            for (uint32_t j = 0; j < n; j++)
                m[i * n + j] += b[(size_t)q * n + i] * b[(size_t)q * n + j];
        trace += m[i * n + i];
    }
    for (uint32_t i = 0; i < n; i++) {
        m[i * n + i] += 1e-2 * trace / n;
        for (uint32_t d = 0; d < hd; d++)
            v[i * hd + d] *= 1e-2 * trace / n;
        for (uint32_t q = 0; q < n_queries; q++)
            for (uint32_t d = 0; d < hd; d++)
                v[i * hd + d] += b[(size_t)q * n + i] * t[(size_t)q * hd + d];
    }
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < n; i++) {
            double by = i == k ? 0 : m[i * n + k] / m[k * n + k];

            for (uint32_t j = k; by != 0 && j < n; j++)
                m[i * n + j] -= by * m[k * n + j];
            for (uint32_t d = 0; by != 0 && d < hd; d++)
                v[i * hd + d] -= by * v[k * hd + d];
        }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < hd; d++)
            v[i * hd + d] /= m[i * n + i];
    free(m);
}

/* Which keys should stay. */
static uint32_t choose(const struct shown *c, const struct answers *a, uint32_t n_keys,
                       uint32_t *ret)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->seg_len; i++) {
        uint32_t rank = 0;

        for (uint32_t j = c->sinks; i >= c->sinks && j < c->seg_len; j++)
            rank += a->received[j] > a->received[i];
        if (i < c->sinks || rank < n_keys - c->sinks)
            ret[n++] = i;
    }
    return n;
}

/* The distance of the values that are there (packed) from those that should be; the keys that are
 * there are taken as they are, once it was seen that they are the right ones. */
static double error_of(const struct world *w, const struct shown *c, const struct answers *a,
                       const struct head *raw, const struct head *packed, uint32_t n_keys,
                       double tolerance)
{
    uint32_t hd = w->m.head_dim, n = n_keys - c->sinks, kept[KEYS_MAX];
    double *b = malloc((size_t)a->n * n * sizeof(double)),
           *v = malloc((size_t)n * hd * sizeof(double));
    double *t = malloc((size_t)a->n * hd * sizeof(double)), worst = 0, s[KEYS_MAX];

    assert_int_equal(choose(c, a, n_keys, kept), n_keys);
    for (uint32_t i = 0; i < n_keys; i++) {
        double key[KERNELS_HEAD_DIM_MAX];

        world_rotate(w, raw->k[kept[i]], (double)i - kept[i], key);
        for (uint32_t d = 0; d < hd; d++) {
            if (!near_within((double)packed->k[i][d], key[d], tolerance))
                fail_msg("key %u is not that of token %u", i, kept[i]);
            if (i < c->sinks)
                assert_memory_equal(packed->v[i], raw->v[i], hd * sizeof(float));
            else
                v[(i - c->sinks) * hd + d] = (double)raw->v[kept[i]][d];
        }
    }
    for (uint32_t q = 0; q < a->n; q++) {
        double sum, root = sqrt(a->share[q]);

        for (uint32_t i = 0; i < n; i++)
            s[i] = score(w, a->q + (size_t)q * hd, n_keys, packed->k[c->sinks + i]);
        sum = log_sum(s, n);
        for (uint32_t i = 0; i < n; i++)
            b[(size_t)q * n + i] = root * exp(s[i] - sum);
        for (uint32_t d = 0; d < hd; d++)
            t[(size_t)q * hd + d] = root * a->target[(size_t)q * hd + d];
    }
    least_squares(n, a->n, hd, b, t, v);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < hd; d++)
            worst = near_worse(worst, v[i * hd + d], (double)packed->v[c->sinks + i][d]);
    free(b);
    free(v);
    free(t);
    return worst;
}

/* --- each shape ------------------------------------------------------------------------------- */

/* f32: that of sums of hundreds of products, and of a matrix with a condition of hundreds. The
 * other types round keys a second time, and values, of which some are larger than 1. */
static const double tolerance[KV__N] = { [KV_F32] = 3e-4, [KV_F16] = 4e-3, [KV_Q8_0] = 4e-2 };

static void open_world(struct world *w, const struct world_shape *shape, const struct kernels *k,
                       enum kv_type kv, uint32_t seg_len)
{
    size_t n = (size_t)CONTEXT * shape->n_head * shape->head_dim;
    float *out = malloc(n * sizeof(float));

    assert_int_equal(world_open(w, shape, k, kv, 2, seg_len, 0), 0);
    for (size_t i = 0; i < n; i++)
        w->q[i] *= 3; /* so that some keys are attended to more than others */
    for (uint32_t t = 0; t < CONTEXT; t += seg_len)
        world_attend(w, t, CONTEXT - t < seg_len ? CONTEXT - t : seg_len, NULL, out);
    w->seq.n_tokens = CONTEXT;
    free(out);
}

static void check(const struct world_shape *shape, const struct kernels *k, enum kv_type kv,
                  const struct shown *c)
{
    struct compress_spec spec = { COMPRESS_FIT, c->ratio, c->sinks, NULL };
    uint32_t n_keys = compress_n_keys(&spec, c->seg_len, c->segment, 0);
    size_t n = (size_t)KEYS_MAX * (shape->n_head / shape->n_head_kv);
    struct answers a = { .q = malloc(n * shape->head_dim * sizeof(double)),
                         .target = malloc(n * shape->head_dim * sizeof(double)),
                         .share = malloc(n * sizeof(double)) };
    struct head *heads = malloc(5 * sizeof(*heads)), *raw, packed;
    struct world w;

    open_world(&w, shape, k, kv, c->seg_len);
    raw = malloc(shape->n_head_kv * sizeof(*raw));
    for (uint32_t h = 0; h < shape->n_head_kv; h++)
        read_head(&w, c->segment, c->seg_len, h, &raw[h]);
    fit(&w, c);
    for (uint32_t h = 0; h < shape->n_head_kv; h++) {
        double worst;

        for (uint32_t s = 0; s < c->segment; s++)
            read_head(&w, s, c->seg_len, h, &heads[s]);
        a.n = 0;
        memset(a.received, 0, sizeof(a.received));
        ask_all(&w, c, heads, &raw[h], h, &a);
        read_head(&w, c->segment, n_keys, h, &packed);
        worst = error_of(&w, c, &a, &raw[h], &packed, n_keys, tolerance[kv]);
        if (!(worst <= tolerance[kv]))
            fail_msg("%s, %s, ratio %u, kv %d, head %u: off by %g", shape->name, k->name, c->ratio,
                     kv, h, worst);
    }
    world_close(&w);
    free(raw);
    free(heads);
    free(a.q);
    free(a.target);
    free(a.share);
}

/* Segments of 256 tokens have every second one observe; at ratio 2 a head without a group has fewer
 * queries than keys. */
static void equals_the_definition(void **state)
{
    static const struct shown shown[] = {
        { .seg_len = 128, .segment = 1, .ratio = 8, .sinks = 0, .chunk = 128 },
        { .seg_len = 256, .segment = 0, .ratio = 2, .sinks = 4, .chunk = 128 },
        { .seg_len = 64, .segment = 3, .ratio = 4, .sinks = 0, .chunk = 64 },
        { .seg_len = 64, .segment = 0, .ratio = 16, .sinks = 3, .chunk = 64 },
        { .seg_len = 256, .segment = 0, .ratio = 4, .sinks = 2, .chunk = 256, .while_read = true }
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof(shown) / sizeof(*shown); i++) {
        for (unsigned k = 0; k < SANITIZED_TABLES && kernels_name(k); k++) {
            const struct kernels *table;

            assert_int_equal(kernels_pick(kernels_name(k), &table), 0);
            check(&world_shapes[0], table, (k + i) % KV__N, &shown[i]);
        }
        for (uint32_t s = 1; s < WORLD_SHAPES; s++) {
            const struct kernels *table;

            if (s < 3 && shown[i].seg_len > 128) /* large ones */
                continue;
            assert_int_equal(kernels_pick("auto", &table), 0);
            check(&world_shapes[s], table, KV_F32, &shown[i]);
        }
    }
}

/* One key that stays, all of them, two of 128; heads whose size is no multiple of a vector's, and
 * groups that share no factor with the number of rows that are computed at a time. */
static void short_segments_of_any_shape(void **state)
{
    static const struct shown shown[] = {
        { .seg_len = 64, .segment = 2, .ratio = 32, .sinks = 0, .chunk = 64 },
        { .seg_len = 64, .segment = 1, .ratio = 64, .sinks = 0, .chunk = 64 },
        { .seg_len = 64, .segment = 0, .ratio = 64, .sinks = 4, .chunk = 64 },
        { .seg_len = 64, .segment = 0, .ratio = 32, .sinks = 1, .chunk = 64 },
        { .seg_len = 128, .segment = 1, .ratio = 64, .chunk = 128, .while_read = true }
    };
    static const struct world_shape shapes[] = { { "7 heads of 80", 7, 1, 80 },
                                                 { "7 heads of 96", 7, 1, 96 },
                                                 { "7 heads of 128", 7, 1, 128 } };

    (void)state;
    for (uint32_t i = 0; i < sizeof(shown) / sizeof(*shown); i++)
        for (uint32_t s = 0; s < sizeof(shapes) / sizeof(*shapes); s++)
            for (unsigned k = 0; k < SANITIZED_TABLES && kernels_name(k); k++) {
                const struct kernels *table;

                assert_int_equal(kernels_pick(kernels_name(k), &table), 0);
                check(&shapes[s], table, KV_F32, &shown[i]);
                check(&shapes[s], table, k % 2 ? KV_F16 : KV_Q8_0, &shown[i]);
            }
}

/* --- the same bits ---------------------------------------------------------------------------- */

static void same_however_it_came(void **state)
{
    static const struct shown shown[] = {
        { .seg_len = 256, .segment = 0, .ratio = 4, .sinks = 4, .chunk = 128 },
        { .seg_len = 256, .segment = 0, .ratio = 4, .sinks = 4, .chunk = 7 },
        { .seg_len = 256, .segment = 0, .ratio = 4, .sinks = 4, .chunk = 128, .in_place = true }
    };
    const struct kernels *k;

    (void)state;
    assert_int_equal(kernels_pick("auto", &k), 0);
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        struct head *first = calloc(1, sizeof(*first)), *other = calloc(1, sizeof(*other));

        for (uint32_t i = 0; i < sizeof(shown) / sizeof(*shown); i++) {
            struct world w;

            open_world(&w, &world_shapes[0], k, kv, shown[i].seg_len);
            fit(&w, &shown[i]);
            read_head(&w, 0, w.seq.segments[0].n_keys, 1, i == 0 ? first : other);
            if (i > 0)
                assert_memory_equal(first, other, sizeof(*first));
            world_close(&w);
        }
        free(first);
        free(other);
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Of both readings of a segment at ratio 2, with sinks: what was said before, to the byte. */
static void desks_are_as_large_as_was_said(void **state)
{
    static const struct shown shown[] = {
        { .seg_len = 128, .ratio = 2, .sinks = COMPRESS_SINKS, .chunk = 128, .while_read = true },
        { .seg_len = 128, .segment = 1, .ratio = 2, .sinks = COMPRESS_SINKS, .chunk = 128 }
    };
    const struct kernels *k;

    (void)state;
    assert_int_equal(kernels_pick("auto", &k), 0);
    for (uint32_t i = 0; i < WORLD_SHAPES; i++) {
        struct backend_info before, after;
        struct world w;

        open_world(&w, &world_shapes[i], k, KV_F16, 128);
        world_backend(&w)->ops->info(world_backend(&w), &before);
        fit(&w, &shown[0]);
        fit(&w, &shown[1]);
        w.backend->ops->info(w.backend, &after);
        assert_int_equal(after.scratch_bytes - before.scratch_bytes,
                         fit_need(&w.m, before.threads, 128));
        world_close(&w);
    }
}

/* --- what is left of a page ------------------------------------------------------------------- */

/* A full page first, of another segment: what its worker's desk has of it is not to follow. */
static void unused_slots_are_zeros(void **state)
{
    static const struct shown full = { .seg_len = 128, .ratio = 8, .chunk = 128 };
    static const struct shown part = { .seg_len = 128, .segment = 1, .ratio = 16, .chunk = 128 };
    const struct kernels *k;

    (void)state;
    assert_int_equal(kernels_pick("auto", &k), 0);
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        struct head *packed = malloc(sizeof(*packed));
        struct world w;

        open_world(&w, &world_shapes[0], k, kv, full.seg_len);
        fit(&w, &full);
        fit(&w, &part);
        assert_int_equal(w.seq.segments[1].n_keys, 8);
        for (uint32_t h = 0; h < w.m.n_head_kv; h++) {
            read_head(&w, 1, POOL_PAGE_TOKENS, h, packed);
            for (uint32_t i = 8; i < POOL_PAGE_TOKENS; i++)
                for (uint32_t d = 0; d < w.m.head_dim; d++)
                    assert_true(packed->k[i][d] == 0 && packed->v[i][d] == 0);
        }
        world_close(&w);
        free(packed);
    }
}

/* --- no memory -------------------------------------------------------------------------------- */

/* Packs segment 0 when the n-th allocation on the way fails, and then once more. False: there are
 * fewer. */
static bool pack_denied(uint64_t n, struct head *ret)
{
    static const struct shown c = { .seg_len = 64, .ratio = 4, .sinks = 4, .chunk = 64 };
    struct compress_spec spec = { COMPRESS_FIT, c.ratio, c.sinks, NULL };
    struct compress_side side = { .asked = NULL };
    struct head *was = malloc(sizeof(*was)), *is = malloc(sizeof(*is));
    const struct kernels *table;
    struct compressor *k;
    struct forward_run run;
    struct fault f;
    struct world w;
    bool failed;
    int r;

    assert_int_equal(kernels_pick("auto", &table), 0);
    open_world(&w, &world_shapes[0], table, KV_F16, c.seg_len);
    assert_int_equal(compress_open(&w.m, world_backend(&w), &k), 0);
    assert_int_equal(compress_plan(k, &spec, &w.seq, 0, &side, c.chunk, &run), 0);
    run_observers(&w, &run);
    compress_ran(&side, &run);
    memset(was, 0, sizeof(*was));
    memset(is, 0, sizeof(*is));
    read_head(&w, 0, c.seg_len, 1, was);
    fault_arm(n);
    r = finish(&w, k, &spec, 0, &side);
    failed = fault_disarm(&f);
    if (failed) {
        assert_int_equal(r, -ENOMEM);
        assert_int_equal(w.seq.segments[0].state, SEQ_RAW);
        read_head(&w, 0, c.seg_len, 1, is);
        assert_memory_equal(was, is, sizeof(*is));
        r = finish(&w, k, &spec, 0, &side);
    }
    assert_int_equal(r, 0);
    memset(ret, 0, sizeof(*ret));
    read_head(&w, 0, w.seq.segments[0].n_keys, 1, ret);
    compress_drop(k, &w.seq, &side);
    compress_close(k);
    world_close(&w);
    free(was);
    free(is);
    return failed;
}

/* The segment stays raw, and is packed as ever when there is memory again. */
static void memory_is_denied(void **state)
{
    struct head *first = malloc(sizeof(*first)), *other = malloc(sizeof(*other));
    uint64_t n = 1;

    (void)state;
    assert_false(pack_denied(0, first));
    while (pack_denied(n, other)) {
        assert_memory_equal(first, other, sizeof(*first));
        n++;
    }
    assert_true(n > 10); /* each worker's desk */
    free(first);
    free(other);
}

/* --- segments that say little ----------------------------------------------------------------- */

enum oddity { REPEATED, EQUAL_KEYS, NAN_QUERY, HUGE_QUERIES, ZERO_QUERIES, ODDITY__N };

static void make_odd(struct world *w, enum oddity odd)
{
    size_t n_q = (size_t)w->m.n_head * w->m.head_dim, n_kv = (size_t)w->m.n_head_kv * w->m.head_dim;

    for (uint32_t t = 0; t < CONTEXT; t++) {
        if (odd == REPEATED)
            memcpy(w->q + t * n_q, w->q, n_q * sizeof(float));
        if (odd == REPEATED || odd == EQUAL_KEYS)
            memcpy(w->kk + t * n_kv, w->kk, n_kv * sizeof(float));
        if (odd == REPEATED)
            memcpy(w->v + t * n_kv, w->v, n_kv * sizeof(float));
        for (size_t i = 0; i < n_q; i++) {
            if (odd == NAN_QUERY && t % 3 == 0)
                w->q[t * n_q + i] = NAN;
            if (odd == HUGE_QUERIES)
                w->q[t * n_q + i] *= 1e4f;
            if (odd == ZERO_QUERIES)
                w->q[t * n_q + i] = 0;
        }
    }
}

static void stays_finite(void **state)
{
    static const struct shown shown = {
        .seg_len = 64, .segment = 0, .ratio = 4, .sinks = 4, .chunk = 64
    };
    const struct kernels *k;

    (void)state;
    assert_int_equal(kernels_pick("auto", &k), 0);
    for (enum oddity odd = 0; odd < ODDITY__N; odd++)
        for (enum kv_type kv = 0; kv < KV__N; kv++) {
            struct head *raw = malloc(sizeof(*raw)), *packed = malloc(sizeof(*packed));
            float *out = malloc((size_t)CONTEXT * 9 * 64 * sizeof(float));
            double worst = 0;
            struct world w;

            assert_int_equal(world_open(&w, &world_shapes[0], k, kv, 2, shown.seg_len, 0), 0);
            make_odd(&w, odd);
            for (uint32_t t = 0; t < CONTEXT; t += shown.seg_len)
                world_attend(&w, t, CONTEXT - t < shown.seg_len ? CONTEXT - t : shown.seg_len, NULL,
                             out);
            w.seq.n_tokens = CONTEXT;
            read_head(&w, 0, shown.seg_len, 2, raw);
            fit(&w, &shown);
            read_head(&w, 0, w.seq.segments[0].n_keys, 2, packed);
            for (uint32_t i = 0; i < w.seq.segments[0].n_keys; i++)
                for (uint32_t d = 0; d < 64; d++) {
                    assert_true(isfinite(packed->k[i][d]) && isfinite(packed->v[i][d]));
                    /* Values that are all the same are that on average, too. */
                    worst = near_worse(worst, (double)packed->v[i][d], (double)raw->v[0][d]);
                }
            if (odd == REPEATED && !(worst <= tolerance[kv]))
                fail_msg("kv %d: a value that is repeated came out off by %g", kv, worst);
            world_close(&w);
            free(raw);
            free(packed);
            free(out);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_definition),
        cmocka_unit_test(short_segments_of_any_shape),
        cmocka_unit_test(same_however_it_came),
        cmocka_unit_test(memory_is_denied),
        cmocka_unit_test(stays_finite),
        cmocka_unit_test(unused_slots_are_zeros),
        cmocka_unit_test(desks_are_as_large_as_was_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
