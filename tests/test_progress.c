/* tests/test_progress.c - the progress line. Would catch: a wrong rate or time left, a line for
 * each step in a file, a bar that is wider than its terminal, which would not be written over.
 */

#include "tests/support/count.h"
#include "train/progress.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What is in f, which is closed. free() it. */
static char *take(FILE *f)
{
    size_t len = (size_t)ftell(f);
    char *text = calloc(1, len + 1);

    assert_non_null(text);
    rewind(f);
    assert_int_equal(fread(text, 1, len, f), len);
    (void)fclose(f);
    return text;
}

static char *run(bool tty, unsigned columns, double max)
{
    FILE *f = tmpfile();
    struct progress p;

    assert_non_null(f);
    progress_start(&p, f, 10, 110, max, 1000);
    assert_false(p.bar.tty);
    p.bar.tty = tty;
    p.bar.columns = columns;
    for (uint64_t i = 1; i <= 100; i++) {
        progress_step(&p, 10 + i, 2048, i % 7 ? 3 : NAN, 1e-3, 1000 + 2.0 * (double)i);
        if (i == 50)
            progress_say(&p, "saved");
    }
    progress_end(&p);
    return take(f);
}

static char *evaluate(bool tty)
{
    FILE *f = tmpfile();
    struct progress p;

    assert_non_null(f);
    progress_start(&p, f, 0, 10, 0, 1000);
    p.bar.tty = tty;
    for (int i = 0; i < 100; i++)
        progress_beside(&p, "evaluation", i / 100.0, 1000 + i);
    progress_say(&p, "held out");
    progress_end(&p);
    return take(f);
}

static void test_evaluation(void **state)
{
    char *text = evaluate(false);

    (void)state;
    assert_string_equal(text, "evaluation  30 %\nevaluation  60 %\nevaluation  90 %\nheld out\n");
    free(text);
    text = evaluate(true);
    assert_int_equal(count_of(text, "\revaluation  "), 99); /* not at the start itself */
    assert_int_equal(count_of(text, "\n"), 1);
    assert_non_null(strstr(text, "\revaluation  99 %\033[K\r\033[Kheld out\n"));
    free(text);
}

static void test_progress_file(void **state)
{
    char *text = run(false, 80, 0);

    (void)state;
    assert_int_equal(count_of(text, "tokens/s"), 7); /* in 200 seconds, and the last step */
    assert_non_null(strstr(text, "25/110  1024 tokens/s  loss 3.000  lr 1.0e-03  2:50 left\n"));
    assert_non_null(strstr(text, "\nsaved\n"));
    assert_non_null(strstr(text, "110/110"));
    assert_null(strchr(text, '\r'));
    free(text);
    text = run(false, 80, 60);
    assert_non_null(strstr(text, "25/110  1024 tokens/s  loss 3.000  lr 1.0e-03  0:30 left\n"));
    assert_non_null(strstr(text, "0:00 left\n"));
    free(text);
}

static void test_progress_tty(void **state)
{
    (void)state;
    for (unsigned columns = 20; columns <= 120; columns += 10) {
        char *text = run(true, columns, 0), *save = NULL;
        unsigned n = 0;

        assert_non_null(strstr(text, "\r\033[Ksaved\n"));
        assert_int_equal(text[strlen(text) - 1], '\n');
        for (char *line = strtok_r(text, "\r\n", &save); line;
             line = strtok_r(NULL, "\r\n", &save)) {
            char *end = strstr(line, "\033[K");

            assert_true((end ? (size_t)(end - line) : strlen(line)) < columns);
            n++;
        }
        assert_true(n > 100);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress_file),
        cmocka_unit_test(test_progress_tty),
        cmocka_unit_test(test_evaluation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
