/* Would catch: a call that waits though its name ends in _start, an answer that is given to another
 * request's callback, what a request points to not being copied when it has to wait, a list of ids
 * that loses its cancel between two requests, a cut answer without its usage, a daemon's word from
 * a later version that ends the connection. The daemon is a scripted one, which says nothing until
 * it has heard all: a call that waited for it would wait for ever.
 */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct fake_daemon fake;
static gist_conn *conn;

static void begin(fake_script *script, void *arg)
{
    (void)alarm(120); /* a call that waits for ever ends the test */
    fake_start(&fake, script, arg);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
}

static void end(void)
{
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
    (void)alarm(0);
}

static void wait_for(const int *n, int want)
{
    while (*n < want) {
        assert_int_equal(poll(&(struct pollfd){ gist_fd(conn), POLLIN, 0 }, 1, FAKE_PATIENCE_MS),
                         1);
        assert_true(gist_dispatch(conn) >= 0);
    }
}

/* --- everything at once ----------------------------------------------------------------------- */

#define N_CALLS 22 /* of call_all; three of them are of a session that one of them opens */

static const struct wire_usage usage = { .prompt_tokens = 11 };

static void reply_stats(struct fake_daemon *d, uint64_t id)
{
    fake_last(d, (struct wire_rep){ .id = id, .kind = WIRE_STATS, .u.stats = { .version = "v" } });
}

static void reply_embedding(struct fake_daemon *d, uint64_t id)
{
    const uint32_t n_tokens = 1;
    const float row[] = { 1, 2 };

    fake_reply(d,
               (struct wire_rep){
                   .id = id, .kind = WIRE_EMBEDDING, .u.embedding = { 0, 1, 2, &n_tokens, { 0 } } },
               row, sizeof(row));
    fake_last(d, (struct wire_rep){ .id = id,
                                    .kind = WIRE_EMBEDDING,
                                    .u.embedding = { .first = 1, .n_embd = 2 } });
}

static void reply_choices(struct fake_daemon *d, uint64_t id)
{
    const uint32_t bulk[] = { 7, 0 }, n_tokens = 1;
    const double sum = 0;

    fake_reply(d,
               (struct wire_rep){ .id = id, .kind = WIRE_SCORE_ROWS, .u.score_rows = { 0, 1, 0 } },
               bulk, sizeof(bulk));
    fake_last(d, (struct wire_rep){ .id = id,
                                    .kind = WIRE_CHOSEN,
                                    .u.chosen = { &n_tokens, &sum, 1, 0, 0, usage } });
}

static void reply_score(struct fake_daemon *d, uint64_t id, bool logits)
{
    const uint32_t bulk[1000] = { 7, 0 }; /* an id and a number, or a row of numbers */

    fake_reply(d,
               (struct wire_rep){
                   .id = id, .kind = WIRE_SCORE_ROWS, .u.score_rows = { 0, 1, logits ? 1000 : 0 } },
               bulk, logits ? sizeof(bulk) : 8);
    fake_done(d, id, WIRE_REASON_END_OF_TEXT);
}

static void reply_ids(struct fake_daemon *d, uint64_t id)
{
    const uint32_t ids[] = { 5, 6 };

    fake_reply(d, (struct wire_rep){ .id = id, .last = true, .kind = WIRE_TOKENS, .u.tokens.n = 2 },
               ids, sizeof(ids));
}

static void reply_listed(struct fake_daemon *d, uint64_t id)
{
    const struct wire_row row = { .name = "a row", .label = "", .model = "" };

    fake_last(d, (struct wire_rep){ .id = id, .kind = WIRE_LISTED, .u.listed = { &row, 1 } });
}

static void reply_plain(struct fake_daemon *d, uint64_t id, enum wire_rep_kind kind)
{
    fake_last(d, (struct wire_rep){ .id = id, .kind = kind });
}

