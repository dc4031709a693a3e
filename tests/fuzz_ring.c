/* Fuzzes the daemon's side of the ring: a client that writes what it likes into the shared memory,
 * the doorbells and the frames, at any moment (tests/support/ring_foe.h), beside an honest one, and
 * a scheduler with a small model that serves them both. Whatever it does, the scheduler goes on,
 * lets go of all that it had when it is gone, and answers the honest one. With an odd first byte:
 * what a client says at first.
 *
 * Nothing here depends on time or on threads: the scheduler's thread and the fuzzer's take turns,
 * its clock runs by a microsecond a look, and the client acts where the scheduler looks for
 * something to do, or between two of its reads. Those places are found by wrapping functions of
 * ours at link time (see the Makefile). Run by tests/run-fuzz.
 */
#include "daemon/kept.h"
#include "daemon/sched.h"
#include "ipc/handshake.h"
#include "tests/support/fuzz_seeds.h"
#include "tests/support/ring_foe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MODEL "tests/data/tiny_smollm2.gguf"
#define TOKEN "0123456789abcdef"

/* Looks of the scheduler: an input's, at most, and until something must have come. */
#define LOOKS_MAX 1500u
#define PATIENCE  200000u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct chan_geometry geometry = { CHAN_SLOTS_MIN, CHAN_ARENA_MIN, CHAN_ARENA_MIN };

static void require(bool yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "not so: %s\n", what);
        abort();
    }
}

/* --- where the client acts ------------------------------------------------------------------ */

int __real_wire_req_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len,
                           struct wire_req *ret);
int __wrap_wire_req_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len,
                           struct wire_req *ret);
int __wrap_wire_req_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len,
                           struct wire_req *ret)
{
    ring_foe_now(FOE_UNPACK);
    return __real_wire_req_unpack(s, frame, len, ret);
}

/* --- the scheduler, and an honest client ------------------------------------------------------ */

enum stage { OPENING, IDLE, AT_WORK, LEAVING, ASKED };

static struct {
    struct mailbox to, from;
    struct config config;
    struct sched sched;
    struct chan *honest;
    struct wire_scratch scratch;
    enum stage stage;
    uint64_t looks, ticks, last_client, last_ping;
    bool told; /* the control thread's part: the client's socket has ended */
    bool gone; /* the scheduler's answer to that */
} world;

static bool is_scheduler; /* its turn: else the fuzzer's own */

bool __real_mailbox_pending(struct mailbox *m);
bool __wrap_mailbox_pending(struct mailbox *m);
int __real_epoll_wait(int epoll, struct epoll_event *ev, int n, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *ev, int n, int timeout);
int __real_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);

/* The scheduler's time passes by its looks at the clock. */
int __wrap_clock_gettime(clockid_t id, struct timespec *ret)
{
    uint64_t now;

    if (!is_scheduler || id != CLOCK_MONOTONIC)
        return __real_clock_gettime(id, ret);
    now = CLOCK_S + ++world.ticks * 1000 + (ring_foe_acting ? ring_foe_acting->late_ns : 0);
    *ret = (struct timespec){ (time_t)(now / CLOCK_S), (long)(now % CLOCK_S) };
    return 0;
}

static struct chan *adopt(void)
{
    struct mailbox_letter l = {
        .kind = MAILBOX_ADOPT, .client = ++world.last_client, .pid = getpid(), .uid = getuid()
    };

    require(chan_create(&geometry, &l.chan) == 0, "a channel");
    mailbox_put(&world.to, &l);
    return l.chan;
}

/* A packed request of the honest client, which is always answered. */
static void ask(enum wire_req_kind kind)
{
    struct wire_req m = { .id = ++world.last_ping, .kind = kind };
    uint8_t buf[256], *frame, *bulk;
    size_t len;

    if (kind == WIRE_HELLO)
        m.u.hello.client = "honest";
    require(wire_req_pack(&world.scratch, &m, buf, sizeof(buf), &len) == 0, "it packs");
    require(chan_reserve(world.honest, (uint32_t)len, 0, &frame, &bulk) == 0,
            "the honest client has room");
    memcpy(frame, buf, len);
    chan_commit(world.honest);
}

