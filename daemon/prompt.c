/* All is found from the end, and no further back than PROMPT_MAX from the last word: texts are
 * long, and this is asked with each long append. */
#include "daemon/prompt.h"

#include "engine/text/vocab.h"

#include <ctype.h>
#include <stdbool.h>

/* "Answer:" on a line of its own is no question. */
#define WORDS_MIN 4u
/* A role's name has so many tokens at most. */
#define ROLE_MAX 16u

static bool is_blank(const struct vocab *v, uint32_t id)
{
    size_t len;
    const uint8_t *bytes = vocab_bytes(v, id, &len);

    for (size_t i = 0; i < len; i++)
        if (!isspace(bytes[i]))
            return false;
    return true;
}

/* A token may have several: "\n\n" is one in most vocabularies. */
static uint32_t n_newlines(const struct vocab *v, uint32_t id)
{
    size_t len;
    const uint8_t *bytes = vocab_bytes(v, id, &len);
    uint32_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += bytes[i] == '\n';
    return n;
}

/* The start of a role's name, which ends at n: right behind a special token, without a newline, in
 * contrast to a message. n: there is none. */
static uint32_t before_role(const struct vocab *v, const uint32_t *ids, uint32_t n)
{
    uint32_t i = n;

    while (i > 0 && n - i < ROLE_MAX && !vocab_is_special(v, ids[i - 1]) &&
           n_newlines(v, ids[i - 1]) == 0)
        i--;
    return i > 0 && vocab_is_special(v, ids[i - 1]) ? i - 1 : n;
}

/* Behind the last word of the last message. One head after the other: behind a message without text
 * there are two. */
static uint32_t end_of_message(const struct vocab *v, const uint32_t *ids, uint32_t n)
{
    uint32_t had;

    do {
        while (n > 0 && (vocab_is_special(v, ids[n - 1]) || is_blank(v, ids[n - 1])))
            n--;
        had = n;
        n = before_role(v, ids, n);
    } while (n < had);
    return n;
}

/* From here back to `least`: the beginning of the message. False: it begins further back. */
static bool find_message(const struct vocab *v, const uint32_t *ids, uint32_t least, uint32_t end,
                         uint32_t *ret)
{
    for (uint32_t i = end; i > least; i--)
        if (vocab_is_special(v, ids[i - 1])) {
            *ret = i;
            return true;
        }
    *ret = 0;
    return least == 0;
}

/* A token that begins a word, not one in its middle. */
static bool begins_word(const struct vocab *v, const uint32_t *ids, uint32_t at)
{
    size_t len;
    const uint8_t *bytes = vocab_bytes(v, ids[at], &len);

    return !is_blank(v, ids[at]) && (isspace(bytes[0]) || at == 0 || is_blank(v, ids[at - 1]));
}

/* Behind the last empty line that words follow. Lines may end within tokens. */
static bool find_paragraph(const struct vocab *v, const uint32_t *ids, uint32_t least, uint32_t end,
                           uint32_t *ret)
{
    uint32_t n_words = 0, newlines = 0, behind = end;

    for (uint32_t i = end; i > least; i--) {
        uint32_t n = n_newlines(v, ids[i - 1]);

        if (newlines == 0)
            behind = i;
        newlines += n;
        if (newlines >= 2 && n_words >= WORDS_MIN) {
            *ret = behind;
            return true;
        }
        if (!is_blank(v, ids[i - 1]))
            newlines = 0;
        n_words += begins_word(v, ids, i - 1);
    }
    return false;
}

/* A message that is whole; else a paragraph; else a number of tokens. Each counts up to n, so that
 * what stands behind the question is read with it. */
uint32_t prompt_len(const struct vocab *v, const uint32_t *ids, uint32_t n)
{
    uint32_t end = end_of_message(v, ids, n), least = end > PROMPT_MAX ? end - PROMPT_MAX : 0, at;

    if (end == 0) /* nothing but a template's */
        return n < PROMPT_DEFAULT ? n : PROMPT_DEFAULT;
    if (find_message(v, ids, least, end, &at) || find_paragraph(v, ids, least, end, &at))
        return n - at;
    return n - (end > PROMPT_DEFAULT ? end - PROMPT_DEFAULT : 0);
}
