/* daemon/mailbox.h - one-way letters between the control thread and the scheduler.
 *
 * A bounded queue with one writer and one reader, and an eventfd for a reader that sleeps. The
 * reader can look for letters with one load, so the scheduler does that between the layers of a
 * step.
 *
 * It never overflows: in each direction a client has at most two letters under way (see enum
 * mailbox_kind), clients are bounded, and STOP is sent once. mailbox_put asserts it.
 *
 *     control -> scheduler   ADOPT (a client shook hands)  DEAD (its socket ended)   STOP
 *     scheduler -> control   GONE (all it had is freed; the socket may go too)  READY  STOPPED
 *
 * Threads    mailbox_put: the writer's thread only. mailbox_take, mailbox_drain: the reader's only.
 * Ownership  ADOPT carries a channel, which is the reader's from then on.
 */
#ifndef DAEMON_MAILBOX_H
#define DAEMON_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct chan;

enum mailbox_kind {
    MAILBOX_ADOPT,
    MAILBOX_DEAD,
    MAILBOX_STOP,
    MAILBOX_GONE,
    MAILBOX_READY,
    MAILBOX_STOPPED
};

struct mailbox_letter {
    enum mailbox_kind kind;
    uint64_t client;
    struct chan *chan; /* ADOPT */
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
