/* Would catch: libgist that loses an answer, mixes up two, hangs, crashes, or says nothing of use
 * when the daemon refuses, lies, stalls or dies. The daemon is a scripted one; see fake_daemon.h.
 */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"
#include "tests/support/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <math.h>
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

static struct fake_daemon fake;
static gist_conn *conn;

static void begin(fake_script *script, void *arg)
{
    fake_start(&fake, script, arg);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
}

static void end(void)
{
    gist_disconnect(conn);
    conn = NULL;
    assert_int_equal(fake_stop(&fake), 0);
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* --- a well-behaved daemon -------------------------------------------------------------------- */

/* Answers every kind of request in the plainest way. */
static void answer_one(struct fake_daemon *d)
{
    switch (d->req.kind) {
    case WIRE_OPEN_SESSION:
        fake_last(d,
                  (struct wire_rep){ .kind = WIRE_SESSION_OPENED,
                                     .u.session_opened = { .session = 77, .context_max = 512 } });
        break;
    case WIRE_APPEND:
        fake_last(d, (struct wire_rep){ .kind = WIRE_APPENDED,
                                        .u.appended = { 5, { .computed_tokens = 5 } } });
        break;
    case WIRE_GENERATE:
        fake_text(d, 0, "Hello");
        fake_text(d, 0, ", world");
        fake_done(d, 0, WIRE_REASON_STOP);
        break;
    case WIRE_CANCEL:
        fake_last(d, (struct wire_rep){ .kind = WIRE_CANCELLED });
        break;
    case WIRE_CLOSE_SESSION:
        fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_CLOSED });
        break;
    case WIRE_PING:
        fake_last(d, (struct wire_rep){ .kind = WIRE_PONG });
        break;
    default:
        fake_error(d, WIRE_E_UNSUPPORTED, "not in this script");
    }
}

static void script_plain(struct fake_daemon *d, void *arg)
{
    (void)arg;
    while (fake_take(d))
        answer_one(d);
}

static gist_session *open_session(void)
{
    gist_session *s = NULL;

    assert_int_equal(gist_open(conn, NULL, &s), 0);
    return s;
}

struct heard {
    char text[4096];
    size_t len, n_ids, n_calls, stop_at;
    int done, err;
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct heard *h = arg;

    if (h->len + len < sizeof(h->text))
        memcpy(h->text + h->len, text, len);
    h->len += len;
    h->n_ids += n_ids;
    assert_int_equal(ids[0], 1);
    return ++h->n_calls == h->stop_at;
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct heard *h = arg;

    h->done++;
    h->err = err;
    assert_true(err < 0 || result); /* what was cut has both */
}

static void test_a_conversation(void **state)
{
    struct heard h = { 0 };
    struct gist_result result;
    struct gist_usage usage;
    struct gist_info info;
    gist_session *s;

    (void)state;
    begin(script_plain, NULL);
    gist_info(conn, &info);
    assert_string_equal(info.version, "0.0-fake");
    assert_string_equal(info.model, "fake model");
    assert_int_equal(info.n_vocab, 1000);
    assert_int_equal(info.chat, 1);
    assert_int_equal(gist_ping(conn), 0);
    s = open_session();
    assert_int_equal(gist_session_id(s), 77);
    assert_int_equal(gist_append_text(s, "The capital", 11, 0, &usage), 0);
    assert_int_equal(usage.computed_tokens, 5);
    assert_int_equal(gist_generate(s, NULL, on_text, &h, &result), 0);
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
    assert_int_equal(gist_ping(conn), 0);
    end();
}

