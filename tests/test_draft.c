/* tests/test_draft.c - would catch: guesses where they are slower than none, or none where they
 * pay; a session that never tries again when its text has changed, or that tries all the time; a
 * slow step of the machine's that counts for ever; more rows than a step has for it; settings that
 * are read as others. On a machine of made-up times, with guesses that are right by a seed.
 */
#include "base/draw.h"
#include "daemon/draft.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_settings(void **state)
{
    static const char *const bad[] = { "", "16", "-1", "1x", "on", "Auto", " 1", "99999999999999" };
    struct why why = { "" };
    uint32_t n = 77;

    (void)state;
    assert_true(draft_read("auto", &n, NULL) == 0 && n == DRAFT_AUTO);
    assert_true(draft_read("off", &n, NULL) == 0 && n == 0);
    assert_true(draft_read("0", &n, NULL) == 0 && n == 0);
    assert_true(draft_read("15", &n, NULL) == 0 && n == 15);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(draft_read(bad[i], &n, NULL), -EINVAL);
    assert_int_equal(n, 15);
    assert_int_equal(draft_read("many", &n, &why), -EINVAL);
    assert_string_equal(why.text, "found 'many', expected auto, off or a number from 0 to 15");
    assert_int_equal(draft_setting(DRAFT_AUTO, DRAFT_AUTO), DRAFT_AUTO);
    assert_int_equal(draft_setting(DRAFT_AUTO, 4), 4);
    assert_int_equal(draft_setting(4, DRAFT_AUTO), 4);
    assert_int_equal(draft_setting(4, 8), 4);
    assert_int_equal(draft_setting(0, 8), 0);
    assert_int_equal(draft_setting(8, 0), 0);
}

/* --- a machine ---------------------------------------------------------------------------------
 */

struct machine {
    struct draft_cost cost;
    struct draft_rate rate;
    uint64_t rng;
    double free_rows, row; /* so many rows cost what one does, each other one so much of that */
    double speed;
    uint64_t ns, tokens, drafted, tries;
};

static void begin(struct machine *m, double free_rows, double row)
{
    *m = (struct machine){ .rng = 1, .free_rows = free_rows, .row = row, .speed = 1 };
    draft_rate_init(&m->rate);
}

static uint64_t time_of(struct machine *m, uint32_t rows)
{
    double over = rows > m->free_rows ? rows - m->free_rows : 0;

    return (uint64_t)(m->speed * 1e6 * (1 + m->row * over) *
                      (0.95 + 0.1 * draw_unit(draw_next(&m->rng))));
}

/* Steps with one answer, whose guesses are right one by one with that chance. */
static void write(struct machine *m, uint32_t n_steps, double right)
{
    m->ns = m->tokens = m->drafted = m->tries = 0;
    for (uint32_t i = 0; i < n_steps; i++) {
        uint32_t k = draft_length(&m->rate, &m->cost, 3, 1, DRAFT_MAX), n = 0;
        uint64_t ns = time_of(m, 1 + k);
        bool is_right = true;

        for (; n < k && is_right; n += is_right) {
            is_right = draw_unit(draw_next(&m->rng)) < right;
            draft_learn(&m->rate, 3, is_right);
        }
        draft_timed(&m->cost, 1 + k, ns);
        m->ns += ns;
        m->tokens += 1 + n;
        m->drafted += k;
        m->tries += k > 0;
    }
}

static double speed(const struct machine *m)
{
    return (double)m->tokens / ((double)m->ns / 1e6);
}

static void test_pays(void **state)
{
    struct machine m;

    (void)state;
    begin(&m, 4, 0.2);
    write(&m, 400, 1);
    assert_true(speed(&m) > 3.5); /* 16 tokens for 3.4 */
    begin(&m, 4, 0.2);
    write(&m, 400, 0.8);
    assert_true(speed(&m) > 1.8);
    begin(&m, 1, 0.1);
    write(&m, 400, 0.5);
    assert_true(speed(&m) > 1.2);
}

