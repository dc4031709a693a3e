/* tests/test_asked.c - queries that are kept while a segment is read (engine/kv/asked.h), through
 * whole models and memories. Would catch: a packed segment that depends on what was kept of it, on
 * how its tokens came, on who else was read in the same step or on how often packing was
 * interrupted; a second reading where nothing was missed, or of more than was; queries that are
 * used although what they saw is gone; a second reading that a fork, or a question with segments
 * that came back for it, waits for; spans that are lost, that nobody else gets, or that are taken
 * from somebody who needs them.
 */
#include "engine/kv/asked.h"

#include "engine/kv/scratch.h"
#include "tests/support/memory_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define L     192u
#define IDS   (3 * L + 20u)
#define BATCH 96u

static struct memory_rig rig;
static uint32_t ids[IDS];
static uint32_t n_vocab;

/* No tail and some; late, where nothing is kept. */
static const struct policy policies[] = {
    { .spec = { COMPRESS_FIT, 4, 4, NULL }, .seg_len = L, .budget = 4096 },
    { .spec = { COMPRESS_FIT, 8, 0, NULL }, .seg_len = L, .budget = 4096, .keep_tail = 20 },
    { .spec = { COMPRESS_FIT, 4, 4, NULL }, .seg_len = L, .budget = 300, .late = true },
};
#define POLICIES (sizeof(policies) / sizeof(*policies))

struct session {
    struct seq seq;
    struct memory memory;
    uint32_t n_again; /* rows of second readings */
};

static void begin(struct session *s, const struct policy *p)
{
    *s = (struct session){ .n_again = 0 };
    assert_int_equal(rig_seq(&rig.rig, 1024, L, 0, &s->seq), 0);
    assert_int_equal(memory_init(&s->memory, p, &rig.served, &s->seq), 0);
}

static void end(struct session *s)
{
    memory_fini(&s->memory);
    seq_close(&s->seq);
}

static void step(struct session *s, struct forward_run *run)
{
    uint32_t n_out;

    assert_int_equal(forward_step(&rig.rig.forward, run, 1, NULL, &n_out), 0);
    if (!forward_run_reads(run))
        s->n_again += run->n_tokens;
    memory_ran(&s->memory, run);
}

/* Until nothing is due: packing in parts, each of which has to bring it on. */
static void settle(struct session *s, uint32_t chunk)
{
    for (uint32_t i = 0; i < 10000; i++) {
        struct forward_run run;
        struct memory_need need;
        uint64_t until = 0;
        int r;

        memory_settle(&s->memory, &until);
        if (!memory_behind(&s->memory))
            return;
        r = memory_plan(&s->memory, chunk, &run, &need);
        if (r == 0)
            step(s, &run);
        else
            assert_true(r == -EAGAIN && need.cause == MEMORY_WAITING);
    }
    fail_msg("packing does not end");
}

/* Reads up to n tokens in all, and of those from `from` on keeps what is to be kept. */
static void read_to(struct session *s, uint32_t n, uint32_t chunk, uint32_t from)
{
    settle(s, chunk);
    while (s->seq.n_tokens < n) {
        uint32_t left = n - s->seq.n_tokens, room = memory_room(&s->memory);
        struct forward_run run = { .seq = &s->seq,
                                   .tokens = ids + s->seq.n_tokens,
                                   .n_tokens = left < chunk ? left : chunk,
                                   .want = FORWARD_WANT_NONE };

        if (run.n_tokens > room)
            run.n_tokens = room;
        assert_int_equal(seq_reserve(&s->seq, run.n_tokens), 0);
        if (s->seq.n_tokens >= from)
            memory_watch(&s->memory, &run);
        step(s, &run);
        settle(s, chunk);
    }
}

