/* ipc/chan.h - the two-way channel of one connection: a sealed memfd with two rings, two payload
 * arenas, and a doorbell for each side to sleep on.
 *
 * Layout of the memfd, in bytes; both sides compute it from the three numbers of the handshake
 *
 *     0            ring c2s            ring s2c            arena c2s          arena s2c
 *     +------------+-------------------+-------------------+------------------+-----------------+
 *     | CPUs       | RING_BYTES(slots) | RING_BYTES(slots) | arena_c2s bytes  | arena_s2c bytes |
 *     +------------+-------------------+-------------------+------------------+-----------------+
 *     64                                                    64-byte aligned, so are all spans
 *
 *     CPUs        0        4        8          64
 *                 +--------+--------+----------+
 *                 | client | server | reserved |      1 + the CPU it runs on; 0: it has not said
 *                 +--------+--------+----------+
 *
 * Two sides on one CPU can't answer each other while one of them spins: who waits must give the
 * CPU away. So each says where it runs when it sends or wakes. It is a hint, and may be old or a
 * lie: it decides whether a side spins before it sleeps, and nothing else.
 *
 * A message is a frame (packed protobuf) and bulk bytes. A small frame lies in the ring's slot; a
 * larger one and the bulk behind it lie in one contiguous span of the sender's arena, which the
 * slot names. Spans are handed back in order, when the receiver releases the message, so the arena
 * is a ring of bytes too (a span never wraps: the rest of the arena before the wrap is skipped).
 *
 * The two doorbells differ, because a peer must never be able to make the daemon wait. The daemon
 * sleeps on an eventfd, the cheapest there is. But an eventfd's counter and its O_NONBLOCK belong
 * to both who hold it: a client could clear the flag and fill the counter, and the daemon's ring
 * would block. So the client sleeps on its end of a socket pair, whose other end never leaves the
 * daemon and is written with MSG_DONTWAIT; and the daemon empties its eventfd with RWF_NOWAIT.
 *
 * The peer may be buggy or hostile at every instruction. What is read from the mapping is copied
 * once and then checked; own indices are private; frames are copied out before they are decoded;
 * bulk pointers lead into shared memory, whose bytes may change under the reader: copy, then check.
 *
 * Threads    a struct chan belongs to one thread at a time.
 * Ownership  the chan owns mapping and descriptors. Message pointers are valid until chan_release.
 * Errors     -EAGAIN (nothing there; no room now), -EPROTO (the peer broke an invariant: close),
 *            -EMSGSIZE (a message that can never fit), -errno.
 */
#ifndef IPC_CHAN_H
#define IPC_CHAN_H

#include "ipc/ring.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHAN_FRAME_MAX (64u * 1024) /* bytes of a packed frame */
#define CHAN_ARENA_MIN (256u * 1024)
#define CHAN_ARENA_MAX (64u * 1024 * 1024)
#define CHAN_SLOTS_MIN 16u

enum chan_side { CHAN_CLIENT, CHAN_SERVER };

struct chan_geometry {
    uint32_t slots;                /* of each ring; a power of two */
    uint32_t arena_c2s, arena_s2c; /* bytes, multiples of 64 */
};

struct chan_fds {
    int memfd, to_server, to_client;
}; /* to_x: what x sleeps on */

struct chan_msg {
    const uint8_t *frame; /* private copy */
    uint32_t frame_len;
    const uint8_t *bulk; /* in shared memory; bulk_len may be 0 */
    uint32_t bulk_len;
};

struct chan;

/* The daemon's side makes memory and descriptors; the client's side attaches to what it was sent
 * (it takes the descriptors, also on failure, and checks seals and size). */
int chan_create(const struct chan_geometry *g, struct chan **ret);
int chan_attach(const struct chan_geometry *g, struct chan_fds fds, struct chan **ret);
void chan_close(struct chan *c);
struct chan_fds chan_fds(const struct chan *c); /* to send them on; still the chan's */

/* Sending, in two steps so that a frame is packed where it will lie. chan_reserve gives pointers to
 * write to; chan_commit publishes and rings the peer's doorbell if it sleeps. A reservation that
 * is not committed is forgotten by the next one. What was written may be changed by the peer before
 * it is committed: never read it back. */
int chan_reserve(struct chan *c, uint32_t frame_len, uint32_t bulk_len, uint8_t **ret_frame,
                 uint8_t **ret_bulk);
void chan_commit(struct chan *c);

/* A count of the messages whose spans came back, modulo 2^32, as the peer has it: what did not fit
 * need not be tried again while it stays the same. */
uint32_t chan_came_back(const struct chan *c);

/* How many messages were sent, and how many spans of theirs have come back, modulo 2^32: the first
 * ones. What came back by then is no reason for chan_arm any more; 1: some did since the last look,
 * else 0. -EPROTO. */
uint32_t chan_sent(const struct chan *c);
int chan_taken(struct chan *c, uint32_t *ret);

/* The largest bulk that can go out with a frame of frame_len at best (an empty arena). */
uint32_t chan_bulk_max(const struct chan *c, uint32_t frame_len);

/* Receiving: one message at a time, then release it. Until then it counts as one to read. */
int chan_recv(struct chan *c, struct chan_msg *ret_msg);
void chan_release(struct chan *c);
bool chan_readable(const struct chan *c); /* a message is there; no side effect */

/* Sleeping. chan_arm says "I am about to sleep" and returns true when there is something to do
 * already (a message to read or, when for_room, spans that came back since the last chan_reserve):
 * then don't sleep. Otherwise wait until chan_doorbell is readable; that may be for nothing.
 * chan_disarm after either. The doorbell is drained by the next chan_arm, or by chan_disarm when
 * the channel was not armed: it stays readable from waking until then. */
bool chan_arm(struct chan *c, bool for_room);
bool chan_arm_room(struct chan *c); /* only for room: messages may wait */
void chan_disarm(struct chan *c);
int chan_doorbell(const struct chan *c); /* what this side sleeps on */

/* The daemon's side: its owner waits for edges (EPOLLET), each ring is one, and the doorbell is
 * never drained: that would be a system call before each sleep. */
void chan_wait_by_edges(struct chan *c);

/* Whether the other side said last that it runs on this thread's CPU: then don't spin for it. */
bool chan_shares_cpu(struct chan *c);

/* The CPU that the other side said last that it runs on; -1: none. */
int chan_peer_cpu(const struct chan *c);

/* This side is about to go to another CPU: the other may spin for it, as soon as it runs. */
void chan_leave_cpu(struct chan *c);

/* Looks between two yields of a side that spins: the other may be on this CPU and not have said so.
 * With pauses in between they take a few microseconds, more than an answer does; a yield takes as
 * long as an answer, and hides one that comes meanwhile. */
#define CHAN_SPIN_LOOKS 64

/* Client side convenience: spins for spin_ns, then sleeps on the doorbell, on sock (the connection,
 * whose end is the peer's death) and on stop_fd (-1: none) for timeout_ms (-1: for ever). 0:
 * something to read or, when for_room, room; -ETIMEDOUT, -EPIPE (the peer is gone and there is
 * nothing left to read), -EINTR (a signal, or stop_fd is readable). */
int chan_wait(struct chan *c, bool for_room, int sock, int stop_fd, uint64_t spin_ns,
              int timeout_ms);

#endif
