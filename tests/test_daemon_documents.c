/* tests/test_daemon_documents.c - documents in the real daemon, where nothing is kept beside the
 * pool: no store, and no host memory behind a device's, which would have the last page of a
 * document, too, and what the pool gave up. Would catch: a text that is read twice because two
 * asked for it, or because it has a name; an answer that is not the one behind the same ids; a name
 * that stays when who adds it dies in the middle, or sessions that end with it; a pin that is given
 * up, is charged to nobody, or takes more than its owner may have; a policy that is silently
 * another one; names of other users.
 */
#include "ipc/wire.h"
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemon_fixture d;
static gist_conn *conn;

static void start(enum daemon_fixture_model m, const char *const *more)
{
    const char *args[24] = { "--store", "none", "--host-bytes", "none", "--socket-mode", "0666" };
    size_t n = 6;

    for (; more && *more; more++)
        args[n++] = *more;
    daemon_fixture_start(&d, m, args);
    daemon_fixture_let_in(&d);
    conn = daemon_fixture_connect(&d);
}

static void stop(void)
{
    gist_disconnect(conn);
    conn = NULL;
    daemon_fixture_stop(&d);
}

/* --- small things ----------------------------------------------------------------------------- */

static char *text_of(size_t n, unsigned seed)
{
    char *text = malloc(n + 1);

    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('0' + rand_r(&seed) % 10); /* a token each */
    text[n] = '\0';
    return text;
}

static int add(gist_conn *c, const char *name, const char *text, unsigned flags,
               struct gist_usage *usage)
{
    const struct gist_document doc = { .size = sizeof(doc), .flags = GIST_PLAIN | flags };

    return gist_document_add(c, name, text, strlen(text), &doc, usage);
}

static int open_with(gist_conn *c, const char *name, const struct gist_policy *like,
                     gist_session **ret)
{
    struct gist_policy p = { .size = sizeof(p) };

    if (like)
        p = *like;
    p.documents = &name;
    p.n_documents = 1;
    return gist_open(c, &p, ret);
}

static struct answered answer_of(gist_session *s)
{
    struct answered a;

    assert_int_equal(gist_append_text(s, " and then", 9, 0, NULL), 0);
    assert_int_equal(answered_greedy(s, 20, &a), 0);
    return a;
}

struct found {
    char names[2048];    /* with a comma behind each */
    struct gist_row row; /* of the last; its strings are gone */
    unsigned n;
};

static int on_row(void *arg, const struct gist_row *row)
{
    struct found *f = arg;

    assert_true(strlen(f->names) + strlen(row->name) + 2 < sizeof(f->names));
    (void)strcat(strcat(f->names, row->name), ",");
    f->row = *row;
    f->n++;
    return 0;
}

static struct found list(gist_conn *c)
{
    struct found f = { .n = 0 };

    assert_int_equal(gist_list(c, GIST_DOCUMENTS, on_row, &f), 0);
    return f;
}

static struct gist_stats stats(void)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(conn, &st), 0);
    return st;
}

static void refused(int err, int want, const char *sentence)
{
    assert_int_equal(err, want);
    if (!strstr(gist_error(conn), sentence))
        fail_msg("\"%s\" is not in \"%s\"", sentence, gist_error(conn));
}

/* --- begun with ------------------------------------------------------------------------------- */

/* A session that begins with a document is one that had its text appended, and reads nothing of it
 * but the page that was not full. */
