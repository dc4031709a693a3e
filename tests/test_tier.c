/* tests/test_tier.c - sequences that go to the store and come back. Would catch: logits that are
 * others after a restore, for any policy and length; a restore that brings less than is there, or
 * goes on behind a record that is bad; pages that are lost, or that are given away while a disk
 * still writes to them; a disk that is slow, fails or does not answer, and takes pages from
 * sessions or has them wait.
 *
 * With $GISTD_TEST_BACKEND=fenced all of it goes through the staging area. The Makefile's
 * WRAP_test_tier has time pass for the store as this test says.
 */
#include "daemon/tier.h"

#include "base/clock.h"
#include "daemon/prefix.h"
#include "daemon/tier_inner.h"
#include "store/io.h"
#include "tests/support/io_faulty.h"
#include "tests/support/memory_rig.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define L       64u
#define IDS     700u
#define BATCH   96u
#define POOL    4096u /* tokens */
#define MODEL   "tests/data/tiny_smollm2.gguf"
#define BUDGETS 4096u

static const struct policy policies[] = {
    { .spec = { COMPRESS_FULL, 1, 0, NULL }, .seg_len = L, .budget = BUDGETS },
    { .spec = { COMPRESS_NONE, 1, 0, NULL }, .seg_len = L, .keep_tail = 5, .budget = BUDGETS },
    { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = L, .budget = BUDGETS },
    { .spec = { COMPRESS_FINE_KV, 2, 0, NULL }, .seg_len = L, .keep_tail = 100, .budget = 290 },
    { .spec = { COMPRESS_SELECT, 4, 4, NULL }, .seg_len = L, .budget = 150 },
    { .spec = { COMPRESS_SELECT, 16, 16, NULL },
      .seg_len = L,
      .keep_tail = 33,
      .budget = BUDGETS,
      .fixed = true },
    { .spec = { COMPRESS_SELECT, 4, 0, NULL },
      .seg_len = L,
      .keep_tail = 10,
      .budget = 300,
      .late = true },
    { .spec = { COMPRESS_SELECT_REREAD, 4, 4, NULL }, .seg_len = L, .keep_tail = 7, .budget = 200 },
    { .spec = { COMPRESS_FINE_KV, 4, 4, NULL }, .seg_len = L, .budget = 140 },
    { .spec = { COMPRESS_FIT, 4, 4, NULL }, .seg_len = L, .budget = 150 },
};
#define N_POLICIES (sizeof(policies) / sizeof(*policies))

static uint64_t passed_ns; /* beyond the clock's own time */

uint64_t __real_when_ns(void);
uint64_t __wrap_when_ns(void);
uint64_t __wrap_when_ns(void)
{
    return __real_when_ns() + passed_ns;
}

/* A rig with a store of its own; seed 0: operations in their order. */
struct stage {
    struct memory_rig rig;
    struct io *io; /* a faulty one */
    struct store *store;
    char folder[SCRATCH_PATH_MAX];
    float *got, *want; /* (IDS, n_vocab) */
};

static uint32_t ids[IDS];

static void open_store(struct stage *s, bool always)
{
    const struct io_options threads = { .kind = IO_THREADS };
    const struct store_limits limits = { .bytes = 1u << 30 };
    struct tier_options o = { .pool = &s->rig.rig.pool,
                              .model = s->rig.rig.model,
                              .always = always };
    struct why why = { "" };
    struct io *inner;

    assert_int_equal(io_open(&threads, &inner, &why), 0);
    assert_int_equal(io_faulty_open(inner, &s->io), 0);
    if (store_open(s->folder, s->io, &limits, &s->store, &why) < 0)
        fail_msg("%s", why.text);
    o.store = s->store;
    assert_int_equal(tier_open(&o, &s->rig.served.tier), 0);
}

static void close_store(struct stage *s)
{
    assert_true(store_close(s->store));
    tier_close(s->rig.served.tier);
    io_close(s->io);
    s->rig.served.tier = NULL;
}

/* What is left of it afterwards is what is on the disk. */
static void restart(struct stage *s)
{
    assert_int_equal(tier_stop(s->rig.served.tier, UINT64_C(60000000000)), 0);
    close_store(s);
    open_store(s, true);
}

