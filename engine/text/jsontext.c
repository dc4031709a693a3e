/* What stands in many places is a rule, made when it is first asked for; what depends on its
 * arguments is written out each time. Nearly everything has a bound, for a model that is held to a
 * grammar goes on for as long as the grammar lets it. */
#include "engine/text/jsontext.h"

#include "base/json_escape.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDENT_MAX  24u
#define FRACTION    15u
#define NAME_PREFIX 30u /* characters by which names are told apart */
#define CHUNK       64u /* characters; the last few of one are where masks cost more (mask.h) */
#define COUNTED_MIN 129u

static const struct expr_range digits = { '0', '9' }, digits_1 = { '1', '9' };

/* What need not be escaped in a string. Above 0x10ffff there is nothing, and surrogates are left
 * out by expr.h. */
static const struct expr_range raw[] = { { 0x20, 0x21 }, { 0x23, 0x5b }, { 0x5d, 0x10ffff } };

/* Rules are made when they are first asked for; not behind an error, where none has a number. */

void jsontext_init(struct jsontext *j, struct expr_build *b)
{
    *j = (struct jsontext){ .b = b };
    if (b->rules.n == 0) { /* takes number 0 */
        uint32_t none = expr_rule(b, "nothing");

        expr_define(b, none, EXPR_EMPTY);
    }
}

/* --- space, strings --------------------------------------------------------------------------- */

/* A blank, or one line break with an indentation: else a model may write blanks until its tokens
 * are used up. */
uint32_t jsontext_ws(struct jsontext *j)
{
    struct expr_build *b = j->b;

    if (!j->ws && !j->b->err) {
        uint32_t blank = expr_text(b, " "),
                 line = expr_seq2(b, expr_text(b, "\n"), expr_repeat(b, blank, 0, INDENT_MAX));

        j->ws = expr_rule(b, "space");
        expr_define(b, j->ws, expr_maybe(b, expr_or2(b, blank, line)));
    }
    return expr_call(b, j->ws);
}

static bool has(const struct expr_range *r, size_t n, uint32_t c)
{
    for (size_t i = 0; i < n; i++)
        if (r[i].lo <= c && c <= r[i].hi)
            return true;
    return false;
}

/* Of a byte that does not stand as it is. */
static uint32_t escaped(struct expr_build *b, uint32_t c)
{
    char text[JSON_ESCAPE_MAX] = "";

    (void)json_escape((unsigned char)c, text);
    return expr_text(b, text);
}

/* Ranges without what must be escaped; ret has room for 3 * n. */
static size_t without_escaped(const struct expr_range *r, size_t n, struct expr_range *ret)
{
    size_t out = 0;

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3; k++) {
            uint32_t lo = r[i].lo > raw[k].lo ? r[i].lo : raw[k].lo,
                     hi = r[i].hi < raw[k].hi ? r[i].hi : raw[k].hi;

            if (lo <= hi)
                ret[out++] = (struct expr_range){ lo, hi };
        }
    return out;
}

/* Of what must be escaped one spelling only, so a character is written in one way. */
uint32_t jsontext_char(struct jsontext *j, const struct expr_range *r, size_t n)
{
    struct expr_build *b = j->b;
    struct expr_range *plain = calloc(3 * n + 1, sizeof(*plain));
    size_t mark = expr_mark(b);

    if (!plain) {
        expr_fail(b, -ENOMEM, "no memory for a grammar");
        return EXPR_EMPTY;
    }
    expr_put(b, expr_class(b, plain, without_escaped(r, n, plain)));
    for (uint32_t c = 0; c < 0x20; c++)
        if (has(r, n, c))
            expr_put(b, escaped(b, c));
    if (has(r, n, '"'))
        expr_put(b, escaped(b, '"'));
    if (has(r, n, '\\'))
        expr_put(b, escaped(b, '\\'));
    free(plain);
    return expr_any_of(b, mark);
}

/* \uXXXX of a whole character. A code point from U+D800 to U+DFFF is half of a character, and is
 * left out: behind a `d` only 0 to 7 may come. */
