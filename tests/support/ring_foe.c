#include "tests/support/ring_foe.h"

#include "ipc/ring.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* An operation of another moment is done all the same when that does not come. */
#define PATIENCE 4u

/* --- reading the script ----------------------------------------------------------------------- */

static uint32_t take(struct ring_foe *f, unsigned n)
{
    uint32_t x = 0;

    for (unsigned i = 0; i < n && f->at < f->end; i++)
        x |= (uint32_t)*f->at++ << 8 * i;
    return x;
}

/* At most n of the bytes that are left. */
static const uint8_t *take_bytes(struct ring_foe *f, uint32_t n, uint32_t *ret_n)
{
    const uint8_t *p = f->at;
    size_t left = (size_t)(f->end - f->at);

    *ret_n = n < left ? n : (uint32_t)left;
    f->at += *ret_n;
    return p;
}

/* --- what it does ----------------------------------------------------------------------------- */

static enum hostile_ring out_of(const struct ring_foe *f)
{
    return f->is_daemon ? HOSTILE_S2C : HOSTILE_C2S;
}

static enum hostile_ring into(const struct ring_foe *f)
{
    return f->is_daemon ? HOSTILE_C2S : HOSTILE_S2C;
}

static uint32_t arena_of(const struct ring_foe *f, enum hostile_ring ring)
{
    return ring == HOSTILE_C2S ? f->h.g.arena_c2s : f->h.g.arena_s2c;
}

static bool is_full(struct ring_foe *f)
{
    return f->sent - *hostile_word(&f->h, out_of(f), HOSTILE_HEAD) >= f->h.g.slots;
}

static void publish(struct ring_foe *f, const struct ring_desc *d, int wrong)
{
    volatile struct hostile_slot *s = hostile_slot(&f->h, out_of(f), f->sent);

    s->frame_len = d->frame_len;
    s->len = d->len;
    s->off = d->off;
    __atomic_store_n(&s->turn, f->sent / f->h.g.slots + 1 + (uint32_t)wrong, __ATOMIC_SEQ_CST);
    f->sent++;
    if (!f->is_daemon)
        hostile_ring(&f->h);
}

static void repeat(uint8_t *to, uint32_t len, const uint8_t *from, uint32_t n)
{
    for (uint32_t i = 0; i < len; i++)
        to[i] = n ? from[i % n] : (uint8_t)("the cat sat. "[i % 13]);
}

static void send_frame(struct ring_foe *f, uint8_t op)
{
    uint32_t arena = arena_of(f, out_of(f)), frame_len = take(f, 2), bulk_len = take(f, 2);
    struct ring_desc d = { .off = take(f, 1) << 16 };
    uint32_t n, span, bulk_at;
    const uint8_t *pattern = take_bytes(f, take(f, 1), &n);
    const uint8_t *frame = take_bytes(f, frame_len, &d.frame_len);
    uint8_t *to;

    if (d.frame_len == 0 || (is_full(f) && !(op & RING_FOE_FORCE)))
        return;
    if (op & RING_FOE_LONG)
        bulk_len *= 16;
    if (bulk_len > arena / 2)
        bulk_len = arena / 2;
    bulk_at = d.frame_len <= RING_SMALL ? 0 : (d.frame_len + 63) & ~63u;
    span = bulk_len ? bulk_at + bulk_len : d.frame_len <= RING_SMALL ? 0 : d.frame_len;
    d.len = span;
    d.off = d.off % (arena - span + 1) & ~63u;
    to = hostile_arena(&f->h, out_of(f)) + d.off;
    repeat(to + bulk_at, bulk_len, pattern, n);
    if (d.frame_len <= RING_SMALL)
        to = (uint8_t *)(uintptr_t)hostile_slot(&f->h, out_of(f), f->sent)->small;
    memcpy(to, frame, d.frame_len);
    publish(f, &d, 0);
}

static void send_slot(struct ring_foe *f, uint8_t op)
{
    struct ring_desc d;
    int wrong;

    d.frame_len = take(f, 2);
    d.len = take(f, 4);
    d.off = take(f, 4);
    wrong = (int8_t)take(f, 1);
    if (!is_full(f) || op & RING_FOE_FORCE)
        publish(f, &d, wrong);
}

