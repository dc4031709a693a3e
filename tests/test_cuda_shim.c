/* tests/test_cuda_shim.c - would catch: a shim that lets a kernel pass which would be wrong on a
 * GPU, or that stops a right one.
 *
 * Every planted fault runs in a process of its own, and what it says on stderr is looked at: each
 * of the three builds (cuda/Makefile.inc) has to find its own kinds. Their right twins, and what
 * else must work, run here. */
#include "cuda/shim/cuda_runtime_api.h"
#include "cuda/shim/shim.h"
#include "cuda/stage.h"
#include "cuda/sums.h"
#include "tests/cuda_faults.h"
#include "tests/support/counted.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define N 128u

#if defined(SHIM_TSAN)
enum { PLAIN, TSAN, ASAN, HERE = TSAN };
#elif defined(SHIM_ASAN)
enum { PLAIN, TSAN, ASAN, HERE = ASAN };
#else
enum { PLAIN, TSAN, ASAN, HERE = PLAIN };
#endif

/* A race is the end, and the end comes at once: by default it sleeps for a second. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "halt_on_error=1:atexit_sleep_ms=0";
}

static void must(int e)
{
    if (e != 0)
        _exit(3);
}

static void *device(size_t n)
{
    void *ret;

    must((int)cudaMalloc(&ret, n));
    return ret;
}

/* 0, 1, 2 ... in device memory; what is not set is NaN. */
static float *device_floats(uint32_t n)
{
    float *host = calloc(n, sizeof(*host)), *ret = device(n * sizeof(*ret));

    for (uint32_t i = 0; host && i < n; i++)
        host[i] = (float)i;
    must((int)cudaMemcpy(ret, host, n * sizeof(*ret), cudaMemcpyHostToDevice));
    free(host);
    return ret;
}

/* Fails unless y[i] is what the right kernel makes of 0, 1, 2 ...; 4: a NaN is seen. */
static void expect_floats(const float *y, uint32_t n, bool reversed)
{
    float host[8 * N];

    must((int)cudaMemcpy(host, y, n * sizeof(*y), cudaMemcpyDeviceToHost));
    for (uint32_t i = 0; i < n; i++) {
        if (host[i] != host[i])
            _exit(4);
        must(host[i] != (float)(reversed ? n - 1 - i : i));
    }
}

/* --- the faults ------------------------------------------------------------------------------- */

static void mirror(int how)
{
    float *x = device_floats(N), *y = device(N * sizeof(float));

    must(faults_mirror(NULL, (enum faults_mirror)how, x, y, N));
    expect_floats(y, N, true);
}

static void mirror_dynamic(int how)
{
    float *x = device_floats(N), *y = device(N * sizeof(float));

    must(faults_mirror_dynamic(NULL, (enum faults_mirror)how, x, y, N));
    expect_floats(y, N, true);
}

static void warps(int how)
{
    float *x = device_floats(N), *y = device(4 * sizeof(float)), host[4];

    must(faults_warp(NULL, (enum faults_warp)how, x, y, 4));
    must((int)cudaMemcpy(host, y, sizeof(host), cudaMemcpyDeviceToHost));
    for (int w = 0; w < 4; w++)
        must(host[w] != (float)(32 * (32 * w) + 496));
}

static void copies(int how)
{
    float *x = device_floats(8 * N), *y = device(8 * N * sizeof(float));

    must(faults_copy(NULL, (enum faults_copy)how, x, y, N));
    if (how != COPY_LEFT)
        expect_floats(y, 8 * N, false);
}