static void open_stage(struct stage *s, uint32_t pool_tokens)
{
    struct rig_opts opts = { .model = MODEL,
                             .cpu = rig_cpu(),
                             .threads = 2,
                             .max_batch = BATCH,
                             .max_tokens = pool_tokens };
    static unsigned count;
    struct why why = { "" };
    char name[32];
    size_t row;

    *s = (struct stage){ .io = NULL };
    if (memory_rig_open(&s->rig, &opts, &why) < 0)
        fail_msg("%s", why.text);
    (void)snprintf(name, sizeof(name), "store%u", count++);
    (void)scratch_path(s->folder, name);
    row = s->rig.rig.model->n_vocab * sizeof(float);
    s->got = malloc(IDS * row);
    s->want = malloc(IDS * row);
    assert_true(s->got && s->want);
    open_store(s, true);
}

/* Everybody has given back what he had. */
static void close_stage(struct stage *s)
{
    close_store(s);
    assert_int_equal(s->rig.rig.pool.n_free, s->rig.rig.pool.n_pages);
    free(s->got);
    free(s->want);
    memory_rig_close(&s->rig);
}

struct reader {
    struct seq seq;
    struct memory memory;
};

static void open_reader(struct stage *s, struct reader *r, const struct policy *p,
                        struct prefix *prefix, struct tier *tier)
{
    assert_int_equal(rig_seq(&s->rig.rig, 4096, L, 0, &r->seq), 0);
    assert_int_equal(memory_init(&r->memory, p, &s->rig.served, &r->seq), 0);
    memory_share(&r->memory, prefix, 1000, false);
    memory_keep(&r->memory, tier);
}

static void close_reader(struct reader *r)
{
    memory_fini(&r->memory);
    seq_close(&r->seq);
}

/* Reads ids [memory.n_ids, n). */
static void feed(struct stage *s, struct reader *r, uint32_t n, float *ret)
{
    uint32_t had = r->memory.n_ids;

    assert_int_equal(memory_rig_feed(&s->rig, &r->memory, ids + had, n - had, BATCH, ret), 0);
}

/* What comes back of the first n ids, all of it waited for. */
static uint32_t restore(struct stage *s, struct reader *r, uint32_t n, uint32_t *ret_shared)
{
    struct tier_restore *t;

    (void)memory_adopt(&r->memory, ids, n);
    *ret_shared = r->memory.n_ids;
    t = tier_restore_begin(&r->memory.kept, ids, n);
    while (t && tier_restore_go(t, ret_shared) == -EAGAIN)
        if (!tier_pump(s->rig.served.tier))
            (void)usleep(100);
    return r->memory.n_ids;
}

/* The logits of the last ids are those of a sequence that no store has seen. */
static void expect_same(struct stage *s, struct reader *r, const struct policy *p, uint32_t n)
{
    uint32_t had = r->memory.n_ids;
    size_t row = s->rig.rig.model->n_vocab;
    struct reader fresh;

    open_reader(s, &fresh, p, NULL, NULL);
    feed(s, &fresh, n, s->want);
    feed(s, r, n, s->got);
    assert_memory_equal(s->got, s->want + had * row, (n - had) * row * sizeof(float));
    close_reader(&fresh);
}

/* The fenced backend closes its memory at each call, which takes most of the time: some will do. */
static size_t step(void)
{
    return getenv("GISTD_TEST_BACKEND") ? 4 : 1;
}

/* --- all of it -------------------------------------------------------------------------------- */

static const uint32_t lengths[] = { 17, 63, 64, 65, 128, 150, 333, 384, 511, 600 };

/* Read, gone to the disk, another daemon: all but the last id is there. And once more of a longer
 * text, which the store has the beginning of. */
