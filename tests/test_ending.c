/* tests/test_ending.c - answers that end in the tokens that they have. Would catch: a mask that
 * lets a text go where it can't be ended any more, or that leaves out what can; a number of tokens
 * that is too small, or for single bytes too large; a corner of the grammar that the vocabulary
 * can't leave.
 *
 * Random grammars over two letters, as expressions and as GBNF. Which texts they have is found by
 * trying all of up to LONGEST letters on the expressions, in the plainest way. */
#include "engine/text/ending.h"
#include "engine/text/gbnf.h"
#include "engine/text/mask.h"
#include "engine/text/schema.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    LONGEST = 8,
    TEXTS = 2 << LONGEST,
    RULES = 3,
    NODES = 60,
    GRAMMARS = SANITIZED ? 300 : 2000
};

/* --- expressions ------------------------------------------------------------------------------ */

enum kind { LETTERS, SEQ, ANY_OF, REPEAT, CALL, N_KINDS };
struct node {
    enum kind kind;
    char text[5]; /* LETTERS: one after the other, "?" is any */
    int a, b;     /* nodes; CALL: a rule */
    int min, max; /* REPEAT; -1: no end */
};
static struct node nodes[NODES];
static int n_nodes, bodies[RULES];
static uint64_t rng;

static uint32_t draw(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

static int make_node(int depth)
{
    int at = n_nodes++;
    struct node *x = &nodes[at];

    assert_true(at < NODES);
    x->kind = depth == 0 ? LETTERS : (enum kind)draw(N_KINDS);
    if (x->kind == LETTERS) {
        size_t n = draw(8) == 0 ? 0 : 1 + draw(3);

        for (size_t i = 0; i < n; i++)
            x->text[i] = "ab?"[draw(3)];
        x->text[n] = '\0';
    } else if (x->kind == CALL) {
        x->a = (int)draw(RULES);
    } else {
        int a = make_node(depth - 1), b = x->kind == REPEAT ? 0 : make_node(depth - 1);

        x->a = a;
        x->b = b;
        x->min = (int)draw(4);
        x->max = draw(2) ? -1 : x->min + (int)draw(3);
        if (x->max == 0)
            x->max = 1;
    }
    return at;
}

static char *put_node(char *to, int at)
{
    const struct node *x = &nodes[at];

    if (x->kind == CALL)
        return to + sprintf(to, "%s", x->a == 0 ? "root" : x->a == 1 ? "r-one" : "r-two");
    *to++ = '(';
    if (x->kind == LETTERS && !x->text[0])
        to += sprintf(to, "\"\"");
    for (const char *p = x->text; x->kind == LETTERS && *p; p++)
        to += sprintf(to, *p == '?' ? "[ab] " : "\"%c\" ", *p);
    if (x->kind != LETTERS)
        to = put_node(to, x->a);
    if (x->kind == SEQ || x->kind == ANY_OF) {
        to += sprintf(to, x->kind == SEQ ? " " : " | ");
        to = put_node(to, x->b);
    }
    *to++ = ')';
    if (x->kind == REPEAT && x->max < 0)
        to += sprintf(to, "{%d,}", x->min);
    else if (x->kind == REPEAT)
        to += sprintf(to, "{%d,%d}", x->min, x->max);
    *to = '\0';
    return to;
}

static char grammar_text[8192];

static struct grammar *make_grammar(uint64_t seed)
{
    static const char *const names[RULES] = { "root", "r-one", "r-two" };
    struct why why = { "" };
    struct grammar *g = NULL;
    char *to = grammar_text;

    rng = seed * 0x9e3779b97f4a7c15u + 1;
    n_nodes = 0;
    for (int i = 0; i < RULES; i++) {
        bodies[i] = make_node(1 + (int)draw(3));
        to += sprintf(to, "%s ::= ", names[i]);
        to = put_node(to, bodies[i]);
        *to++ = '\n';
    }
    *to = '\0';
    return gbnf_compile(grammar_text, strlen(grammar_text), &g, &why) < 0 ? NULL : g;
}

/* --- which texts it has ----------------------------------------------------------------------- */

static const char *text;
static size_t text_len;
static uint64_t memo[RULES][64];
static bool known[RULES][64];

static uint64_t ends_of(int at, uint64_t from);

/* Bits of where it may end that begins at one of the places of the bits. */
static uint64_t ends_of_call(int rule, uint64_t from)
{
    uint64_t all = 0;

    for (size_t i = 0; i <= text_len; i++) {
        if (!(from >> i & 1))
            continue;
        if (!known[rule][i]) {
            uint64_t ends = ends_of(bodies[rule], 1ull << i);

            memo[rule][i] = ends;
            known[rule][i] = true;
        }
        all |= memo[rule][i];
    }
    return all;
}

static uint64_t ends_of(int at, uint64_t from)
{
    const struct node *x = &nodes[at];
    uint64_t all = 0, now = from;

    if (from == 0)
        return 0;
    switch (x->kind) {
    case LETTERS:
        for (const char *p = x->text; *p; p++) {
            uint64_t next = 0;

            for (size_t i = 0; i < text_len; i++)
                if ((now >> i & 1) && (*p == '?' || text[i] == *p))
                    next |= 2ull << i;
            now = next;
        }
        return now;
    case SEQ:
        return ends_of(x->b, ends_of(x->a, from));
    case ANY_OF:
        return ends_of(x->a, from) | ends_of(x->b, from);
    case CALL:
        return ends_of_call(x->a, from);
    default:
        for (int i = 0; i <= (x->max < 0 ? x->min + 64 : x->max); i++) {
            if (i >= x->min)
                all |= now;
            now = ends_of(x->a, now);
        }
        return all;
    }
}

static bool has(const char *s, size_t n)
{
    assert_true(n < 63);
    text = s;
    text_len = n;
    memset(known, 0, sizeof(known));
    return ends_of_call(0, 1) >> n & 1;
}

static struct text {
    char s[LONGEST + 1];
    size_t n;
} texts[TEXTS]; /* that it has */
static size_t n_texts;

static void find_texts(void)
{
    n_texts = 0;
    for (size_t n = 0; n <= LONGEST; n++) {
        for (unsigned bits = 0; bits < 1u << n; bits++) {
            struct text t = { "", n };

            for (size_t i = 0; i < n; i++)
                t.s[i] = "ab"[bits >> i & 1];
            if (has(t.s, n))
                texts[n_texts++] = t;
        }
    }
}

/* --- vocabularies ----------------------------------------------------------------------------- */

/* Sorted tokens; behind them one that ends an answer. */
static struct tokens {
    const char *const *tokens;
    uint32_t n;
    struct trie trie;
    uint32_t ids[16], at[16];
    uint8_t bytes[64], lcp[16], block_lcp[2];
    uint64_t ends[2];
    struct masks *masks;
} bytes_only, merged, lacking;

static void make_tokens(struct tokens *t, const char *const *tokens, uint32_t n)
{
    uint32_t at = 0;

    t->tokens = tokens;
    t->n = n;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t same = 0;

        while (i > 0 && tokens[i][same] == tokens[i - 1][same])
            same++;
        t->ids[i] = i;
        t->at[i] = at;
        t->lcp[i] = same;
        memcpy(t->bytes + at, tokens[i], strlen(tokens[i]));
        at += (uint32_t)strlen(tokens[i]);
    }
    t->at[n] = at;
    t->ends[0] = 1ull << n;
    t->trie = (struct trie){ .n = n,
                             .n_vocab = n + 1,
                             .ids = t->ids,
                             .at = t->at,
                             .bytes = t->bytes,
                             .lcp = t->lcp,
                             .block_lcp = t->block_lcp,
                             .ends = t->ends,
                             .n_words = 1 };
    assert_int_equal(masks_new(&t->trie, 1 << 16, &t->masks), 0);
}

