/* Would catch: libgist that loses a field of what is saved, restored, listed or added by name, an
 * answer of the wrong kind that is believed, names that are gone when a request has to wait for
 * room, and a list or a document that goes on after its caller had enough. The daemon is a scripted
 * one; see fake_daemon.h. */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

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

/* --- every field ------------------------------------------------------------------------------ */

static const struct wire_row rows[] = {
    { "a", "label", "model", WIRE_ROW_READING, 100, 40, true, false, 1ull << 33, 77 },
    { "b", "", "", WIRE_ROW_OTHER_MODEL, 5, 5, false, true, 2, 1ull << 40 },
};

static void script_fields(struct fake_daemon *d, void *arg)
{
    const struct wire_usage usage = { .prompt_tokens = 9, .computed_tokens = 4 };
    struct wire_rep rep = { .kind = WIRE_LISTED };

    (void)arg;
    fake_expect(d, WIRE_RESTORE);
    FAKE_CHECK(strcmp(d->req.u.restore.name, "old") == 0);
    FAKE_CHECK(strcmp(d->req.u.restore.label, "new label") == 0);
    fake_last(d,
              (struct wire_rep){ .kind = WIRE_RESTORED,
                                 .u.restored = { .session = 5, .n_tokens = 9, .usage = usage } });
    fake_expect(d, WIRE_SAVE);
    FAKE_CHECK(d->req.u.save.session == 5 && strcmp(d->req.u.save.name, "new") == 0);
    FAKE_CHECK(d->req.u.save.replace);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SAVED, .u.saved = { 9, 100 } });
    fake_expect(d, WIRE_LIST);
    FAKE_CHECK(d->req.u.list.kind == WIRE_NAMED_DOCUMENT);
    rep.u.listed.rows = rows;
    rep.u.listed.n_rows = 1;
    fake_reply(d, rep, NULL, 0);
    rep.u.listed.rows = rows + 1;
    fake_last(d, rep);
    fake_expect(d, WIRE_DELETE);
    FAKE_CHECK(d->req.u.delete.kind == WIRE_NAMED_SESSION);
    FAKE_CHECK(strcmp(d->req.u.delete.name, "old") == 0);
    fake_last(d, (struct wire_rep){ .kind = WIRE_DELETED });
    fake_drain(d);
}

static int on_row(void *arg, const struct gist_row *row)
{
    unsigned *n = arg;
    const struct wire_row *w = &rows[*n];

    assert_true(*n < 2);
    assert_string_equal(row->name, w->name);
    assert_string_equal(row->label, w->label);
    assert_string_equal(row->model, w->model);
    assert_int_equal(row->state, w->state);
    assert_int_equal(row->n_tokens, w->n_tokens);
    assert_int_equal(row->n_read, w->n_read);
    assert_int_equal(row->pinned, w->pinned);
    assert_int_equal(row->kept, w->kept);
    assert_int_equal(row->at_s, w->at_s);
    assert_int_equal(row->bytes, w->bytes);
    ++*n;
    return 0;
}

