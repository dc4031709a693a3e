/* tests/test_vocab.c - would catch: ids that differ from the recorded ones of Hugging Face
 * tokenizers, ids that depend on slices or on where a look-ahead ends, lost bytes, a slice that
 * takes in megabytes, a document's text that becomes a special token, and a file's lies about its
 * tokens that are believed.
 */
#include "engine/text/bpe.h"
#include "engine/text/vocab.h"
#include "tests/support/built_vocab.h"
#include "tests/support/file.h"
#include "tests/support/nasty.h"

#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- helpers ---------------------------------------------------------------------------------- */

static struct gguf_build *tiny(void)
{
    struct gguf_build_shape shape = gguf_build_tiny();

    return gguf_build_model(&shape);
}

static struct vocab *open_path(const char *path)
{
    struct vocab *v;
    struct gguf *g;

    assert_int_equal(gguf_open(path, &g, NULL), 0);
    assert_int_equal(vocab_open(g, &v, NULL), 0);
    gguf_close(g);
    return v;
}

/* The ids of a text in slices; free() them. */
static uint32_t *encode(const struct vocab *v, const void *text, size_t len, bool special,
                        size_t slice, size_t *ret_n, size_t *ret_lost)
{
    const size_t cap = VOCAB_IDS_MAX(len) + 1;
    uint32_t *ids = malloc(cap * sizeof(*ids));
    struct vocab_encoder *e;
    size_t n = 0, got;
    int ended;

    assert_non_null(ids);
    assert_int_equal(vocab_encoder_new(v, &e), 0);
    vocab_encoder_start(e, text, len, special);
    do {
        size_t room = cap - n;

        ended = vocab_encoder_next(e, ids + n, slice < room ? slice : room, &got);
        assert_true(ended >= 0);
        n += got;
    } while (!ended);
    if (ret_lost)
        *ret_lost = vocab_encoder_lost(e);
    vocab_encoder_free(e);
    *ret_n = n;
    return ids;
}

static void check_decodes(const struct vocab *v, const uint32_t *ids, size_t n, const uint8_t *text,
                          size_t len)
{
    size_t at = 0, n_bytes;

    for (size_t i = 0; i < n; i++) {
        const uint8_t *bytes = vocab_bytes(v, ids[i], &n_bytes);

        assert_true(n_bytes <= len - at);
        assert_memory_equal(bytes, text + at, n_bytes);
        at += n_bytes;
    }
    assert_int_equal(at, len);
}

static void expect_ids(const struct vocab *v, const char *text, bool special, const uint32_t *ids,
                       size_t n)
{
    size_t n_ours;
    uint32_t *ours = encode(v, text, strlen(text), special, 4096, &n_ours, NULL);

    assert_int_equal(n_ours, n);
    assert_memory_equal(ours, ids, n * sizeof(*ids));
    free(ours);
}
#define EXPECT(v, text, special, ...)                                                              \
    expect_ids(v, text, special, (const uint32_t[]){ __VA_ARGS__ },                                \
               sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

/* The tiny vocabulary's id of a byte, and of its i-th merge. */
#define B(c) (GGUF_BUILD_BYTE_0 + (c))
#define M(i) (GGUF_BUILD_BYTE_0 + 256u + (i))

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* --- encoding --------------------------------------------------------------------------------- */

/* tests/reference/tokenizer_vectors.py recorded them. */
static void as_recorded(void **state)
{
    static const char *const names[] = { "smollm", "llama-bpe", "qwen2" };
    static const size_t slices[] = { 4096, 7, 1 };
    size_t len, n_file, n;
    uint8_t *text = file_read("tests/data/tokenizer/text", &len), *file;
    char path[64];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct vocab *v;

        (void)snprintf(path, sizeof(path), "tests/data/tokenizer/%s.gguf", names[i]);
        v = open_path(path);
        (void)snprintf(path, sizeof(path), "tests/data/tokenizer/%s.ids", names[i]);
        file = file_read(path, &n_file);
        for (size_t j = 0; j < 3; j++) {
            uint32_t *ids = encode(v, text, len, false, slices[j], &n, NULL);

            assert_int_equal(2 * n, n_file);
            for (size_t k = 0; k < n; k++)
                if (ids[k] != (file[2 * k] | (uint32_t)file[2 * k + 1] << 8))
                    fail_msg("%s: id %zu is %u", path, k, ids[k]);
            if (!vocab_is_nfc(v))
                check_decodes(v, ids, n, text, len);
            free(ids);
        }
        free(file);
        vocab_close(v);
    }
    free(text);
}

