/* tests/test_run_room.c - would catch: a plan of a run's memory (train/run_room.h) that leaves
 * something out or counts what is not there, by a byte; one that is said to fit and does not, or
 * the other way round; one that needs the weights; values that a step reads on the host, or writes
 * there, where they are a device's.
 *
 * The device is the CPU, with its allocations counted: what attention takes by itself is held to a
 * real one's table by tests/test_cuda_train_attn.c.
 */
#include "train/net/tensors_cpu.h"
#include "train/run_room.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- a device --------------------------------------------------------------------------------- */

#define ALIGN 64u /* in front of what is given: its length */

static uint64_t used, left;

static void *counted(struct tensors *t, size_t n)
{
    char *p = tensors_cpu.alloc(t, n + ALIGN);

    if (!p)
        return NULL;
    memcpy(p, &n, sizeof(n));
    memset(p + ALIGN, 0xff, n); /* NaN, until somebody writes it */
    used += n;
    return p + ALIGN;
}

static void uncounted(struct tensors *t, void *p)
{
    size_t n;

    memcpy(&n, (char *)p - ALIGN, sizeof(n));
    used -= n;
    tensors_cpu.free(t, (char *)p - ALIGN);
}

static uint64_t is_left(struct tensors *t)
{
    (void)t;
    return left;
}

static size_t nothing(const struct tensors_heads *h, const struct tensors_sizes *s)
{
    (void)h;
    (void)s;
    return 0;
}

static struct tensors_ops apart;

static struct tensors *open_apart(void)
{
    struct tensors *on;

    assert_int_equal(tensors_cpu.open(0, &on, NULL), 0);
    apart = tensors_cpu;
    apart.host = false;
    apart.alloc = counted;
    apart.free = uncounted;
    apart.left = is_left;
    apart.attn_room = nothing;
    on->ops = &apart;
    return on;
}

/* --- a run ------------------------------------------------------------------------------------ */

#define SEQUENCE 192u

/* Options by name and value, to NULL. */
static void set(struct recipe *c, const char *model, const char *const *options)
{
    struct why why = { "" };

    recipe_defaults(c);
    snprintf(c->model, sizeof(c->model), "tests/data/tiny_%s.gguf", model);
    assert_int_equal(recipe_set(c, "sequence", "192", "here", &why), 0);
    assert_int_equal(recipe_set(c, "segment", "64", "here", &why), 0);
    assert_int_equal(recipe_set(c, "ratios", "4 16", "here", &why), 0);
    for (; *options; options += 2)
        if (recipe_set(c, options[0], options[1], "here", &why) < 0)
            fail_msg("%s", why.text);
}

struct world {
    struct model *model;
    struct base base, original;
    struct gists gist;
    struct step *step;
};

