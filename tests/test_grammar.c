/* tests/test_grammar.c - would catch: a text that a grammar has and its automaton does not, or the
 * reverse; a mask with a token too many or too few, in any place that a text can stand in; an end
 * of turn inside of a text; a stack that grows with a list; a hostile grammar that is compiled for
 * ever, or refused without a reason. With GISTD_TEST_MODEL masks are compared on its vocabulary,
 * too. */
#include "engine/text/gbnf.h"
#include "engine/text/mask.h"
#include "tests/support/built_vocab.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct vocab *vocab; /* the bytes, and a few merges of them */
static struct trie *trie;

static struct grammar *compiled(const char *text)
{
    struct why why = { "" };
    struct grammar *g = NULL;

    if (gbnf_compile(text, strlen(text), &g, &why) < 0)
        fail_msg("%s: %s", text, why.text);
    return g;
}

/* 1: a text of the grammar, 0: the beginning of one, -1: neither. */
static int reads(const struct grammar *g, const char *text)
{
    static struct match m[1];
    int r;

    match_start(m, g);
    r = match_push(m, (const uint8_t *)text, strlen(text));
    assert_int_not_equal(r, -E2BIG);
    r = r < 0 ? -1 : m->ends;
    return r;
}

/* --- texts ------------------------------------------------------------------------------------ */

static const struct {
    const char *grammar, *yes[6], *part[6], *no[8];
} cases[] = {
    { "root ::= \"yes\" | \"no\"", { "yes", "no" }, { "", "y", "ye" }, { "ya", "yess", "noo" } },
    { "root ::= [a-c]+ \"!\"?  # a comment\n",
      { "a", "abc", "ccc!" },
      { "" },
      { "!", "d", "a!!" } },
    { "root ::= x{2,3} y{2} z{1,}\nx ::= \"x\"\ny ::= \"y\"\nz ::= \"z\"",
      { "xxyyz", "xxxyyzzz" },
      { "x", "xx", "xxxy" },
      { "xxxx", "xyy", "xxyz" } },
    { "root ::= \"(\" root \")\" | \"\"",
      { "", "()", "((()))" },
      { "(", "((" },
      { ")", "())", "(]" } },
    { "root ::= item (\",\" item)*\nitem ::= [0-9] item | [0-9]",
      { "1", "12,3,456" },
      { "1,", "" },
      { ",", "1,,", "a" } },
    { "root ::= [^a\\n]",
      { "b", "\xc3\xa9", "\xf0\x9f\xa6\x99", "\xed\x9f\xbf" },
      { "", "\xc3", "\xf0\x9f\xa6" },
      { "a", "\n", "\x80", "\xc0", "\xed\xa0", "\xf4\x90", "\xff" } },
    { "root ::= .",
      { "\x01", "\xe0\xa0\x80", "\xf4\x8f\xbf\xbf" },
      { "\xe0" },
      { "\xe0\x80", "\xf5" } },
    { "root ::= [\\u00e9-\\u4e2d]",
      { "\xc3\xa9", "\xe4\xb8\xad", "\xdf\xbf", "\xe0\xa0\x80", "\xe1\x80\x80" },
      { "\xc3" },
      { "\xc3\xa8", "\xe4\xb8\xae", "\xe4\xb9", "e" } },
    { "root ::= [\\U0001F600-\\U0001F64F] | \"\\x41\\\"\\\\\"",
      { "\xf0\x9f\x98\x80", "\xf0\x9f\x99\x8f", "A\"\\" },
      { "\xf0\x9f\x98" },
      { "\xf0\x9f\x99\x90", "\xf0\x9f\x97", "B" } },
    { "root ::= (\n  \"a\" |\n  \"b\"\n)\n", { "a", "b" }, { "" }, { "c" } },
    { "root ::= \"a\"\n  | \"b\" |\n \"c\"\n\nother ::= \"d\"",
      { "a", "b", "c" },
      { "" },
      { "d" } },
    { "root ::= [a\\]^-]+", { "a]^-" }, { "" }, { "b", "\\" } },
    { "root ::= ws \"a\" ws ws\nws ::= \" \"*",
      { "a", "  a ", " a  " },
      { "", " " },
      { "b", "a b" } },
    { "root ::= (ws \"x\"?)* \"y\"\nws ::= \" \"?",
      { "y", "xx y", " x x y" },
      { "", "x " },
      { "z" } },
    /* ambiguous: both rules read the same */
    { "root ::= a | b\na ::= \"x\" a \"y\" | \"z\"\nb ::= \"x\" b \"y\" | \"z\"",
      { "z", "xzy", "xxzyy" },
      { "x", "xxz" },
      { "y", "xzyy" } },
    /* a character cut by alternatives */
    { "root ::= \"\xc3\xa9\" | \"\xc3\xa8\" \"!\"",
      { "\xc3\xa9", "\xc3\xa8!" },
      { "\xc3" },
      { "\xc3\xaa" } },
};

