/* tests/test_tier_host.c - context that leaves a device's pool and stays in host memory
 * (daemon/tier.h, daemon/shelf.h). Would catch: bits that are others when it comes back, with a
 * store or without; a disk that is read though memory has it; more memory than was asked for; a
 * record that is lost, or that is of another text, after any order of texts, of restores that are
 * given up, and of what is forgotten; a daemon that has nothing at all where memory can't be had or
 * can't be pinned.
 *
 * On the fenced backend, whose sums are the CPU's, and on CUDA's kernels over the shim.
 */
#include "daemon/shelf.h"
#include "daemon/tier.h"
#include "daemon/tier_inner.h"
#include "store/io.h"
#include "tests/support/backend_fenced.h"
#include "tests/support/backend_shim.h"
#include "tests/support/fault.h"
#include "tests/support/memory_rig.h"
#include "tests/support/sanitized.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define L       64u
#define IDS     420u
#define BATCH   96u
#define POOL    2048u /* tokens */
#define MODEL   "tests/data/tiny_smollm2.gguf"
#define BUDGETS 4096u
#define PLENTY  ((uint64_t)256 << 20)

static const struct policy policies[] = {
    { .spec = { COMPRESS_FULL, 1, 0, NULL }, .seg_len = L, .budget = BUDGETS },
    { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = L, .budget = BUDGETS },
    { .spec = { COMPRESS_SELECT, 4, 4, NULL }, .seg_len = L, .budget = 150 },
    { .spec = { COMPRESS_SELECT, 4, 0, NULL },
      .seg_len = L,
      .keep_tail = 10,
      .budget = 300,
      .late = true },
};
#define N_POLICIES (sizeof(policies) / sizeof(*policies))

struct stage {
    struct memory_rig rig;
    struct io *io;
    struct store *store; /* NULL: there is none */
    struct tier *tier;
    float *got, *want; /* (IDS, n_vocab) */
};

static uint32_t ids[IDS];

static void write_text(uint32_t text)
{
    for (uint32_t k = 0; k < IDS; k++)
        ids[k] = 3 + (k * 7 + k * k * 3 + 31 * text) % 250;
}

static struct tier *open_tier(struct stage *s, uint64_t host_bytes)
{
    const struct tier_options o = { .store = s->store,
                                    .pool = &s->rig.rig.pool,
                                    .model = s->rig.rig.model,
                                    .always = true,
                                    .host_bytes = host_bytes,
                                    .io = s->io };

    assert_int_equal(tier_open(&o, &s->tier), 0);
    return s->tier;
}

static void open_store(struct stage *s)
{
    const struct io_options threads = { .kind = IO_AUTO };
    const struct store_limits limits = { .bytes = 1u << 30 };
    static unsigned count;
    char folder[SCRATCH_PATH_MAX], name[32];
    struct why why = { "" };

    (void)snprintf(name, sizeof(name), "store%u", count++);
    (void)scratch_path(folder, name);
    assert_int_equal(io_open(&threads, &s->io, &why), 0);
    if (store_open(folder, s->io, &limits, &s->store, &why) < 0)
        fail_msg("%s", why.text);
}

static void open_rig(struct stage *s, const struct backend_ops *backend)
{
    struct rig_opts opts = { .model = MODEL,
                             .cpu = rig_cpu(),
                             .backend = backend,
                             .threads = 1,
                             .max_batch = BATCH,
                             .max_tokens = POOL };
    struct why why = { "" };
    size_t row;

    *s = (struct stage){ .io = NULL };
    if (memory_rig_open(&s->rig, &opts, &why) < 0)
        fail_msg("%s", why.text);
    row = s->rig.rig.model->n_vocab * sizeof(float);
    s->got = malloc(IDS * row);
    s->want = malloc(IDS * row);
    assert_true(s->got && s->want);
}

static struct tier_stats stats(const struct stage *s)
{
    struct tier_stats st;

