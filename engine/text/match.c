/* A byte is taken in two steps: the ways are closed under calls (match_call), and each way's edge
 * of that byte is followed, with rules that end left (match_byte). Only the second result is kept:
 * calls that the byte did not go into need not be remembered.
 *
 * Nodes are never shared between matches, and a node that no way leads to any more stays until
 * tidy() or match_forget() takes it. */
#include "engine/text/match.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SLOTS (2 * MATCH_NODES_MAX)
_Static_assert((SLOTS & (SLOTS - 1)) == 0, "a power of two");

/* The first limit that is met is the one that people hear of. */
static void limit(struct match *m, const char *why)
{
    if (!m->err) {
        m->err = -E2BIG;
        m->why = why;
    }
}

/* --- stacks ----------------------------------------------------------------------------------- */

static uint32_t slot_of(uint32_t ret, uint32_t parent)
{
    return (ret * 2654435761u ^ parent * 2246822519u) >> 7 & (SLOTS - 1);
}

/* Of a state above the stack of that node. Capped, so that a sum of many nodes can't overflow. */
static uint32_t least_with(const struct match *m, uint32_t state, uint32_t node)
{
    uint32_t n;

    if (!m->g->least)
        return 0;
    n = m->g->least[state] + m->nodes[node].least;
    return n < GRAMMAR_NEVER ? n : GRAMMAR_NEVER;
}

/* The node of that state above that stack, made if there is none: equal stacks must be one node, or
 * ways that differ in nothing would multiply. Without room 0, and m->err says so. */
static uint32_t push_node(struct match *m, uint32_t ret, uint32_t parent)
{
    uint32_t at = slot_of(ret, parent), n;

    for (; (n = m->table[at]) != 0; at = (at + 1) & (SLOTS - 1))
        if (m->nodes[n].ret == ret && m->nodes[n].parent == parent)
            return n;
    if (m->n_nodes == MATCH_NODES_MAX) {
        limit(m, "the text nests deeper than the grammar's matcher can follow");
        return 0;
    }
    m->table[at] = m->n_nodes;
    m->nodes[m->n_nodes] = (struct match_node){ ret, parent, least_with(m, ret, parent) };
    return m->n_nodes++;
}

/* From the newest on, so that each is the last of those that were put where their hash points:
 * taking it out leaves no hole. This needs M2: nothing was put behind it that is to stay. */
void match_forget(struct match *m, uint32_t n)
{
    while (m->n_nodes > n) {
        uint32_t last = --m->n_nodes, at = slot_of(m->nodes[last].ret, m->nodes[last].parent);

        while (m->table[at] != last)
            at = (at + 1) & (SLOTS - 1);
        m->table[at] = 0;
    }
}

/* Keeps the nodes of the set alone. They move down, parents before children, so that one pass from
 * below renames them. The table serves as the list of new names meanwhile: it has room for two
 * entries a node. */
static void tidy(struct match *m)
{
    static const uint32_t keep = UINT32_MAX;
    uint32_t *name = m->table, n = 1; /* it is made anew anyway */

    memset(name, 0, MATCH_NODES_MAX * sizeof(*name));
    for (uint32_t i = 0; i < m->n_ways; i++)
        name[m->ways[i].node] = keep;
    for (uint32_t i = m->n_nodes; i-- > 1;)
        if (name[i] == keep)
            name[m->nodes[i].parent] = keep;
    name[0] = 0;
    for (uint32_t i = 1; i < m->n_nodes; i++) {
        if (name[i] != keep)
            continue;
        name[i] = n;
        m->nodes[n++] =
            (struct match_node){ m->nodes[i].ret, name[m->nodes[i].parent], m->nodes[i].least };
    }
    for (uint32_t i = 0; i < m->n_ways; i++)
        m->ways[i].node = name[m->ways[i].node];
    memset(m->table, 0, sizeof(m->table));
    m->n_nodes = 1;
    for (uint32_t i = 1; i < n; i++) {
        uint32_t same = push_node(m, m->nodes[i].ret, m->nodes[i].parent);

        assert(same == i);
    }
}

/* --- sets ------------------------------------------------------------------------------------- */

/* By looking through the set: it rarely has more than a few ways, and a table would have to be
 * cleared for each byte. */
static uint32_t add(struct match *m, struct match_way *set, uint32_t n, uint32_t state,
                    uint32_t node)
{
    m->work += n + 1;
    for (uint32_t i = 0; i < n; i++)
        if (set[i].state == state && set[i].node == node)
            return n;
    if (n == MATCH_WAYS_MAX) {
        limit(m, "the grammar is too ambiguous: it has too many ways to go on");
        return n;
    }
    set[n] = (struct match_way){ state, node };
    return n + 1;
}