/* Rows that cost as much as steps, and guesses that are never right. */
static void test_does_not_pay(void **state)
{
    struct machine m;

    (void)state;
    begin(&m, 1, 1);
    write(&m, 2000, 0.9);
    assert_true(speed(&m) > 0.95);
    begin(&m, 1, 0.3);
    write(&m, 2000, 0);
    assert_true(speed(&m) > 0.97);
    assert_true(m.tries < 60 && m.tries > 2);
    write(&m, 2000, 0);
    assert_true(m.tries <= 2000 / 128 + 1);
}

/* The text changes: to what can be guessed, and back. */
static void test_tries_again(void **state)
{
    struct machine m;

    (void)state;
    begin(&m, 1, 0.15);
    write(&m, 3000, 0);
    write(&m, 600, 0.95);
    write(&m, 600, 0.95);
    assert_true(speed(&m) > 2);
    write(&m, 300, 0);
    write(&m, 1000, 0);
    assert_true(speed(&m) > 0.97);
}

/* One slow step, and a machine that is slower from now on. */
static void test_slow_steps(void **state)
{
    struct machine m;
    double before;

    (void)state;
    begin(&m, 4, 0.1);
    write(&m, 300, 0.9);
    before = speed(&m);
    for (uint32_t rows = 1; rows <= DRAFT_ROWS; rows++)
        draft_timed(&m.cost, rows, 1000000000);
    write(&m, 100, 0.9);
    write(&m, 300, 0.9);
    assert_true(speed(&m) > 0.9 * before);
    m.speed = 3;
    write(&m, 300, 0.9);
    write(&m, 300, 0.9);
    assert_true(3 * speed(&m) > 0.9 * before);
}

/* Others' rows are in the step, too: all of them wait for it. */
static void test_beside_others(void **state)
{
    struct machine m;
    uint32_t alone, beside;

    (void)state;
    begin(&m, 4, 0.2);
    for (int i = 0; i < 100; i++)
        for (uint32_t rows = 1; rows <= DRAFT_ROWS; rows++)
            draft_timed(&m.cost, rows, time_of(&m, rows));
    for (int i = 0; i < 100; i++)
        draft_learn(&m.rate, 0, true);
    alone = draft_length(&m.rate, &m.cost, 0, 1, DRAFT_MAX);
    assert_true(alone > 10); /* all but the same speed from there on */
    assert_int_equal(draft_length(&m.rate, &m.cost, 0, 1, 3), 3);
    for (uint32_t rows = 2; rows < DRAFT_ROWS; rows++) {
        beside = draft_length(&m.rate, &m.cost, 0, rows, DRAFT_MAX);
        assert_true(rows + beside <= DRAFT_ROWS);
    }
    assert_int_equal(draft_length(&m.rate, &m.cost, 0, DRAFT_ROWS, DRAFT_MAX), 0);
    assert_int_equal(draft_length(&m.rate, &m.cost, 0, 400, DRAFT_MAX), 0);
    /* Before a step was timed nothing is known. */
    m.cost = (struct draft_cost){ .n_steps = 0 };
    assert_int_equal(draft_length(&m.rate, &m.cost, 0, 1, DRAFT_MAX), 0);
    draft_timed(&m.cost, 17, 5);
    draft_timed(&m.cost, 0, 5);
    assert_true(draft_cost(&m.cost, 1) == 0);
}

static void test_classes(void **state)
{
    (void)state;
    assert_int_equal(draft_class(3), 0);
    assert_int_equal(draft_class(4), 1);
    assert_int_equal(draft_class(7), 1);
    assert_int_equal(draft_class(8), 2);
    assert_int_equal(draft_class(15), 2);
    assert_int_equal(draft_class(16), DRAFT_CLASSES - 1);
    assert_int_equal(draft_class(UINT32_MAX), DRAFT_CLASSES - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),     cmocka_unit_test(test_pays),
        cmocka_unit_test(test_does_not_pay), cmocka_unit_test(test_tries_again),
        cmocka_unit_test(test_slow_steps),   cmocka_unit_test(test_beside_others),
        cmocka_unit_test(test_classes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
