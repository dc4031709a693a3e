/* engine/text/normal.h - text to its normal form NFC, in parts: the one door to utf8proc.
 *
 * Some published tokenizers (Qwen2's) bring text to NFC before they cut it: an accent of its own
 * joins its letter, and signs that mean the same become one.
 *
 * A text may be megabytes and come out in another length, so it is taken in parts. They are made
 * at characters before which nothing ever changes: whatever stands to the left, NFC of the whole is
 * NFC of both sides. Where the parts are does not show in the result.
 *
 * Growth    a byte becomes 3 at most (NFC's own bound, by U+1D160 and its like).
 * Unicode   the tables are utf8proc's (Unicode 15 in 2.8), but for marks that the published
 *           tokenizers do not know yet (normal_is_younger): ids are to be those that a model was
 *           trained with. The form of characters that are assigned never changes.
 * Limit     a run of NORMAL_RUN_MAX bytes without such a character (a letter with thousands of
 *           accents) is cut there: sorting it as a whole would be a way to hold up the others.
 *
 * Threads    a struct normal belongs to one thread at a time.
 * Errors     -ENOMEM.
 */
#ifndef ENGINE_TEXT_NORMAL_H
#define ENGINE_TEXT_NORMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NORMAL_RUN_MAX 4096u
#define NORMAL_MAX(n)  (3 * (size_t)(n)) /* bytes that n bytes can become */

/* Working memory, made when a text first needs it. All zeros is an empty one. */
struct normal {
    int32_t *points; /* (cap) code points of a run, decomposed; then as many to sort them */
    size_t cap;
};

void normal_fini(struct normal *n);

/* A mark that is left where it stands, although today's NFC sorts it, or joins it to a letter. */
bool normal_is_younger(uint32_t c);

/* Takes text[0..len), which is well-formed UTF-8, as far as it can: all of it with end, else up to
 * a character before which nothing changes (all of that is one run: *ret_read is 0, until len is
 * NORMAL_RUN_MAX + 4). ret has room for NORMAL_MAX(len) bytes. */
int normal_put(struct normal *n, const uint8_t *text, size_t len, bool end, uint8_t *ret,
               size_t *ret_read, size_t *ret_written);

#endif
