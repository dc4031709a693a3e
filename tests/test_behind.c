/* tests/test_behind.c - a sequence that goes on with what another one read alone. Would catch: keys
 * at other places than behind what stood before them, a segment that is closed short and shows more
 * or fewer keys than it has, pages that are written while both hold them, a rewind into either
 * part that is not the sequence it should be, ids with holes that others learn from, usage that
 * does not say what is approximate.
 */
#include "daemon/prefix.h"
#include "tests/support/memory_rig.h"
#include "tests/support/near.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL "tests/data/tiny_smollm2.gguf"
#define L     64u
#define MAX   1536u
#define A     100u /* tokens of documents, and of what comes behind them */
#define B     144u
#define C     70u
#define X     30u

static struct memory_rig rig;
static struct prefix *prefix;
static uint32_t n_vocab;
static uint32_t a_ids[A], b_ids[B], c_ids[C], x_ids[X];
static float *got, *expected, *spare; /* (MAX, n_vocab) */

struct reader {
    struct seq seq;
    struct memory memory;
};

static void fill(uint32_t *ids, uint32_t n, unsigned seed)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (uint32_t)rand_r(&seed) % n_vocab;
}

static int open_all(void **state)
{
    struct rig_opts opts = { .model = MODEL,
                             .cpu = "auto",
                             .kv = KV_F32,
                             .threads = 2,
                             .max_batch = 64,
                             .max_tokens = 8192 };

    (void)state;
    assert_int_equal(memory_rig_open(&rig, &opts, NULL), 0);
    assert_int_equal(prefix_open(&rig.rig.pool, &prefix), 0);
    n_vocab = rig.rig.model->n_vocab;
    got = calloc((size_t)MAX * n_vocab, sizeof(float));
    expected = calloc((size_t)MAX * n_vocab, sizeof(float));
    spare = calloc((size_t)MAX * n_vocab, sizeof(float));
    assert_true(got && expected && spare);
    fill(a_ids, A, 1);
    fill(b_ids, B, 2);
    fill(c_ids, C, 3);
    fill(x_ids, X, 4);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    prefix_close(prefix);
    assert_int_equal(rig.rig.pool.n_free, rig.rig.pool.n_pages);
    memory_rig_close(&rig);
    free(got);
    free(expected);
    free(spare);
    return 0;
}

static const struct policy full = { .spec = { .method = COMPRESS_FULL, .ratio = 8 },
                                    .seg_len = L,
                                    .budget = 4096 };
static const struct policy *policy = &full;

static void open_reader(struct reader *r)
{
    assert_int_equal(seq_open(&r->seq, &rig.rig.pool, &rig.rig.account, MAX, L, 0), 0);
    assert_int_equal(memory_init(&r->memory, policy, &rig.served, &r->seq), 0);
    memory_share(&r->memory, prefix, 1000, false);
}

static void close_reader(struct reader *r)
{
    memory_fini(&r->memory);
    seq_close(&r->seq);
}

static void feed(struct reader *r, const uint32_t *ids, uint32_t n, float *ret)
{
    assert_int_equal(memory_rig_feed(&rig, &r->memory, ids, n, 37, ret), 0);
}

static void open_with(struct reader *r, const uint32_t *ids, uint32_t n)
{
    open_reader(r);
    feed(r, ids, n, spare);
}

static void expect_equal(uint32_t n)
{
    assert_memory_equal(got, expected, (size_t)n * n_vocab * sizeof(float));
}

/* a, then b and c as they were read alone; c without its last token. */
static void open_abc(struct reader *r)
{
    struct reader b, c;

    open_with(r, a_ids, A);
    open_with(&b, b_ids, B);
    open_with(&c, c_ids, C - 1);
    assert_int_equal(memory_adopt_behind(&r->memory, &b.memory), 0);
    assert_int_equal(memory_adopt_behind(&r->memory, &c.memory), 0);
    close_reader(&b);
    close_reader(&c);
}