static uint32_t code(struct expr_build *b)
{
    static const struct expr_range hex[] = { { '0', '9' }, { 'a', 'f' }, { 'A', 'F' } },
                                   not_d[] = { { '0', '9' },
                                               { 'a', 'c' },
                                               { 'A', 'C' },
                                               { 'e', 'f' },
                                               { 'E', 'F' } },
                                   d[] = { { 'd', 'd' }, { 'D', 'D' } }, low[] = { { '0', '7' } };
    uint32_t any = expr_class(b, hex, 3),
             one = expr_seq2(b, expr_class(b, not_d, 5), expr_repeat(b, any, 3, 3)),
             other = expr_seq2(b, expr_class(b, d, 2),
                               expr_seq2(b, expr_class(b, low, 1), expr_repeat(b, any, 2, 2)));

    return expr_seq2(b, expr_text(b, "u"), expr_or2(b, one, other));
}

/* Here an escape is allowed for any character, as JSON has it. */
uint32_t jsontext_char_any(struct jsontext *j)
{
    static const struct expr_range letters[] = { { '"', '"' }, { '\\', '\\' }, { '/', '/' },
                                                 { 'b', 'b' }, { 'f', 'f' },   { 'n', 'n' },
                                                 { 'r', 'r' }, { 't', 't' } };
    struct expr_build *b = j->b;
    uint32_t behind = expr_or2(b, expr_class(b, letters, 8), code(b));

    return expr_or2(b, expr_class(b, raw, 3), expr_seq2(b, expr_text(b, "\\"), behind));
}

uint32_t jsontext_quoted(struct jsontext *j, uint32_t e)
{
    struct expr_build *b = j->b;

    return expr_seq2(b, expr_text(b, "\""), expr_seq2(b, e, expr_text(b, "\"")));
}

uint32_t jsontext_string(struct jsontext *j)
{
    if (!j->string && !j->b->err) {
        j->string = expr_rule(j->b, "a string");
        expr_define(j->b, j->string,
                    jsontext_quoted(j, expr_repeat(j->b, jsontext_char_any(j), 0, EXPR_NO_MAX)));
    }
    return expr_call(j->b, j->string);
}

/* Exactly a chunk; less than one, and the end of the string. Both are rules, so a count of many
 * characters costs a call for every CHUNK of them instead of a state for each. */
static void make_chunks(struct jsontext *j)
{
    struct expr_build *b = j->b;
    uint32_t any = jsontext_char_any(j);

    if (j->chunk || b->err)
        return;
    j->chunk = expr_rule(b, "a part of a string");
    j->last = expr_rule(b, "the end of a string");
    expr_define(b, j->chunk, expr_repeat(b, any, CHUNK, CHUNK));
    expr_define(b, j->last, expr_seq2(b, expr_repeat(b, any, 0, CHUNK - 1), expr_text(b, "\"")));
}

/* Up to n characters and the end. With each chunk it is open whether a whole one comes or the end:
 * both are followed until one of them can't be. */
static uint32_t counted_end(struct jsontext *j, uint32_t n)
{
    struct expr_build *b = j->b;
    uint32_t end =
        expr_seq2(b, expr_repeat(b, jsontext_char_any(j), 0, n % CHUNK), expr_text(b, "\""));

    for (uint32_t i = 0; i < n / CHUNK; i++) {
        uint32_t rule = expr_rule(b, "a string");

        expr_define(b, rule,
                    expr_or2(b, expr_seq2(b, expr_call(b, j->chunk), end), expr_call(b, j->last)));
        end = expr_call(b, rule);
    }
    return end;
}

/* Few characters are written out. Many are the least number, exactly, and then up to as many as may
 * still come. */
uint32_t jsontext_counted(struct jsontext *j, uint32_t min, uint32_t max)
{
    struct expr_build *b = j->b;
    uint32_t any = jsontext_char_any(j), most = max == EXPR_NO_MAX ? min : max;
    size_t mark;

    if (most < COUNTED_MIN || most > EXPR_REPEAT_MAX) /* which is refused */
        return jsontext_quoted(j, expr_repeat(b, any, min, max));
    make_chunks(j);
    mark = expr_mark(b);
    expr_put(b, expr_text(b, "\""));
    for (uint32_t i = 0; i < min / CHUNK; i++)
        expr_put(b, expr_call(b, j->chunk));
    expr_put(b, expr_repeat(b, any, min % CHUNK, min % CHUNK));
    if (max == EXPR_NO_MAX) {
        expr_put(b, expr_repeat(b, any, 0, EXPR_NO_MAX));
        expr_put(b, expr_text(b, "\""));
    } else {
        expr_put(b, counted_end(j, max - min));
    }
    return expr_seq(b, mark);
}