    tier_stats(s->tier, &st);
    assert_true(st.host_bytes <= st.host_limit);
    return st;
}

/* All that was read is where it is to be. */
static void settle(struct stage *s)
{
    struct tier_stats st;

    do {
        (void)tier_pump(s->tier);
        st = stats(s);
    } while (st.queued + st.writing > 0);
}

/* Everybody has given back what he had: pages, and slots. */
static void close_stage(struct stage *s)
{
    struct shelf_stats x;

    settle(s);
    if (s->store)
        assert_true(store_close(s->store));
    shelf_stats(s->tier->shelf, &x);
    if (!s->store)
        assert_int_equal(x.n_free + x.n_kept, x.n_slots);
    tier_close(s->tier);
    if (s->io)
        io_close(s->io);
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
                        struct tier *tier)
{
    assert_int_equal(rig_seq(&s->rig.rig, 4096, L, 0, &r->seq), 0);
    assert_int_equal(memory_init(&r->memory, p, &s->rig.served, &r->seq), 0);
    memory_share(&r->memory, NULL, 1000, false);
    memory_keep(&r->memory, tier);
}

static void close_reader(struct reader *r)
{
    memory_fini(&r->memory);
    seq_close(&r->seq);
}

static void feed(struct stage *s, struct reader *r, uint32_t n, float *ret)
{
    uint32_t had = r->memory.n_ids;

    assert_int_equal(memory_rig_feed(&s->rig, &r->memory, ids + had, n - had, BATCH, ret), 0);
}

static uint32_t restore(struct stage *s, struct reader *r, uint32_t n)
{
    struct tier_restore *t = tier_restore_begin(&r->memory.kept, ids, n);
    uint32_t shared;

    while (t && tier_restore_go(t, &shared) == -EAGAIN)
        (void)tier_pump(s->tier);
    return r->memory.n_ids;
}

/* The logits of the last ids are those of a sequence that no tier has seen. */
static void expect_same(struct stage *s, struct reader *r, const struct policy *p, uint32_t n)
{
    uint32_t had = r->memory.n_ids;
    size_t row = s->rig.rig.model->n_vocab;
    struct reader fresh;

    open_reader(s, &fresh, p, NULL);
    feed(s, &fresh, n, s->want);
    feed(s, r, n, s->got);
    assert_memory_equal(s->got, s->want + had * row, (n - had) * row * sizeof(float));
    close_reader(&fresh);
}

/* Bytes of the pages of all full segments. malloc'ed. */
static uint8_t *pages_of(struct stage *s, const struct seq *q, size_t *ret_len)
{
    const struct pool *p = &s->rig.rig.pool;
    uint8_t *bytes = malloc(IDS / L * 5 * p->page_bytes);
    size_t len = 0;

    assert_non_null(bytes);
    for (uint32_t k = 0; k < q->n_tokens / L; k++)
        for (uint32_t i = 0; i < seq_n_pages(q->segments[k].n_keys); i++, len += p->page_bytes)
            assert_int_equal(backend_get(p->backend, bytes + len,
                                         p->mem + seq_pages(q, k)[i] * p->page_bytes,
                                         p->page_bytes),
                             0);
    *ret_len = len;
    return bytes;
}

/* --- there and back --------------------------------------------------------------------------- */

/* Read, settled and closed; the same ids again are there but for the last one, without a disk. */
static void comes_back_alone(void **state)
{
    static const uint32_t lengths[] = { 17, 64, 65, 200, 384 };
    struct stage s;

    (void)state;
    open_rig(&s, &backend_fenced);
    open_tier(&s, PLENTY);
    for (size_t m = 0; m < N_POLICIES; m++)
        for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i += SANITIZED ? 2 : 1) {
            uint64_t had = stats(&s).host_tokens;
            struct reader r;

            write_text((uint32_t)(10 * m + i));
            open_reader(&s, &r, &policies[m], s.tier);
            feed(&s, &r, lengths[i], s.got);
            close_reader(&r);
            settle(&s);
            open_reader(&s, &r, &policies[m], s.tier);
            if (restore(&s, &r, lengths[i]) != lengths[i] - 1)
                fail_msg("policy %zu: %u of %u tokens came back", m, r.memory.n_ids, lengths[i]);
            assert_int_equal(stats(&s).host_tokens - had, lengths[i] - 1);
            expect_same(&s, &r, &policies[m], lengths[i] + 30);
            close_reader(&r);
        }
    close_stage(&s);
}

