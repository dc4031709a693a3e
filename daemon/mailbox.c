/* A ring with two indices that only grow, modulo 2^32, and each thread writes one of them: all the
 * order that is needed is that of a letter's bytes before its index. A pipe or a socket pair would
 * do the same with a system call for every look, and the scheduler looks between the layers of a
 * step.
 */
#include "daemon/mailbox.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* M3, which for one client and more is M4's number at least. */
#define MAILBOX_LETTERS(n_clients) (3 * (n_clients) + 3)

/* All of it now: a letter must not fail for want of memory, since there is nobody to tell. */
int mailbox_open(struct mailbox *m, uint32_t n_clients)
{
    uint32_t n = 4; /* a power of two, so that indices may wrap */

    *m = (struct mailbox){ .bell = -1 };
    while (n < MAILBOX_LETTERS(n_clients))
        n *= 2;
    m->mask = n - 1;
    m->slots = calloc(n, sizeof(*m->slots));
    if (!m->slots)
        return -ENOMEM;
    m->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->bell < 0) {
        int r = -errno;

        mailbox_close(m);
        return r;
    }
    return 0;
}

void mailbox_close(struct mailbox *m)
{
    if (!m->slots)
        return;
    if (m->bell >= 0)
        (void)close(m->bell);
    free(m->slots);
    m->slots = NULL;
    m->bell = -1;
}

void mailbox_put(struct mailbox *m, const struct mailbox_letter *l)
{
    uint32_t tail = atomic_load_explicit(&m->tail, memory_order_relaxed);
    const uint64_t one = 1;

    /* Full means that M1 to M4 do not hold: a mistake of ours, and to wait here could be for ever,
     * since the other thread may wait for us. */
    assert(tail - atomic_load_explicit(&m->head, memory_order_acquire) <= m->mask);
    m->slots[tail & m->mask] = *l;
    atomic_store_explicit(&m->tail, tail + 1, memory_order_release); /* with mailbox_take */
    /* Behind the letter, or the reader could wake, find nothing and sleep again. Full (2^64 - 2
     * rings that nobody heard) it rings already. */
    (void)!write(m->bell, &one, sizeof(one));
}

/* Two loads of lines that hardly ever change: cheap enough for once a layer. */
bool mailbox_pending(struct mailbox *m)
{
    return atomic_load_explicit(&m->tail, memory_order_acquire) !=
           atomic_load_explicit(&m->head, memory_order_relaxed);
}

bool mailbox_take(struct mailbox *m, struct mailbox_letter *ret)
{
    uint32_t head = atomic_load_explicit(&m->head, memory_order_relaxed);

    if (!mailbox_pending(m))
        return false;
    *ret = m->slots[head & m->mask];
    /* With mailbox_put, which may fill the slot as soon as it sees this: the copy is made by then.
     */
    atomic_store_explicit(&m->head, head + 1, memory_order_release);
    return true;
}

/* One read empties an eventfd, however often it was rung. It does not block: a bell that was not
 * rung is as good as one that was drained. */
void mailbox_drain(struct mailbox *m)
{
    uint64_t n;

    (void)!read(m->bell, &n, sizeof(n));
}
