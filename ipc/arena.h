/* ipc/arena.h - who has which bytes of a sender's payload arena: a ring of bytes, lent in spans.
 *
 * Spans are lent at the tail and come back at the head, in the order they were lent. A span never
 * wraps: the rest of the arena before the wrap is skipped and comes back with the span behind it.
 *
 *          freed            lent
 *     0      v                v            size      positions grow without end; one's
 *     +------+----------------+-------------+        place is (position mod size)
 *     | free | spans with the | free        |
 *     |      | receiver       |             |
 *     +------+----------------+-------------+
 *
 * All of it is private memory: what the receiver says is only how many spans came back, and that is
 * checked by the ring. When every span is back the arena starts again at 0, so that the largest
 * span always fits in the end, and a quiet channel keeps to the same few cache lines and pages.
 *
 * Invariants
 *   A1  freed <= lent <= freed + size.
 *   A2  Places and lengths are multiples of ARENA_ALIGN.
 *   A3  end[i] is the position behind the span of slot i, for the slots that are out.
 *
 * Threads    the sender's.
 * Ownership  init/fini; end[] is the arena's.
 * Errors     -EAGAIN (no room now), -EMSGSIZE (never), -EINVAL, -ENOMEM.
 */
#ifndef IPC_ARENA_H
#define IPC_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#define ARENA_ALIGN 64u

struct arena {
    uint32_t size, mask; /* bytes; slots - 1 */
    uint64_t freed, lent;
    uint32_t first, n_out; /* oldest slot that is out; how many are */
    uint64_t *end;         /* (slots) */
};

int arena_init(struct arena *a, uint32_t size, uint32_t slots);
void arena_fini(struct arena *a);

/* A place for len bytes, which may be none. Nothing is lent until arena_lend, which takes the very
 * same numbers. */
int arena_find(const struct arena *a, uint32_t len, uint64_t *ret_off);
void arena_lend(struct arena *a, uint64_t off, uint32_t len);
void arena_give_back(struct arena *a, uint32_t n_spans);

/* True when the next span of len bytes would touch a page beyond the one that lent is in: a good
 * moment to see whether earlier spans came back. */
bool arena_leaves_page(const struct arena *a, uint32_t len);

#endif