/* --- what is computed ------------------------------------------------------------------------- */

/* It is that one, then. */
static void behind_nothing(void **state)
{
    struct reader r, b;

    (void)state;
    open_with(&b, b_ids, B);
    open_reader(&r);
    assert_int_equal(memory_adopt_behind(&r.memory, &b.memory), 0);
    assert_true(memory_exact(&r.memory) && memory_teaches(&r.memory));
    feed(&r, x_ids, X, got);
    feed(&b, x_ids, X, expected); /* its last page was shared: who writes to it copies it */
    expect_equal(X);
    close_reader(&r);
    close_reader(&b);
}

/* A segment that is closed short has the keys that it had: only the sums' order may differ. */
static void closed_short(void **state)
{
    struct reader r, plain, none;

    (void)state;
    open_reader(&none);
    open_with(&r, a_ids, A);
    open_with(&plain, a_ids, A);
    assert_int_equal(memory_adopt_behind(&r.memory, &none.memory), 0);
    assert_int_equal(r.seq.n_tokens, 2 * L);
    assert_int_equal(seq_position(&r.seq, r.seq.n_tokens), A);
    feed(&r, x_ids, X, got);
    feed(&plain, x_ids, X, expected);
    assert_true(near_worst(0, got, expected, (size_t)X * n_vocab) <= 1e-3);
    close_reader(&r);
    close_reader(&plain);
    close_reader(&none);
}

/* The same, put together page by page as from the tree of beginnings. */
static void behind_another(void **state)
{
    struct reader r, b, by_hand, none;

    (void)state;
    open_reader(&none);
    open_with(&b, b_ids, B);
    open_with(&r, a_ids, A);
    open_with(&by_hand, a_ids, A);
    assert_int_equal(memory_adopt_behind(&r.memory, &b.memory), 0);
    assert_int_equal(memory_adopt_behind(&by_hand.memory, &none.memory), 0);
    for (uint32_t i = 0; i < B / POOL_PAGE_TOKENS; i++)
        seq_adopt_raw(&by_hand.seq, b_ids + (size_t)i * POOL_PAGE_TOKENS, POOL_PAGE_TOKENS,
                      &seq_pages(&b.seq, i * POOL_PAGE_TOKENS / L)[i % (L / POOL_PAGE_TOKENS)]);
    by_hand.memory.n_ids = by_hand.seq.n_tokens;
    feed(&r, x_ids, X, got);
    feed(&by_hand, x_ids, X, expected);
    expect_equal(X);
    /* And both documents are seen. */
    feed(&b, x_ids, X, expected);
    assert_memory_not_equal(got, expected, (size_t)X * n_vocab * sizeof(float));
    close_reader(&r);
    close_reader(&b);
    close_reader(&by_hand);
    close_reader(&none);
}

/* --- its life --------------------------------------------------------------------------------- */

static void usage_says_so(void **state)
{
    struct wire_usage u;
    struct reader r;

    (void)state;
    open_abc(&r);
    feed(&r, c_ids + C - 1, 1, got);
    u = (struct wire_usage){ .prompt_tokens = r.memory.n_ids };
    memory_account(&r.memory, &u);
    assert_int_equal(u.prompt_tokens, A + B + C);
    assert_int_equal(u.raw_tokens, A + B + C);
    assert_int_equal(u.gist_tokens + u.gists, 0);
    assert_int_equal(u.approximate_tokens, B + C - 1);
    assert_int_equal(seq_position(&r.seq, r.seq.n_tokens), A + B + C);
    close_reader(&r);
}

static uint32_t known(const uint32_t *ids, uint32_t n)
{
    struct reader r;
    uint32_t pages;

    open_reader(&r);
    pages = prefix_known_pages(&r.memory.shared, &r.memory.policy, ids, n);
    close_reader(&r);
    return pages;
}

