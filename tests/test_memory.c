/* tests/test_memory.c - a model-based test of memory, sequences and pool. Would catch: a session
 * that is not a function of its ids and policy, pages lost or shared by mistake, a write that
 * another session sees, a budget that is passed, an abandoned step that leaves something behind.
 *
 * Sessions of several policies and two accounts are appended to, forked, rewound and closed at
 * random, in batches of random size, some of which are abandoned between two layers. After every
 * few moves one of them must give the logits, bit for bit, of a fresh sequence that is fed the same
 * ids alone.
 */
#include "daemon/prefix.h"
#include "tests/support/memory_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N       10u
#define L       64u
#define IDS_MAX 700u
#define BATCH   96u
#define STEPS   8000u
#define ACCOUNT 50u /* pages: less than the sessions would like to have */
#define MODEL   "tests/data/tiny_smollm2.gguf"
#define ADAPTER "tests/data/gist_smollm2"

#define NO_BUDGET 4096u
static struct policy policies[] = {
    { .spec = { COMPRESS_FULL, 1, 0, NULL }, .seg_len = L, .budget = NO_BUDGET },
    { .spec = { COMPRESS_NONE, 1, 0, NULL }, .seg_len = L, .keep_tail = 5, .budget = NO_BUDGET },
    { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = L, .budget = NO_BUDGET },
    { .spec = { COMPRESS_FINE_KV, 2, 0, NULL }, .seg_len = L, .keep_tail = 100, .budget = 290 },
    { .spec = { COMPRESS_SELECT, 4, 4, NULL }, .seg_len = L, .budget = 150 },
    { .spec = { COMPRESS_SELECT, 16, 16, NULL },
      .seg_len = L,
      .keep_tail = 33,
      .budget = NO_BUDGET,
      .fixed = true },
    { .spec = { COMPRESS_SELECT, 4, 0, NULL },
      .seg_len = L,
      .keep_tail = 10,
      .budget = 300,
      .late = true },
    { .spec = { COMPRESS_NONE, 1, 0, NULL }, .seg_len = L, .budget = 300, .late = true },
    { .spec = { COMPRESS_SELECT_REREAD, 4, 4, NULL }, .seg_len = L, .keep_tail = 7, .budget = 200 },
    { .spec = { COMPRESS_FIT, 4, 4, NULL }, .seg_len = L, .budget = 170 },
    { .spec = { COMPRESS_FIT, 2, 0, NULL },
      .seg_len = L,
      .keep_tail = 20,
      .budget = 220,
      .late = true,
      .fixed = true },
    { .spec = { COMPRESS_FIT, 8, 4, NULL }, .seg_len = L, .keep_tail = 20, .budget = NO_BUDGET },
    { .spec = { COMPRESS_FINE_KV, 4, 4, NULL }, .seg_len = L, .budget = NO_BUDGET },
    { .spec = { COMPRESS_FINE_KV, 16, 0, NULL },
      .seg_len = L,
      .keep_tail = 50,
      .budget = NO_BUDGET },
    { .spec = { COMPRESS_FINE_KV, 4, 4, NULL }, .seg_len = L, .budget = 140 },
    { .spec = { COMPRESS_FINE_KV, 8, 0, NULL },
      .seg_len = L,
      .keep_tail = 20,
      .budget = 256,
      .late = true,
      .fixed = true },
    { .spec = { COMPRESS_COARSE_KV, 8, 4, NULL }, .seg_len = L, .budget = NO_BUDGET },
    { .spec = { COMPRESS_COARSE_KV, 4, 1, NULL },
      .seg_len = L,
      .keep_tail = 30,
      .budget = 190,
      .late = true },
    { .spec = { COMPRESS_COARSE_REC, 8, 2, NULL }, .seg_len = L, .budget = NO_BUDGET },
    { .spec = { COMPRESS_COARSE_REC, 2, 0, NULL }, .seg_len = L, .keep_tail = 40, .budget = 230 },
    { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = L, .budget = NO_BUDGET },
    { .spec = { COMPRESS_FINE_KV, 2, 1, NULL }, .seg_len = L, .keep_tail = 12, .budget = 256 },
};
#define N_POLICIES (sizeof(policies) / sizeof(*policies))

