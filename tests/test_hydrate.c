/* tests/test_hydrate.c - compressed segments that come back for a prompt. Would catch: raw keys
 * that are not the segment's own, or stand at other places than those that full attention sees;
 * gists that are not what they were when a prompt's segments go again, also after forks and
 * rewinds; budgets that are passed; pages that are lost; another user's or a private session's
 * record that is used; a segment of which there is no record, or a damaged one, that is not
 * computed again from its ids, or to other keys than it had; more of these than a prompt may wait
 * for; a disk that is asked for what memory has, twice, or only when the prompt that it is wanted
 * for is there; a wrong guess that anybody pays for.
 */
#include "tests/support/hydrate_rig.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* --- full attention --------------------------------------------------------------------------- */

static void bring_all(struct stage *s, struct reader *r)
{
    uint32_t segments[OVERLAY_MAX], n = r->memory.ladder.n_at[1];

    assert_in_range(n, 2, OVERLAY_MAX);
    for (uint32_t k = 0; k < n; k++)
        segments[k] = k;
    wait_for(s, r, hydrate_bring(&r->memory, segments, n));
}

static const struct policy everything = { .spec = { COMPRESS_FULL, 1, 0, NULL },
                                          .seg_len = L,
                                          .budget = 4096 };
static const struct policy packs_late[] = {
    { .spec = { COMPRESS_SELECT, 4, 4, NULL },
      .seg_len = L,
      .budget = 620,
      .late = true,
      .hydrate = 1 },
    { .spec = { COMPRESS_FINE_KV, 8, 4, NULL },
      .seg_len = L,
      .budget = 620,
      .late = true,
      .hydrate = 1 },
    { .spec = { COMPRESS_NONE, 1, 0, NULL },
      .seg_len = L,
      .budget = 620,
      .late = true,
      .hydrate = 1 },
};

/* All is read raw, then the oldest segments are packed, and come back: what is read behind them
 * sees what full attention sees. From the tree, from the store, and computed again: from the first
 * one on each of them is read behind raw ones, as it was. */
static void all_is_full_attention(void **state)
{
    uint32_t n = 9 * L, n_prompt = 40;

    (void)state;
    for (size_t i = 0; i < 3 * sizeof(packs_late) / sizeof(*packs_late); i++) {
        const struct policy *p = &packs_late[i / 3];
        bool tree = i % 3 == 0, store = i % 3 == 1;
        struct stage s;
        struct reader r, whole;
        struct wire_usage u;

        open_stage(&s, 4096, tree, store);
        open_reader(&s, &whole, &everything, 1, false);
        feed(&s, &whole, n + n_prompt, row_a);
        open_reader(&s, &r, p, 1, false);
        feed(&s, &r, n, row_b);
        if (store)
            assert_int_equal(tier_stop(s.rig.served.tier, UINT64_C(60000000000)), 0);
        settle(&s, &r);
        u = usage_of(&r);
        assert_true(u.gist_tokens > 0 && u.hydrated_tokens == 0);
        bring_all(&s, &r);
        u = usage_of(&r);
        assert_int_equal(u.gist_tokens, 0);
        assert_int_equal(u.missed_tokens, 0);
        assert_int_equal(u.hydrated_tokens, r.memory.ladder.n_at[1] * L);
        assert_int_equal(u.hydrated_disk_tokens, store ? u.hydrated_tokens : 0);
        assert_int_equal(u.recomputed_tokens, !tree && !store ? u.hydrated_tokens : 0);
        feed(&s, &r, n + n_prompt, row_b);
        assert_memory_equal(row_b, (char *)row_a + n * row_bytes(&s), n_prompt * row_bytes(&s));
        close_reader(&r);
        close_reader(&whole);
        close_stage(&s);
    }
}

/* --- whose it is ------------------------------------------------------------------------------ */

static const struct policy plain = {
    .spec = { COMPRESS_SELECT, 4, 4, NULL }, .seg_len = L, .budget = 1000, .hydrate = 4
};

static struct wire_usage asked(struct stage *s, uint32_t owner, bool keeps_nothing, float *ret)
{
    struct wire_usage u;
    struct reader r;