/* The first word of the daemon is late: 30 of 100 were found, 40 are there. */
static void script_progress(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(d->req.u.open_session.memory.automatic);
    FAKE_CHECK(d->req.u.open_session.memory.compressor == WIRE_COMPRESSOR_UNSAID);
    answer_one(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(!d->req.u.append.progress);
    answer_one(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.progress);
    for (uint32_t n = 40; n <= 80; n += 20)
        fake_reply(d,
                   (struct wire_rep){ .kind = WIRE_APPENDED,
                                      .u.appended = { .n_read = n, .n_all = 100, .n_found = 30 } },
                   NULL, 0);
    answer_one(d);
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(d->req.u.open_session.memory.automatic);
    FAKE_CHECK(d->req.u.open_session.memory.budget == 500);
    answer_one(d);
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(!d->req.u.open_session.memory.automatic);
    answer_one(d);
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
    begin(script_progress, NULL);
    assert_int_equal(gist_open(conn, &p, &s), 0);
    assert_int_equal(gist_append_text(s, "a", 1, 0, NULL), 0);
    gist_on_progress(s, on_progress, &h);
    assert_int_equal(gist_append_text(s, "a", 1, 0, NULL), 0);
    assert_int_equal(h.n_calls, 4);
    assert_memory_equal(h.n, ((uint32_t[]){ 30, 40, 60, 80 }), 16);
    p.flags = 0;
    p.memory = &small;
    assert_int_equal(gist_open(conn, &p, &s), 0);
    assert_int_equal(gist_open(conn, NULL, &s), 0); /* means what it meant */
    end();
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
    answer_one(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.session == 77 && d->req.u.append.kind == WIRE_APPEND_CHAT);
    FAKE_CHECK(d->req.u.append.n_messages == 2 && d->req.u.append.open_answer);
    FAKE_CHECK(strcmp(d->req.u.append.messages[1].role, "user") == 0);
    FAKE_CHECK(d->req.u.append.messages[0].text_len == 3);
    FAKE_CHECK(d->req.bulk_len == 8 && memcmp(d->bulk, "be shor?", 8) == 0);
    answer_one(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_TOKENS && d->req.bulk_len == 12);
    FAKE_CHECK(memcmp(d->bulk, (uint32_t[]){ 3, 2, 1 }, 12) == 0);
    answer_one(d);
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_TEXT && d->req.u.append.special);
    FAKE_CHECK(!d->req.u.append.more && d->req.bulk_len == 0);
    answer_one(d);
    fake_expect(d, WIRE_GENERATE);
    FAKE_CHECK(d->req.u.generate.max_tokens == 9 && d->req.u.generate.seed == 1234567890123u);
    FAKE_CHECK(d->req.u.generate.temperature == 0.5f && d->req.u.generate.top_k == 8);
    FAKE_CHECK(d->req.u.generate.top_p == 0.25f && d->req.u.generate.min_p == 0.125f);
    FAKE_CHECK(d->req.u.generate.repeat_penalty == 1.5f && d->req.u.generate.repeat_last_n == 32);
    FAKE_CHECK(d->req.u.generate.n_stops == 2 && strcmp(d->req.u.generate.stops[1], "b") == 0);
    FAKE_CHECK(d->req.u.generate.ignore_eog);
    answer_one(d);
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
    begin(script_fields, NULL);
    assert_int_equal(gist_open(conn, &policy, &s), 0);
    assert_int_equal(gist_append_chat(s, chat, 2, GIST_OPEN_ANSWER, NULL), 0);
    assert_int_equal(gist_append_tokens(s, (uint32_t[]){ 3, 2, 1 }, 3, NULL), 0);
    assert_int_equal(gist_append_text(s, "", 0, GIST_SPECIAL, NULL), 0);
    assert_int_equal(gist_generate(s, &sampling, NULL, NULL, NULL), 0);
    end();
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
    fake_start_older(&fake, script_plain, NULL);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    assert_int_equal(gist_open(conn, &newer.p, &s), 0);
    newer.later = 1;
    assert_int_equal(gist_open(conn, &newer.p, &s), -EINVAL);
    assert_int_equal(gist_error_code(conn), GIST_E_BAD_REQUEST);
    newer.later = 0;
    newer.p.flags = 0x80;
    assert_int_equal(gist_open(conn, &newer.p, &s), -EINVAL);
    assert_int_equal(gist_open(conn, &none, &s), -EINVAL);
    none.size = sizeof(size_t) + sizeof(uint32_t); /* an older caller */
    assert_int_equal(gist_open(conn, &none, &s), 0);
    assert_int_equal(gist_append_text(s, "x", 1, 0x80, NULL), -EINVAL);
    /* This daemon is older than realms: it would tell everybody. */
    assert_int_equal(gist_open(conn, &realm, &s), -ENOTSUP);
    /* And than grammars: it would answer with any text. */
    assert_int_equal(gist_generate(s, &json, NULL, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_generate(s, &logprobs, NULL, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_append_chat(s, NULL, 2000, 0, NULL), -EMSGSIZE);
    end();
}

/* --- long texts ------------------------------------------------------------------------------- */

#define LONG_LEN (1536u * 1024) /* six arenas */

/* Any bytes, but none is zero. */
static char *make_long_text(void)
{
    char *text = malloc(LONG_LEN + 1);
    uint64_t seed = 3;

    for (size_t i = 0; i < LONG_LEN; i++)
        text[i] = (char)(hostile_random(&seed) % 255 + 1);
    text[LONG_LEN] = '\0';
    return text;
}

/* A part's answer that says nothing. */
static void answer_part(struct fake_daemon *d)
{
    if (d->req.kind == WIRE_SCORE)
        fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    else if (d->req.kind == WIRE_DETOKENIZE)
        fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text.text = "" });
    else
        answer_one(d);
}

static bool has_more(const struct wire_req *m)
{
    return m->kind == WIRE_APPEND     ? m->u.append.more
           : m->kind == WIRE_SCORE    ? m->u.score.more
           : m->kind == WIRE_TOKENIZE ? m->u.tokenize.more
                                      : m->u.detokenize.more;
}

/* The long text, or its first len bytes, as the bulk of a request in parts; the last is not
 * answered. */
