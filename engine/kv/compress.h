/* engine/kv/compress.h - compressors: the raw KV of a segment in, a shorter one in its place.
 *
 *     full       keeps all of it
 *     none       keeps nothing: earlier segments are forgotten (the baseline of the paper's tables)
 *     fine-kv    a gist for every snippet of r tokens: made by an adapter in a pass of its own
 *                (engine/forward.h), or without one the KV of the snippet's last token, which is
 *                what an untrained adapter makes
 *     select     for each layer and KV head the keys that received most attention from the last
 *                tokens of the segment (as SnapKV, arXiv 2404.14469, chooses)
 *     select-reread
 *                those that received most from some token of the segment when it is read again
 *                behind itself (as KVzip, arXiv 2505.23416): what rebuilding the text needs
 *     coarse-kv  L / r gists behind the segment, made by an adapter in a pass of its own
 *     coarse-rec their last hidden states, which then go through the model as soft tokens in the
 *                segment's place. (The paper runs them again in every later segment; what they see
 *                never changes, so once is the same.)
 *
 * What a segment of L tokens becomes, with s sinks (in a sequence's first segment only, else 0):
 *
 *     | sinks | one key a snippet: (L - s) / r | remainder: (L - s) % r |  by position
 *
 * Where a gist stands for r tokens of the whole segment, sinks included, nothing remains: coarse
 * gists, and those that an adapter of mask in-segment has among the tokens while they are read
 * (engine/kv/seq.h). They leave
 *
 *     | sinks | L / r gists |
 *
 * fine-kv keeps the remainder's tokens themselves, select as many more of its choice: the number of
 * keys is the same. Keys get the positions 0, 1, ... of the shorter segment (engine/kv/seq.h): they
 * are turned back from where they stood.
 *
 * A compressed segment can be thinned: of every two neighbouring gists the later one stays (which
 * is what the untrained fine-kv makes at twice the ratio), of select's keys the half with the
 * smallest norm (keys that draw attention are short: arXiv 2406.11430), since what they received is
 * not known any more.
 *
 * Source     paper 2.4 (snippets); positions and sinks: docs/memory.md.
 *
 * Threads    the scheduler's, the owner of the workers.
 * Ownership  borrows model, kernels, workers and angles.
 * Errors     compress_open: -ENOMEM. compress_check: -EINVAL.
 */
#ifndef ENGINE_KV_COMPRESS_H
#define ENGINE_KV_COMPRESS_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/file/adapter.h"
#include "engine/kv/rotary.h"
#include "engine/kv/seq.h"

#define COMPRESS_RATIO_MIN 2u
#define COMPRESS_RATIO_MAX 64u
#define COMPRESS_SINKS     4u /* the default */
#define COMPRESS_SINKS_MAX 16u
#define COMPRESS_OBSERVERS 64u

enum compress_method {
    COMPRESS_FULL,
    COMPRESS_NONE,
    COMPRESS_FINE_KV,
    COMPRESS_SELECT,
    COMPRESS_COARSE_KV,
    COMPRESS_COARSE_REC,
    COMPRESS_SELECT_REREAD,
    COMPRESS__N
};

struct compress_spec {
    enum compress_method method;
    uint32_t ratio, sinks;
    const struct adapter *adapter; /* FINE_KV may have one, COARSE_* need one; else NULL */
};

/* "full", "none", "fine-kv", "select", "coarse-kv", "coarse-rec", "select-reread". */
const char *compress_name(enum compress_method method);

/* That of an adapter's gists. */
enum compress_method compress_method_of(const struct adapter *a);

/* why says what is wrong with the spec for segments of seg_len tokens. */
int compress_check(const struct compress_spec *c, uint32_t seg_len, struct why *why);

/* Keys that a segment is left with when it was thinned so many times. */
uint32_t compress_n_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                         uint32_t thinned);

/* Tokens of a compressed segment that are there as they are, a key each: its sinks and, by fine-kv,
 * the remainder. (What select keeps differs from head to head: no token is there as a whole.) */
uint32_t compress_n_raw(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);

/* How often a segment can be thinned, up to COMPRESS_RATIO_MAX. */
uint32_t compress_max_thinned(const struct compress_spec *c);

/* The last so many tokens of a segment have to observe it before it is compressed; 0: none. */
uint32_t compress_n_observers(const struct compress_spec *c, uint32_t seg_len);

/* Keys that the segment's observers or gists have beside it, in pages of their own. */
uint32_t compress_n_beside(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);

/* A gist stands behind so many tokens while they are read; 0: none. */
uint32_t compress_gist_every(const struct compress_spec *c);

/* Gists that an adapter has to make of a segment first, into pages that hold compress_n_keys; 0:
 * none. */
uint32_t compress_n_gists(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);

struct compressor;

int compressor_open(const struct model *m, const struct kernels *k, struct workers *w,
                    const struct rotary *rotary, struct compressor **ret);
void compressor_close(struct compressor *c);

/* The segment's sinks, where they stand, go to pages before soft tokens are run behind them. */
void compressor_put_sinks(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                          uint32_t segment, const uint32_t *pages);

/* A full raw segment of which gists were made becomes those pages, which the sequence takes over:
 * sinks and the remainder join them. */
void compressor_join(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                     uint32_t segment, const uint32_t *pages);

/* Any other full raw segment becomes a compressed one in place, unless the method is FULL. weights
 * (n_layer, n_head_kv, seg_len): what its observers saw, where there are any. -ENOSPC: see seq_own;
 * nothing has happened. */
int compressor_run(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                   uint32_t segment, const float *weights);

/* A compressed segment that was thinned so many times is thinned once more, in place. -ENOSPC: see
 * seq_own; nothing has happened. */
int compressor_thin(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                    uint32_t segment, uint32_t thinned);

#endif
