/* engine/text/nfa.h - the rules of a grammar as one automaton that may be in many states at once.
 *
 * Between expr.h and grammar.h. Every rule that can be reached from the root by calls has a first
 * state; rules that are only jumped to are part of those that jump.
 *
 * Threads    none. Ownership: init/fini.
 * Errors     kept in b->err, as expr.h does.
 */
#ifndef ENGINE_TEXT_NFA_H
#define ENGINE_TEXT_NFA_H

#include "engine/text/expr.h"

#define NFA_STATES_MAX (1u << 18)
#define NFA_NONE       UINT32_MAX

enum nfa_kind { NFA_SPLIT, NFA_BYTE, NFA_CALL, NFA_END };

struct nfa_state {
    uint8_t kind, lo, hi; /* NFA_BYTE: lo to hi */
    uint32_t out,
        other; /* NFA_SPLIT: both; other NFA_NONE: out alone. NFA_CALL: other is the rule */
};

struct nfa {
    struct expr_array states; /* struct nfa_state */
    uint32_t *start;          /* (rules) or NFA_NONE */
    uint32_t *rules;          /* those that have one, the root first */
    uint32_t n_rules;
    uint32_t *jump_at; /* (rules) first states of those that it jumps to, and NFA_NONE */
    uint32_t *jumps;   /* (rules) which these are */
    uint32_t n_jumps;
    uint64_t work;
};

static inline struct nfa_state *nfa_state(const struct nfa *n, uint32_t i)
{
    return (struct nfa_state *)n->states.mem + i;
}

/* Checks the rules (defined, no empty promise) and writes them. */
int nfa_init(struct nfa *n, struct expr_build *b, uint32_t root);
void nfa_fini(struct nfa *n);

#endif
