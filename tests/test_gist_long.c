/* tests/test_gist_long.c - texts and tables longer than a ring's arena. Would catch: libgist that
 * cuts in the wrong place, loses or repeats a part, goes on behind one that was refused, or needs
 * the caller's text after the call.
 */
#include "tests/support/fake_client.h"
#include "tests/support/hostile.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- long texts ------------------------------------------------------------------------------- */

#define LONG_LEN (1536u * 1024) /* six arenas */

/* Any bytes, but none is zero. */
static char *make_long_text(void)
{
    char *text = malloc(LONG_LEN + 1);
    uint64_t seed = 3;

    for (size_t i = 0; i < LONG_LEN; i++)
        text[i] = (char)(hostile_random(&seed) % 255 + 1);
    text[LONG_LEN] = '\0';
    return text;
}

/* A part's answer that says nothing. */
static void answer_part(struct fake_daemon *d)
{
    if (d->req.kind == WIRE_SCORE)
        fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    else if (d->req.kind == WIRE_DETOKENIZE)
        fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text.text = "" });
    else
        fake_answer(d);
}

static bool has_more(const struct wire_req *m)
{
    return m->kind == WIRE_APPEND     ? m->u.append.more
           : m->kind == WIRE_SCORE    ? m->u.score.more
           : m->kind == WIRE_TOKENIZE ? m->u.tokenize.more
                                      : m->u.detokenize.more;
}

/* The long text, or its first len bytes, as the bulk of a request in parts; the last is not
 * answered. */
static void take_long(struct fake_daemon *d, enum wire_req_kind kind, size_t len)
{
    char *want = make_long_text();
    uint64_t at = 0, last_id = 0;

    for (bool more = true; more;) {
        fake_expect(d, kind);
        more = has_more(&d->req);
        FAKE_CHECK(d->req.id > last_id); /* each part is a request of its own */
        last_id = d->req.id;
        FAKE_CHECK(d->req.bulk_len <= CHAN_ARENA_MIN / 4 && at + d->req.bulk_len <= len);
        FAKE_CHECK(memcmp(d->bulk, want + at, d->req.bulk_len) == 0);
        at += d->req.bulk_len;
        if (more)
            answer_part(d);
    }
    FAKE_CHECK(at == len);
    free(want);
}

static void script_long(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_answer(d);
    take_long(d, WIRE_APPEND, LONG_LEN);
    fake_answer(d);
    fake_drain(d);
}

static void test_long_text(void **state)
{
    char *text = make_long_text();

    (void)state;
    fake_begin(script_long, NULL);
    assert_int_equal(gist_append_text(fake_open(), text, LONG_LEN, 0, NULL), 0);
    fake_end();
    free(text);
}

/* The caller's text is gone as soon as the call returned. */
static void test_long_text_without_waiting(void **state)
{
    char *text = make_long_text();
    struct fake_heard h = { 0 };
    uint64_t id = 0;

    (void)state;
    fake_begin(script_long, NULL);
    assert_int_equal(gist_append_text_start(fake_open(), text, LONG_LEN, 0, fake_on_done, &h, &id),
                     0);
    memset(text, 0, LONG_LEN);
    free(text);
    assert_true(id != 0);
    while (!h.done) {
        struct pollfd p = { gist_fd(fake_conn), POLLIN, 0 };

        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(fake_conn) >= 0);
    }
    assert_int_equal(h.err, 0);
    fake_end();
}

static void script_refuse_second_part(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_answer(d);
    fake_expect(d, WIRE_APPEND);
    fake_answer(d);
    fake_expect(d, WIRE_APPEND);
    fake_error(d, WIRE_E_LIMIT, "too long");
    fake_expect(d, WIRE_PING); /* no third part */
    fake_answer(d);
    fake_drain(d);
}