static void comes_back(void **state)
{
    struct stage s;

    (void)state;
    open_stage(&s, POOL);
    for (size_t m = 0; m < N_POLICIES; m++)
        for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i += step()) {
            uint32_t n = lengths[i], shared;
            struct reader r;

            for (uint32_t k = 0; k < IDS; k++) /* a text of its own */
                ids[k] = (uint32_t)(3 + (k * 7 + k * k * 3 + 31 * i + m) % 250);
            open_reader(&s, &r, &policies[m], NULL, s.rig.served.tier);
            feed(&s, &r, n, s.got);
            close_reader(&r);
            restart(&s);
            open_reader(&s, &r, &policies[m], NULL, s.rig.served.tier);
            if (restore(&s, &r, n, &shared) != n - 1 || shared != 0)
                fail_msg("policy %zu: %u of %u tokens came back", m, r.memory.n_ids, n);
            expect_same(&s, &r, &policies[m], n + 50);
            close_reader(&r);
        }
    close_stage(&s);
}

/* Of two texts that part inside a segment the second has what they share: in whole pages where the
 * segment is raw. */
static void parts_in_a_segment(void **state)
{
    struct stage s;
    struct reader r;
    uint32_t shared;

    (void)state;
    open_stage(&s, POOL);
    for (uint32_t k = 0; k < IDS; k++)
        ids[k] = 3 + (k * 5 + k / 9) % 250;
    open_reader(&s, &r, &policies[0], NULL, s.rig.served.tier);
    feed(&s, &r, 300, s.got);
    close_reader(&r);
    restart(&s);
    ids[3 * L + 41]++;
    open_reader(&s, &r, &policies[0], NULL, s.rig.served.tier);
    assert_int_equal(restore(&s, &r, 300, &shared), 3 * L + 32);
    expect_same(&s, &r, &policies[0], 320);
    close_reader(&r);
    close_stage(&s);
}

/* The tree has the beginning, the store goes on; what the tree has raw and the longer text has
 * compressed comes from the store, too. */
static void behind_the_tree(void **state)
{
    struct stage s;

    (void)state;
    open_stage(&s, POOL);
    for (size_t m = 0; m < N_POLICIES; m += step()) {
        struct prefix *prefix;
        struct reader r;
        uint32_t shared;

        for (uint32_t k = 0; k < IDS; k++)
            ids[k] = (uint32_t)(3 + (k * 11 + k * k + m) % 250);
        open_reader(&s, &r, &policies[m], NULL, s.rig.served.tier);
        feed(&s, &r, 500, s.got);
        close_reader(&r);
        restart(&s);
        assert_int_equal(prefix_open(&s.rig.rig.pool, &prefix), 0);
        open_reader(&s, &r, &policies[m], prefix, NULL);
        feed(&s, &r, 100 + 30 * (uint32_t)m, s.got);
        close_reader(&r);
        open_reader(&s, &r, &policies[m], prefix, s.rig.served.tier);
        assert_int_equal(restore(&s, &r, 500, &shared), 499);
        assert_true(shared > 0 || policies[m].spec.method == COMPRESS_NONE ||
                    policies[m].keep_tail);
        expect_same(&s, &r, &policies[m], 520);
        close_reader(&r);
        prefix_close(prefix);
    }
    close_stage(&s);
}

/* --- whose it is ------------------------------------------------------------------------------ */

static bool same_scope(struct stage *s, struct tier *a, const struct policy *p, struct tier *b,
                       const struct policy *q)
{
    struct reader x, y;
    bool same;

    open_reader(s, &x, p, NULL, a);
    open_reader(s, &y, q, NULL, b);
    same = memcmp(x.memory.kept.scope, y.memory.kept.scope, STORE_SCOPE_LEN) == 0;
    close_reader(&x);
    close_reader(&y);
    return same;
}

/* A tier of another model, or another pool, on the same store. */
static struct tier *another(struct stage *s, struct pool *pool, const struct model *model)
{
    struct tier_options o = { .store = s->store, .pool = pool, .model = model };
    struct tier *t;

    assert_int_equal(tier_open(&o, &t), 0);
    return t;
}

