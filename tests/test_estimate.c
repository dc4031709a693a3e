/* tests/test_estimate.c - gistd --plan. Would catch: a count that is not the daemon's own (weights,
 * scratch, pages, keys of a compressed segment), figures that leave those of the roofline page
 * (docs/cuda.md), a plan that reads more than a header, an exit status that says "fits" when it
 * does not. */
#include "daemon/estimate.h"

#include "engine/kv/compress.h"
#include "engine/kv/pool.h"
#include "tests/support/command.h"
#include "tests/support/gguf_build.h"
#include "tests/support/near.h"
#include "tests/support/rig.h"
#include "tests/support/scratch.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- the program ------------------------------------------------------------------------------ */

/* What `gistd --plan` with these flags prints; its exit status. */
static int run_plan(const char *flags, char *ret, size_t cap)
{
    char command[2048];

    (void)snprintf(command, sizeof(command), "%s/gistd %s 2>&1", getenv("BUILD"), flags);
    return command_run(command, ret, cap);
}

/* Numbers of the line that begins so. */
static unsigned numbers_of(const char *text, const char *line, double ret[3])
{
    const char *at = strstr(text, line);
    unsigned n = 0;

    assert_non_null(at);
    at += strlen(line);
    for (char *end; n < 3; n++, at = end) {
        ret[n] = strtod(at, &end);
        if (end == at)
            break;
    }
    return n;
}

/* Llama-3.1-8B as Q4_K_M has it: Q6_K in the output, and in half of the layers' v and down. The
 * file is a hole but for its header. */
static void write_8b(const char *path)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    const uint64_t v[2] = { 4096, 1024 }, down[2] = { 14336, 4096 }, output[2] = { 4096, 128256 };
    struct gguf_build *b;
    char name[64];

    shape.n_layer = 32;
    shape.n_embd = 4096;
    shape.n_ff = 14336;
    shape.n_head = 32;
    shape.n_head_kv = 8;
    shape.head_dim = 128;
    shape.n_ctx = 131072;
    shape.n_vocab = 128256;
    shape.embd = shape.attn = shape.ffn = QUANT_Q4_K;
    shape.tied = false;
    shape.sparse = true;
    b = gguf_build_model(&shape);
    gguf_build_tensor(b, "output.weight", QUANT_Q6_K, 2, output, NULL);
    for (unsigned i = 0; i < 32; i += 2) {
        (void)snprintf(name, sizeof(name), "blk.%u.attn_v.weight", i);
        gguf_build_tensor(b, name, QUANT_Q6_K, 2, v, NULL);
        (void)snprintf(name, sizeof(name), "blk.%u.ffn_down.weight", i);
        gguf_build_tensor(b, name, QUANT_Q6_K, 2, down, NULL);
    }
    gguf_build_write(b, path);
    gguf_build_free(b);
}

/* What the device's memory goes to, a compressor's scratch among it. */
static double parts_of(const char *text)
{
    static const char *const lines[] = { "\nweights", "\nscratch", "\npacking", "\nkept free",
                                         "\ncontext" };
    double sum = 0, n[3];

    for (unsigned i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        assert_int_equal(numbers_of(text, lines[i], n), 2);
        assert_true(n[0] > 0);
        sum += n[0];
    }
    return sum;
}

/* Within two per cent, which the page's two digits leave open. */
static void assert_about(double found, double expected)
{
    assert_true(near_worse(0, found / expected, 1.0) <= 0.02);
}

/* "Fits into 80 GB: 0.53 M tokens raw f16, 1.0 M q8_0, 4.2 M at ratio 8". */
static void roofline(void **state)
{
    char path[SCRATCH_PATH_MAX], flags[1024], text[8192];
    double n[3];

    (void)state;
    write_8b(scratch_path(path, "8b.gguf"));
    (void)snprintf(flags, sizeof(flags),
                   "--plan %s --device cuda-shim --plan-memory 80000000000 --plan-context 1M "
                   "--plan-ratio 8",
                   path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 0);
    assert_int_equal(numbers_of(text, "weights", n), 2);
    assert_about(n[0], 4.92e9);
    assert_true(parts_of(text) == 80000000000.0);
    assert_int_equal(numbers_of(text, "  raw", n), 3);
    assert_about(n[0], 0.53e6);
    assert_about(n[1], 0.53e6 / 2);
    assert_about(n[2], 1.0e6);
    assert_int_equal(numbers_of(text, "\n        8", n), 3);
    assert_about(n[0], 4.2e6);
    /* 1 M at ratio 8: 2047 segments of 4 pages and a raw one of 32, of 2 MiB. */
    assert_non_null(strstr(text, "1048576 tokens at ratio 8 in f16 take 17238589440 bytes"));
    assert_non_null(strstr(text, "they fit"));

    (void)snprintf(flags, sizeof(flags),
                   "--plan %s --device cuda-shim --plan-memory 80000000000 --plan-context 1M",
                   path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 1);
    assert_non_null(strstr(text, "they do not fit"));
    (void)snprintf(flags, sizeof(flags), "--plan %s --plan-memory 4G", path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 1);
    assert_non_null(strstr(text, "The weights do not fit"));
    assert_int_equal(run_plan("--plan /nonexistent.gguf", text, sizeof(text)), 1);
    assert_non_null(strstr(text, "/nonexistent.gguf"));
}