/* The bytes of all keys that it holds. */
static size_t held(const struct session *s, uint8_t *ret)
{
    const struct seq *q = &s->seq;
    struct pool *p = q->pool;
    size_t n = 0;

    for (uint32_t k = 0; k * L < q->n_tokens; k++) {
        uint32_t left = q->n_tokens - k * L, keys = q->segments[k].n_keys;

        if (q->segments[k].state == SEQ_RAW && left < L)
            keys = left;
        for (uint32_t i = 0; i + POOL_PAGE_TOKENS <= keys; i += POOL_PAGE_TOKENS) {
            const uint8_t *page = p->mem + seq_pages(q, k)[i / POOL_PAGE_TOKENS] * p->page_bytes;

            assert_int_equal(backend_get(rig.rig.backend, ret + n, page, p->page_bytes), 0);
            n += p->page_bytes;
        }
    }
    return n;
}

static void expect_equal(const struct session *a, const struct session *b)
{
    size_t cap = (size_t)(IDS / POOL_PAGE_TOKENS + 1) * rig.rig.pool.page_bytes;
    uint8_t *x = calloc(1, cap), *y = calloc(1, cap);
    size_t n = held(a, x);

    assert_int_equal(held(b, y), n);
    assert_true(n > 0);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

/* --- what is kept is what a second reading gives ---------------------------------------------- */

static void same_from_either(void **state)
{
    static const uint32_t chunks[] = { 1, 7, 64, BATCH };

    (void)state;
    for (size_t p = 0; p < POLICIES; p++) {
        struct session again;

        begin(&again, &policies[p]);
        read_to(&again, IDS, BATCH, UINT32_MAX);
        assert_true(again.n_again > 0);
        for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
            struct session s;

            begin(&s, &policies[p]);
            read_to(&s, IDS, chunks[i], 0);
            expect_equal(&s, &again);
            /* The segments behind the first saw another memory in their first keep_tail tokens. */
            if (policies[p].late)
                assert_int_equal(s.n_again, again.n_again);
            else
                assert_int_equal(s.n_again, policies[p].keep_tail ? 2 * policies[p].keep_tail : 0);
            end(&s);
        }
        end(&again);
    }
}

/* Read elsewhere, or when there was no room: only what is missing is read again. */
static void what_is_missing(void **state)
{
    struct session all, s;

    (void)state;
    begin(&all, &policies[0]);
    read_to(&all, IDS, BATCH, 0);
    begin(&s, &policies[0]);
    read_to(&s, IDS, 50, 2 * L + 50);
    expect_equal(&s, &all);
    assert_int_equal(s.n_again, 2 * L + 50);
    end(&s);
    end(&all);
}

/* --- what takes it back ----------------------------------------------------------------------- */

/* To within the segment, where other tokens come; watched or not. */
static void rewinds(void **state)
{
    struct session all;

    (void)state;
    begin(&all, &policies[0]);
    read_to(&all, IDS, BATCH, 0);
    for (uint32_t back = 1; back <= 91; back += 45) {
        for (uint32_t watched = 0; watched < 2; watched++) {
            struct session s;

            begin(&s, &policies[0]);
            read_to(&s, L + 20, BATCH, 0);
            for (uint32_t i = L + 20; i < L + 120; i++)
                ids[i] ^= 1;
            read_to(&s, L + 120, 33, 0);
            memory_rewind(&s.memory, L + 120 - back);
            memory_rewind(&s.memory, L + 20);
            for (uint32_t i = L + 20; i < L + 120; i++)
                ids[i] ^= 1;
            read_to(&s, L + 60, 33, watched ? 0 : UINT32_MAX);
            read_to(&s, IDS, 33, 0);
            expect_equal(&s, &all);
            assert_int_equal(s.n_again, watched ? 0 : 60);
            end(&s);
        }
    }
    end(&all);
}

/* A fork has what its origin has kept, and changes nothing of that; where no span is free for it it
 * reads that again. */
