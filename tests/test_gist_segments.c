/* Would catch: a picture of a session's memory that does not add up to what usage says; a segment
 * that is shown raw and is compressed, or the other way; one that came back for a prompt and is not
 * shown so, or is still when the next prompt came; what is on the disk and is not said to be; a
 * part of a long list that is not the whole's.
 */
#include "tests/support/daemon_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEGMENT 64u
#define BYTE_0  3u /* the model's id of byte 0 */
#define N_FULL  9u
#define N_IDS   (N_FULL * SEGMENT + 10)
#define N_ASKED 20u

static uint32_t ids[N_IDS];

static void fill(unsigned seed)
{
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = BYTE_0 + 32 + (uint32_t)rand_r(&seed) % 90;
}

static gist_session *open_session(gist_conn *c, const struct gist_memory *m, unsigned flags)
{
    const struct gist_policy p = {
        .size = sizeof(p), .segment = SEGMENT, .memory = m, .flags = flags
    };
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

static struct gist_usage append(gist_conn *c, gist_session *s, const uint32_t *from, uint32_t n)
{
    struct gist_usage u;

    if (gist_append_tokens(s, from, n, &u) < 0)
        fail_msg("%s", gist_error(c));
    return u;
}

/* What usage counts, counted in the map. */
static struct gist_segments look(gist_conn *c, gist_session *s, const struct gist_usage *u)
{
    uint32_t tokens = 0, keys = 0, hydrated = 0;
    struct gist_segments m;

    assert_int_equal(gist_segments(c, gist_session_id(s), 0, &m), 0);
    assert_int_equal(m.n, m.n_segments);
    assert_int_equal(m.segment, SEGMENT);
    for (size_t i = 0; i < m.n; i++) {
        tokens += m.at[i].n_tokens;
        keys += m.at[i].n_keys;
        if (m.at[i].state == GIST_SEGMENT_HYDRATED)
            hydrated += m.at[i].n_tokens;
        if (m.at[i].state != GIST_SEGMENT_GISTS)
            assert_int_equal(m.at[i].n_keys, m.at[i].n_tokens);
        else
            assert_true(m.at[i].n_keys < m.at[i].n_tokens);
    }
    assert_int_equal(tokens, m.n_tokens);
    assert_int_equal(keys, m.n_keys);
    assert_int_equal(m.n_tokens, u->prompt_tokens);
    assert_int_equal(m.n_keys, u->raw_tokens + u->gists);
    assert_int_equal(hydrated, u->hydrated_tokens);
    assert_true(m.n_keys <= m.budget);
    return m;
}

/* Segment 6 is back. In parts. */
static void looks_from_elsewhere(struct daemon_fixture *d, gist_session *s)
{
    gist_conn *c = daemon_fixture_connect(d);
    struct gist_segments m;

    assert_int_equal(gist_segments(c, gist_session_id(s), 6, &m), 0);
    assert_int_equal(m.n_segments, N_FULL + 1);
    assert_int_equal(m.n, 4);
    assert_int_equal(m.at[0].state, GIST_SEGMENT_HYDRATED);
    assert_int_equal(gist_segments(c, gist_session_id(s), 99, &m), 0);
    assert_int_equal(m.n, 0);
    assert_int_equal(gist_segments(c, gist_session_id(s) + 1000, 0, &m), -ENOENT);
    assert_int_equal(gist_error_code(c), GIST_E_NOT_FOUND);
    gist_disconnect(c);
}

static void shows_what_is_compressed(void **state)
{
    static const char *const args[] = { "--store", "none", "--host-bytes", "none", NULL };
    const struct gist_memory select = {
        .size = sizeof(select), .compressor = GIST_SELECT, .ratio = 8, .hydrate = 2
    };
    struct daemon_fixture d;
    struct gist_segments m;
    struct gist_usage u;
    gist_session *s;
    gist_conn *c;

    (void)state;
    fill(1);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = open_session(c, &select, 0);
    assert_int_equal(gist_segments(c, gist_session_id(s), 0, &m), 0);
    assert_int_equal(m.n_segments, 0);
    assert_int_equal(m.n_tokens, 0);

    u = append(c, s, ids, N_IDS);
    m = look(c, s, &u);
    assert_int_equal(m.n, N_FULL + 1);
    for (uint32_t k = 0; k < N_FULL; k++) {
        assert_int_equal(m.at[k].state, GIST_SEGMENT_GISTS);
        assert_int_equal(m.at[k].ratio, 8);
        assert_false(m.at[k].stored); /* nothing is */
    }
    assert_int_equal(m.at[N_FULL].state, GIST_SEGMENT_RAW);
    assert_int_equal(m.at[N_FULL].n_tokens, 10);

    /* A prompt that points to a segment brings it back, and the next one another. */
    u = append(c, s, ids + 3 * SEGMENT + 20, N_ASKED);
    m = look(c, s, &u);
    assert_int_equal(m.at[3].state, GIST_SEGMENT_HYDRATED);
    assert_int_equal(m.at[3].ratio, 8);
    u = append(c, s, ids + 6 * SEGMENT + 20, N_ASKED);
    m = look(c, s, &u);
    assert_int_equal(m.at[3].state, GIST_SEGMENT_GISTS);
    assert_int_equal(m.at[6].state, GIST_SEGMENT_HYDRATED);

    looks_from_elsewhere(&d, s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* The ladder's rungs: a small budget, so that the oldest stand for more tokens each. */
static void shows_the_ladder(void **state)
{
    const struct gist_memory narrow = {
        .size = sizeof(narrow), .compressor = GIST_FINE_KV, .ratio = 4, .budget = 200
    };
    struct daemon_fixture d;
    struct gist_segments m;
    struct gist_usage u;
    gist_session *s;
    gist_conn *c;

    (void)state;
    fill(2);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    c = daemon_fixture_connect(&d);
    s = open_session(c, &narrow, 0);
    u = append(c, s, ids, N_IDS);
    m = look(c, s, &u);
    assert_int_equal(m.budget, 200);
    assert_true(m.at[0].ratio > 4);
    for (uint32_t k = 1; k < N_FULL; k++)
        assert_true(m.at[k].ratio >= 4 && m.at[k].ratio <= m.at[k - 1].ratio);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static uint32_t stored(gist_conn *c, gist_session *s, const struct gist_usage *u)
{
    const struct gist_segments m = look(c, s, u);
    uint32_t n = 0;

    for (size_t i = 0; i < m.n; i++)
        n += m.at[i].stored != 0;
    return n;
}

static void shows_what_is_on_the_disk(void **state)
{
    static const char *const args[] = { "--store-idle-ms", "20", NULL };
    struct gist_stats before, after;
    struct daemon_fixture d;
    struct gist_usage u;
    gist_session *s;
    gist_conn *c;

    (void)state;
    fill(3);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = open_session(c, NULL, 0);
    u = append(c, s, ids, N_IDS);
    daemon_fixture_stored(c);
    assert_int_equal(gist_stats(c, &before), 0);
    assert_non_null(before.store);
    {
        uint64_t hits = before.store->hits, misses = before.store->misses;

        assert_int_equal(stored(c, s, &u), N_FULL); /* the open one is no full segment */
        /* Who looks on is no use of what is kept. */
        assert_int_equal(gist_stats(c, &after), 0);
        assert_int_equal(after.store->hits, hits);
        assert_int_equal(after.store->misses, misses);
    }
    gist_close(s);

    fill(4);
    s = open_session(c, NULL, GIST_PRIVATE);
    u = append(c, s, ids, N_IDS);
    daemon_fixture_stored(c);
    assert_int_equal(stored(c, s, &u), 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_what_is_compressed),
        cmocka_unit_test(shows_the_ladder),
        cmocka_unit_test(shows_what_is_on_the_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