    open_reader(s, &r, &plain, owner, keeps_nothing);
    feed(s, &r, 6 * L, ret);
    settle(s, &r);
    prompt(s, &r, 20);
    feed(s, &r, 6 * L + 20, ret);
    u = usage_of(&r);
    close_reader(&r);
    return u;
}

static bool has_all(struct wire_usage u)
{
    return u.hydrated_tokens > 0 && u.recomputed_tokens + u.missed_tokens == 0;
}

/* Raw pages under marks in the tree, where there is one; else only ids. */
static bool has_its_own(const struct stage *s, struct wire_usage u)
{
    if (s->prefix)
        return has_all(u) && u.hydrated_disk_tokens == 0;
    return u.recomputed_tokens > 0 && u.recomputed_tokens == u.hydrated_tokens;
}

/* Of the same text: the one who read it has it back, nobody else has anything of his. */
static void nobody_elses(void **state)
{
    struct stage s;

    (void)state;
    for (int store = 0; store < 2; store++) {
        open_stage(&s, 4096, !store, store);
        memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
        /* It has what it has read itself, and leaves no trace. */
        for (int i = 0; i < 2; i++) {
            assert_true(has_its_own(&s, asked(&s, 1, true, row_a)));
            assert_int_equal(s.rig.rig.pool.n_cached, 0);
        }
        if (store) { /* what a session wrote may not be on the disk while it is asked */
            struct reader r;

            open_reader(&s, &r, &plain, 2, false);
            feed(&s, &r, 6 * L, row_a);
            close_reader(&r);
            close_store(&s);
            open_store(&s);
        }
        assert_true(has_all(asked(&s, 2, false, row_a)));
        assert_true(has_its_own(&s, asked(&s, 1, true, row_a)));
        assert_true(has_its_own(&s, asked(&s, 3, true, row_a)));
        assert_true(has_all(asked(&s, 2, true, row_a))); /* a private one of the same */
        close_stage(&s);
    }
}

/* --- its own ---------------------------------------------------------------------------------- */

/* Reads on behind a prompt that has brought something back, until what it reads there is packed,
 * and is asked about that. */
static void ask_behind(struct stage *s, struct reader *r)
{
    uint32_t n = 6 * L;

    feed(s, r, n, row_a);
    settle(s, r);
    memcpy(ids + n, ids + 3 * L + 5, 20 * sizeof(*ids));
    prompt(s, r, 20);
    assert_true(hydrate_is_on(&r->memory));
    n += 20;
    feed(s, r, n + 3 * L, row_a);
    n += 3 * L;
    memcpy(ids + n, ids + 7 * L + 8, 20 * sizeof(*ids));
    prompt(s, r, 20);
}

static bool has_segment(const struct reader *r, uint32_t segment, enum hydrate_source from)
{
    const struct hydration *h = &r->memory.hydration;

    for (uint32_t i = 0; i < h->n; i++)
        if (h->held[i].segment == segment && h->held[i].pages)
            return h->held[i].from == from;
    return false;
}

/* What was read behind hydrated segments comes back too, to this session and its forks: nobody else
 * finds it, nor does it take others' for its own. */
static void read_behind_others(void **state)
{
    struct reader r, fork, other;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    open_reader(&s, &r, &plain, 1, false);
    ask_behind(&s, &r);
    assert_true(has_segment(&r, 7, HYDRATE_MEMORY));
    assert_true(has_all(usage_of(&r)));
    open_reader(&s, &other, &plain, 1, false); /* of the same user and ids */
    assert_in_range(memory_known(&other.memory, ids, r.memory.n_ids), 1, 6 * L + 15);
    fork_reader(&r, &fork);
    close_reader(&r);
    prompt(&s, &fork, 20);
    assert_true(has_segment(&fork, 7, HYDRATE_MEMORY));
    hydrate_end(&fork.memory);
    evict(&s, s.rig.rig.pool.n_cached);
    feed(&s, &other, fork.memory.n_ids, row_a); /* in one go: other keys */
    prompt(&s, &fork, 20);
    assert_true(has_segment(&fork, 7, HYDRATE_AGAIN));
    close_reader(&other);
    close_reader(&fork);
    close_stage(&s);
}

