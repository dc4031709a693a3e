/* cuda/rt.h - the door to the runtime of a device: memory, copies, streams, events.
 *
 * Two stand behind it, by the same names: CUDA's, and for machines without a GPU the shim's
 * (cuda/shim/shim.h), which runs the same kernels on the CPU. Which one is decided when a library
 * is built; cuda/nv/ and cuda/shim/ have what is not the same.
 *
 * Work of a stream is done in its order. Between streams only events order: rt_record marks where a
 * stream is now, rt_follow lets another one wait for the mark.
 *
 * Several devices are several of these, side by side. CUDA keeps which one is meant for each thread
 * by itself: rt_use says it, and comes before kernels that are launched on a stream of rt_stream.
 *
 * Threads    one at a time, but for what rt_call calls: a thread of the runtime's, which may call
 *            nothing of this header.
 * Ownership  all that was made here is unmade before rt_close.
 * Errors     -ENOMEM: the device has no memory for it. -EIO: anything else, and then nothing of
 *            the device can be used any more.
 */
#ifndef CUDA_RT_H
#define CUDA_RT_H

#include "base/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rt;
struct rt_event;
struct rt_graph;

enum rt_stream {
    RT_COMPUTE,
    RT_COPY,  /* to and from the host, for what computes */
    RT_SPILL, /* the same for pages that nothing computes with meanwhile */
    RT_STREAM__N
};

struct rt_info {
    char name[48];
    uint64_t bytes, bytes_free; /* of its memory; 0: it is the process's */
};

extern const char rt_name[];     /* of what stands behind the door: "cuda" */
extern const bool rt_has_memory; /* of its own */

/* Whether device n is here: 0, or -ENODEV and what is missing. */
int rt_look(unsigned n, struct why *why);
/* How many there are. */
int rt_count(unsigned *ret, struct why *why);
int rt_open(unsigned n, struct rt **ret, struct why *why);
void rt_close(struct rt *r);
/* Behind rt_close of a device that was lost: what is left of it in this process goes, so that it
 * can be opened again. */
void rt_reset(unsigned n);
void rt_info(const struct rt *r, struct rt_info *ret);
/* Bytes of memory that a device can still give, be it the process's. */
uint64_t rt_left(const struct rt *r);
/* What this thread launches is this device's from now on. */
int rt_use(const struct rt *r);

/* The device's memory, at a multiple of 4096; its bytes are anything. */
int rt_alloc(struct rt *r, size_t n, void **ret);
void rt_free(struct rt *r, void *mem);
/* The host's, which a device can read and write beside other work. */
int rt_alloc_host(struct rt *r, size_t n, void **ret);
void rt_free_host(struct rt *r, void *mem);
/* The same of memory that is there already, at a multiple of 4096, until rt_unpin. -ENOMEM: the
 * system pins no more of it. */
int rt_pin(struct rt *r, void *mem, size_t n);
void rt_unpin(struct rt *r, void *mem);
/* It was pinned by way of another device: that goes for all of them. Before that one unpins it,
 * rt_unpin is called here. */
int rt_pin_too(struct rt *r, void *mem, size_t n);
/* All of it was. */
bool rt_is_pinned(const struct rt *r, const void *mem, size_t n);

/* Asynchronous where the host's side is memory of rt_alloc_host or of rt_pin. */
int rt_put(struct rt *r, enum rt_stream s, void *to, const void *host, size_t n);
int rt_get(struct rt *r, enum rt_stream s, void *host, const void *from, size_t n);
int rt_copy(struct rt *r, enum rt_stream s, void *to, const void *from, size_t n);
int rt_clear(struct rt *r, enum rt_stream s, void *mem, size_t n);
/* From another device's memory to ours, where rt_reaches says that the two can. */
bool rt_reaches(const struct rt *r, const struct rt *other);
int rt_copy_from(struct rt *r, enum rt_stream s, void *to, const struct rt *other, const void *from,
                 size_t n);
/* fn(arg) when all that came before is done. */
int rt_call(struct rt *r, enum rt_stream s, void (*fn)(void *arg), void *arg);

int rt_event_open(struct rt *r, struct rt_event **ret);
void rt_event_close(struct rt *r, struct rt_event *e);
int rt_record(struct rt *r, enum rt_stream s, struct rt_event *e);
int rt_follow(struct rt *r, enum rt_stream s, struct rt_event *e);
/* 0: all before its mark is done; -EAGAIN: not yet. */
int rt_event_done(struct rt *r, struct rt_event *e);
int rt_event_wait(struct rt *r, struct rt_event *e);
/* Until all of the stream is done. */
int rt_wait(struct rt *r, enum rt_stream s);

/* What is queued on the computing stream between the two is not done but kept, to be queued as a
 * whole: its launches cost the host one call then. Pointers are kept, too, and must stay good.
 * After rt_keep rt_kept is called in any case; ret NULL: what there is so far is dropped. */
int rt_keep(struct rt *r);
int rt_kept(struct rt *r, struct rt_graph **ret);
int rt_queue(struct rt *r, struct rt_graph *g);
void rt_graph_close(struct rt *r, struct rt_graph *g);

/* What kernels are launched on (cudaStream_t). */
void *rt_stream(struct rt *r, enum rt_stream s);

#endif
