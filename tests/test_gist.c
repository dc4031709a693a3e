/* tests/test_gist.c - libgist's calls, one after the other and many at once. Would catch: libgist
 * that loses an answer, mixes up two, hears no cancel, hangs, or says nothing of use when the
 * daemon refuses.
 */
#include "tests/support/fake_client.h"

#include <errno.h>
#include <glob.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* --- a well-behaved daemon -------------------------------------------------------------------- */

static void test_a_conversation(void **state)
{
    struct fake_heard h = { 0 };
    struct gist_result result;
    struct gist_usage usage;
    struct gist_info info;
    gist_session *s;

    (void)state;
    fake_begin(fake_plain, NULL);
    gist_info(fake_conn, &info);
    assert_string_equal(info.version, "0.0-fake");
    assert_string_equal(info.model, "fake model");
    assert_int_equal(info.n_vocab, 1000);
    assert_int_equal(info.chat, 1);
    assert_int_equal(gist_ping(fake_conn), 0);
    s = fake_open();
    assert_int_equal(gist_session_id(s), 77);
    assert_int_equal(gist_append_text(s, "The capital", 11, 0, &usage), 0);
    assert_int_equal(usage.computed_tokens, 5);
    assert_int_equal(gist_generate(s, NULL, fake_on_text, &h, &result), 0);
    assert_string_equal(h.text, "Hello, world");
    assert_int_equal(h.n_ids, 4);
    assert_int_equal(result.reason, GIST_STOP);
    assert_int_equal(result.usage.prompt_tokens, 3);
    assert_int_equal(result.usage.hydrated_tokens, 4);
    assert_int_equal(result.usage.hydrated_disk_tokens, 5);
    assert_int_equal(result.usage.recomputed_tokens, 6);
    assert_int_equal(result.usage.missed_tokens, 7);
    assert_int_equal(gist_generate(s, NULL, NULL, NULL, NULL), 0);
    gist_close(s);
    gist_close(NULL);
    assert_int_equal(gist_ping(fake_conn), 0);
    fake_end();
}

