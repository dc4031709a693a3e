/* tests/test_hydrate_model.c - thousands of steps of prompts, answers, forks, rewinds and
 * evictions, each session compared with one that reads the same anew. Would catch: raw keys that
 * are not those that a segment had, or gists, after segments have come and gone in any order;
 * budgets that are passed; pages that are lost.
 */
#include "tests/support/hydrate_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a prompt brought back. */
struct set {
    uint32_t n, segments[OVERLAY_MAX];
};

static struct set sets[40000];
static uint32_t n_sets;

static const struct policy policies[] = {
    { .spec = { COMPRESS_SELECT, 4, 4, NULL }, .seg_len = L, .budget = 900, .hydrate = 4 },
    { .spec = { COMPRESS_FINE_KV, 8, 4, NULL },
      .seg_len = L,
      .budget = 900,
      .hydrate = UINT32_MAX },
    { .spec = { COMPRESS_NONE, 1, 0, NULL }, .seg_len = L, .budget = 700, .hydrate = 2 },
    { .spec = { COMPRESS_SELECT, 8, 4, NULL },
      .seg_len = L,
      .budget = 900,
      .hydrate = 4,
      .automatic = true },
};

/* Before the token at `at`, behind a token that was read behind `had`: what was there when the
 * segment that ends here was packed, and then what the next one is read behind. */
static void change(struct stage *s, struct reader *x, const struct reader *r, uint32_t at,
                   uint32_t had)
{
    uint32_t k = at / L - 1, under = r->under[at];

    if (at % L == 0 && k < r->n_packed && r->packed_under[k] == had)
        settle(s, x);
    if (under == had)
        return;
    hydrate_end(&x->memory);
    settle(s, x);
    if (under)
        wait_for(s, x, hydrate_bring(&x->memory, sets[under].segments, sets[under].n));
    assert_int_equal(x->memory.hydration.missed, 0);
}

/* The same tokens, each read behind the segments that it was read behind; all raw keys are there.
 * ret: logits of the last one. */
static void anew(struct stage *s, const struct reader *r, float *ret)
{
    uint32_t n = r->memory.n_ids, end;
    struct reader x;

    open_reader(s, &x, &r->memory.policy, 1, false);
    for (uint32_t at = 0; at < n; at = end) {
        if (at > 0)
            change(s, &x, r, at, r->under[at - 1]);
        for (end = at + 1; end < n - 1 && end % L && r->under[end] == r->under[at];)
            end++;
        feed(s, &x, end, ret);
    }
    close_reader(&x);
}

static void check_counts(const struct reader *r)
{
    const struct wire_usage u = usage_of(r);
    const struct seq *q = &r->seq;

    assert_true(seq_position(q, q->n_tokens) <= r->memory.policy.budget);
    assert_true(q->account->used <= q->account->limit);
    assert_int_equal(u.hydrated_tokens % L, 0);
    assert_true(u.hydrated_tokens <= u.raw_tokens && u.missed_tokens <= u.gist_tokens);
    if (r->memory.n_ids == q->n_tokens)
        assert_int_equal(u.raw_tokens + u.gists, seq_position(q, q->n_tokens));
}

struct world {
    struct stage here, there; /* there: nothing is ever short */
    const struct policy *policy;
    struct reader r[3];
    uint32_t n_readers, n_brought, n_again, n_near, n_own, n_turn, n_less, n_more, n_compared;
    unsigned seed;
};

/* The ids of readers differ from where they parted, and the functions above read from one array. */
static void take_ids(const struct reader *r)
{
    memcpy(ids, r->seq.tokens, r->memory.n_ids * sizeof(*ids));
}

static uint32_t one_of(struct world *w, uint32_t n)
{
    return (uint32_t)rand_r(&w->seed) % n;
}

/* n tokens more: new ones, or for a prompt some that it has. */
static void put_ids(struct world *w, const struct reader *r, uint32_t n, bool known)
{
    uint32_t had = r->memory.n_ids, from = had > n ? one_of(w, had - n) : 0;

    take_ids(r);
    for (uint32_t i = 0; i < n; i++)
        ids[had + i] = known && had > n ? ids[from + i] : 3 + one_of(w, 250);
}

