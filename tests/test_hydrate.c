/* tests/test_hydrate.c - compressed segments that come back for a prompt. Would catch: raw keys
 * that are not the segment's own, or stand at other places than those that full attention sees;
 * gists that are not what they were when a prompt's segments go again, also after forks and
 * rewinds; budgets that are passed; pages that are lost; another user's or a private session's
 * record that is used; a record that is missing or damaged and is not said to be missed.
 */
#include "daemon/hydrate.h"
#include "daemon/tier.h"
#include "store/io.h"
#include "tests/support/memory_rig.h"
#include "tests/support/scratch.h"

#include <errno.h>
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

#define L     64u
#define IDS   1200u
#define BATCH 64u
#define MODEL "tests/data/tiny_smollm2.gguf"

struct stage {
    struct memory_rig rig;
    struct prefix *prefix;
    struct io *io;
    struct store *store;
    char folder[SCRATCH_PATH_MAX];
};

struct reader {
    struct seq seq;
    struct memory memory;
    uint32_t now;                             /* the last prompt that brought something back */
    uint32_t n_packed, packed_under[IDS / L]; /* of each packed segment: what was there then */
    uint32_t under[IDS]; /* of each token: the prompt whose segments it was read behind, 0: none */
};

/* What a prompt brought back. */
struct set {
    uint32_t n, segments[OVERLAY_MAX];
};

static struct set sets[20000];
static uint32_t n_sets, ids[IDS];
static float *row_a, *row_b; /* (IDS, n_vocab) */

static void open_store(struct stage *s)
{
    const struct io_options threads = { .kind = IO_THREADS };
    const struct store_limits limits = { .bytes = 1u << 30 };
    struct tier_options o = { .pool = &s->rig.rig.pool, .model = s->rig.rig.model, .always = true };
    struct why why = { "" };

    assert_int_equal(io_open(&threads, &s->io, &why), 0);
    if (store_open(s->folder, s->io, &limits, &s->store, &why) < 0)
        fail_msg("%s", why.text);
    o.store = s->store;
    assert_int_equal(tier_open(&o, &s->rig.served.tier), 0);
}

static void close_store(struct stage *s)
{
    assert_int_equal(tier_stop(s->rig.served.tier, UINT64_C(60000000000)), 0);
    store_close(s->store);
    tier_close(s->rig.served.tier);
    io_close(s->io);
    s->rig.served.tier = NULL;
}

static void open_stage(struct stage *s, uint32_t pool_tokens, bool tree, bool store)
{
    const struct rig_opts opts = { .model = MODEL,
                                   .cpu = rig_cpu(),
                                   .threads = 2,
                                   .max_batch = BATCH,
                                   .max_tokens = pool_tokens };
    static unsigned count;
    struct why why = { "" };
    char name[32];

    *s = (struct stage){ .io = NULL };
    if (memory_rig_open(&s->rig, &opts, &why) < 0)
        fail_msg("%s", why.text);
    if (tree)
        assert_int_equal(prefix_open(&s->rig.rig.pool, &s->prefix), 0);
    (void)snprintf(name, sizeof(name), "hydrate%u", count++);
    (void)scratch_path(s->folder, name);
    if (store)
        open_store(s);
    if (!row_a) {
        size_t len = (size_t)IDS * s->rig.rig.model->n_vocab * sizeof(float);

        row_a = malloc(len);
        row_b = malloc(len);
    }
    for (uint32_t k = 0; k < IDS; k++)
        ids[k] = 3 + (k * 7 + k * k * 3 + k / 64 * 11) % 250;
}

static void close_stage(struct stage *s)
{
    prefix_close(s->prefix);
    if (s->rig.served.tier)
        close_store(s);
    assert_int_equal(s->rig.rig.account.used, 0);
    assert_int_equal(s->rig.rig.pool.n_free, s->rig.rig.pool.n_pages);
    memory_rig_close(&s->rig);
}

static void open_reader(struct stage *s, struct reader *r, const struct policy *p, uint32_t owner,
                        bool keeps_nothing)
{
    *r = (struct reader){ .seq = { .pool = NULL } };
    assert_int_equal(rig_seq(&s->rig.rig, 4096, L, 0, &r->seq), 0);
    assert_int_equal(memory_init(&r->memory, p, &s->rig.served, &r->seq), 0);
    memory_share(&r->memory, s->prefix, owner, keeps_nothing);
    memory_keep(&r->memory, s->rig.served.tier);
}

static void close_reader(struct reader *r)
{
    memory_fini(&r->memory);
    seq_close(&r->seq);
}

