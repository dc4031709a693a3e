/* engine/text/bpe.h - byte-pair merges: a list of small tokens to the tokens that the model knows.
 *
 * The definition: while any neighbours have a rule, apply the rule of the lowest rank, at the
 * leftmost place that has it. A short list is searched for it again after each merge; a long one
 * keeps its candidates in a heap, so that the time of one does not grow by its square.
 * Both give the same ids.
 *
 * Layout    rules lie in an open-addressing table keyed by the pair, at most half full.
 *
 * Invariants
 *   B1  A rule's result stands for the bytes of its left and then its right token (the caller
 *       checks), so two rules that give one token at one place do so over the same boundary.
 *
 * Threads    struct bpe is immutable after its last bpe_add; a struct bpe_scratch belongs to one
 *            thread at a time.
 * Errors     -ENOMEM; bpe_add: -EEXIST when the pair has a rule (the first, of lower rank, stays).
 */
#ifndef ENGINE_TEXT_BPE_H
#define ENGINE_TEXT_BPE_H

#include <stddef.h>
#include <stdint.h>

#define BPE_SHORT 32u         /* up to this many symbols are merged by searching */
#define BPE_MAX   (16u << 10) /* symbols of one word, some milliseconds; 28 bytes of scratch each */

struct bpe_rule {
    uint32_t left, right, rank, result;
};

struct bpe {
    struct bpe_rule *rules; /* left == UINT32_MAX: a free slot */
    uint32_t mask;          /* slots - 1 */
    uint32_t n_rules, max_rules;
};

/* Working memory; grows to the longest word so far. All zeros is an empty one. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    uint64_t *heap;
    size_t cap;
};

int bpe_init(struct bpe *b, uint32_t max_rules);
void bpe_fini(struct bpe *b);
int bpe_add(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t result);
void bpe_scratch_fini(struct bpe_scratch *s);

/* Merges ids[0..n), n <= BPE_MAX, in place; *ret_n is how many are left. */
int bpe_merge(const struct bpe *b, struct bpe_scratch *s, uint32_t *ids, size_t n, size_t *ret_n);

#endif
