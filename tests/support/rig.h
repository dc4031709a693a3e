/* tests/support/rig.h - a model with all that is needed to run it, without a daemon.
 *
 * Ownership  rig_open/rig_close; sequences are the caller's and are closed before the rig.
 */
#ifndef TESTS_SUPPORT_RIG_H
#define TESTS_SUPPORT_RIG_H

#include "engine/cpu/kernels.h"
#include "engine/forward.h"
#include "tests/support/ref.h"

struct rig {
    struct backend *backend;
    struct model *model;
    const struct kernels *kernels; /* that the backend uses */
    struct pool pool;
    struct pool_account account;
    struct forward forward;
    uint32_t max_batch;
};

struct io_options;

struct rig_opts {
    const char *model; /* path */
    const char *cpu;   /* a name for kernels_pick; "auto" is what rig_cpu() says */
    enum kv_type kv;
    uint32_t threads;
    uint32_t max_batch, max_tokens; /* a step's; the pool's */
    uint64_t weight_bytes;          /* as the daemon's option; 0: all weights stay */
    const char *images;             /* with weight_bytes: the folder for images of them */
    const struct io_options *io;
    const struct backend_ops *backend; /* NULL: rig_backend() */
    struct backend_devices devices;
    enum backend_split split;
};

/* $GISTD_CPU, as the daemons that tests start have it too, or "auto". */
const char *rig_cpu(void);
/* What $GISTD_TEST_BACKEND says: "cpu", "fenced" (tests/support/backend_fenced.h), "cuda-shim" or
 * "cuda" (tests/support/backend_shim.h). */
const struct backend_ops *rig_backend(void);
/* The i-th table of kernels that whole models are run by, NULL: no more. On the CPU all that there
 * are, under a sanitizer one; any other backend computes in its own way, so it is run once. */
const char *rig_table(unsigned i);
/* It takes milliseconds a token, as the shim does: of what is run in all combinations, some do. */
bool rig_slow(void);

/* -ENOTSUP: this CPU lacks the table, or the model can't run. */
int rig_open(struct rig *r, const struct rig_opts *opts, struct why *why);
void rig_close(struct rig *r);

/* Whether what comes of a row is the same to the bit, whatever else is in the step. Where it is not
 * tests/support/tolerance.h says what may be apart. */
bool rig_exact(const struct rig *r);

/* A sequence for up to max_tokens. */
int rig_seq(struct rig *r, uint32_t max_tokens, uint32_t seg_len, uint32_t pos0, struct seq *ret);

/* Feeds n tokens in steps of at most chunk (<= max_batch). ret: logits after each (n, n_vocab). */
int rig_feed(struct rig *r, struct seq *s, const uint32_t *ids, uint32_t n, uint32_t chunk,
             float *ret);

/* log p(id) under a row of logits. In double: a vocabulary's sum in float would be an error of its
 * own. */
double rig_logprob(const float *row, uint32_t n_vocab, uint32_t id);

/* The most that log-probabilities, and the rows that ref has, differ by; infinite where one is no
 * number. logits after each of its ids. */
double rig_distance(const struct ref *ref, const float *logits);

#endif