/* The adapters, and the first of the policies that have each. */
static const struct {
    const char *suffix;
    size_t first;
} gists[] = { { "", 12 }, { "_coarse", 16 }, { "_rec", 18 }, { "_among", 20 } };
#define N_GISTS (sizeof(gists) / sizeof(*gists))

struct actor {
    bool open;
    size_t policy;
    struct seq seq;
    struct memory memory;
    uint32_t want[IDS_MAX], n_want; /* what it should hold: ids past memory.n_ids are to be read */
};

struct stage {
    struct memory_rig rig;
    struct prefix *prefix;
    struct pool_account accounts[2], spare;
    struct actor actors[N];
    float *got, *expected; /* (n_vocab) */
    unsigned seed, stop_after, n_refused, n_stopped, n_adopted, n_thinned;
    bool whole;                    /* what is due is done at once */
    unsigned n_packed[N_POLICIES]; /* comparisons with a compressed segment in them */
};

static uint32_t draw(struct stage *s, uint32_t n)
{
    return (uint32_t)rand_r(&s->seed) % n;
}

/* --- one step, as the scheduler's ------------------------------------------------------------- */

static bool stop(void *arg)
{
    struct stage *s = arg;

    return s->stop_after && --s->stop_after == 0;
}

/* It wants more than there is, of what it says is short. */
static void check_need(const struct actor *a, const struct memory_need *need)
{
    const struct pool *p = a->seq.pool;

    assert_true(need->wanted > need->had);
    if (need->cause == MEMORY_BUDGET)
        assert_int_equal(need->had, a->memory.policy.budget);
    else if (need->cause == MEMORY_CLIENT)
        assert_int_equal(need->had, a->seq.account->limit - a->seq.account->used);
    else
        assert_int_equal(need->had, p->n_free + p->n_cached);
    assert_int_not_equal(need->cause, MEMORY_WAITING);
}

/* What an actor reads next: false when it holds all that it should, or there are no pages for it.
 */
static bool plan(struct stage *s, struct actor *a, uint32_t max, struct forward_run *ret)
{
    struct memory_need need;
    uint64_t begins = 0, past = 1;
    uint32_t n, room;

    max = seq_tokens_of_rows(&a->seq, max); /* as daemon/batch.c */
    if (a->memory.n_ids == 0 && a->n_want > 0)
        s->n_adopted += memory_adopt(&a->memory, a->want, a->n_want) > 0;
    n = a->n_want - a->memory.n_ids;
    /* At once, in parts, or not now since others had all of the time. */
    memory_settle(&a->memory, s->whole || draw(s, 4) ? NULL : draw(s, 4) ? &begins : &past);
    if (memory_behind(&a->memory)) {
        int r = memory_plan(&a->memory, max, ret, &need);

        if (r == -ENOSPC)
            check_need(a, &need);
        s->n_refused += r == -ENOSPC;
        return r == 0;
    }
    room = memory_room(&a->memory);
    n = n < max ? n : max;
    n = n < room ? n : room;
    *ret = (struct forward_run){ .seq = &a->seq,
                                 .tokens = a->want + a->memory.n_ids,
                                 .n_tokens = n,
                                 .want = FORWARD_WANT_LAST };
    if (n == 0)
        return false;
    /* Who does not look has to read once more what it missed. */
    if (draw(s, 4))
        memory_watch(&a->memory, ret);
    if (seq_reserve(&a->seq, n) == 0)
        return true;
    s->n_refused++;
    return false;
}

