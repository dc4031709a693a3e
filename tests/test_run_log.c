/* tests/test_run_log.c - a run's log. Would catch: numbers that do not come back, lines of lost
 * steps that stay after a resume, a half-written line that spoils the rest.
 */

#include "tests/support/file.h"
#include "tests/support/scratch.h"
#include "train/run_log.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[SCRATCH_PATH_MAX];

static struct run_log_step make_step(uint64_t i)
{
    struct run_log_step s;

    run_log_step_init(&s);
    s.step = i;
    s.tokens = 2048 * i;
    s.loss = 2.5 + 1.0 / (double)i;
    s.lr = 1e-3 / 3;
    s.ratio = i % 2 ? 4 : 0;
    return s;
}

static struct run_log_eval make_eval(uint64_t i)
{
    struct run_log_eval e;

    run_log_eval_init(&e);
    e.step = i;
    e.tokens = 2048 * i;
    e.asked = 0xfedcba9876543210;
    e.full = 2.25;
    e.none = 2.625;
    e.n_ratios = 2;
    e.ratios[0] = 4;
    e.ratios[1] = 32;
    e.nll[0] = 2.4 - 1e-3 * (double)i;
    e.nll[1] = NAN; /* not measured */
    e.recalled[1] = 0.125;
    return e;
}

/* Steps from..to, with an evaluation after each tenth. */
static void write_log(uint64_t done, uint64_t from, uint64_t to)
{
    struct run_log *l = NULL;
    struct why why = { "" };

    if (run_log_open(path, done, &l, &why) < 0)
        fail_msg("%s", why.text);
    for (uint64_t i = from; i <= to; i++) {
        struct run_log_step s = make_step(i);
        struct run_log_eval e = make_eval(i);

        assert_int_equal(run_log_step(l, &s), 0);
        if (i % 10 == 0)
            assert_int_equal(run_log_eval(l, &e), 0);
    }
    run_log_close(l);
}

static void test_round_trip(void **state)
{
    struct run_log_data d;
    struct why why = { "" };

    (void)state;
    (void)unlink(scratch_path(path, "a.log"));
    write_log(0, 1, 100);
    assert_int_equal(run_log_read(path, &d, &why), 0);
    assert_int_equal(d.n_steps, 100);
    assert_int_equal(d.n_evals, 10);
    for (uint64_t i = 1; i <= 100; i++) {
        struct run_log_step *s = &d.steps[i - 1], want = make_step(i);

        assert_true(s->step == i && s->tokens == want.tokens && s->ratio == want.ratio);
        assert_true(s->loss == want.loss && s->lr == want.lr); /* to the last bit */
        assert_true(isnan(s->ae) && isnan(s->seconds));
    }
    assert_true(d.evals[9].step == 100 && d.evals[9].full == 2.25 && d.evals[9].n_ratios == 2);
    assert_true(d.evals[9].asked == make_eval(100).asked);
    assert_true(d.evals[9].ratios[1] == 32 && d.evals[9].nll[0] == make_eval(100).nll[0]);
    assert_true(isnan(d.evals[9].nll[1]) && d.evals[9].recalled[1] == 0.125);
    assert_true(isnan(d.evals[9].recalled[0]) && isnan(d.evals[9].rebuilt[0]));
    run_log_data_fini(&d);
}

static void append(const char *text)
{
    FILE *f = fopen(path, "a");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* A run that was killed after step 37, inside of a line, and goes on from its checkpoint of 30, is
 * the same as one that was not. */
static void test_resume(void **state)
{
    uint8_t *whole, *again;
    size_t whole_len, again_len;

    (void)state;
    (void)unlink(scratch_path(path, "b.log"));
    write_log(0, 1, 50);
    whole = file_read(path, &whole_len);
    write_log(0, 1, 37); /* done 0: nothing stays */
    free(file_read(path, &again_len));
    assert_int_equal(truncate(path, (off_t)again_len - 7), 0);
    write_log(30, 31, 50);
    again = file_read(path, &again_len);
    assert_int_equal(again_len, whole_len);
    assert_memory_equal(again, whole, whole_len);
    free(again);
    append("{\"eval\":0,\"full\":1}\n"); /* of a run that begins, even that goes */
    write_log(0, 1, 50);
    again = file_read(path, &again_len);
    assert_int_equal(again_len, whole_len);
    free(whole);
    free(again);
}

static void test_broken(void **state)
{
    static const char *const lines[] = {
        "{\"loss\":1}\n",  "[1]\n", "step 3\n",
        "{\"step\":-1}\n", "\n",    "{\"eval\":1,\"ratios\":[1,2,3,4,5,6,7,8,9]}\n"
    };
    struct run_log_data d;
    struct run_log *l = NULL;
    struct why why;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        (void)unlink(scratch_path(path, "c.log"));
        write_log(0, 1, 2);
        append(lines[i]);
        why.text[0] = '\0';
        assert_int_equal(run_log_read(path, &d, &why), -EINVAL);
        assert_non_null(strstr(why.text, "c.log:3: found"));
        assert_int_equal(run_log_open(path, 9, &l, &why), -EINVAL);
    }
    (void)unlink(path);
    write_log(0, 1, 2);
    append("{\"step\":3,\"lo");
    assert_int_equal(run_log_read(path, &d, &why), 0);
    assert_int_equal(d.n_steps, 2);
    run_log_data_fini(&d);
    why.text[0] = '\0';
    assert_int_equal(run_log_read("/nonexistent/log", &d, &why), -ENOENT);
    assert_non_null(strstr(why.text, "/nonexistent/log"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_broken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
