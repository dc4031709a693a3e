/* tests/test_plugin.c - backends that are loaded when they are asked for (engine/plugin.h). Would
 * catch: a library that is looked for in the current folder or that is not ours and is taken, one
 * of another version, or without a function that it should have, that is called, a missing library,
 * driver or device that is not named, "auto" that fails for want of a GPU or does not say why there
 * is none, training on more devices than it has processes, a process that has another's, a name
 * that is taken though it means nothing. */
#include "engine/devices.h"
#include "engine/plugin.h"
#include "engine/tensors.h"

#include "tests/support/backend_shim.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void names(void **state)
{
    static const char *const good[] = { "cpu",           "auto",         "cuda-shim",  "cuda:0",
                                        "cuda:63",       "cuda:0,1",     "cuda:3,1,2", "cuda:all",
                                        "cuda-shim:0,1", "cuda-shim:all" };
    static const char *const bad[] = { "",
                                       "CPU",
                                       "cuda",
                                       "cuda:",
                                       "cuda:64",
                                       "cuda:-1",
                                       "cuda:0x1",
                                       "cuda: 1",
                                       "cuda:1 ",
                                       "abacus",
                                       "cuda:all,1",
                                       "cuda:0,",
                                       "cuda:,0",
                                       "cuda:1,1",
                                       "cuda:0,64",
                                       "cuda:0 1",
                                       "cuda-shim,1",
                                       "cuda-shim:",
                                       "cuda:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
                                       "cuda:99999999999999999999" };
    const struct backend_ops *ops;
    struct backend_devices devices;

    (void)state;
    for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++)
        assert_int_equal(devices_check(good[i], NULL), 0);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct why why = { "" };

        assert_int_equal(devices_check(bad[i], &why), -EINVAL);
        assert_non_null(strstr(why.text, "allowed: cpu, cuda:0"));
        why.text[0] = '\0';
        assert_int_equal(backend_find(bad[i], &ops, &devices, &why), -EINVAL);
        assert_non_null(strstr(why.text, "allowed: cpu, cuda:0"));
    }
}

/* Which names are for how many is known before any library is looked for. */
static void training_has_a_device_each(void **state)
{
    static const struct {
        const char *name;
        uint32_t k, n;
        int r;
        unsigned device;
    } all[] = { { "cuda:0,1", 0, 1, -EINVAL, 0 },
                { "cuda:all", 0, 1, -EINVAL, 0 },
                { "cuda-shim:1,0", 0, 3, -EINVAL, 0 },
                { "cuda-shim:1,0", 0, 2, -ENOENT, 1 },
                { "cuda-shim:1,0", 1, 2, -ENOENT, 0 },
                { "cuda-shim:all", 3, 4, -ENOENT, 3 },
                { "cuda-shim", 1, 2, -ENOENT, 0 },
                { "cuda-shim:2", 1, 2, -ENOENT, 2 },
                { "auto", 1, 2, 0, 1 } };
    const struct tensors_ops *ops;
    unsigned device;

    (void)state;
    for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
        struct why why = { "" };

        assert_int_equal(tensors_find(all[i].name, all[i].k, all[i].n, &ops, &device, &why),
                         all[i].r);
        assert_null(ops);
        if (all[i].r == -EINVAL)
            assert_non_null(strstr(why.text, "expected one device for each process"));
        else
            assert_int_equal(device, all[i].device);
    }
    assert_int_equal(tensors_find("cpu", 0, 1, &ops, &device, NULL), 0);
    assert_null(ops);
}

/* Beside this program there is none: it lies in a folder of the tests. */
static void says_what_is_missing(void **state)
{
    const struct backend_ops *ops = NULL;
    struct why why = { "" };
    struct backend_devices devices = { .n = 7 };
    char here[SCRATCH_PATH_MAX], build[4096], to[8192], back[4096];

    (void)state;
    assert_int_equal(backend_find("cuda:0", &ops, &devices, &why), -ENOENT);
    assert_non_null(strstr(why.text, "there is no libgistd-cuda.so in "));
    assert_non_null(strstr(why.text, "make CUDA=1"));
    /* Not in the current folder, which anybody may have put it into. */
    assert_non_null(realpath(getenv("BUILD"), build));
    (void)snprintf(to, sizeof(to), "%s/libgistd-cuda-shim.so", build);
    assert_non_null(getcwd(back, sizeof(back)));
    assert_int_equal(symlink(to, scratch_path(here, "libgistd-cuda-shim.so")), 0);
    assert_int_equal(chdir(scratch_path(here, "")), 0);
    why.text[0] = '\0';
    assert_int_equal(backend_find("cuda-shim", &ops, &devices, &why), -ENOENT);
    assert_null(ops);
    why.text[0] = '\0';
    assert_int_equal(backend_find("auto", &ops, &devices, &why), 0);
    assert_ptr_equal(ops, &backend_cpu);
    assert_int_equal(devices.n, 0);
    assert_non_null(strstr(why.text, "libgistd-cuda.so"));
    assert_int_equal(chdir(back), 0);
}

