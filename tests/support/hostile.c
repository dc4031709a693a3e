#include "tests/support/hostile.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static size_t ring_off(const struct hostile *h, enum hostile_ring ring)
{
    return 64 + (ring == HOSTILE_S2C ? 192 + 64 * (size_t)h->g.slots : 0);
}

static int map(struct hostile *h)
{
    void *mem;

    h->len = 64 + 2 * (192 + 64 * (size_t)h->g.slots) + h->g.arena_c2s + h->g.arena_s2c;
    mem = mmap(NULL, h->len, PROT_READ | PROT_WRITE, MAP_SHARED, h->fds.memfd, 0);
    if (mem == MAP_FAILED)
        return -errno;
    h->mem = mem;
    return 0;
}

static int receive_answer(struct hostile *h)
{
    struct handshake_answer a;
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(3 * sizeof(int))];
    } ctl;
    struct iovec io = { &a, sizeof(a) };
    struct msghdr mh = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)
    };
    struct cmsghdr *c;
    int fds[3];

    if (recvmsg(h->sock, &mh, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(a))
        return -EPROTO;
    c = CMSG_FIRSTHDR(&mh);
    if (a.status != 0 || !c || c->cmsg_len != CMSG_LEN(sizeof(fds)))
        return -ECONNREFUSED;
    memcpy(fds, CMSG_DATA(c), sizeof(fds));
    h->fds = (struct chan_fds){ fds[0], fds[1], fds[2] };
    h->g = (struct chan_geometry){ a.slots, a.arena_c2s, a.arena_s2c };
    return map(h);
}

int hostile_connect(struct hostile *h, const char *path)
{
    struct handshake_hello hello = { .magic = HANDSHAKE_MAGIC, .version = HANDSHAKE_VERSION };
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int r = 0;

    *h = (struct hostile){ .sock = -1, .fds = { -1, -1, -1 } };
    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, path, strlen(path));
    h->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (h->sock < 0 || connect(h->sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        send(h->sock, &hello, sizeof(hello), MSG_NOSIGNAL) < 0)
        r = -errno;
    if (r == 0)
        r = receive_answer(h);
    if (r < 0)
        hostile_close(h);
    return r;
}

int hostile_map(struct hostile *h, const struct chan *c, const struct chan_geometry *g)
{
    *h = (struct hostile){ .sock = -1, .fds = { -1, -1, -1 }, .g = *g };
    h->fds.memfd = dup(chan_fds(c).memfd);
    h->fds.to_server = dup(chan_fds(c).to_server);
    h->fds.to_client = dup(chan_fds(c).to_client);
    return map(h);
}

void hostile_close(struct hostile *h)
{
    const int fds[] = { h->sock, h->fds.memfd, h->fds.to_server, h->fds.to_client };

    if (h->mem)
        munmap(h->mem, h->len);
    for (int i = 0; i < 4; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    *h = (struct hostile){ .sock = -1, .fds = { -1, -1, -1 } };
}

volatile uint32_t *hostile_word(struct hostile *h, enum hostile_ring ring, enum hostile_word word)
{
    return (volatile uint32_t *)(void *)(h->mem + ring_off(h, ring) + word);
}

volatile struct hostile_slot *hostile_slot(struct hostile *h, enum hostile_ring ring, uint32_t i)
{
    return (volatile struct hostile_slot *)(void *)(h->mem + ring_off(h, ring) + 192) +
           (i & (h->g.slots - 1));
}

uint8_t *hostile_arena(struct hostile *h, enum hostile_ring ring)
{
    return h->mem + 64 + 2 * (192 + 64 * (size_t)h->g.slots) +
           (ring == HOSTILE_S2C ? h->g.arena_c2s : 0);
}

void hostile_ring(struct hostile *h)
{
    const uint64_t one = 1;

    (void)!write(h->fds.to_server, &one, sizeof(one));
}

void hostile_send(struct hostile *h, const void *frame, uint32_t len)
{
    volatile struct hostile_slot *s = hostile_slot(h, HOSTILE_C2S, h->sent);

    if (len <= sizeof(s->small))
        memcpy((uint8_t *)(uintptr_t)s->small, frame, len);
    else
        memcpy(hostile_arena(h, HOSTILE_C2S), frame, len);
    s->frame_len = len;
    s->len = len <= sizeof(s->small) ? 0 : len;
    s->off = 0;
    __atomic_store_n(&s->turn, h->sent / h->g.slots + 1, __ATOMIC_SEQ_CST);
    h->sent++;
    hostile_ring(h);
}

bool hostile_was_closed(struct hostile *h, int timeout_ms)
{
    struct pollfd p = { .fd = h->sock, .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1 && (p.revents & (POLLHUP | POLLERR));
}

uint32_t hostile_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(x >> 32);
}
