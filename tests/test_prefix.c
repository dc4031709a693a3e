/* tests/test_prefix.c - would catch: a client that keeps others, or itself, from sharing by the
 * policies that it chooses; a root that is given up with what it held still counted as in use;
 * pages of another place than the segment's; something that a private session leaves behind, or
 * that stays of an owner who was forgotten; cached pages that are taken over by who may not have
 * the last ones. Which pages are taken over, and that logits stay the same, is test_memory's.
 */
#include "daemon/prefix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct model tiny = { .n_layer = 2, .n_head = 4, .n_head_kv = 2, .head_dim = 8 };

#define PAGES  8192u
#define ALICE  1000u
#define BOB    1001u
#define CAROL  1002u
#define TOKENS 96u

static struct pool pool;
static struct prefix *prefix;
static struct pool_account account = { .limit = UINT32_MAX };

static int open_all(void **state)
{
    (void)state;
    assert_int_equal(pool_open(&pool, NULL, &tiny, KV_F16,
                               (uint64_t)PAGES * pool_page_bytes(&tiny, KV_F16), NULL),
                     0);
    return prefix_open(&pool, &prefix);
}

static int close_all(void **state)
{
    (void)state;
    prefix_close(prefix);
    assert_int_equal(pool.n_free, pool.n_pages);
    pool_close(&pool);
    return 0;
}

/* A policy for each seg_len: nothing else of one that keeps all makes another root. */
static struct policy policy_of(uint32_t seg_len)
{
    return (struct policy){ .spec = { .method = COMPRESS_FULL, .ratio = 8 },
                            .seg_len = seg_len,
                            .budget = 100000 };
}

static void fill_ids(uint32_t *ids, uint32_t n, uint32_t seed)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = seed * 1000 + i;
}

/* What a session that reads n ids with this policy finds; then it is gone, and has taught unless it
 * keeps nothing. */
static uint32_t read_as(struct prefix_user u, const struct policy *policy, const uint32_t *ids,
                        uint32_t n)
{
    struct ladder l = { 0 };
    struct seq s;
    uint32_t found;

    assert_int_equal(seq_open(&s, &pool, &account, 4096, policy->seg_len, 0), 0);
    found = prefix_adopt(&u, &s, &l, policy, ids, n);
    assert_int_equal(seq_reserve(&s, n - found), 0);
    memcpy(s.tokens + found, ids + found, (n - found) * sizeof(*ids));
    s.n_tokens = n;
    prefix_learn(&u, &s, &l, policy);
    seq_close(&s);
    return found;
}

static uint32_t read_by(uint32_t owner, const struct policy *policy, const uint32_t *ids,
                        uint32_t n)
{
    return read_as((struct prefix_user){ .prefix = prefix, .owner = owner }, policy, ids, n);
}

/* --- roots ------------------------------------------------------------------------------------ */

/* One user opens sessions of more policies than there are roots. Who shared before goes on sharing,
 * who comes now shares, and so does the first user itself. */
static void no_owner_has_all_roots(void **state)
{
    struct policy usual = policy_of(512);
    uint32_t ids[TOKENS], other[TOKENS];

    (void)state;
    fill_ids(ids, TOKENS, 1);
    fill_ids(other, TOKENS, 2);
    assert_int_equal(read_by(BOB, &usual, ids, TOKENS), 0);
    for (uint32_t i = 0; i < PREFIX_ROOTS + 40; i++) {
        struct policy p = policy_of(1024 + 16 * i);

        assert_int_equal(read_by(ALICE, &p, ids, TOKENS), 0);
    }
    assert_int_equal(read_by(BOB, &usual, ids, TOKENS), TOKENS - 16);
    assert_int_equal(read_by(CAROL, &usual, other, TOKENS), 0);
    assert_int_equal(read_by(CAROL, &usual, other, TOKENS), TOKENS - 16);
    assert_int_equal(read_by(ALICE, &usual, other, TOKENS), 0);
    assert_int_equal(read_by(ALICE, &usual, other, TOKENS), TOKENS - 16);
}

