/* From a GGUF file to tables, in this order, since each needs the ones before it: tokens, merges
 * (pairs of tokens), ids with a meaning, special tokens by length, and last which tokens are made
 * by merges of their own bytes.
 *
 * Whatever a file says is checked here and nowhere else: ids are below n_tokens, and every merge
 * has three tokens. Encoding relies on it. */
#include "engine/text/vocab_inner.h"

#include "base/utf8.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_MAX    (1u << 24)
#define TOKEN_LEN_MAX 65535u

enum token_kind { /* numbers of the file */
                  TOKEN_UNDEFINED,
                  TOKEN_NORMAL,
                  TOKEN_UNKNOWN,
                  TOKEN_CONTROL,
                  TOKEN_USER_DEFINED,
                  TOKEN_UNUSED,
                  TOKEN_BYTE,
                  TOKEN__N
};

/* These are never made by merges, and are found in text only where the caller asks for it. */
static bool kind_is_special(enum token_kind kind)
{
    return kind == TOKEN_UNKNOWN || kind == TOKEN_CONTROL || kind == TOKEN_USER_DEFINED;
}

/* --- reading the file ------------------------------------------------------------------------- */

/* The pre-tokenizer's name decides more than the cutting: what else a family of tokenizers does has
 * no key of its own in the file. */
static int check_kind(struct vocab *v, const struct gguf *g, enum pretok_kind *ret_pre,
                      struct why *why)
{
    struct gguf_str model, pre;
    const char *path = gguf_path(g);
    enum pretok_kind kind;

    if (gguf_get_str(g, "tokenizer.ggml.model", &model) < 0)
        return why_set(why, -EINVAL, "%s: tokenizer.ggml.model is missing or not a string", path);
    if (model.len != 4 || memcmp(model.s, "gpt2", 4) != 0)
        return why_set(why, -ENOTSUP, "%s: tokenizer kind is \"%.*s\"; supported: gpt2", path,
                       (int)(model.len < 64 ? model.len : 64), model.s);
    if (gguf_get_str(g, "tokenizer.ggml.pre", &pre) < 0)
        return why_set(
            why, -ENOTSUP,
            "%s: tokenizer.ggml.pre is missing or not a string; supported: smollm, llama-bpe, "
            "qwen2",
            path);
    for (kind = 0; kind < PRETOK__N; kind++)
        if (strlen(pretok_name(kind)) == pre.len && memcmp(pretok_name(kind), pre.s, pre.len) == 0)
            break;
    if (kind == PRETOK__N)
        return why_set(why, -ENOTSUP,
                       "%s: pre-tokenizer is \"%.*s\"; supported: smollm, llama-bpe, qwen2", path,
                       (int)(pre.len < 64 ? pre.len : 64), pre.s);
    v->ignore_merges = kind == PRETOK_LLAMA3;
    v->nfc = kind == PRETOK_QWEN2; /* a GGUF file has no key for it */
    *ret_pre = kind;
    return 0;
}

/* The byte that code point c stands for in GPT-2's alphabet, which writes every byte as a visible
 * letter: printable Latin-1 as itself, the others as U+0100 and on, in order. -1: not a letter. */
static int letter_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff))
        return (int)c;
    if (c < 0x100)
        return -1;
    c -= 0x100;
    if (c < 0x21)
        return (int)c; /* 00..20 */
    c -= 0x21;
    if (c < 0x22)
        return (int)c + 0x7f; /* 7F..A0 */
    return c == 0x22 ? 0xad : -1;
}

/* Text in GPT-2's alphabet to bytes; ret has room for text.len. false: not in the alphabet. */
static bool decode_letters(struct gguf_str text, uint8_t *ret, size_t *ret_len)
{
    const uint8_t *p = (const uint8_t *)text.s;
    size_t at = 0, n = 0, len;
    int byte;

    while (at < text.len) {
        if (utf8_check(p + at, text.len - at, &len) != UTF8_OK)
            return false;
        byte = letter_byte(utf8_get(p + at, len));
        if (byte < 0)
            return false;
        ret[n++] = (uint8_t)byte;
        at += len;
    }
    *ret_len = n;
    return true;
}

