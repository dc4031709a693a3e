#include "tests/support/built_vocab.h"

#include <assert.h>
#include <stdlib.h>

int built_vocab_open(struct gguf_build *b, struct vocab **ret, struct why *why)
{
    struct gguf *g;
    size_t len;
    void *bytes = gguf_build_bytes(b, &len, NULL);
    int r = gguf_open_mem(bytes, len, "test.gguf", &g, NULL);

    assert(r == 0);
    r = vocab_open(g, ret, why);
    gguf_close(g);
    free(bytes);
    return r;
}

struct vocab *built_vocab_tiny(void)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&shape);
    struct vocab *v;
    int r = built_vocab_open(b, &v, NULL);

    assert(r == 0);
    gguf_build_free(b);
    return v;
}
