/* tests/test_shares.c - what of a step is whose, with requests and a scheduler made by hand. Would
 * catch: answers of one user that keep the prompts of others from being read, or others' answers
 * from going on; a user who reads more than his share because he has more clients, sessions or
 * units; of his units one that has more because it has more clients or has just come, or less
 * because another one has.
 */
#include "tests/support/batch_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* --- users ------------------------------------------------------------------------------------ */

#define MANY 33u /* answers: more than a step has rows */

/* More answers of one user than there are rows, and a prompt of another one. */
static void answers_leave_rows(void **state)
{
    static struct actor answers[MANY];
    struct actor prompt;
    struct client other;
    uint32_t least = UINT32_MAX, most = 0;

    (void)state;
    batch_rig_client(&other, 1);
    actor_open_answers(answers, MANY);
    actor_open(&prompt, &batch_rig_keeps, 0);
    for (uint32_t i = 0; i < MANY; i++)
        actor_act(&answers[i], &actor_answer, WIRE_INTERACTIVE);
    actor_act_of(&other, &prompt, &actor_endless, WIRE_BACKGROUND);
    assert_true(batch_run(&sched));
    assert_true(prompt.done >= PACE_TOKENS_MIN); /* at once */
    for (uint32_t i = 0; i < 2 * MANY; i++)
        assert_true(batch_run(&sched));
    for (uint32_t i = 0; i < MANY; i++) {
        least = answers[i].done < least ? answers[i].done : least;
        most = answers[i].done > most ? answers[i].done : most;
        actor_close(&answers[i]);
    }
    assert_true(least > MANY / 2); /* half of the rows, two steps a token */
    assert_true(most - least <= 1);
    actor_close(&prompt);
    batch_rig_client_close(&other);
}

/* One user has 28 answers, another one 3 and 1 of two clients, and a step has 16 rows. */
static void answers_of_all_users_go_on(void **state)
{
    static struct actor a[32];
    struct client other[2];

    (void)state;
    config.batch_tokens = 16;
    batch_rig_client(&other[0], 1);
    batch_rig_client(&other[1], 1);
    actor_open_answers(a, 32);
    for (uint32_t i = 0; i < 32; i++)
        actor_act_of(i < 28 ? &client : &other[i == 31], &a[i], &actor_answer, WIRE_INTERACTIVE);
    for (uint32_t i = 0; i < 7; i++)
        assert_true(batch_run(&sched));
    for (uint32_t i = 0; i < 32; i++) {
        assert_int_equal(a[i].done, i < 28 ? 3 : 7); /* 12 of 28 a step, and all of 4 */
        actor_close(&a[i]);
    }
    config.batch_tokens = 32;
    batch_rig_client_close(&other[0]);
    batch_rig_client_close(&other[1]);
}

/* Users read as much as each other, whatever they have of clients and sessions, and so do clients
 * of one user. */
static void reading_is_shared(void **state)
{
    struct actor a[5];
    struct client second, other;
    uint64_t one, two;

    (void)state;
    batch_rig_client(&second, 0);
    batch_rig_client(&other, 1);
    for (uint32_t i = 0; i < 5; i++)
        actor_open(&a[i], &batch_rig_keeps, 0);
    for (uint32_t i = 0; i < 3; i++)
        actor_act(&a[i], &actor_endless, WIRE_INTERACTIVE);
    actor_act_of(&second, &a[3], &actor_endless, WIRE_INTERACTIVE);
    actor_act_of(&other, &a[4], &actor_endless, WIRE_INTERACTIVE);
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
        actor_close(&a[i]);
    batch_rig_client_close(&second);
    batch_rig_client_close(&other);
}

/* --- units ------------------------------------------------------------------------------------ */

#define OF_MANY 3 /* clients of the larger unit */

/* Sums of what the one client of `client`'s unit had, and of what the others had. */
static void check_even(uint64_t one, uint64_t many)
{
    if (one * 10 <= many * 9 || many * 10 <= one * 9)
        fail_msg("%llu and %llu rows", (unsigned long long)one, (unsigned long long)many);
}

/* Two units of a user, one of one client and one of three: as much is read for each. Those of a
 * third that come later begin like the others, and have no more for their time away. */