/* An array of strings, or of 32-bit integers: files have them with and without a sign. */
static int get_array(const struct gguf *g, const char *key, bool strings, struct gguf_array *ret,
                     struct why *why)
{
    int r = gguf_get_array(g, key, ret);

    if (r == -ENOENT)
        return why_set(why, -EINVAL, "%s: %s is missing", gguf_path(g), key);
    if (r < 0 ||
        (strings ? ret->kind != GGUF_STRING : ret->kind != GGUF_I32 && ret->kind != GGUF_U32))
        return why_set(why, -EINVAL, "%s: %s is not an array of %s", gguf_path(g), key,
                       strings ? "strings" : "32-bit integers");
    return 0;
}

/* The counts must agree with each other, and with the model's own: an id that the model gives must
 * have a token. */
static int check_counts(const struct gguf *g, const struct gguf_array *texts,
                        const struct gguf_array *kinds, struct why *why)
{
    const char *path = gguf_path(g);
    struct gguf_str arch;
    uint32_t n_vocab;
    char key[64];

    if (texts->n == 0 || texts->n > TOKENS_MAX)
        return why_set(why, -EINVAL, "%s: %llu tokens; supported: 1 to %u", path,
                       (unsigned long long)texts->n, TOKENS_MAX);
    if (kinds->n != texts->n)
        return why_set(why, -EINVAL, "%s: %llu tokens, but tokenizer.ggml.token_type has %llu",
                       path, (unsigned long long)texts->n, (unsigned long long)kinds->n);
    if (gguf_get_str(g, "general.architecture", &arch) < 0)
        return 0; /* a file of a tokenizer alone */
    (void)snprintf(key, sizeof(key), "%.*s.vocab_size", (int)(arch.len < 32 ? arch.len : 32),
                   arch.s);
    if (gguf_get_u32(g, key, &n_vocab) == 0 && n_vocab != texts->n)
        return why_set(why, -EINVAL, "%s: %s is %u, but there are %llu tokens", path, key, n_vocab,
                       (unsigned long long)texts->n);
    return 0;
}

/* `bytes` is where this token's bytes go in v->text. A normal token that is not in GPT-2's letters
 * is kept as it is, for people to read, but no text is encoded to it. */
static int add_token(struct vocab *v, uint32_t id, int32_t kind, struct gguf_str text,
                     uint8_t *bytes, struct why *why, const char *path)
{
    struct vocab_token *t = &v->tokens[id];
    size_t len;

    if (kind < 0 || kind >= TOKEN__N)
        return why_set(why, -EINVAL, "%s: token %u has type %d; known types: 0 to %d", path, id,
                       kind, TOKEN__N - 1);
    if (text.len > TOKEN_LEN_MAX)
        return why_set(why, -EINVAL, "%s: token %u has %zu bytes; supported: up to %u", path, id,
                       text.len, TOKEN_LEN_MAX);
    t->kind = (uint8_t)kind;
    t->literal = kind != TOKEN_NORMAL || !decode_letters(text, bytes, &len);
    if (t->literal) {
        len = text.len;
        memcpy(bytes, text.s, len);
    }
    t->bytes = bytes;
    t->len = (uint32_t)len;
    if (len == 0)
        return 0;
    /* Of equal tokens the first counts, here and in byte_id. */
    if (kind_is_special(t->kind))
        (void)strmap_add(&v->special, bytes, len, id);
    else if (!t->literal)
        (void)strmap_add(&v->normal, bytes, len, id);
    return 0;
}

/* Two passes over the texts: one to know how much room all of them need, so that bytes never move
 * and the maps can borrow them. */
