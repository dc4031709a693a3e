/* Thompson's construction, backwards: an expression is written with the state that follows it
 * already known (`out`), and returns its first one. So nothing has to be filled in later but loops
 * and jumps. What stands in several places is written in each, which is where a small grammar can
 * become large: NFA_STATES_MAX. */
#include "engine/text/nfa.h"

#include "base/utf8.h"
#include "engine/text/grammar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct expr_node *node_of(const struct expr_build *b, uint32_t e)
{
    return (const struct expr_node *)b->nodes.mem + e;
}

/* Not where the kids begin and then an index: an expression without any may be in a grammar where
 * none has any, and what is added to a pointer to nothing is undefined, be it 0. */
static uint32_t kid_of(const struct expr_build *b, const struct expr_node *x, uint32_t i)
{
    return ((const uint32_t *)b->kids.mem)[x->a + i];
}

static struct expr_rule *rule_of(const struct expr_build *b, uint32_t rule)
{
    return (struct expr_rule *)b->rules.mem + rule;
}

/* --- states ----------------------------------------------------------------------------------- */

/* 0 behind an error: a number like any other, which nobody uses then. */
static uint32_t state(struct nfa *n, struct expr_build *b, struct nfa_state s)
{
    struct nfa_state *at;

    if (n->states.n == NFA_STATES_MAX)
        expr_fail(b, -E2BIG, "the grammar is too large: written out it has more than %u characters",
                  NFA_STATES_MAX);
    at = b->err ? NULL : expr_grow(b, &n->states, 1, sizeof(*at));
    if (!at)
        return 0;
    *at = s;
    return (uint32_t)n->states.n - 1;
}

static uint32_t split(struct nfa *n, struct expr_build *b, uint32_t out, uint32_t other)
{
    return state(n, b, (struct nfa_state){ NFA_SPLIT, 0, 0, out, other });
}

static uint32_t byte(struct nfa *n, struct expr_build *b, uint8_t lo, uint8_t hi, uint32_t out)
{
    return state(n, b, (struct nfa_state){ NFA_BYTE, lo, hi, out, NFA_NONE });
}

/* --- characters ------------------------------------------------------------------------------- */

/* Code points of one length whose bytes but for the last `tail` ones are equal, or run through all
 * values behind the first that differs: then the range is a product of ranges of bytes. */
static uint32_t product(struct nfa *n, struct expr_build *b, uint32_t lo, uint32_t hi, uint32_t out)
{
    uint8_t from[4], to[4];
    size_t len = utf8_put(lo, from);

    (void)utf8_put(hi, to);
    while (len-- > 0)
        out = byte(n, b, from[len], to[len], out);
    return out;
}

/* Splits [lo, hi] into such products, and returns `other` or all of them. Each step takes the
 * longest one from lo on. */
static uint32_t char_range(struct nfa *n, struct expr_build *b, uint32_t lo, uint32_t hi,
                           uint32_t out, uint32_t other)
{
    static const uint32_t last[] = { 0x7f, 0x7ff, 0xffff, 0x10ffff };

    while (lo <= hi && !b->err) {
        uint32_t len = 0, end, unit = 0;

        while (lo > last[len])
            len++;
        end = hi < last[len] ? hi : last[len];
        /* The largest unit of 64^k at which lo begins, and of which whole ones fit. */
        while (unit < len && (lo & ((64u << 6 * unit) - 1)) == 0 &&
               lo + ((64u << 6 * unit) - 1) <= end)
            unit++;
        if (unit == 0) { /* some last bytes of one character's block */
            if (end > (lo | 63) && len > 0)
                end = lo | 63;
        } else {
            uint32_t size = 1u << 6 * unit, block = unit < len ? (64u << 6 * unit) : 0,
                     most = block ? (lo | (block - 1)) : end;

            if (end > most)
                end = most;
            end = lo + (end - lo + 1) / size * size - 1;
        }
        other = other == NFA_NONE ? product(n, b, lo, end, out)
                                  : split(n, b, product(n, b, lo, end, out), other);
        lo = end + 1;
    }
    return other;
}

static uint32_t char_class(struct nfa *n, struct expr_build *b, const struct expr_node *e,
                           uint32_t out)
{
    uint32_t all = NFA_NONE;

    for (uint32_t i = 0; i < e->b; i++) {
        struct expr_range r = ((struct expr_range *)b->ranges.mem)[e->a + i];

        all = char_range(n, b, r.lo, r.hi, out, all);
    }
    return all;
}

