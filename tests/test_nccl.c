/* tests/test_nccl.c - NCCL behind cuda/sums.h (cuda/nv/sums_nccl.c), over a library of the test's:
 * it takes no GPU. Would catch: a library, or a function of it, that is missing and not named, or
 * without what installs it; sums that are called outside of a group, of another type, in another
 * stream, of some devices alone; an error that is lost; communicators that are left, given back
 * twice, or used behind an abort.
 */
#include "cuda/sums.h"

#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N 3

struct ncclComm {
    int device;
};

static struct {
    bool there;          /* the library */
    const char *missing; /* a function */
    unsigned n_open;     /* libraries */
    struct ncclComm comms[N];
    unsigned n_comms, in_group, n_sums;
    int fails;    /* what init_all, or the sum of a device, says; 0: none */
    int fails_at; /* device index; -1: init_all */
    const void *from[N];
    size_t n_values[N];
    void *streams[N];
} nccl;

static int init_all(struct ncclComm **comms, int n, const int *devices)
{
    assert_int_equal(n, N);
    for (int i = 0; i < n; i++) {
        comms[i] = &nccl.comms[i];
        comms[i]->device = devices[i];
    }
    if (nccl.fails && nccl.fails_at < 0)
        return nccl.fails; /* what it wrote until then is not to be given back */
    nccl.n_comms = N;
    return 0;
}

static int destroy(struct ncclComm *comm)
{
    assert_true(comm >= nccl.comms && comm < nccl.comms + N);
    assert_true(nccl.n_comms > 0);
    nccl.n_comms--;
    return 0;
}

static int group_start(void)
{
    nccl.in_group++;
    nccl.n_sums = 0;
    return 0;
}

static int group_end(void)
{
    assert_int_equal(nccl.in_group, 1);
    nccl.in_group--;
    return 0;
}

/* Types and sums by NCCL's own numbers: ncclFloat32 is 7, ncclSum 0. */
static int all_reduce(const void *from, void *to, size_t n, int type, int op, struct ncclComm *comm,
                      void *stream)
{
    unsigned i = nccl.n_sums++;

    assert_int_equal(nccl.in_group, 1);
    assert_int_equal(type, 7);
    assert_int_equal(op, 0);
    assert_ptr_equal(from, to);
    assert_ptr_equal(comm, &nccl.comms[i]);
    nccl.from[i] = from;
    nccl.n_values[i] = n;
    nccl.streams[i] = stream;
    return nccl.fails && nccl.fails_at == (int)i ? nccl.fails : 0;
}

static const char *error(int code)
{
    return code == 2 ? "unhandled system error" : "another";
}

void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlsym(void *lib, const char *name);
int __wrap_dlclose(void *lib);

void *__wrap_dlopen(const char *name, int flags)
{
    (void)flags;
    assert_string_equal(name, "libnccl.so.2");
    nccl.n_open += nccl.there;
    return nccl.there ? &nccl : NULL;
}

void *__wrap_dlsym(void *lib, const char *name)
{
    static const struct {
        const char *name;
        void (*f)(void);
    } all[] = {
        { "ncclCommInitAll", (void (*)(void))init_all },
        { "ncclCommDestroy", (void (*)(void))destroy },
        { "ncclCommAbort", (void (*)(void))destroy },
        { "ncclGroupStart", (void (*)(void))group_start },
        { "ncclGroupEnd", (void (*)(void))group_end },
        { "ncclAllReduce", (void (*)(void))all_reduce },
        { "ncclGetErrorString", (void (*)(void))error },
    };
    void *ret = NULL;

    assert_ptr_equal(lib, &nccl);
    for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (strcmp(all[i].name, name) == 0 && (!nccl.missing || strcmp(name, nccl.missing) != 0))
            memcpy(&ret, &all[i].f, sizeof(ret));
    return ret;
}

int __wrap_dlclose(void *lib)
{
    assert_ptr_equal(lib, &nccl);
    assert_true(nccl.n_open > 0);
    nccl.n_open--;
    return 0;
}

static int marks[N]; /* addresses that stand for streams */
static const int devices[N] = { 4, 0, 2 };
static void *const streams[N] = { &marks[0], &marks[1], &marks[2] };

/* With a library or without. */
static void begin(bool there)
{
    memset(&nccl, 0, sizeof(nccl));
    nccl.there = there;
}

static int open_sums(struct sums **ret, struct why *why)
{
    return sums_open(devices, streams, N, 1024, ret, why);
}

static void nothing_is_left(void)
{
    assert_int_equal(nccl.n_open, 0);
    assert_int_equal(nccl.n_comms, 0);
    assert_int_equal(nccl.in_group, 0);
}

static void a_missing_library(void **state)
{
    struct why why = { "" };
    struct sums *s;

    (void)state;
    begin(false);
    assert_int_equal(open_sums(&s, &why), -ELIBACC);
    assert_non_null(strstr(why.text, "libnccl.so.2"));
    assert_non_null(strstr(why.text, "Debian: libnccl2; PyPI: nvidia-nccl-cu13"));
    assert_non_null(strstr(why.text, "--split-mode layer"));
    nothing_is_left();
}

static void a_missing_function(void **state)
{
    static const char *const names[] = { "ncclCommInitAll", "ncclCommAbort", "ncclAllReduce" };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct why why = { "" };
        struct sums *s;

        begin(true);
        nccl.missing = names[i];
        assert_int_equal(open_sums(&s, &why), -ELIBACC);
        assert_non_null(strstr(why.text, names[i]));
        nothing_is_left();
    }
}

static void devices_that_it_does_not_start_on(void **state)
{
    struct why why = { "" };
    struct sums *s;

    (void)state;
    begin(true);
    nccl.fails = 2;
    nccl.fails_at = -1;
    assert_int_equal(open_sums(&s, &why), -ENODEV);
    assert_non_null(strstr(why.text, "unhandled system error"));
    assert_non_null(strstr(why.text, "NCCL_DEBUG=WARN"));
    nothing_is_left();
}

static void sums(void **state)
{
    float values[N][8];
    float *const y[N] = { values[0], values[1], values[2] };
    struct why why = { "" };
    struct sums *s;

    (void)state;
    begin(true);
    assert_int_equal(open_sums(&s, &why), 0);
    assert_int_equal(sums_run(s, y, 8), 0);
    assert_int_equal(nccl.n_sums, N);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(nccl.comms[i].device, devices[i]);
        assert_ptr_equal(nccl.from[i], y[i]);
        assert_int_equal(nccl.n_values[i], 8);
        assert_ptr_equal(nccl.streams[i], streams[i]);
    }
    /* Of one of the devices, the group is closed all the same. */
    nccl.fails = 1;
    nccl.fails_at = 1;
    assert_int_equal(sums_run(s, y, 8), -EIO);
    assert_int_equal(nccl.in_group, 0);
    nccl.fails = 0;
    sums_abort(s);
    assert_int_equal(nccl.n_comms, 0);
    nccl.n_sums = 0;
    assert_int_equal(sums_run(s, y, 8), -EIO);
    assert_int_equal(nccl.n_sums, 0);
    sums_abort(s);
    sums_close(s);
    nothing_is_left();
}

static void closed_as_it_was_opened(void **state)
{
    struct why why = { "" };
    struct sums *s;

    (void)state;
    begin(true);
    assert_int_equal(open_sums(&s, &why), 0);
    sums_close(s);
    nothing_is_left();
    sums_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_library),
        cmocka_unit_test(a_missing_function),
        cmocka_unit_test(devices_that_it_does_not_start_on),
        cmocka_unit_test(sums),
        cmocka_unit_test(closed_as_it_was_opened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