static void reply_to(struct fake_daemon *d, const struct wire_req *m)
{
    static const enum wire_rep_kind plain[WIRE_REQ__N] = {
        [WIRE_PING] = WIRE_PONG,
        [WIRE_SAVE] = WIRE_SAVED,
        [WIRE_DELETE] = WIRE_DELETED,
        [WIRE_ADD_DOCUMENT] = WIRE_DOCUMENT_ADDED,
        [WIRE_CACHE] = WIRE_CACHE_ROWS,
        [WIRE_TRACE] = WIRE_TRACED,
        [WIRE_SEGMENTS] = WIRE_SEGMENT_MAP,
        [WIRE_APPEND] = WIRE_APPENDED,
        [WIRE_CLOSE_SESSION] = WIRE_SESSION_CLOSED,
    };

    if (m->kind == WIRE_OPEN_SESSION || m->kind == WIRE_FORK)
        fake_last(d, (struct wire_rep){ .id = m->id,
                                        .kind = WIRE_SESSION_OPENED,
                                        .u.session_opened = { 70 + m->kind, 512, usage } });
    else if (m->kind == WIRE_RESTORE)
        fake_last(d, (struct wire_rep){
                         .id = m->id, .kind = WIRE_RESTORED, .u.restored = { 90, 512, 3, usage } });
    else if (m->kind == WIRE_REWIND)
        fake_last(d, (struct wire_rep){ .id = m->id, .kind = WIRE_REWOUND, .u.rewound = { 2 } });
    else if (m->kind == WIRE_CANCEL)
        fake_last(
            d, (struct wire_rep){ .id = m->id, .kind = WIRE_CANCELLED, .u.cancelled.found = true });
    else if (m->kind == WIRE_GET_STATS)
        reply_stats(d, m->id);
    else if (m->kind == WIRE_EMBED)
        reply_embedding(d, m->id);
    else if (m->kind == WIRE_SCORE_CHOICES)
        reply_choices(d, m->id);
    else if (m->kind == WIRE_SCORE)
        reply_score(d, m->id, m->u.score.want == WIRE_SCORE_LOGITS);
    else if (m->kind == WIRE_TOKENIZE)
        reply_ids(d, m->id);
    else if (m->kind == WIRE_DETOKENIZE)
        fake_last(d, (struct wire_rep){ .id = m->id, .kind = WIRE_TEXT, .u.text.text = "text" });
    else if (m->kind == WIRE_LIST)
        reply_listed(d, m->id);
    else if (m->kind == WIRE_GENERATE)
        fake_done(d, m->id, WIRE_REASON_STOP);
    else
        reply_plain(d, m->id, plain[m->kind]);
}

/* Takes as many requests as it is told to, then answers them, the last one first. */
static void script_all(struct fake_daemon *d, void *arg)
{
    static struct wire_req taken[N_CALLS];
    int n = *(const int *)arg;

    fake_expect(d, WIRE_OPEN_SESSION);
    reply_to(d, &d->req);
    for (int i = 0; i < n; i++) {
        FAKE_CHECK(fake_take(d));
        taken[i] = d->req; /* no more than kinds and numbers of it are looked at */
    }
    fake_release(d);
    while (n-- > 0)
        reply_to(d, &taken[n]);
    while (fake_take(d))
        reply_to(d, &d->req);
}

struct seen {
    int done, rows;
    gist_session *opened, *forked, *restored;
};

static void on_done(void *arg, int err, const struct gist_result *result)
{
    assert_int_equal(err, 0);
    assert_non_null(result);
    ((struct seen *)arg)->done++;
}

static void on_opened(void *arg, int err, gist_session *s)
{
    struct seen *seen = arg;
    struct gist_usage u;

    assert_int_equal(err, 0);
    gist_session_usage(s, &u);
    assert_int_equal(u.prompt_tokens, 11);
    if (gist_session_id(s) == 70 + WIRE_OPEN_SESSION)
        seen->opened = s;
    else if (gist_session_id(s) == 70 + WIRE_FORK)
        seen->forked = s;
    else
        seen->restored = s;
    seen->done++;
}

static void on_score(void *arg, int err, const struct gist_score *score)
{
    assert_int_equal(err, 0);
    assert_int_equal(score->n, 1);
    assert_int_equal(score->ids[0], 7);
    ((struct seen *)arg)->done++;
}