static void take_long(struct fake_daemon *d, enum wire_req_kind kind, size_t len)
{
    char *want = make_long_text();
    uint64_t at = 0, last_id = 0;

    for (bool more = true; more;) {
        fake_expect(d, kind);
        more = has_more(&d->req);
        FAKE_CHECK(d->req.id > last_id); /* each part is a request of its own */
        last_id = d->req.id;
        FAKE_CHECK(d->req.bulk_len <= CHAN_ARENA_MIN / 4 && at + d->req.bulk_len <= len);
        FAKE_CHECK(memcmp(d->bulk, want + at, d->req.bulk_len) == 0);
        at += d->req.bulk_len;
        if (more)
            answer_part(d);
    }
    FAKE_CHECK(at == len);
    free(want);
}

static void script_long(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    answer_one(d);
    take_long(d, WIRE_APPEND, LONG_LEN);
    answer_one(d);
    fake_drain(d);
}

static void test_long_text(void **state)
{
    char *text = make_long_text();

    (void)state;
    begin(script_long, NULL);
    assert_int_equal(gist_append_text(open_session(), text, LONG_LEN, 0, NULL), 0);
    end();
    free(text);
}

/* The caller's text is gone as soon as the call returned. */
static void test_long_text_without_waiting(void **state)
{
    char *text = make_long_text();
    struct heard h = { 0 };
    uint64_t id = 0;

    (void)state;
    begin(script_long, NULL);
    assert_int_equal(gist_append_text_start(open_session(), text, LONG_LEN, 0, on_done, &h, &id),
                     0);
    memset(text, 0, LONG_LEN);
    free(text);
    assert_true(id != 0);
    while (!h.done) {
        struct pollfd p = { gist_fd(conn), POLLIN, 0 };

        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(conn) >= 0);
    }
    assert_int_equal(h.err, 0);
    end();
}

static void script_refuse_second_part(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    answer_one(d);
    fake_expect(d, WIRE_APPEND);
    answer_one(d);
    fake_expect(d, WIRE_APPEND);
    fake_error(d, WIRE_E_LIMIT, "too long");
    fake_expect(d, WIRE_PING); /* no third part */
    answer_one(d);
    fake_drain(d);
}

static void test_a_part_is_refused(void **state)
{
    char *text = make_long_text();

    (void)state;
    begin(script_refuse_second_part, NULL);
    assert_int_equal(gist_append_text(open_session(), text, LONG_LEN, 0, NULL), -EDQUOT);
    assert_string_equal(gist_error(conn), "too long");
    assert_int_equal(gist_ping(conn), 0);
    end();
    free(text);
}

static void script_long_ids(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    answer_one(d);
    take_long(d, WIRE_APPEND, LONG_LEN);
    FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_TOKENS);
    answer_one(d);
    take_long(d, WIRE_SCORE, LONG_LEN);
    FAKE_CHECK(d->req.u.score.kind == WIRE_SCORE_TOKENS);
    fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    take_long(d, WIRE_DETOKENIZE, LONG_LEN);
    fake_text(d, 0, "long ");
    fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text.text = "text" });
    fake_drain(d);
}

/* Ids, scored in one window so that they can't be cut before they are sent. */
static void test_long_ids(void **state)
{
    struct gist_score_opts opts = { .size = sizeof(opts), .window = LONG_LEN };
    char *bytes = make_long_text(), *text;
    const uint32_t *ids = (const uint32_t *)(const void *)bytes;
    struct gist_score score;
    size_t len;

    (void)state;
    begin(script_long_ids, NULL);
    assert_int_equal(gist_append_tokens(open_session(), ids, LONG_LEN / 4, NULL), 0);
    assert_int_equal(gist_score_tokens(conn, ids, LONG_LEN / 4, &opts, &score), 0);
    assert_int_equal(score.n, 0);
    free(score.ids);
    free(score.logprobs);
    assert_int_equal(gist_detokenize(conn, ids, LONG_LEN / 4, &text, &len), 0);
    assert_string_equal(text, "long text");
    free(text);
    end();
    free(bytes);
}

static void script_long_messages(struct fake_daemon *d, void *arg)
{
    const struct wire_chat_message *m;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    answer_one(d);
    take_long(d, WIRE_APPEND, LONG_LEN);
    FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_CHAT && d->req.u.append.n_messages == 2);
    m = d->req.u.append.messages;
    FAKE_CHECK(strcmp(m[0].role, "system") == 0 && m[0].text_len == 700000);
    FAKE_CHECK(strcmp(m[1].role, "user") == 0 && m[1].text_len == LONG_LEN - 700000);
    FAKE_CHECK(d->req.u.append.open_answer);
    answer_one(d);
    fake_drain(d);
}

static void test_long_messages(void **state)
{
    char *text = make_long_text(), *head = strndup(text, 700000);
    const struct gist_message msgs[] = { { "system", head }, { "user", text + 700000 } };

    (void)state;
    begin(script_long_messages, NULL);
    assert_int_equal(gist_append_chat(open_session(), msgs, 2, GIST_OPEN_ANSWER, NULL), 0);
    end();
    free(head);
    free(text);
}

