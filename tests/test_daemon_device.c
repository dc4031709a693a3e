/* tests/test_daemon_device.c - gistd --device. Would catch: a daemon that computes on another
 * device than it was told, or something else on it; one that starts without the device that it was
 * told; an answer of the device that is not the CPU's; sessions that are lost on a way that only
 * memory of a device's own has (rewind, fork, the store).
 *
 * The device is the shim's (cuda/shim/): CUDA's kernels, on the CPU; or what GISTD_TEST_DEVICE says
 * (scripts/test-cuda); several of them share layers as GISTD_TEST_SPLIT says.
 */
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/near.h"
#include "tests/support/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What log-probabilities of the two may differ by in the mean. The model has f32 weights at random
 * and logits of up to 14: the CPU computes in f32, and bf16 (8 bits), which the device reads a
 * prompt in, moves single ones by half. What is wrong moves all of them by some units.
 * tests/test_cuda_step.c asks for more, of models that are more like real ones. */
#define TOLERANCE 0.15

static const char *shim[] = { "--device",     "cuda-shim", "--threads", "1",     "--kv-bytes",
                              "4M",           "--segment", "64",        "--cpu", "scalar",
                              "--split-mode", "layer",     NULL };
enum { SHIM_SPLIT = 11 };
static const char *const cpu[] = { "--device",  "cpu", "--threads", "1",      "--kv-bytes", "4M",
                                   "--segment", "64",  "--cpu",     "scalar", NULL };

static const char text[] = "The quick brown fox jumps over the lazy dog, and the dog does not mind "
                           "that at all, since foxes come and go.";

static void score(gist_conn *c, struct gist_score *ret)
{
    *ret = (struct gist_score){ .n = 0 };
    if (gist_score_text(c, text, strlen(text), NULL, ret) < 0)
        fail_msg("scoring: %s", gist_error(c));
}

/* The same text on both: near, but not the same bits, or the CPU would have done the device's work.
 */
static void scores_are_the_cpus(void **state)
{
    const char *const *const args[2] = { cpu, shim };
    struct gist_score scores[2];
    double sum = 0;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct daemon_fixture d;
        gist_conn *c;

        daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args[i]);
        c = daemon_fixture_connect(&d);
        score(c, &scores[i]);
        gist_disconnect(c);
        daemon_fixture_stop(&d);
    }
    assert_int_equal(scores[0].n, scores[1].n);
    assert_true(scores[0].n > 20);
    for (size_t t = 1; t < scores[0].n; t++)
        sum += near_worse(0, (double)scores[0].logprobs[t], (double)scores[1].logprobs[t]);
    print_message("log-probabilities differ by %.3g\n", sum / (double)(scores[0].n - 1));
    assert_true(sum > 0);
    assert_true(sum / (double)(scores[0].n - 1) <= TOLERANCE);
    for (int i = 0; i < 2; i++) {
        free(scores[i].ids);
        free(scores[i].logprobs);
    }
}

static void answer(gist_conn *c, gist_session *s, struct answered *ret)
{
    if (answered_greedy(s, 8, ret) < 0)
        fail_msg("generating: %s", gist_error(c));
}

/* Two turns, a fork, a rewind: what is asked again of the same tokens has the same answer. */
static void a_conversation(void **state)
{
    struct daemon_fixture d;
    struct answered first, again, forked;
    struct gist_usage usage;
    gist_session *s, *fork;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, shim);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, text, strlen(text), 0, &usage), 0);
    assert_int_equal(gist_append_text(s, text, 40, 0, &usage), 0); /* into another segment */
    assert_int_equal(gist_fork(s, "other", &fork), 0);
    answer(c, s, &first);
    answer(c, fork, &forked);
    assert_memory_equal(first.ids, forked.ids, sizeof(*first.ids) * 8);
    assert_int_equal(gist_rewind(s, 20), 0);
    assert_int_equal(gist_append_text(s, "and then?", 9, 0, &usage), 0);
    answer(c, s, &first);
    assert_int_equal(gist_rewind(s, 20), 0);
    assert_int_equal(gist_append_text(s, "and then?", 9, 0, &usage), 0);
    answer(c, s, &again);
    assert_memory_equal(first.ids, again.ids, sizeof(*first.ids) * 8);
    gist_close(fork);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* Of several devices together: what one writes, and a restart that finds the text in the store,
 * also where each has a part of every layer. There sums are in another order, and so may be words.
 */
