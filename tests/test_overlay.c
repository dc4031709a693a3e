/* tests/test_overlay.c - segments that are raw for a while although the ladder has them compressed.
 * Would catch: hydrated keys or pages that are not counted, or twice, by what a session may read,
 * by what it will need at most, or by an answer's usage; one that a rewind leaves behind; a
 * compressor that finds no scratch and does not wait.
 */
#include "engine/kv/compress_ops.h"
#include "tests/support/memory_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define L     64u
#define MODEL "tests/data/tiny_smollm2.gguf"

/* --- the set ---------------------------------------------------------------------------------- */

static void is_a_set(void **state)
{
    struct overlay o = { 0 };
    bool in[60] = { false };
    unsigned seed = 5, n = 0, n_refused = 0;

    (void)state;
    for (unsigned step = 0; step < 5000; step++) {
        uint32_t k = (uint32_t)rand_r(&seed) % 60;

        if (rand_r(&seed) % 50 == 0) {
            overlay_cut(&o, k);
            for (uint32_t i = k; i < 60; i++) {
                n -= in[i];
                in[i] = false;
            }
        } else if (in[k] || rand_r(&seed) % 4 == 0) {
            overlay_remove(&o, k);
            n -= in[k];
            in[k] = false;
        } else if (overlay_add(&o, k) == 0) {
            in[k] = true;
            n++;
        } else {
            assert_int_equal(n, OVERLAY_MAX);
            n_refused++;
        }
        assert_int_equal(o.n, n);
        for (uint32_t i = 0; i < 60; i++)
            assert_int_equal(overlay_has(&o, i), in[i]);
        for (uint32_t i = 1; i < o.n; i++)
            assert_true(o.segments[i - 1] < o.segments[i]);
    }
    assert_true(n_refused > 10);
}

/* Segments of 64 at ratio 8 without sinks: 64 raw keys, then 8, 4, ... */
static void counts_what_is_more(void **state)
{
    static const struct policy p = { .spec = { COMPRESS_FINE_KV, 8, 0, NULL },
                                     .seg_len = L,
                                     .budget = 256 };
    struct ladder l = { .n_checked = 10, .n_at = { 0, 10, 4, 2 } }; /* 0, 1: 2 keys; 2, 3: 4 */
    struct overlay o = { 0 };

    (void)state;
    assert_int_equal(overlay_keys(&o, &p, &l), 0);
    assert_int_equal(overlay_add(&o, 9), 0);
    assert_int_equal(overlay_keys(&o, &p, &l), 64 - 8);
    assert_int_equal(overlay_add(&o, 1), 0);
    assert_int_equal(overlay_add(&o, 3), 0);
    assert_int_equal(overlay_keys(&o, &p, &l), 3 * 64 - 8 - 4 - 2);
    assert_int_equal(overlay_pages(&o, &p, &l), 3 * (4 - 1));
}

/* --- a session's counts ----------------------------------------------------------------------- */

struct stage {
    struct memory_rig rig;
    struct seq seq;
    struct memory memory;
    uint32_t ids[2000];
    float *rows;
};

static void open_stage(struct stage *s, const struct policy *p)
{
    const struct rig_opts opts = { .model = MODEL,
                                   .cpu = "auto",
                                   .kv = KV_F16,
                                   .threads = 2,
                                   .max_batch = 128,
                                   .max_tokens = 4000 };

    assert_int_equal(memory_rig_open(&s->rig, &opts, NULL), 0);
    assert_int_equal(rig_seq(&s->rig.rig, 4000, L, 0, &s->seq), 0);
    assert_int_equal(memory_init(&s->memory, p, &s->rig.served, &s->seq), 0);
    for (uint32_t i = 0; i < 2000; i++)
        s->ids[i] = i * 7 % s->rig.rig.model->n_vocab;
    s->rows = malloc(sizeof(float) * 2000 * s->rig.rig.model->n_vocab);
}

static void close_stage(struct stage *s)
{
    memory_fini(&s->memory);
    seq_close(&s->seq);
    assert_int_equal(s->rig.rig.account.used, 0);
    memory_rig_close(&s->rig);
    free(s->rows);
}

static void feed(struct stage *s, uint32_t n)
{
    assert_int_equal(memory_rig_feed(&s->rig, &s->memory, s->ids, n, 100, s->rows), 0);
}

/* As whoever hydrates will do it; that these pages hold nothing of use does not matter here. */
static void hydrate(struct stage *s, uint32_t segment)
{
    uint32_t pages[L / 16];

    assert_int_equal(pool_take(s->seq.pool, s->seq.account, L / 16, pages), 0);
    seq_lengthen(&s->seq, segment, pages);
    assert_int_equal(overlay_add(&s->memory.overlay, segment), 0);
}

static struct wire_usage usage_of(const struct stage *s)
{
    struct wire_usage u = { .prompt_tokens = s->memory.n_ids };

    memory_account(&s->memory, &u);
    return u;
}

