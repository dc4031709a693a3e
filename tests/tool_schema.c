/* tests/tool_schema.c - SCHEMAS N [SEED]: texts that schemas allow, for tests/test_schemas.sh.
 *
 * SCHEMAS has a schema a line. For each of them N texts are drawn from its grammar, by tokens of a
 * vocabulary of bytes and a few pairs: random ones, but with a preference for what closes, so that
 * texts end. Every second one has only so many tokens as end any text of it, or a few more, and no
 * preference. Each is written with a zero byte behind it. A text that is longer than TEXT_MAX by
 * then is not written; too few of them end the program with 1. */
#include "engine/text/ending.h"
#include "engine/text/mask.h"
#include "engine/text/schema.h"
#include "tests/support/built_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 4000u

static struct vocab *vocab;
static struct trie *trie;
static struct masks *masks;
static uint64_t *bits, rng;

static uint32_t draw(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

static bool may(uint32_t id)
{
    return bits[id / 64] >> id % 64 & 1;
}

static uint32_t any(void)
{
    uint32_t id;

    do
        id = draw(vocab_size(vocab));
    while (!may(id));
    return id;
}

/* Half of the time what closes, if it may come. */
static uint32_t next(size_t len)
{
    static const char closing[] = "\"}],:";
    if (len > 60 || draw(2)) {
        for (uint32_t i = 0; i < vocab_size(vocab); i++)
            if (vocab_is_eog(vocab, i) && may(i))
                return i;
        for (size_t i = 0; i < sizeof(closing) - 1; i++)
            if (may(GGUF_BUILD_BYTE_0 + (uint8_t)closing[i]))
                return GGUF_BUILD_BYTE_0 + (uint8_t)closing[i];
    }
    return any();
}

/* The length; 0: it did not end. */
static size_t make(const struct grammar *g, uint32_t left, char *text)
{
    static struct match m[1];
    size_t len = 0, n;

    match_start(m, g);
    while (len < TEXT_MAX && left > 0 && (m->n_ways > 0 || left == MASKS_ENDLESS)) {
        const uint8_t *bytes;
        uint32_t id;

        if (masks_of(masks, m, left, bits) < 0) /* it is over; or a limit */
            return m->ends ? len : 0;
        id = left == MASKS_ENDLESS ? next(len) : any();
        left -= left != MASKS_ENDLESS;
        if (vocab_is_eog(vocab, id))
            return len;
        bytes = vocab_bytes(vocab, id, &n);
        memcpy(text + len, bytes, n);
        len += n;
        if (match_push(m, bytes, n) < 0)
            return 0;
    }
    return left != MASKS_ENDLESS && m->ends ? len : 0;
}

static int texts_of(const char *line, unsigned n)
{
    char text[TEXT_MAX + 300];
    struct why why = { "" };
    struct grammar *g;
    unsigned made = 0;

    if (schema_compile(line, strlen(line), &g, &why) < 0) {
        fprintf(stderr, "%s: %s\n", line, why.text);
        return -1;
    }
    if (ending_measure(g, trie) < 0 || !g->least) {
        fprintf(stderr, "%s: no text ends in time\n", line);
        return -1;
    }
    for (unsigned i = 0; i < 20 * n && made < n; i++) {
        uint32_t left = i % 2 ? g->least[g->start] + draw(20) : MASKS_ENDLESS;
        size_t len = make(g, left, text);

        if (len == 0 && i % 2) {
            fprintf(stderr, "%s: a text did not end in %u tokens\n", line, left);
            break;
        }

        if (len > 0)
            made += fwrite(text, 1, len, stdout) == len && putchar('\0') == 0;
    }
    grammar_free(g);
    if (made < n)
        fprintf(stderr, "%s: only %u texts end\n", line, made);
    return made < n ? -1 : 0;
}

static int open_vocab(void)
{
    int r;

    vocab = built_vocab_tiny();
    r = trie_new(vocab, &trie);
    if (r == 0)
        r = masks_new(trie, 8 << 20, &masks);
    bits = calloc(r == 0 ? trie->n_words : 1, sizeof(*bits));
    return r;
}

int main(int argc, char **argv)
{
    static char line[1 << 16];
    FILE *f = argc > 2 ? fopen(argv[1], "r") : NULL;
    int r = 0;

    if (!f || open_vocab() < 0 || !bits)
        return 2;
    rng = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = '\0';
        r |= texts_of(line, (unsigned)atoi(argv[2]));
    }
    fclose(f);
    masks_free(masks);
    trie_free(trie);
    vocab_close(vocab);
    free(bits);
    return r ? 1 : 0;
}
