/* engine/text/pattern.h - regular expressions over the text of a JSON string.
 *
 * Of ECMAScript's, which JSON Schema names: characters, . and classes, \d \w \s and their
 * opposites, \n \r \t \f \v \0 \xHH \uHHHH, groups, | and * + ? {n} {n,} {n,m}, lazy ones as their
 * plain selves; ^ at the beginning and $ at the end of an alternative of the whole. What has no
 * such anchor may have any text before or behind it. \d, \w and \s and their opposites are of
 * ASCII, on which all dialects agree; [^\s] is without what any dialect has for a space, and a
 * class like [^\d] of ASCII too.
 *
 * Threads    none.
 * Errors     of expr.h; what is not understood is refused: -ENOTSUP, with a sentence that begins
 *            with `where`.
 */
#ifndef ENGINE_TEXT_PATTERN_H
#define ENGINE_TEXT_PATTERN_H

#include "engine/text/jsontext.h"

/* The texts, as they stand between the quotes. pattern: UTF-8. */
uint32_t pattern_expr(struct jsontext *j, const char *pattern, const char *where);

#endif
