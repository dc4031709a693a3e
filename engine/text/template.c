/* One pass over the source. The output is never longer than what was read, so it is written into
 * one buffer of the source's length; marks are bytes that no template has. */
#include "engine/text/template.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUOTE '\1'

struct reader {
    const char *at, *end;
    char *out; /* the canonical form so far, never longer than what was read */
    size_t n;
};

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_name(char c)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* The source need not end with a NUL, so nothing is compared past its end. */
static bool ahead(const struct reader *r, const char *what)
{
    size_t len = strlen(what);

    return (size_t)(r->end - r->at) >= len && memcmp(r->at, what, len) == 0;
}

static void put(struct reader *r, char c)
{
    r->out[r->n++] = c;
}

/* Other signs behind a backslash stand for themselves. */
static char unescape(char c)
{
    switch (c) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    default:
        return c;
    }
}

/* x['name'] with the closing bracket still ahead becomes x.name; its quote stands at start. Only
 * for what is a name, or it would read as something else. */
static void name_instead_of_index(struct reader *r, size_t start)
{
    size_t i;

    if (start == 0 || r->out[start - 1] != '[' || r->n - start < 3)
        return;
    for (i = start + 1; i + 1 < r->n; i++)
        if (!is_name(r->out[i]))
            return;
    while (r->at < r->end && is_space(*r->at))
        r->at++;
    if (!ahead(r, "]"))
        return;
    r->at++;
    r->out[start - 1] = '.';
    memmove(r->out + start, r->out + start + 1, r->n - start - 2);
    r->n -= 2;
}

/* A string literal, from its opening quote on. A literal behind + and another literal goes on in
 * that one: the + and the closing quote before it are taken back. */
static int read_literal(struct reader *r)
{
    char quote = *r->at++;
    bool joined = r->n >= 2 && r->out[r->n - 1] == '+' && r->out[r->n - 2] == QUOTE;
    size_t start = r->n;

    if (joined)
        r->n -= 2;
    else
        put(r, QUOTE);
    for (; r->at < r->end && *r->at != quote; r->at++) {
        if (*r->at == '\\' && r->at + 1 < r->end)
            put(r, unescape(*++r->at));
        else
            put(r, *r->at);
    }
    if (r->at == r->end)
        return -ENOTSUP;
    r->at++;
    put(r, QUOTE);
    if (!joined)
        name_instead_of_index(r, start);
    return 0;
}

/* The inside of {{ }} or {% %}, whose opening was read, to its end. The sign before the end is in
 * the output by then, and is taken back. There is always a byte before out[n]: the opening mark at
 * least. */
static int read_tag(struct reader *r, const char *close, char close_mark)
{
    int e;

    if (ahead(r, "-") || ahead(r, "+"))
        r->at++;
    while (r->at < r->end) {
        if (ahead(r, close)) {
            if (r->out[r->n - 1] == '-' || r->out[r->n - 1] == '+')
                r->n--;
            r->at += 2;
            put(r, close_mark);
            return 0;
        }
        if (*r->at == '\'' || *r->at == '"') {
            e = read_literal(r);
            if (e < 0)
                return e;
        } else if (is_space(*r->at)) {
            r->at++;
        } else {
            put(r, *r->at++);
        }
    }
    return -ENOTSUP;
}

static int read_comment(struct reader *r)
{
    const char *end = memmem(r->at, (size_t)(r->end - r->at), "#}", 2);

    if (!end)
        return -ENOTSUP;
    r->at = end + 2;
    return 0;
}

/* Blanks outside of tags are dropped: Jinja may keep them or not, by settings that the source does
 * not say. Templates that matter put every text into a literal. */
static int read_template(struct reader *r)
{
    int e = 0;

    while (r->at < r->end && e == 0) {
        if (ahead(r, "{{")) {
            r->at += 2;
            put(r, '\2');
            e = read_tag(r, "}}", '\3');
        } else if (ahead(r, "{%")) {
            r->at += 2;
            put(r, '\4');
            e = read_tag(r, "%}", '\5');
        } else if (ahead(r, "{#")) {
            r->at += 2;
            e = read_comment(r);
        } else if (is_space(*r->at)) {
            r->at++;
        } else {
            e = -ENOTSUP;
        }
    }
    return e;
}

/* Whether the source has bytes that would look like our own marks. Bytes of 0x80 and above are no
 * marks, whatever the sign of char. A literal that holds marks could look like an expression which
 * the template does not have. */
static bool has_marks(const char *source, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++)
        if (source[i] >= 0 && source[i] < '\t')
            return true;
    return false;
}

int template_canonical(const char *source, size_t len, char **ret)
{
    struct reader r = { .at = source, .end = source + len, .out = malloc(len + 1) };
    int e;

    if (!r.out)
        return -ENOMEM;
    e = has_marks(source, len) ? -ENOTSUP : read_template(&r);
    if (e < 0) {
        free(r.out);
        return e;
    }
    r.out[r.n] = '\0';
    *ret = r.out;
    return 0;
}