/* A batch of some actors; logits of the last token of `keep`, if it is in it, to ret. */
static bool step(struct stage *s, struct actor *const *actors, uint32_t n, bool may_stop,
                 const struct actor *keep, float *ret)
{
    struct forward_run runs[N];
    struct actor *who[N];
    struct forward_stop told = { stop, s };
    uint32_t n_runs = 0, left = BATCH, n_out, out = 0;
    int r;

    /* A token with the gist behind it takes two rows. */
    for (uint32_t i = 0; i < n && left > 1; i++)
        if (plan(s, actors[i], 2 + draw(s, left - 1), &runs[n_runs])) {
            left -= forward_run_rows(&runs[n_runs]);
            who[n_runs++] = actors[i];
        }
    if (n_runs == 0)
        return false;
    s->stop_after = may_stop && draw(s, 8) == 0 ? 1 + draw(s, 2) : 0;
    r = forward_step(&s->rig.rig.forward, runs, n_runs, &told, &n_out);
    if (r == -ECANCELED) {
        s->n_stopped++;
        return true;
    }
    assert_int_equal(r, 0);
    for (uint32_t i = 0; i < n_runs; i++) {
        memory_ran(&who[i]->memory, &runs[i]);
        if (who[i] == keep && runs[i].want == FORWARD_WANT_LAST)
            (void)forward_logits(&s->rig.rig.forward, out, 1, ret);
        out +=
            runs[i].want == FORWARD_WANT_ALL ? runs[i].n_tokens : runs[i].want == FORWARD_WANT_LAST;
    }
    assert_int_equal(out, n_out);
    return true;
}

/* --- moves ------------------------------------------------------------------------------------ */

static void open_actor(struct stage *s, struct actor *a, size_t policy,
                       struct pool_account *account)
{
    const struct policy *p = &policies[policy];

    assert_int_equal(seq_open(&a->seq, &s->rig.rig.pool, account, IDS_MAX, L, 0), 0);
    assert_int_equal(memory_init(&a->memory, p, &s->rig.served, &a->seq), 0);
    a->policy = policy;
    a->n_want = 0;
    a->open = true;
}

static void close_actor(struct actor *a)
{
    memory_fini(&a->memory);
    seq_close(&a->seq);
    a->open = false;
}

static void append(struct stage *s, struct actor *a)
{
    uint32_t n = 1 + draw(s, draw(s, 4) ? 20 : 200);

    if (a->n_want + n > IDS_MAX)
        n = IDS_MAX - a->n_want;
    for (uint32_t i = 0; i < n; i++)
        a->want[a->n_want++] = draw(s, s->rig.rig.model->n_vocab);
}

static void rewind_actor(struct stage *s, struct actor *a)
{
    uint32_t n = a->n_want ? draw(s, a->n_want + 1) : 0;

    if (draw(s, 2) && a->n_want > 10)
        n = a->n_want - draw(s, 10);
    a->n_want = n;
    if (n >= a->memory.n_ids)
        return;
    memory_rewind(&a->memory, n);
}

static void fork_actor(struct stage *s, const struct actor *a, struct actor *to)
{
    int r;

    if (to->open)
        close_actor(to);
    r = seq_fork(&a->seq, &to->seq);
    if (r == -ENOSPC) { /* the account */
        s->n_refused++;
        return;
    }
    assert_int_equal(r, 0);
    assert_int_equal(memory_fork(&a->memory, &to->memory, &to->seq), 0);
    memcpy(to->want, a->want, sizeof(a->want));
    to->n_want = a->n_want;
    to->policy = a->policy;
    to->open = true;
}

static void begin_like(struct actor *a, const struct actor *other)
{
    if (other->open) {
        a->n_want = other->n_want;
        memcpy(a->want, other->want, sizeof(a->want));
    }
}

static void move(struct stage *s)
{
    struct actor *a = &s->actors[draw(s, N)];

    if (!a->open) {
        const struct actor *other = &s->actors[draw(s, N)];
        size_t policy = draw(s, N_POLICIES);

        if (other->open && draw(s, 2))
            policy = other->policy;
        open_actor(s, a, policy, &s->accounts[draw(s, 2)]);
        memory_share(&a->memory, s->prefix, draw(s, 3) ? draw(s, 2) : PREFIX_PUBLIC,
                     draw(s, 5) == 0);
        if (draw(s, 4))
            begin_like(a, other);
        return;
    }
    switch (draw(s, 12)) {
    case 0:
        close_actor(a);
        break;
    case 1:
    case 2:
        rewind_actor(s, a);
        break;
    case 3: {
        struct actor *to = &s->actors[draw(s, N)];

        if (to != a)
            fork_actor(s, a, to);
        break;
    }
    default:
        append(s, a);
    }
}

/* --- what must hold --------------------------------------------------------------------------- */

