/* tests/test_adapter_write.c - would catch: a file that our reader refuses or reads as something
 * else, values that are rounded another way than the daemon's own, a file left behind by a write
 * that failed, one that was there and is gone.
 */
#include "train/file/adapter_write.h"

#include "engine/file/quant.h"
#include "tests/support/file.h"
#include "tests/support/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define N 100000u /* values, more than are converted at a time */

static float values[N], got[N];
static uint16_t half[N];

static const struct adapter_write_pair pairs[] = { { "format", "x\"y\\z\n" }, { "b", "" } };

/* Numbers of all sizes, and those where roundings go wrong: ties, the largest, what becomes
 * infinite, subnormal ones, none. */
static void fill(void)
{
    static const float special[] = { 0.0f,     -0.0f,    1.00390625f, 1.01171875f, 65504.0f,
                                     65519.9f, 65520.0f, 3.4e38f,     6e-8f,       2.9e-8f,
                                     6.1e-5f,  INFINITY, -INFINITY,   NAN };
    uint32_t x = 1;

    for (uint32_t i = 0; i < N; i++) {
        x = x * 1664525u + 1013904223u;
        values[i] = ldexpf((float)(x >> 8) / 8388608.0f - 1.0f, (int)(x % 40) - 20);
    }
    memcpy(values, special, sizeof(special));
}

static float of_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* Of the two bf16 numbers around x the nearer one, of equally near ones the even one; past the
 * largest one counts infinity as the next power of two. */
static float nearest_bf16(float x)
{
    uint32_t bits;
    double below, above;

    memcpy(&bits, &x, sizeof(bits));
    bits &= 0xffff0000u;
    below = of_bits(bits);
    above = isinf(of_bits(bits + 0x10000)) ? copysign(0x1p128, x) : of_bits(bits + 0x10000);
    if (!isfinite(x) || fabs(x - below) < fabs(above - x))
        return isnan(x) ? NAN : (float)below;
    if (fabs(x - below) == fabs(above - x) && bits % 0x20000 == 0)
        return (float)below;
    return of_bits(bits + 0x10000);
}

static bool same(float a, float b)
{
    return isnan(a) ? isnan(b) : a == b && signbit(a) == signbit(b);
}

static int fetch(void *arg, size_t i, float *ret, struct why *why)
{
    size_t *next = arg;

    if (i != *next)
        return why_set(why, -EIO, "asked for tensor %zu, expected %zu", i, *next);
    *next = i + 2;
    memcpy(ret, values, (size_t)N * sizeof(float));
    return 0;
}

