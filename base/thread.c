#include "base/thread.h"

#define STACK_BYTES (1u << 20)

/* Of this thread: in a container or under taskset there are fewer than the machine has. */
uint32_t thread_cpus(cpu_set_t *mask, size_t len)
{
    CPU_ZERO_S(len, mask);
    if (sched_getaffinity(0, len, mask) < 0) {
        CPU_ZERO_S(len, mask);
        CPU_SET_S(0, len, mask);
    }
    return (uint32_t)CPU_COUNT_S(len, mask);
}

uint32_t thread_n_cpus(void)
{
    unsigned long mask[THREAD_CPU_SET];

    return thread_cpus((cpu_set_t *)mask, sizeof(mask));
}

int thread_start(pthread_t *ret, void *(*fn)(void *), void *arg)
{
    pthread_attr_t attr;
    int e;

    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    e = -pthread_create(ret, &attr, fn, arg);
    (void)pthread_attr_destroy(&attr);
    return e;
}
