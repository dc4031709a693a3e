/* tests/test_answer.c - the text of an answer between the sampler and the wire. Would catch: a stop
 * string that is found late or sent or holds its answer up for ever, the wrong one of several that
 * is named, one whose finding depends on where tokens end, text that is cut inside a character.
 */
#include "daemon/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NONE UINT32_MAX

/* Feeds text in tokens of `by` bytes; sends what is ready after each. ret: what was sent. Returns
 * which stop string ended it. */
static uint32_t feed(const char *text, size_t by, const char *const *stops, uint32_t n_stops,
                     char *ret, uint32_t *ret_ids)
{
    struct answer a;
    uint32_t n_ids, dropped = 0, pushed = 0, sent = 0;
    size_t len = strlen(text), out = 0, n;
    uint32_t stop;

    assert_int_equal(answer_init(&a, 16, stops, n_stops), 0);
    for (size_t i = 0; i < len && !a.stopped; i += by) {
        assert_true(answer_has_room(&a));
        dropped = answer_push(&a, pushed++, (const uint8_t *)text + i, len - i < by ? len - i : by);
        n = answer_ready(&a, 5, UINT32_MAX, &n_ids);
        memcpy(ret + out, a.text, n);
        out += n;
        sent += n_ids;
        answer_sent(&a, n, n_ids);
    }
    answer_end(&a);
    while ((n = answer_ready(&a, 5, UINT32_MAX, &n_ids)) > 0 || n_ids > 0) {
        memcpy(ret + out, a.text, n);
        out += n;
        sent += n_ids;
        answer_sent(&a, n, n_ids);
    }
    ret[out] = '\0';
    assert_int_equal(sent, pushed - dropped); /* every token that is kept was told of */
    *ret_ids = sent;
    stop = a.stopped ? a.stop : NONE;
    answer_fini(&a);
    return stop;
}

static void test_answer(void **state)
{
    static const char *const stops[] = { "</end>", "\n\n", "ends" };
    char got[256];
    uint32_t ids;

    (void)state;
    for (size_t by = 1; by <= 9; by++) {
        assert_int_equal(feed("one </en two </end> three", by, stops, 3, got, &ids), 0);
        assert_string_equal(got, "one </en two ");
        assert_int_equal(ids, (13 + by - 1) / by); /* the tokens that begin before the stop */
        assert_int_equal(feed("it \n\nends", by, stops, 3, got, &ids), 1);
        assert_string_equal(got, "it ");
        assert_int_equal(feed("it \n </en", by, stops, 3, got, &ids), NONE);
        assert_string_equal(got, "it \n </en"); /* held back, and text after all */
        assert_int_equal(feed("z\u00fc \u6f22\u5b57 \U0001f99c", by, stops, 3, got, &ids), NONE);
        assert_string_equal(got, "z\u00fc \u6f22\u5b57 \U0001f99c");
        assert_int_equal(feed("</end>", by, stops, 3, got, &ids), 0);
        assert_string_equal(got, "");
        assert_int_equal(ids, 0);
    }
}

/* A frame may have room for fewer ids than wait, and then its text ends with a character all the
 * same, though a token may end within one. */
static void test_few_ids_at_once(void **state)
{
    static const char text[] = "z\u00fc \u6f22\u5b57 \U0001f99c!";
    const uint32_t len = sizeof(text) - 1;

    (void)state;
    for (uint32_t most = 1; most < len; most++) {
        uint32_t n_ids, sent = 0;
        char got[sizeof(text)];
        struct answer a;
        size_t n, out = 0;

        assert_int_equal(answer_init(&a, 16, NULL, 0), 0);
        for (uint32_t i = 0; i < len; i++)
            assert_int_equal(answer_push(&a, i, (const uint8_t *)text + i, 1), 0);
        while ((n = answer_ready(&a, sizeof(text), most, &n_ids)) > 0 || n_ids > 0) {
            assert_true(n_ids <= most);
            assert_true(n == a.n_text || ((uint8_t)a.text[n] & 0xc0) != 0x80);
            memcpy(got + out, a.text, n);
            out += n;
            sent += n_ids;
            answer_sent(&a, n, n_ids);
        }
        assert_int_equal(out, len);
        assert_memory_equal(got, text, len);
        assert_int_equal(sent, len);
        answer_fini(&a);
    }
}

