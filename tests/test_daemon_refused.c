/* tests/test_daemon_refused.c - requests that can't be read, or break a limit of the wire. Would
 * catch: an error without the request's id (libgist then drops the connection, and with it all
 * sessions), a text field whose length nobody checks, a part of a refused request that becomes the
 * beginning of the next one, a 0 that is taken for nothing.
 */

#include "gistd.pb-c.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct daemon_fixture d;

static int start(void **state)
{
    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    daemon_fixture_stop(&d);
    return 0;
}

/* --- frames by hand --------------------------------------------------------------------------- */

static uint8_t frame[CHAN_FRAME_MAX];

static size_t put_varint(uint8_t *p, uint64_t v)
{
    size_t n = 0;

    for (; v >= 128; v >>= 7)
        p[n++] = (uint8_t)(v | 128);
    p[n++] = (uint8_t)v;
    return n;
}

/* Makes of n bytes a field of that many: tag and length in front. */
static size_t wrap(uint8_t *bytes, size_t n, uint32_t field)
{
    uint8_t head[20];
    size_t k = put_varint(head, field << 3 | 2);

    k += put_varint(head + k, n);
    memmove(bytes + k, bytes, n);
    memcpy(bytes, head, k);
    return n + k;
}

/* Behind a frame's body: its id, so that it is found wherever it stands. */
static size_t put_id(uint8_t *bytes, size_t n, uint64_t id)
{
    bytes[n++] = 1 << 3;
    return n + put_varint(bytes + n, id);
}

static void send_frame(struct raw_client *c, size_t len, uint32_t bulk_len)
{
    uint8_t *to, *bulk;

    assert_int_equal(chan_reserve(c->chan, (uint32_t)len, bulk_len, &to, &bulk), 0);
    memcpy(to, frame, len);
    chan_commit(c->chan);
}

/* The answer to the next id is this error; and the connection lives. */
static void refused(struct raw_client *c, enum wire_error code, const char *text)
{
    const struct wire_rep *rep = raw_client_wait(c, c->last_id, NULL);

    raw_client_refused(rep, code, text);
    rep = raw_client_ask(c, (struct wire_req){ .kind = WIRE_PING }, NULL, 0, NULL);
    assert_int_equal(rep->kind, WIRE_PONG);
}

/* --- every text field of every request, from the schema --------------------------------------- */

struct path {
    uint32_t fields[8];
    unsigned n;
    const char *name;
};

/* Calls fn for every string that a message has, in itself and in what it holds. Returns how many.
 */
static unsigned each_text(const ProtobufCMessageDescriptor *m, struct path path,
                          void (*fn)(void *arg, const struct path *p), void *arg)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->fields[i];
        struct path p = path;

        p.fields[p.n++] = f->id;
        p.name = f->name;
        if (f->type == PROTOBUF_C_TYPE_STRING) {
            fn(arg, &p);
            n++;
        } else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
            n += each_text(f->descriptor, p, fn, arg);
        }
    }
    return n;
}

static void send_long_text(void *arg, const struct path *p)
{
    struct raw_client *c = arg;
    size_t n = WIRE_STRING_MAX + 1;

    memset(frame, 'x', n);
    for (unsigned i = p->n; i-- > 0;)
        n = wrap(frame, n, p->fields[i]);
    n = put_id(frame, n, ++c->last_id);
    send_frame(c, n, 0);
    refused(c, WIRE_E_BAD_REQUEST, p->name);
}

static void count(void *arg, const struct path *p)
{
    (void)arg;
    (void)p;
}

static void test_long_texts(void **state)
{
    struct raw_client c;

    (void)state;
    raw_client_open(&c, d.socket);
    assert_true(
        each_text(&gistd__request__descriptor, (struct path){ .n = 0 }, send_long_text, &c) >= 7);
    raw_client_close(&c);
}

/* --- the same through libgist, which does not even send them ---------------------------------- */

static char *long_text(void)
{
    char *text = malloc(WIRE_STRING_MAX + 2);

    memset(text, 'x', WIRE_STRING_MAX + 1);
    text[WIRE_STRING_MAX + 1] = '\0';
    return text;
}

static int say_name(gist_session *s, const char *text)
{
    gist_conn *c;

    (void)s;
    return gist_connect(d.socket, text, &c);
}

static int say_fork_label(gist_session *s, const char *text)
{
    gist_session *t;

    return gist_fork(s, text, &t);
}

static int say_role(gist_session *s, const char *text)
{
    struct gist_message m = { text, "hello" };

    return gist_append_chat(s, &m, 1, 0, NULL);
}