static bool answered(void)
{
    struct wire_rep rep;
    struct chan_msg msg;
    int e = chan_recv(world.honest, &msg);

    require(e == 0 || e == -EAGAIN, "the honest client's channel is whole");
    if (e < 0)
        return false;
    require(wire_rep_unpack(&world.scratch, msg.frame, msg.frame_len, &rep) == 0 &&
                rep.id == world.last_ping && rep.kind != WIRE_ERROR,
            "its request is answered");
    chan_release(world.honest);
    return true;
}

static bool is_gone(void)
{
    struct mailbox_letter l;

    while (mailbox_take(&world.from, &l))
        if (l.kind == MAILBOX_GONE && l.client == world.last_client)
            return true;
    return false;
}

/* As the control thread does when a socket ends. */
static void tell_dead(void)
{
    const struct mailbox_letter dead = { .kind = MAILBOX_DEAD, .client = world.last_client };

    if (!world.told)
        mailbox_put(&world.to, &dead);
    world.told = true;
}

/* The number that the next descriptor gets. */
static int next_fd(void)
{
    int fd = dup(0);

    require(fd >= 0, "a descriptor is free");
    close(fd);
    return fd;
}

/* Nothing of a peer that is gone is left. */
static void check_empty(void)
{
    const struct sched *s = &world.sched;

    require(s->n_clients == 1 && s->n_sessions == 0 && s->n_active == 0, "its sessions are closed");
    require(s->in_step == false && TAILQ_EMPTY(&s->active), "its requests have ended");
}

/* The scheduler has what it needs to come to an end with all that it was asked. */
static void run(void)
{
    is_scheduler = true;
    while (world.stage != IDLE)
        require(sched_turn(&world.sched), "it does not stop");
    is_scheduler = false;
}

/* What outlives a client, its documents, goes: inputs don't see each other. */
static void rest(void)
{
    documents_forget(&world.sched.documents, getuid());
    ring_foe_acting = NULL;
    world.stage = IDLE;
}

static void let_in_honest(void)
{
    struct mailbox_letter l = { .kind = MAILBOX_STOP };

    if (!mailbox_take(&world.from, &l))
        return;
    require(l.kind == MAILBOX_READY, "it is ready");
    world.honest = ring_foe_other_side(adopt(), &geometry);
    require(world.honest != NULL, "the honest client's channel");
    ask(WIRE_HELLO);
    world.stage = ASKED;
}

/* And what it has kept has had its time. */
static void leave(void)
{
    world.gone = world.gone || is_gone();
    if (!world.gone || world.sched.n_kept > 0)
        return;
    ask(WIRE_PING);
    world.stage = ASKED;
}

static void act(void)
{
    ring_foe_now(FOE_LOOK);
    if (ring_foe_acting->gone)
        tell_dead();
    if (!ring_foe_done(ring_foe_acting) && world.looks < LOOKS_MAX &&
        !__real_mailbox_pending(&world.from))
        return;
    tell_dead();
    world.stage = LEAVING;
}

/* What is kept is found again by a token that inputs can have. */
static void name_kept(void)
{
    struct client *c;

    if (world.sched.n_kept > 0)
        TAILQ_FOREACH (c, &world.sched.clients, link)
            if (c->kept)
                memcpy(c->kept->token, TOKEN, sizeof(c->kept->token));
}

/* One look of the scheduler: what the world does meanwhile. */
static void look(void)
{
    name_kept();
    require(++world.looks < PATIENCE, "the scheduler gets on with it");
    if (world.stage == OPENING)
        let_in_honest();
    else if (world.stage == AT_WORK)
        act();
    else if (world.stage == LEAVING)
        leave();
    else if (world.stage == ASKED && answered())
        rest();
}

bool __wrap_mailbox_pending(struct mailbox *m)
{
    if (is_scheduler)
        look();
    return __real_mailbox_pending(m);
}