/* What was given up is computed again, once; but a rewind to before that is as if it had never
 * been. */
static void computed_once(void **state)
{
    uint32_t n;
    struct reader r;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    open_reader(&s, &r, &plain, 1, false);
    ask_behind(&s, &r);
    n = r.memory.n_ids;
    feed(&s, &r, n + 10, row_a);
    memmove(ids + n + 10, ids + n, 20 * sizeof(*ids));
    hydrate_end(&r.memory);
    evict(&s, s.rig.rig.pool.n_cached);
    prompt(&s, &r, 20);
    assert_true(has_segment(&r, 7, HYDRATE_AGAIN));
    prompt(&s, &r, 20);
    assert_true(has_segment(&r, 7, HYDRATE_MEMORY));
    memory_rewind(&r.memory, n + 5);
    memmove(ids + n + 5, ids + n + 10, 20 * sizeof(*ids));
    prompt(&s, &r, 20);
    assert_true(has_segment(&r, 7, HYDRATE_AGAIN));
    memory_rewind(&r.memory, 6 * L);
    assert_int_equal(r.memory.own.n, 0);
    close_reader(&r);
    close_stage(&s);
}

/* Two of them pack the same pages, each for itself. */
static void forked_before(void **state)
{
    struct reader r, fork;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    open_reader(&s, &r, &plain, 1, true);
    feed(&s, &r, 4 * L, row_a); /* the last one is full, and raw */
    fork_reader(&r, &fork);
    settle(&s, &r);
    settle(&s, &fork);
    memcpy(ids + 4 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
    for (int i = 0; i < 2; i++) {
        prompt(&s, i ? &r : &fork, 20);
        assert_true(has_segment(i ? &r : &fork, 3, HYDRATE_MEMORY));
        if (i == 0)
            close_reader(&fork);
    }
    close_reader(&r);
    close_stage(&s);
}

/* A pool that is full of what others have read: the oldest of that goes, and not the newest. */
static void newer_than_the_tree(void **state)
{
    static const struct policy half = {
        .spec = { COMPRESS_SELECT, 2, 4, NULL }, .seg_len = L, .budget = 1000, .hydrate = 4
    };
    struct reader r, other;
    struct stage s;

    (void)state;
    open_stage(&s, 1600, true, false);
    for (uint32_t owner = 2; owner < 6; owner++) {
        for (uint32_t i = 0; i < 6 * L; i++)
            ids[i] = 3 + (i * 5 + owner * i / 7) % 250;
        open_reader(&s, &other, &half, owner, false);
        feed(&s, &other, 6 * L, row_a);
        close_reader(&other);
    }
    assert_true(s.rig.rig.pool.n_free < 10);
    open_reader(&s, &r, &half, 1, true);
    ask_behind(&s, &r);
    assert_true(has_segment(&r, 7, HYDRATE_MEMORY));
    close_reader(&r);
    close_stage(&s);
}

/* --- what can't come back --------------------------------------------------------------------- */

static int flip(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    uint8_t byte;
    int fd;

    (void)ftw;
    if (kind != FTW_F || st->st_size < 8192)
        return 0;
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, st->st_size - 100), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, st->st_size - 100), 1);
    (void)close(fd);
    return 0;
}

/* What the tree has is as it was read. Without it, and without the store or with a record of each
 * that is damaged, it is computed again, to the same bits. */
static void missing_and_damaged(void **state)
{
    struct wire_usage u, all;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
    all = asked(&s, 1, false, row_a);
    assert_true(has_all(all));
    close_stage(&s);

    open_stage(&s, 4096, false, false);
    memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
    u = asked(&s, 1, false, row_b);
    assert_int_equal(u.recomputed_tokens, all.hydrated_tokens);
    assert_int_equal(u.missed_tokens, 0);
    assert_memory_equal(row_a, row_b, 20 * row_bytes(&s));
    close_stage(&s);

    open_stage(&s, 4096, false, true);
    memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
    (void)asked(&s, 1, false, row_b);
    close_store(&s);
    assert_int_equal(nftw(s.folder, flip, 8, FTW_PHYS), 0);
    open_store(&s);
    u = asked(&s, 1, false, row_b);
    assert_int_equal(u.hydrated_disk_tokens, 0);
    assert_int_equal(u.recomputed_tokens, all.hydrated_tokens);
    assert_memory_equal(row_a, row_b, 20 * row_bytes(&s));
    close_stage(&s);
}

