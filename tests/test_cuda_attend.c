/* tests/test_cuda_attend.c - would catch: a page of another segment or layer, a rotation by the
 * wrong distance, a mask off by one, an unwritten slot that is multiplied by zero, a part left out
 * of a merge, a head of the wrong group, matrix fragments in the wrong lanes, sums that depend on
 * the order of blocks.
 *
 * The reference is the CPU's attention over the same pages. Slots that nobody wrote are NaN. */
#include "cuda/attend.h"
#include "cuda/shim/cuda_runtime_api.h"
#include "cuda/shim/shim.h"
#include "engine/cpu/attend.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define LAYERS     2u
#define MAX_ROWS   96u
#define MAX_PAGES  128u
#define POOL_PAGES 64u
/* Of the scratch, for so few parts: the rest is not touched, or it would take seconds. */
#define SCRATCH_USED (2u << 20)

struct shape {
    uint32_t n_head, n_head_kv, hd;
};

struct world {
    struct model m;
    struct pool pool;
    struct pool_account account;
    const struct rotary *rotary;
    struct workers *w;
    struct attend *cpu;
    struct plan plan;
    float freq[128];
    float *q, *k, *v, *want, *got[2];
    struct k_attend_shape shape;
    struct k_attend_table table;
    uint32_t page0; /* pages begin here, far into a larger pool */
    uint64_t seed;
};

static float noise(struct world *w)
{
    w->seed = w->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (float)((double)(w->seed >> 33) / (double)(1u << 30) - 1.0);
}

static float *random_rows(struct world *w, size_t n, float by)
{
    float *x = malloc(n * sizeof(*x));

    for (size_t i = 0; i < n; i++)
        x[i] = by * noise(w);
    return x;
}

/* Made once for each size of heads: they take longer than the test. */
static const struct rotary *angles_of(const float *freq, uint32_t hd)
{
    static struct rotary made[K_HEAD_DIM_MAX + 1];

    if (!made[hd].fine)
        assert_int_equal(rotary_open(&made[hd], freq, hd), 0);
    return &made[hd];
}

static void open_world(struct world *w, const struct shape *s, enum kv_type kv)
{
    const struct kernels *k;
    size_t width = (size_t)s->n_head * s->hd, width_kv = (size_t)s->n_head_kv * s->hd;

    *w = (struct world){ .m = { .n_layer = LAYERS,
                                .n_head = s->n_head,
                                .n_head_kv = s->n_head_kv,
                                .head_dim = s->hd },
                         .account.limit = UINT32_MAX,
                         .shape = { s->n_head, s->n_head_kv, s->hd, kv, 0 },
                         .seed = 7 };
    for (uint32_t i = 0; i < s->hd / 2; i++)
        w->freq[i] = (float)pow(10000.0, -2.0 * i / s->hd);
    w->m.rope_freq = w->freq;
    w->rotary = angles_of(w->freq, s->hd);
    assert_int_equal(workers_open(1, false, &w->w), 0);
    assert_int_equal(kernels_pick("auto", &k), 0);
    assert_int_equal(attend_open(&w->m, k, w->w, w->rotary, &w->cpu), 0);
    assert_int_equal(
        pool_open(&w->pool, NULL, &w->m, kv, POOL_PAGES * pool_page_bytes(&w->m, kv), NULL), 0);
    assert_int_equal(plan_open(&w->plan, MAX_ROWS, MAX_PAGES), 0);
    /* Scores of some units, as a model's are. */
    w->q = random_rows(w, MAX_ROWS * width, 4 / sqrtf((float)s->hd));
    w->k = random_rows(w, MAX_ROWS * width_kv, 1);
    w->v = random_rows(w, MAX_ROWS * width_kv, 1);
    w->want = malloc(MAX_ROWS * width * sizeof(float));
    for (int i = 0; i < 2; i++)
        w->got[i] = malloc(MAX_ROWS * width * sizeof(float));
}

