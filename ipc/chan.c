/* ipc/chan.c - one client's two rings and two arenas, and how its two ends wait for each other.
 *
 * What is read from the shared memory is copied before it is checked, and the copy is what is used:
 * the peer may write at any time. Only bulk stays where it lies, for it may be megabytes; who reads
 * it treats it as bytes that may be anything (chan.h). Nothing here trusts a length, an offset or
 * an index of the other side, and nothing here blocks on it but chan_wait.
 */
#include "ipc/chan.h"

#include "base/clock.h"
#include "base/pages.h"

#include "ipc/arena.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES 64u /* struct head, and reserved */
#define LEFT_MAX   32u /* sleeps whose rings, two each, may lie in a doorbell for one read */
/* Its size stays what it is, and with F_SEAL_SEAL so do the seals. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* The first bytes of the memory. Both sides read both words all the time and write their own only
 * when they find themselves elsewhere, so that the line stays in both caches. */
struct head {
    _Atomic uint32_t cpu[2]; /* of each enum chan_side: 1 + where it runs */
};
_Static_assert(CHAN_CLIENT == 0 && CHAN_SERVER == 1, "layout");
_Static_assert(sizeof(struct head) == 8 && sizeof(struct head) <= HEAD_BYTES, "layout");

/* One thread at a time. */
struct chan {
    enum chan_side side;
    bool reserved, held; /* a span waits for its commit; a message for its release */
    bool armed, rung;    /* asleep; the doorbell may hold rings of the last sleep */
    bool edges;          /* and they may stay: who sleeps waits for the next */
    uint32_t cpu;        /* what we said last in the head */
    struct head *head;
    struct ring_tx tx;
    struct ring_rx rx;
    uint8_t *out, *in; /* the two arenas, as this side sees them */
    uint32_t in_size;
    struct arena lent;        /* of out */
    struct ring_desc pending; /* what chan_commit publishes */
    uint8_t *mem;
    size_t len;
    struct chan_fds fds;
    int ring_client; /* the daemon's end of the pair; -1 on the client's side */
    int bed;         /* an epoll set that chan_wait sleeps on; -1 until it does */
    int beside[2];   /* what is in it besides the doorbell: sock and stop_fd */
    uint32_t n_left; /* sleeps since the doorbell was drained */
    uint8_t frame[CHAN_FRAME_MAX];
};

/* Of frames and arenas, both far below 2^32. */
static uint32_t align_up(uint32_t x)
{
    return (x + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1);
}

/* --- making ----------------------------------------------------------------------------------- */

/* Also of what the daemon answered, by the client: the layout is computed from these numbers, and
 * with these bounds nothing in it overflows. */
static bool geometry_valid(const struct chan_geometry *g)
{
    const uint32_t arenas[] = { g->arena_c2s, g->arena_s2c };

    if (g->slots < CHAN_SLOTS_MIN || g->slots > RING_SLOTS_MAX || (g->slots & (g->slots - 1)) != 0)
        return false;
    for (int i = 0; i < 2; i++)
        if (arenas[i] < CHAN_ARENA_MIN || arenas[i] > CHAN_ARENA_MAX ||
            arenas[i] % ARENA_ALIGN != 0)
            return false;
    return true;
}

/* At most some 129 MiB, by the bounds of geometry_valid. */
static size_t mapping_len(const struct chan_geometry *g)
{
    return HEAD_BYTES + 2 * RING_BYTES(g->slots) + g->arena_c2s + (size_t)g->arena_s2c;
}

/* The descriptors are the chan's from here on. What is not made yet is NULL or -1, which is what
 * chan_close goes by. */
static struct chan *chan_new(enum chan_side side, const struct chan_geometry *g,
                             struct chan_fds fds)
{
    struct chan *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->side = side;
    c->fds = fds;
    c->ring_client = c->bed = c->beside[0] = c->beside[1] = -1;
    c->len = mapping_len(g);
    return c;
}