/* The device's bytes are what they were. Its sums hang on what else is in a step, so bytes of pages
 * are compared and not logits. */
static void same_bytes_of_the_device(void **state)
{
    (void)state;
    for (unsigned m = 0; m < 2; m++) {
        uint8_t *before, *after;
        size_t len, len_after;
        struct reader r;
        struct stage s;

        open_rig(&s, backend_shim());
        open_tier(&s, PLENTY);
        assert_true(stats(&s).host_pinned);
        write_text(m);
        open_reader(&s, &r, &policies[m], s.tier);
        feed(&s, &r, 200, NULL);
        before = pages_of(&s, &r.seq, &len);
        close_reader(&r);
        settle(&s);
        open_reader(&s, &r, &policies[m], s.tier);
        assert_int_equal(restore(&s, &r, 200), 199);
        after = pages_of(&s, &r.seq, &len_after);
        assert_int_equal(len, len_after);
        assert_true(len > 0);
        assert_memory_equal(before, after, len);
        free(before);
        free(after);
        close_reader(&r);
        close_stage(&s);
    }
}

/* Raw keys of segments that are packed: from memory, and the bytes of a sequence that packs none.
 */
static void single_segments(void **state)
{
    static const uint32_t wanted[] = { 0, 1, 2 };
    uint8_t *raw, *page;
    struct tier_bring *b;
    struct reader r, full;
    struct stage s;
    size_t len, page_bytes;

    (void)state;
    open_rig(&s, &backend_fenced);
    open_tier(&s, PLENTY);
    page_bytes = s.rig.rig.pool.page_bytes;
    page = malloc(page_bytes);
    assert_non_null(page);
    write_text(3);
    open_reader(&s, &full, &policies[0], NULL);
    feed(&s, &full, 200, NULL);
    raw = pages_of(&s, &full.seq, &len);
    open_reader(&s, &r, &policies[3], s.tier); /* late: all was read while all was raw */
    feed(&s, &r, 200, NULL);
    settle(&s);
    feed(&s, &r, 400, NULL);
    assert_true(r.memory.ladder.n_at[1] >= 3);
    b = tier_bring_begin(&r.memory.kept, wanted, 3);
    assert_non_null(b);
    while (tier_bring_go(b) == -EAGAIN)
        (void)tier_pump(s.tier);
    for (uint32_t k = 0; k < 3; k++) {
        bool from_disk = true;
        const uint32_t *pages = tier_bring_take(b, k, &from_disk);

        assert_non_null(pages);
        assert_false(from_disk);
        for (uint32_t i = 0; i < L / 16; i++) {
            assert_int_equal(backend_get(s.rig.rig.backend, page,
                                         s.rig.rig.pool.mem + pages[i] * page_bytes, page_bytes),
                             0);
            assert_memory_equal(page, raw + (k * L / 16 + i) * page_bytes, page_bytes);
        }
        pool_give(&s.rig.rig.pool, r.seq.account, L / 16, pages);
    }
    tier_bring_drop(b);
    free(raw);
    free(page);
    close_reader(&r);
    close_reader(&full);
    close_stage(&s);
}

static int no_put(struct backend *b, void *to, const void *from, size_t len, uint64_t *ret_ticket)
{
    (void)b;
    (void)to;
    (void)from;
    (void)len;
    (void)ret_ticket;
    return -EIO;
}

