/* A parser by recursive descent, a function for each form:
 *
 *     rule          NAME "::=" alternatives
 *     alternatives  sequence ("|" sequence)*
 *     sequence      (part repetition*)*
 *     part          text, class, group, dot or name
 *
 * Each is called where its form begins and leaves `at` behind it. After an error all of them do as
 * little as they can and return (expr.h keeps the first one), so no caller looks at each result. */
#include "engine/text/gbnf.h"

#include "base/hex.h"
#include "base/utf8.h"
#include "engine/text/strmap.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PARENS_MAX  64u
#define RANGES_MAX  256u /* of one class */
#define REPEATS_MAX 8u   /* signs behind one part */

struct parser {
    struct expr_build *b;
    struct strmap names; /* to rules */
    const char *text, *at, *end;
    unsigned parens;
};

static uint32_t alternatives(struct parser *p);

static void fail(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Where `at` stands is where people are told to look. Lines are counted only then. */
static void fail(struct parser *p, const char *fmt, ...)
{
    unsigned line = 1, column = 1;
    char text[256];
    va_list ap;

    if (p->b->err)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (const char *c = p->text; c < p->at; c++) {
        column = *c == '\n' ? 1 : column + 1;
        line += *c == '\n';
    }
    expr_fail(p->b, -EINVAL, "line %u, column %u of the grammar: %s", line, column, text);
}

/* --- characters ------------------------------------------------------------------------------- */

static bool is(const struct parser *p, char c)
{
    return p->at < p->end && *p->at == c;
}

static bool take(struct parser *p, char c)
{
    if (!is(p, c))
        return false;
    p->at++;
    return true;
}

/* Spaces and comments; with lines, where a rule can't end. */
static void skip(struct parser *p, bool lines)
{
    while (p->at < p->end) {
        if (*p->at == '#')
            while (p->at < p->end && *p->at != '\n')
                p->at++;
        else if (*p->at == ' ' || *p->at == '\t' || *p->at == '\r' || (lines && *p->at == '\n'))
            p->at++;
        else
            break;
    }
}

/* n digits, of which all must be there. */
static uint32_t hex(struct parser *p, int n)
{
    uint32_t c = 0;

    while (n-- > 0) {
        int d = p->at < p->end ? hex_digit(*p->at) : -1;

        if (d < 0) {
            fail(p, "an escape wants more hexadecimal digits");
            return 0;
        }
        c = c << 4 | (uint32_t)d;
        p->at++;
    }
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        fail(p, "U+%04X is no character", c);
        return 0;
    }
    return c;
}

/* Behind a backslash. What GBNF does not know is refused: it might mean something in another
 * dialect. */
static uint32_t escape(struct parser *p)
{
    char c = p->at < p->end ? *p->at++ : '\0';

    switch (c) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'x':
        return hex(p, 2);
    case 'u':
        return hex(p, 4);
    case 'U':
        return hex(p, 8);
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
        return (uint32_t)c;
    default:
        fail(p, "\\%c is no escape that GBNF knows", c >= ' ' && c < 127 ? c : '?');
        return 0;
    }
}

/* A character of a text or a class, escaped or not. ret_escaped is for who has to tell a written
 * sign from an escaped one. */
static uint32_t character(struct parser *p, bool *ret_escaped)
{
    size_t len = 0;
    uint32_t c;

    *ret_escaped = take(p, '\\');
    if (*ret_escaped)
        return escape(p);
    if (p->at == p->end || *p->at == '\n') {
        fail(p, "the line ends inside of a text or a class; a line break in it is \\n");
        return 0;
    }
    if (utf8_check((const uint8_t *)p->at, (size_t)(p->end - p->at), &len) != UTF8_OK) {
        fail(p, "this is not UTF-8");
        return 0;
    }
    c = utf8_get((const uint8_t *)p->at, len);
    p->at += len;
    return c;
}

/* --- parts ------------------------------------------------------------------------------------ */

/* Behind the opening quote, to behind the closing one. Bytes are handed over in pieces, so a text
 * may be of any length. */