/* All that the meaning of pages depends on has a say in where they are found, and nothing else. */
static void scopes(void **state)
{
    static const struct policy full = { .spec = { COMPRESS_FULL, 1, 0, NULL },
                                        .seg_len = L,
                                        .budget = BUDGETS };
    static const struct policy fine = {
        .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = L, .keep_tail = 5, .budget = 900
    };
    struct adapter one = { .digest = "1" };
    struct policy p, q;
    struct stage s;
    struct tier *t;

    (void)state;
    open_stage(&s, POOL);
    t = s.rig.served.tier;
    assert_true(same_scope(&s, t, &full, t, &full) && same_scope(&s, t, &fine, t, &fine));
    assert_false(same_scope(&s, t, &full, t, &fine));
    p = full; /* that keeps all of it: what compression would be does not matter */
    p.budget = 700, p.keep_tail = 3, p.spec.ratio = 4, p.late = true;
    assert_true(same_scope(&s, t, &full, t, &p));
    p.seg_len = 128;
    assert_false(same_scope(&s, t, &full, t, &p));
#define OTHER(field, value)                                                                        \
    p = fine, p.field = (value);                                                                   \
    assert_false(same_scope(&s, t, &fine, t, &p))
    OTHER(spec.method, COMPRESS_SELECT);
    OTHER(spec.ratio, 4);
    OTHER(spec.sinks, 3);
    OTHER(spec.adapter, &one);
    OTHER(keep_tail, 6);
    OTHER(budget, 901);
    OTHER(late, true);
    OTHER(fixed, true);
    /* What prompts bring back changes nothing of what is there else, but for its part of the
     * budget.
     */
    OTHER(hydrate, 3);
    p = fine, p.hydrate = 3, p.budget += 3 * L;
    assert_true(same_scope(&s, t, &fine, t, &p));
    p.late = true; /* then it is the text's until something is compressed */
    assert_false(same_scope(&s, t, &fine, t, &p));
    p = fine, p.late = true, p.hydrate = 0;
    q = p, q.hydrate = 3, q.budget += 3 * L;
    assert_false(same_scope(&s, t, &p, t, &q));
    q.budget = p.budget;
#undef OTHER
    assert_false(same_scope(&s, t, &p, t, &q));
    close_stage(&s);
}

static void scopes_of_files(void **state)
{
    static const struct policy fine = {
        .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = L, .keep_tail = 5, .budget = 900
    };
    struct adapter one = { .digest = "1" }, two = { .digest = "2" };
    struct policy p = fine, q = fine;
    struct model model;
    struct pool pool;
    struct stage s;
    struct tier *t, *u;

    (void)state;
    open_stage(&s, POOL);
    t = s.rig.served.tier;
    p.spec.adapter = &one;
    q.spec.adapter = &two;
    assert_false(same_scope(&s, t, &p, t, &q));
    model = *s.rig.rig.model;
    model.digest[0] ^= 1;
    u = another(&s, &s.rig.rig.pool, &model);
    assert_false(same_scope(&s, t, &fine, u, &fine));
    tier_close(u);
    assert_int_equal(pool_open(&pool, s.rig.rig.backend, s.rig.rig.model, KV_F32, 1 << 20, NULL),
                     0);
    u = another(&s, &pool, s.rig.rig.model);
    assert_false(same_scope(&s, t, &fine, u, &fine));
    tier_close(u);
    pool_close(&pool);
    close_stage(&s);
}

/* --- bad records ------------------------------------------------------------------------------ */

static char files[64][512];
static uint32_t n_files;

static int note_file(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)at;
    if (kind == FTW_F && st->st_size > 4096 && n_files < 64)
        (void)snprintf(files[n_files++], sizeof(files[0]), "%s", path);
    return 0;
}

static void flip_last_page(const char *path)
{
    FILE *f = fopen(path, "r+b");
    int c;

    assert_non_null(f);
    assert_int_equal(fseek(f, -2048, SEEK_END), 0);
    c = fgetc(f);
    assert_int_equal(fseek(f, -2048, SEEK_END), 0);
    assert_int_equal(fputc(c ^ 0x10, f), c ^ 0x10);
    assert_int_equal(fclose(f), 0);
}

/* All records are bad, then one: what comes back ends before it, and is right. Which one a number
 * means changes from store to store, since names are seeded: some are of no use for this restore.
 */