/* Who shares a page is of one owner. */
static void check_owner(const struct actor *a, uint32_t page, const struct actor **of)
{
    if (of[page])
        assert_int_equal(of[page]->memory.shared.owner, a->memory.shared.owner);
    of[page] = a;
}

/* What stands in no table of a session is free, or only the prefixes have it; each account pays for
 * its sessions' tables. */
static void check_pages(const struct stage *s)
{
    static uint32_t refs[1 << 16];
    static const struct actor *of[1 << 16];
    uint32_t used[2] = { 0, 0 }, n_free = 0, n_cached = 0;

    memset(refs, 0, s->rig.rig.pool.n_pages * sizeof(*refs));
    memset(of, 0, s->rig.rig.pool.n_pages * sizeof(*of));
    for (uint32_t i = 0; i < N; i++) {
        const struct seq *q = &s->actors[i].seq;
        uint32_t n = 0;

        if (!s->actors[i].open)
            continue;
        for (uint32_t k = 0; k * L < q->n_reserved; k++) {
            uint32_t keys = q->segments[k].n_keys, behind = q->n_reserved - k * L;

            if (q->segments[k].state == SEQ_RAW && behind < L)
                keys = seq_raw_keys(q, behind);
            for (uint32_t p = 0; p * POOL_PAGE_TOKENS < keys; p++, n++) {
                refs[seq_pages(q, k)[p]]++;
                check_owner(&s->actors[i], seq_pages(q, k)[p], of);
            }
        }
        assert_int_equal(n, q->n_pages);
        for (uint32_t p = 0; p < s->actors[i].memory.side.n_pages; p++, n++)
            refs[s->actors[i].memory.side.pages[p]]++;
        used[q->account - s->accounts] += n;
    }
    for (uint32_t p = 0; p < s->rig.rig.pool.n_pages; p++) {
        n_free += s->rig.rig.pool.refs[p] == 0;
        n_cached += refs[p] == 0 && s->rig.rig.pool.refs[p] > 0;
        assert_true(s->rig.rig.pool.refs[p] >= refs[p] && s->rig.rig.pool.refs[p] <= refs[p] + 1);
    }
    assert_int_equal(n_free, s->rig.rig.pool.n_free);
    assert_int_equal(n_cached, s->rig.rig.pool.n_cached);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(used[i], s->accounts[i].used);
        assert_true(used[i] <= s->accounts[i].limit);
    }
}

/* One token more gives what it gives a fresh sequence that reads the same ids, alone and in batches
 * of its own. */
static void check_logits(struct stage *s, struct actor *a)
{
    struct actor *one[1] = { a }, *other[1];
    struct actor *fresh = calloc(1, sizeof(*fresh));
    size_t row = s->rig.rig.model->n_vocab * sizeof(float);

    while (a->n_want == IDS_MAX)
        rewind_actor(s, a);
    a->want[a->n_want++] = draw(s, s->rig.rig.model->n_vocab);
    s->whole = true;
    while (step(s, one, 1, false, a, s->got))
        ;
    if (a->memory.n_ids == a->n_want && !a->memory.early) { /* else there were no pages */
        other[0] = fresh;
        open_actor(s, fresh, a->policy, &s->spare);
        memcpy(fresh->want, a->want, sizeof(a->want));
        fresh->n_want = a->n_want;
        while (step(s, other, 1, false, fresh, s->expected))
            ;
        assert_int_equal(fresh->memory.n_ids, fresh->n_want);
        if (!memory_behind(&a->memory)) { /* else there were no pages to compress with */
            assert_true(ladder_equal(&a->memory.ladder, &fresh->memory.ladder));
            assert_int_equal(seq_position(&a->seq, a->n_want),
                             seq_position(&fresh->seq, a->n_want));
        }
        s->n_thinned += a->memory.ladder.n_at[2] > 0;
        s->n_packed[a->policy] += a->memory.ladder.n_at[1] > 0;
        if (memcmp(s->got, s->expected, row) != 0)
            fail_msg("%s, ratio %u, sinks %u, tail %u, adapter %d: %u ids give other logits",
                     compress_name(a->memory.policy.spec.method), a->memory.policy.spec.ratio,
                     a->memory.policy.spec.sinks, a->memory.policy.keep_tail,
                     a->memory.policy.spec.adapter != NULL, a->n_want);
        close_actor(fresh);
    }
    s->whole = false;
    free(fresh);
}