static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct grammar *g = compiled(cases[i].grammar);

        for (size_t k = 0; k < 6 && cases[i].yes[k]; k++)
            if (reads(g, cases[i].yes[k]) != 1)
                fail_msg("%s: not \"%s\"", cases[i].grammar, cases[i].yes[k]);
        for (size_t k = 0; k < 6 && cases[i].part[k]; k++)
            if (reads(g, cases[i].part[k]) !=
                (strcmp(cases[i].part[k], "") == 0 && reads(g, "") == 1))
                fail_msg("%s: not the part \"%s\"", cases[i].grammar, cases[i].part[k]);
        for (size_t k = 0; k < 8 && cases[i].no[k]; k++)
            if (reads(g, cases[i].no[k]) != -1)
                fail_msg("%s: but \"%s\"", cases[i].grammar, cases[i].no[k]);
        grammar_free(g);
    }
}

/* Every character, by its bytes, is in just the class that it is in. */
static void test_every_character(void **state)
{
    struct grammar *g = compiled("root ::= [\\u0041-\\u007e\\u0100-\\u08ff\\uabcd-\\U00012345]");
    static struct match m[1];
    uint8_t bytes[4];

    (void)state;
    match_start(m, g);
    for (uint32_t c = 0; c < 0x110000; c++) {
        bool in =
            (c >= 0x41 && c <= 0x7e) || (c >= 0x100 && c <= 0x8ff) || (c >= 0xabcd && c <= 0x12345);
        size_t n = 0;

        if (c >= 0xd800 && c < 0xe000) { /* as they would be written, if they were characters */
            memcpy(bytes, (uint8_t[]){ 0xed, (uint8_t)(0x80 | (c >> 6 & 63)), 0x80 | (c & 63) }, 3);
            n = 3;
            in = false;
        } else if (c < 0x80) {
            bytes[n++] = (uint8_t)c;
        } else if (c < 0x800) {
            bytes[n++] = (uint8_t)(0xc0 | c >> 6);
            bytes[n++] = (uint8_t)(0x80 | (c & 63));
        } else {
            if (c >= 0x10000)
                bytes[n++] = (uint8_t)(0xf0 | c >> 18);
            bytes[n] = (uint8_t)(c >= 0x10000 ? 0x80 | (c >> 12 & 63) : 0xe0 | c >> 12);
            n++;
            bytes[n++] = (uint8_t)(0x80 | (c >> 6 & 63));
            bytes[n++] = (uint8_t)(0x80 | (c & 63));
        }
        match_start(m, g);
        if ((match_push(m, bytes, n) == 0) != in)
            fail_msg("U+%04X", c);
    }
    grammar_free(g);
    assert_true(true);
}

/* --- errors ----------------------------------------------------------------------------------- */