static void by_hand(void **state)
{
    struct vocab *v = built_vocab_tiny();
    size_t n;

    (void)state;
    free(encode(v, NULL, 0, true, 16, &n, NULL));
    assert_int_equal(n, 0);
    EXPECT(v, "the", false, B('t'), M(0));
    EXPECT(v, " the in", false, M(8), B(' '), M(1));
    EXPECT(v, " wor", false, M(11));
    EXPECT(v, "12", false, B('1'), B('2'));
    EXPECT(v, "\xff\xc3\xa9\x80he", false, B(0xff), B(0xc3), B(0xa9), B(0x80), M(0));
    vocab_close(v);
}

static void random_bytes(void **state)
{
    static const char alphabet[] =
        "the in er on an wor\n 1'<|>\xc3\xa9\xf0\x9f\xa6\x99\xe2\x80\x8d";
    struct vocab *v = built_vocab_tiny();
    uint64_t seed = 9;
    uint8_t text[300];

    (void)state;
    for (int round = 0; round < 400; round++) {
        size_t len = next_random(&seed) % sizeof(text), n, n1;
        uint32_t *ids, *ids1;

        for (size_t i = 0; i < len; i++)
            text[i] = round % 2 ? (uint8_t)next_random(&seed)
                                : (uint8_t)alphabet[next_random(&seed) % (sizeof(alphabet) - 1)];
        ids = encode(v, text, len, round % 3 == 0, 4096, &n, NULL);
        ids1 = encode(v, text, len, round % 3 == 0, 1, &n1, NULL);
        assert_int_equal(n, n1);
        assert_memory_equal(ids, ids1, n * sizeof(*ids));
        check_decodes(v, ids, n, text, len);
        free(ids);
        free(ids1);
    }
    vocab_close(v);
}

/* A text longer than a look-ahead has the ids of its lines, wherever a look-ahead ends: lines of
 * all lengths up to a few look-aheads, cut where pre-tokens part. */
static void long_texts(void **state)
{
    static const char words[] = "the wor in on an  er re, (x) 42\t\xc3\xa9\xe4\xb8\xad";
    static const size_t lengths[] = { 3, 90, 70000, 1, 65530, 65536, 5, 200000, 131072, 40 };
    const size_t n_lines = sizeof(lengths) / sizeof(*lengths), size = 600000;
    struct vocab *v = built_vocab_tiny();
    uint8_t *text = malloc(size);
    size_t len = 0, n, n_line, at = 0, from = 0;
    uint32_t *ids, *line;

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < n_lines; i++) {
        text[len++] = 'T';
        for (size_t j = 0; j < lengths[i]; j++)
            text[len++] = (uint8_t)words[j % (sizeof(words) - 1)];
        memcpy(text + len, ".\n", 2);
        len += 2;
    }
    assert_true(len < size);
    for (int special = 0; special < 2; special++) {
        ids = encode(v, text, len, special, 1000, &n, NULL);
        check_decodes(v, ids, n, text, len);
        for (size_t i = 0, pos = 0; i < n_lines; i++) {
            from = pos;
            pos += lengths[i] + 3;
            line = encode(v, text + from, pos - from, special, 1000, &n_line, NULL);
            assert_true(n_line <= n - at);
            assert_memory_equal(line, ids + at, n_line * sizeof(*ids));
            at += n_line;
            free(line);
        }
        assert_int_equal(at, n);
        at = 0;
        free(ids);
    }
    free(text);
    vocab_close(v);
}

