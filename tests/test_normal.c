/* tests/test_normal.c - would catch: a text whose normal form is not NFC's, or depends on the parts
 * that it came in; marks in the wrong order; an output that needs more room than is promised;
 * thousands of marks on one letter that take the square of their number.
 */
#include "base/utf8.h"
#include "engine/text/normal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include <cmocka.h>

/* The normal form of all of text, given in parts of at most `part` bytes more at a time; free() it.
 */
static uint8_t *normalise(const uint8_t *text, size_t len, size_t part, size_t *ret_len)
{
    uint8_t *out = malloc(NORMAL_MAX(len) + 1);
    struct normal n = { .points = NULL };
    size_t at = 0, have = 0, total = 0, read, wrote;

    assert_non_null(out);
    while (at < len) {
        have = len - have > part ? have + part : len;
        while (have < len && (text[have] & 0xc0) == 0x80) /* whole characters */
            have++;
        assert_int_equal(
            normal_put(&n, text + at, have - at, have == len, out + total, &read, &wrote), 0);
        assert_true(wrote <= NORMAL_MAX(read));
        assert_true(have - at - read < NORMAL_RUN_MAX + 4);
        at += read;
        total += wrote;
    }
    normal_fini(&n);
    out[total] = '\0';
    *ret_len = total;
    return out;
}

static void expect(const char *text, const char *form)
{
    for (size_t part = 1; part < 40; part += 3) {
        size_t n;
        uint8_t *out = normalise((const uint8_t *)text, strlen(text), part, &n);

        assert_string_equal((const char *)out, form);
        free(out);
    }
}

