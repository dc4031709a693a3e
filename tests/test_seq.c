/* tests/test_seq.c - would catch: pages leaked or charged twice, a budget passed, a refused
 * reservation that leaves something behind, 32-bit overflow of page offsets at 8B sizes, a
 * segment's state that leaves pages, keys or bases of another one. */
#include "engine/kv/seq.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct model smol = { .n_layer = 30, .n_head = 9, .n_head_kv = 3, .head_dim = 64 };
static const struct model llama8b = {
    .n_layer = 32, .n_head = 32, .n_head_kv = 8, .head_dim = 128
};
static const struct model tiny = { .n_layer = 2, .n_head = 4, .n_head_kv = 2, .head_dim = 8 };

static void open_pool(struct pool *p, uint32_t n_pages)
{
    assert_int_equal(
        pool_open(p, NULL, &tiny, KV_F16, (uint64_t)n_pages * pool_page_bytes(&tiny, KV_F16), NULL),
        0);
    assert_int_equal(p->n_pages, n_pages);
}

static void page_sizes(void **state)
{
    (void)state;
    assert_int_equal(pool_page_bytes(&smol, KV_F16), 16u * 30 * 2 * 3 * 64 * 2);
    assert_int_equal(pool_page_bytes(&smol, KV_F32), 16u * 30 * 2 * 3 * 64 * 4);
    assert_int_equal(pool_page_bytes(&llama8b, KV_F16), 2u << 20);
}

/* Pages can be read and written past the page cache: every one begins at a multiple of 4096. */
static void pages_are_aligned(void **state)
{
    static const struct model odd = { .n_layer = 3, .n_head = 9, .n_head_kv = 3, .head_dim = 40 };

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++) {
        size_t bytes = pool_page_bytes(&odd, kv), used = 2 * kv_tile_bytes(kv, 40) * 9;
        struct pool p;

        assert_int_equal(bytes % 4096, 0);
        assert_true(bytes >= used && bytes < used + 4096);
        assert_int_equal(pool_open(&p, NULL, &odd, kv, 5 * bytes + 4095, NULL), 0);
        assert_int_equal(p.n_pages, 5);
        assert_int_equal((uintptr_t)p.mem % 4096, 0);
        assert_true(pool_v_off(&p, 2, 2) + p.head_bytes / 2 <= p.page_bytes);
        pool_close(&p);
    }
}

static void name_layout(const struct model *m, enum kv_type kv, struct pool *ret,
                        char text[POOL_LAYOUT_MAX])
{
    assert_int_equal(pool_open(ret, NULL, m, kv, pool_page_bytes(m, kv), NULL), 0);
    pool_layout(ret, text);
    pool_close(ret);
}

/* The digest is part of stored files: this one must never change with version 1. */
static void layouts_have_names(void **state)
{
    struct model others[4] = { tiny, tiny, tiny, tiny };
    char text[POOL_LAYOUT_MAX], other[POOL_LAYOUT_MAX];
    char digest[DIGEST_LEN];
    struct pool p;

    (void)state;
    assert_int_equal(pool_open(&p, NULL, &smol, KV_Q8_0, 1 << 20, NULL), 0);
    pool_layout(&p, text);
    assert_string_equal(text, "kv-page 1: q8_0, 30 layers, 3 heads of 64, 16 tokens, 196608 bytes");
    assert_string_equal(p.layout, "13187e0192d1841671d99db000e10b22");
    memcpy(digest, p.layout, sizeof(digest));
    pool_close(&p);
    others[0].n_layer++;
    others[1].n_head_kv++;
    others[2].head_dim += 8;
    others[3].n_head++; /* of queries only: the same pages */
    name_layout(&tiny, KV_F16, &p, text);
    for (int i = 0; i < 4; i++) {
        name_layout(&others[i], KV_F16, &p, other);
        assert_int_equal(strcmp(text, other) == 0, i == 3);
    }
    name_layout(&tiny, KV_F32, &p, other);
    assert_string_not_equal(text, other);
}