static void test_begins(void **state)
{
    char *text = text_of(500, 1);
    gist_session *with, *without, *again;
    struct gist_usage usage;
    struct answered a, b;

    (void)state;
    start(DAEMON_FIXTURE_TINY, NULL);
    assert_int_equal(add(conn, "handbook", text, 0, &usage), 0);
    assert_int_equal(usage.prompt_tokens, 500);
    assert_int_equal(usage.computed_tokens, 500);
    assert_int_equal(open_with(conn, "handbook", NULL, &with), 0);
    gist_session_usage(with, &usage);
    assert_int_equal(usage.prompt_tokens, 500);
    assert_int_equal(usage.shared_tokens, 496);
    assert_int_equal(usage.computed_tokens, 4);
    a = answer_of(with);

    assert_int_equal(gist_open(conn, NULL, &without), 0);
    assert_int_equal(gist_append_text(without, text, 500, 0, NULL), 0);
    b = answer_of(without);
    assert_memory_equal(a.ids, b.ids, sizeof(a.ids));

    /* Deleted: sessions go on, and nobody begins with it any more. */
    assert_int_equal(gist_delete(conn, GIST_DOCUMENTS, "handbook"), 0);
    refused(open_with(conn, "handbook", NULL, &again), -ENOENT, "no document \"handbook\"");
    assert_int_equal(gist_append_text(with, "more", 4, 0, NULL), 0);
    refused(gist_delete(conn, GIST_DOCUMENTS, "handbook"), -ENOENT, "handbook");
    free(text);
    stop();
}

static void test_policies(void **state)
{
    const struct gist_memory fine = { .size = sizeof(fine),
                                      .compressor = GIST_FINE_KV,
                                      .ratio = 4 };
    const struct gist_memory other = { .size = sizeof(other), .compressor = GIST_NONE };
    const struct gist_document doc = {
        .size = sizeof(doc), .segment = 64, .memory = &fine, .flags = GIST_PLAIN
    };
    struct gist_policy p = { .size = sizeof(p) };
    const char *const two[] = { "one", "two" };
    char *text = text_of(500, 2);
    struct gist_usage usage;
    gist_session *s;

    (void)state;
    start(DAEMON_FIXTURE_TINY, NULL);
    assert_int_equal(gist_document_add(conn, "one", text, 500, &doc, &usage), 0);
    assert_true(usage.gists > 0);
    assert_int_equal(open_with(conn, "one", NULL, &s), 0);
    gist_session_usage(s, &usage);
    assert_true(usage.gists > 0 && usage.shared_tokens >= 448);
    p.memory = &fine;
    p.segment = 64;
    assert_int_equal(open_with(conn, "one", &p, &s), 0);
    p.segment = 128;
    refused(open_with(conn, "one", &p, &s), -EINVAL, "other memory options");
    p.memory = &other;
    p.segment = 64;
    refused(open_with(conn, "one", &p, &s), -EINVAL, "other memory options");
    p = (struct gist_policy){ .size = sizeof(p), .flags = GIST_PUBLIC };
    refused(open_with(conn, "one", &p, &s), -EINVAL, "not public");
    p = (struct gist_policy){ .size = sizeof(p), .flags = GIST_PRIVATE };
    assert_int_equal(open_with(conn, "one", &p, &s), 0);
    p = (struct gist_policy){ .size = sizeof(p), .documents = two, .n_documents = 2 };
    refused(gist_open(conn, &p, &s), -ENOENT, "two");
    free(text);
    stop();
}

static void test_names(void **state)
{
    char longest[130];
    struct gist_usage usage;
    gist_session *s;
    struct found f;

    (void)state;
    memset(longest, 'x', 129);
    longest[129] = '\0';
    start(DAEMON_FIXTURE_TINY, NULL);
    refused(add(conn, "", "text", 0, NULL), -EINVAL, "0 bytes");
    refused(add(conn, longest, "text", 0, NULL), -EINVAL, "129 bytes");
    refused(add(conn, "a/b", "text", 0, NULL), -EINVAL, "'/'");
    refused(open_with(conn, "a\nb", NULL, &s), -EINVAL, "control");
    refused(gist_delete(conn, GIST_DOCUMENTS, ""), -EINVAL, "0 bytes");
    refused(add(conn, "empty", "", 0, NULL), -EINVAL, "no text");
    assert_int_equal(list(conn).n, 0);

    assert_int_equal(add(conn, "b", "22222", 0, NULL), 0);
    assert_int_equal(add(conn, "a", "1111", 0, NULL), 0);
    assert_int_equal(add(conn, "caf\xc3\xa9", "33333", 0, NULL), 0);
    refused(add(conn, "a", "anew", 0, NULL), -EEXIST, "already");
    assert_int_equal(add(conn, "a", "1234123412341234", GIST_REPLACE, &usage), 0);
    assert_int_equal(usage.prompt_tokens, 16);
    f = list(conn);
    assert_string_equal(f.names, "a,b,caf\xc3\xa9,");
    assert_int_equal(f.row.n_tokens, 5);
    assert_int_equal(f.row.state, GIST_READY);
    assert_false(f.row.kept || f.row.pinned);
    assert_int_equal(open_with(conn, "a", NULL, &s), 0);
    gist_session_usage(s, &usage);
    assert_int_equal(usage.prompt_tokens, 16);
    /* Sessions are another kind, and there is no disk to keep them on. */
    refused(gist_save(s, "a", 0), -EROFS, "nothing is kept on disk");
    refused(gist_restore(conn, "a", NULL, &s), -EROFS, "no saved sessions");
    stop();
}