/* The fewest tokens of a text. */
static uint32_t n_tokens(const struct tokens *t, const struct text *x)
{
    uint32_t need[LONGEST + 1] = { 0 };

    for (size_t i = 1; i <= x->n; i++) {
        need[i] = GRAMMAR_NEVER;
        for (uint32_t k = 0; k < t->n; k++) {
            size_t n = strlen(t->tokens[k]);

            if (n <= i && memcmp(x->s + i - n, t->tokens[k], n) == 0 && need[i - n] + 1 < need[i])
                need[i] = need[i - n] + 1;
        }
    }
    return need[x->n];
}

static uint32_t fewest(const struct tokens *t)
{
    uint32_t least = GRAMMAR_NEVER;

    for (size_t i = 0; i < n_texts; i++) {
        uint32_t n = n_tokens(t, &texts[i]);

        least = n < least ? n : least;
    }
    return least;
}

/* --- answers ---------------------------------------------------------------------------------- */

static struct match m[1];

/* Of single letters: whether a text that it has begins so and has `left` letters more at most. */
static bool can_end(const char *s, size_t n, uint32_t left)
{
    for (size_t i = 0; i < n_texts; i++)
        if (texts[i].n >= n && texts[i].n <= n + left && memcmp(texts[i].s, s, n) == 0)
            return true;
    return false;
}