static void tiles_do_not_overlap(void **state)
{
    struct pool p = { .kv = KV_F32,
                      .n_head_kv = 8,
                      .head_dim = 128,
                      .head_bytes = 2 * 128 * 16 * 4,
                      .page_bytes = (size_t)4 << 20 };

    (void)state;
    for (uint32_t layer = 0; layer < 32; layer++)
        for (uint32_t head = 0; head < 8; head++) {
            assert_int_equal(pool_v_off(&p, layer, head) - pool_k_off(&p, layer, head),
                             128 * 16 * 4);
            if (head)
                assert_int_equal(pool_k_off(&p, layer, head) - pool_v_off(&p, layer, head - 1),
                                 128 * 16 * 4);
        }
    assert_int_equal(pool_v_off(&p, 31, 7) + 128 * 16 * 4, p.page_bytes);
}

static void pool_too_small(void **state)
{
    struct pool p;
    struct why why = { "" };

    (void)state;
    assert_int_equal(pool_open(&p, NULL, &llama8b, KV_F16, 1 << 20, &why), -EINVAL);
    assert_non_null(strstr(why.text, "holds no page"));
    assert_non_null(strstr(why.text, "2097152"));
    pool_close(&p);
}

static void take_is_all_or_nothing(void **state)
{
    struct pool p;
    struct pool_account a = { .limit = 6 };
    uint32_t pages[8];

    (void)state;
    open_pool(&p, 8);
    assert_int_equal(pool_take(&p, &a, 7, pages), -ENOSPC); /* the account */
    assert_int_equal(p.n_free, 8);
    assert_int_equal(pool_take(&p, &a, 6, pages), 0);
    assert_int_equal(pool_take(&p, &a, 1, pages + 6), -ENOSPC);
    a.limit = 100;
    assert_int_equal(pool_take(&p, &a, 3, pages + 6), -ENOSPC); /* the pool */
    assert_int_equal(pool_take(&p, &a, 2, pages + 6), 0);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < i; j++)
            assert_int_not_equal(pages[i], pages[j]);
    pool_give(&p, &a, 8, pages);
    assert_int_equal(a.used, 0);
    assert_int_equal(p.n_free, 8);
    pool_close(&p);
}

static void bad_shapes(void **state)
{
    struct pool p;
    struct pool_account a = { .limit = UINT32_MAX };
    struct seq s;

    (void)state;
    open_pool(&p, 8);
    assert_int_equal(seq_open(&s, &p, &a, 100, 72, 0), -EINVAL);
    assert_int_equal(seq_open(&s, &p, &a, 100, 48, 0), -EINVAL);
    assert_int_equal(seq_open(&s, &p, &a, 100, 8208, 0), -EINVAL);
    assert_int_equal(seq_open(&s, &p, &a, 0, 64, 0), -EINVAL);
    assert_int_equal(seq_open(&s, &p, &a, SEQ_TOKENS_MAX + 1, 64, 0), -EINVAL);
    pool_close(&p);
}

static void reserve_and_rewind(void **state)
{
    struct pool p;
    struct pool_account a = { .limit = UINT32_MAX };
    struct seq s, t;

    (void)state;
    open_pool(&p, 8);
    assert_int_equal(seq_open(&s, &p, &a, 100, 64, 0), 0);
    assert_int_equal(seq_reserve(&s, 101), -E2BIG);
    assert_int_equal(seq_reserve(&s, 17), 0);
    assert_int_equal(s.n_pages, 2);
    s.n_tokens = 17;
    assert_int_equal(seq_reserve(&s, 15), 0); /* the page has room */
    assert_int_equal(s.n_pages, 2);
    assert_int_equal(seq_reserve(&s, 84), -E2BIG);
    s.n_tokens = 32;
    assert_int_equal(seq_open(&t, &p, &a, 100, 64, 0), 0);
    assert_int_equal(seq_reserve(&t, 97), -ENOSPC); /* 7 pages, 6 are free */
    assert_int_equal(t.n_pages, 0);
    assert_int_equal(seq_reserve(&t, 96), 0);
    assert_int_equal(p.n_free, 0);
    seq_rewind(&s, 16);
    assert_int_equal(s.n_pages, 1);
    assert_int_equal(p.n_free, 1);
    seq_close(&t);
    seq_close(&s);
    assert_int_equal(p.n_free, 8);
    assert_int_equal(a.used, 0);
    pool_close(&p);
}