/* Of one owner the longest unused goes first. */
static void the_longest_unused_goes(void **state)
{
    uint32_t ids[TOKENS];
    struct policy p = policy_of(64), first, later;

    (void)state;
    fill_ids(ids, TOKENS, 3);
    for (uint32_t i = 0; i < PREFIX_ROOTS; i++) {
        p.seg_len = 64 + 16 * i;
        (void)read_by(ALICE, &p, ids, TOKENS);
    }
    first = policy_of(64);
    later = policy_of(64 + 16);
    assert_true(read_by(ALICE, &first, ids, TOKENS) > 0); /* used now */
    p = policy_of(64 + 16 * PREFIX_ROOTS);
    assert_int_equal(read_by(ALICE, &p, ids, TOKENS), 0);
    assert_true(read_by(ALICE, &first, ids, TOKENS) > 0);
    assert_int_equal(read_by(ALICE, &later, ids, TOKENS), 0);
}

/* What stood below roots that were given up is had by who wants pages: all of them. */
static void pages_of_old_roots_come_back(void **state)
{
    uint32_t ids[TOKENS], *pages = malloc(PAGES * sizeof(*pages));

    (void)state;
    for (uint32_t i = 0; i < 3 * PREFIX_ROOTS; i++) {
        struct policy p = policy_of(64 + 16 * (i % 400));

        fill_ids(ids, TOKENS, 10 + i);
        (void)read_by(i % 5 ? ALICE : BOB, &p, ids, TOKENS);
    }
    assert_true(pool.n_cached > PREFIX_ROOTS);
    assert_int_equal(pool.n_cached + pool.n_free, pool.n_pages);
    assert_int_equal(pool_take(&pool, &account, PAGES, pages), 0);
    pool_give(&pool, &account, PAGES, pages);
    assert_int_equal(pool.n_free, PAGES);
    free(pages);
}

/* --- pages ------------------------------------------------------------------------------------ */

#define L 64u

/* A sequence that has read ids, and stays. */
static void read_and_stay(struct seq *s, struct prefix_user *u, const uint32_t *ids, uint32_t n)
{
    struct policy p = policy_of(L);
    struct ladder l = { 0 };

    *u = (struct prefix_user){ .prefix = prefix, .owner = BOB };
    assert_int_equal(seq_open(s, &pool, &account, 1024, L, 0), 0);
    assert_int_equal(seq_reserve(s, n), 0);
    memcpy(s->tokens, ids, n * sizeof(*ids));
    s->n_tokens = n;
    prefix_learn(u, s, &l, &p);
}

/* Segments whose length is no power of two, so that a page's place in its segment is not its place
 * in the sequence: who takes over has the very pages that were read. */
static void pages_are_the_segments_own(void **state)
{
    uint32_t ids[300];
    struct policy p = policy_of(80);
    struct prefix_user u = { .prefix = prefix, .owner = ALICE }, v = u;
    struct ladder l = { 0 }, m = { 0 };
    struct seq s, t;

    (void)state;
    fill_ids(ids, 300, 6);
    assert_int_equal(seq_open(&s, &pool, &account, 1024, 80, 0), 0);
    assert_int_equal(seq_open(&t, &pool, &account, 1024, 80, 0), 0);
    assert_int_equal(seq_reserve(&s, 300), 0);
    memcpy(s.tokens, ids, sizeof(ids));
    s.n_tokens = 300;
    prefix_learn(&u, &s, &l, &p);
    assert_int_equal(prefix_adopt(&v, &t, &m, &p, ids, 300), 288);
    for (uint32_t i = 0; i < 288 / 16; i++)
        assert_int_equal(seq_pages(&t, i / 5)[i % 5], seq_pages(&s, i / 5)[i % 5]);
    seq_close(&s);
    seq_close(&t);
}

/* Two sessions read the same at the same time, each into pages of its own, and the one that the
 * tree has the pages of ends: the other works on behind them, so they are no ends of branches. What
 * the pool counts as cached can be had all the same, and costs the other nothing. */
