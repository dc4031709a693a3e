/* engine/run.h - what one sequence wants of a step: tokens that come next, observers, or gists.
 *
 * A batch is a list of runs (engine/forward.h). A run that reads takes tokens that come next: a
 * single one while the sequence decodes, a chunk while it reads a prompt. A run may also observe:
 * tokens that were read go through the model once more, to see what they attend to. Or it makes
 * gists of a raw segment by an adapter, whose K and V go to pages of their own. Neither of the two
 * changes anything of the sequence. Gists of a sequence with gist_every (engine/kv/seq.h) run among
 * its tokens.
 *
 * Ownership  borrows all that it points to, for one step.
 */
#ifndef ENGINE_RUN_H
#define ENGINE_RUN_H

#include "engine/file/adapter.h"
#include "engine/kv/seq.h"

#define FORWARD_RUNS_MAX 512u

enum forward_want { FORWARD_WANT_NONE, FORWARD_WANT_LAST, FORWARD_WANT_ALL };

enum forward_gists {
    FORWARD_NO_GISTS,
    FORWARD_SIDE,   /* beside the segment (fine, memory-only): a gist stands at the offset of the
                     * last token of its snippet and sees what that token saw before itself */
    FORWARD_BEHIND, /* after its last token, one after the other (coarse) */
    FORWARD_SOFT    /* in its place: embeddings that come from FORWARD_BEHIND (coarse-rec) */
};

/* Queries of a segment's tokens that are kept, for engine/fit.h: floats of the backend's,
 * (n_layer * n_head_kv, n, ASKED_FLOATS). A row is a query as it comes, scaled and turned by its
 * offset in the segment, and the logarithm of the sum of exp(score) over all that it sees.
 *
 * Of a KV head's queries, token after token and of each token a query head of the group after the
 * other, every heads-th is kept; tokens count that are every tokens-th of the segment. So with
 * group 3, tokens 1 and heads 4
 *
 *     token     0        1        2        3        4
 *     head    0 1 2    0 1 2    0 1 2    0 1 2    0 1 2
 *     row           0      1        2          3      ..
 */
#define ASKED_FLOATS(hd) ((size_t)(hd) + 1)

struct forward_asked {
    float *all;             /* NULL: none are kept */
    uint32_t n;             /* rows of a list */
    uint32_t tokens, heads; /* as above */
    uint32_t segment;       /* whose tokens' they are */
};

struct forward_run {
    struct seq *seq;        /* a sequence stands in one run of a batch only */
    const uint32_t *tokens; /* they come after seq->n_tokens and are reserved for already */
    uint32_t n_tokens;
    /* The last so many of them are guesses: they are read like the others, but the step leaves the
     * sequence at the end of those before them. Their keys and values lie behind it as long as
     * nothing else is read; forward_keep makes the next of them a token of the sequence. */
    uint32_t n_drafts;
    enum forward_want want;
    /* A run that reads may also say what its tokens look at: which share of their attention (the
     * softmax over all that they see) the first n of the segments before them get that have keys.
     * The tokens' sums are added to shares (n_layer, n_head, n), of the backend's memory; NULL: not
     * wanted. The reading stays the same to the bit. */
    struct {
        float *shares;
        uint32_t n;
    } look;
    struct forward_asked asked; /* of a run that reads, or observes: the same bits from both */
    /* Both: tokens is not looked at, and want must be NONE, but ALL where hidden states are. */
    struct {
        float *weights;        /* see engine/cpu/attend.h; NULL: not wanted */
        bool asks;             /* no weights are wanted, but asked */
        uint32_t first;        /* the tokens [first, first + n_tokens) of one raw segment */
        const uint32_t *pages; /* NULL: they look from where they stand. Else they are read again
                                * behind the segment: K and V go to these pages, as of a segment
                                * that follows it */
        uint32_t stride;       /* of tokens first, first + stride, ...; 0: 1 */
    } observe;
    struct {
        enum forward_gists kind;
        const struct adapter *adapter;
        uint32_t segment;      /* a raw one, with all its tokens */
        uint32_t first;        /* gists [first, first + n_tokens) of it */
        uint32_t sinks, ratio; /* gist j's snippet ends at offset (j + 1) * ratio, for SIDE that
                                * many behind the sinks */
        const uint32_t *pages; /* gist j becomes key sinks + j, BEHIND: key j */
        float *hidden;         /* (n_tokens, n_embd). BEHIND: gets the normed last hidden states,
                                * or NULL; SOFT: the embeddings */
    } gists;
};

/* Tokens that were read go through the model once more. */
bool forward_run_observes(const struct forward_run *r);

/* It reads tokens that come next. */
bool forward_run_reads(const struct forward_run *r);

/* Rows of the batch that it takes. */
uint32_t forward_run_rows(const struct forward_run *r);

struct forward_stop {
    bool (*fn)(void *arg);
    void *arg;
}; /* asked between layers */

/* stop NULL: nobody can say so. */
static inline bool forward_told_to_stop(const struct forward_stop *stop)
{
    return stop && stop->fn(stop->arg);
}

#endif
