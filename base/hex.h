/* base/hex.h - hexadecimal digits.
 *
 * Threads    none; a pure function.
 */
#ifndef BASE_HEX_H
#define BASE_HEX_H

/* What the digit stands for; -1: it is none. */
static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

#endif
