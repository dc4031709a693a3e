/* engine/text/jsontext.h - pieces of JSON text as expressions of a grammar.
 *
 * Numbers have at most JSONTEXT_DIGITS digits before the point, strings no \u escapes of halves of
 * a character, and space between parts is a blank or one line break with an indentation, if any:
 * enough for every value, and nothing that a model could write without end but strings and lists.
 *
 * Threads    none.
 */
#ifndef ENGINE_TEXT_JSONTEXT_H
#define ENGINE_TEXT_JSONTEXT_H

#include "engine/text/expr.h"

#define JSONTEXT_DIGITS  15
#define JSONTEXT_INT_MAX 999999999999999ll

struct jsontext {
    struct expr_build *b;
    uint32_t ws, string, value, object, array, chunk, last; /* rules; 0: not made yet */
};

/* Once, before the first rule of one's own: 0 is no rule of these. */
void jsontext_init(struct jsontext *j, struct expr_build *b);

uint32_t jsontext_ws(struct jsontext *j);
uint32_t jsontext_quoted(struct jsontext *j, uint32_t e);
uint32_t jsontext_string(struct jsontext *j); /* any, with its quotes */
/* One of min to max characters (EXPR_NO_MAX: any number). Where that is many they are counted in
 * chunks that all strings share, so that they are no state each. */
uint32_t jsontext_counted(struct jsontext *j, uint32_t min, uint32_t max);
uint32_t jsontext_value(struct jsontext *j);
uint32_t jsontext_object(struct jsontext *j);
uint32_t jsontext_array(struct jsontext *j);

/* A character of n ranges inside of a string, escaped where it must be. */
uint32_t jsontext_char(struct jsontext *j, const struct expr_range *r, size_t n);
uint32_t jsontext_char_any(struct jsontext *j);

/* Whole numbers, and any numbers, lo <= x <= hi, at most JSONTEXT_INT_MAX either way. above, below:
 * lo and hi themselves are left out. EXPR_NEVER: there is none. */
uint32_t jsontext_integer(struct jsontext *j, long long lo, long long hi);
uint32_t jsontext_number(struct jsontext *j, long long lo, bool above, long long hi, bool below);

/* A string, with its quotes, that is none of the n names. */
uint32_t jsontext_other_key(struct jsontext *j, const char *const *names, size_t n);

#endif
