/* ipc/ring.c - one-way ring of message slots; ring.h has layout and invariants.
 *
 * The two halves below are two processes. Each keeps its own count in private memory (I4), of 64
 * bits: a turn is that count divided by n, and has to go on over the laps modulo 2^32, where a
 * count of 32 bits would begin its laps anew. Nothing here waits and nothing makes a system call:
 * sleeping is left to ipc/chan.c, which uses the two flags. */

#include "ipc/ring.h"

#include <errno.h>
#include <stdatomic.h>

struct slot {
    _Alignas(64) _Atomic uint32_t turn;
    struct ring_desc desc;
    uint8_t small[RING_SMALL];
};
struct ring_shm {
    _Alignas(64) _Atomic uint32_t head;
    _Alignas(64) _Atomic uint32_t sleeping;
    _Alignas(64) _Atomic uint32_t room;
    struct slot slot[];
};
_Static_assert(sizeof(struct slot) == 64, "layout");
_Static_assert(offsetof(struct slot, desc) == 4, "layout");
_Static_assert(offsetof(struct slot, small) == 16, "layout");
_Static_assert(offsetof(struct ring_shm, sleeping) == 64, "layout");
_Static_assert(offsetof(struct ring_shm, room) == 128, "layout");
_Static_assert(offsetof(struct ring_shm, slot) == 192, "layout");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a lock inside an atomic would not cross processes");

/* n has an upper end so that a peer's wish does not decide how much is mapped, and is a power of
 * two so that a count gives its slot by a mask. */
static int check_memory(const void *mem, size_t len, uint32_t n)
{
    if (n == 0 || n > RING_SLOTS_MAX || (n & (n - 1)) != 0)
        return -EINVAL;
    if (len < RING_BYTES(n) || (uintptr_t)mem % 64 != 0)
        return -EINVAL;
    return 0;
}

/* Nothing is written to the mapping: all zeros are turn 0 in each slot, which is the lap before the
 * first. */
int ring_tx_init(struct ring_tx *r, void *mem, size_t len, uint32_t n)
{
    int err = check_memory(mem, len, n);

    if (err < 0)
        return err;
    *r = (struct ring_tx){ .shm = mem, .mask = n - 1, .shift = (uint32_t)__builtin_ctz(n) };
    return 0;
}

int ring_rx_init(struct ring_rx *r, void *mem, size_t len, uint32_t n)
{
    int err = check_memory(mem, len, n);

    if (err < 0)
        return err;
    *r = (struct ring_rx){ .shm = mem, .mask = n - 1, .shift = (uint32_t)__builtin_ctz(n) };
    return 0;
}

/* --- the producer ----------------------------------------------------------------------------- */

/* By the last head seen alone: the consumer's line stays where it is until there is need of it. */
bool ring_full(const struct ring_tx *r)
{
    return (uint32_t)r->tail - r->head > r->mask;
}

uint8_t *ring_small(const struct ring_tx *r)
{
    return r->shm->slot[r->tail & r->mask].small;
}

int ring_put(struct ring_tx *r, const struct ring_desc *d)
{
    struct slot *s = &r->shm->slot[r->tail & r->mask];

    if (ring_full(r))
        return -EAGAIN;
    s->desc = *d;
    /* seq_cst for I5; as a release it publishes the slot, and the span that the caller wrote, to
     * the acquire in ring_peek (I3). */
    atomic_store_explicit(&s->turn, (uint32_t)(r->tail >> r->shift) + 1, memory_order_seq_cst);
    r->tail++;
    return 0;
}

int ring_look(struct ring_tx *r, uint32_t *ret_back)
{
    /* Acquire pairs with the release in ring_release: the consumer's last reads of slot and span
     * are done before we write to them again (I3). */
    uint32_t head = atomic_load_explicit(&r->shm->head, memory_order_acquire);
    uint32_t back = head - r->head;

    /* Compared with the last value we checked, so that a head that runs back is caught as well. */
    if (back > (uint32_t)r->tail - r->head)
        return -EPROTO;
    r->head = head;
    *ret_back = back;
    return 0;
}

uint32_t ring_head(const struct ring_tx *r)
{
    return atomic_load_explicit(&r->shm->head, memory_order_relaxed);
}

bool ring_came_back(const struct ring_tx *r)
{
    return ring_head(r) != r->head;
}

bool ring_tx_sleep(struct ring_tx *r)
{
    atomic_store_explicit(&r->shm->room, 1, memory_order_seq_cst); /* I5 */
    /* Not checked: whatever it is, it only decides whether to sleep, and ring_look judges it. */
    return atomic_load_explicit(&r->shm->head, memory_order_seq_cst) != r->head;
}

/* Relaxed, here and in ring_rx_wake: a peer that still sees the flag rings for nothing. */
void ring_tx_wake(struct ring_tx *r)
{
    atomic_store_explicit(&r->shm->room, 0, memory_order_relaxed);
}

/* Taken by exchange after a look: the look keeps the line shared while nobody sleeps. Relaxed is
 * enough for the exchange, since what matters was ordered by the look, and a flag set again in
 * between belongs to a sleeper that is woken too early at worst. */
static bool take_flag(_Atomic uint32_t *flag)
{
    if (atomic_load_explicit(flag, memory_order_seq_cst) == 0) /* I5 */
        return false;
    return atomic_exchange_explicit(flag, 0, memory_order_relaxed) != 0;
}

bool ring_take_sleeper(struct ring_tx *r)
{
    return take_flag(&r->shm->sleeping);
}

/* --- the consumer ----------------------------------------------------------------------------- */

static struct slot *next_slot(const struct ring_rx *r)
{
    return &r->shm->slot[r->head & r->mask];
}

/* The turn of a slot that was not published since we released it, or never. */
static uint32_t old_turn(const struct ring_rx *r)
{
    return (uint32_t)(r->head >> r->shift);
}

/* Relaxed: a hint. Of the slot nothing is read before ring_peek has loaded the turn again. */
bool ring_readable(const struct ring_rx *r)
{
    return atomic_load_explicit(&next_slot(r)->turn, memory_order_relaxed) != old_turn(r);
}

int ring_peek(const struct ring_rx *r, struct ring_desc *ret_d, const uint8_t **ret_small)
{
    const struct slot *s = next_slot(r);
    uint32_t turn = atomic_load_explicit(&s->turn, memory_order_acquire); /* I3 */

    if (turn == old_turn(r))
        return -EAGAIN;
    /* Neither this lap's nor the last one's: no honest producer can write it (I1). */
    if (turn != old_turn(r) + 1)
        return -EPROTO;

    /* One read into private memory: the peer may rewrite the slot while we look at it, so the
     * caller must check the very copy it goes on to use. */
    *ret_d = *(const volatile struct ring_desc *)&s->desc;
    *ret_small = s->small;
    return 0;
}

void ring_release(struct ring_rx *r)
{
    r->head++;
    /* seq_cst for I5; as a release it ends our reads of the slot and of its span (I3). */
    atomic_store_explicit(&r->shm->head, (uint32_t)r->head, memory_order_seq_cst);
}

bool ring_rx_sleep(struct ring_rx *r)
{
    atomic_store_explicit(&r->shm->sleeping, 1, memory_order_seq_cst); /* I5 */
    return atomic_load_explicit(&next_slot(r)->turn, memory_order_seq_cst) != old_turn(r);
}

void ring_rx_wake(struct ring_rx *r)
{
    atomic_store_explicit(&r->shm->sleeping, 0, memory_order_relaxed);
}

bool ring_take_waiter(struct ring_rx *r)
{
    return take_flag(&r->shm->room);
}
