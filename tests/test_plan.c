/* tests/test_plan.c - a step as a backend gets it. Would catch: rows with another token's id,
 * offset, page or slot, a piece that sees a segment too many or too few, gists that stand elsewhere
 * than the sequence has them, outputs of other rows, a count of pages that is not what the plan
 * takes, room that is taken and not refused, a forgotten segment that is listed. */
#include "engine/plan.h"

#include "engine/file/adapter.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define L       64u
#define N_VOCAB 1000u
#define ROWS    512u
#define MAX     (8 * L)

static const struct model tiny = { .n_layer = 1, .n_head = 2, .n_head_kv = 1, .head_dim = 8 };
static const struct adapter adapter = { .embedding = ADAPTER_EMBED_LAST, .n_gists = 3 };

struct bed {
    struct pool pool;
    struct pool_account account;
    struct seq seq;
    struct plan plan;
    uint32_t ids[MAX], beside[2 * L / PAGE_TOKENS];
};

static struct bed bed;

/* A sequence that has read n tokens; every: gists among them. */
static void open_bed(uint32_t n, uint32_t every)
{
    memset(&bed, 0, sizeof(bed));
    bed.account.limit = UINT32_MAX;
    assert_int_equal(
        pool_open(&bed.pool, NULL, &tiny, KV_F32, 100 * pool_page_bytes(&tiny, KV_F32), NULL), 0);
    assert_int_equal(seq_open(&bed.seq, &bed.pool, &bed.account, MAX, L, 0), 0);
    if (every)
        assert_int_equal(seq_interleave(&bed.seq, every, &adapter), 0);
    assert_int_equal(plan_open(&bed.plan, ROWS, bed.pool.n_pages), 0);
    for (uint32_t i = 0; i < MAX; i++)
        bed.ids[i] = (i * 37 + 11) % N_VOCAB;
    assert_int_equal(seq_reserve(&bed.seq, n), 0);
    memcpy(bed.seq.tokens, bed.ids, n * sizeof(*bed.ids));
    bed.seq.n_tokens = n;
}

static void close_bed(void)
{
    plan_close(&bed.plan);
    seq_close(&bed.seq);
    pool_close(&bed.pool);
}

/* Adds it, and compares the count that was told before with what was taken. */
static void add(const struct forward_run *run)
{
    uint32_t pages = plan_run_pages(run), rows = forward_run_rows(run);
    uint32_t had = bed.plan.n_pages, had_rows = bed.plan.n_rows;

    assert_int_equal(plan_add(&bed.plan, run, N_VOCAB), 0);
    assert_int_equal(bed.plan.n_pages - had, pages);
    assert_int_equal(bed.plan.n_rows - had_rows, rows);
}

static struct forward_run reading(uint32_t n, enum forward_want want)
{
    assert_int_equal(seq_reserve(&bed.seq, n), 0);
    return (struct forward_run){
        .seq = &bed.seq, .tokens = bed.ids + bed.seq.n_tokens, .n_tokens = n, .want = want
    };
}

/* Row i of the plan stands at key `key` of a raw segment. */
static void stands_at(uint32_t i, uint32_t segment, uint32_t key)
{
    const struct plan_row *row = &bed.plan.rows[i];

    assert_int_equal(row->q_off, key);
    assert_int_equal(row->k_off, key);
    assert_int_equal(row->page, seq_pages(&bed.seq, segment)[key / PAGE_TOKENS]);
    assert_int_equal(row->slot, key % PAGE_TOKENS);
}

/* The n-th earlier segment that a piece sees is the sequence's. */
static void sees(const struct plan_piece *p, uint32_t n, uint32_t segment)
{
    const struct plan_segment *g = &bed.plan.segments[p->first_segment + n];
    const struct seq_segment *want = &bed.seq.segments[segment];

    assert_true(n < p->n_segments);
    assert_int_equal(g->base, want->base);
    assert_int_equal(g->n_keys, want->n_keys);
    assert_memory_equal(bed.plan.pages + g->first_page, seq_pages(&bed.seq, segment),
                        seq_n_pages(want->n_keys) * sizeof(uint32_t));
}

/* 100 tokens are there, 150 come: three pieces, of which the last sees three segments. */
static void tokens_of_several_segments(void **state)
{
    static const uint32_t n[] = { 28, 64, 58 };
    struct forward_run run;
    uint32_t row = 0;

    (void)state;
    open_bed(100, 0);
    run = reading(150, FORWARD_WANT_LAST);
    add(&run);
    assert_int_equal(bed.plan.n_pieces, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const struct plan_piece *p = &bed.plan.pieces[i];

        assert_int_equal(p->row, row);
        assert_int_equal(p->n, n[i]);
        assert_int_equal(p->off, i ? 0 : 36);
        assert_int_equal(p->base, (1 + i) * L);
        assert_int_equal(p->n_segments, 1 + i);
        for (uint32_t s = 0; s < p->n_segments; s++)
            sees(p, s, s);
        assert_memory_equal(bed.plan.pages + p->first_page, seq_pages(&bed.seq, 1 + i),
                            seq_n_pages(p->off + p->n) * sizeof(uint32_t));
        for (uint32_t t = 0; t < p->n; t++, row++) {
            stands_at(row, 1 + i, p->off + t);
            assert_int_equal(bed.plan.rows[row].kind, PLAN_TOKEN);
            assert_int_equal(bed.plan.rows[row].id, bed.ids[100 + row]);
            assert_int_equal(bed.plan.rows[row].piece, i);
        }
    }
    assert_int_equal(row, bed.plan.n_rows);
    assert_int_equal(bed.plan.n_out, 1);
    assert_int_equal(bed.plan.out_rows[0], 149);
    assert_int_equal(bed.seq.n_tokens, 100); /* until the step is done */
    close_bed();
}

