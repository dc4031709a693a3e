/* base/json_check.h - whether a text is JSON, as RFC 8259 has it: one value, nothing else, in
 * UTF-8.
 *
 * json-c, which parses it then, takes more, strict or not: `1.`, `-.5`, `-01`, NaN, names in
 * apostrophes. A number keeps its text there, and would be written as it stands into what is to be
 * JSON. What a parser would lose, a text behind its NUL, the digits of a long number, is valid and
 * counted: it is the caller's to refuse.
 *
 * Threads    pure.
 */
#ifndef BASE_JSON_CHECK_H
#define BASE_JSON_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#define JSON_CHECK_DEPTH 512u /* of arrays and objects in each other, at most */

enum json_check_flags {
    JSON_CHECK_CONTROLS = 1 /* control characters stand in texts as they are: models write them */
};

struct json_checked {
    size_t at;       /* the byte that it is not JSON at; len: it ends too early */
    size_t n_values; /* arrays and objects twice, since they take more; names not at all */
    unsigned digits; /* the most that follow each other in a number */
    bool nul;        /* a text or a name has a \u0000 */
};

/* NULL: it is JSON. Else what is wrong at ret->at, as the end of a sentence. */
const char *json_check(const char *text, size_t len, unsigned flags, struct json_checked *ret);

#endif