static void nobody_learns(void **state)
{
    struct reader r;

    (void)state;
    open_abc(&r);
    assert_false(memory_exact(&r.memory) || memory_teaches(&r.memory));
    feed(&r, x_ids, X, got);
    for (uint32_t i = A; i < 2 * L; i++)
        assert_int_equal(r.seq.tokens[i], SEQ_FILLER);
    assert_int_equal(known(r.seq.tokens, r.seq.n_tokens), A / POOL_PAGE_TOKENS);
    close_reader(&r);
}

static void forks(void **state)
{
    struct reader r, fork;

    (void)state;
    open_abc(&r);
    assert_int_equal(seq_fork(&r.seq, &fork.seq), 0);
    assert_int_equal(memory_fork(&r.memory, &fork.memory, &fork.seq), 0);
    assert_false(memory_exact(&fork.memory));
    feed(&fork, x_ids, X, expected);
    feed(&r, x_ids, X, got);
    expect_equal(X);
    close_reader(&r);
    close_reader(&fork);
}

/* Back in the first document it is a sequence of its ids again, which it teaches. */
static void back_into_the_first(void **state)
{
    struct reader r, plain;

    (void)state;
    open_abc(&r);
    memory_rewind(&r.memory, A - 10);
    assert_true(memory_exact(&r.memory) && memory_teaches(&r.memory));
    feed(&r, x_ids, X, got);
    open_with(&plain, a_ids, A - 10);
    feed(&plain, x_ids, X, expected);
    expect_equal(X);
    assert_int_equal(seq_position(&r.seq, r.seq.n_tokens), A - 10 + X);
    close_reader(&r);
    close_reader(&plain);
}

/* Places of tokens as who asked for them counts. */
static void places(void **state)
{
    struct reader r, plain;

    (void)state;
    open_abc(&r);
    assert_int_equal(memory_filler(&r.memory), 2 * L - A + 3 * L - B);
    assert_int_equal(memory_place(&r.memory, 0), 0);
    assert_int_equal(memory_place(&r.memory, A), A);
    assert_int_equal(memory_place(&r.memory, A + 1), 2 * L + 1);
    assert_int_equal(memory_place(&r.memory, A + B), 2 * L + B);
    assert_int_equal(memory_place(&r.memory, A + B + 1), 5 * L + 1);
    assert_int_equal(memory_place(&r.memory, A + B + C - 1), r.memory.n_ids);
    assert_int_equal(memory_place(&r.memory, A + B + C), r.memory.n_ids + 1); /* a pending one */
    close_reader(&r);
    open_with(&plain, a_ids, A);
    assert_int_equal(memory_filler(&plain.memory), 0);
    assert_int_equal(memory_place(&plain.memory, A - 1), A - 1);
    close_reader(&plain);
}

/* In the second, whose pages are shared: it goes on from there, and the other is as it was. */
static void back_into_the_second(void **state)
{
    struct wire_usage u;
    struct reader r, b, same;

    (void)state;
    open_with(&b, b_ids, 70);
    open_abc(&r);
    memory_rewind(&r.memory, 2 * L + 70);
    assert_false(memory_exact(&r.memory));
    feed(&r, x_ids, X, got);
    open_with(&same, a_ids, A);
    assert_int_equal(memory_adopt_behind(&same.memory, &b.memory), 0);
    feed(&same, x_ids, X, expected);
    expect_equal(X);
    u = (struct wire_usage){ .prompt_tokens = r.memory.n_ids };
    memory_account(&r.memory, &u);
    assert_int_equal(u.prompt_tokens, A + 70 + X);
    assert_int_equal(u.approximate_tokens, 70);
    close_reader(&r);
    close_reader(&b);
    close_reader(&same);
}

