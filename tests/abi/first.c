/* tests/abi/first.c - a program that was compiled before structs had sizes (tests/abi/gist.h), with
 * the shared library of today and a real daemon: tests/test_abi.sh runs it.
 *
 *     abi_first SOCKET
 *
 * Behind each struct that the library fills stand bytes that must stay as they are.
 */
#include <gist.h>

#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNTOUCHED 0xa5
#define GUARDED(type)                                                                              \
    struct {                                                                                       \
        struct type at;                                                                            \
        unsigned char behind[512];                                                                 \
    }

#define CHECK(cond)                                                                                \
    ((cond) ? (void)0 : errx(1, "line %d: %s: %s", __LINE__, #cond, gist_error(conn)))

static gist_conn *conn;

static void begin(void *guarded, size_t len)
{
    memset(guarded, UNTOUCHED, len);
}
#define BEGIN(x) begin(&(x), sizeof(x))

static void intact(const unsigned char *behind, size_t len, int line)
{
    for (size_t i = 0; i < len; i++)
        if (behind[i] != UNTOUCHED)
            errx(1, "line %d: byte %zu behind the struct was written", line, i);
}
#define INTACT(x) intact((x).behind, sizeof((x).behind), __LINE__)

static gist_session *open_one(const char *label)
{
    const struct gist_policy policy = { .size = sizeof(policy), .segment = 64, .label = label };
    uint32_t ids[140];
    GUARDED(gist_usage) usage;
    gist_session *s;

    for (uint32_t i = 0; i < 140; i++)
        ids[i] = 40 + i;
    CHECK(gist_open(conn, &policy, &s) == 0);
    BEGIN(usage);
    CHECK(gist_append_tokens(s, ids, 140, &usage.at) == 0);
    CHECK(usage.at.prompt_tokens == 140 && usage.at.accepted_tokens == 0);
    INTACT(usage);
    BEGIN(usage);
    gist_session_usage(s, &usage.at);
    CHECK(usage.at.prompt_tokens == 0);
    INTACT(usage);
    return s;
}

#define DONE ((size_t)1 << 30) /* more than there are ids in an answer */

static int refuse(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)text;
    (void)len;
    (void)ids;
    *(size_t *)arg += n_ids;
    return 1;
}

static void on_done(void *arg, int e, const struct gist_result *result)
{
    if (e != -ECANCELED || result)
        errx(1, "a cancelled answer: error %d, %s result", e, result ? "a" : "no");
    *(size_t *)arg += DONE;
}

/* A program of that time takes a result for success: there is none for a cancelled answer. */
static void cancels(gist_session *s)
{
    const struct gist_sampling long_one = { .size = sizeof(long_one), .ignore_eog = 1 };
    size_t n = 0, done = 0;
    int e;

    CHECK(gist_generate(s, &long_one, refuse, &n, NULL) == -ECANCELED && n > 0);
    CHECK(gist_generate_start(s, &long_one, refuse, on_done, &done, NULL) == 0);
    e = gist_cancel_session(conn, gist_session_id(s));
    CHECK(e == 0 || e == -ENOENT); /* it may have been refused and ended before */
    while (done < DONE)
        CHECK(gist_ping(conn) == 0);
}

static void answers(gist_session *s)
{
    const struct gist_sampling four = { .size = sizeof(four), .max_tokens = 4, .ignore_eog = 1 };
    struct {
        struct gist_result at[2];
        unsigned char behind[512];
    } results;
    GUARDED(gist_result) result;
    GUARDED(gist_score) score;

    BEGIN(result);
    CHECK(gist_generate(s, &four, NULL, NULL, &result.at) == 0);
    CHECK(result.at.reason == GIST_LENGTH && result.at.usage.generated_tokens == 4);
    INTACT(result);
    BEGIN(results);
    CHECK(gist_generate_several(s, &four, 2, NULL, NULL, results.at) == 0);
    CHECK(results.at[0].usage.generated_tokens == 4 && results.at[1].usage.generated_tokens == 4);
    INTACT(results);
    BEGIN(score);
    CHECK(gist_score_text(conn, "some text", 9, NULL, &score.at) == 0);
    CHECK(score.at.n > 1 && score.at.usage.computed_tokens == score.at.n);
    INTACT(score);
    free(score.at.ids);
    free(score.at.logprobs);
}

static void stats(gist_session *one, gist_session *two)
{
    GUARDED(gist_stats) st;
    int found = 0;

    BEGIN(st);
    CHECK(gist_stats(conn, &st.at) == 0);
    INTACT(st);
    CHECK(st.at.n_sessions == 2 && st.at.n_clients == 1 && st.at.n_owners == 1);
    for (int i = 0; i < 2; i++) {
        if (st.at.sessions[i].id == gist_session_id(one))
            found |= strcmp(st.at.sessions[i].label, "one") == 0;
        if (st.at.sessions[i].id == gist_session_id(two))
            found |= (strcmp(st.at.sessions[i].label, "two") == 0) << 1;
    }
    CHECK(found == 3);
    CHECK(strcmp(st.at.clients[0].name, "first") == 0);
    CHECK(st.at.owners[0].uid == getuid() && st.at.owners[0].sessions == 2);
    CHECK(st.at.requests_waiting == 0 && st.at.pages > 0);
}

static void on_rows(void *arg, const struct gist_trace_row *rows, size_t n)
{
    CHECK(n >= 4);
    for (size_t i = 0; i < n; i++)
        CHECK(rows[i].total_ns > 0 && strcmp(rows[i].client, "first") == 0 &&
              (i == 0 || rows[i].number < rows[i - 1].number));
    *(size_t *)arg = n;
}

static void rows(gist_session *s)
{
    GUARDED(gist_segments) map;
    GUARDED(gist_cache_sum) sum;
    size_t n = 0;

    CHECK(gist_trace(conn, 0, on_rows, &n) == 0 && n > 0);
    BEGIN(map);
    CHECK(gist_segments(conn, gist_session_id(s), 0, &map.at) == 0);
    INTACT(map);
    CHECK(map.at.n >= 3 && map.at.segment == 64);
    CHECK(map.at.at[0].n_tokens == 64 && map.at.at[1].n_tokens == 64);
    CHECK(map.at.at[1].state == GIST_SEGMENT_RAW);
    BEGIN(sum);
    CHECK(gist_cache(conn, GIST_CACHE_STAT, NULL, NULL, NULL, &sum.at) == 0);
    INTACT(sum);
    CHECK(sum.at.bad_records == 0);
}

int main(int argc, char **argv)
{
    GUARDED(gist_info) info;
    gist_session *one, *two;

    if (argc != 2)
        errx(2, "usage: abi_first SOCKET");
    if (gist_connect(argv[1], "first", &conn) < 0)
        errx(1, "%s", gist_error(NULL));
    BEGIN(info);
    gist_info(conn, &info.at);
    INTACT(info);
    CHECK(info.at.n_vocab > 0 && strlen(info.at.version) > 0);
    one = open_one("one");
    two = open_one("two");
    answers(one);
    cancels(two);
    stats(one, two);
    rows(one);
    gist_disconnect(conn);
    return 0;
}
