/* tests/test_batch.c - who takes part in a step, with requests and a scheduler made by hand. Would
 * catch: a scheduler that sleeps although what a request waits for has just come back; a prompt
 * that is not read while answers share a long context; one that waits for a compression in the
 * background which is not done while other prompts come; a long segment that short ones pass for
 * ever; an error of who computes that is taken for want of memory. Of users: answers of one that
 * keep the prompts of others from being read, or others' answers from going on; one that reads more
 * than its share because it has more clients or sessions; an interactive request that waits for a
 * step in the background; a background that never gets its turn; long steps in the background while
 * a text is encoded, or behind one that was given up; a cancel that waits for such a step; a
 * question that waits for documents.
 */
#include "daemon/batch.h"
#include "daemon/sched.h"
#include "engine/kv/compress_ops.h"
#include "tests/support/memory_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL "tests/data/tiny_smollm2.gguf"
#define L     64u
#define PAGES 40u
#define LONG  128u /* tokens of a long step */

static const struct policy selects = { .spec = { COMPRESS_SELECT, 4, 0, NULL },
                                       .seg_len = L,
                                       .budget = 300 };
static const struct policy keeps = { .spec = { COMPRESS_FULL, 8, 0, NULL },
                                     .seg_len = L,
                                     .budget = 640 };

static struct memory_rig rig;
static struct config config = { .batch_tokens = 32 };
static struct sched sched;
static struct client client; /* dead: nothing is sent to it */
static uint32_t ids[640];

/* A sequence, its memory and a request that reads into it. */
struct actor {
    struct seq seq;
    struct memory memory;
    struct request request;
    uint32_t done;
};

static void open_client(struct client *c, uid_t uid)
{
    struct owner *o = owner_ref(&sched.owners, uid);

    assert_non_null(o);
    *c = (struct client){ .dead = true, .owner = o };
    TAILQ_INIT(&c->line);
    TAILQ_INSERT_TAIL(&o->clients, c, of_owner);
    TAILQ_INSERT_TAIL(&sched.clients, c, link);
}

static void close_client(struct client *c)
{
    TAILQ_REMOVE(&sched.clients, c, link);
    TAILQ_REMOVE(&c->owner->clients, c, of_owner);
    owner_unref(&sched.owners, c->owner);
}

static int open_all(void **state)
{
    const struct rig_opts opts = { .model = MODEL,
                                   .cpu = "auto",
                                   .kv = KV_F16,
                                   .threads = 2,
                                   .max_batch = 128,
                                   .max_tokens = 16 * PAGES };

    (void)state;
    assert_int_equal(memory_rig_open(&rig, &opts, NULL), 0);
    rig.rig.account.limit = UINT32_MAX;
    sched = (struct sched){ .config = &config,
                            .served = rig.served,
                            .inbox = malloc(sizeof(struct mailbox)) };
    assert_non_null(sched.inbox);
    assert_int_equal(mailbox_open(sched.inbox, 4), 0);
    sched.served.pool = rig.rig.pool; /* for its number of pages */
    sched.served.forward = rig.rig.forward;
    sched.logits = malloc(SCHED_LOGITS_ROWS * rig.rig.model->n_vocab * sizeof(float));
    TAILQ_INIT(&sched.active);
    TAILQ_INIT(&sched.clients);
    pace_init(&sched.pace, rig.rig.model->n_layer, config.batch_tokens);
    owners_init(&sched.owners, &(struct owner_limits){ 0 });
    open_client(&client, 0);
    for (uint32_t i = 0; i < 640; i++)
        ids[i] = i * 7 % rig.rig.model->n_vocab;
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    close_client(&client);
    owners_fini(&sched.owners);
    mailbox_close(sched.inbox);
    free(sched.inbox);
    free(sched.logits);
    assert_int_equal(rig.rig.account.used, 0);
    memory_rig_close(&rig);
    return 0;
}

/* --- actors ----------------------------------------------------------------------------------- */