/* Each method's keys of a segment, read behind that method's gists. */
static void as_it_was(void **state)
{
    static const struct compress_spec specs[] = { { COMPRESS_SELECT, 4, 4, NULL },
                                                  { COMPRESS_FIT, 4, 4, NULL },
                                                  { COMPRESS_FINE_KV, 8, 4, NULL },
                                                  { COMPRESS_NONE, 1, 0, NULL } };
    static const uint32_t segments[] = { 4, 0, 2 };
    struct stage s;

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(specs) / sizeof(*specs); i++) {
        const struct policy p = {
            .spec = specs[i / 2], .seg_len = L, .budget = 1000, .hydrate = 4
        };
        bool tree = i % 2 == 0;
        struct reader r;

        open_stage(&s, 4096, tree, false);
        open_reader(&s, &r, &p, 1, false);
        feed(&s, &r, 7 * L, row_b);
        settle(&s, &r);
        wait_for(&s, &r, hydrate_bring(&r.memory, segments, 3));
        assert_int_equal(usage_of(&r).hydrated_tokens, 3 * L);
        assert_int_equal(usage_of(&r).recomputed_tokens, tree ? 0 : 3 * L);
        feed(&s, &r, 7 * L + 20, tree ? row_a : row_b);
        if (!tree)
            assert_memory_equal(row_a, row_b, 20 * row_bytes(&s));
        close_reader(&r);
        close_stage(&s);
    }
}

/* A prompt waits for 2,048 tokens at most: of what it points to most. */
static void no_longer_than_that(void **state)
{
    static const struct policy p = {
        .spec = { COMPRESS_SELECT, 4, 4, NULL }, .seg_len = 1024, .budget = 8000, .hydrate = 4
    };
    static const uint32_t segments[] = { 3, 1, 0, 2 };
    uint32_t *text = malloc(5 * p.seg_len * sizeof(*text));
    struct stage s;
    struct reader r = { .now = 0 };

    (void)state;
    open_stage(&s, 12000, false, false);
    for (uint32_t i = 0; i < 5 * p.seg_len; i++)
        text[i] = 3 + (i * 7 + i / 64 * 11) % 250;
    assert_int_equal(rig_seq(&s.rig.rig, 8192, p.seg_len, 0, &r.seq), 0);
    assert_int_equal(memory_init(&r.memory, &p, &s.rig.served, &r.seq), 0);
    assert_int_equal(memory_rig_feed(&s.rig, &r.memory, text, 4 * p.seg_len + 10, BATCH, NULL), 0);
    wait_for(&s, &r, hydrate_bring(&r.memory, segments, 4));
    assert_int_equal(usage_of(&r).recomputed_tokens, 2048);
    assert_int_equal(usage_of(&r).missed_tokens, 2048 - 4);
    assert_int_equal(r.seq.segments[3].n_keys, p.seg_len);
    assert_int_equal(r.seq.segments[1].n_keys, p.seg_len);
    close_reader(&r);
    close_stage(&s);
    free(text);
}

