/* tests/test_eval_metrics.c - the scorers against recorded cases of others' programs. Would catch:
 * an article or a comma that decides, a common subsequence that is too short, a ranking that is
 * discounted wrongly, UTF-8 that is counted in bytes.
 */

#include "eval/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LINE_CAP 4096

/* \n, \t and \\ as they were. */
static void unescape(char *s)
{
    char *to = s;

    for (; *s; s++)
        *to++ = *s != '\\' ? *s : *++s == 'n' ? '\n' : *s == 't' ? '\t' : *s;
    *to = '\0';
}

static size_t numbers(char *s, double *ret)
{
    size_t n = 0;
    char *end;

    for (double v = strtod(s, &end); end != s; v = strtod(s, &end)) {
        ret[n++] = v;
        s = end;
    }
    return n;
}

static void expect(const char *line, double got, double want)
{
    if (!(fabs(got - want) <= 1e-8))
        fail_msg("%s: %.9f, recorded: %.9f", line, got, want);
}

static void check(const char *kind, char *a, char *b, char *values)
{
    double v[3] = { NAN, NAN, NAN };

    (void)numbers(values, v);
    if (strcmp(kind, "ndcg") == 0) {
        double ranked[64], all[64];
        size_t n = numbers(a, ranked), n_all = numbers(b, all);

        expect(a, metrics_ndcg(ranked, n, all, n_all, 10), v[0]);
        return;
    }
    unescape(a);
    unescape(b);
    if (strcmp(kind, "subem") == 0) {
        expect(a, metrics_subem(a, b), v[0]);
    } else if (strcmp(kind, "accuracy") == 0) {
        expect(a, metrics_accuracy(a, b), v[0]);
    } else if (strcmp(kind, "f1") == 0) {
        expect(a, metrics_f1(a, b), v[0]);
    } else if (strcmp(kind, "edit") == 0) {
        expect(a, metrics_edit(a, b), v[0]);
    } else {
        struct metrics_rouge r = metrics_rouge_l(a, b);

        assert_string_equal(kind, "rouge");
        expect(a, r.precision, v[0]);
        expect(a, r.recall, v[1]);
        expect(a, r.f1, v[2]);
    }
}

static void test_recorded(void **state)
{
    FILE *f = fopen("tests/data/metrics.tsv", "re");
    char line[LINE_CAP];
    unsigned n = 0;

    (void)state;
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        char *at = line, *kind = strsep(&at, "\t"), *a = strsep(&at, "\t"), *b = strsep(&at, "\t");

        assert_non_null(at);
        for (char *tab = at; (tab = strchr(tab, '\t'));)
            *tab = ' ';
        check(kind, a, b, at);
        n++;
    }
    (void)fclose(f);
    assert_true(n > 200);
}

static void test_prefix(void **state)
{
    const char *uuid = "0f8fad5b-d9cb-469f-a165-70867728950e";

    (void)state;
    assert_int_equal(metrics_prefix("It is 0F8FAD5B-D9CB-469F-A165-70867728950E.", uuid), 32);
    assert_int_equal(metrics_prefix("0f8fad5b-d9cb-0000", uuid), 12);
    assert_int_equal(metrics_prefix("0f8f 0f8fad", uuid), 6); /* at the best place */
    assert_int_equal(metrics_prefix("", uuid), 0);
    assert_int_equal(metrics_prefix("xyz", uuid), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_prefix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