/* --- other names ------------------------------------------------------------------------------ */

/* Sorted, so that names with a common beginning stand side by side: together they are a trie. */
struct names {
    const char *const *name; /* sorted */
    size_t *at;              /* where each goes on */
};

/* One unescaped character that is none of the ranges. */
static uint32_t raw_not(struct jsontext *j, const struct expr_range *r, size_t n)
{
    struct expr_range *all = calloc(n + 3, sizeof(*all));
    uint32_t e = EXPR_EMPTY;

    if (!all) {
        expr_fail(j->b, -ENOMEM, "no memory for a grammar");
        return e;
    }
    if (n > 0)
        memcpy(all, r, n * sizeof(*all));
    all[n] = (struct expr_range){ 0, 0x1f };
    all[n + 1] = (struct expr_range){ '"', '"' };
    all[n + 2] = (struct expr_range){ '\\', '\\' };
    e = expr_class_not(j->b, all, n + 3);
    free(all);
    return e;
}

/* The next character of name i; 0: it ends here. */
static uint32_t next_char(const struct names *x, size_t i, size_t *ret_len)
{
    const char *s = x->name[i] + x->at[i];
    size_t len = 0;

    if (*s == '\0' || utf8_check((const uint8_t *)s, strlen(s), &len) != UTF8_OK)
        return 0;
    *ret_len = len;
    return utf8_get((const uint8_t *)s, len);
}

/* What can follow a beginning that names [from, to) have in common, and is none of them. Either the
 * text ends here, which is another name unless one of them ends here; or one of their next
 * characters comes, and it goes on with those that have it; or any other character comes, and then
 * anything. */
static uint32_t other(struct jsontext *j, const struct names *x, size_t from, size_t to,
                      unsigned depth)
{
    struct expr_build *b = j->b;
    size_t mark = expr_mark(b), i = from, n = 0, len = 0;
    struct expr_range *taken;

    if (depth == NAME_PREFIX) /* whoever begins so, to be sure */
        return EXPR_NEVER;
    taken = calloc(to - from + 1, sizeof(*taken));
    if (!taken) {
        expr_fail(b, -ENOMEM, "no memory for a grammar");
        return EXPR_EMPTY;
    }
    if (next_char(x, from, &len) == 0) /* the first of sorted ones ends here, if any does */
        while (i < to && next_char(x, i, &len) == 0)
            i++;
    else
        expr_put(b, EXPR_EMPTY);
    while (i < to && !b->err) {
        uint32_t c = next_char(x, i, &len);
        size_t first = i;

        for (; i < to && next_char(x, i, &len) == c; i++)
            x->at[i] += len;
        taken[n++] = (struct expr_range){ c, c };
        expr_put(b,
                 expr_seq2(b, expr_class(b, &taken[n - 1], 1), other(j, x, first, i, depth + 1)));
    }
    expr_put(
        b, expr_seq2(b, raw_not(j, taken, n), expr_repeat(b, raw_not(j, NULL, 0), 0, EXPR_NO_MAX)));
    free(taken);
    return expr_any_of(b, mark);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_raw(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name < 0x20 || *name == '"' || *name == '\\')
            return false;
    return true;
}

uint32_t jsontext_other_key(struct jsontext *j, const char *const *names, size_t n)
{
    const char **sorted = calloc(n + 1, sizeof(*sorted));
    struct names x = { sorted, calloc(n + 1, sizeof(*x.at)) };
    uint32_t e = EXPR_EMPTY;
    size_t n_raw = 0;

    /* These keys have no escapes, or "\u0061" would be another "a"; so names that need one are none
     * of them anyway. */
    if (!sorted || !x.at) {
        expr_fail(j->b, -ENOMEM, "no memory for a grammar");
    } else {
        for (size_t i = 0; i < n; i++)
            if (is_raw(names[i]))
                sorted[n_raw++] = names[i];
        qsort(sorted, n_raw, sizeof(*sorted), by_text);
        e = n_raw > 0 ? other(j, &x, 0, n_raw, 0)
                      : expr_repeat(j->b, raw_not(j, NULL, 0), 0, EXPR_NO_MAX);
        e = jsontext_quoted(j, e);
    }
    free(sorted);
    free(x.at);
    return e;
}

