/* tests/test_daemon_crossed.c - requests about names that cross each other in the real daemon, with
 * a store whose disk takes its time. Would catch: a document that is deleted, replaced or forgotten
 * while its file is being written, and is looked at afterwards by who added it (under the address
 * sanitizer: a use after free; else mostly an assertion at the end of the daemon).
 */
#include "ipc/wire.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"
#include "tests/support/sanitized.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_documents_cross) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
