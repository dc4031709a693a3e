/* A second thread, so that a handshake, a signal or a sign of life never waits for a step of the
 * model, and so that no system call of theirs is made on the thread that makes tokens. It knows of
 * a client only its socket and its number. All that can go wrong with a peer before it is a client
 * ends here; behind ADOPT it is the scheduler's.
 */
#include "daemon/control.h"

#include "base/clock.h"
#include "daemon/cgroup.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/owner.h"
#include "daemon/sched.h"
#include "ipc/handshake.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Peers that have connected and not said hello: so many, for so long. They are counted apart from
 * the clients: silent ones can't take the places of those who speak. A client of ours says hello
 * with its connect(), so that even a machine that swaps needs no more than a second or two. */
#define SHAKING_MAX 32u
#define SHAKING_NS  (5 * CLOCK_S)

/* Several times the requests that a client may have open: a ring is full only when its reader has
 * stopped. 64 bytes each, so that more would cost cache and gain nothing. */
#define CHANNEL_SLOTS 256u

/* Until accept() is tried again that failed for a reason which no event tells the end of. */
#define RESUME_NS (CLOCK_S / 2)

/* How often the loader's number is looked at for those who wait: it moves smoothly for the eye, and
 * a client that reads nothing has at most a hundred short packets in its socket. */
#define TELL_NS (100 * CLOCK_MS)

/* What an epoll event is about: a slot's index, or one of these. Not a pointer: an event that was
 * fetched before its slot was closed is then told by the slot's state. */
enum {
    ABOUT_LISTENER = -1,
    ABOUT_SIGNALS = -2,
    ABOUT_LETTERS = -3,
    ABOUT_SCRAPE = -4,
    ABOUT_PRESSURE = -5
};

enum slot_state { SLOT_FREE, SLOT_SHAKING, SLOT_WAITING, SLOT_OPEN, SLOT_DYING };

struct control_slot {
    enum slot_state state;
    int sock;
    pid_t pid;
    uid_t uid;
    uint64_t id;
    uint64_t deadline_ns;       /* SHAKING */
    uint64_t came_ns;           /* of cgroup_clock_ns */
    struct handshake_wish wish; /* WAITING */
    char *unit;                 /* the same, or NULL */
};

/* Level-triggered: what is left unread is told again. */
static int watch(struct control *c, int fd, int64_t about, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.u64 = (uint64_t)about };

    return epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static void unwatch(struct control *c, int fd)
{
    (void)epoll_ctl(c->epoll, EPOLL_CTL_DEL, fd, NULL);
}

/* --- slots ------------------------------------------------------------------------------------ */

static bool is_client(const struct control_slot *s)
{
    return s->state == SLOT_WAITING || s->state == SLOT_OPEN || s->state == SLOT_DYING;
}

/* The one way out of every state but FREE, so that the counts follow the states. */
static void close_slot(struct control *c, struct control_slot *s)
{
    c->n_shaking -= s->state == SLOT_SHAKING;
    c->n_waiting -= s->state == SLOT_WAITING;
    c->n_clients -= is_client(s);
    (void)close(s->sock);
    free(s->unit);
    *s = (struct control_slot){ .state = SLOT_FREE, .sock = -1 };
}

/* By the id and not by an index: a letter may be about a client whose slot another one has by now.
 */
static struct control_slot *find_slot(struct control *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->n_slots; i++)
        if (c->slots[i].state != SLOT_FREE && c->slots[i].id == id)
            return &c->slots[i];
    return NULL;
}

/* A free one; when too many peers are silent, that of the most silent. To refuse the new one would
 * let 32 processes that connect and say nothing keep everybody out. */
static struct control_slot *new_slot(struct control *c)
{
    struct control_slot *oldest = NULL, *unused = NULL;

    for (uint32_t i = 0; i < c->n_slots; i++) {
        struct control_slot *s = &c->slots[i];

        if (s->state == SLOT_FREE && !unused)
            unused = s;
        if (s->state == SLOT_SHAKING && (!oldest || s->deadline_ns < oldest->deadline_ns))
            oldest = s;
    }
    if (c->n_shaking < SHAKING_MAX && unused)
        return unused;
    if (oldest) {
        (void)handshake_refuse(oldest->sock, HANDSHAKE_FULL, "too many connections at once");
        close_slot(c, oldest);
    }
    return oldest;
}

