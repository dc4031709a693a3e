/* A parser by recursive descent over the pattern's text, a function for each form, as in gbnf.c.
 * What it makes are characters of a JSON string, so each goes through jsontext_char, which writes
 * escapes where JSON needs them. The text ends with a NUL, which is no character of a pattern:
 * looking one byte ahead is always allowed. */
#include "engine/text/pattern.h"

#include "base/hex.h"
#include "base/utf8.h"

#include <errno.h>
#include <string.h>

/* The only bound of the recursion here: each group calls alternatives, sequence and part once more.
 * A set takes 1 KiB of the stack, and part has one on each level. */
#define GROUPS_MAX 40u
#define RANGES_MAX 128u

struct reader {
    struct jsontext *j;
    struct expr_build *b;
    const char *at, *where;
    unsigned groups;
};

struct set {
    struct expr_range r[RANGES_MAX + 1]; /* one more: expr_gaps */
    size_t n;
    bool none; /* what is wanted is a character of none of them */
};

static uint32_t alternatives(struct reader *p);

/* A pattern that may be right, but that we don't enforce. */
static void refuse(struct reader *p, const char *what)
{
    expr_fail(p->b, -ENOTSUP, "%s: the pattern has %s, which is not supported", p->where, what);
}

/* A pattern that is no regular expression. */
static void wrong(struct reader *p, const char *what)
{
    expr_fail(p->b, -EINVAL, "%s: the pattern %s", p->where, what);
}

/* Behind the last byte *p->at is the NUL, which is no `c`: the place never moves past the end. */
static bool take(struct reader *p, char c)
{
    if (*p->at != c)
        return false;
    p->at++;
    return true;
}

/* --- sets of characters ----------------------------------------------------------------------- */

static void add(struct reader *p, struct set *s, uint32_t lo, uint32_t hi)
{
    if (s->n == RANGES_MAX)
        refuse(p, "a class of very many ranges");
    else
        s->r[s->n++] = (struct expr_range){ lo, hi };
}

/* Of what is not wanted: all that some dialect counts among \s and the others, beyond what all do.
 * \s is worth a list, for [^\s] is common and most letters are outside of ASCII. */
static void add_wide(struct reader *p, struct set *s, char c)
{
    static const struct expr_range spaces[] = {
        { 0x1c, 0x1f },     { 0x85, 0x85 },     { 0xa0, 0xa0 },     { 0x1680, 0x1680 },
        { 0x180e, 0x180e }, { 0x2000, 0x200a }, { 0x2028, 0x2029 }, { 0x202f, 0x202f },
        { 0x205f, 0x205f }, { 0x3000, 0x3000 }, { 0xfeff, 0xfeff },
    };

    for (size_t i = 0; c == 's' && i < sizeof(spaces) / sizeof(*spaces); i++)
        add(p, s, spaces[i].lo, spaces[i].hi);
    if (c == 'S')
        add(p, s, 0xe, 0x1f);
    if (c != 's')
        add(p, s, 0x80, 0x10ffff);
}

/* \d and its like; false: c is none. Opposites stop at 0x7f: beyond ASCII dialects differ on what
 * is a letter or a space, and only what all take may be written. */
static bool add_kind(struct reader *p, struct set *s, char c)
{
    static const struct {
        char name;
        uint8_t n;
        struct expr_range r[6];
    } kinds[] = {
        { 'd', 1, { { '0', '9' } } },
        { 'w', 4, { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } } },
        { 's', 2, { { '\t', '\r' }, { ' ', ' ' } } },
        { 'D', 2, { { 0, '/' }, { ':', 0x7f } } },
        { 'W', 5, { { 0, '/' }, { ':', '@' }, { '[', '^' }, { '`', '`' }, { '{', 0x7f } } },
        /* Not the separators 0x1c to 0x1f, which are space to some. */
        { 'S', 2, { { 0, 8 }, { '!', 0x7f } } },
    };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (kinds[i].name != c)
            continue;
        for (size_t k = 0; k < kinds[i].n; k++)
            add(p, s, kinds[i].r[k].lo, kinds[i].r[k].hi);
        if (s->none)
            add_wide(p, s, c);
        return true;
    }
    return false;
}

