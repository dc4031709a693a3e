/* Catches: streamed weights that compute other bits than resident ones, by whatever budget, batch,
 * compressor or adapter; a slot that is read over while it is in use; a wrong guess of what comes
 * next; a byte that turned over in the image and is computed with; an I/O error that is not tried
 * again, or ends more than the step; a budget that is passed, or refused without the number that
 * would do; allocations while tokens are made.
 *
 * What is right is what the same engine says with all weights in memory.
 */
#include "engine/file/image_file.h"
#include "engine/file/stream.h"
#include "engine/file/stream_fit.h"
#include "store/io.h"
#include "tests/support/counted.h"
#include "tests/support/fault.h"
#include "tests/support/gguf_build.h"
#include "tests/support/io_faulty.h"
#include "tests/support/memory_rig.h"
#include "tests/support/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define BATCH 32u
#define N_IDS 24u

static const struct io_options any_io = { .kind = IO_AUTO }, by_threads = { .kind = IO_THREADS };
static char images[SCRATCH_PATH_MAX];

static const char *const models[] = { "tests/data/tiny_llama31.gguf",
                                      "tests/data/tiny_smollm2.gguf", "tests/data/tiny_qwen2.gguf",
                                      "tests/data/tiny_qwen2_untied.gguf" };
#define N_MODELS (sizeof(models) / sizeof(*models))

static struct rig_opts opts_of(const char *model, uint64_t budget)
{
    return (struct rig_opts){ .model = model,
                              .cpu = "auto",
                              .kv = KV_F16,
                              .threads = 2,
                              .max_batch = BATCH,
                              .max_tokens = 2048,
                              .weight_bytes = budget,
                              .images = images,
                              .io = &any_io };
}

static void open_rig(struct rig *r, const struct rig_opts *o)
{
    struct why why = { "" };

    expect_that(rig_open(r, o, &why) == 0, "%s: %s", o->model, why.text);
    expect_that(!o->weight_bytes || r->model->stream, "it streams");
}

static uint32_t id_of(const struct model *m, uint32_t i)
{
    return (uint32_t)(i * UINT64_C(2654435761) >> 7) % m->n_vocab;
}

static float *logits_of(struct rig *r, uint32_t n, uint32_t chunk)
{
    float *ret = calloc((size_t)n * r->model->n_vocab, sizeof(*ret));
    uint32_t ids[N_IDS];
    struct seq seq;

    assert_true(n <= N_IDS);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = id_of(r->model, i);
    assert_int_equal(rig_seq(r, n, 64, 0, &seq), 0);
    assert_int_equal(rig_feed(r, &seq, ids, n, chunk, ret), 0);
    seq_close(&seq);
    return ret;
}

static size_t least_of(const char *path, size_t *ret_all)
{
    struct stream_fit f;
    struct model *m;
    size_t least;

    assert_int_equal(model_open(path, NULL, NULL, &m, NULL), 0);
    assert_int_equal(stream_fit(m, 1, &f, &least), -EINVAL);
    *ret_all = m->packed.len;
    model_close(m);
    return least;
}

/* A model of many layers, more than the ring has slots. */
static const char *deep(bool tied)
{
    static char path[SCRATCH_PATH_MAX];
    struct gguf_build_shape s = gguf_build_tiny();
    struct gguf_build *b;

    s.n_layer = 9;
    s.tied = tied;
    s.attn = s.ffn = QUANT_Q8_0;
    s.n_vocab = 3001;
    b = gguf_build_model(&s);
    gguf_build_write(b, scratch_path(path, tied ? "tied.gguf" : "untied.gguf"));
    gguf_build_free(b);
    return path;
}

/* --- the same bits ---------------------------------------------------------------------------- */

static void same_at(const char *model, uint64_t budget, const float *want,
                    const struct io_options *io)
{
    static const uint32_t chunks[] = { 1, 7, BATCH };
    struct rig_opts o = opts_of(model, budget);
    struct stream_stats stats;
    struct rig r;

    o.io = io;
    open_rig(&r, &o);
    for (unsigned c = 0; c < sizeof(chunks) / sizeof(*chunks); c++) {
        float *got = logits_of(&r, N_IDS, chunks[c]);

        if (memcmp(got, want, (size_t)N_IDS * r.model->n_vocab * sizeof(*got)) != 0)
            fail_msg("%s, %llu bytes, chunks of %u: other logits", model,
                     (unsigned long long)budget, chunks[c]);
        free(got);
    }
    stream_stats(r.model->stream, &stats);
    assert_true(stats.memory <= budget);
    assert_true(stats.read > 0);
    assert_true(stats.waited_ns > 0 && stats.waited_ns <= stats.step_ns);
    rig_close(&r);
}

