/* engine/text/mask.h - which tokens may come next in a grammar.
 *
 * What a token does depends on the stack only if a rule ends inside it. So for each state all
 * tokens are tried once as if nothing was known of the stack, and what came of it is kept:
 *
 *     allow    bits by id: tokens that end before the rule does, or with it
 *     unsure   bits by place in the trie: tokens that the rule ends inside of
 *
 * all others can't come. A mask is then the `allow` of the ways a text stands in, and those of
 * their `unsure` tokens, a few of each hundred, that the stacks allow.
 *
 * An answer that has only so many tokens left must not begin what it can't end in them. Kept is
 * also what the costliest of `allow` needs to its rule's end (match.h, match_least): while that,
 * and what the stack needs, are within what is left, all is as above. Near the end the tokens are
 * tried with their stacks, and those left out that need more.
 *
 * The states of all grammars share one memory of fixed size; the one that was used longest ago
 * gives way to a new one.
 *
 * Threads    one at a time. Ownership: new/free; borrows the trie. No malloc after masks_new.
 */
#ifndef ENGINE_TEXT_MASK_H
#define ENGINE_TEXT_MASK_H

#include "engine/text/match.h"
#include "engine/text/trie.h"

struct masks;

/* bytes: of the memory; of what is not used yet the kernel holds nothing. -ENOMEM. */
int masks_new(const struct trie *t, size_t bytes, struct masks **ret);
void masks_free(struct masks *k);

#define MASKS_ENDLESS UINT32_MAX

/* Bits (trie->n_words words) of the tokens that may come: those that end an answer are among them
 * exactly if the text may end here. Of others those from which it can be ended when `left` tokens
 * may come, these included, if that could be done before (match_left(m) <= left). -E2BIG: a limit
 * of m, which has the sentence; -ENODATA: the vocabulary has no token that goes on. m stands where
 * it stood. */
int masks_of(struct masks *k, struct match *m, uint32_t left, uint64_t *ret_bits);

/* Logits of tokens whose bit is 0 become -infinity. */
void masks_apply(const uint64_t *bits, float *logits, uint32_t n_vocab);

/* Since masks_new: states that were looked up, and those of them that had to be tried. */
void masks_counts(const struct masks *k, uint64_t *ret_asked, uint64_t *ret_made);

#endif