/* The same with megabytes of text in many languages, for each of the pre-tokenizers. */
static void long_nasty_texts(void **state)
{
    static const char *const paths[] = { "tests/data/tiny_smollm2.gguf",
                                         "tests/data/tiny_llama31.gguf",
                                         "tests/data/tiny_qwen2.gguf" };

    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        struct vocab *v = open_path(paths[i]);
        char *text = nasty_text(3000000, i);
        size_t len = strlen(text), from = 0, at = 0, n, n_line;
        uint32_t *ids = encode(v, text, len, i & 1, 4096, &n, NULL), *line;

        for (size_t to = 2; to <= len; to++) {
            /* Of several spaces at an end the last one would go with the others. */
            if (to < len && !(ispunct((unsigned char)text[to - 2]) && text[to - 1] == '\n' &&
                              isalpha((unsigned char)text[to])))
                continue;
            line = encode(v, text + from, to - from, i & 1, 4096, &n_line, NULL);
            assert_true(n_line <= n - at);
            assert_memory_equal(line, ids + at, n_line * sizeof(*ids));
            at += n_line;
            from = to;
            free(line);
        }
        assert_int_equal(at, n);
        free(ids);
        free(text);
        vocab_close(v);
    }
}

/* A word of more than BPE_MAX bytes: every byte is there, and a character across the cut too. */
static void a_word_without_end(void **state)
{
    const size_t len = 2 * (size_t)BPE_MAX + 4001;
    struct vocab *v = built_vocab_tiny();
    uint8_t *text = malloc(len);
    uint32_t *ids;
    size_t n;

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < len; i++)
        text[i] = (uint8_t) "\xe4\xb8\xad"[i % 3];
    ids = encode(v, text, len, false, 4096, &n, NULL);
    check_decodes(v, ids, n, text, len);
    free(ids);
    for (size_t i = 0; i < len; i++)
        text[i] = i % 2 ? 'e' : 'h';
    ids = encode(v, text, len, false, 4096, &n, NULL);
    check_decodes(v, ids, n, text, len);
    assert_int_equal(n, len / 2 + 1);
    free(ids);
    free(text);
    vocab_close(v);
}

/* Calls of vocab_encoder_next that a text takes with room for all of its ids. */
static size_t calls_for(const struct vocab *v, const uint8_t *text, size_t len, bool special)
{
    uint32_t *ids = malloc(len * sizeof(*ids));
    struct vocab_encoder *e;
    size_t n = 0, got, calls = 0;
    int ended = 0;

    assert_non_null(ids);
    assert_int_equal(vocab_encoder_new(v, &e), 0);
    vocab_encoder_start(e, text, len, special);
    for (; !ended; n += got, calls++) {
        ended = vocab_encoder_next(e, ids + n, len - n, &got);
        assert_true(ended >= 0 && (ended || n + got < len));
    }
    vocab_encoder_free(e);
    free(ids);
    return calls;
}

/* No call takes in more than a slice and the step that passes its end, whatever the text: words and
 * lines without end, beginnings of special tokens, bytes that give no ids. */
static void a_bounded_call(void **state)
{
    static const char *const texts[] = { "he", "x ", "<|im", " ", "\n", "\xe4\xb8\xad", "\xff" };
    const size_t len = 1 << 20;
    struct vocab *v = built_vocab_tiny(), *published = open_path("tests/data/tiny_smollm2.gguf");
    uint8_t *text = malloc(len);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        for (size_t k = 0; k < len; k++)
            text[k] = (uint8_t)texts[i][k % strlen(texts[i])];
        assert_true(calls_for(v, text, len, true) >= len / VOCAB_SLICE_BYTES);
        assert_true(calls_for(published, text, len, false) >= len / VOCAB_SLICE_BYTES);
    }
    free(text);
    vocab_close(v);
    vocab_close(published);
}

/* --- special tokens --------------------------------------------------------------------------- */

static void special_only_when_asked(void **state)
{
    struct vocab *v = built_vocab_tiny();
    static const char text[] = "he<|im_end|>he";
    size_t n;
    uint32_t *ids;

    (void)state;
    EXPECT(v, text, true, M(0), 2, M(0));
    EXPECT(v, "<|im_end|><|im_end|>", true, 2, 2);
    EXPECT(v, "<|im_end|", true, B('<'), B('|'), B('i'), B('m'), B('_'), B('e'), B('n'), B('d'),
           B('|'));
    ids = encode(v, text, sizeof(text) - 1, false, 4096, &n, NULL);
    for (size_t i = 0; i < n; i++)
        assert_false(vocab_is_special(v, ids[i]));
    check_decodes(v, ids, n, (const uint8_t *)text, sizeof(text) - 1);
    free(ids);
    vocab_close(v);
}

