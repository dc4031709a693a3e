/* The walk over the tokens is one pass from left to right. Levels 0 to len hold the ways that a
 * token's first bytes lead to; for the next token those of the common beginning stay, and only what
 * differs is tried. So all tokens of a vocabulary cost about as much as the edges of their trie.
 *
 *     token   "ab"        "abc"              "b"
 *     levels  0 > a > b   0 > a > b > c      0 > b       (lcp 2, then 0)
 */
#include "engine/text/mask.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WAYS  4u /* of a set of slots */
#define ARENA 8192u

/* Steps of one walk, and of all walks of one mask, which may be as many as there are ways: some 0.1
 * s in which no other client gets a token. No honest grammar comes near. */
#define WORK_MAX      (16u << 20)
#define MASK_WORK_MAX (64u << 20)

/* What is kept of a state. `used` is the clock's time of the last use; `words` of masks has the
 * bits, at the slot's number. */
struct slot {
    uint64_t grammar, used; /* 0: free */
    uint32_t state;
    uint32_t worst; /* tokens that one of `allow` needs behind it at most, to the rule's end */
};

/* The ways that a beginning of the current token leads to. */
struct level {
    uint32_t at, n;     /* in arena */
    uint32_t n_nodes;   /* when it was begun */
    bool called, ended; /* closed under calls; the bottom was left at or before it, not at 0 */
    bool ends;          /* at it */
};

struct masks {
    const struct trie *trie;
    struct slot *slots;
    uint64_t *words; /* (n_slots, 2, n_words) */
    size_t n_sets, map_len;
    uint64_t clock, asked, made;
    uint64_t work;      /* of this mask's walks so far */
    struct match loose; /* of states whose stack is not known */
    struct level levels[TRIE_LEN_MAX + 1];
    struct match_way arena[ARENA + 2 * MATCH_WAYS_MAX];
};

/* The words are mapped and not allocated: pages that no state has used cost nothing, and no malloc
 * comes later. */
int masks_new(const struct trie *t, size_t bytes, struct masks **ret)
{
    struct masks *k = calloc(1, sizeof(*k));
    size_t each = 2 * t->n_words * sizeof(uint64_t);

    if (!k)
        return -ENOMEM;
    k->trie = t;
    k->n_sets = bytes / (WAYS * each);
    if (k->n_sets == 0)
        k->n_sets = 1;
    k->map_len = k->n_sets * WAYS * each;
    k->slots = calloc(k->n_sets * WAYS, sizeof(*k->slots));
    k->words = mmap(NULL, k->map_len, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!k->slots || k->words == MAP_FAILED) {
        if (k->words == MAP_FAILED)
            k->words = NULL;
        masks_free(k);
        return -ENOMEM;
    }
    *ret = k;
    return 0;
}

void masks_free(struct masks *k)
{
    if (!k)
        return;
    if (k->words)
        (void)munmap(k->words, k->map_len);
    free(k->slots);
    free(k);
}

void masks_counts(const struct masks *k, uint64_t *ret_asked, uint64_t *ret_made)
{
    *ret_asked = k->asked;
    *ret_made = k->made;
}

/* --- walking ---------------------------------------------------------------------------------- */

/* One pass: from where, over which tokens, and where to put what was found. */
struct walk {
    struct masks *k;
    struct match *m;
    const uint64_t *only; /* bits by place; NULL: all tokens */
    uint64_t *allow, *unsure;
    uint32_t most; /* tokens that one may need behind it */
    uint32_t worst;
};

/* The next place from i on that is to be tried; *lcp becomes the least on the way, if it is less.
 * n: none. Whole blocks without a bit are passed by; their least lcp stands in block_lcp, since
 * what they had less in common counts for the token behind them, too. */