static uint32_t literal(struct parser *p)
{
    size_t mark = expr_mark(p->b);
    uint8_t bytes[256];
    size_t n = 0;
    bool escaped;

    while (!p->b->err) {
        if (take(p, '"'))
            break;
        n += utf8_put(character(p, &escaped), bytes + n);
        if (n > sizeof(bytes) - 4) { /* no room for one more character */
            expr_put(p->b, expr_bytes(p->b, bytes, n));
            n = 0;
        }
    }
    expr_put(p->b, expr_bytes(p->b, bytes, n));
    return expr_seq(p->b, mark);
}

/* Behind the opening bracket. A minus before the closing one is a minus. [^] is every character. */
static uint32_t class(struct parser *p)
{
    struct expr_range r[RANGES_MAX];
    bool none = take(p, '^'), escaped;
    size_t n = 0;

    while (!p->b->err && !take(p, ']')) {
        if (n == RANGES_MAX) {
            fail(p, "a class of more than %u ranges", RANGES_MAX);
            break;
        }
        r[n].lo = r[n].hi = character(p, &escaped);
        if (is(p, '-') && p->at + 1 < p->end && p->at[1] != ']') {
            p->at++;
            r[n].hi = character(p, &escaped);
        }
        if (r[n].hi < r[n].lo)
            fail(p, "a range that ends before it begins");
        n++;
    }
    if (n == 0 && !none)
        fail(p, "a class of no characters");
    return none ? expr_class_not(p->b, r, n) : expr_class(p->b, r, n);
}

static size_t name_len(const struct parser *p)
{
    const char *c = p->at;

    while (c < p->end && ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                          (*c >= '0' && *c <= '9') || *c == '-' || *c == '_'))
        c++;
    return (size_t)(c - p->at);
}

/* The rule of the name here, which may be defined later. A rule that is only used so far has no
 * body: nfa.c says so if it never gets one. */
static uint32_t name(struct parser *p)
{
    size_t len = name_len(p);
    uint32_t rule = strmap_find(&p->names, (const uint8_t *)p->at, len);
    char said[EXPR_NAME_MAX];

    if (rule == STRMAP_NONE) {
        (void)snprintf(said, sizeof(said), "the rule %.*s", (int)(len < 80 ? len : 80), p->at);
        rule = expr_rule(p->b, said);
        if (!p->b->err && strmap_add(&p->names, (const uint8_t *)p->at, len, rule) < 0)
            expr_fail(p->b, -ENOMEM, "no memory for a grammar");
    }
    p->at += len;
    return rule;
}

/* Parentheses are what the parser recurses by, so they are limited. */
static uint32_t group(struct parser *p)
{
    uint32_t e;

    if (++p->parens > PARENS_MAX) {
        fail(p, "more than %u parentheses inside of each other", PARENS_MAX);
        return EXPR_EMPTY;
    }
    e = alternatives(p);
    if (!take(p, ')'))
        fail(p, "a closing parenthesis is missing");
    p->parens--;
    return e;
}

/* False: there is none here. */
static bool part(struct parser *p, uint32_t *ret)
{
    static const struct expr_range any = { 0, 0x10ffff };

    if (take(p, '"'))
        *ret = literal(p);
    else if (take(p, '['))
        *ret = class(p);
    else if (take(p, '('))
        *ret = group(p);
    else if (take(p, '.'))
        *ret = expr_class(p->b, &any, 1);
    else if (name_len(p) > 0)
        *ret = expr_call(p->b, name(p));
    else
        return false;
    return !p->b->err;
}

/* Stops behind the first digit that makes it too large; what follows is then an error of its own,
 * or expr_repeat refuses it. */
static uint32_t number(struct parser *p)
{
    uint32_t n = 0;

    if (p->at == p->end || *p->at < '0' || *p->at > '9')
        fail(p, "a number of repetitions is missing");
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9' && n <= EXPR_REPEAT_MAX)
        n = 10 * n + (uint32_t)(*p->at++ - '0');
    return n;
}

/* Behind {, to behind }. */
static uint32_t bounded(struct parser *p, uint32_t e)
{
    uint32_t min, max;

    skip(p, true);
    min = max = number(p);
    skip(p, true);
    if (take(p, ',')) {
        skip(p, true);
        max = is(p, '}') ? EXPR_NO_MAX : number(p);
        skip(p, true);
    }
    if (!take(p, '}'))
        fail(p, "} is missing behind a number of repetitions");
    if (max < min)
        fail(p, "%u repetitions at least and %u at most", min, max);
    return expr_repeat(p->b, e, min, max);
}