/* Maps the memfd, which has the right size and seals by now, and finds the four parts in it. */
static int map_parts(struct chan *c, const struct chan_geometry *g)
{
    size_t ring = RING_BYTES(g->slots);
    bool client = c->side == CHAN_CLIENT;
    uint8_t *c2s, *s2c, *arena_c2s, *arena_s2c;
    void *mem = mmap(NULL, c->len, PROT_READ | PROT_WRITE, MAP_SHARED, c->fds.memfd, 0);
    int r;

    if (mem == MAP_FAILED)
        return -errno;
    c->mem = mem;
    c->head = mem;
    c2s = c->mem + HEAD_BYTES;
    s2c = c2s + ring;
    arena_c2s = s2c + ring;
    arena_s2c = arena_c2s + g->arena_c2s;

    c->out = client ? arena_c2s : arena_s2c;
    c->in = client ? arena_s2c : arena_c2s;
    c->in_size = client ? g->arena_s2c : g->arena_c2s;
    r = ring_tx_init(&c->tx, client ? c2s : s2c, ring, g->slots);
    if (r == 0)
        r = ring_rx_init(&c->rx, client ? s2c : c2s, ring, g->slots);
    if (r == 0)
        r = arena_init(&c->lent, client ? g->arena_c2s : g->arena_s2c, g->slots);
    return r;
}

/* Sealed before the peer has it: a peer that truncated the file would kill us by SIGBUS. */
static int make_memfd(size_t len)
{
    int fd = pages_memfd("gistd-channel", MFD_ALLOW_SEALING, len), r;

    if (fd < 0 || fcntl(fd, F_ADD_SEALS, SEALS) == 0)
        return fd;
    r = -errno;
    (void)close(fd);
    return r;
}

int chan_create(const struct chan_geometry *g, struct chan **ret)
{
    struct chan *c;
    int pair[2], r;

    if (!geometry_valid(g))
        return -EINVAL;
    c = chan_new(CHAN_SERVER, g, (struct chan_fds){ -1, -1, -1 });
    if (!c)
        return -ENOMEM;
    c->fds.memfd = make_memfd(c->len);
    if (c->fds.memfd < 0) {
        r = c->fds.memfd;
        goto fail;
    }
    c->fds.to_server = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->fds.to_server < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        r = -errno;
        goto fail;
    }
    c->ring_client = pair[0];
    c->fds.to_client = pair[1];
    /* Nothing comes this way, and what a client sends all the same must not pile up. */
    (void)shutdown(c->ring_client, SHUT_RD);
    r = map_parts(c, g);
    if (r < 0)
        goto fail;
    *ret = c;
    return 0;

fail:
    chan_close(c);
    return r;
}

/* A memfd that could shrink would be a SIGBUS at the daemon's choice, one of another length a
 * layout that ends outside. */
static int check_memfd(int fd, size_t len)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0) /* EINVAL: what the peer sent has none */
        return errno == EINVAL || errno == EBADF ? -EPROTO : -errno;
    if ((seals & SEALS) != SEALS)
        return -EPROTO;
    if (fstat(fd, &st) < 0)
        return -errno;
    return (size_t)st.st_size == len ? 0 : -EPROTO;
}