/* What stands beside the bulk must fit into one frame. */
static void test_large_frame(void **state)
{
    static struct gist_message msgs[1000];
    char role[200];

    (void)state;
    memset(role, 'r', sizeof(role) - 1);
    role[sizeof(role) - 1] = '\0';
    for (size_t i = 0; i < 1000; i++)
        msgs[i] = (struct gist_message){ role, "text" };
    begin(script_plain, NULL);
    assert_int_equal(gist_append_chat(open_session(), msgs, 1000, 0, NULL), -EMSGSIZE);
    assert_non_null(strstr(gist_error(conn), "65536 bytes besides its text"));
    assert_int_equal(gist_ping(conn), 0);
    end();
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
    answer_one(d);
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
        answer_one(d);
}

static void start_many(struct heard *h)
{
    char stop[] = "stop here";
    const char *list[] = { stop };
    struct gist_sampling sampling = { .size = sizeof(sampling), .stop = list, .n_stop = 1 };
    gist_session *s = open_session();

    for (int i = 0; i < MANY; i++)
        assert_int_equal(gist_generate_start(s, &sampling, on_text, on_done, &h[i], NULL), 0);
    memset(stop, 'X', sizeof(stop) - 1); /* copied, where it was not sent yet */
}

static void test_flood(void **state)
{
    struct heard *h = calloc(MANY, sizeof(*h));

    (void)state;
    begin(script_flood, NULL);
    start_many(h);
    assert_int_equal(gist_ping(conn), 0); /* behind all of them */
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(h[i].done, 1);
        assert_int_equal(h[i].err, 0);
        assert_int_equal(h[i].n_calls, 20);
    }
    end();
    free(h);
}

static void test_flood_by_descriptor(void **state)
{
    struct heard *h = calloc(MANY, sizeof(*h));
    int n_done = 0;

    (void)state;
    begin(script_flood, NULL);
    assert_true(gist_fd(conn) >= 0);
    start_many(h);
    while (n_done < MANY) {
        struct pollfd p = { gist_fd(conn), POLLIN, 0 };

        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS),
                         1); /* a missed message would time out here */
        assert_true(gist_dispatch(conn) >= 0);
        n_done = 0;
        for (int i = 0; i < MANY; i++)
            n_done += h[i].done;
    }
    end();
    free(h);
}

/* An idle descriptor is quiet, also after other calls; and a message makes it readable whenever it
 * comes. */
static void script_late(struct fake_daemon *d, void *arg)
{
    uint64_t id;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    answer_one(d);
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
    struct heard h = { 0 };
    struct pollfd p = { .events = POLLIN };
    int quiet = 0;

    (void)state;
    begin(script_late, NULL);
    p.fd = gist_fd(conn);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_int_equal(gist_generate_start(open_session(), NULL, on_text, on_done, &h, NULL), 0);
    assert_int_equal(gist_ping(conn), 0);
    while (poll(&p, 1, 0) == 1) { /* what the calls left over */
        assert_true(gist_dispatch(conn) >= 0);
        assert_true(++quiet < 10);
    }
    assert_int_equal(gist_ping_start(conn, NULL, NULL, NULL), 0);
    while (!h.done) {
        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(conn) >= 0);
    }
    assert_int_equal(h.n_calls, 50);
    (void)gist_dispatch(conn);
    assert_int_equal(poll(&p, 1, 20), 0);
    end();
}

/* --- cancelling ------------------------------------------------------------------------------- */