static int on_rows(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows)
{
    assert_true(first == 0 && n == 1 && n_vocab == 1000 && rows[1] == 0);
    ((struct seen *)arg)->rows++;
    return 0;
}

static void on_tokens(void *arg, int err, const uint32_t *ids, size_t n)
{
    assert_int_equal(err, 0);
    assert_true(n == 2 && ids[1] == 6);
    ((struct seen *)arg)->done++;
}

static void on_string(void *arg, int err, const char *text, size_t len)
{
    assert_int_equal(err, 0);
    assert_int_equal(len, 4);
    assert_string_equal(text, "text");
    ((struct seen *)arg)->done++;
}

static int on_stats(void *arg, const struct gist_stats *stats)
{
    assert_string_equal(stats->version, "v");
    ((struct seen *)arg)->rows++;
    return 1; /* which is of no account where there is no second one */
}

static void on_traces(void *arg, const struct gist_trace_row *rows, size_t n)
{
    (void)rows;
    assert_int_equal(n, 0);
    ((struct seen *)arg)->rows++;
}

static void on_segments(void *arg, int err, const struct gist_segments *segments)
{
    assert_int_equal(err, 0);
    assert_int_equal(segments->n, 0);
    ((struct seen *)arg)->done++;
}

static int on_row(void *arg, const struct gist_row *row)
{
    assert_string_equal(row->name, "a row");
    ((struct seen *)arg)->rows++;
    return 0;
}

static void on_choices(void *arg, int err, const struct gist_choices *choices)
{
    assert_int_equal(err, 0);
    assert_int_equal(choices->n, 1);
    ((struct seen *)arg)->done++;
}

static void on_embeddings(void *arg, int err, const struct gist_embeddings *e)
{
    assert_int_equal(err, 0);
    assert_true(e->n == 1 && e->n_embd == 2 && e->vectors[1] == 2);
    ((struct seen *)arg)->done++;
}

static void on_cache(void *arg, int err, const struct gist_cache_sum *sum)
{
    assert_int_equal(err, 0);
    assert_non_null(sum);
    ((struct seen *)arg)->done++;
}

#define STARTED(...) assert_int_equal(__VA_ARGS__, 0)

/* What needs no session. */
static void call_conn(struct seen *t)
{
    const uint32_t ids[] = { 1, 2, 3 };
    const struct gist_span text = { "x", 1 };

    STARTED(gist_ping_start(conn, on_done, t, NULL));
    STARTED(gist_open_start(conn, NULL, on_opened, t, NULL));
    STARTED(gist_restore_start(conn, "name", NULL, on_opened, t, NULL));
    STARTED(gist_list_start(conn, GIST_DOCUMENTS, on_row, on_done, t, NULL));
    STARTED(gist_delete_start(conn, GIST_SESSIONS, "name", on_done, t, NULL));
    STARTED(gist_document_add_start(conn, "name", "x", 1, NULL, on_done, t, NULL));
    STARTED(gist_score_text_start(conn, "x", 1, NULL, on_score, t, NULL));
    STARTED(gist_score_tokens_start(conn, ids, 3, NULL, on_score, t, NULL));
    STARTED(gist_score_logits_start(conn, ids, 3, NULL, on_rows, on_done, t, NULL));
    STARTED(gist_tokenize_start(conn, "x", 1, 0, on_tokens, t, NULL));
    STARTED(gist_detokenize_start(conn, ids, 3, on_string, t, NULL));
    STARTED(gist_embed_start(conn, &text, 1, NULL, on_embeddings, t, NULL));
    STARTED(gist_stats_start(conn, on_stats, on_done, t, NULL));
    STARTED(gist_trace_start(conn, 0, on_traces, on_done, t, NULL));
    STARTED(gist_segments_start(conn, 77, 0, on_segments, t, NULL));
    STARTED(gist_cancel_session_start(conn, 77, on_done, t, NULL));
    STARTED(gist_cache_start(conn, GIST_CACHE_STAT, NULL, NULL, on_cache, t, NULL));
}