static void same_everywhere(const char *model, unsigned n)
{
    struct rig_opts o = opts_of(model, 0);
    size_t all, least = least_of(model, &all);
    struct rig r;
    float *want;

    open_rig(&r, &o);
    want = logits_of(&r, N_IDS, BATCH);
    rig_close(&r);
    for (unsigned i = 0; i < n; i++) {
        uint64_t budget = least + (all - 1 - least) * i / (n - 1);

        assert_true(least < all);
        same_at(model, budget, want, i % 2 ? &by_threads : &any_io);
    }
    free(want);
}

static void test_models(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_MODELS; i++)
        same_everywhere(models[i], 3);
}

static void test_deep(void **state)
{
    (void)state;
    same_everywhere(deep(true), 6);
    same_everywhere(deep(false), 6);
}

/* The released model, when it is here. */
static void test_default_model(void **state)
{
    const char *path = getenv("GISTD_TEST_MODEL");
    struct rig_opts o = opts_of(path, 0);
    uint32_t n = 5;
    float *want, *got;
    struct rig r;

    (void)state;
    if (!path || !*path) {
        printf("skipped: GISTD_TEST_MODEL names no model\n");
        skip();
    }
    open_rig(&r, &o);
    want = logits_of(&r, n, 4);
    rig_close(&r);
    o.weight_bytes = 40u << 20;
    open_rig(&r, &o);
    for (uint32_t chunk = 1; chunk <= 4; chunk += 3) {
        got = logits_of(&r, n, chunk);
        assert_memory_equal(got, want, n * r.model->n_vocab * sizeof(*got));
        free(got);
    }
    rig_close(&r);
    free(want);
}

/* --- compressors and adapters ----------------------------------------------------------------- */

#define SEGMENT 64u
#define N_LONG  200u

/* *ret_len: of the logits, in bytes. */
static float *memory_logits(const struct rig_opts *o, const char *adapter, struct policy policy,
                            size_t *ret_len)
{
    struct memory_rig m;
    struct memory memory;
    struct adapter *a = NULL;
    uint32_t ids[N_LONG];
    struct why why = { "" };
    struct seq seq;
    float *ret;

    expect_that(memory_rig_open(&m, o, &why) == 0, "%s", why.text);
    if (adapter)
        expect_that(adapter_open(adapter, m.rig.model, &a, &why) == 0, "%s", why.text);
    policy.spec.adapter = a;
    for (uint32_t i = 0; i < N_LONG; i++)
        ids[i] = id_of(m.rig.model, i);
    *ret_len = (size_t)N_LONG * m.rig.model->n_vocab * sizeof(*ret);
    ret = calloc(1, *ret_len);
    assert_int_equal(seq_open(&seq, &m.rig.pool, &m.rig.account, 1024, SEGMENT, 0), 0);
    assert_int_equal(memory_init(&memory, &policy, &m.served, &seq), 0);
    assert_int_equal(memory_rig_feed(&m, &memory, ids, N_LONG, 29, ret), 0);
    memory_fini(&memory);
    seq_close(&seq);
    adapter_close(a);
    memory_rig_close(&m);
    return ret;
}

static void test_memories(void **state)
{
    static const struct {
        const char *adapter;
        struct policy policy;
    } cases[] = {
        { NULL, { .spec = { COMPRESS_SELECT, 8, 4, NULL }, .seg_len = SEGMENT, .budget = 4096 } },
        { NULL,
          { .spec = { COMPRESS_SELECT_REREAD, 4, 3, NULL },
            .seg_len = SEGMENT,
            .keep_tail = 21,
            .budget = 4096 } },
        { "tests/data/gist_qwen2.safetensors",
          { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = SEGMENT, .budget = 4096 } },
        { "tests/data/gist_qwen2_coarse.safetensors",
          { .spec = { COMPRESS_COARSE_KV, 8, 4, NULL }, .seg_len = SEGMENT, .budget = 4096 } },
        { "tests/data/gist_qwen2_rec.safetensors",
          { .spec = { COMPRESS_COARSE_REC, 8, 4, NULL }, .seg_len = SEGMENT, .budget = 4096 } },
        { "tests/data/gist_qwen2_among.safetensors",
          { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = SEGMENT, .budget = 4096 } },
    };
    const char *model = "tests/data/tiny_qwen2.gguf";
    size_t all, least = least_of(model, &all);

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct rig_opts resident = opts_of(model, 0), streamed = opts_of(model, least);
        size_t len, len2;
        float *want, *got;

        resident.max_batch = streamed.max_batch = 2 * SEGMENT;
        want = memory_logits(&resident, cases[i].adapter, cases[i].policy, &len);
        got = memory_logits(&streamed, cases[i].adapter, cases[i].policy, &len2);

        assert_int_equal(len, len2);
        expect_that(memcmp(want, got, len) == 0, "case %u: other logits", i);
        free(want);
        free(got);
    }
}

