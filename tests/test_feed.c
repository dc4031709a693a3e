/* Would catch: bytes of a file that come twice, late or from elsewhere, at the end of the ring or
 * of a piece; a way past the page cache that is not taken, or taken for what lies there; a file
 * that shrinks taken for its bytes.
 */
#include "base/digest.h"
#include "engine/backend.h"
#include "engine/file/feed.h"
#include "engine/file/gguf.h"
#include "engine/file/hparams.h"
#include "engine/file/weights.h"
#include "store/io.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

static struct backend *backend;
static char path[SCRATCH_PATH_MAX];
static uint8_t *bytes; /* of the file */
static size_t len;

static int open_backend(void **state)
{
    const struct backend_options o = { .cpu = "auto", .threads = 2, .max_rows = 16 };
    struct why why;

    (void)state;
    return backend_open(&backend_cpu, &o, &backend, &why);
}

static int close_backend(void **state)
{
    (void)state;
    free(bytes);
    backend_close(backend);
    return 0;
}

/* A model of 20 MB. */
static struct gguf *open_model(void)
{
    struct gguf_build_shape s = gguf_build_tiny();
    struct gguf_build *b;
    struct why why = { "" };
    struct gguf *g;

    s.n_embd = 512;
    s.n_ff = 1024;
    s.head_dim = 128;
    b = gguf_build_model(&s);
    free(bytes);
    bytes = gguf_build_bytes(b, &len, NULL);
    gguf_build_write(b, scratch_path(path, "fed.gguf"));
    gguf_build_free(b);
    assert_int_equal(gguf_open(path, &g, &why), 0);
    return g;
}

/* In steps that no boundary is a multiple of; now and then with the copies of the next pieces. */
static void read_all(const struct gguf *g, const struct feed_options *o, uint64_t *ret_direct,
                     uint64_t *ret_cached)
{
    static const size_t steps[] = { 1, 4095, 70001, 2 * MIB + 3, 12345, 3 * MIB };
    struct why why = { "" };
    struct feed *f;

    assert_int_equal(feed_open(g, backend, o, &f, &why), 0);
    assert_int_equal(feed_at(f), o->from);
    for (size_t at = o->from, i = 0; at < len; i++) {
        size_t n = steps[i % 6] < len - at ? steps[i % 6] : len - at;
        const uint8_t *got;

        assert_int_equal(feed_look(f, n, &got), 0);
        if (i % 2) {
            uint32_t copies = feed_begin(f);

            while (copies > 0)
                feed_slice(f, --copies);
            feed_end(f);
        }
        assert_memory_equal(got, bytes + at, n);
        feed_pass(f, n);
        at += n;
        assert_int_equal(feed_at(f), at);
    }
    feed_counts(f, ret_direct, ret_cached);
    feed_close(f);
}

/* Rings of all sizes from the smallest on, either way, and with threads in the kernel's place. */
static void test_bytes(void **state)
{
    static const struct io_options threads = { .kind = IO_THREADS, .threads = 2, .depth = 3 };
    static const struct io_options one = { .kind = IO_THREADS, .threads = 1, .depth = 1 };
    struct gguf *g = open_model();
    uint64_t direct, cached;

    (void)state;
    for (size_t ahead = MIB; ahead <= 16 * MIB; ahead *= 4) {
        struct feed_options o = { .from = 1000, .longest = 3 * MIB, .ahead = ahead };

        read_all(g, &o, &direct, &cached);
        assert_int_equal(direct + cached, len);
        o.direct = true;
        read_all(g, &o, &direct, &cached);
        assert_int_equal(direct + cached,
                         len); /* a file system without O_DIRECT has only the one */
        o.io = &threads;
        read_all(g, &o, &direct, &cached);
        assert_int_equal(direct + cached, len);
        o.io = &one; /* fewer at once than are looked at */
        read_all(g, &o, &direct, &cached);
        assert_int_equal(direct + cached, len);
    }
    gguf_close(g);
}

