/* cuda/shim/shim.h - a GPU for tests: kernels run on the CPU, as the language promises and no
 * better.
 *
 * The very same .cu is compiled by nvcc, or as C++ by g++ with cuda/shim/device.h. A block's
 * threads are fibres of the calling thread; at a barrier or a shuffle one gives way to the next.
 * What is undefined on a GPU is an error or a NaN here:
 *
 *     a lane that does not come to a shuffle, a barrier that not all reach     ends the program
 *     memory that nobody wrote: device, shared, what cp.async still brings     is NaN (0xff)
 *     a write and a read without __syncthreads or __syncwarp between them      a race to TSan
 *     work of two streams, or of a stream and the host, without an event       a race to TSan
 *     what an earlier kernel wrote, looked at before grid_wait()               a race to TSan
 *     an index past shared or device memory                                    found by ASan
 *     results that depend on the order of blocks                               shim_set_order
 *     a kernel that touches another device's memory without peer access        SIGSEGV, or to ASan
 *     a kernel in a stream of a device that its thread has not set             an error
 *
 * For the sanitizers kernels and tests are compiled with -fsanitize, the shim is not: it is the
 * hardware, and says to TSan what orders memory and what does not. A shuffle does not.
 *
 *     stream --launch--> machine (one of two: kernels of a stream may overlap)
 *                          block --> fibres 0 .. 1023, in warps of 32     shared memory of its own
 *
 * Blocks of a launch follow one another, so a race between two blocks is not seen but by their
 * order: run both and compare bits.
 *
 * Threads    one at a time; who comes second waits.
 * Errors     of a kernel: a sentence on stderr, and the end. Of a call: CUDA's codes.
 */
#ifndef CUDA_SHIM_SHIM_H
#define CUDA_SHIM_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHIM_THREADS_MAX 1024u
#define SHIM_COPIES_MAX  64u
#define SHIM_DEVICES     4u
/* Shared memory of a block on the smallest of the targets (sm_89, sm_120). */
#define SHIM_SHARED_MAX (99u << 10)

struct shim_dim {
    unsigned x, y, z;
};

struct shim_copy {
    void *to;
    const void *from;
    unsigned group;
};

/* What a kernel's thread knows of itself. */
struct shim_thread {
    struct shim_dim thread;
    unsigned warp, lane;
    bool waited; /* grid_wait was called */
    unsigned n_copies, n_groups;
    struct shim_copy copies[SHIM_COPIES_MAX];
};

struct shim_block {
    struct shim_dim block, grid, dim;
    void *dynamic;
};

extern struct shim_thread *shim_self;
extern struct shim_block shim_now;

/* --- of kernels ------------------------------------------------------------------------------- */

void shim_barrier(void);

/* What all lanes of a mask do together. All but SYNCWARP: in and out are a lane's registers. */
enum shim_op {
    SHIM_SYNCWARP,
    SHIM_SHUFFLE_XOR,
    SHIM_SHUFFLE,
    SHIM_BALLOT,
    SHIM_ROWS,       /* ldmatrix: in is 16 bytes, a row; out four registers */
    SHIM_ROWS_TRANS, /* and transposed */
    SHIM_MMA_F16,    /* m16n8k16: in is a[4], b[2], c[4]; out d[4] */
    SHIM_MMA_BF16,
    SHIM_MMA_S8_K16, /* m16n8k16 of int8: a[2], b[1], c[4]; at the same places as above */
    SHIM_MMA_S8_K32  /* m16n8k32: a[4], b[2], c[4] */
};
#define SHIM_REGS 10u
void shim_together(unsigned mask, enum shim_op op, unsigned arg, const uint32_t *in, unsigned n_in,
                   uint32_t *ret, unsigned n_ret);

/* Static shared memory: tag says which array. NaN when the block starts. */
void *shim_static(const void *tag, size_t len);

void shim_grid_wait(void);

/* Ends the program: a kernel broke a rule. */
void shim_fail(const char *what) __attribute__((noreturn));

/* --- of launches and tests -------------------------------------------------------------------- */

/* Puts a kernel into a stream: fn(arg) for every thread, arg copied. A cudaError_t. */
int shim_launch(void *stream, struct shim_dim grid, struct shim_dim dim, size_t shared,
                void (*fn)(const void *arg), const void *arg, size_t arg_len);

/* Blocks and threads from the last to the first. */
void shim_set_order(bool backwards);
/* Work waits until somebody asks for its end, as late as it may be: what did not wait sees NaN. */
void shim_set_late(bool late);
/* Device memory in bytes, of each device, for cudaMalloc to come to its end. */
void shim_set_memory(size_t bytes);
/* Bytes of host memory that cudaHostRegister pins at most, all together. */
void shim_set_pinned(size_t bytes);
/* Whether devices can have each other's memory; what they were given stays. */
void shim_set_peers(bool can);
/* Whether copies between devices bring something else, without an error. */
void shim_set_astray(bool astray);
/* The n-th call from now on that could find the devices lost does, and all later ones do; 0: never.
 * Kernels and copies that are under way then are not done. */
void shim_set_lost(unsigned n);

#ifdef __cplusplus
}
#endif

#endif