/* Reads ids [memory.n_ids, n). */
static void feed(struct stage *s, struct reader *r, uint32_t n, float *ret)
{
    uint32_t had = r->memory.n_ids;

    assert_int_equal(memory_rig_feed(&s->rig, &r->memory, ids + had, n - had, BATCH, ret), 0);
}

static void settle(struct stage *s, struct reader *r)
{
    assert_int_equal(memory_rig_settle(&s->rig, &r->memory, BATCH), 0);
}

static void wait_for(struct stage *s, struct hydrate_job *j)
{
    while (j && hydrate_go(j) == -EAGAIN)
        if (!tier_pump(s->rig.served.tier))
            (void)usleep(100);
}

/* As an append does it: what the last prompt had goes, and then ids [n_ids, n_ids + n) are the
 * prompt. */
static void prompt(struct stage *s, struct reader *r, uint32_t n)
{
    hydrate_end(&r->memory);
    settle(s, r);
    wait_for(s, hydrate_begin(&r->memory, ids + r->memory.n_ids, n, n));
}

static struct wire_usage usage_of(const struct reader *r)
{
    struct wire_usage u = { .prompt_tokens = r->memory.n_ids };

    memory_account(&r->memory, &u);
    return u;
}

static size_t row_bytes(const struct stage *s)
{
    return s->rig.rig.model->n_vocab * sizeof(float);
}

/* --- full attention --------------------------------------------------------------------------- */

static void bring_all(struct stage *s, struct reader *r)
{
    uint32_t segments[OVERLAY_MAX], n = r->memory.ladder.n_at[1];

    assert_in_range(n, 2, OVERLAY_MAX);
    for (uint32_t k = 0; k < n; k++)
        segments[k] = k;
    wait_for(s, hydrate_bring(&r->memory, segments, n));
}

/* All is read raw, then the oldest segments are packed, and come back: what is read behind them
 * sees what full attention sees. From the tree, and from the store. */
static void all_is_full_attention(void **state)
{
    static const struct policy full = {
        { COMPRESS_FULL, 1, 0, NULL }, L, 0, 4096, false, false, 0, false
    };
    static const struct policy late[] = {
        { { COMPRESS_SELECT, 4, 4, NULL }, L, 0, 620, true, false, 1, false },
        { { COMPRESS_FINE_KV, 8, 4, NULL }, L, 0, 620, true, false, 1, false },
        { { COMPRESS_NONE, 1, 0, NULL }, L, 0, 620, true, false, 1, false },
    };
    uint32_t n = 9 * L, n_prompt = 40;

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(late) / sizeof(*late); i++) {
        const struct policy *p = &late[i / 2];
        struct stage s;
        struct reader r, whole;
        struct wire_usage u;

        open_stage(&s, 4096, i % 2 == 0, i % 2 == 1);
        open_reader(&s, &whole, &full, 1, false);
        feed(&s, &whole, n + n_prompt, row_a);
        open_reader(&s, &r, p, 1, false);
        feed(&s, &r, n, row_b);
        if (i % 2) {
            assert_int_equal(tier_stop(s.rig.served.tier, UINT64_C(60000000000)), 0);
        }
        settle(&s, &r);
        u = usage_of(&r);
        assert_true(u.gist_tokens > 0 && u.hydrated_tokens == 0);
        bring_all(&s, &r);
        u = usage_of(&r);
        assert_int_equal(u.gist_tokens, 0);
        assert_int_equal(u.missed_tokens, 0);
        assert_int_equal(u.hydrated_tokens, r.memory.ladder.n_at[1] * L);
        assert_int_equal(u.hydrated_disk_tokens, i % 2 ? u.hydrated_tokens : 0);
        feed(&s, &r, n + n_prompt, row_b);
        assert_memory_equal(row_b, (char *)row_a + n * row_bytes(&s), n_prompt * row_bytes(&s));
        close_reader(&r);
        close_reader(&whole);
        close_stage(&s);
    }
}

/* --- whose it is ------------------------------------------------------------------------------ */

