/* First the edges: which states of the same rule a token leads to. All tokens from all states would
 * take seconds, so only those are tried that shorten something:
 *
 *     runs     of one class of bytes, of each length that the vocabulary has: single bytes, and
 *              blanks or letters where a string has to be long
 *     words    where few bytes may come, all tokens that begin with them, as long as few may come:
 *              what a schema spells out. Where many may come, as in a string, only by a byte that
 *              leads elsewhere than those beside it, as a quote does
 *
 * Then rounds over the edges and the calls until nothing becomes less: what a state needs is one
 * more than what an edge's end needs, or what a call's rule and the state behind it need together.
 * Numbers only shrink, and each is made of some that were larger or equal: so they are consistent
 * after any round. A missing edge makes a number larger than it has to be, never wrong: an answer
 * is then told to end a little earlier. That is why edges may be left out where they would take too
 * long, and rounds be given up. */
#include "engine/text/ending.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RUN_MAX   64u
#define FEW_BYTES 16u   /* that may come, where words are tried */
#define WORDS_MAX 2048u /* steps of one state's words */
#define EDGES_MAX 512u  /* of one state */
#define SKIPS_MAX 4u    /* calls in a row that read nothing */
#define LOOK_WORK 64u   /* of a byte that is looked up among the tokens */

/* With more states than this, of each run only one byte and the longest one are edges. The longest
 * one alone finds nearly the same numbers: a long text is made of longest runs and one rest. */
#define ALL_RUNS_STATES 4096u

struct measure {
    struct grammar *g;
    const struct trie *t;
    uint64_t runs[256];         /* (classes): bit n - 1: there is a token of n bytes of the class */
    uint8_t bytes[256];         /* by class, */
    uint16_t bytes_at[257];     /* (classes + 1) where those of each begin */
    uint32_t *edges, *edges_at; /* (n_states + 1) */
    size_t n_edges, cap;
    uint32_t *seen, from;    /* (n_states): the last state that has an edge there */
    uint32_t run_max, words; /* left of WORDS_MAX */
    uint64_t work;
    bool all_runs;
    int err;
};

/* --- edges ------------------------------------------------------------------------------------ */

static uint32_t next_of(const struct measure *m, uint32_t state, uint32_t class)
{
    return m->g->next[(size_t)state * m->g->n_classes + class];
}

/* An edge to where a state has one already, or to itself, can't make anything less. More than
 * EDGES_MAX are dropped. */
static void add_edge(struct measure *m, uint32_t to)
{
    if (m->seen[to] == m->from || to == m->from || m->n_edges - m->edges_at[m->from] >= EDGES_MAX)
        return;
    if (m->n_edges == m->cap) {
        size_t cap = 2 * m->cap + 1024;
        uint32_t *mem = reallocarray(m->edges, cap, sizeof(*mem));

        if (!mem) {
            m->err = -ENOMEM;
            return;
        }
        m->edges = mem;
        m->cap = cap;
    }
    m->seen[to] = m->from;
    m->edges[m->n_edges++] = to;
}

/* The other way round of class_of: which bytes are of a class. */
static void index_classes(struct measure *m)
{
    uint32_t n = 0;

    for (uint32_t c = 0; c < m->g->n_classes; c++) {
        m->bytes_at[c] = (uint16_t)n;
        for (uint32_t b = 0; b < 256; b++)
            if (m->g->class_of[b] == c)
                m->bytes[n++] = (uint8_t)b;
    }
    m->bytes_at[m->g->n_classes] = (uint16_t)n;
}

/* Of each class the lengths for which there is a token of nothing but such bytes: a run of that
 * length can be one token. */
static void find_runs(struct measure *m)
{
    const struct trie *t = m->t;

    for (uint32_t i = 0; i < t->n; i++) {
        const uint8_t *bytes = t->bytes + t->at[i];
        uint32_t n = t->at[i + 1] - t->at[i], k = 1;
        uint8_t c = m->g->class_of[bytes[0]];

        if (n > RUN_MAX)
            continue;
        while (k < n && m->g->class_of[bytes[k]] == c)
            k++;
        if (k == n)
            m->runs[c] |= 1ull << (n - 1);
    }
}