/* Whatever the client may hold: the prompt and a segment behind it are read all the same. */
static void check_limits(bool tree)
{
    uint32_t most = 0, least = 5;
    struct stage s;

    open_stage(&s, 4096, tree, false);
    for (uint32_t more = 0; more < 40; more++) {
        struct pool_account *a = &s.rig.rig.account;
        uint32_t limit = a->limit;
        struct reader r;

        open_reader(&s, &r, &plain, 1, false);
        feed(&s, &r, 6 * L + 30, row_a);
        settle(&s, &r);
        memcpy(ids + 6 * L + 30, ids + 3 * L + 5, 20 * sizeof(*ids));
        memcpy(ids + 6 * L + 50, ids + L + 5, 20 * sizeof(*ids));
        a->limit = a->used + 5 + more;
        prompt(&s, &r, 40);
        assert_true(a->used <= a->limit);
        assert_true(r.memory.hydration.n > 0 || r.memory.hydration.missed > 0);
        if (r.memory.hydration.n > most)
            most = r.memory.hydration.n;
        if (r.memory.hydration.n < least)
            least = r.memory.hydration.n;
        feed(&s, &r, 6 * L + 30 + 40, row_a);
        close_reader(&r);
        a->limit = limit;
    }
    assert_true(least == 0 && most >= 2);
    close_stage(&s);
}

static void within_a_limit(void **state)
{
    (void)state;
    check_limits(true);
    check_limits(false); /* computed again */
}

/* A budget that has no room for a segment beside the gists: they are thinned for the best one.
 * Where even that is not enough, nothing is, and it is missed. */
static void thinned_for_one(void **state)
{
    struct policy p = {
        .spec = { COMPRESS_SELECT, 4, 0, NULL }, .seg_len = L, .budget = 0, .hydrate = UINT32_MAX
    };

    (void)state;
    for (p.budget = 2 * L; p.budget <= 180; p.budget += 180 - 2 * L) {
        bool fits = p.budget > 2 * L;
        struct ladder had;
        struct reader r;
        struct stage s;

        open_stage(&s, 4096, true, false);
        open_reader(&s, &r, &p, 1, false);
        feed(&s, &r, 7 * L + 10, row_a);
        settle(&s, &r);
        had = r.memory.ladder;
        memcpy(ids + 7 * L + 10, ids + 3 * L + 5, 20 * sizeof(*ids));
        prompt(&s, &r, 20);
        assert_int_equal(has_segment(&r, 3, HYDRATE_MEMORY), fits);
        assert_int_equal(ladder_equal(&had, &r.memory.ladder), !fits);
        assert_int_equal(usage_of(&r).hydrated_tokens, fits ? L : 0);
        assert_int_equal(usage_of(&r).missed_tokens, fits ? 0 : L);
        feed(&s, &r, 8 * L + 20, row_a);
        assert_true(seq_position(&r.seq, r.seq.n_tokens) <= p.budget);
        hydrate_end(&r.memory);
        settle(&s, &r);
        assert_true(seq_position(&r.seq, r.seq.n_tokens) <= p.budget);
        close_reader(&r);
        close_stage(&s);
    }
}

/* The ladder climbs while a segment is hydrated. When it goes its gists are thinned to where they
 * should be; without pages for that, since a fork holds the same, it waits, and nothing fails. */
static void lags(void **state)
{
    static const struct policy p = {
        .spec = { COMPRESS_SELECT, 4, 0, NULL }, .seg_len = L, .budget = 400, .hydrate = 1
    };
    struct pool_account others = { .limit = UINT32_MAX };
    struct reader r, fork;
    uint32_t *pages, n_pages, first = 1;
    struct stage s;
    struct pool *q;

    (void)state;
    open_stage(&s, 2048, true, false);
    q = &s.rig.rig.pool;
    open_reader(&s, &r, &p, 1, false);
    feed(&s, &r, 6 * L + 10, row_a);
    assert_int_equal(ladder_rung(&r.memory.ladder, first), 1);
    wait_for(&s, &r, hydrate_bring(&r.memory, &first, 1));
    for (uint32_t n = 7 * L; ladder_rung(&r.memory.ladder, first) < 2; n += L)
        feed(&s, &r, n + 10, row_a);
    assert_int_equal(r.seq.segments[first].n_keys, L);
    fork_reader(&r, &fork);
    n_pages = q->n_free + q->n_cached;
    pages = malloc(n_pages * sizeof(*pages));
    assert_int_equal(pool_take(q, &others, n_pages, pages), 0);

    hydrate_end(&r.memory);
    assert_int_equal(r.seq.segments[first].n_keys, L / 4);
    assert_true(overlay_has(&r.memory.overlay, first) && !hydrate_is_on(&r.memory));
    memory_settle(&r.memory, NULL);
    assert_true(overlay_has(&r.memory.overlay, first));
    pool_give(q, &others, n_pages, pages);
    memory_settle(&r.memory, NULL);
    assert_int_equal(r.memory.overlay.n + r.memory.hydration.n, 0);
    assert_int_equal(r.seq.segments[first].n_keys,
                     ladder_segment_keys(&p, first, ladder_rung(&r.memory.ladder, first)));
    assert_int_equal(fork.seq.segments[first].n_keys, L); /* the other one has what it had */
    hydrate_end(&fork.memory);
    assert_int_equal(fork.seq.segments[first].n_keys, r.seq.segments[first].n_keys);
    close_reader(&fork);
    close_reader(&r);
    free(pages);
    close_stage(&s);
}

