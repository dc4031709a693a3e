/* tests/test_look.c - what a prompt looks at (forward_run.look), through whole models. Would catch:
 * a layer's shares added to another's, a reading that looking changes, tokens counted twice or not
 * at all where a run crosses a segment's end, segments that are not asked for. What one layer's
 * attention gives is held to the textbook in tests/test_attend.c.
 */
#include "engine/backend.h"
#include "tests/support/near.h"
#include "tests/support/rig.h"
#include "tests/support/tolerance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define L        64u
#define BEHIND   (3 * L + 50u) /* tokens before the prompt */
#define PROMPT   40u           /* crosses a segment's end */
#define SEGMENTS 3u

static struct rig rig;
static uint32_t n_lists, n_vocab, ids[BEHIND + PROMPT];

static int open_rig(void **state)
{
    struct rig_opts opts = { .model = *state,
                             .cpu = "auto",
                             .kv = KV_F32,
                             .threads = 2,
                             .max_batch = PROMPT,
                             .max_tokens = 2048 };
    unsigned seed = 7;
    struct why why;

    assert_int_equal(rig_open(&rig, &opts, &why), 0);
    n_lists = rig.model->n_layer * rig.model->n_head;
    n_vocab = rig.model->n_vocab;
    for (uint32_t i = 0; i < BEHIND + PROMPT; i++)
        ids[i] = (uint32_t)rand_r(&seed) % n_vocab;
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    rig_close(&rig);
    return 0;
}

/* The prompt behind what comes before it, in runs of `chunk`, which look at the first n_shares
 * segments (0: they do not): the last logits, and the shares (n_lists, n_shares). */
static void read_prompt(uint32_t chunk, uint32_t n_shares, float *ret_logits, float *ret_shares)
{
    size_t bytes = (size_t)n_lists * n_shares * sizeof(float);
    float *before = malloc((size_t)BEHIND * n_vocab * sizeof(float));
    struct seq s;
    void *shares = NULL;
    uint32_t n_out;

    assert_int_equal(rig_seq(&rig, 512, L, 0, &s), 0);
    assert_int_equal(rig_feed(&rig, &s, ids, BEHIND, PROMPT, before), 0);
    if (n_shares) {
        assert_int_equal(backend_alloc(rig.backend, bytes, &shares), 0);
        memset(ret_shares, 0, bytes);
        assert_int_equal(backend_put(rig.backend, shares, ret_shares, bytes), 0);
    }
    for (uint32_t at = 0; at < PROMPT; at += chunk) {
        struct forward_run run = { .seq = &s,
                                   .tokens = ids + BEHIND + at,
                                   .n_tokens = chunk < PROMPT - at ? chunk : PROMPT - at,
                                   .want = FORWARD_WANT_LAST,
                                   .look = { shares, n_shares } };

        assert_int_equal(seq_reserve(&s, run.n_tokens), 0);
        assert_int_equal(forward_step(&rig.forward, &run, 1, NULL, &n_out), 0);
    }
    assert_int_equal(forward_logits(&rig.forward, n_out - 1, 1, ret_logits), 0);
    if (n_shares) {
        assert_int_equal(backend_get(rig.backend, ret_shares, shares, bytes), 0);
        backend_free(rig.backend, shares, bytes);
    }
    seq_close(&s);
    free(before);
}

static void looking_changes_nothing(void **state)
{
    float *plain = malloc(n_vocab * sizeof(float)), *logits = malloc(n_vocab * sizeof(float));
    float *shares = malloc((size_t)n_lists * SEGMENTS * sizeof(float));
    double worst;

    (void)state;
    read_prompt(PROMPT, 0, plain, NULL);
    read_prompt(PROMPT, SEGMENTS, logits, shares);
    assert_memory_equal(logits, plain, n_vocab * sizeof(float));
    read_prompt(1, SEGMENTS, logits, shares); /* else split over the workers */
    if (rig_exact(&rig))
        assert_memory_equal(logits, plain, n_vocab * sizeof(float));
    worst = near_worst(0, logits, plain, n_vocab);
    if (!(worst <= tolerance_of(rig_exact(&rig), tolerance_tiny, KV_F32)))
        fail_msg("read one by one: off by %g", worst);
    free(plain);
    free(logits);
    free(shares);
}

/* Every layer and head has its own: something for each segment, together less than the tokens. */
static void shares_are_each_layers(void **state)
{
    float *shares = malloc((size_t)n_lists * SEGMENTS * sizeof(float));
    float *logits = malloc(n_vocab * sizeof(float));

    (void)state;
    read_prompt(PROMPT, SEGMENTS, logits, shares);
    for (uint32_t i = 0; i < n_lists; i++) {
        float sum = 0;

        for (uint32_t s = 0; s < SEGMENTS; s++) {
            assert_true(shares[i * SEGMENTS + s] > 0);
            sum += shares[i * SEGMENTS + s];
        }
        assert_true(sum < PROMPT);
        for (uint32_t j = 0; j < i; j++)
            assert_memory_not_equal(shares + i * SEGMENTS, shares + j * SEGMENTS,
                                    SEGMENTS * sizeof(float));
    }
    free(shares);
    free(logits);
}

static void runs_of_any_length_and_fewer_segments(void **state)
{
    static const uint32_t chunks[] = { 1, 7, 14, 39 };
    float *all = malloc((size_t)n_lists * SEGMENTS * sizeof(float));
    float *got = malloc((size_t)n_lists * SEGMENTS * sizeof(float));
    float *logits = malloc(n_vocab * sizeof(float));
    double worst = 0;

    (void)state;
    read_prompt(PROMPT, SEGMENTS, logits, all);
    for (uint32_t c = 0; c < sizeof(chunks) / sizeof(*chunks); c++) {
        read_prompt(chunks[c], SEGMENTS, logits, got);
        for (uint32_t i = 0; i < n_lists * SEGMENTS; i++)
            worst = near_worse(worst, (double)all[i], (double)got[i]);
    }
    read_prompt(PROMPT, 2, logits, got);
    for (uint32_t i = 0; i < n_lists; i++)
        for (uint32_t s = 0; s < 2; s++)
            worst = near_worse(worst, (double)all[i * SEGMENTS + s], (double)got[i * 2 + s]);
    if (!(worst <= 1e-4))
        fail_msg("off by %g", worst);
    free(all);
    free(got);
    free(logits);
}

int main(void)
{
    static char *const models[] = { "tests/data/tiny_smollm2.gguf", "tests/data/tiny_qwen2.gguf" };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looking_changes_nothing),
        cmocka_unit_test(shares_are_each_layers),
        cmocka_unit_test(runs_of_any_length_and_fewer_segments),
    };
    int failed = 0;

    for (unsigned i = 0; i < sizeof(models) / sizeof(*models); i++) {
        void *state = models[i];

        if (open_rig(&state) < 0)
            return 1;
        failed += cmocka_run_group_tests_name(models[i], tests, NULL, NULL);
        (void)close_rig(NULL);
    }
    return failed ? 1 : 0;
}
