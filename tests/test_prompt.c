/* tests/test_prompt.c - where a question stands at the end of a long text. Would catch: a
 * template's words or a whole book that are taken for the question; one that is cut; ids before the
 * first.
 */
#include "daemon/prompt.h"
#include "tests/support/encoded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL "tests/data/tiny_smollm2.gguf"
#define MAX   8192u

static struct vocab *vocab;
static uint32_t ids[MAX];
static char text[MAX], words[2048];

/* The text of the ids that are taken for the prompt. */
static const char *prompt_of(const char *all)
{
    static char ret[MAX];
    int n = encoded_ids(vocab, all, true, ids, MAX);
    uint32_t len = prompt_len(vocab, ids, (uint32_t)n);
    size_t at = 0;

    assert_in_range(len, 1, n);
    for (uint32_t i = (uint32_t)n - len; i < (uint32_t)n; i++) {
        size_t n_bytes;
        const uint8_t *bytes = vocab_bytes(vocab, ids[i], &n_bytes);

        memcpy(ret + at, bytes, n_bytes);
        at += n_bytes;
    }
    ret[at] = '\0';
    return ret;
}

static const char *joined(const char *a, const char *b, const char *c)
{
    (void)snprintf(text, sizeof(text), "%s%s%s", a, b, c);
    return text;
}

static void last_message(void **state)
{
    static const char head[] = "<|im_end|>\n<|im_start|>assistant\n";

    (void)state;
    assert_string_equal(prompt_of(joined("<|im_start|>user\n", words,
                                         "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
                                         "<|im_start|>assistant\n")),
                        "user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
    /* A text and the question in one message. */
    assert_string_equal(
        prompt_of(joined(words, "\n\nWho had the key of the old mill?\nBe short.", head)),
        "Who had the key of the old mill?\nBe short.<|im_end|>\n<|im_start|>assistant\n");
}

static void plain_text(void **state)
{
    (void)state;
    assert_string_equal(prompt_of(joined(words, "\n\n", "Who had the key of the old mill?\n")),
                        "Who had the key of the old mill?\n");
    assert_string_equal(prompt_of(joined(words, "\n \n", "Question: who had the key?\n\nAnswer:")),
                        "Question: who had the key?\n\nAnswer:");
}

/* Nothing says where it begins. */
static void only_text(void **state)
{
    int n = encoded_ids(vocab, words, false, ids, MAX);

    (void)state;
    assert_in_range(n, 500, MAX);
    assert_int_equal(prompt_len(vocab, ids, (uint32_t)n), PROMPT_DEFAULT + 1); /* and a space */
    assert_int_equal(prompt_len(vocab, ids, 30), 30);
    assert_int_equal(prompt_len(vocab, ids, 0), 0);
    n = encoded_ids(vocab, "<|im_start|><|im_end|>\n", true, ids, MAX);
    assert_int_equal(prompt_len(vocab, ids, (uint32_t)n), n);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(last_message),
                                        cmocka_unit_test(plain_text), cmocka_unit_test(only_text) };
    struct why why = { "" };
    struct gguf *g;
    int r;

    if (gguf_open(MODEL, &g, &why) < 0 || vocab_open(g, &vocab, &why) < 0) {
        (void)fprintf(stderr, "%s\n", why.text);
        return 1;
    }
    gguf_close(g);
    for (size_t i = 0; i + 12 < sizeof(words); i += strlen(words + i))
        (void)snprintf(words + i, sizeof(words) - i, "word%zu the ", i);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_close(vocab);
    return r;
}