static int read_tokens(struct vocab *v, const struct gguf *g, struct why *why)
{
    struct gguf_array texts, kinds;
    struct gguf_str text;
    size_t pos = 0, n_text = 0;
    int32_t kind;
    uint32_t i;
    int r;

    r = get_array(g, "tokenizer.ggml.tokens", true, &texts, why);
    if (r < 0)
        return r;
    r = get_array(g, "tokenizer.ggml.token_type", false, &kinds, why);
    if (r < 0)
        return r;
    r = check_counts(g, &texts, &kinds, why);
    if (r < 0)
        return r;

    for (i = 0; i < texts.n; i++)
        n_text += gguf_next_str(&texts, &pos).len;
    v->n_tokens = (uint32_t)texts.n;
    v->tokens = calloc(v->n_tokens, sizeof(*v->tokens));
    v->text = malloc(n_text + 1); /* a token's bytes are never more than its text's */
    if (!v->tokens || !v->text || strmap_init(&v->normal, v->n_tokens) < 0 ||
        strmap_init(&v->special, v->n_tokens) < 0)
        return -ENOMEM;

    for (i = 0, pos = 0, n_text = 0; i < v->n_tokens; i++) {
        text = gguf_next_str(&texts, &pos);
        memcpy(&kind, kinds.data + i * sizeof(kind), sizeof(kind));
        r = add_token(v, i, kind, text, v->text + n_text, why, gguf_path(g));
        if (r < 0)
            return r;
        n_text += v->tokens[i].len;
    }
    for (i = 0; i < 256; i++)
        v->byte_id[i] = strmap_find(&v->normal, &(uint8_t){ (uint8_t)i }, 1);
    return 0;
}

/* "left right" in GPT-2's alphabet, which has no space. buf has room for the text. -ENOENT: one of
 * the three is not in the vocabulary; -EINVAL: not two texts. The space is looked for behind the
 * first letter, so neither side is empty at the front. */
static int add_merge(struct vocab *v, uint32_t rank, struct gguf_str text, uint8_t *buf)
{
    const char *space = text.len ? memchr(text.s + 1, ' ', text.len - 1) : NULL;
    struct gguf_str left, right;
    size_t n_left, n_right;
    uint32_t a, b, both;

    if (!space)
        return -EINVAL;
    left = (struct gguf_str){ text.s, (size_t)(space - text.s) };
    right = (struct gguf_str){ space + 1, text.len - left.len - 1 };
    if (!decode_letters(left, buf, &n_left) || !decode_letters(right, buf + n_left, &n_right))
        return -EINVAL;
    a = strmap_find(&v->normal, buf, n_left);
    b = strmap_find(&v->normal, buf + n_left, n_right);
    both = strmap_find(&v->normal, buf, n_left + n_right);
    if (a == VOCAB_NONE || b == VOCAB_NONE || both == VOCAB_NONE)
        return -ENOENT;
    (void)bpe_add(&v->bpe, a, b, rank, both); /* a pair that comes twice keeps its first rank */
    return 0;
}

/* buf has room for twice the longest token. */
static int add_merges(struct vocab *v, const struct gguf *g, const struct gguf_array *merges,
                      uint8_t *buf, struct why *why)
{
    struct gguf_str text;
    size_t pos = 0;
    uint32_t i;
    int r;

    for (i = 0; i < merges->n; i++) {
        text = gguf_next_str(merges, &pos);
        r = text.len <= 2 * TOKEN_LEN_MAX ? add_merge(v, i, text, buf) : -EINVAL;
        if (r < 0)
            return why_set(why, -EINVAL, "%s: merge %u, \"%.*s\", %s", gguf_path(g), i,
                           (int)(text.len < 80 ? text.len : 80), text.s,
                           r == -ENOENT ? "uses or makes a token that is not in the vocabulary"
                                        : "is not two tokens separated by a space");
    }
    return 0;
}

static int read_merges(struct vocab *v, const struct gguf *g, struct why *why)
{
    struct gguf_array merges;
    uint8_t *buf;
    int r;

    r = get_array(g, "tokenizer.ggml.merges", true, &merges, why);
    if (r < 0)
        return r;
    if (merges.n > TOKENS_MAX)
        return why_set(why, -EINVAL, "%s: %llu merges; supported: up to %u", gguf_path(g),
                       (unsigned long long)merges.n, TOKENS_MAX);
    buf = malloc(2 * TOKEN_LEN_MAX);
    if (!buf || bpe_init(&v->bpe, (uint32_t)merges.n) < 0) {
        free(buf);
        return -ENOMEM;
    }
    r = add_merges(v, g, &merges, buf, why);
    free(buf);
    return r;
}

