/* tests/test_callform.c - would catch: an answer that is neither calls nor of the format, or one of
 * them that can't come; arguments that a tool's schema does not allow; a format that a reader takes
 * for calls, and one that is refused though nobody would; an error that does not say where; a tag
 * that can't be the vocabulary's token, or that is one inside of a text. */
#include "engine/text/callform.h"
#include "engine/text/ending.h"
#include "engine/text/mask.h"
#include "tests/support/built_vocab.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct match m[1];

static struct grammar *compiled(const char *text)
{
    struct why why = { "" };
    struct grammar *g = NULL;

    if (callform_compile(text, strlen(text), &g, &why) < 0)
        fail_msg("%s: %s", text, why.text);
    return g;
}

static bool has(const struct grammar *g, const char *text)
{
    bool r;

    match_start(m, g);
    r = match_push(m, (const uint8_t *)text, strlen(text)) == 0 && m->ends;
    assert_int_not_equal(m->err, -E2BIG);
    return r;
}

/* --- texts ------------------------------------------------------------------------------------ */

#define X_INT                                                                                      \
    "{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"integer\"}},\"required\":[\"x\"]}"
#define TOOLS "\"tools\":[{\"name\":\"f\",\"parameters\":" X_INT "},{\"name\":\"g\"}]"
#define F     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>"
#define G                                                                                          \
    "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"a\": [true, "                                \
    "\"</tool_call>\"]}}\n</tool_call>"

static const struct {
    const char *form, *yes[6], *no[9];
} cases[] = {
    { "{\"form\":\"tagged\"," TOOLS ",\"schema\":{\"enum\":[1,\"a\"]}}",
      { "1", "\"a\"", F, G, F "\n" G "\n" F },
      { "", "2", F "\n", F F, "1\n" F, F "\n1", "{\"name\": \"f\", \"arguments\": {\"x\": 1}}",
        "<tool_call>\n{\"name\": \"h\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"1\"}}\n</tool_call>" } },
    { "{\"form\":\"tagged\",\"one\":true," TOOLS ",\"schema\":{\"type\":\"object\"}}",
      { "{}", "{\"name\": \"f\", \"arguments\": {\"x\": 1}}", F, G },
      { "1", F "\n" F } },
    { "{\"form\":\"tagged\"," TOOLS ",\"grammar\":\"root ::= a+\\na ::= \\\"no\\\" | [<] [^t]\"}",
      { "no", "nono<x", F "\n" F },
      { "", "<tool", F "no" } },
    { "{\"form\":\"tagged\"," TOOLS "}", { F, G, F "\n" G }, { "", "1", "{}" } },
    { "{\"form\":\"bare\"," TOOLS ",\"schema\":" X_INT "}",
      { "{\"x\":1}", "{\"name\": \"f\", \"parameters\": {\"x\": 1}}",
        "{\"name\": \"g\", \"parameters\": {}}" },
      { F, "{\"name\": \"f\", \"arguments\": {\"x\": 1}}", "{\"name\":\"g\", \"parameters\": {}}",
        "{\"name\": \"f\", \"parameters\": {}}", "{\"name\": \"g\", \"parameters\": {}}\n" } },
    /* A name alone is no call. */
    { "{\"form\":\"bare\"," TOOLS ",\"schema\":{\"type\":\"object\",\"properties\":{\"name\":{"
      "\"type\":\"string\"},\"age\":{\"type\":\"integer\"}},\"required\":[\"name\",\"age\"]}}",
      { "{\"name\": \"f\", \"age\": 3}", "{\"name\": \"g\", \"parameters\": {\"k\": 1}}" },
      { "{\"name\": \"f\"}" } },
    /* References are to places of the schema that they stand in. */
    { "{\"form\":\"bare\",\"tools\":[{\"name\":\"f\",\"parameters\":{\"$defs\":{\"a\":{\"enum\":[1]"
      "}"
      "},\"type\":\"object\",\"properties\":{\"x\":{\"$ref\":\"#/$defs/"
      "a\"}},\"required\":[\"x\"]}}]"
      ",\"schema\":{\"$defs\":{\"a\":{\"enum\":[2]}},\"type\":\"object\",\"properties\":{\"x\":{"
      "\"$ref\":\"#/$defs/a\"}},\"required\":[\"x\"]}}",
      { "{\"x\": 2}", "{\"name\": \"f\", \"parameters\": {\"x\": 1}}" },
      { "{\"x\": 1}", "{\"name\": \"f\", \"parameters\": {\"x\": 2}}" } },
    { "{\"form\":\"bare\",\"tools\":[{\"name\":\"a/\\u00e9\"}]}",
      { "{\"name\": \"a/\xc3\xa9\", \"parameters\": {}}" },
      { "{\"name\": \"a\\/\xc3\xa9\", \"parameters\": {}}" } },
};