/* --- steps of all kinds ----------------------------------------------------------------------- */

struct stop_at {
    unsigned n;
};

static bool stop_now(void *arg)
{
    struct stop_at *s = arg;

    return s->n-- == 0;
}

/* Steps without outputs, steps that are given up after any number of layers, and steps with
 * outputs, in turn: the ring's guesses are wrong at each seam. */
static void test_wrong_guesses(void **state)
{
    const char *model = deep(true);
    struct rig_opts o = opts_of(model, 0);
    size_t all, least = least_of(model, &all);
    float *want, *got;
    struct rig r;

    (void)state;
    open_rig(&r, &o);
    want = logits_of(&r, 24, 24);
    rig_close(&r);
    for (unsigned round = 0; round < 3; round++) {
        struct seq seq;

        o.weight_bytes = least + (all - least) * round / 3;
        open_rig(&r, &o);
        got = calloc(r.model->n_vocab, sizeof(*got));
        assert_int_equal(rig_seq(&r, 64, 64, 0, &seq), 0);
        for (uint32_t t = 0; t < 24; t++) {
            struct stop_at at = { t % 9 };
            struct forward_stop stop = { stop_now, &at };
            uint32_t id = id_of(r.model, t), n_out;
            struct forward_run run = { .seq = &seq, .tokens = &id, .n_tokens = 1 };

            assert_int_equal(seq_reserve(&seq, 1), 0);
            run.want = t % 3 ? FORWARD_WANT_LAST : FORWARD_WANT_NONE;
            assert_int_equal(forward_step(&r.forward, &run, 1, &stop, &n_out), -ECANCELED);
            assert_int_equal(forward_step(&r.forward, &run, 1, NULL, &n_out), 0);
            if (t % 3 == 0)
                continue;
            /* Twice: who asks for more rows than fit at once has the matrix come by again. */
            for (unsigned k = 0; k < 1 + t % 2; k++) {
                memset(got, 0, r.model->n_vocab * sizeof(*got));
                assert_int_equal(forward_logits(&r.forward, 0, 1, got), 0);
                assert_memory_equal(got, want + (size_t)t * r.model->n_vocab,
                                    r.model->n_vocab * sizeof(*got));
            }
        }
        seq_close(&seq);
        free(got);
        rig_close(&r);
    }
    free(want);
}

/* Two sequences in a step, and log-probabilities of more rows than are made at once. */
static void two_sequences(struct rig *r, float *ret)
{
    uint32_t ids[2][13], n_out;
    struct forward_run runs[2];
    struct seq seq[2];

    for (unsigned k = 0; k < 2; k++) {
        for (uint32_t i = 0; i < 13; i++)
            ids[k][i] = id_of(r->model, 100 * k + i);
        assert_int_equal(rig_seq(r, 64, 64, 0, &seq[k]), 0);
        assert_int_equal(seq_reserve(&seq[k], 13), 0);
        runs[k] = (struct forward_run){
            .seq = &seq[k], .tokens = ids[k], .n_tokens = 13, .want = FORWARD_WANT_ALL
        };
    }
    assert_int_equal(forward_step(&r->forward, runs, 2, NULL, &n_out), 0);
    assert_int_equal(n_out, 26);
    assert_int_equal(forward_logprobs(&r->forward, 0, 26, ids[0], ret), 0);
    for (unsigned k = 0; k < 2; k++)
        seq_close(&seq[k]);
}