/* Makes the set closed under ends (M1): the state behind a call comes in where its rule may end,
 * and that may be an end again. Then what can only end is left out. *ret_ends: the bottom was left,
 * so the text may end here. */
static uint32_t end_rules(struct match *m, struct match_way *set, uint32_t n, bool *ret_ends)
{
    const struct grammar *g = m->g;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++) { /* it grows meanwhile */
        if (!(g->flags[set[i].state] & GRAMMAR_ENDS))
            continue;
        if (set[i].node == 0)
            *ret_ends = true;
        else
            n = add(m, set, n, m->nodes[set[i].node].ret, m->nodes[set[i].node].parent);
    }
    for (uint32_t i = 0; i < n; i++)
        if (!(g->flags[set[i].state] & GRAMMAR_LEAF))
            set[kept++] = set[i];
    return kept;
}

/* The set grows while it is read: called rules may begin with calls. That comes to an end, since no
 * rule leads to itself without a byte (grammar.h) and no way is there twice. */
uint32_t match_call(struct match *m, struct match_way *set, uint32_t n)
{
    const struct grammar *g = m->g;

    for (uint32_t i = 0; i < n; i++) {
        struct match_way w = set[i];

        if (!(g->flags[w.state] & GRAMMAR_CALLS))
            continue;
        for (uint32_t k = g->calls_at[w.state]; k < g->calls_at[w.state + 1]; k++) {
            struct grammar_call c = g->calls[k];
            bool leaf = g->flags[c.ret] & GRAMMAR_LEAF;

            /* Who only ends behind the call need not be waited for: lists that are written by
             * recursion at their end take no stack. */
            if (!(g->flags[c.start] & GRAMMAR_LEAF))
                n = add(m, set, n, c.start, leaf ? w.node : push_node(m, c.ret, w.node));
            if ((g->flags[c.start] & GRAMMAR_ENDS) && !leaf)
                n = add(m, set, n, c.ret, w.node);
        }
    }
    return n;
}

uint32_t match_byte(struct match *m, const struct match_way *from, uint32_t n, uint8_t byte,
                    struct match_way *to, bool *ret_ends)
{
    const struct grammar *g = m->g;
    const uint32_t *next = g->next + g->class_of[byte];
    uint32_t n_to = 0;
    bool ends = false;

    *ret_ends = false;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = next[(size_t)from[i].state * g->n_classes];

        m->work++;
        if (s == GRAMMAR_DEAD)
            continue;
        ends |= g->flags[s] & GRAMMAR_ENDS;
        n_to = add(m, to, n_to, s, from[i].node);
    }
    return ends ? end_rules(m, to, n_to, ret_ends) : n_to;
}

/* --- a text ----------------------------------------------------------------------------------- */

void match_start(struct match *m, const struct grammar *g)
{
    m->g = g;
    m->err = 0;
    m->why = NULL;
    m->work = 0;
    m->n_nodes = 1;
    m->nodes[0] = (struct match_node){ 0, 0, 0 };
    memset(m->table, 0, sizeof(m->table));
    m->ends = false;
    m->ways[0] = (struct match_way){ g->start, 0 };
    m->n_ways = end_rules(m, m->ways, 1, &m->ends);
}

/* Half of the nodes are enough to begin with tidying: the next byte may need as many again. */
int match_push(struct match *m, const uint8_t *bytes, size_t n)
{
    struct match_way set[MATCH_WAYS_MAX];

    for (size_t i = 0; i < n; i++) {
        uint32_t n_set = m->n_ways;

        memcpy(set, m->ways, n_set * sizeof(*set));
        n_set = match_call(m, set, n_set);
        m->n_ways = match_byte(m, set, n_set, bytes[i], m->ways, &m->ends);
        if (m->n_nodes > MATCH_NODES_MAX / 2)
            tidy(m);
    }
    if (m->err) {
        m->n_ways = 0;
        m->ends = false;
        return m->err;
    }
    return m->n_ways > 0 || m->ends ? 0 : -EINVAL;
}

/* Of all ways the cheapest: the text may go on in any of them. */
uint32_t match_least(const struct match *m, const struct match_way *set, uint32_t n)
{
    uint32_t least = GRAMMAR_NEVER;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t one = least_with(m, set[i].state, set[i].node);

        if (one < least)
            least = one;
    }
    return least;
}

uint32_t match_left(const struct match *m)
{
    return m->ends ? 0 : match_least(m, m->ways, m->n_ways);
}