static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct grammar *g = compiled(cases[i].form);

        for (size_t k = 0; k < 6 && cases[i].yes[k]; k++)
            if (!has(g, cases[i].yes[k]))
                fail_msg("%s has no %s", cases[i].form, cases[i].yes[k]);
        for (size_t k = 0; k < 9 && cases[i].no[k]; k++)
            if (has(g, cases[i].no[k]))
                fail_msg("%s has %s", cases[i].form, cases[i].no[k]);
        grammar_free(g);
    }
}

/* --- what is refused -------------------------------------------------------------------------- */

#define APART "nobody could tell which of them an answer is"

static const struct {
    const char *form;
    int err;
    const char *says;
} bad[] = {
    { "{", -EINVAL, "what may be called is not JSON: byte 1" },
    { "[]", -EINVAL, "an object is expected" },
    { "{\"form\":\"tagged\"}", -EINVAL, "\"tools\" is an array of 1 to 128 tools" },
    { "{\"form\":\"tagged\",\"tools\":[]}", -EINVAL, "1 to 128" },
    { "{\"form\":\"xml\"," TOOLS "}", -EINVAL, "\"form\" is \"tagged\" or \"bare\"" },
    { "{" TOOLS "}", -EINVAL, "\"form\" is" },
    { "{\"form\":\"bare\"," TOOLS ",\"two\":1}", -ENOTSUP, "\"two\" is not known" },
    { "{\"form\":\"tagged\"," TOOLS ",\"one\":\"no\"}", -EINVAL, "\"one\" is true or false" },
    { "{\"form\":\"bare\",\"tools\":[1]}", -EINVAL, "a tool: an object" },
    { "{\"form\":\"bare\",\"tools\":[{}]}", -EINVAL, "no name" },
    { "{\"form\":\"bare\",\"tools\":[{\"name\":\"\"}]}", -EINVAL, "no name" },
    { "{\"form\":\"bare\",\"tools\":[{\"name\":\"f\",\"strict\":true}]}", -ENOTSUP, "\"strict\"" },
    { "{\"form\":\"bare\"," TOOLS ",\"schema\":true,\"grammar\":\"root ::= [a]\"}", -EINVAL,
      "a schema and a grammar" },
    { "{\"form\":\"bare\"," TOOLS ",\"grammar\":1}", -EINVAL, "is a string" },
    { "{\"form\":\"tagged\"," TOOLS ",\"grammar\":\"root ::= \\\"a\\\"\\nx ::= ]\"}", -EINVAL,
      "line 2, column 7 of the grammar" },
    { "{\"form\":\"tagged\"," TOOLS ",\"grammar\":\"x ::= [a]\"}", -EINVAL, "no rule named root" },
    { "{\"form\":\"tagged\"," TOOLS ",\"grammar\":\"root ::= y\"}", -EINVAL,
      "the rule y is used, but not defined" },
    { "{\"form\":\"tagged\"," TOOLS ",\"schema\":{\"properties\":{\"a\":{\"not\":{}}}}}", -ENOTSUP,
      "the schema's /properties/a/not: this keyword is not supported" },
    { "{\"form\":\"tagged\",\"tools\":[{\"name\":\"g\"},{\"name\":\"f\",\"parameters\":{"
      "\"properties\":{\"a\":{\"not\":{}}}}}]}",
      -ENOTSUP, "the tool f: the schema's /properties/a/not: this keyword is not supported" },
    { "{\"form\":\"tagged\",\"tools\":[{\"name\":\"f\",\"parameters\":false}]}", -EINVAL,
      "the tool f: the schema: no value is valid" },
    { "{\"form\":\"tagged\",\"tools\":[{\"name\":\"f\"},{\"name\":\"g\",\"parameters\":{\"$ref\":"
      "\"#/$defs/a\",\"$defs\":{\"a\":{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":"
      "\"#/$defs/a\"}}}}}]}",
      -EINVAL, "nothing can stand for the tool g" },
    /* What begins as calls do. */
    { "{\"form\":\"tagged\"," TOOLS ",\"grammar\":\"root ::= [^x]*\"}", -ENOTSUP, APART },
    { "{\"form\":\"tagged\"," TOOLS ",\"grammar\":\"root ::= \\\"<tool_call>\\\" [ab]\"}", -ENOTSUP,
      "begin with <tool_call>" },
    { "{\"form\":\"bare\"," TOOLS ",\"schema\":{\"type\":\"object\"}}", -ENOTSUP, APART },
    { "{\"form\":\"bare\"," TOOLS ",\"schema\":{\"type\":\"object\",\"properties\":{\"name\":{"
      "\"type\":\"string\"},\"parameters\":{\"type\":\"integer\"}}}}",
      -ENOTSUP, "begin with {\"name\": \"f\", \"parameters\": , as" },
    { "{\"form\":\"bare\"," TOOLS ",\"grammar\":\"root ::= .*\"}", -ENOTSUP, APART },
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct why why = { "" };
        struct grammar *g = NULL;
        int e = callform_compile(bad[i].form, strlen(bad[i].form), &g, &why);

        if (e != bad[i].err || !strstr(why.text, bad[i].says))
            fail_msg("%s: %d: %s", bad[i].form, e, why.text);
        assert_null(g);
    }
}

