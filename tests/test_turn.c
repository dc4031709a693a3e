/* tests/test_turn.c - what is asked stays raw while it is answered. Would catch: a question that is
 * compressed behind a long answer, or for good when the next turn comes; one that changes what is
 * kept of all else; a rewind into it that leaves half of a segment in the wrong place; a policy
 * that said what is to be kept, and is not heard; a full owner whose session waits for ever; what
 * came back for a question, and stays when there is room for one of the two only; an answer that
 * comes to something else, and is left alone with its gists; a ranking that was made before and is
 * not heard, or is though other segments are packed by now.
 */
#include "daemon/rank.h"
#include "tests/support/hydrate_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define FROM (5 * L + 10) /* of the question, */
#define TO   (5 * L + 50)
#define ALL  (7 * L + 20) /* and with its answer */

static const struct policy chosen = { .spec = { COMPRESS_SELECT, 4, 4, NULL },
                                      .seg_len = L,
                                      .budget = 900,
                                      .hydrate = 4,
                                      .automatic = true };
static const struct policy said = {
    .spec = { COMPRESS_SELECT, 4, 4, NULL }, .seg_len = L, .budget = 900, .hydrate = 4
};

static void answer(struct stage *s, struct reader *r, float *ret)
{
    feed(s, r, TO, ret);
    feed(s, r, ALL, ret);
    settle(s, r);
}

static void open_turn(struct stage *s, struct reader *r, const struct policy *p)
{
    open_reader(s, r, p, 1, true);
    feed(s, r, FROM, row_b);
    memory_turn(&r->memory, FROM, TO);
}

static enum seq_state state_of(const struct reader *r, uint32_t segment)
{
    return r->seq.segments[segment].state;
}

/* Its segment is packed at its check, and raw all the same: as if a prompt had brought it back. */
static void is_seen(void **state)
{
    const uint32_t segment = 5;
    struct reader r, control;
    struct wire_usage u;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    open_turn(&s, &r, &chosen);
    answer(&s, &r, row_a);
    assert_int_equal(r.memory.ladder.n_at[1], 7);
    assert_true(state_of(&r, 5) == SEQ_RAW && state_of(&r, 6) == SEQ_PACKED);
    u = usage_of(&r);
    assert_int_equal(u.hydrated_tokens + u.missed_tokens, 0);
    assert_int_equal(u.raw_tokens, ALL - 6 * L + 4); /* and sinks */
    assert_int_equal(u.raw_tokens + u.gists, seq_position(&r.seq, ALL));

    open_turn(&s, &control, &said);
    answer(&s, &control, row_b);
    assert_int_equal(state_of(&control, 5), SEQ_PACKED);
    memory_rewind(&control.memory, FROM);
    feed(&s, &control, 6 * L, row_b);
    settle(&s, &control);
    wait_for(&s, &control, hydrate_bring(&control.memory, &segment, 1));
    feed(&s, &control, ALL, row_b);
    settle(&s, &control);
    assert_memory_equal((char *)row_a + (6 * L - TO) * row_bytes(&s), row_b,
                        (ALL - 6 * L) * row_bytes(&s));

    /* The next turn finds its gists. */
    hydrate_end(&r.memory);
    hydrate_end(&control.memory);
    assert_int_equal(state_of(&r, 5), SEQ_PACKED);
    feed(&s, &r, ALL + 20, row_a);
    feed(&s, &control, ALL + 20, row_b);
    assert_memory_equal(row_a, row_b, 20 * row_bytes(&s));
    close_reader(&control);
    close_reader(&r);
    close_stage(&s);
}

/* Into the question and its answer, where a stop string may end it, and to before it. */
static void taken_back(void **state)
{
    static const uint32_t to[] = { 7 * L + 3, 6 * L + 30, 6 * L, FROM + 30, FROM + 1, FROM, 3 * L };
    struct reader r, fork;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    open_turn(&s, &r, &chosen);
    answer(&s, &r, row_a);
    for (size_t i = 0; i < sizeof(to) / sizeof(*to); i++) {
        fork_reader(&r, &fork);
        memory_rewind(&fork.memory, to[i]);
        assert_true(fork.memory.turn.to <= to[i]);
        if (to[i] < FROM)
            feed(&s, &fork, FROM, row_b);
        memory_turn(&fork.memory, FROM, TO);
        feed(&s, &fork, ALL, row_b);
        settle(&s, &fork);
        assert_true(state_of(&fork, 5) == SEQ_RAW && state_of(&fork, 6) == SEQ_PACKED);
        assert_memory_equal((char *)row_a + (ALL - TO - 1) * row_bytes(&s),
                            (char *)row_b +
                                (ALL - 1 - (to[i] < FROM ? FROM : to[i])) * row_bytes(&s),
                            row_bytes(&s));
        close_reader(&fork);
    }
    close_reader(&r);
    close_stage(&s);
}

