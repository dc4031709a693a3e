/* tests/support/fake_daemon.h - a daemon of one connection that says what a test tells it to: a
 * child process that speaks the handshake and the wire, and follows a script.
 *
 * A child and not a thread: it may die at any moment and scribble over the shared memory.
 *
 * Ownership  fake_start/fake_stop. Errors in the child end it with a status that fake_stop reports.
 */
#ifndef TESTS_SUPPORT_FAKE_DAEMON_H
#define TESTS_SUPPORT_FAKE_DAEMON_H

#include "ipc/chan.h"
#include "ipc/handshake.h"
#include "ipc/wire.h"

#include <sys/types.h>

#define FAKE_SLOTS 16u

/* Of what has to happen soon, on a machine that may be busy. */
#define FAKE_PATIENCE_MS 60000

struct fake_daemon {
    char dir[64], path[96];
    pid_t pid;

    bool older; /* knows no outputs, several answers, realms, deadlines */

    /* The child's. */
    int sock;
    struct chan *chan;
    struct chan_geometry g;
    struct wire_scratch in, out;
    bool held;
    struct wire_req req; /* the last one; its memory lives until the next fake_take */
    const uint8_t *bulk;
};

/* The script runs after Hello was answered, and returns when it has nothing more to say. */
typedef void fake_script(struct fake_daemon *d, void *arg);

void fake_start(struct fake_daemon *d, fake_script *script, void *arg);
void fake_start_older(struct fake_daemon *d, fake_script *script, void *arg);
/* Waits for the child's end and returns its exit status; 0 is what a script that returned gives.
 * Kills it after a while: 137. */
int fake_stop(struct fake_daemon *d);

/* --- in the script ---------------------------------------------------------------------------- */

/* The next request: true, with d->req and d->bulk; false: the client is gone. */
bool fake_take(struct fake_daemon *d);
void fake_release(struct fake_daemon *d); /* gives it back before the next fake_take */
void fake_expect(struct fake_daemon *d, enum wire_req_kind kind);

/* A reply, its id is set if it is 0; waits for room. */
void fake_reply(struct fake_daemon *d, struct wire_rep rep, const void *bulk, uint32_t bulk_len);
/* The shortest way to the last reply of the last request. */
void fake_last(struct fake_daemon *d, struct wire_rep rep);
void fake_error(struct fake_daemon *d, enum wire_error code, const char *text);
void fake_text(struct fake_daemon *d, uint64_t id, const char *text);
void fake_done(struct fake_daemon *d, uint64_t id, enum wire_reason reason);

/* Until the client hangs up; requests are read and not answered. */
void fake_drain(struct fake_daemon *d);

/* Ends the child with a line number, if not cond. */
#define FAKE_CHECK(cond) ((cond) ? (void)0 : fake_fail(#cond, __FILE__, __LINE__))
void fake_fail(const char *what, const char *file, int line) __attribute__((noreturn));

#endif
