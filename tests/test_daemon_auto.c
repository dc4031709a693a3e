/* tests/test_daemon_auto.c - automatic memory, in the real daemon. Would catch: a text that fits
 * and is compressed all the same; one that does not fit and is refused; the end of a text, where
 * the question stands, that is compressed; ratios in the usage that do not add up; pages that are
 * short although less would do; a limit that does not say what would help; reading that does not
 * say how far it is, or how much is kept when it is cancelled, or that begins from nothing again.
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WINDOW 1024u /* of the tiny model */
#define TAIL   128u  /* a segment, which is an eighth of it */
#define PAGE   16u
#define BYTE_0 3u /* the model's id of byte 0 */
#define LONG   (SANITIZED ? 5000u : 10000u)
#define MOST   14000u
#define ANSWER 40u

static const char *const no_store[] = { "--store", "none", "--host-bytes", "none", NULL };
static uint32_t ids[MOST];
static struct daemon_fixture d;

static void fill(unsigned seed)
{
    for (size_t i = 0; i < MOST; i++)
        ids[i] = BYTE_0 + 32 + (uint32_t)rand_r(&seed) % 90;
}

static gist_session *open_by(gist_conn *c, const struct gist_policy *p)
{
    gist_session *s;

    if (gist_open(c, p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

static gist_session *open_with(gist_conn *c, unsigned flags, const struct gist_memory *memory)
{
    return open_by(c, &(struct gist_policy){
                          .size = sizeof(struct gist_policy), .flags = flags, .memory = memory });
}

static void read_all(gist_conn *c, gist_session *s, uint32_t n, struct gist_usage *ret)
{
    if (gist_append_tokens(s, ids, n, ret) < 0)
        fail_msg("%u tokens: %s", n, gist_error(c));
    assert_int_equal(ret->prompt_tokens, n);
    assert_int_equal(ret->raw_tokens + ret->gist_tokens, n);
    assert_int_equal(ret->computed_tokens + ret->shared_tokens + ret->restored_tokens, n);
}

struct answer {
    uint32_t ids[ANSWER], n;
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *some, size_t n)
{
    struct answer *a = arg;

    (void)text;
    (void)len;
    assert_true(a->n + n <= ANSWER);
    for (size_t i = 0; i < n; i++)
        a->ids[a->n++] = some[i];
    return 0;
}

static void answer(gist_session *s, struct answer *ret)
{
    struct gist_sampling p = { .size = sizeof(p), .max_tokens = ANSWER, .ignore_eog = 1 };
    struct gist_result result;

    ret->n = 0;
    assert_int_equal(gist_generate(s, &p, on_text, ret, &result), 0);
    assert_int_equal(ret->n, ANSWER);
}

/* --- how much is kept ------------------------------------------------------------------------- */

static void what_fits_stays(void **state)
{
    gist_conn *c;
    struct gist_usage u;
    struct answer full, automatic;
    gist_session *s;

    (void)state;
    fill(1);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, no_store);
    c = daemon_fixture_connect(&d);
    s = open_with(c, 0, NULL);
    read_all(c, s, WINDOW - ANSWER, &u);
    answer(s, &full);
    gist_close(s);
    s = open_with(c, GIST_AUTO, NULL);
    read_all(c, s, WINDOW - ANSWER, &u);
    assert_int_equal(u.gist_tokens, 0);
    answer(s, &automatic);
    assert_memory_equal(full.ids, automatic.ids, sizeof(full.ids));
    /* And where the window ends the answer does not. */
    answer(s, &automatic);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void texts_of_any_length(void **state)
{
    static const uint32_t lens[] = { WINDOW, WINDOW + 1, 2047, 2048, 2049, LONG };
    gist_conn *c;
    struct gist_usage u;
    struct answer a;

    (void)state;
    fill(2);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, no_store);
    c = daemon_fixture_connect(&d);
    for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
        gist_session *s = open_with(c, GIST_AUTO, NULL);
        uint32_t sum = 0;

        read_all(c, s, lens[i], &u);
        for (int k = 0; k < GIST_RATIOS; k++)
            sum += u.at_ratio[k];
        assert_int_equal(sum, u.gist_tokens);
        assert_true(u.gist_tokens == 0 || (u.ratio == 4 && u.gists > 0));
        /* The question is at the end, in whichever append. */
        assert_true(u.raw_tokens >= TAIL);
        assert_true(u.raw_tokens + u.gists <= WINDOW);
        answer(s, &a);
        gist_close(s);
    }
    assert_true(u.at_ratio[0] > 0 && u.at_ratio[1] > 0 && u.at_ratio[2] > 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* A limit is a mistake to be told with what would help; what is said is still meant. */
static void what_is_said_is_meant(void **state)
{
    struct gist_memory m = { .size = sizeof(m), .flags = GIST_AUTO, .budget = 256 };
    gist_conn *c;
    struct gist_usage u;
    gist_session *s;

    (void)state;
    fill(3);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, no_store);
    c = daemon_fixture_connect(&d);
    s = open_with(c, 0, NULL);
    assert_int_equal(gist_append_tokens(s, ids, WINDOW + 1, &u), -E2BIG);
    assert_non_null(strstr(gist_error(c), "1024"));
    assert_non_null(strstr(gist_error(c), "GIST_AUTO"));
    gist_close(s);

    s = open_with(c, 0, &m);
    read_all(c, s, 1200, &u);
    assert_true(u.raw_tokens + u.gists <= 256 && u.raw_tokens >= 16);
    gist_close(s);
    s = open_with(c, 0, &m);
    assert_int_equal(gist_append_tokens(s, ids, MOST, &u), -E2BIG);
    assert_non_null(strstr(gist_error(c), "--budget"));
    gist_close(s);

    m.budget = 0;
    m.compressor = GIST_FINE_KV;
    m.ratio = 8;
    s = open_with(c, 0, &m);
    read_all(c, s, 2000, &u);
    assert_int_equal(u.ratio, 8);
    assert_true(u.at_ratio[0] > 0 && u.raw_tokens > TAIL);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* A question at the end of a plain text is compressed with it, since it is not known to be one:
 * before it is answered it is raw again, and stays so. One that comes alone is raw all the time. */
static void a_question_is_raw(void **state)
{
    const struct gist_memory m = {
        .size = sizeof(m), .flags = GIST_AUTO | GIST_SET_HYDRATE, .keep_tail = 16, .budget = 256
    };
    const uint32_t segment = 64, n_asked = 60, n = 18 * segment + 40;
    gist_conn *c;
    struct gist_sampling few = { .size = sizeof(few), .max_tokens = 8, .ignore_eog = 1 };
    struct gist_result r;
    struct gist_usage u;
    gist_session *s;

    (void)state;
    fill(6);
    for (uint32_t i = n - n_asked; i < n; i += 5)
        ids[i] = BYTE_0 + ' ';
    ids[n - n_asked - 2] = ids[n - n_asked - 1] = BYTE_0 + '\n';
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, no_store);
    c = daemon_fixture_connect(&d);
    s = open_with(c, 0, &m);
    read_all(c, s, n, &u);
    assert_in_range(u.raw_tokens, 40, 40 + 4); /* sinks */
    assert_int_equal(gist_generate(s, &few, NULL, NULL, &r), 0);
    assert_true(r.usage.raw_tokens >= n_asked);
    gist_close(s);

    s = open_with(c, 0, &m);
    read_all(c, s, n - n_asked, &u);
    assert_int_equal(gist_append_tokens(s, ids + n - n_asked, n_asked, &u), 0);
    assert_true(u.raw_tokens >= n_asked);
    few.max_tokens = 2 * segment;
    assert_int_equal(gist_generate(s, &few, NULL, NULL, &r), 0);
    assert_int_equal(gist_append_tokens(s, ids, segment + 1, &u), 0); /* it asks nothing */
    assert_true(u.raw_tokens < n_asked + segment + 2 * segment);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static uint32_t page_bytes(void)
{
    struct gist_stats st;
    gist_conn *c;
    uint32_t n;

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, no_store);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_stats(c, &st), 0);
    n = st.page_bytes;
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    return n;
}

/* For which no idle interactive session of its user gives way. */
static gist_session *open_background(gist_conn *c, unsigned flags)
{
    return open_by(c, &(struct gist_policy){ .size = sizeof(struct gist_policy),
                                             .priority = GIST_BACKGROUND,
                                             .flags = flags });
}

/* Other sessions have most of the pages, or this client may have no more. */
static void with_few_pages(void **state)
{
    char bytes[24];
    const char *args[] = { "--store", "none", "--client-kv-bytes", bytes, NULL };
    const uint32_t held = 20 * PAGE;
    struct gist_usage u;
    struct answer a;
    gist_session *s, *other;
    gist_conn *c;

    (void)state;
    fill(4);
    (void)snprintf(bytes, sizeof(bytes), "%lu", 60ul * page_bytes());
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    other = open_with(c, 0, NULL);
    read_all(c, other, held, &u);
    s = open_background(c, 0);
    assert_int_equal(gist_append_tokens(s, ids + 7, 700, &u), -EDQUOT);
    gist_close(s);

    s = open_background(c, GIST_AUTO);
    assert_int_equal(gist_append_tokens(s, ids + 7, 700, &u), 0);
    assert_true(u.gist_tokens > 0 && u.raw_tokens + u.gists < 40 * PAGE);
    answer(s, &a);
    gist_close(s);
    /* One that is there already, too: what it held is compressed when more comes. */
    s = open_background(c, GIST_AUTO);
    assert_int_equal(gist_append_tokens(s, ids + 7, 200, &u), 0);
    assert_int_equal(u.gist_tokens, 0);
    assert_int_equal(gist_append_tokens(s, ids + 207, 700, &u), 0);
    assert_true(u.gist_tokens > 0);
    answer(s, &a);
    assert_int_equal(gist_rewind(s, 300), 0);
    assert_int_equal(gist_append_tokens(s, ids, 400, &u), 0);
    gist_close(s);
    gist_close(other);
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- how far it is ---------------------------------------------------------------------------- */

struct heard {
    gist_conn *c;
    uint32_t n_calls, first, last, n_tokens, cancel_at;
};

static void on_progress(void *arg, uint32_t n_read, uint32_t n_tokens)
{
    struct heard *h = arg;

    if (h->n_calls++ == 0)
        h->first = n_read;
    assert_true(n_read >= h->last && n_read <= n_tokens);
    assert_true(h->n_tokens == 0 || h->n_tokens == n_tokens);
    h->last = n_read;
    h->n_tokens = n_tokens;
    if (h->cancel_at && n_read >= h->cancel_at)
        gist_cancel_async(h->c);
}

/* Ctrl-C in the middle of a book, and once more: it is not read from the beginning again. */
static void cancelled_and_again(gist_conn *c, const struct gist_memory *memory, uint32_t n)
{
    struct heard h = { .c = c, .cancel_at = n / 2 };
    gist_session *s = open_with(c, 0, memory);
    unsigned read, all, kept;
    struct gist_usage u;

    gist_on_progress(s, on_progress, &h);
    assert_int_equal(gist_append_tokens(s, ids, n, &u), -ECANCELED);
    assert_true(h.n_calls > 2);
    assert_int_equal(h.first, 0);
    assert_int_equal(h.n_tokens, n);
    assert_true(h.last >= n / 2 && h.last < n);
    if (sscanf(gist_error(c), "cancelled: %u of %u tokens were read; %u are kept", &read, &all,
               &kept) != 3)
        fail_msg("%s", gist_error(c));
    assert_true(all == n && read >= h.last && read < n && kept > 0 && kept <= read);
    gist_close(s);

    h = (struct heard){ .c = c };
    s = open_with(c, 0, memory);
    gist_on_progress(s, on_progress, &h);
    read_all(c, s, n, &u);
    assert_true(u.shared_tokens + u.restored_tokens >= kept);
    assert_int_equal(h.first, u.shared_tokens + u.restored_tokens);
    assert_true(h.last > h.first);
    h = (struct heard){ .c = c };
    gist_on_progress(s, NULL, NULL);
    assert_int_equal(gist_append_tokens(s, ids, 50, &u), 0);
    assert_int_equal(h.n_calls, 0);
    gist_close(s);
}

static void says_how_far_it_is(void **state)
{
    static const char *const args[] = { "--cpu", "scalar", "--store-restore", "always", NULL };
    const struct gist_memory whole = { .size = sizeof(whole), .flags = GIST_AUTO };
    const struct gist_memory packed = { .size = sizeof(packed), .flags = GIST_AUTO, .budget = 256 };
    gist_conn *c;

    (void)state;
    fill(5);
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, args);
    c = daemon_fixture_connect(&d);
    cancelled_and_again(c, &whole, 200);
    cancelled_and_again(c, &packed, 480);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    assert_int_equal(err, 0);
    *(struct gist_usage *)arg = result->usage;
}

/* Two who read the same at once: the one who waits hears how far the other is. */
static void so_does_who_waits(void **state)
{
    static const char *const args[] = { "--cpu", "scalar", "--store", "none", NULL };
    struct gist_usage u[2] = { { .prompt_tokens = 0 }, { .prompt_tokens = 0 } };
    struct heard h[2] = { { .n_calls = 0 }, { .n_calls = 0 } };
    gist_session *s[2];
    char text[300];
    gist_conn *c;

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i * i % 26);
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, args);
    c = daemon_fixture_connect(&d);
    for (int i = 0; i < 2; i++) {
        s[i] = open_with(c, GIST_AUTO, NULL);
        gist_on_progress(s[i], on_progress, &h[i]);
        assert_int_equal(gist_append_text_start(s[i], text, sizeof(text), 0, on_done, &u[i], NULL),
                         0);
    }
    while (u[0].prompt_tokens == 0 || u[1].prompt_tokens == 0) {
        struct pollfd p = { .fd = gist_fd(c), .events = POLLIN };

        assert_int_equal(poll(&p, 1, DAEMON_FIXTURE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(c) >= 0);
    }
    assert_true(u[0].shared_tokens == 0 && u[1].shared_tokens > 200);
    assert_true(h[0].n_calls > 2 && h[1].n_calls > 2);
    assert_true(h[1].first < u[1].shared_tokens && h[1].n_tokens == u[1].prompt_tokens);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_stays),       cmocka_unit_test(texts_of_any_length),
        cmocka_unit_test(what_is_said_is_meant), cmocka_unit_test(with_few_pages),
        cmocka_unit_test(a_question_is_raw),     cmocka_unit_test(says_how_far_it_is),
        cmocka_unit_test(so_does_who_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