/* Another plan, of fresh pages in which nothing is written. */
static void clear_world(struct world *w)
{
    for (uint32_t i = 0; i < w->plan.n_pages; i++)
        w->plan.pages[i] -= w->page0;
    pool_give(&w->pool, &w->account, w->plan.n_pages, w->plan.pages);
    plan_clear(&w->plan);
    w->plan.pool = &w->pool;
    /* NaN in every type. */
    memset(w->pool.mem + w->page0 * w->pool.page_bytes, 0xff, w->pool.mem_len);
}

static void close_world(struct world *w)
{
    plan_close(&w->plan);
    pool_close(&w->pool);
    attend_close(w->cpu);
    workers_close(w->w);
    free(w->q);
    free(w->k);
    free(w->v);
    free(w->want);
    free(w->got[0]);
    free(w->got[1]);
}

/* Fresh pages, the first n_keys slots of which hold random keys: their place among the plan's. */
static uint32_t add_pages(struct world *w, uint32_t n_keys)
{
    uint32_t first = w->plan.n_pages, n = seq_n_pages(n_keys), hd = w->m.head_dim;
    float k[256], v[256];

    assert_int_equal(pool_take(&w->pool, &w->account, n, w->plan.pages + first), 0);
    w->plan.n_pages += n;
    for (uint32_t i = 0; i < n; i++)
        w->plan.pages[first + i] += w->page0;
    for (uint32_t i = 0; i < n_keys; i++)
        for (uint32_t list = 0; list < LAYERS * w->m.n_head_kv; list++) {
            uint8_t *page =
                w->pool.mem + w->plan.pages[first + i / PAGE_TOKENS] * w->pool.page_bytes;

            for (uint32_t c = 0; c < hd; c++) {
                k[c] = noise(w);
                v[c] = noise(w);
            }
            kernels_scalar.kv_store[w->pool.kv](k, v, hd, i % PAGE_TOKENS,
                                                page + pool_k_off(&w->pool, 0, list),
                                                page + pool_v_off(&w->pool, 0, list));
        }
    return first;
}

/* Earlier segments of so many keys each, up to a 0, whose bases are `apart`. */
static void add_segments(struct world *w, struct plan_piece *p, const uint32_t *keys,
                         uint32_t apart)
{
    p->first_segment = w->plan.n_segments;
    for (uint32_t i = 0; keys[i]; i++) {
        w->plan.segments[w->plan.n_segments++] =
            (struct plan_segment){ i * apart, keys[i], add_pages(w, keys[i]) };
        p->n_segments++;
    }
    p->base = p->n_segments * apart;
}

/* A piece of n rows from off on, every stride-th, behind such segments. */
static struct plan_piece *add_piece(struct world *w, const uint32_t *keys, uint32_t apart,
                                    uint32_t off, uint32_t n, uint32_t stride, bool side)
{
    struct plan_piece *p = &w->plan.pieces[w->plan.n_pieces++];

    *p = (struct plan_piece){
        .row = w->plan.n_rows, .n = n, .off = off, .stride = stride, .side = side
    };
    add_segments(w, p, keys, apart);
    p->first_page = add_pages(w, off + (n - 1) * stride + !side);
    w->plan.n_rows += n;
    assert_true(w->plan.n_rows <= MAX_ROWS);
    return p;
}

static size_t width_of(const struct world *w)
{
    return (size_t)w->m.n_head * w->m.head_dim;
}