/* The first word of the daemon is late: 30 of 100 were found, 40 are there. */
static void script_progress(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(d->req.u.open_session.memory.automatic);
    FAKE_CHECK(d->req.u.open_session.memory.compressor == WIRE_COMPRESSOR_UNSAID);
    fake_answer(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(!d->req.u.append.progress);
    fake_answer(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.progress);
    for (uint32_t n = 40; n <= 80; n += 20)
        fake_reply(d,
                   (struct wire_rep){ .kind = WIRE_APPENDED,
                                      .u.appended = { .n_read = n, .n_all = 100, .n_found = 30 } },
                   NULL, 0);
    fake_answer(d);
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(d->req.u.open_session.memory.automatic);
    FAKE_CHECK(d->req.u.open_session.memory.budget == 500);
    fake_answer(d);
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(!d->req.u.open_session.memory.automatic);
    fake_answer(d);
    fake_drain(d);
}

struct progress_heard {
    uint32_t n[8], n_calls;
};

static void on_progress(void *arg, uint32_t n_read, uint32_t n_tokens)
{
    struct progress_heard *h = arg;

    assert_true(h->n_calls < 8 && n_tokens == 100);
    h->n[h->n_calls++] = n_read;
}

static void test_automatic_and_progress(void **state)
{
    const struct gist_memory small = { .size = sizeof(small), .budget = 500, .flags = GIST_AUTO };
    struct gist_policy p = { .size = sizeof(p), .flags = GIST_AUTO };
    struct progress_heard h = { .n_calls = 0 };
    gist_session *s;

    (void)state;
    fake_begin(script_progress, NULL);
    assert_int_equal(gist_open(fake_conn, &p, &s), 0);
    assert_int_equal(gist_append_text(s, "a", 1, 0, NULL), 0);
    gist_on_progress(s, on_progress, &h);
    assert_int_equal(gist_append_text(s, "a", 1, 0, NULL), 0);
    assert_int_equal(h.n_calls, 4);
    assert_memory_equal(h.n, ((uint32_t[]){ 30, 40, 60, 80 }), 16);
    p.flags = 0;
    p.memory = &small;
    assert_int_equal(gist_open(fake_conn, &p, &s), 0);
    assert_int_equal(gist_open(fake_conn, NULL, &s), 0); /* means what it meant */
    fake_end();
}

static void script_fields(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(d->req.u.open_session.segment == 128);
    FAKE_CHECK(d->req.u.open_session.priority == WIRE_BACKGROUND);
    FAKE_CHECK(d->req.u.open_session.public_prefix && !d->req.u.open_session.is_private);
    FAKE_CHECK(strcmp(d->req.u.open_session.label, "mine") == 0);
    FAKE_CHECK(d->req.u.open_session.memory.compressor == WIRE_SELECT);
    FAKE_CHECK(d->req.u.open_session.memory.ratio == 16);
    FAKE_CHECK(d->req.u.open_session.memory.sinks == UINT32_MAX);
    FAKE_CHECK(d->req.u.open_session.memory.keep_tail == 33);
    FAKE_CHECK(d->req.u.open_session.memory.budget == 4000);
    FAKE_CHECK(d->req.u.open_session.memory.has_hydrate);
    FAKE_CHECK(d->req.u.open_session.memory.hydrate == 7);
    FAKE_CHECK(d->req.u.open_session.memory.late && !d->req.u.open_session.memory.fixed);
    FAKE_CHECK(strcmp(d->req.u.open_session.memory.adapter, "one") == 0);
    FAKE_CHECK(d->req.u.open_session.n_documents == 2);
    FAKE_CHECK(strcmp(d->req.u.open_session.documents[1], "handbook") == 0);
    fake_answer(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.session == 77 && d->req.u.append.kind == WIRE_APPEND_CHAT);
    FAKE_CHECK(d->req.u.append.n_messages == 2 && d->req.u.append.open_answer);
    FAKE_CHECK(strcmp(d->req.u.append.messages[1].role, "user") == 0);
    FAKE_CHECK(d->req.u.append.messages[0].text_len == 3);
    FAKE_CHECK(d->req.bulk_len == 8 && memcmp(d->bulk, "be shor?", 8) == 0);
    fake_answer(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_TOKENS && d->req.bulk_len == 12);
    FAKE_CHECK(memcmp(d->bulk, (uint32_t[]){ 3, 2, 1 }, 12) == 0);
    fake_answer(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_TEXT && d->req.u.append.special);
    FAKE_CHECK(!d->req.u.append.more && d->req.bulk_len == 0);
    fake_answer(d);
    fake_expect(d, WIRE_GENERATE);
    FAKE_CHECK(d->req.u.generate.max_tokens == 9 && d->req.u.generate.seed == 1234567890123u);
    FAKE_CHECK(d->req.u.generate.temperature == 0.5f && d->req.u.generate.top_k == 8);
    FAKE_CHECK(d->req.u.generate.top_p == 0.25f && d->req.u.generate.min_p == 0.125f);
    FAKE_CHECK(d->req.u.generate.repeat_penalty == 1.5f && d->req.u.generate.repeat_last_n == 32);
    FAKE_CHECK(d->req.u.generate.n_stops == 2 && strcmp(d->req.u.generate.stops[1], "b") == 0);
    FAKE_CHECK(d->req.u.generate.ignore_eog);
    fake_answer(d);
    fake_drain(d);
}

static void test_every_field_arrives(void **state)
{
    const struct gist_memory memory = { sizeof(memory), GIST_SELECT, 16, GIST_NO_SINKS, 33, "one",
                                        4000,           GIST_LATE,   7 };
    const struct gist_policy policy = { .size = sizeof(policy),
                                        .segment = 128,
                                        .priority = GIST_BACKGROUND,
                                        .label = "mine",
                                        .memory = &memory,
                                        .flags = GIST_PUBLIC,
                                        .documents = (const char *const[]){ "a", "handbook" },
                                        .n_documents = 2 };
    const struct gist_message chat[] = { { "system", "be " }, { "user", "shor?" } };
    const struct gist_sampling sampling = { sizeof(sampling),
                                            9,
                                            0.5f,
                                            8,
                                            0.25f,
                                            0.125f,
                                            1.5f,
                                            32,
                                            1234567890123u,
                                            (const char *const[]){ "a", "b" },
                                            2,
                                            1,
                                            0,
                                            GIST_ANY_TEXT,
                                            NULL,
                                            0,
                                            0,
                                            NULL,
                                            0 };
    gist_session *s;

    (void)state;
    fake_begin(script_fields, NULL);
    assert_int_equal(gist_open(fake_conn, &policy, &s), 0);
    assert_int_equal(gist_append_chat(s, chat, 2, GIST_OPEN_ANSWER, NULL), 0);
    assert_int_equal(gist_append_tokens(s, (uint32_t[]){ 3, 2, 1 }, 3, NULL), 0);
    assert_int_equal(gist_append_text(s, "", 0, GIST_SPECIAL, NULL), 0);
    assert_int_equal(gist_generate(s, &sampling, NULL, NULL, NULL), 0);
    fake_end();
}

static void test_sized_structs(void **state)
{
    struct {
        struct gist_policy p;
        uint64_t later;
    } newer = { .p = { .size = sizeof(newer) } };
    struct gist_policy none = { 0 }, realm = { .size = sizeof(realm), .realm = "anna" };
    const struct gist_sampling json = { .size = sizeof(json), .grammar = GIST_JSON_SCHEMA },
                               logprobs = { .size = sizeof(logprobs), .logprobs = 1 };
    gist_session *s;

    (void)state;
    fake_start_older(&fake_peer, fake_plain, NULL);
    assert_int_equal(gist_connect(fake_peer.path, "test", &fake_conn), 0);
    assert_int_equal(gist_open(fake_conn, &newer.p, &s), 0);
    newer.later = 1;
    assert_int_equal(gist_open(fake_conn, &newer.p, &s), -EINVAL);
    assert_int_equal(gist_error_code(fake_conn), GIST_E_BAD_REQUEST);
    newer.later = 0;
    newer.p.flags = 0x80;
    assert_int_equal(gist_open(fake_conn, &newer.p, &s), -EINVAL);
    assert_int_equal(gist_open(fake_conn, &none, &s), -EINVAL);
    none.size = sizeof(size_t) + sizeof(uint32_t); /* an older caller */
    assert_int_equal(gist_open(fake_conn, &none, &s), 0);
    assert_int_equal(gist_append_text(s, "x", 1, 0x80, NULL), -EINVAL);
    /* This daemon is older than realms: it would tell everybody. */
    assert_int_equal(gist_open(fake_conn, &realm, &s), -ENOTSUP);
    /* And than grammars: it would answer with any text. */
    assert_int_equal(gist_generate(s, &json, NULL, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_generate(s, &logprobs, NULL, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_append_chat(s, NULL, 2000, 0, NULL), -EMSGSIZE);
    fake_end();
}

/* --- many at once ----------------------------------------------------------------------------- */

#define MANY 100

/* Lets the client fill the ring, then fills its own, and only then reads: whoever waits for room
 * without reading waits for ever. */
static void script_flood(struct fake_daemon *d, void *arg)
{
    uint64_t ids[MANY];
    int n = 0;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_answer(d);
    sleep_ms(50);
    while (n < MANY) {
        fake_expect(d, WIRE_GENERATE);
        FAKE_CHECK(strcmp(d->req.u.generate.stops[0], "stop here") == 0);
        ids[n++] = d->req.id;
        for (int i = 0; i < 20; i++)
            fake_text(d, 0, "piece");
    }
    for (int i = MANY - 1; i >= 0; i--) /* out of order, too */
        fake_done(d, ids[i], WIRE_REASON_LENGTH);
    while (fake_take(d))
        fake_answer(d);
}

static void start_many(struct fake_heard *h)
{
    char stop[] = "stop here";
    const char *list[] = { stop };
    struct gist_sampling sampling = { .size = sizeof(sampling), .stop = list, .n_stop = 1 };
    gist_session *s = fake_open();

    for (int i = 0; i < MANY; i++)
        assert_int_equal(gist_generate_start(s, &sampling, fake_on_text, fake_on_done, &h[i], NULL),
                         0);
    memset(stop, 'X', sizeof(stop) - 1); /* copied, where it was not sent yet */
}

static void test_flood(void **state)
{
    struct fake_heard *h = calloc(MANY, sizeof(*h));

    (void)state;
    fake_begin(script_flood, NULL);
    start_many(h);
    assert_int_equal(gist_ping(fake_conn), 0); /* behind all of them */
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(h[i].done, 1);
        assert_int_equal(h[i].err, 0);
        assert_int_equal(h[i].n_calls, 20);
    }
    fake_end();
    free(h);
}

static void test_flood_by_descriptor(void **state)
{
    struct fake_heard *h = calloc(MANY, sizeof(*h));
    int n_done = 0;

    (void)state;
    fake_begin(script_flood, NULL);
    assert_true(gist_fd(fake_conn) >= 0);
    start_many(h);
    while (n_done < MANY) {
        struct pollfd p = { gist_fd(fake_conn), POLLIN, 0 };

        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS),
                         1); /* a missed message would time out here */
        assert_true(gist_dispatch(fake_conn) >= 0);
        n_done = 0;
        for (int i = 0; i < MANY; i++)
            n_done += h[i].done;
    }
    fake_end();
    free(h);
}