/* --- connections ------------------------------------------------------------------------------ */

/* Who is refused hears why, and nobody is hung up on without a word: a client that retries, or its
 * user, has to know what would help. */
static void refuse(int sock, const char *text)
{
    struct journal_about about = { .message = JOURNAL_REFUSED };

    (void)handshake_peer(sock, &about.pid, &about.uid);
    (void)handshake_refuse(sock, HANDSHAKE_FULL, text);
    log_peer_about(LOG_LEVEL_WARNING, &about, "a client was refused: %s", text);
}

/* Why there is no channel or no connection. Descriptors are the likely reason, since a client takes
 * five, and the one that an administrator can do something about. */
static void describe_shortage(int err, char *ret, size_t cap)
{
    struct rlimit l = { 0, 0 };

    (void)getrlimit(RLIMIT_NOFILE, &l);
    if (err == -EMFILE || err == -ETOOMANYREFS)
        (void)snprintf(ret, cap,
                       "all of the daemon's %llu file descriptors are in use, and a client takes "
                       "five: disconnect one, or raise the limit (LimitNOFILE= of its unit)",
                       (unsigned long long)l.rlim_cur);
    else if (err == -ENFILE)
        (void)snprintf(ret, cap, "this machine has no file descriptors left (fs.file-max)");
    else
        (void)snprintf(ret, cap, "no channel could be made: %s", strerror(-err));
}

/* A listener that stays readable would keep us awake for nothing: no event says that memory is
 * there again, so it is left alone for a while. */
static void pause_accepting(struct control *c, int err)
{
    log_peer_warning("no new clients for a moment: accept: %s", strerror(err));
    unwatch(c, c->listener->fd);
    c->paused = true;
    c->resume_ns = clock_ns() + RESUME_NS;
}

/* Without an address: a Unix peer has none that says anything. Who it is the kernel says
 * (handshake_peer). */
