/* tests/test_batch.c - who takes part in a step, with requests and a scheduler made by hand. Would
 * catch: a scheduler that sleeps although what a request waits for has just come back; a prompt
 * that is not read while answers share a long context; one that waits for a compression in the
 * background which is not done while other prompts come; a long segment that short ones pass for
 * ever; an error of who computes that is taken for want of memory; an interactive request that
 * waits for a step in the background; a background that never gets its turn; long steps in the
 * background while a text is encoded, or behind one that was given up; a cancel that waits for such
 * a step, or that a close makes and nobody times; a question that waits for documents.
 * tests/test_shares.c has what of a step is whose.
 */
#include "engine/kv/compress_ops.h"
#include "tests/support/batch_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define L    BATCH_RIG_SEGMENT
#define LONG 128u /* tokens of a long step */

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

/* --- tests ------------------------------------------------------------------------------------ */

/* One waits for the scratch that another holds, who is failed in the same look: its pages are
 * shared, and there are none to copy them to. Nobody rings for that. */
static void looks_again(void **state)
{
    struct actor a, b, other;
    uint32_t pages[BATCH_RIG_PAGES], n;
    void *rest;

    (void)state;
    actor_open(&a, &batch_rig_selects, L);
    actor_open(&b, &batch_rig_selects, L);
    observe(&b);
    actor_fork(&b, &other);
    rest = scratch_take(&rig.served.compressor->sides,
                        rig.served.compressor->sides.len - rig.served.compressor->sides.used);
    assert_non_null(rest);
    n = take_pages(pages);
    actor_act(&a, &actor_reader, WIRE_INTERACTIVE);
    actor_act(&b, &actor_reader, WIRE_INTERACTIVE);
    assert_true(batch_run(&sched)); /* false: it would sleep now */
    assert_int_equal(b.request.phase, REQUEST_LAST);
    assert_int_equal(b.request.last.u.error.code, WIRE_E_POOL_FULL);
    assert_int_equal(a.request.phase, REQUEST_RUN);
    for (int i = 0; i < 8; i++)
        (void)batch_run(&sched);
    assert_int_equal(a.seq.segments[0].state, SEQ_PACKED);
    scratch_give(&rig.served.compressor->sides, rest);
    pool_give(&rig.rig.pool, &rig.rig.account, n, pages);
    actor_close(&a);
    actor_close(&b);
    actor_close(&other);
}

/* Answers behind a context that they share take more pages of a plan than the pool has. */
static void reads_beside_forks(void **state)
{
    struct actor answers[4], prompt;

    (void)state;
    actor_open(&answers[0], &batch_rig_keeps, 320);
    for (int i = 1; i < 4; i++)
        actor_fork(&answers[0], &answers[i]);
    actor_open(&prompt, &batch_rig_keeps, 0);
    for (int i = 0; i < 4; i++)
        actor_act(&answers[i], &actor_answer, WIRE_INTERACTIVE);
    actor_act(&prompt, &actor_reader, WIRE_INTERACTIVE);
    for (int i = 0; i < 6; i++)
        assert_true(batch_run(&sched));
    assert_true(prompt.done > 0);
    for (int i = 0; i < 4; i++) {
        assert_true(answers[i].done > 0);
        assert_int_equal(answers[i].request.phase, REQUEST_RUN);
        actor_close(&answers[i]);
    }
    actor_close(&prompt);
}

/* An interactive request waits for what one in the background holds, whose turn does not come while
 * somebody else's prompts are read. */
