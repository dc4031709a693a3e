/* base/shown.h - text that someone else chose, made fit for a terminal or a log.
 *
 * A model's name, a client's label, a file's metadata or an answer may hold escape sequences, which
 * a terminal obeys, or a line break, which forges a line of a log. What must not get through
 * comes out as U+FFFD, a mark for each character:
 *
 *     control characters, C0 and C1 (U+0080 to U+009F), and DEL
 *     bytes that are not UTF-8: 0x9b alone is a control sequence to some terminals
 *     in a line besides: newline and tab, line and paragraph separators, and what turns the
 *     direction of writing (U+202A to U+202E, U+2066 to U+2069), which would reorder the rest
 *
 * Every program's sentences and names go through here; JSON escapes by its own rules.
 *
 * Threads    none; pure functions but for the stream.
 */
#ifndef BASE_SHOWN_H
#define BASE_SHOWN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

enum shown_kind {
    SHOWN_LINE, /* part of a line, or all of it */
    SHOWN_TEXT  /* an answer: newlines and tabs are its own */
};

/* Bytes that n bytes can become. */
#define SHOWN_MAX(n) (3 * (size_t)(n))

/* Writes what fits into cap bytes, whole characters and no NUL; returns how many bytes. ret does
 * not overlap text. */
size_t shown_put(enum shown_kind kind, const char *text, size_t len, char *ret, size_t cap);

void shown_write(FILE *out, enum shown_kind kind, const char *text, size_t len);

/* A formatted line, shown as a whole, and a newline behind it: one write where the stream has no
 * buffer. */
__attribute__((format(printf, 2, 3))) void shown_line(FILE *out, const char *fmt, ...);
void shown_vline(FILE *out, const char *fmt, va_list ap);

#endif