/* Segments that were packed since the last time. */
static void note_packed(struct reader *r, uint32_t under)
{
    uint32_t n = r->memory.ladder.n_at[1];

    for (uint32_t k = r->n_packed; k < n; k++)
        r->packed_under[k] = under;
    r->n_packed = n;
}

static uint32_t under_now(const struct reader *r)
{
    return hydrate_is_on(&r->memory) ? r->now : 0;
}

/* What is read next is read behind these. */
static void note_held(struct world *w, struct reader *r)
{
    const struct hydration *h = &r->memory.hydration;
    struct set now = { .n = 0 };

    for (uint32_t i = 0; i < h->n; i++) {
        if (!h->held[i].pages)
            continue;
        now.segments[now.n++] = h->held[i].segment;
        w->n_turn += h->held[i].from == HYDRATE_TURN;
    }
    if (now.n == 0 || memcmp(&sets[r->now], &now, sizeof(now)) == 0)
        return;
    r->now = ++n_sets;
    sets[n_sets] = now;
}

/* Those that a rewind has left to be read again, too. Segments of the turn stay when they are
 * packed, so each time that one is full others may be there. */
static void read_ids(struct world *w, struct reader *r, uint32_t n)
{
    uint32_t all = r->memory.n_ids + n;

    while (r->memory.n_ids < all) {
        uint32_t end = (r->memory.n_ids / L + 1) * L, under = under_now(r);

        end = end < all ? end : all;
        for (uint32_t i = r->seq.n_tokens; i < end; i++)
            r->under[i] = under;
        feed(&w->here, r, end, row_a);
        settle(&w->here, r);
        note_packed(r, under);
        note_held(w, r);
        check_counts(r);
    }
}

static bool was_computed(const struct reader *r, const struct hydrated *h)
{
    const struct own *o = &r->memory.own;

    for (uint32_t i = 0; i < o->n; i++)
        if (o->marks[i].segment == h->segment)
            return o->marks[i].since > 0;
    return h->from == HYDRATE_AGAIN;
}

/* What is computed again was read behind gists alone, if that was before the first prompt that
 * brought something back: it is what it was. Else it is near to that, and what is read from here on
 * can't be computed anew elsewhere. */
static void note_again(struct world *w, struct reader *r, uint32_t n_plain)
{
    const struct hydration *h = &r->memory.hydration;

    for (uint32_t i = 0; i < h->n; i++) {
        bool again = was_computed(r, &h->held[i]) || h->held[i].from == HYDRATE_AGAIN;

        w->n_again += h->held[i].from == HYDRATE_AGAIN;
        if ((h->held[i].segment + 1) * L <= n_plain)
            continue;
        w->n_near += again;
        w->n_own += !again;
        if (again && r->n_near > r->seq.n_tokens)
            r->n_near = r->seq.n_tokens;
    }
}

static void ask(struct world *w, struct reader *r, uint32_t n)
{
    struct hydration *h = &r->memory.hydration;
    uint32_t n_plain;

    put_ids(w, r, n, true);
    for (uint32_t i = r->seq.n_tokens; i < r->memory.n_ids; i++)
        r->under[i] = 0; /* prompt() reads them again, when nothing is hydrated */
    hydrate_end(&r->memory);
    n_plain = r->memory.n_plain;
    prompt(&w->here, r, n);
    note_again(w, r, n_plain);
    note_packed(r, 0);
    w->n_brought += h->n;
    note_held(w, r);
    memory_turn(&r->memory, r->memory.n_ids, r->memory.n_ids + n);
    read_ids(w, r, n);
}

/* What the last n tokens point to. */
static void bring_more(struct world *w, struct reader *r, uint32_t n)
{
    uint32_t n_plain = r->memory.n_plain, had = r->memory.hydration.n, was = r->now;

    wait_for(&w->here, r, hydrate_more(&r->memory, n, NULL));
    note_held(w, r);
    if (r->memory.hydration.n == had && r->now == was)
        return;
    note_again(w, r, n_plain);
    w->n_more++;
}

static void fork_one(struct world *w)
{
    uint32_t from = one_of(w, w->n_readers), to = one_of(w, 3);
    struct reader *a = &w->r[from], *b;

    if (to == from)
        return;
    if (to >= w->n_readers)
        to = w->n_readers++;
    else
        close_reader(&w->r[to]);
    b = &w->r[to];
    fork_reader(a, b);
    check_counts(b);
}