/* A key that is missing is no error: VOCAB_NONE. */
static int get_id(const struct vocab *v, const struct gguf *g, const char *key, uint32_t *ret,
                  struct why *why)
{
    int r = gguf_get_u32(g, key, ret);

    if (r == -ENOENT) {
        *ret = VOCAB_NONE;
        return 0;
    }
    if (r < 0)
        return why_set(why, -EINVAL, "%s: %s is not a token id", gguf_path(g), key);
    if (*ret >= v->n_tokens)
        return why_set(why, -EINVAL, "%s: %s is %u, but there are %u tokens", gguf_path(g), key,
                       *ret, v->n_tokens);
    return 0;
}

/* What ends an answer. Files name one or two ids; models end turns by others besides, which are
 * known by their text (and only as control tokens: a normal token of this text is text). */
static int read_ids(struct vocab *v, const struct gguf *g, struct why *why)
{
    static const char *const eog_keys[] = { "tokenizer.ggml.eos_token_id",
                                            "tokenizer.ggml.eot_token_id",
                                            "tokenizer.ggml.eom_token_id" };
    static const char *const eog_texts[] = { "<|im_end|>", "<|eot_id|>", "<|end_of_text|>",
                                             "<|endoftext|>", "<|eom_id|>" };
    uint32_t id;
    size_t i;
    int r;

    for (i = 0; i < sizeof(eog_keys) / sizeof(*eog_keys); i++) {
        r = get_id(v, g, eog_keys[i], &id, why);
        if (r < 0)
            return r;
        if (id != VOCAB_NONE)
            v->tokens[id].eog = true;
    }
    for (i = 0; i < sizeof(eog_texts) / sizeof(*eog_texts); i++) {
        id = strmap_find(&v->special, (const uint8_t *)eog_texts[i], strlen(eog_texts[i]));
        if (id != VOCAB_NONE && v->tokens[id].kind == TOKEN_CONTROL)
            v->tokens[id].eog = true;
    }
    return get_id(v, g, "tokenizer.ggml.bos_token_id", &v->bos, why);
}

static int read_add_bos(struct vocab *v, const struct gguf *g, enum pretok_kind pre,
                        struct why *why)
{
    int r = gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos);

    /* Early Llama 3 files lack the key, and their models want it. */
    if (r == -ENOENT)
        v->add_bos = pre == PRETOK_LLAMA3;
    else if (r < 0)
        return why_set(why, -EINVAL, "%s: tokenizer.ggml.add_bos_token is not a boolean",
                       gguf_path(g));
    v->add_bos = v->add_bos && v->bos != VOCAB_NONE;
    return 0;
}

/* --- tables made from it ---------------------------------------------------------------------- */

static int compare_lens(const void *a, const void *b)
{
    return *(const uint16_t *)b - *(const uint16_t *)a;
}

/* A special token at a place is found by one table look-up for each length there is. The lengths
 * are few (a dozen), and special_first spares nearly every byte of a text the look-ups. */
static int index_specials(struct vocab *v)
{
    const struct vocab_token *t;
    uint32_t i, n = 0;

    v->special_lens = malloc((v->special.n + 1) * sizeof(*v->special_lens));
    if (!v->special_lens)
        return -ENOMEM;
    for (i = 0; i < v->n_tokens; i++) {
        t = &v->tokens[i];
        if (!kind_is_special(t->kind) || strmap_find(&v->special, t->bytes, t->len) != i)
            continue;
        v->special_first[t->bytes[0]] = true;
        v->special_lens[n++] = (uint16_t)t->len;
    }
    qsort(v->special_lens, n, sizeof(*v->special_lens), compare_lens);
    for (i = 0; i < n; i++)
        if (i == 0 || v->special_lens[i] != v->special_lens[i - 1])
            v->special_lens[v->n_special_lens++] = v->special_lens[i];
    return 0;
}