/* Given up while the disk reads, or the model: all pages come back. */
static void give_up(bool store)
{
    struct stage s;

    open_stage(&s, 4096, false, store);
    memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
    (void)asked(&s, 1, false, row_a);
    if (store) {
        close_store(&s);
        open_store(&s);
    }
    for (int i = 0; i < 20; i++) {
        struct hydrate_job *j;
        struct reader r;

        open_reader(&s, &r, &plain, 1, false);
        feed(&s, &r, 6 * L, row_a);
        settle(&s, &r);
        j = hydrate_begin(&r.memory, ids + 6 * L, 20, 20, NULL);
        assert_non_null(j);
        for (int k = 0; k < i && j; k++) {
            if (i % 2)
                (void)memory_rig_settle(&s.rig, &r.memory, 16);
            if (hydrate_go(j) == 0)
                j = NULL;
            if (store)
                (void)tier_pump(s.rig.served.tier);
        }
        hydrate_drop(j);
        assert_false(memory_behind(&r.memory));
        memory_rewind(&r.memory, 6 * L);
        assert_false(hydrate_is_on(&r.memory));
        close_reader(&r);
    }
    close_stage(&s);
}

static void given_up(void **state)
{
    (void)state;
    give_up(true);
    give_up(false);
}

/* Words of these segments, n of each. */
static void point_to(const struct reader *r, uint32_t a, uint32_t b, uint32_t n)
{
    uint32_t at = r->memory.n_ids;

    memcpy(ids + at, ids + a * L + 5, n * sizeof(*ids));
    memcpy(ids + at + n, ids + b * L + 9, n * sizeof(*ids));
}

/* A question that is read again behind what came back for it, when others have all other pages:
 * some of that goes. */
static void pages_are_short(void **state)
{
    struct pool_account others = { .limit = UINT32_MAX };
    struct pool *p;
    struct reader r;
    struct stage s;
    uint32_t *pages, n, n_back;

    (void)state;
    open_stage(&s, 4096, true, false);
    p = &s.rig.rig.pool;
    open_reader(&s, &r, &plain, 1, false);
    feed(&s, &r, 8 * L, row_a);
    settle(&s, &r);
    point_to(&r, 2, 5, 20);
    feed(&s, &r, 8 * L + 40, row_a);
    memory_reread(&r.memory, 40);
    wait_for(&s, &r, hydrate_begin(&r.memory, ids + 8 * L, 40, 1, NULL));
    n_back = r.memory.hydration.n;
    assert_in_range(n_back, 2, 4);
    evict(&s, p->n_cached);
    n = p->n_free;
    pages = malloc(n * sizeof(*pages));
    assert_int_equal(pool_take(p, &others, n, pages), 0);
    settle(&s, &r);
    assert_int_equal(r.seq.n_tokens, 8 * L + 40);
    assert_in_range(r.memory.hydration.n, 1, n_back - 1);
    pool_give(p, &others, n, pages);
    free(pages);
    close_reader(&r);
    close_stage(&s);
}

/* --- what has to be read for it --------------------------------------------------------------- */

static uint64_t n_gets(const struct stage *s)
{
    struct store_stats st;

    store_stats(s->store, &st);
    return st.gets;
}

