/* engine/text/ending.h - how many tokens it takes at least to end a text of a grammar.
 *
 * Of each state: so many tokens of a vocabulary are sure to lead from it to the end of its rule
 * (grammar->least). What a text needs from where it stands is the sum over one of its stacks
 * (match_left), so that a mask can leave out what could not be ended in the tokens that are left
 * (mask.h).
 *
 *     [1, {"a": "x        6 left:   "   }   ]      of 3 tokens; any letter may come before
 *
 * The number is never too small, and more than the fewest only where a token would have to reach
 * over the end of a rule, or into another one. It is consistent: from a state that needs n there is
 * a token to one that needs n - 1 at most, also where the search was given up for its length.
 * States from which no tokens are found, because the vocabulary lacks a byte, have GRAMMAR_NEVER.
 *
 * Threads    writes g, which nobody else has yet.
 * Errors     -ENOMEM; g->least is NULL then, as it is where not even the first state has a number.
 */
#ifndef ENGINE_TEXT_ENDING_H
#define ENGINE_TEXT_ENDING_H

#include "engine/text/grammar.h"
#include "engine/text/trie.h"

#define ENDING_WORK_MAX (16u << 20) /* steps of each of its two halves: some 50 ms */

int ending_measure(struct grammar *g, const struct trie *t);

#endif
