/* tests/test_import.c - checkpoints of Activation Beacon. Would catch: an import that computes
 * something else than that project's own code does (another place, position or projection of a
 * gist, a bias that is lost, a value that is rounded), a checkpoint of another model or kind that
 * is taken all the same.
 *
 * The reference is that code itself, run by tests/reference/beacon_vectors.py.
 */
#include "train/file/import.h"

#include "engine/file/safetensors.h"
#include "tests/support/file.h"
#include "tests/support/memory_rig.h"
#include "tests/support/near.h"
#include "tests/support/ref.h"
#include "tests/support/sanitized.h"
#include "tests/support/scratch.h"
#include "train/file/adapter_write.h"
#include "train/file/published.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define WINDOW 64u
#define BATCH  128u

static const char *const models[] = { "smollm2", "qwen2" };

/* Of logits of 5 and more: f32 from f32. bf16 products round the gists' activations to 8 bits. */
#define TOLERANCE      2e-4f
#define TOLERANCE_BF16 1e-1f

static void put_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

/* A folder with the checkpoint of a tiny model as that project would leave it: path. */
static void make_folder(const char *model, const char *name, char path[SCRATCH_PATH_MAX])
{
    char from[96], to[SCRATCH_PATH_MAX + 32];
    size_t len;
    uint8_t *bytes;
    FILE *f;

    assert_int_equal(mkdir(scratch_path(path, name), 0700), 0);
    (void)snprintf(from, sizeof(from), "tests/data/beacon_%s.config.json", model);
    (void)snprintf(to, sizeof(to), "%s/config.json", path);
    bytes = file_read(from, &len);
    put_text(to, (const char *)bytes);
    free(bytes);
    (void)snprintf(from, sizeof(from), "tests/data/beacon_%s.safetensors", model);
    (void)snprintf(to, sizeof(to), "%s/model.safetensors", path);
    bytes = file_read(from, &len);
    f = fopen(to, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    free(bytes);
}

/* --- what it computes ------------------------------------------------------------------------- */

struct bench {
    struct memory_rig rig;
    struct adapter *adapter;
};

static bool open_bench(struct bench *b, const char *model, const char *from, const char *cpu)
{
    char path[96], out[SCRATCH_PATH_MAX];
    struct rig_opts opts = { .model = path,
                             .cpu = cpu,
                             .kv = KV_F32,
                             .threads = 2,
                             .max_batch = BATCH,
                             .max_tokens = 2048 };
    struct import in = { .from = from,
                         .out = scratch_path(out, "imported.safetensors"),
                         .replace = true };
    struct why why = { "" };
    int r;

    (void)snprintf(path, sizeof(path), "tests/data/tiny_%s.gguf", model);
    r = memory_rig_open(&b->rig, &opts, &why);
    if (r == -ENOTSUP)
        return false;
    in.model = b->rig.rig.model;
    if (r == 0)
        r = import_run(&in, &why);
    if (r == 0)
        r = adapter_open(out, b->rig.rig.model, &b->adapter, &why);
    if (r < 0)
        fail_msg("%s: %s", model, why.text);
    return true;
}

static void feed(struct bench *b, uint32_t ratio, uint32_t sinks, const struct ref *ref,
                 uint32_t chunk, float *ret)
{
    struct policy p = { .spec = { COMPRESS_FINE_KV, ratio, sinks, b->adapter },
                        .seg_len = WINDOW,
                        .budget = 2048 };
    struct memory memory;
    struct seq seq;

    assert_int_equal(compress_check(&p.spec, WINDOW, NULL), 0);
    assert_int_equal(rig_seq(&b->rig.rig, ref->n_tokens, WINDOW, 0, &seq), 0);
    assert_int_equal(memory_init(&memory, &p, &b->rig.served, &seq), 0);
    assert_int_equal(memory_rig_feed(&b->rig, &memory, ref->ids, ref->n_tokens, chunk, ret), 0);
    memory_fini(&memory);
    seq_close(&seq);
}

static void check_run(struct bench *b, const char *model, uint32_t ratio, uint32_t sinks)
{
    static const uint32_t chunks[] = { 128, 63, 7, 1 };
    const struct kernels *k = b->rig.rig.kernels;
    float allowed = k->to_bf16 ? TOLERANCE_BF16 : TOLERANCE, *all, *other;
    double worst;
    char path[96];
    struct ref ref;
    size_t len;

    (void)snprintf(path, sizeof(path), "tests/data/beacon_%s_r%u%s.ref", model, ratio,
                   sinks ? "_sink" : "");
    assert_int_equal(ref_open(path, &ref), 0);
    len = (size_t)ref.n_tokens * ref.n_vocab * sizeof(float);
    all = malloc(len);
    other = malloc(len);
    feed(b, ratio, sinks, &ref, chunks[0], all);
    worst = rig_distance(&ref, all);
    if (!(worst <= allowed))
        fail_msg("%s, %s, ratio %u, %u sinks: off by %g", model, k->name, ratio, sinks, worst);
    for (size_t c = 1; c < sizeof(chunks) / sizeof(*chunks); c++) {
        feed(b, ratio, sinks, &ref, chunks[c], other);
        assert_memory_equal(other, all, len);
    }
    free(all);
    free(other);
    ref_close(&ref);
}

static void computes_what_their_code_does(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof(models) / sizeof(*models); m++) {
        char folder[SCRATCH_PATH_MAX];

        make_folder(models[m], models[m], folder);
        for (unsigned k = 0; k < SANITIZED_TABLES && kernels_name(k); k++) {
            struct bench b = { .adapter = NULL };

            if (!open_bench(&b, models[m], folder, kernels_name(k)))
                continue;
            assert_int_equal(b.adapter->mask, ADAPTER_IN_SEGMENT);
            assert_int_equal(b.adapter->segment, WINDOW);
            assert_int_equal(b.adapter->sinks, 0);
            assert_int_equal(b.adapter->n_ratios, 3);
            assert_int_equal(b.adapter->ratios[2], 8);
            check_run(&b, models[m], 2, 0);
            check_run(&b, models[m], 4, 0);
            check_run(&b, models[m], 8, 0);
            check_run(&b, models[m], 4, 1);
            adapter_close(b.adapter);
            memory_rig_close(&b.rig);
        }
    }
}

