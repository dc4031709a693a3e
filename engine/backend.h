/* engine/backend.h - who computes: the CPU, or a device that has the weights and the pool in its
 * own memory.
 *
 * The cut is the whole step. Above it, and on the host for every backend: tokenizer, sequences,
 * page tables, the pool's accounts, which keys a compressor keeps, what sampling does with logits.
 * Below it: all that reads a weight or a key.
 *
 *     host      runs -> plan (rows, segments, pages)     logits -> sampler     kept lists
 *     ------------------|-----------------------------------^---------------------|--------
 *     backend   put -> weights, pool pages;  step(plan) -> outputs;  copy_page, move, fit
 *
 * A pointer to a backend's memory is an address there: tensors of a model, an adapter's matrices,
 * the pool, weights of observers, hidden states. Only put, get, clear and the backend itself may
 * look behind it, also where the CPU could: tests run on a backend whose memory the host may not
 * touch. A backend that is NULL stands for memory of the process, for programs that compute by
 * themselves, as the trainer does: alloc, put, get, clear, free, run work on it.
 *
 * Several devices of one kind are one backend. Each has some layers of the model or a part of each,
 * the same of every page (engine/divide.h), and a copy of all other memory; what a step writes of a
 * layer or a head is in its device's copy alone, and get_layers finds it there.
 *
 * A ticket counts asynchronous copies, upwards from 1: host memory may be reused when done says so.
 * What copies, clears and frees later waits for them; what computes (step, move, norms, fit) does
 * not, so that it goes on beside them: until it is done nothing is computed with memory that a put
 * is for, and nothing writes to that which a get is from. Without a place for a ticket the call
 * waits.
 *
 * Threads    one, the scheduler's, which may be the backend's worker too. run's slices run on any.
 * Ownership  backend_open's caller closes; memory is freed before that. set_model borrows the
 * model.
 * Errors     -ENOMEM, -ECANCELED, -EIO (the device is lost: nothing of it can be used any more, but
 * free, and reopen).
 */
#ifndef ENGINE_BACKEND_H
#define ENGINE_BACKEND_H

#include "base/why.h"
#include "engine/device_list.h"
#include "engine/kv/page.h"
#include "engine/sampler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BACKEND_ABI 6u
struct backend;
struct backend_fit;
struct forward_stop;
struct model;
struct plan;
struct pool;

struct backend_options {
    struct backend_devices devices;
    enum backend_split split;       /* of several */
    const char *cpu;                /* kernels of the CPU: a name, or "auto" */
    uint32_t threads;               /* 0: one a CPU */
    bool pin;                       /* each thread to a CPU */
    uint32_t max_rows;              /* of a step */
    uint32_t max_pages;             /* of its plan; need alone asks */
    const struct backend_ops *host; /* the CPU's, for others' host work; backend_open fills it in */
    uint32_t segment; /* tokens of the segments that are fitted; need alone asks; 0: none are */
};

struct backend_info {
    char name[64];    /* "cpu (avx2)" */
    const char *cpu;  /* the table of kernels that the host's part uses */
    uint32_t threads; /* of the host */
    int owner_cpu;    /* that the others leave to who opened it (base/seat.h); -1: none */
    bool exact_rows;  /* what comes of a row is the same to the bit, whatever else is in the step */
    size_t scratch_bytes;         /* so far: no more than need says, of each device, but for desks
                                   * of longer segments than need was told of */
    uint64_t memory, memory_free; /* of devices that have their own; 0: it is this machine's */
    const struct sampler_math *sampling;
    uint32_t n_devices; /* 0: one */
    enum backend_split split;
    struct backend_device devices[BACKEND_DEVICES_MAX];
};

/* Keys of one segment, as a compressor has them moved. It decides on the host which keys stay, as
 * lists of their places. A key is stored rotated by its place in its segment, so a move turns it by
 * the way that it goes. Values are copied, and so is a key that keeps its place: the same bits,
 * from page to page.
 *
 *     from   | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |        kept = 0, 3, 7
 *              |           |               |
 *     to     | 0 | 1 | 2 |     place 1 holds key 3, turned back by 2
 */
