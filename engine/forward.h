/* engine/forward.h - the forward pass over a batch of sequences.
 *
 * A batch is a list of runs: some next tokens of one sequence each, a single one while it decodes,
 * a chunk while it reads a prompt. K and V go to the sequences' pages; the normed last hidden
 * states of the wanted tokens stay until the next step, and logits are computed from them on
 * request. A run may also observe: tokens that were read go through the model once more, to see
 * what they attend to. Or it makes gists of a raw segment by an adapter, whose K and V go to pages
 * of their own. Neither changes anything of the sequence. Gists of a sequence with gist_every
 * (engine/seq.h) run among its tokens.
 *
 * Source: Llama (RMSNorm, SwiGLU, rotary embedding, grouped-query attention) and Qwen2 (biases).
 *
 * Threads    one thread, the owner of the workers. stop() is called on it.
 * Ownership  borrows model, kernels and workers; owns its scratch, allocated at open for max_batch
 *            tokens: a step allocates nothing.
 * Errors     forward_step: -ECANCELED (stop said so; sequences are as before), -EINVAL (a token id
 *            past the vocabulary), -E2BIG (more than max_batch rows or FORWARD_RUNS_MAX runs).
 */
#ifndef ENGINE_FORWARD_H
#define ENGINE_FORWARD_H

#include "engine/adapter.h"
#include "engine/kernels.h"
#include "engine/model.h"
#include "engine/rotary.h"
#include "engine/seq.h"
#include "engine/workers.h"

#define FORWARD_RUNS_MAX 512u

enum forward_want { FORWARD_WANT_NONE, FORWARD_WANT_LAST, FORWARD_WANT_ALL };

enum forward_gists {
    FORWARD_NO_GISTS,
    FORWARD_SIDE,     /* beside the segment (fine, memory-only): a gist stands at the offset of the
                       * last token of its snippet and sees what that token saw before itself */
    FORWARD_BEHIND,   /* after its last token, one after the other (coarse) */
    FORWARD_SOFT      /* in its place: embeddings that come from FORWARD_BEHIND (coarse-rec) */
};

struct forward_run {
    struct seq *seq;             /* a sequence stands in one run of a batch only */
    const uint32_t *tokens;      /* they come after seq->n_tokens and are reserved for already */
    uint32_t n_tokens;
    enum forward_want want;
    /* Both: tokens is not looked at, and want must be NONE, but ALL where hidden states are. */
    struct {
        float *weights;          /* see engine/attend.h; NULL: does not observe */
        uint32_t first;          /* the tokens [first, first + n_tokens) of one raw segment */
        const uint32_t *pages;   /* NULL: they look from where they stand. Else they are read again
                                  * behind the segment: K and V go to these pages, as of a segment
                                  * that follows it */
    } observe;
    struct {
        enum forward_gists kind;
        const struct adapter *adapter;
        uint32_t segment;        /* a raw one, with all its tokens */
        uint32_t first;          /* gists [first, first + n_tokens) of it */
        uint32_t sinks, ratio;   /* gist j's snippet ends at offset (j + 1) * ratio, for SIDE that
                                  * many behind the sinks */
        const uint32_t *pages;   /* gist j becomes key sinks + j, BEHIND: key j */
        float *hidden;           /* (n_tokens, n_embd). BEHIND: gets the normed last hidden states,
                                  * or NULL; SOFT: the embeddings */
    } gists;
};

/* Rows of the batch that a run takes. */
uint32_t forward_run_rows(const struct forward_run *r);

struct forward_stop { bool (*fn)(void *arg); void *arg; };   /* asked between layers */

struct forward;

int forward_open(const struct model *m, const struct kernels *k, struct workers *w,
                 uint32_t max_batch, struct forward **ret, struct why *why);
void forward_close(struct forward *f);

/* On success each run's tokens belong to its sequence, and the wanted outputs are numbered in the
 * order of runs and tokens: *ret_n_out of them. stop may be NULL. */
int forward_step(struct forward *f, const struct forward_run *runs, uint32_t n_runs,
                 const struct forward_stop *stop, uint32_t *ret_n_out);

/* Logits of outputs [first, first + n) of the last step: ret is (n, n_vocab). */
void forward_logits(struct forward *f, uint32_t first, uint32_t n, float *ret);

/* Angles of this model's rotary embedding. */
const struct rotary *forward_rotary(const struct forward *f);

/* Bytes of scratch, for the memory account. */
size_t forward_bytes(const struct forward *f);

#endif