/* --- numbers ---------------------------------------------------------------------------------- */

static uint32_t digit(struct expr_build *b, char lo, char hi)
{
    struct expr_range r = { (uint32_t)lo, (uint32_t)hi };

    return expr_class(b, &r, 1);
}

/* Texts of n digits from lo to hi. By the first digit: the lowest one, with what is not below lo;
 * those between, with anything; the highest one, with what is not above hi. */
static uint32_t between(struct expr_build *b, const char *lo, const char *hi, size_t n)
{
    static const char zeros[] = "0000000000000000000", nines[] = "9999999999999999999";
    size_t mark = expr_mark(b);

    if (n == 0)
        return EXPR_EMPTY;
    if (memcmp(lo, zeros, n) == 0 && memcmp(hi, nines, n) == 0)
        return expr_repeat(b, digit(b, '0', '9'), (uint32_t)n, (uint32_t)n);
    if (*lo == *hi)
        return expr_seq2(b, digit(b, *lo, *lo), between(b, lo + 1, hi + 1, n - 1));
    expr_put(b, expr_seq2(b, digit(b, *lo, *lo), between(b, lo + 1, nines, n - 1)));
    if (*lo + 1 < *hi)
        expr_put(b,
                 expr_seq2(b, digit(b, (char)(*lo + 1), (char)(*hi - 1)),
                           expr_repeat(b, digit(b, '0', '9'), (uint32_t)n - 1, (uint32_t)n - 1)));
    expr_put(b, expr_seq2(b, digit(b, *hi, *hi), between(b, zeros, hi + 1, n - 1)));
    return expr_any_of(b, mark);
}

/* 0 <= lo. For each number of digits those that have it: no leading zeros. */
static uint32_t natural(struct expr_build *b, long long lo, long long hi)
{
    size_t mark = expr_mark(b);
    long long first = 0, last = 9; /* of so many digits */

    for (size_t n = 1; n <= JSONTEXT_DIGITS && hi >= lo; n++) {
        long long from = lo > first ? lo : first, to = hi < last ? hi : last;
        char a[24], z[24];

        if (from <= to) {
            (void)snprintf(a, sizeof(a), "%lld", from);
            (void)snprintf(z, sizeof(z), "%lld", to);
            expr_put(b, between(b, a, z, n));
        }
        first = last + 1;
        last = 10 * last + 9;
    }
    return expr_any_of(b, mark);
}

/* Negative numbers by their magnitudes, from 1 on: there is no -0. */
uint32_t jsontext_integer(struct jsontext *j, long long lo, long long hi)
{
    struct expr_build *b = j->b;
    uint32_t plus = natural(b, lo > 0 ? lo : 0, hi),
             minus = lo < 0 ? natural(b, hi < 0 ? -hi : 1, -lo) : EXPR_NEVER;

    return expr_or2(b, plus, expr_seq2(b, expr_text(b, "-"), minus));
}

/* 0 <= lo, and hi; magnitudes of one sign. Whole bounds alone make this possible: between two whole
 * numbers any fraction may stand. */
static uint32_t magnitude(struct expr_build *b, long long lo, bool above, long long hi, bool below)
{
    size_t mark = expr_mark(b);
    uint32_t any = expr_class(b, &digits, 1), some = expr_class(b, &digits_1, 1),
             point = expr_text(b, "."),
             fraction = expr_seq2(b, point, expr_repeat(b, any, 1, FRACTION)),
             more = expr_seq2(b, point, expr_seq2(b, expr_repeat(b, any, 0, FRACTION - 1), some));

    if (hi < lo)
        return EXPR_NEVER;
    /* Between two whole numbers: with a fraction, or without one. */
    if (lo < hi) {
        expr_put(b, expr_seq2(b, natural(b, lo, lo), above ? more : expr_maybe(b, fraction)));
        expr_put(b, expr_seq2(b, natural(b, lo + 1, hi - 1), expr_maybe(b, fraction)));
    } else if (!above && !below) {
        expr_put(b, natural(b, lo, lo));
    }
    if (!below && lo < hi)
        expr_put(b, natural(b, hi, hi));
    return expr_any_of(b, mark);
}

