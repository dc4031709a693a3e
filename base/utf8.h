/* base/utf8.h - whether bytes are a well-formed UTF-8 character.
 *
 * Source: table 3-7 of the Unicode standard, which leaves out overlong forms, surrogates and what
 * lies above U+10FFFF.
 *
 * Threads    none; pure functions.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum utf8_state {
    UTF8_OK,  /* a character of *ret_len bytes */
    UTF8_CUT, /* all n bytes are the beginning of a character; *ret_len is n */
    UTF8_BAD  /* a maximal ill-formed part (3.9 of the standard) of *ret_len bytes */
};

/* Looks at the first character of p[0..n), n > 0. */
enum utf8_state utf8_check(const uint8_t *p, size_t n, size_t *ret_len);

/* The length of the longest prefix of p[0..n) that is whole, well-formed characters. */
size_t utf8_span(const uint8_t *p, size_t n);

/* n, or as much less as it takes for p[0..n) of n_all well-formed bytes to cut no character. */
size_t utf8_whole(const void *p, size_t n, size_t n_all);

/* Writes code point c (below 0x110000, no surrogate), returns the bytes written, at most 4. */
size_t utf8_put(uint32_t c, uint8_t *ret);

/* The code point of the well-formed character at p, which is len bytes long. */
uint32_t utf8_get(const uint8_t *p, size_t len);

#endif
