/* Fuzzes encoding: any bytes have ids that decode to the very bytes (for qwen2 to the normal form
 * of what is UTF-8 among them, as utf8proc makes it in one go), and the same ids in slices of one
 * as in slices of 4096; the decoded text comes out of the detokenizer as UTF-8 however it is cut.
 * The first byte of an input picks the pre-tokenizer and whether special tokens are looked for. Run
 * by tests/run-fuzz. */
#include "base/utf8.h"
#include "engine/text/detok.h"
#include "engine/text/normal.h"
#include "engine/text/vocab.h"
#include "tests/support/built_vocab.h"
#include "tests/support/fuzz_seeds.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct vocab *vocabs[3];
static struct vocab_encoder *encoders[3];

static void open_vocab(size_t i, const char *pre)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&shape);
    struct why why = { "" };

    gguf_build_str(b, "tokenizer.ggml.pre", pre);
    if (built_vocab_open(b, &vocabs[i], &why) < 0 ||
        vocab_encoder_new(vocabs[i], &encoders[i]) < 0) {
        fprintf(stderr, "%s\n", why.text);
        abort();
    }
    gguf_build_free(b);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const seeds[] = {
        "\x00the wor in 123  x\n\n y's",
        "\x01<|im_start|>user\nhe'LL <|im_end|>\r\n",
        "\x02\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9 \xe3\x80\x80\xed\xa0\x80\xff\xc3",
    };
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    open_vocab(0, "smollm");
    open_vocab(1, "llama-bpe");
    open_vocab(2, "qwen2");
    for (size_t i = 0; dir && i < 3; i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "text%zu", i);
        fuzz_seeds_put(dir, name, seeds[i], strlen(seeds[i] + 1) + 1);
    }
    return 0;
}

static size_t encode(struct vocab_encoder *e, const uint8_t *text, size_t len, bool special,
                     size_t slice, uint32_t *ids)
{
    size_t n = 0, got;
    int ended;

    vocab_encoder_start(e, text, len, special);
    do {
        ended = vocab_encoder_next(e, ids + n, slice, &got);
        assert(ended >= 0);
        n += got;
        assert(n <= VOCAB_IDS_MAX(len));
    } while (!ended);
    assert(vocab_encoder_lost(e) == 0);
    return n;
}

static void check_decoding(const struct vocab *v, const uint32_t *ids, size_t n,
                           const uint8_t *text, size_t len)
{
    struct detok d = { .n_held = 0 };
    char *out = malloc(DETOK_OUT_MAX(len));
    size_t at = 0, n_out = 0, n_bytes;

    assert(out);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *bytes = vocab_bytes(v, ids[i], &n_bytes);

        assert(n_bytes <= len - at && memcmp(bytes, text + at, n_bytes) == 0);
        at += n_bytes;
        n_out += detok_push(&d, bytes, n_bytes, out + n_out);
        assert(n_out <= DETOK_OUT_MAX(len));
        assert(utf8_span((uint8_t *)out, n_out) == n_out);
    }
    assert(at == len);
    n_out += detok_end(&d, out + n_out);
    assert(utf8_span((uint8_t *)out, n_out) == n_out);
    assert(utf8_span(text, len) < len || (n_out == len && memcmp(out, text, len) == 0));
    free(out);
}

/* The bytes at the start that stay as they are: one that is no UTF-8, or a mark that is younger
 * than the published tokenizers' tables (engine/text/normal.h). */
static size_t left_alone(const uint8_t *text, size_t len)
{
    size_t n = 0;

    if (utf8_check(text, len, &n) != UTF8_OK)
        return 1;
    return normal_is_younger(utf8_get(text, n)) ? n : 0;
}

/* The text with each stretch of UTF-8 between such in NFC; free() it. */
static uint8_t *normalise(const uint8_t *text, size_t len, size_t *ret_len)
{
    uint8_t *out = malloc(VOCAB_IDS_MAX(len) + 1), *form;
    size_t n = 0, at = 0;

    assert(out);
    while (at < len) {
        size_t span = left_alone(text + at, len - at), n_bytes;

        if (span) {
            memcpy(out + n, text + at, span);
            n += span;
            at += span;
            continue;
        }
        for (span = 0; at + span < len && left_alone(text + at + span, len - at - span) == 0;
             span += n_bytes)
            (void)utf8_check(text + at + span, len - at - span, &n_bytes);
        ssize_t form_len = utf8proc_map(text + at, (utf8proc_ssize_t)span, &form,
                                        UTF8PROC_STABLE | UTF8PROC_COMPOSE);

        assert(form_len >= 0);
        memcpy(out + n, form, (size_t)form_len);
        free(form);
        n += (size_t)form_len;
        at += span;
    }
    *ret_len = n;
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint32_t *ids, *ids1;
    size_t which, n, n1;
    uint8_t *text;
    bool special;

    if (len == 0)
        return 0;
    which = data[0] % 3u;
    special = data[0] / 3 % 2;
    len--;
    text = malloc(len ? len : 1); /* of exactly its size, for AddressSanitizer */
    ids = malloc((VOCAB_IDS_MAX(len) + 4096) * sizeof(*ids));
    ids1 = malloc((VOCAB_IDS_MAX(len) + 1) * sizeof(*ids1));
    assert(text && ids && ids1);
    memcpy(text, data + 1, len);
    n = encode(encoders[which], text, len, special, 4096, ids);
    n1 = encode(encoders[which], text, len, special, 1, ids1);
    assert(n == n1 && memcmp(ids, ids1, n * sizeof(*ids)) == 0);
    if (!vocab_is_nfc(vocabs[which])) {
        check_decoding(vocabs[which], ids, n, text, len);
    } else if (!special) { /* special tokens part the stretches, too */
        uint8_t *form = normalise(text, len, &n1);

        check_decoding(vocabs[which], ids, n, form, n1);
        free(form);
    }
    free(text);
    free(ids);
    free(ids1);
    return 0;
}