/* --- whose ------------------------------------------------------------------------------------ */

static void test_owners(void **state)
{
    gist_conn *other, *nobody;
    struct gist_usage usage;
    gist_session *s;

    (void)state;
    if (geteuid() != 0) {
        printf("skipped: only root can be several users\n");
        skip();
    }
    start(DAEMON_FIXTURE_TINY, NULL);
    other = daemon_fixture_connect_as(&d, 12345);
    nobody = daemon_fixture_connect_as(&d, 65534);
    assert_int_equal(add(conn, "mine", "a secret of some length, or so", 0, NULL), 0);
    assert_int_equal(list(other).n, 0);
    assert_int_equal(open_with(other, "mine", NULL, &s), -ENOENT);
    assert_int_equal(gist_delete(other, GIST_DOCUMENTS, "mine"), -ENOENT);
    /* The same name and the same text are the other's own. */
    assert_int_equal(add(other, "mine", "a secret of some length, or so", 0, &usage), 0);
    assert_int_equal(usage.shared_tokens, 0);
    assert_int_equal(gist_delete(other, GIST_DOCUMENTS, "mine"), 0);
    assert_string_equal(list(conn).names, "mine,");
    assert_int_equal(add(nobody, "x", "text", 0, NULL), -ENOTSUP);
    assert_int_equal(open_with(nobody, "mine", NULL, &s), -ENOTSUP);
    gist_disconnect(other);
    gist_disconnect(nobody);
    stop();
}

/* --- pins ------------------------------------------------------------------------------------- */

/* Reads n texts that nobody reads again. */
static void flush_cache(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char *text = text_of(900, 1000 + i);
        gist_session *s;

        assert_int_equal(gist_open(conn, NULL, &s), 0);
        assert_int_equal(gist_append_text(s, text, 900, 0, NULL), 0);
        gist_close(s);
        free(text);
    }
}

static uint32_t shared_of(const char *name)
{
    struct gist_usage usage;
    gist_session *s;

    assert_int_equal(open_with(conn, name, NULL, &s), 0);
    gist_session_usage(s, &usage);
    gist_close(s);
    return usage.shared_tokens;
}

static void delete_all(void)
{
    for (struct found f = list(conn); f.n > 0; f = list(conn)) {
        *strchr(f.names, ',') = '\0';
        assert_int_equal(gist_delete(conn, GIST_DOCUMENTS, f.names), 0);
    }
}

static void test_pins(void **state)
{
    static const char *const args[] = { "--kv-bytes", "1M", NULL };
    char *text = text_of(640, 3), *large = text_of(1000, 4);
    struct gist_stats st;
    uint32_t pages;
    unsigned n;

    (void)state;
    start(DAEMON_FIXTURE_TINY, args);
    st = stats();
    pages = st.pages;
    n = 2 * pages * 16 / 900 + 2; /* more than the pool has room for */
    assert_int_equal(add(conn, "pinned", text, GIST_PIN, NULL), 0);
    st = stats();
    assert_int_equal(st.pinned_pages, 40);
    assert_int_equal(st.n_documents, 1);
    assert_int_equal(st.n_sessions, 0);
    assert_int_equal(st.owners[0].pages, 40);
    assert_true(list(conn).row.pinned);
    text[0] = '!';
    assert_int_equal(add(conn, "loose", text, 0, NULL), 0);
    assert_int_equal(shared_of("loose"), 624);
    flush_cache(n);
    assert_int_equal(shared_of("loose"), 0);
    assert_int_equal(shared_of("pinned"), 624);

    /* All pins leave half of the pool. */
    for (unsigned i = 1; i < pages / 2 / 63; i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "more%u", i);
        large[0] = (char)('A' + i);
        (void)add(conn, name, large, GIST_PIN, NULL);
    }
    large[0] = '?';
    refused(add(conn, "too much", large, GIST_PIN, NULL), -EDQUOT, "pinning the document takes 63");
    assert_null(strstr(list(conn).names, "too much"));
    assert_true(stats().pinned_pages <= pages / 2);
    assert_int_equal(add(conn, "too much", large, 0, NULL), 0);

    assert_int_equal(gist_delete(conn, GIST_DOCUMENTS, "pinned"), 0);
    assert_int_equal(add(conn, "pinned", text, GIST_PIN | GIST_REPLACE, NULL), 0);
    delete_all();
    assert_int_equal(stats().pinned_pages, 0);
    assert_true(daemon_fixture_all_free(conn, DAEMON_FIXTURE_PATIENCE_MS));
    free(text);
    free(large);
    stop();
}

