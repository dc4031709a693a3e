/* tests/test_daemon_idle.c - memory that is given back when nobody uses the model, or when it is
 * short. Would catch: memory that stays; a session, or an answer, that is not what it was; who
 * waits and is not told; requests that need no model and load it; a model that can't be loaded
 * again and takes the daemon, or the request, with it; pressure that is not heard, or ends
 * sessions.
 */
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define N_IDS   6u
#define KV_MIB  64u
#define PATIENT DAEMON_FIXTURE_PATIENCE_MS

static const char text[] = "The fox jumps over the dog, who sleeps.";

static const char *const idles[] = { "--idle",    "1", "--kv-bytes",      "64M", "--segment", "64",
                                     "--threads", "1", "--store-idle-ms", "1",   NULL };

/* Pages of memory that the daemon has, in MiB. */
static double resident_mib(const struct daemon_fixture *d)
{
    unsigned long size, resident;
    char path[64];
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)d->pid);
    f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &size, &resident), 2);
    (void)fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

/* The most that it had: memory may have been given back by now. */
static double peak_mib(const struct daemon_fixture *d)
{
    char path[64], line[256];
    double kib = 0;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)d->pid);
    f = fopen(path, "re");
    assert_non_null(f);
    while (kib == 0 && fgets(line, sizeof(line), f))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtod(line + 6, NULL);
    (void)fclose(f);
    assert_true(kib > 0);
    return kib / 1024;
}

/* How many tokens the session has: *ret_n. */
static gist_session *read_text(gist_conn *c, uint32_t *ret_n)
{
    struct gist_usage usage;
    gist_session *s = answered_read(c, text, &usage);

    *ret_n = usage.prompt_tokens;
    return s;
}

static struct gist_stats stats_of(gist_conn *c)
{
    struct gist_stats st;

    if (gist_stats(c, &st) < 0)
        fail_msg("stats: %s", gist_error(c));
    return st;
}

struct told {
    unsigned n, last;
};

static int take_loading(void *arg, unsigned percent)
{
    struct told *t = arg;

    assert_true(percent <= 100 && (t->n == 0 || percent >= t->last));
    t->n++;
    t->last = percent;
    return 0;
}

static void give_back(struct daemon_fixture *d)
{
    assert_true(daemon_fixture_notified(d, "STATUS=Idle", PATIENT));
}

/* Twice around. What a session holds is there, what none holds comes from the disk, and what needs
 * no model is answered and loads none. */
static void comes_back(void **state)
{
    gist_session *s, *rests, *other;
    struct daemon_fixture d;
    struct answered first;
    struct gist_stats st;
    struct told told = { 0 };
    uint32_t *ids, n;
    double before;
    gist_conn *c;
    size_t n_ids;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, idles);
    c = daemon_fixture_connect(&d);
    gist_on_loading(c, take_loading, &told);
    s = read_text(c, &n);
    assert_int_equal(gist_fork(s, "rests", &rests), 0);
    assert_int_equal(answered_greedy(s, N_IDS, &first), 0);
    before = peak_mib(&d);
    for (unsigned i = 1; i <= 2; i++) {
        give_back(&d);
        st = stats_of(c);
        assert_int_equal(st.idle, 1);
        assert_int_equal(st.idles_total, i);
        assert_int_equal(st.weights_memory, 0);
        assert_true(st.pages_returned > 0 && st.pages_returned == st.pages_free);
        assert_true(resident_mib(&d) < before - 0.75 * KV_MIB);
        assert_int_equal(gist_tokenize(c, text, strlen(text), 0, &ids, &n_ids), 0);
        free(ids);
        assert_int_equal(stats_of(c).idle, 1);
        assert_int_equal(told.n, 0);
        if (i == 1)
            answered_as(c, rests, &first);
        else
            assert_int_equal(gist_rewind(s, n), 0);
        if (i == 2)
            answered_as(c, s, &first);
        assert_true(told.n >= 2 && told.last == 100);
        assert_int_equal(stats_of(c).idle, 0);
        assert_true(daemon_fixture_notified(&d, "STATUS=Serving", PATIENT));
        told = (struct told){ 0 };
    }
    other = read_text(c, &n);
    answered_as(c, other, &first);
    assert_non_null(strstr(daemon_fixture_log(&d), "the model is back"));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* By the other ways that weights get into memory. */
