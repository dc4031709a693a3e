#include "daemon/mailbox.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* M3, which for one client and more is M4's number at least. */
#define MAILBOX_LETTERS(n_clients) (3 * (n_clients) + 1)

int mailbox_open(struct mailbox *m, uint32_t n_clients)
{
    uint32_t n = 4;

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

    assert(tail - atomic_load_explicit(&m->head, memory_order_acquire) <= m->mask);
    m->slots[tail & m->mask] = *l;
    atomic_store_explicit(&m->tail, tail + 1, memory_order_release); /* with mailbox_take */
    (void)!write(m->bell, &one, sizeof(one));
}

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
    atomic_store_explicit(&m->head, head + 1, memory_order_release); /* with mailbox_put */
    return true;
}

void mailbox_drain(struct mailbox *m)
{
    uint64_t n;

    (void)!read(m->bell, &n, sizeof(n));
}
