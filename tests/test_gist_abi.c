/* Would catch: libgist that writes behind a struct of a program that was compiled when it was
 * shorter, lists whose rows such a program does not find, rubbish where a program knows more than
 * the library. tests/test_abi.sh runs a whole program of that kind.
 */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_ROWS    3u
#define UNTOUCHED 0xa5
#define ROOM      4096u

static struct fake_daemon fake;
static gist_conn *conn;

/* --- the daemon ------------------------------------------------------------------------------- */

static const struct wire_usage usage = {
    .prompt_tokens = 11, .computed_tokens = 12, .ratio = 4, .accepted_tokens = 13
};

static void reply_stats(struct fake_daemon *d)
{
    struct wire_stats_session sessions[N_ROWS];
    struct wire_stats_client clients[N_ROWS];
    struct wire_stats_owner owners[N_ROWS];

    for (uint32_t i = 0; i < N_ROWS; i++) {
        sessions[i] =
            (struct wire_stats_session){ .id = 10 + i, .n_tokens = 20 + i, .uid = 30 + i };
        clients[i] =
            (struct wire_stats_client){ .id = 40 + i, .name = "a client", .unit = "a.scope" };
        owners[i] = (struct wire_stats_owner){ .uid = 50 + i, .rows = 60 + i };
    }
    fake_last(d, (struct wire_rep){ .kind = WIRE_STATS,
                                    .u.stats = { .version = "v",
                                                 .requests_waiting = 70,
                                                 .client = clients,
                                                 .n_client = N_ROWS,
                                                 .session = sessions,
                                                 .n_session = N_ROWS,
                                                 .owner = owners,
                                                 .n_owner = N_ROWS } });
}

static void reply_rows(struct fake_daemon *d)
{
    struct wire_trace_row traces[N_ROWS];
    struct wire_segment segments[N_ROWS];
    struct wire_cache_row rows[N_ROWS];
    struct wire_cache_rows cache = { .row = rows, .n_row = N_ROWS, .records = 3, .total = 4 };

    for (uint32_t i = 0; i < N_ROWS; i++) {
        traces[i] = (struct wire_trace_row){ .number = 80 + i, .accepted_tokens = 90 + i };
        segments[i] = (struct wire_segment){ .n_tokens = 100 + i, .stored = true };
        rows[i] = (struct wire_cache_row){ .id = 110 + i, .packed = true };
    }
    if (d->req.kind == WIRE_TRACE) {
        fake_last(d, (struct wire_rep){ .kind = WIRE_TRACED, .u.traced = { traces, N_ROWS } });
    } else if (d->req.kind == WIRE_SEGMENTS) {
        fake_last(
            d, (struct wire_rep){
                   .kind = WIRE_SEGMENT_MAP,
                   .u.segment_map = { .row = segments, .n_row = N_ROWS, .n_segments = N_ROWS } });
    } else {
        fake_reply(d, (struct wire_rep){ .kind = WIRE_CACHE_ROWS, .u.cache_rows = cache }, NULL, 0);
        cache.n_row = 0;
        fake_last(d, (struct wire_rep){ .kind = WIRE_CACHE_ROWS, .u.cache_rows = cache });
    }
}

static void reply_score(struct fake_daemon *d)
{
    const uint32_t bulk[] = { 7, 0 }; /* an id, and 0.0f */

    fake_reply(d, (struct wire_rep){ .kind = WIRE_SCORE_ROWS, .u.score_rows = { 0, 1, 0 } }, bulk,
               sizeof(bulk));
    fake_last(d, (struct wire_rep){ .kind = WIRE_DONE, .u.done.usage = usage });
}

static void reply_answers(struct fake_daemon *d)
{
    for (uint32_t i = 0; d->req.u.generate.n > 1 && i < d->req.u.generate.n; i++)
        fake_reply(
            d,
            (struct wire_rep){ .kind = WIRE_DONE,
                               .u.done = { WIRE_REASON_STOP, usage, .index = i, .stop = 1 } },
            NULL, 0);
    fake_last(d,
              (struct wire_rep){ .kind = WIRE_DONE, .u.done = { WIRE_REASON_LENGTH, usage, 0 } });
}

