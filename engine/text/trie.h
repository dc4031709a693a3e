/* engine/text/trie.h - the tokens of a vocabulary in the order of their bytes.
 *
 * Sorted, with the length of what each has in common with the one before it, they are a trie that
 * is read from left to right: who goes on from a token keeps what he knows of the common beginning,
 * and when a beginning leads nowhere all tokens that share it are passed by.
 *
 *     ids   "a"  "ab"  "abc"  "b"
 *     lcp    0    1     2      0
 *
 * A special token means something else than the text that it is written as. Here it is TRIE_SPECIAL
 * and its text: a byte of no UTF-8, so that it comes where a grammar says so, and nowhere else. Not
 * among them are empty tokens, those of more than TRIE_LEN_MAX bytes, and others with that byte.
 *
 * Threads    immutable after trie_new. Ownership: new/free; nothing of the vocabulary is kept.
 */
#ifndef ENGINE_TEXT_TRIE_H
#define ENGINE_TEXT_TRIE_H

#include "engine/text/vocab.h"

#define TRIE_LEN_MAX 250u
#define TRIE_BLOCK   64u
#define TRIE_SPECIAL 0xffu

struct trie {
    uint32_t n, n_vocab;
    uint32_t *ids; /* (n) */
    uint32_t *at;  /* (n + 1): where the bytes of each begin */
    uint8_t *bytes;
    uint8_t *lcp;       /* (n) */
    uint8_t *block_lcp; /* the least of each TRIE_BLOCK of them */
    uint64_t *ends;     /* bits (n_vocab): tokens that end an answer */
    size_t n_words;     /* of n_vocab bits, and of n bits */
};

int trie_new(const struct vocab *v, struct trie **ret);
void trie_free(struct trie *t);

#endif
