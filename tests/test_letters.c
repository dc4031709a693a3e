/* tests/test_letters.c - control thread and scheduler in this process, whose letters are held up at
 * chosen places until they cross. Would catch: a thread that looks at what the other has freed, a
 * letter for a client that is gone, a stop that is lost or comes too early, a place that is never
 * free again, a mailbox that is too small, a pause that has no end.
 *
 * mailbox_put, mailbox_take and served_load are wrapped by the linker. A rule says where a thread
 * waits, and for what; nothing waits for a time.
 */

#include "daemon/control.h"
#include "daemon/sched.h"
#include "ipc/handshake.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/fault.h"
#include "tests/support/hostile.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* --- holding letters up ------------------------------------------------------------------------
 */

enum { N_KINDS = MAILBOX_STOPPED + 1, LOAD = 2 * N_KINDS, TEST, N_POINTS };
#define PUT(kind)   (MAILBOX_##kind)
#define TAKE(kind)  (N_KINDS + MAILBOX_##kind)
#define ARRIVED(at) (at)              /* a thread has come to that point */
#define PASSED(at)  (N_POINTS + (at)) /* it has done what is done there */

/* Who comes to `at` waits until `until` was so once. */
struct rule {
    int at, until;
};
#define RULES_MAX 3

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const struct rule *rules; /* RULES_MAX; all zeros: none */
static bool happened[2 * N_POINTS];

static void wait_until(int event)
{
    struct timespec end;

    (void)clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += DAEMON_FIXTURE_PATIENCE_MS / 1000;
    while (!happened[event])
        if (pthread_cond_timedwait(&changed, &lock, &end) != 0) {
            (void)fprintf(stderr, "event %d does not come\n", event);
            abort();
        }
}

static void say(int event)
{
    happened[event] = true;
    (void)pthread_cond_broadcast(&changed);
}

static void hold_up(int at)
{
    (void)pthread_mutex_lock(&lock);
    say(ARRIVED(at));
    for (int i = 0; rules && i < RULES_MAX; i++)
        if (rules[i].at == at && rules[i].until)
            wait_until(rules[i].until);
    (void)pthread_mutex_unlock(&lock);
}

static void pass(int at)
{
    (void)pthread_mutex_lock(&lock);
    say(PASSED(at));
    (void)pthread_mutex_unlock(&lock);
}

static void wait_for(int event)
{
    (void)pthread_mutex_lock(&lock);
    wait_until(event);
    (void)pthread_mutex_unlock(&lock);
}

/* The next time that it happens counts. */
static void forget(int event)
{
    (void)pthread_mutex_lock(&lock);
    happened[event] = false;
    (void)pthread_mutex_unlock(&lock);
}

static void set_rules(const struct rule *r)
{
    (void)pthread_mutex_lock(&lock);
    rules = r;
    (void)pthread_mutex_unlock(&lock);
}

void __real_mailbox_put(struct mailbox *m, const struct mailbox_letter *l);
bool __real_mailbox_take(struct mailbox *m, struct mailbox_letter *ret);
int __real_served_load(struct served *b, const struct config *c, struct keep *k,
                       const struct model_progress *p, struct why *why);
void __wrap_mailbox_put(struct mailbox *m, const struct mailbox_letter *l);
bool __wrap_mailbox_take(struct mailbox *m, struct mailbox_letter *ret);
int __wrap_served_load(struct served *b, const struct config *c, struct keep *k,
                       const struct model_progress *p, struct why *why);

void __wrap_mailbox_put(struct mailbox *m, const struct mailbox_letter *l)
{
    int kind = (int)l->kind;

    hold_up(kind);
    __real_mailbox_put(m, l);
    pass(kind);
}

bool __wrap_mailbox_take(struct mailbox *m, struct mailbox_letter *ret)
{
    bool there = __real_mailbox_take(m, ret);

    if (there) {
        hold_up(N_KINDS + (int)ret->kind);
        pass(N_KINDS + (int)ret->kind);
    }
    return there;
}

