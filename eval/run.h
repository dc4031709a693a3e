/* eval/run.h - items are measured one after the other: what is known already is left out, progress
 * is shown, Ctrl-C ends it.
 *
 * Every item that a run ends with is in the results before the next begins.
 *
 * Threads    one; run_interrupt is for signal handlers.
 * Errors     -ECANCELED (interrupted), or negative with a sentence. An item that does not fit into
 *            the model's window is a result without a score, and no error.
 */
#ifndef EVAL_RUN_H
#define EVAL_RUN_H

#include "base/bar.h"
#include "base/why.h"
#include "client/gist.h"
#include "eval/ask.h"
#include "eval/grid.h"
#include "eval/results.h"
#include "eval/task.h"

struct run {
    gist_conn *c;
    struct results *results;
    const struct grid *grid;
    const char *adapter; /* NULL: none */
    struct bar bar;
    double todo, done, known; /* work, in tokens; known: of done, that was there from the start */
    double reading;           /* of the text that is being read */
    double next;              /* what reading it will have been */
    double start;             /* in seconds */
};

/* Work that a run has before it, for time left. */
void run_start(struct run *r, FILE *progress, double todo);
/* Work of which all is known is done. */
void run_skip(struct run *r, double work);
/* Whether it is known: then its work is done. */
bool run_knows(struct run *r, const struct results_item *name, double work);
/* An item was measured. Takes over it->answer. */
int run_keep(struct run *r, const struct results_item *it, double work, struct why *why);
void run_end(struct run *r);

/* One question about a text, whose answer fn scores: fills what it knows of the item. */
typedef void run_score_fn(void *arg, const char *answer, struct results_item *ret);
struct run_ask {
    const char *text, *question;
    uint32_t n_tokens; /* of the text, about */
    uint32_t max_tokens;
    double reading, work; /* reading: part of work */
    run_score_fn *score;
    void *arg;
};
/* A text in one cell, read once a question needs it. run_close of zeros does nothing. */
struct run_reader {
    struct ask_session session;
    bool too_long;
};
int run_ask(struct run *r, struct run_reader *reader, const struct run_ask *ask,
            struct results_item *name, struct why *why);
void run_close(struct run_reader *reader);

/* Questions about a made text, in all cells of the grid. */
struct run_text {
    enum results_kind kind;
    const struct task_spec *spec;
    const struct task *task; /* may be NULL for run_text_known and run_text_work */
    uint32_t length;         /* as it was asked for */
    uint32_t n_asks;         /* of the spec's, the first */
    uint64_t first;          /* index of the first question; the others follow */
    uint64_t seed, offset;
};
double run_text_work(const struct run *r, const struct run_text *t);
/* All of it is known: then its work is done. */
bool run_text_known(struct run *r, const struct run_text *t);
int run_text(struct run *r, const struct run_text *t, struct why *why);

/* What failed, in libgist's words. */
int run_failed(const struct run *r, int err, struct why *why);

/* From here on SIGINT and SIGTERM end the call that the connection is in; a second one the program.
 */
void run_catch(gist_conn *c);
bool run_interrupted(void);

#endif