static void test_a_part_is_refused(void **state)
{
    char *text = make_long_text();

    (void)state;
    fake_begin(script_refuse_second_part, NULL);
    assert_int_equal(gist_append_text(fake_open(), text, LONG_LEN, 0, NULL), -EDQUOT);
    assert_string_equal(gist_error(fake_conn), "too long");
    assert_int_equal(gist_ping(fake_conn), 0);
    fake_end();
    free(text);
}

static void script_long_ids(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_answer(d);
    take_long(d, WIRE_APPEND, LONG_LEN);
    FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_TOKENS);
    fake_answer(d);
    take_long(d, WIRE_SCORE, LONG_LEN);
    FAKE_CHECK(d->req.u.score.kind == WIRE_SCORE_TOKENS);
    fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    take_long(d, WIRE_DETOKENIZE, LONG_LEN);
    fake_text(d, 0, "long ");
    fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text.text = "text" });
    fake_drain(d);
}

/* Ids, scored in one window so that they can't be cut before they are sent. */
static void test_long_ids(void **state)
{
    struct gist_score_opts opts = { .size = sizeof(opts), .window = LONG_LEN };
    char *bytes = make_long_text(), *text;
    const uint32_t *ids = (const uint32_t *)(const void *)bytes;
    struct gist_score score;
    size_t len;

    (void)state;
    fake_begin(script_long_ids, NULL);
    assert_int_equal(gist_append_tokens(fake_open(), ids, LONG_LEN / 4, NULL), 0);
    assert_int_equal(gist_score_tokens(fake_conn, ids, LONG_LEN / 4, &opts, &score), 0);
    assert_int_equal(score.n, 0);
    free(score.ids);
    free(score.logprobs);
    assert_int_equal(gist_detokenize(fake_conn, ids, LONG_LEN / 4, &text, &len), 0);
    assert_string_equal(text, "long text");
    free(text);
    fake_end();
    free(bytes);
}

static void script_long_messages(struct fake_daemon *d, void *arg)
{
    const struct wire_chat_message *m;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_answer(d);
    take_long(d, WIRE_APPEND, LONG_LEN);
    FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_CHAT && d->req.u.append.n_messages == 2);
    m = d->req.u.append.messages;
    FAKE_CHECK(strcmp(m[0].role, "system") == 0 && m[0].text_len == 700000);
    FAKE_CHECK(strcmp(m[1].role, "user") == 0 && m[1].text_len == LONG_LEN - 700000);
    FAKE_CHECK(d->req.u.append.open_answer);
    fake_answer(d);
    fake_drain(d);
}

static void test_long_messages(void **state)
{
    char *text = make_long_text(), *head = strndup(text, 700000);
    const struct gist_message msgs[] = { { "system", head }, { "user", text + 700000 } };

    (void)state;
    fake_begin(script_long_messages, NULL);
    assert_int_equal(gist_append_chat(fake_open(), msgs, 2, GIST_OPEN_ANSWER, NULL), 0);
    fake_end();
    free(head);
    free(text);
}

/* What stands beside the bulk must fit into one frame. */
static void test_large_frame(void **state)
{
    static struct gist_message msgs[1000];
    char role[200];

    (void)state;
    memset(role, 'r', sizeof(role) - 1);
    role[sizeof(role) - 1] = '\0';
    for (size_t i = 0; i < 1000; i++)
        msgs[i] = (struct gist_message){ role, "text" };
    fake_begin(fake_plain, NULL);
    assert_int_equal(gist_append_chat(fake_open(), msgs, 1000, 0, NULL), -EMSGSIZE);
    assert_non_null(strstr(gist_error(fake_conn), "65536 bytes besides its text"));
    assert_int_equal(gist_ping(fake_conn), 0);
    fake_end();
}

/* --- without a session ------------------------------------------------------------------------ */

static void reply_rows(struct fake_daemon *d, uint32_t first, uint32_t n)
{
    uint32_t bulk[64];
    float p[32];

    for (uint32_t i = 0; i < n; i++) {
        bulk[i] = 100 + first + i;
        p[i] = first + i == 0 ? NAN : -(float)(first + i);
    }
    memcpy(bulk + n, p, n * 4);
    fake_reply(d, (struct wire_rep){ .kind = WIRE_SCORE_ROWS, .u.score_rows = { first, n, 0 } },
               bulk, n * 8);
}

