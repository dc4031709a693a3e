/* Fuzzes grammars and schemas: whatever the text, it is compiled or refused with a sentence, within
 * the limits; of one that was compiled every mask is what trying each token gives, what a mask
 * allows can be pushed, and what it does not allow can't, or could not be ended in the tokens that
 * are left; and a text that can be ended in them is. The first byte of an input says which of the
 * three it is (calls are the third), the second one picks tokens and how many there are. Run by
 * tests/run-fuzz. */
#include "engine/text/callform.h"
#include "engine/text/ending.h"
#include "engine/text/gbnf.h"
#include "engine/text/mask.h"
#include "engine/text/schema.h"
#include "engine/text/trie.h"
#include "tests/support/built_vocab.h"
#include "tests/support/fuzz_seeds.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct vocab *vocab;
static struct trie *trie;
static struct masks *masks;
static uint64_t *bits;
static struct match at, copy;

static void open_vocab(void)
{
    vocab = built_vocab_tiny();
    if (trie_new(vocab, &trie) < 0 || masks_new(trie, 1 << 20, &masks) < 0)
        abort();
    bits = calloc(trie->n_words, sizeof(*bits));
    assert(bits);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const seeds[] = {
        "g1root ::= \"(\" root \")\" root | \"\"",
        "g2root ::= v # x\nv ::= \"[\" (v (\",\" v)*)? \"]\" | [0-9]{1,3} | [^a-z\\x00-\\x1f]+ .? "
        "\"\\u00e9\"",
        "g3root ::= a | b\na ::= \"x\" a \"y\" | \"z\"\nb ::= \"x\" b \"y\"? | \"z\"",
        "r1{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":-3,"
        "\"maximum\":12},"
        "\"b\":{\"enum\":[\"x\",1,null]}},\"required\":[\"b\"],\"additionalProperties\":{\"type\":"
        "\"number\"}}",
        "r2{\"$ref\":\"#/$defs/"
        "n\",\"$defs\":{\"n\":{\"type\":[\"array\",\"null\"],\"items\":{\"$ref\":\"#/$defs/n\"},"
        "\"minItems\":1,\"maxItems\":3}}}",
        "r3{\"anyOf\":[{\"type\":\"string\",\"pattern\":\"^a[b-d]{2,3}(e|f)*\\\\d$\"},{\"format\":"
        "\"date\"},"
        "{\"type\":\"string\",\"minLength\":1,\"maxLength\":3}]}",
        "r4{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"null\"}],\"title\":\"t\"}",
        "r5{\"allOf\":[{\"type\":\"object\",\"required\":[\"a\"]},{\"properties\":{\"a\":{"
        "\"const\":[1,{}]}}}]}",
        "r6{\"prefixItems\":[{\"type\":\"number\",\"exclusiveMinimum\":0,\"maximum\":9},true],"
        "\"items\":false}",
        "r7{\"const\":\"a text alone\"}",
        "t1{\"form\":\"tagged\",\"tools\":[{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"x\":{\"type\":\"integer\"}}}},{\"name\":\"g\"}],\"schema\":{\"enum\":[1,"
        "\"a\"]}}",
        "t2{\"form\":\"bare\",\"one\":true,\"tools\":[{\"name\":\"f\"}],\"grammar\":\"root ::= "
        "[a-z]+\"}",
    };
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    open_vocab();
    for (size_t i = 0; dir && i < sizeof(seeds) / sizeof(*seeds); i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "seed%zu", i);
        fuzz_seeds_put(dir, name, seeds[i], strlen(seeds[i]));
    }
    return 0;
}

static bool may(uint32_t id)
{
    return bits[id / 64] >> id % 64 & 1;
}

/* As form_push has it: a special token is TRIE_SPECIAL and its text. */
static int push(struct match *m, uint32_t id)
{
    static const uint8_t special[] = { TRIE_SPECIAL };
    size_t n;
    const uint8_t *bytes = vocab_bytes(vocab, id, &n);
    int e = match_push(m, special, vocab_is_special(vocab, id));

    return e < 0 ? e : match_push(m, bytes, n);
}

/* What the trie does not have never comes (trie.h). */
static bool is_tried(uint32_t id)
{
    size_t n;
    const uint8_t *bytes = vocab_bytes(vocab, id, &n);

    return n > 0 && n + vocab_is_special(vocab, id) <= TRIE_LEN_MAX &&
           !memchr(bytes, TRIE_SPECIAL, n);
}

/* Each token by itself; a limit that is met by then is met, and proves nothing. */
static void compare(uint32_t left)
{
    uint32_t most = left > GRAMMAR_NEVER || match_left(&at) > left ? GRAMMAR_NEVER - 1 : left - 1;

    for (uint32_t id = 0; id < vocab_size(vocab); id++) {
        int e;

        if (vocab_is_eog(vocab, id)) {
            assert(may(id) == at.ends);
        } else if (is_tried(id)) {
            copy = at;
            e = push(&copy, id);
            assert(e == -E2BIG || (e == 0 && match_left(&copy) <= most) == may(id));
        } else {
            assert(!may(id));
        }
    }
}

/* Of `left` tokens at most; all of them, but MASKS_ENDLESS. */
static void walk(const struct grammar *g, uint32_t rng, uint32_t left)
{
    unsigned n_steps = left == MASKS_ENDLESS ? 12 : left;

    match_start(&at, g);
    for (unsigned i = 0; i < n_steps && at.n_ways > 0; i++) {
        uint32_t now = left == MASKS_ENDLESS ? left : left - i;
        int e = masks_of(masks, &at, now, bits);
        uint32_t id, tries = 0;

        if (e == -ENODATA)
            assert(at.n_ways == 0);
        if (e < 0)
            return;
        if (i < 4)
            compare(now);
        do {
            rng = rng * 1664525u + 1013904223u;
            id = (rng >> 8) % vocab_size(vocab);
        } while (!may(id) && tries++ < 5000);
        if (!may(id) || vocab_is_eog(vocab, id))
            return;
        e = push(&at, id);
        assert(e == 0 || e == -E2BIG);
        if (e < 0)
            return;
    }
    assert(left == MASKS_ENDLESS || at.ends);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct why why = { "" };
    struct grammar *g = NULL;
    char *text;
    int e;

    if (len < 2)
        return 0;
    text = malloc(len - 1); /* its very end: what reads further is found */
    assert(text);
    memcpy(text, data + 2, len - 2);
    e = (data[0] & 1      ? gbnf_compile
         : data[0] == 't' ? callform_compile
                          : schema_compile)(text, len - 2, &g, &why);
    free(text);
    assert((e == 0) == (g != NULL) && (e == 0) == (why.text[0] == '\0'));
    if (g) {
        assert(g->n_states <= GRAMMAR_STATES_MAX);
        walk(g, data[1], MASKS_ENDLESS);
        if (ending_measure(g, trie) < 0)
            abort();
        g->id += 1ull << 40; /* its masks are others now */
        walk(g, data[1], MASKS_ENDLESS);
        match_start(&at, g);
        if (g->least && match_left(&at) < 30)
            walk(g, data[1], match_left(&at) + data[1] % 8);
    }
    grammar_free(g);
    return 0;
}