static void compare(struct world *w, struct reader *r)
{
    uint32_t n = r->memory.n_ids;

    if (n < 10)
        return;
    take_ids(r);
    assert_int_equal(prefix_open(&w->there.rig.rig.pool, &w->there.prefix), 0);
    anew(&w->there, r, row_b);
    prefix_close(w->there.prefix);
    w->there.prefix = NULL;
    w->n_compared++;
}

/* One token more, in a fork that nobody else sees, here; and all of them there. */
static void compare_next(struct world *w, struct reader *r)
{
    uint32_t n = r->memory.n_ids;
    struct reader x;

    if (n < 10 || n > r->n_near)
        return;
    fork_reader(r, &x);
    put_ids(w, &x, 1, false);
    read_ids(w, &x, 1);
    compare(w, &x);
    assert_memory_equal(row_a, row_b, row_bytes(&w->here));
    close_reader(&x);
}

static void one_step(struct world *w)
{
    struct reader *r = &w->r[one_of(w, w->n_readers)];
    uint32_t n = r->memory.n_ids;

    switch (n > 800 ? 9 : one_of(w, 10)) {
    case 0:
    case 1:
        hydrate_end(&r->memory);
        n = 1 + one_of(w, 2 * L);
        put_ids(w, r, n, false);
        read_ids(w, r, n);
        break;
    case 2:
    case 3:
    case 4:
        ask(w, r, 1 + one_of(w, L - 1));
        break;
    case 5:
    case 6: /* an answer */
        n = 1 + one_of(w, 20);
        put_ids(w, r, n, one_of(w, 2));
        read_ids(w, r, n);
        bring_more(w, r, n);
        break;
    case 7:
        fork_one(w);
        break;
    case 8:
        if (one_of(w, 4) == 0)
            evict(&w->here, one_of(w, w->here.rig.rig.pool.n_cached + 1));
        else if (one_of(w, 2) == 0)
            w->n_less += hydrate_less(&r->memory);
        note_held(w, r);
        break;
    default:
        take_ids(r);
        if (r->memory.n_plain < n && one_of(w, 2)) /* to before all prompts that were answered so */
            memory_rewind(&r->memory, r->memory.n_plain);
        else
            memory_rewind(&r->memory, n < 600 ? n - one_of(w, n / 4 + 1) : one_of(w, n));
        memory_turn(&r->memory, 0, 0); /* what it may read again is not its segments' first time */
        note_held(w, r);
        if (r->seq.n_tokens <= r->n_near)
            r->n_near = UINT32_MAX;
        if (r->n_packed > r->memory.ladder.n_at[1])
            r->n_packed = r->memory.ladder.n_at[1];
    }
}

static void as_computed_anew(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(policies) / sizeof(*policies); i++) {
        static struct world w;

        w = (struct world){ .policy = &policies[i], .n_readers = 1, .seed = 7 + (unsigned)i };
        open_stage(&w.here, 6000, true, i == 1);
        open_stage(&w.there, 12000, false, false);
        open_reader(&w.here, &w.r[0], w.policy, 1, false);
        for (uint32_t k = 0; k < 1200; k++) {
            one_step(&w);
            if (k % 25 == 0)
                compare_next(&w, &w.r[one_of(&w, w.n_readers)]);
        }
        print_message("%u brought, %u again, %u only near, %u its own, %u of turns, %u less, %u "
                      "compared\n",
                      w.n_brought, w.n_again, w.n_near, w.n_own, w.n_turn, w.n_less, w.n_compared);
        assert_true(w.n_brought > 200 && w.n_again > 20 && w.n_own > 20 && w.n_compared > 15);
        assert_true((w.n_turn > 20) == w.policy->automatic && w.n_less > 5);
        print_message("%u more for answers\n", w.n_more);
        assert_true(w.n_more > 20);
        for (uint32_t k = 0; k < w.n_readers; k++)
            close_reader(&w.r[k]);
        close_stage(&w.here);
        close_stage(&w.there);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(as_computed_anew) };
    int r = cmocka_run_group_tests(tests, NULL, NULL);

    hydrate_rig_free();
    return r;
}