static void compare(const struct tokens *t, const char *s, size_t n, uint32_t left, uint64_t bits)
{
    char more[64];

    if (n + left > LONGEST)
        return;
    memcpy(more, s, n);
    for (uint32_t i = 0; i < t->n; i++) {
        more[n] = t->tokens[i][0];
        if ((bits >> i & 1) != can_end(more, n + 1, left - 1))
            fail_msg("%s\"%.*s\" %u left: %s", grammar_text, (int)n, s, left, t->tokens[i]);
    }
    assert_int_equal(bits >> t->n & 1, has(s, n));
}

/* Any tokens that may come, as many as there may be. False: a limit of the matcher's. */
static bool answer(const struct tokens *t, const struct grammar *g, uint32_t left, bool letters)
{
    char s[64];
    size_t n = 0;

    match_start(m, g);
    while (m->n_ways > 0 && left > 0) {
        uint64_t bits;
        uint32_t id;
        int e = masks_of(t->masks, m, left, &bits);

        if (e == -E2BIG)
            return false;
        if (e < 0)
            fail_msg("%s\"%.*s\" %u left: nothing can come", grammar_text, (int)n, s, left);
        if (letters)
            compare(t, s, n, left, bits);
        do
            id = draw(t->n + 1);
        while (!(bits >> id & 1));
        if (id == t->n)
            break;
        memcpy(s + n, t->tokens[id], strlen(t->tokens[id]));
        n += strlen(t->tokens[id]);
        if (match_push(m, (const uint8_t *)t->tokens[id], strlen(t->tokens[id])) == -E2BIG)
            return false;
        left--;
    }
    if (!m->ends || !has(s, n))
        fail_msg("%s\"%.*s\" is not whole", grammar_text, (int)n, s);
    return true;
}

static uint32_t measured(const struct tokens *t, struct grammar *g)
{
    free(g->least);
    g->least = NULL;
    assert_int_equal(ending_measure(g, &t->trie), 0);
    g->id += 1u << 20; /* its masks are others now */
    match_start(m, g);
    return g->least ? match_left(m) : GRAMMAR_NEVER;
}

static void answers(const struct tokens *t, const struct grammar *g, uint32_t least, bool letters)
{
    for (uint32_t more = 0; more < 4; more++)
        for (int i = 0; i < 3 && least + more <= 12; i++)
            if (!answer(t, g, least + more, letters))
                return;
}

static void test_random(void **state)
{
    uint32_t n_made = 0, n_exact = 0, n_merged = 0, n_lacking = 0;

    (void)state;
    for (uint64_t seed = 0; seed < GRAMMARS; seed++) {
        struct grammar *g = make_grammar(seed);
        uint32_t least, need;

        if (!g)
            continue;
        n_made++;
        find_texts();
        least = fewest(&bytes_only);
        need = measured(&bytes_only, g);
        if (least < GRAMMAR_NEVER ? need != least : need <= LONGEST)
            fail_msg("%sneeds %u letters, not %u", grammar_text, least, need);
        answers(&bytes_only, g, need, true);

        need = measured(&merged, g);
        if (least < GRAMMAR_NEVER) {
            assert_true(need <= least);
            n_merged++;
            n_exact += need <= fewest(&merged);
        }
        answers(&merged, g, need, false);

        need = measured(&lacking, g);
        if (need < GRAMMAR_NEVER) {
            answers(&lacking, g, need, false);
            n_lacking++;
        }
        grammar_free(g);
    }
    print_message(
        "%u grammars; of %u the fewest tokens are known, of %u exactly; %u without a byte\n",
        n_made, n_merged, n_exact, n_lacking);
    assert_true(n_made > GRAMMARS / 2 && n_merged > n_made / 2);
    assert_true(n_exact > n_merged * 4 / 5 && n_lacking > 0 && n_lacking < n_made);
}