static void test_fields(void **state)
{
    struct gist_usage usage;
    gist_session *s;
    unsigned n = 0;

    (void)state;
    begin(script_fields, NULL);
    assert_int_equal(gist_restore(conn, "old", "new label", &s), 0);
    assert_int_equal(gist_session_id(s), 5);
    gist_session_usage(s, &usage);
    assert_int_equal(usage.prompt_tokens, 9);
    assert_int_equal(usage.computed_tokens, 4);
    assert_int_equal(gist_save(s, "new", GIST_REPLACE), 0);
    assert_int_equal(gist_list(conn, GIST_DOCUMENTS, on_row, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(gist_delete(conn, GIST_SESSIONS, "old"), 0);
    /* What the caller got wrong is not sent. */
    assert_int_equal(gist_save(s, "new", GIST_PUBLIC), -EINVAL);
    assert_int_equal(gist_save(s, NULL, 0), -EINVAL);
    assert_int_equal(gist_restore(conn, NULL, NULL, &s), -EINVAL);
    assert_int_equal(gist_list(conn, (enum gist_named)2, on_row, &n), -EINVAL);
    assert_int_equal(gist_delete(conn, GIST_SESSIONS, NULL), -EINVAL);
    end();
}

/* --- lists ------------------------------------------------------------------------------------ */

static int only_one(void *arg, const struct gist_row *row)
{
    unsigned *n = arg;

    (void)row;
    ++*n;
    return 1;
}

static void script_long_list(struct fake_daemon *d, void *arg)
{
    struct wire_rep rep = { .kind = WIRE_LISTED, .u.listed = { rows, 2 } };

    (void)arg;
    fake_expect(d, WIRE_LIST);
    for (int i = 0; i < 3; i++) {
        rep.id = d->req.id;
        fake_reply(d, rep, NULL, 0);
    }
    rep.last = true;
    fake_reply(d, rep, NULL, 0);
    fake_expect(d, WIRE_CANCEL);
    fake_last(d, (struct wire_rep){ .kind = WIRE_CANCELLED });
    fake_expect(d, WIRE_PING);
    fake_last(d, (struct wire_rep){ .kind = WIRE_PONG });
    fake_drain(d);
}

static void test_list_that_was_enough(void **state)
{
    unsigned n = 0;

    (void)state;
    begin(script_long_list, NULL);
    assert_int_equal(gist_list(conn, GIST_SESSIONS, only_one, &n), -ECANCELED);
    assert_int_equal(n, 1);
    assert_int_equal(gist_ping(conn), 0);
    end();
}

/* --- documents -------------------------------------------------------------------------------- */

struct progress {
    uint32_t read[4], n;
    int err;
    bool done;
    struct gist_result result;
};

static void on_progress(void *arg, uint32_t n_read, uint32_t n_tokens)
{
    struct progress *p = arg;

    assert_true(p->n < 4 && n_tokens == 50);
    p->read[p->n++] = n_read;
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct progress *p = arg;

    assert_false(p->done);
    p->done = true;
    p->err = err;
    if (result)
        p->result = *result;
}

/* Answers a document that comes in parts; *arg: bytes of text that are expected. */
static void script_document(struct fake_daemon *d, void *arg)
{
    struct wire_rep rep = { .kind = WIRE_DOCUMENT_ADDED };
    uint64_t got = 0, want = *(const uint64_t *)arg;
    bool more = true;

    while (more) {
        fake_expect(d, WIRE_ADD_DOCUMENT);
        FAKE_CHECK(strcmp(d->req.u.add_document.name, "handbook") == 0);
        FAKE_CHECK(strcmp(d->req.u.add_document.role, "user") == 0);
        FAKE_CHECK(strcmp(d->req.u.add_document.memory.adapter, "fine") == 0);
        FAKE_CHECK(d->req.u.add_document.memory.ratio == 4);
        FAKE_CHECK(d->req.u.add_document.kind == WIRE_APPEND_CHAT);
        FAKE_CHECK(d->req.u.add_document.priority == WIRE_BACKGROUND);
        FAKE_CHECK(d->req.u.add_document.has_segment && d->req.u.add_document.segment == 64);
        FAKE_CHECK(d->req.u.add_document.pin && !d->req.u.add_document.replace);
        got += d->req.bulk_len;
        more = d->req.u.add_document.more;
        if (more)
            fake_last(d, rep);
    }
    FAKE_CHECK(got == want);
    for (uint32_t i = 1; i <= 2; i++) {
        rep.u.document_added.n_read = 20 * i;
        rep.u.document_added.n_tokens = 50;
        rep.id = d->req.id;
        fake_reply(d, rep, NULL, 0);
    }
    rep.u.document_added.usage.prompt_tokens = 50;
    fake_last(d, rep);
    fake_drain(d);
}

static const struct gist_memory memory = { .size = sizeof(memory), .ratio = 4, .adapter = "fine" };
static const struct gist_document document = { .size = sizeof(document),
                                               .segment = 64,
                                               .memory = &memory,
                                               .priority = GIST_BACKGROUND,
                                               .role = "user",
                                               .on_progress = on_progress,
                                               .flags = GIST_PIN };

static void check_progress(const struct progress *p)
{
    assert_int_equal(p->n, 2);
    assert_int_equal(p->read[0], 20);
    assert_int_equal(p->read[1], 40);
}

static void test_document(void **state)
{
    uint64_t len = 3;
    struct gist_document d = document;
    struct progress p = { .n = 0 };
    struct gist_usage usage;

    (void)state;
    begin(script_document, &len);
    d.arg = &p;
    assert_int_equal(gist_document_add(conn, "handbook", "abc", 3, &d, &usage), 0);
    assert_int_equal(usage.prompt_tokens, 50);
    check_progress(&p);
    d.flags |= GIST_OPEN_ANSWER;
    assert_int_equal(gist_document_add(conn, "handbook", "abc", 3, &d, &usage), -EINVAL);
    d.size = 0;
    assert_int_equal(gist_document_add(conn, "handbook", "abc", 3, &d, &usage), -EINVAL);
    assert_int_equal(gist_document_add(conn, NULL, "abc", 3, NULL, &usage), -EINVAL);
    end();
}

/* Text that goes in many parts waits for their answers, and then nothing of the caller's is there
 * any more: name, role, adapter, text. */
static void test_document_in_parts(void **state)
{
    uint64_t len = 20u << 20;
    char name[] = "handbook", role[] = "user", adapter[] = "fine";
    struct gist_memory m = memory;
    struct gist_document d = document;
    struct progress p = { .n = 0 };
    char *text = malloc(len);

    (void)state;
    assert_non_null(text);
    memset(text, 'x', len);
    begin(script_document, &len);
    m.adapter = adapter;
    d.memory = &m;
    d.role = role;
    assert_int_equal(gist_document_add_start(conn, name, text, len, &d, on_done, &p, NULL), 0);
    assert_false(p.done);
    memset(name, '!', sizeof(name) - 1);
    memset(role, '!', sizeof(role) - 1);
    memset(adapter, '!', sizeof(adapter) - 1);
    free(text);
    while (!p.done) {
        struct pollfd f = { .fd = gist_fd(conn), .events = POLLIN };

        assert_true(poll(&f, 1, FAKE_PATIENCE_MS) > 0);
        assert_true(gist_dispatch(conn) >= 0);
    }
    assert_int_equal(p.err, 0);
    assert_int_equal(p.result.usage.prompt_tokens, 50);
    check_progress(&p);
    end();
}

/* --- a daemon that answers something else ----------------------------------------------------- */

static void script_wrong(struct fake_daemon *d, void *arg)
{
    (void)arg;
    FAKE_CHECK(fake_take(d));
    fake_last(d, (struct wire_rep){ .kind = WIRE_PONG });
    fake_drain(d);
}

static int call(int which)
{
    gist_session *s;

    switch (which) {
    case 0:
        return gist_restore(conn, "x", NULL, &s);
    case 1:
        return gist_list(conn, GIST_SESSIONS, on_row, NULL);
    case 2:
        return gist_delete(conn, GIST_SESSIONS, "x");
    default:
        return gist_document_add(conn, "x", "", 0, NULL, NULL);
    }
}

static void test_wrong_answers(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        begin(script_wrong, NULL);
        assert_int_equal(call(i), -EPROTO);
        assert_int_equal(gist_error_code(conn), GIST_E_TRANSPORT);
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),        cmocka_unit_test(test_list_that_was_enough),
        cmocka_unit_test(test_document),      cmocka_unit_test(test_document_in_parts),
        cmocka_unit_test(test_wrong_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
