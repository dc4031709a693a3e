/* tests/support/daemon_fixture.h - the real daemon ($BUILD/gistd) in the test's own directory. With
 * $GISTD_TEST_BACKEND it computes there: "cuda-shim" and "cuda" are devices that it has anyway,
 * "fenced" is $BUILD/tests/gistd_fenced.
 *
 * Models are random, made when they are first asked for. What the daemon says goes to a file; it is
 * printed when the daemon does not start or does not end as it should.
 *
 * Errors     a test's helper: what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_DAEMON_FIXTURE_H
#define TESTS_SUPPORT_DAEMON_FIXTURE_H

#include "client/gist.h"

#include <stdbool.h>
#include <sys/types.h>

struct daemon_fixture {
    pid_t pid;
    int notify; /* the service manager's end of NOTIFY_SOCKET */
    char socket[256], log[256];
    char store[256]; /* its folder for --store, by GISTD_STORE: args come before it */
};

enum daemon_fixture_model {
    DAEMON_FIXTURE_TINY, /* random weights, 1024 tokens of context, microseconds a token */
    DAEMON_FIXTURE_SLOW  /* all zeros, 4096 tokens, with --cpu scalar a millisecond or more */
};
const char *daemon_fixture_model(enum daemon_fixture_model m);

/* Starts gistd with --model, --socket and args (NULL at the end, or NULL), waits until it is ready.
 */
void daemon_fixture_start(struct daemon_fixture *d, enum daemon_fixture_model m,
                          const char *const *args);
/* Once more, after it has ended: with another socket, but the store of before. */
void daemon_fixture_restart(struct daemon_fixture *d, enum daemon_fixture_model m,
                            const char *const *args);
/* The same without waiting and without any flags but args. */
void daemon_fixture_spawn(struct daemon_fixture *d, const char *const *args);
/* Waits for the end. The exit status, or 128 + the signal's number. */
int daemon_fixture_wait(struct daemon_fixture *d);
/* SIGTERM, then the end, which must be exit 0. */
void daemon_fixture_stop(struct daemon_fixture *d);

/* What it said, since its start. Valid until the next call. */
const char *daemon_fixture_log(struct daemon_fixture *d);
/* Its STATUS=, READY=1 and so on: waits until one holds text. */
bool daemon_fixture_notified(struct daemon_fixture *d, const char *text, int timeout_ms);

gist_conn *daemon_fixture_connect(const struct daemon_fixture *d);

/* Other users reach the socket, as far as its own mode lets them. */
void daemon_fixture_let_in(const struct daemon_fixture *d);
/* As one of them, which only root can be for the call; 0: as oneself. try: NULL when the daemon
 * refuses, gist_error(NULL) says why. */
gist_conn *daemon_fixture_connect_as(const struct daemon_fixture *d, uid_t uid);
gist_conn *daemon_fixture_try_as(const struct daemon_fixture *d, uid_t uid);

/* True as soon as no session of the daemon has a page (asked by conn), false after timeout_ms. */
bool daemon_fixture_all_free(gist_conn *conn, int timeout_ms);

/* Waits until all that sessions hold is on the disk: for --store-idle-ms at least. */
void daemon_fixture_stored(gist_conn *conn);

/* Steps of the model so far; and waits until there are more than n. */
uint64_t daemon_fixture_steps(gist_conn *conn);
void daemon_fixture_stepped(gist_conn *conn, uint64_t n);

/* Whether it computes so that a row has the same bits in every step, and says what is apart by no
 * more than tests/support/tolerance.h has where it does not; and takes milliseconds a token (rig.h
 * has both of a model without a daemon). */
bool daemon_fixture_exact(void);
bool daemon_fixture_slow(void);

double daemon_fixture_ms(void); /* a clock */

/* Sanitizers and busy machines are slow: what a test waits for, at most. */
#define DAEMON_FIXTURE_PATIENCE_MS 60000

#endif