/* It would sleep. Nothing else happens until somebody rings, so that time passes. */
int __wrap_epoll_wait(int epoll, struct epoll_event *ev, int n, int timeout)
{
    if (!is_scheduler)
        return __real_epoll_wait(epoll, ev, n, timeout);
    look();
    if (timeout > 0)
        world.ticks += (uint64_t)timeout * 1000;
    /* A thread may still compile a grammar: that rings. */
    return __real_epoll_wait(epoll, ev, n, world.stage == AT_WORK ? 0 : 1);
}

static void configure(struct config *c)
{
    struct why why;

    config_defaults(c);
    require(config_set(c, "model", MODEL, "fuzz_ring", &why) == 0 &&
                config_set(c, "store", "none", "fuzz_ring", &why) == 0,
            "options");
    c->kv_bytes = 4 << 20;
    c->threads = 1;
    c->spin_us = 0;
    c->max_text = 256 << 10;
    c->client_text_bytes = 1 << 20;
    c->detach_seconds = 2;
    c->detach_bytes = 72 << 10;
}

/* Until it has answered the honest client's Hello. */
static void open_world(void)
{
    configure(&world.config);
    require(mailbox_open(&world.to, 8) == 0 && mailbox_open(&world.from, 8) == 0 &&
                wire_scratch_open(&world.scratch, WIRE_SCRATCH_BYTES) == 0,
            "it opens");
    world.sched.config = &world.config;
    world.sched.inbox = &world.to;
    world.sched.outbox = &world.from;
    require(sched_open(&world.sched), "the model is loaded");
    run();
}

static void fuzz(const uint8_t *data, size_t len)
{
    static struct ring_foe f;
    int fd;

    if (!world.honest)
        open_world();
    fd = next_fd();
    ring_foe_open(&f, adopt(), &geometry, data, len);
    ring_foe_acting = &f;
    world.sched.last_session = 0; /* its sessions have the same numbers each time */
    world.looks = 0;
    world.told = world.gone = false;
    world.stage = AT_WORK;
    run();
    ring_foe_close(&f);
    check_empty();
    require(next_fd() == fd, "its descriptors are closed");
}

/* --- what it says at first ------------------------------------------------------------------ */

static void shake(const uint8_t *data, size_t len)
{
    struct handshake_wish wish;
    struct chan *c;
    int pair[2];

    require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "a socket");
    (void)!send(pair[1], data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (handshake_read_hello(pair[0], &geometry, &wish) == 0) {
        require(chan_create(&wish.g, &c) == 0, "what was bounded can be had");
        require(handshake_accept(pair[0], &wish.g, c) == 0, "it is answered");
        chan_close(c);
    }
    close(pair[0]);
    close(pair[1]);
}

/* --- seeds ------------------------------------------------------------------------------------ */

static struct foe_script script;
static struct wire_scratch seeds;
static uint64_t seed_id;

static void begin_seed(void)
{
    script.len = 0;
    script.bytes[script.len++] = 0;
    seed_id = 0;
}

#define OP(op, m, bytes) foe_script_op(&script, op, m, bytes, sizeof(bytes) - 1)

static void add_req(struct wire_req m, const char *bulk, uint16_t bulk_len)
{
    static uint8_t frame[CHAN_FRAME_MAX];
    size_t len;

    m.id = ++seed_id;
    m.bulk_len = bulk_len;
    require(wire_req_pack(&seeds, &m, frame, sizeof(frame), &len) == 0, "a seed");
    foe_script_frame(&script, frame, len, bulk, bulk_len);
}

static void end_seed(const char *dir, const char *name)
{
    fuzz_seeds_put(dir, name, script.bytes, script.len);
}

static void begin_session(void)
{
    begin_seed();
    add_req((struct wire_req){ .kind = WIRE_HELLO, .u.hello.client = "foe" }, "", 0);
    add_req((struct wire_req){ .kind = WIRE_OPEN_SESSION, .u.open_session.label = "" }, "", 0);
}

