/* tests/test_eval_report.c - what results say together, on paper. Would catch: an interval that is
 * not Wilson's, a share of full attention over questions that it was not asked, added time that
 * mixes items, markup that is not nested, a name that breaks it, a wrong gap, numbers that are nan.
 */

#include "eval/report.h"
#include "eval/stats.h"
#include "eval/tally.h"
#include "tests/support/markup.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void near(double got, double want)
{
    assert_true(fabs(got - want) < 5e-5);
}

/* statsmodels.stats.proportion.proportion_confint(k, n, method="wilson") */
static void test_wilson(void **state)
{
    static const struct {
        double sum;
        size_t n;
        double low, high;
    } cases[] = { { 0, 10, 0, 0.277533 },
                  { 6, 6, 0.609666, 1 },
                  { 5, 10, 0.236593, 0.763407 },
                  { 81, 263, 0.255289, 0.366214 },
                  { 1, 29, 0.006113, 0.171756 } };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct stats_interval v = stats_wilson(cases[i].sum, cases[i].n);

        near(v.low, cases[i].low);
        near(v.high, cases[i].high);
    }
    near(stats_wilson(0, 0).low, 0);
    near(stats_wilson(0, 0).high, 1);
}

static void test_percentile(void **state)
{
    double v[] = { 5, 1, 4, 2, 3 }, one[] = { 7 };

    (void)state;
    near(stats_percentile(v, 5, 50), 3);
    near(stats_percentile(v, 5, 99), 5);
    near(stats_percentile(v, 5, 20), 1);
    near(stats_percentile(v, 5, 0), 1);
    near(stats_percentile(one, 1, 50), 7);
    assert_true(isnan(stats_percentile(v, 0, 50)));
}

static void add(struct results *r, struct results_item it)
{
    assert_int_equal(results_add(r, &it, NULL), 0);
}

static struct results_item answer(struct grid_cell cell, const char *task, uint64_t index,
                                  double score, uint64_t ms)
{
    struct results_item it;

    results_item_init(&it);
    it.kind = RESULTS_RECALL;
    (void)snprintf(it.task, sizeof(it.task), "%s", task);
    it.cell = cell;
    it.length = 4096;
    it.depth = 10 + 40 * (index % 2);
    it.index = index;
    it.score = score;
    it.first_token_ns = ms * 1000000;
    it.prompt_tokens = 1000;
    if (cell.compressor != GIST_FULL) {
        it.gist_tokens = 800;
        it.gists = 100;
    }
    return it;
}

static const struct grid_cell full = { .compressor = GIST_FULL };
static const struct grid_cell packed = { .compressor = GIST_SELECT, .ratio = 8, .segment = 512 };

/* Full was asked items 0 to 3 and had three right; the other 0 to 5, right: 0, 1 and 5. */
static void add_answers(struct results *r)
{
    static const double scores[] = { 1, 1, 0, 0, 0, 1 };

    for (uint64_t i = 0; i < 4; i++)
        add(r, answer(full, "needle", i, i < 3, 100));
    for (uint64_t i = 0; i < 6; i++)
        add(r, answer(packed, "needle", i, scores[i], 110 + 10 * i));
}

static void test_tally(void **state)
{
    struct tally_filter f = tally_all(RESULTS_RECALL);
    struct results r;
    struct tally t;

    (void)state;
    assert_int_equal(results_open("", "m", "d", &r, NULL), 0);
    add_answers(&r);
    add(&r, answer(packed, "needle", 7, NAN, 0));
    f.cell = &packed;
    assert_int_equal(tally_make(&r, &f, &t), 0);
    assert_int_equal(t.n, 6);
    assert_int_equal(t.n_too_long, 1);
    assert_int_equal(t.n_pairs, 4);
    near(t.sum, 3);
    near(t.pairs_sum / t.full_sum, 2.0 / 3);
    near(t.added_p50, 0.020);
    near(t.added_p99, 0.040);
    near(t.held, 0.3);
    f.depth = 50;
    assert_int_equal(tally_make(&r, &f, &t), 0);
    assert_int_equal(t.n, 3);
    f = tally_all(RESULTS_RECALL);
    f.task = "json";
    assert_int_equal(tally_make(&r, &f, &t), 0);
    assert_int_equal(t.n, 0);
    results_close(&r);
}