static int take_connection(const struct control *c)
{
    return accept4(c->listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static void open_reserve(struct control *c)
{
    if (c->reserve < 0)
        c->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Who waits at the listener while there are no descriptors would wait for ever. The reserve makes
 * room for a connection, which is told so and closed, and is then opened anew. */
static void accept_by_reserve(struct control *c, int err)
{
    char text[160];
    int sock = -1;

    if (c->reserve >= 0) {
        (void)close(c->reserve);
        c->reserve = -1;
        sock = take_connection(c);
    }
    if (sock >= 0) {
        describe_shortage(-err, text, sizeof(text));
        refuse(sock, text);
        (void)close(sock);
    }
    open_reserve(c);
    if (c->reserve < 0)
        pause_accepting(c, err);
}

static void accept_one(struct control *c)
{
    int sock = take_connection(c), r;
    struct control_slot *s;
    char text[160];

    if (sock < 0) {
        if (errno == EMFILE || errno == ENFILE)
            accept_by_reserve(c, errno);
        else if (errno == ENOMEM || errno == ENOBUFS)
            pause_accepting(c, errno);
        return;
    }
    s = new_slot(c);
    assert(s); /* there are SHAKING_MAX slots more than clients, or somebody shakes hands */
    r = watch(c, sock, s - c->slots, EPOLLIN | EPOLLRDHUP);
    if (r < 0) {
        describe_shortage(r, text, sizeof(text));
        refuse(sock, text);
        (void)close(sock);
        return;
    }
    *s = (struct control_slot){ .state = SLOT_SHAKING,
                                .sock = sock,
                                .id = ++c->last_id,
                                .came_ns = cgroup_clock_ns(),
                                .deadline_ns = clock_ns() + SHAKING_NS };
    c->n_shaking++;
}

/* What a client asks for is bounded here, since the memory is charged to nobody: a client that
 * wants more than max-arena-bytes gets that much and is told so in the answer. */
static int make_channel(struct control *c, struct control_slot *s, struct chan_geometry *g,
                        struct chan **ret)
{
    uint32_t most = (uint32_t)c->config->max_arena_bytes;
    int r;

    g->arena_c2s = g->arena_c2s < most ? g->arena_c2s : most;
    g->arena_s2c = g->arena_s2c < most ? g->arena_s2c : most;
    r = chan_create(g, ret);
    if (r < 0)
        return r;
    /* The descriptors are copied by the kernel: ours may be closed as soon as it is sent. */
    r = handshake_accept(s->sock, g, *ret);
    if (r < 0)
        chan_close(*ret);
    return r;
}

/* The channel is the client's before the scheduler has heard of it: it may send at once, and its
 * frames wait in the ring until the letter is read. */
static void admit(struct control *c, struct control_slot *s)
{
    struct mailbox_letter l = {
        .kind = MAILBOX_ADOPT, .client = s->id, .pid = s->pid, .uid = s->uid
    };
    char text[160];
    int r = make_channel(c, s, &s->wish.g, &l.chan);

    if (r < 0) {
        describe_shortage(r, text, sizeof(text));
        if (r != -EPIPE) /* it left: nobody to be told */
            refuse(s->sock, text);
        close_slot(c, s);
        return;
    }
    s->state = SLOT_OPEN;
    c->n_waiting--;
    l.unit = s->unit; /* the scheduler's from here on */
    s->unit = NULL;
    mailbox_put(c->to_sched, &l);
}

/* One user's programs must leave places to others'. Why there is none goes into ret. */
static bool has_place(const struct control *c, struct control_slot *s, char *ret, size_t cap)
{
    uint32_t most = owner_limits(c->config, c->listener->shared, 0, 0).clients, n = 0;
    int r = handshake_peer(s->sock, &s->pid, &s->uid);

    for (uint32_t i = 0; i < c->n_slots; i++)
        n += is_client(&c->slots[i]) && c->slots[i].uid == s->uid;
    if (r < 0)
        (void)snprintf(ret, cap, "nobody can tell who you are: %s", strerror(-r));
    else if (c->n_clients >= c->config->max_clients)
        (void)snprintf(ret, cap, "%u clients are connected, which is the limit (--max-clients)",
                       c->n_clients);
    else if (n >= most)
        (void)snprintf(ret, cap,
                       "user %u has %u clients connected, the most that one user may have "
                       "(--owner-clients)",
                       (unsigned)s->uid, n);
    return r == 0 && c->n_clients < c->config->max_clients && n < most;
}

/* Here and not where shares are made: /proc may take its time. Who can't be told apart from others
 * of its user is a client all the same. */
static char *find_unit(struct control *c, const struct control_slot *s)
{
    struct cgroup_unit unit;
    int r;

    if (!c->config->unit_shares)
        return NULL;
    r = cgroup_of_peer("", s->sock, s->pid, s->came_ns, &unit);
    if (r < 0 && r != -ESRCH && !c->unseen) {
        c->unseen = true;
        log_info("which unit a client is of can't be read (/proc/%d/cgroup: %s): such clients of a "
                 "user share as one unit (--unit-shares)",
                 (int)s->pid, strerror(-r));
    }
    return r == 0 && unit.name[0] ? strdup(unit.name) : NULL;
}

/* With a model or without: it is a client from here on, whose place nobody else takes. Not yet at
 * accept(): a hello of another version should hear of that and not of a limit. */
static void let_in(struct control *c, struct control_slot *s)
{
    char text[160];

    if (!has_place(c, s, text, sizeof(text))) {
        refuse(s->sock, text);
        close_slot(c, s);
        return;
    }
    s->unit = find_unit(c, s);
    s->state = SLOT_WAITING;
    c->n_shaking--;
    c->n_waiting++;
    c->n_clients++;
    if (c->serving)
        admit(c, s);
    else if (s->wish.progress)
        handshake_tell_loading(s->sock, c->told);
}

/* One packet, whole or not there, as SEQPACKET has it: a handshake has no state but the slot's. */
static void on_shaking(struct control *c, struct control_slot *s)
{
    uint32_t arena = (uint32_t)c->config->arena_bytes;
    struct chan_geometry defaults = { CHANNEL_SLOTS, arena, arena };
    int r = handshake_read_hello(s->sock, &defaults, &s->wish);

    if (r == -EAGAIN)
        return;
    if (r < 0) {
        /* It was answered by handshake_read_hello, and the rest just left. */
        if (r == -EPROTO || r == -EPROTONOSUPPORT)
            log_peer_warning("a peer was refused: %s", r == -EPROTO ? "its hello is not gistd's"
                                                                    : "it speaks another version");
        close_slot(c, s);
    } else if (c->stopping) {
        (void)handshake_refuse(s->sock, HANDSHAKE_STOPPING, "the daemon is shutting down");
        close_slot(c, s);
    } else {
        let_in(c, s);
    }
}

/* Nothing is ever sent on the socket: its end is the client's, and so is anything else. The socket
 * stays open until the scheduler has let go of the client, so that who sees it closed knows that
 * all is freed. Out of the set, or its hang-up would be told again and again until then. */
static void on_open(struct control *c, struct control_slot *s)
{
    struct mailbox_letter l = { .kind = MAILBOX_DEAD, .client = s->id };
    char byte;

    if (recv(s->sock, &byte, 1, MSG_DONTWAIT) > 0)
        log_peer_warning("client %" PRIu64 " is closed: it sent something after its hello", s->id);
    unwatch(c, s->sock);
    s->state = SLOT_DYING;
    mailbox_put(c->to_sched, &l);
}

/* It has said its hello, so that all that can come is its end: nobody waits there any more. */
static void on_waiting(struct control *c, struct control_slot *s)
{
    close_slot(c, s);
}

/* Those who wait have no channel yet, and hear of the end by the same socket. */
static void refuse_waiting(struct control *c, const char *text)
{
    for (uint32_t i = 0; i < c->n_slots && c->n_waiting > 0; i++) {
        struct control_slot *s = &c->slots[i];

        if (s->state != SLOT_WAITING)
            continue;
        (void)handshake_refuse(s->sock, HANDSHAKE_STOPPING, text);
        close_slot(c, s);
    }
}

/* Of `loaded` the number alone matters, so the load is relaxed: nothing is read behind it. */
static void tell_waiting(struct control *c, uint64_t now)
{
    unsigned percent = atomic_load_explicit(&c->sched->loaded, memory_order_relaxed);

    c->tell_ns = now + TELL_NS;
    if (percent == c->told)
        return;
    c->told = percent;
    for (uint32_t i = 0; i < c->n_slots; i++)
        if (c->slots[i].state == SLOT_WAITING && c->slots[i].wish.progress)
            handshake_tell_loading(c->slots[i].sock, percent);
}

/* The deadline is the slot's own, and they are few: no heap of timers for 32 of them. */
static void close_late(struct control *c, uint64_t now)
{
    for (uint32_t i = 0; i < c->n_slots && c->n_shaking > 0; i++) {
        struct control_slot *s = &c->slots[i];

        if (s->state != SLOT_SHAKING || s->deadline_ns > now)
            continue;
        (void)handshake_refuse(s->sock, HANDSHAKE_BAD_REQUEST, "no hello came in time");
        close_slot(c, s);
    }
}

/* --- letters, signals, service manager -------------------------------------------------------- */

/* Who came earlier has waited, and is let in now. */
static void start_serving(struct control *c)
{
    const char *status = c->sched->serving.status;

    /* READY crossed STOP: the scheduler may have freed all by now. */
    if (c->stopping)
        return;
    c->serving = true;
    log_about(LOG_LEVEL_INFO, &(struct journal_about){ .message = JOURNAL_SERVING }, "%s", status);
    for (uint32_t i = 0; i < c->n_slots && c->n_waiting > 0; i++)
        if (c->slots[i].state == SLOT_WAITING)
            admit(c, &c->slots[i]);
    notify_ready(status); /* last: who is started after us finds us serving */
}

static void on_letters(struct control *c)
{
    struct mailbox_letter l;
    struct control_slot *s;

    /* Before the letters: what is put behind the last look rings anew. */
    mailbox_drain(c->from_sched);
    while (mailbox_take(c->from_sched, &l)) {
        switch (l.kind) {
        case MAILBOX_READY:
            start_serving(c);
            break;
        case MAILBOX_STOPPED:
            c->stopped = true;
            break;
        case MAILBOX_GONE:
            s = find_slot(c, l.client);
            if (s)
                close_slot(c, s);
            break;
        case MAILBOX_METRICS:
            c->asked = false;
            scrape_answer(c->scrape, l.metrics);
            break;
        case MAILBOX_PRESSURE:
            c->pressed = false;
            break;
        default:
            break;
        }
    }
}

/* Who came while the scheduler was asked is answered with the same numbers. */
static void on_scrape(struct control *c)
{
    struct mailbox_letter l = { .kind = MAILBOX_METRICS, .metrics = &c->scrape->metrics };

    if (!scrape_run(c->scrape) || c->asked)
        return;
    if (!c->serving || c->stopping) {
        scrape_answer(c->scrape, NULL);
        return;
    }
    c->asked = true;
    mailbox_put(c->to_sched, &l);
}

/* One letter at a time: the scheduler may be in a long step, and the mailbox has room for one. */
static void on_pressure(struct control *c, uint32_t events)
{
    struct mailbox_letter l = { .kind = MAILBOX_PRESSURE };
    bool gone, told = pressure_take(c->pressure, events, clock_ns(), &gone);

    if (gone) {
        log_debug("nobody tells any more when memory is short");
        unwatch(c, c->pressure->fd);
    }
    if (!told || c->pressed || !c->serving || c->stopping)
        return;
    c->pressed = true;
    mailbox_put(c->to_sched, &l);
}

/* Once: a second SIGTERM of an impatient user changes nothing, and the mailbox has room for one
 * STOP. While the model loads the scheduler looks for it between two parts of the file. */
static void stop(struct control *c, const char *reason)
{
    struct mailbox_letter l = { .kind = MAILBOX_STOP };

    if (c->stopping)
        return;
    c->stopping = true;
    log_about(LOG_LEVEL_INFO, &(struct journal_about){ .message = JOURNAL_STOPPING },
              "stopping: %s", reason);
    notify_stopping(); /* first: freeing gigabytes takes a while */
    refuse_waiting(c, "the daemon is shutting down");
    mailbox_put(c->to_sched, &l);
}

static void on_signal(struct control *c)
{
    struct signalfd_siginfo si;

    if (read(c->signals, &si, sizeof(si)) == sizeof(si))
        stop(c, si.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
}

/* A sign of life only while the scheduler gives one: it sleeps, or it looked at its clients since
 * the last. This thread hardly ever hangs, and to tell the manager of its own health would hide
 * that of the other. While the model loads there is no beat to look for, and TimeoutStartSec= is
 * the limit. */
static void feed_watchdog(struct control *c, uint64_t now)
{
    uint64_t beat = atomic_load_explicit(&c->sched->heartbeat, memory_order_relaxed);

    if (!c->serving || beat != c->last_heartbeat ||
        atomic_load_explicit(&c->sched->asleep, memory_order_relaxed))
        notify_watchdog();
    c->last_heartbeat = beat;
    c->watchdog_next_ns = now + c->watchdog_ns / 2; /* as sd_watchdog_enabled(3) advises */
}

/* --- the loop --------------------------------------------------------------------------------- */

/* Milliseconds until something has to be done without an event; -1: nothing, which is so as long as
 * nobody shakes hands. */
static int next_timeout(const struct control *c)
{
    uint64_t now = clock_ns(), next = UINT64_MAX, log_due = log_peer_due_ns();

    for (uint32_t i = 0; i < c->n_slots && c->n_shaking > 0; i++)
        if (c->slots[i].state == SLOT_SHAKING && c->slots[i].deadline_ns < next)
            next = c->slots[i].deadline_ns;
    if (c->watchdog_ns && c->watchdog_next_ns < next)
        next = c->watchdog_next_ns;
    if (c->paused && c->resume_ns < next)
        next = c->resume_ns;
    if (c->n_waiting > 0 && c->tell_ns < next)
        next = c->tell_ns;
    if (log_due && log_due < next)
        next = log_due;
    if (next == UINT64_MAX)
        return -1;
    return clock_until_ms(next, now);
}

/* After every round of events, so it has to be cheap when there is nothing: the clock is read only
 * when something has a time. */
static void on_time(struct control *c)
{
    uint64_t now, log_due = log_peer_due_ns();

    if (c->n_shaking == 0 && c->n_waiting == 0 && !c->watchdog_ns && !c->paused && !log_due)
        return;
    now = clock_ns();
    if (log_due && log_due <= now)
        log_peer_left_out();
    close_late(c, now);
    if (c->n_waiting > 0 && c->tell_ns <= now)
        tell_waiting(c, now);
    if (c->watchdog_ns && c->watchdog_next_ns <= now)
        feed_watchdog(c, now);
    if (c->paused && c->resume_ns <= now) {
        open_reserve(c);
        /* What accept() had too little of, this may have too little of as well. */
        c->paused = watch(c, c->listener->fd, ABOUT_LISTENER, EPOLLIN) < 0;
        c->resume_ns = now + RESUME_NS;
    }
}

static void on_event(struct control *c, int64_t about, uint32_t events)
{
    struct control_slot *s;

    switch (about) {
    case ABOUT_LISTENER:
        accept_one(c);
        return;
    case ABOUT_SIGNALS:
        on_signal(c);
        return;
    case ABOUT_LETTERS:
        on_letters(c);
        return;
    case ABOUT_SCRAPE:
        on_scrape(c);
        return;
    case ABOUT_PRESSURE:
        on_pressure(c, events);
        return;
    }
    /* The slot may have been closed by an earlier event of the same round, and taken by a new peer
     * by another: that one has sent nothing yet, or its hello, and either is as if it was its own
     * event. */
    s = &c->slots[about];
    if (s->state == SLOT_SHAKING)
        on_shaking(c, s);
    else if (s->state == SLOT_WAITING)
        on_waiting(c, s);
    else if (s->state == SLOT_OPEN)
        on_open(c, s);
}

/* Until STOPPED and not until STOP was sent: the clients' sockets are closed meanwhile, and whoever
 * connects hears that the daemon is shutting down. */
int control_run(struct control *c)
{
    struct epoll_event ev[32];

    while (!c->stopped) {
        int n = epoll_wait(c->epoll, ev, 32, next_timeout(c));

        if (n < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < n; i++)
            on_event(c, (int64_t)ev[i].data.u64, ev[i].events);
        on_time(c);
    }
    return 0;
}

/* Those that end the daemon. All else has its default, a crash dump included. */
static void signal_set(sigset_t *ret)
{
    (void)sigemptyset(ret);
    (void)sigaddset(ret, SIGTERM);
    (void)sigaddset(ret, SIGINT);
}

int control_block_signals(void)
{
    sigset_t set;

    /* A terminal that closes does not end a daemon; nor does a peer that reads no more. */
    if (signal(SIGHUP, SIG_IGN) == SIG_ERR || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return -errno;
    signal_set(&set);
    return -pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Signals come as events like all else, so that none interrupts a half-made state: they were
 * blocked before there was a second thread. */
int control_open(struct control *c)
{
    sigset_t set;
    int r;

    c->epoll = c->signals = c->reserve = -1;
    open_reserve(c);
    c->n_slots = c->config->max_clients + SHAKING_MAX;
    c->slots = calloc(c->n_slots, sizeof(*c->slots));
    if (!c->slots)
        return -ENOMEM;
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    signal_set(&set);
    c->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (c->epoll < 0 || c->signals < 0) {
        r = -errno;
        control_close(c);
        return r;
    }
    r = watch(c, c->signals, ABOUT_SIGNALS, EPOLLIN);
    if (r == 0)
        r = watch(c, c->from_sched->bell, ABOUT_LETTERS, EPOLLIN);
    if (r == 0) /* long before the model is there: who waits learns how far it is */
        r = watch(c, c->listener->fd, ABOUT_LISTENER, EPOLLIN);
    if (r == 0 && c->scrape && c->scrape->epoll >= 0)
        r = watch(c, c->scrape->epoll, ABOUT_SCRAPE, EPOLLIN);
    /* Not the kernel's, but a plain file: nobody will tell. */
    if (r == 0 && c->pressure && c->pressure->fd >= 0 &&
        watch(c, c->pressure->fd, ABOUT_PRESSURE, c->pressure->events) < 0)
        log_debug("nobody tells when memory is short: that file can't be waited for");
    if (r < 0)
        control_close(c);
    c->watchdog_ns = notify_watchdog_ns();
    return r;
}

void control_close(struct control *c)
{
    if (c->slots)
        refuse_waiting(c, "the daemon could not load its model: its log says why");
    for (uint32_t i = 0; c->slots && i < c->n_slots; i++)
        if (c->slots[i].state != SLOT_FREE)
            close_slot(c, &c->slots[i]);
    free(c->slots);
    c->slots = NULL;
    if (c->epoll >= 0)
        (void)close(c->epoll);
    if (c->signals >= 0)
        (void)close(c->signals);
    if (c->reserve >= 0)
        (void)close(c->reserve);
    c->epoll = c->signals = c->reserve = -1;
}
