/* cuda/stage.h - copies between memory of the process and a device's, through pinned memory.
 *
 * A device copies by itself only from and to memory that is pinned, and what most callers have is
 * not. So a copy passes through a ring of pinned slots, in chunks:
 *
 *     put    host -> slot now, by the caller's thread;  slot -> device by the stage's stream
 *     get    device -> slot by its stream;  slot -> host by the caller's thread, when asked
 *
 * With a ticket, from or to memory that was pinned (rt_pin), it needs no slot but a mark in the
 * stream, in the same order: one chunk, however long it is.
 *
 * Before a copy is queued its stream follows what computes, so it sees that; what computes follows
 * the copies when stage_join says so, or when they are done.
 *
 * Of several devices each has stages of its own; they ring one bell, and their copies are given the
 * tickets that they have (stage_ticket): a ticket may then be many copies, or none of this stage's.
 *
 * Invariants
 *   G1  Chunk c has slot c % STAGE_SLOTS; chunks [made, asked) are under way, and are finished in
 *       that order.
 *   G2  Host memory of a put is read during the call; that of a get is written by stage_done, or by
 *       whichever call needs the slot. Memory that is pinned is the device's until the ticket is
 *       done.
 *
 * Threads    one. The bell is rung by a thread of the runtime's.
 * Errors     -ENOMEM, -EIO (cuda/rt.h).
 */
#ifndef CUDA_STAGE_H
#define CUDA_STAGE_H

#include "cuda/rt.h"

#define STAGE_SLOTS      16u
#define STAGE_SLOT_BYTES ((size_t)1 << 20)

struct stage;

/* Its copies are one stream's, in their order. bell: an eventfd of the caller's; -1: its own. */
int stage_open(struct rt *rt, enum rt_stream stream, int bell, struct stage **ret);
void stage_close(struct stage *s);

/* ret_ticket NULL: a get waits, and a put may be queued still when it returns. */
int stage_put(struct stage *s, void *to, const void *host, size_t n, uint64_t *ret_ticket);
int stage_get(struct stage *s, void *host, const void *from, size_t n, uint64_t *ret_ticket);

/* Copies from now on have this ticket, no lower than those before, until the next call. */
void stage_ticket(struct stage *s, uint64_t ticket);
/* 1: done; 0: not yet; or the error that it will never be done for. */
int stage_done(struct stage *s, uint64_t ticket);
int stage_eventfd(const struct stage *s);

/* What is computed from now on sees all copies. */
int stage_join(struct stage *s);

#endif
