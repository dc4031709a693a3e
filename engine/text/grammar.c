/* The subset construction, rule by rule: a state here is a set of states of engine/text/nfa.h. A
 * rule's subsets are made one after the other from its first one; each that is met for the first
 * time is put behind the others, so the list is also what is left to do. All that is new to a rule
 * has numbers from m->first on: the same set in two rules is two states, since it ends another
 * rule. */
#include "engine/text/grammar.h"

#include "engine/text/nfa.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* `final`: the rule may end in it. */
struct subset {
    uint32_t at, n; /* in sets */
    bool final;
};

struct maker {
    struct expr_build *b;
    struct nfa nfa;
    struct grammar *g;
    struct expr_array sets, subsets, next, calls, calls_at;
    uint32_t *slots; /* of subsets by their hash; of the rule that is being made */
    uint32_t mask;
    uint32_t first;                             /* subset of the rule */
    uint32_t *start;                            /* (rules): first state of each, 0: not made yet */
    uint32_t *seen, stamp, *stack, *set, n_set; /* (nfa states) each */
};

/* False: it takes too long. Counted here and in nfa.c together: one sum for all of a compilation.
 */
static bool works(struct maker *m, uint64_t n)
{
    m->nfa.work += n;
    if (m->nfa.work > GRAMMAR_WORK_MAX)
        expr_fail(m->b, -E2BIG, "the grammar takes too long to compile: make it smaller");
    return !m->b->err;
}

/* --- classes ---------------------------------------------------------------------------------- */

/* Bytes that no edge tells apart are one class. A class begins where some edge begins, or right
 * behind where one ends. */
static void make_classes(struct maker *m)
{
    bool begins[257] = { true };
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->nfa.states.n; i++) {
        const struct nfa_state *s = nfa_state(&m->nfa, i);

        if (s->kind == NFA_BYTE)
            begins[s->lo] = begins[s->hi + 1] = true;
    }
    for (uint32_t i = 0; i < 256; i++) {
        n += i > 0 && begins[i];
        m->g->class_of[i] = (uint8_t)n;
    }
    m->g->n_classes = n + 1;
}

/* --- subsets ---------------------------------------------------------------------------------- */

/* A stamp instead of a field that is cleared: clearing would cost all states of the automaton for
 * each set. */
static void set_clear(struct maker *m)
{
    m->n_set = 0;
    m->stamp++;
}

/* Adds s and what it splits into: only states that are more than that are kept. Duplicates are left
 * out, so n_set is at most the number of states. */