static struct actor *actor_of(struct request *r)
{
    return r->state;
}

static bool plan(struct sched *s, struct request *r, uint32_t max, struct forward_run *ret)
{
    uint32_t room = memory_room(r->memory);

    (void)s;
    *ret = (struct forward_run){ .seq = r->memory->seq, .tokens = ids };
    ret->n_tokens = r->ops->decode ? 1 : max < room ? max : room;
    ret->want = r->ops->decode ? FORWARD_WANT_LAST : FORWARD_WANT_NONE;
    return seq_reserve(ret->seq, ret->n_tokens) == 0;
}

static void rows(struct sched *s, struct request *r, uint32_t first, uint32_t n_out, uint32_t n)
{
    (void)s, (void)first, (void)n_out;
    actor_of(r)->done += n;
}

/* Reads without an end: what it has read is forgotten. */
static void rows_for_ever(struct sched *s, struct request *r, uint32_t first, uint32_t n_out,
                          uint32_t n)
{
    rows(s, r, first, n_out, n);
    memory_rewind(r->memory, 0);
}

/* The same for an answer: its token is taken back. */
static void token(struct sched *s, struct request *r, float *logits)
{
    (void)s, (void)logits;
    actor_of(r)->done++;
    memory_rewind(r->memory, r->memory->n_ids - 1);
}

static const struct request_ops reader = { .name = "reader", .plan = plan, .rows = rows };
static const struct request_ops endless = { .name = "endless",
                                            .plan = plan,
                                            .rows = rows_for_ever };
static const struct request_ops answer = {
    .name = "answer", .decode = true, .plan = plan, .token = token
};

static void act_of(struct client *c, struct actor *a, const struct request_ops *ops,
                   enum wire_priority priority)
{
    a->request = (struct request){ .client = c,
                                   .ops = ops,
                                   .phase = REQUEST_RUN,
                                   .priority = priority,
                                   .memory = &a->memory,
                                   .state = a };
    TAILQ_INSERT_TAIL(&sched.active, &a->request, link);
    TAILQ_INSERT_TAIL(&c->line, &a->request, in_line);
    sched.n_active++;
}

static void act(struct actor *a, const struct request_ops *ops, enum wire_priority priority)
{
    act_of(&client, a, ops, priority);
}

/* With n tokens read. */
static void open_actor(struct actor *a, const struct policy *p, uint32_t n)
{
    float *logits = malloc(((size_t)n + 1) * rig.rig.model->n_vocab * sizeof(float));

    *a = (struct actor){ .done = 0 };
    assert_int_equal(rig_seq(&rig.rig, 640, p->seg_len, 0, &a->seq), 0);
    assert_int_equal(memory_init(&a->memory, p, &rig.served, &a->seq), 0);
    assert_int_equal(memory_rig_feed(&rig, &a->memory, ids, n, 128, logits), 0);
    free(logits);
}

static void fork_actor(const struct actor *a, struct actor *ret)
{
    *ret = (struct actor){ .done = 0 };
    assert_int_equal(seq_fork(&a->seq, &ret->seq), 0);
    assert_int_equal(memory_fork(&a->memory, &ret->memory, &ret->seq), 0);
}

static void close_actor(struct actor *a)
{
    memory_fini(&a->memory);
    seq_close(&a->seq);
}

/* The pages that are free, all of them. */
static uint32_t take_pages(uint32_t *pages)
{
    uint32_t n = rig.rig.pool.n_free;

    assert_int_equal(pool_take(&rig.rig.pool, &rig.rig.account, n, pages), 0);
    return n;
}

/* Observers of the next segment have run, and it is not finished. */
static void observe(struct actor *a)
{
    struct forward_run run;
    struct memory_need need;
    uint32_t n_out;

    memory_settle(&a->memory, NULL);
    assert_int_equal(memory_plan(&a->memory, 128, &run, &need), 0);
    assert_int_equal(run.n_tokens, L);
    assert_int_equal(forward_step(&sched.served.forward, &run, 1, NULL, &n_out), 0);
    memory_ran(&a->memory, &run);
}

