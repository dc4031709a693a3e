#include "tests/support/batch_rig.h"

#include "tests/support/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

const struct policy batch_rig_selects = { .spec = { COMPRESS_SELECT, 4, 0, NULL },
                                          .seg_len = BATCH_RIG_SEGMENT,
                                          .budget = 300 };
const struct policy batch_rig_keeps = { .spec = { COMPRESS_FULL, 8, 0, NULL },
                                        .seg_len = BATCH_RIG_SEGMENT,
                                        .budget = BATCH_RIG_IDS };

struct memory_rig rig;
struct config config = { .batch_tokens = 32 };
struct sched sched;
struct client client;
static uint32_t ids[BATCH_RIG_IDS];

/* --- clients ---------------------------------------------------------------------------------- */

void batch_rig_client_of(struct client *c, uid_t uid, const char *unit)
{
    struct owner *o = owner_ref(&sched.owners, uid);

    assert_non_null(o);
    *c = (struct client){ .dead = true, .owner = o };
    TAILQ_INIT(&c->line);
    assert_int_equal(unit_join(&o->units, unit, c), 0);
    TAILQ_INSERT_TAIL(&o->clients, c, of_owner);
    TAILQ_INSERT_TAIL(&sched.clients, c, link);
}

void batch_rig_client(struct client *c, uid_t uid)
{
    batch_rig_client_of(c, uid, NULL);
}

void batch_rig_client_close(struct client *c)
{
    TAILQ_REMOVE(&sched.clients, c, link);
    unit_leave(&c->owner->units, c);
    TAILQ_REMOVE(&c->owner->clients, c, of_owner);
    owner_unref(&sched.owners, c->owner);
}

int batch_rig_open(void **state)
{
    const struct rig_opts opts = { .model = "tests/data/tiny_smollm2.gguf",
                                   .cpu = "auto",
                                   .kv = KV_F16,
                                   .threads = 2,
                                   .max_batch = 128,
                                   .max_tokens = 16 * BATCH_RIG_PAGES };

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
    batch_rig_client(&client, 0);
    for (uint32_t i = 0; i < BATCH_RIG_IDS; i++)
        ids[i] = i * 7 % rig.rig.model->n_vocab;
    return 0;
}

int batch_rig_close(void **state)
{
    (void)state;
    batch_rig_client_close(&client);
    owners_fini(&sched.owners);
    mailbox_close(sched.inbox);
    free(sched.inbox);
    free(sched.logits);
    assert_int_equal(rig.rig.account.used, 0);
    memory_rig_close(&rig);
    return 0;
}

/* --- actors ----------------------------------------------------------------------------------- */

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
    ((struct actor *)r->state)->done += n;
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
    ((struct actor *)r->state)->done++;
    memory_rewind(r->memory, r->memory->n_ids - 1);
}

const struct request_ops actor_reader = { .name = "reader", .plan = plan, .rows = rows };
const struct request_ops actor_endless = { .name = "endless", .plan = plan, .rows = rows_for_ever };
static uint32_t left(const struct request *r)
{
    return r ? 8 : 0;
}

const struct request_ops actor_question = {
    .name = "question", .plan = plan, .left = left, .rows = rows_for_ever
};
const struct request_ops actor_answer = {
    .name = "answer", .decode = true, .plan = plan, .token = token
};

void actor_act_of(struct client *c, struct actor *a, const struct request_ops *ops,
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

void actor_act(struct actor *a, const struct request_ops *ops, enum wire_priority priority)
{
    actor_act_of(&client, a, ops, priority);
}

/* With n tokens read. */
void actor_open(struct actor *a, const struct policy *p, uint32_t n)
{
    float *logits = malloc(((size_t)n + 1) * rig.rig.model->n_vocab * sizeof(float));

    *a = (struct actor){ .done = 0 };
    assert_int_equal(rig_seq(&rig.rig, BATCH_RIG_IDS, p->seg_len, 0, &a->seq), 0);
    assert_int_equal(memory_init(&a->memory, p, &rig.served, &a->seq), 0);
    assert_int_equal(memory_rig_feed(&rig, &a->memory, ids, n, 128, logits), 0);
    free(logits);
}

void actor_fork(const struct actor *a, struct actor *ret)
{
    *ret = (struct actor){ .done = 0 };
    assert_int_equal(seq_fork(&a->seq, &ret->seq), 0);
    assert_int_equal(memory_fork(&a->memory, &ret->memory, &ret->seq), 0);
}

void actor_close(struct actor *a)
{
    memory_fini(&a->memory);
    seq_close(&a->seq);
}

/* Behind one page that they share. */
void actor_open_answers(struct actor *a, uint32_t n)
{
    actor_open(&a[0], &batch_rig_keeps, 16);
    for (uint32_t i = 1; i < n; i++)
        actor_fork(&a[0], &a[i]);
}