int __wrap_served_load(struct served *b, const struct config *c, struct keep *k,
                       const struct model_progress *p, struct why *why)
{
    hold_up(LOAD);
    return __real_served_load(b, c, k, p, why);
}

/* --- a daemon in this process ------------------------------------------------------------------
 */

static struct config config;
static struct listener listener;
static struct mailbox to_sched, from_sched;
static struct sched *sched;
static struct control control;
static pthread_t sched_thread, control_thread;

static void *run_control(void *arg)
{
    return control_run(arg) < 0 ? arg : NULL;
}

/* All up to the threads. */
static void prepare(const struct rule *r, uint32_t max_clients)
{
    struct why why = { "" };

    set_rules(r);
    memset(happened, 0, sizeof(happened));
    config_defaults(&config);
    (void)snprintf(config.model, sizeof(config.model), "%s",
                   daemon_fixture_model(DAEMON_FIXTURE_TINY));
    (void)scratch_path(config.socket, "letters.sock");
    (void)snprintf(config.store, sizeof(config.store), "none");
    config.kv_bytes = 4 << 20;
    config.threads = 1;
    config.max_clients = max_clients;
    assert_int_equal(listener_open(&listener, &config, &why), 0);
    assert_int_equal(mailbox_open(&to_sched, max_clients), 0);
    assert_int_equal(mailbox_open(&from_sched, max_clients), 0);
    sched = calloc(1, sizeof(*sched));
    assert_non_null(sched);
    sched->config = &config;
    sched->inbox = &to_sched;
    sched->outbox = &from_sched;
    control = (struct control){ .config = &config,
                                .listener = &listener,
                                .sched = sched,
                                .to_sched = &to_sched,
                                .from_sched = &from_sched };
    assert_int_equal(control_open(&control), 0);
}

static void begin(const struct rule *r, uint32_t max_clients, bool with_sched)
{
    prepare(r, max_clients);
    assert_int_equal(pthread_create(&control_thread, NULL, run_control, &control), 0);
    if (with_sched)
        assert_int_equal(pthread_create(&sched_thread, NULL, sched_main, sched), 0);
}

static void end(bool with_sched)
{
    void *failed;

    assert_int_equal(pthread_join(control_thread, &failed), 0);
    assert_null(failed);
    if (with_sched)
        assert_int_equal(pthread_join(sched_thread, NULL), 0);
    control_close(&control);
    listener_close(&listener);
    mailbox_close(&to_sched);
    mailbox_close(&from_sched);
    free(sched);
}

static void stop(void)
{
    assert_int_equal(kill(getpid(), SIGTERM), 0);
}

static void come_in(struct hostile *h)
{
    assert_int_equal(hostile_connect(h, config.socket), 0);
}

/* The daemon's answer is this sentence. */
static void is_refused(const char *sentence)
{
    const struct handshake_wait wait = { .timeout_ms = DAEMON_FIXTURE_PATIENCE_MS };
    char text[256] = "";
    struct chan *chan;
    int sock;

    assert_int_equal(handshake_connect(config.socket, NULL, &wait, &sock, &chan, text),
                     -ECONNREFUSED);
    assert_non_null(strstr(text, sentence));
}

/* --- start and stop ----------------------------------------------------------------------------
 */

static void test_stop_crosses_ready(void **state)
{
    static const struct rule r[RULES_MAX] = { { PUT(READY), PASSED(PUT(STOP)) },
                                              { TAKE(READY), PASSED(PUT(STOPPED)) } };

    (void)state;
    begin(r, 1, true);
    wait_for(ARRIVED(PUT(READY)));
    stop();
    end(true);
    assert_false(control.serving);
}

static void test_stop_while_loading(void **state)
{
    static const struct rule r[RULES_MAX] = { { LOAD, PASSED(PUT(STOP)) } };
    int result;

    (void)state;
    begin(r, 1, true);
    wait_for(ARRIVED(LOAD));
    stop();
    wait_for(PASSED(PUT(STOPPED)));
    result = sched->result;
    end(true);
    assert_int_equal(result, -ECANCELED);
    assert_false(happened[PASSED(PUT(READY))]);
}