static void on_several(void **state)
{
    static const struct {
        const char *device, *split;
    } ways[] = { { "cuda-shim:0", "layer" },
                 { "cuda-shim:1,0", "layer" },
                 { "cuda-shim:1,0", "tensor" },
                 { "cuda-shim:1,0", "layer" } };
    char folder[SCRATCH_PATH_MAX];
    const char *args[] = { "--device",     "",   "--threads", "1",
                           "--kv-bytes",   "4M", "--cpu",     "scalar",
                           "--segment",    "64", "--store",   scratch_path(folder, "several"),
                           "--split-mode", "",   NULL };
    struct answered found[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct daemon_fixture d;
        struct gist_usage usage;
        gist_session *s;
        gist_conn *c;

        args[1] = ways[i].device;
        args[13] = ways[i].split;
        daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
        c = daemon_fixture_connect(&d);
        assert_int_equal(gist_open(c, NULL, &s), 0);
        assert_int_equal(gist_append_text(s, text, strlen(text), 0, &usage), 0);
        answer(c, s, &found[i]);
        if (strcmp(ways[i].split, "layer") == 0)
            assert_memory_equal(found[0].ids, found[i].ids, sizeof(*found[0].ids) * 8);
        assert_true(i > 0 ? usage.restored_tokens >= 64 : usage.restored_tokens == 0);
        gist_close(s);
        gist_disconnect(c);
        daemon_fixture_stop(&d);
    }
}

/* A model of two KV heads, which three devices can't share. */
static void heads_that_do_not_divide(void **state)
{
    char sock[SCRATCH_PATH_MAX];
    const char *args[] = { "--model",
                           daemon_fixture_model(DAEMON_FIXTURE_TINY),
                           "--socket",
                           scratch_path(sock, "three.sock"),
                           "--device",
                           "cuda-shim:0,1,2",
                           "--split-mode",
                           "tensor",
                           NULL };
    struct daemon_fixture d;

    (void)state;
    daemon_fixture_spawn(&d, args);
    assert_int_equal(daemon_fixture_wait(&d), 1);
    assert_non_null(strstr(daemon_fixture_log(&d), "option split-mode: found 3 devices"));
    assert_non_null(strstr(daemon_fixture_log(&d), "or --split-mode layer"));
}

/* Named, and what helps; not another one in its place. */
static void a_device_that_is_not_there(void **state)
{
    char sock[SCRATCH_PATH_MAX];
    const char *args[] = { "--model",  daemon_fixture_model(DAEMON_FIXTURE_TINY),
                           "--socket", scratch_path(sock, "nowhere.sock"),
                           "--device", "cuda:63",
                           NULL };
    struct daemon_fixture d;

    (void)state;
    daemon_fixture_spawn(&d, args);
    assert_int_equal(daemon_fixture_wait(&d), 1);
    assert_true(strstr(daemon_fixture_log(&d), "--device cpu") ||
                strstr(daemon_fixture_log(&d), "there is no device cuda:63"));
}

int main(void)
{
    if (getenv("GISTD_TEST_DEVICE"))
        shim[1] = getenv("GISTD_TEST_DEVICE");
    if (getenv("GISTD_TEST_SPLIT"))
        shim[SHIM_SPLIT] = getenv("GISTD_TEST_SPLIT");

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_cpus),
        cmocka_unit_test(a_conversation),
        cmocka_unit_test(on_several),
        cmocka_unit_test(heads_that_do_not_divide),
        cmocka_unit_test(a_device_that_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