static uint32_t left(const struct request *r)
{
    return r ? 8 : 0; /* a question */
}
static const struct request_ops question = {
    .name = "question", .plan = plan, .left = left, .rows = rows_for_ever
};

/* --- tests ------------------------------------------------------------------------------------ */

/* One waits for the scratch that another holds, who is failed in the same look: its pages are
 * shared, and there are none to copy them to. Nobody rings for that. */
static void looks_again(void **state)
{
    struct actor a, b, other;
    uint32_t pages[PAGES], n;
    void *rest;

    (void)state;
    open_actor(&a, &selects, L);
    open_actor(&b, &selects, L);
    observe(&b);
    fork_actor(&b, &other);
    rest = scratch_take(&rig.served.compressor->sides,
                        rig.served.compressor->sides.len - rig.served.compressor->sides.used);
    assert_non_null(rest);
    n = take_pages(pages);
    act(&a, &reader, WIRE_INTERACTIVE);
    act(&b, &reader, WIRE_INTERACTIVE);
    assert_true(batch_run(&sched)); /* false: it would sleep now */
    assert_int_equal(b.request.phase, REQUEST_LAST);
    assert_int_equal(b.request.last.u.error.code, WIRE_E_POOL_FULL);
    assert_int_equal(a.request.phase, REQUEST_RUN);
    for (int i = 0; i < 8; i++)
        (void)batch_run(&sched);
    assert_int_equal(a.seq.segments[0].state, SEQ_PACKED);
    scratch_give(&rig.served.compressor->sides, rest);
    pool_give(&rig.rig.pool, &rig.rig.account, n, pages);
    close_actor(&a);
    close_actor(&b);
    close_actor(&other);
}

/* Answers behind a context that they share take more pages of a plan than the pool has. */
static void reads_beside_forks(void **state)
{
    struct actor answers[4], prompt;

    (void)state;
    open_actor(&answers[0], &keeps, 320);
    for (int i = 1; i < 4; i++)
        fork_actor(&answers[0], &answers[i]);
    open_actor(&prompt, &keeps, 0);
    for (int i = 0; i < 4; i++)
        act(&answers[i], &answer, WIRE_INTERACTIVE);
    act(&prompt, &reader, WIRE_INTERACTIVE);
    for (int i = 0; i < 6; i++)
        assert_true(batch_run(&sched));
    assert_true(prompt.done > 0);
    for (int i = 0; i < 4; i++) {
        assert_true(answers[i].done > 0);
        assert_int_equal(answers[i].request.phase, REQUEST_RUN);
        close_actor(&answers[i]);
    }
    close_actor(&prompt);
}

/* An interactive request waits for what one in the background holds, whose turn does not come while
 * somebody else's prompts are read. */
static void hurries_who_is_waited_for(void **state)
{
    struct actor a, b, prompts;
    void *rest;

    (void)state;
    open_actor(&a, &selects, L);
    open_actor(&b, &selects, L);
    open_actor(&prompts, &keeps, 0);
    act(&b, &reader, WIRE_BACKGROUND);
    (void)batch_run(&sched); /* some of its observers */
    assert_true(b.memory.side.begun);
    assert_int_equal(b.seq.segments[0].state, SEQ_RAW);
    rest = scratch_take(&rig.served.compressor->sides,
                        rig.served.compressor->sides.len - rig.served.compressor->sides.used);
    assert_non_null(rest);
    act(&prompts, &endless, WIRE_INTERACTIVE);
    act(&a, &reader, WIRE_INTERACTIVE);
    for (int i = 0; i < 40; i++)
        assert_true(batch_run(&sched));
    assert_true(prompts.done > 0);
    assert_int_equal(a.seq.segments[0].state, SEQ_PACKED);
    scratch_give(&rig.served.compressor->sides, rest);
    close_actor(&a);
    close_actor(&b);
    close_actor(&prompts);
}

