/* Patterns are compiled once a model, and matched anchored at the place where a pre-token begins:
 * the whole text is cut by asking again and again. Text was checked to be UTF-8 by the caller, so
 * PCRE2 does not check it anew at every place. */
#include "engine/text/pretok.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* White_Space: \p{Z} and these controls. Used inside brackets. */
#define WS "\\t-\\r\\x{85}\\p{Z}"

/* Quantifiers are possessive where giving back could never help: the same matches, no backtracking.
 *
 * smollm is two passes in the published tokenizer: digits are cut out first, then GPT-2's
 * expression runs on what lies between. In one pass a digit is an end of text to the look-ahead,
 * and the alternative of many digits with a space before can't come about. */
static const char *const patterns[PRETOK__N] = {
    [PRETOK_SMOLLM] = "'s|'t|'re|'ve|'m|'ll|'d"
                      "|\\p{N}"
                      "| ?\\p{L}++"
                      "| ?[^" WS "\\p{L}\\p{N}]++"
                      "|[" WS "]+(?![^" WS "\\p{N}])"
                      "|[" WS "]++",
    [PRETOK_LLAMA3] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
                      "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}++"
                      "|\\p{N}{1,3}+"
                      "| ?[^" WS "\\p{L}\\p{N}]++[\\r\\n]*+"
                      "|[" WS "]*[\\r\\n]++"
                      "|[" WS "]+(?![^" WS "])"
                      "|[" WS "]++",
    [PRETOK_QWEN2] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
                     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}++"
                     "|\\p{N}"
                     "| ?[^" WS "\\p{L}\\p{N}]++[\\r\\n]*+"
                     "|[" WS "]*[\\r\\n]++"
                     "|[" WS "]+(?![^" WS "])"
                     "|[" WS "]++",
};

static const char *const names[PRETOK__N] = {
    [PRETOK_SMOLLM] = "smollm",
    [PRETOK_LLAMA3] = "llama-bpe",
    [PRETOK_QWEN2] = "qwen2",
};

struct pretok {
    pcre2_code *code;
    bool jit;
};

struct pretok_scratch {
    pcre2_match_data *match;
    pcre2_match_context *ctx; /* for the interpreter, without its limits */
};

const char *pretok_name(enum pretok_kind kind)
{
    assert(kind < PRETOK__N);
    return names[kind];
}

/* Without machine code p->jit is false, which is no error: the interpreter does the same. */
int pretok_new(enum pretok_kind kind, bool jit, struct pretok **ret)
{
    struct pretok *p;
    PCRE2_SIZE at;
    int err;

    assert(kind < PRETOK__N);
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->code = pcre2_compile((PCRE2_SPTR)patterns[kind], PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &err, &at, NULL);
    if (!p->code) {
        assert(err == PCRE2_ERROR_HEAP_FAILED || !"a pattern of ours does not compile");
        pretok_free(p);
        return -ENOMEM;
    }
    p->jit = jit && pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    *ret = p;
    return 0;
}

void pretok_free(struct pretok *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    free(p);
}

int pretok_scratch_new(const struct pretok *p, struct pretok_scratch **ret)
{
    struct pretok_scratch *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->match = pcre2_match_data_create_from_pattern(p->code, NULL);
    s->ctx = pcre2_match_context_create(NULL);
    if (!s->match || !s->ctx) {
        pretok_scratch_free(s);
        return -ENOMEM;
    }
    /* Limits guard against expressions that explode. Ours look at each character of a pre-token a
     * bounded number of times, and a megabyte of spaces is no reason to fail. */
    (void)pcre2_set_match_limit(s->ctx, UINT32_MAX);
    (void)pcre2_set_depth_limit(s->ctx, UINT32_MAX);
    (void)pcre2_set_heap_limit(s->ctx, UINT32_MAX);
    *ret = s;
    return 0;
}

void pretok_scratch_free(struct pretok_scratch *s)
{
    if (!s)
        return;
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->ctx);
    free(s);
}

/* Machine code has a stack of fixed size, and a long pre-token may not fit: then the interpreter,
 * which takes memory as it needs it, does that one. */
int pretok_next(const struct pretok *p, struct pretok_scratch *s, const uint8_t *text, size_t len,
                size_t *ret_len)
{
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(s->match);
    int r = PCRE2_ERROR_JIT_STACKLIMIT;

    if (p->jit)
        r = pcre2_jit_match(p->code, text, len, 0, PCRE2_NO_UTF_CHECK, s->match, s->ctx);
    if (r < 0)
        r = pcre2_match(p->code, text, len, 0, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->match, s->ctx);
    if (r < 0) {
        assert(r != PCRE2_ERROR_NOMATCH); /* P1: a fact about our patterns, whatever the text */
        return -ENOMEM;
    }
    *ret_len = span[1];
    return 0;
}