/* Says something for ever, until it is told to stop. */
static void script_endless(struct fake_daemon *d, void *arg)
{
    bool there;
    uint64_t id;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    answer_one(d);
    for (;;) {
        while ((there = fake_take(d)) && d->req.kind != WIRE_GENERATE)
            answer_one(d);
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
    struct heard h = { .stop_at = 3 };

    (void)state;
    begin(script_endless, NULL);
    assert_int_equal(gist_generate(open_session(), NULL, on_text, &h, NULL), -ECANCELED);
    assert_int_equal(gist_error_code(conn), GIST_E_CANCELLED);
    assert_int_equal(h.n_calls, 3); /* and no further call */
    assert_int_equal(gist_ping(conn), 0);
    end();
}

static void test_cancel_by_number(void **state)
{
    struct heard h = { 0 };
    uint64_t id;

    (void)state;
    begin(script_endless, NULL);
    assert_int_equal(gist_generate_start(open_session(), NULL, on_text, on_done, &h, &id), 0);
    while (h.n_calls < 3) {
        assert_int_equal(poll(&(struct pollfd){ gist_fd(conn), POLLIN, 0 }, 1, FAKE_PATIENCE_MS),
                         1);
        assert_true(gist_dispatch(conn) >= 0);
    }
    assert_int_equal(gist_cancel(conn, id + 1000), -ENOENT);
    assert_int_equal(gist_cancel(conn, id), 0);
    assert_int_equal(gist_cancel(conn, id), 0);
    while (!h.done) {
        assert_int_equal(poll(&(struct pollfd){ gist_fd(conn), POLLIN, 0 }, 1, FAKE_PATIENCE_MS),
                         1);
        assert_true(gist_dispatch(conn) >= 0);
    }
    assert_int_equal(h.err, -ECANCELED);
    assert_int_equal(gist_cancel(conn, id), -ENOENT);
    end();
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
    struct heard h = { 0 };
    gist_session *s;
    pthread_t t;

    (void)state;
    begin(script_endless, NULL);
    s = open_session();
    gist_cancel_async(conn); /* no call is in progress: meant for nobody */
    assert_int_equal(gist_ping(conn), 0);
    for (int i = 0; i < 3; i++) {
        atomic_store(&cancel_was_heard, false);
        assert_int_equal(pthread_create(&t, NULL, cancel_soon, conn), 0);
        assert_int_equal(gist_generate(s, NULL, on_text, &h, NULL), -ECANCELED);
        atomic_store(&cancel_was_heard, true);
        pthread_join(t, NULL);
    }
    end();
}

static void cancel_by_signal(int sig)
{
    (void)sig;
    gist_cancel_async(conn);
}

static void test_cancel_from_a_signal(void **state)
{
    const struct itimerval soon = { { .tv_usec = 30000 }, { .tv_usec = 30000 } }, never = { 0 };
    struct heard h = { 0 };
    gist_session *s;

    (void)state;
    begin(script_endless, NULL);
    s = open_session();
    (void)signal(SIGALRM, cancel_by_signal);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
        assert_int_equal(gist_generate(s, NULL, on_text, &h, NULL), -ECANCELED);
        assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    }
    (void)signal(SIGALRM, SIG_DFL);
    end();
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
    begin(script_errors, NULL);
    for (int e = 0; e < WIRE_E__N; e++) {
        assert_int_equal(gist_ping(conn), want[e].err);
        assert_int_equal(gist_error_code(conn), want[e].code);
        assert_string_equal(gist_error(conn), wire_error_name((enum wire_error)e));
    }
    end();
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
    *(int *)arg = gist_ping(conn);
}

static void test_callbacks_must_not_wait(void **state)
{
    int got = 0;

    (void)state;
    begin(script_plain, NULL);
    assert_int_equal(gist_append_text_start(open_session(), "x", 1, 0, on_done_waits, &got, NULL),
                     0);
    assert_int_equal(gist_ping(conn), 0);
    assert_int_equal(got, -EDEADLK);
    end();
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
    begin(script_plain, NULL);
    x.s = open_session();
    on_done_starts(&x, 0, NULL);
    while (x.n < 50)
        assert_int_equal(gist_ping(conn), 0);
    end();
}

/* --- without a session ------------------------------------------------------------------------ */

static void reply_rows(struct fake_daemon *d, uint32_t first, uint32_t n)
{
    uint32_t bulk[64];
    float p[32];

    for (uint32_t i = 0; i < n; i++) {
        bulk[i] = 100 + first + i;
        p[i] = first + i == 0 ? NAN : -(float)(first + i);
    }
    memcpy(bulk + n, p, n * 4);
    fake_reply(d, (struct wire_rep){ .kind = WIRE_SCORE_ROWS, .u.score_rows = { first, n, 0 } },
               bulk, n * 8);
}

static void script_score(struct fake_daemon *d, void *arg)
{
    uint64_t at = 0;

    (void)arg;
    take_long(d, WIRE_SCORE, LONG_LEN);
    FAKE_CHECK(d->req.u.score.kind == WIRE_SCORE_TEXT && d->req.u.score.window == 100);
    reply_rows(d, 0, 5);
    reply_rows(d, 5, 2);
    fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    while (at < 40000) { /* ids, cut between windows of 1000 */
        fake_expect(d, WIRE_SCORE);
        FAKE_CHECK(d->req.u.score.kind == WIRE_SCORE_TOKENS);
        FAKE_CHECK(d->req.bulk_len % 4000 == 0 && d->req.bulk_len <= CHAN_ARENA_MIN / 4);
        FAKE_CHECK(*(const uint32_t *)(const void *)d->bulk == at);
        at += d->req.bulk_len / 4;
        reply_rows(d, 0, 3);
        fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    }
    fake_expect(d, WIRE_SCORE);
    FAKE_CHECK(d->req.u.score.want == WIRE_SCORE_LOGITS && d->req.bulk_len == 12);
    for (uint32_t i = 0; i < 3; i++) {
        float row[1000];

        for (int k = 0; k < 1000; k++)
            row[k] = (float)i + (float)k / 1024;
        fake_reply(d, (struct wire_rep){ .kind = WIRE_SCORE_ROWS, .u.score_rows = { i, 1, 1000 } },
                   row, sizeof(row));
    }
    fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    fake_drain(d);
}