static void units_read_evenly(void **state)
{
    struct client many[OF_MANY], late;
    struct actor a[2 + OF_MANY];
    uint64_t had = 0, before;

    (void)state;
    for (uint32_t i = 0; i < OF_MANY; i++)
        batch_rig_client_of(&many[i], 0, "many.service");
    for (uint32_t i = 0; i < 2 + OF_MANY; i++)
        actor_open(&a[i], &batch_rig_keeps, 0);
    for (uint32_t i = 0; i < OF_MANY; i++)
        actor_act_of(&many[i], &a[i], &actor_endless, WIRE_INTERACTIVE);
    actor_act(&a[OF_MANY], &actor_endless, WIRE_INTERACTIVE);
    for (uint32_t i = 0; i < 120; i++)
        assert_true(batch_run(&sched));
    for (uint32_t i = 0; i < OF_MANY; i++) {
        had += a[i].done;
        assert_true(a[i].done * 4 > a[OF_MANY].done); /* a third, more or less */
    }
    check_even(a[OF_MANY].done, had);
    assert_int_equal(client.owner->rows, had + a[OF_MANY].done);

    batch_rig_client_of(&late, 0, "late.scope");
    actor_act_of(&late, &a[OF_MANY + 1], &actor_endless, WIRE_INTERACTIVE);
    before = a[OF_MANY].done;
    for (uint32_t i = 0; i < 120; i++)
        assert_true(batch_run(&sched));
    check_even(a[OF_MANY].done - before, a[OF_MANY + 1].done);
    for (uint32_t i = 0; i < 2 + OF_MANY; i++)
        actor_close(&a[i]);
    for (uint32_t i = 0; i < OF_MANY; i++)
        batch_rig_client_close(&many[i]);
    batch_rig_client_close(&late);
}

/* The same of answers: the unit of one client has 14, that of three 6 each, and a step 16 rows. Who
 * has few has all of them. */
static void units_write_evenly(void **state)
{
    static struct actor a[14 + OF_MANY * 6 + 1];
    struct client many[OF_MANY], few;
    uint64_t one = 0, had = 0;

    (void)state;
    config.batch_tokens = 16;
    for (uint32_t i = 0; i < OF_MANY; i++)
        batch_rig_client_of(&many[i], 0, "many.service");
    batch_rig_client_of(&few, 0, "few.scope");
    actor_open_answers(a, 14 + OF_MANY * 6 + 1);
    actor_act_of(&few, &a[14 + OF_MANY * 6], &actor_answer, WIRE_INTERACTIVE);
    for (uint32_t i = 0; i < 14 + OF_MANY * 6; i++)
        actor_act_of(i < 14 ? &client : &many[i % OF_MANY], &a[i], &actor_answer, WIRE_INTERACTIVE);
    for (uint32_t i = 0; i < 24; i++)
        assert_true(batch_run(&sched));
    assert_int_equal(a[14 + OF_MANY * 6].done, 24);
    for (uint32_t i = 0; i < 14 + OF_MANY * 6; i++)
        *(i < 14 ? &one : &had) += a[i].done;
    assert_int_equal(one + had, 24 * 15);
    assert_true(one > had ? one - had <= 2 : had - one <= 2); /* 15 rows are 7 and 8, in turn */
    for (uint32_t i = 0; i < 14 + OF_MANY * 6 + 1; i++)
        actor_close(&a[i]);
    config.batch_tokens = 32;
    for (uint32_t i = 0; i < OF_MANY; i++)
        batch_rig_client_close(&many[i]);
    batch_rig_client_close(&few);
}

/* A user's units are nothing to other users: ten of one have together what the one of another has.
 */
static void units_gain_nothing_from_others(void **state)
{
    struct client units[10], other;
    struct actor a[11];
    uint64_t had = 0;
    char name[16];

    (void)state;
    batch_rig_client(&other, 1);
    for (uint32_t i = 0; i < 11; i++)
        actor_open(&a[i], &batch_rig_keeps, 0);
    for (uint32_t i = 0; i < 10; i++) {
        (void)snprintf(name, sizeof(name), "run-%u.scope", i);
        batch_rig_client_of(&units[i], 0, name);
        actor_act_of(&units[i], &a[i], &actor_endless, WIRE_INTERACTIVE);
    }
    actor_act_of(&other, &a[10], &actor_endless, WIRE_INTERACTIVE);
    for (uint32_t i = 0; i < 120; i++)
        assert_true(batch_run(&sched));
    for (uint32_t i = 0; i < 10; i++)
        had += a[i].done;
    check_even(a[10].done, had);
    for (uint32_t i = 0; i < 11; i++)
        actor_close(&a[i]);
    for (uint32_t i = 0; i < 10; i++)
        batch_rig_client_close(&units[i]);
    batch_rig_client_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_leave_rows, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(answers_of_all_users_go_on, batch_rig_open,
                                        batch_rig_close),
        cmocka_unit_test_setup_teardown(reading_is_shared, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(units_read_evenly, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(units_write_evenly, batch_rig_open, batch_rig_close),
        cmocka_unit_test_setup_teardown(units_gain_nothing_from_others, batch_rig_open,
                                        batch_rig_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
