#include "engine/text/detok.h"

#include "base/utf8.h"

#include <string.h>

/* U+FFFD. */
static size_t put_replacement(char *ret)
{
    memcpy(ret, "\xef\xbf\xbd", 3);
    return 3;
}

/* One byte behind held ones. What is held is always the beginning of a character (UTF8_CUT), so
 * that a byte either goes on with it, ends it, or shows that it was none. At most one step deeper:
 * with nothing held a byte is kept, given out or replaced. */
static size_t push_byte(struct detok *d, uint8_t byte, char *ret)
{
    size_t out = 0, len;

    d->held[d->n_held] = byte;
    switch (utf8_check(d->held, d->n_held + 1u, &len)) {
    case UTF8_OK:
        memcpy(ret, d->held, len);
        d->n_held = 0;
        return len;
    case UTF8_CUT:
        d->n_held++;
        return 0;
    case UTF8_BAD:
        break;
    }
    out = put_replacement(ret);
    if (d->n_held == 0)
        return out; /* the byte itself begins nothing */
    d->n_held = 0;
    return out + push_byte(d, byte, ret + out);
}

/* Whole characters are copied in one go; only the bytes around a cut one go through push_byte. */
size_t detok_push(struct detok *d, const uint8_t *bytes, size_t n, char *ret)
{
    size_t at = 0, out = 0, span;

    while (at < n) {
        if (d->n_held == 0) {
            span = utf8_span(bytes + at, n - at);
            memcpy(ret + out, bytes + at, span);
            at += span;
            out += span;
            if (at == n)
                break;
        }
        out += push_byte(d, bytes[at++], ret + out);
    }
    return out;
}

/* What is held is one ill-formed part, however many bytes it has. */
size_t detok_end(struct detok *d, char *ret)
{
    if (d->n_held == 0)
        return 0;
    d->n_held = 0;
    return put_replacement(ret);
}