/* What others find of it is what they would have read. */
static void nobody_elses(void **state)
{
    struct reader r, other, alone;
    struct stage s, t;
    uint32_t n_found;

    (void)state;
    open_stage(&s, 4096, true, false);
    open_reader(&s, &r, &chosen, 1, false);
    feed(&s, &r, FROM, row_b);
    memory_turn(&r.memory, FROM, TO);
    answer(&s, &r, row_a);
    open_reader(&s, &other, &chosen, 1, false);
    n_found = memory_adopt(&other.memory, ids, ALL);
    assert_in_range(n_found, 5 * L, 6 * L);
    feed(&s, &other, ALL, row_a);
    open_stage(&t, 4096, false, false);
    open_reader(&t, &alone, &chosen, 1, false);
    feed(&t, &alone, ALL - 1, row_b);
    feed(&t, &alone, ALL, row_b);
    assert_memory_equal((char *)row_a + (ALL - 1 - n_found) * row_bytes(&s), row_b, row_bytes(&s));
    assert_true(ladder_equal(&other.memory.ladder, &alone.memory.ladder));
    close_reader(&alone);
    close_stage(&t);
    close_reader(&other);
    close_reader(&r);
    close_stage(&s);
}

/* What came back goes first, the least wanted of it before all; the question only when nothing else
 * is left, and it is not held at all where its pages would be too many. */
static void gives_way(void **state)
{
    static const uint32_t brought[] = { 3, 1 };
    struct reader r;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    open_turn(&s, &r, &chosen);
    settle(&s, &r);
    wait_for(&s, &r, hydrate_bring(&r.memory, brought, 2));
    answer(&s, &r, row_a);
    assert_true(state_of(&r, 1) == SEQ_RAW && state_of(&r, 3) == SEQ_RAW);
    assert_true(hydrate_less(&r.memory));
    assert_true(state_of(&r, 1) == SEQ_PACKED && state_of(&r, 3) == SEQ_RAW);
    assert_true(hydrate_less(&r.memory));
    assert_true(state_of(&r, 3) == SEQ_PACKED && state_of(&r, 5) == SEQ_RAW);
    assert_true(hydrate_less(&r.memory));
    assert_true(state_of(&r, 5) == SEQ_PACKED && !hydrate_less(&r.memory));
    assert_false(hydrate_is_on(&r.memory));

    memory_rewind(&r.memory, FROM);
    memory_turn(&r.memory, FROM, TO);
    feed(&s, &r, 6 * L - 1, row_b);
    r.seq.account->limit = r.seq.account->used + 2;
    feed(&s, &r, 6 * L, row_b);
    settle(&s, &r);
    assert_int_equal(state_of(&r, 5), SEQ_PACKED);
    close_reader(&r);
    close_stage(&s);
}

/* The pages are shared within one owner, who pays nothing for that, but the gists are new ones:
 * where the owner has no room for them the segment is packed in place, which sharing would forbid
 * for good. */
static void owner_is_full(void **state)
{
    struct pool_owner owner = { 0, UINT32_MAX };
    struct reader r;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, false, false);
    s.rig.rig.account.owner = &owner;
    open_turn(&s, &r, &chosen);
    feed(&s, &r, 6 * L - 1, row_b);
    owner.limit = owner.used;
    feed(&s, &r, 6 * L, row_b);
    settle(&s, &r);
    assert_int_equal(state_of(&r, 5), SEQ_PACKED);
    close_reader(&r);
    assert_int_equal(owner.used, 0);
    s.rig.rig.account.owner = NULL;
    close_stage(&s);
}

