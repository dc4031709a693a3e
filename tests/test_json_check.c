/* tests/test_json_check.c - what is JSON, by the productions of RFC 8259. Would catch: a number
 * that a parser takes and the standard does not, a comma too many, a text with a bare control
 * character or what is not UTF-8, a place that is not where it is wrong, a depth that overruns.
 */
#include "base/json_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A copy of just its length: a sanitizer sees what is read behind its end. */
static const char *check(const char *text, size_t len, unsigned flags, struct json_checked *ret)
{
    char *copy = malloc(len);
    const char *wrong;

    assert_true(copy || len == 0);
    if (len > 0)
        memcpy(copy, text, len);
    wrong = json_check(copy, len, flags, ret);
    assert_true(ret->at <= len && (wrong || ret->at == len));
    free(copy);
    return wrong;
}

static const char *const good[] = {
    /* 2: white space around tokens, 3: any value is a text */
    "{}",
    "[]",
    " \t\r\n[ \t\r\n] \t\r\n",
    " { } ",
    "true",
    "false",
    "null",
    " 1 ",
    "\"\"",
    "-0",
    "[true,false,null]",
    "{ \"a\" : 1 , \"b\" : [ ] }",
    /* 4: names may be empty, and the same */
    "{\"\":0}",
    "{\"a\":1,\"a\":2}",
    "{\"a\":{\"b\":{\"c\":[{}]}}}",
    /* 5 */
    "[[]]",
    "[[],[[]],{}]",
    "[1,\"a\",null,[2]]",
    /* 6 */
    "0",
    "-0",
    "10",
    "-12.50",
    "0.0",
    "0.10",
    "1e0",
    "1E5",
    "1e+5",
    "1e-05",
    "0e00",
    "-0.0E-0",
    "123456789012345678901234567890",
    "1e999",
    "0.00000000000000000000000000000001",
    /* 7 */
    "\"a/b\"",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\u0041\\uabCD\"",
    "\"\\ud834\\udd1e\"",
    "\"\\ud800\"",
    "\"\x7f\"",
    "\"'NaN' [,] {:} Infinity 01 1.\"",
    /* 8.1 */
    "\"\xc3\xa4\"",
    "\"\xe2\x82\xac\"",
    "\"\xf0\x9d\x84\x9e\"",
    "{\"\xc3\xa4\":1}",
};

static void test_good(void **state)
{
    struct json_checked c;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        const char *wrong = check(good[i], strlen(good[i]), 0, &c);

        if (wrong)
            fail_msg("%s: byte %zu: %s", good[i], c.at, wrong);
    }
}

/* Of what is JSON every beginning is none, but for a number's, and of what follows space alone. */
static void test_cut(void **state)
{
    struct json_checked c;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        size_t len = strlen(good[i]);

        while (len > 0 && strchr(" \t\r\n", good[i][len - 1]))
            len--;
        if (!strchr("}]\"el", good[i][len - 1])) /* a number */
            continue;
        for (size_t n = 0; n < len; n++) {
            const char *wrong = check(good[i], n, 0, &c);

            if (!wrong ||
                (strcmp(wrong, "it ends too early") != 0 && strcmp(wrong, "it is not UTF-8") != 0))
                fail_msg("%zu bytes of %s: %s", n, good[i], wrong ? wrong : "JSON");
        }
    }
}