static void run_device(struct world *w, uint32_t layer, float *out)
{
    size_t n = k_attend_cut_bytes(&w->shape, &w->plan);
    void *cut = malloc(n), *scratch;
    size_t scratch_len;

    assert_int_equal(k_attend_cut(&w->shape, &w->plan, cut, n, &w->table), 0);
    scratch_len = k_attend_scratch(&w->shape, MAX_ROWS);
    scratch = malloc(scratch_len);
    memset(scratch, 0xff, scratch_len < SCRATCH_USED ? scratch_len : SCRATCH_USED);
    memset(out, 0xff, w->plan.n_rows * width_of(w) * sizeof(*out));
    assert_int_equal(
        k_attend(NULL,
                 &(struct k_attend){ .shape = w->shape,
                                     .pool = { w->pool.mem, w->pool.page_bytes, w->pool.head_bytes,
                                               w->pool.kv, LAYERS, w->m.n_head_kv, w->m.head_dim },
                                     .angles = { w->rotary->fine, w->rotary->coarse },
                                     .table = w->table,
                                     .cut = cut,
                                     .pieces = w->plan.pieces,
                                     .segments = w->plan.segments,
                                     .pages = w->plan.pages,
                                     .q = w->q,
                                     .k = w->k,
                                     .v = w->v,
                                     .out = out,
                                     .scratch = scratch,
                                     .layer = layer,
                                     .max_rows = MAX_ROWS }),
        0);
    assert_int_equal(cudaDeviceSynchronize(), 0);
    free(cut);
    free(scratch);
}

/* Both orders of blocks, one layer: equal bits, and off by at most `most` from the CPU. */
static void check_device(struct world *w, const char *what, bool plain, double most)
{
    size_t n = w->plan.n_rows * width_of(w);
    double worst;

    w->shape.plain = plain;
    run_device(w, 1, w->got[0]);
    if (!SANITIZED) {
        shim_set_order(true);
        run_device(w, 1, w->got[1]);
        shim_set_order(false);
        assert_memory_equal(w->got[0], w->got[1], n * sizeof(float));
    }
    worst = near_worst(0, w->want, w->got[0], n);
    if (!(worst <= most))
        fail_msg("%s%s: %u heads of %u on %u, pages of type %d: off by %g", what,
                 plain ? ", plainly" : "", w->m.n_head, w->m.head_dim, w->m.n_head_kv, w->pool.kv,
                 worst);
}

/* Sums of f32 in another order, of values of size 1. */
#define F32_MOST 1e-5
/* The matrix units: queries and weights in two halves each, exponentials to 2^-21. */
#define SPLIT_MOST 3e-5
/* Queries and weights in f16. */
#define UNITS_MOST 1e-3

/* Under sanitizers only the first: each code path, but not each shape of a model. */
static const struct shape shapes[] = {
    { 2, 2, 64 },  { 3, 1, 80 }, { 6, 1, 96 },  { 7, 1, 128 }, { 3, 1, 40 },
    { 1, 1, 256 }, { 9, 3, 64 }, { 8, 1, 128 }, { 10, 2, 64 }, { 32, 8, 128 } /* Llama-3.1-8B */,
    { 28, 4, 128 } /* Qwen2-7B */
};
#define N_SHAPES (SANITIZED ? 5u : sizeof(shapes) / sizeof(*shapes))

/* Raw segments, gists of any fill, hydrated ones between them. */
static const uint32_t mixed[] = { 64, 17, 1, 16, 33, 64, 8, 0 };
static const uint32_t none[] = { 0 };

static void decode(struct world *w)
{
    (void)add_piece(w, mixed, 5000, 20, 1, 1, false);
    (void)add_piece(w, none, 0, 0, 1, 1, false);
    (void)add_piece(w, mixed + 4, 3, 63, 1, 1, false);
    (void)add_piece(w, mixed + 5, 20000, 15, 2, 1, false);
}

static void prompt(struct world *w)
{
    uint32_t group = w->m.n_head / w->m.n_head_kv;

    (void)add_piece(w, mixed + 2, 700, 3, 64 / group + 5, 1, false); /* more than a tile */
    (void)add_piece(w, none, 0, 0, 16 / group + 2, 1, false);
}

/* A gist of the memory-only mask sees what its snippet's last token saw before itself, and its own
 * key. */
static void beside(struct world *w)
{
    (void)add_piece(w, mixed, 64, 4 + 8 - 1, 6, 8, true);
    (void)add_piece(w, none, 0, 3, 2, 4, true);
}

