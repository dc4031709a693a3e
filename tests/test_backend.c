/* tests/test_backend.c - what every backend promises (engine/backend.h), asked of the CPU, of
 * the one whose memory the host may not touch, and of CUDA's on the shim. Would catch: memory that
 * is not zero, a copy that is not the whole, a ticket that is done too early or never, a bell that
 * does not ring, a page that is copied to another place, host work whose slices are lost or run
 * twice, a plug-in of another version that is taken. And that the fence holds: who looks behind a
 * pointer ends by SIGSEGV. */
#include "engine/backend.h"

#include "engine/file/model.h"
#include "engine/kv/pool.h"
#include "tests/support/backend_fenced.h"
#include "tests/support/backend_shim.h"
#include "tests/support/rig.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define N 100000u

static const struct backend_options options = { .cpu = "auto", .threads = 3, .max_rows = 8 };

static struct backend *open_one(void **state)
{
    struct backend *b;

    assert_int_equal(backend_open(*state, &options, &b, NULL), 0);
    return b;
}

static void fill(uint8_t *x, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (uint8_t)(i * 31 + seed + (i >> 8));
}

static void memory_is_zero_and_copied(void **state)
{
    struct backend *b = open_one(state);
    uint8_t *host = malloc(N), *back = malloc(N), *zeros = calloc(N, 1);
    void *mem, *other;

    assert_int_equal(backend_alloc(b, N, &mem), 0);
    assert_int_equal(backend_alloc(b, N, &other), 0);
    assert_int_equal((uintptr_t)mem % 4096, 0);
    assert_int_equal(backend_get(b, back, mem, N), 0);
    assert_memory_equal(back, zeros, N);
    fill(host, N, 1);
    assert_int_equal(backend_put(b, mem, host, N), 0);
    assert_int_equal(backend_put(b, (uint8_t *)other + 5, host, 70), 0);
    assert_int_equal(backend_get(b, back, mem, N), 0);
    assert_memory_equal(back, host, N);
    assert_int_equal(backend_get(b, back, other, 80), 0);
    assert_memory_equal(back, zeros, 5);
    assert_memory_equal(back + 5, host, 70);
    assert_memory_equal(back + 75, zeros, 5);
    assert_int_equal(backend_clear(b, (uint8_t *)mem + 10, 20), 0);
    assert_int_equal(backend_get(b, back, mem, N), 0);
    memset(host + 10, 0, 20);
    assert_memory_equal(back, host, N);
    backend_free(b, mem, N);
    backend_free(b, other, N);
    backend_close(b);
    free(host);
    free(back);
    free(zeros);
}

/* Memory that a descriptor stands for: all zeros, the same bytes for who maps it once it is sealed,
 * not before; or the backend says that it has none. */
static void kept_memory(void **state)
{
    struct backend *b = open_one(state);
    uint8_t *host = malloc(N), *back = calloc(N, 1);
    void *mem, *other;
    int fd, r = backend_alloc_kept(b, N, &mem, &fd);

    assert_int_equal(r, b->ops->alloc_kept ? 0 : -ENOTSUP);
    if (r == 0) {
        fill(host, N, 3);
        assert_int_equal(backend_get(b, back, mem, N), 0);
        assert_int_equal(back[0] | back[N - 1], 0);
        assert_int_equal(backend_put(b, mem, host, N), 0);
        assert_int_equal(backend_map_kept(b, fd, N, &other), -EPERM);
        assert_int_equal(b->ops->seal_kept(b, mem, N, fd), 0);
        assert_int_equal(backend_map_kept(b, fd, 2 * N, &other), -EINVAL);
        assert_int_equal(backend_map_kept(b, fd, N, &other), 0);
        backend_free(b, mem, N);
        assert_int_equal(backend_get(b, back, other, N), 0);
        assert_memory_equal(back, host, N);
        backend_free(b, other, N);
        (void)close(fd);
    } else {
        assert_int_equal(backend_map_kept(b, STDIN_FILENO, N, &other), -ENOTSUP);
    }
    backend_close(b);
    free(host);
    free(back);
}