/* A segment that needs most of the scratch is the next to have it, though short ones would always
 * find room before. */
static void short_ones_wait_in_line(void **state)
{
    static const struct policy longer = { .spec = { COMPRESS_SELECT, 4, 0, NULL },
                                          .seg_len = 2 * L,
                                          .budget = 600 };
    struct actor few[3], one;
    struct forward_run run;
    struct memory_need need;
    struct compressor *c = rig.served.compressor;
    size_t room = 2 * L * (size_t)c->n_lists * sizeof(float); /* of the long one */
    void *rest = scratch_take(&c->sides, c->sides.len - room);

    (void)state;
    assert_non_null(rest);
    open_actor(&one, &longer, 2 * L);
    for (int i = 0; i < 3; i++) {
        open_actor(&few[i], &selects, L);
        memory_settle(&few[i].memory, NULL);
    }
    memory_settle(&one.memory, NULL);
    assert_int_equal(memory_plan(&few[0].memory, 16, &run, &need), 0);
    assert_int_equal(memory_plan(&one.memory, 16, &run, &need), -EAGAIN);
    assert_int_equal(memory_plan(&few[1].memory, 16, &run, &need), -EAGAIN);
    assert_int_equal(memory_plan(&few[0].memory, 16, &run, &need), 0); /* has begun: goes on */
    memory_rest(&few[0].memory);
    assert_int_equal(memory_plan(&few[1].memory, 16, &run, &need), -EAGAIN);
    assert_int_equal(memory_plan(&one.memory, 16, &run, &need), 0);
    /* Who stood in line and went away holds up nobody. */
    assert_int_equal(memory_plan(&few[1].memory, 16, &run, &need), -EAGAIN);
    memory_rest(&one.memory);
    memory_rest(&few[1].memory);
    assert_int_equal(memory_plan(&few[2].memory, 16, &run, &need), 0);
    scratch_give(&c->sides, rest);
    close_actor(&one);
    for (int i = 0; i < 3; i++)
        close_actor(&few[i]);
}

/* --- who computes fails ----------------------------------------------------------------------- */

static struct backend_ops broken;

static int no_move(struct backend *b, const struct backend_move *m)
{
    (void)b, (void)m;
    return -EIO;
}

/* Keys that can't be moved are an error of the request, and nothing to wait for. */
static void says_what_failed(void **state)
{
    struct backend *b = rig.rig.backend;
    const struct backend_ops *ops = b->ops;
    struct actor a;

    (void)state;
    open_actor(&a, &selects, L);
    broken = *ops;
    broken.move = no_move;
    b->ops = &broken;
    act(&a, &reader, WIRE_INTERACTIVE);
    for (int i = 0; i < 8 && a.request.phase == REQUEST_RUN; i++)
        (void)batch_run(&sched);
    b->ops = ops;
    assert_int_equal(a.request.phase, REQUEST_LAST);
    assert_int_equal(a.request.last.u.error.code, WIRE_E_INTERNAL);
    close_actor(&a);
}

/* --- shares ----------------------------------------------------------------------------------- */

#define MANY 33u /* answers: more than a step has rows */

/* Behind one page that they share. */
static void open_answers(struct actor *a, uint32_t n)
{
    open_actor(&a[0], &keeps, 16);
    for (uint32_t i = 1; i < n; i++)
        fork_actor(&a[0], &a[i]);
}