static void call_session(gist_session *s, struct seen *t)
{
    const struct gist_span text = { "x", 1 };

    STARTED(gist_fork_start(s, "label", on_opened, t, NULL));
    STARTED(gist_rewind_start(s, 2, on_done, t, NULL));
    STARTED(gist_save_start(s, "name", 0, on_done, t, NULL));
    STARTED(gist_score_choices_start(s, &text, 1, 0, on_choices, t, NULL));
    STARTED(gist_append_text_start(s, "x", 1, 0, on_done, t, NULL));
}

static void on_first(void *arg, int err, gist_session *s)
{
    struct seen *t = arg;

    assert_int_equal(err, 0);
    call_conn(t); /* from a callback, where nothing may wait */
    call_session(s, t);
}

static void test_all_without_waiting(void **state)
{
    struct seen t = { 0 };
    int n = N_CALLS;

    (void)state;
    begin(script_all, &n);
    STARTED(gist_open_start(conn, NULL, on_first, &t, NULL));
    wait_for(&t.done, N_CALLS);
    assert_int_equal(t.done, N_CALLS);
    assert_int_equal(t.rows, 4);
    assert_true(t.opened && t.forked && t.restored);
    /* They are sessions like any other. */
    assert_int_equal(gist_append_text(t.restored, "x", 1, 0, NULL), 0);
    gist_close(t.forked);
    assert_int_equal(gist_ping(conn), 0);
    end();
}

static void script_silent(struct fake_daemon *d, void *arg)
{
    (void)arg;
    FAKE_CHECK(!fake_take(d));
}

/* Refused before anything is sent: by the return value alone. */
static void test_bad_arguments(void **state)
{
    struct gist_policy bad = { .size = sizeof(bad), .flags = 0x80 };
    struct seen t = { 0 };

    (void)state;
    begin(script_silent, NULL);
    assert_int_equal(gist_open_start(conn, &bad, on_opened, &t, NULL), -EINVAL);
    assert_int_equal(gist_open_start(conn, NULL, NULL, &t, NULL), -EINVAL);
    assert_int_equal(gist_restore_start(conn, NULL, NULL, on_opened, &t, NULL), -EINVAL);
    assert_int_equal(gist_tokenize_start(conn, "x", 1, 0x80, on_tokens, &t, NULL), -EINVAL);
    assert_int_equal(gist_list_start(conn, GIST_SESSIONS, NULL, on_done, &t, NULL), -EINVAL);
    assert_int_equal(gist_delete_start(conn, GIST_SESSIONS, NULL, on_done, &t, NULL), -EINVAL);
    assert_int_equal(gist_cancel_session_start(conn, 0, on_done, &t, NULL), -EINVAL);
    assert_int_equal(gist_score_logits_start(conn, NULL, 0, NULL, NULL, on_done, &t, NULL),
                     -EINVAL);
    assert_int_equal(t.done, 0);
    end();
}

/* --- what has to wait for room ---------------------------------------------------------------- */

#define N_WAITING 60

/* Reads nothing until a byte comes through the pipe. */
static void script_late(struct fake_daemon *d, void *arg)
{
    char byte, want[32];

    FAKE_CHECK(read(*(const int *)arg, &byte, 1) == 1);
    for (int i = 0; i < N_WAITING; i++) {
        (void)snprintf(want, sizeof(want), "label %d", i);
        fake_expect(d, WIRE_OPEN_SESSION);
        FAKE_CHECK(strcmp(d->req.u.open_session.label, want) == 0);
        FAKE_CHECK(strcmp(d->req.u.open_session.memory.adapter, want) == 0);
        FAKE_CHECK(d->req.u.open_session.memory.has_ratio &&
                   d->req.u.open_session.memory.ratio == 8);
        FAKE_CHECK(d->req.u.open_session.n_documents == 2);
        FAKE_CHECK(strcmp(d->req.u.open_session.documents[1], want) == 0);
        reply_to(d, &d->req);
    }
    fake_drain(d);
}