static const struct {
    const char *grammar, *says;
} refused[] = {
    { "", "no rule named root" },
    { "a ::= \"x\"", "no rule named root" },
    { "root ::= a", "the rule a is used, but not defined" },
    { "root ::= \"x", "line 1, column 12 of the grammar: the line ends inside" },
    { "root ::= \"a\"\nb ::= )", "line 2, column 7 of the grammar: ')' can't stand here" },
    { "root ::= (\"a\"", "a closing parenthesis is missing" },
    { "root \"a\"", "::= is missing" },
    { "root ::= \"\\q\"", "\\q is no escape" },
    { "root ::= \"\\ud800\"", "U+D800 is no character" },
    { "root ::= [z-a]", "ends before it begins" },
    { "root ::= []", "a class of no characters" },
    { "root ::= \"a\"{3,2}", "3 repetitions at least and 2 at most" },
    { "root ::= \"a\"\nroot ::= \"b\"", "defined twice" },
    { "root ::= \"\xff\"", "not UTF-8" },
    { "root ::= root \"a\" | \"b\"", "left recursion" },
    { "root ::= \"a\" b\nb ::= c? d\nc ::= \"c\"\nd ::= b \"x\" | \"y\"", "left recursion" },
    { "root ::= \"a\" root", "no text of it ever ends" },
    { "root ::= \"a\" | b\nb ::= \"b\" b", "nothing can stand for the rule b" },
    { "root ::= \"a\"{20000}", "10000 are allowed" },
    { "root ::= ((\"a\"{0,999}){0,999}){0,999}", "too large" },
    { "root ::= [ab]* \"a\" [ab]{24}", "the grammar" },
    { "root ::= ((\"a\"?){0,3000}){0,3000}", "the grammar" },
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        struct why why = { "" };
        struct grammar *g = NULL;
        int e = gbnf_compile(refused[i].grammar, strlen(refused[i].grammar), &g, &why);

        assert_true(e == -EINVAL || e == -E2BIG);
        assert_null(g);
        if (!strstr(why.text, refused[i].says))
            fail_msg("%s: %s", refused[i].grammar, why.text);
    }
}

/* Long ones: parentheses, rules, bytes. */
static void test_refused_long(void **state)
{
    static char text[GRAMMAR_TEXT_MAX + 100];
    struct why why = { "" };
    struct grammar *g = NULL;
    size_t n;

    (void)state;
    strcpy(text, "root ::= ");
    memset(text + 9, '(', 100000);
    assert_int_equal(gbnf_compile(text, 100009, &g, &why), -EINVAL);
    assert_non_null(strstr(why.text, "more than 64 parentheses"));

    why.text[0] = '\0';
    for (n = 9; n + 8 < sizeof(text);)
        n += (size_t)sprintf(text + n, "r%zx ", n);
    assert_int_equal(gbnf_compile(text, n < GRAMMAR_TEXT_MAX ? n : GRAMMAR_TEXT_MAX, &g, &why),
                     -E2BIG);
    assert_non_null(strstr(why.text, "more than 8192 rules"));

    why.text[0] = '\0';
    assert_int_equal(gbnf_compile(text, GRAMMAR_TEXT_MAX + 1, &g, &why), -E2BIG);
    assert_non_null(strstr(why.text, "are allowed"));
    /* A chain of rules, each of which needs the next: nothing is as deep as it is long. */
    why.text[0] = '\0';
    n = (size_t)sprintf(text, "root ::= r0\n");
    for (unsigned i = 0; i < 8000; i++)
        n += (size_t)sprintf(text + n, "r%u ::= r%u\n", i, i + 1);
    n += (size_t)sprintf(text + n, "r8000 ::= \"a\"");
    assert_int_equal(gbnf_compile(text, n, &g, &why), 0);
    grammar_free(g);
}

/* --- masks ------------------------------------------------------------------------------------ */

static bool bit(const uint64_t *bits, uint32_t id)
{
    return bits[id / 64] >> id % 64 & 1;
}

/* Every token, one by one. */
static void compare(const struct vocab *v, const struct trie *t, const struct match *m,
                    const uint64_t *bits, struct match *copy)
{
    for (uint32_t id = 0; id < vocab_size(v); id++) {
        size_t len;
        const uint8_t *bytes = vocab_bytes(v, id, &len);
        bool can;

        if (vocab_is_eog(v, id)) {
            can = m->ends;
        } else if (vocab_is_special(v, id) || len == 0) {
            can = false;
        } else {
            *copy = *m;
            can = match_push(copy, bytes, len) == 0;
        }
        if (can != bit(bits, id))
            fail_msg("token %u \"%.*s\" %s", id, (int)len, bytes, can ? "is missing" : "is there");
    }
    assert_int_equal(t->n_vocab, vocab_size(v));
}