/* Two streams and one buffer. */
enum { STREAMS_EVENT, STREAMS_NONE, STREAMS_HOST_WAITS, STREAMS_HOST_DOES_NOT };
static void streams(int how)
{
    float *x = device_floats(N), host[N];
    cudaStream_t a, b;
    cudaEvent_t e;

    must((int)cudaStreamCreate(&a) | (int)cudaStreamCreate(&b) | (int)cudaEventCreate(&e));
    must(faults_add(a, x, N, true));
    if (how == STREAMS_EVENT) {
        must((int)cudaEventRecord(e, a));
        must((int)cudaStreamWaitEvent(b, e, 0));
    }
    if (how == STREAMS_HOST_WAITS)
        must((int)cudaStreamSynchronize(a));
    if (how == STREAMS_HOST_DOES_NOT) { /* looks into pinned memory that a copy is on its way to */
        float *pinned;

        must((int)cudaMallocHost((void **)&pinned, sizeof(host)));
        must((int)cudaMemcpyAsync(pinned, x, sizeof(host), cudaMemcpyDeviceToHost, a));
        must(pinned[1] != 2);
        return;
    }
    must(faults_add(b, x, N, true));
    must((int)cudaStreamSynchronize(b));
    must((int)cudaMemcpy(host, x, sizeof(host), cudaMemcpyDeviceToHost));
    for (uint32_t i = 0; i < N; i++)
        must(host[i] != (float)i + 2);
}

/* A page on its way between host and device, beside what computes (cuda/stage.h). */
enum { SPILL_PUT, SPILL_GET, SPILL_PUT_NOT_DONE, SPILL_GET_NOT_DONE, SPILL_JOINED };
static void spills(int how)
{
    bool puts = how != SPILL_GET && how != SPILL_GET_NOT_DONE;
    float host[N] = { 0 };
    struct why why = { "" };
    uint64_t ticket;
    struct stage *s;
    struct rt *rt;
    void *mem;

    must(rt_open(0, &rt, &why) | rt_alloc(rt, sizeof(host), &mem));
    must(rt_clear(rt, RT_COMPUTE, mem, sizeof(host)) | stage_open(rt, RT_SPILL, -1, &s));
    must(puts ? stage_put(s, mem, host, sizeof(host), &ticket)
              : stage_get(s, host, mem, sizeof(host), &ticket));
    if (how == SPILL_JOINED)
        must(stage_join(s));
    else if (how == SPILL_PUT || how == SPILL_GET)
        while (stage_done(s, ticket) == 0)
            ;
    must(faults_add(rt_stream(rt, RT_COMPUTE), mem, N, true));
    must(rt_wait(rt, RT_COMPUTE));
}

/* Device 0's memory, on its way to device 1. */
enum { DEVICES_EVENT, DEVICES_NO_EVENT, DEVICES_WRONG, DEVICES_OTHERS, DEVICES_PEERS };
static void devices(int how)
{
    float *x = device_floats(N), *y;
    cudaStream_t a, b;
    cudaEvent_t e;

    must((int)cudaStreamCreate(&a) | (int)cudaEventCreate(&e) | (int)cudaSetDevice(1));
    y = device(N * sizeof(*y));
    must((int)cudaStreamCreate(&b));
    must(faults_add(b, y, N, true)); /* what it sees was opened, or was not, before */
    must((int)cudaStreamSynchronize(b) | (int)cudaSetDevice(0));
    must(faults_add(a, x, N, true) | (int)cudaEventRecord(e, a));
    if (how != DEVICES_NO_EVENT)
        must((int)cudaStreamWaitEvent(b, e, 0));
    must(cudaEventRecord(e, b) != cudaErrorInvalidResourceHandle);
    must(cudaMemcpyPeerAsync(y, 0, x, 0, N * sizeof(*y), b) != cudaErrorInvalidValue);
    must((int)cudaMemcpyPeerAsync(y, 1, x, 0, N * sizeof(*y), b));
    if (how == DEVICES_WRONG) { /* cudaSetDevice was forgotten */
        must(faults_add(b, y, N, true) == 0);
        return;
    }
    must((int)cudaSetDevice(1));
    if (how == DEVICES_PEERS)
        must((int)cudaDeviceEnablePeerAccess(0, 0));
    must(faults_add(b, how >= DEVICES_OTHERS ? x : y, N, true) | (int)cudaStreamSynchronize(b));
    if (how < DEVICES_OTHERS) {
        float host[N];

        must((int)cudaMemcpy(host, y, sizeof(host), cudaMemcpyDeviceToHost));
        for (uint32_t i = 0; i < N; i++)
            must(host[i] != (float)i + 2);
    }
}