static uint32_t hex(struct reader *p, int n)
{
    uint32_t c = 0;

    for (; n > 0 && !p->b->err; n--) {
        int d = hex_digit(*p->at);

        if (d < 0) {
            wrong(p, "has an escape that wants more hexadecimal digits");
            return 0;
        }
        c = c << 4 | (uint32_t)d;
        p->at++;
    }
    if (c >= 0xd800 && c <= 0xdfff)
        refuse(p, "half of a surrogate pair");
    return c;
}

/* Behind a backslash: one character. Signs stand for themselves; letters and digits that are not
 * known here would mean something, so they are refused. */
static uint32_t escape(struct reader *p)
{
    static const char from[] = "nrtfv", to[] = "\n\r\t\f\v";
    char c = *p->at;
    const char *at = c ? strchr(from, c) : NULL;

    if (c == '\0') {
        wrong(p, "ends with a backslash");
        return 0;
    }
    p->at++;
    if (at)
        return (uint32_t)to[at - from];
    if (c == 'x')
        return hex(p, 2);
    if (c == 'u')
        return hex(p, 4);
    if (c == '0' && (*p->at < '0' || *p->at > '9'))
        return 0;
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80))
        refuse(p, "a reference, a boundary, a property or another escape of letters or digits");
    return (uint32_t)c & 0x7f;
}

/* One character that is no sign, of one to four bytes; no further does strnlen look, or a pattern
 * of plain characters would be read to its end for each of them. */
static uint32_t plain(struct reader *p)
{
    size_t len = 0;
    uint32_t c;

    if (utf8_check((const uint8_t *)p->at, strnlen(p->at, 4), &len) != UTF8_OK) {
        wrong(p, "is not UTF-8");
        return 0;
    }
    c = utf8_get((const uint8_t *)p->at, len);
    p->at += len;
    return c;
}

/* One end of a range in a class. False: it was a kind, of many characters. */
static bool end_of_range(struct reader *p, struct set *s, uint32_t *ret)
{
    if (!take(p, '\\')) {
        *ret = plain(p);
        return true;
    }
    if (*p->at && add_kind(p, s, *p->at)) {
        p->at++;
        return false;
    }
    *ret = *p->at == 'b' ? (p->at++, '\b') : escape(p);
    return true;
}

/* Behind [, to behind ]. In a class \b is a backspace. */
static uint32_t class(struct reader *p)
{
    struct set s = { .none = take(p, '^') };
    uint32_t lo = 0, hi = 0;

    while (!p->b->err && !take(p, ']')) {
        if (*p->at == '\0') {
            wrong(p, "has a class without ]");
            break;
        }
        if (!end_of_range(p, &s, &lo))
            continue;
        hi = lo;
        if (p->at[0] == '-' && p->at[1] != ']' && p->at[1] != '\0') {
            p->at++;
            if (!end_of_range(p, &s, &hi))
                refuse(p, "a range that ends with a kind of characters");
        }
        if (hi < lo)
            wrong(p, "has a range that ends before it begins");
        add(p, &s, lo, hi);
    }
    if (s.none)
        s.n = expr_gaps(s.r, s.n);
    if (s.n > RANGES_MAX)
        refuse(p, "a class of very many ranges");
    if (s.n == 0)
        refuse(p, "a class of no characters");
    return jsontext_char(p->j, s.r, s.n);
}

/* --- parts ------------------------------------------------------------------------------------ */

static uint32_t any_char(struct reader *p)
{
    struct set s = { .n = 0 };

    /* What some dialects take for the end of a line is left out. */
    add(p, &s, 0, 9);
    add(p, &s, 0xb, 0xc);
    add(p, &s, 0xe, 0x84);
    add(p, &s, 0x86, 0x2027);
    add(p, &s, 0x202a, 0x10ffff);
    return jsontext_char(p->j, s.r, s.n);
}

static uint32_t one_char(struct reader *p, uint32_t c)
{
    struct expr_range r = { c, c };

    return jsontext_char(p->j, &r, 1);
}

/* Behind (, to behind ). Nothing refers to a group, so its name is passed over. */
static uint32_t group(struct reader *p)
{
    uint32_t e;

    if (take(p, '?')) {
        if (p->at[0] == '<' && p->at[1] != '=' && p->at[1] != '!') { /* a name */
            while (*p->at && *p->at != '>')
                p->at++;
            if (!take(p, '>'))
                wrong(p, "has a group's name without >");
        } else if (!take(p, ':')) {
            refuse(p, "a look ahead or behind");
        }
    }
    if (++p->groups > GROUPS_MAX) {
        refuse(p, "very many groups inside of each other");
        return EXPR_EMPTY;
    }
    e = alternatives(p);
    p->groups--;
    if (!p->b->err && !take(p, ')'))
        wrong(p, "has a group without )");
    return e;
}

