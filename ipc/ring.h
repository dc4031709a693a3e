/* ipc/ring.h - one-way ring of message descriptors between two processes.
 *
 * One producer, one consumer, no lock. The memory is shared with a peer that may be buggy or
 * hostile: what is read from it is copied once and checked, and nothing in it is a pointer.
 *
 * Layout, in bytes (asserted in ring.c)
 *
 *     0          64         128        192        256                          256 + 16 n
 *     +----------+----------+----------+----------+--------+--------+-- .. --+----------+
 *     |   tail   |   head   | sleeping |   room   | desc 0 | desc 1 |        | desc n-1 |
 *     +----------+----------+----------+----------+--------+--------+-- .. --+----------+
 *      producer   consumer   consumer   producer   n is a power of two, agreed in the handshake
 *      writes     writes     sets, the  sets, the  (a cache line each, so that a flag nobody
 *                            other      other      touches stays shared in both caches)
 *                            takes      takes
 *
 * A descriptor names the span [off, off + len) of the producer's arena. Its first frame_len bytes
 * are the frame; bulk, if any, begins at the next multiple of 64 and goes on to the span's end.
 *
 * Invariants
 *   I1  tail and head only grow, modulo 2^32, and 0 <= tail - head <= n.
 *   I2  Slots [head, tail) are the consumer's, the rest the producer's; so are their spans.
 *   I3  A release store of tail publishes slots and spans; the acquire load of tail receives them.
 *       The same pair on head hands both back.
 *   I4  n and a side's own index are kept in private memory and never read from the mapping. Of the
 *       other's index a side keeps the last value it checked.
 *   I5  No wake-up is lost: who sleeps sets its flag and then looks at the index once more; who
 *       moves the index then looks at the flag. All four accesses are seq_cst, so that in their
 *       one total order either the sleeper sees the index or the mover sees the flag. (Release and
 *       acquire would not do: a store may still be on its way when the load behind it is done.)
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
#define RING_BYTES(n)  (256u + 16u * (size_t)(n))

struct ring_desc { uint64_t off; uint32_t len, frame_len; };

struct ring_shm;
struct ring_tx { struct ring_shm *shm; uint32_t mask, tail, head; };   /* head: seen, see I4 */
struct ring_rx { struct ring_shm *shm; uint32_t mask, head; };

/* mem: 64-byte aligned, all zeros, at least RING_BYTES(n). */
int ring_tx_init(struct ring_tx *r, void *mem, size_t len, uint32_t n);
int ring_rx_init(struct ring_rx *r, void *mem, size_t len, uint32_t n);

/* The producer. ring_put works from the last head seen; ring_look looks at head anew and gives the
 * number of slots that came back since (they are the oldest). */
int ring_put(struct ring_tx *r, const struct ring_desc *d);
int ring_look(struct ring_tx *r, uint32_t *ret_back);
bool ring_full(const struct ring_tx *r);
bool ring_came_back(const struct ring_tx *r);        /* would ring_look find anything? */

/* The consumer. ring_peek copies the oldest descriptor; it and its span stay the consumer's until
 * ring_release. ring_readable is true for a broken tail too, which ring_peek then reports. */
int ring_peek(const struct ring_rx *r, struct ring_desc *ret_d);
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