/* Two users of whom each has less than half of the pool: together they may not have more. */
static void test_pins_of_all(void **state)
{
    static const char *const args[] = { "--kv-bytes", "1M", NULL };
    char *text = text_of(640, 9);
    gist_conn *c[2];
    unsigned n;
    int err = 0;

    (void)state;
    if (geteuid() != 0) {
        printf("skipped: only root can be several users\n");
        skip();
    }
    start(DAEMON_FIXTURE_TINY, args);
    c[0] = conn;
    c[1] = daemon_fixture_connect_as(&d, 12345);
    for (n = 0; err == 0 && n < 100; n++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "d%u", n);
        text[0] = (char)('!' + n);
        err = add(c[n % 2], name, text, GIST_PIN, NULL);
    }
    assert_int_equal(err, -ENOSPC);
    assert_non_null(strstr(gist_error(c[(n - 1) % 2]), "documents of all users"));
    assert_int_equal(stats().pinned_pages, (n - 1) * 40);
    assert_true(n * 40 > stats().pages / 2 && (n - 1) * 40 <= stats().pages / 2);
    gist_disconnect(c[1]);
    free(text);
    stop();
}

/* Roots of the tree are few: what is pinned is found after other policies took all of them. */
static void test_pin_outlives_roots(void **state)
{
    static const char *const args[] = { "--kv-bytes", "4M", NULL };
    char *text = text_of(640, 5);
    struct gist_memory m = { .size = sizeof(m), .compressor = GIST_NONE };
    struct gist_policy p = { .size = sizeof(p), .segment = 64, .memory = &m };
    gist_session *s;

    (void)state;
    start(DAEMON_FIXTURE_TINY, args);
    assert_int_equal(add(conn, "pinned", text, GIST_PIN, NULL), 0);
    for (uint32_t i = 0; i < 300; i++) {
        m.keep_tail = 1 + i;
        assert_int_equal(gist_open(conn, &p, &s), 0);
        assert_int_equal(gist_append_text(s, text, 40, 0, NULL), 0);
        gist_close(s);
    }
    assert_int_equal(shared_of("pinned"), 624);
    free(text);
    stop();
}

/* --- while it is read ------------------------------------------------------------------------- */

struct asker {
    gist_conn *c;
    gist_session *s;
    struct gist_usage usage;
};

struct adding {
    uint32_t n_read, n_tokens;
    unsigned n_progress;
    bool done;
    int err;
};

static void on_progress(void *arg, uint32_t n_read, uint32_t n_tokens)
{
    struct adding *a = arg;

    assert_true(n_read >= a->n_read && n_read <= n_tokens);
    a->n_read = n_read;
    a->n_tokens = n_tokens;
    a->n_progress++;
}

static void on_added(void *arg, int err, const struct gist_result *result)
{
    struct adding *a = arg;

    (void)result;
    a->done = true;
    a->err = err;
}

static const char *const slow[] = { "--cpu", "scalar", "--batch-tokens", "16", NULL };
#define SLOW_TOKENS (SANITIZED ? 160u : 320u) /* steps of 16 */

