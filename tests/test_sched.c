/* tests/test_sched.c - the scheduler in this process, and its parts that can be tested alone. Would
 * catch: a malloc in the loop that makes tokens, replies that are made anew for a client that does
 * not read, a budget that lets a step last too long, frames or scrapes that take more than their
 * share of it, a bell that keeps the scheduler awake, replies that are forgotten when a slice is
 * over, a copy of a device's that is asked for again and again instead of waited for, or not at
 * all; a client of another unit than its letter says; two writers of one document's name.
 */

#include "base/clock.h"
#include "daemon/config.h"
#include "daemon/metrics.h"
#include "daemon/pace.h"
#include "daemon/sched.h"
#include "tests/support/alone.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

/* --- counting --------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTING 0 /* the sanitizer's own malloc is in the way */
#else
#define COUNTING 1

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
#endif

static _Atomic bool counting;
static _Atomic uint64_t n_allocations;
static _Thread_local bool is_test; /* this program's own thread is not counted */

#if COUNTING
static void count(void)
{
    if (atomic_load(&counting) && !is_test)
        atomic_fetch_add(&n_allocations, 1);
}

void *malloc(size_t n)
{
    count();
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    count();
    return __libc_realloc(p, n);
}
#endif

/* --- a client by hand ------------------------------------------------------------------------- */

static struct chan *chan;
static struct wire_scratch scratch;

static void send_req(const struct wire_req *m, const void *bulk)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    int r;

    while ((r = raw_client_put(chan, &scratch, m, bulk)) == -EAGAIN && daemon_fixture_ms() < end)
        ;
    assert_int_equal(r, 0);
}

/* While true, time passes for all threads but the first: each look at the clock costs 6 ms. */
static _Atomic bool slow;
static _Atomic int64_t slept_ns;
static pthread_t first;

int __real_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret)
{
    int r = __real_clock_gettime(id, ret);

    if (r < 0 || id != CLOCK_MONOTONIC || pthread_equal(pthread_self(), first))
        return r;
    if (atomic_load(&slow))
        atomic_fetch_add(&slept_ns, 6000000);
    ret->tv_nsec += atomic_load(&slept_ns) % 1000000000;
    ret->tv_sec += atomic_load(&slept_ns) / 1000000000 + ret->tv_nsec / 1000000000;
    ret->tv_nsec %= 1000000000;
    return r;
}

static enum wire_rep_kind next_reply(struct wire_rep *ret)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct chan_msg msg;
    int r;

    while ((r = chan_recv(chan, &msg)) == -EAGAIN && daemon_fixture_ms() < end)
        ;
    assert_int_equal(r, 0);
    assert_int_equal(wire_rep_unpack(&scratch, msg.frame, msg.frame_len, ret), 0);
    chan_release(chan);
    return ret->kind;
}

static void wait_letter(struct mailbox *m, enum mailbox_kind kind)
{
    struct mailbox_letter l = { .kind = MAILBOX_STOP };

    while (l.kind != kind)
        if (!mailbox_take(m, &l))
            (void)usleep(1000);
}

static void say_hello(void)
{
    struct wire_req m = { .id = 1, .kind = WIRE_HELLO };
    struct wire_rep rep;

    m.u.hello.client = "by hand";
    send_req(&m, NULL);
    assert_int_equal(next_reply(&rep), WIRE_WELCOME);
}

/* memory NULL: keeps all. */
static uint64_t open_session(const char *text, const struct wire_memory *memory)
{
    struct wire_req m;
    struct wire_rep rep;
    uint64_t session;

    m = (struct wire_req){ .id = 2, .kind = WIRE_OPEN_SESSION };
    m.u.open_session.label = "";
    if (memory) {
        m.u.open_session.memory = *memory;
        m.u.open_session.has_segment = true;
        m.u.open_session.segment = 64;
    }
    send_req(&m, NULL);
    assert_int_equal(next_reply(&rep), WIRE_SESSION_OPENED);
    session = rep.u.session_opened.session;
    m = (struct wire_req){ .id = 3, .kind = WIRE_APPEND, .bulk_len = strlen(text) };
    m.u.append.session = session;
    send_req(&m, text);
    assert_int_equal(next_reply(&rep), WIRE_APPENDED);
    return session;
}