static int say_stop(gist_session *s, const char *text)
{
    struct gist_sampling p = { .size = sizeof(p), .max_tokens = 1, .stop = &text, .n_stop = 1 };

    return gist_generate(s, &p, NULL, NULL, NULL);
}

static gist_conn *conn; /* of the calls that have no session */

static int open_label(gist_session *s, const char *text)
{
    struct gist_policy p = { .size = sizeof(p), .label = text };
    gist_session *t;

    (void)s;
    return gist_open(conn, &p, &t);
}

static int open_realm(gist_session *s, const char *text)
{
    struct gist_policy p = { .size = sizeof(p), .realm = text };
    gist_session *t;

    (void)s;
    return gist_open(conn, &p, &t);
}

static int open_adapter(gist_session *s, const char *text)
{
    struct gist_memory m = { .size = sizeof(m), .adapter = text };
    struct gist_policy p = { .size = sizeof(p), .memory = &m };
    gist_session *t;

    (void)s;
    return gist_open(conn, &p, &t);
}

static int score_adapter(gist_session *s, const char *text)
{
    struct gist_memory m = { .size = sizeof(m), .adapter = text };
    struct gist_score_opts o = { .size = sizeof(o), .memory = &m };
    struct gist_score score;

    (void)s;
    return gist_score_text(conn, "some text", 9, &o, &score);
}

static int open_documents(gist_session *s, const char *text)
{
    struct gist_policy p = { .size = sizeof(p), .documents = &text, .n_documents = 1 };
    gist_session *t;

    (void)s;
    return gist_open(conn, &p, &t);
}

static int save_name(gist_session *s, const char *text)
{
    return gist_save(s, text, 0);
}

static int restore_name(gist_session *s, const char *text)
{
    (void)s;
    return gist_restore(conn, text, NULL, &s);
}

static int restore_label(gist_session *s, const char *text)
{
    (void)s;
    return gist_restore(conn, "name", text, &s);
}

static int delete_name(gist_session *s, const char *text)
{
    (void)s;
    return gist_delete(conn, GIST_SESSIONS, text);
}

static int add_name(gist_session *s, const char *text)
{
    (void)s;
    return gist_document_add(conn, text, "text", 4, NULL, NULL);
}

static int add_role(gist_session *s, const char *text)
{
    const struct gist_document doc = { .size = sizeof(doc), .role = text };

    (void)s;
    return gist_document_add(conn, "name", "text", 4, &doc, NULL);
}

static int add_adapter(gist_session *s, const char *text)
{
    const struct gist_memory m = { .size = sizeof(m), .adapter = text };
    const struct gist_document doc = { .size = sizeof(doc), .memory = &m };

    (void)s;
    return gist_document_add(conn, "name", "text", 4, &doc, NULL);
}

static int attach_realm(gist_session *s, const char *text)
{
    static const unsigned char token[GIST_TOKEN_BYTES];

    (void)s;
    return gist_attach(conn, token, text, &s, NULL);
}

/* One for each text that the schema has: a new one is missing here. */
static const struct {
    const char *field;
    int (*say)(gist_session *s, const char *text);
} texts[] = {
    { "client", say_name },      { "label", open_label },
    { "adapter", open_adapter }, { "role", say_role },
    { "stop", say_stop },        { "adapter", score_adapter },
    { "label", say_fork_label }, { "documents", open_documents },
    { "name", save_name },       { "name", restore_name },
    { "label", restore_label },  { "name", delete_name },
    { "name", add_name },        { "role", add_role },
    { "adapter", add_adapter },  { "realm", open_realm },
    { "realm", attach_realm },
};
#define N_TEXTS (sizeof(texts) / sizeof(texts[0]))

static void test_long_texts_by_libgist(void **state)
{
    char *text = long_text();
    gist_session *s;

    (void)state;
    assert_int_equal(each_text(&gistd__request__descriptor, (struct path){ .n = 0 }, count, NULL),
                     N_TEXTS);
    conn = daemon_fixture_connect(&d);
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "abc", 3, 0, NULL), 0);
    for (size_t i = 0; i < N_TEXTS; i++) {
        const gist_conn *at = texts[i].say == say_name ? NULL : conn;

        assert_int_equal(texts[i].say(s, text), -EMSGSIZE);
        assert_int_equal(gist_error_code(at), GIST_E_BAD_REQUEST);
        assert_non_null(strstr(gist_error(at), texts[i].field));
        assert_non_null(strstr(gist_error(at), "4096"));
        assert_int_equal(gist_ping(conn), 0);
    }
    /* The session is there, as it was. */
    assert_int_equal(gist_rewind(s, 1), 0);
    gist_disconnect(conn);
    free(text);
}