static void script_score(struct fake_daemon *d, void *arg)
{
    uint64_t at = 0;

    (void)arg;
    take_long(d, WIRE_SCORE, LONG_LEN);
    FAKE_CHECK(d->req.u.score.kind == WIRE_SCORE_TEXT && d->req.u.score.window == 100);
    reply_rows(d, 0, 5);
    reply_rows(d, 5, 2);
    fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    while (at < 40000) { /* ids, cut between windows of 1000 */
        fake_expect(d, WIRE_SCORE);
        FAKE_CHECK(d->req.u.score.kind == WIRE_SCORE_TOKENS);
        FAKE_CHECK(d->req.bulk_len % 4000 == 0 && d->req.bulk_len <= CHAN_ARENA_MIN / 4);
        FAKE_CHECK(*(const uint32_t *)(const void *)d->bulk == at);
        at += d->req.bulk_len / 4;
        reply_rows(d, 0, 3);
        fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    }
    fake_expect(d, WIRE_SCORE);
    FAKE_CHECK(d->req.u.score.want == WIRE_SCORE_LOGITS && d->req.bulk_len == 12);
    for (uint32_t i = 0; i < 3; i++) {
        float row[1000];

        for (int k = 0; k < 1000; k++)
            row[k] = (float)i + (float)k / 1024;
        fake_reply(d, (struct wire_rep){ .kind = WIRE_SCORE_ROWS, .u.score_rows = { i, 1, 1000 } },
                   row, sizeof(row));
    }
    fake_done(d, 0, WIRE_REASON_END_OF_TEXT);
    fake_drain(d);
}

static int on_rows(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows)
{
    size_t *seen = arg;

    assert_int_equal(first, *seen);
    assert_int_equal(n_vocab, 1000);
    assert_true(rows[999] == (float)first + 999.0f / 1024);
    *seen += n;
    return 0;
}

static void test_scores(void **state)
{
    struct gist_score_opts opts = { .size = sizeof(opts), .window = 100 };
    char *text = make_long_text();
    uint32_t *ids = calloc(40000, sizeof(*ids));
    struct gist_score score;
    size_t seen = 0;

    (void)state;
    fake_begin(script_score, NULL);
    assert_int_equal(gist_score_text(fake_conn, text, LONG_LEN, &opts, &score), 0);
    assert_int_equal(score.n, 7);
    assert_int_equal(score.ids[6], 106);
    assert_true(isnan(score.logprobs[0]) && score.logprobs[6] == -6.0f);
    assert_int_equal(score.usage.prompt_tokens, 3);
    free(score.ids);
    free(score.logprobs);

    for (uint32_t i = 0; i < 40000; i++)
        ids[i] = i;
    opts.window = 1000;
    assert_int_equal(gist_score_tokens(fake_conn, ids, 40000, &opts, &score), 0);
    assert_int_equal(score.n, 3 * 3); /* three requests */
    assert_int_equal(score.usage.prompt_tokens, 3 * 3);
    free(score.ids);
    free(score.logprobs);

    assert_int_equal(gist_score_logits(fake_conn, ids, 3, NULL, on_rows, &seen), 0);
    assert_int_equal(seen, 3);
    fake_end();
    free(text);
    free(ids);
}