/* What two devices have, added up (cuda/sums.h). */
enum { SUMS_RIGHT, SUMS_TOO_EARLY, SUMS_NOT_WAITED, SUMS_NOT_ALL };
static void sums(int how)
{
    static const int numbers[2] = { 0, 1 };
    cudaStream_t streams[2], other;
    float *y[2], host[N];
    struct why why = { "" };
    struct sums *s;

    for (int d = 0; d < 2; d++) {
        must((int)cudaSetDevice(d) | (int)cudaStreamCreate(&streams[d]));
        y[d] = device_floats(N);
    }
    must((int)cudaStreamCreate(&other));
    must(sums_open(numbers, (void *const *)streams, 2, N, &s, &why));
    must((int)cudaSetDevice(1));
    must(faults_add(how == SUMS_TOO_EARLY ? other : streams[1], y[1], N, true));
    must(sums_run(s, y, how == SUMS_NOT_ALL ? N / 2 : N));
    must((int)cudaSetDevice(1));
    must(faults_add(how == SUMS_NOT_WAITED ? other : streams[1], y[1], N, true));
    must((int)cudaStreamSynchronize(streams[1]) | (int)cudaStreamSynchronize(other));
    must((int)cudaMemcpy(host, y[1], sizeof(host), cudaMemcpyDeviceToHost));
    for (uint32_t i = 0; i < N; i++)
        must(host[i] != (how == SUMS_NOT_ALL && i >= N / 2 ? (float)i + 2 : 2 * (float)i + 2));
    sums_close(s);
}

/* The second kernel of a stream, with and without waiting for the first. */
static void early(int waits)
{
    float *x = device_floats(N);

    must(faults_add(NULL, x, N, true));
    must(faults_add(NULL, x, N, waits != 0));
    must((int)cudaDeviceSynchronize());
}

/* Threads that count together. */
static void counts(int atomic)
{
    unsigned *y = device(sizeof(*y)), host;

    must((int)cudaMemset(y, 0, sizeof(*y)));
    must(faults_count(NULL, atomic != 0, y, N));
    must((int)cudaMemcpy(&host, y, sizeof(host), cudaMemcpyDeviceToHost));
    must(host != N);
}

static void host_function(void *arg)
{
    (void)cudaGetLastError();
    (void)cudaMemset(arg, 0, 4);
}

static void calls_back(int unused)
{
    (void)unused;
    must((int)cudaLaunchHostFunc(NULL, host_function, device(4)));
    must((int)cudaDeviceSynchronize());
}

#define STUCK  "all threads wait"
#define RACE   "data race"
#define OVER   "heap-buffer-overflow"
#define POISON "use-after-poison"
/* What a build must say; "": it ends well; NULL: it can't tell. NAN_SEEN: a result is no
 * number; KILLED: by a signal. */
#define NAN_SEEN "nan"
#define KILLED   "killed"

