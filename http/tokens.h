/* http/tokens.h - the texts of single tokens, which log-probabilities are told with.
 *
 * The daemon is asked once for each token that turns up; answers repeat theirs all the time. A
 * daemon that is started anew with another model begins another table.
 *
 * Threads    all; the lock is not held while the daemon is asked.
 * Ownership  texts are copies, the caller's to free.
 */
#ifndef HTTP_TOKENS_H
#define HTTP_TOKENS_H

#include "client/gist.h"

#include <pthread.h>

struct tokens {
    pthread_mutex_t lock; /* of what is below */
    char digest[72];      /* of the model that it is about */
    char **texts;         /* (n) each NULL until it was asked for */
    uint32_t n;
};

void tokens_init(struct tokens *t);
void tokens_fini(struct tokens *t);

/* Part of a character is U+FFFD. NULL: the connection has failed, or memory is short. Not from a
 * callback of c. */
char *tokens_text(struct tokens *t, gist_conn *c, uint32_t id);

#endif