static void from_elsewhere(const char *const *args, const char *says)
{
    struct daemon_fixture d;
    struct answered first;
    gist_session *s;
    gist_conn *c;
    uint32_t n;

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    assert_int_equal(answered_greedy(s, N_IDS, &first), 0);
    give_back(&d);
    assert_int_equal(stats_of(c).weights_memory, 0);
    assert_int_equal(gist_rewind(s, n), 0);
    answered_as(c, s, &first);
    if (!strstr(daemon_fixture_log(&d), says))
        fail_msg("not said: %s", says);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void images_and_streams(void **state)
{
    char folder[SCRATCH_PATH_MAX];
    const char *const image[] = {
        "--idle",    "1", "--kv-bytes",     "4M",
        "--threads", "1", "--weight-cache", scratch_path(folder, "weights"),
        NULL
    };
    const char *const stream[] = {
        "--idle",         "1",    "--kv-bytes",     "4M",   "--threads", "1",
        "--weight-cache", folder, "--weight-bytes", "280K", NULL
    };

    (void)state;
    from_elsewhere(image, "the weights are mapped from their image");
    from_elsewhere(stream, "weights pass through");
}

/* Each request hears why, the daemon lives, and the model is there when its file is. */
static void file_is_gone(void **state)
{
    const char *model = daemon_fixture_model(DAEMON_FIXTURE_TINY);
    char away[SCRATCH_PATH_MAX + 16];
    struct answered first, found;
    struct daemon_fixture d;
    double end;
    gist_session *s;
    gist_conn *c;
    uint32_t n;
    int r;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, idles);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    assert_int_equal(answered_greedy(s, N_IDS, &first), 0);
    give_back(&d);
    assert_int_equal(gist_rewind(s, n), 0);
    (void)snprintf(away, sizeof(away), "%s.away", model);
    assert_int_equal(rename(model, away), 0);
    for (int i = 0; i < 2; i++) {
        assert_true(answered_greedy(s, N_IDS, &found) < 0);
        assert_non_null(strstr(gist_error(c), "can't be loaded again"));
    }
    assert_int_equal(stats_of(c).idle, 1);
    assert_int_equal(rename(away, model), 0);
    end = daemon_fixture_ms() + PATIENT;
    do
        r = answered_greedy(s, N_IDS, &found);
    while (r < 0 && daemon_fixture_ms() < end);
    assert_int_equal(r, 0);
    assert_memory_equal(found.ids, first.ids, N_IDS * sizeof(*found.ids));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void wait_for_presses(gist_conn *c, uint64_t n)
{
    double end = daemon_fixture_ms() + PATIENT;

    while (stats_of(c).pressures_total < n && daemon_fixture_ms() < end)
        (void)usleep(1000);
    assert_int_equal(stats_of(c).pressures_total, n);
}

/* Once in a while: what comes too soon is passed over. */
static void press_again(gist_conn *c, int fd)
{
    double end = daemon_fixture_ms() + PATIENT;

    while (stats_of(c).pressures_total < 2 && daemon_fixture_ms() < end) {
        assert_int_equal(write(fd, "!", 1), 1);
        (void)usleep(100000);
    }
}

/* Unused pages first; and when they are gone, with --idle, the weights, without waiting for it. */
static void memory_is_short(void **state)
{
    char fifo[SCRATCH_PATH_MAX];
    const char *const args[] = { "--idle",
                                 "3600",
                                 "--memory-pressure",
                                 scratch_path(fifo, "fifo"),
                                 "--kv-bytes",
                                 "64M",
                                 "--threads",
                                 "1",
                                 "--segment",
                                 "64",
                                 NULL };
    struct daemon_fixture d;
    struct answered first;
    struct gist_stats st;
    gist_session *s;
    double before;
    gist_conn *c;
    uint32_t n;
    int fd;

    (void)state;
    assert_int_equal(mkfifo(fifo, 0600), 0);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    assert_int_equal(answered_greedy(s, N_IDS, &first), 0);
    fd = open(fifo, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    before = resident_mib(&d);
    assert_int_equal(write(fd, "!", 1), 1);
    wait_for_presses(c, 1);
    st = stats_of(c);
    assert_int_equal(st.idle, 0);
    assert_true(st.pages_returned > 0);
    assert_true(resident_mib(&d) < before - 0.75 * KV_MIB);
    assert_non_null(strstr(daemon_fixture_log(&d), "memory is short: "));
    press_again(c, fd);
    assert_int_equal(stats_of(c).idle, 1);
    assert_int_equal(gist_rewind(s, n), 0);
    answered_as(c, s, &first);
    assert_int_equal(stats_of(c).idle, 0);
    (void)close(fd);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* Of a device all goes, once no session is open. */
static void device(void **state)
{
    static const char *const args[] = { "--device", "cuda-shim",  "--threads", "1",         "--cpu",
                                        "scalar",   "--kv-bytes", "4M",        "--segment", "64",
                                        "--idle",   "1",          NULL };
    struct daemon_fixture d;
    struct answered first;
    gist_session *s;
    gist_conn *c;
    uint32_t n;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    assert_int_equal(answered_greedy(s, N_IDS, &first), 0);
    assert_false(daemon_fixture_notified(&d, "STATUS=Idle", 2500));
    gist_close(s);
    give_back(&d);
    s = read_text(c, &n);
    answered_as(c, s, &first);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),   cmocka_unit_test(images_and_streams),
        cmocka_unit_test(file_is_gone), cmocka_unit_test(memory_is_short),
        cmocka_unit_test(device),
    };

    if (getenv("GISTD_TEST_BACKEND")) {
        printf("the test's backend gives no memory back\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