/* An idle descriptor is quiet, also after other calls; and a message makes it readable whenever it
 * comes. */
static void script_late(struct fake_daemon *d, void *arg)
{
    uint64_t id;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_answer(d);
    fake_expect(d, WIRE_GENERATE);
    id = d->req.id;
    for (int i = 0; i < 2; i++) { /* after the second the client waits */
        fake_expect(d, WIRE_PING);
        fake_last(d, (struct wire_rep){ .kind = WIRE_PONG });
    }
    sleep_ms(50);
    for (int i = 0; i < 50; i++) {
        fake_text(d, id, "x");
        sleep_ms(i % 3);
    }
    fake_done(d, id, WIRE_REASON_STOP);
    fake_drain(d);
}

static void test_descriptor(void **state)
{
    struct fake_heard h = { 0 };
    struct pollfd p = { .events = POLLIN };
    int quiet = 0;

    (void)state;
    fake_begin(script_late, NULL);
    p.fd = gist_fd(fake_conn);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_int_equal(gist_generate_start(fake_open(), NULL, fake_on_text, fake_on_done, &h, NULL),
                     0);
    assert_int_equal(gist_ping(fake_conn), 0);
    while (poll(&p, 1, 0) == 1) { /* what the calls left over */
        assert_true(gist_dispatch(fake_conn) >= 0);
        assert_true(++quiet < 10);
    }
    assert_int_equal(gist_ping_start(fake_conn, NULL, NULL, NULL), 0);
    while (!h.done) {
        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(fake_conn) >= 0);
    }
    assert_int_equal(h.n_calls, 50);
    (void)gist_dispatch(fake_conn);
    assert_int_equal(poll(&p, 1, 20), 0);
    fake_end();
}