/* Follows one class from the state, a byte at a time, and adds where runs end for which there is a
 * token. */
static void add_runs(struct measure *m, uint32_t class)
{
    uint32_t to = m->from, longest = GRAMMAR_DEAD;

    for (uint32_t n = 0; n < m->run_max; n++) {
        uint32_t at = to;

        to = next_of(m, at, class);
        m->work++;
        if (to == GRAMMAR_DEAD)
            break;
        if (m->runs[class] >> n & 1) {
            longest = to;
            if (n == 0 || m->all_runs)
                add_edge(m, to);
        }
        if (to == at) /* and so on */
            break;
    }
    if (longest != GRAMMAR_DEAD)
        add_edge(m, longest);
}

/* The first token of [lo, hi), which share their first `depth` bytes and are longer, whose next
 * byte is not less than b. By bisection: tokens are sorted by their bytes. */
static uint32_t first_with(const struct trie *t, uint32_t lo, uint32_t hi, uint32_t depth,
                           uint32_t b)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (t->bytes[t->at[mid] + depth] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* How many bytes may come in a state. */
static uint32_t n_bytes(const struct measure *m, uint32_t state)
{
    uint32_t n = 0;

    for (uint32_t c = 0; c < m->g->n_classes; c++)
        if (next_of(m, state, c))
            n += m->bytes_at[c + 1] - (uint32_t)m->bytes_at[c];
    return n;
}

/* A class of one byte, and classes are in the order of their bytes. So the neighbours in the table
 * are the neighbours of the byte: a quote in the middle of all that a string may have leads
 * elsewhere than both. */
static bool is_odd(const struct measure *m, uint32_t state, uint32_t class)
{
    uint32_t to = next_of(m, state, class);

    return m->bytes_at[class + 1] - m->bytes_at[class] == 1 &&
           (class == 0 || next_of(m, state, class - 1) != to) &&
           (class + 1 == m->g->n_classes || next_of(m, state, class + 1) != to);
}

/* Tokens [lo, hi), whose first `depth` bytes lead to the state. No deeper than a token is long.
 * Goes down the trie and the automaton together. skips: calls in a row that were passed by because
 * their rule may be empty; what they stand for has no bytes of its own. */
static void add_words(struct measure *m, uint32_t state, uint32_t lo, uint32_t hi, uint32_t depth,
                      uint32_t skips)
{
    const struct grammar *g = m->g;
    const struct trie *t = m->t;
    uint32_t first = lo;
    bool few;

    if (m->words == 0 || lo == hi)
        return;
    m->words--;
    m->work += g->n_classes + (g->calls_at[state + 1] - g->calls_at[state]);
    while (first < hi && t->at[first + 1] - t->at[first] == depth)
        first++;
    if (depth > 0 && first > lo &&
        skips == 0) /* behind a call it is the call's sum that leads on */
        add_edge(m, state);
    for (uint32_t i = g->calls_at[state]; i < g->calls_at[state + 1] && skips < SKIPS_MAX; i++)
        if (g->flags[g->calls[i].start] & GRAMMAR_ENDS)
            add_words(m, g->calls[i].ret, lo, hi, depth, skips + 1);
    few = n_bytes(m, state) <= FEW_BYTES;
    for (uint32_t c = 0; c < g->n_classes; c++) {
        uint32_t to = few || is_odd(m, state, c) ? next_of(m, state, c) : GRAMMAR_DEAD;

        for (uint32_t k = m->bytes_at[c]; to && k < m->bytes_at[c + 1]; k++) {
            uint32_t b = m->bytes[k], from = first_with(t, first, hi, depth, b);

            m->work += LOOK_WORK;
            add_words(m, to, from, first_with(t, from, hi, depth, b + 1), depth + 1, 0);
        }
    }
}

/* Of all states, in the order of their numbers: edges_at needs no sorting. With many states the
 * runs become shorter, and the words are left out once the work is used up: each state keeps its
 * single bytes in any case. */
static int make_edges(struct measure *m)
{
    const struct grammar *g = m->g;
    uint64_t each = (uint64_t)g->n_states * g->n_classes;

    m->all_runs = g->n_states <= ALL_RUNS_STATES;
    m->run_max = each * RUN_MAX <= ENDING_WORK_MAX ? RUN_MAX : (uint32_t)(ENDING_WORK_MAX / each);
    if (m->run_max == 0)
        m->run_max = 1;
    index_classes(m);
    find_runs(m);
    for (uint32_t s = 1; s < g->n_states && !m->err; s++) {
        m->from = s;
        m->edges_at[s] = (uint32_t)m->n_edges;
        for (uint32_t c = 0; c < g->n_classes; c++)
            if (next_of(m, s, c))
                add_runs(m, c);
        m->words = m->work < ENDING_WORK_MAX ? WORDS_MAX : 0;
        add_words(m, s, 0, m->t->n, 0, 0);
    }
    m->edges_at[g->n_states] = (uint32_t)m->n_edges;
    return m->err;
}

/* --- rounds ----------------------------------------------------------------------------------- */

/* A call costs what its rule needs and what is needed behind it. Sums of two GRAMMAR_NEVER fit into
 * 32 bits, and are more than one. */
static uint32_t least_of(const struct measure *m, uint32_t s)
{
    const struct grammar *g = m->g;
    uint32_t least = g->least[s];

    for (uint32_t i = m->edges_at[s]; i < m->edges_at[s + 1]; i++)
        if (g->least[m->edges[i]] + 1 < least)
            least = g->least[m->edges[i]] + 1;
    for (uint32_t i = g->calls_at[s]; i < g->calls_at[s + 1]; i++) {
        uint32_t both = g->least[g->calls[i].start] + g->least[g->calls[i].ret];

        if (both < least)
            least = both;
    }
    return least;
}

/* From the last state to the first, which is how ends are come to, and the other way round.
 * Alternating lets a number travel through a chain in either direction in one round. */
static void make_rounds(struct measure *m)
{
    struct grammar *g = m->g;
    uint64_t each = g->n_states + m->n_edges + g->calls_at[g->n_states], work = 0;
    bool more = true, backwards = false;

    while (more && work <= ENDING_WORK_MAX) {
        more = false;
        backwards = !backwards;
        work += each;
        for (uint32_t i = 1; i < g->n_states; i++) {
            uint32_t s = backwards ? g->n_states - i : i, least = least_of(m, s);

            if (least == g->least[s])
                continue;
            g->least[s] = least;
            more = true;
        }
    }
}

/* Only a memory failure is an error. A first state without a number means that this vocabulary
 * can't write the grammar at all; masks are made without numbers then. */
int ending_measure(struct grammar *g, const struct trie *t)
{
    struct measure m = { .g = g, .t = t };
    int e = -ENOMEM;

    g->least = calloc(g->n_states, sizeof(*g->least));
    m.edges_at = calloc(g->n_states + 1, sizeof(*m.edges_at));
    m.seen = calloc(g->n_states, sizeof(*m.seen));
    if (g->least && m.edges_at && m.seen)
        e = make_edges(&m);
    if (e == 0) {
        for (uint32_t s = 0; s < g->n_states; s++)
            g->least[s] = g->flags[s] & GRAMMAR_ENDS ? 0 : GRAMMAR_NEVER;
        make_rounds(&m);
    }
    free(m.edges);
    free(m.edges_at);
    free(m.seen);
    if (e < 0 || g->least[g->start] == GRAMMAR_NEVER) {
        free(g->least);
        g->least = NULL;
    } else {
        g->bytes += g->n_states * sizeof(*g->least);
    }
    return e;
}