static int on_rows(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows)
{
    size_t *seen = arg;

    assert_int_equal(first, *seen);
    assert_int_equal(n_vocab, 1000);
    assert_true(rows[999] == (float)first + 999.0f / 1024);
    *seen += n;
    return 0;
}

static void test_scores(void **state)
{
    struct gist_score_opts opts = { .size = sizeof(opts), .window = 100 };
    char *text = make_long_text();
    uint32_t *ids = calloc(40000, sizeof(*ids));
    struct gist_score score;
    size_t seen = 0;

    (void)state;
    begin(script_score, NULL);
    assert_int_equal(gist_score_text(conn, text, LONG_LEN, &opts, &score), 0);
    assert_int_equal(score.n, 7);
    assert_int_equal(score.ids[6], 106);
    assert_true(isnan(score.logprobs[0]) && score.logprobs[6] == -6.0f);
    assert_int_equal(score.usage.prompt_tokens, 3);
    free(score.ids);
    free(score.logprobs);

    for (uint32_t i = 0; i < 40000; i++)
        ids[i] = i;
    opts.window = 1000;
    assert_int_equal(gist_score_tokens(conn, ids, 40000, &opts, &score), 0);
    assert_int_equal(score.n, 3 * 3); /* three requests */
    assert_int_equal(score.usage.prompt_tokens, 3 * 3);
    free(score.ids);
    free(score.logprobs);

    assert_int_equal(gist_score_logits(conn, ids, 3, NULL, on_rows, &seen), 0);
    assert_int_equal(seen, 3);
    end();
    free(text);
    free(ids);
}

static void script_tokens(struct fake_daemon *d, void *arg)
{
    static const uint32_t ids[] = { 5, 6, 7, 8 };

    (void)arg;
    fake_expect(d, WIRE_TOKENIZE);
    FAKE_CHECK(d->req.u.tokenize.special && memcmp(d->bulk, "text", 4) == 0);
    fake_reply(d, (struct wire_rep){ .kind = WIRE_TOKENS, .u.tokens.n = 3 }, ids, 12);
    fake_reply(d, (struct wire_rep){ .kind = WIRE_TOKENS, .last = true, .u.tokens.n = 1 }, ids + 3,
               4);
    fake_expect(d, WIRE_TOKENIZE);
    fake_last(d, (struct wire_rep){ .kind = WIRE_TOKENS });
    fake_expect(d, WIRE_DETOKENIZE);
    FAKE_CHECK(d->req.bulk_len == 16 && memcmp(d->bulk, ids, 16) == 0);
    fake_text(d, 0, "some ");
    fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text.text = "text" });
    fake_drain(d);
}

static void test_tokens(void **state)
{
    uint32_t *ids = NULL;
    size_t n = 0, len;
    char *text;

    (void)state;
    begin(script_tokens, NULL);
    assert_int_equal(gist_tokenize(conn, "text", 4, GIST_SPECIAL, &ids, &n), 0);
    assert_int_equal(n, 4);
    assert_int_equal(ids[3], 8);
    free(ids);
    assert_int_equal(gist_tokenize(conn, "", 0, 0, &ids, &n), 0);
    assert_int_equal(n, 0);
    free(ids);
    assert_int_equal(gist_detokenize(conn, (uint32_t[]){ 5, 6, 7, 8 }, 4, &text, &len), 0);
    assert_int_equal(len, 9);
    assert_string_equal(text, "some text");
    free(text);
    end();
}

static void script_stats(struct fake_daemon *d, void *arg)
{
    static struct wire_stats_session sessions[500];
    static const struct wire_stats_client clients[] = { { 1, 10, 1000, "one", 2, 3, "" } };
    static const struct wire_stats_owner owners[] = {
        { 1000, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15 }, { .uid = 9, .gist_pages = 5 }
    };
    struct wire_stats st = { .version = "v",
                             .model = "m",
                             .cpu = "avx2",
                             .pages = 100,
                             .pages_free = 7,
                             .client = clients,
                             .n_client = 1,
                             .session = sessions,
                             .n_session = 500,
                             .owner = owners,
                             .n_owner = 2 };

    (void)arg;
    for (uint32_t i = 0; i < 500; i++)
        sessions[i] = (struct wire_stats_session){ .id = i,
                                                   .client = 1,
                                                   .label = "a session with a label",
                                                   .n_tokens = 5,
                                                   .pages = 6,
                                                   .segment = 7,
                                                   .busy = i & 1,
                                                   .gist_pages = 2 };
    fake_expect(d, WIRE_GET_STATS);
    fake_last(d, (struct wire_rep){ .kind = WIRE_STATS, .u.stats = st });
    fake_drain(d);
}

