/* engine/text/match.h - where a text stands in a grammar, byte by byte.
 *
 * An ambiguous grammar has several ways to read a text, so a place is a set of ways, each a state
 * and a stack of states that wait for the end of a call. Stacks share their beginnings: a stack is
 * the number of its top node, and equal stacks are the same node.
 *
 *     nodes   0 (bottom)  1: {ret 17, parent 0}  2: {ret 40, parent 1} ...   parents come first
 *
 * Invariants
 *   M1  A set is closed under ends: where a rule may end, the state behind its call is in the set,
 *       too. A state that can only end is not.
 *   M2  Nodes are taken and given back like a stack; the newest is the last in its hash's row.
 *
 * Limits     MATCH_WAYS_MAX ways, and MATCH_NODES_MAX calls at once: -E2BIG, and `why` says which.
 *
 * Threads    one at a time. Ownership: caller's storage; borrows the grammar. No malloc.
 */
#ifndef ENGINE_TEXT_MATCH_H
#define ENGINE_TEXT_MATCH_H

#include "engine/text/grammar.h"

#define MATCH_WAYS_MAX  256u
#define MATCH_NODES_MAX 4096u

struct match_way {
    uint32_t state, node;
};

struct match_node {
    uint32_t ret, parent;
    uint32_t least; /* tokens that all of the stack needs from here on */
};

struct match {
    const struct grammar *g;
    uint32_t n_ways, n_nodes;
    bool ends;       /* the text may end here */
    int err;         /* 0, -E2BIG: a limit was met since match_start */
    const char *why; /* then the sentence */
    uint64_t work;
    struct match_way ways[MATCH_WAYS_MAX];
    struct match_node nodes[MATCH_NODES_MAX];
    uint32_t table[2 * MATCH_NODES_MAX]; /* nodes by their hash; 0: none */
};

/* At the beginning of a text, whatever m was before. */
void match_start(struct match *m, const struct grammar *g);

/* The text goes on. -EINVAL: no text of the grammar does so; -E2BIG: a limit. Then it stands
 * nowhere. */
int match_push(struct match *m, const uint8_t *bytes, size_t n);

/* So many tokens are sure to be enough to end the text (ending.h); 0 where that is not measured.
 */
uint32_t match_left(const struct match *m);

/* --- for masks (mask.h): sets of one's own, of up to MATCH_WAYS_MAX ------------------------------
 */

/* Adds what is reached by calls. Returns how many there are; m->err says if it was too many. */
uint32_t match_call(struct match *m, struct match_way *set, uint32_t n);
/* What `from`, closed under calls, becomes by a byte: a set (M1). *ret_ends: the bottom was left.
 */
uint32_t match_byte(struct match *m, const struct match_way *from, uint32_t n, uint8_t byte,
                    struct match_way *to, bool *ret_ends);
/* The same of n ways of a set. GRAMMAR_NEVER: none. */
uint32_t match_least(const struct match *m, const struct match_way *set, uint32_t n);
/* Gives nodes back until n are left. */
void match_forget(struct match *m, uint32_t n);

#endif
