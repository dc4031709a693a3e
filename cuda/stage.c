/* cuda/stage.c - pinned slots and marks in a stream. A chunk is one copy of up to a slot, or one of
 * any length from memory that is pinned itself; its event says that it is over, and chunks end in
 * their order.
 */
#include "cuda/stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Its slot is the one of its number. */
struct chunk {
    struct rt_event *done;
    void *host; /* where a get's bytes go; NULL: a put */
    size_t n;
    uint64_t ticket; /* of the copy that it is part of */
    bool direct;     /* its slot has nothing in it */
};

struct stage {
    struct rt *rt;
    enum rt_stream stream;
    uint8_t *slots; /* pinned: (STAGE_SLOTS, STAGE_SLOT_BYTES) */
    struct chunk chunks[STAGE_SLOTS];
    struct rt_event *computed, *copied;
    uint64_t asked, made;        /* chunks, see G1 */
    uint64_t n_tickets, arrived; /* given, done: all of them up to this */
    bool is_told;                /* tickets are the caller's */
    bool joined;                 /* what computes follows all copies */
    bool own_bell;
    int bell;
    int error; /* the first; all ends with it */
};

int stage_open(struct rt *rt, enum rt_stream stream, int bell, struct stage **ret)
{
    struct stage *s = calloc(1, sizeof(*s));
    void *slots;
    int r;

    if (!s)
        return -ENOMEM;
    /* A copy of no bytes has the ticket of the one before it. Tickets begin at 2: 1 is that of a
     * copy of no bytes before any other, and is done. */
    *s = (struct stage){
        .rt = rt, .stream = stream, .joined = true, .bell = bell, .n_tickets = 1, .arrived = 1
    };
    r = rt_alloc_host(rt, STAGE_SLOTS * STAGE_SLOT_BYTES, &slots);
    if (r == 0) {
        s->slots = slots;
        r = rt_event_open(rt, &s->computed);
    }
    if (r == 0)
        r = rt_event_open(rt, &s->copied);
    for (unsigned i = 0; i < STAGE_SLOTS && r == 0; i++)
        r = rt_event_open(rt, &s->chunks[i].done);
    if (r == 0 && bell < 0) {
        s->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        s->own_bell = s->bell >= 0;
        r = s->bell < 0 ? -errno : 0;
    }
    if (r < 0) {
        stage_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

/* The runtime may still be about to ring: it must not find the descriptor closed, or another's. So
 * the stream is waited for before the bell may go. A stream of a lost device answers at once. */
void stage_close(struct stage *s)
{
    if (!s)
        return;
    (void)rt_wait(s->rt, s->stream);
    for (unsigned i = 0; i < STAGE_SLOTS; i++)
        rt_event_close(s->rt, s->chunks[i].done);
    rt_event_close(s->rt, s->copied);
    rt_event_close(s->rt, s->computed);
    rt_free_host(s->rt, s->slots);
    if (s->own_bell)
        (void)close(s->bell);
    free(s);
}

/* --- chunks ----------------------------------------------------------------------------------- */

static void *slot_of(const struct stage *s, uint64_t chunk)
{
    return s->slots + chunk % STAGE_SLOTS * STAGE_SLOT_BYTES;
}

/* The oldest chunk is over: what it brought goes to its place. */
static void finish_oldest(struct stage *s)
{
    /* Its event is over: the device reads and writes the slot no more. */
    const struct chunk *c = &s->chunks[s->made % STAGE_SLOTS];
    bool last;

    if (c->host)
        memcpy(c->host, slot_of(s, s->made), c->n);
    s->made++;
    /* A ticket is done with its last chunk: the next chunk is another's, or there is none. A ticket
     * that is the caller's may get one more. */
    last = s->made == s->asked ? !s->is_told : s->chunks[s->made % STAGE_SLOTS].ticket != c->ticket;
    if (last)
        s->arrived = c->ticket;
}

/* A failing device finishes nothing: who waits is not left waiting. */
static int fail(struct stage *s, int e)
{
    if (!s->error)
        s->error = e;
    return e;
}

/* Does not wait. s->error: nothing behind it will be over. */
static int finish_ready(struct stage *s)
{
    while (!s->error && s->made < s->asked) {
        int r = rt_event_done(s->rt, s->chunks[s->made % STAGE_SLOTS].done);

        if (r == -EAGAIN)
            break;
        if (r < 0)
            return fail(s, r);
        finish_oldest(s);
    }
    return s->error;
}

/* Waits until at most n chunks are under way. */
static int drain(struct stage *s, uint64_t n)
{
    while (!s->error && s->asked - s->made > n) {
        int r = rt_event_wait(s->rt, s->chunks[s->made % STAGE_SLOTS].done);

        if (r < 0)
            return fail(s, r);
        finish_oldest(s);
    }
    return s->error;
}

/* --- copies ----------------------------------------------------------------------------------- */

/* Whatever kernels have written is there when it is copied, and what they still read is not written
 * over. */
static int begin(struct stage *s)
{
    int r = s->error;

    if (r == 0)
        r = rt_record(s->rt, RT_COMPUTE, s->computed);
    if (r == 0)
        r = rt_follow(s->rt, s->stream, s->computed);
    s->joined = false;
    return r;
}

/* Called by a thread of the runtime's, which may call neither CUDA nor anything with a lock of
 * ours. */
static void ring(void *arg)
{
    const struct stage *s = arg;
    static const uint64_t one = 1; /* nothing of a stack that others have, too */
    ssize_t n = write(s->bell, &one, sizeof(one));

    (void)n; /* it is full of rings, and so is heard */
}

/* One chunk's slot and its place in the order. The oldest chunk is waited for where all slots are
 * out: so a long copy runs at the device's pace and memory stays bounded. */
static int take_slot(struct stage *s, void *host, size_t n, struct chunk **ret, void **ret_slot)
{
    int r = drain(s, STAGE_SLOTS - 1);

    if (r < 0)
        return r;
    *ret = &s->chunks[s->asked % STAGE_SLOTS];
    **ret = (struct chunk){ (*ret)->done, host, n, s->n_tickets, false };
    *ret_slot = slot_of(s, s->asked);
    return 0;
}

static int put_chunk(struct stage *s, void *to, const void *host, size_t n)
{
    struct chunk *c;
    void *slot;
    int r = take_slot(s, NULL, n, &c, &slot);

    if (r < 0)
        return r;
    /* Here the caller's memory is read, and may be changed when stage_put returns (G2). */
    memcpy(slot, host, n);
    r = rt_put(s->rt, s->stream, to, slot, n);
    return r == 0 ? rt_record(s->rt, s->stream, c->done) : r;
}

/* The bytes reach `host` when the chunk is finished, not here. */
static int get_chunk(struct stage *s, void *host, const void *from, size_t n)
{
    struct chunk *c;
    void *slot;
    int r = take_slot(s, host, n, &c, &slot);

    if (r == 0)
        r = rt_get(s->rt, s->stream, slot, from, n);
    return r == 0 ? rt_record(s->rt, s->stream, c->done) : r;
}

/* Many such copies may be queued at once, and none waits for a mark: where all are out the last one
 * moves behind the new copy. What it stood behind is known to be done a little later then. Its
 * slot's memory is not used; it has the slot's mark. */
static int copy_direct(struct stage *s, void *to, const void *from, size_t n, bool put)
{
    struct chunk *c = &s->chunks[(s->asked - 1) % STAGE_SLOTS];
    int r = s->asked - s->made == STAGE_SLOTS ? finish_ready(s) : s->error;
    void *slot;

    if (r == 0)
        r = put ? rt_put(s->rt, s->stream, to, from, n) : rt_get(s->rt, s->stream, to, from, n);
    if (r < 0)
        return r;
    if (s->asked - s->made == STAGE_SLOTS && c->direct) {
        c->ticket = s->n_tickets;
        return rt_record(s->rt, s->stream, c->done);
    }
    r = take_slot(s, NULL, n, &c, &slot);
    if (r < 0)
        return r;
    c->direct = true;
    r = rt_record(s->rt, s->stream, c->done);
    /* Only now is the chunk among those that are under way. */
    s->asked += r == 0;
    return r;
}

/* One of the two is the host's. */
static int copy_chunks(struct stage *s, void *to, const void *from, size_t n, bool put)
{
    int r = 0;

    for (size_t at = 0, k; at < n && r == 0; at += k) {
        k = n - at < STAGE_SLOT_BYTES ? n - at : STAGE_SLOT_BYTES;
        r = put ? put_chunk(s, (uint8_t *)to + at, (const uint8_t *)from + at, k)
                : get_chunk(s, (uint8_t *)to + at, (const uint8_t *)from + at, k);
        if (r == 0)
            s->asked++;
    }
    return r;
}

static int copy(struct stage *s, void *to, const void *from, size_t n, bool put,
                uint64_t *ret_ticket)
{
    int r = begin(s);

    /* Before the copy, as its chunks have it. */
    s->n_tickets += n > 0 && !s->is_told;
    if (r == 0 && n > 0 && ret_ticket && rt_is_pinned(s->rt, put ? from : to, n))
        r = copy_direct(s, to, from, n, put);
    else if (r == 0)
        r = copy_chunks(s, to, from, n, put);
    /* Behind the copy in the stream: who hears the bell finds it done. */
    if (r == 0 && ret_ticket)
        r = rt_call(s->rt, s->stream, ring, s);
    /* A get without a ticket: what is asked for now. */
    if (r == 0 && !put && !ret_ticket)
        r = drain(s, 0);
    /* The stream may have half of it: nothing of this stage is trusted any more. */
    if (r < 0)
        return fail(s, r);
    if (ret_ticket)
        *ret_ticket = s->n_tickets;
    return 0;
}

int stage_put(struct stage *s, void *to, const void *host, size_t n, uint64_t *ret_ticket)
{
    return copy(s, to, host, n, true, ret_ticket);
}

int stage_get(struct stage *s, void *host, const void *from, size_t n, uint64_t *ret_ticket)
{
    return copy(s, host, from, n, false, ret_ticket);
}

/* The caller counts for several stages; this one may have no copy of some tickets. */
void stage_ticket(struct stage *s, uint64_t ticket)
{
    s->is_told = true;
    s->n_tickets = ticket;
}

/* No copy of it is under way, be it that this stage has none. */
static bool is_behind(const struct stage *s, uint64_t ticket)
{
    return s->made == s->asked || s->chunks[s->made % STAGE_SLOTS].ticket > ticket;
}

int stage_done(struct stage *s, uint64_t ticket)
{
    /* All that was asked is over, and so is what this stage has no copy of. */
    if (ticket > s->arrived && finish_ready(s) == 0 && s->made == s->asked)
        s->arrived = s->n_tickets;
    if (ticket <= s->arrived)
        return 1;
    return s->error ? s->error : is_behind(s, ticket);
}

int stage_eventfd(const struct stage *s)
{
    return s->bell;
}

int stage_join(struct stage *s)
{
    int r = s->error;

    /* Nothing was copied since the last time. */
    if (r < 0 || s->joined)
        return r;
    r = rt_record(s->rt, s->stream, s->copied);
    if (r == 0)
        r = rt_follow(s->rt, RT_COMPUTE, s->copied);
    s->joined = r == 0;
    return r < 0 ? fail(s, r) : 0;
}