/* --- cancelling ------------------------------------------------------------------------------- */

/* Says something for ever, until it is told to stop. */
static void script_endless(struct fake_daemon *d, void *arg)
{
    bool there;
    uint64_t id;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_answer(d);
    for (;;) {
        while ((there = fake_take(d)) && d->req.kind != WIRE_GENERATE)
            fake_answer(d);
        if (!there)
            return;
        id = d->req.id;
        fake_release(d);
        while (!chan_readable(d->chan)) {
            fake_text(d, id, "and so on ");
            sleep_ms(1);
        }
        fake_expect(d, WIRE_CANCEL);
        FAKE_CHECK(d->req.u.cancel.request == id);
        fake_reply(
            d, (struct wire_rep){ .kind = WIRE_CANCELLED, .last = true, .u.cancelled.found = true },
            NULL, 0);
        fake_reply(
            d,
            (struct wire_rep){ .id = id,
                               .last = true,
                               .kind = WIRE_ERROR,
                               .u.error = { .code = WIRE_E_CANCELLED, .text = "cancelled" } },
            NULL, 0);
    }
}

static void test_the_reader_cancels(void **state)
{
    struct fake_heard h = { .stop_at = 3 };

    (void)state;
    fake_begin(script_endless, NULL);
    assert_int_equal(gist_generate(fake_open(), NULL, fake_on_text, &h, NULL), -ECANCELED);
    assert_int_equal(gist_error_code(fake_conn), GIST_E_CANCELLED);
    assert_int_equal(h.n_calls, 3); /* and no further call */
    assert_int_equal(gist_ping(fake_conn), 0);
    fake_end();
}