static const char *const grammars[] = {
    "root ::= \"(\" root \")\" root | \"\"",
    "root ::= v\nv ::= \"[\" (v (\",\" \" \"? v)*)? \"]\" | s | [0-9]+ | \"the\"\n"
    "s ::= \"\\\"\" ([^\"\\\\\\x00-\\x1f] | \"\\\\\" [\"\\\\nt])* \"\\\"\"",
    "root ::= a | b | c\na ::= \"x\" a \"y\" | \"z\"\nb ::= \"x\" b \"y\"? | \"z\"\nc ::= [a-z "
    "\xc3\xa9]*",
    "root ::= w (\" \" w){0,40} \".\"\nw ::= [a-zA-Z]{1,9}",
    "root ::= ([\\u0100-\\uffff] | [^\\x00-\\x7f] \".\"? | \"in\" | \" \")* \"\\n\"",
};

/* Walks through texts of the grammars, a random token of the mask a time. */
static void walk(const struct vocab *v, const struct trie *t, size_t bytes, unsigned steps)
{
    uint64_t *bits = calloc(t->n_words, sizeof(*bits)), asked, made, rng = 7;
    static struct match copy[1], m[1];
    struct masks *k;

    assert_int_equal(masks_new(t, bytes, &k), 0);
    for (size_t i = 0; i < sizeof(grammars) / sizeof(*grammars); i++) {
        struct grammar *g = compiled(grammars[i]);
        unsigned n = 0;

        match_start(m, g);
        while (n++ < steps) {
            uint32_t id = 0;
            size_t len;
            const uint8_t *text;

            assert_int_equal(masks_of(k, m, MASKS_ENDLESS, bits), 0);
            compare(v, t, m, bits, copy);
            do {
                rng = rng * 6364136223846793005u + 1442695040888963407u;
                id = (uint32_t)(rng >> 33) % vocab_size(v);
            } while (!bit(bits, id));
            if (vocab_is_eog(v, id)) {
                match_start(m, g);
                continue;
            }
            text = vocab_bytes(v, id, &len);
            assert_int_equal(match_push(m, text, len), 0);
        }
        grammar_free(g);
    }
    masks_counts(k, &asked, &made);
    assert_true(made > 0 && made <= asked);
    if (bytes > 1 << 20 && steps > 100) /* a few steps come to few states twice */
        assert_true(made < asked / 2);  /* what was tried is kept */
    masks_free(k);
    free(bits);
}

static void test_masks(void **state)
{
    (void)state;
    walk(vocab, trie, 4 << 20, 300);
    walk(vocab, trie, 0, 50); /* four places for states: all give way to others */
}

static void test_masks_of_a_model(void **state)
{
    const char *path = getenv("GISTD_TEST_MODEL");
    struct why why = { "" };
    struct gguf *g;
    struct vocab *v;
    struct trie *t;

    (void)state;
    if (!path) {
        print_message("GISTD_TEST_MODEL is not set\n");
        skip();
    }
    assert_int_equal(gguf_open(path, &g, &why), 0);
    assert_int_equal(vocab_open(g, &v, &why), 0);
    assert_int_equal(trie_new(v, &t), 0);
    walk(v, t, 32 << 20, 4);
    trie_free(t);
    vocab_close(v);
    gguf_close(g);
}

/* Lists that recur at their end need no stack; parentheses do, and get an error instead of more. */
static void test_depth(void **state)
{
    struct grammar *list = compiled("root ::= \"a\" root | \"b\""),
                   *parens = compiled("root ::= \"(\" root \")\" | \"x\"");
    static struct match m[1];
    int e = 0;

    (void)state;
    match_start(m, list);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(match_push(m, (const uint8_t *)"a", 1), 0);
    assert_int_equal(m->n_nodes, 1);
    assert_int_equal(match_push(m, (const uint8_t *)"b", 1), 0);
    assert_true(m->ends);

    match_start(m, parens);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(match_push(m, (const uint8_t *)"(", 1), 0);
    assert_int_equal(match_push(m, (const uint8_t *)"x", 1), 0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_false(m->ends);
        assert_int_equal(match_push(m, (const uint8_t *)")", 1), 0);
    }
    assert_true(m->ends);

    match_start(m, parens);
    for (unsigned i = 0; i < 10000 && e == 0; i++)
        e = match_push(m, (const uint8_t *)"(", 1);
    assert_int_equal(e, -E2BIG);
    assert_non_null(strstr(m->why, "nests deeper"));
    grammar_free(list);
    grammar_free(parens);
}

