/* daemon/mailbox.h - one-way letters between the control thread and the scheduler.
 *
 * A bounded queue with one writer and one reader, and an eventfd for a reader that sleeps. The
 * reader can look for letters with one load, so the scheduler does that between the layers of a
 * step.
 *
 *     control -> scheduler   ADOPT (a client shook hands)  DEAD (its socket ended)   STOP
 *     scheduler -> control   GONE (all it had is freed; the socket may go too)  READY  STOPPED
 *     there and back         METRICS (numbers are wanted; they are there)
 *                            PRESSURE (memory is short; that was heard)
 *
 * Letters cross: what a letter says was so when it was written. So a letter names a client by an
 * id that is never used again, both sides take one for a client that they no longer know, and who
 * reads a letter touches nothing that its writer may free in the meantime.
 *
 * Invariants
 *   M1  The control thread counts a client against max-clients from its ADOPT until it has taken
 *       its GONE. Let that be a place: there are max-clients of them.
 *   M2  A client has one ADOPT, then at most one DEAD. It has one GONE, behind the taking of its
 *       ADOPT but perhaps ahead of its DEAD (the scheduler closes who breaks the protocol).
 *   M3  To the scheduler a place has at most three letters waiting: its client's ADOPT and DEAD,
 *       and the DEAD of the client before. Not more: by M1 the next ADOPT needs this client's
 *       GONE, which by M2 follows the taking of its ADOPT, and letters are taken in order, so
 *       that the DEAD before it was taken too. With STOP, which is sent once, and METRICS and
 *       PRESSURE, of which there is one each under way: 3 max-clients + 3.
 *   M4  To the control thread a place has one letter waiting at most: the next GONE is that of a
 *       client adopted after this one was taken. With READY, STOPPED, METRICS and PRESSURE:
 *       max-clients + 4, which is no more for one client.
 * mailbox_open makes room for the larger of the two, and mailbox_put asserts that there is some.
 *
 * Threads    mailbox_put: the writer's thread only. mailbox_take, mailbox_drain: the reader's only.
 * Ownership  ADOPT carries a channel and a name, which are the reader's from then on.
 */
#ifndef DAEMON_MAILBOX_H
#define DAEMON_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct chan;
struct metrics;

enum mailbox_kind {
    MAILBOX_ADOPT,
    MAILBOX_DEAD,
    MAILBOX_STOP,
    MAILBOX_GONE,
    MAILBOX_READY,
    MAILBOX_STOPPED,
    MAILBOX_METRICS,
    MAILBOX_PRESSURE
};

struct mailbox_letter {
    enum mailbox_kind kind;
    uint64_t client;
    struct chan *chan;       /* ADOPT */
    char *unit;              /* ADOPT: on the heap; NULL: it has none */
    struct metrics *metrics; /* METRICS: to be filled; the control thread's */
    pid_t pid;
    uid_t uid;
};

struct mailbox {
    struct mailbox_letter *slots;
    uint32_t mask;
    int bell;                           /* eventfd */
    _Alignas(64) _Atomic uint32_t tail; /* the writer's */
    _Alignas(64) _Atomic uint32_t head; /* the reader's */
};

int mailbox_open(struct mailbox *m, uint32_t n_clients);
void mailbox_close(struct mailbox *m);

void mailbox_put(struct mailbox *m, const struct mailbox_letter *l);
bool mailbox_pending(struct mailbox *m);
bool mailbox_take(struct mailbox *m, struct mailbox_letter *ret); /* false: empty */
/* Silences the bell: before the last look for letters ahead of a sleep, not after it. A bell that
 * is rung late, for a letter that was taken already, ends one sleep for nothing. */
void mailbox_drain(struct mailbox *m);

#endif
