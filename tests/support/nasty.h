/* tests/support/nasty.h - random text of what pre-tokenizers join and part by: line ends of all
 * sorts, runs of spaces, digits, contractions, CJK, emoji, and the beginning of a special token's
 * name.
 *
 * Ownership  the text is the caller's: free() it.
 * Errors     a test's helper: what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_NASTY_H
#define TESTS_SUPPORT_NASTY_H

#include <stddef.h>
#include <stdint.h>

/* len bytes or a few more, whole characters of UTF-8 and none of them NUL; a NUL behind. */
char *nasty_text(size_t len, uint64_t seed);

#endif
