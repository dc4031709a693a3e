/* tests/test_follow.c - would catch: two that read the same beginning at the same time; one that
 * waits for another owner, another policy, less than a page, or one who is behind what is known;
 * one that waits for ever, since its leader left, can't go on or has nothing to teach; two that
 * wait for each other; a leader in the background that an interactive one waits for, and that is
 * not hurried.
 *
 * Sequences are filled by hand, without a model. That the real daemon does so is
 * test_daemon_follow's.
 */
#include "daemon/follow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct model tiny = { .n_layer = 1, .n_head = 2, .n_head_kv = 1, .head_dim = 8 };

#define PAGES 2048u
#define L     64u
#define N     600u
#define ALICE 1000u
#define BOB   1001u

static struct pool pool;
static struct prefix *prefix;
static struct pool_account account = { .limit = UINT32_MAX };
static struct follow follow;

/* Who reads, with all that belongs to it. */
struct actor {
    struct seq seq;
    struct memory memory;
    struct follow_reader reader;
    uint32_t ids[N];
};

static int open_all(void **state)
{
    (void)state;
    follow_init(&follow);
    assert_int_equal(pool_open(&pool, NULL, &tiny, KV_F16,
                               (uint64_t)PAGES * pool_page_bytes(&tiny, KV_F16), NULL),
                     0);
    return prefix_open(&pool, &prefix);
}

static int close_all(void **state)
{
    (void)state;
    assert_true(TAILQ_EMPTY(&follow.readers));
    prefix_close(prefix);
    assert_int_equal(pool.n_free, pool.n_pages);
    pool_close(&pool);
    return 0;
}

static const struct policy full = { .spec = { .method = COMPRESS_FULL, .ratio = 8 },
                                    .seg_len = L,
                                    .budget = 100000 };
static const struct policy thinning = {
    .spec = { .method = COMPRESS_SELECT, .ratio = 2, .sinks = 4 }, .seg_len = L, .budget = 200
};

/* Ids of which the first `same` are everybody's. */
static struct actor *arrive_as(uint32_t owner, const struct policy *policy, uint32_t same,
                               uint32_t own)
{
    struct actor *a = calloc(1, sizeof(*a));

    assert_non_null(a);
    assert_int_equal(seq_open(&a->seq, &pool, &account, 4096, policy->seg_len, 0), 0);
    a->memory = (struct memory){ .policy = *policy,
                                 .n_plain = UINT32_MAX,
                                 .seq = &a->seq,
                                 .shared = { .prefix = prefix, .owner = owner } };
    for (uint32_t i = 0; i < N; i++)
        a->ids[i] = i < same ? i : own * 10000 + i;
    a->reader = (struct follow_reader){ .memory = &a->memory, .ids = a->ids, .n = N };
    return a;
}

static struct actor *arrive(uint32_t same, uint32_t own)
{
    struct actor *a = arrive_as(ALICE, &full, same, own);

    follow_join(&follow, &a->reader);
    return a;
}

static bool waits(struct actor *a)
{
    return follow_waits(&follow, &a->reader);
}

static uint32_t adopt(struct actor *a)
{
    return memory_adopt(&a->memory, a->ids, N);
}

/* It has read up to n ids, and the tree knows. */
static void reads_to(struct actor *a, uint32_t n)
{
    struct seq *s = &a->seq;

    assert_int_equal(seq_reserve(s, n - s->n_tokens), 0);
    memcpy(s->tokens + s->n_tokens, a->ids + s->n_tokens, (n - s->n_tokens) * sizeof(uint32_t));
    s->n_tokens = a->memory.n_ids = n;
    prefix_learn(&a->memory.shared, s, &a->memory.ladder, &a->memory.policy);
    follow_asked(&a->reader, true);
}

static void leave(struct actor *a)
{
    follow_leave(&follow, &a->reader);
    seq_close(&a->seq);
    free(a);
}

/* --- who waits, and until when ---------------------------------------------------------------- */

static void the_second_waits(void **state)
{
    struct actor *p = arrive(N, 0), *q;

    (void)state;
    assert_false(waits(p));
    q = arrive(400, 1);
    assert_true(waits(q));
    reads_to(p, 399);
    assert_true(waits(q));
    assert_int_equal(q->seq.n_pages, 0);
    reads_to(p, 401);
    assert_false(waits(q));
    assert_int_equal(adopt(q), 400);
    assert_false(follow_woke(&follow));
    leave(p);
    assert_false(follow_woke(&follow)); /* nobody waited for it */
    leave(q);
}

/* Of equal texts one token is always read. */
static void equal_texts(void **state)
{
    struct actor *p = arrive(N, 0), *q[3];

    (void)state;
    assert_false(waits(p));
    for (int i = 0; i < 3; i++)
        assert_true(waits(q[i] = arrive(N, 0)));
    reads_to(p, N);
    for (int i = 0; i < 3; i++) {
        assert_false(waits(q[i]));
        assert_int_equal(adopt(q[i]), (N - 1) / 16 * 16);
    }
    leave(p);
    for (int i = 0; i < 3; i++)
        leave(q[i]);
}