static void world_open(struct world *w, const struct recipe *c, struct tensors *on)
{
    struct gists_shape shape = run_room_gists(c);
    struct step_rule rule = run_room_rule(c);
    enum tensors_type type = run_room_type(c, true);
    struct why why = { "" };

    *w = (struct world){ 0 };
    if (model_open(c->model, NULL, NULL, &w->model, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(base_open(&w->base, on, w->model, type, 2 * SEQUENCE + 1), 0);
    if (c->train_base && (c->loss_tie || c->loss_distill > 0)) {
        assert_int_equal(base_open(&w->original, on, w->model, type, 2 * SEQUENCE + 1), 0);
        rule.original = &w->original;
    }
    assert_int_equal(gists_open(&w->gist, &w->base, &shape), 0);
    if (c->train_base)
        assert_int_equal(base_train(&w->base, &w->gist.params), 0);
    assert_int_equal(step_open(&w->gist, SEQUENCE, c->checkpointing, &rule, &w->step), 0);
}

static void world_close(struct world *w)
{
    step_close(w->step);
    gists_close(&w->gist);
    base_close(&w->base);
    if (w->original.m)
        base_close(&w->original);
    model_close(w->model);
}

/* Its loss, whatever the host has of the parameters meanwhile. */
static void step(struct world *w, uint32_t ratio)
{
    const struct optim_rule rule = { 0.9, 0.95, 1e-8, 0, 1 };
    struct optim *o = &w->gist.params;
    uint32_t ids[SEQUENCE];
    uint8_t carries[SEQUENCE];
    struct step_loss loss;

    for (uint32_t i = 0; i < SEQUENCE; i++)
        ids[i] = i * 7 % w->model->n_vocab;
    memset(carries, 1, sizeof(carries));
    for (uint32_t i = 0; i < o->n; i++)
        memset(o->t[i].p, 0xff, o->t[i].n * sizeof(float));
    gists_zero_gradients(&w->gist);
    assert_int_equal(step_learn(w->step, ids, carries, ratio, 0, 1, &loss), 0);
    assert_true(isfinite(loss.all));
    gists_collect(&w->gist);
    assert_true(isfinite(optim_step(o, &rule, 1e-3, 1)));
    base_refresh(&w->base);
    step_refresh(w->step);
    assert_int_equal(optim_fetch(o), 0);
    for (uint32_t i = 0; i < o->n; i++)
        assert_true(isfinite(o->t[i].p[0]));
}

static void fits(const char *model, const char *const *options)
{
    struct tensors *on = open_apart();
    struct recipe c;
    struct run_room room;
    struct world w;
    struct why why = { "" };
    size_t values = 0;

    set(&c, model, options);
    if (run_room_make(&c, on, &room, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(used, 0);
    world_open(&w, &c, on);
    if (used != room.all)
        fail_msg("%s %s: %llu bytes are planned, %llu were taken", model, options[0],
                 (unsigned long long)room.all, (unsigned long long)used);
    for (uint32_t i = 0; i < w.gist.params.n; i++)
        values += w.gist.params.t[i].n;
    assert_int_equal(values, room.n_values);
    step(&w, 4);
    step(&w, 16);
    assert_int_equal(used, room.all);
    world_close(&w);
    assert_int_equal(used, 0);
    tensors_cpu.close(on);
}

#define OPTIONS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void plans_gists(void **state)
{
    (void)state;
    fits("smollm2", OPTIONS("projections", "qkv"));
    fits("qwen2", OPTIONS("projections", "all", "rank", "4", "checkpointing", "yes"));
    fits("qwen2_untied", OPTIONS("method", "coarse-rec", "projections", "none"));
    fits("llama31", OPTIONS("precision", "f32", "mask", "in-segment", "projections", "qkvo"));
}

static void plans_losses(void **state)
{
    (void)state;
    fits("qwen2", OPTIONS("loss-ae", "0.5", "ae-share", "1"));
    fits("smollm2", OPTIONS("loss-ae", "0.5", "loss-tie", "yes", "precision", "f32"));
    fits("llama31", OPTIONS("loss-distill", "0.5", "distill-top", "8"));
}

static void plans_the_base(void **state)
{
    (void)state;
    fits("smollm2", OPTIONS("train-base", "yes"));
    fits("qwen2_untied", OPTIONS("train-base", "yes", "loss-tie", "yes", "rank", "4"));
    fits("qwen2", OPTIONS("train-base", "yes", "loss-ae", "1", "method", "coarse-kv", "projections",
                          "none"));
}

static void refuses_by_a_sentence(void **state)
{
    struct tensors *on = open_apart();
    struct recipe c;
    struct run_room room;
    struct why why = { "" };
    char *text, line[256];
    size_t len;
    FILE *f;

    (void)state;
    set(&c, "qwen2", OPTIONS("loss-ae", "1"));
    left = 1000;
    assert_int_equal(run_room_make(&c, on, &room, &why), 0);
    assert_int_equal(run_room_check(&room, "cuda:3", &why), -ENOMEM);
    assert_non_null(strstr(why.text, "device cuda:3 has no room for this: it takes "));
    assert_non_null(strstr(why.text, "0.0 MB are free"));
    room.left = room.all - 1;
    assert_int_equal(run_room_check(&room, "cuda:3", &why), -ENOMEM);
    room.left = room.all;
    assert_int_equal(run_room_check(&room, "cuda:3", &why), 0);
    room.left = 0; /* nobody knows */
    assert_int_equal(run_room_check(&room, "cuda:3", &why), 0);
    run_room_line(&room, "cuda:3", line, sizeof(line));
    assert_null(strstr(line, "free"));
    f = open_memstream(&text, &len);
    assert_non_null(f);
    run_room_print(&room, "cuda:3", f);
    assert_int_equal(fclose(f), 0);
    assert_non_null(strstr(text, "the decoder of loss-ae"));
    free(text);
    why.text[0] = '\0';
    snprintf(c.model, sizeof(c.model), "/nowhere.gguf");
    assert_int_equal(run_room_make(&c, on, &room, &why), -ENOENT);
    assert_non_null(strstr(why.text, "/nowhere.gguf"));
    left = 0;
    tensors_cpu.close(on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_gists),
        cmocka_unit_test(plans_losses),
        cmocka_unit_test(plans_the_base),
        cmocka_unit_test(refuses_by_a_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