/* --- expressions ------------------------------------------------------------------------------ */

static uint32_t write_expr(struct nfa *n, struct expr_build *b, uint32_t e, uint32_t out);

/* `min` copies, then either a loop back to a split or a chain of copies that may each be left.
 * Copies are written from the last to the first. */
static uint32_t write_repeat(struct nfa *n, struct expr_build *b, const struct expr_node *e,
                             uint32_t out)
{
    uint32_t at = out, what = e->a, min = e->b, max = e->c;

    if (max == EXPR_NO_MAX) {
        at = split(n, b, 0, out); /* its `out` is the loop, known in a moment */
        out = write_expr(n, b, what, at);
        if (!b->err)
            nfa_state(n, at)->out = out;
    } else {
        for (uint32_t i = min; i < max && !b->err; i++)
            at = split(n, b, write_expr(n, b, what, at), out);
    }
    for (uint32_t i = 0; i < min && !b->err; i++)
        at = write_expr(n, b, what, at);
    return at;
}

/* The rule is written behind this one (write_rule); its first state is known by then. The split
 * stands in for it. One for all jumps to a rule within one rule; jump_at is cleared between rules,
 * since another rule ends elsewhere. */
static uint32_t write_jump(struct nfa *n, struct expr_build *b, uint32_t rule)
{
    if (n->jump_at[rule] == NFA_NONE) {
        n->jump_at[rule] = split(n, b, NFA_NONE, NFA_NONE);
        n->jumps[n->n_jumps++] = rule;
    }
    return n->jump_at[rule];
}

/* x is a copy: nodes don't move here, but b->err may be set on the way, and then nothing is read
 * any more. Recursion is as deep as EXPR_DEPTH_MAX allows. */
static uint32_t write_expr(struct nfa *n, struct expr_build *b, uint32_t e, uint32_t out)
{
    const struct expr_node x = *node_of(b, e);
    uint32_t at = out;

    switch (b->err ? EXPR_IS_EMPTY : x.kind) {
    case EXPR_IS_EMPTY:
    case EXPR_IS_NEVER: /* only as a whole rule, which was refused */
        return out;
    case EXPR_IS_BYTES:
        for (uint32_t i = x.b; i-- > 0;) {
            uint8_t c = ((uint8_t *)b->bytes.mem)[x.a + i];

            at = byte(n, b, c, c, at);
        }
        return at;
    case EXPR_IS_CLASS:
        return char_class(n, b, &x, out);
    case EXPR_IS_SEQ:
        for (uint32_t i = x.b; i-- > 0;)
            at = write_expr(n, b, kid_of(b, &x, i), at);
        return at;
    case EXPR_IS_ANY_OF:
        at = write_expr(n, b, kid_of(b, &x, x.b - 1), out);
        for (uint32_t i = x.b - 1; i-- > 0;)
            at = split(n, b, write_expr(n, b, kid_of(b, &x, i), out), at);
        return at;
    case EXPR_IS_REPEAT:
        return write_repeat(n, b, &x, out);
    case EXPR_IS_CALL:
        if (n->start[x.a] == NFA_NONE) {
            n->start[x.a] = 0; /* claimed: it is written when its turn comes */
            n->rules[n->n_rules++] = x.a;
        }
        return state(n, b, (struct nfa_state){ NFA_CALL, 0, 0, out, x.a });
    case EXPR_IS_JUMP:
        return write_jump(n, b, x.a);
    }
    return out;
}

/* A rule, and behind it those that it jumps to. */
static void write_rule(struct nfa *n, struct expr_build *b, uint32_t rule)
{
    uint32_t end = state(n, b, (struct nfa_state){ NFA_END, 0, 0, NFA_NONE, NFA_NONE }), first;

    n->n_jumps = 0;
    n->start[rule] = write_expr(n, b, rule_of(b, rule)->body, end);
    for (uint32_t i = 0; i < n->n_jumps && !b->err; i++) { /* they may jump to more */
        first = write_expr(n, b, rule_of(b, n->jumps[i])->body, end);
        if (!b->err)
            nfa_state(n, n->jump_at[n->jumps[i]])->out = first;
    }
    for (uint32_t i = 0; i < n->n_jumps; i++)
        n->jump_at[n->jumps[i]] = NFA_NONE;
}

/* --- checks ----------------------------------------------------------------------------------- */