/* Copies with tickets are seen by what comes later, and are done when the backend says so. */
static void tickets(void **state)
{
    enum { COPIES = 200, LEN = 64 };
    struct backend *b = open_one(state);
    const struct backend_ops *ops = b->ops;
    struct pollfd p = { .fd = ops->eventfd(b), .events = POLLIN };
    static uint8_t host[COPIES][LEN], back[COPIES][LEN];
    uint64_t ticket[COPIES], last;
    uint8_t *mem;

    assert_int_equal(backend_alloc(b, sizeof(host), (void **)&mem), 0);
    for (unsigned i = 0; i < COPIES; i++) {
        fill(host[i], LEN, i);
        assert_int_equal(ops->put(b, mem + i * LEN, host[i], LEN, &ticket[i]), 0);
        assert_true(ticket[i] >= 1 && (i == 0 || ticket[i] >= ticket[i - 1]));
    }
    assert_int_equal(ops->get(b, back, mem, sizeof(back), &last), 0);
    while (!ops->done(b, last))
        if (p.fd >= 0)
            assert_true(poll(&p, 1, 0) >= 0);
    assert_memory_equal(back, host, sizeof(host));
    for (unsigned i = 0; i < COPIES; i++) /* the order holds */
        assert_true(ops->done(b, ticket[i]));
    if (p.fd >= 0)
        assert_int_equal(poll(&p, 1, 0), 1);
    backend_free(b, mem, sizeof(host));
    backend_close(b);
}

/* More than any staging area, and not in its pieces. A get that was asked for is there when its
 * ticket is done, whatever was queued behind it. */
static void large_copies(void **state)
{
    enum { LARGE = (20 << 20) + 12345, HALF = LARGE / 2 };
    struct backend *b = open_one(state);
    uint8_t *host = malloc(LARGE), *back = malloc(LARGE);
    uint64_t put, got;
    uint8_t *mem;

    assert_int_equal(backend_alloc(b, LARGE, (void **)&mem), 0);
    fill(host, LARGE, 5);
    assert_int_equal(b->ops->put(b, mem, host, LARGE, &put), 0);
    assert_int_equal(b->ops->get(b, back, mem, HALF, &got), 0);
    assert_true(got >= put);
    assert_int_equal(backend_clear(b, mem, HALF), 0); /* after the get, as it was asked for */
    while (b->ops->done(b, got) == 0)
        ;
    assert_int_equal(b->ops->done(b, put), 1);
    assert_memory_equal(back, host, HALF);
    assert_int_equal(backend_get(b, back, mem, LARGE), 0);
    memset(host, 0, HALF);
    assert_memory_equal(back, host, LARGE);
    assert_int_equal(b->ops->put(b, mem, host, 0, &put), 0); /* nothing is done, too, in the end */
    assert_true(put >= 1);
    while (b->ops->done(b, put) == 0)
        ;
    backend_free(b, mem, LARGE);
    backend_close(b);
    free(host);
    free(back);
}

static void pages_are_copied(void **state)
{
    static const struct model m = { .n_layer = 2, .n_head_kv = 2, .head_dim = 64 };
    struct backend *b = open_one(state);
    struct pool p;
    uint8_t *page, *back;

    assert_int_equal(pool_open(&p, b, &m, KV_F16, 8 * pool_page_bytes(&m, KV_F16), NULL), 0);
    page = malloc(p.page_bytes);
    back = malloc(p.page_bytes);
    fill(page, p.page_bytes, 3);
    assert_int_equal(backend_put(b, p.mem + 2 * p.page_bytes, page, p.page_bytes), 0);
    assert_int_equal(backend_copy_page(b, &p, 2, 5), 0);
    for (uint32_t i = 0; i < p.n_pages; i++) {
        assert_int_equal(backend_get(b, back, p.mem + i * p.page_bytes, p.page_bytes), 0);
        assert_int_equal(memcmp(back, page, p.page_bytes) == 0, i == 2 || i == 5);
    }
    free(page);
    free(back);
    pool_close(&p);
    backend_close(b);
}

static void count_slice(void *arg, uint32_t slice, uint32_t worker)
{
    _Atomic uint32_t *ran = arg;

    (void)worker;
    atomic_fetch_add(&ran[slice], 1 + (worker >= options.threads ? 100u : 0));
}