static void script_tokens(struct fake_daemon *d, void *arg)
{
    static const uint32_t ids[] = { 5, 6, 7, 8 };

    (void)arg;
    fake_expect(d, WIRE_TOKENIZE);
    FAKE_CHECK(d->req.u.tokenize.special && memcmp(d->bulk, "text", 4) == 0);
    fake_reply(d, (struct wire_rep){ .kind = WIRE_TOKENS, .u.tokens.n = 3 }, ids, 12);
    fake_reply(d, (struct wire_rep){ .kind = WIRE_TOKENS, .last = true, .u.tokens.n = 1 }, ids + 3,
               4);
    fake_expect(d, WIRE_TOKENIZE);
    fake_last(d, (struct wire_rep){ .kind = WIRE_TOKENS });
    fake_expect(d, WIRE_DETOKENIZE);
    FAKE_CHECK(d->req.bulk_len == 16 && memcmp(d->bulk, ids, 16) == 0);
    fake_text(d, 0, "some ");
    fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text.text = "text" });
    fake_drain(d);
}

static void test_tokens(void **state)
{
    uint32_t *ids = NULL;
    size_t n = 0, len;
    char *text;

    (void)state;
    fake_begin(script_tokens, NULL);
    assert_int_equal(gist_tokenize(fake_conn, "text", 4, GIST_SPECIAL, &ids, &n), 0);
    assert_int_equal(n, 4);
    assert_int_equal(ids[3], 8);
    free(ids);
    assert_int_equal(gist_tokenize(fake_conn, "", 0, 0, &ids, &n), 0);
    assert_int_equal(n, 0);
    free(ids);
    assert_int_equal(gist_detokenize(fake_conn, (uint32_t[]){ 5, 6, 7, 8 }, 4, &text, &len), 0);
    assert_int_equal(len, 9);
    assert_string_equal(text, "some text");
    free(text);
    fake_end();
}

static void script_stats(struct fake_daemon *d, void *arg)
{
    static struct wire_stats_session sessions[500];
    static const struct wire_stats_client clients[] = { { 1, 10, 1000, "one", 2, 3, "" } };
    static const struct wire_stats_owner owners[] = {
        { 1000, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15 }, { .uid = 9, .gist_pages = 5 }
    };
    struct wire_stats st = { .version = "v",
                             .model = "m",
                             .cpu = "avx2",
                             .pages = 100,
                             .pages_free = 7,
                             .client = clients,
                             .n_client = 1,
                             .session = sessions,
                             .n_session = 500,
                             .owner = owners,
                             .n_owner = 2 };

    (void)arg;
    for (uint32_t i = 0; i < 500; i++)
        sessions[i] = (struct wire_stats_session){ .id = i,
                                                   .client = 1,
                                                   .label = "a session with a label",
                                                   .n_tokens = 5,
                                                   .pages = 6,
                                                   .segment = 7,
                                                   .busy = i & 1,
                                                   .gist_pages = 2 };
    fake_expect(d, WIRE_GET_STATS);
    fake_last(d, (struct wire_rep){ .kind = WIRE_STATS, .u.stats = st });
    fake_drain(d);
}

static void test_stats(void **state)
{
    struct gist_stats st;

    (void)state;
    fake_begin(script_stats, NULL);
    assert_int_equal(gist_stats(fake_conn, &st), 0);
    assert_string_equal(st.cpu, "avx2");
    assert_string_equal(st.model_digest, "");
    assert_int_equal(st.pages_free, 7);
    assert_int_equal(st.n_clients, 1);
    assert_string_equal(st.clients[0].name, "one");
    assert_int_equal(st.n_sessions, 500);
    assert_int_equal(st.sessions[499].id, 499);
    assert_int_equal(st.sessions[499].busy, 1);
    assert_int_equal(st.sessions[499].gist_pages, 2);
    assert_int_equal(st.n_owners, 2);
    assert_true(st.owners[0].held_pages == 7 && st.owners[0].store_bytes_max == 15);
    assert_int_equal(st.owners[1].uid, 9);
    assert_int_equal(st.owners[1].gist_pages, 5);
    assert_string_equal(st.sessions[499].label, "a session with a label");
    fake_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_long_text_without_waiting),
        cmocka_unit_test(test_a_part_is_refused),
        cmocka_unit_test(test_long_ids),
        cmocka_unit_test(test_long_messages),
        cmocka_unit_test(test_large_frame),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_stats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