struct backend_move {
    const struct pool *pool;
    const uint32_t *from, *to; /* pages. The same ones: kept ascends, and of the keys that move all
                                * go to lower places, or all to higher ones */
    const uint32_t *kept;      /* (lists, n_keys): key i comes from place kept[i] */
    bool per_head;             /* lists: n_layer * n_head_kv, else 1 */
    uint32_t first, n_keys;    /* keys [first, n_keys) are moved */
};

typedef void backend_slice_fn(void *arg, uint32_t slice, uint32_t worker);

struct backend_ops {
    uint32_t abi, size; /* BACKEND_ABI and sizeof(struct backend_ops): of a plug-in, checked */
    const char *name;

    /* Whether such devices are here: 0, and of all which these are, or -ENODEV and what is missing.
     * NULL: there is one, always. */
    int (*look)(struct backend_devices *devices, struct why *why);
    /* Bytes of scratch that a backend opened so will have at most, each device, for all that it is
     * asked later: of the model only the shapes are looked at. No device has to be there. */
    int (*need)(const struct backend_options *o, const struct model *m, uint64_t *ret,
                struct why *why);
    int (*open)(const struct backend_options *o, struct backend **ret, struct why *why);
    void (*close)(struct backend *b);
    void (*info)(const struct backend *b, struct backend_info *ret);

    /* Whether it failed with -EIO; NULL: it never does. reopen: it is as behind open, if all of its
     * memory was freed before; after an error, a sentence, it may be asked again. */
    bool (*lost)(const struct backend *b);
    int (*reopen)(struct backend *b, struct why *why);
    /* Zeroed, at a multiple of 4096. lock: sees that it can't be swapped out; -errno when that is
     * not allowed. host: where the host may write it itself, or NULL: put is the only way. */
    int (*alloc)(struct backend *b, size_t n, void **ret);
    void (*free)(struct backend *b, void *mem, size_t n);
    /* Sees that memory is there, which alloc may only have promised: -ENOMEM now, where a first use
     * later would end the process. NULL: it always is. */
    int (*populate)(struct backend *b, void *mem, size_t n);
    int (*lock)(struct backend *b, void *mem, size_t n);
    /* Host memory that copies with a ticket go from and to by themselves until unpin, which waits
     * for them, or reopen; -errno: they go as ever. NULL: nothing is gained. */
    int (*pin)(struct backend *b, void *mem, size_t n);
    void (*unpin)(struct backend *b, void *mem, size_t n);
    /* Memory that a descriptor stands for and that outlives the process with it; all NULL where a
     * backend has none, and then alloc_kept and map_kept are -ENOTSUP. alloc_kept: as alloc, but
     * all of it is there. seal_kept: the bytes stay as they are for ever, for all who have the
     * descriptor, and at the same address; -EFAULT: they are not there any more, other errors leave
     * them as they were. map_kept: memory that was sealed: -EPERM when it is not,
     * -EINVAL when it has another length. free as ever; the descriptor is the caller's. */
    int (*alloc_kept)(struct backend *b, size_t n, void **ret, int *ret_fd);
    int (*seal_kept)(struct backend *b, void *mem, size_t n, int fd);
    int (*map_kept)(struct backend *b, int fd, size_t n, void **ret);
    void *(*host)(struct backend *b, void *mem);
    int (*put)(struct backend *b, void *to, const void *host, size_t n, uint64_t *ret_ticket);
    int (*get)(struct backend *b, void *host, const void *from, size_t n, uint64_t *ret_ticket);
    int (*clear)(struct backend *b, void *mem, size_t n);
    /* 1: done; 0: not yet; -EIO: it never will be, and what a get was for is not there. */
    int (*done)(struct backend *b, uint64_t ticket);
    /* Readable when a ticket is done, until it is read; -1: all is done at once. A device that is
     * lost may never ring: who waits asks done now and then. */
    int (*eventfd)(struct backend *b);

    /* The model is what weights_read put there, and stays. Opens scratch for steps. */
    int (*set_model)(struct backend *b, const struct model *m, struct why *why);

