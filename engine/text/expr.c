/* Nodes, kids, ranges and bytes are arrays that only grow; an expression is the number of its node,
 * so it stays valid when they move. Small simplifications (of empty and impossible parts) are made
 * where a node is made: what comes behind needs no cases for them, and hostile grammars of empty
 * parts stay small. */
#include "engine/text/expr.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The sentence is made here and now: what it is made of may be gone when somebody asks. */
void expr_fail(struct expr_build *b, int err, const char *fmt, ...)
{
    char text[WHY_MAX];
    va_list ap;

    if (b->err)
        return;
    b->err = err;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    why_set(b->why, err, "%s", text);
}

/* Doubling: a grammar's size is not known before. The pointer is valid until the array grows again.
 */
void *expr_grow(struct expr_build *b, struct expr_array *a, size_t n, size_t elem)
{
    if (a->n + n > a->cap) {
        size_t cap = 2 * (a->n + n) + 64;
        void *mem = reallocarray(a->mem, cap, elem);

        if (!mem) {
            expr_fail(b, -ENOMEM, "no memory for a grammar");
            return NULL;
        }
        a->mem = mem;
        a->cap = cap;
    }
    a->n += n;
    return (char *)a->mem + (a->n - n) * elem;
}

/* Adds n elements, n > 0, and returns where they begin. Without memory 0, which is a place like any
 * other: b->err says so. */
static size_t append(struct expr_build *b, struct expr_array *a, const void *src, size_t n,
                     size_t elem)
{
    size_t at = a->n;
    void *to = expr_grow(b, a, n, elem);

    if (!to)
        return 0;
    memcpy(to, src, n * elem);
    return at;
}

static struct expr_node *node_of(const struct expr_build *b, uint32_t e)
{
    return (struct expr_node *)b->nodes.mem + e;
}

/* The one door for nodes, so that no limit is passed. Depth is how deep nfa.c recurses. */
static uint32_t add(struct expr_build *b, struct expr_node node)
{
    if (b->err)
        return EXPR_EMPTY;
    if (b->nodes.n >= EXPR_NODES_MAX)
        expr_fail(b, -E2BIG, "the grammar is too large: it has more than %u parts", EXPR_NODES_MAX);
    else if (node.depth > EXPR_DEPTH_MAX)
        expr_fail(b, -E2BIG, "the grammar nests deeper than %u levels in one rule", EXPR_DEPTH_MAX);
    if (b->err)
        return EXPR_EMPTY;
    return (uint32_t)append(b, &b->nodes, &node, 1, sizeof(node));
}

int expr_init(struct expr_build *b, struct why *why)
{
    *b = (struct expr_build){ .why = why };
    (void)add(b, (struct expr_node){ .kind = EXPR_IS_EMPTY }); /* number 0, EXPR_EMPTY */
    (void)add(b, (struct expr_node){ .kind = EXPR_IS_NEVER }); /* number 1 */
    return b->err;
}

void expr_fini(struct expr_build *b)
{
    struct expr_array *all[] = { &b->nodes, &b->kids, &b->ranges, &b->bytes, &b->rules, &b->stack };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        free(all[i]->mem);
        *all[i] = (struct expr_array){ .mem = NULL };
    }
}

/* --- rules ------------------------------------------------------------------------------------ */

uint32_t expr_rule(struct expr_build *b, const char *name)
{
    struct expr_rule rule = { .defined = false };

    if (!b->err && b->rules.n >= EXPR_RULES_MAX)
        expr_fail(b, -E2BIG, "the grammar has more than %u rules", EXPR_RULES_MAX);
    if (b->err)
        return 0;
    (void)snprintf(rule.name, sizeof(rule.name), "%s", name);
    return (uint32_t)append(b, &b->rules, &rule, 1, sizeof(rule));
}

/* A rule may be called before it is defined: recursion needs that. Whether it was in the end is for
 * nfa.c to see. */
void expr_define(struct expr_build *b, uint32_t rule, uint32_t body)
{
    struct expr_rule *r;

    if (b->err)
        return;
    assert(rule < b->rules.n);
    r = (struct expr_rule *)b->rules.mem + rule;
    r->body = body;
    r->defined = true;
}