static void what_is_cached_can_be_had(void **state)
{
    uint32_t ids[4 * L], *pages = malloc(PAGES * sizeof(*pages)), n;
    struct policy p = policy_of(L);
    struct prefix_user u, v;
    struct ladder l = { 0 };
    struct seq s, t;

    (void)state;
    fill_ids(ids, 4 * L, 7);
    read_and_stay(&s, &u, ids, 3 * L);
    read_and_stay(&t, &v, ids, 3 * L);
    assert_int_not_equal(seq_pages(&t, 0)[0], seq_pages(&s, 0)[0]);
    seq_close(&s);
    assert_int_equal(seq_reserve(&t, L), 0);
    memcpy(t.tokens + 3 * L, ids + 3 * L, L * sizeof(*ids));
    t.n_tokens = 4 * L;
    prefix_learn(&v, &t, &l, &p);
    assert_int_equal(pool.n_cached, 3 * L / 16);
    n = pool.n_free + pool.n_cached;
    assert_int_equal(pool_take(&pool, &account, n, pages), 0);
    assert_int_equal(pool.n_cached, 0);
    pool_give(&pool, &account, n, pages);
    /* The branch has a hole in front: nobody adopts from it, and who reads it anew fills it. */
    assert_int_equal(read_by(BOB, &p, ids, 4 * L), 0);
    assert_int_equal(read_by(BOB, &p, ids, 4 * L), 4 * L - 16);
    seq_close(&t);
    free(pages);
}