/* Two runs, one behind the other, and what the second wants: all. */
static void runs_side_by_side(void **state)
{
    struct forward_run run;
    struct seq fork;

    (void)state;
    open_bed(70, 0);
    assert_int_equal(seq_fork(&bed.seq, &fork), 0);
    run = reading(1, FORWARD_WANT_LAST);
    add(&run);
    assert_int_equal(seq_reserve(&fork, 3), 0);
    run = (struct forward_run){
        .seq = &fork, .tokens = bed.ids, .n_tokens = 3, .want = FORWARD_WANT_ALL
    };
    add(&run);
    assert_int_equal(bed.plan.n_pieces, 2);
    assert_int_equal(bed.plan.pieces[1].row, 1);
    assert_int_equal(bed.plan.rows[3].id, bed.ids[2]);
    assert_int_equal(bed.plan.n_out, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(bed.plan.out_rows[i], i);
    /* The open page was shared: each writes to its own. */
    assert_int_not_equal(bed.plan.rows[0].page, bed.plan.rows[1].page);
    seq_close(&fork);
    close_bed();
}

/* A gist behind every 4 tokens: rows, ids and outputs. */
static void gists_among_tokens(void **state)
{
    struct forward_run run;
    const struct plan_piece *p;

    (void)state;
    open_bed(6, 4); /* key 7 comes next: 6 tokens, and one gist behind the fourth */
    run = reading(7, FORWARD_WANT_ALL);
    add(&run);
    p = &bed.plan.pieces[0];
    assert_int_equal(bed.plan.n_rows, 9); /* tokens 6 7 G 8 9 10 11 G 12 */
    assert_int_equal(p->gists.first, 2);
    assert_int_equal(p->gists.step, 5);
    assert_int_equal(p->gists.n, 2);
    assert_ptr_equal(p->adapter, &adapter);
    for (uint32_t i = 0, token = 6; i < 9; i++) {
        const struct plan_row *row = &bed.plan.rows[i];
        bool gist = i == 2 || i == 7;

        stands_at(i, 0, 7 + i);
        assert_int_equal(row->kind, gist ? PLAN_GIST : PLAN_TOKEN);
        assert_int_equal(row->id, bed.ids[gist ? token - 1 : token]);
        if (gist)
            assert_int_equal(row->gist, i == 2 ? 1 : 2);
        token += !gist;
    }
    assert_int_equal(bed.plan.n_out, 7);
    assert_int_equal(bed.plan.out_rows[2], 3); /* token 8: the gist has no output */
    close_bed();
}

/* Compressed and forgotten segments: only keys are listed. */
static void forgotten_segments(void **state)
{
    struct forward_run run;
    const struct plan_piece *p;

    (void)state;
    open_bed(3 * L + 5, 0);
    seq_shorten(&bed.seq, 0, 0);
    seq_shorten(&bed.seq, 1, 17);
    run = reading(1, FORWARD_WANT_NONE);
    add(&run);
    p = &bed.plan.pieces[0];
    assert_int_equal(p->n_segments, 2);
    sees(p, 0, 1);
    sees(p, 1, 2);
    assert_int_equal(p->base, 17 + L);
    assert_int_equal(bed.plan.n_out, 0);
    close_bed();
}

static void observers(void **state)
{
    float weights[1];
    struct forward_run run = { .seq = &bed.seq,
                               .n_tokens = 10,
                               .observe = { .weights = weights, .first = L + 54 } };

    (void)state;
    open_bed(2 * L + 3, 0);
    add(&run);
    assert_true(bed.plan.observes);
    assert_int_equal(bed.plan.pieces[0].n_segments, 1);
    assert_int_equal(bed.plan.pieces[0].off, 54);
    assert_false(bed.plan.pieces[0].again);
    assert_int_equal(bed.plan.rows[9].id, bed.ids[2 * L - 1]);
    assert_int_equal(bed.plan.rows[9].page, PLAN_NONE); /* its K and V are there */
    /* Read again behind the segment: into other pages, and the segment itself is seen. */
    run.observe.pages = bed.beside;
    for (uint32_t i = 0; i < L / PAGE_TOKENS; i++)
        bed.beside[i] = 90 + i;
    add(&run);
    assert_int_equal(bed.plan.pieces[1].n_segments, 2);
    sees(&bed.plan.pieces[1], 1, 1);
    assert_true(bed.plan.pieces[1].again);
    assert_int_equal(bed.plan.pieces[1].base, 2 * L);
    assert_int_equal(bed.plan.rows[19].page, 93);
    assert_int_equal(bed.plan.rows[19].slot, 15);
    close_bed();
}

/* A run of gists 2 to 4 of segment 1, a gist for 8 tokens. */
static struct forward_run gists_of_one(enum forward_gists kind, uint32_t sinks)
{
    struct forward_run run = { .seq = &bed.seq, .n_tokens = 3 };

    open_bed(2 * L + 3, 0);
    for (uint32_t i = 0; i < 2 * L / PAGE_TOKENS; i++)
        bed.beside[i] = 80 + i;
    run.gists.kind = kind;
    run.gists.adapter = &adapter;
    run.gists.segment = 1;
    run.gists.first = 2;
    run.gists.ratio = 8;
    run.gists.sinks = sinks;
    run.gists.pages = bed.beside;
    return run;
}

static void gists_beside_a_segment(void **state)
{
    struct forward_run run = gists_of_one(FORWARD_SIDE, 4);
    const struct plan_row *row = &bed.plan.rows[1]; /* gist 3: its snippet ends at 4 + 4 * 8 - 1 */
    const struct plan_piece *p = &bed.plan.pieces[0];

    (void)state;
    add(&run);
    assert_true(p->side);
    assert_int_equal(row->q_off, 35);
    assert_int_equal(row->k_off, 7);
    assert_int_equal(row->page, 80);
    assert_int_equal(row->slot, 7);
    assert_int_equal(row->id, bed.ids[L + 35]);
    assert_int_equal(row->gist, 2); /* the adapter's last */
    assert_int_equal(p->n_segments, 1);
    assert_int_equal(p->gists.n, 3);
    close_bed();
}

static void gists_behind_a_segment(void **state)
{
    struct forward_run run = gists_of_one(FORWARD_BEHIND, 0);
    const struct plan_row *row = &bed.plan.rows[1];
    const struct plan_piece *p = &bed.plan.pieces[0];
    float hidden[1];

    (void)state;
    run.gists.hidden = hidden;
    run.want = FORWARD_WANT_ALL;
    add(&run);
    assert_int_equal(row->q_off, 3); /* gist 3 of the whole segment's snippets */
    assert_int_equal(row->id, bed.ids[L + 31]);
    assert_int_equal(p->n_segments, 2);
    sees(p, 1, 1);
    assert_int_equal(p->base, 2 * L);
    assert_int_equal(p->wanted.n, 3);
    assert_int_equal(bed.plan.n_out, 3);
    assert_int_equal(bed.plan.out_rows[0], 0);
    close_bed();
}

static void soft_tokens(void **state)
{
    struct forward_run run = gists_of_one(FORWARD_SOFT, 4);
    const struct plan_row *row = &bed.plan.rows[1];
    const struct plan_piece *p = &bed.plan.pieces[0];
    float hidden[1];

    (void)state;
    run.gists.hidden = hidden;
    add(&run);
    assert_int_equal(row->kind, PLAN_SOFT);
    assert_int_equal(row->id, 1);
    assert_int_equal(row->q_off, 7);
    assert_ptr_equal(p->soft, hidden);
    assert_int_equal(p->base, L);
    assert_int_equal(p->n_segments, 1);
    assert_int_equal(p->gists.n, 0); /* the base model's matrices */
    close_bed();
}

static void room(void **state)
{
    struct forward_run run;
    struct plan small;

    (void)state;
    open_bed(0, 0);
    assert_int_equal(plan_open(&small, 10, 2), 0);
    run = reading(11, FORWARD_WANT_NONE);
    assert_int_equal(plan_add(&small, &run, N_VOCAB), -E2BIG); /* rows */
    run.n_tokens = 10;
    assert_int_equal(plan_add(&small, &run, N_VOCAB), 0);
    plan_clear(&small);
    bed.seq.n_tokens = 11;
    run = reading(30, FORWARD_WANT_NONE);
    run.n_tokens = 10;
    assert_int_equal(plan_add(&small, &run, N_VOCAB), 0); /* 21 tokens: two pages */
    plan_clear(&small);
    bed.seq.n_tokens = 30;
    run.n_tokens = 3;
    assert_int_equal(plan_add(&small, &run, N_VOCAB), -E2BIG); /* a third page */
    run.n_tokens = 2;
    assert_int_equal(plan_add(&small, &run, N_VOCAB), 0);
    plan_clear(&small);
    bed.ids[31] = N_VOCAB;
    run.tokens = bed.ids + 30;
    assert_int_equal(plan_add(&small, &run, N_VOCAB), -EINVAL);
    plan_close(&small);
    close_bed();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_of_several_segments),
        cmocka_unit_test(runs_side_by_side),
        cmocka_unit_test(gists_among_tokens),
        cmocka_unit_test(forgotten_segments),
        cmocka_unit_test(observers),
        cmocka_unit_test(gists_beside_a_segment),
        cmocka_unit_test(gists_behind_a_segment),
        cmocka_unit_test(soft_tokens),
        cmocka_unit_test(room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
