/* tests/test_http_json.c - what is read as JSON. Would catch: a name or a text that loses its end
 * at a NUL, a number that is none, and a limit of values that is counted in texts as well.
 */
#include "http/json.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int read_it(const char *text, char why[160])
{
    struct json_object *v = NULL;
    int r = json_read(text, strlen(text), 0, &v, why);

    if (r == 0)
        json_free(v);
    return r;
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *why;
    } bad[] = {
        { "{\"a\": \"b\\u0000c\"}", "NUL" },
        { "{\"a\\u0000b\": 1}", "NUL" },
        { "{'a\\u0000b': 1}", "double quotes" },
        { "{\"a\": 1, 'b': 2}", "double quotes" },
        { "[NaN]", "no numbers" },
        { "NaN ", "no numbers" },
        { "[Infinity]", "no numbers" },
        { "{\"a\": -Infinity}", "no numbers" },
        { "[1.]", "byte 3: a digit" }, /* all of which json-c takes */
        { "{\"a\": -.5}", "byte 7: a digit" },
        { "[-01]", "byte 3: no digit" },
        { "[\"a\nb\"]", "byte 3: a control" },
        { "[1,]", "byte" },
        { "{\"a\": 1", "too early" },
        { "{\"a\": 1} {}", "byte" },
    };
    char why[160];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        why[0] = '\0';
        assert_int_equal(read_it(bad[i].text, why), -EINVAL);
        if (!strstr(why, bad[i].why))
            fail_msg("%s: %s", bad[i].text, why);
    }
}

/* In a text all of that is text. */
static void test_read(void **state)
{
    static const char *const good[] = {
        "{\"it's\": \"'NaN' and -Infinity\"}",
        "[\"\\\"'\", \"I\"]",
        "[true, false, null, -1.5E+3]",
        "[\"\\\\\", 1]",
        "{\"a\": \"\\\\u0000\"}",
        "[99999999999999999999999, -99999999999999999999999, 1e999]",
        "1",
        " null ",
    };
    char why[160];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(read_it(good[i], why), 0);
}

static void test_too_many(void **state)
{
    size_t n = 2 * (JSON_VALUES_MAX + 16u) + 1;
    char *text = malloc(n + 1), why[160];

    (void)state;
    assert_non_null(text);
    memset(text, ',', n);
    text[n] = '\0';
    text[0] = text[n - 1] = '"';
    assert_int_equal(read_it(text, why), 0);
    for (size_t i = 1; i < n; i += 2)
        text[i] = '0';
    text[0] = '[';
    text[n - 1] = ']';
    assert_int_equal(read_it(text, why), -EINVAL);
    assert_non_null(strstr(why, "million"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