static const struct fault {
    const char *name;
    void (*run)(int how);
    int how;
    const char *says[3]; /* plain, TSan, ASan */
} faults[] = {
    { "mirror", mirror, MIRROR_RIGHT, { "", "", "" } },
    { "no __syncthreads", mirror, MIRROR_NO_BARRIER, { NAN_SEEN, RACE, NAN_SEEN } },
    { "past a static array", mirror, MIRROR_PAST_STATIC, { NULL, NULL, OVER } },
    { "past a global array", mirror, MIRROR_PAST_GLOBAL, { NULL, NULL, OVER } },
    { "one at the barrier", mirror, MIRROR_ONE_AT_BARRIER, { STUCK, STUCK, STUCK } },
    { "unwritten", mirror, MIRROR_UNWRITTEN, { NAN_SEEN, NAN_SEEN, NAN_SEEN } },
    { "mirror, dynamic", mirror_dynamic, MIRROR_RIGHT, { "", "", "" } },
    { "no barrier, dynamic", mirror_dynamic, MIRROR_NO_BARRIER, { NAN_SEEN, RACE, NAN_SEEN } },
    { "past dynamic memory", mirror_dynamic, MIRROR_PAST_DYNAMIC, { KILLED, "SEGV", OVER } },
    { "warps", warps, WARP_RIGHT, { "", "", "" } },
    { "halves of warps", warps, WARP_HALVES, { "", "", "" } },
    { "a divergent shuffle",
      warps,
      WARP_DIVERGENT,
      { "ends that others", "ends that others", "ends that others" } },
    { "a lane that ended",
      warps,
      WARP_ENDED,
      { "ends that others", "ends that others", "ends that others" } },
    { "no __syncwarp", warps, WARP_NO_SYNC, { NULL, RACE, NULL } },
    { "copies", copies, COPY_RIGHT, { "", "", "" } },
    { "a copy not waited for", copies, COPY_NOT_WAITED, { NAN_SEEN, NULL, NAN_SEEN } },
    { "one copy less", copies, COPY_ONE_LESS, { NAN_SEEN, NULL, NAN_SEEN } },
    { "no barrier behind a copy", copies, COPY_NO_SYNC, { NULL, RACE, NULL } },
    { "a copy that stays", copies, COPY_LEFT, { "copied came", "copied came", "copied came" } },
    { "streams", streams, STREAMS_EVENT, { "", "", "" } },
    { "streams, the host between", streams, STREAMS_HOST_WAITS, { "", "", "" } },
    { "two streams without an event", streams, STREAMS_NONE, { "", RACE, "" } },
    { "a copy the host does not wait for", streams, STREAMS_HOST_DOES_NOT, { "", RACE, "" } },
    { "a page that came", spills, SPILL_PUT, { "", "", "" } },
    { "a page that went", spills, SPILL_GET, { "", "", "" } },
    { "a page that is waited for on the device", spills, SPILL_JOINED, { "", "", "" } },
    { "a page that is computed with before it came", spills, SPILL_PUT_NOT_DONE, { "", RACE, "" } },
    { "a page that is written to before it went", spills, SPILL_GET_NOT_DONE, { "", RACE, "" } },
    { "from device to device", devices, DEVICES_EVENT, { "", "", "" } },
    { "from device to device without an event", devices, DEVICES_NO_EVENT, { "", RACE, "" } },
    { "a stream of another device", devices, DEVICES_WRONG, { "", "", "" } },
    { "another device's memory", devices, DEVICES_OTHERS, { KILLED, "SEGV", POISON } },
    { "a peer's memory", devices, DEVICES_PEERS, { "", "", "" } },
    { "a sum over devices", sums, SUMS_RIGHT, { "", "", "" } },
    { "a sum of some of it", sums, SUMS_NOT_ALL, { "", "", "" } },
    { "a sum of what is not there yet", sums, SUMS_TOO_EARLY, { "", RACE, "" } },
    { "a sum that is not waited for", sums, SUMS_NOT_WAITED, { "", RACE, "" } },
    { "kernels that wait", early, 1, { "", "", "" } },
    { "a kernel that is early", early, 0, { "", RACE, "" } },
    { "a count", counts, 1, { "", "", "" } },
    { "a count that is not atomic", counts, 0, { NULL, RACE, NULL } },
    { "a host function that calls",
      calls_back,
      0,
      { "host function of a stream", "host function of a stream", "host function of a stream" } },
};