static void on_waited(void *arg, int err, gist_session *s)
{
    assert_int_equal(err, 0);
    assert_non_null(s);
    ++*(int *)arg;
}

static void test_what_waits_is_copied(void **state)
{
    int fds[2], n = 0;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    begin(script_late, &fds[0]);
    for (int i = 0; i < N_WAITING; i++) {
        char label[32];
        const char *documents[] = { "one", label };
        struct gist_memory memory = { .size = sizeof(memory), .ratio = 8, .adapter = label };
        struct gist_policy p = { .size = sizeof(p),
                                 .label = label,
                                 .memory = &memory,
                                 .documents = documents,
                                 .n_documents = 2 };

        (void)snprintf(label, sizeof(label), "label %d", i);
        STARTED(gist_open_start(conn, &p, on_waited, &n, NULL));
        memset(label, 'x', sizeof(label) - 1); /* it is ours again */
        documents[0] = documents[1] = NULL;
    }
    assert_int_equal(write(fds[1], "x", 1), 1);
    wait_for(&n, N_WAITING);
    end();
    close(fds[0]);
    close(fds[1]);
}

static void script_deaf(struct fake_daemon *d, void *arg)
{
    char byte;

    (void)d;
    FAKE_CHECK(read(*(const int *)arg, &byte, 1) == 1);
}

/* The connection ends while all of them wait: each is told once. */
static void on_lost(void *arg, int err, gist_session *s)
{
    assert_int_equal(err, -EPIPE);
    assert_null(s);
    ++*(int *)arg;
}