/* --- where it lies ---------------------------------------------------------------------------- */

struct shard {
    const struct published *from;
    const struct adapter_write_tensor *tensors;
    const char *names[32]; /* in the checkpoint */
};

static int fetch(void *arg, size_t i, float *ret, struct why *why)
{
    const struct shard *s = arg;
    const struct adapter_write_tensor *t = &s->tensors[i];

    return published_read(s->from, s->names[i], t->dims[0], t->dims[1], NULL, ret, why);
}

/* text with every `from` in it replaced, in ret. */
static void replace_all(const char *text, const char *from, const char *to, char *ret, size_t size)
{
    size_t n = 0;

    while (*text) {
        bool at = strncmp(text, from, strlen(from)) == 0;

        assert_true(n + strlen(to) + 1 < size);
        n += (size_t)snprintf(ret + n, size - n, "%.*s", at ? (int)strlen(to) : 1, at ? to : text);
        text += at ? strlen(from) : 1;
    }
    ret[n] = '\0';
}

/* Every third tensor of a file, from the first-th on, with another word for "beacon" in its name.
 */
static void write_shard(const char *file, const char *folder, unsigned first, const char *word)
{
    char path[SCRATCH_PATH_MAX + 64];
    struct adapter_write_tensor t[32];
    struct shard s = { .tensors = t };
    struct adapter_write w = { .tensors = t, .fetch = fetch, .arg = &s, .replace = true };
    struct published *from;
    struct safetensors *all;
    struct why why = { "" };

    assert_int_equal(safetensors_open(file, &all, &why), 0);
    assert_int_equal(published_open(file, &from, &why), 0);
    s.from = from;
    for (size_t i = first; i < safetensors_n(all); i += 3) {
        const struct safetensors_tensor *a = safetensors_at(all, i);

        t[w.n_tensors] = (struct adapter_write_tensor){ .type = a->type,
                                                        .n_dims = a->n_dims,
                                                        .dims = { a->dims[0], a->dims[1] } };
        s.names[w.n_tensors] = a->name;
        replace_all(a->name, "beacon", word, t[w.n_tensors++].name, sizeof(t->name));
    }
    (void)snprintf(path, sizeof(path), "%s/model-%05u-of-00003.safetensors", folder, first + 1);
    if (adapter_write(path, &w, &why) < 0)
        fail_msg("%s", why.text);
    published_close(from);
    safetensors_close(all);
}

/* "gist" for "beacon", as a plain Fine-KV has it. */
static void rename_config(const char *folder)
{
    char path[SCRATCH_PATH_MAX + 32], changed[4096];
    size_t len;
    char *text;

    (void)snprintf(path, sizeof(path), "%s/config.json", folder);
    text = (char *)file_read(path, &len);
    replace_all(text, "beacon", "gist", changed, sizeof(changed));
    put_text(path, changed);
    free(text);
}

/* One file or three, a folder or a file's path, an Activation Beacon or a plain Fine-KV: the same
 * adapter. */