static gist_conn *begin_adding(const char *name, const char *text, unsigned flags, struct adding *a)
{
    const struct gist_document doc = { .size = sizeof(doc),
                                       .on_progress = on_progress,
                                       .flags = GIST_PLAIN | flags };
    gist_conn *c = daemon_fixture_connect(&d);

    *a = (struct adding){ .done = false };
    assert_int_equal(gist_document_add_start(c, name, text, strlen(text), &doc, on_added, a, NULL),
                     0);
    return c;
}

static void pump(gist_conn *c)
{
    struct pollfd f = { .fd = gist_fd(c), .events = POLLIN };

    assert_true(poll(&f, 1, DAEMON_FIXTURE_PATIENCE_MS) > 0);
    assert_true(gist_dispatch(c) >= 0);
}

/* Two others begin with it while it is read: the model reads it once. */
static void test_attached_while_read(void **state)
{
    char *text = text_of(SLOW_TOKENS, 6);
    struct asker askers[2];
    struct adding a;
    gist_conn *c;
    struct found f;
    uint64_t read;

    (void)state;
    start(DAEMON_FIXTURE_SLOW, slow);
    read = stats().prompt_tokens_total;
    c = begin_adding("book", text, 0, &a);
    while (a.n_progress < 2)
        pump(c);
    assert_false(a.done);
    f = list(conn);
    assert_string_equal(f.names, "book,");
    assert_int_equal(f.row.state, GIST_READING);
    assert_int_equal(f.row.n_tokens, SLOW_TOKENS);
    assert_true(f.row.n_read > 0 && f.row.n_read < SLOW_TOKENS);
    for (int i = 0; i < 2; i++) {
        askers[i].c = daemon_fixture_connect(&d);
        assert_int_equal(open_with(askers[i].c, "book", NULL, &askers[i].s), 0);
        gist_session_usage(askers[i].s, &askers[i].usage);
        assert_int_equal(askers[i].usage.prompt_tokens, SLOW_TOKENS);
        assert_true(askers[i].usage.computed_tokens <= 16);
    }
    while (!a.done)
        pump(c);
    assert_int_equal(a.err, 0);
    assert_true(stats().prompt_tokens_total - read <= SLOW_TOKENS + 2 * 16);
    for (int i = 0; i < 2; i++)
        gist_disconnect(askers[i].c);
    gist_disconnect(c);
    free(text);
    stop();
}

static void test_taken_names(void **state)
{
    char *text = text_of(SLOW_TOKENS, 7);
    struct adding a, b;
    gist_conn *c, *other;
    double until;

    (void)state;
    start(DAEMON_FIXTURE_SLOW, slow);
    c = begin_adding("book", text, 0, &a);
    while (a.n_progress < 1)
        pump(c);
    refused(add(conn, "book", "x", 0, NULL), -EEXIST, "being added just now");
    refused(add(conn, "book", "x", GIST_REPLACE, NULL), -EBUSY, "being added just now");
    /* Deleted in the middle: who adds it hears so. */
    assert_int_equal(gist_delete(conn, GIST_DOCUMENTS, "book"), 0);
    while (!a.done)
        pump(c);
    assert_int_equal(a.err, -ECANCELED);
    assert_int_equal(list(conn).n, 0);
    /* A replacement that fails leaves what was there. */
    assert_int_equal(add(conn, "book", "12345678901", 0, NULL), 0);
    other = begin_adding("book", text, GIST_REPLACE, &b);
    while (b.n_progress < 1)
        pump(other);
    gist_disconnect(other);
    until = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    while (list(conn).row.state == GIST_READING)
        assert_true(daemon_fixture_ms() < until);
    assert_int_equal(list(conn).row.n_tokens, 11);
    gist_disconnect(c);
    free(text);
    stop();
}