/* More answers of one user than there are rows, and a prompt of another one. */
static void answers_leave_rows(void **state)
{
    static struct actor answers[MANY];
    struct actor prompt;
    struct client other;
    uint32_t least = UINT32_MAX, most = 0;

    (void)state;
    open_client(&other, 1);
    open_answers(answers, MANY);
    open_actor(&prompt, &keeps, 0);
    for (uint32_t i = 0; i < MANY; i++)
        act(&answers[i], &answer, WIRE_INTERACTIVE);
    act_of(&other, &prompt, &endless, WIRE_BACKGROUND);
    assert_true(batch_run(&sched));
    assert_true(prompt.done >= PACE_TOKENS_MIN); /* at once */
    for (uint32_t i = 0; i < 2 * MANY; i++)
        assert_true(batch_run(&sched));
    for (uint32_t i = 0; i < MANY; i++) {
        least = answers[i].done < least ? answers[i].done : least;
        most = answers[i].done > most ? answers[i].done : most;
        close_actor(&answers[i]);
    }
    assert_true(least > MANY / 2); /* half of the rows, two steps a token */
    assert_true(most - least <= 1);
    close_actor(&prompt);
    close_client(&other);
}

/* One user has 28 answers, another one 3 and 1 of two clients, and a step has 16 rows. */
static void answers_of_all_users_go_on(void **state)
{
    static struct actor a[32];
    struct client other[2];

    (void)state;
    config.batch_tokens = 16;
    open_client(&other[0], 1);
    open_client(&other[1], 1);
    open_answers(a, 32);
    for (uint32_t i = 0; i < 32; i++)
        act_of(i < 28 ? &client : &other[i == 31], &a[i], &answer, WIRE_INTERACTIVE);
    for (uint32_t i = 0; i < 7; i++)
        assert_true(batch_run(&sched));
    for (uint32_t i = 0; i < 32; i++) {
        assert_int_equal(a[i].done, i < 28 ? 3 : 7); /* 12 of 28 a step, and all of 4 */
        close_actor(&a[i]);
    }
    config.batch_tokens = 32;
    close_client(&other[0]);
    close_client(&other[1]);
}

/* Users read as much as each other, whatever they have of clients and sessions, and so do clients
 * of one user. */
static void reading_is_shared(void **state)
{
    struct actor a[5];
    struct client second, other;
    uint64_t one, two;

    (void)state;
    open_client(&second, 0);
    open_client(&other, 1);
    for (uint32_t i = 0; i < 5; i++)
        open_actor(&a[i], &keeps, 0);
    for (uint32_t i = 0; i < 3; i++)
        act(&a[i], &endless, WIRE_INTERACTIVE);
    act_of(&second, &a[3], &endless, WIRE_INTERACTIVE);
    act_of(&other, &a[4], &endless, WIRE_INTERACTIVE);
    for (uint32_t i = 0; i < 120; i++)
        assert_true(batch_run(&sched));
    one = client.owner->rows;
    two = other.owner->rows;
    assert_int_equal(one, a[0].done + a[1].done + a[2].done + a[3].done);
    assert_int_equal(two, a[4].done);
    assert_true(one * 10 > two * 9 && two * 10 > one * 9);
    assert_true(a[3].done * 10 > (a[0].done + a[1].done + a[2].done) * 9);
    assert_true(a[3].done * 9 < (a[0].done + a[1].done + a[2].done) * 10);
    for (uint32_t i = 0; i < 5; i++)
        close_actor(&a[i]);
    close_client(&second);
    close_client(&other);
}

/* Of what is read before it the background has a part, not more. */
static void background_has_its_turn(void **state)
{
    struct actor prompts, background;

    (void)state;
    open_actor(&prompts, &keeps, 0);
    open_actor(&background, &keeps, 0);
    act(&prompts, &endless, WIRE_INTERACTIVE);
    act(&background, &endless, WIRE_BACKGROUND);
    for (uint32_t i = 0; i < 90; i++)
        assert_true(batch_run(&sched));
    assert_true(background.done * 10 > prompts.done);
    assert_true(background.done * 7 < prompts.done);
    close_actor(&prompts);
    close_actor(&background);
}

/* --- who comes while a step runs -------------------------------------------------------------- */

static struct backend_ops coming;
static int (*real_step)(struct backend *b, const struct plan *plan,
                        const struct forward_stop *stop);