/* More Stats than there is room for replies. */
#define N_STATS (ALONE_SLOTS + 40)

static struct chan *ask_and_read_nothing(struct alone *a)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;

    chan = alone_adopt(a, 2, NULL);
    say_hello();
    for (uint32_t i = 0; i < N_STATS; i++)
        send_req(&(struct wire_req){ .id = 2 + i, .kind = WIRE_GET_STATS }, NULL);
    while (chan_came_back(chan) < 1 + N_STATS && daemon_fixture_ms() < end)
        ;
    assert_int_equal(chan_came_back(chan), 1 + N_STATS); /* they are all taken */
    return chan;
}

static void read_stats(struct chan *from)
{
    struct wire_rep rep;

    chan = from;
    for (uint32_t i = 0; i < N_STATS; i++)
        assert_int_equal(next_reply(&rep), WIRE_STATS);
    chan_close(chan);
}

/* The scheduler that runs by itself, and what it had done when it had stopped. */
static pthread_t thread;
static uint64_t beats, steps;

static void start_alone_with(struct alone *a, const char *store)
{
    alone_open(a, store, 2);
    assert_int_equal(pthread_create(&thread, NULL, sched_main, a->sched), 0);
    wait_letter(&a->from, MAILBOX_READY);
    assert_int_equal(a->sched->result, 0);
}

/* What is written to a disk is a record of its own a segment, not a token's. */
static void start_alone(struct alone *a)
{
    start_alone_with(a, "none");
}

