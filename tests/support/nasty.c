#include "tests/support/nasty.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const bits[] = {
    " the",
    "The",
    " wor",
    "x",
    "in",
    "ER",
    "7",
    " 2026",
    "'s",
    "'LL",
    " 're",
    "'",
    ").",
    "<|im",
    "\n",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\nA",
    "\n\nThe",
    "\r\nin",
    "\n1",
    "\n ",
    " \n",
    ".\n",
    "--\r\n",
    " ",
    "    ",
    "\t",
    "\t\t\n",
    "\xe6\xbc\xa2\xe5\xad\x97", /* CJK */
    "\xc3\xa9",
    "e\xcc\x81",        /* an accent, and one of its own */
    "\xf0\x9f\xa6\x9c", /* emoji, then two of them joined */
    "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac",
    "\xc2\x85",
    "\xc2\xa0",
    "\xe2\x80\xa8",
    "\xe3\x80\x80", /* spaces */
    "\xc2\xbd",
    "\xd9\xa3", /* numbers: a half, an Arabic three */
};
#define N_BITS  (sizeof(bits) / sizeof(bits[0]))
#define BIT_MAX 16u

char *nasty_text(size_t len, uint64_t seed)
{
    char *text = malloc(len + BIT_MAX);
    size_t n = 0;

    assert(text);
    while (n < len) {
        const char *bit;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        bit = bits[(seed >> 33) % N_BITS];
        assert(strlen(bit) < BIT_MAX);
        strcpy(text + n, bit);
        n += strlen(bit);
    }
    return text;
}