static void forks(void **state)
{
    struct session all, s, f = { .n_again = 0 };

    (void)state;
    begin(&all, &policies[0]);
    read_to(&all, IDS, BATCH, 0);
    for (int has_span = 0; has_span < 2; has_span++) {
        begin(&s, &policies[0]);
        read_to(&s, L + 77, 40, 0);
        f.n_again = 0;
        assert_int_equal(seq_fork(&s.seq, &f.seq), 0);
        assert_int_equal(memory_fork(&s.memory, &f.memory, &f.seq), 0);
        if (!has_span)
            asked_drop(rig.served.compressor, &f.memory.asked);
        read_to(&f, IDS, 40, 0);
        read_to(&s, IDS, 40, 0);
        expect_equal(&f, &all);
        expect_equal(&s, &all);
        assert_int_equal(s.n_again, 0);
        assert_int_equal(f.n_again, has_span ? 0 : 77);
        end(&f);
        end(&s);
    }
    end(&all);
}

/* Segments that come back, and go, are nothing that a question which fills up a segment has to pay
 * for with a second reading of it. */
static void hydrated(void **state)
{
    struct policy p = policies[0];
    const uint32_t segment = 0;
    struct hydrate_job *j;
    struct session s;

    (void)state;
    p.hydrate = 1;
    begin(&s, &p);
    read_to(&s, 2 * L + 60, 40, 0);
    for (j = hydrate_bring(&s.memory, &segment, 1); j && hydrate_go(j) == -EAGAIN;)
        settle(&s, 40);
    assert_true(hydrate_is_on(&s.memory));
    read_to(&s, 2 * L + 100, 40, 0);
    hydrate_end(&s.memory);
    read_to(&s, 2 * L + 150, 40, 0);
    for (j = hydrate_bring(&s.memory, &segment, 1); j && hydrate_go(j) == -EAGAIN;)
        settle(&s, 40);
    read_to(&s, 3 * L + 10, 40, 0);
    assert_true(hydrate_is_on(&s.memory));
    assert_int_equal(s.seq.segments[2].state, SEQ_PACKED);
    assert_int_equal(s.n_again, 0);
    end(&s);
}

/* What stood before it is another thing now: nothing that was kept is of use. */
static void changes(void **state)
{
    struct session s;
    uint32_t *pages;

    (void)state;
    begin(&s, &policies[0]);
    read_to(&s, 2 * L, BATCH, 0);
    read_to(&s, 2 * L + 60, BATCH, 0);
    assert_int_equal(s.memory.asked.to, 60);
    assert_int_equal(asked_missing(&s.memory.asked, &s.seq, 2), L); /* its end is not there */
    pages = seq_pages(&s.seq, 0);
    assert_non_null(pages);
    seq_shorten(&s.seq, 0, s.seq.segments[0].n_keys - 1);
    read_to(&s, IDS, BATCH, 0);
    assert_int_equal(s.n_again, 60);
    end(&s);
}

/* --- room ------------------------------------------------------------------------------------- */

/* More sessions than there are spans. Those who find none pay, and get the same. */
static void spans(void **state)
{
    enum { N = SCRATCH_SPANS_MAX + 2 };
    struct session *s = malloc((N + 1) * sizeof(*s)), all;
    size_t had = compress_scratch_used(rig.served.compressor);

    (void)state;
    assert_int_equal(had, 0);
    begin(&all, &policies[0]);
    read_to(&all, L, BATCH, 0);
    end(&all);
    assert_int_equal(compress_scratch_used(rig.served.compressor), 0);
    for (uint32_t i = 0; i < N; i++) {
        begin(&s[i], &policies[0]);
        read_to(&s[i], 60, BATCH, 0);
        assert_int_equal(s[i].memory.asked.all != NULL, i < SCRATCH_SPANS_MAX);
    }
    assert_true(compress_scratch_used(rig.served.compressor) <=
                compress_scratch_len(rig.served.compressor));
    /* Of one nobody works on. */
    memory_rest(&s[3].memory);
    begin(&s[N], &policies[0]);
    read_to(&s[N], 60, BATCH, 0);
    assert_true(s[N].memory.asked.all && !s[3].memory.asked.all);
    for (uint32_t i = 0; i <= N; i++) {
        read_to(&s[i], L, BATCH, 0);
        if (i > 0)
            expect_equal(&s[i], &s[0]);
        assert_int_equal(s[i].n_again, i == 3 || (i >= SCRATCH_SPANS_MAX && i < N) ? L : 0);
    }
    for (uint32_t i = 0; i <= N; i++)
        end(&s[i]);
    assert_int_equal(compress_scratch_used(rig.served.compressor), 0);
    free(s);
}