/* p: aaaa..., q: aaabbb, r: aaabbc. */
static void chains(void **state)
{
    struct actor *p = arrive(N, 0), *q, *r;

    (void)state;
    assert_false(waits(p));
    q = arrive(200, 1);
    r = arrive(200, 1);
    r->ids[500] = 77;
    assert_true(waits(q));
    assert_true(waits(r));
    reads_to(p, N); /* past what it shares with both: only one of them goes on */
    assert_true(waits(r));
    assert_false(waits(q));
    assert_int_equal(adopt(q), 192);
    reads_to(q, 480);
    assert_true(waits(r));
    reads_to(q, 505);
    assert_false(waits(r));
    assert_int_equal(adopt(r), 496);
    leave(p);
    leave(q);
    leave(r);
}

static void less_than_a_page(void **state)
{
    struct actor *p = arrive(N, 0), *q = arrive(15, 1), *r, *t;

    (void)state;
    assert_false(waits(p));
    assert_false(waits(q));
    reads_to(p, 160);
    r = arrive(175, 2); /* 160 of it are known */
    assert_false(waits(r));
    t = arrive(176, 3);
    assert_true(waits(t));
    leave(p);
    leave(q);
    leave(r);
    leave(t);
}

/* What stands before its ids in a leader's sequence counts, too. */
static void a_leader_that_goes_on(void **state)
{
    struct actor *p = arrive_as(ALICE, &full, N, 0), *q, *r;

    (void)state;
    reads_to(p, 100);
    p->reader.ids += 100;
    p->reader.n_had = 100;
    p->reader.n -= 100;
    follow_join(&follow, &p->reader);
    assert_false(waits(p));
    q = arrive(300, 1);
    r = arrive(90, 2);
    assert_true(waits(q));
    assert_false(waits(r));
    reads_to(p, 304);
    assert_false(waits(q));
    assert_int_equal(adopt(q), 288);
    leave(p);
    leave(q);
    leave(r);
}

/* Compressed segments are waited for, too; and what is thinned is nobody else's. */
static void a_ladder(void **state)
{
    struct actor *p = arrive_as(ALICE, &thinning, N, 0), *q = arrive_as(ALICE, &thinning, N, 0);
    uint32_t most = (uint32_t)ladder_unthinned(&thinning, N - 1) / 16 * 16;

    (void)state;
    follow_join(&follow, &p->reader);
    follow_join(&follow, &q->reader);
    assert_false(waits(p));
    assert_true(waits(q));
    assert_in_range(most, 2 * L, N - L);
    reads_to(p, L);
    seq_shorten(&p->seq, 0, ladder_segment_keys(&thinning, 0, 1));
    ladder_climb(&thinning, &p->memory.ladder, L, L, NULL, NULL);
    assert_int_equal(p->memory.ladder.n_at[1], 1);
    assert_true(waits(q));
    p->memory.ladder.n_at[2] = 1; /* from here on it teaches nothing more */
    assert_false(waits(q));
    leave(p);
    leave(q);
}

/* --- who does not wait ------------------------------------------------------------------------ */

static void strangers(void **state)
{
    struct policy longer = full;
    struct actor *p, *others[3];

    (void)state;
    longer.seg_len = 2 * L;
    p = arrive(N, 0);
    assert_false(waits(p));
    others[0] = arrive_as(BOB, &full, N, 0);
    others[1] = arrive_as(PREFIX_PUBLIC, &full, N, 0);
    others[2] = arrive_as(ALICE, &longer, N, 0);
    for (int i = 0; i < 3; i++) {
        follow_join(&follow, &others[i]->reader);
        assert_false(waits(others[i]));
    }
    leave(p);
    for (int i = 0; i < 3; i++)
        leave(others[i]);
}

static void who_shares_nothing(void **state)
{
    struct actor *p = arrive_as(ALICE, &full, N, 0), *q = arrive_as(ALICE, &full, N, 0);

    (void)state;
    p->memory.shared.prefix = q->memory.shared.prefix = NULL;
    follow_join(&follow, &p->reader);
    follow_join(&follow, &q->reader);
    assert_false(waits(p));
    assert_false(waits(q));
    leave(p);
    leave(q);
}

/* It was taken back past a compression, or has something hydrated: nobody learns from it. */
static void who_does_not_teach(void **state)
{
    struct actor *p = arrive(N, 0), *q;

    (void)state;
    assert_false(waits(p));
    p->memory.early = true;
    q = arrive(N, 0);
    assert_false(waits(q));
    leave(p);
    leave(q);
}