/* The second document's last segment was closed short, too: it is open again. */
static void back_into_what_was_closed(void **state)
{
    struct wire_usage u;
    struct reader r, b, same;

    (void)state;
    open_abc(&r);
    assert_int_equal(B, 2 * L + 16);
    memory_rewind(&r.memory, 2 * L + B - 3);
    assert_int_equal(r.seq.n_tokens, 2 * L + B - 3);
    assert_false(memory_behind(&r.memory));
    feed(&r, x_ids, X, got);
    open_with(&b, b_ids, B - 3);
    open_with(&same, a_ids, A);
    assert_int_equal(memory_adopt_behind(&same.memory, &b.memory), 0);
    feed(&same, x_ids, X, expected);
    expect_equal(X);
    u = (struct wire_usage){ .prompt_tokens = r.memory.n_ids };
    memory_account(&r.memory, &u);
    assert_int_equal(u.prompt_tokens, A + B - 3 + X);
    assert_int_equal(u.approximate_tokens, B - 3);
    close_reader(&r);
    close_reader(&b);
    close_reader(&same);
}

/* --- with compressors ------------------------------------------------------------------------- */

#define LONG 160u /* of a text that has compressed segments, b's length */

static const struct policy compressing[] = {
    { .spec = { COMPRESS_FINE_KV, 4, 4, NULL }, .seg_len = L, .budget = 330 },
    { .spec = { COMPRESS_SELECT, 8, 4, NULL }, .seg_len = L, .keep_tail = 20, .budget = 320 },
    { .spec = { COMPRESS_SELECT_REREAD, 4, 0, NULL },
      .seg_len = L,
      .keep_tail = 70,
      .budget = 480 },
    { .spec = { COMPRESS_NONE, 1, 0, NULL }, .seg_len = L, .keep_tail = 20, .budget = 600 },
    { .spec = { COMPRESS_FINE_KV, 2, 4, NULL }, .seg_len = L, .budget = 900, .fixed = true },
};
#define N_COMPRESSING (sizeof(compressing) / sizeof(*compressing))

/* Segment by segment what b has, behind a closed one. */
static void put_by_hand(struct reader *r, const struct reader *b)
{
    const struct seq *from = &b->seq;

    for (uint32_t k = 0; k * L < LONG; k++) {
        const uint32_t *ids = from->tokens + (size_t)k * L;

        if (from->segments[k].state == SEQ_PACKED)
            seq_adopt_compressed(&r->seq, ids, from->segments[k].n_keys, seq_pages(from, k));
        else
            seq_adopt_raw(&r->seq, ids, LONG - k * L < L ? LONG - k * L : L, seq_pages(from, k));
    }
}

static void check_account(const struct reader *r, uint32_t n, uint32_t approximate)
{
    struct wire_usage u = { .prompt_tokens = r->memory.n_ids };

    memory_account(&r->memory, &u);
    assert_int_equal(u.prompt_tokens, n);
    assert_int_equal(u.approximate_tokens, approximate);
    assert_int_equal(u.raw_tokens + u.gist_tokens, n);
    assert_int_equal(u.raw_tokens + u.gists, seq_position(&r->seq, r->seq.n_tokens));
}

