/* eval/words.h - lists of words in an option's text, with spaces or commas between them.
 *
 * Threads    pure functions.
 */
#ifndef EVAL_WORDS_H
#define EVAL_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* The next word of *at, which moves behind it: its length. 0: there is none. */
static inline size_t words_next(const char **at, const char **ret)
{
    *ret = *at + strspn(*at, " ,");
    *at = *ret + strcspn(*ret, " ,");
    return (size_t)(*at - *ret);
}

static inline bool words_same(const char *word, size_t len, const char *name)
{
    return strlen(name) == len && memcmp(name, word, len) == 0;
}

#endif