/* All that was to be written is on the disk, and nobody has it in memory. */
static void only_on_disk(struct stage *s)
{
    assert_int_equal(tier_stop(s->rig.served.tier, UINT64_C(60000000000)), 0);
    evict(s, s->rig.rig.pool.n_cached);
}

static const struct policy thinned = {
    .spec = { COMPRESS_SELECT, 4, 4, NULL }, .seg_len = L, .budget = 400, .hydrate = 2
};

/* The tree learns nothing behind thinned segments. Who has read them has them in memory all the
 * same, and so have its forks: neither the disk nor the model is asked, until others want the
 * pages. */
static void memory_before_the_disk(void **state)
{
    struct reader r, fork;
    struct wire_usage u;
    struct stage s;
    uint64_t gets;

    (void)state;
    open_stage(&s, 8192, true, true);
    open_reader(&s, &r, &thinned, 1, false);
    feed(&s, &r, 14 * L, row_a);
    settle(&s, &r);
    assert_true(r.memory.ladder.n_at[2] > 0 && memory_lasts(&r.memory));
    assert_false(memory_teaches(&r.memory));
    assert_int_equal(tier_stop(s.rig.served.tier, UINT64_C(60000000000)), 0);
    gets = n_gets(&s);
    point_to(&r, 10, 12, 15);
    for (int i = 0; i < 2; i++) {
        fork_reader(&r, &fork);
        if (i == 1)
            only_on_disk(&s);
        prompt(&s, &fork, 30);
        u = usage_of(&fork);
        assert_true(u.hydrated_tokens > 0 && u.missed_tokens + u.recomputed_tokens == 0);
        assert_int_equal(u.hydrated_disk_tokens, i ? u.hydrated_tokens : 0);
        assert_int_equal(n_gets(&s) - gets, i ? u.hydrated_tokens / L : 0);
        close_reader(&fork);
    }
    close_reader(&r);
    close_stage(&s);
}

static void wait_for_early(struct stage *s, struct reader *r)
{
    while (r->memory.hydration.early)
        if (!tier_pump(s->rig.served.tier))
            (void)usleep(100);
}

/* A stage with a reader of which all raw keys are on the disk. */
static void open_on_disk(struct stage *s, struct reader *r, uint32_t pool_tokens)
{
    open_stage(s, pool_tokens, true, true);
    open_reader(s, r, &plain, 1, false);
    feed(s, r, 10 * L, row_a);
    settle(s, r);
    only_on_disk(s);
}

/* What a prompt is likely to point to was read when it comes, and it waits for nothing; or is being
 * read, and is not read twice. */
static void ahead_of_the_prompt(void **state)
{
    (void)state;
    for (int in_flight = 0; in_flight < 2; in_flight++) {
        struct wire_usage u;
        struct hydrate_job *j;
        struct reader r;
        struct stage s;
        uint64_t gets;

        open_on_disk(&s, &r, 4096);
        gets = n_gets(&s);
        point_to(&r, 3, 7, 15);
        fetch(&r, ids + r.memory.n_ids, 20); /* all but its end */
        assert_non_null(r.memory.hydration.early);
        if (!in_flight) {
            wait_for_early(&s, &r);
            assert_true(n_gets(&s) > gets);
            assert_int_equal(s.rig.rig.account.used, r.seq.n_pages); /* nobody is charged */
            fetch(&r, ids + r.memory.n_ids, 20);
            assert_null(r.memory.hydration.early); /* it is there */
        }
        j = hydrate_begin(&r.memory, ids + r.memory.n_ids, 30, 30, NULL);
        assert_true(in_flight || !j);
        wait_for(&s, &r, j);
        u = usage_of(&r);
        assert_true(u.hydrated_tokens >= 2 * L && u.missed_tokens + u.recomputed_tokens == 0);
        assert_int_equal(u.hydrated_disk_tokens, u.hydrated_tokens);
        assert_int_equal(n_gets(&s) - gets, u.hydrated_tokens / L);
        close_reader(&r);
        close_stage(&s);
    }
}

