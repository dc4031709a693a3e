/* engine/file/weights.h - the tensors of one model, from its file into one arena.
 *
 * A plan is made first: every tensor the hyperparameters ask for, its place in the file and in the
 * arena (engine/file/packed.h), all checked, nothing read. Then one pass over the file in its own
 * order fills the arena and computes the digest of all bytes:
 *
 *     file    | header | pad | token_embd | blk.0.attn_norm | blk.0.attn_q | ... | output_norm |
 *     arena   | output_norm | token_embd | blk.0.attn_q | ... | blk.0.attn_norm | ... |
 *
 * Rows are packed into tiles straight to where they stay, if the host can write there, else by way
 * of a buffer. The rows of wq and wk of `llama` files are put back in their order (see
 * engine/file/model.h), vectors that are F16 or BF16 become F32.
 *
 * Threads    one thread, the backend's, whose host threads pack what it reads.
 * Ownership  a plan borrows gguf and model; weights_read sets the model's pointers into `mem`.
 * Errors     -EINVAL, -ENOTSUP, -ENOMEM, -ECANCELED, or the errno of the I/O.
 */
#ifndef ENGINE_FILE_WEIGHTS_H
#define ENGINE_FILE_WEIGHTS_H

#include "engine/backend.h"
#include "engine/file/gguf.h"
#include "engine/file/model.h"

struct feed_options;

struct weights_item {
    const struct gguf_tensor *from;
    struct model_tensor *matrix; /* one of the two: where its pointer goes */
    const float **vector;
    enum quant type;         /* in the file */
    uint32_t head_dim;       /* rows to put back in order, by heads of this many; 0: none */
    size_t mem_off, mem_len; /* in the arena */
    uint32_t extent;         /* of the arena */
};

struct weights {
    const struct gguf *g;
    struct why *why;
    struct weights_item *items; /* sorted by place in the file once planned */
    size_t n_items;
    struct packed *packed;           /* the model's */
    size_t data_len;                 /* bytes of tensor data in the file */
    const struct feed_options *read; /* how weights_read does that; NULL: as it is best here */
};

/* Checks all tensors against m's hyperparameters, fills the shapes of its tensors and n_vocab, and
 * allocates m->layers and m->packed. *ret_rope_factors will point to (head_dim / 2) floats or stay
 * NULL. */
int weights_plan(const struct gguf *g, struct model *m, const float **ret_rope_factors,
                 struct weights *ret, struct why *why);

/* Fills mem (w->packed->len bytes of b's) and the model's pointers; ret_digest as model.digest. b:
 * NULL for memory of the process, and this thread alone. */
int weights_read(struct weights *w, struct backend *b, void *mem,
                 const struct model_progress *progress, char ret_digest[33]);

/* Sets the model's pointers to an arena that is filled already; of which each extent has a place of
 * its own. */
void weights_bind(const struct weights *w, void *mem);
void weights_bind_extents(const struct weights *w, uint8_t *const *bases);

void weights_fini(struct weights *w);

/* The row of the file that is row r of a weight whose rows are permuted by heads of head_dim; 0:
 * they are not. */
uint32_t weights_file_row(uint32_t r, uint32_t head_dim);

#endif