/* A special token at every place around the end of a look-ahead. */
static void special_across_a_look_ahead(void **state)
{
    struct vocab *v = built_vocab_tiny();
    const size_t len = 65536 + 40;
    char *text = malloc(len + 1);
    size_t n;

    (void)state;
    assert_non_null(text);
    for (size_t at = 65536 - 14; at <= 65536 + 2; at++) {
        uint32_t *ids;

        memset(text, '.', len);
        memcpy(text + at, "<|im_end|>", 10);
        ids = encode(v, text, len, true, 4096, &n, NULL);
        assert_int_equal(ids[at], 2); /* dots are a token each */
        assert_int_equal(n, len - 9);
        free(ids);
    }
    free(text);
    vocab_close(v);
}

/* A file of only a tokenizer: these normal tokens, then these special ones of type kind. */
static struct gguf_build *small(const char *const *normal, size_t n_normal,
                                const char *const *special, size_t n_special, int32_t kind,
                                const char *const *merges, size_t n_merges)
{
    struct gguf_build *b = gguf_build_new(3);
    const char *tokens[32];
    int32_t kinds[32];

    for (size_t i = 0; i < n_normal + n_special; i++) {
        tokens[i] = i < n_normal ? normal[i] : special[i - n_normal];
        kinds[i] = i < n_normal ? 1 : kind;
    }
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_str(b, "tokenizer.ggml.pre", "qwen2");
    gguf_build_str_array(b, "tokenizer.ggml.tokens", tokens, n_normal + n_special);
    gguf_build_i32_array(b, "tokenizer.ggml.token_type", kinds, n_normal + n_special);
    gguf_build_str_array(b, "tokenizer.ggml.merges", merges, n_merges);
    return b;
}

static const char *const abc[] = { "a", "b", "c", "ab", "bc", "abc", "<" };
static const char *const abc_merges[] = { "a b", "b c" };

static void longest_special_wins(void **state)
{
    static const char *const special[] = { "<a", "<a><", "", "b<" };
    struct gguf_build *b = small(abc, 7, special, 4, 4, abc_merges, 2);
    struct vocab *v;
    size_t n;

    (void)state;
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    EXPECT(v, "<a><", true, 8);
    EXPECT(v, "c<ac", true, 2, 7, 2);
    EXPECT(v, "cb<a", true, 2, 10, 0); /* the first place wins, then the longest */
    EXPECT(v, "<<a", true, 6, 7);
    assert_true(vocab_is_special(v, 8));
    assert_int_equal(vocab_find(v, "<a><", 4), 8);
    assert_memory_equal(vocab_bytes(v, 8, &n), "<a><", 4);
    assert_int_equal(n, 4);
    vocab_close(v);
    gguf_build_free(b);
}

/* Llama 3 takes a pre-token that is in the vocabulary; the others only what merges make. */
static void whole_words(void **state)
{
    struct gguf_build *b = small(abc, 7, NULL, 0, 3, abc_merges, 2);
    struct vocab *v;

    (void)state;
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    EXPECT(v, "abc", false, 3, 2);
    EXPECT(v, "bc", false, 4);
    vocab_close(v);
    gguf_build_str(b, "tokenizer.ggml.pre", "llama-bpe");
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    EXPECT(v, "abc", false, 5);
    EXPECT(v, "abcc", false, 3, 2, 2);
    vocab_close(v);
    gguf_build_free(b);
}

/* Bytes without a token are left out, as the published tokenizers do, and counted. What stood on
 * either side of one is merged. */
static void missing_bytes_are_counted(void **state)
{
    struct gguf_build *b = small(abc, 7, NULL, 0, 3, abc_merges, 2);
    struct vocab *v;
    size_t n, lost;
    uint32_t *ids;

    (void)state;
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    ids = encode(v, "axb\xff\x80!c", 7, false, 1, &n, &lost);
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], 3);
    assert_int_equal(ids[1], 2);
    assert_int_equal(lost, 4);
    free(ids);
    vocab_close(v);
    gguf_build_free(b);
}