/* Each by matrix units where those take it, and plainly. */
static const struct {
    void (*add)(struct world *w);
    const char *what;
    double most;
} plans[] = { { decode, "decode", SPLIT_MOST },
              { prompt, "prompt", UNITS_MOST },
              { beside, "beside", UNITS_MOST } };

static void check_shapes(enum kv_type kv)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct world w;

        open_world(&w, &shapes[i], kv);
        for (size_t j = 0; j < sizeof(plans) / sizeof(*plans); j++) {
            clear_world(&w);
            plans[j].add(&w);
            attend_run(w.cpu, &w.plan, 1, &(struct attend_rows){ w.q, w.k, w.v }, w.want);
            if (!SANITIZED || kv == KV_F32)
                check_device(&w, plans[j].what, true, F32_MOST);
            if (kv != KV_F32) /* no units for those */
                check_device(&w, plans[j].what, false, plans[j].most);
        }
        close_world(&w);
    }
}

static void pages_of_f16(void **state)
{
    (void)state;
    check_shapes(KV_F16);
}

static void pages_of_f32(void **state)
{
    (void)state;
    check_shapes(KV_F32);
}

static void pages_of_q8_0(void **state)
{
    (void)state;
    check_shapes(KV_Q8_0);
}

/* A pool of 6 GiB, of which the last pages are used: 32 bits would end at 4. */
static void far_into_the_pool(void **state)
{
    struct world w;
    uint8_t *mem, *pool;
    size_t len = (size_t)6 << 30;

    (void)state;
    if (SANITIZED)
        skip();
    mem =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(mem, MAP_FAILED);
    for (uint32_t plan = 0; plan < 2; plan++) {
        open_world(&w, &shapes[3], KV_F16);
        pool = w.pool.mem;
        w.pool.mem = mem;
        w.page0 = (uint32_t)(len / w.pool.page_bytes) - POOL_PAGES;
        clear_world(&w);
        plans[plan].add(&w);
        attend_run(w.cpu, &w.plan, 1, &(struct attend_rows){ w.q, w.k, w.v }, w.want);
        check_device(&w, "far", true, F32_MOST);
        check_device(&w, "far", false, plans[plan].most);
        w.pool.mem = pool;
        close_world(&w);
    }
    munmap(mem, len);
}

/* Who sees a key that is no number gets a result that is none, however little weight it had, and
 * nobody else does. */
static void check_no_number(enum kv_type kv, void (*add)(struct world *w), uint32_t plain)
{
    struct world w;
    uint32_t hd;
    uint8_t *tile;
    float k[256] = { 0 }, v[256] = { 0 };

    open_world(&w, &shapes[0], kv);
    clear_world(&w);
    add(&w);
    hd = w.m.head_dim;
    k[hd - 1] = NAN;
    for (uint32_t head = 0; head < w.m.n_head_kv; head++) {
        tile = w.pool.mem + w.plan.pages[1] * w.pool.page_bytes + pool_k_off(&w.pool, 1, head);
        kernels_scalar.kv_store[kv](k, v, hd, 0, tile, tile + w.pool.head_bytes / 2);
    }
    w.shape.plain = plain;
    run_device(&w, 1, w.got[0]);
    for (uint32_t row = 0; row < w.plan.n_rows; row++) {
        float *out = w.got[0] + row * width_of(&w);
        bool sees = row < w.plan.pieces[0].n;

        for (size_t c = 0; c < width_of(&w); c += hd)
            assert_true(sees ? isnan(out[c]) : isfinite(out[c]));
    }
    close_world(&w);
}

static void a_key_that_is_no_number(void **state)
{
    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++)
        for (uint32_t plain = 0; plain < 2; plain++) {
            check_no_number(kv, decode, plain);
            check_no_number(kv, prompt, plain);
        }
}

/* --- what observers leave --------------------------------------------------------------------- */

#define SEG_LEN  48u
#define N_SHARES 5u
#define N_ASKED  40u