/* What one sign of repetition may follow. */
static uint32_t part(struct reader *p)
{
    struct set s = { .n = 0 };

    if (take(p, '.'))
        return any_char(p);
    if (take(p, '['))
        return class(p);
    if (take(p, '('))
        return group(p);
    if (*p->at == '^' || *p->at == '$') {
        refuse(p, "^ or $ inside");
        return EXPR_EMPTY;
    }
    if (strchr("*+?{", *p->at)) {
        wrong(p, "repeats nothing");
        return EXPR_EMPTY;
    }
    if (!take(p, '\\'))
        return one_char(p, plain(p));
    if (*p->at && add_kind(p, &s, *p->at)) {
        p->at++;
        return jsontext_char(p->j, s.r, s.n);
    }
    return one_char(p, escape(p));
}

/* Reading stops at the digit that makes it too large, before the number could wrap. Then
 * expr_repeat refuses it, or bounded the digits that are left. */
static uint32_t number(struct reader *p)
{
    uint32_t n = 0;

    if (*p->at < '0' || *p->at > '9')
        wrong(p, "has { without a number of repetitions");
    while (*p->at >= '0' && *p->at <= '9' && n <= EXPR_REPEAT_MAX)
        n = 10 * n + (uint32_t)(*p->at++ - '0');
    return n;
}

static uint32_t bounded(struct reader *p, uint32_t e)
{
    uint32_t min = number(p), max = min;

    if (take(p, ','))
        max = *p->at == '}' ? EXPR_NO_MAX : number(p);
    if (!take(p, '}'))
        wrong(p, "has { without }");
    if (max < min)
        wrong(p, "has fewer repetitions at most than at least");
    return expr_repeat(p->b, e, min, max);
}

/* Lazy or not makes no difference to which texts match. */
static uint32_t repeated(struct reader *p, uint32_t e)
{
    if (take(p, '*'))
        e = expr_repeat(p->b, e, 0, EXPR_NO_MAX);
    else if (take(p, '+'))
        e = expr_repeat(p->b, e, 1, EXPR_NO_MAX);
    else if (take(p, '?'))
        e = expr_maybe(p->b, e);
    else if (take(p, '{'))
        e = bounded(p, e);
    else
        return e;
    (void)take(p, '?');
    if (*p->at && strchr("*+?{", *p->at))
        wrong(p, "repeats a repetition");
    return e;
}

/* $ ends it at the top, where it is an anchor; inside of a group it is refused by part(). */
static uint32_t sequence(struct reader *p)
{
    size_t mark = expr_mark(p->b);

    while (!p->b->err && *p->at && *p->at != '|' && *p->at != ')' &&
           !(*p->at == '$' && p->groups == 0))
        expr_put(p->b, repeated(p, part(p)));
    return expr_seq(p->b, mark);
}

static uint32_t alternatives(struct reader *p)
{
    size_t mark = expr_mark(p->b);

    do
        expr_put(p->b, sequence(p));
    while (!p->b->err && take(p, '|'));
    return expr_any_of(p->b, mark);
}

/* Each alternative of the whole has its own anchors. `any` is the same expression wherever one is
 * missing. */
uint32_t pattern_expr(struct jsontext *j, const char *pattern, const char *where)
{
    struct reader p = { .j = j, .b = j->b, .at = pattern, .where = where };
    uint32_t any = expr_repeat(j->b, jsontext_char_any(j), 0, EXPR_NO_MAX);
    size_t mark = expr_mark(j->b);

    do {
        uint32_t before = take(&p, '^') ? EXPR_EMPTY : any, what = sequence(&p),
                 behind = take(&p, '$') ? EXPR_EMPTY : any;

        expr_put(j->b, expr_seq2(j->b, before, expr_seq2(j->b, what, behind)));
    } while (!j->b->err && take(&p, '|'));
    if (!j->b->err && *p.at)
        wrong(&p, *p.at == ')' ? "has ) without a group" : "goes on behind $");
    return expr_any_of(j->b, mark);
}