/* Two of 40 GB: each has half of the layers, and one of them the output besides. Less is lost than
 * what both have: scratch and packing. */
static void several_devices(void **state)
{
    static const char sixteen[] = "cuda-shim:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15";
    char path[SCRATCH_PATH_MAX], flags[1024], text[8192];
    double n[3], alone, parts[2][3];
    unsigned from[2], to[2];

    (void)state;
    write_8b(scratch_path(path, "8b.gguf"));
    (void)snprintf(flags, sizeof(flags), "--plan %s --device cuda-shim --plan-memory 80G", path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 0);
    assert_int_equal(numbers_of(text, "\ncontext", n), 2);
    alone = n[0];
    (void)snprintf(flags, sizeof(flags), "--plan %s --device cuda-shim:2,5 --plan-memory 40G",
                   path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 0);
    assert_int_equal(numbers_of(text, "\nmemory", n), 2);
    assert_true(n[0] == 80 * 0x1p30 && parts_of(text) == n[0]);
    assert_int_equal(numbers_of(text, "\ncontext", n), 2);
    assert_true(n[0] < alone && n[0] > 0.9 * alone);
    for (unsigned i = 0; i < 2; i++) {
        const char *line = strstr(text, i ? "\n        5 " : "\n        2 ");

        assert_non_null(line);
        assert_int_equal(sscanf(line + 10, "%u to %u %lf %lf %lf", &from[i], &to[i], &parts[i][0],
                                &parts[i][1], &parts[i][2]),
                         5);
        assert_true(parts[i][0] == 40 * 0x1p30);
    }
    assert_int_equal(from[0], 0);
    assert_in_range(to[0], 13, 17);
    assert_int_equal(from[1], to[0] + 1);
    assert_int_equal(to[1], 31);
    assert_int_equal(numbers_of(text, "\ncontext", n), 2);
    assert_about(parts[0][2] + parts[1][2], n[0]);
    assert_int_equal(numbers_of(text, "\nweights", n), 2);
    assert_true(parts[0][1] + parts[1][1] == n[0]);
    /* As many as there may be, each by its number. */
    (void)snprintf(flags, sizeof(flags), "--plan %s --device %s --plan-memory 40G", path, sixteen);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 0);
    (void)snprintf(flags, sizeof(flags), " on %s: ", sixteen);
    assert_non_null(strstr(text, flags));
    /* Weights that no one device has room for. */
    (void)snprintf(flags, sizeof(flags), "--plan %s --device cuda-shim:0,1 --plan-memory 4G", path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 0);
    (void)snprintf(flags, sizeof(flags), "--plan %s --device cuda-shim:0,1 --plan-memory 2G", path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 1);
    assert_non_null(strstr(text, "The weights do not fit"));
    (void)snprintf(flags, sizeof(flags), "--plan %s --device cuda-shim:all --plan-memory 4G", path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 1);
    assert_non_null(strstr(text, "expected the devices by number"));
}

/* Each with four of the heads, and as much of the context as the other: half of the layers'
 * weights, all of the embedding, and one of them the output besides. */
static void several_devices_by_heads(void **state)
{
    char path[SCRATCH_PATH_MAX], flags[1024], text[8192];
    double n[3], parts[2][3];

    (void)state;
    write_8b(scratch_path(path, "8b.gguf"));
    (void)snprintf(flags, sizeof(flags),
                   "--plan %s --device cuda-shim:2,5 --split-mode tensor --plan-memory 40G", path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 0);
    assert_int_equal(numbers_of(text, "\nmemory", n), 2);
    assert_true(n[0] == 80 * 0x1p30 && parts_of(text) == n[0]);
    assert_non_null(strstr(text, "KV heads"));
    for (unsigned i = 0; i < 2; i++) {
        const char *line = strstr(text, i ? "\n        5 " : "\n        2 ");
        unsigned from, to;

        assert_non_null(line);
        assert_int_equal(sscanf(line + 10, "%u to %u %lf %lf %lf", &from, &to, &parts[i][0],
                                &parts[i][1], &parts[i][2]),
                         5);
        assert_int_equal(from, i * 4);
        assert_int_equal(to, i * 4 + 3);
    }
    assert_true(parts[0][2] == parts[1][2]);
    assert_int_equal(numbers_of(text, "\nweights", n), 2);
    assert_true(parts[0][1] + parts[1][1] == n[0]);
    assert_about(parts[1][1] - parts[0][1], 4096.0 * 128256 * 210 / 256); /* Q6_K */
    assert_about(n[0], 4.92e9 + 4096.0 * 128256 * 148 / 256);             /* Q4_K in tiles */
    (void)snprintf(flags, sizeof(flags),
                   "--plan %s --device cuda-shim:0,1,2 --split-mode tensor --plan-memory 40G",
                   path);
    assert_int_equal(run_plan(flags, text, sizeof(text)), 1);
    assert_non_null(strstr(text, "option split-mode: found 3 devices for 8 KV heads of 128"));
    assert_non_null(strstr(text, "expected 1, 2, 4 or 8"));
}