static volatile uint32_t *word_of(struct ring_foe *f, uint8_t which, uint8_t i)
{
    enum hostile_ring ring = which & 0x80 ? into(f) : out_of(f);
    volatile struct hostile_slot *s = hostile_slot(&f->h, ring, i);

    switch ((which & 0x7f) % 9) {
    case 0:
        return hostile_word(&f->h, ring, HOSTILE_HEAD);
    case 1:
        return hostile_word(&f->h, ring, HOSTILE_SLEEPING);
    case 2:
        return hostile_word(&f->h, ring, HOSTILE_ROOM);
    case 3:
        return &s->turn;
    case 4:
        return &s->frame_len;
    case 5:
        return &s->len;
    case 6:
        return &s->off;
    case 7:
        return (volatile uint32_t *)(uintptr_t)s->small;
    default:
        return (volatile uint32_t *)(void *)f->h.mem + i % 16; /* where the sides run */
    }
}

static void write_word(struct ring_foe *f, uint8_t op)
{
    uint8_t which = (uint8_t)take(f, 1), slot = (uint8_t)take(f, 1);
    volatile uint32_t *w = word_of(f, which, slot);
    uint32_t value = take(f, 4);

    *w = op & RING_FOE_LONG ? *w + value : value;
}

static void write_arena(struct ring_foe *f)
{
    enum hostile_ring ring = take(f, 1) & 1 ? into(f) : out_of(f);
    uint32_t off = take(f, 4) % arena_of(f, ring), n;
    const uint8_t *bytes = take_bytes(f, take(f, 1), &n);

    if (n > arena_of(f, ring) - off)
        n = arena_of(f, ring) - off;
    memcpy(hostile_arena(&f->h, ring) + off, bytes, n);
}

static void read_some(struct ring_foe *f)
{
    for (uint32_t n = take(f, 1); n > 0; n--) {
        if (hostile_slot(&f->h, into(f), f->read)->turn != f->read / f->h.g.slots + 1)
            return;
        f->read++;
        *hostile_word(&f->h, into(f), HOSTILE_HEAD) = f->read;
    }
}

