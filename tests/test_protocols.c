/* Would catch: a change of the wire that an older client, an older daemon or a later one does not
 * get along with: a field that took another's number or meaning, a reply that was not asked for, a
 * request that a peer can't read and that ends the connection.
 *
 * The older ones speak by code that protoc-c made of a schema of some time ago
 * (tests/abi/first.proto), with which no code of ours has anything to do.
 */
#include "first.pb-c.h"
#include "ipc/handshake.h"
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/fake_daemon.h"
#include "tests/support/wire_sample.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 60000

/* --- an older client -------------------------------------------------------------------------- */

static struct old_client {
    int sock;
    struct chan *chan;
    uint64_t last_id;
    First__Reply *rep; /* the last */
    uint8_t bulk[65536];
    size_t bulk_len;
    char text[65536];
    uint32_t ids[4096];
    size_t n_ids;
} old;

static void old_open(const char *socket)
{
    const struct handshake_wait wait = { .timeout_ms = PATIENCE_MS };
    char text[256];

    old = (struct old_client){ .sock = -1 };
    assert_int_equal(handshake_connect(socket, NULL, &wait, &old.sock, &old.chan, text), 0);
}

static void old_close(void)
{
    if (old.rep)
        first__reply__free_unpacked(old.rep, NULL);
    chan_close(old.chan);
    (void)close(old.sock);
}

static uint64_t old_send_bytes(const void *frame, size_t len, const void *bulk, size_t bulk_len)
{
    uint8_t *f, *b;
    int r;

    while ((r = chan_reserve(old.chan, (uint32_t)len, (uint32_t)bulk_len, &f, &b)) == -EAGAIN)
        assert_int_equal(chan_wait(old.chan, true, old.sock, -1, 0, PATIENCE_MS), 0);
    assert_int_equal(r, 0);
    memcpy(f, frame, len);
    if (bulk_len > 0)
        memcpy(b, bulk, bulk_len);
    chan_commit(old.chan);
    return old.last_id;
}

static uint64_t old_send(First__Request__BodyCase kind, void *body, const void *bulk, size_t len)
{
    First__Request m = FIRST__REQUEST__INIT;
    uint8_t frame[4096];

    m.id = ++old.last_id;
    m.bulk_len = len;
    m.body_case = kind;
    m.hello = body;
    assert_true(first__request__get_packed_size(&m) <= sizeof(frame));
    return old_send_bytes(frame, first__request__pack(&m, frame), bulk, len);
}

/* Nothing in it may be what that client did not know: it took an unknown one of these for the end
 * of the connection. */
static void check_known(const First__Reply *m)
{
    assert_int_not_equal(m->body_case, FIRST__REPLY__BODY__NOT_SET);
    if (m->body_case == FIRST__REPLY__BODY_ERROR)
        assert_non_null(protobuf_c_enum_descriptor_get_value(&first__error__code__descriptor,
                                                             (int)m->error->code));
    if (m->body_case == FIRST__REPLY__BODY_DONE)
        assert_non_null(protobuf_c_enum_descriptor_get_value(&first__done__reason__descriptor,
                                                             (int)m->done->reason));
}

static void keep(const First__Reply *m, const struct chan_msg *msg)
{
    assert_int_equal(m->bulk_len, msg->bulk_len);
    assert_true(old.bulk_len + msg->bulk_len <= sizeof(old.bulk));
    if (msg->bulk_len > 0)
        memcpy(old.bulk + old.bulk_len, msg->bulk, msg->bulk_len);
    old.bulk_len += msg->bulk_len;
    if (m->body_case != FIRST__REPLY__BODY_TEXT)
        return;
    strcat(old.text, m->text->text);
    for (size_t i = 0; i < m->text->n_ids; i++)
        old.ids[old.n_ids++] = m->text->ids[i];
}