/* Too late: what is left does not suffice any more, and it goes on as if there were no limit. */
static void test_too_late(void **state)
{
    struct grammar *g = NULL;
    struct why why = { "" };
    uint64_t bits;

    (void)state;
    assert_int_equal(gbnf_compile("root ::= \"a\"{9}", 15, &g, &why), 0);
    assert_int_equal(measured(&bytes_only, g), 9);
    assert_int_equal(masks_of(bytes_only.masks, m, 9, &bits), 0);
    assert_int_equal(masks_of(bytes_only.masks, m, 3, &bits), 0);
    assert_int_equal(bits, 1);
    grammar_free(g);
}

/* Long strings take as many tokens as the longest ones make of them, not one a letter. */
static void test_long(void **state)
{
    struct grammar *g = NULL;
    static const char long_one[] = "root ::= \"b\" [ab]{1001,4000} \"b\"";
    struct why why = { "" };

    (void)state;
    assert_int_equal(gbnf_compile(long_one, strlen(long_one), &g, &why), 0);
    assert_in_range(measured(&merged, g), 251, 253);
    grammar_free(g);
}

/* On a model's vocabulary: schemas whose fewest tokens can be counted by hand, and random answers
 * in as many. */
static const struct {
    const char *schema;
    uint32_t most;
} schemas[] = {
    { "{\"type\":\"boolean\"}", 1 },
    { "{\"enum\":[\"red\",\"amber\",\"green\"]}", 3 },
    { "{\"type\":\"string\",\"minLength\":200}", 40 },
    { "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":6},"
      "\"minItems\":3}",
      7 },
    { "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"
      "\"integer\"}},\"required\":[\"name\",\"age\"]}",
      12 },
    { "{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
      "n\"},"
      "\"minItems\":1,\"maxItems\":3}}}",
      0 },
};

static void answer_by(const struct vocab *v, const struct trie *t, struct masks *k,
                      const struct grammar *g, uint32_t left)
{
    uint64_t *bits = calloc(t->n_words, sizeof(*bits));

    match_start(m, g);
    while (m->n_ways > 0 && left > 0) {
        const uint8_t *bytes;
        uint32_t id;
        size_t n;

        assert_int_equal(masks_of(k, m, left--, bits), 0);
        do
            id = draw(t->n_vocab);
        while (!(bits[id / 64] >> id % 64 & 1));
        if (vocab_is_eog(v, id))
            break;
        bytes = vocab_bytes(v, id, &n);
        assert_int_equal(match_push(m, bytes, n), 0);
    }
    assert_true(m->ends);
    free(bits);
}

static void test_model(void **state)
{
    const char *path = getenv("GISTD_TEST_MODEL");
    struct why why = { "" };
    struct gguf *f;
    struct vocab *v;
    struct masks *k;
    struct trie *t;

    (void)state;
    if (!path) {
        print_message("GISTD_TEST_MODEL is not set\n");
        skip();
    }
    assert_int_equal(gguf_open(path, &f, &why), 0);
    assert_int_equal(vocab_open(f, &v, &why), 0);
    assert_int_equal(trie_new(v, &t), 0);
    assert_int_equal(masks_new(t, 32 << 20, &k), 0);
    for (size_t i = 0; i < sizeof(schemas) / sizeof(*schemas); i++) {
        struct grammar *g = NULL;
        int e = schema_compile(schemas[i].schema, strlen(schemas[i].schema), &g, &why);

        if (schemas[i].most == 0) { /* no value satisfies it */
            assert_true(e < 0);
            continue;
        }
        assert_int_equal(e, 0);
        assert_int_equal(ending_measure(g, t), 0);
        match_start(m, g);
        print_message("%s: %u tokens\n", schemas[i].schema, match_left(m));
        assert_in_range(match_left(m), 1, schemas[i].most);
        for (uint32_t more = 0, least = match_left(m); more < 12; more++)
            answer_by(v, t, k, g, least + more);
        grammar_free(g);
    }
    masks_free(k);
    trie_free(t);
    vocab_close(v);
    gguf_close(f);
}

int main(void)
{
    static const char
        *const one[] = { "a", "b" },
               *const several[] = { "a", "aa", "aaaa", "ab", "abb", "b", "ba", "bab" },
               *const no_b[] = { "a", "ab", "ba", "bbb" };
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random),
                                        cmocka_unit_test(test_too_late),
                                        cmocka_unit_test(test_long), cmocka_unit_test(test_model) };
    int r;

    make_tokens(&bytes_only, one, 2);
    make_tokens(&merged, several, 8);
    make_tokens(&lacking, no_b, 4);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    masks_free(bytes_only.masks);
    masks_free(merged.masks);
    masks_free(lacking.masks);
    return r;
}