/* Signs behind a part, from the inside out: x{2}? is (x{2}) or nothing. What was skipped before no
 * sign is given back: it may be the end of the rule. */
static uint32_t repeated(struct parser *p, uint32_t e)
{
    for (unsigned i = 0; !p->b->err; i++) {
        const char *before = p->at;

        skip(p, p->parens > 0);
        if (i == REPEATS_MAX)
            fail(p, "too many signs of repetition");
        else if (take(p, '*'))
            e = expr_repeat(p->b, e, 0, EXPR_NO_MAX);
        else if (take(p, '+'))
            e = expr_repeat(p->b, e, 1, EXPR_NO_MAX);
        else if (take(p, '?'))
            e = expr_maybe(p->b, e);
        else if (take(p, '{'))
            e = bounded(p, e);
        else {
            p->at = before;
            break;
        }
    }
    return e;
}

/* May be empty, and then stands for the empty text. */
static uint32_t sequence(struct parser *p)
{
    size_t mark = expr_mark(p->b);
    uint32_t e;

    for (;;) {
        skip(p, p->parens > 0);
        if (!part(p, &e))
            break;
        expr_put(p->b, repeated(p, e));
    }
    return expr_seq(p->b, mark);
}

/* Another alternative follows, perhaps on the next line. The text is left at a line's end
 * otherwise, where a rule may end. */
static bool goes_on(struct parser *p)
{
    const char *before = p->at;

    skip(p, true);
    if (take(p, '|'))
        return true;
    p->at = before;
    skip(p, p->parens > 0);
    return false;
}

static uint32_t alternatives(struct parser *p)
{
    size_t mark = expr_mark(p->b);

    do {
        skip(p, true); /* the first one may begin on the next line, too */
        expr_put(p->b, sequence(p));
    } while (!p->b->err && goes_on(p));
    return expr_any_of(p->b, mark);
}

/* --- rules ------------------------------------------------------------------------------------ */

/* One rule, and the space to the next. */
static void rule(struct parser *p)
{
    uint32_t r, body;

    if (name_len(p) == 0) {
        fail(p, "a rule's name is missing: NAME ::= ...");
        return;
    }
    r = name(p);
    skip(p, true);
    if (p->end - p->at < 3 || memcmp(p->at, "::=", 3) != 0) {
        fail(p, "::= is missing behind a rule's name");
        return;
    }
    if (!p->b->err && ((struct expr_rule *)p->b->rules.mem)[r].defined)
        fail(p, "the rule is defined twice");
    p->at += 3;
    body = alternatives(p);
    if (p->at < p->end && *p->at != '\n')
        fail(p, "'%c' can't stand here", *p->at >= ' ' && *p->at < 127 ? *p->at : '?');
    expr_define(p->b, r, body);
    skip(p, true);
}

static uint32_t root_of(struct parser *p)
{
    uint32_t root = strmap_find(&p->names, (const uint8_t *)"root", 4);

    if (root == STRMAP_NONE)
        expr_fail(p->b, -EINVAL, "the grammar has no rule named root, which is where it begins");
    return root;
}

/* A name of more than EXPR_NAME_MAX characters is cut in sentences only; the map has all of it,
 * from the text that stays the caller's. */
uint32_t gbnf_rules(struct expr_build *b, const char *text, size_t len)
{
    struct parser p = { .b = b, .text = text, .at = text, .end = text + len };
    uint32_t root;

    if (strmap_init(&p.names, EXPR_RULES_MAX) < 0)
        expr_fail(b, -ENOMEM, "no memory for a grammar");
    skip(&p, true);
    while (!b->err && p.at < p.end)
        rule(&p);
    root = b->err ? 0 : root_of(&p);
    strmap_fini(&p.names);
    return root;
}

int gbnf_compile(const char *text, size_t len, struct grammar **ret, struct why *why)
{
    struct expr_build b;
    uint32_t root;

    if (len > GRAMMAR_TEXT_MAX)
        return why_set(why, -E2BIG, "the grammar has %zu bytes; %u are allowed", len,
                       GRAMMAR_TEXT_MAX);
    if (expr_init(&b, why) == 0) {
        root = gbnf_rules(&b, text, len);
        if (!b.err)
            (void)grammar_compile(&b, root, ret);
    }
    expr_fini(&b);
    return b.err;
}