/* --- what this version does not know ---------------------------------------------------------- */

static void test_unknown(void **state)
{
    struct raw_client c;
    size_t n;

    (void)state;
    raw_client_open(&c, d.socket);
    /* A request of a later version; and one that is there twice, as none and as an unknown one. */
    n = put_id(frame, wrap(frame, 0, 1000), ++c.last_id);
    send_frame(&c, n, 0);
    refused(&c, WIRE_E_UNSUPPORTED, "field 1000");
    /* OpenSession { priority: 9 }, a value of a later version. */
    memcpy(frame, "\x10\x09", 2);
    n = put_id(frame, wrap(frame, 2, 11), ++c.last_id);
    send_frame(&c, n, 0);
    refused(&c, WIRE_E_UNSUPPORTED, "priority");
    /* Nothing but an id. */
    n = put_id(frame, 0, ++c.last_id);
    send_frame(&c, n, 0);
    refused(&c, WIRE_E_BAD_REQUEST, "no request");
    /* An id, and bytes that are no protobuf. */
    n = put_id(frame, 0, ++c.last_id);
    memset(frame + n, 0xff, 8);
    send_frame(&c, n + 8, 0);
    refused(&c, WIRE_E_BAD_REQUEST, "can't be read");
    /* A frame that says less than its slot. */
    n = put_id(frame, wrap(frame, 0, 17), ++c.last_id);
    send_frame(&c, n, 100);
    refused(&c, WIRE_E_BAD_REQUEST, "100");
    raw_client_close(&c);
}

/* Too many of what is allowed one by one: messages, stops, and more than unpacks into the scratch.
 */
static void test_too_many(void **state)
{
    struct raw_client c;
    size_t n;

    (void)state;
    raw_client_open(&c, d.socket);
    for (n = 0; n < 3 * (WIRE_STOPS_MAX + 1); n += 3)
        memcpy(frame + n, "\x52\x01s", 3);
    n = put_id(frame, wrap(frame, n, 13), ++c.last_id);
    send_frame(&c, n, 0);
    refused(&c, WIRE_E_BAD_REQUEST, "17 stop strings");
    for (n = 0; n < 2 * (WIRE_MESSAGES_MAX + 1); n += 2)
        memcpy(frame + n, "\x1a\x00", 2);
    n = put_id(frame, wrap(frame, n, 12), ++c.last_id);
    send_frame(&c, n, 0);
    refused(&c, WIRE_E_BAD_REQUEST, "1025 chat messages");
    for (n = 0; n < 60000; n += 2)
        memcpy(frame + n, "\x1a\x00", 2);
    n = put_id(frame, wrap(frame, n, 12), ++c.last_id);
    send_frame(&c, n, 0);
    refused(&c, WIRE_E_BAD_REQUEST, "too many");
    raw_client_close(&c);
}

/* An Append whose last part is refused is none: its first part is not the next text's beginning. */
static void test_parts_are_forgotten(void **state)
{
    struct wire_req open = { .kind = WIRE_OPEN_SESSION }, part = { .kind = WIRE_APPEND };
    const struct wire_rep *rep;
    struct raw_client c;
    uint64_t session;
    uint32_t alone;
    size_t n;

    (void)state;
    raw_client_open(&c, d.socket);
    session = raw_client_ask(&c, open, NULL, 0, NULL)->u.session_opened.session;
    part.u.append.session = session;
    rep = raw_client_ask(&c, part, "def", 3, NULL);
    assert_int_equal(rep->kind, WIRE_APPENDED);
    alone = rep->u.appended.n_tokens;
    for (int too_large = 0; too_large < 2; too_large++) {
        part.u.append.more = true;
        rep = raw_client_ask(&c, part, "abcabcabc", 9, NULL);
        assert_int_equal(rep->kind, WIRE_APPENDED);
        n = 0;
        if (too_large) /* one that does not even unpack */
            for (; n < 60000; n += 2)
                memcpy(frame + n, "\x1a\x00", 2);
        else
            for (; n < 2 * (WIRE_MESSAGES_MAX + 1); n += 2)
                memcpy(frame + n, "\x1a\x00", 2);
        frame[n++] = 1 << 3;
        n += put_varint(frame + n, session);
        n = put_id(frame, wrap(frame, n, 12), ++c.last_id);
        send_frame(&c, n, 0);
        refused(&c, WIRE_E_BAD_REQUEST, "");
        part.u.append.more = false;
        rep = raw_client_ask(&c, part, "def", 3, NULL);
        assert_int_equal(rep->kind, WIRE_APPENDED);
        assert_true(rep->u.appended.n_tokens <= alone + 3);
        alone = rep->u.appended.n_tokens;
    }
    raw_client_close(&c);
}