static void shards_are_the_same(void **state)
{
    char folder[SCRATCH_PATH_MAX], file[SCRATCH_PATH_MAX + 32], out[4][SCRATCH_PATH_MAX];
    uint8_t *bytes[4];
    size_t len[4];
    struct model *m;
    struct why why = { "" };

    (void)state;
    assert_int_equal(model_open("tests/data/tiny_qwen2.gguf", NULL, NULL, &m, &why), 0);
    make_folder("qwen2", "sharded", folder);
    (void)snprintf(file, sizeof(file), "%s/model.safetensors", folder);
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = { "one.safetensors", "two.safetensors",
                                             "three.safetensors", "four.safetensors" };
        struct import in = { .from = i == 1 ? file : folder,
                             .model = m,
                             .out = scratch_path(out[i], names[i]) };

        for (unsigned k = 0; i >= 2 && k < 3; k++)
            write_shard("tests/data/beacon_qwen2.safetensors", folder, k,
                        i == 2 ? "beacon" : "gist");
        if (i == 2)
            assert_int_equal(remove(file), 0);
        if (i == 3)
            rename_config(folder);
        if (import_run(&in, &why) < 0)
            fail_msg("%s", why.text);
        bytes[i] = file_read(out[i], &len[i]);
        assert_int_equal(len[i], len[0]);
        assert_memory_equal(bytes[i], bytes[0], len[0]);
    }
    for (int i = 0; i < 4; i++)
        free(bytes[i]);
    model_close(m);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void refuse(const char *folder, const struct model *m, const char *segment, int err,
                   const char *says)
{
    char out[SCRATCH_PATH_MAX];
    struct import in = { .from = folder,
                         .model = m,
                         .out = scratch_path(out, "refused.safetensors"),
                         .segment = segment };
    struct why why = { "" };

    assert_int_equal(import_run(&in, &why), err);
    if (!strstr(why.text, says))
        fail_msg("said %s, expected %s", why.text, says);
    assert_int_not_equal(access(out, F_OK), 0);
}

/* text with one part of it replaced. */
static void put_changed(const char *path, const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    char changed[4096];

    assert_non_null(at);
    (void)snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text, to,
                   at + strlen(from));
    put_text(path, changed);
}

static void refuses_what_it_cannot_do(void **state)
{
    static const struct {
        const char *from, *to, *says;
    } bad[] = {
        { "full-coverage", "segmentation", "beacon_attn is \"segmentation\"" },
        { "\"beacon_attend_prev\": true", "\"beacon_attend_prev\": false", "attend_prev is false" },
        { "interleave", "append", "beacon_pos is \"append\"" },
        { "\"v\"", "\"o\"", "beacon_param has \"o\"" },
        { "\"beacon_window\": 64", "\"beacon_window\": 10", "expected a number from 64 to 8192" },
        { "\"beacon_window\": 64", "\"beacon_widow\": 64", "--segment" },
        { "\"beacon_sink_size\": 0", "\"beacon_sink_size\": 17", "beacon_sink_size is 17" },
        { "\"model_type\": \"qwen2\"", "\"model_type\": \"mistral\"", "model_type is mistral" },
        { "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "but the base model has 2" },
        { "{", "[", "not a JSON object" },
    };
    char folder[SCRATCH_PATH_MAX], path[SCRATCH_PATH_MAX + 32];
    struct why why = { "" };
    struct model *m, *other;
    char *text;
    size_t len;

    (void)state;
    assert_int_equal(model_open("tests/data/tiny_qwen2.gguf", NULL, NULL, &m, &why), 0);
    assert_int_equal(model_open("tests/data/tiny_llama31.gguf", NULL, NULL, &other, &why), 0);
    make_folder("qwen2", "bad", folder);
    (void)snprintf(path, sizeof(path), "%s/config.json", folder);
    text = (char *)file_read(path, &len);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        put_changed(path, text, bad[i].from, bad[i].to);
        refuse(folder, m, NULL, -EINVAL, bad[i].says);
    }
    put_text(path, text);
    refuse(folder, other, NULL, -EINVAL, "the base model is a llama");
    assert_int_equal(remove(path), 0);
    refuse(folder, m, NULL, -ENOENT, "config.json");
    put_text(path, text);
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", folder);
    write_shard(path, folder, 1, "beacon");
    assert_int_equal(remove(path), 0);
    refuse(folder, m, NULL, -EINVAL, " is missing");
    write_shard("tests/data/beacon_qwen2.safetensors", folder, 0, "x.lora_A");
    refuse(folder, m, NULL, -EINVAL, "belongs to a LoRA");
    free(text);
    model_close(m);
    model_close(other);
}

/* Not a folder in which nothing was found. */
static void says_that_a_folder_cannot_be_read(void **state)
{
    char folder[SCRATCH_PATH_MAX];
    struct rlimit all, none;
    struct why why = { "" };
    struct published *p;

    (void)state;
    assert_int_equal(mkdir(scratch_path(folder, "closed"), 0700), 0);
    assert_int_equal(published_open(folder, &p, &why), -EINVAL);
    assert_non_null(strstr(why.text, "found no .safetensors"));
    why.text[0] = '\0';
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = all.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(published_open(folder, &p, &why), -EIO);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
    assert_non_null(strstr(why.text, "cannot be read"));
}

/* The same dimensions, but another model: its norm tells. */
static void refuses_another_models_gists(void **state)
{
    char folder[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct model *m;

    (void)state;
    assert_int_equal(model_open("tests/data/tiny_qwen2.gguf", NULL, NULL, &m, &why), 0);
    make_folder("qwen2", "another", folder);
    ((float *)(uintptr_t)m->output_norm)[5] *= 1.02f;
    refuse(folder, m, NULL, -EINVAL, "value 5 of the last norm");
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(computes_what_their_code_does),
        cmocka_unit_test(shards_are_the_same),
        cmocka_unit_test(refuses_what_it_cannot_do),
        cmocka_unit_test(says_that_a_folder_cannot_be_read),
        cmocka_unit_test(refuses_another_models_gists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