/* A client holds both. */
static void ring(struct ring_foe *f)
{
    const uint64_t most = UINT64_MAX - 1;
    uint64_t n;
    int fd = f->h.fds.to_server;

    (void)fcntl(fd, F_SETFL, O_NONBLOCK); /* it must not wait itself */
    switch (take(f, 1) % 6) {
    case 0:
        hostile_ring(&f->h);
        break;
    case 1: /* full: what rings it would have to wait, if it could */
        (void)!write(fd, &most, sizeof(most));
        break;
    case 2: /* who reads it when it is empty would have to wait */
        (void)!read(fd, &n, sizeof(n));
        hostile_ring(&f->h);
        (void)fcntl(fd, F_SETFL, 0);
        break;
    case 3:
        (void)!read(fd, &n, sizeof(n));
        break;
    case 4:
        (void)shutdown(f->h.fds.to_client, SHUT_RDWR);
        break;
    default:
        (void)!send(f->h.fds.to_client, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* Its seals must not let it become shorter: whoever reads there would die. A hole reads as zeros.
 */
static void change_file(struct ring_foe *f)
{
    int fd = f->h.fds.memfd;

    switch (take(f, 1) % 4) {
    case 0:
        if (ftruncate(fd, 0) == 0)
            abort();
        break;
    case 1:
        if (ftruncate(fd, (off_t)f->h.len * 2) == 0)
            abort();
        break;
    case 2:
        (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)f->h.len);
        break;
    default:
        (void)fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE);
    }
}

static void call(struct ring_foe *f)
{
    uint8_t what = (uint8_t)take(f, 1);
    uint16_t number = (uint16_t)take(f, 2);

    if (f->call)
        f->call(what, number);
}

static void operate(struct ring_foe *f)
{
    uint8_t op = (uint8_t)take(f, 1);

    switch ((op & 15) % FOE_OP__N) {
    case FOE_FRAME:
        send_frame(f, op);
        break;
    case FOE_SLOT:
        send_slot(f, op);
        break;
    case FOE_WORD:
        write_word(f, op);
        break;
    case FOE_ARENA:
        write_arena(f);
        break;
    case FOE_READ:
        read_some(f);
        break;
    case FOE_BELL:
        ring(f);
        break;
    case FOE_LOOKS:
        f->looks = take(f, 1);
        break;
    case FOE_TIME:
        f->late_ns += (uint64_t)take(f, 2) * 1000000;
        break;
    case FOE_FILE:
        change_file(f);
        break;
    case FOE_GONE:
        f->gone = true;
        break;
    default:
        call(f);
    }
}

/* --- its life --------------------------------------------------------------------------------- */

void ring_foe_open(struct ring_foe *f, const struct chan *c, const struct chan_geometry *g,
                   const uint8_t *script, size_t len)
{
    *f = (struct ring_foe){ .at = script, .end = script + len, .patience = PATIENCE };
    if (hostile_map(&f->h, c, g) < 0)
        abort();
}

void ring_foe_close(struct ring_foe *f)
{
    hostile_close(&f->h);
}

bool ring_foe_done(const struct ring_foe *f)
{
    return f->at >= f->end && f->looks == 0;
}

static void moment(struct ring_foe *f, enum foe_moment m)
{
    if (m == FOE_LOOK && f->looks > 0) {
        f->looks--;
        return;
    }
    if (f->at >= f->end || f->looks > 0)
        return;
    if ((*f->at >> 4 & 3) != m) {
        if (m != FOE_LOOK || f->patience-- > 0)
            return;
    }
    f->patience = PATIENCE;
    do
        operate(f);
    while (m != FOE_LOOK && f->at < f->end && f->looks == 0 && (*f->at >> 4 & 3) == m);
}

struct chan *ring_foe_other_side(const struct chan *server, const struct chan_geometry *g)
{
    struct chan_fds f = chan_fds(server);
    struct chan *c;

    f = (struct chan_fds){ fcntl(f.memfd, F_DUPFD_CLOEXEC, 3),
                           fcntl(f.to_server, F_DUPFD_CLOEXEC, 3),
                           fcntl(f.to_client, F_DUPFD_CLOEXEC, 3) };
    return chan_attach(g, f, &c) == 0 ? c : NULL;
}

/* --- where it acts ---------------------------------------------------------------------------- */

struct ring_foe *ring_foe_acting;

void ring_foe_now(enum foe_moment m)
{
    if (ring_foe_acting)
        moment(ring_foe_acting, m);
}

int __real_ring_peek(const struct ring_rx *r, struct ring_desc *ret_d, const uint8_t **ret_small);
int __wrap_ring_peek(const struct ring_rx *r, struct ring_desc *ret_d, const uint8_t **ret_small);
int __wrap_ring_peek(const struct ring_rx *r, struct ring_desc *ret_d, const uint8_t **ret_small)
{
    int e = __real_ring_peek(r, ret_d, ret_small);

    ring_foe_now(FOE_PEEKED);
    return e;
}

int __real_ring_look(struct ring_tx *r, uint32_t *ret_back);
int __wrap_ring_look(struct ring_tx *r, uint32_t *ret_back);
int __wrap_ring_look(struct ring_tx *r, uint32_t *ret_back)
{
    ring_foe_now(FOE_ROOM);
    return __real_ring_look(r, ret_back);
}

/* --- scripts ---------------------------------------------------------------------------------- */

static void add(struct foe_script *s, const void *bytes, size_t n)
{
    if (n > sizeof(s->bytes) - s->len)
        abort();
    memcpy(s->bytes + s->len, bytes, n);
    s->len += n;
}

void foe_script_op(struct foe_script *s, enum foe_op op, enum foe_moment m, const char *bytes,
                   size_t n)
{
    const uint8_t head = (uint8_t)(op | m << 4);

    add(s, &head, 1);
    add(s, bytes, n);
}

void foe_script_frame(struct foe_script *s, const uint8_t *frame, size_t len, const char *bulk,
                      uint16_t bulk_len)
{
    size_t n = strlen(bulk);
    const uint8_t head[] = {
        FOE_FRAME, (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)bulk_len, (uint8_t)(bulk_len >> 8),
        0,         (uint8_t)n
    };

    add(s, head, sizeof(head));
    add(s, bulk, (uint8_t)n);
    add(s, frame, len);
}