static void stop_alone(struct alone *a)
{
    struct mailbox_letter letter = { .kind = MAILBOX_STOP };

    mailbox_put(&a->to, &letter);
    wait_letter(&a->from, MAILBOX_STOPPED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    beats = atomic_load(&a->sched->heartbeat);
    steps = a->sched->totals.steps;
    alone_close(a);
}

/* Allocations of scheduler and workers from the fifth piece of an answer to its end. */
static uint64_t allocations_of_an_answer(uint64_t session)
{
    struct wire_req m = { .id = 4, .kind = WIRE_GENERATE };
    struct wire_rep rep;
    unsigned n_text = 0;

    m.u.generate.session = session;
    m.u.generate.max_tokens = 300;
    m.u.generate.ignore_eog = true;
    m.u.generate.temperature = 0.8f;
    m.u.generate.top_k = 40;
    m.u.generate.has_repeat_penalty = true;
    m.u.generate.repeat_penalty = 1.1f;
    m.u.generate.repeat_last_n = 64;
    send_req(&m, NULL);
    while (next_reply(&rep) == WIRE_TEXT)
        if (++n_text == 5)
            atomic_store(&counting, true);
    atomic_store(&counting, false);
    assert_int_equal(rep.kind, WIRE_DONE);
    assert_int_equal(rep.u.done.usage.generated_tokens, 300);
    assert_true(n_text > 20);
    return atomic_exchange(&n_allocations, 0);
}

static const struct wire_memory rereads = { .compressor = WIRE_SELECT_REREAD,
                                            .has_ratio = true,
                                            .ratio = 4 };

/* While another client does not read what it asked for, and then with segments that are read again
 * and compressed. */
static void test_no_malloc_in_the_token_loop(void **state)
{
    struct chan *silent;
    struct alone a;
    uint64_t session;

    (void)state;
    is_test = true;
    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    start_alone(&a);
    silent = ask_and_read_nothing(&a);
    chan = alone_adopt(&a, 1, NULL);
    say_hello();
    atomic_store(&counting, true); /* a session is allocated: the counter counts */
    session = open_session("count the allocations", NULL);
    atomic_store(&counting, false);
    assert_true(!COUNTING || atomic_exchange(&n_allocations, 0) > 0);
    assert_int_equal(allocations_of_an_answer(session), 0);
    session = open_session("count those of a compressor too", &rereads);
    assert_int_equal(allocations_of_an_answer(session), 0);

    chan_close(chan);
    read_stats(silent);
    stop_alone(&a);
    wire_scratch_close(&scratch);
    /* A sign of life between the layers too, however long a step is. The Stats make 200 at most. */
    assert_true(beats > 2 * steps + 200);
    if (!COUNTING)
        (void)printf("built with a sanitizer: allocations were not counted\n");
}

/* Allocations while n bytes are read by a session, or scored. */
static uint64_t allocations_of_reading(bool score, const char *text, uint32_t n)
{
    struct wire_req m = { .id = 5, .kind = score ? WIRE_SCORE : WIRE_APPEND, .bulk_len = n };
    struct wire_rep rep;

    if (score) {
        m.u.score.memory = rereads;
        m.u.score.has_segment = true;
        m.u.score.segment = 64;
    } else {
        m.u.append.session = open_session("a", &rereads);
    }
    atomic_store(&counting, true);
    send_req(&m, text);
    while (next_reply(&rep) == WIRE_SCORE_ROWS)
        ;
    atomic_store(&counting, false);
    assert_int_equal(rep.kind, score ? WIRE_DONE : WIRE_APPENDED);
    return atomic_exchange(&n_allocations, 0);
}

/* A request has some of its own, however long it is: its state, and room for its ids. What is read
 * is compressed on the way, and costs none. */
static void test_no_malloc_for_a_token_that_is_read(void **state)
{
    static char text[800];
    struct alone a;

    (void)state;
    is_test = true;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i * i % 23);
    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    start_alone(&a);
    chan = alone_adopt(&a, 1, NULL);
    say_hello();
    for (int score = 0; score < 2; score++) {
        uint64_t few, many;

        (void)allocations_of_reading(score, text, sizeof(text)); /* warm */
        few = allocations_of_reading(score, text, 100);
        many = allocations_of_reading(score, text, sizeof(text));
        assert_true(!COUNTING || few > 0);
        assert_in_range(many, 0, few);
        print_message("%s: %llu allocations for 100 bytes, %llu for %zu\n",
                      score ? "score" : "append", (unsigned long long)few, (unsigned long long)many,
                      sizeof(text));
    }
    chan_close(chan);
    stop_alone(&a);
    wire_scratch_close(&scratch);
}

/* --- pace ------------------------------------------------------------------------------------- */

static void test_pace(void **state)
{
    struct pace p;

    (void)state;
    pace_init(&p, 30, 512);
    assert_int_equal(pace_budget(&p, true), PACE_TOKENS_MIN); /* nothing is known yet */
    for (int i = 0; i < 50; i++)
        pace_measured(&p, 128, 128 * 2000000ull);  /* 500 tokens a second */
    assert_int_equal(pace_budget(&p, false), 288); /* 20 ms a layer: 300, whole pages */
    assert_int_equal(pace_budget(&p, true), 48);   /* 100 ms a step: 50 */
    for (int i = 0; i < 50; i++)
        pace_measured(&p, 128, 128 * 1000ull);
    assert_int_equal(pace_budget(&p, true), 512); /* a fast machine: all it may */
    for (int i = 0; i < 50; i++)
        pace_measured(&p, 16, 16 * 1000000000ull);
    assert_int_equal(pace_budget(&p, false), PACE_TOKENS_MIN); /* a slow one still moves */
    pace_measured(&p, 1, 1);                                   /* too few to tell */
    assert_int_equal(pace_budget(&p, false), PACE_TOKENS_MIN);
}