static void test_batch(void **state)
{
    const char *model = deep(false);
    struct rig_opts o = opts_of(model, 0);
    float want[26], got[26];
    size_t all;
    struct rig r;

    (void)state;
    open_rig(&r, &o);
    two_sequences(&r, want);
    rig_close(&r);
    o.weight_bytes = least_of(model, &all);
    open_rig(&r, &o);
    two_sequences(&r, got);
    rig_close(&r);
    assert_memory_equal(got, want, sizeof(want));
}

static void test_allocations(void **state)
{
    const char *model = deep(true);
    struct rig_opts o = opts_of(model, 0);
    size_t all;
    struct rig r;
    uint64_t before;
    struct seq seq;
    float *got;

    (void)state;
    o.weight_bytes = least_of(model, &all);
    open_rig(&r, &o);
    got = calloc(r.model->n_vocab, sizeof(*got));
    assert_int_equal(rig_seq(&r, 64, 64, 0, &seq), 0);
    before = fault_n_allocations();
    for (uint32_t t = 0; t < 8; t++) {
        uint32_t id = id_of(r.model, t);

        assert_int_equal(rig_feed(&r, &seq, &id, 1, 1, got), 0);
    }
    assert_int_equal(fault_n_allocations(), before);
    seq_close(&seq);
    free(got);
    rig_close(&r);
}

/* --- what is not right ------------------------------------------------------------------------ */

/* The image of the model that was opened last. */
static int open_the_image(void)
{
    char path[SCRATCH_PATH_MAX] = "";
    DIR *d = opendir(images);
    struct dirent *e;
    int fd;

    assert_non_null(d);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.') {
            assert_true(path[0] == '\0'); /* there is one alone */
            (void)snprintf(path, sizeof(path), "%.120s/%.120s", images, e->d_name);
        }
    (void)closedir(d);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void remove_images(void)
{
    DIR *d = opendir(images);
    struct dirent *e;

    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.')
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
    if (d)
        (void)closedir(d);
}

static void flip(int fd, off_t at)
{
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(fsync(fd), 0);
}

static int one_token(struct rig *r, float *ret)
{
    uint32_t id = id_of(r->model, 0), n_out;
    struct forward_run run = { .tokens = &id, .n_tokens = 1, .want = FORWARD_WANT_ALL };
    struct seq seq;
    int e;

    assert_int_equal(rig_seq(r, 16, 64, 0, &seq), 0);
    run.seq = &seq;
    assert_int_equal(seq_reserve(&seq, 1), 0);
    e = forward_step(&r->forward, &run, 1, NULL, &n_out);
    if (e == 0)
        e = forward_logits(&r->forward, 0, 1, ret);
    seq_close(&seq);
    return e;
}

/* A byte of every extent that passes turns over while we serve: no step answers with it, and when
 * it is right again, so are the steps. */
static void test_flipped_while_serving(void **state)
{
    static const char *const words[] = { "the embedding of token", "output rows", "layer" };
    const char *model = deep(false);
    struct rig_opts o = opts_of(model, 0);
    float *want, *got;
    struct rig r;
    size_t all;
    int fd;

    (void)state;
    remove_images();
    o.weight_bytes = least_of(model, &all);
    open_rig(&r, &o);
    want = logits_of(&r, 1, 1);
    got = calloc(r.model->n_vocab, sizeof(*got));
    fd = open_the_image();
    for (uint32_t x = PACKED_EMBD; x < r.model->packed.n_extents; x++) {
        const struct packed_extent *e = &r.model->packed.extents[x];
        /* Of the embedding, the row that is read. */
        size_t tile = x == PACKED_EMBD ? id_of(r.model, 0) / 16 : 0;
        off_t at = (off_t)(image_head_len(&r.model->packed) + e->off + tile * e->piece + 5);

        flip(fd, at);
        /* What was read ahead before is still right: a step or two may be. */
        for (unsigned i = 0; i < 2; i++)
            if (one_token(&r, got) == 0)
                assert_memory_equal(got, want, r.model->n_vocab * sizeof(*got));
        assert_int_equal(one_token(&r, got), -EBADMSG);
        expect_that(
            strstr(stream_why(r.model->stream), words[x < PACKED_LAYERS ? x - PACKED_EMBD : 2]),
            "extent %u: %s", x, stream_why(r.model->stream));
        flip(fd, at);
        assert_int_equal(one_token(&r, got), 0);
        assert_memory_equal(got, want, r.model->n_vocab * sizeof(*got));
    }
    (void)close(fd);
    free(want);
    free(got);
    rig_close(&r);
}