static void set_add(struct maker *m, uint32_t s)
{
    uint32_t n = 0;

    m->stack[n++] = s;
    while (n > 0) {
        const struct nfa_state *x = nfa_state(&m->nfa, s = m->stack[--n]);

        if (m->seen[s] == m->stamp)
            continue;
        m->seen[s] = m->stamp;
        m->nfa.work++;
        if (x->kind != NFA_SPLIT) {
            m->set[m->n_set++] = s;
            continue;
        }
        /* What was seen is not put again, so that the stack holds each state at most twice. */
        if (m->seen[x->out] != m->stamp)
            m->stack[n++] = x->out;
        if (x->other != NFA_NONE && m->seen[x->other] != m->stamp)
            m->stack[n++] = x->other;
    }
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static struct subset *subset_of(const struct maker *m, uint32_t i)
{
    return (struct subset *)m->subsets.mem + i;
}

/* The table has only subsets of the rule that is being made, and is at most half full. */
static bool grow_slots(struct maker *m)
{
    uint32_t n = m->mask ? 2 * (m->mask + 1) : 64, *slots = calloc(n, sizeof(*slots));

    if (!slots) {
        expr_fail(m->b, -ENOMEM, "no memory for a grammar");
        return false;
    }
    free(m->slots);
    m->slots = slots;
    m->mask = n - 1;
    for (uint32_t i = m->first; i < m->subsets.n; i++) {
        const struct subset *x = subset_of(m, i);
        uint32_t at = (uint32_t)XXH3_64bits((uint32_t *)m->sets.mem + x->at, x->n * 4) & m->mask;

        while (m->slots[at])
            at = (at + 1) & m->mask;
        m->slots[at] = i;
    }
    return true;
}

/* The state that stands for the set: a new one, if there is none yet. Members are sorted, so equal
 * sets are equal arrays. GRAMMAR_DEAD is the empty set, and what comes back after an error. */
static uint32_t set_state(struct maker *m)
{
    struct subset *x;
    uint32_t at, *ids;

    if (m->n_set == 0)
        return GRAMMAR_DEAD;
    qsort(m->set, m->n_set, sizeof(*m->set), by_number);
    if (!works(m, m->n_set) || (2 * (m->subsets.n - m->first) >= m->mask && !grow_slots(m)))
        return GRAMMAR_DEAD;
    for (at = (uint32_t)XXH3_64bits(m->set, m->n_set * 4) & m->mask; m->slots[at];
         at = (at + 1) & m->mask) {
        x = subset_of(m, m->slots[at]);
        if (x->n == m->n_set &&
            memcmp((uint32_t *)m->sets.mem + x->at, m->set, x->n * sizeof(*m->set)) == 0)
            return m->slots[at];
    }
    /* Before anything is stored, so that the table of edges never passes its bytes either. */
    if (m->subsets.n >= GRAMMAR_STATES_MAX ||
        (m->subsets.n + 1) * m->g->n_classes * sizeof(*m->g->next) > GRAMMAR_TABLE_MAX) {
        expr_fail(m->b, -E2BIG, "the grammar is too large: compiled it has more than %zu states",
                  m->subsets.n);
        return GRAMMAR_DEAD;
    }
    m->slots[at] = (uint32_t)m->subsets.n;
    ids = expr_grow(m->b, &m->sets, m->n_set, sizeof(*ids));
    x = ids ? expr_grow(m->b, &m->subsets, 1, sizeof(*x)) : NULL;
    if (!x)
        return GRAMMAR_DEAD;
    memcpy(ids, m->set, m->n_set * sizeof(*ids));
    *x = (struct subset){ (uint32_t)(m->sets.n - m->n_set), m->n_set, false };
    return m->slots[at];
}

/* --- edges ------------------------------------------------------------------------------------ */

static const struct nfa_state *member(const struct maker *m, uint32_t subset, uint32_t i)
{
    return nfa_state(&m->nfa, ((uint32_t *)m->sets.mem)[subset_of(m, subset)->at + i]);
}

/* One edge for each class, by its first byte: all bytes of a class lead to the same states. The
 * table may move while set_state is called, so it is looked up anew. */
static void make_bytes(struct maker *m, uint32_t subset)
{
    uint32_t n = subset_of(m, subset)->n, c = 0, at = subset * m->g->n_classes;

    for (uint32_t first = 0; first < 256; first++) { /* of a class */
        if (first > 0 && m->g->class_of[first] == m->g->class_of[first - 1])
            continue;
        set_clear(m);
        for (uint32_t i = 0; i < n; i++) {
            const struct nfa_state *x = member(m, subset, i);

            if (x->kind == NFA_BYTE && x->lo <= first && first <= x->hi)
                set_add(m, x->out);
        }
        if (!works(m, n))
            return;
        c = set_state(m);
        ((uint32_t *)m->next.mem)[at + m->g->class_of[first]] = c;
    }
}

/* Calls of one rule are one call, and what stands behind them one state. The rule's number stands
 * for its first state, which may not be made yet (finish). */
static void make_calls(struct maker *m, uint32_t subset)
{
    uint32_t n = subset_of(m, subset)->n;
    size_t first = m->calls.n;
    struct grammar_call *call;

    for (uint32_t i = 0; i < n && !m->b->err; i++) {
        const struct nfa_state *x = member(m, subset, i);
        uint32_t rule = x->other, ret;
        bool made = false;

        subset_of(m, subset)->final |= x->kind == NFA_END;
        if (x->kind != NFA_CALL)
            continue;
        for (size_t k = first; k < m->calls.n; k++)
            made |= ((struct grammar_call *)m->calls.mem)[k].start == rule;
        if (made || !works(m, n))
            continue;
        set_clear(m);
        for (uint32_t k = i; k < n; k++) {
            const struct nfa_state *y = member(m, subset, k);

            if (y->kind == NFA_CALL && y->other == rule)
                set_add(m, y->out);
        }
        ret = set_state(m);
        call = expr_grow(m->b, &m->calls, 1, sizeof(*call));
        if (call)
            *call = (struct grammar_call){ rule, ret }; /* its state is known at the end */
    }
}

/* calls_at and next get a row for each state as its turn comes, in the order of the states. */
static void make_rule(struct maker *m, uint32_t rule)
{
    uint32_t *row;

    m->first = (uint32_t)m->subsets.n;
    free(m->slots); /* small again: there are many small rules */
    m->slots = NULL;
    m->mask = 0;
    set_clear(m);
    set_add(m, m->nfa.start[rule]);
    m->start[rule] = set_state(m);
    for (uint32_t i = m->first; i < m->subsets.n && !m->b->err; i++) {
        uint32_t *at = expr_grow(m->b, &m->calls_at, 1, sizeof(*at));

        row = at ? expr_grow(m->b, &m->next, m->g->n_classes, sizeof(*row)) : NULL;
        if (!row)
            return;
        memset(row, 0, m->g->n_classes * sizeof(*row));
        *at = (uint32_t)m->calls.n;
        make_bytes(m, i);
        make_calls(m, i);
    }
}

/* --- what the states are ---------------------------------------------------------------------- */

static bool has_bytes(const struct grammar *g, uint32_t s)
{
    for (uint32_t c = 0; c < g->n_classes; c++)
        if (g->next[(size_t)s * g->n_classes + c])
            return true;
    return false;
}

/* Ends that lie behind calls which read nothing are found round by round. A leaf needs no look at
 * its row: nothing can come behind it in its rule. */
static void make_flags(struct maker *m)
{
    struct grammar *g = m->g;
    bool more = true;

    for (uint32_t s = 1; s < g->n_states; s++) {
        bool calls = g->calls_at[s] < g->calls_at[s + 1];

        if (subset_of(m, s)->final)
            g->flags[s] |= GRAMMAR_ENDS | (calls || has_bytes(g, s) ? 0 : GRAMMAR_LEAF);
        if (calls)
            g->flags[s] |= GRAMMAR_CALLS;
    }
    while (more && works(m, g->n_states)) {
        more = false;
        for (uint32_t s = 1; s < g->n_states; s++) {
            for (uint32_t i = g->calls_at[s]; i < g->calls_at[s + 1]; i++) {
                const struct grammar_call *c = &g->calls[i];

                if ((g->flags[s] & GRAMMAR_ENDS) || !(g->flags[c->start] & GRAMMAR_ENDS) ||
                    !(g->flags[c->ret] & GRAMMAR_ENDS))
                    continue;
                g->flags[s] |= GRAMMAR_ENDS;
                more = true;
            }
        }
    }
}

/* Whether `rule` can come to itself without a byte, marking in `seen` what can't: 1: not looked at,
 * 2: being looked at, 3: can't. By a list instead of recursion, which could be as deep as there are
 * rules: states are put twice, to be left when all behind them was seen. A state behind a call is
 * reached without a byte only if the called rule may be empty. */
static bool comes_back(struct maker *m, uint32_t start, uint8_t *seen, uint32_t *todo)
{
    const struct grammar *g = m->g;
    uint32_t n = 0;

    todo[n++] = start;
    while (n > 0) {
        uint32_t s = todo[n - 1];

        if (seen[s] != 1) { /* again: all behind it was seen */
            seen[s] = 3;
            n--;
            continue;
        }
        seen[s] = 2;
        for (uint32_t i = g->calls_at[s]; i < g->calls_at[s + 1]; i++) {
            uint32_t to[2] = { g->calls[i].start, g->calls[i].ret };
            /* Coming back to a state within a rule is a loop that reads nothing: harmless. Calls
             * alone make the stack grow. */
            for (int k = 0; k < 1 + !!(g->flags[to[0]] & GRAMMAR_ENDS); k++) {
                if (seen[to[k]] == 2 && k == 0)
                    return true;
                if (seen[to[k]] == 1)
                    todo[n++] = to[k];
            }
        }
    }
    return false;
}

/* Of each rule's first state. A left recursion would have match_call add calls without end. */
static void check_left(struct maker *m)
{
    struct grammar *g = m->g;
    uint8_t *seen = malloc(g->n_states);
    uint32_t *todo = malloc((g->n_states + 2 * m->calls.n + 2) * sizeof(*todo));

    if (!seen || !todo)
        expr_fail(m->b, -ENOMEM, "no memory for a grammar");
    if (!m->b->err)
        memset(seen, 1, g->n_states);
    for (uint32_t i = 0; i < m->nfa.n_rules && !m->b->err; i++) {
        uint32_t rule = m->nfa.rules[i];

        if (seen[m->start[rule]] == 1 && comes_back(m, m->start[rule], seen, todo))
            expr_fail(m->b, -EINVAL,
                      "%s leads to a rule that begins with itself (left recursion): write it as a "
                      "repetition, or put the recursion at its end",
                      ((struct expr_rule *)m->b->rules.mem)[rule].name);
    }
    free(seen);
    free(todo);
}

/* --- all of it -------------------------------------------------------------------------------- */

/* What was doubled while it grew, without the room that is left: it stays for long. */
static void *fitted(struct expr_array *a, size_t elem)
{
    void *mem = a->n > 0 ? reallocarray(a->mem, a->n, elem) : NULL;

    return mem ? mem : a->mem;
}

/* The arrays become the grammar's. The id tells masks of one grammar from those of a later one at
 * the same address. */
static void finish(struct maker *m, uint32_t root)
{
    static atomic_uint_fast64_t last_id;
    struct grammar *g = m->g;
    uint32_t *end = expr_grow(m->b, &m->calls_at, 1, sizeof(*end));

    g->n_states = (uint32_t)m->subsets.n;
    g->flags = calloc(g->n_states, 1);
    if (!g->flags)
        expr_fail(m->b, -ENOMEM, "no memory for a grammar");
    if (m->b->err)
        return;
    *end = (uint32_t)m->calls.n;
    for (size_t i = 0; i < m->calls.n; i++) {
        struct grammar_call *c = (struct grammar_call *)m->calls.mem + i;

        c->start = m->start[c->start];
    }
    g->bytes = sizeof(*g) + g->n_states + m->next.n * 4 + m->calls_at.n * 4 + m->calls.n * 8;
    g->start = m->start[root];
    g->id = atomic_fetch_add(&last_id, 1) + 1; /* 0 is no grammar: a free slot of masks */
    g->next = fitted(&m->next, sizeof(*g->next));
    g->calls_at = fitted(&m->calls_at, sizeof(*g->calls_at));
    g->calls = fitted(&m->calls, sizeof(*g->calls));
    make_flags(m);
    if (!m->b->err)
        check_left(m);
    m->next.mem = m->calls_at.mem = m->calls.mem = NULL; /* they are the grammar's */
}

/* State 0 is the dead one and comes first. The stack has room for two entries a state (set_add). */
static void make_all(struct maker *m, uint32_t root)
{
    size_t n = m->nfa.states.n;
    struct subset *dead;

    m->g = calloc(1, sizeof(*m->g));
    m->start = calloc(m->b->rules.n, sizeof(*m->start));
    m->seen = calloc(n, sizeof(*m->seen));
    m->stack = calloc(2 * n + 2, sizeof(*m->stack));
    m->set = calloc(n, sizeof(*m->set));
    if (!m->g || !m->start || !m->seen || !m->stack || !m->set) {
        expr_fail(m->b, -ENOMEM, "no memory for a grammar");
        return;
    }
    make_classes(m);
    dead = expr_grow(m->b, &m->subsets, 1, sizeof(*dead)); /* state 0, of no edges */
    if (dead)
        *dead = (struct subset){ 0, 0, false };
    if (expr_grow(m->b, &m->next, m->g->n_classes, 4))
        memset(m->next.mem, 0, m->g->n_classes * 4);
    if (expr_grow(m->b, &m->calls_at, 1, 4))
        *(uint32_t *)m->calls_at.mem = 0;
    for (uint32_t i = 0; i < m->nfa.n_rules && !m->b->err; i++)
        make_rule(m, m->nfa.rules[i]);
    if (!m->b->err)
        finish(m, root);
}

int grammar_compile(struct expr_build *b, uint32_t root, struct grammar **ret)
{
    struct maker m = { .b = b };
    struct expr_array *all[] = { &m.sets, &m.subsets, &m.next, &m.calls, &m.calls_at };

    if (nfa_init(&m.nfa, b, root) == 0)
        make_all(&m, root);
    nfa_fini(&m.nfa);
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]->mem);
    free(m.slots);
    free(m.start);
    free(m.seen);
    free(m.stack);
    free(m.set);
    if (b->err)
        grammar_free(m.g);
    else
        *ret = m.g;
    return b->err;
}

void grammar_free(struct grammar *g)
{
    if (!g)
        return;
    free(g->next);
    free(g->calls_at);
    free(g->calls);
    free(g->flags);
    free(g->least);
    free(g);
}