static void a_session_counts_them(void **state)
{
    static const struct policy p = { .spec = { COMPRESS_FINE_KV, 8, 4, NULL },
                                     .seg_len = L,
                                     .budget = 300 };
    static struct stage s;
    uint64_t keys, pages, keys2, pages2;
    struct wire_usage before, u;
    uint32_t room, gist_pages;

    (void)state;
    open_stage(&s, &p);
    feed(&s, 8 * L + 10); /* segment 0: 4 sinks, 7 gists, 4 left over; others 8 gists */
    assert_int_equal(s.memory.ladder.n_at[1], 8);
    before = usage_of(&s);
    room = memory_room(&s.memory);
    gist_pages = memory_gist_pages(&s.memory);
    memory_peak(&s.memory, 400, &keys, &pages);

    hydrate(&s, 3);
    u = usage_of(&s);
    assert_int_equal(u.gist_tokens, before.gist_tokens - L);
    assert_int_equal(u.raw_tokens, before.raw_tokens + L);
    assert_int_equal(u.gists, before.gists - 8);
    assert_int_equal(u.raw_tokens + u.gists, seq_position(&s.seq, s.seq.n_tokens));
    assert_int_equal(memory_gist_pages(&s.memory), gist_pages - 1);
    memory_peak(&s.memory, 400, &keys2, &pages2);
    assert_int_equal(keys2, keys + L - 8);
    assert_int_equal(pages2, pages + L / 16 - 1);

    hydrate(&s, 0);
    u = usage_of(&s);
    assert_int_equal(u.gist_tokens, before.gist_tokens - L - (L - 8));
    assert_int_equal(u.gists, before.gists - 8 - 7);
    assert_int_equal(u.raw_tokens + u.gists, seq_position(&s.seq, s.seq.n_tokens));
    /* 6 segments of 8 keys, 2 raw ones and 10 tokens: 186 of 300, so the next check is nearer. */
    assert_int_equal(memory_room(&s.memory), room);
    assert_int_equal(room, L - 10);
    hydrate(&s, 7);
    hydrate(&s, 6);
    assert_int_equal(memory_room(&s.memory), 300 - (4 * 8 + 4 * L + 10)); /* the budget is */
    assert_false(memory_full(&s.memory, 1));
    assert_true(memory_full(&s.memory, 2));
    memory_rewind(&s.memory, 5 * L + 3); /* and these two are gone */
    assert_int_equal(s.memory.overlay.n, 2);
    assert_int_equal(s.seq.n_tokens, 5 * L);
    close_stage(&s);
}

/* Its turn comes while it is hydrated: the ladder climbs, the keys stay, the counts are right. */
static void climbs_without_them(void **state)
{
    static const struct policy p = { .spec = { COMPRESS_SELECT, 4, 0, NULL },
                                     .seg_len = L,
                                     .budget = 300 };
    static struct stage s;
    struct wire_usage u;
    uint32_t n = 0, rung;
    uint64_t keys;

    (void)state;
    open_stage(&s, &p);
    do {
        struct ladder l = { 0 };

        n += L;
        ladder_climb(&p, &l, 0, n, NULL, NULL);
        rung = ladder_rung(&l, 1);
    } while (rung < 2);
    feed(&s, n); /* the check that takes segment 1 there is due now */
    assert_int_equal(ladder_rung(&s.memory.ladder, 1), 1);
    hydrate(&s, 1);
    feed(&s, 5);
    assert_int_equal(ladder_rung(&s.memory.ladder, 1), 2);
    assert_int_equal(s.seq.segments[0].n_keys, 8);
    assert_int_equal(s.seq.segments[1].state, SEQ_RAW);
    assert_int_equal(s.seq.segments[1].n_keys, L);
    u = usage_of(&s);
    assert_int_equal(u.raw_tokens, L + 5);
    assert_int_equal(u.raw_tokens + u.gists, seq_position(&s.seq, s.seq.n_tokens));
    memory_peak(&s.memory, 0, &keys, NULL);
    assert_int_equal(keys, seq_position(&s.seq, s.seq.n_tokens));
    close_stage(&s);
}

/* --- the scratch is full ---------------------------------------------------------------------- */

static void waits_for_scratch(void **state)
{
    static const struct policy p = { .spec = { COMPRESS_SELECT, 4, 0, NULL },
                                     .seg_len = L,
                                     .budget = 300 };
    static struct stage s;
    struct compressor *c;
    struct memory_need need;
    struct forward_run run;
    uint32_t n_out, used;
    void *others;

    (void)state;
    open_stage(&s, &p);
    feed(&s, L);
    c = s.rig.served.compressor;
    used = s.seq.account->used;
    others = scratch_take(&c->sides, c->sides.len);
    assert_non_null(others);
    memory_settle(&s.memory, NULL);
    assert_true(memory_behind(&s.memory));
    assert_int_equal(memory_plan(&s.memory, 128, &run, &need), -EAGAIN);
    assert_int_equal(need.cause, MEMORY_WAITING);
    assert_int_equal(s.seq.account->used, used); /* who waits holds nothing */
    scratch_give(&c->sides, others);
    assert_int_equal(memory_plan(&s.memory, 10, &run, &need), 0);
    assert_int_equal(run.n_tokens, 10);
    assert_int_equal(forward_step(&s.rig.rig.forward, &run, 1, NULL, &n_out), 0);
    memory_ran(&s.memory, &run);
    assert_true(compress_scratch_used(c) > 0);
    memory_rest(&s.memory); /* nobody works on it: others can have the scratch */
    assert_int_equal(compress_scratch_used(c), 0);
    feed(&s, 10);
    assert_int_equal(s.seq.segments[0].state, SEQ_PACKED);
    assert_int_equal(compress_scratch_used(c), 0);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(is_a_set),
                                        cmocka_unit_test(counts_what_is_more),
                                        cmocka_unit_test(a_session_counts_them),
                                        cmocka_unit_test(climbs_without_them),
                                        cmocka_unit_test(waits_for_scratch) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