/* A session that rested has been asked for more, and packs before it reads on: what it kept is its
 * own from the first run on that is planned for it, whoever looks for room in the same step. */
static void packs_again(void **state)
{
    struct session *others = malloc(SCRATCH_SPANS_MAX * sizeof(*others)), all, s;
    const struct policy *p = &policies[1];
    struct memory_need need;
    struct forward_run run;
    uint64_t until = 0;

    (void)state;
    begin(&all, p);
    read_to(&all, 2 * L + 20, BATCH, 0);
    asked_drop(rig.served.compressor, &all.memory.asked);
    begin(&s, p);
    read_to(&s, 2 * L + 19, BATCH, 0);
    run = (struct forward_run){ .seq = &s.seq, .tokens = ids + 2 * L + 19, .n_tokens = 1 };
    assert_int_equal(seq_reserve(&s.seq, 1), 0);
    step(&s, &run); /* due, and nothing was done about it */
    memory_rest(&s.memory);
    for (uint32_t i = 0; i + 1 < SCRATCH_SPANS_MAX; i++) {
        begin(&others[i], &policies[0]);
        read_to(&others[i], 60, BATCH, 0);
        assert_non_null(others[i].memory.asked.all);
    }
    memory_settle(&s.memory, &until);
    assert_int_equal(memory_plan(&s.memory, 7, &run, &need), 0); /* of its first 20 tokens */
    begin(&others[SCRATCH_SPANS_MAX - 1], &policies[0]);
    read_to(&others[SCRATCH_SPANS_MAX - 1], 60, BATCH, 0);
    assert_null(others[SCRATCH_SPANS_MAX - 1].memory.asked.all);
    step(&s, &run);
    settle(&s, 7);
    assert_int_equal(s.n_again, 20);
    expect_equal(&s, &all);
    for (uint32_t i = 0; i < SCRATCH_SPANS_MAX; i++)
        end(&others[i]);
    end(&s);
    end(&all);
    free(others);
}

int main(void)
{
    static const char *const models[] = { "tests/data/tiny_smollm2.gguf",
                                          "tests/data/tiny_qwen2.gguf" };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_from_either),
        cmocka_unit_test(what_is_missing),
        cmocka_unit_test(rewinds),
        cmocka_unit_test(forks),
        cmocka_unit_test(hydrated),
        cmocka_unit_test(changes),
        cmocka_unit_test(spans),
        cmocka_unit_test(packs_again),
    };
    int failed = 0;

    for (unsigned i = 0; i < sizeof(models) / sizeof(*models); i++) {
        struct rig_opts opts = { .model = models[i],
                                 .cpu = "auto",
                                 .kv = i ? KV_F32 : KV_F16,
                                 .threads = 2,
                                 .max_batch = BATCH,
                                 .max_tokens = 64 * 1024 };
        unsigned seed = 5;
        struct why why;

        if (memory_rig_open(&rig, &opts, &why) < 0)
            return 1;
        n_vocab = rig.rig.model->n_vocab;
        for (uint32_t k = 0; k < IDS; k++)
            ids[k] = (uint32_t)rand_r(&seed) % (n_vocab - 2);
        failed += cmocka_run_group_tests_name(models[i], tests, NULL, NULL);
        memory_rig_close(&rig);
    }
    return failed ? 1 : 0;
}