/* All replies to the request; the last one. */
static const First__Reply *old_wait(uint64_t id)
{
    struct chan_msg msg;
    bool last = false;
    int r;

    old.bulk_len = old.n_ids = 0;
    old.text[0] = '\0';
    while (!last) {
        while ((r = chan_recv(old.chan, &msg)) == -EAGAIN)
            assert_int_equal(chan_wait(old.chan, false, old.sock, -1, 0, PATIENCE_MS), 0);
        assert_int_equal(r, 0);
        if (old.rep)
            first__reply__free_unpacked(old.rep, NULL);
        old.rep = first__reply__unpack(NULL, msg.frame_len, msg.frame);
        assert_non_null(old.rep);
        check_known(old.rep);
        assert_int_equal(old.rep->id, id); /* one at a time, here */
        keep(old.rep, &msg);
        chan_release(old.chan);
        last = old.rep->last;
    }
    return old.rep;
}

static const First__Reply *old_ask(First__Request__BodyCase kind, void *body,
                                   First__Reply__BodyCase want)
{
    const First__Reply *m = old_wait(old_send(kind, body, NULL, 0));

    if (m->body_case == FIRST__REPLY__BODY_ERROR && want != FIRST__REPLY__BODY_ERROR)
        print_error("%s\n", m->error->text);
    assert_int_equal(m->body_case, want);
    return m;
}
#define OLD_ASK(REQUEST, body, REPLY)                                                              \
    old_ask(FIRST__REQUEST__BODY_##REQUEST, body, FIRST__REPLY__BODY_##REPLY)

static void old_hello(void)
{
    First__Hello hello = FIRST__HELLO__INIT;
    const First__Reply *m;

    hello.client = (char[]){ "old" };
    m = OLD_ASK(HELLO, &hello, WELCOME);
    assert_true(strlen(m->welcome->version) > 0 && m->welcome->n_vocab > 0);
    assert_int_equal(m->welcome->context_max, 1024);
    assert_true(m->welcome->segment_default > 0);
}

/* A policy as such a client says it: never a 0 that means one, and no sinks by the largest number.
 */
static uint64_t old_session(bool packs)
{
    First__OpenSession open = FIRST__OPEN_SESSION__INIT;
    First__Memory memory = FIRST__MEMORY__INIT;

    open.label = (char[]){ "old" };
    memory.compressor = FIRST__MEMORY__COMPRESSOR__FINE_KV;
    memory.sinks = UINT32_MAX;
    memory.ratio = 8;
    memory.keep_tail = 16;
    if (packs) {
        open.segment = 64;
        open.memory = &memory;
    }
    return OLD_ASK(OPEN_SESSION, &open, SESSION_OPENED)->session_opened->session;
}

#define TEXT "The rain in Spain stays mainly in the plain, and in the plain it stays."

/* In two parts, cut inside a word. */
static uint32_t old_append(uint64_t session, const char *text)
{
    First__Append append = FIRST__APPEND__INIT;
    const First__Reply *m;

    append.session = session;
    append.more = 1;
    m = old_wait(old_send(FIRST__REQUEST__BODY_APPEND, &append, text, 7));
    assert_int_equal(m->body_case, FIRST__REPLY__BODY_APPENDED);
    assert_int_equal(m->appended->n_tokens, 0);
    append.more = 0;
    m = old_wait(old_send(FIRST__REQUEST__BODY_APPEND, &append, text + 7, strlen(text + 7)));
    assert_int_equal(m->body_case, FIRST__REPLY__BODY_APPENDED);
    assert_true(m->appended->n_tokens > 7);
    assert_int_equal(m->appended->usage->prompt_tokens, m->appended->n_tokens);
    return m->appended->n_tokens;
}

/* What today's library makes of the same. */
static void same_answer(const struct daemon_fixture *d, const uint32_t *want, size_t n)
{
    gist_conn *conn = daemon_fixture_connect(d);
    struct answered found;

    assert_int_equal(answered_greedy(answered_read(conn, TEXT, NULL), (uint32_t)n, &found), 0);
    assert_memory_equal(found.ids, want, n * sizeof(*want));
    gist_disconnect(conn);
}

static void old_generate(const struct daemon_fixture *d, uint64_t session)
{
    First__Generate generate = FIRST__GENERATE__INIT;
    const First__Reply *m;

    generate.session = session;
    generate.max_tokens = 12;
    generate.ignore_eog = 1;
    m = OLD_ASK(GENERATE, &generate, DONE);
    assert_int_equal(m->done->reason, FIRST__DONE__REASON__LENGTH);
    assert_int_equal(m->done->usage->generated_tokens, 12);
    assert_int_equal(old.n_ids, 12);
    assert_true(strlen(old.text) > 0);
    same_answer(d, old.ids, old.n_ids);
}

static bool has_field(const First__Done *done, uint32_t tag, uint8_t value)
{
    for (size_t i = 0; i < done->base.n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *f = &done->base.unknown_fields[i];

        if (f->tag == tag)
            return f->len == 1 && f->data[0] == value;
    }
    return false;
}

/* Which of them it was is a field that it passes over. The answer's own first byte ends it. */
static void old_stops(void)
{
    char found[] = { old.text[0], '\0' }, *stops[] = { (char[]){ "\x01never" }, found };
    First__Generate generate = FIRST__GENERATE__INIT;
    First__CloseSession shut = FIRST__CLOSE_SESSION__INIT;
    uint64_t session = old_session(false);
    const First__Reply *m;

    (void)old_append(session, TEXT);
    generate.session = session;
    generate.max_tokens = 12;
    generate.ignore_eog = 1;
    generate.stop = stops;
    generate.n_stop = 2;
    m = OLD_ASK(GENERATE, &generate, DONE);
    assert_int_equal(m->done->reason, FIRST__DONE__REASON__STOP);
    assert_true(has_field(m->done, 4, 2));
    assert_string_equal(old.text, "");
    shut.session = session;
    OLD_ASK(CLOSE_SESSION, &shut, SESSION_CLOSED);
}

static void old_score(void)
{
    const uint32_t ids[] = { 40, 41, 42, 43 };
    First__Score score = FIRST__SCORE__INIT;
    const First__Reply *m;

    score.kind = FIRST__SCORE__KIND__TOKENS;
    m = old_wait(old_send(FIRST__REQUEST__BODY_SCORE, &score, ids, sizeof(ids)));
    assert_int_equal(m->body_case, FIRST__REPLY__BODY_DONE);
    assert_int_equal(m->done->usage->computed_tokens, 4);
    assert_int_equal(old.bulk_len, 32);
    assert_memory_equal(old.bulk, ids, sizeof(ids));
}

static void old_tokens(void)
{
    First__Detokenize back = FIRST__DETOKENIZE__INIT;
    First__Tokenize tokenize = FIRST__TOKENIZE__INIT;
    uint32_t ids[16];
    size_t len;

    assert_int_equal(
        old_wait(old_send(FIRST__REQUEST__BODY_TOKENIZE, &tokenize, "the plain", 9))->body_case,
        FIRST__REPLY__BODY_TOKENS);
    len = old.bulk_len;
    assert_true(len > 0 && len <= sizeof(ids));
    memcpy(ids, old.bulk, len);
    assert_int_equal(
        old_wait(old_send(FIRST__REQUEST__BODY_DETOKENIZE, &back, ids, len))->body_case,
        FIRST__REPLY__BODY_TEXT);
    assert_string_equal(old.text, "the plain");
}

/* Errors leave the connection as it is. */
static void old_refusals(void)
{
    First__Generate generate = FIRST__GENERATE__INIT;
    First__Cancel cancel = FIRST__CANCEL__INIT;
    First__Ping ping = FIRST__PING__INIT;
    const First__Reply *m;

    generate.session = 999999;
    m = OLD_ASK(GENERATE, &generate, ERROR);
    assert_int_equal(m->error->code, FIRST__ERROR__CODE__NOT_FOUND);
    assert_true(strlen(m->error->text) > 0);
    cancel.request = 999999;
    assert_false(OLD_ASK(CANCEL, &cancel, CANCELLED)->cancelled->found);
    OLD_ASK(PING, &ping, PONG);
}

static void old_rest(uint64_t session, uint32_t n_tokens)
{
    First__CloseSession shut = FIRST__CLOSE_SESSION__INIT;
    First__GetStats stats = FIRST__GET_STATS__INIT;
    First__Rewind rewind = FIRST__REWIND__INIT;
    First__Fork fork = FIRST__FORK__INIT;
    const First__Reply *m;
    uint64_t other;
    int n_found = 0;

    fork.session = session;
    fork.label = (char[]){ "copy" };
    other = OLD_ASK(FORK, &fork, SESSION_OPENED)->session_opened->session;
    rewind.session = other;
    rewind.n_tokens = 3;
    assert_int_equal(OLD_ASK(REWIND, &rewind, REWOUND)->rewound->n_tokens, 3);
    m = OLD_ASK(STATS, &stats, STATS);
    for (size_t i = 0; i < m->stats->n_session; i++) {
        const First__Stats__Session *x = m->stats->session[i];

        if (x->id == session || x->id == other)
            n_found += x->n_tokens == (x->id == other ? 3 : n_tokens + 12);
    }
    assert_int_equal(n_found, 2);
    shut.session = other;
    OLD_ASK(CLOSE_SESSION, &shut, SESSION_CLOSED);
    shut.session = session;
    OLD_ASK(CLOSE_SESSION, &shut, SESSION_CLOSED);
}

/* What a client from after this daemon may say: each is answered, with its id. */
static void later_requests(void)
{
    static const struct {
        const char *bytes;
        size_t len;
    } said[] = {
        { "\xa2\x38\x00", 3 },                 /* a request that we don't know (body 900) */
        { "\x5a\x02\x10\x63", 4 },             /* OpenSession, priority 99 */
        { "\x62\x04\x08\x01\x10\x63", 6 },     /* Append, kind 99 */
        { "\x5a\x05\xa2\x38\x02\x08\x01", 7 }, /* OpenSession with a field that we don't know */
    };
    First__Ping ping = FIRST__PING__INIT;

    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        uint8_t frame[32] = { 0x08, (uint8_t)++old.last_id };
        const First__Reply *m;

        assert_true(old.last_id < 128);
        memcpy(frame + 2, said[i].bytes, said[i].len);
        m = old_wait(old_send_bytes(frame, 2 + said[i].len, NULL, 0));
        if (i < 3) {
            assert_int_equal(m->body_case, FIRST__REPLY__BODY_ERROR);
            assert_int_equal(m->error->code, FIRST__ERROR__CODE__UNSUPPORTED);
        } else { /* passed over */
            assert_int_equal(m->body_case, FIRST__REPLY__BODY_SESSION_OPENED);
        }
        OLD_ASK(PING, &ping, PONG);
    }
}

