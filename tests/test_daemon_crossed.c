/* tests/test_daemon_crossed.c - requests about names that cross each other in the real daemon, with
 * a store whose disk takes its time. Would catch: a session or a document that is said to be
 * damaged while it is replaced; pages, sessions, descriptors or memory that somebody keeps who has
 * gone; a document that is deleted, replaced or forgotten while its file is being written, and is
 * looked at afterwards by who added it (under the address sanitizer: a use after free; else mostly
 * an assertion at the end of the daemon).
 */
#include "ipc/wire.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"
#include "tests/support/sanitized.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS (SANITIZED ? 40 : 150)

static struct daemon_fixture d;

static struct wire_req add_request(const char *name)
{
    struct wire_req req = { .kind = WIRE_ADD_DOCUMENT };

    req.u.add_document.name = name;
    req.u.add_document.kind = WIRE_APPEND_TEXT;
    req.u.add_document.replace = true;
    return req;
}

/* Answered by the next step or two: nothing of what was sent before is waited for. */
static void ping(struct raw_client *c, int n)
{
    while (n-- > 0)
        assert_int_equal(
            raw_client_ask(c, (struct wire_req){ .kind = WIRE_PING }, NULL, 0, NULL)->kind,
            WIRE_PONG);
}

static void delete (struct raw_client *c)
{
    struct wire_req req = { .kind = WIRE_DELETE };

    req.u.delete.kind = WIRE_NAMED_DOCUMENT;
    req.u.delete.name = "book";
    (void)raw_client_send(c, req, NULL, 0);
}

static void forget(struct raw_client *c)
{
    struct wire_req req = { .kind = WIRE_CACHE };

    req.u.cache.verb = WIRE_CACHE_FORGET;
    (void)raw_client_send(c, req, NULL, 0);
}

static void replace(struct raw_client *c)
{
    (void)raw_client_send(c, add_request("book"), "678", 3);
}

/* At every moment between its first id and its last reply: after 0, 1, 2 ... answers to others. */
static void crossed_by(void (*what)(struct raw_client *c))
{
    struct raw_client adder, other;
    const struct wire_rep *rep;

    raw_client_open(&adder, d.socket);
    raw_client_open(&other, d.socket);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t id = raw_client_send(&adder, add_request("book"), "12345", 5);

        ping(&other, i % 30);
        what(&other);
        rep = raw_client_wait(&adder, id, NULL);
        assert_true(rep->kind == WIRE_DOCUMENT_ADDED || rep->kind == WIRE_ERROR);
        ping(&other, 1);
    }
    raw_client_close(&adder);
    raw_client_close(&other);
}

static void test_documents_cross(void **state)
{
    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    crossed_by(replace);
    crossed_by(delete);
    crossed_by(forget);
    daemon_fixture_stop(&d);
}

/* --- anything at any moment ------------------------------------------------------------------- */

#define CLIENTS  4
#define REQUESTS (SANITIZED ? 6000 : 8000)

static unsigned seed;
static uint64_t sessions[CLIENTS][8]; /* that each was told of last */
static int who;                       /* speaks */