static void test_limits(void **state)
{
    struct why why = { "" }, other = { "" };
    struct grammar *g = NULL;
    static char text[CALLFORM_TOOLS_MAX * 64 + 1024];
    size_t n = (size_t)sprintf(text, "{\"form\":\"tagged\",\"tools\":[");

    (void)state;
    for (unsigned i = 0; i < CALLFORM_TOOLS_MAX; i++)
        n += (size_t)sprintf(text + n,
                             "%s{\"name\":\"f%u\",\"parameters\":"
                             "{\"type\":\"object\"}}",
                             i ? "," : "", i);
    strcpy(text + n, "],\"schema\":{\"type\":\"array\"}}");
    g = compiled(text);
    assert_true(has(g, "<tool_call>\n{\"name\": \"f127\", \"arguments\": {}}\n</tool_call>"));
    assert_true(has(g, "[1]"));
    grammar_free(g);
    g = NULL;
    strcpy(text + n, ",{\"name\":\"more\"}]}");
    assert_int_equal(callform_compile(text, strlen(text), &g, &why), -EINVAL);
    n = (size_t)sprintf(text, "{\"form\":\"bare\",\"tools\":[{\"name\":\"");
    memset(text + n, 'x', 600);
    strcpy(text + n + 600, "\"}]}");
    assert_int_equal(callform_compile(text, strlen(text), &g, &other), -E2BIG);
    assert_non_null(strstr(other.text, "the name is too long"));
    assert_null(g);
}

/* A format that follows 120 ways through the head of each of 128 tools, and then is none of them.
 */