static void test_what_waits_is_told(void **state)
{
    int fds[2], n = 0;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    begin(script_deaf, &fds[0]);
    for (int i = 0; i < N_WAITING; i++)
        STARTED(gist_open_start(conn, NULL, on_lost, &n, NULL));
    assert_int_equal(n, 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    end();
    assert_int_equal(n, N_WAITING);
    close(fds[0]);
    close(fds[1]);
}

/* --- long lists of ids ------------------------------------------------------------------------ */

#define N_IDS 200000

static void script_pieces(struct fake_daemon *d, void *arg)
{
    uint64_t at = 0, id;
    bool cancelled = false;

    (void)arg;
    while (at < N_IDS) {
        fake_expect(d, WIRE_SCORE);
        FAKE_CHECK(*(const uint32_t *)(const void *)d->bulk == at);
        at += d->req.bulk_len / 4;
        reply_score(d, d->req.id, false);
    }
    fake_expect(d, WIRE_SCORE);
    id = d->req.id;
    fake_expect(d, WIRE_CANCEL); /* it comes too late for this piece, */
    FAKE_CHECK(d->req.u.cancel.request == id);
    fake_last(d, (struct wire_rep){ .kind = WIRE_CANCELLED });
    reply_score(d, id, false);
    while (fake_take(d)) { /* and there is no other one */
        FAKE_CHECK(d->req.kind == WIRE_PING && !cancelled);
        cancelled = true;
        reply_to(d, &d->req);
    }
    FAKE_CHECK(cancelled);
}

struct scored {
    int done, err;
    size_t n;
    uint32_t prompt_tokens;
};

static void on_scored(void *arg, int err, const struct gist_score *score)
{
    struct scored *s = arg;

    s->done++;
    s->err = err;
    if (score) {
        s->n = score->n;
        s->prompt_tokens = score->usage.prompt_tokens;
    }
}

static void test_long_lists(void **state)
{
    uint32_t *ids = calloc(N_IDS, sizeof(*ids));
    struct scored s = { 0 };
    uint64_t request;

    (void)state;
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = i;
    begin(script_pieces, NULL);
    STARTED(gist_score_tokens_start(conn, ids, N_IDS, NULL, on_scored, &s, &request));
    memset(ids, 0, N_IDS * sizeof(*ids)); /* they are ours again */
    wait_for(&s.done, 1);
    assert_int_equal(s.err, 0);
    assert_true(s.n > 1); /* one of each request */
    assert_int_equal(s.prompt_tokens, 3 * s.n);
    assert_int_equal(gist_cancel(conn, request), -ENOENT);

    STARTED(gist_score_tokens_start(conn, ids, N_IDS, NULL, on_scored, &s, &request));
    assert_int_equal(gist_cancel(conn, request), 0);
    wait_for(&s.done, 2);
    assert_int_equal(s.err, -ECANCELED);
    assert_int_equal(gist_error_code(conn), GIST_E_CANCELLED);
    assert_int_equal(gist_ping(conn), 0);
    end();
    free(ids);
}

/* --- a cut answer ----------------------------------------------------------------------------- */

static void script_cut(struct fake_daemon *d, void *arg)
{
    enum wire_error code = WIRE_E_CANCELLED;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    reply_to(d, &d->req);
    for (int i = 0; i < 4; i++) {
        fake_expect(d, WIRE_GENERATE);
        if (i == 2)
            code = WIRE_E_POOL_FULL;
        fake_last(d, (struct wire_rep){ .kind = WIRE_ERROR,
                                        .u.error = { .code = code,
                                                     .text = "cut",
                                                     .has_usage = i < 3,
                                                     .usage = { .generated_tokens = 21 } } });
    }
    fake_drain(d);
}

struct cut {
    int done, err;
    bool has_result;
    struct gist_result result;
};

static void on_cut(void *arg, int err, const struct gist_result *result)
{
    struct cut *x = arg;

    x->done++;
    x->err = err;
    x->has_result = result != NULL;
    if (result)
        x->result = *result;
}

static void test_a_cut_answer_has_usage(void **state)
{
    struct gist_result result = { .reason = GIST_STOP };
    struct cut x = { 0 };
    gist_session *s;

    (void)state;
    begin(script_cut, NULL);
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    assert_int_equal(gist_generate(s, NULL, NULL, NULL, &result), -ECANCELED);
    assert_int_equal(result.reason, GIST_CANCELLED);
    assert_int_equal(result.usage.generated_tokens, 21);
    STARTED(gist_generate_start(s, NULL, NULL, on_cut, &x, NULL));
    wait_for(&x.done, 1);
    assert_true(x.has_result && x.err == -ECANCELED);
    assert_int_equal(x.result.reason, GIST_CANCELLED);
    assert_int_equal(x.result.usage.generated_tokens, 21);
    STARTED(gist_generate_start(s, NULL, NULL, on_cut, &x, NULL));
    wait_for(&x.done, 2);
    assert_true(x.has_result && x.err == -ENOSPC);
    assert_int_equal(x.result.reason, GIST_CUT);
    STARTED(gist_generate_start(s, NULL, NULL, on_cut, &x, NULL)); /* which had not begun */
    wait_for(&x.done, 3);
    assert_true(!x.has_result && x.err == -ENOSPC);
    end();
}

/* --- names ------------------------------------------------------------------------------------ */

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(gist_reason_name(GIST_END_OF_TEXT), "end_of_text");
    assert_string_equal(gist_reason_name(GIST_STOP), "stop");
    assert_string_equal(gist_reason_name(GIST_LENGTH), "length");
    assert_string_equal(gist_reason_name(GIST_CONTEXT_FULL), "context_full");
    assert_string_equal(gist_reason_name(GIST_POOL_FULL), "pool_full");
    assert_string_equal(gist_reason_name(GIST_CANCELLED), "cancelled");
    assert_string_equal(gist_reason_name(GIST_CUT), "cut");
    assert_null(gist_reason_name((enum gist_reason)(GIST_CUT + 1)));
    assert_string_equal(gist_code_name(GIST_OK), "ok");
    assert_string_equal(gist_code_name(GIST_E_TRANSPORT), "transport");
    assert_string_equal(gist_code_name(GIST_E_CONTEXT_LENGTH_EXCEEDED), "context_length_exceeded");
    assert_string_equal(gist_code_name(GIST_E_STORAGE), "storage");
    assert_null(gist_code_name((enum gist_code)1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_without_waiting),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_what_waits_is_copied),
        cmocka_unit_test(test_what_waits_is_told),
        cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_a_cut_answer_has_usage),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