static unsigned chance(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

static const char *a_name(void)
{
    static const char *const names[] = { "a", "b", "c", "d", "\n", "" };

    return names[chance(40) == 0 ? 4 + chance(2) : chance(4)];
}

static uint64_t a_session(void)
{
    return sessions[chance(20) ? who : (int)chance(CLIENTS)][chance(8)];
}

static struct wire_req named_request(unsigned kind)
{
    struct wire_req r = { .kind = WIRE_LIST };

    switch (kind) {
    case 0:
        r = (struct wire_req){ .kind = WIRE_SAVE };
        r.u.save.session = a_session();
        r.u.save.name = a_name();
        r.u.save.replace = chance(2);
        break;
    case 1:
        r = (struct wire_req){ .kind = WIRE_RESTORE };
        r.u.restore.name = a_name();
        break;
    case 2:
        r = (struct wire_req){ .kind = WIRE_DELETE };
        r.u.delete.kind = (enum wire_named)chance(2);
        r.u.delete.name = a_name();
        break;
    case 3:
        r = (struct wire_req){ .kind = WIRE_CACHE };
        r.u.cache.verb = (enum wire_cache_verb)chance(5);
        r.u.cache.public_records = chance(2);
        r.u.cache.after = chance(2) ? UINT64_MAX - chance(2) : chance(50);
        r.u.cache.bytes = chance(2) ? 0 : UINT64_MAX;
        break;
    default:
        r.u.list.kind = (enum wire_named)chance(2);
    }
    return r;
}

static struct wire_req session_request(unsigned kind, const char **documents)
{
    struct wire_req r = { .kind = WIRE_OPEN_SESSION };

    switch (kind) {
    case 0:
        r.u.open_session.is_private = chance(6) == 0;
        r.u.open_session.public_prefix = chance(6) == 0;
        r.u.open_session.documents = documents;
        r.u.open_session.n_documents = chance(2) ? chance(WIRE_DOCUMENTS_MAX + 1) : chance(3);
        for (uint32_t i = 0; i < r.u.open_session.n_documents; i++)
            documents[i] = a_name();
        break;
    case 1:
        if (chance(3) == 0) {
            r = (struct wire_req){ .kind = WIRE_CLOSE_SESSION };
            r.u.close_session.session = a_session();
            break;
        } /* fall through */
    case 2:
        r = (struct wire_req){ .kind = WIRE_GENERATE };
        r.u.generate.session = a_session();
        r.u.generate.max_tokens = 1 + chance(20);
        r.u.generate.ignore_eog = true;
        break;
    case 3:
        r = (struct wire_req){ .kind = WIRE_FORK };
        r.u.fork.session = a_session();
        break;
    default:
        r = (struct wire_req){ .kind = WIRE_REWIND };
        r.u.rewind.session = a_session();
        r.u.rewind.n_tokens = chance(300);
    }
    return r;
}

static struct wire_req text_request(unsigned kind)
{
    struct wire_req r = { .kind = WIRE_APPEND };

    if (kind > 0) {
        r.u.append.session = a_session();
        r.u.append.more = chance(6) == 0;
        return r;
    }
    r = add_request(a_name());
    r.u.add_document.replace = chance(4) > 0;
    r.u.add_document.pin = chance(3) == 0;
    r.u.add_document.public_prefix = chance(4) == 0;
    r.u.add_document.more = chance(6) == 0;
    if (chance(6) == 0)
        r.u.add_document.memory =
            (struct wire_memory){ .compressor = WIRE_SELECT, .has_ratio = true, .ratio = 4 };
    return r;
}

static void drain(struct raw_client *c)
{
    static unsigned n_told;
    struct chan_msg msg;

    while (chan_recv(c->chan, &msg) == 0) {
        if (wire_rep_unpack(&c->in, msg.frame, msg.frame_len, &c->rep) < 0)
            fail_msg("a reply can't be read");
        if (c->rep.kind == WIRE_ERROR && strstr(c->rep.u.error.text, "damaged"))
            fail_msg("%s", c->rep.u.error.text);
        if (c->rep.kind == WIRE_SESSION_OPENED)
            sessions[who][n_told++ % 8] = c->rep.u.session_opened.session;
        if (c->rep.kind == WIRE_RESTORED)
            sessions[who][n_told++ % 8] = c->rep.u.restored.session;
        chan_release(c->chan);
    }
}

/* Of few beginnings, so that texts meet in the tree, in the store, and while they are read. */
static uint32_t a_text(char *to)
{
    uint32_t n = chance(8) == 0 ? 0 : 1 + chance(400), stem = chance(3);

    for (uint32_t i = 0; i < n; i++)
        to[i] = (char)('0' + (i * (stem + 1) + (i > 100 ? chance(2) : 0)) % 10);
    return n;
}

static void send_any(struct raw_client *c)
{
    const char *documents[WIRE_DOCUMENTS_MAX];
    struct wire_req r;
    char text[512];
    int e;

    switch (chance(4)) {
    case 0:
        r = named_request(chance(5));
        break;
    case 1:
        r = session_request(chance(5), documents);
        break;
    case 2:
        if (chance(3) == 0) {
            r = (struct wire_req){ .kind = WIRE_CANCEL };
            r.u.cancel.request = c->last_id - chance(30);
            break;
        } /* fall through */
    default:
        r = text_request(chance(3));
        r.bulk_len = a_text(text);
    }
    r.id = ++c->last_id;
    while ((e = raw_client_put(c->chan, &c->out, &r, text)) == -EAGAIN)
        drain(c);
    assert_int_equal(e, 0);
}

static int n_descriptors(void)
{
    char path[64];
    int n = 0;
    DIR *dir;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)d.pid);
    dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n;
}

/* All that there is about sessions, names and what is kept, in any order, by clients of which one
 * or the other goes; in the end nothing of it is left but what is on the disk. */
static void test_any_order(void **state)
{
    static const char *const args[] = {
        "--store-idle-ms", "1", "--max-sessions", "12", "--kv-bytes", "4M", NULL
    };
    struct raw_client c[CLIENTS];
    struct gist_stats st;
    gist_conn *conn;
    int n_before;

    (void)state;
    seed = 1;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    n_before = n_descriptors();
    for (int i = 0; i < CLIENTS; i++)
        raw_client_open(&c[i], d.socket);
    for (int i = 0; i < REQUESTS; i++) {
        struct raw_client *one;

        who = (int)chance(CLIENTS);
        one = &c[who];
        if (chance(300) == 0) {
            raw_client_close(one);
            raw_client_open(one, d.socket);
        }
        send_any(one);
        if (chance(12) == 0) /* else they pile up */
            ping(one, (int)chance(8));
        drain(one);
    }
    for (int i = 0; i < CLIENTS; i++)
        raw_client_close(&c[i]);
    conn = daemon_fixture_connect(&d);
    for (const char *const *name = (const char *const[]){ "a", "b", "c", "d", NULL }; *name; name++)
        (void)gist_delete(conn, GIST_DOCUMENTS, *name);
    assert_true(daemon_fixture_all_free(conn, DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(gist_stats(conn, &st), 0);
    assert_int_equal(st.n_documents, 0);
    daemon_fixture_stored(conn);
    /* This client's five, and folders of two owners: the user's and that of public sessions. */
    assert_true(n_descriptors() <= n_before + 5 + 4 + 1);
    gist_disconnect(conn);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_documents_cross),
                                        cmocka_unit_test(test_any_order) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
