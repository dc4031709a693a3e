/* tests/test_gistctl_lost.c - gistctl beside a daemon that takes things away. Would catch: JSON
 * that is not whole because a session ended while its map came in parts; an error for each of many
 * numbers when it is the connection that is lost.
 */
#include "tests/support/command.h"
#include "tests/support/count.h"
#include "tests/support/fake_daemon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* What it prints, both streams; its exit status. */
static int run(const struct fake_daemon *d, const char *arguments, char *ret, size_t cap)
{
    char command[1024];

    (void)snprintf(command, sizeof(command), "GISTD_SOCKET='%s' '%s/gistctl' %s 2>&1", d->path,
                   getenv("BUILD"), arguments);
    return command_run(command, ret, cap);
}

/* --- maps ------------------------------------------------------------------------------------- */

/* Of two sessions: the first one ends behind the first of three segments. */
static void script_ends(struct fake_daemon *d, void *arg)
{
    const struct wire_stats_session sessions[] = { { .id = 7, .label = "" },
                                                   { .id = 8, .label = "" } };
    const struct wire_stats st = {
        .version = "1", .model = "m", .cpu = "x", .session = sessions, .n_session = 2
    };
    const struct wire_segment row = { .state = WIRE_SEGMENT_RAW, .n_tokens = 64, .n_keys = 64 };
    struct wire_segment_map map = {
        .row = &row, .n_row = 1, .n_segments = 3, .segment = 64, .n_tokens = 192
    };

    (void)arg;
    fake_expect(d, WIRE_GET_STATS);
    fake_last(d, (struct wire_rep){ .kind = WIRE_STATS, .u.stats = st });
    fake_expect(d, WIRE_SEGMENTS);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SEGMENT_MAP, .u.segment_map = map });
    fake_expect(d, WIRE_SEGMENTS);
    fake_error(d, WIRE_E_NOT_FOUND, "no such session");
    fake_expect(d, WIRE_SEGMENTS);
    map.n_segments = 1;
    fake_last(d, (struct wire_rep){ .kind = WIRE_SEGMENT_MAP, .u.segment_map = map });
    fake_drain(d);
}

static void json_is_whole(void **state)
{
    struct fake_daemon d;
    char text[4096];

    (void)state;
    fake_start(&d, script_ends, NULL);
    assert_int_equal(run(&d, "sessions --segments --json", text, sizeof(text)), 0);
    assert_int_equal(fake_stop(&d), 0);
    if (count_of(text, "\"state\"") != 2 || count_of(text, "{") != count_of(text, "}") ||
        count_of(text, "[") != count_of(text, "]"))
        fail_msg("%s", text);
}

/* --- a lost connection ------------------------------------------------------------------------ */

/* The second number is never answered. */
static void script_leaves(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_CANCEL);
    fake_error(d, WIRE_E_NOT_FOUND, "no such session");
    fake_expect(d, WIRE_CANCEL);
}

static void nobody_is_asked_twice(void **state)
{
    struct fake_daemon d;
    char text[4096];

    (void)state;
    fake_start(&d, script_leaves, NULL);
    assert_int_not_equal(run(&d, "cancel 1 2 3 4 5", text, sizeof(text)), 0);
    assert_int_equal(fake_stop(&d), 0);
    if (count_of(text, "\n") != 2)
        fail_msg("%s", text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_whole),
        cmocka_unit_test(nobody_is_asked_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