/* With an exponent, where nothing bounds it. */
static uint32_t unbounded(struct expr_build *b)
{
    static const struct expr_range e[] = { { 'e', 'e' }, { 'E', 'E' } },
                                   sign[] = { { '+', '+' }, { '-', '-' } };
    uint32_t any = expr_class(b, &digits, 1), part = natural(b, 0, JSONTEXT_INT_MAX),
             fraction = expr_seq2(b, expr_text(b, "."), expr_repeat(b, any, 1, FRACTION)),
             exponent = expr_seq2(
                 b, expr_class(b, e, 2),
                 expr_seq2(b, expr_maybe(b, expr_class(b, sign, 2)), expr_repeat(b, any, 1, 2)));

    return expr_seq2(
        b, expr_maybe(b, expr_text(b, "-")),
        expr_seq2(b, part, expr_seq2(b, expr_maybe(b, fraction), expr_maybe(b, exponent))));
}

/* The sign mirrors the bounds: the magnitude of a negative number is bounded from above by -lo and
 * from below by -hi. */
uint32_t jsontext_number(struct jsontext *j, long long lo, bool above, long long hi, bool below)
{
    struct expr_build *b = j->b;
    uint32_t plus, minus;

    if (lo <= -JSONTEXT_INT_MAX && hi >= JSONTEXT_INT_MAX)
        return unbounded(b);
    plus = hi < 0 ? EXPR_NEVER : magnitude(b, lo > 0 ? lo : 0, lo >= 0 && above, hi, below);
    minus = lo >= 0 ? EXPR_NEVER : magnitude(b, hi < 0 ? -hi : 0, hi <= 0 && below, -lo, above);
    return expr_or2(b, plus, expr_seq2(b, expr_text(b, "-"), minus));
}

/* --- any value -------------------------------------------------------------------------------- */

/* open (part ("," part)*)? close With space where people put it: behind the bracket, behind a comma
 * and before the end. */
static uint32_t list(struct jsontext *j, const char *open, uint32_t part, const char *close)
{
    struct expr_build *b = j->b;
    uint32_t more = expr_seq2(b, expr_text(b, ","), expr_seq2(b, jsontext_ws(j), part)),
             all = expr_seq2(b, part,
                             expr_seq2(b, expr_repeat(b, more, 0, EXPR_NO_MAX), jsontext_ws(j)));

    return expr_seq2(b, expr_seq2(b, expr_text(b, open), jsontext_ws(j)),
                     expr_seq2(b, expr_maybe(b, all), expr_text(b, close)));
}

/* The rule has its number before its body is made: a value may be an object again. */
uint32_t jsontext_object(struct jsontext *j)
{
    struct expr_build *b = j->b;

    if (!j->object && !j->b->err) {
        uint32_t value;

        j->object = expr_rule(b, "an object");
        value = jsontext_value(j);
        expr_define(b, j->object,
                    list(j, "{",
                         expr_seq2(b, expr_seq2(b, jsontext_string(j), expr_text(b, ":")),
                                   expr_seq2(b, jsontext_ws(j), value)),
                         "}"));
    }
    return expr_call(b, j->object);
}

uint32_t jsontext_array(struct jsontext *j)
{
    if (!j->array && !j->b->err) {
        j->array = expr_rule(j->b, "an array");
        expr_define(j->b, j->array, list(j, "[", jsontext_value(j), "]"));
    }
    return expr_call(j->b, j->array);
}

uint32_t jsontext_value(struct jsontext *j)
{
    struct expr_build *b = j->b;

    if (!j->value && !j->b->err) {
        size_t mark = expr_mark(b);

        j->value = expr_rule(b, "a value");
        expr_put(b, jsontext_object(j));
        expr_put(b, jsontext_array(j));
        expr_put(b, jsontext_string(j));
        expr_put(b, jsontext_number(j, -JSONTEXT_INT_MAX, false, JSONTEXT_INT_MAX, false));
        expr_put(b, expr_text(b, "true"));
        expr_put(b, expr_text(b, "false"));
        expr_put(b, expr_text(b, "null"));
        expr_define(b, j->value, expr_any_of(b, mark));
    }
    return expr_call(b, j->value);
}