/* Runs fault i in a process of its own; what it says is cut to len. Returns its status. */
static int run_apart(size_t i, char *said, size_t len)
{
    char name[16], rest[4096];
    size_t got = 0;
    ssize_t n;
    int out[2], status;
    pid_t pid;

    snprintf(name, sizeof(name), "%zu", i);
    assert_int_equal(pipe(out), 0);
    pid = fork();
    if (pid == 0) {
        dup2(out[1], STDERR_FILENO);
        close(out[0]);
        close(out[1]);
        execl("/proc/self/exe", "test_cuda_shim", name, (char *)NULL);
        _exit(5);
    }
    close(out[1]);
    while ((n = read(out[0], got < len - 1 ? said + got : rest,
                     got < len - 1 ? len - 1 - got : sizeof(rest))) > 0)
        got += got < len - 1 ? (size_t)n : 0;
    said[got] = '\0';
    close(out[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void finds_faults(void **state)
{
    static char said[65536];

    (void)state;
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        const char *says = faults[i].says[HERE];
        int status;
        bool well;

        if (!says)
            continue;
        status = run_apart(i, said, sizeof(said));
        well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (strcmp(says, "") == 0)
            expect_that(well && !*said, "%s: ends with %#x and says %s", faults[i].name, status,
                        said);
        else if (strcmp(says, NAN_SEEN) == 0)
            expect_that(WIFEXITED(status) && WEXITSTATUS(status) == 4,
                        "%s: no NaN is seen: %#x, %s", faults[i].name, status, said);
        else if (strcmp(says, KILLED) == 0)
            expect_that(WIFSIGNALED(status), "%s: is not found: %#x", faults[i].name, status);
        else
            expect_that(!well && strstr(said, says), "%s: is not found: %#x, %s", faults[i].name,
                        status, said);
    }
}

/* --- what must work --------------------------------------------------------------------------- */

static void order_of_blocks(void **state)
{
    uint32_t *y = device(sizeof(*y)), host;

    (void)state;
    for (int backwards = 0; backwards < 2; backwards++) {
        shim_set_order(backwards != 0);
        assert_int_equal(faults_last_block(NULL, y, 7), 0);
        assert_int_equal(cudaMemcpy(&host, y, sizeof(host), cudaMemcpyDeviceToHost), 0);
        assert_int_equal(host, backwards ? 0 : 6);
    }
    shim_set_order(false);
    cudaFree(y);
}

static float bf16(float x, uint16_t *ret)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    *ret = (uint16_t)(u >> 16);
    return x;
}

static uint16_t small_half(int v) /* -8 to 8 */
{
    static const uint16_t of[] = {
        0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800
    };

    return (uint16_t)(of[v < 0 ? -v : v] | (v < 0 ? 0x8000 : 0));
}

/* Small whole numbers, so that sums are exact in any order. */
static void products_of_16_bits(void **state)
{
    uint16_t *a = device(512), *b = device(256);
    float *c = device(512);

    (void)state;
    for (int type = 0; type < 2; type++) {
        int va[256], vb[128];

        for (int i = 0; i < 256; i++) {
            va[i] = i * 7 % 17 - 8;
            vb[i % 128] = i * 5 % 13 - 6;
        }
        for (int i = 0; i < 256; i++)
            a[i] = small_half(va[i]);
        for (int i = 0; i < 128; i++) {
            b[i] = small_half(vb[i]);
            c[i] = (float)i;
        }
        for (int i = 0; type == 1 && i < 256; i++)
            bf16((float)va[i], &a[i]);
        for (int i = 0; type == 1 && i < 128; i++)
            bf16((float)vb[i], &b[i]);
        assert_int_equal(faults_mma_16(NULL, type == 1, a, b, c), 0);
        assert_int_equal(cudaDeviceSynchronize(), 0);
        for (int row = 0; row < 16; row++) {
            for (int col = 0; col < 8; col++) {
                int sum = row * 8 + col;

                for (int k = 0; k < 16; k++)
                    sum += va[row * 16 + k] * vb[col * 16 + k];
                assert_true(c[row * 8 + col] == (float)sum);
            }
        }
    }
    cudaFree(a);
    cudaFree(b);
    cudaFree(c);
}

static void products_of_int8(void **state)
{
    int8_t *a = device(512), *b = device(256);
    int32_t *c = device(512);

    (void)state;
    for (uint32_t k = 16; k <= 32; k += 16) {
        for (uint32_t i = 0; i < 16 * k; i++)
            a[i] = (int8_t)(i * 37 % 256 - 128);
        for (uint32_t i = 0; i < 8 * k; i++)
            b[i] = (int8_t)(i * 91 % 255 - 127);
        for (int i = 0; i < 128; i++)
            c[i] = i;
        assert_int_equal(faults_mma_s8(NULL, k, a, b, c), 0);
        assert_int_equal(cudaDeviceSynchronize(), 0);
        for (uint32_t at = 0; at < 128; at++) {
            int sum = (int)at;

            for (uint32_t i = 0; i < k; i++)
                sum += a[at / 8 * k + i] * b[at % 8 * k + i];
            assert_int_equal(c[at], sum);
        }
    }
    cudaFree(a);
    cudaFree(b);
    cudaFree(c);
}

static void matrices(void **state)
{
    uint16_t *rows = device(512);
    uint32_t *to = device(512);

    (void)state;
    for (int trans = 0; trans < 2; trans++) {
        for (uint16_t i = 0; i < 256; i++)
            rows[i] = i;
        assert_int_equal(faults_ldmatrix(NULL, trans != 0, rows, to), 0);
        assert_int_equal(cudaDeviceSynchronize(), 0);
        for (uint32_t lane = 0; lane < 32; lane++) {
            for (uint32_t i = 0; i < 4; i++) {
                uint32_t g = lane / 4, t = lane % 4;
                uint32_t one = trans ? (8 * i + 2 * t) * 8 + g : (8 * i + g) * 8 + 2 * t;

                assert_int_equal(to[lane * 4 + i], one | (one + (trans ? 8 : 1)) << 16);
            }
        }
    }
    cudaFree(rows);
    cudaFree(to);
}

static void mark(void *arg)
{
    ++*(int *)arg;
}

/* Work that is done late: nothing is there before it was waited for, all of it behind. */
static void late(void **state)
{
    float *x, *pinned;
    cudaStream_t a, b;
    cudaEvent_t e;
    int calls = 0, looks = 0;

    (void)state;
    x = device_floats(N);
    shim_set_late(true);
    assert_int_equal(cudaStreamCreate(&a), 0);
    assert_int_equal(cudaStreamCreate(&b), 0);
    assert_int_equal(cudaEventCreate(&e), 0);
    assert_int_equal(cudaMallocHost((void **)&pinned, N * sizeof(float)), 0);
    assert_int_equal(faults_add(a, x, N, true), 0);
    assert_int_equal(cudaEventRecord(e, a), 0);
    assert_int_equal(cudaStreamWaitEvent(b, e, 0), 0);
    assert_int_equal(faults_add(b, x, N, true), 0);
    assert_int_equal(cudaMemcpyAsync(pinned, x, N * sizeof(float), cudaMemcpyDeviceToHost, b), 0);
    assert_int_equal(cudaLaunchHostFunc(b, mark, &calls), 0);
    assert_true(pinned[1] != pinned[1]);
    while (cudaStreamQuery(b) == cudaErrorNotReady)
        looks++;
    assert_int_equal(looks, 3);
    assert_int_equal(calls, 1);
    assert_true(pinned[1] == 3);
    assert_int_equal(cudaStreamDestroy(a), 0);
    assert_int_equal(cudaStreamDestroy(b), 0);
    assert_int_equal(cudaEventDestroy(e), 0);
    shim_set_late(false);
    cudaFreeHost(pinned);
    cudaFree(x);
}

/* Captured with a branch, launched twice, then changed to another length of the same shape. */
static void graphs(void **state)
{
    float *x = device_floats(N), host[N];
    cudaStream_t a, b;
    cudaEvent_t fork_at, join;
    cudaGraph_t g;
    cudaGraphExec_t run;
    cudaGraphExecUpdateResultInfo info;

    (void)state;
    cudaStreamCreate(&a);
    cudaStreamCreate(&b);
    cudaEventCreate(&fork_at);
    cudaEventCreate(&join);
    for (uint32_t n = N; n >= N / 2; n -= N / 2) {
        assert_int_equal(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal), 0);
        assert_int_equal(faults_add(a, x, n, true), 0);
        assert_int_equal(cudaEventRecord(fork_at, a), 0);
        assert_int_equal(cudaStreamWaitEvent(b, fork_at, 0), 0);
        assert_int_equal(faults_add(b, x, n, true), 0);
        assert_int_equal(cudaStreamSynchronize(a), cudaErrorStreamCaptureUnsupported);
        assert_int_equal(cudaEventRecord(join, b), 0);
        assert_int_equal(cudaStreamWaitEvent(a, join, 0), 0);
        assert_int_equal(cudaStreamEndCapture(a, &g), 0);
        if (n == N)
            assert_int_equal(cudaGraphInstantiate(&run, g, 0), 0);
        else
            assert_int_equal(cudaGraphExecUpdate(run, g, &info), 0);
        assert_int_equal(cudaGraphDestroy(g), 0);
        assert_int_equal(cudaGraphLaunch(run, a), 0);
        assert_int_equal(cudaGraphLaunch(run, a), 0);
        assert_int_equal(cudaStreamSynchronize(a), 0);
    }
    assert_int_equal(cudaMemcpy(host, x, sizeof(host), cudaMemcpyDeviceToHost), 0);
    for (uint32_t i = 0; i < N; i++)
        assert_true(host[i] == (float)(i + (i < N / 2 ? 8 : 4)));

    assert_int_equal(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal), 0);
    assert_int_equal(cudaEventRecord(fork_at, a), 0);
    assert_int_equal(cudaStreamWaitEvent(b, fork_at, 0), 0);
    assert_int_equal(faults_add(b, x, N, true), 0);
    assert_int_equal(cudaStreamEndCapture(a, &g), cudaErrorStreamCaptureUnjoined);
    assert_int_equal(cudaGraphExecDestroy(run), 0);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
    cudaEventDestroy(fork_at);
    cudaEventDestroy(join);
    cudaFree(x);
}