int vocab_merge(const struct vocab *v, struct bpe_scratch *s, const uint8_t *p, size_t len,
                uint32_t *ids, size_t *ret_n, size_t *lost)
{
    size_t i, n = 0;

    for (i = 0; i < len; i++)
        if (v->byte_id[p[i]] != VOCAB_NONE)
            ids[n++] = v->byte_id[p[i]];
    *lost += len - n;
    return bpe_merge(&v->bpe, s, ids, n, ret_n);
}

/* Most pre-tokens of a text are one token. Which tokens the merges make out of their own bytes is
 * found out here, once, so that such a pre-token costs one look-up. With ignore_merges every token
 * is taken as it stands, so all of them are words. */
static int mark_words(struct vocab *v)
{
    struct bpe_scratch scratch = { 0 };
    uint32_t *ids = malloc(BPE_MAX * sizeof(*ids)), i;
    size_t n, lost;
    int r = ids ? 0 : -ENOMEM;

    for (i = 0; i < v->n_tokens && r == 0; i++) {
        struct vocab_token *t = &v->tokens[i];

        if (t->len == 0 || t->len > BPE_MAX || strmap_find(&v->normal, t->bytes, t->len) != i)
            continue;
        if (v->ignore_merges) {
            t->word = true;
            continue;
        }
        lost = 0;
        r = vocab_merge(v, &scratch, t->bytes, t->len, ids, &n, &lost);
        t->word = r == 0 && lost == 0 && n == 1 && ids[0] == i;
    }
    bpe_scratch_fini(&scratch);
    free(ids);
    return r;
}

/* -ENOMEM alone has no sentence yet when it comes here; why_set keeps the first one. */
int vocab_open(const struct gguf *g, struct vocab **ret, struct why *why)
{
    struct vocab *v = calloc(1, sizeof(*v));
    enum pretok_kind pre = PRETOK__N;
    int r;

    if (!v)
        return why_set(why, -ENOMEM, "%s: not enough memory for the vocabulary", gguf_path(g));
    r = check_kind(v, g, &pre, why);
    if (r == 0)
        r = read_tokens(v, g, why);
    if (r == 0)
        r = read_merges(v, g, why);
    if (r == 0)
        r = read_ids(v, g, why);
    if (r == 0)
        r = read_add_bos(v, g, pre, why);
    if (r == 0)
        r = index_specials(v);
    if (r == 0)
        r = mark_words(v);
    if (r == 0)
        r = pretok_new(pre, true, &v->pretok);
    if (r < 0) {
        vocab_close(v);
        return why_set(why, r, "%s: not enough memory for the vocabulary", gguf_path(g));
    }
    *ret = v;
    return 0;
}

void vocab_close(struct vocab *v)
{
    if (!v)
        return;
    pretok_free(v->pretok);
    bpe_fini(&v->bpe);
    strmap_fini(&v->normal);
    strmap_fini(&v->special);
    free(v->special_lens);
    free(v->tokens);
    free(v->text);
    free(v);
}

/* --- looking at it ---------------------------------------------------------------------------- */

uint32_t vocab_size(const struct vocab *v)
{
    return v->n_tokens;
}

uint32_t vocab_bos(const struct vocab *v)
{
    return v->bos;
}

bool vocab_add_bos(const struct vocab *v)
{
    return v->add_bos;
}

bool vocab_is_nfc(const struct vocab *v)
{
    return v->nfc;
}

bool vocab_is_eog(const struct vocab *v, uint32_t id)
{
    return id < v->n_tokens && v->tokens[id].eog;
}

bool vocab_is_special(const struct vocab *v, uint32_t id)
{
    return id < v->n_tokens && kind_is_special(v->tokens[id].kind);
}

uint32_t vocab_find(const struct vocab *v, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    uint32_t id = strmap_find(&v->special, p, len);

    return id != VOCAB_NONE ? id : strmap_find(&v->normal, p, len);
}

const uint8_t *vocab_bytes(const struct vocab *v, uint32_t id, size_t *ret_len)
{
    assert(id < v->n_tokens);
    *ret_len = v->tokens[id].len;
    return v->tokens[id].bytes;
}
