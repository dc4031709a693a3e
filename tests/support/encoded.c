#include "tests/support/encoded.h"

#include <string.h>

int encoded_ids(const struct vocab *v, const char *text, bool parse_special, uint32_t *ret,
                uint32_t max)
{
    struct vocab_encoder *e;
    size_t n = 0, got;
    int r = vocab_encoder_new(v, &e);

    if (r < 0)
        return r;
    vocab_encoder_start(e, text, strlen(text), parse_special);
    do {
        r = vocab_encoder_next(e, ret + n, max - n, &got);
        n += r < 0 ? 0 : got;
    } while (r == 0 && n < max);
    vocab_encoder_free(e);
    return r < 0 ? r : (int)n;
}