static void host_work(void **state)
{
    static _Atomic uint32_t ran[1000];
    struct backend *b = open_one(state);
    struct backend_info info;

    memset(&ran, 0, sizeof(ran));
    backend_run(b, count_slice, &ran, 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(ran[i], 1);
    b->ops->rest(b);
    backend_run(b, count_slice, &ran, 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(ran[i], 2);
    b->ops->info(b, &info);
    assert_int_equal(info.threads, options.threads);
    assert_int_equal(info.exact_rows, *state == &backend_cpu || *state == &backend_fenced);
    assert_non_null(info.sampling);
    backend_close(b);
}

/* What the host can't write, nobody says that it can. */
static void host_pointers(void **state)
{
    struct backend *b = open_one(state);
    void *mem;
    uint8_t *host, one = 1, back;

    assert_int_equal(backend_alloc(b, N, &mem), 0);
    host = backend_host(b, mem);
    if (host) {
        host[N - 1] = one;
        assert_int_equal(backend_get(b, &back, (uint8_t *)mem + N - 1, 1), 0);
        assert_int_equal(back, one);
    }
    assert_int_equal(*state == &backend_cpu, host != NULL);
    backend_free(b, mem, N);
    backend_close(b);
}

/* A child that looks, or writes, behind a pointer. Returns the signal that ended it. */
static int child_touches(uint8_t *mem, bool writes)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        const struct rlimit none = { 0, 0 };

        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGSEGV, SIG_DFL); /* not the sanitizer's report */
        if (writes)
            *(volatile uint8_t *)mem = 1;
        else
            (void)*(volatile uint8_t *)mem;
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void fence_holds(void **state)
{
    struct backend *b;
    void *mem;

    (void)state;
    assert_int_equal(backend_open(&backend_fenced, &options, &b, NULL), 0);
    assert_int_equal(backend_alloc(b, N, &mem), 0);
    assert_int_equal(child_touches(mem, false), SIGSEGV);
    assert_int_equal(backend_clear(b, mem, N), 0); /* it was open meanwhile */
    assert_int_equal(child_touches(mem, true), SIGSEGV);
    backend_free(b, mem, N);
    backend_close(b);
}

static void no_backend_is_the_process(void **state)
{
    uint8_t *mem, host[100] = { 7 };

    (void)state;
    assert_int_equal(backend_alloc(NULL, N, (void **)&mem), 0);
    assert_int_equal(mem[N - 1], 0);
    assert_int_equal(backend_put(NULL, mem + 50, host, 100), 0);
    assert_int_equal(mem[50], 7);
    assert_ptr_equal(backend_host(NULL, mem), mem);
    backend_free(NULL, mem, N);
    backend_free(NULL, NULL, 0);
    backend_close(NULL);
}

static void versions_and_names(void **state)
{
    struct backend_ops other = backend_cpu;
    const struct backend_ops *ops;
    struct why why = { "" };
    struct backend *b;
    struct backend_devices devices = { .n = 9 };

    (void)state;
    other.abi++;
    assert_int_equal(backend_open(&other, &options, &b, &why), -ELIBBAD);
    assert_non_null(strstr(why.text, "another version of gistd"));
    other = backend_cpu;
    other.size -= sizeof(void *);
    assert_int_equal(backend_open(&other, &options, &b, &why), -ELIBBAD);
    why.text[0] = '\0';
    assert_int_equal(backend_find("abacus", &ops, &devices, &why), -EINVAL);
    assert_non_null(strstr(why.text, "abacus"));
    assert_int_equal(backend_find("cpu", &ops, &devices, &why), 0);
    assert_ptr_equal(ops, &backend_cpu);
    assert_int_equal(devices.n, 0);
}

int main(void)
{
    const struct backend_ops *const all[] = { &backend_cpu, &backend_fenced, backend_shim(),
                                              rig_backend() };
    /* The last: a GPU's, where it is asked for. */
    unsigned n = rig_backend() == &backend_cpu ? 3 : 4;
    const struct CMUnitTest others[] = {
        cmocka_unit_test(fence_holds),
        cmocka_unit_test(no_backend_is_the_process),
        cmocka_unit_test(versions_and_names),
    };
    int failed = cmocka_run_group_tests(others, NULL, NULL);

    for (unsigned i = 0; i < n; i++) {
        void *ops = (void *)(uintptr_t)all[i];
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate(memory_is_zero_and_copied, ops),
            cmocka_unit_test_prestate(kept_memory, ops),
            cmocka_unit_test_prestate(tickets, ops),
            cmocka_unit_test_prestate(large_copies, ops),
            cmocka_unit_test_prestate(pages_are_copied, ops),
            cmocka_unit_test_prestate(host_work, ops),
            cmocka_unit_test_prestate(host_pointers, ops),
        };

        failed += cmocka_run_group_tests_name(all[i]->name, tests, NULL, NULL);
    }
    return failed ? 1 : 0;
}
