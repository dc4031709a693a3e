/* tests/test_log.c - the limit of lines that peers can cause. Would catch: a log that one peer can
 * fill, lines that are left out and not counted, a limit that holds up our own lines, one that
 * never lets a line through again.
 */

#include "base/clock.h"
#include "daemon/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_THREADS 4
#define N_LINES   5000 /* of each */

static int log_fd, stderr_fd;

static void catch_stderr(void)
{
    char path[] = "/tmp/gistd-log-XXXXXX";

    log_fd = mkstemp(path);
    assert_true(log_fd >= 0);
    assert_int_equal(unlink(path), 0);
    stderr_fd = dup(STDERR_FILENO);
    assert_true(dup2(log_fd, STDERR_FILENO) >= 0);
}

static void release_stderr(void)
{
    assert_true(dup2(stderr_fd, STDERR_FILENO) >= 0);
    (void)close(stderr_fd);
}

struct counted {
    unsigned long peer, own, left_out;
};

static struct counted count_lines(void)
{
    struct counted c = { 0 };
    unsigned long n;
    char line[256];
    FILE *f;

    assert_int_equal(lseek(log_fd, 0, SEEK_SET), 0);
    f = fdopen(log_fd, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        c.peer += strstr(line, "a bad hello") != NULL;
        c.own += strstr(line, "our own") != NULL;
        if (sscanf(line, "gistd: warning: %lu more lines", &n) == 1)
            c.left_out += n;
    }
    (void)fclose(f);
    return c;
}

static void *say_hello_badly(void *arg)
{
    for (int i = 0; i < N_LINES; i++)
        log_peer_warning("a bad hello");
    return arg;
}

static void test_limit(void **state)
{
    uint64_t start = clock_ns(), due, lasted;
    pthread_t threads[N_THREADS];
    struct counted c;

    (void)state;
    log_open(LOG_LEVEL_INFO);
    catch_stderr();
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, say_hello_badly, NULL), 0);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 100; i++)
        log_warning("our own");
    due = log_peer_due_ns();
    lasted = clock_ns() - start;
    assert_true(due > 0);
    while (clock_ns() < due)
        (void)usleep(10000);
    log_peer_warning("a bad hello"); /* now it may be said, and how many were not */
    assert_int_equal(log_peer_due_ns(), 0);
    log_peer_left_out(); /* nothing more */
    release_stderr();
    c = count_lines();
    assert_int_equal(c.own, 100);
    assert_true(c.peer >= LOG_PEER_BURST);
    assert_true(c.peer <= LOG_PEER_BURST + 2 + lasted / LOG_PEER_NS);
    assert_int_equal(c.peer + c.left_out, N_THREADS * N_LINES + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
