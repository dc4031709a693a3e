/* daemon/lost.h - a device that was lost (engine/backend.h), and how serving goes on.
 *
 *     serving --(a call says -EIO)--> lost: all that uses the model fails, with the reason
 *        ^                             |  what was on the device goes: pages of sessions, of what
 *        |                             v  was read before, of what the disk had not got yet
 *        +--(it opens again)-------- trying, when somebody wants the model, once a second
 *
 * What sessions are is their ids, which the host has: pages of theirs that were copied to host
 * memory (daemon/shelf.h) are back with the device; the other ids are read again before a session
 * goes on, and so are logits behind the last of them. Sessions of several documents are not their
 * ids alone: they are gone, and say so. Documents that were in memory alone are gone, too.
 *
 * Threads    the scheduler's, between steps.
 */
#ifndef DAEMON_LOST_H
#define DAEMON_LOST_H

#include "base/why.h"

#include <stdbool.h>
#include <stdint.h>

struct sched;

struct lost {
    bool down;
    struct why why;   /* why it does not open */
    uint64_t next_ns; /* when it is tried again */
};

/* True: something was done. */
bool lost_look(struct sched *s);

#endif
