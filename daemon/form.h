/* daemon/form.h - how one answer has to look: its grammar, and where in it the answer stands.
 *
 * Of a Generate (daemon/req_generate.c), which asks it before each token what may come next:
 *
 *     form_take() --> form_make() --> form_fits() --> for each token:
 *         form_find() --> form_apply() --> form_may_go_on() --> form_push()
 *
 * An answer is whole when it ends, if its limit allows that at all: what could not be ended in the
 * tokens that are left may not come (engine/text/ending.h), and a limit in which no answer can be
 * whole is refused before the first token.
 *
 * Threads    the scheduler's, but as it says below.
 * Ownership  zeroed at first; form_fini gives all back. What it has is charged to the client.
 */
#ifndef DAEMON_FORM_H
#define DAEMON_FORM_H

#include "daemon/encode.h"
#include "daemon/grammars.h"
#include "daemon/request.h"

struct form {
    enum wire_grammar kind;    /* of a grammar that is still to be compiled */
    struct encode_text text;   /* of it */
    struct grammars *grammars; /* that the entry is of */
    struct grammars_entry *entry;
    void *place; /* of the next two */
    size_t place_len;
    struct match *match; /* NULL: no grammar */
    uint64_t *bits;      /* tokens that may come next, if that was found: */
    bool found;
    int err;
};

/* No more tokens than so many can come, the next one included. */
struct form_limit {
    uint32_t left;
    bool window; /* by the session's end or budget, and not by max_tokens */
};

/* Its text moves from parts. WIRE_GRAMMAR_NONE: there is no grammar. */
void form_take(struct form *f, enum wire_grammar kind, struct encode_text *parts);

/* 0: it is there. -EAGAIN: it is being compiled, and the scheduler's thread is woken when that is
 * done; else it was answered. */
int form_make(struct sched *s, struct request *r, struct form *f);

/* Whether an answer can be whole within the limit. False: it was answered. */
bool form_fits(struct sched *s, struct request *r, const struct form *f, struct form_limit limit);

/* Finds which tokens go on in the grammar, of those from which it can be ended within the limit.
 * Another thread than the scheduler's may do it, one at a time (daemon/masker.h): all masks share
 * what was found before. */
void form_find(struct form *f, struct form_limit limit);
static inline bool form_is_found(const struct form *f)
{
    return f->found && f->err == 0;
}
/* Leaves only those. Any thread. */
void form_apply(const struct form *f, float *logits, uint32_t n_vocab);
/* Behind form_find, once. False: there are none, which was answered. */
bool form_may_go_on(struct sched *s, struct request *r, struct form *f);

/* A token was taken. False: it can't be, which was answered. */
bool form_push(struct sched *s, struct request *r, struct form *f, uint32_t id);

/* Of an answer with a grammar: it is a whole text; nothing can follow it. */
bool form_whole(const struct form *f);
bool form_over(const struct form *f);

void form_fini(struct form *f, struct request *r);

#endif