/* --- who comes before the model does -----------------------------------------------------------
 */

static int say_hello(uint16_t features)
{
    const struct handshake_hello hello = { .magic = HANDSHAKE_MAGIC,
                                           .version = HANDSHAKE_VERSION,
                                           .features = features };
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, config.socket, strlen(config.socket));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(send(fd, &hello, sizeof(hello), 0), sizeof(hello));
    return fd;
}

static void hears(int fd, enum handshake_status status, unsigned percent)
{
    struct handshake_answer a = { .status = 77 };

    assert_int_equal(recv(fd, &a, sizeof(a), 0), sizeof(a)); /* descriptors are dropped */
    assert_int_equal(a.status, status);
    assert_int_equal(a.version, HANDSHAKE_VERSION);
    assert_int_equal(a.percent, percent);
}

/* Behind whatever the loader says, which depends on the machine. */
static void is_let_in(int fd)
{
    struct handshake_answer a;

    do
        assert_int_equal(recv(fd, &a, sizeof(a), 0), sizeof(a));
    while (a.status == HANDSHAKE_LOADING);
    assert_int_equal(a.status, HANDSHAKE_OK);
}

/* Who asks for it hears how far the model is, at once and when it changes, then the answer. Who
 * does not know of that hears the answer alone. The place of who leaves meanwhile is free again. */
static void test_wait_for_model(void **state)
{
    static const struct rule r[RULES_MAX] = { { LOAD, PASSED(TEST) } };
    int told, old, left;

    (void)state;
    begin(r, 2, true);
    wait_for(ARRIVED(LOAD));
    left = say_hello(HANDSHAKE_WANTS_PROGRESS);
    hears(left, HANDSHAKE_LOADING, 0);
    old = say_hello(0);
    assert_int_equal(close(left), 0);
    told = say_hello(HANDSHAKE_WANTS_PROGRESS);
    hears(told, HANDSHAKE_LOADING, 0);
    atomic_store(&sched->loaded, 43);
    hears(told, HANDSHAKE_LOADING, 43);
    is_refused("2 clients are connected");
    pass(TEST);
    is_let_in(told);
    hears(old, HANDSHAKE_OK, 0);
    stop();
    end(true);
    (void)close(told);
    (void)close(old);
}

/* It hears that it waits for nothing. */
static void test_model_fails_while_waiting(void **state)
{
    static const struct rule r[RULES_MAX] = { { LOAD, PASSED(TEST) } };
    struct handshake_answer a;
    int fd;

    (void)state;
    begin(r, 1, true);
    wait_for(ARRIVED(LOAD));
    fd = say_hello(HANDSHAKE_WANTS_PROGRESS);
    hears(fd, HANDSHAKE_LOADING, 0);
    (void)scratch_path(config.model, "no-such-model.gguf");
    pass(TEST);
    end(true);
    assert_int_equal(recv(fd, &a, sizeof(a), 0), sizeof(a));
    assert_int_equal(a.status, HANDSHAKE_STOPPING);
    assert_non_null(strstr(a.text, "could not load"));
    (void)close(fd);
}

static void test_stop_while_waiting(void **state)
{
    static const struct rule r[RULES_MAX] = { { LOAD, PASSED(PUT(STOP)) } };
    int fd;

    (void)state;
    begin(r, 1, true);
    wait_for(ARRIVED(LOAD));
    fd = say_hello(HANDSHAKE_WANTS_PROGRESS);
    hears(fd, HANDSHAKE_LOADING, 0);
    stop();
    hears(fd, HANDSHAKE_STOPPING, 0);
    end(true);
    (void)close(fd);
}

/* Whoever comes while the scheduler ends gets a word. */
static void test_connect_while_stopping(void **state)
{
    static const struct rule r[RULES_MAX] = { { PUT(STOPPED), PASSED(TEST) } };

    (void)state;
    begin(r, 1, true);
    wait_for(PASSED(TAKE(READY)));
    stop();
    wait_for(ARRIVED(PUT(STOPPED)));
    is_refused("shutting down");
    pass(TEST);
    end(true);
}

