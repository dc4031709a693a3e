#include "tests/support/hydrate_rig.h"

#include "daemon/rank.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "tests/data/tiny_smollm2.gguf"

uint32_t ids[IDS];
float *row_a, *row_b;

void open_store(struct stage *s)
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

void close_store(struct stage *s)
{
    assert_int_equal(tier_stop(s->rig.served.tier, UINT64_C(60000000000)), 0);
    (void)store_close(s->store);
    tier_close(s->rig.served.tier);
    io_close(s->io);
    s->rig.served.tier = NULL;
}

void open_stage(struct stage *s, uint32_t pool_tokens, bool tree, bool store)
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

void close_stage(struct stage *s)
{
    prefix_close(s->prefix);
    if (s->rig.served.tier)
        close_store(s);
    assert_int_equal(s->rig.rig.account.used, 0);
    assert_int_equal(s->rig.rig.pool.n_free, s->rig.rig.pool.n_pages);
    memory_rig_close(&s->rig);
}

void evict(struct stage *s, uint32_t n)
{
    struct pool *p = &s->rig.rig.pool;
    struct pool_account a = { .limit = UINT32_MAX };
    uint32_t *pages;

    n += p->n_free;
    pages = malloc((n + 1) * sizeof(*pages));
    assert_int_equal(pool_take(p, &a, n, pages), 0);
    pool_give(p, &a, n, pages);
    free(pages);
}

void open_reader(struct stage *s, struct reader *r, const struct policy *p, uint32_t owner,
                 bool keeps_nothing)
{
    *r = (struct reader){ .n_near = UINT32_MAX };
    assert_int_equal(rig_seq(&s->rig.rig, 4096, L, 0, &r->seq), 0);
    assert_int_equal(memory_init(&r->memory, p, &s->rig.served, &r->seq), 0);
    memory_share(&r->memory, s->prefix, owner, keeps_nothing);
    memory_keep(&r->memory, s->rig.served.tier);
}

void close_reader(struct reader *r)
{
    memory_fini(&r->memory);
    seq_close(&r->seq);
}

void fork_reader(const struct reader *r, struct reader *ret)
{
    *ret = *r;
    assert_int_equal(seq_fork(&r->seq, &ret->seq), 0);
    assert_int_equal(memory_fork(&r->memory, &ret->memory, &ret->seq), 0);
}

void feed(struct stage *s, struct reader *r, uint32_t n, float *ret)
{
    uint32_t had = r->memory.n_ids;

    assert_int_equal(memory_rig_feed(&s->rig, &r->memory, ids + had, n - had, BATCH, ret), 0);
}

void settle(struct stage *s, struct reader *r)
{
    assert_int_equal(memory_rig_settle(&s->rig, &r->memory, BATCH), 0);
}

void wait_for(struct stage *s, struct reader *r, struct hydrate_job *j)
{
    while (j && hydrate_go(j) == -EAGAIN) {
        if (memory_behind(&r->memory))
            settle(s, r);
        else if (!tier_pump(s->rig.served.tier))
            (void)usleep(100);
    }
}

void prompt(struct stage *s, struct reader *r, uint32_t n)
{
    hydrate_end(&r->memory);
    settle(s, r);
    wait_for(s, r, hydrate_begin(&r->memory, ids + r->memory.n_ids, n, n, NULL));
}

void fetch(struct reader *r, const uint32_t *prompt, uint32_t n)
{
    struct rank_job *k = hydrate_rank_begin(&r->memory, prompt, n);

    while (k && !hydrate_rank_go(k))
        ;
    hydrate_fetch(&r->memory, k);
    rank_drop(k);
}

struct wire_usage usage_of(const struct reader *r)
{
    struct wire_usage u = { .prompt_tokens = r->memory.n_ids };

    memory_account(&r->memory, &u);
    return u;
}

size_t row_bytes(const struct stage *s)
{
    return s->rig.rig.model->n_vocab * sizeof(float);
}

void hydrate_rig_free(void)
{
    free(row_a);
    free(row_b);
}
