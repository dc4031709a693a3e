/* tests/test_detok.c - would catch: half a character in the output, a byte lost or held for ever,
 * output that depends on where tokens end, or that is not UTF-8. */
#include "base/utf8.h"
#include "engine/text/detok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define R "\xef\xbf\xbd"

/* Text in pieces of the given lengths (the last one takes the rest). After each piece what is out
 * is checked to be UTF-8. */
static size_t in_pieces(const char *text, size_t len, const size_t *cuts, size_t n_cuts, char *ret)
{
    struct detok d = { .n_held = 0 };
    size_t at = 0, out = 0, n;

    for (size_t i = 0; i <= n_cuts; i++) {
        n = i < n_cuts ? cuts[i] - at : len - at;
        out += detok_push(&d, (const uint8_t *)text + at, n, ret + out);
        at += n;
        assert_int_equal(utf8_span((const uint8_t *)ret, out), out);
        assert_true(d.n_held < 4);
    }
    out += detok_end(&d, ret + out);
    assert_int_equal(d.n_held, 0);
    return out;
}

/* Every way to cut text into up to three pieces, and into single bytes. */
static void check(const char *text, size_t len, const char *expect)
{
    size_t n_expect = strlen(expect), bytes[64];
    char out[512];

    assert_true(len < 64 && DETOK_OUT_MAX(len) <= sizeof(out));
    for (size_t i = 0; i <= len; i++)
        for (size_t j = i; j <= len; j++) {
            size_t cuts[] = { i, j };

            assert_int_equal(in_pieces(text, len, cuts, 2, out), n_expect);
            assert_memory_equal(out, expect, n_expect);
        }
    for (size_t i = 0; i < len; i++)
        bytes[i] = i;
    assert_int_equal(in_pieces(text, len, bytes, len, out), n_expect);
    assert_memory_equal(out, expect, n_expect);
}

#define CHECK(text, expect) check(text, sizeof(text) - 1, expect)

static void whole_characters(void **state)
{
    (void)state;
    CHECK("", "");
    CHECK("plain", "plain");
    CHECK("a\xc3\xa9\xe4\xb8\xad\xf0\x9f\xa6\x99z", "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\xa6\x99z");
    /* A family: four emoji and three joiners. */
    CHECK("\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
          "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7");
    /* The ends of each row of table 3-7. */
    CHECK("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80"
          "\xf4\x8f\xbf\xbf",
          "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80"
          "\xf4\x8f\xbf\xbf");
}

/* Tables 3-8 to 3-11 of the Unicode standard: one U+FFFD for each maximal ill-formed part. */
static void ill_formed(void **state)
{
    (void)state;
    CHECK("\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64", "a" R R R "b" R "c" R R "d");
    CHECK("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A");
    CHECK("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A");
    CHECK("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B");
    CHECK("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A");
}

static void cut_at_the_end(void **state)
{
    (void)state;
    CHECK("a\xf0\x9f\xa6", "a" R);
    CHECK("a\xc3", "a" R);
    CHECK("\xe4\xb8\xe4", R R);
}

/* What is not yet complete is not given out, and what is, is at once. */
static void when_it_comes(void **state)
{
    struct detok d = { .n_held = 0 };
    char out[32];

    (void)state;
    assert_int_equal(detok_push(&d, (const uint8_t *)"ab\xe4", 3, out), 2);
    assert_int_equal(detok_push(&d, (const uint8_t *)"\xb8", 1, out), 0);
    assert_int_equal(detok_push(&d, (const uint8_t *)"\xad", 1, out), 3);
    assert_int_equal(detok_push(&d, (const uint8_t *)"\xf0\x9f", 2, out), 0);
    assert_int_equal(detok_push(&d, (const uint8_t *)"c", 1, out), 4);
    assert_memory_equal(out, R "c", 4);
}

/* All sequences of three of the bytes at the borders of table 3-7 keep to the promised size. */
static void bounded_output(void **state)
{
    static const uint8_t edge[] = { 0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                    0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xee,
                                    0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff };
    const size_t n = sizeof(edge);

    (void)state;
    for (size_t i = 0; i < n * n * n; i++) {
        const uint8_t text[] = { edge[i % n], edge[i / n % n], edge[i / n / n] };
        struct detok d = { .n_held = 0 };
        char out[DETOK_OUT_MAX(3)];
        size_t len = 0;

        for (size_t j = 0; j < 3; j++)
            len += detok_push(&d, &text[j], 1, out + len);
        len += detok_end(&d, out + len);
        assert_true(len <= 9 && len > 0);
        assert_int_equal(utf8_span((const uint8_t *)out, len), len);
    }
}

static void code_points(void **state)
{
    uint8_t buf[4];
    size_t len, checked;

    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        len = utf8_put(c, buf);
        if (c >= 0xd800 && c < 0xe000) {
            assert_int_equal(utf8_check(buf, len, &checked), UTF8_BAD);
            continue;
        }
        assert_int_equal(utf8_check(buf, len, &checked), UTF8_OK);
        assert_int_equal(checked, len);
        assert_int_equal(utf8_get(buf, len), c);
        if (len > 1)
            assert_int_equal(utf8_check(buf, len - 1, &checked), UTF8_CUT);
    }
}

/* Back to where a character begins, and not from the end of all. */
static void cuts_no_character(void **state)
{
    static const char text[] = "a\xc3\xa9\xe4\xb8\xad";
    static const size_t whole[] = { 0, 1, 1, 3, 3, 3, 6 };

    (void)state;
    for (size_t n = 0; n <= 6; n++)
        assert_int_equal(utf8_whole(text, n, 6), whole[n]);
    assert_int_equal(utf8_whole(text, 2, 2), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_characters),  cmocka_unit_test(ill_formed),
        cmocka_unit_test(cut_at_the_end),    cmocka_unit_test(when_it_comes),
        cmocka_unit_test(bounded_output),    cmocka_unit_test(code_points),
        cmocka_unit_test(cuts_no_character),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