/* --- clients -----------------------------------------------------------------------------------
 */

static void test_stop_crosses_adopt(void **state)
{
    static const struct rule r[RULES_MAX] = { { TAKE(ADOPT), PASSED(PUT(STOP)) } };
    struct hostile h;

    (void)state;
    begin(r, 1, true);
    wait_for(PASSED(TAKE(READY)));
    come_in(&h);
    wait_for(ARRIVED(TAKE(ADOPT)));
    stop();
    assert_true(hostile_was_closed(&h, DAEMON_FIXTURE_PATIENCE_MS));
    end(true);
    hostile_close(&h);
}

static void test_death_crosses_adopt(void **state)
{
    static const struct rule r[RULES_MAX] = { { TAKE(ADOPT), PASSED(PUT(DEAD)) } };
    struct hostile h;

    (void)state;
    begin(r, 1, true);
    wait_for(PASSED(TAKE(READY)));
    come_in(&h);
    hostile_close(&h);
    wait_for(PASSED(TAKE(GONE)));
    set_rules(NULL);
    come_in(&h); /* the place is free */
    stop();
    end(true);
    hostile_close(&h);
}

/* The scheduler closes a client that broke the protocol while its death is under way. */
static void test_death_crosses_burial(void **state)
{
    static const struct rule r[RULES_MAX] = { { PUT(DEAD), PASSED(PUT(GONE)) } };
    struct hostile h;

    (void)state;
    begin(r, 1, true);
    wait_for(PASSED(TAKE(READY)));
    for (int i = 0; i < 3; i++) {
        forget(PASSED(TAKE(GONE)));
        forget(PASSED(PUT(GONE)));
        come_in(&h);
        *hostile_word(&h, HOSTILE_C2S, HOSTILE_TURN) = 77;
        shutdown(h.sock, SHUT_RDWR);
        hostile_ring(&h);
        wait_for(PASSED(TAKE(GONE)));
        hostile_close(&h);
    }
    stop();
    end(true);
}

/* Its place is taken as long as the scheduler has not let go of it. */
static void test_burial_takes_long(void **state)
{
    static const struct rule r[RULES_MAX] = { { PUT(GONE), PASSED(TEST) } };
    struct hostile h;

    (void)state;
    begin(r, 1, true);
    wait_for(PASSED(TAKE(READY)));
    come_in(&h);
    hostile_close(&h);
    wait_for(ARRIVED(PUT(GONE)));
    is_refused("is the limit");
    pass(TEST);
    wait_for(PASSED(TAKE(GONE)));
    come_in(&h);
    stop();
    end(true);
    hostile_close(&h);
}

static void test_death_crosses_the_end(void **state)
{
    static const struct rule r[RULES_MAX] = { { TAKE(STOP), ARRIVED(PUT(DEAD)) },
                                              { PUT(DEAD), PASSED(PUT(STOPPED)) } };
    struct hostile h;

    (void)state;
    begin(r, 2, true);
    wait_for(PASSED(TAKE(READY)));
    come_in(&h);
    wait_for(PASSED(TAKE(ADOPT)));
    stop();
    wait_for(PASSED(PUT(STOP)));
    hostile_close(&h);
    end(true);
}

/* --- the mailbox's size: the scheduler is this test --------------------------------------------
 */

static uint64_t take(enum mailbox_kind kind)
{
    struct mailbox_letter l;

    while (!mailbox_take(&to_sched, &l))
        (void)sched_yield();
    assert_int_equal(l.kind, kind);
    if (kind == MAILBOX_ADOPT)
        chan_close(l.chan);
    return l.client;
}

/* Until that many letters wait for the scheduler. */
static void wait_for_letters(uint32_t n)
{
    double limit = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;

    while (atomic_load(&to_sched.tail) - atomic_load(&to_sched.head) < n &&
           daemon_fixture_ms() < limit)
        (void)usleep(100);
    assert_int_equal(atomic_load(&to_sched.tail) - atomic_load(&to_sched.head), n);
}

