/* tests/test_shown.c - would catch: a control character of either kind, a line break, a turned line
 * or a byte that is not UTF-8 which gets through to a terminal or a log; good text that does not; a
 * character that is cut in two where room ends.
 */
#include "base/shown.h"
#include "base/utf8.h"
#include "base/why.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define R "\xef\xbf\xbd"

static const struct {
    const char *text, *line, *whole; /* as a line, and as an answer's text */
} rows[] = {
    { "", "", "" },
    { "plain ASCII ~", "plain ASCII ~", "plain ASCII ~" },
    { "Zw\xc3\xb6lf \xe6\xbc\xa2 \xf0\x9f\xa6\x9c", "Zw\xc3\xb6lf \xe6\xbc\xa2 \xf0\x9f\xa6\x9c",
      "Zw\xc3\xb6lf \xe6\xbc\xa2 \xf0\x9f\xa6\x9c" },
    { "a\033[2Jb", "a" R "[2Jb", "a" R "[2Jb" },
    { "a\nb\tc\rd", "a" R "b" R "c" R "d", "a\nb\tc" R "d" },
    { "\x7f\x01", R R, R R },
    { "\xc2\x9b"
      "2J\xc2\x80\xc2\x9f\xc2\xa0",
      R "2J" R R "\xc2\xa0", R "2J" R R "\xc2\xa0" },
    { "\x9b"
      "2J\xff\xc0\x80",
      R "2J" R R R, R "2J" R R R },
    { "cut \xe6\xbc", "cut " R, "cut " R },
    { "\xed\xa0\x80.", R R R ".", R R R "." }, /* a surrogate is three bytes of nothing */
    { "\xe2\x80\xa8|\xe2\x80\xae|\xe2\x81\xa6|", R "|" R "|" R "|",
      "\xe2\x80\xa8|\xe2\x80\xae|\xe2\x81\xa6|" },
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t len = strlen(rows[i].text);
        char out[256];
        size_t n = shown_put(SHOWN_LINE, rows[i].text, len, out, sizeof(out));

        assert_int_equal(n, strlen(rows[i].line));
        assert_memory_equal(out, rows[i].line, n);
        assert_true(n <= SHOWN_MAX(len));
        n = shown_put(SHOWN_TEXT, rows[i].text, len, out, sizeof(out));
        assert_int_equal(n, strlen(rows[i].whole));
        assert_memory_equal(out, rows[i].whole, n);
    }
}

/* NUL is a character like another. */
static void test_nul(void **state)
{
    char out[16];

    (void)state;
    assert_int_equal(shown_put(SHOWN_TEXT, "a\0b", 3, out, sizeof(out)), 5);
    assert_memory_equal(out, "a" R "b", 5);
}

/* All of it or none of a character, for every size. */
static void test_room(void **state)
{
    static const char text[] = "a\xc3\xb6\xe6\xbc\xa2\xf0\x9f\xa6\x9c\033z";
    char out[32];

    (void)state;
    for (size_t cap = 0; cap <= sizeof(out); cap++) {
        size_t n;

        memset(out, '#', sizeof(out));
        n = shown_put(SHOWN_LINE, text, sizeof(text) - 1, out, cap);
        assert_true(n <= cap);
        assert_int_equal(utf8_span((const uint8_t *)out, n), n);
        for (size_t i = n; i < sizeof(out); i++)
            assert_int_equal(out[i], '#');
    }
}

/* Every code point: passes as it is, or is one mark. */
static void test_all(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
        uint8_t text[4];
        char out[16];
        size_t len, n;

        if (c >= 0xd800 && c < 0xe000)
            continue;
        len = utf8_put(c, text);
        n = shown_put(SHOWN_TEXT, (const char *)text, len, out, sizeof(out));
        if (control && c != '\n' && c != '\t')
            assert_true(n == 3 && memcmp(out, R, 3) == 0);
        else
            assert_true(n == len && memcmp(out, text, len) == 0);
    }
}

static void test_streams(void **state)
{
    char *got = NULL;
    size_t len;
    FILE *f = open_memstream(&got, &len);

    (void)state;
    assert_non_null(f);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void)fseeko(f, 0, SEEK_SET);
        shown_write(f, SHOWN_LINE, rows[i].text, strlen(rows[i].text));
        assert_int_equal(fflush(f), 0);
        assert_int_equal(len, strlen(rows[i].line));
        assert_memory_equal(got, rows[i].line, len);
    }
    (void)fseeko(f, 0, SEEK_SET);
    shown_line(f, "%s: %d %s", "a\nb", 7, "\xc2\x9b");
    assert_int_equal(fflush(f), 0);
    assert_int_equal(len, strlen("a" R "b: 7 " R "\n"));
    assert_memory_equal(got, "a" R "b: 7 " R "\n", len);
    (void)fclose(f);
    free(got);
}

/* A sentence is shown however long it is. */
static void test_why(void **state)
{
    char name[2 * WHY_MAX];
    struct why why = { "" };

    (void)state;
    assert_int_equal(why_set(&why, -EINVAL, "%s: no %s", "a\033b", "c\nd"), -EINVAL);
    assert_string_equal(why.text, "a" R "b: no c" R "d");
    memset(name, '\x9b', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    why = (struct why){ "" };
    why_set(&why, -EINVAL, "%s", name);
    assert_int_equal(strlen(why.text) % 3, 0);
    assert_true(strlen(why.text) > WHY_MAX - 4);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_nul),     cmocka_unit_test(test_room),
        cmocka_unit_test(test_all),   cmocka_unit_test(test_streams), cmocka_unit_test(test_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