/* Who adds it dies: the name is gone, and who has begun with it reads on. */
static void test_adder_dies(void **state)
{
    char *text = text_of(SLOW_TOKENS, 8);
    struct raw_client raw;
    struct wire_req req = { .kind = WIRE_OPEN_SESSION };
    const char *name = "book";
    const struct wire_rep *rep;
    struct adding a;
    gist_conn *c;
    uint64_t id;
    uint32_t n_before;
    double until;

    (void)state;
    start(DAEMON_FIXTURE_SLOW, slow);
    c = begin_adding(name, text, 0, &a);
    while (a.n_progress < 2)
        pump(c);
    n_before = stats().n_sessions;
    raw_client_open(&raw, d.socket);
    req.u.open_session.documents = &name;
    req.u.open_session.n_documents = 1;
    id = raw_client_send(&raw, req, NULL, 0);
    /* It has begun when its session is there. */
    until = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    while (stats().n_sessions == n_before)
        assert_true(daemon_fixture_ms() < until);
    while (gist_dispatch(c) > 0) /* what the adder was told meanwhile */
        ;
    assert_false(a.done);
    gist_disconnect(c);
    rep = raw_client_wait(&raw, id, NULL);
    assert_int_equal(rep->kind, WIRE_SESSION_OPENED);
    assert_int_equal(rep->u.session_opened.usage.prompt_tokens, SLOW_TOKENS);
    assert_true(rep->u.session_opened.usage.shared_tokens > 0);
    assert_int_equal(list(conn).n, 0);
    raw_client_close(&raw);
    assert_true(daemon_fixture_all_free(conn, DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(stats().n_documents, 0);
    free(text);
    stop();
}

/* --- frames that lie -------------------------------------------------------------------------- */

static void error_of(struct raw_client *c, struct wire_req req, const void *bulk, uint32_t len,
                     enum wire_error code)
{
    const struct wire_rep *rep = raw_client_ask(c, req, bulk, len, NULL);

    assert_int_equal(rep->kind, WIRE_ERROR);
    assert_int_equal(rep->u.error.code, code);
}

static void test_lies(void **state)
{
    const uint32_t bad[] = { 5, UINT32_MAX };
    struct wire_req req = { .kind = WIRE_ADD_DOCUMENT, .u.add_document.name = "x" };
    struct raw_client raw;
    const struct wire_rep *rep;

    (void)state;
    start(DAEMON_FIXTURE_TINY, NULL);
    raw_client_open(&raw, d.socket);
    req.u.add_document.kind = WIRE_APPEND_TOKENS;
    error_of(&raw, req, bad, 7, WIRE_E_BAD_REQUEST); /* no whole ids */
    error_of(&raw, req, bad, 8, WIRE_E_BAD_REQUEST); /* none of the vocabulary */
    req.u.add_document.kind = WIRE_APPEND_CHAT;
    req.u.add_document.role = "nobody";
    error_of(&raw, req, "text", 4, WIRE_E_BAD_REQUEST);
    req.u.add_document.kind = WIRE_APPEND_TEXT;
    req.u.add_document.segment = 17;
    error_of(&raw, req, "text", 4, WIRE_E_BAD_REQUEST);
    req.u.add_document.segment = 0;
    /* A part, and then an error: the part is forgotten. */
    req.u.add_document.more = true;
    rep = raw_client_ask(&raw, req, "first", 5, NULL);
    assert_int_equal(rep->kind, WIRE_DOCUMENT_ADDED);
    req.u.add_document.name = "";
    error_of(&raw, req, "second", 6, WIRE_E_BAD_REQUEST);
    req.u.add_document.name = "x";
    req.u.add_document.more = false;
    rep = raw_client_ask(&raw, req, "33333", 5, NULL);
    assert_int_equal(rep->kind, WIRE_DOCUMENT_ADDED);
    assert_int_equal(rep->u.document_added.n_tokens, 5);
    /* A session that is opening is nobody's to close. */
    for (uint64_t id = 0; id < 20; id++) {
        req = (struct wire_req){ .kind = WIRE_CLOSE_SESSION, .u.close_session.session = id };
        error_of(&raw, req, NULL, 0, WIRE_E_NOT_FOUND);
    }
    raw_client_close(&raw);
    assert_int_equal(list(conn).n, 1);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_begins),
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_owners),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_pins_of_all),
        cmocka_unit_test(test_pin_outlives_roots),
        cmocka_unit_test(test_attached_while_read),
        cmocka_unit_test(test_taken_names),
        cmocka_unit_test(test_adder_dies),
        cmocka_unit_test(test_lies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