/* All places change hands while the scheduler, which has found out by itself that the first ones
 * broke the protocol, takes no letter. */
static void fill(uint32_t n)
{
    struct mailbox_letter l = { .kind = MAILBOX_READY };
    struct hostile *h = calloc(n, sizeof(*h));
    uint64_t *ids = calloc(n, sizeof(*ids));

    assert_true(h && ids);
    begin(NULL, n, false);
    sched->serving = (struct sched_serving){ .status = "serving" };
    mailbox_put(&from_sched, &l);
    for (uint32_t i = 0; i < n; i++)
        come_in(&h[i]);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = take(MAILBOX_ADOPT);
    for (uint32_t i = 0; i < n; i++)
        hostile_close(&h[i]);
    wait_for_letters(n);
    for (uint32_t i = 0; i < n; i++)
        mailbox_put(&from_sched,
                    &(struct mailbox_letter){ .kind = MAILBOX_GONE, .client = ids[i] });
    for (uint32_t i = 0; i < n; i++) {
        while (hostile_connect(&h[i], config.socket) < 0)
            (void)usleep(100); /* its place is not free yet */
    }
    for (uint32_t i = 0; i < n; i++)
        hostile_close(&h[i]);
    stop();
    wait_for_letters(3 * n + 1);
    for (uint32_t i = 0; i < n; i++)
        (void)take(MAILBOX_DEAD);
    for (uint32_t i = 0; i < 2 * n + 1; i++) {
        assert_true(mailbox_take(&to_sched, &l));
        if (l.kind == MAILBOX_ADOPT)
            chan_close(l.chan);
    }
    l.kind = MAILBOX_STOPPED;
    mailbox_put(&from_sched, &l);
    end(false);
    free(h);
    free(ids);
}

static void test_three_letters_a_place(void **state)
{
    static const uint32_t sizes[] = { 1, 2, 6, 50, 100 };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        fill(sizes[i]);
}

/* --- a pause in accepting ----------------------------------------------------------------------
 */

static struct fault failed_call;

/* The first call of this thread that can fail does. */
static void *run_control_and_fail(void *arg)
{
    void *r;

    fault_arm(1);
    r = run_control(arg);
    (void)fault_disarm(&failed_call);
    return r;
}

/* The end of a pause, at which the listener can't be waited for: there is a later end. */
static void test_pause_ends_though_a_watch_fails(void **state)
{
    uint64_t failed = fault_n_failed();
    struct hostile h;

    (void)state;
    prepare(NULL, 1);
    assert_int_equal(epoll_ctl(control.epoll, EPOLL_CTL_DEL, listener.fd, NULL), 0);
    control.paused = true;
    assert_int_equal(pthread_create(&control_thread, NULL, run_control_and_fail, &control), 0);
    while (fault_n_failed() == failed) /* before a letter of the scheduler's is read */
        (void)usleep(100);
    assert_int_equal(pthread_create(&sched_thread, NULL, sched_main, sched), 0);
    come_in(&h);
    stop();
    end(true);
    hostile_close(&h);
    assert_string_equal(failed_call.name, "epoll_ctl");
}

static int set_up(void **state)
{
    struct rlimit l;

    (void)state;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
    return control_block_signals();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_crosses_ready),
        cmocka_unit_test(test_stop_while_loading),
        cmocka_unit_test(test_wait_for_model),
        cmocka_unit_test(test_stop_while_waiting),
        cmocka_unit_test(test_model_fails_while_waiting),
        cmocka_unit_test(test_connect_while_stopping),
        cmocka_unit_test(test_stop_crosses_adopt),
        cmocka_unit_test(test_death_crosses_adopt),
        cmocka_unit_test(test_death_crosses_burial),
        cmocka_unit_test(test_burial_takes_long),
        cmocka_unit_test(test_death_crosses_the_end),
        cmocka_unit_test(test_three_letters_a_place),
        cmocka_unit_test(test_pause_ends_though_a_watch_fails),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