    /* One forward pass. Outputs, the normed last hidden states of the rows that are wanted, stay
     * until the next. stop (may be NULL) is asked between layers. The plan is looked at until then,
     * too. */
    int (*step)(struct backend *b, const struct plan *plan, const struct forward_stop *stop);
    /* Of outputs [first, first + n): logits (n, n_vocab); log p(ids[i]) of output first + i, NaN
     * where some logit of the row is no number; and the outputs, to memory of the backend's (n,
     * n_embd). */
    int (*logits)(struct backend *b, uint32_t first, uint32_t n, float *host);
    int (*logprobs)(struct backend *b, uint32_t first, uint32_t n, const uint32_t *ids,
                    float *host);
    int (*hidden)(struct backend *b, uint32_t first, uint32_t n, float *to);
    /* What they are sampled from (engine/sampler.h), instead of logits; NULL: those are as near.
     * ret_c: (n, SAMPLER_CANDIDATES_MAX); a row with more has none there. */
    int (*pick)(struct backend *b, uint32_t first, uint32_t n, const struct sampler_ask *asks,
                struct sampler_found *ret, struct sampler_candidate *ret_c);

    int (*copy_page)(struct backend *b, const struct pool *p, uint32_t from, uint32_t to);
    int (*move)(struct backend *b, const struct backend_move *m);
    /* host (n_layer * n_head_kv, n_keys): the sum of squares of each key in those pages. */
    int (*norms)(struct backend *b, const struct pool *p, const uint32_t *pages, uint32_t n_keys,
                 float *host);
    /* engine/fit.h. As many of the first lists as take some milliseconds, at least one: how many.
     */
    int (*fit)(struct backend *b, const struct backend_fit *f);

    /* Host work by the backend's host threads: fn(arg, slice, worker) for every slice of [0, n), in
     * any order; worker < threads. rest: no work is expected soon. */
    void (*run)(struct backend *b, backend_slice_fn *fn, void *arg, uint32_t n);
    void (*rest)(struct backend *b);

    /* Memory of alloc, at multiples of 4096, which nobody uses: it is not taken from the machine
     * until it is written again, and zero until then. -errno: it stays. NULL: no part of what alloc
     * gave can be given back without the rest. */
    int (*discard)(struct backend *b, void *mem, size_t n);

    /* As alloc, for several devices; all three NULL: there is one at most. Weights: of a model
     * whose shape is known (engine/file/packed.h); from then on it is known which layers a device
     * has. Pages: of a pool that is but for mem and the tables. get_layers: from is (layers, len),
     * where steps wrote it; of a layer, heads one behind the other, each as long. */
    int (*alloc_weights)(struct backend *b, const struct model *m, void **ret, struct why *why);
    int (*alloc_pages)(struct backend *b, const struct pool *p, void **ret);
    int (*get_layers)(struct backend *b, void *host, const void *from, size_t len);
};

/* Every backend begins with this. */
struct backend {
    const struct backend_ops *ops;
};
extern const struct backend_ops backend_cpu;

/* By the names of engine/devices.h. The device is there, or -ENODEV; "auto" without one is the CPU,
 * and then why says what was missing though 0 is returned. */
int backend_find(const char *name, const struct backend_ops **ret,
                 struct backend_devices *ret_devices, struct why *why);
int backend_open(const struct backend_ops *ops, const struct backend_options *o,
                 struct backend **ret, struct why *why);
void backend_close(struct backend *b);

/* b may be NULL: memory of the process. */
int backend_alloc(struct backend *b, size_t n, void **ret);
void backend_free(struct backend *b, void *mem, size_t n);
int backend_populate(struct backend *b, void *mem, size_t n);
int backend_discard(struct backend *b, void *mem, size_t n); /* -ENOTSUP */
int backend_alloc_kept(struct backend *b, size_t n, void **ret, int *ret_fd);
int backend_map_kept(struct backend *b, int fd, size_t n, void **ret);
void *backend_host(struct backend *b, void *mem);
int backend_put(struct backend *b, void *to, const void *host, size_t n);
int backend_get(struct backend *b, void *host, const void *from, size_t n);
int backend_clear(struct backend *b, void *mem, size_t n);
int backend_alloc_weights(struct backend *b, const struct model *m, void **ret, struct why *why);
int backend_alloc_pages(struct backend *b, const struct pool *p, void **ret);
int backend_get_layers(struct backend *b, void *host, const void *from, uint32_t n_layers,
                       size_t len);
int backend_copy_page(struct backend *b, const struct pool *p, uint32_t from, uint32_t to);
void backend_run(struct backend *b, backend_slice_fn *fn, void *arg, uint32_t n);

#endif
