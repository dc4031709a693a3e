/* tests/test_rank.c - which segments a prompt points to. Would catch: a name that is not found
 * because it stands behind a space or in capitals; common words that weigh as much as rare ones;
 * words in a row that count no more than the same words apart; special tokens that are taken for
 * words; an answer behind a segment's end that is not thought of; a text that is ranked in slices
 * and comes out otherwise, or a slice that is longer than it was to be.
 */
#include "daemon/rank.h"
#include "engine/file/gguf.h"
#include "tests/support/encoded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define L 64u
#define N 8u

static struct vocab *vocab;
static struct rank_words *words;
static uint32_t text[N * L];
static float score[N];

static uint32_t encode(const char *s, bool special, uint32_t *ret)
{
    int n = encoded_ids(vocab, s, special, ret, 256);

    assert_true(n >= 0);
    return (uint32_t)n;
}

/* Filler of common words, and what is put into it. */
static void fresh_text(void)
{
    uint32_t ids[256], n = encode(" the of and in to a is that it", false, ids);

    for (uint32_t i = 0; i < N * L; i++)
        text[i] = ids[i % n];
}

static void put(const char *s, uint32_t segment, uint32_t at)
{
    uint32_t ids[256], n = encode(s, false, ids);

    memcpy(text + segment * L + at, ids, n * sizeof(*ids));
}

static uint32_t best(const char *prompt)
{
    uint32_t ids[256], b = 0;
    const struct rank_text t = { .ids = text,
                                 .seg_len = L,
                                 .n_segments = N,
                                 .prompt = ids,
                                 .n_prompt = encode(prompt, true, ids) };

    assert_int_equal(rank_score(words, &t, score), 0);
    for (uint32_t k = 1; k < N; k++)
        if (score[k] > score[b])
            b = k;
    return b;
}

static void finds_names(void **state)
{
    (void)state;
    fresh_text();
    put(" The code of Zorvath is 123.", 5, 20);
    assert_int_equal(best("Zorvath"), 5);
    assert_int_equal(best("what is the code of zorvath?"), 5);
    assert_int_equal(best("Tell me: \"ZORVATH\"."), best("zorvath"));
    assert_true(score[5] > 0);
    for (uint32_t k = 0; k < N; k++)
        assert_true(k == 5 || score[k] < score[5] / 2);
}

static void rare_ones_weigh_more(void **state)
{
    (void)state;
    fresh_text();
    for (uint32_t k = 0; k < N; k++)
        put(" question water", k, 30);
    put(" zebra", 6, 30);
    assert_int_equal(best("! zebra, question"), 6);
    /* All the others have the same, and little. */
    for (uint32_t k = 0; k < N; k++)
        if (k != 6)
            assert_true(score[k] < score[6]);
}

/* Two segments have both words, one of them in a row. */
static void words_in_a_row(void **state)
{
    (void)state;
    fresh_text();
    put(" red", 2, 20);
    put(" river", 2, 40);
    put(" red river", 4, 30);
    assert_int_equal(best("Where is the red river?"), 4);
}

static void special_ones_say_nothing(void **state)
{
    uint32_t ids[256], n = encode("<|im_start|>", true, ids);

    (void)state;
    assert_int_equal(n, 1);
    fresh_text();
    text[3 * L + 5] = ids[0];
    (void)best("<|im_start|><|im_end|>");
    for (uint32_t k = 0; k < N; k++)
        assert_true(score[k] == 0);
}

/* What a template writes right behind a special token, a role. */
static void roles_say_nothing(void **state)
{
    uint32_t ids[256];

    (void)state;
    fresh_text();
    assert_int_equal(encode("Q", false, ids), 1);
    text[3 * L + 5] = ids[0];
    (void)best("<|im_start|>Q");
    for (uint32_t k = 0; k < N; k++)
        assert_true(score[k] == 0);
    assert_int_equal(best("<|im_start|>Q\nQ"), 3);
    assert_true(score[3] > 0);
}

static void over_an_end(void **state)
{
    (void)state;
    fresh_text();
    put(" The code of Zorvath", 3, L - 8);
    assert_int_equal(best("zorvath"), 3);
    assert_true(score[4] > 0 && score[4] < score[3] && score[2] == 0);
    fresh_text();
    put(" Zorvath", 3, 0);
    assert_int_equal(best("zorvath"), 3);
    assert_true(score[2] > 0 && score[2] < score[3] && score[4] == 0);
}

/* However little is looked at at a time, and no more than a segment beside that. */
static void slices_are_the_whole(void **state)
{
    static const uint32_t slices[] = { 0, 1, L, 3 * L, 2 * N * L };
    uint32_t ids[256];
    struct rank_text t = { .ids = text, .seg_len = L, .n_segments = N, .prompt = ids };

    (void)state;
    fresh_text();
    put(" The code of Zorvath", 3, L - 8); /* over an end */
    put(" red river", 6, 1);
    t.n_prompt = encode("Where is the red river, and what is the code of Zorvath?", true, ids);
    assert_int_equal(rank_score(words, &t, score), 0);
    assert_true(score[3] > 0 && score[4] > 0 && score[6] > 0);
    for (size_t i = 0; i < sizeof(slices) / sizeof(*slices); i++) {
        struct rank_job *j;
        uint32_t n = 1;

        assert_int_equal(rank_begin(words, &t, &j), 0);
        for (; !rank_go(j, slices[i]); n++)
            assert_true(n < 2 * N);
        assert_true(n >= 2 * N * L / (slices[i] + L));
        assert_true(rank_go(j, slices[i])); /* it stays as it is */
        assert_memory_equal(rank_scores(j, &n), score, sizeof(score));
        assert_int_equal(n, N);
        rank_drop(j);
    }
    rank_drop(NULL);
}

/* Ids as they are, and nothing at all. */
static void without_words(void **state)
{
    static const uint32_t ids[4 * 16] = { [20] = 7, [21] = 9, [40] = 7 };
    static const uint32_t prompt[] = { 7, 9 };
    struct rank_text t = { ids, 16, 4, prompt, 2 };

    (void)state;
    assert_int_equal(rank_score(NULL, &t, score), 0);
    assert_true(score[1] > score[2] && score[2] > 0 && score[0] == 0);
    t.n_prompt = 0;
    assert_int_equal(rank_score(NULL, &t, score), 0);
    assert_true(score[1] == 0);
    t.n_segments = 0;
    assert_int_equal(rank_score(words, &t, score), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_names),       cmocka_unit_test(rare_ones_weigh_more),
        cmocka_unit_test(words_in_a_row),    cmocka_unit_test(special_ones_say_nothing),
        cmocka_unit_test(roles_say_nothing), cmocka_unit_test(over_an_end),
        cmocka_unit_test(without_words),     cmocka_unit_test(slices_are_the_whole),
    };
    const char *path = getenv("GISTD_TEST_MODEL");
    struct why why = { "" };
    struct gguf *g;
    int r;

    if (!path) {
        print_message("GISTD_TEST_MODEL is not set: skipped\n");
        return 77;
    }
    if (gguf_open(path, &g, &why) < 0 || vocab_open(g, &vocab, &why) < 0 ||
        rank_open(vocab, &words) < 0) {
        print_error("%s\n", why.text);
        return 1;
    }
    r = cmocka_run_group_tests(tests, NULL, NULL);
    rank_close(words);
    vocab_close(vocab);
    gguf_close(g);
    return r;
}
