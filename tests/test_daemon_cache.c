/* tests/test_daemon_cache.c - what people see and control of what a real daemon keeps on disk.
 * Would catch: something of a private session in a file, in the tree of beginnings or after a
 * restart; a private session that can't use what is known; records that another user sees; text
 * that comes back after it was forgotten; a client with sixty verifications that holds up others,
 * or takes the daemon with it when it dies; a disk that fails without a word, or with a word for
 * each write.
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/made_store.h"
#include "tests/support/raw_client.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENT 64u
#define BYTE_0  3u /* the model's id of byte 0 */
#define N_IDS   300u
#define MARK    16u /* ids by which a text is looked for in files */

static const char *const args[] = {
    "--store-restore", "always", "--store-idle-ms", "20", "--socket-mode", "0666", NULL
};

static void fill(uint32_t ids[N_IDS], unsigned seed)
{
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = BYTE_0 + 32 + (uint32_t)rand_r(&seed) % 90;
}

static gist_session *open_session(gist_conn *c, unsigned flags)
{
    struct gist_policy p = { .size = sizeof(p), .segment = SEGMENT, .flags = flags };
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)arg;
    (void)text;
    (void)len;
    (void)ids;
    (void)n_ids;
    return 0;
}

/* A session that reads ids, answers, and ends. */
static struct gist_usage read_by(gist_conn *c, const uint32_t *ids, unsigned flags)
{
    const struct gist_sampling few = { .size = sizeof(few), .max_tokens = 5, .ignore_eog = 1 };
    gist_session *s = open_session(c, flags);
    struct gist_usage usage;

    assert_int_equal(gist_append_tokens(s, ids, N_IDS, &usage), 0);
    assert_int_equal(usage.computed_tokens + usage.shared_tokens + usage.restored_tokens, N_IDS);
    assert_int_equal(gist_generate(s, &few, on_text, NULL, NULL), 0);
    gist_close(s);
    return usage;
}

static struct gist_cache_sum stat_of(gist_conn *c)
{
    struct gist_cache_sum sum;

    if (gist_cache(c, GIST_CACHE_STAT, NULL, NULL, NULL, &sum) < 0)
        fail_msg("%s", gist_error(c));
    return sum;
}

/* All that sessions have read so far is on disk. */
static void wait_written(gist_conn *c, uint64_t records)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct gist_stats s;

    do {
        assert_int_equal(gist_stats(c, &s), 0);
        assert_non_null(s.store);
    } while ((s.store->records < records || s.store->pending > 0) && daemon_fixture_ms() < end);
    assert_true(s.store->records >= records);
}

/* --- private ---------------------------------------------------------------------------------- */

static bool file_has(const char *path, const void *what, size_t len)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    char *bytes;
    bool found;

    if (!f)
        return false; /* a record that went since */
    assert_int_equal(fstat(fileno(f), &st), 0);
    bytes = malloc((size_t)st.st_size + 1);
    assert_non_null(bytes);
    found = memmem(bytes, fread(bytes, 1, (size_t)st.st_size, f), what, len) != NULL;
    free(bytes);
    (void)fclose(f);
    return found;
}

static uint32_t n_files_with(const char *folder, const void *what, size_t len)
{
    char *paths[] = { (char *)(uintptr_t)folder, NULL };
    FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    uint32_t n = 0;
    FTSENT *e;

    assert_non_null(fts);
    while ((e = fts_read(fts)))
        n += e->fts_info == FTS_F && file_has(e->fts_path, what, len);
    (void)fts_close(fts);
    return n;
}

static void a_private_session_leaves_nothing(void **state)
{
    uint32_t open_ids[N_IDS], hidden_ids[N_IDS], cached;
    struct daemon_fixture d;
    struct gist_usage u;
    struct gist_stats stats;
    gist_session *s, *fork;
    gist_conn *c;

    (void)state;
    fill(open_ids, 1);
    fill(hidden_ids, 2);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    assert_int_equal(read_by(c, open_ids, 0).computed_tokens, N_IDS);
    wait_written(c, 1);
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(gist_stats(c, &stats), 0);
    cached = stats.pages_cached;

    assert_int_equal(read_by(c, hidden_ids, GIST_PRIVATE).computed_tokens, N_IDS);
    s = open_session(c, GIST_PRIVATE);
    assert_int_equal(gist_append_tokens(s, hidden_ids, N_IDS, &u), 0);
    assert_int_equal(u.computed_tokens, N_IDS);
    assert_int_equal(gist_fork(s, NULL, &fork), 0);
    assert_int_equal(gist_append_tokens(fork, hidden_ids, N_IDS, &u), 0);
    assert_int_equal(gist_fork(s, NULL, &fork), 0); /* one that is open when the daemon ends */
    gist_close(s);
    assert_int_equal(gist_stats(c, &stats), 0);
    assert_int_equal(stats.pages_cached, cached);
    assert_int_equal(read_by(c, hidden_ids, 0 /* not private: */).computed_tokens, N_IDS);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    /* That last one is to be found, as is the open text: the look into the files can see. */
    assert_true(n_files_with(d.store, open_ids, MARK * 4) > 0);
    assert_true(n_files_with(d.store, hidden_ids, MARK * 4) > 0);
}

