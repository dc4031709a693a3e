/* tests/test_plot.c - the picture of a run's log. Would catch: a file that is no XML, a curve or a
 * level that is not drawn, a scale that one wild step sets, a picture as large as its log.
 */

#include "tests/support/count.h"
#include "tests/support/file.h"
#include "tests/support/markup.h"
#include "tests/support/scratch.h"
#include "train/plot.h"
#include "train/run_log.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct run_log_data *make_data(size_t n_steps, size_t n_evals)
{
    struct run_log_data *d = calloc(1, sizeof(*d));

    d->steps = calloc(n_steps + 1, sizeof(*d->steps));
    d->evals = calloc(n_evals + 1, sizeof(*d->evals));
    d->n_steps = n_steps;
    d->n_evals = n_evals;
    for (size_t i = 0; i < n_steps; i++) {
        run_log_step_init(&d->steps[i]);
        d->steps[i].step = i + 1;
        d->steps[i].tokens = 2048 * (i + 1);
        d->steps[i].loss = i % 500 == 5 ? 1e9 : i == 6 ? NAN : 2.5 + (double)(i * 37 % 100) / 100;
    }
    for (size_t i = 0; i < n_evals; i++) {
        struct run_log_eval *e = &d->evals[i];

        run_log_eval_init(e);
        e->tokens = 20480 * (i + 1);
        e->full = 2.25;
        e->none = 2.625;
        e->n_ratios = 2;
        e->ratios[0] = 4;
        e->ratios[1] = 32;
        e->nll[0] = 2.5 - 2e-4 * (double)i;
        e->nll[1] = i == 3 ? NAN : 2.6 - 1e-4 * (double)i;
    }
    return d;
}

static void free_data(struct run_log_data *d)
{
    run_log_data_fini(d);
    free(d);
}

static char *draw(size_t n_steps, size_t n_evals)
{
    struct run_log_data *d = make_data(n_steps, n_evals);
    char out[SCRATCH_PATH_MAX];
    struct why why = { "" };
    size_t len;

    assert_int_equal(plot_write(d, "a <b> & c", scratch_path(out, "d.svg"), &why), 0);
    free_data(d);
    return (char *)file_read(out, &len);
}

static void test_plot(void **state)
{
    char *svg = draw(3000, 300);

    (void)state;
    assert_true(markup_is_nested(svg, NULL));
    assert_non_null(strstr(svg, "a &lt;b> &amp; c"));
    assert_int_equal(count_of(svg, "<polyline"), 4); /* raw, smoothed, two ratios */
    assert_int_equal(count_of(svg, "<circle"), 599);
    assert_non_null(strstr(svg, "full attention: 2.250"));
    assert_non_null(strstr(svg, "segment alone: 2.625"));
    assert_non_null(strstr(svg, "ratio 4: 2.440"));
    assert_non_null(strstr(svg, "prefers-color-scheme:dark"));
    assert_true(!strstr(svg, "inf") && !strstr(svg, "nan"));
    assert_non_null(strstr(svg, ">3.4</text>")); /* a wild step does not set the scale */
    assert_true(count_of(svg, ",") < 4000);      /* nor has each step a point */
    free(svg);
    svg = draw(1, 0);
    assert_true(markup_is_nested(svg, NULL));
    assert_int_equal(count_of(svg, "<polyline"), 2);
    free(svg);
}

static void test_errors(void **state)
{
    struct run_log_data *d = make_data(0, 0);
    struct why why = { "" };

    (void)state;
    assert_int_equal(plot_write(d, "empty", "/nonexistent/a.svg", &why), -ENODATA);
    assert_non_null(strstr(why.text, "no steps"));
    free_data(d);
    d = make_data(1, 0);
    why.text[0] = '\0';
    assert_int_equal(plot_write(d, "t", "/nonexistent/a.svg", &why), -ENOENT);
    assert_non_null(strstr(why.text, "/nonexistent/a.svg"));
    free_data(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plot),
        cmocka_unit_test(test_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
