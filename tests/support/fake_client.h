/* tests/support/fake_client.h - a client of a scripted daemon (fake_daemon.h): one connection at a
 * time, what callbacks hear, and the plainest answers.
 */
#ifndef TESTS_SUPPORT_FAKE_CLIENT_H
#define TESTS_SUPPORT_FAKE_CLIENT_H

#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <stddef.h>
#include <stdint.h>

extern struct fake_daemon fake_peer;
extern gist_conn *fake_conn;

void fake_begin(fake_script *script, void *arg);
void fake_end(void); /* the script has to have ended well */
gist_session *fake_open(void);

/* Of an answer: a gist_text_fn and a gist_done_fn with such a struct. */
struct fake_heard {
    char text[4096];
    size_t len, n_ids, n_calls, stop_at;
    int done, err;
};

int fake_on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids);
void fake_on_done(void *arg, int err, const struct gist_result *result);

/* --- in the script ---------------------------------------------------------------------------- */

/* Answers every kind of request in the plainest way; the script that does nothing else. */
void fake_answer(struct fake_daemon *d);
void fake_plain(struct fake_daemon *d, void *arg);

#endif