static void add_rest(struct results *r)
{
    struct grid_cell cells[] = { { .compressor = GIST_FULL, .segment = 64 },
                                 { .compressor = GIST_NONE, .segment = 64 },
                                 { .compressor = GIST_SELECT, .ratio = 4, .segment = 64 } };
    struct results_item it = answer(packed, "uuid", 0, 0, 10);

    it.prefix = 9;
    add(r, it);
    add(r, answer(packed, "food-surprise", 0, 1, 10));
    it = answer(full, "multikey", 0, 1, 10);
    it.kind = RESULTS_BOUNDARY;
    it.offset = 256;
    add(r, it);
    it.offset = 0;
    add(r, it);
    for (size_t i = 0; i < 3; i++) {
        results_item_init(&it);
        it.kind = RESULTS_PPL;
        (void)snprintf(it.task, sizeof(it.task), "a <b>|c");
        it.cell = cells[i];
        it.nll = 2.0 + (double[]){ 0, 1, 0.25 }[i];
        it.n_scored = 100;
        for (size_t k = 0; k < 7; k++)
            it.by_segment[k] = it.nll;
        for (size_t k = 0; k < RESULTS_QUARTERS; k++)
            it.by_quarter[k] = it.nll;
        add(r, it);
    }
}

static char *write_report(bool html)
{
    struct results r;
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    assert_int_equal(results_open("", "the <model>", "digest", &r, NULL), 0);
    add_answers(&r);
    add_rest(&r);
    assert_int_equal(report_write(f, html, NULL, &r, 1), 0);
    assert_int_equal(fclose(f), 0);
    results_close(&r);
    return text;
}

static void expect_text(const char *text, const char *what)
{
    if (!strstr(text, what))
        fail_msg("the report has no '%s':\n%s", what, text);
}

static void test_markdown(void **state)
{
    char *text = write_report(false);

    (void)state;
    expect_text(text, "# What old context is worth");
    expect_text(text, "the \\<model>");
    expect_text(text, "| full | 75 (30 to 95) | - | 100 | 100 | 0 | 0 | 0 | 4 |");
    expect_text(
        text,
        "| select 8, segment 512 | 50 (19 to 81) | 0 (0 to 79) | 67 | 30 | 0 | 20 | 40 | 7 |");
    expect_text(text, "## Lost if surprise");
    expect_text(text, "| select 8, segment 512 | 100 (21 to 100) |");
    expect_text(text, "| select 8, segment 512 | 100 (21 to 100) | 100 (21 to 100) | 0 (0 to 79) | "
                      "0 (0 to 79) | 1 |");
    expect_text(text, "| old context | at 0 | at 256 |");
    expect_text(text, "### a \\<b>\\|c");
    expect_text(text, "| select 4, segment 64 | 2.2500 | 9.488 | 75.0 |");
    expect_text(text, "| none, segment 64 | 3.0000 | 20.086 | 0.0 |");
    expect_text(text, "The paper's models, not ours");
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "svg"));
    free(text);
}

static void test_html(void **state)
{
    char *text = write_report(true), *body = strstr(text, "<html");

    (void)state;
    assert_non_null(body);
    assert_true(markup_is_nested(body, "meta"));
    expect_text(text, "the &lt;model>");
    expect_text(text, "<td>50 (19 to 81)</td>");
    expect_text(text, "<svg");
    expect_text(text, "Perplexity by position in the segment");
    expect_text(text, "depth in the text");
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "http://www.w3.org/2000/svg\"http"));
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "src="));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wilson), cmocka_unit_test(test_percentile),
        cmocka_unit_test(test_tally),  cmocka_unit_test(test_markdown),
        cmocka_unit_test(test_html),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