static const struct policy plain = {
    { COMPRESS_SELECT, 4, 4, NULL }, L, 0, 1000, false, false, 4, false
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

/* Of the same text: the one who read it has it back, nobody else has anything of his. */
static void nobody_elses(void **state)
{
    struct stage s;

    (void)state;
    for (int store = 0; store < 2; store++) {
        open_stage(&s, 4096, !store, store);
        memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
        assert_true(asked(&s, 1, true, row_a).missed_tokens > 0); /* its own left no trace */
        assert_int_equal(asked(&s, 1, true, row_a).hydrated_tokens, 0);
        if (store) { /* what a session wrote may not be on the disk while it is asked */
            struct reader r;

            open_reader(&s, &r, &plain, 2, false);
            feed(&s, &r, 6 * L, row_a);
            close_reader(&r);
            close_store(&s);
            open_store(&s);
        }
        assert_true(asked(&s, 2, false, row_a).hydrated_tokens > 0);
        assert_int_equal(asked(&s, 1, true, row_a).hydrated_tokens, 0);
        assert_int_equal(asked(&s, 3, true, row_a).hydrated_tokens, 0);
        assert_true(asked(&s, 2, true, row_a).hydrated_tokens > 0); /* a private one of the same */
        close_stage(&s);
    }
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

static void missing_and_damaged(void **state)
{
    struct wire_usage u, none;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, false, false);
    memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
    none = asked(&s, 1, false, row_a);
    assert_int_equal(none.hydrated_tokens, 0);
    assert_true(none.missed_tokens >= L - 4);
    close_stage(&s);

    open_stage(&s, 4096, false, true);
    memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
    (void)asked(&s, 1, false, row_b);
    close_store(&s);
    assert_int_equal(nftw(s.folder, flip, 8, FTW_PHYS), 0);
    open_store(&s);
    u = asked(&s, 1, false, row_b);
    assert_int_equal(u.hydrated_tokens, 0);
    assert_int_equal(u.missed_tokens, none.missed_tokens);
    /* The answer goes on as if there were no store. */
    assert_memory_equal(row_a, row_b, 20 * row_bytes(&s));
    close_stage(&s);
}

/* Whatever the client may hold: the prompt and a segment behind it are read all the same. */
static void within_a_limit(void **state)
{
    uint32_t most = 0, least = 5;
    struct stage s;

    (void)state;
    open_stage(&s, 4096, true, false);
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

/* The ladder climbs while a segment is hydrated. When it goes its gists are thinned to where they
 * should be; without pages for that, since a fork holds the same, it waits, and nothing fails. */
static void lags(void **state)
{
    static const struct policy p = {
        { COMPRESS_SELECT, 4, 0, NULL }, L, 0, 400, false, false, 1, false
    };
    struct pool_account others = { .limit = UINT32_MAX };
    struct reader r, fork = { .seq = { .pool = NULL } };
    uint32_t *pages, n_pages, first = 1;
    struct stage s;
    struct pool *q;

    (void)state;
    open_stage(&s, 2048, true, false);
    q = &s.rig.rig.pool;
    open_reader(&s, &r, &p, 1, false);
    feed(&s, &r, 6 * L + 10, row_a);
    assert_int_equal(ladder_rung(&r.memory.ladder, first), 1);
    wait_for(&s, hydrate_bring(&r.memory, &first, 1));
    for (uint32_t n = 7 * L; ladder_rung(&r.memory.ladder, first) < 2; n += L)
        feed(&s, &r, n + 10, row_a);
    assert_int_equal(r.seq.segments[first].n_keys, L);
    assert_int_equal(seq_fork(&r.seq, &fork.seq), 0);
    assert_int_equal(memory_fork(&r.memory, &fork.memory, &fork.seq), 0);
    n_pages = q->n_free + q->n_cached;
    pages = malloc(n_pages * sizeof(*pages));
    assert_int_equal(pool_take(q, &others, n_pages, pages), 0);

    hydrate_end(&r.memory);
    assert_int_equal(r.seq.segments[first].n_keys, L / 4);
    assert_true(overlay_has(&r.memory.overlay, first) && !hydrate_is_on(&r.memory));
    memory_settle(&r.memory);
    assert_true(overlay_has(&r.memory.overlay, first));
    pool_give(q, &others, n_pages, pages);
    memory_settle(&r.memory);
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

/* Given up while the disk reads: all pages come back. */
static void given_up(void **state)
{
    struct stage s;

    (void)state;
    open_stage(&s, 4096, false, true);
    memcpy(ids + 6 * L, ids + 3 * L + 5, 20 * sizeof(*ids));
    (void)asked(&s, 1, false, row_a);
    close_store(&s);
    open_store(&s);
    for (int i = 0; i < 20; i++) {
        struct hydrate_job *j;
        struct reader r;

        open_reader(&s, &r, &plain, 1, false);
        feed(&s, &r, 6 * L, row_a);
        settle(&s, &r);
        j = hydrate_begin(&r.memory, ids + 6 * L, 20, 20);
        assert_non_null(j);
        for (int k = 0; k < i && j; k++) {
            if (hydrate_go(j) == 0)
                j = NULL;
            (void)tier_pump(s.rig.served.tier);
        }
        hydrate_drop(j);
        memory_rewind(&r.memory, 6 * L);
        assert_false(hydrate_is_on(&r.memory));
        close_reader(&r);
    }
    close_stage(&s);
}

/* --- against one that is computed anew -------------------------------------------------------- */

static const struct policy policies[] = {
    { { COMPRESS_SELECT, 4, 4, NULL }, L, 0, 900, false, false, 4, false },
    { { COMPRESS_FINE_KV, 8, 4, NULL }, L, 0, 900, false, false, UINT32_MAX, false },
    { { COMPRESS_NONE, 1, 0, NULL }, L, 0, 700, false, false, 2, false },
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
        wait_for(s, hydrate_bring(&x->memory, sets[under].segments, sets[under].n));
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
    uint32_t n_readers, n_brought, n_missed, n_compared;
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

/* Those that a rewind has left to be read again, too. */
static void read_ids(struct world *w, struct reader *r, uint32_t n)
{
    uint32_t had = r->memory.n_ids, under = hydrate_is_on(&r->memory) ? r->now : 0;

    for (uint32_t i = r->seq.n_tokens; i < had + n; i++)
        r->under[i] = under;
    feed(&w->here, r, had + n, row_a);
    note_packed(r, under);
    check_counts(r);
}

static void ask(struct world *w, struct reader *r, uint32_t n)
{
    struct hydration *h = &r->memory.hydration;

    put_ids(w, r, n, true);
    for (uint32_t i = r->seq.n_tokens; i < r->memory.n_ids; i++)
        r->under[i] = 0; /* prompt() reads them again, when nothing is hydrated */
    prompt(&w->here, r, n);
    note_packed(r, 0);
    r->now = ++n_sets;
    sets[n_sets] = (struct set){ .n = h->n };
    for (uint32_t i = 0; i < h->n; i++)
        sets[n_sets].segments[i] = h->held[i].segment;
    w->n_brought += h->n;
    w->n_missed += h->missed > 0;
    /* In order, as hydrate_bring wants them: those of the tree came first. */
    for (uint32_t i = 1; i < h->n; i++)
        for (uint32_t k = i; k > 0 && sets[n_sets].segments[k] < sets[n_sets].segments[k - 1];
             k--) {
            uint32_t x = sets[n_sets].segments[k];

            sets[n_sets].segments[k] = sets[n_sets].segments[k - 1];
            sets[n_sets].segments[k - 1] = x;
        }
    read_ids(w, r, n);
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
    *b = *a; /* what is noted of it */
    assert_int_equal(seq_fork(&a->seq, &b->seq), 0);
    assert_int_equal(memory_fork(&a->memory, &b->memory, &b->seq), 0);
    check_counts(b);
}

/* Somebody takes all pages, and gives them back: what is only kept is gone. */
static void evict(struct world *w)
{
    struct pool *p = &w->here.rig.rig.pool;
    struct pool_account a = { .limit = UINT32_MAX };
    uint32_t n = p->n_free + one_of(w, p->n_cached + 1), *pages = malloc((n + 1) * sizeof(*pages));

    assert_int_equal(pool_take(p, &a, n, pages), 0);
    pool_give(p, &a, n, pages);
    free(pages);
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
    struct reader x = *r;
    uint32_t n = r->memory.n_ids;

    if (n < 10)
        return;
    assert_int_equal(seq_fork(&r->seq, &x.seq), 0);
    assert_int_equal(memory_fork(&r->memory, &x.memory, &x.seq), 0);
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
        put_ids(w, r, n, false);
        read_ids(w, r, n);
        break;
    case 7:
        fork_one(w);
        break;
    case 8:
        evict(w);
        break;
    default:
        take_ids(r);
        if (r->memory.n_plain < n && one_of(w, 2)) /* to before all prompts that were answered so */
            memory_rewind(&r->memory, r->memory.n_plain);
        else
            memory_rewind(&r->memory, n < 600 ? n - one_of(w, n / 4 + 1) : one_of(w, n));
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
        if (!(w.n_brought > 50 && w.n_missed > 0 && w.n_compared > 30))
            print_error("%u brought, %u missed, %u compared\n", w.n_brought, w.n_missed,
                        w.n_compared);
        assert_true(w.n_brought > 50 && w.n_missed > 0 && w.n_compared > 30);
        for (uint32_t k = 0; k < w.n_readers; k++)
            close_reader(&w.r[k]);
        close_stage(&w.here);
        close_stage(&w.there);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_is_full_attention),
                                        cmocka_unit_test(nobody_elses),
                                        cmocka_unit_test(missing_and_damaged),
                                        cmocka_unit_test(within_a_limit),
                                        cmocka_unit_test(lags),
                                        cmocka_unit_test(given_up),
                                        cmocka_unit_test(as_computed_anew) };
    int r;

    r = cmocka_run_group_tests(tests, NULL, NULL);
    free(row_a);
    free(row_b);
    return r;
}