static struct actor *comer;
static enum wire_priority comes_as;
static struct session session;

/* A request of the comer is there when the first layer is done. */
static int step_and_come(struct backend *b, const struct plan *plan,
                         const struct forward_stop *stop)
{
    if (comer) {
        act(comer, &reader, comes_as);
        comer->request.session = &session;
        comer->request.arrived_ns = sched.step_ns;
        mailbox_put(sched.inbox, &(struct mailbox_letter){ .kind = MAILBOX_DEAD, .client = 99 });
        comer = NULL;
    }
    return real_step(b, plan, stop);
}

/* The comer's is cancelled when the first layer is done, if it is in the step. */
static int step_and_cancel(struct backend *b, const struct plan *plan,
                           const struct forward_stop *stop)
{
    comer->request.cancelled = true;
    mailbox_put(sched.inbox, &(struct mailbox_letter){ .kind = MAILBOX_DEAD, .client = 99 });
    return real_step(b, plan, stop);
}

/* It has read all, and is no request any more. */
static void leave(struct actor *a)
{
    TAILQ_REMOVE(&sched.active, &a->request, link);
    TAILQ_REMOVE(&client.line, &a->request, in_line);
    sched.n_active--;
    memory_rewind(&a->memory, 0);
    a->done = 0;
}

/* Each comes in the middle of a step that reads in the background, which is given up, and reads
 * alone in the next one. But not for ever: then the background has a short step. */