static uint32_t next_place(const struct walk *w, uint32_t i, uint8_t *lcp)
{
    const struct trie *t = w->k->trie;

    if (!w->only) {
        if (i < t->n)
            *lcp = t->lcp[i];
        return i;
    }
    for (; i < t->n; i++) {
        if (i % 64 == 0 && w->only[i / 64] == 0) {
            if (t->block_lcp[i / 64] < *lcp)
                *lcp = t->block_lcp[i / 64];
            i += 63;
            continue;
        }
        if (t->lcp[i] < *lcp)
            *lcp = t->lcp[i];
        if (w->only[i / 64] >> i % 64 & 1)
            return i;
    }
    return t->n;
}

/* One level down, by a byte. Ways of a level lie behind those of the level above. Calls are added
 * when a byte is first tried from a level, which most levels never see. */
static void descend(struct walk *w, uint32_t depth, uint8_t byte)
{
    struct masks *k = w->k;
    struct level *from = &k->levels[depth], *to = from + 1;

    if (!from->called) {
        from->n = match_call(w->m, k->arena + from->at, from->n);
        from->called = true;
    }
    *to = (struct level){ .at = from->at + from->n, .n_nodes = w->m->n_nodes };
    if (to->at > ARENA) {
        w->m->err = -E2BIG;
        w->m->why = "the grammar is too ambiguous: it has too many ways to go on";
        return;
    }
    to->n = match_byte(w->m, k->arena + from->at, from->n, byte, k->arena + to->at, &to->ends);
    to->ended = from->ended || to->ends;
}

/* Up again: nodes that the levels below took are given back. */
static void ascend(struct walk *w, uint32_t from, uint32_t to)
{
    if (from > to)
        match_forget(w->m, w->k->levels[to + 1].n_nodes);
}

static void put(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= 1ull << i % 64;
}

/* What is needed behind a token that ends on this level. */
static uint32_t needs(const struct walk *w, const struct level *l)
{
    if (l->n == 0 && !l->ends)
        return UINT32_MAX; /* it can't come */
    return l->ends ? 0 : match_least(w->m, w->k->arena + l->at, l->n);
}

/* A token that ends where the automaton is goes to `allow` if it leaves few enough tokens to come.
 * If it can't come, and the bottom of the stack was left on its way, it depends on the real stack:
 * unsure. */
static void end_token(struct walk *w, const struct level *l, uint32_t i, bool ends)
{
    uint32_t n = ends ? needs(w, l) : UINT32_MAX;

    if (n <= w->most) {
        put(w->allow, w->k->trie->ids[i]);
        if (n > w->worst)
            w->worst = n;
    } else if (l->ended && w->unsure) {
        put(w->unsure, i);
    }
}

/* Tries tokens from the way `from`. A token is given up at the first byte that leads nowhere; those
 * with the same beginning are then passed by in the same loop, at no cost but their lcp. */
static int walk(struct walk *w, struct match_way from)
{
    struct masks *k = w->k;
    const struct trie *t = k->trie;
    uint32_t depth = 0, n_nodes = w->m->n_nodes;
    uint8_t lcp = 0xff;

    k->arena[0] = from;
    k->levels[0] = (struct level){ .at = 0, .n = 1, .n_nodes = n_nodes };
    w->m->work = 0;
    for (uint32_t i = next_place(w, 0, &lcp); i < t->n && !w->m->err;) {
        const uint8_t *bytes = t->bytes + t->at[i];
        uint32_t len = t->at[i + 1] - t->at[i];

        if (lcp < depth) {
            ascend(w, depth, lcp);
            depth = lcp;
        }
        while (depth < len && k->levels[depth].n > 0 && !w->m->err) {
            descend(w, depth, bytes[depth]);
            depth++;
        }
        end_token(w, &k->levels[depth], i, depth == len);
        if (w->m->work > WORK_MAX || k->work + w->m->work > MASK_WORK_MAX) {
            w->m->err = -E2BIG;
            w->m->why = "the grammar is too ambiguous: its next tokens take too long to find";
        }
        lcp = 0xff;
        i = next_place(w, i + 1, &lcp);
    }
    match_forget(w->m, n_nodes);
    k->work += w->m->work;
    return w->m->err;
}

