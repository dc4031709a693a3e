#include "tests/support/lost_device.h"

#include "tests/support/daemon_fixture.h"
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char file[SCRATCH_PATH_MAX];

void lost_device_begin(void)
{
    assert_int_equal(setenv("GISTD_SHIM_LOST", scratch_path(file, "lost"), 1), 0);
}

/* Whoever sees it sees its length. */
void lost_device_lose(unsigned n)
{
    char at_first[SCRATCH_PATH_MAX + 8];
    int fd;

    (void)snprintf(at_first, sizeof(at_first), "%s.new", file);
    fd = open(at_first, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, n), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(rename(at_first, file), 0);
}

void lost_device_return(void)
{
    assert_int_equal(unlink(file), 0);
}

void lost_device_answers(gist_conn *c, gist_session *s, uint32_t n, const struct answered *expected)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct answered found;
    int r;

    do {
        assert_int_equal(gist_rewind(s, n), 0);
        r = answered_greedy(s, (uint32_t)expected->n, &found);
        if (r < 0 && !strstr(gist_error(c), "lost"))
            fail_msg("answering: %s", gist_error(c));
    } while (r < 0 && daemon_fixture_ms() < end);
    assert_int_equal(r, 0);
    assert_memory_equal(found.ids, expected->ids, found.n * sizeof(*found.ids));
}