/* Whether this file system and this kernel do as they are asked. */
static bool can_tell(const struct gguf *g)
{
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    char byte;
    struct iovec to = { &byte, 1 };

    if (fd < 0)
        return false;
    (void)close(fd);
    (void)fsync(gguf_fd(g));
    (void)posix_fadvise(gguf_fd(g), 0, 0, POSIX_FADV_RANDOM); /* read what is asked for alone */
    (void)posix_fadvise(gguf_fd(g), 0, 0, POSIX_FADV_DONTNEED);
    return preadv2(gguf_fd(g), &to, 1, (off_t)(len / 2), RWF_NOWAIT) < 0;
}

/* Each piece comes from where it is: the cache has the second half. */
static void test_from_where_it_is(void **state)
{
    const struct feed_options o = { .from = 1000, .longest = 3 * MIB };
    struct gguf *g = open_model();
    uint64_t direct, cached;
    uint8_t *half = malloc(len);

    (void)state;
    assert_non_null(half);
    read_all(g, &o, &direct, &cached);
    assert_int_equal(cached, len); /* it was written just now */
    if (!can_tell(g)) {
        print_message("no O_DIRECT here, or pages that are not let go\n");
    } else {
        assert_true(pread(gguf_fd(g), half, len / 2, (off_t)(len / 2)) > 0);
        read_all(g, &o, &direct, &cached);
        assert_in_range(direct, len / 4, len * 3 / 4);
        assert_in_range(cached, len / 4, len * 3 / 4);
    }
    free(half);
    gguf_close(g);
}

static void fails(struct gguf *g, bool direct, const char *sentence)
{
    const struct feed_options o = { .from = 1000, .longest = 3 * MIB, .direct = direct };
    struct why why = { "" };
    const uint8_t *got;
    struct feed *f;
    int r = 0;

    assert_int_equal(feed_open(g, backend, &o, &f, &why), 0);
    for (size_t at = o.from; r == 0 && at + MIB < len; at += MIB) {
        r = feed_look(f, MIB, &got);
        if (r == 0)
            feed_pass(f, MIB);
    }
    assert_int_equal(r, -EINVAL);
    assert_non_null(strstr(why.text, sentence));
    feed_close(f);
}

static void test_shrinks(void **state)
{
    struct gguf *g = open_model();

    (void)state;
    assert_int_equal(truncate(path, 5 * MIB + 77), 0);
    fails(g, false, "now ends at byte 5242957; it had ");
    fails(g, true, "now ends at byte 5242957; it had ");
    gguf_close(g);
}

static uint8_t *read_weights(const struct feed_options *way, char digest[DIGEST_LEN], size_t *ret_n)
{
    const float *factors = NULL;
    struct model m = { .arch = MODEL_QWEN2 };
    struct why why = { "" };
    struct weights w;
    struct gguf *g;
    uint8_t *mem;
    float scale;

    assert_int_equal(gguf_open(path, &g, &why), 0);
    assert_int_equal(hparams_read(g, &m, &scale, &why), 0);
    assert_int_equal(weights_plan(g, &m, &factors, &w, &why), 0);
    *ret_n = m.packed.len;
    mem = calloc(1, m.packed.len);
    assert_non_null(mem);
    w.read = way;
    assert_int_equal(weights_read(&w, backend, mem, NULL, digest), 0);
    weights_fini(&w);
    packed_close(&m.packed);
    free(m.layers);
    gguf_close(g);
    return mem;
}

/* The whole model, by either way: the same bits and the same digest, which is that of the file. */
static void test_weights(void **state)
{
    static const struct feed_options ways[] = { { 0 }, { .direct = true } };
    char digest[2][DIGEST_LEN], want[DIGEST_LEN];
    XXH3_state_t *hash = XXH3_createState();
    uint8_t *mem[2];
    size_t n[2];

    (void)state;
    gguf_close(open_model());
    for (int i = 0; i < 2; i++)
        mem[i] = read_weights(&ways[i], digest[i], &n[i]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(mem[0], mem[1], n[0]);
    (void)XXH3_128bits_reset(hash);
    (void)XXH3_128bits_update(hash, bytes, len);
    digest_put(hash, want);
    assert_string_equal(digest[0], want);
    assert_string_equal(digest[1], want);
    (void)XXH3_freeState(hash);
    free(mem[0]);
    free(mem[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_from_where_it_is),
        cmocka_unit_test(test_shrinks),
        cmocka_unit_test(test_weights),
    };

    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
