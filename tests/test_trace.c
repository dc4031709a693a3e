/* tests/test_trace.c - where the time of the last requests went. Would catch: rows of another user,
 * an order that is not the newest first, rows that change while their reply waits for room.
 */

#include "daemon/client.h"
#include "daemon/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct request_ops ops = { .name = "generate" };
static struct trace *trace;
static struct client *client;

static int setup(void **state)
{
    (void)state;
    trace = calloc(1, sizeof(*trace));
    client = calloc(1, sizeof(*client));
    return trace && client ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(trace);
    free(client);
    return 0;
}

/* A request of that user has ended. */
static void ends(uid_t uid, uint64_t number, const char *name)
{
    struct request r = {
        .client = client, .ops = &ops, .arrived_ns = clock_ns(), .times = { .number = number }
    };

    client->uid = uid;
    (void)snprintf(client->name, sizeof(client->name), "%s", name);
    trace_add(trace, &r, "stop");
}

static void is_row(const struct wire_trace_row *row, uint64_t number, const char *name)
{
    assert_int_equal(row->number, number);
    assert_string_equal(row->what, "generate");
    assert_string_equal(row->client, name);
    assert_string_equal(row->ended, "stop");
}

static void test_rows_of_a_user(void **state)
{
    static struct trace_rows rows;

    (void)state;
    assert_int_equal(trace_list(trace, 1000, 0, &rows), 0);
    ends(1000, 1, "mail");
    ends(2000, 2, "notes");
    ends(1000, 3, "shell");
    assert_int_equal(trace_list(trace, 1000, 0, &rows), 2);
    is_row(&rows.row[0], 3, "shell");
    is_row(&rows.row[1], 1, "mail");
    assert_int_equal(trace_list(trace, 1000, 1, &rows), 1);
    is_row(&rows.row[0], 1, "mail");
    assert_int_equal(trace_list(trace, 1000, 2, &rows), 0);
}

/* A reply is packed when its ring has room: its rows are those of when it was asked for, though
 * their places in the trace are another user's by then. */
static void test_rows_that_wait(void **state)
{
    static struct trace_rows rows, later;

    (void)state;
    ends(1000, 1, "mail");
    assert_int_equal(trace_list(trace, 1000, 0, &rows), 1);
    for (uint32_t i = 0; i < TRACE_OWNERS; i++)
        ends(2000 + i, 2 + i, "notes");
    is_row(&rows.row[0], 1, "mail");
    assert_int_equal(trace_list(trace, 1000, 0, &later), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows_of_a_user, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows_that_wait, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