/* Up and down again, for long: what is not needed any more is given back. */
static void test_stack_is_tidied(void **state)
{
    struct grammar *g = compiled("root ::= (p \",\")* \"!\"\np ::= \"(\" p \")\" | q\n"
                                 "q ::= \"<\" p \">\" | \"x\"");
    static struct match m[1];

    (void)state;
    match_start(m, g);
    for (unsigned i = 0; i < 3000; i++)
        assert_int_equal(match_push(m, (const uint8_t *)"(<((<x>))>),", 12), 0);
    assert_int_equal(match_push(m, (const uint8_t *)"!", 1), 0);
    assert_true(m->ends && m->n_ways == 0);
    grammar_free(g);
}

/* A way doubles with each letter. */
static void test_ambiguous(void **state)
{
    struct grammar *g = compiled("root ::= a\na ::= \"x\" a \"y\" | \"x\" a \"z\" | b\n"
                                 "b ::= \"x\" c | \"w\"\nc ::= a \"1\" | a \"2\" a | a \"3\"");
    uint64_t *bits = calloc(trie->n_words, sizeof(*bits));
    static struct match m[1];
    struct masks *k;
    int e = 0;

    (void)state;
    match_start(m, g);
    assert_int_equal(masks_new(trie, 1 << 20, &k), 0);
    for (unsigned i = 0; i < 64 && e == 0; i++) {
        e = masks_of(k, m, MASKS_ENDLESS, bits);
        if (e == 0)
            e = match_push(m, (const uint8_t *)"x", 1);
    }
    assert_int_equal(e, -E2BIG);
    assert_non_null(strstr(m->why, "ambiguous"));
    masks_free(k);
    grammar_free(g);
    free(bits);
}

/* Each way alone is within its limit; all of them together are what one step waits for. */
static void test_many_slow_ways(void **state)
{
    static char text[32768];
    size_t n = (size_t)sprintf(text, "root ::= r0");
    uint64_t *bits = calloc(trie->n_words, sizeof(*bits));
    struct grammar *g;
    static struct match m[1];
    struct masks *k;

    (void)state;
    for (unsigned i = 1; i < 250; i++)
        n += (size_t)sprintf(text + n, " | r%u", i);
    for (unsigned i = 0; i < 250; i++)
        n += (size_t)sprintf(text + n, "\nr%u ::= \"\\x01\" a \"%u\"", i, i);
    n += (size_t)sprintf(text + n, "\na ::= b0");
    for (unsigned i = 1; i < 60; i++)
        n += (size_t)sprintf(text + n, " | b%u", i);
    for (unsigned i = 0; i < 60; i++)
        n += (size_t)sprintf(text + n, "\nb%u ::= c%u+\nc%u ::= [^\\U000100%02x]", i, i, i, i);
    g = compiled(text);
    match_start(m, g);
    assert_int_equal(masks_new(trie, 1 << 20, &k), 0);
    assert_int_equal(masks_of(k, m, MASKS_ENDLESS, bits), 0);
    assert_int_equal(match_push(m, (const uint8_t *)"\x01", 1), 0);
    assert_int_equal(m->n_ways, 250);
    assert_int_equal(masks_of(k, m, MASKS_ENDLESS, bits), -E2BIG);
    assert_non_null(strstr(m->why, "take too long to find"));
    masks_free(k);
    grammar_free(g);
    free(bits);
}

static void test_apply(void **state)
{
    uint64_t bits[2] = { 1ull << 3 | 1ull << 63, 1 };
    float logits[66];

    (void)state;
    for (int i = 0; i < 66; i++)
        logits[i] = (float)i;
    masks_apply(bits, logits, 66);
    for (int i = 0; i < 66; i++)
        assert_true(i == 3 || i == 63 || i == 64 ? logits[i] == (float)i : logits[i] == -INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),     cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_refused_long),
        cmocka_unit_test(test_masks),     cmocka_unit_test(test_masks_of_a_model),
        cmocka_unit_test(test_depth),     cmocka_unit_test(test_stack_is_tidied),
        cmocka_unit_test(test_ambiguous), cmocka_unit_test(test_many_slow_ways),
        cmocka_unit_test(test_apply),
    };
    int r;

    vocab = built_vocab_tiny();
    if (trie_new(vocab, &trie) < 0)
        return 1;
    r = cmocka_run_group_tests(tests, NULL, NULL);
    trie_free(trie);
    vocab_close(vocab);
    return r;
}