/* A damaged image is made anew at the start, also where only what stays is damaged. */
static void test_flipped_before(void **state)
{
    const char *model = deep(true);
    struct rig_opts o = opts_of(model, 0);
    size_t all, least = least_of(model, &all);
    struct why why = { "" };
    float *want, *got;
    struct rig r;
    int fd;

    (void)state;
    remove_images();
    o.weight_bytes = least;
    open_rig(&r, &o);
    want = logits_of(&r, 1, 1);
    got = calloc(r.model->n_vocab, sizeof(*got));
    fd = open_the_image();
    flip(fd, 60); /* the head */
    rig_close(&r);
    open_rig(&r, &o);
    assert_int_equal(one_token(&r, got), 0);
    assert_memory_equal(got, want, r.model->n_vocab * sizeof(*got));
    (void)close(fd);
    fd = open_the_image();
    flip(fd, (off_t)image_head_len(&r.model->packed)); /* output_norm */
    rig_close(&r);
    expect_that(rig_open(&r, &o, &why) == 0, "%s", why.text);
    assert_int_equal(one_token(&r, got), 0);
    assert_memory_equal(got, want, r.model->n_vocab * sizeof(*got));
    (void)close(fd);
    free(want);
    free(got);
    rig_close(&r);
}

/* --- disks on bad days ------------------------------------------------------------------------ */

/* The io of a stream that is opened while `faulty` is set goes through one that fails. */
static bool faulty;
static struct io *the_io;

int __real_io_open(const struct io_options *o, struct io **ret, struct why *why);
int __wrap_io_open(const struct io_options *o, struct io **ret, struct why *why);
int __wrap_io_open(const struct io_options *o, struct io **ret, struct why *why)
{
    struct io *inner;
    int r;

    if (!faulty)
        return __real_io_open(o, ret, why);
    r = __real_io_open(o, &inner, why);
    if (r < 0)
        return r;
    assert_int_equal(io_faulty_open(inner, &the_io), 0);
    *ret = the_io;
    return 0;
}

/* A model that streams from a disk that does as it is told. *ret_want: logits of one token. */
static void open_faulty(struct rig *r, bool tied, float **ret_want)
{
    const char *model = deep(tied);
    struct rig_opts o = opts_of(model, 0);
    size_t all;

    o.weight_bytes = least_of(model, &all);
    faulty = true;
    open_rig(r, &o);
    faulty = false;
    *ret_want = logits_of(r, 1, 1);
}

static void assert_right(struct rig *r, const float *want)
{
    float *got = calloc(r->model->n_vocab, sizeof(*got));

    assert_int_equal(one_token(r, got), 0);
    assert_memory_equal(got, want, r->model->n_vocab * sizeof(*got));
    free(got);
}

/* Any one read of a step fails, or ends early: it is read once more, and nobody sees a difference.
 */
static void test_one_fault(void **state)
{
    static const struct io_fault faults[] = {
        { .code = IO_READ, .what = IO_FAULT_ERROR, .error = EIO },
        { .code = IO_READ, .what = IO_FAULT_EARLY },
    };
    struct rig r;
    float *want;

    (void)state;
    for (unsigned k = 0; k < 2 * sizeof(faults) / sizeof(*faults); k++) {
        uint64_t before, n;

        open_faulty(&r, k / 2, &want);
        before = io_faulty_n(the_io, IO_READ);
        assert_right(&r, want);
        n = io_faulty_n(the_io, IO_READ) - before;
        assert_true(n > 9);
        for (uint64_t i = 1; i <= n; i++) {
            struct io_fault f = faults[k % 2];

            f.nth = i;
            io_faulty_add(the_io, &f);
            assert_right(&r, want);
            io_faulty_clear(the_io);
        }
        free(want);
        rig_close(&r);
    }
}

/* All of them fail: the step does, with a sentence, and the first one behind the trouble is right.
 */
static void test_all_fail(void **state)
{
    static const int errors[] = { EIO, ENODEV };
    struct rig r;
    float *want, *junk;

    (void)state;
    open_faulty(&r, false, &want);
    junk = calloc(r.model->n_vocab, sizeof(*junk));
    for (unsigned k = 0; k < sizeof(errors) / sizeof(*errors); k++) {
        struct io_fault f = { .code = IO_READ, .what = IO_FAULT_ERROR, .error = errors[k] };
        int e = 0;

        io_faulty_add(the_io, &f);
        for (unsigned i = 0; i < 3; i++) /* what was read ahead lasts for a while */
            e = one_token(&r, junk);
        assert_int_equal(e, -errors[k]);
        expect_that(strstr(stream_why(r.model->stream), strerror(errors[k])), "%s",
                    stream_why(r.model->stream));
        io_faulty_clear(the_io);
        assert_right(&r, want);
    }
    free(junk);
    free(want);
    rig_close(&r);
}