/* Segments whose copies fail can't be had, and count for no pages any more. */
static void copies_that_fail(void **state)
{
    static const uint32_t wanted[] = { 0, 1, 2 };
    struct backend_ops broken;
    const struct backend_ops *ops;
    struct tier_bring *b;
    struct reader r;
    struct stage s;
    bool from_disk;

    (void)state;
    open_rig(&s, &backend_fenced);
    open_tier(&s, PLENTY);
    write_text(3);
    open_reader(&s, &r, &policies[3], s.tier);
    feed(&s, &r, 200, NULL);
    settle(&s);
    feed(&s, &r, 400, NULL);
    ops = s.rig.rig.backend->ops;
    broken = *ops;
    broken.put = no_put;
    s.rig.rig.backend->ops = &broken;
    b = tier_bring_begin(&r.memory.kept, wanted, 3);
    assert_non_null(b);
    while (tier_bring_go(b) == -EAGAIN)
        (void)tier_pump(s.tier);
    s.rig.rig.backend->ops = ops;
    for (uint32_t k = 0; k < 3; k++)
        assert_null(tier_bring_take(b, k, &from_disk));
    assert_int_equal(tier_bring_pages(b), 0);
    tier_bring_drop(b);
    close_reader(&r);
    close_stage(&s);
}

/* --- memory, then the disk -------------------------------------------------------------------- */

static uint64_t reads(const struct stage *s)
{
    struct store_stats st;

    store_stats(s->store, &st);
    return st.gets;
}

/* What both have is not read from the disk; what memory has forgotten is, and is in memory then. */
static void before_the_disk(void **state)
{
    struct reader r;
    struct stage s;
    uint64_t n;

    (void)state;
    open_rig(&s, &backend_fenced);
    open_store(&s);
    open_tier(&s, PLENTY);
    write_text(1);
    open_reader(&s, &r, &policies[2], s.tier);
    feed(&s, &r, 300, NULL);
    close_reader(&r);
    assert_int_equal(tier_stop(s.tier, UINT64_C(60000000000)), 0);
    for (int round = 0; round < 3; round++) {
        n = reads(&s);
        open_reader(&s, &r, &policies[2], s.tier);
        assert_int_equal(restore(&s, &r, 300), 299);
        if (round == 1)
            assert_true(reads(&s) > n);
        else
            assert_int_equal(reads(&s), n);
        expect_same(&s, &r, &policies[2], 300);
        close_reader(&r);
        settle(&s);
        if (round == 0) {
            tier_forget(s.tier, 1000);
            assert_int_equal(stats(&s).host_records, 0);
        }
    }
    close_stage(&s);
}

/* --- budgets ---------------------------------------------------------------------------------- */

static uint32_t below(uint64_t *seed, uint32_t n)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33) % n;
}

/* Texts in any order, longer together than memory, with a disk or without: what comes back is
 * right, and memory never has more than it may. Restores that are given up leave nothing behind. */
static void any_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        uint32_t n_back = 0;
        uint64_t x = seed;
        struct stage s;

        open_rig(&s, &backend_fenced);
        if (seed % 2 == 0)
            open_store(&s);
        open_tier(&s, 2 * 60 * (s.rig.rig.pool.page_bytes + 1300));
        assert_true(stats(&s).host_limit <= 61 * s.rig.rig.pool.page_bytes);
        for (uint32_t step = 0; step < (SANITIZED ? 16 : 30); step++) {
            const struct policy *p = &policies[1 + below(&x, 2)];
            uint32_t n = 20 + below(&x, 330), what = below(&x, 10);
            struct reader r;

            write_text(below(&x, 4));
            open_reader(&s, &r, p, s.tier);
            if (what == 0) {
                tier_restore_drop(tier_restore_begin(&r.memory.kept, ids, n));
                assert_int_equal(r.memory.n_ids, 0);
            } else {
                n_back += restore(&s, &r, n) > 0;
            }
            if (what < 4)
                expect_same(&s, &r, p, n);
            else
                feed(&s, &r, n, NULL);
            (void)tier_pump(s.tier);
            (void)stats(&s);
            close_reader(&r);
            if (what == 9)
                tier_forget(s.tier, 1000);
            if (what % 2)
                settle(&s);
        }
        assert_true(n_back > 3);
        assert_true(stats(&s).host_evicted > 0);
        settle(&s);
        close_stage(&s);
    }
}