static void test_old_client(void **state)
{
    struct daemon_fixture d;
    uint64_t session;
    uint32_t n;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    old_open(d.socket);
    old_hello();
    session = old_session(false);
    n = old_append(session, TEXT);
    old_generate(&d, session);
    old_stops();
    old_rest(session, n);
    (void)old_append(old_session(true), TEXT);
    old_score();
    old_tokens();
    old_refusals();
    later_requests();
    old_close();
    daemon_fixture_stop(&d);
}

/* Every message of today with every field set, as the other side read it then. */
static void test_all_fields(void **state)
{
    struct wire_scratch s;
    uint8_t buf[CHAN_FRAME_MAX];
    size_t len;

    (void)state;
    assert_int_equal(wire_scratch_open(&s, WIRE_SCRATCH_BYTES), 0);
    for (int kind = 0; kind <= WIRE_REWIND; kind++) {
        struct wire_req req = sample_req((enum wire_req_kind)kind);
        First__Request *m;

        assert_int_equal(wire_req_pack(&s, &req, buf, sizeof(buf), &len), 0);
        m = first__request__unpack(NULL, len, buf);
        assert_non_null(m);
        assert_int_equal(m->body_case, kind + 10);
        assert_int_equal(m->id, req.id);
        if (kind == WIRE_GENERATE)
            assert_true(m->generate->seed == req.u.generate.seed &&
                        m->generate->top_p == req.u.generate.top_p &&
                        m->generate->n_stop == req.u.generate.n_stops);
        if (kind == WIRE_OPEN_SESSION)
            assert_true(m->open_session->segment == req.u.open_session.segment &&
                        m->open_session->memory->ratio == req.u.open_session.memory.ratio);
        first__request__free_unpacked(m, NULL);
    }
    for (int kind = 0; kind <= WIRE_REWOUND; kind++) {
        struct wire_rep rep = sample_rep((enum wire_rep_kind)kind);
        First__Reply *m;

        assert_int_equal(wire_rep_pack(&s, &rep, buf, sizeof(buf), &len), 0);
        m = first__reply__unpack(NULL, len, buf);
        assert_non_null(m);
        assert_int_equal(m->body_case, kind + 10);
        assert_true(m->id == rep.id && m->last == rep.last);
        check_known(m);
        if (kind == WIRE_DONE)
            assert_int_equal(m->done->usage->generate_ns, rep.u.done.usage.generate_ns);
        if (kind == WIRE_STATS)
            assert_int_equal(m->stats->steps_total, rep.u.stats.steps_total);
        if (kind == WIRE_ERROR)
            assert_string_equal(m->error->text, rep.u.error.text);
        first__reply__free_unpacked(m, NULL);
    }
    wire_scratch_close(&s);
}