/* Reads come back in any order, some when nothing else is left. */
static void test_late(void **state)
{
    struct rig r;
    float *want;

    (void)state;
    open_faulty(&r, true, &want);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct io_fault f = { .code = IO_READ, .nth = seed, .what = IO_FAULT_LATE };

        io_faulty_shuffle(the_io, seed);
        io_faulty_add(the_io, &f);
        assert_right(&r, want);
        io_faulty_clear(the_io);
    }
    free(want);
    rig_close(&r);
}

/* Each call that an opening makes fails once: nothing stays behind, and what opens all the same is
 * a whole model. Without a budget the image is mapped. */
static void test_calls_fail(void **state)
{
    const struct backend_options bo = { .cpu = "scalar", .threads = 2, .max_rows = BATCH };
    const char *model = deep(true);
    size_t all, least = least_of(model, &all);
    struct model_options o = { .images = images, .io = &by_threads };
    struct backend *b;
    struct fault f;

    (void)state;
    assert_int_equal(backend_open(&backend_cpu, &bo, &b, NULL), 0);
    for (unsigned k = 0; k < 4; k++) {
        uint64_t n;

        o.weight_bytes = k % 2 ? 0 : least;
        for (n = 1;; n++) {
            unsigned fds = fault_n_descriptors();
            int64_t mapped = fault_mapped();
            struct model *m = NULL;
            struct why why = { "" };
            int r;

            if (k < 1)
                remove_images(); /* it is made, too */
            fault_arm(n);
            r = model_open_as(model, b, &o, &m, &why);
            (void)fault_disarm(&f);
            expect_that(r == 0 || why.text[0], "%s failed: %d without a sentence", f.name, r);
            if (r == 0)
                assert_true(m->mem && m->layers[8].w_down.data);
            model_close(m);
            expect_that(fault_n_descriptors() == fds, "%s failed: a descriptor is left", f.name);
            expect_that(fault_mapped() == mapped, "%s failed: memory is left", f.name);
            if (!f.name)
                break;
        }
        assert_true(n > 8);
    }
    backend_close(b);
}

static void test_budgets(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const char *model = deep(i == 0);
        size_t all, least = least_of(model, &all), last = 0;
        struct rig_opts o = opts_of(model, least - 1);
        struct why why = { "" };
        char number[32];
        struct rig r;
        struct model *m;

        assert_int_equal(rig_open(&r, &o, &why), -EINVAL);
        (void)snprintf(number, sizeof(number), "%zu", least);
        expect_that(strstr(why.text, number), "%s", why.text);
        o.images = NULL;
        o.weight_bytes = least;
        why.text[0] = '\0';
        assert_int_equal(rig_open(&r, &o, &why), -EINVAL);
        expect_that(strstr(why.text, "weight-cache"), "%s", why.text);

        /* More is never worse, and never more than was allowed. */
        assert_int_equal(model_open(model, NULL, NULL, &m, NULL), 0);
        for (uint64_t b = least; b < all; b += 977) {
            size_t kept = 0;
            struct stream_fit f;

            assert_int_equal(stream_fit(m, b, &f, &least), 0);
            assert_true(f.len <= b);
            for (uint32_t x = 0; x < m->packed.n_extents; x++)
                kept += stream_fit_keeps(&f, &m->packed, x) ? m->packed.extents[x].len : 0;
            assert_true(kept >= last);
            last = kept;
        }
        model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),         cmocka_unit_test(test_deep),
        cmocka_unit_test(test_default_model),  cmocka_unit_test(test_memories),
        cmocka_unit_test(test_wrong_guesses),  cmocka_unit_test(test_batch),
        cmocka_unit_test(test_allocations),    cmocka_unit_test(test_flipped_while_serving),
        cmocka_unit_test(test_flipped_before), cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_one_fault),      cmocka_unit_test(test_all_fail),
        cmocka_unit_test(test_late),           cmocka_unit_test(test_calls_fail),
    };

    if (rig_backend() != &backend_cpu) {
        puts("only the CPU streams weights");
        return 77;
    }
    (void)scratch_path(images, "weights");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