/* Pieces that observe, and where: the CPU's floats or the device's. */
struct looks {
    float *weights[2], *shares[2], *asked[2];
    size_t n_weights, n_shares, n_asked; /* of a piece */
};

static void look_into(struct world *w, const struct looks *l, int which)
{
    for (uint32_t i = 0; i < 2; i++)
        w->plan.pieces[i].weights = l->weights[which] + i * l->n_weights;
    w->plan.pieces[2].shares = l->shares[which];
    w->plan.pieces[0].asked = w->plan.pieces[2].asked =
        (struct forward_asked){ l->asked[which], N_ASKED, 3, 2, 0 };
    w->plan.pieces[2].asked.all += l->n_asked;
}

/* Observers where they stand, a segment that is read again behind itself, and a piece that says
 * which segments it looks at. Of the first and the last some queries are kept. */
static void add_lookers(struct world *w)
{
    static const uint32_t again[] = { 17, SEG_LEN, 0 };
    struct plan_piece *p;

    p = add_piece(w, mixed + 3, 300, 7, 9, 1, false);
    p->seg_len = SEG_LEN;
    p = add_piece(w, again, SEG_LEN, 3, 6, 1, false);
    p->seg_len = SEG_LEN;
    p->again = true;
    p = add_piece(w, mixed, 64, 20, 3, 1, false);
    p->n_shares = N_SHARES;
}

static void open_looks(const struct world *w, struct looks *l)
{
    l->n_weights = (size_t)LAYERS * w->m.n_head_kv * SEG_LEN;
    l->n_shares = (size_t)LAYERS * w->m.n_head * N_SHARES;
    l->n_asked = (size_t)LAYERS * w->m.n_head_kv * N_ASKED * ASKED_FLOATS(w->m.head_dim);
    for (int i = 0; i < 2; i++) {
        l->asked[i] = calloc(2 * l->n_asked, sizeof(float));
        l->weights[i] = malloc(2 * l->n_weights * sizeof(float));
        l->shares[i] = malloc(l->n_shares * sizeof(float));
        for (size_t j = 0; j < 2 * l->n_weights; j++)
            l->weights[i][j] = 0.01f * (float)(j % 7); /* of earlier pieces */
        for (size_t j = 0; j < l->n_shares; j++)
            l->shares[i][j] = 0.5f;
    }
}

static void check_looks(const struct shape *s, enum kv_type kv)
{
    struct world w;
    struct looks l;
    double worst;

    open_world(&w, s, kv);
    clear_world(&w);
    open_looks(&w, &l);
    add_lookers(&w);
    look_into(&w, &l, 0);
    attend_run(w.cpu, &w.plan, 1, &(struct attend_rows){ w.q, w.k, w.v }, w.want);
    look_into(&w, &l, 1);
    w.shape.plain = 1;
    run_device(&w, 1, w.got[0]);
    worst = near_worst(0, l.weights[0], l.weights[1], 2 * l.n_weights);
    worst = near_worst(worst, l.shares[0], l.shares[1], l.n_shares);
    worst = near_worst(worst, l.asked[0], l.asked[1], 2 * l.n_asked);
    worst = near_worst(worst, w.want, w.got[0], w.plan.n_rows * width_of(&w));
    if (!(worst <= F32_MOST))
        fail_msg("%u heads of %u on %u, type %d: off by %g", s->n_head, s->hd, s->n_head_kv, kv,
                 worst);
    for (int i = 0; i < 2; i++) {
        free(l.weights[i]);
        free(l.shares[i]);
        free(l.asked[i]);
    }
    close_world(&w);
}

static void observers(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++)
        for (enum kv_type kv = 0; kv < KV__N; kv++)
            check_looks(&shapes[i], kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_f16),
        cmocka_unit_test(pages_of_f32),
        cmocka_unit_test(pages_of_q8_0),
        cmocka_unit_test(far_into_the_pool),
        cmocka_unit_test(a_key_that_is_no_number),
        cmocka_unit_test(observers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
