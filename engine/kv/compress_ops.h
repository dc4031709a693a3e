/* engine/kv/compress_ops.h - what a compressor is made of, for the files that have them.
 *
 * One family a file (engine/kv/compress_*.c), one line a compressor in base/compressors.def:
 * docs/extending.md. What is asked before a segment is touched are counts, pure functions of spec,
 * segment length and segment number: the ladder (daemon/ladder.h) tells from them alone what a
 * session will hold. What works on a segment gets a struct compress_work, decides which keys stay,
 * as lists of their places, and has them moved by compress_keep or the backend; it sees no page.
 *
 * Threads    the scheduler's; compressors have no state of their own.
 */
#ifndef ENGINE_KV_COMPRESS_OPS_H
#define ENGINE_KV_COMPRESS_OPS_H

#include "engine/kv/asked.h"
#include "engine/kv/compress.h"
#include "engine/kv/scratch.h"

struct compressor {
    struct backend *backend;
    uint32_t n_lists; /* layers times KV heads */
    uint32_t group;   /* query heads of a KV head */
    uint32_t n_embd, head_dim;
    struct scratch sides;      /* floats of segments that are not finished: the backend's memory */
    struct scratch page_lists; /* ids of their pages */
    const struct compress_side *next; /* found them full, and is the next to begin; NULL: nobody */
    struct scratch desk; /* within one call: always has room for the lists of a segment */

    struct scratch asks;                     /* engine/kv/asked.h: the backend's memory */
    struct asked *askers[SCRATCH_SPANS_MAX]; /* who has some of it */
    uint32_t n_askers;

    /* Packed segments that are not finished yet, in pages of nobody's. */
    struct {
        struct pool *pool; /* NULL: there are none */
        struct pool_account account;
        struct pool_reclaimer reclaimer;
    } staging;
    struct compress_side *staged[SCRATCH_SPANS_MAX];
    uint32_t n_staged;
};

/* A segment that is being worked on. */
struct compress_work {
    struct compressor *c;
    const struct compress_spec *spec;
    struct seq *seq;
    uint32_t segment;
    struct compress_side *side; /* thin: NULL */
};

struct compress_ops {
    bool keeps_all; /* and nothing else is looked at but check */
    bool asks; /* it wants what engine/kv/asked.h keeps; n_rows and n_floats are of what is missing
                */

    /* Counts. NULL is 0, n_raw's is the sinks; n_keys has to be there where not all is kept. */
    int (*check)(const struct compress_spec *c, uint32_t seg_len, struct why *why);
    uint32_t (*n_keys)(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                       uint32_t thinned);
    uint32_t (*n_raw)(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);
    uint32_t (*gist_every)(const struct compress_spec *c);
    /* Of all passes over the model together. */
    uint32_t (*n_rows)(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);
    /* Keys that passes have in pages beside the segment. */
    uint32_t (*n_beside)(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);
    /* Floats that passes leave for finish, zero at first. */
    size_t (*n_floats)(const struct compressor *c, const struct compress_spec *spec,
                       uint32_t seg_len, uint32_t segment);

    /* Work. Side state to a run: at most max rows of the pass that side->n_done is in. */
    int (*next_pass)(const struct compress_work *w, uint32_t max, struct forward_run *ret);
    /* -EAGAIN: a part of it is done, and the segment is raw yet. */
    int (*finish)(const struct compress_work *w);
    /* NULL: it can't be thinned. */
    int (*thin)(const struct compress_work *w, uint32_t thinned);
};

#define COMPRESSOR(number, ID, id, name, help) extern const struct compress_ops compress_##id;
#include "base/compressors.def"
#undef COMPRESSOR

/* The spec's own. */
const struct compress_ops *compress_ops_of(const struct compress_spec *c);

/* --- what most of them want ------------------------------------------------------------------- */

/* Ratio and sinks are such as they may be. */
int compress_check_ratio(const struct compress_spec *c, uint32_t seg_len, struct why *why);
/* The spec's adapter, if it has one, makes gists of this kind. */
int compress_check_adapter(const struct compress_spec *c, struct why *why);
int compress_check_no_adapter(const struct compress_spec *c, struct why *why);

/* Of this segment. */
uint32_t compress_n_sinks(const struct compress_spec *c, uint32_t segment);
/* Snippets of the tokens behind the sinks, and the tokens left over behind those. */
uint32_t compress_n_snippets(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);
uint32_t compress_n_rest(const struct compress_spec *c, uint32_t seg_len, uint32_t segment);
/* So many gists, when of every two the later one was taken so many times. */
uint32_t compress_halved(uint32_t n_gists, uint32_t thinned);
/* n_keys of one key a snippet: sinks, snippets and rest. */
uint32_t compress_snippet_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                               uint32_t thinned);

/* Room for places or numbers: (n_keys) of one list, or (n_lists, n_keys). From the desk, which has
 * it always; compress_keep takes it back, else scratch_give does. */
void *compress_list(const struct compress_work *w, bool per_head, uint32_t n_keys);

/* What observers saw, brought to the host: (n_lists, seg_len), of the desk. The backend's error. */
int compress_observed(const struct compress_work *w, float **ret);

/* The queries that were asked, from where they are. */
float *compress_asked_floats(const struct compress_work *w);

/* Pages for n_keys that finish may fill over several calls, in side->staged; what was made there is
 * lost when pages are short (side->staged is NULL then, and n_lists 0). false: it has to be done in
 * place. */
bool compress_stage(const struct compress_work *w, uint32_t n_keys);
/* All is made: the segment gets them. false: its account has no room for both, and they are gone.
 */
bool compress_staged(const struct compress_work *w, uint32_t n_keys);
/* What is staged for it goes. */
void compress_unstage(struct compressor *c, struct compress_side *side);
void compress_end_staging(struct compressor *c);

/* The segment's keys at these places, ascending, become the segment: in fresh pages, or in place
 * (engine/kv/compress.h). kept is a compress_list, which it takes. -ENOSPC: as compress_finish. */
int compress_keep(const struct compress_work *w, uint32_t *kept, bool per_head, uint32_t n_keys);

/* Of each head's had numbers (n_lists, had) the largest, or the smallest, are kept beside the
 * sinks, n_keys in all; of equals the later ones. One that is no number comes last. */
int compress_keep_ranked(const struct compress_work *w, const float *numbers, uint32_t had,
                         bool smallest, uint32_t n_keys);

/* Thins: of every two neighbouring keys between the sinks and the last n_rest the later one stays.
 */
int compress_keep_later(const struct compress_work *w, uint32_t n_rest, uint32_t n_keys);

#endif