static void refusals(void **state)
{
    void *a = NULL, *b = NULL;
    size_t free_bytes, all;

    (void)state;
    shim_set_memory(1000);
    assert_int_equal(cudaMalloc(&a, 600), 0);
    assert_int_equal(cudaMalloc(&b, 600), cudaErrorMemoryAllocation);
    assert_null(b);
    assert_int_equal(cudaMemGetInfo(&free_bytes, &all), 0);
    assert_int_equal(free_bytes, 400);
    assert_int_equal(all, 1000);
    assert_int_equal(cudaFree(a), 0);
    assert_int_equal(cudaFree(&a), cudaErrorInvalidValue);
    shim_set_memory((size_t)1 << 30);
    assert_int_equal(faults_mirror_dynamic(NULL, MIRROR_RIGHT, a, b, 1025), -5); /* threads */
    assert_int_equal(cudaMalloc(&a, 600), 0);
    shim_set_lost(3);
    assert_int_equal(cudaMemset(a, 0, 600), 0); /* two calls */
    assert_int_equal(cudaMemset(a, 0, 600), cudaErrorDevicesUnavailable);
    assert_int_equal(cudaMalloc(&b, 600), cudaErrorDevicesUnavailable);
    assert_int_equal(cudaFree(a), cudaErrorDevicesUnavailable);
    shim_set_lost(0);
    assert_int_equal(cudaMalloc(&a, 600), 0);
    assert_int_equal(cudaFree(a), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_faults),
        cmocka_unit_test(order_of_blocks),
        cmocka_unit_test(products_of_16_bits),
        cmocka_unit_test(products_of_int8),
        cmocka_unit_test(matrices),
        cmocka_unit_test(late),
        cmocka_unit_test(graphs),
        cmocka_unit_test(refusals),
    };

    if (argc == 2) {
        const struct rlimit none = { 0, 0 };
        const struct fault *f = &faults[atoi(argv[1])];

        setrlimit(RLIMIT_CORE, &none);
        f->run(f->how);
        _exit(0);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
