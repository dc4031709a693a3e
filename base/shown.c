/* base/shown.c - what others wrote, for a terminal or a log. Whatever is no character, or could
 * move a cursor, change colours or turn the order of a line around, becomes U+FFFD, one for each
 * run that utf8_check calls bad. */

#include "base/shown.h"

#include "base/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xef\xbf\xbd";
#define REPLACEMENT_LEN (sizeof(replacement) - 1)

/* C0 and C1 controls pass nowhere but for a text's line ends and tabs. In a line also those of
 * Unicode do not, which end it (2028, 2029) or turn its direction (202a to 202e, 2066 to 2069): the
 * rest of a log's line is ours. */
static bool may_pass(enum shown_kind kind, uint32_t c)
{
    if (c < 0x20)
        return kind == SHOWN_TEXT && (c == '\n' || c == '\t');
    if (c < 0x7f)
        return true;
    if (c < 0xa0)
        return false;
    return kind == SHOWN_TEXT || !((c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069));
}

/* The bytes of the first character, or of what is none, and whether they may pass. */
static bool look(enum shown_kind kind, const uint8_t *p, size_t n, size_t *ret_len)
{
    return utf8_check(p, n, ret_len) == UTF8_OK && may_pass(kind, utf8_get(p, *ret_len));
}

size_t shown_put(enum shown_kind kind, const char *text, size_t len, char *ret, size_t cap)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n = 0, at = 0, from;

    for (; at < len; at += from) {
        bool pass = look(kind, p + at, len - at, &from);
        size_t out = pass ? from : REPLACEMENT_LEN;

        /* Whole characters alone: cut in the middle the last one would be no UTF-8. */
        if (out > cap - n)
            break;
        memcpy(ret + n, pass ? text + at : replacement, out);
        n += out;
    }
    return n;
}

void shown_write(FILE *out, enum shown_kind kind, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t at = 0, from = 0, n;

    /* What may pass is written in runs. */
    for (; at < len; at += n) {
        if (look(kind, p + at, len - at, &n))
            continue;
        (void)fwrite(text + from, 1, at - from, out);
        (void)fwrite(replacement, 1, REPLACEMENT_LEN, out);
        from = at + n;
    }
    (void)fwrite(text + from, 1, len - from, out);
}

void shown_vline(FILE *out, const char *fmt, va_list ap)
{
    char *line = NULL, *clean = NULL;
    int n = vasprintf(&line, fmt, ap);

    if (n >= 0)
        clean = malloc(SHOWN_MAX(n) + 1);
    if (clean) {
        size_t len = shown_put(SHOWN_LINE, line, (size_t)n, clean, SHOWN_MAX(n));

        clean[len++] = '\n';
        (void)fwrite(clean, 1, len, out);
    } else {
        (void)fputs("out of memory\n", out);
    }
    free(clean);
    if (n >= 0)
        free(line);
}

void shown_line(FILE *out, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    shown_vline(out, fmt, ap);
    va_end(ap);
}