/* Bytes of this process that are there. */
static size_t resident(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long pages;

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*u %lu", &pages), 1);
    assert_int_equal(fclose(f), 0);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Room for nodes costs nothing before there are any: a large pool has room for many. */
static void an_empty_tree_is_small(void **state)
{
    size_t had;

    (void)state;
    assert_int_equal(pool_open(&pool, NULL, &tiny, KV_F16,
                               (uint64_t)16 * PAGES * pool_page_bytes(&tiny, KV_F16), NULL),
                     0);
    had = resident();
    assert_int_equal(prefix_open(&pool, &prefix), 0);
    assert_true(resident() - had < (size_t)16 * PAGES * 4 * 64 / 2); /* ids alone are 64 bytes */
    (void)close_all(NULL);
}

/* --- what is not kept, or not any longer -------------------------------------------------------
 */

/* Of a private session nothing stays, not even a page: who reads the same later reads all of it. It
 * takes over what others have read. */
static void a_private_session_teaches_nothing(void **state)
{
    struct policy p = policy_of(64);
    struct prefix_user hidden = { .prefix = prefix, .owner = ALICE, .keeps_nothing = true };
    uint32_t ids[TOKENS], n_cached = pool.n_cached, n_free = pool.n_free;

    (void)state;
    fill_ids(ids, TOKENS, 40);
    assert_int_equal(read_as(hidden, &p, ids, TOKENS), 0);
    assert_int_equal(pool.n_cached, n_cached);
    assert_int_equal(pool.n_free, n_free);
    assert_int_equal(read_as(hidden, &p, ids, TOKENS), 0);
    assert_int_equal(read_by(ALICE, &p, ids, TOKENS), 0);
    assert_int_equal(read_as(hidden, &p, ids, TOKENS), TOKENS - 16);
}

/* All of one owner goes, of every policy, and its pages are free again; others keep theirs. Whose
 * session is still open has its pages and may teach them anew. */
static void an_owner_is_forgotten(void **state)
{
    struct policy p = policy_of(64), q = policy_of(128);
    uint32_t ids[TOKENS], n_cached;

    (void)state;
    fill_ids(ids, TOKENS, 50);
    (void)read_by(BOB, &p, ids, TOKENS);
    prefix_forget(prefix, ALICE);
    prefix_forget(prefix, CAROL);
    n_cached = pool.n_cached;
    (void)read_by(ALICE, &p, ids, TOKENS);
    (void)read_by(ALICE, &q, ids, TOKENS);
    (void)read_by(CAROL, &p, ids, TOKENS);
    assert_int_equal(pool.n_cached, n_cached + 3 * TOKENS / 16);
    prefix_forget(prefix, ALICE);
    assert_int_equal(pool.n_cached, n_cached + TOKENS / 16);
    assert_int_equal(read_by(CAROL, &p, ids, TOKENS), TOKENS - 16);
    assert_int_equal(read_by(BOB, &p, ids, TOKENS), TOKENS - 16);
    assert_int_equal(read_by(ALICE, &p, ids, TOKENS), 0);
    assert_int_equal(read_by(ALICE, &q, ids, TOKENS), 0);
    assert_int_equal(read_by(ALICE, &q, ids, TOKENS), TOKENS - 16);
}

/* Also what stands below roots that were given up: nobody finds it, and it has pages all the same.
 */
static void old_roots_are_forgotten(void **state)
{
    uint32_t ids[TOKENS], n_bob;
    struct policy usual = policy_of(512);

    (void)state;
    fill_ids(ids, TOKENS, 70);
    (void)read_by(BOB, &usual, ids, TOKENS);
    n_bob = pool.n_cached;
    for (uint32_t i = 0; i < PREFIX_ROOTS + 40; i++) {
        struct policy p = policy_of(1024 + 16 * i);

        (void)read_by(ALICE, &p, ids, TOKENS);
    }
    assert_true(pool.n_cached > n_bob);
    prefix_forget(prefix, ALICE);
    assert_int_equal(pool.n_cached, n_bob);
    assert_int_equal(read_by(BOB, &usual, ids, TOKENS), TOKENS - 16);
}

/* Cached pages are among those that are kept for who has few: who has more takes over no beginning
 * that would need them, and who has none does. */
static void the_reserve_is_not_taken_over(void **state)
{
    struct pool_owner rich = { .limit = PAGES }, poor = { .limit = PAGES };
    struct pool_account of_rich = { .limit = PAGES, .owner = &rich };
    struct pool_account of_poor = { .limit = PAGES, .owner = &poor };
    struct prefix_user u = { .prefix = prefix, .owner = ALICE };
    struct policy p = policy_of(64);
    uint32_t ids[TOKENS], *pages = malloc(PAGES * sizeof(*pages)), n;
    struct ladder l = { 0 };
    struct seq s;

    (void)state;
    fill_ids(ids, TOKENS, 60);
    (void)read_by(ALICE, &p, ids, TOKENS);
    pool.reserve = TOKENS / 16 + 2;
    n = PAGES - pool.n_cached - 2;
    assert_int_equal(pool_take(&pool, &of_rich, n, pages), 0); /* all but the reserve */
    assert_int_equal(seq_open(&s, &pool, &of_rich, 4096, 64, 0), 0);
    assert_int_equal(prefix_adopt(&u, &s, &l, &p, ids, TOKENS), 0);
    assert_int_equal(rich.used, n);
    assert_int_equal(s.n_pages, 0);
    /* Five pages are taken over, and fit when as many can be had beside the reserve. */
    pool_give(&pool, &of_rich, TOKENS / 16 - 2, pages + n - (TOKENS / 16 - 2));
    n -= TOKENS / 16 - 2;
    assert_int_equal(prefix_adopt(&u, &s, &l, &p, ids, TOKENS), 0);
    pool_give(&pool, &of_rich, 1, pages + --n);
    assert_int_equal(prefix_adopt(&u, &s, &l, &p, ids, TOKENS), TOKENS - 16);
    assert_int_equal(rich.used, n + TOKENS / 16 - 1);
    seq_close(&s);
    assert_int_equal(pool_take(&pool, &of_rich, 1 + (TOKENS / 16 - 2), pages + n), 0);
    assert_int_equal(seq_open(&s, &pool, &of_poor, 4096, 64, 0), 0);
    assert_int_equal(prefix_adopt(&u, &s, &l, &p, ids, TOKENS), TOKENS - 16);
    assert_int_equal(poor.used, TOKENS / 16 - 1);
    seq_close(&s);
    pool_give(&pool, &of_rich, rich.used, pages);
    pool.reserve = 0;
    prefix_forget(prefix, ALICE);
    free(pages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_owner_has_all_roots, open_all, close_all),
        cmocka_unit_test_setup_teardown(the_longest_unused_goes, open_all, close_all),
        cmocka_unit_test_setup_teardown(pages_of_old_roots_come_back, open_all, close_all),
        cmocka_unit_test_setup_teardown(pages_are_the_segments_own, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_is_cached_can_be_had, open_all, close_all),
        cmocka_unit_test(an_empty_tree_is_small),
        cmocka_unit_test_setup_teardown(a_private_session_teaches_nothing, open_all, close_all),
        cmocka_unit_test_setup_teardown(an_owner_is_forgotten, open_all, close_all),
        cmocka_unit_test_setup_teardown(old_roots_are_forgotten, open_all, close_all),
        cmocka_unit_test_setup_teardown(the_reserve_is_not_taken_over, open_all, close_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