static void is_read_back(void **state)
{
    static const enum quant as[] = { QUANT_F32, QUANT_F16, QUANT_BF16 };
    struct adapter_write_tensor t[] = {
        { "a", SAFETENSORS_F32, 2, { 1000, N / 1000 }, values },
        { "b", SAFETENSORS_F16, 1, { N }, NULL },
        { "c \"quoted\"", SAFETENSORS_BF16, 3, { 2, N / 4, 2 }, values },
        { "d", SAFETENSORS_F16, 1, { N }, NULL },
        { "one", SAFETENSORS_BF16, 0, { 0 }, values },
        { "none", SAFETENSORS_F32, 2, { 0, 3 }, values },
    };
    struct adapter_write w = { .pairs = pairs,
                               .n_pairs = 2,
                               .tensors = t,
                               .n_tensors = sizeof(t) / sizeof(*t),
                               .fetch = fetch };
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct safetensors *s;
    size_t next = 1;

    (void)state;
    w.arg = &next;
    if (adapter_write(scratch_path(path, "all.safetensors"), &w, &why) < 0 ||
        safetensors_open(path, &s, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(next, 5);
    assert_int_equal(safetensors_n(s), w.n_tensors);
    assert_string_equal(safetensors_meta(s, "format"), "x\"y\\z\n");
    assert_string_equal(safetensors_meta(s, "b"), "");
    for (size_t i = 0; i < w.n_tensors; i++) {
        const struct safetensors_tensor *f = safetensors_find(s, t[i].name);
        void *to = t[i].type == SAFETENSORS_F32 ? (void *)got : half;
        size_t n = t[i].n_dims == 0 ? 1 : i == 5 ? 0 : N;

        assert_non_null(f);
        assert_int_equal(f->type, t[i].type);
        assert_int_equal(f->n_dims, t[i].n_dims);
        for (uint32_t d = 0; d < f->n_dims; d++)
            assert_int_equal(f->dims[d], t[i].dims[d]);
        assert_int_equal(f->off % 2, 0);
        assert_int_equal(safetensors_read(s, f, to, &why), 0);
        if (to == half)
            quant_dequantise_row(as[t[i].type], half, n, got);
        for (size_t k = 0; k < n; k++) {
            float want = values[k];

            if (t[i].type == SAFETENSORS_F16)
                want = (float)(_Float16)want;
            if (t[i].type == SAFETENSORS_BF16)
                want = nearest_bf16(want);
            if (!same(want, got[k]))
                fail_msg("%s[%zu]: found %a, expected %a of %a", t[i].name, k, got[k], want,
                         values[k]);
        }
    }
    safetensors_close(s);
}

static unsigned n_files(const char *path)
{
    char folder[SCRATCH_PATH_MAX];
    unsigned n = 0;
    DIR *d;

    strcpy(folder, path);
    *strrchr(folder, '/') = '\0';
    d = opendir(folder);
    assert_non_null(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

static int fail_second(void *arg, size_t i, float *ret, struct why *why)
{
    (void)arg;
    memset(ret, 0, N * sizeof(float));
    return i == 1 ? why_set(why, -EBADMSG, "no second one") : 0;
}

/* Of a file that is there and whole. */
static int dislike(void *arg, const char *path, struct why *why)
{
    struct safetensors *s;

    (void)arg;
    assert_int_equal(safetensors_open(path, &s, why), 0);
    safetensors_close(s);
    return -EDOM;
}

/* Whatever goes wrong, what was there before is there, and nothing else. */
static void all_or_nothing(void **state)
{
    struct adapter_write_tensor t[] = { { "a", SAFETENSORS_F32, 1, { N }, NULL },
                                        { "b", SAFETENSORS_F32, 1, { N }, NULL } };
    struct adapter_write empty = { .pairs = pairs, .n_pairs = 2 };
    struct adapter_write w = { .pairs = pairs,
                               .n_pairs = 2,
                               .tensors = t,
                               .n_tensors = 2,
                               .fetch = fail_second,
                               .replace = true };
    struct rlimit had, small = { 50000, RLIM_INFINITY };
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    uint8_t *before, *after;
    size_t len, len_after;
    unsigned n;

    (void)state;
    assert_int_equal(adapter_write(scratch_path(path, "x.safetensors"), &empty, &why), 0);
    before = file_read(path, &len);
    assert_int_equal((len - 8) % 8, 0);
    n = n_files(path);
    assert_int_equal(adapter_write(path, &empty, &why), -EEXIST);
    assert_non_null(strstr(why.text, path));
    why.text[0] = '\0';
    assert_int_equal(adapter_write(path, &w, &why), -EBADMSG);
    assert_string_equal(why.text, "no second one");
    why.text[0] = '\0';
    empty.check = dislike;
    empty.replace = true;
    assert_int_equal(adapter_write(path, &empty, &why), -EDOM);
    empty.check = NULL;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &had), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    small.rlim_max = had.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    why.text[0] = '\0';
    assert_int_equal(adapter_write(path, &w, &why), -EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &had), 0);
    strcpy(t[1].name, "a");
    assert_int_equal(adapter_write(path, &w, NULL), -EINVAL);
    t[0].type = SAFETENSORS_OTHER;
    assert_int_equal(adapter_write(path, &w, NULL), -EINVAL);
    assert_int_equal(n_files(path), n);
    after = file_read(path, &len_after);
    assert_int_equal(len_after, len);
    assert_memory_equal(after, before, len);
    free(before);
    free(after);
    assert_int_equal(adapter_write("/nowhere/at/all", &empty, NULL), -ENOENT);
}

static int prepare(void **state)
{
    (void)state;
    fill();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(is_read_back),
                                        cmocka_unit_test(all_or_nothing) };

    return cmocka_run_group_tests(tests, prepare, NULL);
}
