/* engine/text/expr.h - a grammar while it is written: named rules, each an expression over bytes.
 *
 * GBNF (gbnf.h), patterns (pattern.h) and JSON Schemas (schema.h) are written as these, and
 * grammar_compile() makes the automaton. An expression is a number; the same one may stand in many
 * places. Lists are made from what was put on the stack since a mark:
 *
 *     size_t mark = expr_mark(b);
 *     expr_put(b, expr_text(b, "yes"));
 *     expr_put(b, expr_text(b, "no"));
 *     answer = expr_any_of(b, mark);
 *
 * Errors are kept: after the first one (b->err, and its sentence in why) all calls do nothing and
 * return EXPR_EMPTY, so that only the end has to ask.
 *
 * Limits     EXPR_NODES_MAX and EXPR_RULES_MAX hold what a hostile grammar can make of this.
 *
 * Threads    none. Ownership: init/fini.
 */
#ifndef ENGINE_TEXT_EXPR_H
#define ENGINE_TEXT_EXPR_H

#include "base/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPR_EMPTY 0u /* the empty text */
#define EXPR_NEVER 1u /* no text at all */

#define EXPR_NODES_MAX  (1u << 17)
#define EXPR_RULES_MAX  (1u << 13)
#define EXPR_DEPTH_MAX  200u
#define EXPR_REPEAT_MAX 10000u /* of a bounded repetition */
#define EXPR_NO_MAX     UINT32_MAX
#define EXPR_NAME_MAX   96u

enum expr_kind {
    EXPR_IS_EMPTY,
    EXPR_IS_NEVER,
    EXPR_IS_BYTES,  /* bytes[a .. a + b) */
    EXPR_IS_CLASS,  /* one character of ranges[a .. a + b) */
    EXPR_IS_SEQ,    /* kids[a .. a + b), one after the other */
    EXPR_IS_ANY_OF, /* one of kids[a .. a + b) */
    EXPR_IS_REPEAT, /* a, b to c times */
    EXPR_IS_CALL,   /* rule a */
    EXPR_IS_JUMP    /* rule a, with which the rule ends that it stands in */
};

struct expr_node {
    enum expr_kind kind;
    uint32_t a, b, c, depth;
};

struct expr_range {
    uint32_t lo, hi; /* code points */
};

struct expr_rule {
    char name[EXPR_NAME_MAX]; /* for sentences */
    uint32_t body;
    bool defined;
};

struct expr_array {
    void *mem;
    size_t n, cap;
};

struct expr_build {
    struct expr_array nodes, kids, ranges, bytes, rules, stack;
    int err;
    struct why *why;
};

int expr_init(struct expr_build *b, struct why *why);
void expr_fini(struct expr_build *b);

/* Keeps the first error. */
void expr_fail(struct expr_build *b, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Room for n elements more, to be written by the caller. NULL: no memory, which is kept. */
void *expr_grow(struct expr_build *b, struct expr_array *a, size_t n, size_t elem);

/* A rule that is defined later; the name is cut to what fits. */
uint32_t expr_rule(struct expr_build *b, const char *name);
void expr_define(struct expr_build *b, uint32_t rule, uint32_t body);

uint32_t expr_bytes(struct expr_build *b, const void *bytes, size_t n);
uint32_t expr_text(struct expr_build *b, const char *text);
/* One character of n ranges, in any order; those of surrogates are left out. */
uint32_t expr_class(struct expr_build *b, const struct expr_range *r, size_t n);
/* One character of none of them. */
uint32_t expr_class_not(struct expr_build *b, const struct expr_range *r, size_t n);
/* r becomes the ranges of all other characters, in order; it has room for n + 1. */
size_t expr_gaps(struct expr_range *r, size_t n);
uint32_t expr_repeat(struct expr_build *b, uint32_t e, uint32_t min, uint32_t max);
uint32_t expr_maybe(struct expr_build *b, uint32_t e);
uint32_t expr_call(struct expr_build *b, uint32_t rule);
/* Only as the end of a rule's body: costs no stack, and is part of that rule's automaton. */
uint32_t expr_jump(struct expr_build *b, uint32_t rule);

size_t expr_mark(const struct expr_build *b);
void expr_put(struct expr_build *b, uint32_t e);
uint32_t expr_seq(struct expr_build *b, size_t mark);
uint32_t expr_any_of(struct expr_build *b, size_t mark);
uint32_t expr_seq2(struct expr_build *b, uint32_t first, uint32_t second);
uint32_t expr_or2(struct expr_build *b, uint32_t one, uint32_t other);

#endif