static void script(struct fake_daemon *d, void *arg)
{
    (void)arg;
    while (fake_take(d)) {
        if (d->req.kind == WIRE_OPEN_SESSION)
            fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED,
                                            .u.session_opened = { 77, 512, usage } });
        else if (d->req.kind == WIRE_APPEND)
            fake_last(d,
                      (struct wire_rep){ .kind = WIRE_APPENDED, .u.appended = { .usage = usage } });
        else if (d->req.kind == WIRE_ADD_DOCUMENT)
            fake_last(d, (struct wire_rep){ .kind = WIRE_DOCUMENT_ADDED,
                                            .u.document_added = { .usage = usage } });
        else if (d->req.kind == WIRE_GENERATE)
            reply_answers(d);
        else if (d->req.kind == WIRE_SCORE)
            reply_score(d);
        else if (d->req.kind == WIRE_GET_STATS)
            reply_stats(d);
        else
            reply_rows(d);
    }
}

/* --- the program ------------------------------------------------------------------------------ */

static _Alignas(16) unsigned char room[ROOM];

static void *fresh(void)
{
    return memset(room, UNTOUCHED, sizeof(room));
}

/* `len` bytes were written: of what we know, which is `ours` long, at its end; then zeros; and
 * nothing behind them. */
static void written(size_t len, size_t ours)
{
    for (size_t i = ours; i < len; i++)
        assert_int_equal(room[i], 0);
    for (size_t i = len; i < ROOM; i++)
        assert_int_equal(room[i], UNTOUCHED);
}

static bool knows(size_t len, size_t off)
{
    return off + sizeof(uint32_t) <= len;
}

#define ROW(list, i, type, len)                                                                    \
    ((const struct type *)(const void *)((const char *)(list) + (i) * (len)))

static void look_at_usage(gist_session *s, const struct gist_sizes *z)
{
    struct gist_usage *u = fresh();

    gist_session_usage(s, u);
    assert_int_equal(u->computed_tokens, 12);
    written(z->usage, sizeof(*u));
    assert_int_equal(gist_append_text(s, "x", 1, 0, fresh()), 0);
    assert_int_equal(u->computed_tokens, 12);
    written(z->usage, sizeof(*u));
    assert_int_equal(gist_append_tokens(s, (uint32_t[]){ 1 }, 1, fresh()), 0);
    written(z->usage, sizeof(*u));
    assert_int_equal(gist_append_chat(s, &(struct gist_message){ "user", "x" }, 1, 0, fresh()), 0);
    written(z->usage, sizeof(*u));
    assert_int_equal(gist_document_add(conn, "x", "x", 1, NULL, fresh()), 0);
    assert_int_equal(u->computed_tokens, 12);
    written(z->usage, sizeof(*u));
    if (knows(z->usage, offsetof(struct gist_usage, accepted_tokens)))
        assert_int_equal(u->accepted_tokens, 13);
}

static void look_at_results(gist_session *s, const struct gist_sizes *z)
{
    const struct gist_sampling stops = { .size = sizeof(stops),
                                         .stop = (const char *const[]){ "a" },
                                         .n_stop = 1 };
    struct gist_result *r = fresh();
    struct gist_score *score;

    assert_int_equal(gist_generate(s, NULL, NULL, NULL, r), 0);
    assert_int_equal(r->reason, GIST_LENGTH);
    assert_int_equal(r->usage.computed_tokens, 12);
    written(z->result, sizeof(*r));
    assert_int_equal(gist_generate_several(s, &stops, N_ROWS, NULL, NULL, fresh()), 0);
    for (size_t i = 0; i < N_ROWS; i++) {
        assert_int_equal(ROW(room, i, gist_result, z->result)->usage.computed_tokens, 12);
        assert_int_equal(ROW(room, i, gist_result, z->result)->stop, 1);
    }
    for (size_t i = N_ROWS * z->result; i < ROOM; i++)
        assert_int_equal(room[i], UNTOUCHED);
    score = fresh();
    assert_int_equal(gist_score_tokens(conn, (uint32_t[]){ 7 }, 1, NULL, score), 0);
    assert_int_equal(score->n, 1);
    assert_int_equal(score->ids[0], 7);
    assert_int_equal(score->usage.computed_tokens, 12);
    free(score->ids);
    free(score->logprobs);
    written(z->score, sizeof(*score));
}