static void test_too_ambiguous(void **state)
{
    static char text[128 * 1024];
    struct why why = { "" };
    struct grammar *g = NULL;
    size_t n = (size_t)sprintf(text, "{\"form\":\"bare\",\"tools\":[");

    (void)state;
    for (unsigned i = 0; i < CALLFORM_TOOLS_MAX; i++)
        n += (size_t)sprintf(text + n, "%s{\"name\":\"%0440u\"}", i ? "," : "", i);
    n += (size_t)sprintf(text + n, "],\"grammar\":\"d ::= [^:!?]\\nroot ::= d* \\\":\\\" (r0");
    for (unsigned i = 1; i < 120; i++)
        n += (size_t)sprintf(text + n, "|r%u", i);
    n += (size_t)sprintf(text + n, ")");
    for (unsigned i = 0; i < 120; i++)
        n += (size_t)sprintf(text + n, "\\nr%u ::= d* \\\"!%u\\\"", i, i);
    strcpy(text + n, "\"}");
    assert_int_equal(callform_compile(text, strlen(text), &g, &why), -E2BIG);
    assert_non_null(strstr(why.text, "too long to tell from calls"));
    assert_null(g);
}

/* --- tags as tokens --------------------------------------------------------------------------- */

enum { OPEN, CLOSE, END, CHARS };

/* One token for each printable character, a line break and a blank, and the two tags. */
static struct vocab *tagged_vocab(void)
{
    static const char *const special[] = { "<tool_call>", "</tool_call>", "<|im_end|>" };
    struct gguf_build *b = gguf_build_new(3);
    const char *tokens[128];
    char letters[128][2];
    int32_t kinds[128];
    struct why why = { "" };
    struct vocab *v;
    size_t n = 0;

    for (; n < CHARS; n++) {
        tokens[n] = special[n];
        kinds[n] = n == END ? 3 : 4; /* control, user-defined */
    }
    for (char c = '!'; c <= '~'; c++, n++) {
        letters[n][0] = c;
        letters[n][1] = '\0';
        tokens[n] = letters[n];
        kinds[n] = 1;
    }
    tokens[n] = "\xc4\xa0"; /* a blank, */
    kinds[n++] = 1;
    tokens[n] = "\xc4\x8a"; /* and a line break */
    kinds[n++] = 1;
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_str(b, "tokenizer.ggml.pre", "qwen2");
    gguf_build_str_array(b, "tokenizer.ggml.tokens", tokens, n);
    gguf_build_i32_array(b, "tokenizer.ggml.token_type", kinds, n);
    gguf_build_str_array(b, "tokenizer.ggml.merges", tokens, 0);
    if (built_vocab_open(b, &v, &why) < 0)
        fail_msg("%s", why.text);
    gguf_build_free(b);
    return v;
}

static void push(const char *text)
{
    assert_int_equal(match_push(m, (const uint8_t *)text, strlen(text)), 0);
}

static uint64_t may_come(struct masks *k)
{
    uint64_t bits[2];

    assert_int_equal(masks_of(k, m, MASKS_ENDLESS, bits), 0);
    return bits[0] & ((1u << CHARS) - 1);
}

static void test_tags(void **state)
{
    struct grammar *g =
        compiled("{\"form\":\"tagged\"," TOOLS ",\"schema\":{\"type\":\"string\"}}");
    struct vocab *v = tagged_vocab();
    struct masks *k;
    struct trie *t;

    (void)state;
    assert_int_equal(trie_new(v, &t), 0);
    assert_int_equal(masks_new(t, 1 << 20, &k), 0);
    assert_int_equal(ending_measure(g, t), 0);
    match_start(m, g);
    assert_in_range(match_left(m), 2, 2); /* two quotes */
    assert_int_equal(may_come(k), 1u << OPEN);
    push("\"");
    assert_int_equal(may_come(k), 0);
    push("<tool_call>");
    assert_int_equal(may_come(k), 0);
    push("\"");
    assert_int_equal(may_come(k), 1u << END);

    match_start(m, g);
    push("\xff<tool_call>");
    assert_int_equal(may_come(k), 0);
    push("\n{\"name\": \"g\", \"arguments\": {\"a\": \"");
    assert_int_equal(may_come(k), 0);
    push("\"}}\n");
    assert_int_equal(may_come(k), 1u << CLOSE);
    push("\xff</tool_call>");
    assert_int_equal(may_come(k), 1u << END);
    push("\n");
    assert_int_equal(may_come(k), 1u << OPEN);
    masks_free(k);
    trie_free(t);
    vocab_close(v);
    grammar_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_too_ambiguous),
        cmocka_unit_test(test_tags),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
