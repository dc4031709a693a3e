/* engine/text/detok.h - token ids to text as they come, never half a UTF-8 character.
 *
 * A token may end in the middle of a character. Its bytes are held back until the character is
 * complete; what can no longer become valid UTF-8 is given out as U+FFFD (one for each maximal
 * ill-formed part, as the Unicode standard recommends in 3.9), so that the output is always UTF-8.
 *
 * Threads    none; a plain struct, 8 bytes of state.
 */
#ifndef ENGINE_TEXT_DETOK_H
#define ENGINE_TEXT_DETOK_H

#include <stddef.h>
#include <stdint.h>

struct detok {
    uint8_t held[4];
    uint8_t n_held;
};

/* Bytes that detok_push can write for n bytes of input. */
#define DETOK_OUT_MAX(n) (3 * ((size_t)(n) + 4))

/* Takes a token's bytes, writes what is complete. Returns the bytes written. */
size_t detok_push(struct detok *d, const uint8_t *bytes, size_t n, char *ret);

/* The end of the text: what is held becomes U+FFFD. */
size_t detok_end(struct detok *d, char *ret);

#endif