static void put_answer_seeds(const char *dir)
{
    struct wire_req append = { .kind = WIRE_APPEND, .u.append.session = 1 };
    struct wire_req say_it = { .kind = WIRE_GENERATE, .u.generate.session = 1 };

    say_it.u.generate.max_tokens = 20;
    say_it.u.generate.ignore_eog = true;
    begin_session();
    add_req(append, "a b", 40);
    OP(FOE_LOOKS, FOE_LOOK, "\x20");
    add_req(say_it, "", 0);
    OP(FOE_LOOKS, FOE_LOOK, "\x80");
    OP(FOE_READ, FOE_LOOK, "\x20");
    OP(FOE_LOOKS, FOE_LOOK, "\xf0");
    OP(FOE_READ, FOE_LOOK, "\x20");
    end_seed(dir, "answer");

    begin_session(); /* dies in the middle of a long prompt, which it rewrites meanwhile */
    add_req(append, "word ", 3000);
    OP(FOE_ARENA, FOE_UNPACK,
       "\x00\x10\x00\x00\x00\x04"
       "abcd");
    OP(FOE_LOOKS, FOE_LOOK, "\x08");
    OP(FOE_GONE, FOE_LOOK, "");
    end_seed(dir, "gone");

    begin_session(); /* cancels; more answers than it reads */
    add_req(append, "x", 30);
    OP(FOE_LOOKS, FOE_LOOK, "\x20");
    say_it.u.generate.n = 3;
    say_it.u.generate.max_tokens = 0;
    add_req(say_it, "", 0);
    OP(FOE_LOOKS, FOE_LOOK, "\xff");
    add_req((struct wire_req){ .kind = WIRE_CANCEL, .u.cancel.request = 4 }, "", 0);
    OP(FOE_WORD, FOE_ROOM, "\x80\x00\x01\x00\x00\x00");
    OP(FOE_READ, FOE_LOOK, "\xff");
    end_seed(dir, "several");
}

static void put_text_seeds(const char *dir)
{
    static const uint64_t lens[] = { 3, 7 };
    struct wire_req m = { .kind = WIRE_SCORE };

    begin_session();
    add_req(m, "score this ", 60);
    m = (struct wire_req){ .kind = WIRE_TOKENIZE };
    add_req(m, "tokens ", 100);
    m = (struct wire_req){ .kind = WIRE_DETOKENIZE };
    add_req(m, "\1\1\1\1", 40);
    m = (struct wire_req){ .kind = WIRE_EMBED };
    m.u.embed.lens = lens;
    m.u.embed.n = 2;
    add_req(m, "ten bytes ", 10);
    m = (struct wire_req){ .kind = WIRE_SCORE_CHOICES };
    m.u.score_choices.session = 1;
    m.u.score_choices.lens = lens;
    m.u.score_choices.n = 2;
    add_req(m, "ten bytes ", 10);
    OP(FOE_LOOKS, FOE_LOOK, "\xff");
    OP(FOE_READ, FOE_LOOK, "\xff");
    end_seed(dir, "texts");

    begin_session();
    m = (struct wire_req){ .kind = WIRE_FORK, .u.fork = { 1, "fork" } };
    add_req(m, "", 0);
    add_req((struct wire_req){ .kind = WIRE_REWIND, .u.rewind = { 1, 0 } }, "", 0);
    m = (struct wire_req){ .kind = WIRE_ADD_DOCUMENT };
    m.u.add_document.name = "book";
    m.u.add_document.role = "system";
    add_req(m, "a book ", 90);
    add_req((struct wire_req){ .kind = WIRE_LIST, .u.list.kind = WIRE_NAMED_DOCUMENT }, "", 0);
    add_req((struct wire_req){ .kind = WIRE_WATCH, .u.watch.interval_ms = 100 }, "", 0);
    OP(FOE_TIME, FOE_LOOK, "\x00\x01");
    add_req((struct wire_req){ .kind = WIRE_GET_STATS }, "", 0);
    add_req((struct wire_req){ .kind = WIRE_TRACE }, "", 0);
    add_req((struct wire_req){ .kind = WIRE_SEGMENTS, .u.segments.session = 1 }, "", 0);
    add_req((struct wire_req){ .kind = WIRE_CLOSE_SESSION, .u.close_session.session = 2 }, "", 0);
    OP(FOE_LOOKS, FOE_LOOK, "\x40");
    OP(FOE_READ, FOE_LOOK, "\xff");
    end_seed(dir, "others");
}