static void background_gives_way(void **state)
{
    struct backend *b = rig.rig.backend;
    const struct backend_ops *ops = b->ops;
    struct actor background, prompt;
    uint32_t had, n_given = 0;

    (void)state;
    client.dead = false; /* nobody is in the middle of a reply */
    open_actor(&background, &keeps, 0);
    open_actor(&prompt, &keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_come;
    b->ops = &coming;
    act(&background, &endless, WIRE_BACKGROUND);
    for (int i = 0; i < 3; i++)
        assert_true(batch_run(&sched));
    assert_true(background.done > 0);
    do {
        had = background.done;
        comer = &prompt;
        assert_true(batch_run(&sched));
        assert_null(comer);
        if (background.done > had)
            break;
        n_given++;
        assert_true(batch_run(&sched));
        assert_true(prompt.done > 0);
        assert_int_equal(background.done, had);
        leave(&prompt);
    } while (n_given < 100);
    assert_int_equal(n_given, 4);
    assert_int_equal(background.done - had, PACE_TOKENS_MIN);
    /* It waits no longer than that, and the next one comes in time again. */
    assert_true(batch_run(&sched));
    assert_true(prompt.done > 0);
    leave(&prompt);
    had = background.done;
    comer = &prompt;
    assert_true(batch_run(&sched));
    assert_int_equal(background.done, had);
    b->ops = ops;
    close_actor(&background);
    close_actor(&prompt);
}

/* Who reads and cancels in turns does not keep others from reading, where a step has no more tokens
 * than one of them takes. */
static void who_gives_up_had_its_turn(void **state)
{
    struct backend *b = rig.rig.backend;
    const struct backend_ops *ops = b->ops;
    struct actor a, prompt;
    struct client other;

    (void)state;
    config.batch_tokens = PACE_TOKENS_MIN;
    open_client(&other, 1);
    other.dead = client.dead = false;
    open_actor(&a, &keeps, 0);
    open_actor(&prompt, &keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_cancel;
    b->ops = &coming;
    act_of(&other, &prompt, &endless, WIRE_INTERACTIVE);
    for (int i = 0; i < 20; i++) {
        act(&a, &reader, WIRE_INTERACTIVE);
        comer = &a;
        (void)batch_run(&sched);
        leave(&a);
    }
    assert_true(prompt.done >= 9 * PACE_TOKENS_MIN);
    b->ops = ops;
    config.batch_tokens = 32;
    close_actor(&a);
    close_actor(&prompt);
    close_client(&other);
}

/* Who comes in the background, too, or when somebody else waits for the step, does not end it. */
static void others_do_not(void **state)
{
    struct backend *b = rig.rig.backend;
    const struct backend_ops *ops = b->ops;
    struct actor reads, prompt;

    (void)state;
    client.dead = false;
    open_actor(&reads, &keeps, 0);
    open_actor(&prompt, &keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_come;
    b->ops = &coming;
    act(&reads, &endless, WIRE_INTERACTIVE);
    for (int i = 0; i < 2; i++) {
        uint32_t had = reads.done;

        comer = &prompt;
        assert_true(batch_run(&sched));
        assert_null(comer);
        assert_true(reads.done > had);
        leave(&prompt);
        reads.request.priority = comes_as = WIRE_BACKGROUND;
    }
    comes_as = WIRE_INTERACTIVE;
    b->ops = ops;
    close_actor(&reads);
    close_actor(&prompt);
}

/* --- short steps ------------------------------------------------------------------------------ */

/* A step of all that a step may have, were it not made shorter. */
static void open_long_steps(struct actor *a, enum wire_priority priority)
{
    config.batch_tokens = LONG;
    pace_init(&sched.pace, rig.rig.model->n_layer, LONG);
    for (int i = 0; i < 50; i++)
        pace_measured(&sched.pace, LONG, LONG); /* a nanosecond a token */
    client.dead = false;
    open_actor(a, &keeps, 0);
    act(a, &endless, priority);
}

static void close_long_steps(struct actor *a)
{
    config.batch_tokens = 32;
    close_actor(a);
}

/* What a step reads of it. The machine may be slow meanwhile, but is not to be found so. */
static uint32_t step_of(const struct actor *a)
{
    uint32_t had = a->done;

    assert_true(batch_run(&sched));
    for (int i = 0; i < 50; i++)
        pace_measured(&sched.pace, LONG, LONG);
    return a->done - had;
}

/* While the text of an interactive prompt is encoded, a slice between two steps, the background has
 * short ones. Not for who is in the background, too, nor for what no session waits for. */
static void short_steps_while_a_text_is_encoded(void **state)
{
    struct actor background, prompt;

    (void)state;
    open_long_steps(&background, WIRE_BACKGROUND);
    open_actor(&prompt, &keeps, 0);
    assert_int_equal(step_of(&background), LONG);
    act(&prompt, &reader, WIRE_INTERACTIVE);
    prompt.request.phase = REQUEST_WORK;
    assert_int_equal(step_of(&background), LONG); /* without a session */
    prompt.request.session = &session;
    assert_int_equal(step_of(&background), PACE_TOKENS_MIN);
    assert_int_equal(step_of(&background), PACE_TOKENS_MIN);
    prompt.request.priority = WIRE_BACKGROUND;
    assert_int_equal(step_of(&background), LONG);
    prompt.request.priority = WIRE_INTERACTIVE;
    assert_int_equal(step_of(&background), PACE_TOKENS_MIN);
    leave(&prompt);
    assert_int_equal(step_of(&background), LONG);
    close_actor(&prompt);
    close_long_steps(&background);
}

/* A step that read for another one too was given up: the next is not, and so is half as long. */
static void a_spared_step_is_short(void **state)
{
    struct backend *b = rig.rig.backend;
    const struct backend_ops *ops = b->ops;
    struct actor a, other;

    (void)state;
    open_long_steps(&other, WIRE_INTERACTIVE);
    open_actor(&a, &keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_cancel;
    b->ops = &coming;
    act(&a, &reader, WIRE_INTERACTIVE);
    comer = &a;
    assert_int_equal(step_of(&other), 0); /* given up */
    leave(&a);
    b->ops = ops;
    assert_int_equal(step_of(&other), LONG / 2);
    assert_int_equal(step_of(&other), LONG);
    close_actor(&a);
    close_long_steps(&other);
    comer = NULL;
}

/* Of nobody else: the next step is as long as ever. */
static void a_step_of_one_is_not_spared(void **state)
{
    struct backend *b = rig.rig.backend;
    const struct backend_ops *ops = b->ops;
    struct actor a, other;

    (void)state;
    open_long_steps(&a, WIRE_INTERACTIVE);
    open_actor(&other, &keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_cancel;
    b->ops = &coming;
    comer = &a;
    assert_int_equal(step_of(&a), 0);
    leave(&a);
    b->ops = ops;
    act(&other, &endless, WIRE_INTERACTIVE);
    assert_int_equal(step_of(&other), LONG);
    close_actor(&other);
    close_long_steps(&a);
    comer = NULL;
}

/* A cancel of what the step has no part of, whose text is still encoded: it ends between two steps,
 * and a step in the background gives way to it, but none that somebody waits for. */
static void a_cancel_ends_a_step_in_the_background(void **state)
{
    struct backend *b = rig.rig.backend;
    const struct backend_ops *ops = b->ops;
    struct actor reads, prompt;

    (void)state;
    open_long_steps(&reads, WIRE_BACKGROUND);
    open_actor(&prompt, &keeps, 0);
    act(&prompt, &reader, WIRE_BACKGROUND); /* so that no step is short because of it */
    prompt.request.phase = REQUEST_WORK;
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_cancel;
    b->ops = &coming;
    comer = &prompt;
    assert_int_equal(step_of(&reads), 0);
    prompt.request.cancelled = false;
    reads.request.priority = WIRE_INTERACTIVE;
    assert_int_equal(step_of(&reads), LONG);
    leave(&prompt);
    b->ops = ops;
    close_actor(&prompt);
    close_long_steps(&reads);
    comer = NULL;
}

/* Questions come while a document is read: each has its part first, but not twice in a row. */
static void short_ones_first(void **state)
{
    struct actor a[4], *doc = &a[3];

    (void)state;
    open_actor(doc, &keeps, 0);
    act(doc, &endless, WIRE_INTERACTIVE);
    for (int i = 0; i < 3; i++) {
        doc->done = 0;
        open_actor(&a[i], &keeps, 0);
        act(&a[i], &question, WIRE_INTERACTIVE);
        assert_true(batch_run(&sched));
        assert_true(i % 2 || a[i].done > 0);
        assert_int_equal(doc->done > 0, i % 2);
    }
    for (int i = 0; i < 4; i++)
        close_actor(&a[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(looks_again, open_all, close_all),
        cmocka_unit_test_setup_teardown(reads_beside_forks, open_all, close_all),
        cmocka_unit_test_setup_teardown(hurries_who_is_waited_for, open_all, close_all),
        cmocka_unit_test_setup_teardown(short_ones_wait_in_line, open_all, close_all),
        cmocka_unit_test_setup_teardown(says_what_failed, open_all, close_all),
        cmocka_unit_test_setup_teardown(answers_leave_rows, open_all, close_all),
        cmocka_unit_test_setup_teardown(answers_of_all_users_go_on, open_all, close_all),
        cmocka_unit_test_setup_teardown(reading_is_shared, open_all, close_all),
        cmocka_unit_test_setup_teardown(background_has_its_turn, open_all, close_all),
        cmocka_unit_test_setup_teardown(background_gives_way, open_all, close_all),
        cmocka_unit_test_setup_teardown(who_gives_up_had_its_turn, open_all, close_all),
        cmocka_unit_test_setup_teardown(others_do_not, open_all, close_all),
        cmocka_unit_test_setup_teardown(short_steps_while_a_text_is_encoded, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_spared_step_is_short, open_all, close_all),
        cmocka_unit_test_setup_teardown(short_ones_first, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_step_of_one_is_not_spared, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_cancel_ends_a_step_in_the_background, open_all,
                                        close_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
