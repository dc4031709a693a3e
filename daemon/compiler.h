/* daemon/compiler.h - compiles grammars and schemas on a thread of its own.
 *
 * A hostile grammar takes 0.1 s, and the first one some more, for the vocabulary is sorted for it:
 * nobody else's tokens wait for that. Jobs are done one after the other, in turns between users:
 * who sends many waits for his own.
 *
 *     compiler_put() -- queued --> the thread: compiling --> done, the bell rings
 *            compiler_drop() <--'
 *
 * Threads    all calls are the scheduler's. A job is the thread's from compiler_put until
 *            compiler_done or compiler_drop say true; then it is the scheduler's again.
 * Ownership  new/free; borrows the vocabulary, and jobs, with their text, while they are its own.
 * Errors     -errno of compiler_new; of a job, in it.
 */
#ifndef DAEMON_COMPILER_H
#define DAEMON_COMPILER_H

#include "engine/text/grammar.h"
#include "engine/text/trie.h"
#include "ipc/wire.h"

#include <sys/queue.h>
#include <sys/types.h>

struct compiler_job {
    TAILQ_ENTRY(compiler_job) link;
    enum wire_grammar kind;
    uid_t uid;
    const char *text;
    size_t len;
    bool done; /* under the lock */

    /* What came of it: 0 and a grammar that was measured, or what gbnf_compile and the others
     * say. */
    int err;
    struct grammar *grammar;
    struct why why;
};

struct compiler;

int compiler_new(const struct vocab *v, struct compiler **ret);
/* Waits for the job that is under way; no others are done. NULL: nothing. */
void compiler_free(struct compiler *c);

/* Readable, when a job was done since it was read last; not blocking. */
int compiler_bell(const struct compiler *c);

/* job: all before `done` is set. */
void compiler_put(struct compiler *c, struct compiler_job *job);
bool compiler_done(struct compiler *c, const struct compiler_job *job);
/* Nobody wants it any more. False: it was begun, and will be done. */
bool compiler_drop(struct compiler *c, struct compiler_job *job);

/* Of the vocabulary, from the first job on that was done without -ENOMEM. */
const struct trie *compiler_trie(const struct compiler *c);

#endif