/* --- an older daemon, and a later one --------------------------------------------------------- */

static void raw_reply(struct fake_daemon *d, const void *frame, size_t len)
{
    uint8_t *f, *b;

    FAKE_CHECK(chan_reserve(d->chan, (uint32_t)len, 0, &f, &b) == 0);
    memcpy(f, frame, len);
    chan_commit(d->chan);
}

static void first_reply(struct fake_daemon *d, uint64_t id, First__Reply__BodyCase kind, void *body,
                        bool last)
{
    First__Reply m = FIRST__REPLY__INIT;
    uint8_t frame[4096];

    m.id = id;
    m.last = last;
    m.body_case = kind;
    m.welcome = body;
    FAKE_CHECK(first__reply__get_packed_size(&m) <= sizeof(frame));
    raw_reply(d, frame, first__reply__pack(&m, frame));
}

/* The next request as it was read then; NULL: the client is gone. */
static First__Request *first_take(struct fake_daemon *d)
{
    struct chan_msg msg;
    First__Request *m;
    int r;

    fake_release(d);
    while ((r = chan_recv(d->chan, &msg)) == -EAGAIN) {
        r = chan_wait(d->chan, false, d->sock, -1, 0, -1);
        FAKE_CHECK(r == 0 || r == -EPIPE);
        if (r < 0)
            return NULL;
    }
    FAKE_CHECK(r == 0);
    m = first__request__unpack(NULL, msg.frame_len, msg.frame);
    FAKE_CHECK(m);
    chan_release(d->chan);
    return m;
}