/* --- what can't be had ------------------------------------------------------------------------ */

static void comes_back_somehow(struct stage *s, uint32_t text)
{
    struct reader r;

    write_text(text);
    open_reader(s, &r, &policies[1], s->tier);
    feed(s, &r, 200, NULL);
    close_reader(&r);
    settle(s);
    open_reader(s, &r, &policies[1], s->tier);
    assert_int_equal(restore(s, &r, 200), 199);
    expect_same(s, &r, &policies[1], 220);
    close_reader(&r);
}

/* The system pins no more memory: slower, and a sentence says so. */
static void not_pinned(void **state)
{
    struct stage s;

    (void)state;
    open_rig(&s, &backend_fenced);
    backend_fenced_pins = false;
    open_tier(&s, PLENTY);
    backend_fenced_pins = true;
    assert_false(stats(&s).host_pinned);
    assert_non_null(strstr(tier_host_note(s.tier), "can't be pinned"));
    comes_back_somehow(&s, 1);
    close_stage(&s);
    open_rig(&s, &backend_fenced);
    open_tier(&s, PLENTY);
    assert_true(stats(&s).host_pinned);
    assert_string_equal(tier_host_note(s.tier), "");
    comes_back_somehow(&s, 1);
    close_stage(&s);
}

/* Whatever of its memory can't be had: with a store context goes there as ever, and a sentence says
 * what is missing; without one there is nothing, and that is all. */
static void not_there(void **state)
{
    uint32_t n_failed = 0, n_passing = 0;

    (void)state;
    for (int with_store = 0; with_store < 2; with_store++) {
        struct stage s;
        struct fault f;
        int64_t mapped;

        open_rig(&s, &backend_fenced);
        if (with_store)
            open_store(&s);
        mapped = fault_mapped();
        for (uint64_t n = 1;; n++) {
            struct tier_options o = { .store = s.store,
                                      .pool = &s.rig.rig.pool,
                                      .model = s.rig.rig.model,
                                      .host_bytes = PLENTY };
            int r;

            fault_arm(n);
            r = tier_open(&o, &s.tier);
            if (!fault_disarm(&f))
                break;
            if (r == 0) {
                assert_true(with_store);
                assert_non_null(strstr(tier_host_note(s.tier), "there is no memory for"));
                assert_int_equal(stats(&s).host_limit, 0);
                n_passing++;
                tier_close(s.tier);
            } else {
                assert_int_equal(r, -ENOMEM);
                n_failed++;
            }
            assert_int_equal(fault_mapped(), mapped);
        }
        close_stage(&s);
    }
    assert_true(n_failed > 5 && n_passing > 5);
}

/* Less than two pages are none. */
static void too_little(void **state)
{
    struct stage s;
    struct tier_options o = { .host_bytes = 4096 };

    (void)state;
    open_rig(&s, &backend_fenced);
    o.pool = &s.rig.rig.pool;
    o.model = s.rig.rig.model;
    assert_int_equal(tier_open(&o, &s.tier), -EINVAL);
    open_store(&s);
    open_tier(&s, 4096);
    assert_non_null(strstr(tier_host_note(s.tier), "no room for two pages"));
    assert_int_equal(stats(&s).host_limit, 0);
    comes_back_somehow(&s, 2);
    assert_true(reads(&s) > 0);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_alone), cmocka_unit_test(same_bytes_of_the_device),
        cmocka_unit_test(single_segments),  cmocka_unit_test(copies_that_fail),
        cmocka_unit_test(before_the_disk),  cmocka_unit_test(any_order),
        cmocka_unit_test(not_pinned),       cmocka_unit_test(not_there),
        cmocka_unit_test(too_little),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