/* --- expressions ------------------------------------------------------------------------------ */

/* Longer texts are cheaper than classes: one node, however many bytes. */
uint32_t expr_bytes(struct expr_build *b, const void *bytes, size_t n)
{
    size_t at;

    if (b->err || n == 0)
        return EXPR_EMPTY;
    /* Counted as parts: every byte becomes a state. */
    if (b->bytes.n + n > 4 * (size_t)EXPR_NODES_MAX) {
        expr_fail(b, -E2BIG, "the grammar is too large: its texts have more than %u bytes",
                  4 * EXPR_NODES_MAX);
        return EXPR_EMPTY;
    }
    at = append(b, &b->bytes, bytes, n, 1);
    return add(b, (struct expr_node){ EXPR_IS_BYTES, (uint32_t)at, (uint32_t)n, 0, 1 });
}

uint32_t expr_text(struct expr_build *b, const char *text)
{
    return expr_bytes(b, text, strlen(text));
}

static int by_lo(const void *a, const void *b)
{
    uint32_t x = ((const struct expr_range *)a)->lo, y = ((const struct expr_range *)b)->lo;

    return (x > y) - (x < y);
}

/* Sorted and joined ranges; returns how many. */
static size_t join(struct expr_range *r, size_t n)
{
    size_t out = 0;

    qsort(r, n, sizeof(*r), by_lo);
    for (size_t i = 0; i < n; i++) {
        if (out > 0 && r[i].lo <= r[out - 1].hi + 1) {
            if (r[i].hi > r[out - 1].hi)
                r[out - 1].hi = r[i].hi;
        } else {
            r[out++] = r[i];
        }
    }
    return out;
}

/* Ranges in order, cut at the surrogates: no UTF-8 has those, and nfa.c writes what it gets. */
static uint32_t class_of(struct expr_build *b, const struct expr_range *r, size_t n)
{
    size_t at = b->ranges.n;

    for (size_t i = 0; i < n && !b->err; i++) {
        struct expr_range low = { r[i].lo, r[i].hi < 0xd7ff ? r[i].hi : 0xd7ff },
                          high = { r[i].lo > 0xe000 ? r[i].lo : 0xe000,
                                   r[i].hi < 0x10ffff ? r[i].hi : 0x10ffff };

        if (low.lo <= low.hi)
            (void)append(b, &b->ranges, &low, 1, sizeof(low));
        if (high.lo <= high.hi)
            (void)append(b, &b->ranges, &high, 1, sizeof(high));
    }
    if (b->err || b->ranges.n == at)
        return b->err ? EXPR_EMPTY : EXPR_NEVER;
    return add(
        b, (struct expr_node){ EXPR_IS_CLASS, (uint32_t)at, (uint32_t)(b->ranges.n - at), 0, 1 });
}

/* In place, of the joined ranges. */
size_t expr_gaps(struct expr_range *r, size_t n)
{
    uint32_t from = 0;
    size_t out = 0;

    n = join(r, n);
    for (size_t i = 0; i < n; i++) { /* out <= i: what is written was read */
        struct expr_range x = r[i];

        if (x.lo > from)
            r[out++] = (struct expr_range){ from, x.lo - 1 };
        from = x.hi + 1;
    }
    if (from < 0x110000)
        r[out++] = (struct expr_range){ from, 0x10ffff };
    return out;
}

/* Of the ranges, or of the gaps between them. On a copy, which is sorted. */
static uint32_t class(struct expr_build *b, const struct expr_range *r, size_t n, bool gaps)
{
    struct expr_range *x = b->err ? NULL : calloc(n + 1, sizeof(*x));
    uint32_t e;

    if (!x) {
        expr_fail(b, -ENOMEM, "no memory for a grammar");
        return EXPR_EMPTY;
    }
    if (n > 0)
        memcpy(x, r, n * sizeof(*x));
    e = class_of(b, x, gaps ? expr_gaps(x, n) : join(x, n));
    free(x);
    return e;
}

uint32_t expr_class(struct expr_build *b, const struct expr_range *r, size_t n)
{
    return class(b, r, n, false);
}