static void refuses_what_is_not_ours(void **state)
{
    const struct backend_ops *ops = NULL;
    struct backend_ops other = backend_cpu;
    struct why why = { "" };
    char path[SCRATCH_PATH_MAX];
    FILE *f = fopen(scratch_path(path, "noise.so"), "w");

    (void)state;
    assert_non_null(f);
    assert_true(fputs("not a library\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(plugin_load(path, &ops, &why), -ELIBACC);
    assert_non_null(strstr(why.text, "noise.so"));
    why.text[0] = '\0';
    assert_int_equal(plugin_load("/nonexistent/x.so", &ops, &why), -ELIBACC);
    assert_non_null(strstr(why.text, "/nonexistent/x.so"));
    why.text[0] = '\0';
    assert_int_equal(backend_of_build("libgist.so", &ops, &why), -ELIBBAD);
    assert_non_null(strstr(why.text, "gistd_backend"));
    assert_null(ops);
    other.abi--;
    why.text[0] = '\0';
    assert_int_equal(plugin_check(&other, &why), -ELIBBAD);
    assert_non_null(strstr(why.text, "another version of gistd"));
    other = backend_cpu;
    other.size += 8;
    assert_int_equal(plugin_check(&other, NULL), -ELIBBAD);
    other = backend_cpu;
    other.need = NULL;
    why.text[0] = '\0';
    assert_int_equal(plugin_check(&other, &why), -ELIBBAD);
    assert_non_null(strstr(why.text, "the backend cpu has no function need,"));
    assert_int_equal(plugin_check(&backend_cpu, NULL), 0);
}

static void the_shim_loads(void **state)
{
    static const struct backend_options o = { .cpu = "auto", .threads = 2, .max_rows = 8 };
    const struct backend_ops *ops = backend_shim();
    struct backend_devices devices = { 0 };
    struct backend_info info;
    struct backend *b;
    struct why why = { "" };

    (void)state;
    assert_string_equal(ops->name, "cuda-shim");
    assert_int_equal(ops->look(&devices, &why), 0);
    assert_int_equal(devices.n, 1);
    devices = (struct backend_devices){ .n = 2, .at = { 3, 4 } };
    assert_int_equal(ops->look(&devices, &why), -ENODEV);
    assert_non_null(strstr(why.text, "there is no device cuda:4"));
    devices.n = BACKEND_DEVICES_ALL;
    assert_int_equal(ops->look(&devices, &why), 0);
    assert_int_equal(devices.n, 4);
    assert_int_equal(backend_open(ops, &o, &b, &why), 0);
    ops->info(b, &info);
    assert_non_null(strstr(info.name, "cuda-shim:0"));
    assert_int_equal(info.threads, 2);
    assert_true(info.memory == 0); /* it is this machine's */
    backend_close(b);
}

/* Where it was built. Without a driver or a GPU it loads all the same, and says what is missing. */
static void cuda_loads_everywhere(void **state)
{
    const struct backend_ops *ops;
    struct backend_devices devices = { 0 };
    struct why why = { "" };
    char path[4096];
    int r;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/libgistd-cuda.so", getenv("BUILD"));
    if (access(path, F_OK) < 0) {
        print_message("not built: make CUDA=1\n");
        skip();
    }
    assert_int_equal(plugin_load(path, &ops, &why), 0);
    assert_string_equal(ops->name, "cuda");
    r = ops->look(&devices, &why);
    assert_true(r == 0 || r == -ENODEV);
    assert_int_equal(r == 0, why.text[0] == '\0');
    if (r < 0)
        assert_true(strstr(why.text, "driver") || strstr(why.text, "capability"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(training_has_a_device_each),
        cmocka_unit_test(says_what_is_missing),
        cmocka_unit_test(refuses_what_is_not_ours),
        cmocka_unit_test(the_shim_loads),
        cmocka_unit_test(cuda_loads_everywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
