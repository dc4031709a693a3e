/* base/json_check.c - a value after the other, without recursion: what they are in is a stack. */

#include "base/json_check.h"

#include "base/utf8.h"

#include <string.h>

struct reader {
    const char *text;
    size_t len;
    unsigned flags, depth;
    bool in_object[JSON_CHECK_DEPTH];
    const char *wrong; /* the first thing; NULL: nothing so far */
    struct json_checked *to;
};

static const char no_number[] = "NaN and Infinity are no numbers in JSON";

/* What is there, or -1: the text is over. */
static int look(const struct reader *r)
{
    return r->to->at < r->len ? (unsigned char)r->text[r->to->at] : -1;
}

static bool fail(struct reader *r, const char *what)
{
    if (!r->wrong)
        r->wrong = look(r) < 0 ? "it ends too early" : what;
    return false;
}

static bool take(struct reader *r, char c)
{
    if (look(r) != c)
        return false;
    r->to->at++;
    return true;
}

static void skip_space(struct reader *r)
{
    while (look(r) == ' ' || look(r) == '\t' || look(r) == '\n' || look(r) == '\r')
        r->to->at++;
}

/* --- values without others in them ------------------------------------------------------------ */

static bool digits(struct reader *r)
{
    size_t from = r->to->at, n;

    while (look(r) >= '0' && look(r) <= '9')
        r->to->at++;
    n = r->to->at - from;
    if (n > r->to->digits)
        r->to->digits = n < 1u << 30 ? (unsigned)n : 1u << 30;
    return n > 0 || fail(r, "a digit is expected");
}

static bool number(struct reader *r)
{
    if (take(r, '-') && look(r) == 'I')
        return fail(r, no_number);
    if (take(r, '0')) {
        if (look(r) >= '0' && look(r) <= '9')
            return fail(r, "no digit follows a 0 at the beginning of a number");
    } else if (!digits(r)) {
        return false;
    }
    if (take(r, '.') && !digits(r))
        return false;
    if (!take(r, 'e') && !take(r, 'E'))
        return true;
    if (!take(r, '+'))
        (void)take(r, '-');
    return digits(r);
}

static bool is_hex(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Behind the backslash. Halves of surrogate pairs are allowed by the grammar. */
static bool escape(struct reader *r)
{
    bool zero = true;
    int c = look(r);

    if (c < 0 || !memchr("\"\\/bfnrtu", c, 9))
        return fail(r, "there is no such escape");
    r->to->at++;
    for (int i = 0; c == 'u' && i < 4; i++) {
        if (!is_hex(look(r)))
            return fail(r, "four hexadecimal digits are expected");
        zero = zero && look(r) == '0';
        r->to->at++;
    }
    r->to->nul |= c == 'u' && zero;
    return true;
}

/* A character of a text: any, but for controls. */
static bool character(struct reader *r)
{
    size_t n;

    if (look(r) < ' ' && (look(r) <= 0 || !(r->flags & JSON_CHECK_CONTROLS)))
        return fail(r, "a control character has to be escaped");
    if (utf8_check((const uint8_t *)r->text + r->to->at, r->len - r->to->at, &n) != UTF8_OK)
        return fail(r, "it is not UTF-8");
    r->to->at += n;
    return true;
}

static bool string(struct reader *r)
{
    if (!take(r, '"'))
        return fail(r, look(r) == '\'' ? "names and texts stand in double quotes"
                                       : "a name in double quotes is expected");
    while (!take(r, '"'))
        if (!(take(r, '\\') ? escape(r) : character(r)))
            return false;
    return true;
}

static bool word(struct reader *r, const char *what)
{
    for (; *what; what++)
        if (!take(r, *what))
            return fail(r, "true, false or null is expected");
    return true;
}

static bool scalar(struct reader *r)
{
    switch (look(r)) {
    case '"':
    case '\'':
        return string(r);
    case 't':
        return word(r, "true");
    case 'f':
        return word(r, "false");
    case 'n':
        return word(r, "null");
    case 'N':
    case 'I':
        return fail(r, no_number);
    default:
        return look(r) == '-' || (look(r) >= '0' && look(r) <= '9')
                   ? number(r)
                   : fail(r, "a value is expected");
    }
}

/* --- arrays and objects ----------------------------------------------------------------------- */

/* A member's name and its colon; nothing in an array. */
static bool name(struct reader *r)
{
    if (!r->in_object[r->depth - 1])
        return true;
    skip_space(r);
    if (!string(r))
        return false;
    skip_space(r);
    return take(r, ':') || fail(r, "a ':' is expected");
}

/* One value is over: of what is around it the next one is at hand, or the ends of all. */
static bool go_on(struct reader *r, bool *ret_done)
{
    for (; r->depth > 0; r->depth--) {
        bool object = r->in_object[r->depth - 1];

        skip_space(r);
        if (take(r, ','))
            return name(r);
        if (!take(r, object ? '}' : ']'))
            return fail(r, object ? "',' or '}' is expected" : "',' or ']' is expected");
    }
    *ret_done = true;
    return true;
}

/* Into an array or an object. *ret_in: it has something in it, which is at hand. */
static bool enter(struct reader *r, bool *ret_in)
{
    bool object = look(r) == '{';

    if (r->depth == JSON_CHECK_DEPTH)
        return fail(r, "it nests too deep");
    r->to->at++;
    r->to->n_values++;
    r->in_object[r->depth++] = object;
    skip_space(r);
    *ret_in = look(r) != (object ? '}' : ']');
    if (*ret_in)
        return name(r);
    r->to->at++;
    r->depth--;
    return true;
}

static bool all(struct reader *r)
{
    bool done = false, in;

    while (!done) {
        in = false;
        skip_space(r);
        r->to->n_values++;
        if (look(r) == '[' || look(r) == '{') {
            if (!enter(r, &in))
                return false;
        } else if (!scalar(r)) {
            return false;
        }
        if (!in && !go_on(r, &done))
            return false;
    }
    skip_space(r);
    return r->to->at == r->len || fail(r, "something follows behind its end");
}

const char *json_check(const char *text, size_t len, unsigned flags, struct json_checked *ret)
{
    struct reader r = { .text = text, .len = len, .flags = flags, .to = ret };

    *ret = (struct json_checked){ 0 };
    return all(&r) ? NULL : r.wrong;
}