/* Special tokens are looked for once at every place, whatever stands between them. */
static void special_among_bad_bytes(void **state)
{
    static const char *const specials[] = { "<x>" };
    struct gguf_build *b = small(abc, 7, specials, 1, 3, abc_merges, 2);
    const size_t len = 8u << 20;
    uint8_t *text = malloc(len);
    struct vocab *v;
    size_t n, lost;
    uint32_t *ids;

    (void)state;
    assert_non_null(text);
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    EXPECT(v,
           "\xff\xff<x>\xff"
           "abc\xff<x><x>\xe4\xb8",
           true, 7, 3, 2, 7, 7);
    EXPECT(v, "\xff<x>", false, 6);
    memset(text, 0xff, len);
    memcpy(text + len - 3, "<x>", 3);
    ids = encode(v, text, len, true, 1024, &n, &lost);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 7);
    assert_int_equal(lost, len - 3);
    free(ids);
    free(text);
    vocab_close(v);
    gguf_build_free(b);
}

/* --- what the file says ----------------------------------------------------------------------- */

static void ids_of_the_file(void **state)
{
    static const char *const special[] = { "<|im_end|>", "<|eot_id|>", "<|other|>", "<s>" };
    struct gguf_build *b = small(abc, 7, special, 4, 3, abc_merges, 2);
    struct vocab *v;

    (void)state;
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    assert_int_equal(vocab_size(v), 11);
    assert_int_equal(vocab_bos(v), VOCAB_NONE);
    assert_false(vocab_add_bos(v));
    assert_true(vocab_is_eog(v, 7) && vocab_is_eog(v, 8));
    assert_false(vocab_is_eog(v, 9) || vocab_is_eog(v, 0) || vocab_is_eog(v, 999));
    assert_int_equal(vocab_find(v, "abc", 3), 5);
    assert_int_equal(vocab_find(v, "abd", 3), VOCAB_NONE);
    vocab_close(v);

    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", 9);
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 10);
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    assert_true(vocab_is_eog(v, 9));
    assert_int_equal(vocab_bos(v), 10);
    assert_false(vocab_add_bos(v));
    vocab_close(v);

    gguf_build_str(b, "tokenizer.ggml.pre", "llama-bpe");
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    assert_true(vocab_add_bos(v));
    vocab_close(v);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", false);
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    assert_false(vocab_add_bos(v));
    vocab_close(v);
    gguf_build_free(b);

    /* Text that only looks like the end of an answer. */
    b = small(abc, 7, special, 4, 1, abc_merges, 2);
    assert_int_equal(built_vocab_open(b, &v, NULL), 0);
    assert_false(vocab_is_eog(v, 7));
    vocab_close(v);
    gguf_build_free(b);
}

static void refused(struct gguf_build *b, int err, const char *sentence)
{
    struct why why = { "" };
    struct vocab *v;

    assert_int_equal(built_vocab_open(b, &v, &why), err);
    assert_string_equal(why.text, sentence);
    gguf_build_free(b);
}

static void kinds_we_do_not_have(void **state)
{
    struct gguf_build *b = tiny();

    (void)state;
    gguf_build_str(b, "tokenizer.ggml.model", "llama");
    refused(b, -ENOTSUP, "test.gguf: tokenizer kind is \"llama\"; supported: gpt2");
    b = tiny();
    gguf_build_str(b, "tokenizer.ggml.pre", "deepseek-llm");
    refused(b, -ENOTSUP,
            "test.gguf: pre-tokenizer is \"deepseek-llm\"; supported: smollm, llama-bpe, qwen2");
    b = tiny();
    gguf_build_drop(b, "tokenizer.ggml.pre");
    refused(b, -ENOTSUP,
            "test.gguf: tokenizer.ggml.pre is missing or not a string; supported: smollm, "
            "llama-bpe, qwen2");
    b = tiny();
    gguf_build_u32(b, "tokenizer.ggml.model", 2);
    refused(b, -EINVAL, "test.gguf: tokenizer.ggml.model is missing or not a string");
}

