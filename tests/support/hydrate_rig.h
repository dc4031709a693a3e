/* tests/support/hydrate_rig.h - sequences with a memory, a tree and a store, whose packed segments
 * come back for prompts (daemon/hydrate.h). Segments are short, ids are made up.
 *
 * Ownership  open and close in pairs; readers before their stage.
 */
#ifndef TESTS_SUPPORT_HYDRATE_RIG_H
#define TESTS_SUPPORT_HYDRATE_RIG_H

#include "daemon/hydrate.h"
#include "daemon/tier.h"
#include "store/io.h"
#include "tests/support/memory_rig.h"
#include "tests/support/scratch.h"

#define L     64u
#define IDS   1200u
#define BATCH 64u

struct stage {
    struct memory_rig rig;
    struct prefix *prefix;
    struct io *io;
    struct store *store;
    char folder[SCRATCH_PATH_MAX];
};

struct reader {
    struct seq seq;
    struct memory memory;
    /* For a test that reads the same anew elsewhere. */
    uint32_t now;                             /* the last prompt that brought something back */
    uint32_t n_packed, packed_under[IDS / L]; /* of each packed segment: what was there then */
    uint32_t under[IDS]; /* of each token: the prompt whose segments it was read behind, 0: none */
    uint32_t n_near;     /* tokens before the first prompt that got segments which are only near to
                          * what they were; UINT32_MAX: none did */
};

extern uint32_t ids[IDS];
extern float *row_a, *row_b; /* (IDS, n_vocab), until hydrate_rig_free */

/* pool_tokens for all; ids are made anew. */
void open_stage(struct stage *s, uint32_t pool_tokens, bool tree, bool store);
void close_stage(struct stage *s);
void hydrate_rig_free(void);
/* Somebody takes all free pages and n more, and gives them back: what was only kept there is gone.
 */
void evict(struct stage *s, uint32_t n);
/* Once more, with what is on the disk. */
void open_store(struct stage *s);
void close_store(struct stage *s);

void open_reader(struct stage *s, struct reader *r, const struct policy *p, uint32_t owner,
                 bool keeps_nothing);
void close_reader(struct reader *r);
/* ret: with what a test has noted of r, too. */
void fork_reader(const struct reader *r, struct reader *ret);

/* Reads ids [memory.n_ids, n). ret: logits of each, or NULL. */
void feed(struct stage *s, struct reader *r, uint32_t n, float *ret);
void settle(struct stage *s, struct reader *r);
/* Runs of the model that a job wants, or the disk. */
void wait_for(struct stage *s, struct reader *r, struct hydrate_job *j);
/* As an append does it: what the last prompt had goes, and then ids [n_ids, n_ids + n) are the
 * prompt. */
void prompt(struct stage *s, struct reader *r, uint32_t n);
/* What n ids point to, of a prompt that still arrives. */
void fetch(struct reader *r, const uint32_t *prompt, uint32_t n);
struct wire_usage usage_of(const struct reader *r);
size_t row_bytes(const struct stage *s);

#endif
