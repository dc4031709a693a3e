/* base/utf8.c - table 3-7 of the Unicode standard, by hand: no overlong forms, no surrogates,
 * nothing past U+10FFFF. */

#include "base/utf8.h"

#include <string.h>

/* How long a character is that begins with `lead`, and which second bytes may follow: the only
 * place where table 3-7 is not simply 80..BF. Returns 0 for a byte that begins none. */
static size_t lead_len(uint8_t lead, uint8_t *ret_lo, uint8_t *ret_hi)
{
    *ret_lo = 0x80;
    *ret_hi = 0xbf;
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2)
        return 0;
    if (lead < 0xe0)
        return 2;
    if (lead < 0xf0) {
        if (lead == 0xe0)
            *ret_lo = 0xa0; /* overlong below */
        if (lead == 0xed)
            *ret_hi = 0x9f; /* surrogates above */
        return 3;
    }
    if (lead > 0xf4)
        return 0;
    if (lead == 0xf0)
        *ret_lo = 0x90; /* overlong below */
    if (lead == 0xf4)
        *ret_hi = 0x8f; /* past U+10FFFF above */
    return 4;
}

/* What is bad has the length of the longest beginning that was good, so that a replacement for each
 * stands where other programs put theirs. */
enum utf8_state utf8_check(const uint8_t *p, size_t n, size_t *ret_len)
{
    uint8_t lo, hi;
    size_t len = lead_len(p[0], &lo, &hi), i;

    if (len == 0) {
        *ret_len = 1;
        return UTF8_BAD;
    }
    for (i = 1; i < len && i < n; i++) {
        if (p[i] < lo || p[i] > hi) {
            *ret_len = i;
            return UTF8_BAD;
        }
        lo = 0x80;
        hi = 0xbf;
    }
    *ret_len = i;
    return i == len ? UTF8_OK : UTF8_CUT;
}

size_t utf8_span(const uint8_t *p, size_t n)
{
    size_t at = 0, len;
    uint64_t word;

    while (at < n) {
        /* Most text is ASCII: eight bytes at a time while no high bit is set. */
        if (n - at >= sizeof(word)) {
            memcpy(&word, p + at, sizeof(word));
            if (!(word & 0x8080808080808080u)) {
                at += sizeof(word);
                continue;
            }
        }
        if (utf8_check(p + at, n - at, &len) != UTF8_OK)
            break;
        at += len;
    }
    return at;
}

/* All bytes of a character but its first begin with 10. */
size_t utf8_whole(const void *p, size_t n, size_t n_all)
{
    const uint8_t *bytes = p;

    while (n > 0 && n < n_all && (bytes[n] & 0xc0) == 0x80)
        n--;
    return n;
}

size_t utf8_put(uint32_t c, uint8_t *ret)
{
    if (c < 0x80) {
        ret[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        ret[0] = (uint8_t)(0xc0 | c >> 6);
        ret[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        ret[0] = (uint8_t)(0xe0 | c >> 12);
        ret[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        ret[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    ret[0] = (uint8_t)(0xf0 | c >> 18);
    ret[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    ret[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    ret[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

/* Of a character that utf8_check has found whole. */
uint32_t utf8_get(const uint8_t *p, size_t len)
{
    static const uint8_t lead_mask[5] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    uint32_t c = p[0] & lead_mask[len];
    size_t i;

    for (i = 1; i < len; i++)
        c = c << 6 | (p[i] & 0x3f);
    return c;
}