static void a_bad_record_ends_it(void **state)
{
    static const size_t some[] = { 0, 2, 3, 7 };
    struct stage s;

    (void)state;
    open_stage(&s, POOL);
    for (size_t m = 0; m < sizeof(some) / sizeof(*some); m++) {
        const struct policy *p = &policies[some[m]];
        uint32_t n_bad = 0, n_total = 1;

        for (uint32_t bad = 0; bad < n_total; bad += (uint32_t)step()) {
            struct reader r;
            uint32_t shared, n;

            for (uint32_t k = 0; k < IDS; k++)
                ids[k] = (uint32_t)(3 + (k * 13 + k * k + bad + 40 * m) % 250);
            close_store(&s);
            (void)snprintf(s.folder + strlen(s.folder), 16, "x");
            open_store(&s, true);
            open_reader(&s, &r, p, NULL, s.rig.served.tier);
            feed(&s, &r, 330, s.got);
            close_reader(&r);
            restart(&s);
            n_files = 0;
            assert_int_equal(nftw(s.folder, note_file, 8, FTW_PHYS), 0);
            n_total = n_files;
            assert_true(n_total > 3 && n_total < 64);
            for (uint32_t i = bad; i < (bad == 0 ? n_files : bad + 1); i++)
                flip_last_page(files[i]);
            open_reader(&s, &r, p, NULL, s.rig.served.tier);
            n = restore(&s, &r, 330, &shared);
            n_bad += n < 329;
            expect_same(&s, &r, p, 340);
            close_reader(&r);
        }
        assert_true(n_bad >= 1);
    }
    close_stage(&s);
}

static void ignore(void *arg, int result)
{
    (void)arg;
    assert_int_equal(result, 0);
}

/* A record of this very scope and these ids whose pages are larger than the pool's: a file that
 * lies. To read it would write over other pages. */
static void pages_of_another_size(void **state)
{
    uint32_t page_bytes, shared;
    const void *pages[L / 16];
    struct store_record rec;
    struct tier_stats st;
    struct stage s;
    struct reader r;
    void *mem;

    (void)state;
    open_stage(&s, POOL);
    open_reader(&s, &r, &policies[0], NULL, s.rig.served.tier);
    page_bytes = (uint32_t)s.rig.rig.pool.page_bytes * 2;
    mem = aligned_alloc(4096, page_bytes);
    assert_non_null(mem);
    memset(mem, 0x3c, page_bytes);
    for (uint32_t i = 0; i < L / 16; i++)
        pages[i] = mem;
    rec = (struct store_record){ .key = { .owner = 1000, .kind = STORE_RAW },
                                 .ids = ids,
                                 .n_tokens = L,
                                 .n_keys = L,
                                 .n_pages = L / 16,
                                 .page_bytes = page_bytes };
    memcpy(rec.key.scope, r.memory.kept.scope, STORE_SCOPE_LEN);
    assert_int_equal(store_put(s.store, &rec, pages, ignore, NULL), 0);
    assert_true(store_flush(s.store, UINT64_C(60000000000)));
    assert_int_equal(restore(&s, &r, 2 * L, &shared), 0);
    tier_stats(s.rig.served.tier, &st);
    assert_int_equal(st.restored_tokens, 0);
    close_reader(&r);
    free(mem);
    close_stage(&s);
}

/* And one whose pages have other keys than this policy makes of a segment. */
static void other_keys(void **state)
{
    const struct policy *p = &policies[2];
    uint32_t shared, n_keys = ladder_segment_keys(p, 0, 1);
    const void *page;
    struct stage s;

    (void)state;
    open_stage(&s, POOL);
    page = aligned_alloc(4096, s.rig.rig.pool.page_bytes);
    assert_non_null(page);
    memset((void *)page, 0, s.rig.rig.pool.page_bytes);
    assert_true(n_keys > 1 && n_keys <= POOL_PAGE_TOKENS);
    for (uint32_t less = 0; less < 2; less++) {
        struct store_record rec = { .key = { .owner = 1000, .kind = STORE_PACKED },
                                    .ids = ids,
                                    .n_tokens = L,
                                    .n_keys = n_keys - less,
                                    .n_pages = 1,
                                    .page_bytes = s.rig.rig.pool.page_bytes };
        struct reader r;

        for (uint32_t k = 0; k < IDS; k++)
            ids[k] = 3 + (k + less) % 250;
        open_reader(&s, &r, p, NULL, s.rig.served.tier);
        memcpy(rec.key.scope, r.memory.kept.scope, STORE_SCOPE_LEN);
        assert_int_equal(store_put(s.store, &rec, &page, ignore, NULL), 0);
        assert_true(store_flush(s.store, UINT64_C(60000000000)));
        assert_int_equal(restore(&s, &r, 2 * L, &shared), less ? 0 : L);
        close_reader(&r);
    }
    free((void *)page);
    close_stage(&s);
}