/* --- slots ------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t grammar, uint32_t state)
{
    uint64_t x = grammar * 0x9e3779b97f4a7c15ull ^ state * 0xc2b2ae3d27d4eb4full;

    return x ^ x >> 29;
}

/* The slot of a state, or the one that is to become it (used 0). */
static struct slot *find(struct masks *k, uint64_t grammar, uint32_t state)
{
    struct slot *set = k->slots + mix(grammar, state) % k->n_sets * WAYS, *oldest = set;

    for (uint32_t i = 0; i < WAYS; i++) {
        if (set[i].used && set[i].grammar == grammar && set[i].state == state)
            return &set[i];
        if (set[i].used < oldest->used)
            oldest = &set[i];
    }
    oldest->used = 0;
    return oldest;
}

/* With a stack of nothing, so that only what is true of every stack goes to `allow`. The match is a
 * spare one: the caller's stands where its text does. */
static int fill(struct masks *k, struct match *m, struct slot *s, uint32_t state, uint64_t *words)
{
    size_t n = k->trie->n_words;
    /* Behind what can't be ended with this vocabulary nobody comes out. */
    struct walk w = { k, &k->loose, NULL, words, words + n, GRAMMAR_NEVER - 1, 0 };
    int e;

    memset(words, 0, 2 * n * sizeof(*words));
    match_start(&k->loose, m->g);
    k->made++;
    e = walk(&w, (struct match_way){ state, 0 });
    if (e < 0) {
        m->err = e;
        m->why = k->loose.why;
        return e;
    }
    *s = (struct slot){ m->g->id, 0, state, w.worst };
    return 0;
}

/* All tokens of a way: those that are kept, or near the end each by itself. worst is of all kept
 * tokens together: as long as even the costliest fits, nobody asks which it is. */
static int add_way(struct masks *k, struct match *m, struct match_way way, uint32_t most,
                   uint64_t *bits)
{
    size_t n = k->trie->n_words;
    struct slot *s = find(k, m->g->id, way.state);
    uint64_t *words = k->words + (size_t)(s - k->slots) * 2 * n;
    struct walk w = { k, m, words + n, bits, NULL, most, 0 };

    k->asked++;
    if (!s->used && fill(k, m, s, way.state, words) < 0)
        return m->err;
    s->used = ++k->clock;
    if (s->worst + m->nodes[way.node].least > most)
        w.only = NULL;
    for (size_t j = 0; j < n && w.only; j++)
        bits[j] |= words[j];
    return walk(&w, way);
}

/* A text that can't be ended any more in what is left is masked as if there were no end to its
 * tokens: it will be cut, but until then it is right. */
int masks_of(struct masks *k, struct match *m, uint32_t left, uint64_t *ret_bits)
{
    size_t n = k->trie->n_words;
    uint32_t most = left - 1;
    uint64_t any = 0;

    memset(ret_bits, 0, n * sizeof(*ret_bits));
    k->work = 0;
    if (most >= GRAMMAR_NEVER || match_left(m) > left) /* too late: it is cut */
        most = GRAMMAR_NEVER - 1;
    for (uint32_t i = 0; i < m->n_ways && !m->err; i++)
        (void)add_way(k, m, m->ways[i], most, ret_bits);
    if (m->err)
        return m->err;
    for (size_t j = 0; j < n; j++) {
        if (m->ends)
            ret_bits[j] |= k->trie->ends[j];
        any |= ret_bits[j];
    }
    return any ? 0 : -ENODATA;
}

/* Words of ones are passed by: where anything may come, as in a string, that is nearly all of them.
 */
void masks_apply(const uint64_t *bits, float *logits, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < n_vocab; i += 64) {
        uint64_t word = bits[i / 64];
        uint32_t n = n_vocab - i < 64 ? n_vocab - i : 64;

        if (word == UINT64_MAX)
            continue;
        for (uint32_t k = 0; k < n; k++)
            logits[i + k] = word >> k & 1 ? logits[i + k] : -INFINITY;
    }
}