static void by_hand(void **state)
{
    (void)state;
    expect("cafe\xcc\x81", "caf\xc3\xa9");
    expect("caf\xc3\xa9", "caf\xc3\xa9");
    expect("\xcc\x81"
           "e",
           "\xcc\x81"
           "e"); /* a mark without a letter */
    expect("e\xcc\x81\xcc\x81", "\xc3\xa9\xcc\x81");
    expect("\xe2\x84\xab", "\xc3\x85"); /* Angstrom */
    expect("s\xcc\x87\xcc\xa3 s\xcc\xa3\xcc\x87",
           "\xe1\xb9\xa9 \xe1\xb9\xa9");                            /* two marks, sorted */
    expect("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul */
    expect("\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81");
    expect("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");             /* excluded from composition */
    expect("\xef\xb7\xba\xef\xac\x81", "\xef\xb7\xba\xef\xac\x81"); /* NFKC's, not NFC's */
    expect("<\xcc\xb8\n\xcc\xb8", "\xe2\x89\xae\n\xcc\xb8");
    expect("\xc3\xa9\xcc\xa3", "\xe1\xba\xb9\xcc\x81"); /* comes apart for a mark below */
}

/* Every character alone, behind a letter, and before a mark: as utf8proc does the whole at once. */
static void all_characters(void **state)
{
    uint8_t text[16], *out, *whole;

    (void)state;
    for (uint32_t c = 1; c < 0xe0200; c++) {
        size_t len = 0, n;

        if (c == 0x33480) /* from here to the marks of plane 14 there is nothing yet */
            c = 0xe0000;
        if ((c >= 0xd800 && c < 0xe000) || normal_is_younger(c))
            continue;
        len += utf8_put('a', text + len);
        len += utf8_put(c, text + len);
        len += utf8_put(0x327, text + len);
        len += utf8_put(c, text + len);
        text[len] = '\0';
        out = normalise(text, len, 1, &n);
        whole = utf8proc_NFC(text);
        assert_non_null(whole);
        assert_string_equal((const char *)out, (const char *)whole);
        free(whole);
        free(out);
    }
}

/* What a text is cut before must join nothing to its left: all that can be put together, given
 * character by character, is put together. */
static void all_pairs(void **state)
{
    size_t n_pairs = 0;

    (void)state;
    for (int32_t c = 0; c < 0x110000; c++) {
        int32_t points[4];
        uint8_t text[20], *out, *whole;
        utf8proc_ssize_t n_points;
        size_t len = 0, n;

        if (c >= 0xd800 && c < 0xe000)
            continue;
        n_points =
            utf8proc_decompose_char(c, points, 4, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
        if (n_points < 2 || normal_is_younger((uint32_t)points[1]))
            continue;
        for (utf8proc_ssize_t i = 0; i < n_points; i++)
            len += utf8_put((uint32_t)points[i], text + len);
        text[len] = '\0';
        n_pairs++;
        out = normalise(text, len, 1, &n);
        whole = utf8proc_NFC(text);
        assert_string_equal((const char *)out, (const char *)whole);
        free(whole);
        free(out);
    }
    assert_true(n_pairs > 12000); /* 11172 syllables of Hangul among them */
}

/* Marks that came after the published tables: nothing is done to them, nor across them. */
static void younger_marks(void **state)
{
    size_t n_younger = 0;

    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++)
        n_younger += normal_is_younger(c);
    assert_int_equal(n_younger, 109);
    assert_true(normal_is_younger(0x8ca) && !normal_is_younger(0x8d4) && !normal_is_younger(0x301));
    expect("\xe0\xa3\xb1\xe0\xa3\xa0\xe0\xa3\x8a", "\xe0\xa3\xb1\xe0\xa3\xa0\xe0\xa3\x8a");
    /* U+08CA is of class 230: it keeps a mark of 220 behind it, and an accent from its letter. */
    expect("e\xe0\xa3\x8a\xcc\xa3\xcc\x81", "e\xe0\xa3\x8a\xcc\xa3\xcc\x81");
    expect("e\xcc\x81\xe0\xa3\x8a\xcc\x81", "\xc3\xa9\xe0\xa3\x8a\xcc\x81");
    expect("\xf0\x91\xa4\xb5\xf0\x91\xa4\xb0", "\xf0\x91\xa4\xb5\xf0\x91\xa4\xb0");
    expect("\xf0\x91\xa4\xb8", "\xf0\x91\xa4\xb8"); /* the two of them as one, U+11938 */
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* Random text of what joins, in parts of every size. */
static void random_texts(void **state)
{
    static const uint32_t points[] = { 'a',    'e',    ' ',     '\n',    0xe9,    0x301,  0x323,
                                       0x327,  0x345,  0x3b1,   0x1f82,  0x915,   0x93c,  0x958,
                                       0x9c7,  0x9be,  0x1100,  0x1161,  0x11a8,  0xac00, 0x4e2d,
                                       0xf900, 0x212b, 0x1d15e, 0x1d165, 0x114b0, 0x3099, 0x304b };
    uint64_t seed = 5;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        uint8_t text[400], *out, *whole;
        size_t len = 0, n, parts[] = { 1, 2, 7, 64, 400 };

        while (len < 300 && next_random(&seed) % 100)
            len += utf8_put(points[next_random(&seed) % (sizeof(points) / sizeof(*points))],
                            text + len);
        text[len] = '\0';
        whole = utf8proc_NFC(text);
        assert_non_null(whole);
        for (size_t i = 0; i < 5; i++) {
            out = normalise(text, len, parts[i], &n);
            assert_string_equal((const char *)out, (const char *)whole);
            free(out);
        }
        free(whole);
    }
}

/* A letter with a million marks, the wrong way round in turns: cut, but in the same places however
 * it comes; and quick, or this test runs for minutes. */
static void marks_without_end(void **state)
{
    const size_t size = 2000002;
    uint8_t *text = malloc(size), *out, *other;
    size_t n, n_other;

    (void)state;
    assert_non_null(text);
    text[0] = 'e';
    for (size_t at = 1; at + 4 <= size; at += 4)
        memcpy(text + at, "\xcc\x81\xcc\xa3", 4);
    out = normalise(text, size - 1, size, &n);
    other = normalise(text, size - 1, 1000, &n_other);
    assert_int_equal(n, n_other);
    assert_memory_equal(out, other, n);
    assert_memory_equal(out, "\xe1\xba\xb9\xcc\xa3", 5); /* marks below first */
    free(out);
    free(other);
    free(text);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),      cmocka_unit_test(all_characters),
        cmocka_unit_test(all_pairs),    cmocka_unit_test(younger_marks),
        cmocka_unit_test(random_texts), cmocka_unit_test(marks_without_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
