/* train/step.h - one sequence through the model: its loss and what it adds to the gradients, or its
 * log-probabilities.
 *
 * The loss of a sequence is the mean over its tokens that carry loss and that gists could have
 * helped with: those whose row is not frozen (train/net/layout.h).
 *
 * Threads    all of OpenMP's; one call at a time.
 * Ownership  borrows base and gist; owns net, head, layouts and buffers.
 * Errors     -ENOMEM, -EIO (engine/tensors.h), -EINVAL (a shape that train/net/layout.h refuses).
 */
#ifndef TRAIN_STEP_H
#define TRAIN_STEP_H

#include "train/net/gists.h"

struct teacher;

/* What is minimised: the sum of these, each times its weight. */
struct step_rule {
    double lm;            /* language modelling */
    double distill;       /* divergence from the base with full attention */
    uint32_t distill_top; /* over its so many most probable tokens, up to HEAD_TEACHER_MAX */
    bool tie; /* paper 3.3: tokens of lm are weighed by exp(min(log P_full - log P_segment, gamma)),
               * a softmax over the sequence's tokens times their number. (The paper prints the
               * fraction the other way round, against its own words and LongPPL.) */
    double tie_gamma;
    double ae; /* train/net/ae.h, for a share of the gists: drawn anew for each sequence */
    double ae_share;
    uint64_t seed;
    struct teacher
        *teacher; /* train/teacher.h: what distill and its rows are asked first; NULL: none */
    const struct base
        *original; /* the base that tie and distill ask; NULL: the gist's, which does not train */
};

struct step_loss {
    double all;             /* with weights */
    double lm, distill, ae; /* means, without */
    uint32_t n_tokens;      /* that carried loss */
};

struct step;

/* Bytes where it is computed, and values of the decoder that are trained beside them. */
struct step_room {
    size_t rows, head, attention, decoder, n_values;
};
/* Of a gist that may be no more than its base's and its own shape, with who computes. */
int step_room(struct gists *g, bool base_trains, uint32_t n_tokens, bool checkpointing,
              const struct step_rule *rule, const struct tensors_ops *ops, struct step_room *ret);

/* Sequences of n_tokens, ratios of the gist's shape. */
int step_open(struct gists *g, uint32_t n_tokens, bool checkpointing, const struct step_rule *rule,
              struct step **ret);
void step_close(struct step *s);

/* index: of the sequence, for what is drawn. Gradients of scale * loss are added to the gist's. ids
 * (n_tokens), carries (n_tokens): whether the token counts. */
int step_learn(struct step *s, const uint32_t *ids, const uint8_t *carries, uint32_t ratio,
               uint64_t index, float scale, struct step_loss *ret);

/* ret_logp (n_tokens): log-probabilities of tokens [first, n_tokens), first > 0; the others' are
 * not written. */
int step_score(struct step *s, enum layout_kind kind, uint32_t ratio, const uint32_t *ids,
               uint32_t first, float *ret_logp);

/* Tokens that carry loss, and those of them that are the most probable ones after those before
 * them. */
struct step_recalled {
    uint32_t n, n_right;
};
int step_recall(struct step *s, enum layout_kind kind, uint32_t ratio, const uint32_t *ids,
                const uint8_t *carries, struct step_recalled *ret);

/* Tokens of snippets that the decoder of train/net/ae.h gets right, from all gists of a sequence:
 * the share. -ENOTSUP: there is no decoder. */
int step_rebuild(struct step *s, uint32_t ratio, const uint32_t *ids, double *ret);

/* After the optimiser's step. */
void step_refresh(struct step *s);

size_t step_bytes(const struct step *s);

#endif