/* A session that is kept, and an answer of it again and again. */
static void put_kept_seeds(const char *dir)
{
    struct wire_req append = { .kind = WIRE_APPEND }, say_it = { .kind = WIRE_GENERATE };
    struct wire_req attach = { .kind = WIRE_ATTACH };

    say_it.u.generate.session = 1;
    say_it.u.generate.max_tokens = 6;
    attach.u.attach.token = (const uint8_t *)TOKEN;
    attach.u.attach.n = 16;
    begin_session();
    append.u.append.session = 1;
    add_req(append, "a b", 40);
    add_req((struct wire_req){ .kind = WIRE_KEEP, .u.keep = { 1, 1 } }, "", 0);
    OP(FOE_LOOKS, FOE_LOOK, "\x10");
    add_req(say_it, "", 0);
    OP(FOE_LOOKS, FOE_LOOK, "\x10");
    add_req((struct wire_req){ .kind = WIRE_RESUME, .u.resume = { 1, true, 2 } }, "", 0);
    add_req((struct wire_req){ .kind = WIRE_KEEP, .u.keep = { 1, 0 } }, "", 0);
    add_req(attach, "", 0);
    OP(FOE_LOOKS, FOE_LOOK, "\xff");
    OP(FOE_READ, FOE_LOOK, "\xff");
    add_req((struct wire_req){ .kind = WIRE_RESUME, .u.resume = { 1, true, 0 } }, "", 0);
    OP(FOE_READ, FOE_LOOK, "\xff");
    end_seed(dir, "kept");
}

/* Bytes that no client of ours would write. */
static void put_lie_seeds(const char *dir)
{
    begin_session();
    OP(FOE_WORD, FOE_LOOK, "\x84\x00\xff\xff\xff\xff");
    add_req((struct wire_req){ .kind = WIRE_PING }, "", 0);
    OP(FOE_WORD, FOE_PEEKED, "\x05\x02\xff\xff\xff\x7f");
    OP(FOE_BELL, FOE_LOOK, "\x01");
    OP(FOE_BELL, FOE_LOOK, "\x02");
    OP(FOE_BELL, FOE_LOOK, "\x04");
    OP(FOE_FILE, FOE_LOOK, "\x00");
    OP(FOE_FILE, FOE_PEEKED, "\x02");
    end_seed(dir, "lies");

    begin_session();
    OP(FOE_SLOT, FOE_LOOK, "\x31\x00\x00\x01\x00\x00\xc0\xff\x03\x00\x00");
    OP(FOE_SLOT, FOE_LOOK, "\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01");
    end_seed(dir, "slots");
    begin_session();
    OP(FOE_WORD, FOE_ROOM, "\x80\x00\x00\x00\x00\x80");
    add_req((struct wire_req){ .kind = WIRE_PING }, "", 0);
    end_seed(dir, "head");
}

static void put_handshake_seed(const char *dir)
{
    struct handshake_hello hello = { .magic = HANDSHAKE_MAGIC, .version = HANDSHAKE_VERSION };
    uint8_t bytes[1 + sizeof(hello)] = { 1 };

    memcpy(bytes + 1, &hello, sizeof(hello));
    fuzz_seeds_put(dir, "hello", bytes, sizeof(bytes));
}

/* ---------------------------------------------------------------------------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    if (!dir)
        return 0;
    require(wire_scratch_open(&seeds, WIRE_SCRATCH_BYTES) == 0, "memory");
    put_answer_seeds(dir);
    put_text_seeds(dir);
    put_kept_seeds(dir);
    put_lie_seeds(dir);
    put_handshake_seed(dir);
    wire_scratch_close(&seeds);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    if (data[0] & 1)
        shake(data + 1, len - 1);
    else
        fuzz(data + 1, len - 1);
    return 0;
}