static void test_stats(void **state)
{
    struct gist_stats st;

    (void)state;
    begin(script_stats, NULL);
    assert_int_equal(gist_stats(conn, &st), 0);
    assert_string_equal(st.cpu, "avx2");
    assert_string_equal(st.model_digest, "");
    assert_int_equal(st.pages_free, 7);
    assert_int_equal(st.n_clients, 1);
    assert_string_equal(st.clients[0].name, "one");
    assert_int_equal(st.n_sessions, 500);
    assert_int_equal(st.sessions[499].id, 499);
    assert_int_equal(st.sessions[499].busy, 1);
    assert_int_equal(st.sessions[499].gist_pages, 2);
    assert_int_equal(st.n_owners, 2);
    assert_true(st.owners[0].held_pages == 7 && st.owners[0].store_bytes_max == 15);
    assert_int_equal(st.owners[1].uid, 9);
    assert_int_equal(st.owners[1].gist_pages, 5);
    assert_string_equal(st.sessions[499].label, "a session with a label");
    end();
}

/* --- a daemon that dies or lies --------------------------------------------------------------- */

static void script_die(struct fake_daemon *d, void *arg)
{
    int when = *(int *)arg;

    if (when == 0)
        raise(SIGKILL);
    fake_expect(d, WIRE_OPEN_SESSION);
    if (when == 1)
        raise(SIGKILL);
    answer_one(d);
    while (fake_take(d) && d->req.kind != WIRE_GENERATE)
        ;
    fake_text(d, 0, "last words");
    raise(SIGKILL);
}

static void test_death_at_any_moment(void **state)
{
    (void)state;
    for (int when = 0; when < 3; when++) {
        struct heard h = { 0 }, g = { 0 };
        gist_session *s = NULL;
        uint64_t t0 = now_ms();
        int r;

        fake_start(&fake, script_die, &when);
        r = gist_connect(fake.path, "test", &conn);
        assert_int_equal(r, 0);
        r = gist_open(conn, NULL, &s);
        if (when == 2) {
            assert_int_equal(r, 0);
            assert_int_equal(gist_append_text_start(s, "x", 1, 0, on_done, &g, NULL), 0);
            r = gist_generate(s, NULL, on_text, &h, NULL);
        }
        assert_int_equal(r, -EPIPE);
        assert_int_equal(g.done, when == 2); /* told as well */
        assert_int_equal(gist_error_code(conn), GIST_E_TRANSPORT);
        assert_non_null(strstr(gist_error(conn), "stopped or it crashed"));
        assert_true(now_ms() - t0 < FAKE_PATIENCE_MS);
        assert_int_equal(gist_ping(conn), -EPIPE);
        assert_int_equal(gist_dispatch(conn), -EPIPE);
        gist_close(s);
        gist_disconnect(conn);
        assert_int_equal(fake_stop(&fake), 137);
    }
}

static void test_death_seen_by_descriptor(void **state)
{
    struct heard h = { 0 };
    struct pollfd p = { .events = POLLIN };
    gist_session *s;
    int r = 0;

    (void)state;
    fake_start(&fake, script_die, &(int){ 2 });
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    s = open_session();
    p.fd = gist_fd(conn);
    assert_int_equal(gist_generate_start(s, NULL, on_text, on_done, &h, NULL), 0);
    while (r >= 0) {
        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS), 1);
        r = gist_dispatch(conn);
    }
    assert_int_equal(r, -EPIPE);
    assert_int_equal(h.err, -EPIPE);
    assert_int_equal(h.done, 1);
    assert_string_equal(h.text, "last words");
    assert_int_equal(poll(&p, 1, 0), 1); /* and stays readable */
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 137);
}

enum lie {
    LIE_ID,
    LIE_KIND,
    LIE_FRAME,
    LIE_BULK_LEN,
    LIE_ROWS,
    LIE_LAST_TEXT,
    LIE_TURN,
    LIE_DESC_OFF,
    LIE_DESC_LEN,
    LIE_FRAME_LEN,
    LIE_HEAD,
    LIE__N
};

static void lie_in_memory(struct fake_daemon *d, enum lie lie)
{
    volatile struct hostile_slot *s;
    struct hostile h;

    FAKE_CHECK(hostile_map(&h, d->chan, &d->g) == 0);
    /* Giving a message back rings a client that waits for room. */
    *hostile_word(&h, HOSTILE_C2S, HOSTILE_ROOM) = 1;
    if (lie == LIE_HEAD) {
        *hostile_word(&h, HOSTILE_C2S, HOSTILE_HEAD) += 1000;
    } else {
        s = hostile_slot(&h, HOSTILE_S2C, 2); /* after Welcome and SessionOpened */
        s->off = lie == LIE_DESC_OFF ? CHAN_ARENA_MIN : 0;
        s->len = lie == LIE_DESC_LEN ? UINT32_MAX : 64;
        s->frame_len = lie == LIE_FRAME_LEN ? 65 : 64;
        __atomic_store_n(&s->turn, lie == LIE_TURN ? 1000 : 1, __ATOMIC_SEQ_CST);
        fake_release(d);
    }
    hostile_close(&h);
}