static void files_that_lie(void **state)
{
    static const int32_t kinds[] = { 1, 1, 9 };
    static const char *const unknown[] = { "a b", "a d" }, *const no_space[] = { "ab" },
                             *const no_result[] = { "c a" }, *const empty[] = { "" };
    struct gguf_build *b = tiny();

    (void)state;
    gguf_build_drop(b, "tokenizer.ggml.merges");
    refused(b, -EINVAL, "test.gguf: tokenizer.ggml.merges is missing");
    b = tiny();
    gguf_build_drop(b, "tokenizer.ggml.token_type");
    refused(b, -EINVAL, "test.gguf: tokenizer.ggml.token_type is missing");
    b = tiny();
    gguf_build_i32_array(b, "tokenizer.ggml.tokens", kinds, 3);
    refused(b, -EINVAL, "test.gguf: tokenizer.ggml.tokens is not an array of strings");
    b = tiny();
    gguf_build_i32_array(b, "tokenizer.ggml.token_type", kinds, 3);
    refused(b, -EINVAL, "test.gguf: 272 tokens, but tokenizer.ggml.token_type has 3");
    b = tiny();
    gguf_build_u32(b, "llama.vocab_size", 271);
    refused(b, -EINVAL, "test.gguf: llama.vocab_size is 271, but there are 272 tokens");
    b = tiny();
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", 272);
    refused(b, -EINVAL, "test.gguf: tokenizer.ggml.eos_token_id is 272, but there are 272 tokens");
    b = tiny();
    gguf_build_str(b, "tokenizer.ggml.bos_token_id", "1");
    refused(b, -EINVAL, "test.gguf: tokenizer.ggml.bos_token_id is not a token id");

    b = small(abc, 3, NULL, 0, 1, abc_merges, 0);
    gguf_build_i32_array(b, "tokenizer.ggml.token_type", kinds, 3);
    refused(b, -EINVAL, "test.gguf: token 2 has type 9; known types: 0 to 6");
    b = small(abc, 7, NULL, 0, 1, unknown, 2);
    refused(b, -EINVAL,
            "test.gguf: merge 1, \"a d\", uses or makes a token that is not in the vocabulary");
    b = small(abc, 7, NULL, 0, 1, no_result, 1);
    refused(b, -EINVAL,
            "test.gguf: merge 0, \"c a\", uses or makes a token that is not in the vocabulary");
    b = small(abc, 7, NULL, 0, 1, no_space, 1);
    refused(b, -EINVAL, "test.gguf: merge 0, \"ab\", is not two tokens separated by a space");
    b = small(abc, 7, NULL, 0, 1, empty, 1);
    refused(b, -EINVAL, "test.gguf: merge 0, \"\", is not two tokens separated by a space");
}

/* Types of tokens without a sign, as some writers have them: the same vocabulary. */
static void types_without_a_sign(void **state)
{
    struct gguf_build *b = tiny();
    struct vocab *v = built_vocab_tiny(), *other;
    struct {
        uint32_t kind, n[2];
        uint32_t types[GGUF_BUILD_N_VOCAB];
    } array = { .kind = GGUF_U32, .n = { GGUF_BUILD_N_VOCAB, 0 } };
    struct why why = { "" };

    (void)state;
    for (uint32_t i = 0; i < GGUF_BUILD_N_VOCAB; i++)
        array.types[i] = vocab_is_special(v, i) ? 3 : 1;
    gguf_build_raw(b, "tokenizer.ggml.token_type", GGUF_ARRAY, &array, sizeof(array));
    if (built_vocab_open(b, &other, &why) < 0)
        fail_msg("%s", why.text);
    for (uint32_t i = 0; i < GGUF_BUILD_N_VOCAB; i++)
        assert_int_equal(vocab_is_special(other, i), vocab_is_special(v, i));
    EXPECT(other, "<|im_end|>the", true, 2, B('t'), M(0));
    vocab_close(v);
    vocab_close(other);
    /* One that fits no sign is a type like other unknown ones. */
    array.types[5] = UINT32_MAX;
    gguf_build_raw(b, "tokenizer.ggml.token_type", GGUF_ARRAY, &array, sizeof(array));
    refused(b, -EINVAL, "test.gguf: token 5 has type -1; known types: 0 to 6");
}

/* Qwen2's text is brought to NFC, between special tokens and between bytes that are none; others'
 * is not. The ids of both forms are the same, with a mark at every place around a look-ahead's end.
 */