/* A client sends without end, while a step's layers take a millisecond each. */
static void test_share_of_frames(void **state)
{
    static const uint64_t costs[] = { 1000, 40000, 1000000, 3000000 };
    uint64_t now = 1000000000000;
    struct pace p;

    (void)state;
    pace_init(&p, 30, 512);
    for (size_t i = 0; i < sizeof(costs) / sizeof(*costs); i++) {
        uint64_t frames = 0, start = now, n = 0;

        for (int layer = 0; layer < 10000; layer++) {
            bool more = pace_earned(&p, now += 1000000);

            for (; more; n++) {
                frames += costs[i];
                more = pace_spent(&p, now += costs[i]);
            }
        }
        assert_true(n > 0); /* they do come in */
        assert_true((double)frames / (double)(now - start) < 0.13);
        assert_true((double)frames / (double)(now - start) > 0.08); /* and are not starved */
    }
    /* Stopped for an hour in the middle of one: that is not held against the next. */
    assert_false(pace_spent(&p, now += 3600 * 1000000000ull));
    assert_true(pace_earned(&p, now += 50 * 1000000));
    assert_false(pace_spent(&p, now += 50 * 1000000));
    pace_idle(&p);
    assert_true(pace_spent(&p, now));
}

/* Numbers for a scraper have the time that frames have: while the model works and none is left they
 * wait, and nobody sleeps over them. */
static void test_scrapes_are_paced(void **state)
{
    struct mailbox_letter ask = { .kind = MAILBOX_METRICS }, got;
    struct alone a;
    struct sched *s;

    (void)state;
    ask.metrics = calloc(1, sizeof(*ask.metrics));
    assert_non_null(ask.metrics);
    alone_open(&a, "none", 2);
    s = a.sched;
    alone_begin(&a);
    s->n_active++; /* somebody's answer is being written */
    s->pace.frames_ns = -INT64_MAX / 4;
    s->pace.frames_at = clock_ns();
    mailbox_put(&a.to, &ask);
    for (int i = 0; i < 3; i++) {
        (void)sched_attend(s);
        assert_false(mailbox_pending(&a.from));
    }
    pace_idle(&s->pace);
    (void)sched_attend(s);
    assert_true(mailbox_take(&a.from, &got));
    assert_int_equal(got.kind, MAILBOX_METRICS);
    assert_ptr_equal(got.metrics, ask.metrics);
    assert_int_equal(got.metrics->clients, 0);
    assert_true(got.metrics->pages > 0);
    s->n_active--;
    /* With nothing to do for the model it is answered in the next turn. */
    s->pace.frames_ns = -INT64_MAX / 4;
    mailbox_put(&a.to, &ask);
    assert_true(sched_turn(s));
    wait_letter(&a.from, MAILBOX_METRICS);
    alone_end(&a);
    free(ask.metrics);
}

/* --- units ------------------------------------------------------------------------------------ */