static void script_lie(struct fake_daemon *d, void *arg)
{
    enum lie lie = *(enum lie *)arg;
    uint8_t *f, *b;

    fake_expect(d, WIRE_OPEN_SESSION);
    answer_one(d);
    fake_expect(d, WIRE_GENERATE);
    if (lie == LIE_ID) {
        fake_reply(d, (struct wire_rep){ .id = 999, .kind = WIRE_PONG, .last = true }, NULL, 0);
    } else if (lie == LIE_KIND) {
        fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED });
    } else if (lie == LIE_FRAME) {
        FAKE_CHECK(chan_reserve(d->chan, 100, 0, &f, &b) == 0);
        memset(f, 0xff, 100);
        chan_commit(d->chan);
    } else if (lie == LIE_BULK_LEN) {
        FAKE_CHECK(chan_reserve(d->chan, 4, 64, &f, &b) == 0);
        memcpy(f, "\x08\x02\x92\x01", 4);
        chan_commit(d->chan);
    } else if (lie == LIE_ROWS) {
        fake_reply(
            d,
            (struct wire_rep){ .kind = WIRE_SCORE_ROWS, .u.score_rows = { 0, 1u << 30, 1u << 30 } },
            "1234", 4);
    } else if (lie == LIE_LAST_TEXT) {
        fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT });
    } else {
        lie_in_memory(d, lie);
        if (lie == LIE_HEAD) { /* taking a request would put it right */
            fake_done(d, 0, WIRE_REASON_STOP);
            (void)poll(&(struct pollfd){ d->sock, POLLIN, 0 }, 1, -1);
            return;
        }
    }
    fake_drain(d);
}

static void test_lies(void **state)
{
    (void)state;
    for (enum lie lie = 0; lie < LIE__N; lie++) {
        uint64_t t0 = now_ms();
        gist_session *s;
        int r = 0;

        fake_start(&fake, script_lie, &lie);
        assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
        s = open_session();
        r = gist_generate(s, NULL, NULL, NULL, NULL);
        /* A head is looked at when room is needed. */
        for (int i = 0; lie == LIE_HEAD && r == 0 && i < 1000; i++)
            r = gist_append_text_start(s, "x", 1, 0, NULL, NULL, NULL);
        if (r != -EPROTO)
            print_error("lie %d: %d %s\n", (int)lie, r, gist_error(conn));
        assert_int_equal(r, -EPROTO);
        assert_int_equal(gist_error_code(conn), GIST_E_TRANSPORT);
        assert_true(strlen(gist_error(conn)) > 20);
        assert_int_equal(gist_ping(conn), -EPROTO);
        assert_true(now_ms() - t0 < FAKE_PATIENCE_MS);
        gist_disconnect(conn);
        assert_int_equal(fake_stop(&fake), 0);
    }
}

/* A daemon whose memory is rewritten all the time while we talk to it: any error, no crash, no
 * hang. */
static void script_scribble(struct fake_daemon *d, void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    struct hostile h;
    uint8_t *f, *b;

    FAKE_CHECK(hostile_map(&h, d->chan, &d->g) == 0);
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t x = hostile_random(&seed), len = 1 + x % 100;
        volatile struct hostile_slot *s = hostile_slot(&h, HOSTILE_S2C, x);
        uint8_t *to = len <= RING_SMALL ? (uint8_t *)(uintptr_t)s->small
                                        : hostile_arena(&h, HOSTILE_S2C) + (x % 64) * 64;

        /* The beginning of a reply to the request that is open, and noise. */
        memcpy(to, "\x08\x02\x18\x01\x6a\x0a", 6);
        to[6 + x % 40] = (uint8_t)(x >> 8);
        s->off = (x % 64) * 64;
        s->frame_len = len;
        s->len = x % 100 == 0 ? x : len <= RING_SMALL ? 0 : len;
        s->turn += x % (i < 1000 ? 1000 : 3) == 0;
        if (i % 64 == 0 && chan_reserve(d->chan, 1, 0, &f, &b) == 0)
            chan_commit(d->chan); /* rings, if the client sleeps */
    }
    hostile_close(&h);
}

static void test_a_scribbling_daemon(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t t0 = now_ms();
        gist_session *s;
        int r;

        fake_start(&fake, script_scribble, &seed);
        if (gist_connect(fake.path, "test", &conn) == 0) {
            r = gist_open(conn, NULL, &s);
            assert_true(r < 0);
            assert_true(strlen(gist_error(conn)) > 10);
            gist_disconnect(conn);
        }
        assert_int_equal(fake_stop(&fake), 0);
        assert_true(now_ms() - t0 < FAKE_PATIENCE_MS);
    }
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
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_long_text_without_waiting),
        cmocka_unit_test(test_a_part_is_refused),
        cmocka_unit_test(test_long_ids),
        cmocka_unit_test(test_long_messages),
        cmocka_unit_test(test_large_frame),
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
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_death_at_any_moment),
        cmocka_unit_test(test_death_seen_by_descriptor),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_a_scribbling_daemon),
        cmocka_unit_test(test_symbols),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