static void open_adapters(const struct model *m, struct adapter *ret[N_GISTS])
{
    for (size_t g = 0; g < N_GISTS; g++) {
        size_t end = g + 1 < N_GISTS ? gists[g + 1].first : N_POLICIES;
        char path[96];

        (void)snprintf(path, sizeof(path), ADAPTER "%s.safetensors", gists[g].suffix);
        assert_int_equal(adapter_open(path, m, &ret[g], NULL), 0);
        for (size_t i = gists[g].first; i < end; i++) {
            policies[i].spec.adapter = ret[g];
            assert_int_equal(compress_check(&policies[i].spec, L, NULL), 0);
        }
    }
}

static void act(enum kv_type kv, unsigned seed, unsigned n_packed[N_POLICIES])
{
    static struct stage s;
    struct rig_opts opts = { .model = MODEL,
                             .cpu = "auto",
                             .kv = kv,
                             .threads = 2,
                             .max_batch = BATCH,
                             .max_tokens =
                                 (2 * ACCOUNT + 2 * (IDS_MAX / 16 + 1)) * POOL_PAGE_TOKENS };
    struct adapter *adapters[N_GISTS];
    struct actor *all[N];
    uint32_t n_checked = 0;

    memset(&s, 0, sizeof(s));
    s.seed = seed;
    assert_int_equal(memory_rig_open(&s.rig, &opts, NULL), 0);
    open_adapters(s.rig.rig.model, adapters);
    assert_int_equal(prefix_open(&s.rig.rig.pool, &s.prefix), 0);
    s.accounts[0].limit = s.accounts[1].limit = ACCOUNT;
    s.spare.limit = UINT32_MAX;
    s.got = malloc(s.rig.rig.model->n_vocab * sizeof(float));
    s.expected = malloc(s.rig.rig.model->n_vocab * sizeof(float));
    for (uint32_t i = 0; i < STEPS; i++) {
        uint32_t n = 0;

        move(&s);
        for (uint32_t k = 0; k < N; k++)
            if (s.actors[k].open && draw(&s, 2))
                all[n++] = &s.actors[k];
        (void)step(&s, all, n, true, NULL, NULL);
        check_pages(&s);
        if (i % 7 == 0 && n > 0) {
            check_logits(&s, all[draw(&s, n)]);
            n_checked++;
        }
    }
    /* It was a play with everything in it. */
    if (n_checked < 100 || s.n_refused < 10 || s.n_stopped < 10 || s.n_adopted < 10 ||
        s.n_thinned < 10)
        fail_msg("%u checked, %u refused, %u stopped, %u adopted, %u thinned", n_checked,
                 s.n_refused, s.n_stopped, s.n_adopted, s.n_thinned);
    for (size_t i = 0; i < N_POLICIES; i++)
        n_packed[i] += s.n_packed[i];
    for (uint32_t i = 0; i < N; i++)
        if (s.actors[i].open)
            close_actor(&s.actors[i]);
    assert_int_equal(s.rig.rig.pool.n_free + s.rig.rig.pool.n_cached, s.rig.rig.pool.n_pages);
    prefix_close(s.prefix);
    assert_int_equal(s.rig.rig.pool.n_free, s.rig.rig.pool.n_pages);
    for (size_t g = 0; g < N_GISTS; g++)
        adapter_close(adapters[g]);
    memory_rig_close(&s.rig);
    free(s.got);
    free(s.expected);
}

static void sessions_are_their_ids(void **state)
{
    unsigned n_packed[N_POLICIES] = { 0 };

    (void)state;
    act(KV_F16, 1, n_packed);
    act(KV_F32, 2, n_packed);
    act(KV_Q8_0, 3, n_packed);
    /* Over all three: packing takes as long as it takes, and one act alone may miss a late policy.
     */
    for (size_t i = 1; i < N_POLICIES; i++) /* the first keeps all */
        if (n_packed[i] == 0)
            fail_msg("policy %zu was never compared", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sessions_are_their_ids) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
