/* eval/results.h - what was measured: a file of JSON lines that a run adds to and a report reads.
 *
 *     {"gist-eval":1,"model":"Qwen2.5 ...","digest":"1d96...","version":"0.1.0"}
 *     {"kind":"recall","task":"needle","length":4096,"depth":50,"index":2,"seed":1,
 *      "compressor":"select","ratio":8,"segment":512,...,"score":1,"first_token_ns":81250000,...}
 *
 * A line is an item: its parameters and seed, which are its name, and what was found. Lines are
 * written whole, one at a time, so whatever ends a run costs the item that it was at; a last line
 * without its end is cut off when the file is opened again. A line whose gist-eval is another
 * number than 1 is refused. Numbers that are not there (NAN, counts of 0) are not written.
 *
 * Threads    one at a time; of several runs at once the file takes one (flock).
 * Ownership  results_close releases all, what items point to as well.
 * Errors     -EINVAL (not such a file, or of another model), -EBUSY (another run has it), -ENOMEM,
 *            or the errno of the I/O, with a sentence.
 */
#ifndef EVAL_RESULTS_H
#define EVAL_RESULTS_H

#include "base/why.h"
#include "eval/grid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESULTS_NAME_CAP 256u
#define RESULTS_BINS     14u /* by position in the segment: 0, 1, 2 and 3, 4 to 7 ... */
#define RESULTS_QUARTERS 4u  /* by position in the window */

enum results_kind {
    RESULTS_RECALL,   /* a question about a made text: also those of surprise */
    RESULTS_BOUNDARY, /* the same, with the prompt's end at `offset` in its segment */
    RESULTS_SET,      /* a line of a public set, by its number */
    RESULTS_PPL,      /* log-likelihood of a text */
    RESULTS_KIND__N
};

struct results_item {
    /* what it is */
    enum results_kind kind;
    char task[RESULTS_NAME_CAP]; /* or the text's name */
    struct grid_cell cell;
    uint64_t length; /* tokens of the prompt, about; of the window */
    uint64_t asks;   /* questions that its text was made for */
    uint64_t depth, index, seed, offset;

    /* what was found */
    double score;            /* 0 to 1. NAN: the text does not fit */
    uint64_t prefix;         /* letters and digits of what was asked for, right from the first on */
    uint64_t read_ns;        /* reading the text, if it was not read before */
    uint64_t first_token_ns; /* from the question to the answer's first token */
    uint64_t prompt_tokens, gist_tokens, gists, hydrated_tokens, missed_tokens;
    double nll;        /* mean, behind the first segment */
    uint64_t n_scored; /* tokens of it */
    double by_segment[RESULTS_BINS], by_quarter[RESULTS_QUARTERS]; /* likewise; NAN: none there */
    char *answer;                                                  /* NULL, or malloc'd */
};

/* All NAN and 0. */
void results_item_init(struct results_item *it);

struct results {
    char *path, *model, *digest;
    int fd; /* -1: it is only read, or kept nowhere */
    struct results_item *items;
    size_t n;
};

/* To add to: the file is made when it is not there. path "": nothing is kept. */
int results_open(const char *path, const char *model, const char *digest, struct results *ret,
                 struct why *why);
int results_read(const char *path, struct results *ret, struct why *why);
void results_close(struct results *r);

/* The item of that name, or NULL. */
const struct results_item *results_find(const struct results *r, const struct results_item *it);
/* Takes over it->answer, also when it fails. */
int results_add(struct results *r, const struct results_item *it, struct why *why);

#endif
