/* tests/support/ring_foe.h - the other end of a channel, that does what a script of bytes says.
 *
 * It sends frames as it should, and it writes what it likes to any place of the shared memory: at a
 * moment that the script names, so that what was just checked is rewritten before it is used.
 * Nothing else than the bytes decides what it does: a finding comes again with its input.
 *
 *     an operation  0       1
 *                   +-------+-----------+      bits 0-3 of `op`: enum foe_op
 *                   |  op   | arguments |      bits 4-5: enum foe_moment
 *                   +-------+-----------+      bits 6-7: RING_FOE_FORCE, RING_FOE_LONG
 *
 *     FRAME  u16 frame_len, u16 bulk_len (RING_FOE_LONG: of 16 bytes), u8 of the arena in 64 KiB,
 *            u8 n, n bytes that the bulk is a repetition of, the frame
 *     SLOT   u16 frame_len, u32 len, u32 off, i8: by how much its turn is wrong
 *     WORD   u8 which of them (bit 7: of the ring towards it), u8 slot, u32 value; RING_FOE_LONG:
 *            to be added to what is there
 *     ARENA  u8 which, u32 off, u8 n, n bytes
 *     READ   u8: so many messages, at most, are handed back
 *     BELL   u8 what it does with the doorbells
 *     LOOKS  u8: so many looks pass
 *     TIME   u16 milliseconds pass
 *     FILE   u8 what it does with the memory's file
 *     GONE   its process has ended, though not its mapping
 *     CALL   u8, u16: what the other side's program does, for who drives one
 *
 * An end of the bytes inside of an operation reads as zeros.
 *
 * Threads    one at a time.
 * Ownership  open/close; the script is borrowed.
 */
#ifndef TESTS_SUPPORT_RING_FOE_H
#define TESTS_SUPPORT_RING_FOE_H

#include "tests/support/hostile.h"

#define RING_FOE_FORCE 0x40u /* FRAME, SLOT: though the ring is full */
#define RING_FOE_LONG  0x80u

enum foe_op {
    FOE_FRAME,
    FOE_SLOT,
    FOE_WORD,
    FOE_ARENA,
    FOE_READ,
    FOE_BELL,
    FOE_LOOKS,
    FOE_TIME,
    FOE_FILE,
    FOE_GONE,
    FOE_CALL,
    FOE_OP__N
};
enum foe_moment {
    FOE_LOOK,   /* the other side looks whether there is anything */
    FOE_PEEKED, /* it has copied a descriptor */
    FOE_UNPACK, /* it has copied a frame, and not yet its bulk */
    FOE_ROOM    /* it is about to read a head */
};

struct ring_foe {
    struct hostile h;
    const uint8_t *at, *end;
    bool is_daemon; /* it plays the daemon's side */
    bool gone;
    uint32_t sent, read; /* messages */
    uint32_t looks;      /* that are to pass before its next operation */
    uint32_t patience;   /* looks that an operation of another moment still waits */
    uint64_t late_ns;    /* by which it is later than the clock says */
    void (*call)(uint8_t what, uint16_t number);
};

/* c: the daemon's side of the channel. */
void ring_foe_open(struct ring_foe *f, const struct chan *c, const struct chan_geometry *g,
                   const uint8_t *script, size_t len);
void ring_foe_close(struct ring_foe *f);

bool ring_foe_done(const struct ring_foe *f);

/* Whose moments those of the program's calls are; NULL: nobody does anything. */
extern struct ring_foe *ring_foe_acting;

/* Its moment has come. FOE_PEEKED and FOE_ROOM come by themselves: a program that is linked with
 * this file wraps ring_peek() and ring_look() (see the Makefile). */
void ring_foe_now(enum foe_moment m);

/* The client's side of the same channel, in this process; NULL: no descriptors are left. */
struct chan *ring_foe_other_side(const struct chan *server, const struct chan_geometry *g);

/* --- scripts ---------------------------------------------------------------------------------- */

struct foe_script {
    uint8_t bytes[16384];
    size_t len;
};

void foe_script_op(struct foe_script *s, enum foe_op op, enum foe_moment m, const char *bytes,
                   size_t n);
/* bulk: at most 255 bytes, repeated until there are bulk_len. */
void foe_script_frame(struct foe_script *s, const uint8_t *frame, size_t len, const char *bulk,
                      uint16_t bulk_len);

#endif
