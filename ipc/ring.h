/* ipc/ring.h - one-way ring of message slots between two processes.
 *
 * One producer, one consumer, no lock. The memory is shared with a peer that may be buggy or
 * hostile: what is read from it is copied once and checked, and nothing in it is a pointer.
 *
 * Layout, in bytes (asserted in ring.c)
 *
 *     0          64         128        192      256                       192 + 64 n
 *     +----------+----------+----------+--------+--------+-- .. --+----------+
 *     |   head   | sleeping |   room   | slot 0 | slot 1 |        | slot n-1 |
 *     +----------+----------+----------+--------+--------+-- .. --+----------+
 *      consumer   consumer   producer   n is a power of two, agreed in the handshake
 *      writes     sets, the  sets, the  (a cache line each, so that a flag nobody
 *                 producer   consumer   touches stays shared in both caches)
 *                 takes      takes
 *
 *     a slot      0      4           8     12    16              64
 *                 +------+-----------+-----+-----+---------------+
 *                 | turn | frame_len | len | off | small frame   |
 *                 +------+-----------+-----+-----+---------------+
 *
 * A message is a frame and bulk bytes. A frame of up to RING_SMALL bytes lies in the slot: then an
 * exchange costs one cache line each way, which is what makes a round trip fast (with a tail
 * index, a descriptor and a frame in lines of their own it was three, one after the other, and
 * twice as slow). What does not lie there is in the span [off, off + len) of the producer's arena:
 * the frame if it is larger, then, from the next multiple of 64, the bulk.
 *
 * There is no tail. A slot's turn says whose it is: the laps it was filled in, so that in lap k
 * (from 1) it goes from k - 1 to k when it is published.
 *
 * Invariants
 *   I1  head only grows, modulo 2^32, and 0 <= tail - head <= n, where tail is the producer's own
 *       count of messages. The consumer's next slot has the turn of its lap, or of the lap before.
 *   I2  Slots [head, tail) are the consumer's, the rest the producer's; so are their spans.
 *   I3  A release store of turn publishes slot and span; the acquire load of turn receives them.
 *       The same pair on head hands both back.
 *   I4  n and a side's own count are kept in private memory and never read from the mapping. Of the
 *       other's the producer keeps the last value it checked.
 *   I5  No wake-up is lost: who sleeps sets its flag and then looks at the turn (or head) once
 *       more; who moves that then looks at the flag. All four accesses are seq_cst, so that in
 *       their one total order either the sleeper sees the move or the mover sees the flag. (Release
 *       and acquire would not do: a store may still be on its way when the load behind it is done.)
 *
 * Threads    struct ring_tx: the producer's thread only. struct ring_rx: the consumer's only.
 * Ownership  both borrow the mapping, which outlives them. A new connection gets a new one.
 * Errors     0, -EAGAIN (full or empty), -EINVAL (a bad n or length), -EPROTO (the peer broke I1).
 */
#ifndef IPC_RING_H
#define IPC_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_SLOTS_MAX 4096u
#define RING_SMALL     48u
#define RING_BYTES(n)  (192u + 64u * (size_t)(n))

struct ring_desc {
    uint32_t frame_len, len, off;
};

struct ring_shm;
struct ring_tx {
    struct ring_shm *shm;
    uint32_t mask, shift, head;
    uint64_t tail;
}; /* I4 */
struct ring_rx {
    struct ring_shm *shm;
    uint32_t mask, shift;
    uint64_t head;
};

/* mem: 64-byte aligned, all zeros, at least RING_BYTES(n). */
int ring_tx_init(struct ring_tx *r, void *mem, size_t len, uint32_t n);
int ring_rx_init(struct ring_rx *r, void *mem, size_t len, uint32_t n);

/* The producer. ring_small is where the next message's small frame goes, RING_SMALL bytes, when the
 * ring is not full. ring_put and ring_full work from the last head seen; ring_look looks at head
 * anew and gives the number of slots that came back since (they are the oldest). */
uint8_t *ring_small(const struct ring_tx *r);
int ring_put(struct ring_tx *r, const struct ring_desc *d);
int ring_look(struct ring_tx *r, uint32_t *ret_back);
bool ring_full(const struct ring_tx *r);
bool ring_came_back(const struct ring_tx *r); /* would ring_look find anything? */
uint32_t ring_head(const struct ring_tx *r);  /* unchecked: good for comparing only */

/* The consumer. ring_peek copies the oldest descriptor; *ret_small is where its small frame is,
 * shared memory still. Slot and span stay the consumer's until ring_release. ring_readable is true
 * for a broken turn too, which ring_peek then reports. */
int ring_peek(const struct ring_rx *r, struct ring_desc *ret_d, const uint8_t **ret_small);
void ring_release(struct ring_rx *r);
bool ring_readable(const struct ring_rx *r);

/* Sleeping, see I5. ring_x_sleep sets the flag and returns true when there is reason not to sleep.
 * ring_take_x, to be called after each put or release, returns true when the other side sleeps and
 * must be woken; the flag is taken, so that one sleep costs one wake-up. */
bool ring_rx_sleep(struct ring_rx *r);
void ring_rx_wake(struct ring_rx *r);
bool ring_tx_sleep(struct ring_tx *r);
void ring_tx_wake(struct ring_tx *r);
bool ring_take_sleeper(struct ring_tx *r);
bool ring_take_waiter(struct ring_rx *r);

#endif