static void test_cancel_by_number(void **state)
{
    struct fake_heard h = { 0 };
    uint64_t id;

    (void)state;
    fake_begin(script_endless, NULL);
    assert_int_equal(gist_generate_start(fake_open(), NULL, fake_on_text, fake_on_done, &h, &id),
                     0);
    while (h.n_calls < 3) {
        assert_int_equal(
            poll(&(struct pollfd){ gist_fd(fake_conn), POLLIN, 0 }, 1, FAKE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(fake_conn) >= 0);
    }
    assert_int_equal(gist_cancel(fake_conn, id + 1000), -ENOENT);
    assert_int_equal(gist_cancel(fake_conn, id), 0);
    assert_int_equal(gist_cancel(fake_conn, id), 0);
    while (!h.done) {
        assert_int_equal(
            poll(&(struct pollfd){ gist_fd(fake_conn), POLLIN, 0 }, 1, FAKE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(fake_conn) >= 0);
    }
    assert_int_equal(h.err, -ECANCELED);
    assert_int_equal(gist_cancel(fake_conn, id), -ENOENT);
    fake_end();
}

static atomic_bool cancel_was_heard;

/* Again and again: one that comes before the call is in progress is meant for nobody. */
static void *cancel_soon(void *arg)
{
    while (!atomic_load(&cancel_was_heard)) {
        sleep_ms(30);
        gist_cancel_async(arg);
    }
    return NULL;
}

static void test_cancel_from_a_thread(void **state)
{
    struct fake_heard h = { 0 };
    gist_session *s;
    pthread_t t;

    (void)state;
    fake_begin(script_endless, NULL);
    s = fake_open();
    gist_cancel_async(fake_conn); /* no call is in progress: meant for nobody */
    assert_int_equal(gist_ping(fake_conn), 0);
    for (int i = 0; i < 3; i++) {
        atomic_store(&cancel_was_heard, false);
        assert_int_equal(pthread_create(&t, NULL, cancel_soon, fake_conn), 0);
        assert_int_equal(gist_generate(s, NULL, fake_on_text, &h, NULL), -ECANCELED);
        atomic_store(&cancel_was_heard, true);
        pthread_join(t, NULL);
    }
    fake_end();
}

static void cancel_by_signal(int sig)
{
    (void)sig;
    gist_cancel_async(fake_conn);
}

static void test_cancel_from_a_signal(void **state)
{
    const struct itimerval soon = { { .tv_usec = 30000 }, { .tv_usec = 30000 } }, never = { 0 };
    struct fake_heard h = { 0 };
    gist_session *s;

    (void)state;
    fake_begin(script_endless, NULL);
    s = fake_open();
    (void)signal(SIGALRM, cancel_by_signal);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
        assert_int_equal(gist_generate(s, NULL, fake_on_text, &h, NULL), -ECANCELED);
        assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    }
    (void)signal(SIGALRM, SIG_DFL);
    fake_end();
}

/* --- refusals --------------------------------------------------------------------------------- */

static void script_errors(struct fake_daemon *d, void *arg)
{
    (void)arg;
    for (int e = 0; e < WIRE_E__N; e++) {
        fake_expect(d, WIRE_PING);
        fake_error(d, (enum wire_error)e, wire_error_name((enum wire_error)e));
    }
    fake_drain(d);
}

static void test_errors(void **state)
{
    static const struct {
        enum gist_code code;
        int err;
    } want[] = {
        { GIST_E_INTERNAL, -EIO },
        { GIST_E_BAD_REQUEST, -EINVAL },
        { GIST_E_NOT_FOUND, -ENOENT },
        { GIST_E_BUSY, -EBUSY },
        { GIST_E_CONTEXT_LENGTH_EXCEEDED, -E2BIG },
        { GIST_E_POOL_FULL, -ENOSPC },
        { GIST_E_LIMIT, -EDQUOT },
        { GIST_E_CANCELLED, -ECANCELED },
        { GIST_E_UNSUPPORTED, -ENOTSUP },
        { GIST_E_SHUTTING_DOWN, -ESHUTDOWN },
        { GIST_E_NO_MEMORY, -ENOMEM },
        { GIST_E_NAME_EXISTS, -EEXIST },
        { GIST_E_WRONG_MODEL, -EMEDIUMTYPE },
        { GIST_E_STORAGE, -EROFS },
        { GIST_E_DEADLINE, -ETIMEDOUT },
    };

    (void)state;
    fake_begin(script_errors, NULL);
    for (int e = 0; e < WIRE_E__N; e++) {
        assert_int_equal(gist_ping(fake_conn), want[e].err);
        assert_int_equal(gist_error_code(fake_conn), want[e].code);
        assert_string_equal(gist_error(fake_conn), wire_error_name((enum wire_error)e));
    }
    fake_end();
}

static void test_no_daemon(void **state)
{
    gist_conn *c = NULL;

    (void)state;
    assert_int_equal(gist_connect("/nonexistent/gistd.sock", NULL, &c), -ENOENT);
    assert_null(c);
    assert_string_equal(gist_error(NULL), "no daemon at /nonexistent/gistd.sock: start gistd, or "
                                          "set GISTD_SOCKET");
    assert_int_equal(gist_error_code(NULL), GIST_E_TRANSPORT);
    gist_disconnect(NULL);
}

static void on_done_waits(void *arg, int err, const struct gist_result *result)
{
    (void)err;
    (void)result;
    *(int *)arg = gist_ping(fake_conn);
}

static void test_callbacks_must_not_wait(void **state)
{
    int got = 0;

    (void)state;
    fake_begin(fake_plain, NULL);
    assert_int_equal(gist_append_text_start(fake_open(), "x", 1, 0, on_done_waits, &got, NULL), 0);
    assert_int_equal(gist_ping(fake_conn), 0);
    assert_int_equal(got, -EDEADLK);
    fake_end();
}

static void on_done_starts(void *arg, int err, const struct gist_result *result)
{
    struct {
        gist_session *s;
        int n;
    } *x = arg;

    (void)err;
    (void)result;
    if (++x->n < 50)
        assert_int_equal(gist_append_text_start(x->s, "y", 1, 0, on_done_starts, arg, NULL), 0);
}

static void test_callbacks_may_start(void **state)
{
    struct {
        gist_session *s;
        int n;
    } x = { 0 };

    (void)state;
    fake_begin(fake_plain, NULL);
    x.s = fake_open();
    on_done_starts(&x, 0, NULL);
    while (x.n < 50)
        assert_int_equal(gist_ping(fake_conn), 0);
    fake_end();
}

/* --- the library ------------------------------------------------------------------------------ */

/* gist.h and the parts that it includes; free() it. */
static char *whole_header(void)
{
    const size_t cap = 256 * 1024;
    char *all = malloc(cap);
    size_t len = 0;
    glob_t found;

    assert_non_null(all);
    assert_int_equal(glob("client/gist.h", 0, NULL, &found), 0);
    assert_int_equal(glob("client/gist/*.h", GLOB_APPEND, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *f = fopen(found.gl_pathv[i], "r");

        assert_non_null(f);
        len += fread(all + len, 1, cap - 1 - len, f);
        fclose(f);
    }
    assert_true(len < cap - 1);
    all[len] = '\0';
    globfree(&found);
    return all;
}

/* What the header exports and nothing else is visible in the shared library. */
static void test_symbols(void **state)
{
    const char *build = getenv("BUILD");
    char cmd[256], line[256], *header;
    int n = 0;
    FILE *f;

    (void)state;
    (void)snprintf(cmd, sizeof(cmd), "%s/libgist.so.0", build ? build : "build/release");
    if (access(cmd, R_OK) < 0)
        skip();
    header = whole_header();
    (void)snprintf(cmd, sizeof(cmd), "nm -D --defined-only %s/libgist.so.0",
                   build ? build : "build/release");
    f = popen(cmd, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        char kind, name[128], call[140];

        if (sscanf(line, "%*s %c %127s", &kind, name) != 2)
            continue;
        (void)snprintf(call, sizeof(call), "%s(", name);
        if (strncmp(name, "gist_", 5) != 0 || !strstr(header, call))
            print_error("exported: %s\n", name);
        assert_true(strncmp(name, "gist_", 5) == 0 && strstr(header, call));
        n++;
    }
    assert_int_equal(pclose(f), 0);
    for (const char *p = header; (p = strstr(p, "\nGIST_API ")); p++)
        n--;
    assert_int_equal(n, 0); /* and all of them are */
    free(header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_conversation),
        cmocka_unit_test(test_automatic_and_progress),
        cmocka_unit_test(test_every_field_arrives),
        cmocka_unit_test(test_sized_structs),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_flood_by_descriptor),
        cmocka_unit_test(test_descriptor),
        cmocka_unit_test(test_the_reader_cancels),
        cmocka_unit_test(test_cancel_by_number),
        cmocka_unit_test(test_cancel_from_a_thread),
        cmocka_unit_test(test_cancel_from_a_signal),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_no_daemon),
        cmocka_unit_test(test_callbacks_must_not_wait),
        cmocka_unit_test(test_callbacks_may_start),
        cmocka_unit_test(test_symbols),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