static const struct {
    const char *text;
    size_t at;
    const char *why;
} bad[] = {
    { "", 0, "too early" },
    { " ", 1, "too early" },
    { "\f[]", 0, "a value" },
    { "[]\v", 2, "follows" },
    { "\xc2\xa0[]", 0, "a value" },
    { "\xef\xbb\xbf[]", 0, "a value" }, /* 8.1: no byte order mark is added */
    { "[] []", 3, "follows" },
    { "{}x", 2, "follows" },
    { "1 2", 2, "follows" },
    { "/**/1", 0, "a value" },
    { "[1]//", 3, "follows" },
    { "True", 0, "a value" },
    { "tRUE", 1, "true, false" },
    { "nul", 3, "too early" },
    { "nulL", 3, "true, false" },
    { "truee", 4, "follows" },
    { "[NaN]", 1, "no numbers" },
    { "Infinity", 0, "no numbers" },
    { "[1,-Infinity]", 4, "no numbers" },
    { "undefined", 0, "a value" },
    { "{", 1, "too early" },
    { "[", 1, "too early" },
    { "]", 0, "a value" },
    { "[}", 1, "a value" },
    { "{]", 1, "a name" },
    { "[1}", 2, "',' or ']'" },
    { "{\"a\":1]", 6, "',' or '}'" },
    { "[1,]", 3, "a value" },
    { "[,1]", 1, "a value" },
    { "[1,,2]", 3, "a value" },
    { "[1 2]", 3, "',' or ']'" },
    { "[\"a\":1]", 4, "',' or ']'" },
    { "{\"a\":1,}", 7, "a name" },
    { "{,}", 1, "a name" },
    { "{\"a\"}", 4, "a ':'" },
    { "{\"a\",1}", 4, "a ':'" },
    { "{\"a\"::1}", 5, "a value" },
    { "{\"a\":}", 5, "a value" },
    { "{a:1}", 1, "a name" },
    { "{1:1}", 1, "a name" },
    { "{'a':1}", 1, "double quotes" },
    { "['a']", 1, "double quotes" },
    { "{\"a\":1 \"b\":2}", 7, "',' or '}'" },
    { "[1.]", 3, "a digit" },
    { "1.", 2, "too early" },
    { "[1.e5]", 3, "a digit" },
    { "[.5]", 1, "a value" },
    { "-.5", 1, "a digit" },
    { "[01]", 2, "no digit" },
    { "[-01.5]", 3, "no digit" },
    { "00", 1, "no digit" },
    { "+1", 0, "a value" },
    { "-", 1, "too early" },
    { "[-]", 2, "a digit" },
    { "--1", 1, "a digit" },
    { "1e", 2, "too early" },
    { "[1e+]", 4, "a digit" },
    { "[1e5.5]", 4, "',' or ']'" },
    { "0x10", 1, "follows" },
    { "1,000", 1, "follows" },
    { "1_0", 1, "follows" },
    { "\"", 1, "too early" },
    { "\"a\\\"", 4, "too early" },
    { "\"a\"b\"", 3, "follows" },
    { "\"\\x41\"", 2, "escape" },
    { "\"\\'\"", 2, "escape" },
    { "\"\\U0041\"", 2, "escape" },
    { "\"\\u12\"", 5, "hexadecimal" },
    { "\"\\u12g4\"", 5, "hexadecimal" },
    { "\"a\nb\"", 2, "control" },
    { "\"\t\"", 1, "control" },
    { "\"\x1f\"", 1, "control" },
    { "{\"a\rb\":1}", 3, "control" },
    { "\"\xff\"", 1, "UTF-8" },
    { "\"\xc0\xaf\"", 1, "UTF-8" },
    { "\"\xed\xa0\x80\"", 1, "UTF-8" },
    { "\"\xf4\x90\x80\x80\"", 1, "UTF-8" },
    { "\"\xe2\x82\"", 1, "UTF-8" },
    { "\"a\x80\"", 2, "UTF-8" },
};

static void test_bad(void **state)
{
    struct json_checked c;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *wrong = check(bad[i].text, strlen(bad[i].text), 0, &c);

        if (!wrong || !strstr(wrong, bad[i].why) || c.at != bad[i].at)
            fail_msg("%s: byte %zu: %s", bad[i].text, c.at, wrong ? wrong : "JSON");
    }
    assert_non_null(check("[1]\0", 4, 0, &c));
    assert_int_equal(c.at, 3);
    assert_non_null(check("\"\0\"", 3, JSON_CHECK_CONTROLS, &c));
}

/* A model's line ends, and nothing else that is not JSON. */
static void test_controls(void **state)
{
    static const char text[] = "{\"a\nb\": \"\t\x01\"}";
    struct json_checked c;

    (void)state;
    assert_non_null(check(text, sizeof(text) - 1, 0, &c));
    assert_null(check(text, sizeof(text) - 1, JSON_CHECK_CONTROLS, &c));
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        if (!strstr(bad[i].why, "control"))
            assert_non_null(check(bad[i].text, strlen(bad[i].text), JSON_CHECK_CONTROLS, &c));
}

static void test_counted(void **state)
{
    struct json_checked c;

    (void)state;
    assert_null(check("[1, {\"a\": [], \"b\": \"c\"}, null]", 30, 0, &c));
    assert_int_equal(c.n_values, 6 + 3);
    assert_int_equal(c.digits, 1);
    assert_false(c.nul);
    assert_null(check("[12345, -1.123456e12, \"1234567890\"]", 35, 0, &c));
    assert_int_equal(c.digits, 6);
    assert_null(check("\"\\\\u0000\"", 9, 0, &c));
    assert_false(c.nul);
    assert_null(check("\"\\u0001\"", 8, 0, &c));
    assert_false(c.nul);
    assert_null(check("{\"a\\u0000\": 1}", 14, 0, &c));
    assert_true(c.nul);
}

static void test_deep(void **state)
{
    char text[2 * JSON_CHECK_DEPTH + 2];
    struct json_checked c;

    (void)state;
    memset(text, '[', JSON_CHECK_DEPTH);
    memset(text + JSON_CHECK_DEPTH, ']', JSON_CHECK_DEPTH);
    assert_null(check(text, (size_t)2 * JSON_CHECK_DEPTH, 0, &c));
    memset(text, '[', JSON_CHECK_DEPTH + 1);
    memset(text + JSON_CHECK_DEPTH + 1, ']', JSON_CHECK_DEPTH + 1);
    assert_string_equal(check(text, sizeof(text), 0, &c), "it nests too deep");
    assert_int_equal(c.at, JSON_CHECK_DEPTH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),    cmocka_unit_test(test_cut),
        cmocka_unit_test(test_bad),     cmocka_unit_test(test_controls),
        cmocka_unit_test(test_counted), cmocka_unit_test(test_deep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