/* Each arrow of a segment's states, with the keys, bases and pages that it leaves. */
static void states_with_pages(void **state)
{
    struct pool p;
    struct pool_account a = { .limit = UINT32_MAX };
    struct seq s;
    uint32_t pages[4];

    (void)state;
    open_pool(&p, 40);
    assert_int_equal(seq_open(&s, &p, &a, 300, 64, 5), 0);
    assert_int_equal(seq_reserve(&s, 200), 0);
    s.n_tokens = 200;
    assert_int_equal(s.n_pages, 13);
    assert_int_equal(s.segments[1].state, SEQ_RAW);

    seq_shorten(&s, 0, 20); /* in place */
    assert_int_equal(pool_take(&p, &a, 1, pages), 0);
    seq_replace(&s, 1, 16, pages); /* other pages */
    assert_int_equal(s.segments[0].state, SEQ_PACKED);
    assert_int_equal(s.segments[1].state, SEQ_PACKED);
    assert_int_equal(s.segments[1].base, 5 + 20);
    assert_int_equal(s.segments[3].base, 5 + 20 + 16 + 64);
    assert_int_equal(seq_pages(&s, 1)[0], pages[0]);
    assert_int_equal(s.n_pages, 2 + 1 + 4 + 1);
    seq_shorten(&s, 0, 10); /* thinned */
    assert_int_equal(s.segments[0].state, SEQ_PACKED);
    assert_int_equal(seq_position(&s, 200), 5 + 10 + 16 + 64 + 8);

    assert_int_equal(pool_take(&p, &a, 4, pages), 0);
    seq_lengthen(&s, 1, pages);
    assert_int_equal(s.segments[1].state, SEQ_RAW);
    assert_int_equal(s.segments[1].n_keys, 64);
    assert_int_equal(s.segments[1].base, 5 + 10);
    assert_int_equal(s.segments[2].base, 5 + 10 + 64);
    assert_memory_equal(seq_pages(&s, 1), pages, sizeof(pages));
    assert_int_equal(s.n_pages, 1 + 4 + 4 + 1);

    assert_int_equal(a.used, s.n_pages);
    seq_close(&s);
    pool_close(&p);
}

static void states_without_pages(void **state)
{
    struct pool p;
    struct pool_account a = { .limit = UINT32_MAX };
    struct seq s, fork;
    uint32_t pages[4];

    (void)state;
    open_pool(&p, 40);
    assert_int_equal(seq_open(&s, &p, &a, 300, 64, 5), 0);
    assert_int_equal(seq_reserve(&s, 200), 0);
    s.n_tokens = 200;
    seq_shorten(&s, 0, 10);
    seq_evict(&s, 0);
    seq_evict(&s, 2);
    assert_int_equal(s.segments[0].state, SEQ_STORED);
    assert_false(seq_resident(&s, 0));
    assert_int_equal(s.n_pages, 4 + 1);
    assert_int_equal(a.used, 5);
    assert_int_equal(seq_position(&s, 200), 5 + 10 + 64 + 64 + 8); /* nothing moved */
    assert_int_equal(seq_fork(&s, &fork), 0);
    assert_int_equal(fork.segments[2].state, SEQ_STORED);
    assert_int_equal(fork.n_pages, 5);
    seq_close(&fork);
    assert_int_equal(a.used, 5);

    seq_lose(&s, 2);
    assert_int_equal(s.segments[2].state, SEQ_LOST);
    assert_int_equal(pool_take(&p, &a, 4, pages), 0);
    seq_restore(&s, 2, 64, pages);
    assert_int_equal(s.segments[2].state, SEQ_RAW);
    assert_int_equal(pool_take(&p, &a, 1, pages), 0);
    seq_restore(&s, 0, 10, pages);
    assert_int_equal(s.segments[0].state, SEQ_PACKED);
    assert_int_equal(s.n_pages, 1 + 4 + 4 + 1);
    assert_int_equal(a.used, s.n_pages);

    seq_evict(&s, 1);
    assert_int_equal(seq_rewind(&s, 70), 64); /* into one that is not there */
    assert_int_equal(s.n_pages, 1);
    assert_int_equal(seq_reserve(&s, 64), 0);
    assert_int_equal(s.segments[1].state, SEQ_RAW);
    seq_close(&s);
    assert_int_equal(a.used, 0);
    assert_int_equal(p.n_free, 40);
    pool_close(&p);
}

