/* engine/text/grammar.h - a grammar that was compiled: a pushdown automaton over bytes.
 *
 * Each rule is a deterministic automaton (its states are numbered through all rules) with two kinds
 * of edges:
 *
 *     bytes   next[state][class of the byte]           0: there is none
 *     calls   a rule's first state, and the state behind it, which waits on a stack meanwhile
 *
 * A byte is looked up in constant time; only calls, and ends of rules, need a stack (match.h). The
 * texts of a grammar are well-formed UTF-8, as characters are written byte by byte by the compiler;
 * but a token may end anywhere inside one.
 *
 * What is refused, each with a sentence: rules that are used and not there; rules that no text
 * ends; rules that begin with themselves (left recursion); grammars of too many parts (expr.h),
 * states (GRAMMAR_STATES_MAX) or bytes; and those that take more steps to compile than
 * GRAMMAR_WORK_MAX, some 0.1 s: states can double with every character of a grammar.
 *
 * Threads    immutable after grammar_compile, and ending_measure, if that is called.
 * Errors     -EINVAL: not a grammar; -E2BIG: a limit; -ENOMEM; all with a sentence.
 */
#ifndef ENGINE_TEXT_GRAMMAR_H
#define ENGINE_TEXT_GRAMMAR_H

#include "engine/text/expr.h"

#define GRAMMAR_STATES_MAX 60000u
#define GRAMMAR_TABLE_MAX  (16u << 20) /* bytes of next */
#define GRAMMAR_WORK_MAX   (8u << 20)
#define GRAMMAR_TEXT_MAX   (256u << 10) /* bytes of a grammar or a schema */

#define GRAMMAR_DEAD 0u

#define GRAMMAR_NEVER (1u << 30) /* tokens */

enum {
    GRAMMAR_ENDS = 1,  /* the rule may end here, perhaps by way of calls that read nothing */
    GRAMMAR_LEAF = 2,  /* and must */
    GRAMMAR_CALLS = 4, /* there are calls */
};

struct grammar_call {
    uint32_t start, ret;
};

struct grammar {
    uint32_t n_states, n_classes, start;
    uint8_t class_of[256];
    uint32_t *next;     /* (n_states, n_classes) */
    uint32_t *calls_at; /* (n_states + 1): where a state's calls begin */
    struct grammar_call *calls;
    uint8_t *flags;  /* (n_states) */
    uint32_t *least; /* (n_states): tokens to the end of the rule (ending.h); NULL: not measured */
    size_t bytes;    /* of all of it */
    uint64_t id;     /* of no other grammar of this process */
};

/* What b's rule `root` stands for. */
int grammar_compile(struct expr_build *b, uint32_t root, struct grammar **ret);
void grammar_free(struct grammar *g);

#endif
