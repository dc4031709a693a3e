/* tests/test_power.c - a power cut at every point of a script of puts, replacements, evictions and
 * names: what was not synced is there, torn, or not there, in several ways. Would catch: a record
 * served with other pages than were put, or that is found and can't be read; one that was
 * acknowledged and is gone; a name with other bytes than the old or the new ones; a store that does
 * not open again, or does not take records afterwards.
 */
#include "base/clock.h"
#include "tests/support/counted.h"
#include "tests/support/io_faulty.h"
#include "tests/support/sanitized.h"
#include "tests/support/store_rig.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NEVER     SIZE_MAX
#define ITEMS     64u
#define VERSIONS  8u
#define OTHER     1001u
#define SEEDS     (SANITIZED ? 3u : 5u)
#define GO_ON     16u /* at every so many points the store that was found is written to */
#define NAME_KIND 3u

/* A record, from when on it must be found, and up to when. */
struct item {
    struct rig_record rec;
    size_t acked, doomed;
};

/* Bytes of one name, one after the other. */
struct version {
    char text[64];
    size_t begun, acked;
};

struct script {
    struct store_rig rig;
    struct io_log *log;
    struct item items[ITEMS];
    uint32_t n_items;
    struct version versions[VERSIONS];
    uint32_t n_versions;
    size_t step; /* the point at which the present step began */
};

/* --- the script ------------------------------------------------------------------------------- */

static void begin(struct script *s)
{
    s->step = io_log_points(s->log);
}

/* What is there no more may have been gone since the step began. */
static void end(struct script *s)
{
    rig_settle(&s->rig);
    for (uint32_t i = 0; i < s->n_items; i++) {
        struct item *it = &s->items[i];

        if (it->acked != NEVER && it->doomed == NEVER && !rig_has(&s->rig, &it->rec))
            it->doomed = s->step;
    }
}

static struct rig_record *put(struct script *s, struct rig_record rec)
{
    struct item *it = &s->items[s->n_items++];

    assert_true(s->n_items <= ITEMS);
    *it = (struct item){ .rec = rec, .acked = NEVER, .doomed = NEVER };
    begin(s);
    assert_int_equal(rig_put(&s->rig, &it->rec), 0);
    it->acked = io_log_points(s->log);
    end(s);
    return &it->rec;
}

static void put_together(struct script *s, uint32_t n, uint32_t seed)
{
    uint32_t called = s->rig.n_called, first = s->n_items;

    begin(s);
    for (uint32_t i = 0; i < n; i++) {
        struct item *it = &s->items[s->n_items++];

        *it =
            (struct item){ .rec = { .n = 48, .seed = seed + i }, .acked = NEVER, .doomed = NEVER };
        assert_int_equal(rig_put_later(&s->rig, &it->rec), 0);
    }
    rig_wait(&s->rig, called + n);
    for (uint32_t i = 0; i < n; i++)
        s->items[first + i].acked = io_log_points(s->log);
    end(s);
}

static void on_named(void *arg, int result)
{
    *(int *)arg = result;
}

static void put_name(struct script *s, const char *text)
{
    struct version *v = &s->versions[s->n_versions++];
    int result = 1;

    begin(s);
    *v = (struct version){ .begun = s->step, .acked = NEVER };
    (void)snprintf(v->text, sizeof(v->text), "%s", text);
    assert_int_equal(store_name_put(s->rig.store, RIG_OWNER, NAME_KIND, "a name", v->text,
                                    strlen(v->text), on_named, &result),
                     0);
    assert_true(store_flush(s->rig.store, 60 * CLOCK_S));
    assert_int_equal(result, 0);
    v->acked = io_log_points(s->log);
    end(s);
}

static void open_logged(struct script *s, const char *name)
{
    struct io_options o = { .kind = IO_THREADS, .depth = 64 };
    struct io *inner;

    store_rig_init(&s->rig, name);
    assert_int_equal(mkdir(s->rig.path, 0700), 0);
    s->log = io_log_new(s->rig.path);
    assert_int_equal(io_open(&o, &inner, &s->rig.why), 0);
    assert_int_equal(io_faulty_open(inner, &s->rig.io), 0);
    io_faulty_record(s->rig.io, s->log);
    assert_int_equal(store_rig_open(&s->rig), 0);
}

static void forget(struct script *s, uint32_t owner)
{
    uint64_t records, bytes;

    begin(s);
    store_forget(s->rig.store, owner, &records, &bytes);
    end(s);
}

