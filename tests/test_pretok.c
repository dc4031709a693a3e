/* tests/test_pretok.c - would catch: text cut at other places than the published tokenizers cut it;
 * the interpreter cutting otherwise than compiled code; a text that makes either fail or go
 * quadratic. */
#include "base/utf8.h"
#include "engine/text/pretok.h"
#include "tests/support/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const bool jits[] = { true, false };

/* Cuts text and writes the pieces with a bar between them. */
static void cut(enum pretok_kind kind, bool jit, const char *text, char *ret)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t at = 0, out = 0, len = strlen(text), n;
    struct pretok_scratch *s;
    struct pretok *pre;

    assert_int_equal(pretok_new(kind, jit, &pre), 0);
    assert_int_equal(pretok_scratch_new(pre, &s), 0);
    while (at < len) {
        assert_int_equal(pretok_next(pre, s, p + at, len - at, &n), 0);
        assert_true(n > 0 && n <= len - at);
        if (at)
            ret[out++] = '|';
        memcpy(ret + out, p + at, n);
        out += n;
        at += n;
    }
    ret[out] = '\0';
    pretok_scratch_free(s);
    pretok_free(pre);
}

static void by_hand(void **state)
{
    static const struct {
        const char *text, *smollm, *llama3, *qwen2;
    } cases[] = {
        { "Hello world", "Hello| world", "Hello| world", "Hello| world" },
        { "I'm we'LL", "I|'m| we|'|LL", "I|'m| we|'LL", "I|'m| we|'LL" },
        { "a 1234567", "a| |1|2|3|4|5|6|7", "a| |123|456|7", "a| |1|2|3|4|5|6|7" },
        { "x   y", "x|  | y", "x|  | y", "x|  | y" },
        { "x   1", "x|   |1", "x|  | |1", "x|  | |1" },
        { "f();\n\n\tg", "f|();|\n\n|\t|g", "f|();\n\n|\tg", "f|();\n\n|\tg" },
        { "a \r\n b", "a| \r\n| b", "a| \r\n| b", "a| \r\n| b" },
        { "(x)", "(|x|)", "(x|)", "(x|)" },
        { "a  ", "a|  ", "a|  ", "a|  " },
        /* U+180E is no space, U+3000 is. */
        { "a\xe1\xa0\x8e \xe3\x80\x80x", "a|\xe1\xa0\x8e| |\xe3\x80\x80|x",
          "a|\xe1\xa0\x8e| |\xe3\x80\x80x", "a|\xe1\xa0\x8e| |\xe3\x80\x80x" },
        /* A half and a Roman two are numbers, a combining acute is no letter. */
        { "\xc2\xbd\xe2\x85\xa1", "\xc2\xbd|\xe2\x85\xa1", "\xc2\xbd\xe2\x85\xa1",
          "\xc2\xbd|\xe2\x85\xa1" },
        { "e\xcc\x81"
          "a",
          "e|\xcc\x81|a",
          "e|\xcc\x81"
          "a",
          "e|\xcc\x81"
          "a" },
        /* The long s is an s when case does not count. */
        { "x'\xc5\xbf", "x|'|\xc5\xbf", "x|'\xc5\xbf", "x|'\xc5\xbf" },
    };
    char out[128];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (size_t j = 0; j < 2; j++) {
            cut(PRETOK_SMOLLM, jits[j], cases[i].text, out);
            assert_string_equal(out, cases[i].smollm);
            cut(PRETOK_LLAMA3, jits[j], cases[i].text, out);
            assert_string_equal(out, cases[i].llama3);
            cut(PRETOK_QWEN2, jits[j], cases[i].text, out);
            assert_string_equal(out, cases[i].qwen2);
        }
}

/* tests/reference/tokenizer_vectors.py recorded the lengths, for the well-formed stretches. */
static void check_recorded(enum pretok_kind kind, bool jit)
{
    uint8_t *text, *file;
    size_t len, n_file, at = 0, span, n, piece = 0;
    struct pretok_scratch *s;
    struct pretok *pre;
    char path[64];
    uint16_t expect;

    text = file_read("tests/data/tokenizer/text", &len);
    (void)snprintf(path, sizeof(path), "tests/data/tokenizer/%s.pieces", pretok_name(kind));
    file = file_read(path, &n_file);
    assert_int_equal(pretok_new(kind, jit, &pre), 0);
    assert_int_equal(pretok_scratch_new(pre, &s), 0);
    while (at < len) {
        span = utf8_span(text + at, len - at);
        if (span == 0)
            at++; /* a byte that is not UTF-8 */
        for (; span > 0; span -= n, at += n) {
            assert_int_equal(pretok_next(pre, s, text + at, span, &n), 0);
            assert_true(2 * piece < n_file);
            memcpy(&expect, file + 2 * piece++, 2);
            if (n != expect)
                fail_msg("%s, byte %zu: a piece of %zu, expected %u", path, at, n, expect);
        }
    }
    assert_int_equal(2 * piece, n_file);
    pretok_scratch_free(s);
    pretok_free(pre);
    free(file);
    free(text);
}

static void as_recorded(void **state)
{
    (void)state;
    for (enum pretok_kind kind = 0; kind < PRETOK__N; kind++) {
        check_recorded(kind, true);
        check_recorded(kind, false);
    }
}

/* A run without end of each sort of character (digits aside) is one piece, without an error. */
static void long_runs(void **state)
{
    static const char *const runs[] = { "a",
                                        " ",
                                        "\n",
                                        "-",
                                        " \n",
                                        "\xc3\xa9",
                                        "\xe4\xb8\xad",
                                        "\xf0\x9f\xa6\x99",
                                        "\xe3\x80\x80",
                                        " \xe3\x80\x80",
                                        "\r" };
    const size_t size = (size_t)1 << 20;
    uint8_t *text = malloc(size);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof(runs) / sizeof(*runs); i++) {
        size_t unit = strlen(runs[i]), len = size / unit * unit;

        for (size_t at = 0; at < len; at += unit)
            memcpy(text + at, runs[i], unit);
        for (enum pretok_kind kind = 0; kind < PRETOK__N; kind++)
            for (size_t j = 0; j < 2; j++) {
                struct pretok_scratch *s;
                struct pretok *pre;
                size_t n;

                assert_int_equal(pretok_new(kind, jits[j], &pre), 0);
                assert_int_equal(pretok_scratch_new(pre, &s), 0);
                assert_int_equal(pretok_next(pre, s, text, len, &n), 0);
                assert_int_equal(n, len);
                pretok_scratch_free(s);
                pretok_free(pre);
            }
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(as_recorded),
        cmocka_unit_test(long_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