/* What climbed while there was no room in the queue is left out: what is written then is what a
 * rung would be made from, and stands in nobody's way. */
static void climbed_before_it_was_queued(void **state)
{
    const struct policy *p = &policies[3];
    struct tier_jobs held = TAILQ_HEAD_INITIALIZER(held);
    struct stage s;
    struct reader r;
    uint32_t shared;

    (void)state;
    open_stage(&s, POOL);
    for (uint32_t k = 0; k < IDS; k++)
        ids[k] = 3 + (k * 19 + k * k) % 250;
    open_reader(&s, &r, p, NULL, s.rig.served.tier);
    TAILQ_CONCAT(&held, &s.rig.served.tier->free, link);
    feed(&s, &r, 500, s.got);
    assert_true(r.memory.ladder.n_at[2] > 0);
    TAILQ_CONCAT(&s.rig.served.tier->free, &held, link);
    feed(&s, &r, 600, s.got);
    close_reader(&r);
    for (int again = 0; again < 2; again++) {
        restart(&s);
        open_reader(&s, &r, p, NULL, s.rig.served.tier);
        assert_int_equal(restore(&s, &r, 600, &shared), again ? 599 : 0);
        expect_same(&s, &r, p, again ? 620 : 600);
        close_reader(&r);
    }
    close_stage(&s);
}

/* --- given up --------------------------------------------------------------------------------- */

/* All free pages are somebody else's, with something in them. */
static uint32_t take_all(struct stage *s, uint32_t *pages, struct pool_account *a)
{
    struct pool *p = &s->rig.rig.pool;
    uint8_t *text = malloc(p->page_bytes);
    uint32_t n = p->n_free;

    assert_non_null(text);
    assert_int_equal(pool_take(p, a, n, pages), 0);
    for (uint32_t i = 0; i < n; i++) {
        memset(text, (int)(pages[i] & 0xff), p->page_bytes);
        assert_int_equal(
            backend_put(p->backend, p->mem + pages[i] * p->page_bytes, text, p->page_bytes), 0);
    }
    free(text);
    return n;
}

static void expect_untouched(struct stage *s, const uint32_t *pages, uint32_t n)
{
    struct pool *p = &s->rig.rig.pool;
    uint8_t *text = malloc(p->page_bytes);

    assert_non_null(text);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(
            backend_get(p->backend, text, p->mem + pages[i] * p->page_bytes, p->page_bytes), 0);
        for (size_t k = 0; k < p->page_bytes; k++)
            if (text[k] != (uint8_t)(pages[i] & 0xff))
                fail_msg("page %u was written to at byte %zu", pages[i], k);
    }
    free(text);
}

/* Until the disk is done with all pages. */
static void settle(struct stage *s)
{
    struct tier_stats st;

    do {
        (void)tier_pump(s->rig.served.tier);
        tier_stats(s->rig.served.tier, &st);
    } while (st.pages_busy > 0);
}

/* At every point of a restore, also while the disk writes to its pages: which are nobody else's
 * until it is done. */