static void first_answer(struct fake_daemon *d, const First__Request *m)
{
    First__SessionOpened opened = FIRST__SESSION_OPENED__INIT;
    First__Appended appended = FIRST__APPENDED__INIT;
    First__Error error = FIRST__ERROR__INIT;
    First__Usage usage = FIRST__USAGE__INIT;
    First__Stats stats = FIRST__STATS__INIT;
    First__Text text = FIRST__TEXT__INIT;
    First__Done done = FIRST__DONE__INIT;
    First__Pong pong = FIRST__PONG__INIT;
    uint32_t ids[] = { 5, 6 };

    usage.prompt_tokens = 17;
    if (m->body_case == FIRST__REQUEST__BODY_OPEN_SESSION) {
        opened.session = 77;
        first_reply(d, m->id, FIRST__REPLY__BODY_SESSION_OPENED, &opened, true);
    } else if (m->body_case == FIRST__REQUEST__BODY_APPEND) {
        appended.usage = &usage;
        first_reply(d, m->id, FIRST__REPLY__BODY_APPENDED, &appended, true);
    } else if (m->body_case == FIRST__REQUEST__BODY_GENERATE) {
        text.text = (char[]){ "said" };
        text.ids = ids;
        text.n_ids = 2;
        first_reply(d, m->id, FIRST__REPLY__BODY_TEXT, &text, false);
        done.reason = FIRST__DONE__REASON__STOP;
        done.usage = &usage;
        first_reply(d, m->id, FIRST__REPLY__BODY_DONE, &done, true);
    } else if (m->body_case == FIRST__REQUEST__BODY_STATS) {
        stats.version = (char[]){ "0.0" };
        first_reply(d, m->id, FIRST__REPLY__BODY_STATS, &stats, true);
    } else if (m->body_case == FIRST__REQUEST__BODY_PING) {
        first_reply(d, m->id, FIRST__REPLY__BODY_PONG, &pong, true);
    } else {
        error.code = FIRST__ERROR__CODE__UNSUPPORTED;
        error.text = (char[]){ "this daemon does not know that" };
        first_reply(d, m->id, FIRST__REPLY__BODY_ERROR, &error, true);
    }
}