/* What seq_wants says is what seq_reserve takes, page by page and with gists among the tokens. */
static void wants_what_it_takes(void **state)
{
    struct pool p;
    struct pool_account a = { .limit = UINT32_MAX };

    (void)state;
    open_pool(&p, 200);
    for (uint32_t every = 0; every <= 8; every += 4)
        for (uint32_t n = 1; n < 300; n += 7) {
            struct seq s, fork;
            uint32_t wants;

            assert_int_equal(seq_open(&s, &p, &a, 1000, 64, 0), 0);
            if (every)
                assert_int_equal(seq_interleave(&s, every, NULL), 0);
            for (uint32_t k = 0; k < 3; k++) {
                wants = seq_wants(&s, n);
                a.limit = a.used + wants;
                assert_int_equal(seq_reserve(&s, n), 0);
                assert_int_equal(a.used, a.limit);
                a.limit = UINT32_MAX;
                s.n_tokens += n;
            }
            assert_int_equal(seq_fork(&s, &fork), 0);
            wants = p.n_free;
            assert_int_equal(seq_reserve(&fork, 5), 0);
            wants -= p.n_free;
            seq_close(&fork);
            assert_int_equal(seq_fork(&s, &fork), 0);
            assert_int_equal(seq_wants(&fork, 5), wants); /* with the copy of the last page */
            seq_close(&fork);
            seq_close(&s);
        }
    pool_close(&p);
}

/* Thousands of random moves of many sequences: P1 and P2 hold after each. */
static void random_moves(void **state)
{
    enum { N = 12 };
    struct pool p;
    struct pool_account a[2] = { { .limit = 30 }, { .limit = 20 } };
    struct seq s[N];
    unsigned seed = 7;

    (void)state;
    open_pool(&p, 40);
    for (int i = 0; i < N; i++)
        assert_int_equal(seq_open(&s[i], &p, &a[i % 2], 320, 64, 0), 0);
    for (int step = 0; step < 20000; step++) {
        struct seq *q = &s[rand_r(&seed) % N];
        uint32_t n = 1 + (uint32_t)rand_r(&seed) % 60, pages = 0, refs = 0, used = 0;

        if (rand_r(&seed) % 3) {
            if (seq_reserve(q, n) == 0)
                q->n_tokens += n;
        } else if (rand_r(&seed) % 4 == 0) {
            const struct seq *from = &s[rand_r(&seed) % N];

            if (from != q) /* up to its last whole segment, or all of it */
                (void)seq_adopt_behind(q, from,
                                       step % 2 ? from->n_tokens : from->n_tokens / 64 * 64);
        } else {
            seq_rewind(q, q->n_tokens / 2);
        }
        for (int i = 0; i < N; i++)
            pages += s[i].n_pages;
        for (uint32_t i = 0; i < p.n_pages; i++) { /* some stand in several tables */
            refs += p.refs[i];
            used += p.refs[i] > 0;
        }
        assert_int_equal(refs, pages);
        assert_int_equal(used + p.n_free, p.n_pages);
        assert_int_equal(pages, a[0].used + a[1].used);
        assert_true(a[0].used <= 30 && a[1].used <= 20);
        assert_true(q->n_pages * POOL_PAGE_TOKENS >= seq_position(q, q->n_tokens));
    }
    for (int i = 0; i < N; i++)
        seq_close(&s[i]);
    assert_int_equal(p.n_free, 40);
    pool_close(&p);
}

/* A reclaimer with a table of its own. */
struct keeper {
    struct pool *pool;
    struct pool_account account;
    struct pool_reclaimer reclaimer;
    uint32_t pages[8], n, asked;
};

static void keeper_gives(void *arg, uint32_t n)
{
    struct keeper *k = arg;

    k->asked++;
    while (k->n > 0 && k->pool->n_free < n)
        pool_give(k->pool, &k->account, 1, &k->pages[--k->n]);
}

static void keeper_open(struct keeper *k, struct pool *p)
{
    *k = (struct keeper){ .pool = p, .account = { .limit = 8 } };
    k->reclaimer = (struct pool_reclaimer){ keeper_gives, k, &k->account, NULL };
    pool_add_reclaimer(p, &k->reclaimer);
}

