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
 *     fit        those that received most from where the next segment's tokens stand, with values
 *                such that attention over the segment comes out as it was (as arXiv 2602.16284)
 *     coarse-kv  L / r gists behind the segment, made by an adapter in a pass of its own
 *     coarse-rec their last hidden states, which then go through the model as soft tokens in the
 *                segment's place. (The paper runs them again in every later segment; what they see
 *                never changes, so once is the same.)
 *
 * Each is a struct compress_ops (engine/kv/compress_ops.h) in the file of its family; who calls the
 * functions below never asks which one it has.
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
 * is what the untrained fine-kv makes at twice the ratio), and so with fit; of select's keys the
 * half with the smallest norm (keys that draw attention are short: arXiv 2406.11430), since what
 * they received is not known any more.
 *
 * Steps      compress_plan gives a run of the model that the compressor wants first (observers,
 *            gists), compress_ran says that it was done, and so on until compress_rows_left is 0;
 *            compress_finish then does the rest. Until then the segment is as it was.
 *
 * Pages      Where the pool and the account have pages to spare, the shorter segment is written to
 *            fresh ones and the raw ones go back untouched, so that something else may still hold
 *            them. Where they have not, it is written over the segment's own first pages, a key
 *            after the other from the front: a kept key never lies before its new place. Both give
 *            the same bits. No page is taken from the pool's cache for this.
 *
 * Source     paper 2.4 (snippets); positions and sinks: docs/memory.md.
 *
 * Threads    the scheduler's.
 * Ownership  borrows model and backend. Its two scratches are all the memory that
 *            compression takes beside pages: they are shared by all sequences, and bounded.
 * Errors     compress_open: -ENOMEM. compress_check: -EINVAL. compress_plan: -EAGAIN, others have
 *            the scratch, and one of them will be done with it (who finds it full first is the
 *            next to have some, so that a long segment is not passed by short ones for ever);
 * -ENOSPC, no pages. compress_finish, compress_thin: -ENOSPC, shared pages would have to be copied
 * (seq_own) and there are none to copy them to; nothing has happened.
 */
#ifndef ENGINE_KV_COMPRESS_H
#define ENGINE_KV_COMPRESS_H

#include "engine/backend.h"
#include "engine/file/adapter.h"
#include "engine/kv/seq.h"
#include "engine/run.h"

#define COMPRESS_RATIO_MIN 2u
#define COMPRESS_RATIO_MAX 64u
#define COMPRESS_SINKS     4u /* the default */
#define COMPRESS_SINKS_MAX 16u

enum compress_method {
#define COMPRESSOR(number, ID, id, name, help) COMPRESS_##ID = (number),
#include "base/compressors.def"
#undef COMPRESSOR
    COMPRESS__N
};

struct compress_spec {
    enum compress_method method;
    uint32_t ratio, sinks;
    const struct adapter *adapter; /* fine-kv may have one, coarse ones need one; else NULL */
};

/* "full" and so on, as base/compressors.def has them. */
const char *compress_name(enum compress_method method);

/* The one that makes an adapter's gists. */
enum compress_method compress_method_of(const struct adapter *a);

/* --- counts: pure functions ------------------------------------------------------------------- */

/* why says what is wrong with the spec for segments of seg_len tokens. */
int compress_check(const struct compress_spec *c, uint32_t seg_len, struct why *why);

/* It leaves segments as they are: none of the functions below is called. */
bool compress_keeps_all(const struct compress_spec *c);

/* Keys that a segment is left with when it was thinned so many times. */
uint32_t compress_n_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                         uint32_t thinned);

/* Tokens of a compressed segment that are there as they are, a key each: its sinks and, by fine-kv,
 * the remainder. (What select keeps differs from head to head: no token is there as a whole.) */
uint32_t compress_n_raw(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);

/* How often a segment can be thinned, up to COMPRESS_RATIO_MAX. */
uint32_t compress_max_thinned(const struct compress_spec *c);

/* Keys that the segment's observers or gists have beside it, in pages of their own. */
uint32_t compress_n_beside(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);

/* A gist stands behind so many tokens while they are read; 0: none. */
uint32_t compress_gist_every(const struct compress_spec *c);

/* --- segments --------------------------------------------------------------------------------- */

struct asked;
struct compressor;

/* Bytes of scratch, the backend's, that one for this model has at most: only shapes are looked at.
 */
size_t compress_need(const struct model *m);
int compress_open(const struct model *m, struct backend *b, struct compressor **ret);
void compress_close(struct compressor *c);
/* Of a device that was lost: its memory goes, and is taken anew by the next segment. What sequences
 * keep of segments that they read is dropped; their sides were. */
void compress_leave(struct compressor *c);

/* Bytes of the scratch that unfinished segments have now, and at most. */
size_t compress_scratch_used(const struct compressor *c);
size_t compress_scratch_len(const struct compressor *c);

/* What was made for one segment that is not finished yet. All zero: nothing was. */
struct compress_side {
    uint32_t n_done; /* rows that have run, of all passes */
    bool observing;  /* a run that adds to floats was planned and has not been reported */
    bool begun;      /* scratch and pages were taken */
    uint32_t n_pages;
    uint32_t *pages; /* n_pages, for keys beside the segment: the sequence's account pays */
    float *floats;   /* what passes say: weights (n_layer, n_head_kv, seg_len) of observers, what
                      * is asked, or hidden states (gists, n_embd); NULL: nothing */
    struct asked *asked; /* what was kept while the segment was read; NULL: nothing is. The
                          * caller's, and stays when the side is dropped */
    uint64_t n_changes;  /* of the sequence, when passes for what is missing of it ran */
    /* By finish, over several calls. */
    uint32_t n_lists; /* that are done */
    uint32_t n_staged;
    uint32_t *staged; /* pages they are in; NULL: in the segment's own */
    bool in_place;    /* that is how it has to be */
};

/* Rows that are to run before compress_finish. */
uint32_t compress_rows_left(const struct compress_spec *spec, const struct seq *s, uint32_t segment,
                            const struct compress_side *side);

/* The next run, of at most max rows. Observers whose run was planned and not reported (its step was
 * given up) begin anew. */
int compress_plan(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                  uint32_t segment, struct compress_side *side, uint32_t max,
                  struct forward_run *ret);
void compress_ran(struct compress_side *side, const struct forward_run *run);

/* Others wait for it: it has some of the scratch, or was the first to find it full. */
bool compress_in_line(const struct compressor *c, const struct compress_side *side);

/* Gives back what the side has, and its place in line; what was made is lost. */
void compress_drop(struct compressor *c, struct seq *s, struct compress_side *side);

/* A full raw segment of which no rows are left becomes a compressed one. -EAGAIN: call again, some
 * milliseconds' worth is done. */
int compress_finish(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                    uint32_t segment, struct compress_side *side);

/* A compressed segment that was thinned so many times is thinned once more. */
int compress_thin(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                  uint32_t segment, uint32_t thinned);

#endif