static void dropped_at_any_moment(void **state)
{
    struct pool_account account = { .limit = UINT32_MAX };
    uint32_t *pages = malloc(POOL / 16 * sizeof(*pages));
    bool ended = false, was_busy = false;
    struct stage s;
    struct reader r;

    (void)state;
    open_stage(&s, POOL);
    for (uint32_t k = 0; k < IDS; k++)
        ids[k] = 3 + (k * 5 + k / 9) % 250;
    open_reader(&s, &r, &policies[4], NULL, s.rig.served.tier);
    feed(&s, &r, 600, s.got);
    close_reader(&r);
    for (unsigned after = 0; !ended; after++) {
        struct tier_restore *t;
        struct tier_stats st;
        uint32_t shared, n;

        restart(&s);
        open_reader(&s, &r, &policies[4], NULL, s.rig.served.tier);
        t = tier_restore_begin(&r.memory.kept, ids, 600);
        assert_non_null(t);
        for (unsigned i = 0; i < after && !ended; i++) {
            if (i % 2)
                (void)tier_pump(s.rig.served.tier);
            else
                ended = tier_restore_go(t, &shared) == 0;
        }
        if (ended)
            assert_int_equal(r.memory.n_ids, 599);
        else
            tier_restore_drop(t);
        assert_true(ended || (r.memory.n_ids == 0 && r.seq.n_tokens == 0));
        close_reader(&r);
        tier_stats(s.rig.served.tier, &st);
        was_busy |= st.pages_busy > 0;
        assert_int_equal(tier_coming(s.rig.served.tier), st.pages_busy);
        n = take_all(&s, pages, &account);
        assert_int_equal(n + st.pages_busy + st.pages_queued, s.rig.rig.pool.n_pages);
        settle(&s);
        expect_untouched(&s, pages, n);
        pool_give(&s.rig.rig.pool, &account, n, pages);
    }
    assert_true(was_busy);
    free(pages);
    close_stage(&s);
}

/* --- pages are short -------------------------------------------------------------------------- */

/* What waits to be written is had by who wants pages; what the disk has comes back. A sequence that
 * fills the pool goes on as if there were no store. */
static void queued_pages_are_free(void **state)
{
    struct pool_account account = { .limit = UINT32_MAX };
    uint32_t *pages = malloc(POOL / 16 * sizeof(*pages)), n, busy;
    struct tier_stats st;
    struct stage s;
    struct reader r;

    (void)state;
    open_stage(&s, 1024);
    for (uint32_t k = 0; k < IDS; k++)
        ids[k] = 3 + (k * 5 + k / 9) % 250;
    open_reader(&s, &r, &policies[0], NULL, s.rig.served.tier);
    feed(&s, &r, 600, s.got);
    close_reader(&r);
    tier_stats(s.rig.served.tier, &st);
    assert_int_equal(st.queued, 10); /* nine segments and the end */
    n = s.rig.rig.pool.n_pages;
    assert_int_equal(s.rig.rig.pool.n_free + s.rig.rig.pool.n_cached, n);
    assert_int_equal(pool_take(&s.rig.rig.pool, &account, n, pages), 0);
    tier_stats(s.rig.served.tier, &st);
    assert_int_equal(st.queued, 0);
    assert_int_equal(st.forgotten, 10);
    pool_give(&s.rig.rig.pool, &account, n, pages);

    open_reader(&s, &r, &policies[0], NULL, s.rig.served.tier);
    feed(&s, &r, 600, s.got);
    close_reader(&r);
    (void)tier_pump(s.rig.served.tier);
    tier_stats(s.rig.served.tier, &st);
    busy = st.pages_busy;
    assert_true(busy > 0);
    assert_int_equal(tier_coming(s.rig.served.tier), busy);
    assert_int_equal(pool_take(&s.rig.rig.pool, &account, n - busy + 1, pages), -ENOSPC);
    assert_int_equal(pool_take(&s.rig.rig.pool, &account, n - busy, pages), 0);
    settle(&s);
    assert_int_equal(pool_take(&s.rig.rig.pool, &account, busy, pages + n - busy), 0);
    pool_give(&s.rig.rig.pool, &account, n, pages);
    free(pages);
    close_stage(&s);
}

/* --- a disk that fails ------------------------------------------------------------------------ */