static void script_first(struct fake_daemon *d, void *arg)
{
    First__Request *m;

    (void)arg;
    while ((m = first_take(d))) {
        first_answer(d, m);
        first__request__free_unpacked(m, NULL);
    }
}

static int no_row(void *arg, const struct gist_row *row)
{
    (void)arg;
    (void)row;
    return 0;
}

/* What that daemon does not know is an error of the call, and nothing else. */
static void unknown_then(gist_conn *conn, gist_session *s)
{
    const struct gist_sampling json = { .size = sizeof(json), .grammar = GIST_JSON_SCHEMA };
    const struct gist_policy secret = { .size = sizeof(secret), .flags = GIST_PRIVATE }, begun = {
        .size = sizeof(begun), .documents = (const char *const[]){ "x" }, .n_documents = 1
    };
    const struct gist_span text = { "x", 1 };
    struct gist_embeddings *embeddings;
    struct gist_choices *choices;
    struct gist_segments map;

    /* Fields that it would pass over: of these the session would not be what was asked for. */
    assert_int_equal(gist_open(conn, &secret, &s), -ENOTSUP);
    assert_int_equal(gist_open(conn, &begun, &s), -ENOTSUP);
    assert_int_equal(gist_generate(s, &json, NULL, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_generate_several(s, NULL, 2, NULL, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_keep(s, 1, NULL), -ENOTSUP);
    assert_int_equal(gist_attach(conn, (const unsigned char *)"0123456789abcdef", NULL, &s, NULL),
                     -ENOTSUP);
    assert_int_equal(gist_resume(s, NULL, NULL, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_save(s, "name", 0), -ENOTSUP);
    assert_non_null(strstr(gist_error(conn), "does not know that"));
    assert_int_equal(gist_list(conn, GIST_SESSIONS, no_row, NULL), -ENOTSUP);
    assert_int_equal(gist_segments(conn, 77, 0, &map), -ENOTSUP);
    assert_int_equal(gist_trace(conn, 0, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_document_add(conn, "n", "x", 1, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_score_choices(s, &text, 1, 0, &choices), -ENOTSUP);
    assert_int_equal(gist_embed(conn, &text, 1, NULL, &embeddings), -ENOTSUP);
    assert_int_equal(gist_error_code(conn), GIST_E_UNSUPPORTED);
    assert_int_equal(gist_ping(conn), 0);
}

static void test_old_daemon(void **state)
{
    const struct gist_policy policy = { .size = sizeof(policy), .flags = GIST_AUTO };
    const struct gist_sampling stops = { .size = sizeof(stops),
                                         .stop = (const char *const[]){ "a", "b" },
                                         .n_stop = 2 };
    struct fake_daemon fake;
    struct gist_result result;
    struct gist_stats stats;
    struct gist_usage usage;
    gist_session *s;
    gist_conn *conn;

    (void)state;
    fake_start_older(&fake, script_first, NULL);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    assert_int_equal(gist_open(conn, &policy, &s), 0);
    assert_int_equal(gist_append_text(s, "x", 1, 0, &usage), 0);
    assert_true(usage.prompt_tokens == 17 && usage.drafted_tokens == 0);
    memset(&result, 0xff, sizeof(result));
    assert_int_equal(gist_generate(s, &stops, NULL, NULL, &result), 0);
    assert_true(result.reason == GIST_STOP && result.usage.prompt_tokens == 17);
    assert_int_equal(result.stop, 0); /* it does not say which */
    assert_int_equal(gist_stats(conn, &stats), 0);
    assert_string_equal(stats.version, "0.0");
    assert_true(!stats.store && stats.requests_waiting == 0);
    unknown_then(conn, s);
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
}

/* Says what nobody knows yet, in answer to pings. */
static void script_later(struct fake_daemon *d, void *arg)
{
    static const struct {
        const char *bytes; /* behind the id */
        size_t len;
    } said[] = {
        { "\xa2\x38\x00\x92\x01\x00\x18\x01", 8 },       /* Pong, and another body before it */
        { "\x18\x01\xa2\x38\x00", 5 },                   /* as its last word a body 900 */
        { "\x18\x01\x9a\x01\x05\x08\x63\x12\x01x", 10 }, /* Error 99, "x" */
        { "\x18\x01\x92\x01\x03\xa0\x38\x01", 8 },       /* Pong with a field */
    };

    (void)arg;
    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        uint8_t frame[32] = { 0x08 };

        fake_expect(d, WIRE_PING);
        FAKE_CHECK(d->req.id < 128);
        frame[1] = (uint8_t)d->req.id;
        if (i == 0) /* a word that is not the last, of which we know nothing */
            raw_reply(d, (const uint8_t[]){ 0x08, frame[1], 0xa2, 0x38, 0x00 }, 5);
        memcpy(frame + 2, said[i].bytes, said[i].len);
        raw_reply(d, frame, 2 + said[i].len);
    }
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED, .u.session_opened.session = 77 });
    fake_expect(d, WIRE_GENERATE);
    raw_reply(d, (const uint8_t[]){ 0x08, (uint8_t)d->req.id, 0x18, 0x01, 0x72, 0x02, 0x08, 0x63 },
              8); /* Done, reason 99 */
    fake_expect(d, WIRE_PING);
    fake_last(d, (struct wire_rep){ .kind = WIRE_PONG });
    fake_drain(d);
}

static void test_later_daemon(void **state)
{
    struct fake_daemon fake;
    struct gist_result result;
    gist_session *s;
    gist_conn *conn;

    (void)state;
    fake_start(&fake, script_later, NULL);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    assert_int_equal(gist_ping(conn), 0);
    assert_int_equal(gist_ping(conn), -ENOTSUP);
    assert_int_equal(gist_error_code(conn), GIST_E_UNSUPPORTED);
    assert_non_null(strstr(gist_error(conn), "does not know"));
    assert_int_equal(gist_ping(conn), -EIO);
    assert_string_equal(gist_error(conn), "x");
    assert_int_equal(gist_ping(conn), 0);
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    assert_int_equal(gist_generate(s, NULL, NULL, NULL, &result), 0);
    assert_int_equal(result.reason, GIST_CUT);
    assert_int_equal(gist_ping(conn), 0);
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_old_client),
        cmocka_unit_test(test_all_fields),
        cmocka_unit_test(test_old_daemon),
        cmocka_unit_test(test_later_daemon),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
