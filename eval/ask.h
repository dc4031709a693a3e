/* eval/ask.h - a text is read into a session, and questions are asked about it.
 *
 * As `gistctl ask -f FILE` does: the text is one message of the user, the question the next, which
 * opens the answer. A model without a chat template gets plain text. Questions do not know of each
 * other: each is asked of a fork. Answers are greedy.
 *
 * Threads    the connection's.
 * Ownership  ask_end takes a half-open one and of zeros does nothing. The connection is borrowed.
 * Errors     libgist's: gist_error(c) has the sentence. -E2BIG: the text does not fit.
 */
#ifndef EVAL_ASK_H
#define EVAL_ASK_H

#include "client/gist.h"
#include "eval/grid.h"

#include <stddef.h>
#include <stdint.h>

struct ask_session {
    gist_conn *c;
    gist_session *s;
    uint64_t read_ns;
};

struct ask_answer {
    char *text;              /* free() it */
    struct gist_usage usage; /* of reading the question */
    uint64_t first_token_ns; /* from asking to the answer's first token, as this process saw it */
};

struct ask_text {
    const char *text;
    uint32_t n_tokens;             /* about so many: the budget is a part of them */
    gist_progress_fn *on_progress; /* may be NULL */
    void *arg;
};
int ask_begin(gist_conn *c, const struct grid_cell *cell, const char *adapter,
              const struct ask_text *text, struct ask_session *ret);
int ask_question(struct ask_session *a, const char *question, uint32_t max_tokens,
                 struct ask_answer *ret);
void ask_end(struct ask_session *a);

/* Tokens that a text of no tokens and the question make, with all that stands around them. */
int ask_overhead(gist_conn *c, const char *question, size_t *ret_n);

/* A task_count_fn; arg: the connection. */
int ask_count(void *arg, const char *text, size_t len, size_t *ret_n);

#endif