static void compressed(const uint32_t *b_text, const uint32_t *rest)
{
    struct reader r, b, by_hand, none, plain;
    struct wire_usage u;

    open_reader(&none);
    open_with(&b, b_text, LONG);
    open_with(&r, a_ids, A);
    open_with(&by_hand, a_ids, A);
    assert_int_equal(memory_adopt_behind(&r.memory, &b.memory), 0);
    assert_int_equal(memory_adopt_behind(&by_hand.memory, &none.memory), 0);
    check_account(&r, A + LONG, LONG);
    put_by_hand(&by_hand, &b);
    by_hand.memory = r.memory;
    by_hand.memory.seq = &by_hand.seq;
    feed(&r, x_ids, X, got);
    feed(&by_hand, x_ids, X, expected);
    expect_equal(X);
    check_account(&r, A + LONG + X, LONG);

    /* On and on: segments of all kinds climb, or stay as they are. */
    feed(&r, rest, MAX / 2, got);
    u = (struct wire_usage){ .prompt_tokens = r.memory.n_ids };
    memory_account(&r.memory, &u);
    check_account(&r, A + LONG + X + MAX / 2, LONG);
    assert_true(u.gist_tokens > MAX / 4);
    assert_in_range(seq_position(&r.seq, r.seq.n_tokens), 1, policy->budget);
    if (policy->spec.method != COMPRESS_NONE && !policy->fixed)
        assert_true(r.memory.ladder.n_at[2] > 0);

    /* Back in the first one, where all that was compressed would be so anyway. */
    memory_rewind(&by_hand.memory, A - 10);
    assert_true(memory_exact(&by_hand.memory));
    open_with(&plain, a_ids, A - 10);
    feed(&by_hand, x_ids, X, got);
    feed(&plain, x_ids, X, expected);
    expect_equal(X);
    feed(&by_hand, rest, 2 * L, got);
    feed(&plain, rest, 2 * L, expected);
    expect_equal(2 * L);
    assert_true(memory_teaches(&by_hand.memory));
    close_reader(&plain);
    close_reader(&r);
    close_reader(&b);
    close_reader(&by_hand);
    close_reader(&none);
}

static void with_compressors(void **state)
{
    static uint32_t text[LONG], rest[MAX / 2];

    (void)state;
    fill(text, LONG, 5);
    fill(rest, MAX / 2, 6);
    for (size_t i = 0; i < N_COMPRESSING; i++) {
        policy = &compressing[i];
        compressed(text, rest);
    }
    policy = &full;
}

static void can_not_join(void **state)
{
    static const struct policy tight = { .spec = { COMPRESS_FINE_KV, 2, 4, NULL },
                                         .seg_len = L,
                                         .budget = 200 };
    static const struct policy late = {
        .spec = { COMPRESS_FINE_KV, 2, 4, NULL }, .seg_len = L, .budget = 900, .late = true
    };
    static uint32_t text[LONG];
    struct reader r, b;

    (void)state;
    assert_true(memory_joins(&full) && memory_joins(&tight) && !memory_joins(&late));
    policy = &tight;
    fill(text, LONG, 5);
    open_with(&r, a_ids, A);
    open_with(&b, text, LONG);
    assert_int_equal(memory_adopt_behind(&r.memory, &b.memory), -ENOTSUP);
    assert_true(memory_exact(&r.memory));
    feed(&r, x_ids, X, got);
    close_reader(&b);
    open_with(&b, a_ids, A);
    feed(&b, x_ids, X, expected);
    expect_equal(X);
    close_reader(&r);
    close_reader(&b);
    policy = &full;
}

/* --- room ------------------------------------------------------------------------------------- */

static void no_room(void **state)
{
    uint32_t limit = rig.rig.account.limit;
    struct reader r, b, plain;

    (void)state;
    open_with(&r, a_ids, A);
    open_with(&b, b_ids, B);
    rig.rig.account.limit = rig.rig.account.used + B / POOL_PAGE_TOKENS - 1;
    assert_int_equal(memory_adopt_behind(&r.memory, &b.memory), -ENOSPC);
    rig.rig.account.limit = limit;
    r.seq.max_tokens = 2 * L + B - 1;
    assert_int_equal(memory_adopt_behind(&r.memory, &b.memory), -E2BIG);
    r.seq.max_tokens = MAX;
    assert_true(memory_exact(&r.memory));
    feed(&r, x_ids, X, got);
    open_with(&plain, a_ids, A);
    feed(&plain, x_ids, X, expected);
    expect_equal(X);
    close_reader(&r);
    close_reader(&b);
    close_reader(&plain);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(behind_nothing),
        TEST(closed_short),
        TEST(behind_another),
        TEST(usage_says_so),
        TEST(nobody_learns),
        TEST(forks),
        TEST(back_into_the_first),
        TEST(back_into_the_second),
        TEST(back_into_what_was_closed),
        TEST(no_room),
        TEST(places),
        TEST(with_compressors),
        TEST(can_not_join),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