/* All of it may be held back, a token a byte. */
static void test_long_stop_string(void **state)
{
    static char stop[ANSWER_STOP_MAX + 1], text[ANSWER_STOP_MAX + 8], got[sizeof(text)];
    const char *const stops[] = { "x", stop };
    uint32_t ids;

    (void)state;
    memset(stop, 'a', ANSWER_STOP_MAX);
    (void)snprintf(text, sizeof(text), "be%s", stop);
    assert_int_equal(feed(text, 1, stops, 2, got, &ids), 1);
    assert_string_equal(got, "be");
    assert_int_equal(ids, 2);
    text[ANSWER_STOP_MAX + 1] = 'b'; /* its last byte */
    assert_int_equal(feed(text, 1, stops, 2, got, &ids), NONE);
    assert_string_equal(got, text);
    assert_int_equal(ids, ANSWER_STOP_MAX + 2);
}

/* --- which of several ------------------------------------------------------------------------- */

/* The answer must stop by stops[want], whatever its tokens are, and say `said`. */
static void stops_by(const char *text, const char *const *stops, uint32_t n_stops, uint32_t want,
                     const char *said)
{
    char got[256];
    uint32_t ids;

    for (size_t by = 1; by <= 9; by++) {
        uint32_t found = feed(text, by, stops, n_stops, got, &ids);

        if (found != want || strcmp(got, said) != 0)
            fail_msg(
                "\"%s\" in tokens of %zu bytes: stop string %d ended it behind \"%s\"; %d behind "
                "\"%s\" was expected",
                text, by, (int)found, got, (int)want, said);
    }
}

#define STOPS(...)                                                                                 \
    (const char *const[]){ __VA_ARGS__ },                                                          \
        sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *)

static void test_first_to_end(void **state)
{
    (void)state;
    stops_by("one END two", STOPS("END", "ENDING"), 0, "one ");       /* a prefix ends first, */
    stops_by("one ENDING two", STOPS("ENDING", "END"), 1, "one ");    /* wherever it is given */
    stops_by("one ENDING two", STOPS("ENDING", "ND"), 1, "one E");    /* and what lies inside */
    stops_by("one ENDING two", STOPS("ING", "ENDING"), 0, "one END"); /* at once: the first given */
    stops_by("one ENDING two", STOPS("ENDING", "ING"), 0, "one ");
    stops_by("one END two", STOPS("END", "END"), 0, "one ");
    stops_by("one EN two END", STOPS("ENDING", "two END", "EN "), 2, "one ");
    stops_by("abcd", STOPS("bcd", "abc"), 1, "");
    stops_by("one ENDIN", STOPS("ENDING", "DINGO"), NONE, "one ENDIN");
}

/* What is found is looked for in the whole text, by its words: the smallest end, then the first. */
static uint32_t looked_for(const char *text, char (*stops)[8], uint32_t n, size_t *ret_at)
{
    size_t end = SIZE_MAX;
    uint32_t which = NONE;

    *ret_at = strlen(text);
    for (uint32_t i = 0; i < n; i++) {
        const char *p = strstr(text, stops[i]);

        if (p && (size_t)(p - text) + strlen(stops[i]) < end) {
            *ret_at = (size_t)(p - text);
            end = *ret_at + strlen(stops[i]);
            which = i;
        }
    }
    return which;
}

static void random_text(uint32_t *seed, char *ret, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        ret[i] = (char)('a' + (*seed >> 24) % 2);
    }
    ret[len] = '\0';
}

/* Of two letters, so that stop strings are often one inside of another. */
static void test_any_text(void **state)
{
    uint32_t seed = 1, n_found[4] = { 0 }, n_none = 0;

    (void)state;
    for (int i = 0; i < 3000; i++) {
        char text[24], stops[4][8], said[24];
        const char *given[4] = { stops[0], stops[1], stops[2], stops[3] };
        uint32_t want;
        size_t at;

        random_text(&seed, text, 20);
        for (uint32_t k = 0; k < 4; k++)
            random_text(&seed, stops[k], 1 + (seed >> 20) % 4 + 3 * (k < 3));
        want = looked_for(text, stops, 4, &at);
        (void)snprintf(said, sizeof(said), "%.*s", (int)at, text);
        stops_by(text, given, 4, want, said);
        n_none += want == NONE;
        if (want != NONE)
            n_found[want]++;
    }
    for (uint32_t k = 0; k < 4; k++)
        assert_true(n_found[k] > 0);
    assert_true(n_none > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer),           cmocka_unit_test(test_few_ids_at_once),
        cmocka_unit_test(test_long_stop_string), cmocka_unit_test(test_first_to_end),
        cmocka_unit_test(test_any_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
