/* Would catch: memory that is not aligned or not zero; an absurd size taken for a crash or a
 * success; a CPU handed out that the process may not use, or one twice while others are
 * free.
 */
#include "base/thread.h"
#include "engine/cpu/place.h"
#include "engine/cpu/workers.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

static void check_memory(size_t len)
{
    uint8_t *mem = NULL;
    void *p;

    assert_int_equal(place_alloc(len, &p), 0);
    mem = p;
    assert_int_equal((uintptr_t)mem % (len >= 2 * MIB ? 2 * MIB : 4096), 0);
    for (size_t i = 0; i < len; i += 997)
        assert_int_equal(mem[i], 0);
    mem[0] = mem[len - 1] = 1;
    place_free(mem, len);
}

static void test_alloc(void **state)
{
    static const size_t lengths[] = { 1, 4096, 4097, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 7 * MIB };

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        check_memory(lengths[i]);
    place_free(NULL, 0);
}

/* Pages that are in memory, of all. */
static size_t resident(const void *mem, size_t len)
{
    static unsigned char in[64 * MIB / 4096];
    size_t n = 0;

    assert_int_equal(mincore((void *)(uintptr_t)mem, len, in), 0);
    for (size_t i = 0; i < len / 4096; i++)
        n += in[i] & 1;
    return n;
}

/* Promised memory is there after it was populated, and what stood in it still does. */
static void test_populate(void **state)
{
    const size_t len = 35 * MIB + 4096;
    struct workers *w;
    void *mem;

    (void)state;
    assert_int_equal(workers_open(3, false, &w), 0);
    assert_int_equal(place_alloc(len, &mem), 0);
    memset((uint8_t *)mem + 20 * MIB, 7, 100);
    assert_true(resident(mem, len) < len / 4096);
    assert_int_equal(place_populate(w, mem, len), 0);
    assert_int_equal(resident(mem, len), len / 4096);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(((uint8_t *)mem)[i], i >= 20 * MIB && i < 20 * MIB + 100 ? 7 : 0);
    place_free(mem, len);
    workers_close(w);
}

/* --- memory that outlives the process ----------------------------------------------------------
 */

static struct workers *two(void)
{
    struct workers *w;

    assert_int_equal(workers_open(2, false, &w), 0);
    return w;
}

/* What one mapping leaves another finds, and nobody can write it or change its length. */
static void test_kept(void **state)
{
    static const size_t lengths[] = { 1, 4096, 2 * MIB, 2 * MIB + 1, 37 * MIB + 4096 };
    struct workers *w = two();

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        size_t len = lengths[i];
        void *first, *second;
        char byte = 1;
        int fd;

        assert_int_equal(place_kept_alloc(w, len, &first, &fd), 0);
        assert_int_equal((uintptr_t)first % (len >= 2 * MIB ? 2 * MIB : 4096), 0);
        for (size_t at = 0; at < len; at += 997)
            assert_int_equal(((uint8_t *)first)[at], 0);
        memset(first, 0x5a, len);
        assert_int_equal(place_kept_map(w, fd, len, &second), -EPERM);
        assert_int_equal(place_kept_seal(first, len, fd), 0);
        assert_int_equal(((uint8_t *)first)[len - 1], 0x5a);
        place_free(first, len); /* a process ends, the descriptor stays */
        assert_int_equal(pwrite(fd, &byte, 1, 0), -1);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
        assert_int_equal(place_kept_map(w, fd, len + 4096, &second), -EINVAL);
        assert_int_equal(place_kept_map(w, fd, len, &second), 0);
        for (size_t at = 0; at < len; at++)
            assert_int_equal(((uint8_t *)second)[at], 0x5a);
        place_free(second, len);
        (void)close(fd);
    }
    workers_close(w);
}

/* While somebody else can write it is not sealed, and the memory is there as it was. */
static void test_kept_elsewhere(void **state)
{
    struct workers *w = two();
    void *mem, *other;
    int fd;

    (void)state;
    assert_int_equal(place_kept_alloc(w, 4 * MIB, &mem, &fd), 0);
    memset(mem, 3, 4 * MIB);
    other = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(other, MAP_FAILED);
    assert_int_equal(place_kept_seal(mem, 4 * MIB, fd), -EBUSY);
    assert_int_equal(((uint8_t *)mem)[4 * MIB - 1], 3);
    assert_int_equal(munmap(other, 4096), 0);
    place_free(mem, 4 * MIB);
    (void)close(fd);
    assert_int_equal(place_kept_map(w, STDIN_FILENO, 4096, &mem), -EPERM);
    workers_close(w);
}

static void test_too_much(void **state)
{
    void *mem;

    (void)state;
    assert_int_equal(place_alloc(SIZE_MAX, &mem), -ENOMEM);
    assert_int_equal(place_alloc(SIZE_MAX - 4096, &mem), -ENOMEM);
    assert_int_equal(place_alloc((size_t)1 << 60, &mem), -ENOMEM);
    assert_int_equal(place_alloc(0, &mem), -ENOMEM);
}

static void test_cpus(void **state)
{
    cpu_set_t allowed, seen;
    uint32_t n = thread_n_cpus();

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    assert_int_equal(n, CPU_COUNT(&allowed));
    CPU_ZERO(&seen);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t cpu = place_cpu(i);

        assert_true(CPU_ISSET(cpu, &allowed));
        assert_false(CPU_ISSET(cpu, &seen));
        CPU_SET(cpu, &seen);
        assert_int_equal(place_cpu(i + n), cpu);
    }
}

/* A process that was given one CPU gives out that one. */
static void test_narrowed(void **state)
{
    cpu_set_t old, one;
    uint32_t cpu = place_cpu(thread_n_cpus() - 1);

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(old), &old), 0);
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(thread_n_cpus(), 1);
    assert_int_equal(place_cpu(0), cpu);
    assert_int_equal(place_cpu(5), cpu);
    assert_int_equal(sched_setaffinity(0, sizeof(old), &old), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc),          cmocka_unit_test(test_populate),
        cmocka_unit_test(test_too_much),       cmocka_unit_test(test_kept),
        cmocka_unit_test(test_kept_elsewhere), cmocka_unit_test(test_cpus),
        cmocka_unit_test(test_narrowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