static void play(struct script *s)
{
    struct rig_record *a = put(s, (struct rig_record){ .n = 64, .seed = 1 });
    struct store_hash behind_a = rig_hash(&s->rig, a);

    put(s, (struct rig_record){ .n = 32, .seed = 2, .before = behind_a });
    put(s, (struct rig_record){ .n = 64, .seed = 1, .kind = STORE_PACKED });
    put_name(s, "old");
    /* A tail that grows into a segment. */
    put(s, (struct rig_record){ .n = 24, .seed = 3, .before = behind_a, .tail = true });
    put(s, (struct rig_record){ .n = 40, .seed = 3, .before = behind_a, .tail = true });
    put(s, (struct rig_record){ .n = 64, .seed = 3, .before = behind_a });
    put_name(s, "new, and longer than the old one");
    put(s, (struct rig_record){ .n = 32, .seed = 4, .owner = OTHER });
    put_together(s, 4, 10);
    forget(s, OTHER);
    put(s, (struct rig_record){ .n = 32, .seed = 4, .owner = OTHER });
    put_name(s, "");
    /* Now each one that comes evicts another. */
    store_set_limit(s->rig.store, rig_stats(&s->rig).bytes);
    put(s, (struct rig_record){ .n = 48, .seed = 20 });
    put_together(s, 2, 30);
    put_name(s, "last");
}

/* --- after the cut ---------------------------------------------------------------------------- */

static const struct version *version_of(const struct script *s, const void *bytes, size_t len)
{
    for (uint32_t i = 0; i < s->n_versions; i++) {
        if (strlen(s->versions[i].text) == len && memcmp(s->versions[i].text, bytes, len) == 0)
            return &s->versions[i];
    }
    return NULL;
}

static void check_name(const struct script *s, struct store_rig *found, size_t point,
                       const char *where)
{
    const struct version *v = NULL, *least = NULL;
    void *bytes = NULL;
    size_t len;
    int err = store_name_get(found->store, RIG_OWNER, NAME_KIND, "a name", &bytes, &len);

    for (uint32_t i = 0; i < s->n_versions; i++) {
        if (s->versions[i].acked <= point)
            least = &s->versions[i];
    }
    if (err == 0)
        v = version_of(s, bytes, len);
    free(bytes);
    expect_that(err == 0 || err == -ENOENT, "the name gives %d %s", err, where);
    expect_that(err != 0 || v, "the name has bytes that were never put %s", where);
    expect_that(!v || v->begun <= point, "the name has bytes of the future %s", where);
    expect_that(!least || (v && v >= least), "the name's bytes were acknowledged, %s", where);
}

static void check_cut(const struct script *s, struct store_rig *found, size_t point, uint64_t seed)
{
    struct rig_record more = { .n = 32, .seed = 99 };
    char where[512], say[256];

    (void)snprintf(where, sizeof(where), "after a cut at %zu, seed %u, %s", point, (unsigned)seed,
                   io_log_say(s->log, point, say));
    expect_that(store_rig_open(found) == 0, "the store does not open %s: %s", where,
                found->why.text);
    for (uint32_t i = 0; i < s->n_items; i++) {
        const struct item *it = &s->items[i];
        int got = rig_get(found, &it->rec);

        expect_that(got >= 0, "record %u gives %d %s", i, got, where);
        expect_that(point < it->acked || point >= it->doomed || got == (int)it->rec.n,
                    "record %u was acknowledged: %d of %u tokens %s", i, got, it->rec.n, where);
    }
    expect_that(rig_stats(found).refused == 0, "what was published did not verify %s", where);
    check_name(s, found, point, where);
    if (point % GO_ON == 0)
        expect_that(rig_put(found, &more) == 0 && rig_get(found, &more) == (int)more.n,
                    "nothing more is taken %s", where);
    (void)store_close(found->store);
    found->store = NULL;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void cut_everywhere(const struct script *s)
{
    struct io_options o = { .kind = IO_THREADS, .depth = 32, .threads = 1 };
    size_t n = io_log_points(s->log);
    struct store_rig found;

    store_rig_init(&found, "found");
    assert_int_equal(io_open(&o, &found.io, &found.why), 0);
    for (size_t point = 0; point <= n; point++) {
        for (uint64_t k = 0; k < SEEDS; k++) {
            uint64_t seed = k < 2 ? k : point * SEEDS + k;

            io_log_cut(s->log, point, seed, found.path);
            check_cut(s, &found, point, seed);
            assert_int_equal(nftw(found.path, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
        }
    }
    store_rig_close(&found);
}

static void cuts_everywhere(void **state)
{
    struct script *s = calloc(1, sizeof(*s));

    (void)state;
    open_logged(s, "cut");
    play(s);
    /* Something of everything was there to be lost. */
    assert_true(rig_stats(&s->rig).evicted > 0);
    assert_int_equal(s->n_versions, 4);
    io_faulty_record(s->rig.io, NULL);
    store_rig_close(&s->rig);
    cut_everywhere(s);
    io_log_free(s->log);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_everywhere),
    };

    /* What is durable is the log's business: no disk has to be waited for. */
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