static void look_at_stats(const struct gist_sizes *z)
{
    struct gist_stats *st = fresh();

    assert_int_equal(gist_stats(conn, st), 0);
    written(z->stats, sizeof(*st));
    assert_string_equal(st->version, "v");
    assert_int_equal(st->n_sessions, N_ROWS);
    for (uint32_t i = 0; i < N_ROWS; i++) {
        const struct gist_stats_session *s =
            ROW(st->sessions, i, gist_stats_session, z->stats_session);
        const struct gist_stats_owner *o = ROW(st->owners, i, gist_stats_owner, z->stats_owner);

        assert_int_equal(s->id, 10 + i);
        assert_int_equal(s->n_tokens, 20 + i);
        if (knows(z->stats_session, offsetof(struct gist_stats_session, uid)))
            assert_int_equal(s->uid, 30 + i);
        assert_int_equal(ROW(st->clients, i, gist_stats_client, z->stats_client)->id, 40 + i);
        if (knows(z->stats_client, offsetof(struct gist_stats_client, unit)))
            assert_string_equal(ROW(st->clients, i, gist_stats_client, z->stats_client)->unit,
                                "a.scope");
        assert_int_equal(o->uid, 50 + i);
        if (knows(z->stats_owner, offsetof(struct gist_stats_owner, rows)))
            assert_int_equal(o->rows, 60 + i);
    }
}

static void on_traces(void *arg, const struct gist_trace_row *rows, size_t n)
{
    const struct gist_sizes *z = arg;

    assert_int_equal(n, N_ROWS);
    for (uint32_t i = 0; i < N_ROWS; i++)
        assert_int_equal(ROW(rows, i, gist_trace_row, z->trace_row)->number, 80 + i);
}

static int on_cache(void *arg, const struct gist_cache_row *rows, size_t n,
                    const struct gist_cache_sum *so_far)
{
    const struct gist_sizes *z = arg;

    assert_int_equal(n, N_ROWS);
    assert_int_equal(so_far->records, 3);
    for (uint32_t i = 0; i < N_ROWS; i++)
        assert_int_equal(ROW(rows, i, gist_cache_row, z->cache_row)->id, 110 + i);
    return 0;
}

static void look_at_rows(const struct gist_sizes *z)
{
    struct gist_segments *map = fresh();
    struct gist_cache_sum *sum;

    assert_int_equal(gist_segments(conn, 77, 0, map), 0);
    written(z->segments, sizeof(*map));
    for (uint32_t i = 0; i < N_ROWS; i++)
        assert_int_equal(ROW(map->at, i, gist_segment, z->segment)->n_tokens, 100 + i);
    assert_int_equal(gist_trace(conn, 0, on_traces, (void *)(uintptr_t)z), 0);
    sum = fresh();
    assert_int_equal(gist_cache(conn, GIST_CACHE_LIST, NULL, on_cache, (void *)(uintptr_t)z, sum),
                     0);
    assert_int_equal(sum->records, 3);
    written(z->cache_sum, sizeof(*sum));
}