/* An answer that comes to something else brings that in, in the place of what it does not say any
 * more where only one may be there. Its own words, and the question's, are not looked for. */
static void follows_the_answer(void **state)
{
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    for (uint32_t most = 1; most <= 2; most++) {
        struct policy p = chosen;
        struct reader r;

        p.hydrate = most;
        open_reader(&s, &r, &p, 1, true);
        feed(&s, &r, 6 * L, row_a);
        settle(&s, &r);
        memcpy(ids + 6 * L, ids + 3 * L + 20, 20 * sizeof(*ids));
        memcpy(ids + 6 * L + 20, ids + 3 * L + 40, 4 * sizeof(*ids));
        memcpy(ids + 6 * L + 24, ids + L + 20, 40 * sizeof(*ids));
        memcpy(ids + 7 * L, ids + L + 20, 32 * sizeof(*ids));
        prompt(&s, &r, 20);
        memory_turn(&r.memory, 6 * L, 6 * L + 20);
        feed(&s, &r, 6 * L + 24, row_a);
        assert_int_equal(state_of(&r, 3), SEQ_RAW);
        wait_for(&s, &r, hydrate_more(&r.memory, 4, NULL));
        assert_true(state_of(&r, 3) == SEQ_RAW && state_of(&r, 1) == SEQ_PACKED);
        feed(&s, &r, 6 * L + 56, row_a);
        wait_for(&s, &r, hydrate_more(&r.memory, 32, NULL));
        assert_int_equal(state_of(&r, 1), SEQ_RAW);
        assert_int_equal(state_of(&r, 3), most == 2 ? SEQ_RAW : SEQ_PACKED);
        assert_int_equal(usage_of(&r).hydrated_tokens, most * L);
        assert_int_equal(r.memory.n_plain, 6 * L);
        feed(&s, &r, 7 * L + 32, row_a);
        settle(&s, &r);
        hydrate_less(&r.memory);
        wait_for(&s, &r, hydrate_more(&r.memory, 32, NULL));
        assert_int_equal(state_of(&r, 1), SEQ_RAW);
        close_reader(&r);
    }
    close_stage(&s);
}

/* A ranking of another prompt shows which one was taken: what was ranked before, as long as just
 * that is packed. */
static void ranked_before(void **state)
{
    struct reader r;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    for (int more = 0; more < 2; more++) {
        struct rank_job *k;

        open_reader(&s, &r, &said, 1, true);
        feed(&s, &r, 6 * L, row_a);
        settle(&s, &r);
        k = hydrate_rank_begin(&r.memory, ids + 3 * L + 20, 20);
        assert_non_null(k);
        while (!hydrate_rank_go(k))
            ;
        if (more) {
            feed(&s, &r, 8 * L, row_a);
            settle(&s, &r);
        }
        memcpy(ids + r.memory.n_ids, ids + L + 20, 20 * sizeof(*ids));
        wait_for(&s, &r, hydrate_begin(&r.memory, ids + r.memory.n_ids, 20, 20, k));
        assert_int_equal(state_of(&r, 3), more ? SEQ_PACKED : SEQ_RAW);
        assert_int_equal(state_of(&r, 1), more ? SEQ_RAW : SEQ_PACKED);
        rank_drop(k);
        close_reader(&r);
    }
    close_stage(&s);
}

/* Nothing is packed, or nothing may come back. */
static void nothing_to_rank(void **state)
{
    struct policy p = said;
    struct reader r;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
    open_reader(&s, &r, &p, 1, true);
    feed(&s, &r, L - 1, row_a);
    assert_null(hydrate_rank_begin(&r.memory, ids, 20));
    close_reader(&r);
    p.hydrate = 0;
    open_reader(&s, &r, &p, 1, true);
    feed(&s, &r, 4 * L, row_a);
    settle(&s, &r);
    assert_null(hydrate_rank_begin(&r.memory, ids, 20));
    rank_drop(NULL);
    close_reader(&r);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_seen),       cmocka_unit_test(taken_back),
        cmocka_unit_test(nobody_elses),  cmocka_unit_test(gives_way),
        cmocka_unit_test(owner_is_full), cmocka_unit_test(follows_the_answer),
        cmocka_unit_test(ranked_before), cmocka_unit_test(nothing_to_rank)
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);

    hydrate_rig_free();
    return r;
}