/* Asked in turn, and only as long as pages are short; a page that two of them hold can be had, too.
 */
static void asks_reclaimers_in_turn(void **state)
{
    struct pool_account a = { .limit = 16 };
    struct keeper first, second;
    uint32_t pages[16];
    struct pool p;

    (void)state;
    open_pool(&p, 8);
    keeper_open(&first, &p);
    keeper_open(&second, &p);
    assert_int_equal(pool_take(&p, &first.account, 3, first.pages), 0);
    first.n = 3;
    assert_int_equal(pool_take(&p, &second.account, 2, second.pages), 0);
    assert_int_equal(pool_share(&p, &second.account, 1, first.pages), 0);
    second.pages[2] = first.pages[0];
    second.n = 3;
    assert_int_equal(p.n_free, 3);
    assert_int_equal(p.n_cached, 5);
    assert_int_equal(pool_take(&p, &a, 4, pages), 0); /* one of the first's is enough */
    assert_int_equal(first.asked, 1);
    assert_int_equal(second.asked, 0);
    assert_int_equal(p.n_free + p.n_cached, 4);
    assert_int_equal(pool_take(&p, &a, 4, pages + 4), 0); /* all of both */
    assert_int_equal(second.asked, 1);
    assert_int_equal(p.n_free + p.n_cached, 0);
    assert_int_equal(pool_take(&p, &a, 1, pages + 8), -ENOSPC);

    pool_drop_reclaimer(&p, &first.reclaimer);
    pool_drop_reclaimer(&p, &first.reclaimer); /* as if it were there */
    assert_int_equal(pool_take(&p, &a, 1, pages + 8), -ENOSPC);
    assert_int_equal(first.asked, 3);
    assert_int_equal(second.asked, 3);
    pool_give(&p, &a, 8, pages);
    assert_int_equal(p.n_free, 8);
    pool_close(&p);
}

/* What one sequence of an owner has costs that owner nothing more in another one, however little
 * room there is left; an account of its own has to have room for all of it. */
static void goes_on_with_its_owners_own(void **state)
{
    struct pool_owner one = { .limit = 7 };
    struct pool_account a = { .limit = 64, .owner = &one }, b = { .limit = 64, .owner = &one };
    struct pool_account c = { .limit = 5, .owner = &one };
    struct seq from, same, other;
    struct pool p;

    (void)state;
    open_pool(&p, 16);
    assert_int_equal(seq_open(&from, &p, &a, 256, 64, 0), 0);
    assert_int_equal(seq_open(&same, &p, &b, 256, 64, 0), 0);
    assert_int_equal(seq_open(&other, &p, &c, 256, 64, 0), 0);
    assert_int_equal(seq_reserve(&from, 96), 0);
    memset(from.tokens, 0, 96 * sizeof(*from.tokens));
    from.n_tokens = 96;
    assert_int_equal(one.used, 6);
    assert_int_equal(seq_adopt_behind(&same, &from, 96), 0);
    assert_int_equal(same.n_tokens, 96);
    assert_int_equal(b.used, 6);
    assert_int_equal(one.used, 6);
    assert_int_equal(seq_adopt_behind(&other, &from, 96), -ENOSPC);
    assert_int_equal(c.used, 0);
    seq_close(&from);
    assert_int_equal(one.used, 6);
    seq_close(&same);
    seq_close(&other);
    assert_int_equal(one.used, 0);
    pool_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_sizes),
        cmocka_unit_test(pages_are_aligned),
        cmocka_unit_test(layouts_have_names),
        cmocka_unit_test(asks_reclaimers_in_turn),
        cmocka_unit_test(tiles_do_not_overlap),
        cmocka_unit_test(pool_too_small),
        cmocka_unit_test(take_is_all_or_nothing),
        cmocka_unit_test(bad_shapes),
        cmocka_unit_test(reserve_and_rewind),
        cmocka_unit_test(random_moves),
        cmocka_unit_test(states_with_pages),
        cmocka_unit_test(states_without_pages),
        cmocka_unit_test(wants_what_it_takes),
        cmocka_unit_test(goes_on_with_its_owners_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
