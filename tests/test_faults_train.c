/* tests/test_faults_train.c - as tests/test_faults.c, for what the trainer reads and writes. Would
 * catch: a checkpoint, adapter or corpus that a full disk truncates, or whose name may not outlive
 * a power cut, and that is called written; and what is left of it. */
#include "tests/support/fault.h"
#include "tests/support/fault_life.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"
#include "train/data/corpus.h"
#include "train/data/corpus_build.h"
#include "train/file/adapter_write.h"
#include "train/net/optim.h"
#include "train/run_log.h"
#include "train/teacher.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char model[SCRATCH_PATH_MAX], text[SCRATCH_PATH_MAX], made[SCRATCH_PATH_MAX];

static int setup(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&shape);
    FILE *f = fopen(scratch_path(text, "a.txt"), "we");

    (void)state;
    gguf_build_write(b, scratch_path(model, "tiny.gguf"));
    gguf_build_free(b);
    scratch_path(made, "made");
    assert_non_null(f);
    for (int i = 0; i < 100; i++)
        assert_true(fputs("Some words of a text, and more of them.\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    return 0;
}

static int n_unsynced; /* files that were there and whole when an error was told */

/* What was made has its name; what failed has none, or is whole: then its folder was not synced. */
static bool is_made(int r)
{
    bool there = access(made, F_OK) == 0;

    assert_true(there || r < 0);
    n_unsynced += there && r < 0;
    return there;
}

static int live_corpus(void *arg, struct why *why)
{
    const char *inputs[] = { text };
    struct corpus_build b = { .model = model, .out = made, .inputs = inputs, .n_inputs = 1 };
    struct corpus *c = NULL;
    int r = corpus_build(&b, NULL, why);

    (void)arg;
    if (is_made(r) && r == 0)
        r = corpus_open(made, NULL, &c, why);
    else if (access(made, F_OK) == 0)
        assert_int_equal(corpus_open(made, NULL, &c, NULL), 0);
    corpus_close(c);
    (void)unlink(made);
    return r;
}

static int live_optim(void *arg, struct why *why)
{
    struct optim_progress at = { 3, 1000 }, got;
    struct optim o = { .t = NULL };
    int r = optim_add(&o, "a", 100, true);

    (void)arg;
    if (r == 0)
        r = optim_add(&o, "b", 10, false);
    if (r < 0) {
        optim_fini(&o);
        return why_set(why, r, "no memory for the tensors");
    }
    for (size_t i = 0; i < 100; i++)
        o.t[0].p[i] = (float)i;
    r = optim_save(&o, made, &at, "a recipe", why);
    if (is_made(r)) {
        bool unsynced = r < 0;
        int err;

        memset(o.t[0].p, 0, 100 * sizeof(float));
        err = optim_load(&o, made, "a recipe", &got, unsynced ? NULL : why);
        assert_true(err < 0 ? !unsynced : got.step == 3 && o.t[0].p[99] == 99);
        r = unsynced ? r : err;
    }
    optim_fini(&o);
    (void)unlink(made);
    return r;
}

static int live_adapter(void *arg, struct why *why)
{
    static const float values[1000];
    static const struct adapter_write_pair pairs[] = { { "format", "x" } };
    const struct adapter_write_tensor t[] = {
        { "a", SAFETENSORS_F32, 2, { 100, 10 }, values },
        { "b", SAFETENSORS_BF16, 1, { 1000 }, values },
    };
    struct adapter_write w = { .pairs = pairs, .n_pairs = 1, .tensors = t, .n_tensors = 2 };
    struct safetensors *whole;
    int r = adapter_write(made, &w, why);

    (void)arg;
    if (is_made(r) && r < 0) {
        assert_int_equal(safetensors_open(made, &whole, NULL), 0);
        safetensors_close(whole);
    }
    (void)unlink(made);
    return r;
}

static int live_run_log(void *arg, struct why *why)
{
    struct run_log_step s;
    struct run_log_data d;
    struct run_log *l = NULL;
    int r = run_log_open(made, 0, &l, why);

    (void)arg;
    run_log_step_init(&s);
    s.step = 1;
    s.loss = 2.5;
    if (r == 0)
        r = run_log_step(l, &s);
    if (r < 0)
        (void)why_set(why, r, "it says so by its code");
    run_log_close(l);
    if (r == 0) {
        r = run_log_read(made, &d, why);
        if (r == 0) {
            assert_int_equal(d.n_steps, 1);
            run_log_data_fini(&d);
        }
    }
    (void)unlink(made);
    return r;
}

static int live_teacher(void *arg, struct why *why)
{
    uint32_t ids[8] = { 1, 2, 3 };
    float p[8] = { 0.5f };
    struct teacher *t = NULL;
    int r = teacher_open(made, 77, 2, 4, &t, why);

    (void)arg;
    if (r == 0) {
        r = teacher_put(t, 0, 2, ids, p);
        if (r < 0)
            (void)why_set(why, r, "it says so by its code");
    }
    teacher_close(t);
    (void)unlink(made);
    return r;
}

static void files(void **state)
{
    static const struct {
        const char *name;
        int (*live)(void *arg, struct why *why);
        bool renames;
    } lives[] = {
        { "corpus", live_corpus, true },         { "optim", live_optim, true },
        { "adapter_write", live_adapter, true }, { "run_log", live_run_log, false },
        { "teacher", live_teacher, false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lives) / sizeof(*lives); i++) {
        n_unsynced = 0;
        fault_life(&(struct fault_life){
            .name = lives[i].name, .live = lives[i].live, .also = ENOMEM, .says = true });
        /* A new name that is not on the disk is told. */
        assert_int_equal(n_unsynced > 0, lives[i].renames);
    }
}

/* It would be asked for ever. */
static void disk_that_takes_nothing(void **state)
{
    struct why why = { "" };
    struct run_log_step s;
    struct run_log *l;

    (void)state;
    assert_int_equal(run_log_open(made, 0, &l, &why), 0);
    run_log_step_init(&s);
    s.step = 1;
    fault_still(true);
    assert_int_equal(run_log_step(l, &s), -EIO);
    fault_still(false);
    assert_int_equal(run_log_step(l, &s), 0);
    run_log_close(l);
    (void)unlink(made);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(files),
                                        cmocka_unit_test(disk_that_takes_nothing) };

    return cmocka_run_group_tests(tests, setup, NULL);
}
