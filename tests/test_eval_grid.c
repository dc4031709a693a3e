/* tests/test_eval_grid.c - the cells of a grid, and the options that make it. Would catch: a cell
 * that is there twice or not at all, two cells of one name, a compressor that gets another's ratio,
 * a bad list without a sentence, a manual that has other options than the program.
 */

#include "eval/grid.h"
#include "eval/opts.h"
#include "tests/support/manual.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct opts load(const char *const *flags)
{
    static struct opts o;
    struct why why = { "" };
    char *argv[16] = { (char *)"recall" };
    bool help;
    int argc = 1;

    while (*flags)
        argv[argc++] = (char *)*flags++;
    if (opts_load(OPTS_RECALL, argc, argv, &o, &help, &why) < 0)
        fail_msg("%s", why.text);
    assert_false(help);
    return o;
}

static void expect_names(const struct grid *g, const char *const *names)
{
    char name[GRID_NAME_CAP];
    size_t n = 0;

    for (; names[n]; n++) {
        assert_true(n < g->n);
        assert_string_equal(grid_cell_name(&g->cells[n], name), names[n]);
    }
    assert_int_equal(g->n, n);
}

static void test_cells(void **state)
{
    static const char *const flags[] = { "--compressors", "none, select auto", "--ratios",
                                         "4 8",           "--keep-tail",       "0 64",
                                         "--hydrate",     "off auto",          NULL };
    static const char *const names[] = { "full",
                                         "none, segment 512",
                                         "none, segment 512, tail 64",
                                         "select 4, segment 512",
                                         "select 4, segment 512, hydrate auto",
                                         "select 4, segment 512, tail 64",
                                         "select 4, segment 512, tail 64, hydrate auto",
                                         "select 8, segment 512",
                                         "select 8, segment 512, hydrate auto",
                                         "select 8, segment 512, tail 64",
                                         "select 8, segment 512, tail 64, hydrate auto",
                                         "auto, hydrate off",
                                         "auto, hydrate auto",
                                         NULL };
    struct opts o = load(flags);
    struct grid g;

    (void)state;
    assert_int_equal(grid_make(&o.grid, false, &g, NULL), 0);
    expect_names(&g, names);
}

/* Of a text that is scored nothing is hydrated, and full differs by segment. */
static void test_by_segment(void **state)
{
    static const char *const flags[] = { "--compressors",  "select", "--ratios",  "16",
                                         "--segments",     "0 64",   "--hydrate", "off 2",
                                         "--budget-parts", "4",      NULL };
    static const char *const names[] = { "full", "full, segment 64", "select 16, budget 1/4",
                                         "select 16, segment 64, budget 1/4", NULL };
    struct opts o = load(flags);
    struct gist_memory m;
    struct grid g;

    (void)state;
    assert_int_equal(grid_make(&o.grid, true, &g, NULL), 0);
    expect_names(&g, names);
    m = grid_memory(&g.cells[2], "name", 4000);
    assert_int_equal(m.compressor, GIST_SELECT);
    assert_int_equal(m.ratio, 16);
    assert_int_equal(m.budget, 1000);
    assert_string_equal(m.adapter, "name");
    m = grid_memory(&g.cells[0], "name", 4000);
    assert_int_equal(m.compressor, GIST_FULL);
    assert_int_equal(m.budget, 0);
    assert_null(m.adapter);
}

static void expect_refused(const char *flag, const char *value, const char *sentence)
{
    const char *const flags[] = { flag, value, NULL };
    struct opts o = load(flags);
    struct why why = { "" };
    static struct grid g;

    assert_int_equal(grid_make(&o.grid, false, &g, &why), -EINVAL);
    if (!strstr(why.text, sentence))
        fail_msg("'%s' does not say '%s'", why.text, sentence);
}

static void test_refused(void **state)
{
    (void)state;
    expect_refused("--compressors", "select magic",
                   "unknown compressor 'magic'; known: auto, full");
    expect_refused("--hydrate", "some", "found 'some', allowed: off, auto or a number");
    expect_refused("--hydrate", "-1", "found '-1'");
    expect_refused("--hydrate", "3x", "found '3x'");
    expect_refused("--hydrate", "", "need a value each");
}

static void test_too_many(void **state)
{
    static const char *const flags[] = { "--ratios",       "2 4 8 16 32 64", "--keep-tail",
                                         "0 1 2 3 4 5 6",  "--hydrate",      "0 1 2 3 4 5 6 7",
                                         "--budget-parts", "0 2 4",          NULL };
    struct opts o = load(flags);
    struct why why = { "" };
    static struct grid g;

    (void)state;
    assert_int_equal(grid_make(&o.grid, false, &g, &why), -E2BIG);
    assert_non_null(strstr(why.text, "more than 256 cells"));
}

/* With UPDATE in the environment the page gets the lists. */
static void check_list(enum opts_command command, const char *name)
{
    char begin_line[96], made_from[64], *list = NULL;
    size_t len;
    FILE *f = open_memstream(&list, &len);

    opts_print_mdoc(command, f);
    assert_int_equal(fclose(f), 0);
    (void)snprintf(begin_line, sizeof(begin_line), ".\\\" begin of the options of %s\n", name);
    (void)snprintf(made_from, sizeof(made_from), "the options of %s", name);
    manual_check("docs/man/gist-eval.1", begin_line, ".\\\" end of the options\n", list, made_from);
    free(list);
}

static void test_man_page(void **state)
{
    (void)state;
    check_list(OPTS_RECALL, "recall");
    check_list(OPTS_PROBES, "probes");
    check_list(OPTS_PPL, "ppl");
    check_list(OPTS_SETS, "sets");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cells),    cmocka_unit_test(test_by_segment),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_man_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