/* Nothing of what it reads is left behind; but it may take over what others read. */
static void a_private_one(void **state)
{
    struct actor *p = arrive(N, 0), *q, *r;

    (void)state;
    p->memory.shared.keeps_nothing = true;
    assert_false(waits(p));
    q = arrive(N, 0);
    assert_false(waits(q));
    r = arrive(N, 0);
    r->memory.shared.keeps_nothing = true;
    assert_true(waits(r));
    leave(p);
    leave(q);
    leave(r);
}

/* p reads anew what others know up to 320: to wait for it would take longer than to read the rest.
 */
static void who_is_behind(void **state)
{
    struct actor *p = arrive(N, 0), *q, *r;

    (void)state;
    assert_false(waits(p));
    q = arrive_as(ALICE, &full, 320, 0);
    reads_to(q, 320);
    leave(q);
    r = arrive(N, 0);
    assert_false(waits(r));
    follow_leave(&follow, &r->reader);
    r->reader.reads = false;
    p->reader.restoring = true; /* but what comes from the store comes at once */
    follow_join(&follow, &r->reader);
    assert_true(waits(r));
    leave(p);
    leave(r);
}

/* --- leaders that end ------------------------------------------------------------------------- */

/* The first of those that are left goes on from what was read, whoever of them is asked first. */
static void a_leader_leaves(void **state)
{
    struct actor *p = arrive(N, 0), *q, *r;

    (void)state;
    assert_false(waits(p));
    q = arrive(N, 0);
    r = arrive(N, 0);
    assert_true(waits(q));
    assert_true(waits(r));
    reads_to(p, 250);
    leave(p);
    assert_true(follow_woke(&follow));
    assert_false(follow_woke(&follow));
    assert_true(waits(r));
    assert_false(waits(q));
    assert_int_equal(adopt(q), 240);
    assert_true(waits(r));
    leave(r); /* a follower's end is nobody's business */
    assert_false(follow_woke(&follow));
    reads_to(q, N);
    leave(q);
}

/* It was asked and could not, many times in a row: one of the others reads instead. */
static void a_leader_that_stalls(void **state)
{
    struct actor *p = arrive(N, 0), *q, *r;

    (void)state;
    assert_false(waits(p));
    q = arrive(N, 0);
    r = arrive(N, 0);
    reads_to(p, 100);
    for (uint32_t i = 0; i < FOLLOW_STALLED_MAX; i++) {
        assert_true(waits(q));
        follow_asked(&p->reader, false);
    }
    assert_true(waits(q));
    follow_asked(&p->reader, true); /* once in between, and it counts from the start */
    for (uint32_t i = 0; i < FOLLOW_STALLED_MAX; i++)
        follow_asked(&p->reader, false);
    assert_true(waits(q));
    assert_true(waits(r));
    follow_asked(&p->reader, false);
    assert_false(waits(q));
    assert_int_equal(adopt(q), 96);
    assert_true(waits(r));
    reads_to(q, N);
    assert_false(waits(r));
    leave(p);
    leave(q);
    leave(r);
}

/* The tree had no room for what the leader read: the first reads all of it anew, the next waits for
 * that one. */
static void what_is_not_kept(void **state)
{
    struct actor *p = arrive(N, 0), *q, *r;

    (void)state;
    assert_false(waits(p));
    q = arrive(N, 0);
    r = arrive(N, 0);
    assert_true(waits(q));
    assert_true(waits(r));
    p->memory.shared.n_pages = N / 16; /* as if it had taught it */
    assert_false(waits(q));
    assert_int_equal(adopt(q), 0);
    assert_true(waits(r));
    leave(p);
    leave(q);
    leave(r);
}

/* --- haste ------------------------------------------------------------------------------------ */

static void haste(void **state)
{
    struct actor *p = arrive(N, 0), *q, *r, *other;

    (void)state;
    p->reader.priority = WIRE_BACKGROUND;
    assert_false(waits(p));
    other = arrive(0, 9);
    assert_false(waits(other));
    q = arrive(300, 1);
    q->reader.priority = WIRE_BACKGROUND;
    assert_true(waits(q));
    follow_hurry(&follow);
    assert_false(p->reader.hurried);
    r = arrive(300, 1);
    assert_true(waits(r));
    assert_ptr_equal(r->reader.leader, &q->reader);
    follow_hurry(&follow);
    assert_true(p->reader.hurried && q->reader.hurried);
    assert_false(other->reader.hurried || r->reader.hurried);
    leave(r);
    follow_hurry(&follow);
    assert_false(p->reader.hurried || q->reader.hurried);
    leave(p);
    leave(q);
    leave(other);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_second_waits),
        TEST(equal_texts),
        TEST(chains),
        TEST(less_than_a_page),
        TEST(a_ladder),
        TEST(a_leader_that_goes_on),
        TEST(strangers),
        TEST(who_shares_nothing),
        TEST(who_is_behind),
        TEST(who_does_not_teach),
        TEST(a_private_one),
        TEST(a_leader_leaves),
        TEST(a_leader_that_stalls),
        TEST(what_is_not_kept),
        TEST(haste),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
