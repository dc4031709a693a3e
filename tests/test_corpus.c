/* tests/test_corpus.c - corpus files: building, damage, sampling. Would catch: text that does not
 * come back, loss on the wrong tokens of a conversation, an answer with spaces that the template
 * takes away, a damaged or foreign file that is taken or refused without a reason, samples that
 * depend on what was drawn before, that cut conversations, or that miss the weights, a failed build
 * that leaves a file. */

#include "engine/text/vocab.h"
#include "tests/support/file.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"
#include "train/data/corpus_build.h"
#include "train/data/corpus_file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#define EOS 0u /* <|endoftext|> of the tiny model */
#define END 2u /* <|im_end|> */

static char model[SCRATCH_PATH_MAX], out[SCRATCH_PATH_MAX];

static int setup(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&shape);

    (void)state;
    gguf_build_write(b, scratch_path(model, "tiny.gguf"));
    gguf_build_free(b);
    scratch_path(out, "out.corpus");
    return 0;
}

static char *put_file(char path[SCRATCH_PATH_MAX], const char *name, const void *text, size_t len)
{
    FILE *f = fopen(scratch_path(path, name), "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    return path;
}

static char *put_text(char path[SCRATCH_PATH_MAX], const char *name, const char *text)
{
    return put_file(path, name, text, strlen(text));
}

static int build(struct why *why, struct corpus_built *ret, size_t n, const char *const *inputs)
{
    struct corpus_build b = { .model = model,
                              .out = out,
                              .inputs = inputs,
                              .n_inputs = n,
                              .long_tokens = 100,
                              .long_weight = 3 };

    why->text[0] = '\0';
    return corpus_build(&b, ret, why);
}

static struct corpus *build_open(size_t n, const char *const *inputs)
{
    struct corpus *c = NULL;
    struct why why;

    if (build(&why, NULL, n, inputs) < 0 || corpus_open(out, NULL, &c, &why) < 0)
        fail_msg("%s", why.text);
    return c;
}

/* The bytes of ids, or of those that carry loss; special tokens by their name. */
static char *decode(const uint32_t *ids, const uint8_t *loss, size_t n, char ret[4096])
{
    struct gguf *g = NULL;
    struct vocab *v = NULL;
    size_t len = 0;

    assert_int_equal(gguf_open(model, &g, NULL), 0);
    assert_int_equal(vocab_open(g, &v, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        size_t some;
        const uint8_t *bytes = vocab_bytes(v, ids[i], &some);

        if (loss && !loss[i])
            continue;
        assert_true(len + some < 4095);
        memcpy(ret + len, bytes, some);
        len += some;
    }
    ret[len] = '\0';
    vocab_close(v);
    gguf_close(g);
    return ret;
}

static char *document(const struct corpus *c, uint64_t doc, bool loss_only, char ret[4096])
{
    struct corpus_document d;
    uint32_t ids[4096];
    uint8_t loss[4096];

    corpus_document(c, doc, &d);
    assert_true(d.n_tokens <= 4096);
    corpus_read(c, doc, 0, (uint32_t)d.n_tokens, ids, loss);
    return decode(ids, loss_only ? loss : NULL, d.n_tokens, ret);
}

/* --- building ------------------------------------------------------------------------------- */

static void test_texts(void **state)
{
    char folder[SCRATCH_PATH_MAX], path[SCRATCH_PATH_MAX], text[4096];
    const char *inputs[] = { folder, NULL };
    struct corpus_document d;
    struct corpus_source s;
    struct corpus_info info;
    struct corpus *c;
    char input[SCRATCH_PATH_MAX + 8];

    (void)state;
    assert_int_equal(mkdir(scratch_path(folder, "texts"), 0700), 0);
    assert_int_equal(mkdir(scratch_path(path, "texts/sub"), 0700), 0);
    put_text(path, "texts/b.txt", "second: the <|im_end|> of h\xc3\xa9llo\n");
    put_text(path, "texts/a.txt", "first");
    put_text(path, "texts/sub/c",
             "third, of a folder in it; it is a long document, which is what gives it "
             "three times the weight of what is shorter than a hundred tokens");
    put_text(path, "texts/.hidden", "\xff");
    put_text(path, "texts/empty", "");
    (void)snprintf(input, sizeof(input), "again=%s", put_text(path, "one.txt", "alone"));
    inputs[1] = input;
    c = build_open(2, inputs);
    corpus_info(c, &info);
    assert_int_equal(info.n_documents, 4);
    assert_int_equal(info.n_sources, 2);
    assert_int_equal(info.eos, EOS);
    assert_true(info.bos == CORPUS_NONE && info.n_loss == info.n_tokens);
    assert_string_equal(document(c, 0, false, text), "first");
    assert_string_equal(document(c, 1, true, text), "second: the <|im_end|> of h\xc3\xa9llo\n");
    assert_string_equal(document(c, 3, false, text), "alone");
    corpus_document(c, 1, &d);
    assert_true(d.weight == 1.0f && d.source == 0);
    corpus_document(c, 2, &d);
    assert_true(d.weight == 3.0f && d.n_tokens > 100);
    corpus_source(c, 0, &s);
    assert_string_equal(s.name, "texts");
    assert_int_equal(s.n_documents, 3);
    corpus_source(c, 1, &s);
    assert_string_equal(s.name, "again");
    assert_true(s.weight == 1 && s.n_documents == 1);
    corpus_close(c);
}

static void test_jsonl(void **state)
{
    static const char lines[] =
        "{\"text\": \"plain \\u00e9\", \"other\": [1, {}]}\n\n"
        "{\"prompt\": \"say yes\", \"completion\": \" yes\"}\r\n"
        "{\"segments\": [{\"text\": \"a:\", \"label\": false}, {\"text\": \" b\", \"label\": "
        "true}, "
        "{\"text\": \", c:\", \"label\": false}, {\"text\": \" d\", \"label\": true}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"one?\"}, {\"role\": \"assistant\", "
        "\"content\": "
        "\"<|im_end|>1\"}, {\"role\": \"user\", \"content\": \"two?\"}, {\"role\": \"assistant\", "
        "\"content\": \"2\"}]}\n"
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
        "\"content\": \"u\"}]}";
    char path[SCRATCH_PATH_MAX], text[4096];
    const char *inputs[] = { put_text(path, "chat.jsonl", lines) };
    struct corpus *c = build_open(1, inputs);
    struct corpus_source s;
    struct corpus_info info;

    (void)state;
    corpus_source(c, 0, &s);
    assert_string_equal(s.name, "chat");
    corpus_info(c, &info);
    assert_int_equal(info.n_documents, 5);
    assert_string_equal(document(c, 0, true, text), "plain \xc3\xa9");
    assert_string_equal(document(c, 1, false, text), "say yes yes");
    assert_string_equal(document(c, 1, true, text), " yes");
    assert_string_equal(document(c, 2, false, text), "a: b, c: d");
    assert_string_equal(document(c, 2, true, text), " b d");
    assert_string_equal(document(c, 3, true, text), "<|im_end|>1<|im_end|>2<|im_end|>");
    document(c, 3, false, text);
    assert_non_null(strstr(text,
                           "<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n<|im_end|>1"
                           "<|im_end|>\n<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\n2"
                           "<|im_end|>\n"));
    assert_true(strncmp(text, "<|im_start|>system\n", 19) ==
                0); /* the template's default message */
    assert_string_equal(document(c, 4, true, text), "");
    corpus_close(c);
}

/* What a client writes is no special token, what the template writes is. */
static void test_end_of_turn(void **state)
{
    static const char line[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"\"}, {\"role\": \"assistant\", "
        "\"content\": \"<|im_end|>\"}]}";
    char path[SCRATCH_PATH_MAX];
    const char *inputs[] = { put_text(path, "turn.jsonl", line) };
    struct corpus *c = build_open(1, inputs);
    struct corpus_document d;
    uint32_t ids[256], n_ends = 0;
    uint8_t loss[256];

    (void)state;
    corpus_document(c, 0, &d);
    corpus_read(c, 0, 0, (uint32_t)d.n_tokens, ids, loss);
    for (uint64_t i = 0; i < d.n_tokens; i++)
        n_ends += ids[i] == END && loss[i];
    assert_int_equal(n_ends, 1);
    assert_true(d.n_loss > 1);
    corpus_close(c);
}

/* Spaces that are not ASCII's as well, as the template does it where the daemon renders. */
static void test_trimmed_answer(void **state)
{
    static const char line[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"one?\"}, {\"role\": \"assistant\", "
        "\"content\": \" \\u00a0\\u3000\\n1 2\\u2028\\u001c \"}]}";
    char path[SCRATCH_PATH_MAX], plain[sizeof(model)], text[4096];
    const char *inputs[] = { put_text(path, "trimmed.jsonl", line) };
    struct corpus *c;

    (void)state;
    memcpy(plain, model, sizeof(plain));
    (void)snprintf(model, sizeof(model), "tests/data/tiny_llama31.gguf");
    c = build_open(1, inputs);
    assert_string_equal(document(c, 0, true, text), "1 2<|eot_id|>");
    corpus_close(c);
    memcpy(model, plain, sizeof(model));
}

static void expect(int r, int err, const struct why *why, const char *a, const char *b)
{
    if (r != err || !strstr(why->text, a) || !strstr(why->text, b))
        fail_msg("it returned %d and said: %s", r, why->text);
}

/* What a crash leaves of a file's end is no empty line. */
static void test_zeros(void **state)
{
    static const char lines[] = "{\"text\": \"a\"}\n \n\0\0\0\n";
    char path[SCRATCH_PATH_MAX];
    const char *inputs[] = { put_file(path, "zeros.jsonl", lines, sizeof(lines) - 1) };
    struct why why;

    (void)state;
    expect(build(&why, NULL, 1, inputs), -EINVAL, &why, "zeros.jsonl:3: ", "found no JSON object");
}

static void test_bad_inputs(void **state)
{
    static const struct {
        const char *name, *text, *where, *expect;
    } cases[] = {
        { "bad.txt", "ab\xff", "bad.txt", "found byte 0xff at offset 2, which is not UTF-8" },
        { "cut.txt", "ab\xc3", "cut.txt", "found byte 0xc3 at offset 2" },
        { "none.txt", "", "none.txt", "found no text" },
        { "none.jsonl", "\n \n", "none.jsonl", "found no text" },
        { "a.jsonl", "{\"text\": \"x\"}\n{\"text\": \"x\"\n", "a.jsonl:2: ", "no JSON object" },
        { "b.jsonl", "[1]\n", "b.jsonl:1: ", "no JSON object (another value" },
        { "c.jsonl", "{\"text\": \"x\"} y\n", "c.jsonl:1: ", "no JSON object" },
        { "d.jsonl", "{\"txt\": \"x\"}\n", "d.jsonl:1: ", "found none of \"text\"" },
        { "e.jsonl", "{\"text\": 1}\n", "e.jsonl:1: ", "found none of \"text\"" },
        { "f.jsonl", "{\"messages\": []}\n", "f.jsonl:1: ", "\"messages\" is empty" },
        { "g.jsonl", "{\"messages\": [{\"role\": \"user\"}]}\n",
          "g.jsonl:1: ", "message 1 has no" },
        { "h.jsonl", "{\"messages\": [{\"role\": \"u\", \"content\": \"\"}]}\n",
          "h.jsonl:1: ", "found a role" },
        { "k.jsonl", "{\"segments\": []}\n", "k.jsonl:1: ", "\"segments\" is empty" },
        { "l.jsonl", "{\"segments\": [{\"text\": \"a\", \"label\": 1}]}\n",
          "l.jsonl:1: ", "segment 1 has no" },
        { "i.jsonl", "{\"text\": \"\xff\"}\n", "i.jsonl:1: ", "not UTF-8" },
        { "j.jsonl", "{\"text\": \"\"}\n", "j.jsonl", "found no text" },
    };
    char path[SCRATCH_PATH_MAX], part[SCRATCH_PATH_MAX + 8];
    const char *inputs[] = { path };
    struct why why;

    (void)state;
    (void)unlink(out);
    (void)snprintf(part, sizeof(part), "%s.part", out);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        put_text(path, cases[i].name, cases[i].text);
        expect(build(&why, NULL, 1, inputs), -EINVAL, &why, cases[i].where, cases[i].expect);
        assert_true(access(out, F_OK) < 0 && access(part, F_OK) < 0);
    }
    scratch_path(path, "nowhere");
    expect(build(&why, NULL, 1, inputs), -ENOENT, &why, path, "No such file");
    expect(build(&why, NULL, 0, inputs), -EINVAL, &why, out, "at least one input");
}

/* --- opening -------------------------------------------------------------------------------- */

/* Two sources, both of plain text; long documents are the numbers 0 to 249 as bytes could be. */
static struct corpus *build_small(void)
{
    char path[SCRATCH_PATH_MAX], input[2][SCRATCH_PATH_MAX + 8];
    const char *inputs[] = { input[0], input[1] };

    (void)snprintf(input[0], sizeof(input[0]), "x=%s",
                   put_text(path, "x.txt", "some text of this"));
    (void)snprintf(input[1], sizeof(input[1]), "y=%s",
                   put_text(path, "y.jsonl", "{\"prompt\": \"ask\", \"completion\": \"answer\"}"));
    return build_open(2, inputs);
}

static void test_damage(void **state)
{
    struct corpus *c = build_small();
    char path[SCRATCH_PATH_MAX];
    struct why why;
    size_t len;
    uint8_t *bytes;

    (void)state;
    corpus_close(c);
    bytes = file_read(out, &len);
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 0x10;
        put_file(path, "damaged.corpus", bytes, len);
        bytes[i] ^= 0x10;
        why.text[0] = '\0';
        expect(corpus_open(path, NULL, &c, &why), -EINVAL, &why, path, "");
    }
    for (size_t i = 0; i < len; i++) {
        put_file(path, "cut.corpus", bytes, i);
        why.text[0] = '\0';
        expect(corpus_open(path, NULL, &c, &why), -EINVAL, &why, path,
               i < sizeof(struct corpus_file_header) ? "expected a corpus file"
                                                     : "the file was cut");
    }
    free(bytes);
}

/* Checksums that are right over what can't be. */
static void test_crafted(void **state)
{
    enum {
        VERSION,
        TOKENS,
        DOCUMENTS,
        SOURCES,
        EOS_ID,
        ID,
        FIRST,
        LENGTH,
        LOSS,
        SOURCE,
        WEIGHT,
        NAME,
        N
    };
    static const char *const expected[N] = {
        "of version 2, expected 1", "which is impossible",   "bytes, expected",
        "bytes, expected",          "which is impossible",   "token 0 is",
        "document 0 is damaged",    "document 0 is damaged", "document 1 is damaged",
        "document 0 is damaged",    "document 0 is damaged", "the name of source 0",
    };
    struct corpus *c = build_small();
    char path[SCRATCH_PATH_MAX];
    struct why why;
    size_t len;
    uint8_t *bytes;

    (void)state;
    corpus_close(c);
    for (int i = 0; i < N; i++) {
        struct corpus_file_header *h;
        struct corpus_file_layout at;
        struct corpus_file_document *d;

        bytes = file_read(out, &len);
        h = (void *)bytes;
        corpus_file_layout(h, &at);
        d = (void *)(bytes + at.documents_off);
        h->version += i == VERSION;
        h->n_tokens = i == TOKENS ? UINT64_MAX / 2 : h->n_tokens;
        h->n_documents += i == DOCUMENTS;
        h->n_sources += i == SOURCES;
        h->eos = i == EOS_ID ? h->n_vocab : h->eos;
        bytes[sizeof(*h) + 1] ^= i == ID ? 0xff : 0;
        d[0].first += i == FIRST;
        d[0].n_tokens = i == LENGTH ? UINT64_MAX : d[0].n_tokens;
        d[1].n_loss += i == LOSS;
        d[0].source = i == SOURCE ? 2 : d[0].source;
        d[0].weight = i == WEIGHT ? -1 : d[0].weight;
        bytes[at.sources_off] = i == NAME ? 0 : bytes[at.sources_off];
        h->payload_hash = XXH3_64bits(bytes + sizeof(*h), len - sizeof(*h));
        h->header_hash = XXH3_64bits(h, offsetof(struct corpus_file_header, header_hash));
        put_file(path, "crafted.corpus", bytes, len);
        free(bytes);
        why.text[0] = '\0';
        expect(corpus_open(path, NULL, &c, &why), -EINVAL, &why, path, expected[i]);
    }
}

static void test_other_tokenizer(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b;
    struct corpus *c = build_small();
    char path[SCRATCH_PATH_MAX], digest[3][CORPUS_DIGEST_LEN];
    struct gguf *g;
    struct why why = { "" };

    (void)state;
    corpus_close(c);
    for (int i = 0; i < 3; i++) {
        shape.seed = 7 + (uint64_t)i; /* other weights */
        b = gguf_build_model(&shape);
        if (i == 2)
            gguf_build_str(b, "tokenizer.ggml.pre", "qwen2");
        gguf_build_write(b, scratch_path(path, "other.gguf"));
        gguf_build_free(b);
        assert_int_equal(gguf_open(path, &g, &why), 0);
        assert_int_equal(corpus_digest(g, digest[i], &why), 0);
        gguf_close(g);
    }
    assert_string_equal(digest[0], digest[1]);
    assert_int_equal(corpus_open(out, digest[0], &c, &why), 0);
    corpus_close(c);
    expect(corpus_open(out, digest[2], &c, &why), -EINVAL, &why, out, digest[2]);
    why.text[0] = '\0';
    expect(corpus_open("/nonexistent/c", NULL, &c, &why), -ENOENT, &why, "/nonexistent/c",
           "No such");
    why.text[0] = '\0';
    expect(corpus_open(model, NULL, &c, &why), -EINVAL, &why, model, "found no corpus file");
}

/* A vocabulary that needs ids of 32 bits. */
static void test_wide_ids(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    char narrow[SCRATCH_PATH_MAX], path[SCRATCH_PATH_MAX], text[4096];
    const char *inputs[] = { path };
    struct corpus_info info;
    struct gguf_build *b;
    struct corpus *c;
    uint32_t ids[32];
    uint8_t loss[32];

    (void)state;
    memcpy(narrow, model, sizeof(narrow));
    shape.n_vocab = 70000;
    shape.sparse = true;
    b = gguf_build_model(&shape);
    gguf_build_write(b, scratch_path(model, "wide.gguf"));
    gguf_build_free(b);
    put_text(path, "wide.txt", "text of a wide vocabulary");
    c = build_open(1, inputs);
    corpus_info(c, &info);
    assert_int_equal(info.n_vocab, 70000);
    assert_string_equal(document(c, 0, false, text), "text of a wide vocabulary");
    corpus_sample(c, 1, 0, 32, ids, loss);
    assert_true(ids[0] < 70000);
    corpus_close(c);
    memcpy(model, narrow, sizeof(model));
}

/* --- sampling ------------------------------------------------------------------------------- */

#define N_TOKENS  64u
#define N_SAMPLES 4000u

/* Sources: "long" has one document of 3000 letters, "short" some of 20, "chat" conversations of 26
 * tokens of which 6 carry loss, and one that is longer than a sequence and has its answer at the
 * end. */
static struct corpus *build_mixture(void)
{
    char path[4][SCRATCH_PATH_MAX], text[3001];
    const char *inputs[] = { path[0], path[1], path[2], path[3] };
    FILE *f;

    for (int i = 0; i < 3000; i++)
        text[i] = (char)('A' + ((uint32_t)i * 2654435761u >> 20) % 26);
    text[3000] = '\0';
    put_text(path[0], "long", text);
    f = fopen(scratch_path(path[1], "short.jsonl"), "w");
    for (int i = 0; i < 20; i++)
        (void)fprintf(f, "{\"text\": \"%c0123456789012345678\"}\n", 'a' + i);
    (void)fclose(f);
    f = fopen(scratch_path(path[2], "chat.jsonl"), "w");
    for (int i = 0; i < 20; i++)
        (void)fprintf(f, "{\"prompt\": \"%c(------------------)\", \"completion\": \"+++++.\"}\n",
                      'a' + i);
    (void)fclose(f);
    put_text(path[3], "far.jsonl",
             "{\"prompt\": \"****************************************************"
             "************************\", \"completion\": \"=\"}");
    return build_open(4, inputs);
}

static void test_samples_are_pure(void **state)
{
    struct corpus *c = build_mixture();
    uint32_t a[N_TOKENS], b[N_TOKENS];
    uint8_t la[N_TOKENS], lb[N_TOKENS];
    unsigned same = 0;

    (void)state;
    for (uint64_t i = 0; i < 200; i++) {
        corpus_sample(c, 5, i, N_TOKENS, a, la);
        corpus_sample(c, 5, 199 - i, N_TOKENS, b, lb);
        corpus_sample(c, 5, i, N_TOKENS, b, lb);
        assert_memory_equal(a, b, sizeof(a));
        assert_memory_equal(la, lb, sizeof(la));
        corpus_sample(c, 6, i, N_TOKENS, b, lb);
        same += memcmp(a, b, sizeof(a)) == 0;
        corpus_sample(c, 5, i + 1, N_TOKENS, b, lb);
        same += memcmp(a, b, sizeof(a)) == 0;
    }
    assert_int_equal(same, 0);
    corpus_close(c);
}

/* S1, S2: what a sample is made of. */
static void test_samples_are_whole(void **state)
{
    struct corpus *c = build_mixture();
    unsigned n_long = 0, n_chat = 0;

    (void)state;
    for (uint64_t i = 0; i < N_SAMPLES; i++) {
        uint32_t ids[N_TOKENS];
        uint8_t loss[N_TOKENS];
        char text[4096], *p, *end;

        corpus_sample(c, 1, i, N_TOKENS, ids, loss);
        decode(ids, NULL, N_TOKENS, text);
        assert_null(strchr(text, '*')); /* its answer would be cut off */
        for (p = text; (p = strchr(p, '(')); p++) {
            n_chat++;
            end = strstr(p, ")+++++.");
            assert_true(end && end - p == 19 && p > text);
        }
        for (uint32_t k = 0; k < N_TOKENS; k++) {
            bool asked = ids[k] == GGUF_BUILD_BYTE_0 + '-' || ids[k] == GGUF_BUILD_BYTE_0 + '(';

            assert_true(loss[k] == !asked || ids[k] == GGUF_BUILD_BYTE_0 + ')' ||
                        k + 1 == N_TOKENS || ids[k + 1] == GGUF_BUILD_BYTE_0 + '(');
        }
        n_long += strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(text);
    }
    assert_true(n_long > N_SAMPLES / 2 && n_chat > N_SAMPLES / 20);
    corpus_close(c);
}

/* Shares of first documents: a sample that begins with one of a source. */
static void count(const struct corpus *c, double ret[3])
{
    uint32_t ids[N_TOKENS];
    uint8_t loss[N_TOKENS];
    unsigned n[3] = { 0 };

    for (uint64_t i = 0; i < N_SAMPLES; i++) {
        uint32_t first;

        corpus_sample(c, 9, i, N_TOKENS, ids, loss);
        first = ids[0] - GGUF_BUILD_BYTE_0;
        n[first >= 'A' && first <= 'Z' ? 0 : loss[0] ? 1 : 2]++;
    }
    for (int i = 0; i < 3; i++)
        ret[i] = (double)n[i] / N_SAMPLES;
}

static void test_weights(void **state)
{
    struct corpus *c = build_mixture();
    double share[3], all = 3 * 3000 + 400 + 20 * 26; /* the long document weighs 3 */
    struct why why = { "" };

    (void)state;
    count(c, share);
    assert_true(share[0] > 9000 / all - 0.03 && share[0] < 9000 / all + 0.03);
    assert_true(share[1] > 400 / all - 0.02 && share[1] < 400 / all + 0.02);
    assert_int_equal(corpus_weigh(c, "long", 0, &why), 0);
    count(c, share);
    assert_true(share[0] == 0 && share[1] > 400 / 920. - 0.04 && share[1] < 400 / 920. + 0.04);
    assert_int_equal(corpus_weigh(c, "short", 10, &why), 0);
    count(c, share);
    assert_true(share[1] > 4000 / 4520. - 0.03 && share[1] < 4000 / 4520. + 0.03);
    assert_int_equal(corpus_weigh(c, "long", 1e3, &why), 0);
    count(c, share);
    assert_true(share[0] > 0.99);

    expect(corpus_weigh(c, "lng", 1, &why), -ENOENT, &why, "no source \"lng\"", "\"long\"");
    why.text[0] = '\0';
    expect(corpus_weigh(c, "long", -1, &why), -EINVAL, &why, "long", "0 or more");
    assert_int_equal(corpus_weigh(c, "long", 0, &why), 0);
    assert_int_equal(corpus_weigh(c, "short", 0, &why), 0);
    assert_int_equal(corpus_weigh(c, "far", 0, &why), 0);
    why.text[0] = '\0';
    expect(corpus_weigh(c, "chat", 0, &why), -EINVAL, &why, "chat", "nothing left");
    count(c, share);
    assert_true(share[2] == 1);
    corpus_close(c);
}

/* S3: eos between documents carries loss when what it ends does. */
static void test_joints(void **state)
{
    struct corpus *c = build_mixture();
    unsigned n_eos = 0;
    struct why why = { "" };

    (void)state;
    assert_int_equal(corpus_weigh(c, "long", 0, &why), 0);
    for (uint64_t i = 0; i < 100; i++) {
        uint32_t ids[N_TOKENS];
        uint8_t loss[N_TOKENS];

        corpus_sample(c, 3, i, N_TOKENS, ids, loss);
        for (uint32_t k = 1; k < N_TOKENS; k++) {
            if (ids[k] != EOS)
                continue;
            n_eos++;
            assert_true(loss[k] == loss[k - 1] && ids[k - 1] != EOS);
        }
    }
    assert_true(n_eos >= 200);
    corpus_close(c);
}

/* A model that begins every text with a token of its own. */
static void test_bos(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&shape);
    char plain[SCRATCH_PATH_MAX], path[SCRATCH_PATH_MAX];
    const char *inputs[] = { path };
    struct corpus *c;

    (void)state;
    memcpy(plain, model, sizeof(plain));
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", true);
    gguf_build_write(b, scratch_path(model, "bos.gguf"));
    gguf_build_free(b);
    put_text(path, "bos.txt",
             "a text that is longer than the ten tokens of one of these sequences");
    c = build_open(1, inputs);
    for (uint64_t i = 0; i < 50; i++) {
        uint32_t ids[10];
        uint8_t loss[10];

        corpus_sample(c, 1, i, 10, ids, loss);
        assert_true(ids[0] == 1 && loss[0] == 0 && ids[1] != 1 && loss[1] == 1);
    }
    corpus_close(c);
    memcpy(model, plain, sizeof(model));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_jsonl),
        cmocka_unit_test(test_end_of_turn),
        cmocka_unit_test(test_trimmed_answer),
        cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_bad_inputs),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_crafted),
        cmocka_unit_test(test_other_tokenizer),
        cmocka_unit_test(test_wide_ids),
        cmocka_unit_test(test_samples_are_pure),
        cmocka_unit_test(test_samples_are_whole),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_joints),
        cmocka_unit_test(test_bos),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