/* Whether texts of e end, as far as is known of the rules. "Not known yet" is false, so that
 * check_ends can ask again when more is known. */
static bool ends(struct nfa *n, const struct expr_build *b, const bool *rule_ends, uint32_t e)
{
    const struct expr_node *x = node_of(b, e);

    if (n->work++ > GRAMMAR_WORK_MAX) /* parts that stand in many places are looked at in each */
        return false;
    switch (x->kind) {
    case EXPR_IS_SEQ:
        for (uint32_t i = 0; i < x->b; i++)
            if (!ends(n, b, rule_ends, kid_of(b, x, i)))
                return false;
        return true;
    case EXPR_IS_ANY_OF:
        for (uint32_t i = 0; i < x->b; i++)
            if (ends(n, b, rule_ends, kid_of(b, x, i)))
                return true;
        return false;
    case EXPR_IS_REPEAT:
        return x->b == 0 || ends(n, b, rule_ends, x->a);
    case EXPR_IS_CALL:
    case EXPR_IS_JUMP:
        return rule_ends[x->a];
    case EXPR_IS_NEVER:
        return false;
    default:
        return true;
    }
}

/* Every rule has a text, or the model could write itself into a corner. Rounds, until one finds
 * nothing new. In turns from both ends, so that a chain of rules is done in two of them whichever
 * way it points. */
static void check_ends(struct nfa *n, struct expr_build *b, bool *rule_ends)
{
    size_t n_rules = b->rules.n;
    bool more = true, backwards = true;

    while (more && n->work <= GRAMMAR_WORK_MAX) {
        more = false;
        backwards = !backwards;
        for (size_t i = 0; i < n_rules; i++) {
            size_t at = backwards ? n_rules - 1 - i : i;

            if (rule_ends[at] || !ends(n, b, rule_ends, rule_of(b, (uint32_t)at)->body))
                continue;
            rule_ends[at] = more = true;
        }
    }
    if (n->work > GRAMMAR_WORK_MAX)
        expr_fail(b, -E2BIG, "the grammar takes too long to compile: make it smaller");
    for (size_t i = 0; i < n_rules && !b->err; i++)
        if (!rule_ends[i])
            expr_fail(b, -EINVAL, "nothing can stand for %s: no text of it ever ends",
                      rule_of(b, (uint32_t)i)->name);
}

/* All rules, also those that nobody calls: a mistake in a grammar should be told. */
static void check_rules(struct nfa *n, struct expr_build *b)
{
    bool *rule_ends = calloc(b->rules.n + 1, sizeof(*rule_ends));

    for (size_t i = 0; i < b->rules.n; i++)
        if (!rule_of(b, (uint32_t)i)->defined)
            expr_fail(b, -EINVAL, "%s is used, but not defined", rule_of(b, (uint32_t)i)->name);
    if (!rule_ends)
        expr_fail(b, -ENOMEM, "no memory for a grammar");
    else if (!b->err)
        check_ends(n, b, rule_ends);
    free(rule_ends);
}

/* ---------------------------------------------------------------------------------------------- */

/* The list of rules grows while it is worked through: calls put those that they lead to at its end.
 */
int nfa_init(struct nfa *n, struct expr_build *b, uint32_t root)
{
    size_t n_rules = b->rules.n;

    *n = (struct nfa){ .n_rules = 0 };
    if (!b->err)
        check_rules(n, b);
    if (b->err)
        return b->err;
    n->start = calloc(n_rules, sizeof(*n->start));
    n->rules = calloc(n_rules, sizeof(*n->rules));
    n->jump_at = calloc(n_rules, sizeof(*n->jump_at));
    n->jumps = calloc(n_rules, sizeof(*n->jumps));
    if (!n->start || !n->rules || !n->jump_at || !n->jumps) {
        expr_fail(b, -ENOMEM, "no memory for a grammar");
        return b->err;
    }
    memset(n->start, 0xff, n_rules * sizeof(*n->start));
    memset(n->jump_at, 0xff, n_rules * sizeof(*n->jump_at));
    n->start[root] = 0;
    n->rules[n->n_rules++] = root;
    for (uint32_t i = 0; i < n->n_rules && !b->err; i++)
        write_rule(n, b, n->rules[i]);
    return b->err;
}

void nfa_fini(struct nfa *n)
{
    free(n->states.mem);
    free(n->start);
    free(n->rules);
    free(n->jump_at);
    free(n->jumps);
    *n = (struct nfa){ .n_rules = 0 };
}