/* --- a 0 is a value --------------------------------------------------------------------------- */

static void bad_open(struct gist_memory m, unsigned policy_flags, const char *text)
{
    struct gist_policy p = { .size = sizeof(p), .memory = &m, .flags = policy_flags };
    gist_session *s;

    m.size = sizeof(m);
    assert_int_equal(gist_open(conn, &p, &s), -EINVAL);
    assert_non_null(strstr(gist_error(conn), text));
}

static int keep_ids(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n)
{
    uint32_t **to = arg;

    (void)text;
    (void)len;
    memcpy(*to, ids, n * sizeof(*ids));
    *to += n;
    return 0;
}

#define ANSWER 24u

static void answer(struct gist_sampling p, uint32_t ids[ANSWER])
{
    uint32_t *to = ids;
    gist_session *s;

    memset(ids, 0xff, ANSWER * sizeof(*ids));
    p.size = sizeof(p);
    p.max_tokens = ANSWER;
    p.ignore_eog = 1;
    p.seed = 7;
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "abc", 3, 0, NULL), 0);
    assert_int_equal(gist_generate(s, &p, keep_ids, &to, NULL), 0);
    assert_int_equal(to - ids, ANSWER);
    gist_close(s);
}

static void test_zero_is_a_value(void **state)
{
    struct gist_memory m = { .size = sizeof(m), .compressor = GIST_SELECT };
    struct gist_policy p = { .size = sizeof(p), .memory = &m };
    struct gist_score_opts o = { .size = sizeof(o), .flags = GIST_SET_WINDOW };
    struct gist_sampling wrong = { .size = sizeof(wrong), .flags = GIST_SET_REPEAT_PENALTY };
    uint32_t greedy[ANSWER], any[ANSWER], top[ANSWER];
    struct gist_score score;
    gist_session *s;

    (void)state;
    conn = daemon_fixture_connect(&d);
    /* top_p: nothing but the likeliest token, at any temperature; absent, all of them. */
    answer((struct gist_sampling){ .temperature = 0 }, greedy);
    answer((struct gist_sampling){ .temperature = 50 }, any);
    answer((struct gist_sampling){ .temperature = 50, .flags = GIST_SET_TOP_P }, top);
    assert_memory_equal(greedy, top, sizeof(top));
    assert_memory_not_equal(greedy, any, sizeof(any));
    /* What can't be 0 says so. */
    assert_int_equal(gist_open(conn, &p, &s), 0);
    assert_int_equal(gist_append_text(s, "abc", 3, 0, NULL), 0);
    assert_int_equal(gist_generate(s, &wrong, NULL, NULL, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(conn), "repeat_penalty is 0"));
    bad_open((struct gist_memory){ .compressor = GIST_SELECT, .flags = GIST_SET_RATIO }, 0,
             "ratio is 0");
    bad_open((struct gist_memory){ .flags = GIST_SET_RATIO }, 0, "ratio is 0");
    bad_open((struct gist_memory){ .flags = GIST_SET_BUDGET }, 0, "0 keys");
    bad_open((struct gist_memory){ .ratio = 0 }, GIST_SET_SEGMENT, "segments of 0");
    assert_int_equal(gist_score_text(conn, "abc", 3, &o, &score), -EINVAL);
    assert_non_null(strstr(gist_error(conn), "window is 0"));
    o.flags = GIST_SET_SEGMENT;
    assert_int_equal(gist_score_text(conn, "abc", 3, &o, &score), -EINVAL);
    assert_non_null(strstr(gist_error(conn), "segments of 0"));
    /* Sinks can, and in both ways of saying it. */
    m.flags = GIST_SET_SINKS;
    assert_int_equal(gist_open(conn, &p, &s), 0);
    m = (struct gist_memory){ .size = sizeof(m),
                              .compressor = GIST_SELECT,
                              .sinks = GIST_NO_SINKS };
    assert_int_equal(gist_open(conn, &p, &s), 0);
    gist_disconnect(conn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_long_texts_by_libgist),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_parts_are_forgotten),
        cmocka_unit_test(test_zero_is_a_value),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