static void hurries_who_is_waited_for(void **state)
{
    struct actor a, b, prompts;
    void *rest;

    (void)state;
    actor_open(&a, &batch_rig_selects, L);
    actor_open(&b, &batch_rig_selects, L);
    actor_open(&prompts, &batch_rig_keeps, 0);
    actor_act(&b, &actor_reader, WIRE_BACKGROUND);
    (void)batch_run(&sched); /* some of its observers */
    assert_true(b.memory.side.begun);
    assert_int_equal(b.seq.segments[0].state, SEQ_RAW);
    rest = scratch_take(&rig.served.compressor->sides,
                        rig.served.compressor->sides.len - rig.served.compressor->sides.used);
    assert_non_null(rest);
    actor_act(&prompts, &actor_endless, WIRE_INTERACTIVE);
    actor_act(&a, &actor_reader, WIRE_INTERACTIVE);
    for (int i = 0; i < 40; i++)
        assert_true(batch_run(&sched));
    assert_true(prompts.done > 0);
    assert_int_equal(a.seq.segments[0].state, SEQ_PACKED);
    scratch_give(&rig.served.compressor->sides, rest);
    actor_close(&a);
    actor_close(&b);
    actor_close(&prompts);
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
    actor_open(&one, &longer, 2 * L);
    for (int i = 0; i < 3; i++) {
        actor_open(&few[i], &batch_rig_selects, L);
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
    actor_close(&one);
    for (int i = 0; i < 3; i++)
        actor_close(&few[i]);
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
    actor_open(&a, &batch_rig_selects, L);
    broken = *ops;
    broken.move = no_move;
    b->ops = &broken;
    actor_act(&a, &actor_reader, WIRE_INTERACTIVE);
    for (int i = 0; i < 8 && a.request.phase == REQUEST_RUN; i++)
        (void)batch_run(&sched);
    b->ops = ops;
    assert_int_equal(a.request.phase, REQUEST_LAST);
    assert_int_equal(a.request.last.u.error.code, WIRE_E_INTERNAL);
    actor_close(&a);
}

/* Of what is read before it the background has a part, not more. */
static void background_has_its_turn(void **state)
{
    struct actor prompts, background;

    (void)state;
    actor_open(&prompts, &batch_rig_keeps, 0);
    actor_open(&background, &batch_rig_keeps, 0);
    actor_act(&prompts, &actor_endless, WIRE_INTERACTIVE);
    actor_act(&background, &actor_endless, WIRE_BACKGROUND);
    for (uint32_t i = 0; i < 90; i++)
        assert_true(batch_run(&sched));
    assert_true(background.done * 10 > prompts.done);
    assert_true(background.done * 7 < prompts.done);
    actor_close(&prompts);
    actor_close(&background);
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
        actor_act(comer, &actor_reader, comes_as);
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
    actor_open(&background, &batch_rig_keeps, 0);
    actor_open(&prompt, &batch_rig_keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_come;
    b->ops = &coming;
    actor_act(&background, &actor_endless, WIRE_BACKGROUND);
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
    actor_close(&background);
    actor_close(&prompt);
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
    batch_rig_client(&other, 1);
    other.dead = client.dead = false;
    actor_open(&a, &batch_rig_keeps, 0);
    actor_open(&prompt, &batch_rig_keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_cancel;
    b->ops = &coming;
    actor_act_of(&other, &prompt, &actor_endless, WIRE_INTERACTIVE);
    for (int i = 0; i < 20; i++) {
        actor_act(&a, &actor_reader, WIRE_INTERACTIVE);
        comer = &a;
        (void)batch_run(&sched);
        leave(&a);
    }
    assert_true(prompt.done >= 9 * PACE_TOKENS_MIN);
    b->ops = ops;
    config.batch_tokens = 32;
    actor_close(&a);
    actor_close(&prompt);
    batch_rig_client_close(&other);
}

/* Who comes in the background, too, or when somebody else waits for the step, does not end it. */
static void others_do_not(void **state)
{
    struct backend *b = rig.rig.backend;
    const struct backend_ops *ops = b->ops;
    struct actor reads, prompt;

    (void)state;
    client.dead = false;
    actor_open(&reads, &batch_rig_keeps, 0);
    actor_open(&prompt, &batch_rig_keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_come;
    b->ops = &coming;
    actor_act(&reads, &actor_endless, WIRE_INTERACTIVE);
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
    actor_close(&reads);
    actor_close(&prompt);
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
    actor_open(a, &batch_rig_keeps, 0);
    actor_act(a, &actor_endless, priority);
}

static void close_long_steps(struct actor *a)
{
    config.batch_tokens = 32;
    actor_close(a);
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
    actor_open(&prompt, &batch_rig_keeps, 0);
    assert_int_equal(step_of(&background), LONG);
    actor_act(&prompt, &actor_reader, WIRE_INTERACTIVE);
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
    actor_close(&prompt);
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
    actor_open(&a, &batch_rig_keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_cancel;
    b->ops = &coming;
    actor_act(&a, &actor_reader, WIRE_INTERACTIVE);
    comer = &a;
    assert_int_equal(step_of(&other), 0); /* given up */
    leave(&a);
    b->ops = ops;
    assert_int_equal(step_of(&other), LONG / 2);
    assert_int_equal(step_of(&other), LONG);
    actor_close(&a);
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
    actor_open(&other, &batch_rig_keeps, 0);
    coming = *ops;
    real_step = ops->step;
    coming.step = step_and_cancel;
    b->ops = &coming;
    comer = &a;
    assert_int_equal(step_of(&a), 0);
    leave(&a);
    b->ops = ops;
    actor_act(&other, &actor_endless, WIRE_INTERACTIVE);
    assert_int_equal(step_of(&other), LONG);
    actor_close(&other);
    close_long_steps(&a);
    comer = NULL;
}

/* Who closes a session that is at work cancels that: how long it takes is measured from then on, or
 * from the cancel that came before. */
static void a_close_is_a_timed_cancel(void **state)
{
    struct request busy = { .id = 1 }, close = { .id = 2, .client = &client };
    struct session own = { .id = 77, .client = &client, .busy = &busy };
    const struct wire_req m = { .kind = WIRE_CLOSE_SESSION, .u.close_session.session = 77 };

    (void)state;
    TAILQ_INIT(&client.sessions);
    TAILQ_INSERT_TAIL(&client.sessions, &own, link);
    assert_int_equal(request_close.start(&sched, &close, &m, NULL), 0);
    assert_true(own.closing && busy.cancelled && busy.times.cancel_at > 0);
    own.closing = false;
    busy.times.cancel_at = 5;
    assert_int_equal(request_close.start(&sched, &close, &m, NULL), 0);
    assert_int_equal(busy.times.cancel_at, 5);
    TAILQ_REMOVE(&client.sessions, &own, link);
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
    actor_open(&prompt, &batch_rig_keeps, 0);
    actor_act(&prompt, &actor_reader, WIRE_BACKGROUND); /* so that no step is short because of it */
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
    actor_close(&prompt);
    close_long_steps(&reads);
    comer = NULL;
}

/* Questions come while a document is read: each has its part first, but not twice in a row. */
static void short_ones_first(void **state)
{
    struct actor a[4], *doc = &a[3];

    (void)state;
    actor_open(doc, &batch_rig_keeps, 0);
    actor_act(doc, &actor_endless, WIRE_INTERACTIVE);
    for (int i = 0; i < 3; i++) {
        doc->done = 0;
        actor_open(&a[i], &batch_rig_keeps, 0);
        actor_act(&a[i], &actor_question, WIRE_INTERACTIVE);
        assert_true(batch_run(&sched));
        /* However slow that was: a shorter step has no room for two. */
        for (int k = 0; k < 50; k++)
            pace_measured(&sched.pace, LONG, LONG);
        assert_true(i % 2 || a[i].done > 0);
        assert_int_equal(doc->done > 0, i % 2);
    }
    for (int i = 0; i < 4; i++)
        actor_close(&a[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(looks_again, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(reads_beside_forks, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(hurries_who_is_waited_for, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(short_ones_wait_in_line, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(says_what_failed, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(background_has_its_turn, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(background_gives_way, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(who_gives_up_had_its_turn, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(others_do_not, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(short_steps_while_a_text_is_encoded, batch_rig_open,
                                        batch_rig_close),
        cmocka_unit_test_setup_teardown(a_spared_step_is_short, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(short_ones_first, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(a_step_of_one_is_not_spared, batch_rig_open,
                                        batch_rig_close),
        cmocka_unit_test_setup_teardown(a_close_is_a_timed_cancel, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(a_cancel_ends_a_step_in_the_background, batch_rig_open,
                                        batch_rig_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