static void nothing_private_is_in_a_file(void **state)
{
    uint32_t open_ids[N_IDS], hidden_ids[N_IDS];
    struct daemon_fixture d;
    struct gist_usage u;
    gist_session *s, *fork;
    gist_conn *c;
    uint64_t records;

    (void)state;
    fill(open_ids, 3);
    fill(hidden_ids, 4);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    (void)read_by(c, hidden_ids, GIST_PRIVATE);
    s = open_session(c, GIST_PRIVATE); /* open when the daemon ends, as its fork */
    assert_int_equal(gist_append_tokens(s, hidden_ids, N_IDS, &u), 0);
    assert_int_equal(gist_fork(s, NULL, &fork), 0);
    (void)read_by(c, open_ids, 0);
    wait_written(c, N_IDS / SEGMENT + 1);
    records = stat_of(c).records;
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    assert_true(n_files_with(d.store, open_ids, MARK * 4) > 0);
    for (uint32_t at = 0; at + MARK <= N_IDS; at += MARK)
        assert_int_equal(n_files_with(d.store, hidden_ids + at, MARK * 4), 0);

    /* It may use what others left, and leaves nothing new by that. */
    daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    assert_int_equal(read_by(c, hidden_ids, 0).computed_tokens, N_IDS);
    wait_written(c, 2 * records);
    records = stat_of(c).records;
    assert_true(read_by(c, open_ids, GIST_PRIVATE).restored_tokens >= N_IDS - 16);
    assert_int_equal(stat_of(c).records, records);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- one's own -------------------------------------------------------------------------------- */

static int on_rows(void *arg, const struct gist_cache_row *rows, size_t n,
                   const struct gist_cache_sum *so_far)
{
    uint64_t *tokens = arg;

    (void)so_far;
    for (size_t i = 0; i < n; i++)
        *tokens += rows[i].n_tokens;
    return 0;
}

/* Root, too, has only its own. */
static void nobody_sees_anothers(void **state)
{
    uint32_t ids[N_IDS], ids_b[N_IDS];
    struct daemon_fixture d;
    struct gist_cache_sum sum;
    gist_conn *root, *other;
    uint64_t tokens = 0;

    (void)state;
    if (geteuid() != 0) {
        printf("skipped: only root can be several users\n");
        skip();
    }
    fill(ids, 5);
    fill(ids_b, 6);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    daemon_fixture_let_in(&d);
    other = daemon_fixture_connect_as(&d, 4321);
    root = daemon_fixture_connect(&d);
    (void)read_by(other, ids, 0);
    wait_written(root, N_IDS / SEGMENT + 1);
    assert_int_equal(stat_of(root).records, 0);
    assert_true(stat_of(other).records > 0);
    assert_int_equal(gist_cache(root, GIST_CACHE_LIST, NULL, on_rows, &tokens, &sum), 0);
    assert_int_equal(tokens, 0);
    assert_int_equal(gist_cache(other, GIST_CACHE_LIST, NULL, on_rows, &tokens, &sum), 0);
    assert_true(tokens >= N_IDS);
    assert_int_equal(gist_cache(root, GIST_CACHE_FORGET, NULL, NULL, NULL, &sum), 0);
    assert_int_equal(sum.records, 0);
    assert_true(read_by(other, ids, 0).shared_tokens > 0);
    gist_disconnect(root);
    gist_disconnect(other);
    daemon_fixture_stop(&d);
}

/* Neither from memory nor from disk, and not after a restart. */
static void forgotten_is_forgotten(void **state)
{
    uint32_t ids[N_IDS];
    struct daemon_fixture d;
    struct gist_cache_sum sum;
    gist_conn *c;

    (void)state;
    fill(ids, 7);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    (void)read_by(c, ids, 0);
    assert_true(read_by(c, ids, 0).shared_tokens > 0);
    wait_written(c, N_IDS / SEGMENT + 1);
    assert_int_equal(gist_cache(c, GIST_CACHE_FORGET, NULL, NULL, NULL, &sum), 0);
    assert_true(sum.records > N_IDS / SEGMENT && sum.bytes > 0);
    assert_int_equal(stat_of(c).records, 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    assert_int_equal(n_files_with(d.store, ids, MARK * 4), 0);
    daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    assert_int_equal(read_by(c, ids, 0).computed_tokens, N_IDS);
    wait_written(c, N_IDS / SEGMENT + 1);
    assert_int_equal(gist_cache(c, GIST_CACHE_FORGET, NULL, NULL, NULL, &sum), 0);
    assert_int_equal(read_by(c, ids, 0).computed_tokens, N_IDS);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- abuse ------------------------------------------------------------------------------------ */

#define N_RECORDS 3000u

/* Sixty verifications and lists of a client that reads none of the answers, cancels some, and dies;
 * meanwhile another one's sessions are served. Three times. */
static void sixty_verifications_harm_nobody(void **state)
{
    uint32_t ids[N_IDS];
    struct daemon_fixture d;
    struct gist_cache_sum sum;
    gist_conn *c;

    (void)state;
    fill(ids, 8);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    daemon_fixture_stop(&d);
    made_store(d.store, geteuid(), 0, N_RECORDS, 0);
    daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    assert_int_equal(stat_of(c).records, N_RECORDS);
    for (int round = 0; round < 3; round++) {
        struct raw_client raw;
        uint64_t first = 0, id;

        raw_client_open(&raw, d.socket);
        for (int i = 0; i < 60; i++) {
            struct wire_req m = { .kind = WIRE_CACHE };

            m.u.cache.verb = i % 3 ? WIRE_CACHE_VERIFY : WIRE_CACHE_LIST;
            id = raw_client_send(&raw, m, NULL, 0);
            first = first ? first : id;
        }
        (void)read_by(c, ids, 0);
        for (uint64_t i = 0; i < 30; i++)
            (void)raw_client_send(
                &raw, (struct wire_req){ .kind = WIRE_CANCEL, .u.cancel.request = first + i }, NULL,
                0);
        (void)read_by(c, ids, 0);
        raw_client_close(&raw);
    }
    assert_int_equal(gist_cache(c, GIST_CACHE_VERIFY, NULL, NULL, NULL, &sum), 0);
    assert_true(sum.records >= N_RECORDS);
    assert_int_equal(sum.bad_records, 0);
    assert_int_equal(sum.unread_records, 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- what does not work ----------------------------------------------------------------------- */

static uint32_t n_lines_with(const char *log, const char *text)
{
    uint32_t n = 0;

    for (; (log = strstr(log, text)); log++)
        n++;
    return n;
}

/* Until `degraded` is a sentence, or none, while sessions go on. */
static void wait_degraded(gist_conn *c, bool wanted, unsigned *seed)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct gist_stats s;
    uint32_t ids[N_IDS];
    bool is;

    do {
        fill(ids, (*seed)++);
        assert_int_equal(read_by(c, ids, 0).computed_tokens, N_IDS);
        assert_int_equal(gist_stats(c, &s), 0);
        is = s.store->degraded[0] != '\0';
        assert_true(is == (s.store->degraded_s > 0));
    } while (is != wanted && daemon_fixture_ms() < end);
    assert_true(is == wanted);
}

/* The owner's folder is replaced by a file, which no folder can be made in the place of.
 * Without the sandbox, which knows the folder that was there at the start and no other. */
static void a_failing_disk_is_said_once(void **state)
{
    static const char *const open_args[] = {
        "--store-restore", "always", "--store-idle-ms", "20", "--sandbox", "no", NULL
    };
    struct daemon_fixture d;
    char folder[300], aside[320], what[400];
    unsigned seed = 100;
    gist_conn *c;
    int fd;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, open_args);
    c = daemon_fixture_connect(&d);
    wait_degraded(c, false, &seed);
    wait_written(c, 1); /* nothing is made anew in what is deleted */
    (void)snprintf(folder, sizeof(folder), "%s", d.store);
    (void)snprintf(aside, sizeof(aside), "%s.aside", d.store);
    assert_int_equal(rename(folder, aside), 0);
    fd = open(folder, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    (void)snprintf(what, sizeof(what), "rm -rf '%s'", aside);
    assert_int_equal(system(what), 0);
    wait_degraded(c, true, &seed);
    for (int i = 0; i < 20; i++)
        wait_degraded(c, true, &seed);
    assert_int_equal(n_lines_with(daemon_fixture_log(&d), "gistd: warning: store: "), 1);
    assert_int_equal(unlink(folder), 0);
    wait_degraded(c, false, &seed);
    assert_int_equal(n_lines_with(daemon_fixture_log(&d), "gistd: warning: store: "), 1);
    assert_int_equal(n_lines_with(daemon_fixture_log(&d), "store: all is well again"), 1);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void without_a_store_the_reason_is_said(void **state)
{
    const char *none[] = { "--store", "none", NULL };
    struct daemon_fixture d;
    struct gist_cache_sum sum;
    struct gist_stats s;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, none);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_stats(c, &s), 0);
    assert_null(s.store);
    assert_non_null(strstr(s.store_off, "--store none"));
    assert_int_equal(gist_cache(c, GIST_CACHE_LIST, NULL, NULL, NULL, &sum), -EROFS);
    assert_int_equal(gist_error_code(c), GIST_E_STORAGE);
    assert_non_null(strstr(gist_error(c), "--store none"));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_private_session_leaves_nothing),
        cmocka_unit_test(nothing_private_is_in_a_file),
        cmocka_unit_test(nobody_sees_anothers),
        cmocka_unit_test(forgotten_is_forgotten),
        cmocka_unit_test(sixty_verifications_harm_nobody),
        cmocka_unit_test(a_failing_disk_is_said_once),
        cmocka_unit_test(without_a_store_the_reason_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