static void close_fds(struct chan_fds *fds)
{
    int *all[] = { &fds->memfd, &fds->to_server, &fds->to_client };

    for (int i = 0; i < 3; i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
}

/* The descriptors are taken also when it fails: callers have one rule to follow. */
int chan_attach(const struct chan_geometry *g, struct chan_fds fds, struct chan **ret)
{
    struct chan *c;
    int r;

    if (!geometry_valid(g)) {
        close_fds(&fds);
        return -EPROTO;
    }
    c = chan_new(CHAN_CLIENT, g, fds);
    if (!c) {
        close_fds(&fds);
        return -ENOMEM;
    }
    r = check_memfd(fds.memfd, c->len);
    if (r == 0)
        r = map_parts(c, g);
    if (r < 0) {
        chan_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

void chan_close(struct chan *c)
{
    if (!c)
        return;
    if (c->mem)
        munmap(c->mem, c->len);
    arena_fini(&c->lent);
    close_fds(&c->fds);
    if (c->ring_client >= 0)
        close(c->ring_client);
    if (c->bed >= 0)
        close(c->bed);
    free(c);
}

struct chan_fds chan_fds(const struct chan *c)
{
    return c->fds;
}

/* --- doorbells -------------------------------------------------------------------------------- */

/* Neither may block, whatever the peer did to the descriptor. A doorbell that is full is one that
 * rings already, and one whose owner is gone needs no ringing: results are ignored on purpose. */
static void ring_doorbell(struct chan *c)
{
    const uint64_t one = 1;

    if (c->side == CHAN_SERVER)
        (void)!send(c->ring_client, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        (void)!write(c->fds.to_server, &one, sizeof(one));
}

static void drain_doorbell(struct chan *c)
{
    uint8_t buf[64];
    struct iovec io = { buf, sizeof(uint64_t) };

    if (c->edges)
        return;
    if (c->side == CHAN_CLIENT) {
        (void)!recv(c->fds.to_client, buf, sizeof(buf), MSG_DONTWAIT);
        return;
    }
    /* One read empties an eventfd. Before Linux 5.9 it takes no flags. */
    if (preadv2(c->fds.to_server, &io, 1, -1, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP)
        (void)!read(c->fds.to_server, buf, sizeof(uint64_t));
}

int chan_doorbell(const struct chan *c)
{
    return c->side == CHAN_SERVER ? c->fds.to_server : c->fds.to_client;
}

/* --- where the sides run ---------------------------------------------------------------------- */

/* sched_getcpu is no system call: it reads what the kernel keeps up to date in this thread's
 * memory, in a nanosecond. Relaxed: nothing hangs on when the other side sees it. */
static void say(struct chan *c, uint32_t cpu)
{
    if (cpu == c->cpu)
        return;
    c->cpu = cpu;
    atomic_store_explicit(&c->head->cpu[c->side], cpu, memory_order_relaxed);
}

static void say_cpu(struct chan *c)
{
    say(c, (uint32_t)(sched_getcpu() + 1));
}

void chan_leave_cpu(struct chan *c)
{
    say(c, 0);
}

int chan_peer_cpu(const struct chan *c)
{
    uint32_t cpu = atomic_load_explicit(&c->head->cpu[!c->side], memory_order_relaxed);

    return cpu > 0 && cpu <= INT_MAX ? (int)cpu - 1 : -1;
}

bool chan_shares_cpu(struct chan *c)
{
    say_cpu(c);
    return c->cpu > 0 && chan_peer_cpu(c) == (int)c->cpu - 1;
}

/* --- sending ---------------------------------------------------------------------------------- */

/* What the peer has released since the last look goes back to the arena. The only place where its
 * head is believed, and only as far as ring_look has checked it. */
static int look_for_room(struct chan *c)
{
    uint32_t back;
    int r = ring_look(&c->tx, &back);

    if (r < 0)
        return r;
    arena_give_back(&c->lent, back);
    return 0;
}

/* Where the bulk begins in a span: behind a frame that was too large for the slot. */
static uint32_t bulk_off(uint32_t frame_len)
{
    return frame_len <= RING_SMALL ? 0 : align_up(frame_len);
}

/* In 64 bits: both numbers may be the peer's, and their sum must not come out small. */
static uint64_t span_len(uint32_t frame_len, uint32_t bulk_len)
{
    if (bulk_len == 0)
        return frame_len <= RING_SMALL ? 0 : frame_len;
    return (uint64_t)bulk_off(frame_len) + bulk_len;
}

/* Nothing is taken yet: neither slot nor span is used up before chan_commit. */
int chan_reserve(struct chan *c, uint32_t frame_len, uint32_t bulk_len, uint8_t **ret_frame,
                 uint8_t **ret_bulk)
{
    uint64_t len = span_len(frame_len, bulk_len), off;
    int r;

    c->reserved = false;
    if (frame_len == 0 || frame_len > CHAN_FRAME_MAX || len > c->lent.size)
        return -EMSGSIZE;

    /* Looking at the peer's head costs a cache line's travel. Once a page is often enough to find
     * the arena empty and start it again at 0. */
    r = ring_full(&c->tx) ? -EAGAIN : arena_find(&c->lent, (uint32_t)len, &off);
    if (r == -EAGAIN || arena_leaves_page(&c->lent, (uint32_t)len)) {
        r = look_for_room(c);
        if (r < 0)
            return r;
        r = ring_full(&c->tx) ? -EAGAIN : arena_find(&c->lent, (uint32_t)len, &off);
    }
    if (r < 0)
        return r;

    c->pending = (struct ring_desc){ frame_len, (uint32_t)len, (uint32_t)off };
    c->reserved = true;
    *ret_frame = frame_len <= RING_SMALL ? ring_small(&c->tx) : c->out + off;
    *ret_bulk = c->out + off + bulk_off(frame_len);
    return 0;
}

void chan_commit(struct chan *c)
{
    int r;

    assert(c->reserved);
    c->reserved = false;
    say_cpu(c); /* before the message is there: who has it knows */
    arena_lend(&c->lent, c->pending.off, c->pending.len);
    r = ring_put(&c->tx, &c->pending);
    assert(r == 0); /* chan_reserve saw a free slot, and only we fill them */
    (void)r;
    if (ring_take_sleeper(&c->tx))
        ring_doorbell(c);
}

uint32_t chan_came_back(const struct chan *c)
{
    return ring_head(&c->tx);
}

uint32_t chan_sent(const struct chan *c)
{
    return (uint32_t)c->tx.tail;
}

int chan_taken(struct chan *c, uint32_t *ret)
{
    uint32_t before = c->tx.head;
    int r = look_for_room(c);

    if (r < 0)
        return r;
    *ret = c->tx.head;
    return *ret != before;
}

uint32_t chan_bulk_max(const struct chan *c, uint32_t frame_len)
{
    return frame_len > CHAN_FRAME_MAX ? 0 : c->lent.size - bulk_off(frame_len);
}

/* --- receiving -------------------------------------------------------------------------------- */

/* A span that is longer than its frame must have room for bulk behind it: with that chan_recv's
 * subtraction can't wrap. */
static bool desc_valid(const struct ring_desc *d, uint32_t arena_size)
{
    if (d->frame_len == 0 || d->frame_len > CHAN_FRAME_MAX)
        return false;
    if (d->off % ARENA_ALIGN != 0 || d->off > arena_size || d->len > arena_size - d->off)
        return false;
    return d->len == span_len(d->frame_len, 0) || d->len > bulk_off(d->frame_len);
}

int chan_recv(struct chan *c, struct chan_msg *ret_msg)
{
    const uint8_t *small;
    struct ring_desc d;
    int r;

    assert(!c->held);
    r = ring_peek(&c->rx, &d, &small);
    if (r < 0)
        return r;
    if (!desc_valid(&d, c->in_size))
        return -EPROTO;
    memcpy(c->frame, d.frame_len <= RING_SMALL ? small : c->in + d.off, d.frame_len);
    /* The compiler may not read the shared bytes a second time in place of the copy. */
    atomic_signal_fence(memory_order_seq_cst);

    *ret_msg = (struct chan_msg){ .frame = c->frame, .frame_len = d.frame_len };
    if (d.len > span_len(d.frame_len, 0)) {
        ret_msg->bulk = c->in + d.off + bulk_off(d.frame_len);
        ret_msg->bulk_len = d.len - bulk_off(d.frame_len);
    }
    c->held = true;
    return 0;
}

/* In this order: who is woken finds the slot free. */
void chan_release(struct chan *c)
{
    assert(c->held);
    c->held = false;
    ring_release(&c->rx);
    if (ring_take_waiter(&c->rx))
        ring_doorbell(c);
}

bool chan_readable(const struct chan *c)
{
    return ring_readable(&c->rx);
}

/* --- sleeping --------------------------------------------------------------------------------- */

static void begin_arm(struct chan *c)
{
    /* What rang for the last sleep. Here and not on waking: then somebody waits for us to go on,
     * now it is we who wait. */
    if (c->rung)
        drain_doorbell(c);
    c->rung = false;
    c->n_left = 0;
    c->armed = true;
}

void chan_wait_by_edges(struct chan *c)
{
    assert(c->side == CHAN_SERVER); /* an eventfd takes any number of rings, a socket does not */
    c->edges = true;
}

/* The flags are set even where there is something to do: chan_disarm takes both back, and the
 * caller need not know which it was. */
static bool look_and_sleep(struct chan *c, bool for_room)
{
    bool there = ring_rx_sleep(&c->rx);

    if (for_room && ring_tx_sleep(&c->tx))
        there = true;
    return there;
}

bool chan_arm(struct chan *c, bool for_room)
{
    begin_arm(c);
    return look_and_sleep(c, for_room);
}

bool chan_arm_room(struct chan *c)
{
    begin_arm(c);
    return ring_tx_sleep(&c->tx);
}

void chan_disarm(struct chan *c)
{
    if (!c->armed) { /* it rang all the same */
        drain_doorbell(c);
        return;
    }
    ring_rx_wake(&c->rx);
    ring_tx_wake(&c->tx);
    say_cpu(c); /* the kernel may have woken us anywhere */
    c->armed = false;
    c->rung = true;
}

/* Without a side effect: while we look by ourselves nobody has to ring. */
static bool ready(const struct chan *c, bool for_room)
{
    return ring_readable(&c->rx) || (for_room && ring_came_back(&c->tx));
}

/* Looks at the clock only now and then: reading it takes longer than a message does.
 *
 * Who wakes a thread often gets it on its own CPU: the kernel puts the two together because one is
 * about to sleep, and a side that spins doesn't. While they share a CPU, and others may be idle,
 * each holds up the answer that it spins for. Giving the CPU away by a yield is enough where both
 * are of one scheduling group. In two (a service and a user's session, two terminals) it is not: a
 * yield makes way inside its group only, and the peer waits until the slice is used up. So there is
 * one yield, and then sleep, which makes way for anybody. */
static bool spin(struct chan *c, bool for_room, uint64_t spin_ns)
{
    uint64_t end = 0, now;

    if (spin_ns == 0)
        return ready(c, for_room);
    do {
        if (chan_shares_cpu(c)) {
            if (!ready(c, for_room))
                (void)sched_yield();
            return ready(c, for_room);
        }
        for (int i = 0; i < CHAN_SPIN_LOOKS; i++) {
            if (ready(c, for_room))
                return true;
            clock_pause();
        }
        (void)sched_yield();
        now = clock_ns();
        if (end == 0)
            end = now + spin_ns;
    } while (now < end);
    return false;
}

/* What an event was about. BED_SOCK and BED_STOP stand in the order of chan.beside. */
enum { BED_BELL, BED_SOCK, BED_STOP, BED__N };

/* The doorbell is waited for by edges. The other two are not: a connection that has ended, or a
 * caller that wants to stop, is to end each sleep and not only the first. */
static int put_in_bed(struct chan *c, int fd, uint32_t what, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.u32 = what };

    return epoll_ctl(c->bed, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* An epoll set, which is filled once: poll would hang itself on three descriptors for each sleep
 * and off them, while who answers may wait for this CPU. */
static int make_bed(struct chan *c, const int fds[2])
{
    int r;

    if (c->bed < 0) {
        c->bed = epoll_create1(EPOLL_CLOEXEC);
        if (c->bed < 0)
            return -errno;
        r = put_in_bed(c, chan_doorbell(c), BED_BELL, EPOLLIN | EPOLLET);
        if (r < 0) {
            (void)close(c->bed);
            c->bed = -1; /* one without the doorbell would never wake us */
            return r;
        }
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (c->beside[i] == fds[i])
            continue;
        if (c->beside[i] >= 0)
            (void)epoll_ctl(c->bed, EPOLL_CTL_DEL, c->beside[i], NULL);
        c->beside[i] = -1;
        r = fds[i] < 0 ? 0 : put_in_bed(c, fds[i], BED_SOCK + i, EPOLLIN);
        if (r < 0)
            return r;
        c->beside[i] = fds[i];
    }
    return 0;
}

/* What there was, as bits of BED_x; an end of any of them is the peer's. How many, 0 in time, or
 * -errno. */
static int sleep_in_bed(const struct chan *c, int timeout_ms, uint32_t *ret_seen)
{
    struct epoll_event ev[BED__N];
    int n = epoll_wait(c->bed, ev, BED__N, timeout_ms);

    for (int i = 0; i < n; i++) {
        bool over = ev[i].events & (EPOLLHUP | EPOLLERR);

        *ret_seen |= over ? 1u << BED_SOCK : 1u << ev[i].data.u32;
    }
    return n < 0 ? -errno : n;
}

/* The same for who has no descriptor left for a set: no reason to lose a connection. */
static int sleep_by_poll(const struct chan *c, const int fds[2], int timeout_ms, uint32_t *ret_seen)
{
    struct pollfd p[BED__N] = { { chan_doorbell(c), POLLIN, 0 },
                                { fds[0], POLLIN, 0 },
                                { fds[1], POLLIN, 0 } };
    int n = poll(p, BED__N, timeout_ms);

    for (uint32_t i = 0; n > 0 && i < BED__N; i++) {
        bool over = p[i].revents & (POLLHUP | POLLERR | POLLNVAL);

        *ret_seen |= over ? 1u << BED_SOCK : p[i].revents ? 1u << i : 0;
    }
    return n < 0 ? -errno : n;
}

/* Flags first, one more look, then sleep: a message that comes between the look and the sleep finds
 * the flag and rings (ring.h, I5). In bed each ring is an edge, so that those of earlier sleeps may
 * lie in the doorbell, as many as one read takes away; poll sees what lies there (fds not NULL). */
static int sleep_once(struct chan *c, bool for_room, const int *fds, int timeout_ms)
{
    uint32_t seen = 0;
    bool there;
    int n = 0;

    if (fds || ++c->n_left >= LEFT_MAX)
        begin_arm(c);
    c->armed = true;
    there = look_and_sleep(c, for_room);
    if (!there)
        n = fds ? sleep_by_poll(c, fds, timeout_ms, &seen) : sleep_in_bed(c, timeout_ms, &seen);
    chan_disarm(c);
    /* Before the peer's death is looked at: what it sent while it lived still counts. */
    if (there || ready(c, for_room))
        return 0;
    if (n < 0)
        return n;
    if (n == 0)
        return -ETIMEDOUT;
    if (seen & 1u << BED_SOCK)
        return -EPIPE;
    return seen & 1u << BED_STOP ? -EINTR : 1; /* 1: woken by the doorbell, perhaps for nothing */
}

int chan_wait(struct chan *c, bool for_room, int sock, int stop_fd, uint64_t spin_ns,
              int timeout_ms)
{
    uint64_t end = timeout_ms > 0 ? clock_ns() + (uint64_t)timeout_ms * 1000000u : 0;
    const int fds[] = { sock, stop_fd };
    bool full;
    int r;

    if (spin(c, for_room, spin_ns))
        return 0;
    r = make_bed(c, fds);
    full = r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -ENOSPC;
    if (r < 0 && !full)
        return r;
    do {
        if (timeout_ms > 0) {
            uint64_t now = clock_ns();

            /* Rounded up: rounded down the last millisecond would be spent in sleeps of none. */
            timeout_ms = now < end ? (int)((end - now + 999999) / 1000000) : 0;
        }
        r = sleep_once(c, for_room, full ? fds : NULL, timeout_ms);
    } while (r == 1);
    return r;
}
