/* tests/support/hostile.h - a client that speaks the handshake by hand and then writes what it
 * likes into the shared memory: indices, flags, descriptors, frames.
 *
 * Knows the layout of ipc/chan.h and ipc/ring.h on its own, so that a change of either breaks a
 * test.
 *
 * Ownership  open/close.
 */
#ifndef TESTS_SUPPORT_HOSTILE_H
#define TESTS_SUPPORT_HOSTILE_H

#include "ipc/handshake.h"

enum hostile_ring { HOSTILE_C2S, HOSTILE_S2C };
/* Offsets in a ring. TURN: of slot 0, which is the first to be read. */
enum hostile_word {
    HOSTILE_HEAD = 0,
    HOSTILE_SLEEPING = 64,
    HOSTILE_ROOM = 128,
    HOSTILE_TURN = 192
};

struct hostile_slot {
    uint32_t turn, frame_len, len, off;
    uint8_t small[48];
};

struct hostile {
    int sock;
    struct chan_fds fds;
    struct chan_geometry g;
    uint8_t *mem;
    size_t len;
    uint32_t sent; /* messages of hostile_send */
};

/* 0 or -errno; -ECONNREFUSED: the daemon's answer was a refusal. */
int hostile_connect(struct hostile *h, const char *path);
/* The same memory as a channel's own side sees it, without a connection (the descriptors stay the
 * channel's). */
int hostile_map(struct hostile *h, const struct chan *c, const struct chan_geometry *g);
void hostile_close(struct hostile *h);

volatile uint32_t *hostile_word(struct hostile *h, enum hostile_ring ring, enum hostile_word word);
volatile struct hostile_slot *hostile_slot(struct hostile *h, enum hostile_ring ring, uint32_t i);
uint8_t *hostile_arena(struct hostile *h, enum hostile_ring ring);

/* Puts these bytes at the start of the arena (or into the slot, if they are few), publishes the
 * next slot and rings. Needs no room: the slot is taken, whoever's it is. */
void hostile_send(struct hostile *h, const void *frame, uint32_t len);
void hostile_ring(struct hostile *h);

/* True when the daemon ends the connection within that time. */
bool hostile_was_closed(struct hostile *h, int timeout_ms);

/* A small generator, so that a failure comes again with its seed. */
uint32_t hostile_random(uint64_t *state);

#endif