/* A client is of the unit that its letter names, and Stats say so. */
static void test_units_by_letter(void **state)
{
    static const char *const units[] = { "a.service", NULL, "b.scope" };
    struct chan *chans[3];
    struct wire_rep rep;
    struct alone a;

    (void)state;
    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    start_alone(&a);
    for (uint32_t i = 0; i < 3; i++) {
        chans[i] = chan = alone_adopt(&a, i + 1, units[i]);
        say_hello();
    }
    send_req(&(struct wire_req){ .id = 2, .kind = WIRE_GET_STATS }, NULL);
    assert_int_equal(next_reply(&rep), WIRE_STATS);
    assert_int_equal(rep.u.stats.n_client, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_string_equal(rep.u.stats.client[i].unit, units[i] ? units[i] : "");
    for (uint32_t i = 0; i < 3; i++)
        chan_close(chans[i]);
    stop_alone(&a);
    wire_scratch_close(&scratch);
}

/* --- documents -------------------------------------------------------------------------------- */

/* A turn that does not sleep: there is a letter, about a client that nobody knows. */
static void turn(struct alone *a)
{
    mailbox_put(&a->to, &(struct mailbox_letter){ .kind = MAILBOX_DEAD, .client = 99 });
    assert_true(sched_turn(a->sched));
}

/* Whether the last reply to request 2 came within so many turns. */
static bool is_added(struct alone *a, int turns)
{
    struct wire_rep rep = { .last = false };
    struct chan_msg msg;

    while (turns-- > 0 && !rep.last) {
        turn(a);
        while (!rep.last && chan_recv(chan, &msg) == 0) {
            assert_int_equal(wire_rep_unpack(&scratch, msg.frame, msg.frame_len, &rep), 0);
            chan_release(chan);
            rep.last &= rep.id == 2;
        }
    }
    assert_true(!rep.last || rep.kind == WIRE_DOCUMENT_ADDED);
    return rep.last;
}

/* A document whose name is on its way to the disk, as what it replaces is, waits for that: what is
 * written last stays. */
static void test_one_writer_of_a_name(void **state)
{
    struct names_put other = { .kind = WIRE_NAMED_DOCUMENT, .name = "a" };
    struct wire_req m = { .id = 2, .kind = WIRE_ADD_DOCUMENT, .bulk_len = 5 };
    struct alone a;

    (void)state;
    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    alone_open(&a, "none", 1);
    alone_begin(&a);
    TAILQ_INSERT_TAIL(&a.sched->puts, &other, link);
    chan = alone_hello(&a, 1);
    m.u.add_document.name = "a";
    m.u.add_document.role = "";
    send_req(&m, "words");
    assert_false(is_added(&a, 200));
    assert_non_null(document_find(&a.sched->documents, 0, "a"));
    assert_int_equal(document_find(&a.sched->documents, 0, "a")->state, DOCUMENT_READY);
    TAILQ_REMOVE(&a.sched->puts, &other, link);
    assert_true(is_added(&a, 200));
    chan_close(chan);
    alone_end(&a);
    wire_scratch_close(&scratch);
}

/* A slice that ends with the first request, since time is up: the others' replies are sent all the
 * same. */
static void test_slow_slices(void **state)
{
    struct chan *silent;
    struct alone a;

    (void)state;
    first = pthread_self();
    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    start_alone(&a);
    atomic_store(&slow, true);
    silent = ask_and_read_nothing(&a);
    read_stats(silent);
    atomic_store(&slow, false);
    stop_alone(&a);
    wire_scratch_close(&scratch);
}

/* --- a device's copies ------------------------------------------------------------------------ */

/* The CPU, as a device would be: the host may not touch its pages, and copies that have a ticket
 * are done when the test says so. */
static struct backend_ops device_ops;
static _Atomic bool is_device;
static _Atomic uint64_t n_tickets, n_released, n_asks, n_waits;
static int bell = -1;

static int device_open(const struct backend_options *o, struct backend **ret, struct why *why)
{
    int r = backend_cpu.open(o, ret, why);

    if (r == 0)
        (*ret)->ops = &device_ops;
    return r;
}

static void *device_host(struct backend *b, void *mem)
{
    (void)b;
    (void)mem;
    return NULL;
}

static int device_get(struct backend *b, void *host, const void *from, size_t n,
                      uint64_t *ret_ticket)
{
    (void)b;
    memcpy(host, from, n);
    if (ret_ticket)
        *ret_ticket = atomic_fetch_add(&n_tickets, 1) + 1;
    return 0;
}

static int device_done(struct backend *b, uint64_t ticket)
{
    (void)b;
    atomic_fetch_add(&n_asks, 1);
    return ticket <= atomic_load(&n_released);
}

static int device_eventfd(struct backend *b)
{
    (void)b;
    return bell;
}

int __real_backend_find(const char *name, const struct backend_ops **ret,
                        struct backend_devices *ret_devices, struct why *why);
int __wrap_backend_find(const char *name, const struct backend_ops **ret,
                        struct backend_devices *ret_devices, struct why *why);
int __wrap_backend_find(const char *name, const struct backend_ops **ret,
                        struct backend_devices *ret_devices, struct why *why)
{
    int r = __real_backend_find(name, ret, ret_devices, why);

    if (r < 0 || !atomic_load(&is_device))
        return r;
    device_ops = **ret;
    device_ops.open = device_open;
    device_ops.host = device_host;
    device_ops.get = device_get;
    device_ops.done = device_done;
    device_ops.eventfd = device_eventfd;
    *ret = &device_ops;
    return 0;
}

/* Nobody looks after a device that is lost here: without its bell it is never asked again. */
int __real_tier_timeout_ms(const struct tier *t);
int __wrap_tier_timeout_ms(const struct tier *t);
int __wrap_tier_timeout_ms(const struct tier *t)
{
    return atomic_load(&is_device) ? -1 : __real_tier_timeout_ms(t);
}

int __real_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout)
{
    atomic_fetch_add(&n_waits, 1);
    return __real_epoll_wait(fd, ev, n, timeout);
}