static void normal_form(void **state)
{
    static const char *const paths[] = { "tests/data/tiny_qwen2.gguf",
                                         "tests/data/tiny_llama31.gguf" };
    static const char apart[] =
        "cafe\xcc\x81 <|im_end|>\xcc\x81\xff\xcc\x81 \xe1\x84\x80\xe1\x85\xa1";
    static const char joined[] = "caf\xc3\xa9 <|im_end|>\xcc\x81\xff\xcc\x81 \xea\xb0\x80";

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct vocab *v = open_path(paths[i]);
        size_t n, n_joined, len = 40000;
        uint32_t *ids, *ids_joined;
        char *text = malloc(len + 16);

        assert_int_equal(vocab_is_nfc(v), i == 0);
        for (int special = 0; special < 2; special++) {
            ids = encode(v, apart, sizeof(apart) - 1, special, 3, &n, NULL);
            ids_joined = encode(v, joined, sizeof(joined) - 1, special, 4096, &n_joined, NULL);
            if (i == 0)
                check_decodes(v, ids, n, (const uint8_t *)joined, sizeof(joined) - 1);
            else
                check_decodes(v, ids, n, (const uint8_t *)apart, sizeof(apart) - 1);
            assert_int_equal(n == n_joined && memcmp(ids, ids_joined, n * sizeof(*ids)) == 0,
                             i == 0);
            free(ids);
            free(ids_joined);
        }
        assert_non_null(text);
        for (size_t at = 16384 - 6; i == 0 && at < 16384 + 4; at++) {
            for (size_t k = 0; k < len; k++)
                text[k] = "the "[k % 4];
            memcpy(text + at, "e\xcc\xa3\xcc\x81", 5);
            ids = encode(v, text, len, true, 1000, &n, NULL);
            memcpy(text + at, "\xe1\xba\xb9\xcc\x81", 5); /* as many bytes */
            check_decodes(v, ids, n, (const uint8_t *)text, len);
            free(ids);
        }
        free(text);
        vocab_close(v);
    }
}

/* No merge can make a control token: what a document says stays text. */
static void merges_make_no_special(void **state)
{
    static const char *const special[] = { "ca" }, *const merges[] = { "c a" };

    (void)state;
    refused(small(abc, 3, special, 1, 3, merges, 1), -EINVAL,
            "test.gguf: merge 0, \"c a\", uses or makes a token that is not in the vocabulary");
}

/* --- the default model ------------------------------------------------------------------------ */

static void smollm2(void **state)
{
    const char *path = getenv("GISTD_TEST_MODEL");
    struct vocab *v;

    (void)state;
    if (!path)
        skip();
    v = open_path(path);
    assert_int_equal(vocab_size(v), 49152);
    assert_int_equal(vocab_bos(v), 1);
    assert_false(vocab_add_bos(v));
    assert_true(vocab_is_eog(v, 0) && vocab_is_eog(v, 2) && !vocab_is_eog(v, 1));
    EXPECT(v, "Hello, world! 1234\n\tit's \xf0\x9f\xa6\x99", false, 19556, 28, 905, 17, 216, 33, 34,
           35, 36, 198, 197, 269, 506, 15107, 116, 243);
    EXPECT(v, "<|im_start|>user\nHi<|im_end|>\n", true, 1, 4093, 198, 26843, 2, 198);
    vocab_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_recorded),
        cmocka_unit_test(by_hand),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(long_nasty_texts),
        cmocka_unit_test(a_word_without_end),
        cmocka_unit_test(a_bounded_call),
        cmocka_unit_test(special_only_when_asked),
        cmocka_unit_test(special_across_a_look_ahead),
        cmocka_unit_test(longest_special_wins),
        cmocka_unit_test(whole_words),
        cmocka_unit_test(missing_bytes_are_counted),
        cmocka_unit_test(special_among_bad_bytes),
        cmocka_unit_test(ids_of_the_file),
        cmocka_unit_test(kinds_we_do_not_have),
        cmocka_unit_test(files_that_lie),
        cmocka_unit_test(merges_make_no_special),
        cmocka_unit_test(types_without_a_sign),
        cmocka_unit_test(normal_form),
        cmocka_unit_test(smollm2),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