/* Whatever is refused, at whatever operation: sequences go on, and what comes back is right. */
static void whatever_fails(void **state)
{
    static const struct io_fault faults[] = {
        { .code = IO_WRITE, .what = IO_FAULT_ERROR, .error = ENOSPC },
        { .code = IO_WRITE, .nth = 3, .what = IO_FAULT_PART, .error = EIO },
        { .code = IO_SYNC, .nth = 2, .what = IO_FAULT_ERROR, .error = EIO },
        { .code = IO_OPEN, .nth = 4, .what = IO_FAULT_ERROR, .error = EMFILE },
        { .code = IO_RENAME, .nth = 1, .what = IO_FAULT_ERROR, .error = EROFS },
        { .code = IO_READ, .nth = 2, .what = IO_FAULT_ERROR, .error = EIO },
        { .code = IO_READ, .what = IO_FAULT_ERROR, .error = EIO },
        { .code = IO_READ, .nth = 1, .what = IO_FAULT_EARLY },
        { .code = IO_READ, .what = IO_FAULT_LATE },
        { .code = IO_WRITE, .what = IO_FAULT_LATE },
    };
    struct stage s;

    (void)state;
    open_stage(&s, POOL);
    for (size_t i = 0; i < 2 * sizeof(faults) / sizeof(*faults); i += step()) {
        const struct policy *p = &policies[i % 2 ? 4 : 0];
        struct reader r;
        uint32_t shared;

        for (uint32_t k = 0; k < IDS; k++)
            ids[k] = (uint32_t)(3 + (k * 17 + k * k + i) % 250);
        restart(&s);
        io_faulty_add(s.io, &faults[i / 2]);
        io_faulty_shuffle(s.io, i + 1);
        open_reader(&s, &r, p, NULL, s.rig.served.tier);
        feed(&s, &r, 400, s.got);
        close_reader(&r);
        (void)tier_stop(s.rig.served.tier, UINT64_C(60000000000));
        open_reader(&s, &r, p, NULL, s.rig.served.tier);
        (void)restore(&s, &r, 400, &shared);
        expect_same(&s, &r, p, 430);
        close_reader(&r);
    }
    close_stage(&s);
}

/* A read that never comes back: the model reads the text itself, nobody waits for pages that the
 * disk may keep for ever, and what it had is free when it comes after all. */
static void reads_on_without_the_disk(void **state)
{
    const struct io_fault never = { .code = IO_READ, .nth = 2, .what = IO_FAULT_NEVER };
    const struct policy *p = &policies[0];
    struct tier_restore *t;
    struct reader r;
    struct stage s;
    uint32_t shared;
    uint64_t n;

    (void)state;
    open_stage(&s, POOL);
    for (uint32_t k = 0; k < IDS; k++)
        ids[k] = (uint32_t)(3 + (k * 13 + k * k) % 250);
    open_reader(&s, &r, p, NULL, s.rig.served.tier);
    feed(&s, &r, 400, s.got);
    close_reader(&r);
    restart(&s);
    n = io_faulty_n(s.io, IO_READ);
    io_faulty_add(s.io, &never);

    open_reader(&s, &r, p, NULL, s.rig.served.tier);
    t = tier_restore_begin(&r.memory.kept, ids, 400);
    assert_non_null(t);
    while (io_faulty_n(s.io, IO_READ) < n + 2) {
        assert_int_equal(tier_restore_go(t, &shared), -EAGAIN);
        (void)tier_pump(s.rig.served.tier);
    }
    assert_in_range(tier_timeout_ms(s.rig.served.tier), 1, 30001);
    passed_ns += 31 * CLOCK_S;
    while (tier_restore_go(t, &shared) == -EAGAIN)
        (void)tier_pump(s.rig.served.tier);
    assert_true(r.memory.n_ids < 399);
    assert_int_equal(tier_coming(s.rig.served.tier), 0);
    assert_int_equal(tier_timeout_ms(s.rig.served.tier), -1);
    expect_same(&s, &r, p, 420);
    close_reader(&r);

    io_faulty_clear(s.io);
    io_faulty_release(s.io);
    while (!TAILQ_EMPTY(&s.rig.served.tier->dropped))
        (void)tier_pump(s.rig.served.tier);
    open_reader(&s, &r, p, NULL, s.rig.served.tier);
    assert_int_equal(restore(&s, &r, 400, &shared), 399);
    expect_same(&s, &r, p, 420);
    close_reader(&r);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(parts_in_a_segment),
        cmocka_unit_test(behind_the_tree),
        cmocka_unit_test(scopes),
        cmocka_unit_test(scopes_of_files),
        cmocka_unit_test(a_bad_record_ends_it),
        cmocka_unit_test(pages_of_another_size),
        cmocka_unit_test(other_keys),
        cmocka_unit_test(climbed_before_it_was_queued),
        cmocka_unit_test(dropped_at_any_moment),
        cmocka_unit_test(queued_pages_are_free),
        cmocka_unit_test(whatever_fails),
        cmocka_unit_test(reads_on_without_the_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