/* Nobody waited for what an answer's own words point to: without room it is not missed. */
static void nobody_misses_more(void **state)
{
    struct hydrate_job *j;
    struct reader r;
    struct stage s;

    (void)state;
    open_on_disk(&s, &r, 4096);
    point_to(&r, 3, 3, 15);
    feed(&s, &r, r.memory.n_ids + 30, row_a);
    j = hydrate_more(&r.memory, 30, NULL);
    assert_non_null(j);
    s.rig.rig.account.limit = s.rig.rig.account.used; /* raw pages are counted, gists not twice */
    wait_for(&s, &r, j);
    assert_int_equal(r.memory.hydration.n + usage_of(&r).missed_tokens, 0);
    close_reader(&r);
    close_stage(&s);
}

/* A guess that was wrong costs its reading, and is in nobody's way: not when pages are short, nor
 * when the session is taken back, forked or closed in the middle. */
static void in_nobodys_way(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct reader r, fork;
        struct wire_usage u;
        struct stage s;

        open_on_disk(&s, &r, 4096);
        point_to(&r, 1, 2, 15);
        fetch(&r, ids + r.memory.n_ids, 30);
        assert_non_null(r.memory.hydration.early);
        if (i == 0) { /* it points elsewhere by now */
            point_to(&r, 5, 8, 15);
            fetch(&r, ids + r.memory.n_ids, 30);
            assert_non_null(r.memory.hydration.early);
        } else if (i == 1) {
            assert_true(hydrate_less(&r.memory));
            assert_null(r.memory.hydration.early);
        } else if (i == 2) {
            memory_rewind(&r.memory, L + 1);
            assert_null(r.memory.hydration.early);
            feed(&s, &r, 10 * L, row_a);
            settle(&s, &r);
        } else if (i == 3) {
            fork_reader(&r, &fork);
            assert_null(fork.memory.hydration.early);
            close_reader(&r);
            fork_reader(&fork, &r); /* it stays where it is */
            close_reader(&fork);
        }
        point_to(&r, 5, 8, 15);
        prompt(&s, &r, 30);
        u = usage_of(&r);
        assert_true(u.hydrated_tokens >= 2 * L && u.missed_tokens + u.recomputed_tokens == 0);
        assert_true(has_segment(&r, 5, HYDRATE_DISK) || i == 2);
        hydrate_end(&r.memory);
        if (i == 4)
            fetch(&r, ids + L, 20);
        close_reader(&r);
        close_stage(&s);
    }
}

/* No disk, nothing to keep it in, nothing packed, or none of it is only on the disk. */
static void nothing_to_fetch(void **state)
{
    struct reader r;
    struct stage s;

    (void)state;
    for (int i = 0; i < 4; i++) {
        open_stage(&s, 4096, i != 1, i != 0);
        open_reader(&s, &r, &plain, 1, false);
        feed(&s, &r, i == 2 ? L / 2 : 6 * L, row_a);
        settle(&s, &r);
        fetch(&r, ids, 20);
        assert_null(r.memory.hydration.early);
        close_reader(&r);
        close_stage(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_is_full_attention),
                                        cmocka_unit_test(nobody_elses),
                                        cmocka_unit_test(read_behind_others),
                                        cmocka_unit_test(computed_once),
                                        cmocka_unit_test(forked_before),
                                        cmocka_unit_test(newer_than_the_tree),
                                        cmocka_unit_test(missing_and_damaged),
                                        cmocka_unit_test(as_it_was),
                                        cmocka_unit_test(no_longer_than_that),
                                        cmocka_unit_test(within_a_limit),
                                        cmocka_unit_test(thinned_for_one),
                                        cmocka_unit_test(lags),
                                        cmocka_unit_test(given_up),
                                        cmocka_unit_test(pages_are_short),
                                        cmocka_unit_test(memory_before_the_disk),
                                        cmocka_unit_test(ahead_of_the_prompt),
                                        cmocka_unit_test(nobody_misses_more),
                                        cmocka_unit_test(in_nobodys_way),
                                        cmocka_unit_test(nothing_to_fetch) };
    int r;

    r = cmocka_run_group_tests(tests, NULL, NULL);
    hydrate_rig_free();
    return r;
}