static void look_at_all(const struct gist_sizes *z)
{
    gist_session *s;

    gist_info(conn, fresh());
    assert_string_equal(((const struct gist_info *)(const void *)room)->model, "fake model");
    written(z->info, sizeof(struct gist_info));
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    look_at_usage(s, z);
    look_at_results(s, z);
    look_at_stats(z);
    look_at_rows(z);
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
}

static void connect_as(const struct gist_sizes *z)
{
    fake_start(&fake, script, NULL);
    assert_int_equal(gist_connect_sized(z, fake.path, "test", &conn), 0);
}

/* --- the cases -------------------------------------------------------------------------------- */

static void test_today(void **state)
{
    (void)state;
    fake_start(&fake, script, NULL);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    look_at_all(&gist_sizes_here);
}

/* Structs that end earlier than any ever did, each at another place. */
static void test_shorter(void **state)
{
    struct gist_sizes z = gist_sizes_here;

    (void)state;
    z.info = offsetof(struct gist_info, context_max);
    z.usage = offsetof(struct gist_usage, generated_tokens);
    z.result = offsetof(struct gist_result, usage.generated_tokens);
    z.score = offsetof(struct gist_score, usage.generated_tokens);
    z.stats = offsetof(struct gist_stats, store);
    z.stats_client = offsetof(struct gist_stats_client, name);
    z.stats_session = offsetof(struct gist_stats_session, label);
    z.stats_owner = offsetof(struct gist_stats_owner, text_bytes);
    z.trace_row = offsetof(struct gist_trace_row, total_ns);
    z.segment = offsetof(struct gist_segment, ratio);
    z.cache_row = offsetof(struct gist_cache_row, used_s);
    z.cache_sum = offsetof(struct gist_cache_sum, packed_records);
    connect_as(&z);
    look_at_all(&z);
}

static void test_longer(void **state)
{
    struct {
        struct gist_sizes z;
        uint64_t later;
    } mine = { gist_sizes_here, 9 };
    uint32_t *const sizes[] = {
        &mine.z.info,      &mine.z.usage,        &mine.z.result,        &mine.z.score,
        &mine.z.stats,     &mine.z.stats_client, &mine.z.stats_session, &mine.z.stats_owner,
        &mine.z.trace_row, &mine.z.segments,     &mine.z.segment,       &mine.z.cache_row,
        &mine.z.cache_sum,
    };

    (void)state;
    mine.z.size = sizeof(mine); /* and sizes of structs that we have not */
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        *sizes[i] += 8 * (uint32_t)(i + 1);
    connect_as(&mine.z);
    look_at_all(&mine.z);
}

/* Of a list of sizes that is shorter itself, what it lacks is of structs that nobody can read. */
static void test_fewer(void **state)
{
    struct gist_sizes z = gist_sizes_here;
    struct gist_usage *u;
    gist_session *s;

    (void)state;
    z.size = offsetof(struct gist_sizes, stats);
    connect_as(&z);
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    u = fresh();
    gist_session_usage(s, u);
    written(z.usage, sizeof(*u));
    assert_int_equal(gist_stats(conn, fresh()), 0);
    written(0, 0);
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
}

/* The functions of these names, which programs from before call. */
static void test_before(void **state)
{
    const struct gist_connect_opts opts = { .size = sizeof(opts), .path = fake.path };
    struct gist_sizes z = gist_sizes_here;
    struct gist_info *info = fresh();

    (void)state;
    fake_start(&fake, script, NULL);
    assert_int_equal((gist_connect)(fake.path, "test", &conn), 0);
    gist_info(conn, info);
    z.info = offsetof(struct gist_info, outputs);
    assert_true(z.info < gist_sizes_here.info);
    written(z.info, z.info);
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);

    fake_start(&fake, script, NULL);
    assert_int_equal((gist_connect_with)(&opts, &conn), 0);
    gist_info(conn, fresh());
    written(z.info, z.info);
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_today), cmocka_unit_test(test_shorter), cmocka_unit_test(test_longer),
        cmocka_unit_test(test_fewer), cmocka_unit_test(test_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