/* --- the daemon's own counts ------------------------------------------------------------------ */

static void plan_of(const char *path, const char *device, const char *memory, struct estimate *ret)
{
    struct config c;
    struct why why = { "" };

    config_defaults(&c);
    assert_int_equal(config_set(&c, "model", path, "test", &why), 0);
    assert_int_equal(config_set(&c, "device", device, "test", &why), 0);
    assert_int_equal(config_set(&c, "plan-memory", memory, "test", &why), 0);
    assert_int_equal(config_set(&c, "cpu", rig_cpu(), "test", &why), 0);
    assert_int_equal(config_set(&c, "threads", "3", "test", &why), 0);
    assert_int_equal(config_set(&c, "batch-tokens", "48", "test", &why), 0);
    if (estimate_make(&c, ret, &why) < 0)
        fail_msg("%s", why.text);
}

static void counts_are_the_backends(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct gguf_build_shape shape = gguf_build_tiny();
    struct rig_opts o = { path, "auto", KV_Q8_0, .threads = 3, .max_batch = 48, .max_tokens = 64 };
    struct backend_options bo = { .cpu = rig_cpu(), .threads = 3, .max_rows = 48 };
    struct gguf_build *b;
    struct backend_info info;
    struct estimate e;
    struct why why = { "" };
    struct compressor *c;
    uint64_t need, with_desks;
    struct rig r;

    (void)state;
    shape.n_ff = 160;
    b = gguf_build_model(&shape);
    gguf_build_write(b, scratch_path(path, "tiny.gguf"));
    gguf_build_free(b);
    plan_of(path, "cpu", "1G", &e);
    assert_int_equal(rig_open(&r, &o, &why), 0);
    r.backend->ops->info(r.backend, &info);
    assert_int_equal(e.weights, r.model->mem_len);
    assert_int_equal(r.backend->ops->need(&bo, r.model, &need, &why), 0);
    bo.segment = e.segment;
    assert_int_equal(r.backend->ops->need(&bo, r.model, &with_desks, &why), 0);
    if (rig_backend() == &backend_cpu) {
        assert_int_equal(need, info.scratch_bytes);
        assert_int_equal(e.scratch, with_desks);
        assert_true(with_desks > need); /* tests/test_fit.c: by how much */
    }
    assert_true(info.scratch_bytes <= need); /* tests/test_cuda_step.c: when all was of use */
    assert_int_equal(e.page_bytes[KV_Q8_0], r.pool.page_bytes);
    assert_int_equal(e.weights + e.scratch + e.kept_free + e.context, e.memory);
    assert_int_equal(compress_open(r.model, r.backend, &c), 0);
    assert_int_equal(e.packing, compress_scratch_len(c));
    compress_close(c);
    rig_close(&r);
}

/* The library is not beside this program: as the daemon, it plans for the CPU then. */
static void auto_without_a_library(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&shape);
    struct estimate cpu, found;

    (void)state;
    gguf_build_write(b, scratch_path(path, "auto.gguf"));
    gguf_build_free(b);
    plan_of(path, "cpu", "1G", &cpu);
    plan_of(path, "auto", "1G", &found);
    assert_false(found.is_device);
    assert_int_equal(found.scratch, cpu.scratch);
    assert_int_equal(found.context, cpu.context);
}

/* As many keys as the compressor leaves, and not one page more than was said. */
static void tokens_and_pages(void **state)
{
    static const uint32_t ratios[] = { 1, 2, 3, 8, 32, 64 };
    struct estimate e = { .segment = 512 };

    (void)state;
    assert_int_equal(estimate_pages(&e, 0, 8), 0);
    assert_int_equal(estimate_pages(&e, 1, 8), 1);
    assert_int_equal(estimate_pages(&e, 512, 8), 32); /* it is being read */
    assert_int_equal(estimate_pages(&e, 513, 8), 4 + 1);
    assert_int_equal(estimate_pages(&e, 513, 1), 33);
    assert_int_equal(estimate_pages(&e, 1024, 3), 11 + 32); /* 170 keys, 2 remain: 11 pages */
    for (unsigned i = 0; i < sizeof(ratios) / sizeof(*ratios); i++)
        for (uint64_t pages = 1; pages < 400; pages++) {
            uint64_t n = estimate_tokens(&e, pages, ratios[i]);

            assert_true(estimate_pages(&e, n, ratios[i]) <= pages);
            assert_true(estimate_pages(&e, n + 512, ratios[i]) > pages);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roofline),
        cmocka_unit_test(several_devices),
        cmocka_unit_test(several_devices_by_heads),
        cmocka_unit_test(counts_are_the_backends),
        cmocka_unit_test(auto_without_a_library),
        cmocka_unit_test(tokens_and_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