uint32_t expr_class_not(struct expr_build *b, const struct expr_range *r, size_t n)
{
    return class(b, r, n, true);
}

/* Bounds are checked here and written out in nfa.c: a state for each time, which is what the limit
 * is about. */
uint32_t expr_repeat(struct expr_build *b, uint32_t e, uint32_t min, uint32_t max)
{
    if (b->err || max == 0 || e == EXPR_EMPTY)
        return EXPR_EMPTY;
    if (e == EXPR_NEVER)
        return min == 0 ? EXPR_EMPTY : EXPR_NEVER;
    if (min == 1 && max == 1)
        return e;
    if (min > EXPR_REPEAT_MAX || (max != EXPR_NO_MAX && max > EXPR_REPEAT_MAX)) {
        expr_fail(b, -E2BIG, "a repetition of up to %u times; %u are allowed",
                  max != EXPR_NO_MAX ? max : min, EXPR_REPEAT_MAX);
        return EXPR_EMPTY;
    }
    return add(b, (struct expr_node){ EXPR_IS_REPEAT, e, min, max, node_of(b, e)->depth + 1 });
}

uint32_t expr_maybe(struct expr_build *b, uint32_t e)
{
    return expr_repeat(b, e, 0, 1);
}

/* Depth 1, however deep the rule is: nfa.c writes rules one after the other, not inside of each
 * other. */
uint32_t expr_call(struct expr_build *b, uint32_t rule)
{
    return add(b, (struct expr_node){ EXPR_IS_CALL, rule, 0, 0, 1 });
}

uint32_t expr_jump(struct expr_build *b, uint32_t rule)
{
    return add(b, (struct expr_node){ EXPR_IS_JUMP, rule, 0, 0, 1 });
}

/* --- lists ------------------------------------------------------------------------------------ */

size_t expr_mark(const struct expr_build *b)
{
    return b->stack.n;
}

void expr_put(struct expr_build *b, uint32_t e)
{
    if (!b->err)
        (void)append(b, &b->stack, &e, 1, sizeof(e));
}

/* What was put on the stack since `mark` becomes the kids of a node, or simply that kid when it is
 * the only one. The part that adds nothing (the empty text of a sequence, the impossible one of a
 * choice) is left out; an impossible part makes a sequence impossible. */
static uint32_t list(struct expr_build *b, enum expr_kind kind, size_t mark)
{
    uint32_t skipped = kind == EXPR_IS_SEQ ? EXPR_EMPTY : EXPR_NEVER, depth = 0,
             *put = b->stack.mem; /* nothing is put meanwhile */
    size_t at = b->kids.n, n;
    bool never = false;

    for (size_t i = mark; i < b->stack.n && !b->err; i++) {
        never |= kind == EXPR_IS_SEQ && put[i] == EXPR_NEVER;
        if (put[i] == skipped)
            continue;
        (void)append(b, &b->kids, &put[i], 1, sizeof(*put));
        if (!b->err && node_of(b, put[i])->depth > depth)
            depth = node_of(b, put[i])->depth;
    }
    if (b->err)
        return EXPR_EMPTY;
    b->stack.n = mark;
    n = b->kids.n - at;
    if (never)
        return EXPR_NEVER;
    if (n <= 1)
        return n == 0 ? skipped : ((uint32_t *)b->kids.mem)[at];
    return add(b, (struct expr_node){ kind, (uint32_t)at, (uint32_t)n, 0, depth + 1 });
}

uint32_t expr_seq(struct expr_build *b, size_t mark)
{
    return list(b, EXPR_IS_SEQ, mark);
}

uint32_t expr_any_of(struct expr_build *b, size_t mark)
{
    return list(b, EXPR_IS_ANY_OF, mark);
}

uint32_t expr_seq2(struct expr_build *b, uint32_t first, uint32_t second)
{
    size_t mark = expr_mark(b);

    expr_put(b, first);
    expr_put(b, second);
    return expr_seq(b, mark);
}

uint32_t expr_or2(struct expr_build *b, uint32_t one, uint32_t other)
{
    size_t mark = expr_mark(b);

    expr_put(b, one);
    expr_put(b, other);
    return expr_any_of(b, mark);
}