/* Until it sleeps and goes on sleeping; how often it was asked for copies by then. */
static uint64_t asleep(const struct alone *a)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    uint64_t waits, before = 0;

    do {
        if (!(daemon_fixture_ms() < end))
            fail_msg("the scheduler does not sleep: %lu waits", (unsigned long)n_waits);
        waits = before;
        (void)usleep(20000);
        before = atomic_load(&n_waits);
    } while (!atomic_load(&a->sched->asleep) || waits != before);
    return atomic_load(&n_asks);
}

/* The writer of a letter rings after the letter can be seen: a scheduler that was awake has taken
 * it by then. No ring is ever read, and none may end more than one sleep. */
static void test_late_bell(void **state)
{
    const uint64_t one = 1;
    struct alone a;

    (void)state;
    start_alone(&a);
    for (int i = 0; i < 3; i++) {
        (void)asleep(&a);
        assert_int_equal(write(a.to.bell, &one, sizeof(one)), sizeof(one));
    }
    (void)asleep(&a);
    stop_alone(&a);
}

/* It sleeps while a copy is under way, and the copy's bell wakes it, once. */
static void test_sleeps_while_copies_run(void **state)
{
    char text[700], folder[SCRATCH_PATH_MAX];
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    uint64_t asks;
    struct alone a;

    (void)state;
    bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    atomic_store(&is_device, true);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    start_alone_with(&a, scratch_path(folder, "copies"));
    chan = alone_adopt(&a, 1, NULL);
    say_hello();
    (void)open_session(text, &rereads); /* segments of 64 tokens: the first are full */
    asks = asleep(&a);
    assert_true(asks > 0 && atomic_load(&n_tickets) > 0);
    assert_int_equal(asleep(&a), asks); /* nobody asked in vain */
    /* Whatever is begun from now on is done at once. */
    atomic_store(&n_released, UINT64_MAX);
    assert_int_equal(eventfd_write(bell, 1), 0);
    while (atomic_load(&n_asks) == asks)
        if (!(daemon_fixture_ms() < end))
            fail_msg("the bell of the copies was not heard");
    (void)asleep(&a);
    chan_close(chan);
    stop_alone(&a);
    wire_scratch_close(&scratch);
    atomic_store(&is_device, false);
    (void)close(bell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pace),
        cmocka_unit_test(test_share_of_frames),
        cmocka_unit_test(test_scrapes_are_paced),
        cmocka_unit_test(test_units_by_letter),
        cmocka_unit_test(test_one_writer_of_a_name),
        cmocka_unit_test(test_no_malloc_in_the_token_loop),
        cmocka_unit_test(test_no_malloc_for_a_token_that_is_read),
        cmocka_unit_test(test_late_bell),
        cmocka_unit_test(test_slow_slices),
        cmocka_unit_test(test_sleeps_while_copies_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
